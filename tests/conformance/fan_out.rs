//! Fan-out: each of 64 subscribers sees every message in order, also when one of them does not read for a while.
//!
//! The long version, in which it does not read for 10 seconds:
//! `cargo test --release --test conformance fan_out -- --ignored`

use std::time::{Duration, Instant};

use sinew::{PubBuilder, SlowSubscriber, SubSocket};

use crate::common::topics::*;
use crate::common::*;

crate::behaviours! {
    below_the_mark_each_of_64_subscribers_sees_every_message_in_order,
    with_wait_each_of_64_subscribers_sees_every_message_in_order,
    each_of_64_subscribers_sees_its_own_topics_in_order,
    subscribers_that_come_and_go_disturb_nobody,
    while_one_of_64_does_not_read_the_others_lose_nothing,
}

const SUBSCRIBERS: usize = 64;

async fn receive_all(subscriber: SubSocket, messages: u64) {
    for number in 0..messages {
        assert_eq!(subscriber.next().await, padded(number, 100));
    }
}

async fn fan_out(place: &Place, builder: PubBuilder, messages: u64) {
    let (publisher, endpoint) = bound_pub(place, builder).await;
    let mut receiving = tokio::task::JoinSet::new();
    for _ in 0..SUBSCRIBERS {
        receiving.spawn(receive_all(subscriber(&endpoint, &[""]), messages));
    }
    publisher.known("", SUBSCRIBERS).await;
    for number in 0..messages {
        publisher.say(padded(number, 100)).await;
    }
    while let Some(received) = within(receiving.join_next()).await {
        received.unwrap();
    }
    // The last one may arrive before the thread that has written it goes on to count it.
    eventually(|| publisher.stats().messages_sent == messages * SUBSCRIBERS as u64).await;
    let stats = publisher.stats();
    assert_eq!((stats.messages_dropped, stats.messages_unmatched), (0, 0));
}

async fn below_the_mark_each_of_64_subscribers_sees_every_message_in_order(place: Place) {
    fan_out(&place, pub_builder(), 1_000).await;
}

async fn with_wait_each_of_64_subscribers_sees_every_message_in_order(place: Place) {
    fan_out(&place, pub_builder().slow_subscriber(SlowSubscriber::Wait).send_high_water_mark(50), 2_000).await;
}

async fn each_of_64_subscribers_sees_its_own_topics_in_order(place: Place) {
    const MESSAGES: usize = 640;
    let (publisher, endpoint) = bound_pub(&place, pub_builder()).await;
    let subscribers = (0..SUBSCRIBERS)
        .map(|name| subscriber(&endpoint, &[&format!("{name}."), &format!("{}.", (name + 1) % SUBSCRIBERS), "all"]))
        .collect::<Vec<_>>();
    eventually(|| publisher.subscriptions() == 3 * SUBSCRIBERS).await;
    publisher.known("all", SUBSCRIBERS).await;
    for number in 0..MESSAGES {
        let topic = format!("{}.", number % SUBSCRIBERS);
        publisher.say([topic, number.to_string()]).await;
    }
    publisher.say("all").await;
    for (name, subscriber) in subscribers.iter().enumerate() {
        let wanted = |number: &usize| [name, (name + 1) % SUBSCRIBERS].contains(&(number % SUBSCRIBERS));
        for number in (0..MESSAGES).filter(wanted) {
            assert_eq!(subscriber.next().await[1], *number.to_string().as_bytes());
        }
        assert_eq!(subscriber.next().await, "all".into());
    }
}

async fn subscribers_that_come_and_go_disturb_nobody(place: Place) {
    const MESSAGES: u64 = 2_000;
    let (publisher, endpoint) = bound_pub(&place, pub_builder().slow_subscriber(SlowSubscriber::Wait)).await;
    let mut receiving = tokio::task::JoinSet::new();
    for _ in 0..8 {
        receiving.spawn(receive_all(subscriber(&endpoint, &[""]), MESSAGES));
    }
    publisher.known("", 8).await;
    let coming_and_going = tokio::spawn(async move {
        loop {
            let visitor = subscriber(&endpoint, &[""]);
            let first = number(&visitor.next().await);
            for expected in first + 1..first + 10 {
                // It may be closed to it, but nothing is missing.
                match tokio::time::timeout(Duration::from_secs(1), visitor.recv()).await {
                    Ok(message) => assert_eq!(number(&message.unwrap()), expected),
                    Err(_) => return,
                }
            }
        }
    });
    for number in 0..MESSAGES {
        publisher.say(padded(number, 100)).await;
        if number % 16 == 0 {
            tokio::task::yield_now().await;
        }
    }
    while let Some(received) = within(receiving.join_next()).await {
        received.unwrap();
    }
    coming_and_going.abort();
    let end = coming_and_going.await;
    assert!(end.is_ok() || end.unwrap_err().is_cancelled());
}

/// One of 64 subscribers does not read for so long. The others lose nothing meanwhile, and afterwards neither does it.
async fn one_does_not_read_for(place: &Place, pause: Duration) {
    const MARK: u64 = 100;
    let builder = pub_builder().send_high_water_mark(MARK as usize).kernel_send_buffer(4_096);
    let (publisher, endpoint) = bound_pub(place, builder).await;
    let others = (1..SUBSCRIBERS).map(|_| subscriber(&endpoint, &[""])).collect::<Vec<_>>();
    let stopped = sub_builder().receive_high_water_mark(10).kernel_receive_buffer(4_096).build().unwrap();
    stopped.subscribe("");
    stopped.connect(&endpoint).unwrap();
    publisher.known("", SUBSCRIBERS).await;
    let (start, mut sent) = (Instant::now(), 0);
    // As much at once as nobody may lose any of who reads it.
    while start.elapsed() < pause || publisher.stats().messages_dropped == 0 {
        assert!(start.elapsed() < pause + PATIENCE, "it can take everything without reading");
        for number in sent..sent + MARK {
            publisher.say(padded(number, 2_000)).await;
        }
        for other in &others {
            for expected in sent..sent + MARK {
                assert_eq!(number(&other.next().await), expected);
            }
        }
        sent += MARK;
    }
    settled(|| publisher.stats().messages_sent).await;
    let lost = publisher.stats().messages_dropped;
    assert_eq!(publisher.peers().iter().filter(|peer| peer.messages_dropped > 0).count(), 1);
    let mut last = None;
    for _ in 0..sent - lost {
        let number = number(&stopped.next().await);
        assert!(last.replace(number).is_none_or(|last| last < number));
    }
    for expected in sent..sent + MARK {
        publisher.say(padded(expected, 2_000)).await;
        assert_eq!(number(&stopped.next().await), expected);
        for other in &others {
            assert_eq!(number(&other.next().await), expected);
        }
    }
    assert_eq!(publisher.stats().messages_dropped, lost);
}

async fn while_one_of_64_does_not_read_the_others_lose_nothing(place: Place) {
    one_does_not_read_for(&place, Duration::from_millis(500)).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "takes 20 seconds"]
async fn while_one_of_64_does_not_read_for_10_seconds_the_others_lose_nothing() {
    for transport in [Transport::Tcp, Transport::Ipc] {
        one_does_not_read_for(&Place::new(transport), Duration::from_secs(10)).await;
    }
}
