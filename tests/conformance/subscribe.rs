//! SUB: what is subscribed is state. Counted, effective at once, and never lost, however much it is.

use std::time::Duration;

use futures::{StreamExt, poll};
use sinew::{RecvError, SubSocket, TryRecvError};

use crate::common::raw::*;
use crate::common::topics::*;
use crate::common::*;

crate::behaviours! {
    without_a_subscription_nothing_arrives,
    as_many_unsubscribes_as_subscribes_are_needed,
    unsubscribing_what_is_not_subscribed_does_nothing,
    an_overlapping_subscription_is_not_touched,
    unsubscribing_holds_for_what_has_arrived_already,
    unsubscribing_holds_for_what_still_comes,
    what_nobody_asked_for_is_skipped,
    a_waiting_recv_is_not_woken_for_what_was_not_asked_for,
    inverted_subscribers_take_what_does_not_match,
    subscriptions_may_change_while_a_stream_is_read,
    every_way_to_receive_gives_the_same,
    a_received_message_names_the_publisher_that_sent_it,
    publishers_are_heard_in_turn,
    a_hundred_thousand_subscriptions_from_before_connecting_arrive,
    a_hundred_thousand_subscriptions_from_right_after_connecting_arrive,
    a_hundred_thousand_subscriptions_made_while_connected_arrive,
    a_hundred_thousand_subscriptions_arrive_again_after_a_reconnect,
    subscriptions_reach_publishers_that_are_added_later,
    what_is_unsubscribed_while_nobody_is_there_stays_so,
    disconnecting_leaves_nothing_at_the_publisher,
    a_closed_subscriber_says_so,
    connecting_twice_to_an_endpoint_brings_everything_once,
    unsubscribing_holds_in_the_middle_of_a_flood,
    a_thousand_nested_prefixes_are_no_trouble,
}

/// A SUB and a raw publisher that has come to it.
async fn raw_feed(place: &Place, subscriber: &SubSocket) -> Raw {
    let endpoint = within(subscriber.bind(place.wildcard())).await.unwrap();
    let publisher = Raw::peer(&endpoint, READY_PUB).await;
    within(subscriber.wait_connected(1)).await.unwrap();
    publisher
}

async fn without_a_subscription_nothing_arrives(place: Place) {
    let subscriber = new_sub();
    let mut publisher = raw_feed(&place, &subscriber).await;
    publisher.send(&frame(0, b"A").repeat(100)).await;
    publisher.send(&ping(b"read?")).await;
    assert!(publisher.frame().await.unwrap().body.ends_with(b"read?"));
    assert_eq!(subscriber.try_recv(), Err(TryRecvError::Empty));
}

async fn as_many_unsubscribes_as_subscribes_are_needed(place: Place) {
    let (publisher, endpoint) = bound_pub(&place, pub_builder()).await;
    let subscriber = subscriber(&endpoint, &["A", "A", "A", "M"]);
    publisher.known("A", 1).await;
    for left in [2, 1, 0] {
        subscriber.unsubscribe("A");
        if left == 0 {
            eventually(|| publisher.subscriptions() == 1).await;
        }
        publisher.known("M", 1).await;
        publisher.say("A").await;
        publisher.say("M").await;
        let expected: &[&str] = if left == 0 { &[] } else { &["A"] };
        assert_eq!(texts_until(&subscriber, "M").await, expected, "{left} left");
    }
    subscriber.subscribe("A");
    publisher.known("A", 1).await;
    publisher.say("A").await;
    assert_eq!(subscriber.next().await, "A".into());
}

async fn unsubscribing_what_is_not_subscribed_does_nothing(place: Place) {
    let (publisher, endpoint) = bound_pub(&place, pub_builder()).await;
    let subscriber = new_sub();
    subscriber.unsubscribe("A");
    subscriber.unsubscribe("");
    subscriber.connect(&endpoint).unwrap();
    subscriber.unsubscribe("A");
    // What was taken too often is not owed.
    subscriber.subscribe("A");
    subscriber.unsubscribe("AB");
    subscriber.unsubscribe("");
    publisher.known("AB", 1).await;
    publisher.say("AB").await;
    assert_eq!(subscriber.next().await, "AB".into());
}

async fn an_overlapping_subscription_is_not_touched(place: Place) {
    let (publisher, endpoint) = bound_pub(&place, pub_builder()).await;
    let subscriber = subscriber(&endpoint, &["a", "ab", "abc", "M"]);
    eventually(|| publisher.subscriptions() == 4).await;
    for (gone, left, heard) in [("ab", 3, 3), ("a", 2, 1), ("abc", 1, 0)] {
        subscriber.unsubscribe(gone);
        eventually(|| publisher.subscriptions() == left).await;
        for text in ["abc", "ab", "a", "M"] {
            publisher.say(text).await;
        }
        assert_eq!(texts_until(&subscriber, "M").await, ["abc", "ab", "a"][..heard], "without {gone}");
    }
}

async fn unsubscribing_holds_for_what_has_arrived_already(place: Place) {
    let subscriber = new_sub();
    ["A", "A", "B"].iter().for_each(|topic| subscriber.subscribe(topic));
    let mut publisher = raw_feed(&place, &subscriber).await;
    for text in ["A", "B", "A", "AB", "B"] {
        publisher.send(&frame(0, text.as_bytes())).await;
    }
    eventually(|| subscriber.stats().messages_received == 5).await;
    subscriber.unsubscribe("A");
    assert_eq!(subscriber.next().await, "A".into());
    subscriber.unsubscribe("A");
    assert_eq!(texts(&subscriber, 2).await, ["B", "B"]);
    assert_eq!(subscriber.try_recv(), Err(TryRecvError::Empty));
}

async fn unsubscribing_holds_for_what_still_comes(place: Place) {
    let subscriber = new_sub();
    subscriber.subscribe("A");
    let mut publisher = raw_feed(&place, &subscriber).await;
    publisher.send(&frame(0, b"A1")).await;
    assert_eq!(subscriber.next().await, "A1".into());
    subscriber.unsubscribe("A");
    subscriber.subscribe("M");
    // This publisher does not heed it.
    publisher.send(&[frame(0, b"A2"), frame(MORE, b"A3"), frame(0, b"M"), frame(0, b"M")].concat()).await;
    assert_eq!(subscriber.next().await, "M".into());
    assert_eq!(subscriber.try_recv(), Err(TryRecvError::Empty));
}

async fn what_nobody_asked_for_is_skipped(place: Place) {
    // More than the mark: what is skipped takes no room for good.
    let subscriber = sub_builder().receive_high_water_mark(10).build().unwrap();
    subscriber.subscribe("M");
    let mut publisher = raw_feed(&place, &subscriber).await;
    let (mut wire, mut expected) = (Vec::new(), Vec::new());
    for number in 0..20 {
        wire.extend(frame(0, b"unasked").repeat(500));
        wire.extend(frame(0, format!("M{number}").as_bytes()));
        expected.push(format!("M{number}"));
    }
    let (received, ()) = tokio::join!(texts(&subscriber, 20), publisher.send(&wire));
    assert_eq!(received, expected);
}

async fn a_waiting_recv_is_not_woken_for_what_was_not_asked_for(place: Place) {
    let subscriber = new_sub();
    subscriber.subscribe("M");
    let mut publisher = raw_feed(&place, &subscriber).await;
    let mut receiving = Box::pin(subscriber.recv());
    assert!(poll!(&mut receiving).is_pending());
    publisher.send(&[frame(0, b"unasked").repeat(1_000), ping(b"read?")].concat()).await;
    while !publisher.frame().await.unwrap().body.ends_with(b"read?") {}
    assert!(poll!(&mut receiving).is_pending());
    publisher.send(&frame(0, b"M")).await;
    assert_eq!(within(receiving).await.unwrap(), "M".into());
}

async fn inverted_subscribers_take_what_does_not_match(place: Place) {
    let subscriber = sub_builder().invert_matching(true).build().unwrap();
    ["A", "B"].iter().for_each(|topic| subscriber.subscribe(topic));
    let mut publisher = raw_feed(&place, &subscriber).await;
    for text in ["A", "C", "B1", "", "AB", "end"] {
        publisher.send(&frame(0, text.as_bytes())).await;
    }
    assert_eq!(texts_until(&subscriber, "end").await, ["C", ""]);
}

async fn subscriptions_may_change_while_a_stream_is_read(place: Place) {
    let (publisher, endpoint) = bound_pub(&place, pub_builder()).await;
    let subscriber = subscriber(&endpoint, &["0"]);
    let mut messages = subscriber.stream();
    for round in 0..50 {
        publisher.known(round.to_string(), 1).await;
        publisher.say(round.to_string()).await;
        assert_eq!(within(messages.next()).await.unwrap(), round.to_string().into());
        subscriber.subscribe((round + 1).to_string());
        subscriber.unsubscribe(round.to_string());
    }
}

async fn every_way_to_receive_gives_the_same(place: Place) {
    let subscriber = new_sub();
    ["A", "B"].iter().for_each(|topic| subscriber.subscribe(topic));
    let mut publisher = raw_feed(&place, &subscriber).await;
    for round in 0..4 {
        for text in ["x", "A1", "y", "B1", "A2", "z"] {
            publisher.send(&frame(0, text.as_bytes())).await;
        }
        let mut received = Vec::new();
        while received.len() < 3 {
            match round {
                0 => received.push(within(subscriber.recv()).await.unwrap()),
                1 => received.push(within(subscriber.recv_from()).await.unwrap().0),
                2 => received.push(within(subscriber.stream().next()).await.unwrap()),
                _ => assert_ne!(within(subscriber.recv_many(&mut received, 2)).await.unwrap(), 0),
            }
        }
        assert_eq!(received, ["A1".into(), "B1".into(), "A2".into()]);
    }
}

async fn a_received_message_names_the_publisher_that_sent_it(place: Place) {
    let subscriber = new_sub();
    subscriber.subscribe("");
    let (first, at_first) = bound_pub(&place, pub_builder()).await;
    let (second, at_second) = bound_pub(&place, pub_builder()).await;
    subscriber.connect(&at_first).unwrap();
    subscriber.connect(&at_second).unwrap();
    for publisher in [&first, &second] {
        publisher.known("", 1).await;
    }
    let mut ids = Vec::new();
    for (publisher, endpoint) in [(&first, at_first), (&second, at_second)] {
        publisher.say("news").await;
        let (message, peer) = within(subscriber.recv_from()).await.unwrap();
        assert_eq!((message, &peer.endpoint), ("news".into(), &endpoint));
        ids.push(peer.id);
    }
    assert_ne!(ids[0], ids[1]);
    let mut listed = subscriber.peers().iter().map(|peer| peer.peer.id).collect::<Vec<_>>();
    listed.sort();
    ids.sort();
    assert_eq!(ids, listed);
}

async fn publishers_are_heard_in_turn(place: Place) {
    let subscriber = sub_builder().receive_high_water_mark(10).build().unwrap();
    subscriber.subscribe("");
    let endpoint = within(subscriber.bind(place.wildcard())).await.unwrap();
    let mut publishers = Vec::new();
    for name in [b"A", b"B"] {
        let mut publisher = Raw::peer(&endpoint, READY_PUB).await;
        publisher.frame().await.unwrap();
        publishers.push(tokio::spawn(async move {
            let wire = frame(0, name).repeat(1_000);
            while publisher.try_send(&wire).await.is_ok() {}
        }));
    }
    within(subscriber.wait_connected(2)).await.unwrap();
    settled(|| subscriber.stats().messages_received).await;
    let received = texts(&subscriber, 4_000).await;
    let first = received.iter().filter(|text| *text == "A").count();
    assert!((1_000..=3_000).contains(&first), "{first} of 4,000 are of one of two publishers");
    publishers.iter().for_each(|publisher| publisher.abort());
}

const MANY: usize = 100_000;

fn subscribe_to_many(subscriber: &SubSocket) {
    for number in 0..MANY {
        subscriber.subscribe(format!("topic {number}."));
    }
}

/// Waits until a publisher knows them all, and has them right.
async fn many_are_known(publisher: &impl Publisher, subscriber: &SubSocket) {
    // However long all of them take, there are always some more.
    let mut known = 0;
    while known < MANY {
        eventually(|| publisher.subscriptions() > known).await;
        known = publisher.subscriptions();
    }
    assert_eq!(known, MANY);
    publisher.known(format!("topic {}.", MANY - 1), 1).await;
    let samples = (0..MANY).step_by(MANY / 100).map(|number| format!("topic {number}."));
    for topic in samples.clone() {
        publisher.say(&topic[..topic.len() - 1]).await; // one byte short
        publisher.say(topic).await;
    }
    for topic in samples {
        assert_eq!(text(&subscriber.next().await), topic);
    }
}

async fn a_hundred_thousand_subscriptions_from_before_connecting_arrive(place: Place) {
    let (publisher, endpoint) = bound_pub(&place, pub_builder()).await;
    let subscriber = new_sub();
    subscribe_to_many(&subscriber);
    subscriber.connect(&endpoint).unwrap();
    many_are_known(&publisher, &subscriber).await;
}

async fn a_hundred_thousand_subscriptions_from_right_after_connecting_arrive(place: Place) {
    let (publisher, endpoint) = bound_pub(&place, pub_builder()).await;
    let subscriber = new_sub();
    subscriber.connect(&endpoint).unwrap();
    subscribe_to_many(&subscriber);
    many_are_known(&publisher, &subscriber).await;
}

async fn a_hundred_thousand_subscriptions_made_while_connected_arrive(place: Place) {
    let (publisher, endpoint) = bound_pub(&place, pub_builder()).await;
    let subscriber = new_sub();
    subscriber.connect(&endpoint).unwrap();
    within(subscriber.wait_connected(1)).await.unwrap();
    subscribe_to_many(&subscriber);
    many_are_known(&publisher, &subscriber).await;
}

async fn a_hundred_thousand_subscriptions_arrive_again_after_a_reconnect(place: Place) {
    let endpoint = place.fresh();
    let subscriber = new_sub();
    subscriber.connect(&endpoint).unwrap();
    subscribe_to_many(&subscriber);
    for _ in 0..2 {
        let publisher = new_pub();
        within(publisher.bind(&endpoint)).await.unwrap();
        many_are_known(&publisher, &subscriber).await;
        within(publisher.close()).await.unwrap();
    }
}

async fn subscriptions_reach_publishers_that_are_added_later(place: Place) {
    let subscriber = new_sub();
    subscriber.subscribe("A");
    for round in 0..5 {
        let (publisher, endpoint) = bound_pub(&place, pub_builder()).await;
        subscriber.connect(endpoint).unwrap();
        publisher.known("A", 1).await;
        publisher.say(format!("A{round}")).await;
        assert_eq!(text(&subscriber.next().await), format!("A{round}"));
    }
}

async fn what_is_unsubscribed_while_nobody_is_there_stays_so(place: Place) {
    let endpoint = place.fresh();
    let subscriber = subscriber(&endpoint, &["A", "B"]);
    let mut monitor = subscriber.monitor();
    let publisher = new_pub();
    within(publisher.bind(&endpoint)).await.unwrap();
    publisher.known("A", 1).await;
    publisher.known("B", 1).await;
    within(publisher.close()).await.unwrap();
    wait_disconnected(&mut monitor).await;
    subscriber.unsubscribe("A");
    subscriber.subscribe("C");
    let publisher = new_pub();
    within(publisher.bind(&endpoint)).await.unwrap();
    publisher.known("B", 1).await;
    publisher.known("C", 1).await;
    assert_eq!(publisher.subscriptions(), 2);
    for text in ["A", "B", "C"] {
        publisher.say(text).await;
    }
    assert_eq!(texts(&subscriber, 2).await, ["B", "C"]);
}

async fn disconnecting_leaves_nothing_at_the_publisher(place: Place) {
    let (publisher, endpoint) = bound_pub(&place, pub_builder()).await;
    let subscriber = subscriber(&endpoint, &["A", "B"]);
    publisher.known("B", 1).await;
    publisher.say("A").await;
    assert_eq!(subscriber.next().await, "A".into());
    let mut monitor = publisher.monitor();
    subscriber.disconnect(&endpoint).unwrap();
    wait_disconnected(&mut monitor).await;
    assert_eq!(publisher.subscriptions(), 0);
    publisher.say("A").await;
    eventually(|| publisher.stats().messages_unmatched == 1).await;
    // And the set is there again with a new connection.
    subscriber.connect(&endpoint).unwrap();
    publisher.known("A", 1).await;
    publisher.known("B", 1).await;
}

async fn a_closed_subscriber_says_so(place: Place) {
    let (publisher, endpoint) = bound_pub(&place, pub_builder()).await;
    let subscriber = subscriber(&endpoint, &[""]);
    publisher.known("", 1).await;
    let mut receiving = Box::pin(subscriber.recv());
    assert!(poll!(&mut receiving).is_pending());
    within(subscriber.close()).await.unwrap();
    assert_eq!(within(receiving).await, Err(RecvError::Closed));
    assert_eq!(subscriber.try_recv(), Err(TryRecvError::Closed));
    // Plain functions, and without effect now.
    subscriber.subscribe("A");
    subscriber.unsubscribe("A");
    let closing = sub_builder().linger(Duration::from_secs(60)).build().unwrap();
    closing.subscribe("A");
    closing.connect(place.fresh()).unwrap();
    // Nobody is waited for.
    within(closing.close()).await.unwrap();
}

async fn connecting_twice_to_an_endpoint_brings_everything_once(place: Place) {
    let (publisher, endpoint) = bound_pub(&place, pub_builder()).await;
    let subscriber = subscriber(&endpoint, &["A"]);
    subscriber.connect(&endpoint).unwrap();
    publisher.known("A", 1).await;
    subscriber.connect(&endpoint).unwrap();
    for text in ["A1", "A2", "A3"] {
        publisher.say(text).await;
        assert_eq!(subscriber.next().await, text.into());
    }
    assert_eq!((publisher.peers().len(), subscriber.peers().len()), (1, 1));
    // And once it has been left, it may be connected to again.
    let mut monitor = publisher.monitor();
    subscriber.disconnect(&endpoint).unwrap();
    wait_disconnected(&mut monitor).await;
    subscriber.connect(&endpoint).unwrap();
    publisher.known("A", 1).await;
    publisher.say("A4").await;
    assert_eq!(subscriber.next().await, "A4".into());
}

async fn unsubscribing_holds_in_the_middle_of_a_flood(place: Place) {
    let (publisher, endpoint) = bound_pub(&place, pub_builder()).await;
    let subscriber = subscriber(&endpoint, &["M"]);
    publisher.known("M", 1).await;
    let flood = tokio::spawn({
        let publisher = publisher.clone();
        async move {
            for number in 0_u64.. {
                for topic in ["A", "M"] {
                    publisher.say([topic.to_string(), number.to_string()]).await;
                }
                tokio::task::yield_now().await;
            }
        }
    });
    for _ in 0..50 {
        subscriber.subscribe("A");
        while text(&subscriber.next().await) != "A" {}
        subscriber.unsubscribe("A");
        assert_eq!(texts(&subscriber, 20).await, ["M"; 20]);
    }
    flood.abort();
}

async fn a_thousand_nested_prefixes_are_no_trouble(place: Place) {
    const DEPTH: usize = 1_000;
    let (publisher, endpoint) = bound_pub(&place, pub_builder()).await;
    let subscriber = new_sub();
    let topic = "a".repeat(DEPTH);
    (0..=DEPTH).for_each(|length| subscriber.subscribe(&topic[..length]));
    subscriber.connect(&endpoint).unwrap();
    eventually(|| publisher.subscriptions() == DEPTH + 1).await;
    publisher.say(&topic).await;
    publisher.say(topic.clone() + "b").await;
    assert_eq!(text(&subscriber.next().await), topic);
    assert_eq!(text(&subscriber.next().await), topic.clone() + "b");
    (0..DEPTH).for_each(|length| subscriber.unsubscribe(&topic[..length]));
    eventually(|| publisher.subscriptions() == 1).await;
    publisher.say(&topic[1..]).await;
    publisher.say(&topic).await;
    assert_eq!(text(&subscriber.next().await), topic);
    (0..DEPTH).for_each(|length| subscriber.subscribe(&topic[..length]));
    eventually(|| publisher.subscriptions() == DEPTH + 1).await;
    within(subscriber.close()).await.unwrap();
    eventually(|| publisher.peers().is_empty()).await;
}
