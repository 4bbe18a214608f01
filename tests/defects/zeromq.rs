//! What zeromq (zmq.rs) 0.7 is known for: sends that leave holes, sizes that are believed, commands that are errors.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use futures::poll;
use sinew::{DisconnectReason, Event, Message};

use super::stand::*;
use crate::common::raw::*;
use crate::common::*;

crate::common::over_each_transport! {
    a_cancelled_send_leaves_the_peer_in_the_rotation,
    a_size_is_not_believed_before_the_bytes_have_come,
    unknown_commands_are_no_error_and_pings_are_answered,
    a_push_without_a_peer_waits,
    a_slow_publish_starves_nobody_on_one_thread,
    a_lost_peer_is_noticed_while_nobody_receives,
}

// zeromq (#188, #248): a `send` takes its peer out of the rotation and puts it back afterwards; dropped in between, it never does.
async fn a_cancelled_send_leaves_the_peer_in_the_rotation(place: Place) {
    const PEERS: usize = 2;
    const LENGTH: usize = 10_000;
    let push = push_builder().kernel_send_buffer(4_096).send_high_water_mark(1).build().unwrap();
    let endpoint = within(push.bind(place.wildcard())).await.unwrap();
    let mut pulls = Vec::new();
    for _ in 0..PEERS {
        let pull = pull_builder().receive_high_water_mark(1).kernel_receive_buffer(4_096).build().unwrap();
        pull.connect(&endpoint).unwrap();
        pulls.push(pull);
    }
    within(push.wait_connected(PEERS)).await.unwrap();
    // Until nobody takes any more; then more sends are dropped than there are peers.
    let mut cancelled = 0;
    let mut sent = 0_u64;
    while cancelled < 5 * PEERS {
        let mut send = Box::pin(push.send(padded(sent, LENGTH)));
        if tokio::time::timeout(Duration::from_millis(20), &mut send).await.is_ok() {
            sent += 1;
            cancelled = 0;
        } else {
            cancelled += 1;
        }
        assert!(sent < 10_000, "the peers take everything");
    }
    let mut received: Vec<u64> = Vec::new();
    let mut counts = [0; PEERS];
    let start = std::time::Instant::now();
    for more in 0..100 {
        let mut send = Box::pin(push.send(padded(sent + more, LENGTH)));
        while poll!(&mut send).is_pending() {
            assert!(start.elapsed() < PATIENCE, "nobody takes anything any more: {counts:?}");
            for (pull, count) in pulls.iter().zip(&mut counts) {
                while let Ok(message) = pull.try_recv() {
                    received.push(number(&message));
                    *count += 1;
                }
            }
            tokio::task::yield_now().await;
        }
    }
    let total = sent + 100;
    let take_the_rest = || {
        for pull in &pulls {
            while let Ok(message) = pull.try_recv() {
                received.push(number(&message));
            }
        }
        received.len() as u64 == total
    };
    eventually(take_the_rest).await;
    received.sort_unstable();
    assert_eq!(received, (0..total).collect::<Vec<_>>());
    assert!(counts.iter().all(|count| *count > 10), "{counts:?}");
}

// zeromq: there is no largest size, and whatever a header of nine bytes says is reserved at once. (Sizes over the limit:
// `libzmq::…::messages_are_limited_by_default_and_over_all_their_frames`.)
async fn a_size_is_not_believed_before_the_bytes_have_come(place: Place) {
    if !may_open(1_000) || !is_alone(&place, "zeromq", "a_size_is_not_believed_before_the_bytes_have_come").await {
        return;
    }
    // Below the limit each; 12 GiB all together.
    const PEERS: usize = 200;
    const SIZE: u64 = 64 << 20;
    const GROWTH: u64 = 1 << 30;
    let pull = new_pull();
    let endpoint = within(pull.bind(place.wildcard())).await.unwrap();
    let before = address_space();
    let mut peers = Vec::new();
    for _ in 0..PEERS {
        let mut raw = Raw::peer(&endpoint, READY_PUSH).await;
        raw.send(&[&long_header(0, SIZE)[..], &[7; 100]].concat()).await;
        peers.push(raw);
    }
    let come = PEERS * (64 + READY_PUSH.len() + 109);
    eventually(|| pull.stats().bytes_received == come as u64).await;
    assert!(address_space() < before + GROWTH);
}

/// How much this process has reserved, in bytes.
fn address_space() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let value = status.lines().find_map(|line| line.strip_prefix("VmSize:")).unwrap();
    value.trim().strip_suffix(" kB").unwrap().parse::<u64>().unwrap() << 10
}

// zeromq: any command that it does not know ends the connection, and PING is one of them.
async fn unknown_commands_are_no_error_and_pings_are_answered(place: Place) {
    let pull = new_pull();
    let endpoint = within(pull.bind(place.wildcard())).await.unwrap();
    let mut raw = Raw::peer(&endpoint, READY_PUSH).await;
    raw.send(&[command("HELLO-AGAIN", b"whatever"), command("PONG", b""), ping(b"context")].concat()).await;
    assert_eq!(raw.frame().await.unwrap().body, b"\x04PONGcontext");
    raw.send(&frame(0, b"a message")).await;
    assert_eq!(within(pull.recv()).await.unwrap(), "a message".into());
}

// zeromq: a PUSH without a peer fails instead of waiting for one.
async fn a_push_without_a_peer_waits(place: Place) {
    let push = push_builder().send_high_water_mark(1).build().unwrap();
    let endpoint = within(push.bind(place.wildcard())).await.unwrap();
    within(push.send(numbered(0))).await.unwrap();
    let mut waiting = Box::pin(push.send(numbered(1)));
    assert!(poll!(&mut waiting).is_pending());
    let pull = new_pull();
    pull.connect(&endpoint).unwrap();
    within(waiting).await.unwrap();
    assert_eq!(recv_numbers(&pull, 2).await, [0, 1]);
}

// zeromq: a PUB whose subscriber is slow never yields, and no other task of a current-thread runtime runs.
async fn a_slow_publish_starves_nobody_on_one_thread(place: Place) {
    const SENDS: usize = 5_000_000;
    const TURNS: usize = 20;
    let publisher = pub_builder().kernel_send_buffer(4_096).build().unwrap();
    let endpoint = within(publisher.bind(place.wildcard())).await.unwrap();
    let _slow = raw_subscriber(&publisher, &endpoint, b"").await;
    let is_over = Arc::new(AtomicBool::new(false));
    let sending = tokio::spawn({
        let (publisher, is_over) = (publisher.clone(), is_over.clone());
        async move {
            let message = Message::from(vec![b'x'; 1_000]);
            for sent in 0..SENDS {
                if is_over.load(Ordering::SeqCst) {
                    return sent;
                }
                publisher.send(&message).await.unwrap();
            }
            SENDS
        }
    });
    // Tasks, timers and streams have their turns.
    let (push, pull) = pair(&place).await;
    for turn in 0..TURNS as u64 {
        tokio::time::sleep(Duration::from_micros(100)).await;
        within(push.send(numbered(turn))).await.unwrap();
        assert_eq!(recv_numbers(&pull, 1).await, [turn]);
    }
    is_over.store(true, Ordering::SeqCst);
    let sent = within(sending).await.unwrap();
    assert!(sent > 0 && sent < SENDS, "{sent} were sent before anybody else had a turn");
}

// zeromq (#103, #207): a connection is only looked at while the user receives, so nobody hears of its end.
async fn a_lost_peer_is_noticed_while_nobody_receives(place: Place) {
    let (pull, publisher) = (new_pull(), new_pub());
    let pull_endpoint = within(pull.bind(place.wildcard())).await.unwrap();
    let pub_endpoint = within(publisher.bind(place.wildcard())).await.unwrap();
    let (mut at_pull, mut at_publisher) = (pull.monitor(), publisher.monitor());
    let mut pushing = Raw::peer(&pull_endpoint, READY_PUSH).await;
    let subscribed = raw_subscriber(&publisher, &pub_endpoint, b"").await;
    pushing.send(&frame(0, b"its last words")).await;
    drop((pushing, subscribed));
    for monitor in [&mut at_pull, &mut at_publisher] {
        let reason = wait_for(monitor, |event| match event {
            Event::Disconnected { reason, .. } => Some(reason),
            _ => None,
        });
        assert_eq!(reason.await, DisconnectReason::PeerClosed);
    }
    assert_eq!(within(pull.recv()).await.unwrap(), "its last words".into());
}
