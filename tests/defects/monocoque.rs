//! What monocoque-rs 0.4.2 is known for: subscribers that get what they did not ask for, workers that freeze, poisoned sockets.

use std::time::{Duration, Instant};

use sinew::{Message, SlowSubscriber};

use super::stand::*;
use crate::common::raw::*;
use crate::common::*;

crate::common::over_each_transport! {
    a_subscriber_without_a_subscription_receives_nothing,
    one_stuck_subscriber_freezes_no_worker,
    a_cancelled_send_poisons_no_socket,
}

// monocoque: whoever has not subscribed to anything gets everything.
async fn a_subscriber_without_a_subscription_receives_nothing(place: Place) {
    let publisher = new_pub();
    let endpoint = within(publisher.bind(place.wildcard())).await.unwrap();
    let mut never = Raw::peer(&endpoint, &ready_sub()).await;
    let mut once = Raw::peer(&endpoint, &ready_sub()).await;
    once.send(&[subscribe(b"topic"), cancel(b"topic"), ping(b"")].concat()).await;
    assert_eq!(once.frame().await.unwrap().body, b"\x04PONG");
    let sub = new_sub();
    sub.connect(&endpoint).unwrap();
    within(publisher.wait_connected(3)).await.unwrap();
    let everything = subscriber(&publisher, &endpoint, "", 1).await;
    for message in ["topic", ""] {
        within(publisher.send(message)).await.unwrap();
        assert_eq!(within(everything.recv()).await.unwrap(), message.into());
    }
    // What they get next is the answer to this.
    for raw in [&mut never, &mut once] {
        raw.send(&ping(b"anything?")).await;
        assert_eq!(raw.frame().await.unwrap().body, b"\x04PONGanything?");
    }
    assert!(sub.try_recv().is_err());
    assert_eq!(sub.stats().messages_received, 0);
}

// monocoque: a subscriber that is stuck freezes the worker thread of its publisher, and all that it does besides, for 5 s.
//
// There is one thread for everything here.
async fn one_stuck_subscriber_freezes_no_worker(place: Place) {
    /// For any one round trip.
    const FROZEN: Duration = Duration::from_secs(4);
    let policies =
        [SlowSubscriber::DropNewest, SlowSubscriber::DropOldest, SlowSubscriber::KeepLatest, SlowSubscriber::Wait];
    for policy in policies {
        let builder = pub_builder().slow_subscriber(policy).kernel_send_buffer(4_096).send_high_water_mark(10);
        let publisher = builder.build().unwrap();
        let endpoint = within(publisher.bind(place.wildcard())).await.unwrap();
        let stuck = raw_subscriber(&publisher, &endpoint, b"").await;
        let sending = tokio::spawn({
            let publisher = publisher.clone();
            async move {
                let message = Message::from(vec![b'x'; 10_000]);
                for _ in 0..1_000_000 {
                    publisher.send(&message).await.unwrap();
                }
            }
        });
        let is_stuck = || {
            let stats = publisher.stats();
            stats.messages_dropped > 100 || policy == SlowSubscriber::Wait && stats.outbound_messages == 10
        };
        eventually(is_stuck).await;
        let (push, pull) = pair(&place).await;
        for number in 0..100 {
            let start = Instant::now();
            within(push.send(numbered(number))).await.unwrap();
            assert_eq!(recv_numbers(&pull, 1).await, [number]);
            assert!(start.elapsed() < FROZEN, "{policy:?}: {:?}", start.elapsed());
        }
        sending.abort();
        drop(stuck);
    }
}

// monocoque: a `send` that is dropped in the middle of a write leaves the socket unusable.
async fn a_cancelled_send_poisons_no_socket(place: Place) {
    const MESSAGES: u64 = 300;
    const LENGTH: usize = 10_000;
    let push = push_builder().kernel_send_buffer(4_096).send_high_water_mark(1).build().unwrap();
    let publisher = pub_builder().slow_subscriber(SlowSubscriber::Wait).kernel_send_buffer(4_096);
    let publisher = publisher.send_high_water_mark(1).build().unwrap();
    let push_endpoint = within(push.bind(place.wildcard())).await.unwrap();
    let pub_endpoint = within(publisher.bind(place.wildcard())).await.unwrap();
    let pulling = Raw::peer(&push_endpoint, READY_PULL).await;
    let subscribed = raw_subscriber(&publisher, &pub_endpoint, b"").await;
    within(push.wait_connected(1)).await.unwrap();
    let readers = [pulling, subscribed].map(|mut raw| {
        tokio::spawn(async move {
            let mut numbers = Vec::new();
            while let Some(frames) = raw.message().await {
                numbers.push(whole_number(&frames, LENGTH));
            }
            numbers
        })
    });
    let mut sent = [Vec::new(), Vec::new()];
    let mut cancelled = 0;
    for number in 0..MESSAGES {
        let sends = [push.send(triple(number, LENGTH)), publisher.send(triple(number, LENGTH))];
        for (send, sent) in sends.into_iter().zip(&mut sent) {
            let mut send = Box::pin(send);
            // Dropped after a different number of polls each time.
            for _ in 0..=number % 4 {
                if poll_once(send.as_mut()).0.is_ready() {
                    sent.push(number);
                    break;
                }
                tokio::task::yield_now().await;
            }
            cancelled += usize::from(sent.last() != Some(&number));
        }
    }
    assert!(cancelled > 50, "only {cancelled} were cancelled");
    assert_eq!(within(push.close()).await.unwrap().unsent, 0);
    assert_eq!(within(publisher.close()).await.unwrap().unsent, 0);
    for (reader, sent) in readers.into_iter().zip(sent) {
        assert_eq!(within(reader).await.unwrap(), sent);
    }
}
