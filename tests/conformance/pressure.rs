//! Under pressure: fairness at small marks, crowds, large bodies at the end, exact marks while batches are routed.

use std::time::Duration;

use sinew::Message;
use tokio::io::AsyncWriteExt;

use crate::common::raw::{READY_PULL, READY_PUSH, Raw, frame, long_header, ping};
use crate::common::*;

crate::behaviours! {
    peers_with_plenty_take_turns_at_any_mark,
    a_message_over_the_byte_mark_gets_its_turn_among_small_ones,
    a_crowd_of_busy_peers_keeps_nobody_from_being_noticed,
    an_unlimited_linger_cuts_nobody_off,
    a_peer_that_sends_a_large_body_when_it_is_left_gets_everything,
    the_outbound_mark_is_exact_while_messages_are_routed,
}

/// A peer that has sent as much as the socket takes, and goes on.
fn flood(raw: Raw, wire: Vec<u8>) -> tokio::task::JoinHandle<()> {
    tokio::spawn(async move {
        let (_reader, mut writer) = raw.split();
        while writer.write_all(&wire).await.is_ok() {}
    })
}

async fn peers_with_plenty_take_turns_at_any_mark(place: Place) {
    const PEERS: usize = 3;
    const RECEIVED: usize = 6_000;
    for (messages, bytes) in [(1, 0), (2, 0), (7, 0), (1_000, 1_000)] {
        let builder = pull_builder().receive_high_water_mark(messages).receive_high_water_mark_bytes(bytes);
        let pull = builder.build().unwrap();
        let endpoint = within(pull.bind(place.wildcard())).await.unwrap();
        let mut floods = Vec::new();
        for peer in 0..PEERS {
            let raw = Raw::peer(&endpoint, READY_PUSH).await;
            floods.push(flood(raw, frame(0, peer.to_string().as_bytes()).repeat(5_000)));
        }
        within(pull.wait_connected(PEERS)).await.unwrap();
        // Everybody has sent what is read ahead.
        settled(|| pull.stats().messages_received).await;
        let mut counts = [0_usize; PEERS];
        for _ in 0..RECEIVED {
            let message = within(pull.recv()).await.unwrap();
            counts[usize::from(message[0][0] - b'0')] += 1;
        }
        floods.iter().for_each(|flood| flood.abort());
        let least = counts.iter().min().unwrap();
        assert!(*least >= RECEIVED / PEERS / 4, "{counts:?} at marks of {messages} messages and {bytes} bytes");
    }
}

async fn a_message_over_the_byte_mark_gets_its_turn_among_small_ones(place: Place) {
    let pull = pull_builder().receive_high_water_mark_bytes(1_000).build().unwrap();
    let endpoint = within(pull.bind(place.wildcard())).await.unwrap();
    let small = flood(Raw::peer(&endpoint, READY_PUSH).await, frame(0, b"small").repeat(1_000));
    eventually(|| pull.stats().inbound_bytes > 900).await;
    let mut other = Raw::peer(&endpoint, READY_PUSH).await;
    other.send(&frame(0, &[b'x'; 5_000])).await;
    let mut before = 0;
    while within(pull.recv()).await.unwrap().byte_len() != 5_000 {
        before += 1;
        // As much as can have been read ahead, and then some.
        assert!(before < 60_000, "the large message never gets its turn");
    }
    small.abort();
}

async fn a_crowd_of_busy_peers_keeps_nobody_from_being_noticed(place: Place) {
    const BUSY: usize = 80;
    let pull = new_pull();
    let endpoint = within(pull.bind(place.wildcard())).await.unwrap();
    let mut idle = Raw::peer(&endpoint, READY_PUSH).await;
    let mut floods = Vec::new();
    for _ in 0..BUSY {
        let raw = Raw::peer(&endpoint, READY_PUSH).await;
        floods.push(flood(raw, frame(0, &[b'x'; 250]).repeat(2_000)));
    }
    // Nobody receives, and everybody has sent what is read ahead.
    settled(|| pull.stats().messages_received).await;
    idle.send(&ping(b"still there?")).await;
    let pong = within(idle.frame()).await.unwrap();
    assert!(pong.is_command() && pong.body.ends_with(b"still there?"));
    let push = new_push();
    push.connect(&endpoint).unwrap();
    within(pull.wait_connected(BUSY + 2)).await.unwrap();
    drop(idle);
    eventually(|| pull.stats().peers == BUSY + 1).await;
    floods.iter().for_each(|flood| flood.abort());
}

/// Few enough for the kernel to take them all, each by itself, before the peer reads.
const MESSAGES: u64 = 40;

/// Closes a PUSH whose peer reads on and sends `last` meanwhile; gives how many messages arrived.
async fn messages_after_close(place: &Place, linger: Duration, last: Vec<u8>) -> usize {
    let push = push_builder().linger(linger).build().unwrap();
    let endpoint = within(push.bind(place.wildcard())).await.unwrap();
    let mut peer = Raw::peer(&endpoint, READY_PULL).await;
    within(push.wait_connected(1)).await.unwrap();
    peer.send(&ping(b"")).await;
    for number in 0..MESSAGES {
        within(push.send(padded(number, 1_000))).await.unwrap();
    }
    eventually(|| push.stats().messages_sent == MESSAGES).await;
    peer.send(&last).await;
    let reading = async move {
        let mut received = 0;
        while peer.message().await.is_some() {
            received += 1;
        }
        received
    };
    let (closed, received) = within(async { tokio::join!(push.close(), reading) }).await;
    assert_eq!(closed.unwrap().unsent, 0);
    received
}

async fn an_unlimited_linger_cuts_nobody_off(place: Place) {
    assert_eq!(messages_after_close(&place, Duration::MAX, ping(b"")).await, MESSAGES as usize);
}

async fn a_peer_that_sends_a_large_body_when_it_is_left_gets_everything(place: Place) {
    let begun = [long_header(0, 200_000), vec![b'x'; 150_000]].concat();
    assert_eq!(messages_after_close(&place, PATIENCE, begun).await, MESSAGES as usize);
}

async fn the_outbound_mark_is_exact_while_messages_are_routed(place: Place) {
    const MARK: usize = 1_000;
    let push = push_builder().send_high_water_mark(MARK).build().unwrap();
    let endpoint = within(push.bind(place.wildcard())).await.unwrap();
    // Peers that read little: often none has room for the rest of a batch.
    let mut pulls = Vec::new();
    for _ in 0..3 {
        let pull = pull_builder().receive_high_water_mark(10).build().unwrap();
        pull.connect(&endpoint).unwrap();
        pulls.push(pull);
    }
    within(push.wait_connected(3)).await.unwrap();
    let sending = tokio::spawn({
        let push = push.clone();
        async move {
            let message = Message::from(vec![b'x'; 2_000]);
            for _ in 0..20_000 {
                push.send(&message).await.unwrap();
            }
        }
    });
    let mut received = 0;
    while received < 20_000 {
        for pull in &pulls {
            while pull.try_recv().is_ok() {
                received += 1;
            }
            let queued = push.stats().outbound_messages;
            assert!(queued <= MARK, "{queued} messages are queued at a mark of {MARK}");
        }
        tokio::task::yield_now().await;
    }
    within(sending).await.unwrap();
}
