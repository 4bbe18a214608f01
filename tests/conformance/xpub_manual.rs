//! XPUB with manual subscriptions: requests are only reported, and the application decides what a peer gets.

use sinew::{PeerId, TryRecvError, XPubEvent, XPubSocket};

use crate::common::raw::*;
use crate::common::topics::*;
use crate::common::*;

crate::behaviours! {
    a_request_alone_changes_nothing,
    the_application_may_subscribe_a_peer_to_something_else,
    the_application_may_cancel_something_else,
    every_request_is_reported_whoever_has_made_it_before,
    what_was_requested_is_cancelled_when_the_peer_goes,
    what_a_new_peer_gets_has_nothing_to_do_with_one_that_has_gone,
    requests_in_quick_succession_are_granted_each_to_its_peer,
    requests_pass_through_a_forwarder_made_by_hand,
    the_last_value_goes_to_the_one_that_asks_alone,
    user_messages_pass_in_manual_mode_too,
    a_change_for_a_peer_that_has_gone_has_no_effect,
    a_grant_is_in_force_at_once,
    wait_subscribed_counts_what_was_granted,
}

/// The next request, and who makes it.
async fn asked(xpub: &XPubSocket) -> (PeerId, String) {
    match within(xpub.recv_event()).await.unwrap() {
        XPubEvent::Subscribed { peer, topic } => (peer.id, format!("+{}", String::from_utf8_lossy(&topic))),
        XPubEvent::Cancelled { peer, topic } => (peer.id, format!("-{}", String::from_utf8_lossy(&topic))),
        other => panic!("{other:?}"),
    }
}

/// Receives the next request, which must be this one; gives who makes it.
async fn expect(xpub: &XPubSocket, request: &str) -> PeerId {
    let (peer, asked) = asked(xpub).await;
    assert_eq!(asked, request);
    peer
}

async fn a_request_alone_changes_nothing(place: Place) {
    let (xpub, endpoint) = bound_xpub(&place, xpub_builder().manual(true)).await;
    let mut raw = raw_subscriber(&endpoint, &[b"A", b"M"]).await;
    expect(&xpub, "+A").await;
    let peer = expect(&xpub, "+M").await;
    xpub.subscribe(peer, "M");
    xpub.say("A").await;
    xpub.say("M").await;
    assert_eq!(raw.message().await.unwrap(), [b"M"]);
    // Neither does a cancellation.
    raw.send(&cancel_command(b"M")).await;
    expect(&xpub, "-M").await;
    xpub.say("M2").await;
    assert_eq!(raw.message().await.unwrap(), [b"M2"]);
}

async fn the_application_may_subscribe_a_peer_to_something_else(place: Place) {
    let (xpub, endpoint) = bound_xpub(&place, xpub_builder().manual(true)).await;
    let xsub = new_xsub();
    xsub.connect(&endpoint).unwrap();
    within(xsub.send(b"\x01A")).await.unwrap();
    let peer = expect(&xpub, "+A").await;
    xpub.subscribe(peer, "B");
    xpub.say("A").await;
    xpub.say("B").await;
    assert_eq!(xsub.next().await, "B".into());
}

async fn the_application_may_cancel_something_else(place: Place) {
    let (xpub, endpoint) = bound_xpub(&place, xpub_builder().manual(true)).await;
    let xsub = new_xsub();
    xsub.connect(&endpoint).unwrap();
    within(xsub.send(b"\x01A")).await.unwrap();
    within(xsub.send(b"\x01B")).await.unwrap();
    let peer = expect(&xpub, "+A").await;
    xpub.subscribe(peer, "XA");
    assert_eq!(expect(&xpub, "+B").await, peer);
    xpub.subscribe(peer, "XB");
    within(xsub.send(b"\0A")).await.unwrap();
    assert_eq!(expect(&xpub, "-A").await, peer);
    xpub.unsubscribe(peer, "XA");
    xpub.say("XA").await;
    xpub.say("XB").await;
    assert_eq!(xsub.next().await, "XB".into());
    within(xsub.close()).await.unwrap();
    assert_eq!(expect(&xpub, "-B").await, peer);
    xpub.unsubscribe(peer, "XB");
    assert_eq!(xpub.try_recv(), Err(TryRecvError::Empty));
    assert_eq!(xpub.subscriptions(), 0);
}

async fn every_request_is_reported_whoever_has_made_it_before(place: Place) {
    let (xpub, endpoint) = bound_xpub(&place, xpub_builder().manual(true)).await;
    let mut first = raw_subscriber(&endpoint, &[b"A"]).await;
    let one = expect(&xpub, "+A").await;
    xpub.subscribe(one, "A");
    let mut second = raw_subscriber(&endpoint, &[b"A"]).await;
    let two = expect(&xpub, "+A").await;
    assert_ne!(one, two);
    xpub.subscribe(two, "A");
    first.send(&cancel_command(b"A")).await;
    assert_eq!(expect(&xpub, "-A").await, one);
    xpub.unsubscribe(one, "A");
    second.send(&cancel_command(b"A")).await;
    assert_eq!(expect(&xpub, "-A").await, two);
    xpub.unsubscribe(two, "A");
    assert_eq!(xpub.subscriptions(), 0);
}

async fn what_was_requested_is_cancelled_when_the_peer_goes(place: Place) {
    let (xpub, endpoint) = bound_xpub(&place, xpub_builder().manual(true)).await;
    // "A" was granted as "XA", "B" was not granted, "C" was cancelled by the peer, "XD" was never asked for.
    let mut raw = raw_subscriber(&endpoint, &[b"A", b"B", b"C"]).await;
    let peer = expect(&xpub, "+A").await;
    expect(&xpub, "+B").await;
    expect(&xpub, "+C").await;
    xpub.subscribe(peer, "XA");
    xpub.subscribe(peer, "XD");
    raw.send(&cancel_command(b"C")).await;
    expect(&xpub, "-C").await;
    drop(raw);
    let mut cancelled = vec![asked(&xpub).await, asked(&xpub).await];
    cancelled.sort();
    assert_eq!(cancelled, [(peer, "-A".into()), (peer, "-B".into())]);
    assert_eq!(xpub.try_recv(), Err(TryRecvError::Empty));
    xpub.say("XA").await;
    xpub.say("XD").await;
    eventually(|| xpub.stats().messages_unmatched == 2).await;
}

async fn what_a_new_peer_gets_has_nothing_to_do_with_one_that_has_gone(place: Place) {
    let (xpub, endpoint) = bound_xpub(&place, xpub_builder().manual(true)).await;
    let mut gone = None;
    for (topic, granted, other) in [("A", "XA", "XB"), ("B", "XB", "XA"), ("C", "XC", "XA")] {
        let xsub = new_xsub();
        xsub.connect(&endpoint).unwrap();
        within(xsub.send(format!("\x01{topic}"))).await.unwrap();
        let peer = expect(&xpub, &format!("+{topic}")).await;
        // Not even what comes late for the one before.
        if let Some(gone) = gone.replace(peer) {
            assert_ne!(gone, peer);
            xpub.subscribe(gone, other);
        }
        xpub.subscribe(peer, granted);
        xpub.say(other).await;
        xpub.say(granted).await;
        assert_eq!(xsub.next().await, granted.into());
        assert_eq!(xsub.try_recv(), Err(TryRecvError::Empty));
        within(xsub.close()).await.unwrap();
        assert_eq!(expect(&xpub, &format!("-{topic}")).await, peer);
        xpub.unsubscribe(peer, granted);
    }
}

async fn requests_in_quick_succession_are_granted_each_to_its_peer(place: Place) {
    const PEERS: usize = 20;
    let (xpub, endpoint) = bound_xpub(&place, xpub_builder().manual(true)).await;
    let mut subscribers = Vec::new();
    for peer in 0..PEERS {
        subscribers.push(subscriber(&endpoint, &[&format!("topic {peer}.")]));
    }
    // All of them have asked before the first is granted anything.
    let mut requests = Vec::new();
    for _ in 0..PEERS {
        requests.push(asked(&xpub).await);
    }
    for (peer, request) in requests {
        xpub.subscribe(peer, request.strip_prefix('+').unwrap());
    }
    for peer in 0..PEERS {
        xpub.say([format!("topic {peer}."), "payload".into()]).await;
    }
    for (peer, subscriber) in subscribers.iter().enumerate() {
        assert_eq!(subscriber.next().await, [format!("topic {peer}."), "payload".into()].into());
        assert_eq!(subscriber.try_recv(), Err(TryRecvError::Empty));
    }
}

async fn requests_pass_through_a_forwarder_made_by_hand(place: Place) {
    let xsub = new_xsub();
    let front = within(xsub.bind(place.wildcard())).await.unwrap();
    let (xpub, back) = bound_xpub(&place, xpub_builder().manual(true)).await;
    let publisher = new_pub();
    publisher.connect(&front).unwrap();
    within(xsub.wait_connected(1)).await.unwrap();
    let mut subscribers = Vec::new();
    for _ in 0..2 {
        subscribers.push(subscriber(&back, &["1"]));
        let peer = expect(&xpub, "+1").await;
        xpub.subscribe(peer, "1");
        within(xsub.send(b"\x011")).await.unwrap();
    }
    publisher.known("1", 1).await;
    publisher.say(["1", "X"]).await;
    let message = xsub.next().await;
    assert_eq!(message, ["1", "X"].into());
    xpub.say(message).await;
    for subscriber in &subscribers {
        assert_eq!(subscriber.next().await, ["1", "X"].into());
    }
    for (left, subscriber) in [1, 0].into_iter().zip(subscribers) {
        within(subscriber.close()).await.unwrap();
        let peer = expect(&xpub, "-1").await;
        xpub.unsubscribe(peer, "1");
        within(xsub.send(b"\x001")).await.unwrap();
        eventually(|| publisher.subscriptions() == left).await;
    }
    publisher.say(["1", "X"]).await;
    eventually(|| publisher.stats().messages_unmatched == 1).await;
    assert_eq!(xsub.try_recv(), Err(TryRecvError::Empty));
}

async fn the_last_value_goes_to_the_one_that_asks_alone(place: Place) {
    let (xpub, endpoint) = bound_xpub(&place, xpub_builder().manual(true)).await;
    let mut subscribers = Vec::new();
    for number in 0..3 {
        let subscriber = subscriber(&endpoint, &["A"]);
        let peer = expect(&xpub, "+A").await;
        xpub.subscribe(peer, "A");
        xpub.send_to(peer, format!("A as of {number}")).unwrap();
        subscribers.push(subscriber);
    }
    xpub.say("A for all").await;
    for (number, subscriber) in subscribers.iter().enumerate() {
        assert_eq!(texts(subscriber, 2).await, [format!("A as of {number}"), "A for all".into()]);
    }
}

async fn user_messages_pass_in_manual_mode_too(place: Place) {
    let (xpub, endpoint) = bound_xpub(&place, xpub_builder().manual(true)).await;
    let xsub = new_xsub();
    xsub.connect(&endpoint).unwrap();
    within(xsub.wait_connected(1)).await.unwrap();
    within(xsub.send(b"\x02A")).await.unwrap();
    assert_eq!(xpub.next().await, b"\x02A".into());
    for second in [b"\0BC", b"\x01BC"] {
        within(xsub.send([b"ABC", second])).await.unwrap();
        assert_eq!(xpub.next().await, [b"ABC", second].into());
    }
}

async fn a_change_for_a_peer_that_has_gone_has_no_effect(place: Place) {
    let (xpub, endpoint) = bound_xpub(&place, xpub_builder().manual(true)).await;
    let raw = raw_subscriber(&endpoint, &[b"A"]).await;
    let gone = expect(&xpub, "+A").await;
    drop(raw);
    expect(&xpub, "-A").await;
    xpub.subscribe(gone, "A");
    xpub.unsubscribe(gone, "A");
    // The connection that takes its place is another peer.
    let mut raw = raw_subscriber(&endpoint, &[b"M"]).await;
    let peer = expect(&xpub, "+M").await;
    xpub.subscribe(gone, "A");
    xpub.subscribe(peer, "M");
    xpub.unsubscribe(gone, "M");
    assert_eq!(xpub.subscriptions(), 1);
    xpub.say("A").await;
    xpub.say("M").await;
    assert_eq!(raw.message().await.unwrap(), [b"M"]);
}

async fn a_grant_is_in_force_at_once(place: Place) {
    let (xpub, endpoint) = bound_xpub(&place, xpub_builder().manual(true)).await;
    let mut raw = raw_subscriber(&endpoint, &[b"A"]).await;
    let peer = expect(&xpub, "+A").await;
    for round in 0..100 {
        xpub.subscribe(peer, round.to_string());
        xpub.try_send(round.to_string()).unwrap();
        xpub.unsubscribe(peer, round.to_string());
        xpub.try_send(round.to_string() + " again").unwrap();
        assert_eq!(raw.message().await.unwrap(), [round.to_string().as_bytes()]);
    }
}

async fn wait_subscribed_counts_what_was_granted(place: Place) {
    let (xpub, endpoint) = bound_xpub(&place, xpub_builder().manual(true)).await;
    let _raw = raw_subscriber(&endpoint, &[b"A"]).await;
    let peer = expect(&xpub, "+A").await;
    let mut waiting = Box::pin(xpub.wait_subscribed("A", 1));
    assert!(futures::poll!(&mut waiting).is_pending());
    xpub.subscribe(peer, "");
    within(waiting).await.unwrap();
}
