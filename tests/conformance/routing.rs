//! Where messages go: round robin, fair queueing, order.

use sinew::Message;

use crate::common::raw::{READY_PULL, Raw};
use crate::common::*;

crate::behaviours! {
    round_robin_over_five_connected_peers_is_strict,
    round_robin_over_five_accepted_peers_is_strict,
    a_full_peer_is_skipped_and_gets_its_turn_again,
    a_peer_that_is_not_connected_takes_nothing,
    five_peers_that_wait_are_received_in_turn,
    a_busy_peer_does_not_shut_out_a_quiet_one,
    order_per_peer_holds_over_100_000_messages_of_mixed_sizes,
}

const PEERS: usize = 5;

async fn round_robin_over_five_connected_peers_is_strict(place: Place) {
    let push = new_push();
    let mut pulls = Vec::new();
    for _ in 0..PEERS {
        let pull = new_pull();
        push.connect(within(pull.bind(place.wildcard())).await.unwrap()).unwrap();
        pulls.push(pull);
    }
    assert_strict_round_robin(push, pulls).await;
}

async fn round_robin_over_five_accepted_peers_is_strict(place: Place) {
    let push = new_push();
    let endpoint = within(push.bind(place.wildcard())).await.unwrap();
    let pulls: Vec<_> = (0..PEERS).map(|_| new_pull()).collect();
    for pull in &pulls {
        pull.connect(&endpoint).unwrap();
    }
    assert_strict_round_robin(push, pulls).await;
}

async fn assert_strict_round_robin(push: sinew::PushSocket, pulls: Vec<sinew::PullSocket>) {
    const EACH: usize = 200;
    within(push.wait_connected(PEERS)).await.unwrap();
    send_numbers(&push, 0..(PEERS * EACH) as u64).await;
    let mut first = Vec::new();
    for pull in &pulls {
        let numbers = recv_numbers(pull, EACH).await;
        let expected: Vec<_> = (0..EACH).map(|turn| numbers[0] + (turn * PEERS) as u64).collect();
        assert_eq!(numbers, expected, "every fifth message, without exception");
        assert!(pull.try_recv().is_err(), "no peer gets more than its share");
        first.push(numbers[0]);
    }
    first.sort_unstable();
    assert_eq!(first, [0, 1, 2, 3, 4]);
}

async fn a_full_peer_is_skipped_and_gets_its_turn_again(place: Place) {
    const MESSAGES: u64 = 400;
    const SIZE: usize = 64 * 1024;
    let push = new_push();
    let endpoint = within(push.bind(place.wildcard())).await.unwrap();
    let mut lazy = Raw::peer(&endpoint, READY_PULL).await;
    let pull = new_pull();
    pull.connect(&endpoint).unwrap();
    within(push.wait_connected(2)).await.unwrap();

    // Far more than the lazy peer's connection holds: without skipping it this would never end.
    let sending = tokio::spawn(async move {
        for number in 0..MESSAGES {
            within(push.send(padded(number, SIZE))).await.unwrap();
        }
        push
    });
    let mut seen = Vec::new();
    while seen.len() < MESSAGES as usize / 2 {
        seen.push(number(&within(pull.recv()).await.unwrap()));
    }
    // Now it reads, and gets messages again.
    let (tell, mut told) = tokio::sync::mpsc::unbounded_channel();
    tokio::spawn(async move {
        while let Some(message) = lazy.message().await {
            tell.send(String::from_utf8_lossy(&message[0]).parse::<u64>().unwrap()).unwrap();
        }
    });
    let mut lazy_seen = Vec::new();
    while seen.len() + lazy_seen.len() < MESSAGES as usize {
        tokio::select! {
            message = within(pull.recv()) => seen.push(number(&message.unwrap())),
            Some(number) = told.recv() => lazy_seen.push(number),
        }
    }
    drop(within(sending).await.unwrap());
    assert!(seen.is_sorted() && lazy_seen.is_sorted());
    assert!(!lazy_seen.is_empty());
    let mut all = [seen, lazy_seen].concat();
    all.sort_unstable();
    assert_eq!(all, (0..MESSAGES).collect::<Vec<_>>());
}

async fn a_peer_that_is_not_connected_takes_nothing(place: Place) {
    let (push, pull) = pair(&place).await;
    push.connect(place.fresh()).unwrap();
    send_numbers(&push, 0..100).await;
    assert_eq!(recv_numbers(&pull, 100).await, (0..100).collect::<Vec<_>>());
}

async fn five_peers_that_wait_are_received_in_turn(place: Place) {
    const EACH: usize = 50;
    let pull = new_pull();
    let endpoint = within(pull.bind(place.wildcard())).await.unwrap();
    let mut pushes = Vec::new();
    for peer in 0..PEERS {
        let push = new_push();
        push.connect(&endpoint).unwrap();
        for turn in 0..EACH {
            within(push.send([peer.to_string(), turn.to_string()])).await.unwrap();
        }
        pushes.push(push);
    }
    eventually(|| pull.stats().inbound_messages == PEERS * EACH).await;
    for turn in 0..EACH {
        let mut peers = Vec::new();
        for _ in 0..PEERS {
            let message = within(pull.recv()).await.unwrap();
            assert_eq!(message[1], *turn.to_string().as_bytes(), "nobody is a turn ahead");
            peers.push(number(&message));
        }
        peers.sort_unstable();
        assert_eq!(peers, [0, 1, 2, 3, 4]);
    }
}

async fn a_busy_peer_does_not_shut_out_a_quiet_one(place: Place) {
    let pull = pull_builder().receive_high_water_mark(100).build().unwrap();
    let endpoint = within(pull.bind(place.wildcard())).await.unwrap();
    let busy = new_push();
    busy.connect(&endpoint).unwrap();
    let flood = tokio::spawn(async move { while busy.send("busy").await.is_ok() {} });
    eventually(|| pull.stats().inbound_messages == 100).await;

    let quiet = new_push();
    quiet.connect(&endpoint).unwrap();
    within(pull.wait_connected(2)).await.unwrap();
    within(quiet.send("quiet")).await.unwrap();
    eventually(|| quiet.stats().messages_sent == 1).await;
    let mut busy_before = 0;
    while within(pull.recv()).await.unwrap() != Message::from("quiet") {
        busy_before += 1;
        // What was queued and read ahead comes first; after that the two take turns.
        assert!(busy_before < 20_000, "a quiet peer waits for a busy one");
    }
    flood.abort();
}

/// Message `number` of `peer`: now and then multipart, large or very large.
fn mixed(peer: u64, number: u64) -> Message {
    let size = match number {
        _ if number % 5_000 == 4_999 => 1 << 20,
        _ if number % 1_000 == 999 => 64 * 1024 + usize::from(number % 2_000 == 999),
        _ if number % 100 == 99 => [4_095, 4_096, 8_191, 8_192][number as usize / 100 % 4],
        _ => [0, 1, 63, 64, 65, 200, 255, 256, 257][number as usize % 9],
    };
    let body = vec![number.to_le_bytes()[0]; size];
    let head = format!("{peer} {number}").into_bytes();
    match number % 7 {
        0 => [head, vec![], body].into_iter().collect(),
        1 => [head, body].into_iter().collect(),
        2 => head.into(),
        _ => [head, body].concat().into(),
    }
}

async fn order_per_peer_holds_over_100_000_messages_of_mixed_sizes(place: Place) {
    const EACH: u64 = 50_000;
    let pull = new_pull();
    let endpoint = within(pull.bind(place.wildcard())).await.unwrap();
    let mut sending = Vec::new();
    for peer in 0..2 {
        let push = new_push();
        push.connect(&endpoint).unwrap();
        sending.push(tokio::spawn(async move {
            for number in 0..EACH {
                push.send(mixed(peer, number)).await.unwrap();
            }
            push
        }));
    }
    let mut next = [0; 2];
    while next != [EACH; 2] {
        let message = within(pull.recv()).await.unwrap();
        let peer = usize::from(message[0][0] - b'0');
        assert_eq!(message, mixed(peer as u64, next[peer]));
        next[peer] += 1;
    }
    for push in sending {
        within(push).await.unwrap();
    }
}
