//! Heartbeats: who is given up for being silent, and who is not.

use std::time::{Duration, Instant};

use futures::{FutureExt, StreamExt};
use sinew::{DisconnectReason, Event, PullSocket, PushSocket};

use crate::common::raw::{READY_PULL, READY_PUSH, Raw, frame, greeting};
use crate::common::*;

crate::behaviours!(
    a_silent_peer_is_given_up_within_interval_and_timeout,
    a_peer_that_sends_a_byte_now_and_then_lives,
    a_peer_that_pings_with_a_time_to_live_is_given_up_after_so_much_silence,
    a_peer_whose_messages_find_no_room_is_told_that_we_live,
    what_a_peer_that_has_gone_had_sent_outlives_any_pause,
    a_receiver_that_rests_with_a_full_queue_is_not_given_up,
    old_peers_are_not_pinged,
);

const INTERVAL: Duration = Duration::from_millis(50);

/// A peer in this process may have to wait for a processor longer than a short time limit allows: what a busy machine has
/// spoilt is tried again with longer ones.
const LONGER: [u32; 3] = [1, 5, 25];

fn push(interval: Duration) -> PushSocket {
    PushSocket::builder().heartbeat_interval(interval).heartbeat_timeout(interval).build().unwrap()
}

async fn reason(monitor: &mut sinew::Monitor) -> DisconnectReason {
    loop {
        if let Event::Disconnected { reason, .. } = within(monitor.next()).await.unwrap() {
            return reason;
        }
    }
}

async fn a_silent_peer_is_given_up_within_interval_and_timeout(place: Place) {
    let push = push(INTERVAL);
    let mut monitor = push.monitor();
    let endpoint = push.bind(place.wildcard()).await.unwrap();
    // Before it is connected, and so before the other side's time begins.
    let start = Instant::now();
    let mut peer = Raw::peer(&endpoint, READY_PULL).await;
    assert_eq!(peer.read(13).await, b"\x04\x0b\x04PING\x00\x00\x00\x00\x00\x00");
    assert_eq!(reason(&mut monitor).await, DisconnectReason::Silent);
    assert!(start.elapsed() >= 2 * INTERVAL);
}

async fn a_peer_that_sends_a_byte_now_and_then_lives(place: Place) {
    for longer in LONGER {
        let timeout = INTERVAL * 4 * longer;
        let pull = PullSocket::builder().heartbeat_interval(timeout).build().unwrap();
        let mut monitor = pull.monitor();
        let endpoint = pull.bind(place.wildcard()).await.unwrap();
        let mut peer = Raw::peer(&endpoint, READY_PUSH).await;
        // One message, byte by byte, for many timeouts.
        peer.send(&[0, 60]).await;
        let (mut before, mut longest) = (Instant::now(), Duration::ZERO);
        for _ in 0..60 {
            tokio::time::sleep(timeout / 20).await;
            // If it has been given up, there is no message.
            let _ = peer.try_send(b"x").await;
            let now = Instant::now();
            longest = longest.max(now - before);
            before = now;
        }
        if longest >= timeout {
            // It was not sent now and then.
            continue;
        }
        let message = within(pull.recv()).await.unwrap();
        assert_eq!(message[0].len(), 60);
        // And then no more.
        assert_eq!(reason(&mut monitor).await, DisconnectReason::Silent);
        return;
    }
    panic!("the machine is too busy to send a byte now and then");
}

async fn a_peer_that_pings_with_a_time_to_live_is_given_up_after_so_much_silence(place: Place) {
    let pull = PullSocket::new();
    let mut monitor = pull.monitor();
    let endpoint = pull.bind(place.wildcard()).await.unwrap();
    let mut peer = Raw::peer(&endpoint, READY_PUSH).await;
    let start = Instant::now();
    peer.send(b"\x04\x07\x04PING\x00\x02").await;
    assert_eq!(peer.read(7).await, b"\x04\x05\x04PONG");
    assert_eq!(reason(&mut monitor).await, DisconnectReason::Silent);
    assert!(start.elapsed() >= Duration::from_millis(200));
}

async fn a_peer_whose_messages_find_no_room_is_told_that_we_live(place: Place) {
    let pull = PullSocket::builder().receive_high_water_mark(1).build().unwrap();
    let endpoint = pull.bind(place.wildcard()).await.unwrap();
    let mut peer = Raw::peer(&endpoint, READY_PUSH).await;
    peer.send(b"\x04\x07\x04PING\0\0").await;
    assert_eq!(peer.read(7).await, b"\x04\x05\x04PONG");
    let mut message = vec![2, 0, 0, 0, 0, 0, 0, 64, 0];
    message.resize(9 + 64 * 256, 7);
    for _ in 0..12 {
        peer.send(&message).await;
    }
    // Behind all that it would find a PING only when the user receives.
    assert_eq!(peer.read(14).await, b"\x04\x05\x04PONG\x04\x05\x04PONG", "one a second");
    for _ in 0..12 {
        within(pull.recv()).await.unwrap();
    }
}

async fn what_a_peer_that_has_gone_had_sent_outlives_any_pause(place: Place) {
    const MESSAGES: u64 = 600;
    // Most of it is with the sender's kernel when it goes, and comes only when the receiver takes something.
    let pull = pull_builder().receive_high_water_mark(1).kernel_receive_buffer(10_000).build().unwrap();
    let endpoint = within(pull.bind(place.wildcard())).await.unwrap();
    let mut peer = Raw::peer(&endpoint, READY_PUSH).await;
    let messages = (0..MESSAGES).map(|number| frame(0, format!("{number:.<300}").as_bytes()));
    peer.send(&messages.collect::<Vec<_>>().concat()).await;
    drop(peer);
    // Longer than a sign of life would have taken.
    tokio::time::sleep(Duration::from_millis(2_500)).await;
    for expected in 0..MESSAGES {
        assert_eq!(within(pull.recv()).await.unwrap(), format!("{expected:.<300}").into());
    }
}

async fn a_receiver_that_rests_with_a_full_queue_is_not_given_up(place: Place) {
    'longer: for longer in LONGER {
        let interval = INTERVAL * longer;
        let pull = PullSocket::builder().receive_high_water_mark(10).build().unwrap();
        let endpoint = pull.bind(place.wildcard()).await.unwrap();
        let push = push(interval);
        push.connect(&endpoint).unwrap();
        within(pull.wait_connected(1)).await.unwrap();
        let mut monitor = pull.monitor();
        for number in 0..1_000_u32 {
            within(push.send(vec![number as u8; 1_000])).await.unwrap();
        }
        let rest = (interval * 20).min(Duration::from_secs(5));
        if tokio::time::timeout(rest, reason(&mut monitor)).await.is_ok() {
            continue;
        }
        for number in 0..1_000_u32 {
            tokio::select! {
                message = within(pull.recv()) => assert_eq!(message.unwrap()[0][0], number as u8),
                _ = reason(&mut monitor) => continue 'longer,
            }
        }
        let (returned, peers) = (push.stats().messages_returned, pull.stats().peers);
        if reason(&mut monitor).now_or_never().is_some() {
            continue;
        }
        assert_eq!((returned, peers), (0, 1));
        return;
    }
    panic!("it is given up, however long the timeout");
}

async fn old_peers_are_not_pinged(place: Place) {
    let push = push(INTERVAL);
    let endpoint = push.bind(place.wildcard()).await.unwrap();
    let mut peer = Raw::dial(&endpoint).await;
    peer.send(&[&greeting([3, 0], "NULL"), READY_PULL].concat()).await;
    peer.read(64 + READY_PUSH.len()).await;
    tokio::time::sleep(INTERVAL * 5).await;
    within(push.send("x")).await.unwrap();
    assert_eq!(peer.read(3).await, b"\x00\x01x");
}
