//! What the monitor tells: sequences of events, growing delays, mismatches.

use std::time::Duration;

use futures::StreamExt;
use sinew::{DisconnectReason, Event, ProtocolError, PushSocket, SocketType, Version};

use crate::common::raw::{MORE, READY_PULL, READY_PUSH, READY_SUB, Raw, RawListener, command, frame, greeting};
use crate::common::*;

crate::behaviours! {
    a_bound_socket_tells_a_connection_s_life,
    a_connected_socket_tells_a_connection_s_life,
    retries_come_at_growing_intervals_and_start_anew_after_success,
    a_push_that_connects_to_a_push_is_reported_and_retried_slowly,
    a_peer_with_another_mechanism_is_reported_and_retried_slowly,
    a_corrected_server_is_found_after_a_mismatch,
    every_monitor_sees_every_event,
    a_monitor_ends_with_its_socket,
    a_peer_that_takes_nothing_is_congested_until_it_does,
    a_monitor_that_comes_late_hears_of_a_peer_that_takes_nothing,
    what_was_tried_in_vain_is_counted,
    each_peer_s_bytes_are_counted,
    a_snapshot_and_what_follows_have_no_gap,
    a_bind_that_fails_is_an_event,
    connections_beyond_the_limit_are_refused,
    a_flood_of_commands_costs_the_connection,
    answers_to_pings_are_no_flood,
    late_answers_to_pings_are_no_flood,
}

async fn a_bound_socket_tells_a_connection_s_life(place: Place) {
    let (push, pull) = (new_push(), new_pull());
    let mut monitor = pull.monitor();
    let endpoint = within(pull.bind(place.wildcard())).await.unwrap();
    assert_eq!(next_event(&mut monitor).await, Event::Listening { endpoint: endpoint.clone() });
    push.connect(&endpoint).unwrap();
    let Event::Accepted(peer) = next_event(&mut monitor).await else {
        panic!("not accepted");
    };
    assert_eq!(peer.endpoint, endpoint);
    let succeeded =
        Event::HandshakeSucceeded { peer: peer.clone(), socket_type: SocketType::Push, version: Version::V3_1 };
    assert_eq!(next_event(&mut monitor).await, succeeded);
    // Who closes before it has read our READY command resets the connection.
    within(push.wait_connected(1)).await.unwrap();
    within(push.close()).await.unwrap();
    let event = next_event(&mut monitor).await;
    let Event::Disconnected { peer: gone, reason: DisconnectReason::PeerClosed, returned: 0, .. } = event else {
        panic!("not disconnected by the peer: {event:?}");
    };
    assert_eq!(gone, peer);
    within(pull.unbind(&endpoint)).await.unwrap();
    assert_eq!(next_event(&mut monitor).await, Event::Detached { endpoint });
    let closed = within(pull.close()).await.unwrap();
    assert_eq!(next_event(&mut monitor).await, Event::Closed(closed));
    assert_eq!(within(monitor.next()).await, None);
}

async fn a_connected_socket_tells_a_connection_s_life(place: Place) {
    let endpoint = place.fresh();
    let (push, pull) = (new_push(), new_pull());
    let mut monitor = push.monitor();
    push.connect(&endpoint).unwrap();
    let retried = |event: &Event| matches!(event, Event::ConnectRetried { endpoint: of, .. } if *of == endpoint);
    assert!(retried(&next_event(&mut monitor).await));

    within(pull.bind(&endpoint)).await.unwrap();
    let peer = loop {
        match next_event(&mut monitor).await {
            Event::Connected(peer) => break peer,
            event => assert!(retried(&event), "{event:?}"),
        }
    };
    assert_eq!(peer.endpoint, endpoint);
    let succeeded =
        Event::HandshakeSucceeded { peer: peer.clone(), socket_type: SocketType::Pull, version: Version::V3_1 };
    assert_eq!(next_event(&mut monitor).await, succeeded);
    within(pull.close()).await.unwrap();
    let event = next_event(&mut monitor).await;
    assert!(matches!(&event, Event::Disconnected { peer: gone, returned: 0, .. } if *gone == peer), "{event:?}");
    assert!(retried(&next_event(&mut monitor).await));
}

/// The delays of the next retries.
async fn delays(monitor: &mut sinew::Monitor, count: usize) -> Vec<Duration> {
    let mut delays = Vec::new();
    while delays.len() < count {
        let retried = wait_for(monitor, |event| match event {
            Event::ConnectRetried { delay, .. } => Some(delay),
            _ => None,
        });
        delays.push(retried.await);
    }
    delays
}

async fn retries_come_at_growing_intervals_and_start_anew_after_success(place: Place) {
    let (first, longest) = (Duration::from_millis(8), Duration::from_millis(100));
    let push = PushSocket::builder().reconnect_delay(first, longest).build().unwrap();
    let mut monitor = push.monitor();
    let endpoint = place.fresh();
    push.connect(&endpoint).unwrap();
    let grows = |delays: &[Duration]| {
        for (delay, nominal) in delays.iter().zip([8, 16, 32, 64, 100, 100]) {
            let nominal = Duration::from_millis(nominal);
            assert!((nominal / 2..=nominal).contains(delay), "{delays:?}");
        }
    };
    grows(&delays(&mut monitor, 6).await);
    let pull = new_pull();
    within(pull.bind(&endpoint)).await.unwrap();
    within(push.wait_connected(1)).await.unwrap();
    let mut monitor = push.monitor();
    within(pull.close()).await.unwrap();
    grows(&delays(&mut monitor, 3).await);
}

const SOON: Duration = Duration::from_millis(5);

/// Attempts at the slowest rate are this far apart, at least.
const SLOWEST: Duration = Duration::from_secs(3_000);

fn patient_push() -> PushSocket {
    PushSocket::builder().reconnect_delay(Duration::from_millis(5), SLOWEST * 4 / 3).build().unwrap()
}

async fn wait_handshake_failed(monitor: &mut sinew::Monitor) -> DisconnectReason {
    wait_for(monitor, |event| match event {
        Event::HandshakeFailed { reason, .. } => Some(reason),
        _ => None,
    })
    .await
}

async fn a_push_that_connects_to_a_push_is_reported_and_retried_slowly(place: Place) {
    let (server, client) = (new_push(), patient_push());
    let (mut at_server, mut at_client) = (server.monitor(), client.monitor());
    let endpoint = within(server.bind(place.wildcard())).await.unwrap();
    client.connect(&endpoint).unwrap();
    for monitor in [&mut at_server, &mut at_client] {
        // Each sees the other's type, or is told by the other that has seen it first.
        let reason = wait_handshake_failed(monitor).await;
        let mismatch = ProtocolError::SocketTypeMismatch { ours: "PUSH", theirs: "PUSH".into() };
        let refused = ProtocolError::Refused { reason: mismatch.to_string() };
        assert!([DisconnectReason::Protocol(mismatch), DisconnectReason::Protocol(refused)].contains(&reason));
    }
    assert!(delays(&mut at_client, 1).await[0] >= SLOWEST);
    assert_eq!((client.stats().peers, server.stats().peers), (0, 0));
    within(client.close()).await.unwrap();
}

async fn a_peer_with_another_mechanism_is_reported_and_retried_slowly(place: Place) {
    let (listener, endpoint) = RawListener::bind(&place);
    let push = patient_push();
    let mut monitor = push.monitor();
    push.connect(&endpoint).unwrap();
    let mut raw = listener.accept().await;
    raw.send(&greeting([3, 1], "CURVE")).await;
    let mismatch = ProtocolError::MechanismMismatch { ours: "NULL", theirs: "CURVE".into() };
    assert_eq!(wait_handshake_failed(&mut monitor).await, DisconnectReason::Protocol(mismatch));
    assert!(delays(&mut monitor, 1).await[0] >= SLOWEST);
    raw.end().await;
}

async fn a_corrected_server_is_found_after_a_mismatch(place: Place) {
    let (listener, endpoint) = RawListener::bind(&place);
    let push = new_push();
    let mut monitor = push.monitor();
    push.connect(&endpoint).unwrap();
    let mut raw = listener.accept().await;
    raw.send(&[&greeting([3, 1], "NULL")[..], READY_PUSH].concat()).await;
    wait_handshake_failed(&mut monitor).await;
    drop(listener);
    if let Some(path) = endpoint.to_string().strip_prefix("ipc://") {
        std::fs::remove_file(path).unwrap();
    }
    let pull = new_pull();
    within(pull.bind(&endpoint)).await.unwrap();
    within(push.send("x")).await.unwrap();
    assert_eq!(within(pull.recv()).await.unwrap(), "x".into());
}

async fn every_monitor_sees_every_event(place: Place) {
    let pull = new_pull();
    let mut monitors = [pull.monitor(), pull.monitor(), pull.monitor()];
    let endpoint = within(pull.bind(place.wildcard())).await.unwrap();
    drop(pull.monitor());
    for monitor in &mut monitors {
        assert_eq!(next_event(monitor).await, Event::Listening { endpoint: endpoint.clone() });
    }
}

async fn a_monitor_ends_with_its_socket(place: Place) {
    let (push, pull) = pair(&place).await;
    let monitors = [push.monitor(), pull.monitor()];
    drop((push, pull));
    for mut monitor in monitors {
        within(async { while monitor.next().await.is_some() {} }).await;
    }
}

async fn a_peer_that_takes_nothing_is_congested_until_it_does(place: Place) {
    let push = push_builder().send_high_water_mark(100).build().unwrap();
    let mut monitor = push.monitor();
    let endpoint = within(push.bind(place.wildcard())).await.unwrap();
    let mut peer = Raw::peer(&endpoint, READY_PULL).await;
    while push.try_send(vec![7; 100_000]).is_ok() {
        tokio::task::yield_now().await;
    }
    let congested = wait_for(&mut monitor, |event| match event {
        Event::Congested { peer } => Some(peer),
        _ => None,
    });
    let congested = congested.await;
    assert_eq!(congested.socket_type, Some(SocketType::Pull));
    for _ in 0..50 {
        peer.message().await.unwrap();
    }
    let relieved = wait_for(&mut monitor, |event| match event {
        Event::Relieved { peer } => Some(peer),
        _ => None,
    });
    assert_eq!(relieved.await, congested);
}

async fn a_monitor_that_comes_late_hears_of_a_peer_that_takes_nothing(place: Place) {
    let push = push_builder().send_high_water_mark(10).build().unwrap();
    let endpoint = within(push.bind(place.wildcard())).await.unwrap();
    let _silent = Raw::peer(&endpoint, READY_PULL).await;
    // Until nothing moves any more.
    while tokio::time::timeout(Duration::from_millis(200), push.send(vec![7; 1 << 20])).await.is_ok() {}
    let (before, mut monitor) = push.watch();
    assert!(!before[0].is_congested, "nobody has looked");
    let congested = wait_for(&mut monitor, |event| match event {
        Event::Congested { peer } => Some(peer.id),
        _ => None,
    });
    assert_eq!(congested.await, before[0].peer.id);
    let (now, _) = push.watch();
    assert!(now[0].is_congested, "whoever comes later sees it in the snapshot");
}

async fn what_was_tried_in_vain_is_counted(place: Place) {
    let (pull, push) = (new_pull(), push_builder().reconnect_delay(SOON, SOON).build().unwrap());
    let mut monitor = push.monitor();
    let endpoint = place.fresh();
    push.connect(&endpoint).unwrap();
    delays(&mut monitor, 3).await;
    assert!(push.stats().connects_retried >= 3);
    let mut at_pull = pull.monitor();
    within(pull.bind(&endpoint)).await.unwrap();
    Raw::dial(&endpoint).await.send(b"GET / HTTP/1.1").await;
    wait_handshake_failed(&mut at_pull).await;
    assert_eq!(pull.stats().handshakes_failed, 1);
    assert_eq!(pull.stats().connects_retried, 0);
}

async fn each_peer_s_bytes_are_counted(place: Place) {
    let (push, pull) = join(&place, new_push(), new_pull()).await;
    within(push.send(vec![7; 1_000])).await.unwrap();
    within(pull.recv()).await.unwrap();
    let sent = &push.peers()[0];
    assert_eq!((sent.messages_sent, sent.bytes_sent), (1, 1_000));
    let received = &pull.peers()[0];
    // A greeting, a READY, a header of nine bytes.
    assert_eq!((received.messages_received, received.bytes_received), (1, 64 + READY_PUSH.len() as u64 + 9 + 1_000));
    assert_eq!(pull.stats().bytes_received, received.bytes_received);
}

async fn a_snapshot_and_what_follows_have_no_gap(place: Place) {
    let pull = new_pull();
    let endpoint = within(pull.bind(place.wildcard())).await.unwrap();
    let connecting: Vec<_> = (0..40).map(|_| new_push()).collect();
    for push in &connecting[..20] {
        push.connect(&endpoint).unwrap();
    }
    within(pull.wait_connected(5)).await.unwrap();
    for push in &connecting[20..] {
        push.connect(&endpoint).unwrap();
    }
    let (peers, mut monitor) = pull.watch();
    let mut known: std::collections::HashSet<_> = peers.iter().map(|stats| stats.peer.id).collect();
    assert!(known.len() >= 5);
    while known.len() < 40 {
        if let Event::HandshakeSucceeded { peer, .. } = next_event(&mut monitor).await {
            assert!(known.insert(peer.id), "a peer came twice");
        }
    }
    assert_eq!(pull.peers().len(), 40);
}

async fn a_bind_that_fails_is_an_event(place: Place) {
    let (first, second) = (new_pull(), new_pull());
    let endpoint = within(first.bind(place.wildcard())).await.unwrap();
    let mut monitor = second.monitor();
    within(second.bind(&endpoint)).await.unwrap_err();
    assert!(matches!(next_event(&mut monitor).await, Event::BindFailed { endpoint: failed, .. } if failed == endpoint));
}

async fn connections_beyond_the_limit_are_refused(place: Place) {
    let pull = pull_builder().max_connections(2).build().unwrap();
    let mut monitor = pull.monitor();
    let endpoint = within(pull.bind(place.wildcard())).await.unwrap();
    let mut good = Vec::new();
    for _ in 0..2 {
        good.push(Raw::peer(&endpoint, READY_PUSH).await);
    }
    Raw::dial(&endpoint).await.end().await;
    wait_for(&mut monitor, |event| matches!(event, Event::Refused { .. }).then_some(())).await;
    assert_eq!(pull.stats().connections_refused, 1);
    good.pop();
    wait_disconnected(&mut monitor).await;
    good.push(Raw::peer(&endpoint, READY_PUSH).await);
    assert_eq!(within(pull.wait_connected(2)).await, Ok(()));
}

async fn a_flood_of_commands_costs_the_connection(place: Place) {
    let pull = pull_builder().max_commands_per_second(10).build().unwrap();
    let push = push_builder().max_commands_per_second(10).build().unwrap();
    let publisher = sinew::PubSocket::builder().max_commands_per_second(10).max_subscriptions(10).build().unwrap();
    let frames = [frame(MORE, b"").repeat(39), frame(0, b"")].concat();
    let commands: [&[u8]; 4] =
        [b"\x04\x04\x03FOO", b"\x04\x05\x04PONG", b"\x04\x09\x04PONG\0\0\0\0", b"\x04\x07\x04PING\0\0"];
    let to_pull = commands.map(|command| (pull.monitor(), within(pull.bind(place.wildcard())), READY_PUSH, command));
    for (mut monitor, binding, ready, flood) in to_pull {
        assert_eq!(flooded(&mut monitor, &binding.await.unwrap(), ready, flood).await, FLOOD);
    }
    // What these have no use for costs them as much.
    let endpoint = within(push.bind(place.wildcard())).await.unwrap();
    assert_eq!(flooded(&mut push.monitor(), &endpoint, READY_PULL, b"\0\0").await, FLOOD);
    let endpoint = within(publisher.bind(place.wildcard())).await.unwrap();
    assert_eq!(flooded(&mut publisher.monitor(), &endpoint, READY_SUB, &frames).await, FLOOD);
}

const FLOOD: DisconnectReason = DisconnectReason::Protocol(ProtocolError::CommandFlood);

/// What becomes of a peer that sends this again and again.
async fn flooded(
    monitor: &mut sinew::Monitor,
    endpoint: &sinew::Endpoint,
    ready: &[u8],
    flood: &[u8],
) -> DisconnectReason {
    let mut peer = Raw::peer(endpoint, ready).await;
    // It may be gone before everything has been sent.
    let _ = peer.try_send(&flood.repeat(100)).await;
    wait_for(monitor, |event| match event {
        Event::Disconnected { reason, .. } => Some(reason),
        _ => None,
    })
    .await
}

const PINGS: usize = 50;

/// A PULL that may be sent hardly any commands and sends PINGs all the time, and a peer.
async fn pinged(place: &Place) -> (sinew::PullSocket, Raw) {
    let builder = pull_builder().max_commands_per_second(1).heartbeat_interval(Duration::from_millis(2));
    let pull = builder.heartbeat_timeout(PATIENCE).build().unwrap();
    let endpoint = within(pull.bind(place.wildcard())).await.unwrap();
    let peer = Raw::peer(&endpoint, READY_PUSH).await;
    (pull, peer)
}

/// The answer to the next PING.
async fn next_answer(peer: &mut Raw) -> Vec<u8> {
    let ping = peer.frame().await.unwrap();
    assert!(ping.is_command() && ping.body.starts_with(b"\x04PING"));
    command("PONG", &ping.body[7..])
}

async fn answers_to_pings_are_no_flood(place: Place) {
    let (pull, mut peer) = pinged(&place).await;
    for _ in 0..PINGS {
        let answer = next_answer(&mut peer).await;
        peer.send(&answer).await;
    }
    peer.send(&frame(0, b"still here")).await;
    assert_eq!(within(pull.recv()).await.unwrap(), "still here".into());
}

async fn late_answers_to_pings_are_no_flood(place: Place) {
    let (pull, mut peer) = pinged(&place).await;
    let mut answers = Vec::new();
    for _ in 0..PINGS {
        answers.extend(next_answer(&mut peer).await);
    }
    peer.send(&answers).await;
    peer.send(&frame(0, b"still here")).await;
    assert_eq!(within(pull.recv()).await.unwrap(), "still here".into());
}
