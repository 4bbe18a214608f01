//! Subscriptions on the wire: both encodings, exact bytes in both directions, and the limits of a publisher.

use std::collections::HashSet;

use sinew::{DisconnectReason, ProtocolError, PubBuilder, SubSocket};

use crate::common::raw::*;
use crate::common::topics::*;
use crate::common::*;

crate::behaviours! {
    a_publisher_of_3_1_gets_commands,
    a_publisher_of_3_0_gets_messages,
    the_length_of_a_topic_decides_the_form_of_its_frame,
    a_publisher_takes_both_forms_from_a_subscriber_of_either_version,
    a_publisher_takes_topics_of_every_length_in_both_forms,
    a_request_may_come_in_pieces_and_in_the_long_form,
    a_subscriber_takes_messages_from_a_publisher_of_either_version,
    one_cancel_ends_what_one_peer_has_subscribed_twice,
    a_cancel_of_what_was_not_subscribed_is_harmless,
    what_is_no_request_does_a_publisher_no_harm,
    every_new_connection_gets_each_topic_of_the_set_once,
    a_storm_of_changes_leaves_the_right_set,
    a_topic_over_the_limit_ends_that_connection_alone,
    a_subscription_over_the_count_ends_that_connection_alone,
    a_subscription_over_the_bytes_ends_that_connection_alone,
    a_cancelled_subscription_no_longer_counts_towards_the_limits,
    a_publisher_that_leaves_its_subscriptions_unread_is_given_up,
}

/// A SUB that has connected to a raw publisher of this version.
async fn raw_publisher(place: &Place, version: [u8; 2], subscriber: &SubSocket) -> (RawListener, Raw) {
    let (listener, endpoint) = RawListener::bind(place);
    subscriber.connect(endpoint).unwrap();
    let mut publisher = listener.accept().await;
    publisher.shake_hands_as(version, READY_PUB).await;
    (listener, publisher)
}

async fn a_publisher_of_3_1_gets_commands(place: Place) {
    let subscriber = new_sub();
    subscriber.subscribe("A");
    let (_listener, mut publisher) = raw_publisher(&place, [3, 1], &subscriber).await;
    assert_eq!(publisher.read(13).await, b"\x04\x0b\x09SUBSCRIBEA");
    subscriber.subscribe("A");
    assert_eq!(publisher.read(13).await, b"\x04\x0b\x09SUBSCRIBEA");
    subscriber.subscribe("");
    assert_eq!(publisher.read(12).await, b"\x04\x0a\x09SUBSCRIBE");
    // One "A" is left, and "unknown" was never there: nothing is sent.
    subscriber.unsubscribe("A");
    subscriber.unsubscribe("unknown");
    subscriber.subscribe("B");
    assert_eq!(publisher.read(13).await, b"\x04\x0b\x09SUBSCRIBEB");
    subscriber.unsubscribe("A");
    assert_eq!(publisher.read(10).await, b"\x04\x08\x06CANCELA");
    subscriber.unsubscribe("A");
    subscriber.unsubscribe("");
    assert_eq!(publisher.read(9).await, b"\x04\x07\x06CANCEL");
}

async fn a_publisher_of_3_0_gets_messages(place: Place) {
    let subscriber = new_sub();
    subscriber.subscribe("A");
    let (_listener, mut publisher) = raw_publisher(&place, [3, 0], &subscriber).await;
    assert_eq!(publisher.read(4).await, b"\0\x02\x01A");
    subscriber.subscribe("A");
    assert_eq!(publisher.read(4).await, b"\0\x02\x01A");
    subscriber.subscribe("");
    assert_eq!(publisher.read(3).await, b"\0\x01\x01");
    subscriber.unsubscribe("A");
    subscriber.unsubscribe("unknown");
    subscriber.subscribe("B");
    assert_eq!(publisher.read(4).await, b"\0\x02\x01B");
    subscriber.unsubscribe("A");
    assert_eq!(publisher.read(4).await, b"\0\x02\0A");
    subscriber.unsubscribe("A");
    subscriber.unsubscribe("");
    assert_eq!(publisher.read(3).await, b"\0\x01\0");
}

/// Around every length at which a request changes from the short form to the long one.
fn lengths() -> impl Iterator<Item = usize> {
    (244..=250).chain(253..=257).chain([0, 1, 65_535, 65_536])
}

async fn the_length_of_a_topic_decides_the_form_of_its_frame(place: Place) {
    for version in VERSIONS {
        let subscriber = new_sub();
        let (_listener, mut publisher) = raw_publisher(&place, version, &subscriber).await;
        for length in lengths() {
            let topic = vec![b'T'; length];
            let (subscribe, cancel) = (subscribe_as(version, &topic), cancel_as(version, &topic));
            subscriber.subscribe(&topic);
            assert_eq!(publisher.read(subscribe.len()).await, subscribe, "{length} bytes, {version:?}");
            subscriber.unsubscribe(&topic);
            assert_eq!(publisher.read(cancel.len()).await, cancel, "{length} bytes, {version:?}");
        }
    }
}

async fn a_publisher_takes_both_forms_from_a_subscriber_of_either_version(place: Place) {
    let forms = [(subscribe_command(b"A"), cancel_message(b"A")), (subscribe_message(b"A"), cancel_command(b"A"))];
    for version in VERSIONS {
        for ready in [READY_SUB, READY_XSUB] {
            for (subscribe, cancel) in &forms {
                let (publisher, endpoint) = bound_pub(&place, pub_builder()).await;
                let mut subscriber = Raw::peer_of(&endpoint, version, ready).await;
                subscriber.send(subscribe).await;
                publisher.known("A1", 1).await;
                publisher.say("B1").await;
                publisher.say("A1").await;
                assert_eq!(subscriber.read(4).await, b"\0\x02A1");
                subscriber.send(cancel).await;
                eventually(|| publisher.subscriptions() == 0).await;
            }
        }
    }
}

async fn a_publisher_takes_topics_of_every_length_in_both_forms(place: Place) {
    let (publisher, endpoint) = bound_pub(&place, pub_builder().max_topic_length(100_000)).await;
    for (subscribe, cancel) in VERSIONS.map(|version| {
        (move |topic: &[u8]| subscribe_as(version, topic), move |topic: &[u8]| cancel_as(version, topic))
    }) {
        let mut subscriber = Raw::peer(&endpoint, READY_SUB).await;
        within(publisher.wait_connected(1)).await.unwrap();
        for length in lengths().filter(|length| *length > 0) {
            let topic = vec![b'T'; length];
            subscriber.send(&subscribe(&topic)).await;
            publisher.known(&topic, 1).await;
            publisher.say(&topic[1..]).await;
            publisher.say(&topic[..]).await;
            // One byte less does not match.
            assert_eq!(subscriber.message().await.unwrap(), [&topic[..]]);
            subscriber.send(&cancel(&topic)).await;
            eventually(|| publisher.subscriptions() == 0).await;
        }
    }
}

async fn a_request_may_come_in_pieces_and_in_the_long_form(place: Place) {
    let (publisher, endpoint) = bound_pub(&place, pub_builder()).await;
    let mut subscriber = Raw::peer(&endpoint, READY_SUB).await;
    for byte in [subscribe_command(b"A"), subscribe_message(b"B")].concat() {
        subscriber.send(&[byte]).await;
        tokio::task::yield_now().await;
    }
    subscriber.send(&[&long_header(COMMAND, 11)[..], b"\x09SUBSCRIBEC"].concat()).await;
    subscriber.send(&[&long_header(0, 2)[..], b"\x01D"].concat()).await;
    publisher.known("D", 1).await;
    for topic in ["A", "B", "C", "D"] {
        publisher.say(topic).await;
        assert_eq!(subscriber.message().await.unwrap(), [topic.as_bytes()]);
    }
}

async fn a_subscriber_takes_messages_from_a_publisher_of_either_version(place: Place) {
    for version in VERSIONS {
        for ready in [READY_PUB, READY_XPUB] {
            // The publisher comes to a bound subscriber.
            let subscriber = new_sub();
            subscriber.subscribe("A");
            let endpoint = within(subscriber.bind(place.wildcard())).await.unwrap();
            let mut publisher = Raw::peer_of(&endpoint, version, ready).await;
            let subscription = publisher.frame().await.unwrap();
            assert_eq!(subscription.request(version), (true, &b"A"[..]));
            publisher.send(b"\0\x04ALOL").await;
            assert_eq!(subscriber.next().await, "ALOL".into());
            publisher.send(&[frame(MORE, b"A"), frame(MORE, b""), frame(0, b"C")].concat()).await;
            assert_eq!(subscriber.next().await, ["A", "", "C"].into());
        }
    }
}

async fn one_cancel_ends_what_one_peer_has_subscribed_twice(place: Place) {
    let (publisher, endpoint) = bound_pub(&place, pub_builder()).await;
    let mut twice = raw_subscriber(&endpoint, &[b"A", b"A", b"M"]).await;
    let mut other = raw_subscriber(&endpoint, &[b"A", b"M"]).await;
    publisher.known("M", 2).await;
    assert_eq!(publisher.subscriptions(), 4);
    publisher.say("A1").await;
    twice.send(&cancel_command(b"A")).await;
    eventually(|| publisher.subscriptions() == 3).await;
    publisher.say("A2").await;
    publisher.say("M").await;
    for (subscriber, expected) in [(&mut twice, &["A1", "M"][..]), (&mut other, &["A1", "A2", "M"])] {
        for text in expected {
            assert_eq!(subscriber.message().await.unwrap(), [text.as_bytes()]);
        }
    }
}

async fn a_cancel_of_what_was_not_subscribed_is_harmless(place: Place) {
    let (publisher, endpoint) = bound_pub(&place, pub_builder()).await;
    let mut other = raw_subscriber(&endpoint, &[b"A", b"AB"]).await;
    publisher.known("AB", 1).await;
    let mut subscriber = Raw::peer(&endpoint, READY_SUB).await;
    for topic in [&b""[..], b"A", b"AB", b"ABC", b"B", b"\0"] {
        subscriber.send(&cancel_command(topic)).await;
        subscriber.send(&cancel_message(topic)).await;
    }
    subscriber.send(&subscribe_command(b"A")).await;
    publisher.known("A", 2).await;
    assert_eq!(publisher.subscriptions(), 3);
    publisher.say("AB").await;
    assert_eq!(subscriber.message().await.unwrap(), [b"AB"]);
    assert_eq!(other.message().await.unwrap(), [b"AB"]);
}

async fn what_is_no_request_does_a_publisher_no_harm(place: Place) {
    let (publisher, endpoint) = bound_pub(&place, pub_builder()).await;
    let mut subscriber = Raw::peer(&endpoint, READY_SUB).await;
    subscriber.send(&frame(0, b"hello")).await;
    subscriber.send(&frame(0, b"")).await;
    subscriber.send(&frame(0, b"\x02A")).await;
    subscriber.send(&[frame(MORE, b"two"), frame(0, b"frames")].concat()).await;
    subscriber.send(&frame(0, &[b'x'; 100_000])).await;
    subscriber.send(&ping(b"there?")).await;
    assert!(subscriber.frame().await.unwrap().body.ends_with(b"there?"));
    assert_eq!(publisher.stats().messages_refused, 5);
    subscriber.send(&subscribe_message(b"A")).await;
    publisher.known("A", 1).await;
    assert_eq!(publisher.subscriptions(), 1);
    publisher.say("A").await;
    assert_eq!(subscriber.message().await.unwrap(), [b"A"]);
}

/// Reads requests until one subscribes to `marker`; gives those before it.
async fn read_requests(publisher: &mut Raw, version: [u8; 2], marker: &[u8]) -> Vec<(bool, Vec<u8>)> {
    const MOST: usize = 100_000;
    let mut requests = Vec::new();
    while requests.len() < MOST {
        let frame = publisher.frame().await.expect("the subscriber is there");
        match frame.request(version) {
            (true, topic) if topic == marker => return requests,
            (subscribes, topic) => requests.push((subscribes, topic.to_vec())),
        }
    }
    panic!("{MOST} requests, and the marker is not among them");
}

async fn every_new_connection_gets_each_topic_of_the_set_once(place: Place) {
    for version in VERSIONS {
        let subscriber = new_sub();
        for topic in ["A", "B", "", "A", "gone", "B", "AB"] {
            subscriber.subscribe(topic);
        }
        subscriber.unsubscribe("gone");
        let (listener, mut publisher) = raw_publisher(&place, version, &subscriber).await;
        let sorted = |mut requests: Vec<(bool, Vec<u8>)>| {
            requests.sort();
            requests
        };
        let set = |topics: &[&str]| topics.iter().map(|topic| (true, topic.as_bytes().to_vec())).collect::<Vec<_>>();
        // The set comes before what is subscribed once the handshake is done.
        within(subscriber.wait_connected(1)).await.unwrap();
        subscriber.subscribe("first");
        let first = read_requests(&mut publisher, version, b"first").await;
        assert_eq!(sorted(first), set(&["", "A", "AB", "B"]));

        let mut monitor = subscriber.monitor();
        drop(publisher);
        wait_disconnected(&mut monitor).await;
        subscriber.unsubscribe("AB");
        subscriber.unsubscribe("B"); // one is left
        subscriber.subscribe("C");
        let mut publisher = listener.accept().await;
        publisher.shake_hands_as(version, READY_PUB).await;
        within(subscriber.wait_connected(1)).await.unwrap();
        subscriber.subscribe("second");
        let second = read_requests(&mut publisher, version, b"second").await;
        assert_eq!(sorted(second), set(&["", "A", "B", "C", "first"]));
    }
}

async fn a_storm_of_changes_leaves_the_right_set(place: Place) {
    const CHANGES: u32 = 5_000;
    const TOPICS: u32 = 20;
    for version in VERSIONS {
        let subscriber = new_sub();
        let (_listener, mut publisher) = raw_publisher(&place, version, &subscriber).await;
        let storm = async {
            let (mut counts, mut state) = (vec![0_u32; TOPICS as usize], 1_u32);
            for change in 0..CHANGES {
                state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
                let (topic, subscribes) = ((state >> 16) % TOPICS, state >> 31 == 0);
                let count = &mut counts[topic as usize];
                match subscribes {
                    true => subscriber.subscribe(topic.to_string()),
                    false => subscriber.unsubscribe(topic.to_string()),
                }
                *count = if subscribes { *count + 1 } else { count.saturating_sub(1) };
                if change % 100 == 0 {
                    tokio::task::yield_now().await;
                }
            }
            subscriber.subscribe("end");
            counts
        };
        let (counts, requests) = tokio::join!(storm, read_requests(&mut publisher, version, b"end"));
        let mut known = HashSet::new();
        for (subscribes, topic) in requests {
            match subscribes {
                true => known.insert(topic),
                false => known.remove(&topic),
            };
        }
        let wanted = (0_u32..).zip(counts).filter(|(_, count)| *count > 0);
        assert_eq!(known, wanted.map(|(topic, _)| topic.to_string().into_bytes()).collect());
    }
}

/// Sends requests of which the last one is too much, in both forms: that connection ends with this reason, and another
/// subscriber notices nothing.
async fn too_much(place: &Place, builder: PubBuilder, topics: &[&[u8]], expected: ProtocolError) {
    let (last, allowed) = topics.split_last().unwrap();
    for version in VERSIONS {
        let (publisher, endpoint) = bound_pub(place, builder.clone()).await;
        let bystander = subscriber(&endpoint, &["M"]);
        publisher.known("M", 1).await;
        let mut monitor = publisher.monitor();
        let mut offender = Raw::peer_of(&endpoint, version, READY_SUB).await;
        for topic in allowed {
            offender.send(&subscribe_as(version, topic)).await;
        }
        // The last one allowed is in force.
        let topic = *allowed.last().unwrap();
        publisher.known(topic, 1).await;
        publisher.say(topic).await;
        assert_eq!(offender.message().await.unwrap(), [topic]);
        offender.send(&subscribe_as(version, last)).await;
        offender.end().await;
        assert_eq!(wait_reason(&mut monitor).await, DisconnectReason::Protocol(expected.clone()));
        // Nothing of the offender is left.
        assert_eq!(publisher.subscriptions(), 1);
        publisher.say("M").await;
        assert_eq!(bystander.next().await, "M".into());
        assert_eq!(publisher.peers().len(), 1);
    }
}

async fn a_topic_over_the_limit_ends_that_connection_alone(place: Place) {
    let expected = ProtocolError::TopicTooLong { size: 11, limit: 10 };
    too_much(&place, pub_builder().max_topic_length(10), &[&[b'T'; 10], &[b'T'; 11]], expected).await;
    // The default.
    let expected = ProtocolError::TopicTooLong { size: 4_097, limit: 4_096 };
    too_much(&place, pub_builder(), &[&[b'T'; 4_096], &[b'T'; 4_097]], expected).await;
}

async fn a_subscription_over_the_count_ends_that_connection_alone(place: Place) {
    let expected = ProtocolError::TooManySubscriptions { limit: 3 };
    let topics: [&[u8]; 6] = [b"A", b"B", b"A", b"C", b"C", b"D"];
    too_much(&place, pub_builder().max_subscriptions(3), &topics, expected).await;
}

async fn a_subscription_over_the_bytes_ends_that_connection_alone(place: Place) {
    let expected = ProtocolError::SubscriptionsTooLarge { limit: 10 };
    let topics: [&[u8]; 6] = [b"ABCDE", b"FGH", b"FGH", b"", b"IJ", b"K"];
    too_much(&place, pub_builder().max_subscription_bytes(10), &topics, expected).await;
}

async fn a_cancelled_subscription_no_longer_counts_towards_the_limits(place: Place) {
    let builder = pub_builder().max_subscriptions(2).max_subscription_bytes(10);
    let (publisher, endpoint) = bound_pub(&place, builder).await;
    let mut subscriber = raw_subscriber(&endpoint, &[b"12345", b"67890"]).await;
    for round in 0..100 {
        let (old, new) = if round % 2 == 0 { (b"12345", b"abcde") } else { (b"abcde", b"12345") };
        subscriber.send(&cancel_command(old)).await;
        subscriber.send(&subscribe_command(new)).await;
    }
    subscriber.send(&cancel_command(b"12345")).await;
    subscriber.send(&subscribe_command(b"end")).await;
    publisher.known("end", 1).await;
    assert_eq!(publisher.subscriptions(), 2);
}

async fn a_publisher_that_leaves_its_subscriptions_unread_is_given_up(place: Place) {
    let subscriber = new_sub();
    subscriber.subscribe("A");
    let (listener, publisher) = raw_publisher(&place, [3, 1], &subscriber).await;
    within(subscriber.wait_connected(1)).await.unwrap();
    let mut monitor = subscriber.monitor();
    // More than any kernel takes, and more than is kept for a publisher.
    let large = vec![b'L'; 1 << 20];
    for _ in 0..60 {
        subscriber.subscribe(&large);
        subscriber.unsubscribe(&large);
        tokio::task::yield_now().await;
    }
    assert_eq!(wait_reason(&mut monitor).await, DisconnectReason::TooSlow);
    // The next connection is told what holds then.
    let mut next = listener.accept().await;
    next.shake_hands(READY_PUB).await;
    within(subscriber.wait_connected(1)).await.unwrap();
    subscriber.subscribe("end");
    assert_eq!(read_requests(&mut next, [3, 1], b"end").await, [(true, b"A".to_vec())]);
    drop(publisher);
}
