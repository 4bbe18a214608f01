//! Bind, connect, unbind, disconnect: any number, mixed, in any order, and away again.

use std::time::Duration;

use futures::StreamExt;
use sinew::{BindError, DetachError, DisconnectReason, Endpoint, Event};

use crate::common::raw::RawListener;
use crate::common::*;

crate::behaviours! {
    bind_may_come_after_connect,
    binds_and_connects_mix_on_one_socket,
    one_socket_connects_to_one_endpoint_twice,
    an_address_in_use_is_refused,
    unbind_frees_the_address_and_ends_the_connections,
    disconnect_ends_the_connection_and_makes_no_new_one,
    what_is_not_attached_cannot_be_detached,
    a_connection_that_is_just_being_made_does_not_survive_disconnect,
    a_connection_that_is_just_being_accepted_does_not_survive_unbind,
    close_during_connect_ends_the_attempt,
    sockets_closed_while_connecting_leave_nothing_at_the_other_end,
    a_thousand_sockets_are_served_by_one,
}

async fn bind_may_come_after_connect(place: Place) {
    let endpoint = place.fresh();
    let push = new_push();
    let mut monitor = push.monitor();
    push.connect(&endpoint).unwrap();
    send_numbers(&push, 0..10).await;
    wait_for(&mut monitor, |event| matches!(event, Event::ConnectRetried { .. }).then_some(())).await;

    let pull = new_pull();
    assert_eq!(within(pull.bind(&endpoint)).await.unwrap(), endpoint);
    assert_eq!(recv_numbers(&pull, 10).await, (0..10).collect::<Vec<_>>());
}

async fn binds_and_connects_mix_on_one_socket(place: Place) {
    let pull = new_pull();
    let (mut endpoints, mut pushes) = (Vec::new(), Vec::new());
    for _ in 0..2 {
        endpoints.push(within(pull.bind(place.wildcard())).await.unwrap());
        let push = new_push();
        pull.connect(within(push.bind(place.wildcard())).await.unwrap()).unwrap();
        pushes.push(push);
    }
    // Over the other transport as well.
    let other = Place::new(if place.transport == Transport::Tcp { Transport::Ipc } else { Transport::Tcp });
    endpoints.push(within(pull.bind(other.wildcard())).await.unwrap());
    for endpoint in &endpoints {
        let push = new_push();
        push.connect(endpoint).unwrap();
        pushes.push(push);
    }
    within(pull.wait_connected(5)).await.unwrap();
    for (peer, push) in pushes.iter().enumerate() {
        let peer = peer as u64;
        send_numbers(push, peer * 100..(peer + 1) * 100).await;
    }
    let mut numbers = recv_numbers(&pull, 500).await;
    numbers.sort_unstable();
    assert_eq!(numbers, (0..500).collect::<Vec<_>>());
}

async fn one_socket_connects_to_one_endpoint_twice(place: Place) {
    let (push, pull) = (new_push(), new_pull());
    let endpoint = within(pull.bind(place.wildcard())).await.unwrap();
    push.connect(&endpoint).unwrap();
    push.connect(&endpoint).unwrap();
    within(pull.wait_connected(2)).await.unwrap();
    send_numbers(&push, 0..100).await;
    let mut numbers = recv_numbers(&pull, 100).await;
    numbers.sort_unstable();
    assert_eq!(numbers, (0..100).collect::<Vec<_>>());
    push.disconnect(&endpoint).unwrap();
    eventually(|| pull.stats().peers == 0).await;
}

async fn an_address_in_use_is_refused(place: Place) {
    let (first, second) = (new_pull(), new_pull());
    let endpoint = within(first.bind(place.wildcard())).await.unwrap();
    for socket in [&first, &second] {
        let error = within(socket.bind(&endpoint)).await.unwrap_err();
        assert!(matches!(&error, BindError::AddrInUse(used) if *used == endpoint), "{error}");
    }
}

async fn unbind_frees_the_address_and_ends_the_connections(place: Place) {
    for requested in [place.wildcard(), place.fresh()] {
        let resolved = unbind_one(&place, &requested, true).await;
        if place.transport == Transport::Ipc && requested.is_wildcard() {
            let path = resolved.to_string();
            let folder = std::path::Path::new(path.strip_prefix("ipc://").unwrap()).parent().unwrap();
            assert!(!folder.exists(), "a wildcard's folder goes with it");
        }
    }
    unbind_one(&place, &place.fresh(), false).await;
    unbind_one(&place, &"tcp://127.0.0.1:*".parse().unwrap(), false).await;
}

/// Binds, has a peer, and unbinds by the requested or by the resolved endpoint; gives the latter.
async fn unbind_one(place: &Place, requested: &Endpoint, by_requested: bool) -> Endpoint {
    let (server, client) = (new_pull(), new_push());
    let kept = within(server.bind(place.fresh())).await.unwrap();
    let resolved = within(server.bind(requested)).await.unwrap();
    client.connect(&resolved).unwrap();
    within(server.wait_connected(1)).await.unwrap();
    within(client.wait_connected(1)).await.unwrap();
    let (mut at_server, mut at_client) = (server.monitor(), client.monitor());

    within(server.unbind(if by_requested { requested } else { &resolved })).await.unwrap();
    let next = new_pull();
    if !resolved.to_string().starts_with("ipc://") || !requested.is_wildcard() {
        within(next.bind(&resolved)).await.expect("the address is free again");
        wait_disconnected(&mut at_client).await;
        // The client finds the next one there.
        within(client.send("x")).await.unwrap();
        assert_eq!(within(next.recv()).await.unwrap(), "x".into());
    }
    // One call, one connection: two events, in either order.
    let events = [next_event(&mut at_server).await, next_event(&mut at_server).await];
    assert!(events.contains(&Event::Detached { endpoint: resolved.clone() }), "{events:?}");
    let ended = |event: &Event| match event {
        Event::Disconnected { peer, reason: DisconnectReason::Local, .. } => peer.endpoint == resolved,
        _ => false,
    };
    assert!(events.iter().any(ended), "{events:?}");
    assert_eq!(server.stats().peers, 0);

    // What else the server listens on is not touched.
    let other = new_push();
    other.connect(&kept).unwrap();
    within(server.wait_connected(1)).await.unwrap();
    resolved
}

async fn disconnect_ends_the_connection_and_makes_no_new_one(place: Place) {
    let push = new_push();
    let (first, second) = (new_pull(), new_pull());
    let gone = within(first.bind(place.wildcard())).await.unwrap();
    let kept = within(second.bind(place.wildcard())).await.unwrap();
    push.connect(&gone).unwrap();
    push.connect(&kept).unwrap();
    within(push.wait_connected(2)).await.unwrap();
    within(first.wait_connected(1)).await.unwrap();
    let mut at_first = first.monitor();
    let mut at_push = push.monitor();

    push.disconnect(&gone).unwrap();
    wait_disconnected(&mut at_first).await;
    wait_disconnected(&mut at_push).await;
    send_numbers(&push, 0..100).await;
    assert_eq!(recv_numbers(&second, 100).await, (0..100).collect::<Vec<_>>());
    assert_eq!((push.stats().peers, first.stats().peers), (1, 0));
    assert_eq!(push.disconnect(&gone), Err(DetachError::NotAttached(gone)));

    // Also while it has never been reached.
    let nowhere = place.fresh();
    push.connect(&nowhere).unwrap();
    push.disconnect(&nowhere).unwrap();
    let late = new_pull();
    within(late.bind(&nowhere)).await.unwrap();
    send_numbers(&push, 0..100).await;
    assert_eq!(recv_numbers(&second, 100).await, (0..100).collect::<Vec<_>>());
    assert_eq!(late.stats().peers, 0);
}

async fn what_is_not_attached_cannot_be_detached(place: Place) {
    let (push, pull) = (new_push(), new_pull());
    let bound = within(pull.bind(place.wildcard())).await.unwrap();
    push.connect(&bound).unwrap();
    let unknown = place.fresh();
    let not_attached = |endpoint: &Endpoint| Err(DetachError::NotAttached(endpoint.clone()));
    assert_eq!(within(pull.unbind(&unknown)).await, not_attached(&unknown));
    assert_eq!(pull.disconnect(&unknown), not_attached(&unknown));
    assert_eq!(pull.disconnect(&bound), not_attached(&bound), "bound, not connected");
    assert_eq!(within(push.unbind(&bound)).await, not_attached(&bound), "connected, not bound");
    within(pull.unbind(&bound)).await.unwrap();
    assert_eq!(within(pull.unbind(&bound)).await, not_attached(&bound));
    assert!(matches!(within(pull.unbind("nonsense")).await, Err(DetachError::Endpoint(_))));
}

async fn a_connection_that_is_just_being_made_does_not_survive_disconnect(place: Place) {
    const ROUNDS: usize = 300;
    let (push, server) = (new_push(), new_pull());
    let endpoint = within(server.bind(place.wildcard())).await.unwrap();
    for round in 0..ROUNDS {
        push.connect(&endpoint).unwrap();
        // Gives up at a different moment of the attempt each time.
        for _ in 0..round % 10 {
            tokio::task::yield_now().await;
        }
        push.disconnect(&endpoint).unwrap();
    }
    // A connection made now comes after all of them; it alone stays.
    let last = within(server.bind(place.wildcard())).await.unwrap();
    push.connect(&last).unwrap();
    within(push.wait_connected(1)).await.unwrap();
    eventually(|| push.stats().peers == 1 && server.stats().peers == 1).await;
    push.disconnect(&last).unwrap();
    eventually(|| push.stats().peers == 0 && server.stats().peers == 0).await;
}

async fn a_connection_that_is_just_being_accepted_does_not_survive_unbind(place: Place) {
    const ROUNDS: usize = 300;
    let endpoint = place.fresh();
    let server = new_pull();
    let mut clients = Vec::new();
    for round in 0..ROUNDS {
        within(server.bind(&endpoint)).await.unwrap();
        let client = new_push();
        client.connect(&endpoint).unwrap();
        for _ in 0..round % 10 {
            tokio::task::yield_now().await;
        }
        within(server.unbind(&endpoint)).await.unwrap();
        clients.push(client);
    }
    eventually(|| server.stats().peers == 0).await;
    let connected = || clients.iter().filter(|client| client.stats().peers > 0).count();
    eventually(|| connected() == 0).await;
}

async fn close_during_connect_ends_the_attempt(place: Place) {
    let (silent, reached) = RawListener::bind(&place);
    for endpoint in [place.fresh(), reached.clone()] {
        let push = new_push();
        push.connect(&endpoint).unwrap();
        tokio::task::yield_now().await;
        assert_eq!(within(push.close()).await.unwrap().unsent, 0);
    }
    let push = new_push();
    let mut monitor = push.monitor();
    push.connect(&reached).unwrap();
    let mut half_open = silent.accept().await;
    wait_for(&mut monitor, |event| matches!(event, Event::Connected(_)).then_some(())).await;
    within(push.close()).await.unwrap();
    half_open.end().await;
}

async fn sockets_closed_while_connecting_leave_nothing_at_the_other_end(place: Place) {
    const ROUNDS: usize = 100;
    let server = new_pull();
    let endpoint = within(server.bind(place.wildcard())).await.unwrap();
    // Closed handles are kept: closing must not need the drop.
    let mut closed = Vec::new();
    for round in 0..ROUNDS {
        let client = new_push();
        let mut monitor = client.monitor();
        client.connect(&endpoint).unwrap();
        for _ in 0..round % 10 {
            tokio::task::yield_now().await;
        }
        within(client.close()).await.unwrap();
        within(async { while monitor.next().await.is_some() {} }).await;
        closed.push(client);
    }
    eventually(|| server.stats().peers == 0).await;
    let last = new_push();
    last.connect(&endpoint).unwrap();
    within(last.send("still served")).await.unwrap();
    assert_eq!(within(server.recv()).await.unwrap(), "still served".into());
}

async fn a_thousand_sockets_are_served_by_one(place: Place) {
    const SOCKETS: u64 = 1_000;
    // Both ends of each, and four of this test at a time.
    if !may_open(10 * SOCKETS) {
        return;
    }
    let server = pull_builder().receive_high_water_mark(10).build().unwrap();
    let endpoint = within(server.bind(place.wildcard())).await.unwrap();
    let mut clients = Vec::new();
    for client in 0..SOCKETS {
        let push = push_builder().linger(Duration::ZERO).build().unwrap();
        push.connect(&endpoint).unwrap();
        push.try_send(numbered(client)).unwrap();
        clients.push(push);
    }
    within(server.wait_connected(SOCKETS as usize)).await.unwrap();
    let mut numbers = recv_numbers(&server, SOCKETS as usize).await;
    numbers.sort_unstable();
    assert_eq!(numbers, (0..SOCKETS).collect::<Vec<_>>());
    drop(clients);
    eventually(|| server.stats().peers == 0).await;
}
