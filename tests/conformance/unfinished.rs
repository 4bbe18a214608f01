//! Messages that do not come whole: a budget over all peers, within which nobody waits, and beyond which nobody is kept out.

use std::time::{Duration, Instant};

use sinew::{DisconnectReason, Event, ProtocolError, PullSocket};

use crate::common::raw::{MORE, READY_PUSH, Raw, frame, long_header};
use crate::common::*;

crate::behaviours! {
    what_has_come_of_a_message_is_shown,
    within_the_budget_nobody_waits,
    beyond_the_budget_one_message_after_the_other_comes_whole,
    beyond_the_budget_small_messages_still_come,
    frames_that_have_come_whole_count,
    a_peer_that_goes_gives_its_part_back,
    a_message_that_others_wait_for_costs_the_connection,
    peers_that_send_a_byte_now_and_then_keep_nobody_out,
    peers_that_send_one_large_message_after_the_other_take_turns,
}

/// Half of it: from here on peers take turns.
const BUDGET: usize = 1 << 20;
const LARGE: usize = 3 << 20;

/// The beginning of a large message, of which so much has come.
async fn begin(pull: &PullSocket, endpoint: &sinew::Endpoint, length: usize) -> Raw {
    let before = pull.stats().unfinished_bytes;
    let mut raw = Raw::peer(endpoint, READY_PUSH).await;
    raw.send(&[&long_header(0, LARGE as u64)[..], &vec![7; length]].concat()).await;
    eventually(|| pull.stats().unfinished_bytes >= before + length).await;
    raw
}

async fn bound(place: &Place) -> (PullSocket, sinew::Endpoint) {
    let pull = pull_builder().max_unfinished_bytes(2 * BUDGET).build().unwrap();
    let endpoint = within(pull.bind(place.wildcard())).await.unwrap();
    (pull, endpoint)
}

async fn what_has_come_of_a_message_is_shown(place: Place) {
    let (pull, endpoint) = bound(&place).await;
    let mut raw = begin(&pull, &endpoint, 500_000).await;
    assert_eq!(pull.stats().unfinished_bytes, 500_000);
    raw.send(&vec![7; LARGE - 500_000]).await;
    assert_eq!(within(pull.recv()).await.unwrap(), vec![7; LARGE].into());
    eventually(|| pull.stats().unfinished_bytes == 0).await;
}

async fn within_the_budget_nobody_waits(place: Place) {
    let (pull, endpoint) = bound(&place).await;
    let mut raws = Vec::new();
    for _ in 0..5 {
        raws.push(begin(&pull, &endpoint, 200_000).await);
    }
    for raw in raws.iter_mut().rev() {
        raw.send(&vec![7; LARGE - 200_000]).await;
        assert_eq!(within(pull.recv()).await.unwrap(), vec![7; LARGE].into());
    }
}

async fn beyond_the_budget_one_message_after_the_other_comes_whole(place: Place) {
    const PEERS: usize = 6;
    const HALF: usize = BUDGET / 2 - 10_000;
    let (pull, endpoint) = bound(&place).await;
    // Two that hold most of the budget and do not go on.
    let mut silent = [begin(&pull, &endpoint, HALF).await, begin(&pull, &endpoint, HALF).await];
    let mut senders = Vec::new();
    for _ in 0..PEERS {
        let mut raw = Raw::peer(&endpoint, READY_PUSH).await;
        senders.push(tokio::spawn(async move {
            for _ in 0..3 {
                raw.send(&frame(0, &vec![8; LARGE])).await;
            }
            raw
        }));
    }
    let mut most = 0;
    for _ in 0..3 * PEERS {
        assert_eq!(within(pull.recv()).await.unwrap(), vec![8; LARGE].into());
        most = most.max(pull.stats().unfinished_bytes);
    }
    // What was there, the one that is read on, and what the others have brought until they had to wait.
    assert!(most <= BUDGET + LARGE + 1_000_000, "{most}");
    for raw in &mut silent {
        raw.send(&vec![7; LARGE - HALF]).await;
        assert_eq!(within(pull.recv()).await.unwrap(), vec![7; LARGE].into());
    }
    for sender in senders {
        within(sender).await.unwrap();
    }
    eventually(|| pull.stats().unfinished_bytes == 0).await;
}

async fn beyond_the_budget_small_messages_still_come(place: Place) {
    let (pull, endpoint) = bound(&place).await;
    let _first = begin(&pull, &endpoint, BUDGET).await;
    let _second = begin(&pull, &endpoint, BUDGET / 2).await;
    let push = new_push();
    push.connect(&endpoint).unwrap();
    for number in 0..1_000 {
        within(push.send(numbered(number))).await.unwrap();
        assert_eq!(within(pull.recv()).await.unwrap(), numbered(number));
    }
}

async fn frames_that_have_come_whole_count(place: Place) {
    let (pull, endpoint) = bound(&place).await;
    let mut raw = Raw::peer(&endpoint, READY_PUSH).await;
    raw.send(&frame(MORE, &[7; 1_000]).repeat(200)).await;
    eventually(|| pull.stats().unfinished_bytes >= 200_000).await;
    raw.send(&frame(0, b"")).await;
    assert_eq!(within(pull.recv()).await.unwrap().byte_len(), 200_000);
    eventually(|| pull.stats().unfinished_bytes == 0).await;
}

async fn a_peer_that_goes_gives_its_part_back(place: Place) {
    let (pull, endpoint) = bound(&place).await;
    let mut monitor = pull.monitor();
    let silent = begin(&pull, &endpoint, BUDGET).await;
    let waiting = begin(&pull, &endpoint, 300_000).await;
    drop(silent);
    wait_disconnected(&mut monitor).await;
    assert_eq!(pull.stats().unfinished_bytes, 300_000);
    drop(waiting);
    wait_disconnected(&mut monitor).await;
    assert_eq!(pull.stats().unfinished_bytes, 0);
}

async fn a_message_that_others_wait_for_costs_the_connection(place: Place) {
    let (pull, endpoint) = bound(&place).await;
    let mut monitor = pull.monitor();
    let _silent = begin(&pull, &endpoint, BUDGET).await;
    // It is the one that is read on, uses up the rest, and stops in the middle.
    let _lead = begin(&pull, &endpoint, BUDGET + 100_000).await;
    let start = Instant::now();
    let mut honest = Raw::peer(&endpoint, READY_PUSH).await;
    let sending = tokio::spawn(async move {
        honest.send(&frame(0, &vec![8; LARGE])).await;
        honest
    });
    let reason = wait_for(&mut monitor, |event| match event {
        Event::Disconnected { reason, .. } => Some(reason),
        _ => None,
    });
    assert_eq!(reason.await, DisconnectReason::Protocol(ProtocolError::UnfinishedMessage));
    assert!(start.elapsed() >= Duration::from_millis(900), "{:?}", start.elapsed());
    assert_eq!(within(pull.recv()).await.unwrap(), vec![8; LARGE].into());
    drop(within(sending).await.unwrap());
}

async fn peers_that_send_a_byte_now_and_then_keep_nobody_out(place: Place) {
    let (pull, endpoint) = bound(&place).await;
    let mut drippers = Vec::new();
    // As many as it takes for peers to take turns, with half of the budget left.
    while pull.stats().unfinished_bytes < BUDGET {
        drippers.push(begin(&pull, &endpoint, 12_000).await);
    }
    let count = drippers.len();
    let dripping = tokio::spawn(async move {
        loop {
            for dripper in &mut drippers {
                let _ = dripper.try_send(b"x").await;
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    });
    let push = new_push();
    push.connect(&endpoint).unwrap();
    for number in 0..20 {
        within(push.send(padded(number, 300_000))).await.unwrap();
        assert_eq!(within(pull.recv()).await.unwrap(), padded(number, 300_000));
    }
    assert!(pull.stats().peers > count, "nobody is closed for being slow while there is room");
    dripping.abort();
}

async fn peers_that_send_one_large_message_after_the_other_take_turns(place: Place) {
    let (pull, endpoint) = bound(&place).await;
    // Hardly anything is left, so that whoever is read on is read until its message is whole.
    let _silent = begin(&pull, &endpoint, 2 * BUDGET - 100_000).await;
    let mut senders = Vec::new();
    for mark in [b'a', b'b'] {
        let mut raw = Raw::peer(&endpoint, READY_PUSH).await;
        senders.push(tokio::spawn(async move {
            // Until the connection ends.
            while raw.try_send(&frame(0, &vec![mark; 500_000])).await.is_ok() {}
        }));
    }
    // The first of them has filled the queue, perhaps, before the other was there: what counts is what comes once both have
    // come. And either may get no processor for a while, so this does not ask for even parts.
    let mut counts = [0, 0];
    let mut since = 0;
    while counts.iter().any(|count| *count < 10) {
        let message = within(pull.recv()).await.unwrap();
        counts[usize::from(message[0][0] - b'a')] += 1;
        since += usize::from(counts.iter().all(|count| *count > 0));
        assert!(since < 300 && counts.iter().sum::<usize>() < 1_000, "{counts:?}");
    }
    within(pull.close()).await.unwrap();
    for sender in senders {
        within(sender).await.unwrap();
    }
}
