//! High-water marks: exact, in messages and in bytes, outbound and inbound; blocking and waking.

use std::time::Duration;

use futures::poll;
use sinew::{PullSocket, PushSocket, SendError, TrySendError};

use crate::common::*;

crate::behaviours! {
    without_a_peer_exactly_the_mark_is_accepted,
    without_a_peer_exactly_the_bytes_of_the_mark_are_accepted,
    a_message_over_the_byte_mark_passes_when_the_queue_is_empty,
    zero_means_no_limit,
    a_message_over_the_limits_is_refused_and_comes_back,
    a_send_blocked_at_the_mark_wakes_when_a_peer_appears,
    blocked_sends_wake_in_the_order_in_which_they_began,
    a_reader_that_does_not_read_holds_exactly_the_mark_and_loses_nothing,
    a_reader_that_does_not_read_holds_at_most_the_bytes_of_the_mark,
    a_received_message_over_the_byte_mark_passes_when_the_queue_is_empty,
    an_unlimited_inbound_queue_takes_everything,
    nothing_is_lost_between_the_smallest_marks,
}

/// A PUSH without a peer, in each way in which a PUSH can be without a peer.
async fn lonely(place: &Place, build: impl Fn() -> PushSocket) -> Vec<PushSocket> {
    let (unattached, bound, connected) = (build(), build(), build());
    within(bound.bind(place.wildcard())).await.unwrap();
    connected.connect(place.fresh()).unwrap();
    vec![unattached, bound, connected]
}

async fn without_a_peer_exactly_the_mark_is_accepted(place: Place) {
    for mark in [1, 2, 1_000] {
        for push in lonely(&place, || push_builder().send_high_water_mark(mark).build().unwrap()).await {
            for number in 0..mark as u64 {
                push.try_send(numbered(number)).unwrap();
            }
            assert_eq!(push.try_send("one more"), Err(TrySendError::Full("one more".into())));
            assert_eq!(push.stats().outbound_messages, mark);
        }
    }
}

async fn without_a_peer_exactly_the_bytes_of_the_mark_are_accepted(place: Place) {
    for push in lonely(&place, || push_builder().send_high_water_mark_bytes(1_000).build().unwrap()).await {
        for number in 0..9 {
            push.try_send(padded(number, 100)).unwrap();
        }
        let over = padded(9, 101);
        assert_eq!(push.try_send(over.clone()), Err(TrySendError::Full(over)));
        push.try_send(padded(9, 100)).unwrap();
        assert_eq!(push.try_send("x"), Err(TrySendError::Full("x".into())));
        assert_eq!(push.stats().outbound_bytes, 1_000);
    }
}

async fn a_message_over_the_byte_mark_passes_when_the_queue_is_empty(place: Place) {
    let push = push_builder().send_high_water_mark_bytes(1_000).build().unwrap();
    let large = padded(0, 50_000);
    push.try_send(large.clone()).unwrap();
    assert_eq!(push.try_send("x"), Err(TrySendError::Full("x".into())));
    let (push, pull) = join(&place, push, new_pull()).await;
    assert_eq!(within(pull.recv()).await.unwrap(), large);
    within(push.send("x")).await.unwrap();
    within(push.send(large.clone())).await.unwrap();
    assert_eq!(within(pull.recv()).await.unwrap(), "x".into());
    assert_eq!(within(pull.recv()).await.unwrap(), large);
}

async fn zero_means_no_limit(place: Place) {
    let build = || push_builder().send_high_water_mark(0).send_high_water_mark_bytes(0).linger(Duration::ZERO);
    for push in lonely(&place, || build().build().unwrap()).await {
        for number in 0..50_000 {
            push.try_send(numbered(number)).unwrap();
        }
        assert_eq!(push.stats().outbound_messages, 50_000);
    }
}

async fn a_message_over_the_limits_is_refused_and_comes_back(place: Place) {
    let push = push_builder().max_message_size(100).max_frame_size(50).max_frames(3).build().unwrap();
    let (push, pull) = join(&place, push, new_pull()).await;
    let messages: [sinew::Message; 3] = [
        vec!["x".repeat(50), "x".repeat(50), "x".to_owned()].into(),
        vec![""; 4].into(),
        [String::new(), "x".repeat(51)].into(),
    ];
    for message in messages {
        assert_eq!(within(push.send(message.clone())).await, Err(SendError::TooLarge(message.clone())));
        assert_eq!(push.try_send(message.clone()), Err(TrySendError::TooLarge(message)));
    }
    for message in [sinew::Message::from(vec!["x".repeat(50); 2]), vec![""; 3].into()] {
        within(push.send(message.clone())).await.unwrap();
        assert_eq!(within(pull.recv()).await.unwrap(), message);
    }
}

async fn a_send_blocked_at_the_mark_wakes_when_a_peer_appears(place: Place) {
    let push = push_builder().send_high_water_mark(1).build().unwrap();
    let endpoint = within(push.bind(place.wildcard())).await.unwrap();
    push.try_send(numbered(0)).unwrap();
    let mut blocked = Box::pin(push.send(numbered(1)));
    assert!(poll!(&mut blocked).is_pending());

    let pull = new_pull();
    pull.connect(&endpoint).unwrap();
    within(blocked).await.unwrap();
    assert_eq!(recv_numbers(&pull, 2).await, [0, 1]);
}

async fn blocked_sends_wake_in_the_order_in_which_they_began(place: Place) {
    let push = push_builder().send_high_water_mark(1).build().unwrap();
    let endpoint = within(push.bind(place.wildcard())).await.unwrap();
    push.try_send(numbered(0)).unwrap();
    let mut blocked: Vec<_> = (1..50).map(|number| Box::pin(push.send(numbered(number)))).collect();
    for send in &mut blocked {
        assert!(poll!(send).is_pending());
    }
    let pull = new_pull();
    pull.connect(&endpoint).unwrap();
    for send in blocked {
        within(send).await.unwrap();
    }
    assert_eq!(recv_numbers(&pull, 50).await, (0..50).collect::<Vec<_>>());
}

/// Sends so many messages of this length in the background.
fn flood(push: PushSocket, messages: u64, length: usize) -> tokio::task::JoinHandle<PushSocket> {
    tokio::spawn(async move {
        for number in 0..messages {
            push.send(padded(number, length)).await.unwrap();
        }
        push
    })
}

/// Waits until no more comes while nobody reads; the marks hold all the way.
async fn fill(pull: &PullSocket, messages: usize, bytes: usize) {
    let look = || {
        let stats = pull.stats();
        assert!(stats.inbound_messages <= messages && stats.inbound_bytes <= bytes, "{stats:?}");
        stats.bytes_received
    };
    settled(look).await;
}

async fn a_reader_that_does_not_read_holds_exactly_the_mark_and_loses_nothing(place: Place) {
    const MESSAGES: u64 = 5_000;
    for mark in [1, 2, 1_000] {
        let pull = pull_builder().receive_high_water_mark(mark).build().unwrap();
        let (push, pull) = join(&place, new_push(), pull).await;
        let flood = flood(push, MESSAGES, 10);
        fill(&pull, mark, usize::MAX).await;
        assert_eq!(pull.stats().inbound_messages, mark);
        for expected in 0..MESSAGES {
            assert_eq!(number(&within(pull.recv()).await.unwrap()), expected);
            assert!(pull.stats().inbound_messages <= mark);
        }
        within(flood).await.unwrap();
    }
}

async fn a_reader_that_does_not_read_holds_at_most_the_bytes_of_the_mark(place: Place) {
    const MESSAGES: u64 = 2_000;
    for messages in [0, 1_000] {
        let pull = pull_builder().receive_high_water_mark(messages).receive_high_water_mark_bytes(10_000);
        let (push, pull) = join(&place, new_push(), pull.build().unwrap()).await;
        let flood = flood(push, MESSAGES, 999);
        fill(&pull, 10, 9_990).await;
        assert_eq!(pull.stats().inbound_bytes, 9_990);
        for expected in 0..MESSAGES {
            assert_eq!(number(&within(pull.recv()).await.unwrap()), expected);
            assert!(pull.stats().inbound_bytes <= 10_000);
        }
        within(flood).await.unwrap();
    }
}

async fn a_received_message_over_the_byte_mark_passes_when_the_queue_is_empty(place: Place) {
    let pull = pull_builder().receive_high_water_mark_bytes(1_000).build().unwrap();
    let (push, pull) = join(&place, new_push(), pull).await;
    let flood = flood(push, 20, 200_000);
    for expected in 0..20 {
        let message = within(pull.recv()).await.unwrap();
        assert_eq!(message, padded(expected, 200_000));
        assert!(pull.stats().inbound_messages <= 1);
    }
    within(flood).await.unwrap();
}

async fn an_unlimited_inbound_queue_takes_everything(place: Place) {
    const MESSAGES: u64 = 20_000;
    let pull = pull_builder().receive_high_water_mark(0).receive_high_water_mark_bytes(0).build().unwrap();
    let (push, pull) = join(&place, new_push(), pull).await;
    let flood = flood(push, MESSAGES, 100);
    eventually(|| pull.stats().inbound_messages == MESSAGES as usize).await;
    within(flood).await.unwrap();
    assert_eq!(pull.stats().inbound_bytes, MESSAGES as usize * 100);
    assert_eq!(recv_numbers(&pull, MESSAGES as usize).await, (0..MESSAGES).collect::<Vec<_>>());
}

async fn nothing_is_lost_between_the_smallest_marks(place: Place) {
    const MESSAGES: u64 = 5_000;
    let push = push_builder().send_high_water_mark(1).build().unwrap();
    let pull = pull_builder().receive_high_water_mark(1).build().unwrap();
    let (push, pull) = join(&place, push, pull).await;
    let flood = flood(push, MESSAGES, 20);
    assert_eq!(recv_numbers(&pull, MESSAGES as usize).await, (0..MESSAGES).collect::<Vec<_>>());
    within(flood).await.unwrap();
}
