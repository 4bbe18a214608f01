//! Many tasks on one socket, and the ways to send and receive: one, many, Stream, Sink.

use std::collections::HashSet;

use futures::{FutureExt, SinkExt, StreamExt, poll, stream};
use sinew::TryRecvError;
use tokio::task::JoinSet;

use crate::common::*;

crate::behaviours! {
    many_tasks_share_one_socket,
    every_receiver_that_waits_is_woken,
    recv_many_takes_what_is_there_up_to_its_limit,
    recv_many_waits_for_the_first_message,
    try_recv_says_when_there_is_nothing,
    a_stream_gives_messages_until_the_socket_is_closed,
    a_stream_may_be_dropped_and_made_anew,
    a_sink_holds_back_at_the_mark_and_keeps_order,
    a_sink_that_waits_for_bytes_does_not_hold_up_its_thread,
    wait_connected_counts_peers,
}

async fn many_tasks_share_one_socket(place: Place) {
    const TASKS: u64 = 10;
    const EACH: u64 = 500;
    let push = push_builder().send_high_water_mark(20).build().unwrap();
    let (push, pull) = join(&place, push, new_pull()).await;
    let mut sending = JoinSet::new();
    for task in 0..TASKS {
        let push = push.clone();
        sending.spawn(async move {
            for number in task * EACH..(task + 1) * EACH {
                push.send(numbered(number)).await.unwrap();
            }
        });
    }
    let mut receiving = JoinSet::new();
    for _ in 0..TASKS {
        let pull = pull.clone();
        receiving.spawn(async move {
            let mut seen = Vec::new();
            while let Ok(message) = pull.recv().await {
                seen.push(number(&message));
                if seen.len() as u64 == EACH {
                    break;
                }
            }
            seen
        });
    }
    within(sending.join_all()).await;
    let seen: HashSet<u64> = within(receiving.join_all()).await.into_iter().flatten().collect();
    assert_eq!(seen.len() as u64, TASKS * EACH);
}

async fn every_receiver_that_waits_is_woken(place: Place) {
    const RECEIVERS: u64 = 50;
    let (push, pull) = pair(&place).await;
    let mut waiting: Vec<_> = (0..RECEIVERS).map(|_| Box::pin(pull.recv())).collect();
    for recv in &mut waiting {
        assert!(poll!(recv).is_pending());
    }
    send_numbers(&push, 0..RECEIVERS).await;
    let mut seen = Vec::new();
    for recv in waiting {
        seen.push(number(&within(recv).await.unwrap()));
    }
    assert_eq!(seen, (0..RECEIVERS).collect::<Vec<_>>());
}

async fn recv_many_takes_what_is_there_up_to_its_limit(place: Place) {
    let (push, pull) = pair(&place).await;
    send_numbers(&push, 0..100).await;
    eventually(|| pull.stats().inbound_messages == 100).await;
    let mut messages = vec!["kept".into()];
    assert_eq!(within(pull.recv_many(&mut messages, 0)).await, Ok(0));
    assert_eq!(within(pull.recv_many(&mut messages, 30)).await, Ok(30));
    assert_eq!(within(pull.recv_many(&mut messages, 1_000)).await, Ok(70));
    assert_eq!(messages.remove(0), "kept".into());
    assert_eq!(messages.iter().map(number).collect::<Vec<_>>(), (0..100).collect::<Vec<_>>());
}

async fn recv_many_waits_for_the_first_message(place: Place) {
    let (push, pull) = pair(&place).await;
    let mut messages = Vec::new();
    let mut recv = Box::pin(pull.recv_many(&mut messages, 10));
    assert!(poll!(&mut recv).is_pending());
    send_numbers(&push, 0..1).await;
    assert_eq!(within(recv).await, Ok(1));
    assert_eq!(number(&messages[0]), 0);
}

async fn try_recv_says_when_there_is_nothing(place: Place) {
    let (push, pull) = pair(&place).await;
    assert_eq!(pull.try_recv(), Err(TryRecvError::Empty));
    send_numbers(&push, 0..1).await;
    let mut got = Err(TryRecvError::Empty);
    eventually(|| {
        got = pull.try_recv();
        got.is_ok()
    })
    .await;
    assert_eq!(number(&got.unwrap()), 0);
    assert_eq!(pull.try_recv(), Err(TryRecvError::Empty));
}

async fn a_stream_gives_messages_until_the_socket_is_closed(place: Place) {
    let (push, pull) = pair(&place).await;
    let receiving = tokio::spawn({
        let pull = pull.clone();
        async move { pull.stream().map(|message| number(&message)).collect::<Vec<_>>().await }
    });
    send_numbers(&push, 0..1_000).await;
    let mut monitor = pull.monitor();
    within(push.close()).await.unwrap();
    wait_disconnected(&mut monitor).await;
    eventually(|| pull.stats().inbound_messages == 0).await;
    within(pull.close()).await.unwrap();
    assert_eq!(within(receiving).await.unwrap(), (0..1_000).collect::<Vec<_>>());
}

async fn a_stream_may_be_dropped_and_made_anew(place: Place) {
    let (push, pull) = pair(&place).await;
    for round in 0..50 {
        let mut stream = pull.stream();
        if round % 2 == 0 {
            assert!(poll!(stream.next()).is_pending());
        }
        send_numbers(&push, [round]).await;
        if round % 3 == 0 {
            drop(stream);
            stream = pull.stream();
        }
        assert_eq!(number(&within(stream.next()).await.unwrap()), round);
    }
}

async fn a_sink_holds_back_at_the_mark_and_keeps_order(place: Place) {
    const MESSAGES: u64 = 1_000;
    let push = push_builder().send_high_water_mark(2).build().unwrap();
    let endpoint = within(push.bind(place.wildcard())).await.unwrap();
    let sending = tokio::spawn({
        let push = push.clone();
        async move { push.sink().send_all(&mut stream::iter((0..MESSAGES).map(numbered).map(Ok))).await }
    });
    eventually(|| push.stats().outbound_messages == 2).await;
    assert!(!sending.is_finished());
    let pull = new_pull();
    pull.connect(&endpoint).unwrap();
    assert_eq!(recv_numbers(&pull, MESSAGES as usize).await, (0..MESSAGES).collect::<Vec<_>>());
    within(sending).await.unwrap().unwrap();
}

async fn a_sink_that_waits_for_bytes_does_not_hold_up_its_thread(place: Place) {
    let push = push_builder().send_high_water_mark_bytes(1_000).build().unwrap();
    let endpoint = within(push.bind(place.wildcard())).await.unwrap();
    // There is room for a message, only not for this one.
    push.try_send(padded(0, 900)).unwrap();
    let (tell, told) = tokio::sync::oneshot::channel();
    let polling = std::thread::spawn({
        let push = push.clone();
        move || {
            let mut sink = push.sink();
            let polled = sink.feed(padded(1, 200)).now_or_never().is_some() && sink.flush().now_or_never().is_some();
            // If nobody waits for it any more the test has failed already.
            let _ = tell.send(polled);
        }
    });
    let polled = tokio::time::timeout(TOLERANCE, told).await;
    let pull = new_pull();
    pull.connect(&endpoint).unwrap();
    assert_eq!(number(&within(pull.recv()).await.unwrap()), 0);
    assert_eq!(polled.expect("the poll did not return"), Ok(false), "there was no room");
    polling.join().unwrap();
}

async fn wait_connected_counts_peers(place: Place) {
    let push = new_push();
    let endpoint = within(push.bind(place.wildcard())).await.unwrap();
    within(push.wait_connected(0)).await.unwrap();
    let mut two = Box::pin(push.wait_connected(2));
    let first = new_pull();
    first.connect(&endpoint).unwrap();
    within(push.wait_connected(1)).await.unwrap();
    assert!(poll!(&mut two).is_pending());
    let second = new_pull();
    second.connect(&endpoint).unwrap();
    within(two).await.unwrap();
    assert_eq!(push.stats().peers, 2);
}
