//! Conflate: of each peer the newest message waits, whole, and nothing else.

use sinew::{PullSocket, SlowSubscriber, SubSocket, TryRecvError};

use crate::common::raw::*;
use crate::common::topics::*;
use crate::common::*;

crate::behaviours! {
    a_pull_that_is_late_gets_the_last_of_twenty,
    a_subscriber_that_is_late_gets_the_last_of_twenty,
    the_newest_message_is_kept_whole,
    each_peer_has_its_own_newest_message,
    what_was_received_is_not_replaced,
    who_keeps_up_gets_everything,
    what_a_subscriber_does_not_want_replaces_nothing,
    unsubscribing_holds_for_the_message_that_waits,
    the_newest_message_outlives_its_peer,
    the_mark_of_a_conflating_socket_is_one,
    a_message_larger_than_the_byte_mark_is_kept,
    a_receiver_that_waits_is_woken,
    both_ends_may_keep_the_latest_only,
}

fn new_conflating_pull() -> PullSocket {
    pull_builder().conflate(true).build().unwrap()
}

fn new_conflating_sub() -> SubSocket {
    sub_builder().conflate(true).build().unwrap()
}

async fn a_pull_that_is_late_gets_the_last_of_twenty(place: Place) {
    let (push, pull) = join(&place, new_push(), new_conflating_pull()).await;
    send_numbers(&push, 0..20).await;
    eventually(|| pull.stats().messages_received == 20).await;
    assert_eq!(recv_numbers(&pull, 1).await, [19]);
    assert_eq!(pull.try_recv(), Err(TryRecvError::Empty));
    assert_eq!(pull.stats().messages_dropped, 19);
    assert_eq!(pull.stats().messages_dropped_replaced, 19);
}

async fn a_subscriber_that_is_late_gets_the_last_of_twenty(place: Place) {
    let (publisher, endpoint) = bound_pub(&place, pub_builder()).await;
    let subscriber = new_conflating_sub();
    subscriber.subscribe("");
    subscriber.connect(&endpoint).unwrap();
    publisher.known("", 1).await;
    for number in 0..20 {
        publisher.say(numbered(number)).await;
    }
    eventually(|| subscriber.stats().messages_received == 20).await;
    assert_eq!(number(&subscriber.next().await), 19);
    assert_eq!(subscriber.try_recv(), Err(TryRecvError::Empty));
    assert_eq!(subscriber.stats().messages_dropped, 19);
}

async fn the_newest_message_is_kept_whole(place: Place) {
    let (push, pull) = join(&place, new_push(), new_conflating_pull()).await;
    for frames in [3, 1, 5, 2] {
        for number in 0..50_usize {
            within(push.send(vec![number.to_string(); 1 + number % 7])).await.unwrap();
        }
        let before = pull.stats().messages_received / 51;
        within(push.send(vec!["last".to_string(); frames])).await.unwrap();
        eventually(|| pull.stats().messages_received == 51 * (before + 1)).await;
        assert_eq!(pull.next().await, vec!["last"; frames].into());
        assert_eq!(pull.try_recv(), Err(TryRecvError::Empty));
    }
}

async fn each_peer_has_its_own_newest_message(place: Place) {
    const PEERS: usize = 3;
    let pull = new_conflating_pull();
    let endpoint = within(pull.bind(place.wildcard())).await.unwrap();
    let mut raws = Vec::new();
    for peer in 0..PEERS {
        let mut raw = Raw::peer(&endpoint, READY_PUSH).await;
        for number in 0..10 {
            raw.send(&frame(0, format!("{number} of {peer}").as_bytes())).await;
        }
        raws.push(raw);
    }
    eventually(|| pull.stats().messages_received == 10 * PEERS as u64).await;
    let mut received = texts(&pull, PEERS).await;
    received.sort();
    assert_eq!(received, ["9 of 0", "9 of 1", "9 of 2"]);
    assert_eq!(pull.try_recv(), Err(TryRecvError::Empty));
    assert_eq!(pull.stats().messages_dropped, 9 * PEERS as u64);
}

async fn what_was_received_is_not_replaced(place: Place) {
    let (push, pull) = join(&place, new_push(), new_conflating_pull()).await;
    for round in 0..20 {
        send_numbers(&push, 3 * round..3 * round + 3).await;
        eventually(|| pull.stats().messages_received == 3 * round + 3).await;
        assert_eq!(recv_numbers(&pull, 1).await, [3 * round + 2]);
        assert_eq!(pull.stats().messages_dropped, 2 * (round + 1));
    }
}

async fn who_keeps_up_gets_everything(place: Place) {
    let (push, pull) = join(&place, new_push(), new_conflating_pull()).await;
    for number in 0..500 {
        send_numbers(&push, number..number + 1).await;
        assert_eq!(recv_numbers(&pull, 1).await, [number]);
    }
    assert_eq!(pull.stats().messages_dropped, 0);
}

/// A conflating SUB, and a raw publisher that sends it whatever it likes.
async fn raw_feed(place: &Place, topics: &[&str]) -> (SubSocket, Raw) {
    let subscriber = new_conflating_sub();
    topics.iter().for_each(|topic| subscriber.subscribe(topic));
    let endpoint = within(subscriber.bind(place.wildcard())).await.unwrap();
    let publisher = Raw::peer(&endpoint, READY_PUB).await;
    within(subscriber.wait_connected(1)).await.unwrap();
    (subscriber, publisher)
}

async fn what_a_subscriber_does_not_want_replaces_nothing(place: Place) {
    let (subscriber, mut publisher) = raw_feed(&place, &["A"]).await;
    for text in ["A1", "B1", "A2", "B2", "B3"] {
        publisher.send(&frame(0, text.as_bytes())).await;
    }
    publisher.send(&ping(b"read?")).await;
    while !publisher.frame().await.unwrap().body.ends_with(b"read?") {}
    assert_eq!(subscriber.next().await, "A2".into());
    assert_eq!(subscriber.try_recv(), Err(TryRecvError::Empty));
    assert_eq!(subscriber.stats().messages_received, 5, "as of any SUB");
}

async fn unsubscribing_holds_for_the_message_that_waits(place: Place) {
    let (subscriber, mut publisher) = raw_feed(&place, &["A", "M"]).await;
    publisher.send(&frame(0, b"A")).await;
    eventually(|| subscriber.stats().messages_received == 1).await;
    subscriber.unsubscribe("A");
    assert_eq!(subscriber.try_recv(), Err(TryRecvError::Empty));
    publisher.send(&frame(0, b"M")).await;
    assert_eq!(subscriber.next().await, "M".into());
}

async fn the_newest_message_outlives_its_peer(place: Place) {
    let pull = new_conflating_pull();
    let endpoint = within(pull.bind(place.wildcard())).await.unwrap();
    let mut monitor = pull.monitor();
    let mut raw = Raw::peer(&endpoint, READY_PUSH).await;
    raw.send(&[frame(0, b"first"), frame(0, b"last"), frame(MORE, b"half a message")].concat()).await;
    drop(raw);
    wait_disconnected(&mut monitor).await;
    assert_eq!(pull.next().await, "last".into());
    assert_eq!(pull.try_recv(), Err(TryRecvError::Empty));
}

async fn the_mark_of_a_conflating_socket_is_one(place: Place) {
    for mark in [1, 1_000, 0] {
        let pull = pull_builder().conflate(true).receive_high_water_mark(mark).build().unwrap();
        let (push, pull) = join(&place, new_push(), pull).await;
        send_numbers(&push, 0..5_000).await;
        eventually(|| pull.stats().messages_received == 5_000).await;
        assert_eq!(pull.stats().inbound_messages, 1);
        assert_eq!(recv_numbers(&pull, 1).await, [4_999]);
    }
}

async fn a_message_larger_than_the_byte_mark_is_kept(place: Place) {
    let pull = pull_builder().conflate(true).receive_high_water_mark_bytes(1_000).build().unwrap();
    let (push, pull) = join(&place, new_push(), pull).await;
    for number in 0..20 {
        within(push.send(padded(number, 50_000))).await.unwrap();
    }
    eventually(|| pull.stats().messages_received == 20).await;
    assert_eq!(pull.next().await, padded(19, 50_000));
}

async fn a_receiver_that_waits_is_woken(place: Place) {
    let (push, pull) = join(&place, new_push(), new_conflating_pull()).await;
    for number in 0..50 {
        let receiving = tokio::spawn({
            let pull = pull.clone();
            async move { pull.recv().await }
        });
        tokio::task::yield_now().await;
        send_numbers(&push, number..number + 1).await;
        assert_eq!(within(receiving).await.unwrap().unwrap(), numbered(number));
    }
}

async fn both_ends_may_keep_the_latest_only(place: Place) {
    const SENT: u64 = 10_000;
    let (publisher, endpoint) = bound_pub(&place, pub_builder().slow_subscriber(SlowSubscriber::KeepLatest)).await;
    let subscriber = new_conflating_sub();
    subscriber.subscribe("");
    subscriber.connect(&endpoint).unwrap();
    publisher.known("", 1).await;
    let publishing = tokio::spawn({
        let publisher = publisher.clone();
        async move {
            for number in 0..SENT {
                publisher.say(padded(number, 500)).await;
            }
        }
    });
    // Whatever is skipped, the last one comes, and none comes late.
    let (mut last, mut received) = (None, 0);
    while last != Some(SENT - 1) {
        let message = subscriber.next().await;
        assert_eq!(message.byte_len(), 500);
        let number = number(&message);
        assert!(last.replace(number).is_none_or(|last| last < number));
        received += 1;
    }
    within(publishing).await.unwrap();
    assert_eq!(received + publisher.stats().messages_dropped + subscriber.stats().messages_dropped, SENT);
}
