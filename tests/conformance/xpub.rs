//! XPUB: subscriptions as messages and as events, upstream messages, the welcome, and sending to one peer.

use std::collections::HashSet;
use std::sync::Arc;

use bytes::Bytes;
use sinew::{
    DisconnectReason, Peer, ProtocolError, RecvError, SlowSubscriber, TryRecvError, TrySendError, XPubBuilder,
    XPubEvent, XPubSocket,
};

use crate::common::raw::*;
use crate::common::topics::*;
use crate::common::*;

crate::behaviours! {
    requests_of_either_form_are_received_as_messages,
    topics_of_every_length_are_received_whole,
    a_request_that_was_received_is_in_force,
    only_the_first_subscription_and_the_last_cancellation_are_reported,
    verbose_reports_every_subscription,
    verboser_reports_every_cancellation_too,
    a_cancellation_of_nothing_is_not_reported,
    a_departing_peer_cancels_what_it_had,
    a_departing_peer_with_a_thousand_topics_cancels_each,
    events_name_the_peer_and_the_topic,
    the_peer_of_an_event_is_the_peer_of_its_messages,
    upstream_messages_are_received_as_they_are,
    requests_and_messages_of_a_peer_keep_their_order,
    requests_that_nobody_receives_are_kept,
    the_welcome_is_the_first_thing_a_peer_gets,
    a_subscriber_sees_the_welcome_if_it_has_subscribed_to_it,
    the_welcome_may_be_multipart,
    a_message_to_one_peer_reaches_it_alone,
    a_message_to_one_peer_keeps_its_place,
    a_message_to_one_peer_counts_towards_its_mark,
    a_message_to_a_peer_that_has_gone_comes_back,
    with_wait_a_mark_of_empty_messages_is_accepted_and_received,
    with_wait_sending_and_receiving_in_turn_loses_nothing,
    inverted_xpubs_send_what_does_not_match,
    an_xpub_keeps_the_limits_of_a_publisher,
    many_peers_share_a_topic,
}

async fn requests_of_either_form_are_received_as_messages(place: Place) {
    for version in VERSIONS {
        for ready in [READY_SUB, READY_XSUB] {
            let (xpub, endpoint) = bound_xpub(&place, xpub_builder()).await;
            let mut subscriber = Raw::peer_of(&endpoint, version, ready).await;
            subscriber.send(&subscribe_as(version, b"A")).await;
            assert_eq!(xpub.next().await, b"\x01A".into());
            xpub.say("ALOL").await;
            assert_eq!(subscriber.read(6).await, b"\0\x04ALOL");
            subscriber.send(&cancel_as(version, b"A")).await;
            assert_eq!(xpub.next().await, b"\0A".into());
            subscriber.send(&subscribe_as(version, b"")).await;
            assert_eq!(xpub.next().await, b"\x01".into());
            subscriber.send(&cancel_as(version, b"")).await;
            assert_eq!(xpub.next().await, b"\0".into());
        }
    }
}

async fn topics_of_every_length_are_received_whole(place: Place) {
    let (xpub, endpoint) = bound_xpub(&place, xpub_builder()).await;
    let subscriber = new_sub();
    subscriber.connect(&endpoint).unwrap();
    for length in (244..=250).chain(253..=257).chain([0, 1, 4_096]) {
        let topic = (0..length).map(|index| b'A' + (index % 16) as u8).collect::<Vec<_>>();
        subscriber.subscribe(&topic);
        assert_eq!(xpub.next().await, [b"\x01", &topic[..]].concat().into());
        subscriber.unsubscribe(&topic);
        assert_eq!(xpub.next().await, [b"\0", &topic[..]].concat().into());
    }
}

async fn a_request_that_was_received_is_in_force(place: Place) {
    let (xpub, endpoint) = bound_xpub(&place, xpub_builder()).await;
    let subscriber = new_sub();
    subscriber.connect(&endpoint).unwrap();
    for round in 0..100 {
        let topic = round.to_string() + ".";
        subscriber.subscribe(&topic);
        assert_eq!(requests(&xpub, 1).await, [format!("+{topic}")]);
        xpub.try_send(&topic).unwrap();
        assert_eq!(text(&subscriber.next().await), topic);
        subscriber.unsubscribe(&topic);
        assert_eq!(requests(&xpub, 1).await, [format!("-{topic}")]);
        assert_eq!(xpub.subscriptions(), 0);
    }
}

/// What an XPUB reports of each step of two subscribers of a topic, and of the last one's departure.
async fn table(place: &Place, builder: XPubBuilder) -> Vec<Vec<String>> {
    let (xpub, endpoint) = bound_xpub(place, builder).await;
    let (a, b) = (new_sub(), new_sub());
    a.connect(&endpoint).unwrap();
    b.connect(&endpoint).unwrap();
    let steps = [(&a, false), (&a, true), (&a, true), (&b, true), (&a, false), (&a, false), (&a, false)];
    let mut reported = Vec::new();
    for (number, (socket, subscribes)) in steps.into_iter().enumerate() {
        if subscribes {
            socket.subscribe("T")
        } else {
            socket.unsubscribe("T")
        }
        // A topic of its own ends each step.
        socket.subscribe(format!("step {number}"));
        reported.push(requests_until(&xpub, &format!("+step {number}")).await);
    }
    xpub.say("T").await;
    assert_eq!(b.next().await, "T".into());
    within(b.close()).await.unwrap();
    let mut last = requests(&xpub, 2).await;
    last.retain(|request| request != "-step 3");
    reported.push(last);
    reported
}

async fn only_the_first_subscription_and_the_last_cancellation_are_reported(place: Place) {
    let expected: [&[&str]; 8] = [&[], &["+T"], &[], &[], &[], &[], &[], &["-T"]];
    assert_eq!(table(&place, xpub_builder()).await, expected);
}

async fn verbose_reports_every_subscription(place: Place) {
    let expected: [&[&str]; 8] = [&[], &["+T"], &["+T"], &["+T"], &[], &[], &[], &["-T"]];
    assert_eq!(table(&place, xpub_builder().verbose(true)).await, expected);
}

async fn verboser_reports_every_cancellation_too(place: Place) {
    let expected: [&[&str]; 8] = [&[], &["+T"], &["+T"], &["+T"], &[], &["-T"], &[], &["-T"]];
    assert_eq!(table(&place, xpub_builder().verboser(true)).await, expected);
}

async fn a_cancellation_of_nothing_is_not_reported(place: Place) {
    for builder in [xpub_builder(), xpub_builder().verbose(true)] {
        let (xpub, endpoint) = bound_xpub(&place, builder).await;
        let mut raw = raw_subscriber(&endpoint, &[b"A"]).await;
        let mut other = Raw::peer(&endpoint, READY_SUB).await;
        assert_eq!(requests(&xpub, 1).await, ["+A"]);
        // Neither what nobody has, nor what another has.
        other.send(&[cancel_command(b"B"), cancel_message(b"A"), subscribe_command(b"end")].concat()).await;
        assert_eq!(requests(&xpub, 1).await, ["+end"]);
        raw.send(&[cancel_command(b"A"), cancel_command(b"A"), subscribe_command(b"end 2")].concat()).await;
        assert_eq!(requests(&xpub, 2).await, ["-A", "+end 2"]);
    }
}

async fn a_departing_peer_cancels_what_it_had(place: Place) {
    let (xpub, endpoint) = bound_xpub(&place, xpub_builder()).await;
    let first = raw_subscriber(&endpoint, &[b"A", b"A", b"B"]).await;
    assert_eq!(requests(&xpub, 2).await, ["+A", "+B"]);
    let second = raw_subscriber(&endpoint, &[b"B", b"C", b"D"]).await;
    assert_eq!(requests(&xpub, 2).await, ["+C", "+D"]);
    drop(first);
    assert_eq!(requests(&xpub, 1).await, ["-A"]);
    drop(second);
    let mut last = requests(&xpub, 3).await;
    last.sort();
    assert_eq!(last, ["-B", "-C", "-D"]);
    assert_eq!(xpub.try_recv(), Err(TryRecvError::Empty));
    // And the topics are new again.
    let _third = raw_subscriber(&endpoint, &[b"A"]).await;
    assert_eq!(requests(&xpub, 1).await, ["+A"]);
}

async fn a_departing_peer_with_a_thousand_topics_cancels_each(place: Place) {
    const TOPICS: usize = 1_000;
    let (xpub, endpoint) = bound_xpub(&place, xpub_builder().receive_high_water_mark(10)).await;
    let subscriber = new_sub();
    let topics = (0..TOPICS).map(|number| format!("topic {number}")).collect::<HashSet<_>>();
    topics.iter().for_each(|topic| subscriber.subscribe(topic));
    subscriber.connect(&endpoint).unwrap();
    let mut reported = requests(&xpub, TOPICS).await;
    assert_eq!(reported.drain(..).map(|request| request.replace('+', "")).collect::<HashSet<_>>(), topics);
    drop(subscriber);
    let mut reported = requests(&xpub, TOPICS).await;
    assert_eq!(reported.drain(..).map(|request| request.replace('-', "")).collect::<HashSet<_>>(), topics);
    assert_eq!(xpub.try_recv(), Err(TryRecvError::Empty));
}

async fn next_event(xpub: &XPubSocket) -> XPubEvent {
    within(xpub.recv_event()).await.unwrap()
}

async fn subscribed(xpub: &XPubSocket) -> (Arc<Peer>, Bytes) {
    match next_event(xpub).await {
        XPubEvent::Subscribed { peer, topic } => (peer, topic),
        other => panic!("{other:?}"),
    }
}

async fn events_name_the_peer_and_the_topic(place: Place) {
    let (xpub, endpoint) = bound_xpub(&place, xpub_builder()).await;
    let mut first = raw_subscriber(&endpoint, &[b"A"]).await;
    let (one, topic) = subscribed(&xpub).await;
    assert_eq!((topic, &one.endpoint), (Bytes::from_static(b"A"), &endpoint));
    let second = raw_subscriber(&endpoint, &[b"\0\xff"]).await;
    let (two, topic) = subscribed(&xpub).await;
    assert_eq!(topic, Bytes::from_static(b"\0\xff"));
    let mut listed = xpub.peers().iter().map(|peer| peer.peer.id).collect::<Vec<_>>();
    listed.sort();
    assert_eq!(listed, [one.id, two.id]);

    first.send(&frame(0, b"hello")).await;
    match next_event(&xpub).await {
        XPubEvent::Message { peer, message } => assert_eq!((peer, message), (one.clone(), "hello".into())),
        other => panic!("{other:?}"),
    }
    first.send(&cancel_message(b"A")).await;
    match next_event(&xpub).await {
        XPubEvent::Cancelled { peer, topic } => assert_eq!((peer, topic), (one, Bytes::from_static(b"A"))),
        other => panic!("{other:?}"),
    }
    // Also of one that has gone.
    drop(second);
    match next_event(&xpub).await {
        XPubEvent::Cancelled { peer, topic } => assert_eq!((peer, topic), (two, Bytes::from_static(b"\0\xff"))),
        other => panic!("{other:?}"),
    }
    within(xpub.close()).await.unwrap();
    assert!(matches!(within(xpub.recv_event()).await, Err(RecvError::Closed)));
}

async fn the_peer_of_an_event_is_the_peer_of_its_messages(place: Place) {
    let (xpub, endpoint) = bound_xpub(&place, xpub_builder()).await;
    let mut raw = raw_subscriber(&endpoint, &[b"A"]).await;
    let (peer, _) = subscribed(&xpub).await;
    raw.send(&[frame(0, b"hello"), subscribe_message(b"B")].concat()).await;
    assert_eq!(within(xpub.recv_from()).await.unwrap(), ("hello".into(), peer.clone()));
    assert_eq!(within(xpub.recv_from()).await.unwrap(), (b"\x01B".into(), peer));
}

async fn upstream_messages_are_received_as_they_are(place: Place) {
    let (xpub, endpoint) = bound_xpub(&place, xpub_builder()).await;
    let mut raw = Raw::peer(&endpoint, READY_XSUB).await;
    raw.send(&frame(0, b"\x02A")).await;
    assert_eq!(xpub.next().await, b"\x02A".into());
    raw.send(&frame(0, b"")).await;
    assert_eq!(xpub.next().await, "".into());
    // A request is the first frame.
    for second in [&b"\0BC"[..], b"\x01BC", b"", b"C"] {
        raw.send(&[frame(MORE, b"ABC"), frame(0, second)].concat()).await;
        assert_eq!(xpub.next().await, [b"ABC", second].into());
    }
    // And the only one.
    for first in [b"\0BC", b"\x01BC"] {
        raw.send(&[frame(MORE, first), frame(0, b"CD")].concat()).await;
        assert_eq!(xpub.next().await, [&first[..], b"CD"].into());
    }
    assert_eq!(xpub.subscriptions(), 0);
    raw.send(&frame(0, &[b'x'; 100_000])).await;
    assert!(xpub.next().await == vec![b'x'; 100_000].into());
}

async fn requests_and_messages_of_a_peer_keep_their_order(place: Place) {
    let (xpub, endpoint) = bound_xpub(&place, xpub_builder()).await;
    let mut raw = Raw::peer(&endpoint, READY_XSUB).await;
    let (mut wire, mut expected) = (Vec::new(), Vec::new());
    for number in 0..300 {
        let topic = number.to_string();
        wire.extend(subscribe_command(topic.as_bytes()));
        wire.extend(frame(0, b"message"));
        wire.extend(cancel_message(topic.as_bytes()));
        expected.extend([format!("+{topic}"), "message".into(), format!("-{topic}")]);
    }
    raw.send(&wire).await;
    assert_eq!(requests(&xpub, expected.len()).await, expected);
}

async fn requests_that_nobody_receives_are_kept(place: Place) {
    const TOPICS: usize = 20_000;
    let (xpub, endpoint) = bound_xpub(&place, xpub_builder().receive_high_water_mark(10)).await;
    let subscriber = new_sub();
    for number in 0..TOPICS {
        subscriber.subscribe(number.to_string());
    }
    subscriber.connect(&endpoint).unwrap();
    within(xpub.wait_connected(1)).await.unwrap();
    settled(|| xpub.subscriptions() as u64).await;
    let reported = requests(&xpub, TOPICS).await;
    assert_eq!(reported.into_iter().collect::<HashSet<_>>().len(), TOPICS);
    xpub.known((TOPICS - 1).to_string(), 1).await;
    assert_eq!(xpub.subscriptions(), TOPICS);
}

async fn the_welcome_is_the_first_thing_a_peer_gets(place: Place) {
    let (xpub, endpoint) = bound_xpub(&place, xpub_builder().welcome_message("W")).await;
    let mut first = Raw::peer(&endpoint, READY_SUB).await;
    // Before it has asked for anything, and without a call on the XPUB.
    assert_eq!(first.message().await.unwrap(), [b"W"]);
    let xsub = new_xsub();
    xsub.connect(&endpoint).unwrap();
    assert_eq!(xsub.next().await, "W".into());
    let mut second = raw_subscriber(&endpoint, &[b""]).await;
    xpub.known("", 1).await;
    xpub.say("news").await;
    assert_eq!(second.message().await.unwrap(), [b"W"]);
    assert_eq!(second.message().await.unwrap(), [b"news"]);
    // Again with every new connection.
    let mut third = Raw::peer(&endpoint, READY_SUB).await;
    assert_eq!(third.message().await.unwrap(), [b"W"]);
}

async fn a_subscriber_sees_the_welcome_if_it_has_subscribed_to_it(place: Place) {
    let (xpub, endpoint) = bound_xpub(&place, xpub_builder().welcome_message("W")).await;
    let welcomed = subscriber(&endpoint, &["W"]);
    assert_eq!(requests(&xpub, 1).await, ["+W"]);
    assert_eq!(welcomed.next().await, "W".into());
    let other = subscriber(&endpoint, &["M"]);
    xpub.known("M", 1).await;
    xpub.say("M").await;
    assert_eq!(other.next().await, "M".into());
}

async fn the_welcome_may_be_multipart(place: Place) {
    let (_xpub, endpoint) = bound_xpub(&place, xpub_builder().welcome_message(["W", "", "end"])).await;
    let mut raw = Raw::peer(&endpoint, READY_SUB).await;
    assert_eq!(raw.message().await.unwrap(), [&b"W"[..], b"", b"end"]);
}

async fn a_message_to_one_peer_reaches_it_alone(place: Place) {
    let (xpub, endpoint) = bound_xpub(&place, xpub_builder()).await;
    let mut raws = Vec::new();
    for topic in [b"A", b"B", b"C"] {
        let raw = raw_subscriber(&endpoint, &[topic]).await;
        let (peer, _) = subscribed(&xpub).await;
        raws.push((raw, peer.id));
    }
    for (raw, _) in &mut raws {
        raw.send(&subscribe_command(b"M")).await;
    }
    xpub.known("M", 3).await;
    for (_, peer) in &raws {
        // Whatever it has subscribed to.
        xpub.send_to(*peer, format!("for {peer}")).unwrap();
        xpub.send_to(*peer, ["", "two frames"]).unwrap();
    }
    xpub.say("M").await;
    for (raw, peer) in &mut raws {
        assert_eq!(raw.message().await.unwrap(), [format!("for {peer}").as_bytes()]);
        assert_eq!(raw.message().await.unwrap(), [&b""[..], b"two frames"]);
        assert_eq!(raw.message().await.unwrap(), [b"M"]);
    }
}

async fn a_message_to_one_peer_keeps_its_place(place: Place) {
    let (xpub, endpoint) = bound_xpub(&place, xpub_builder()).await;
    let subscriber = subscriber(&endpoint, &[""]);
    let (peer, _) = subscribed(&xpub).await;
    for number in 0..300 {
        xpub.say(numbered(3 * number)).await;
        xpub.send_to(peer.id, numbered(3 * number + 1)).unwrap();
        xpub.try_send(numbered(3 * number + 2)).unwrap();
    }
    for expected in 0..900 {
        assert_eq!(number(&subscriber.next().await), expected);
    }
}

async fn a_message_to_one_peer_counts_towards_its_mark(place: Place) {
    let (xpub, endpoint) = bound_xpub(&place, xpub_builder().send_high_water_mark(10).kernel_send_buffer(4_096)).await;
    let mut stuck = raw_subscriber(&endpoint, &[b"A"]).await;
    let (peer, _) = subscribed(&xpub).await;
    let other = subscriber(&endpoint, &["B"]);
    let (free, _) = subscribed(&xpub).await;
    let mut sent = 0;
    let refused = loop {
        match xpub.send_to(peer.id, padded(sent, 8_192)) {
            Ok(()) => sent += 1,
            Err(error) => {
                let before = xpub.stats().messages_sent;
                if settled(|| xpub.stats().messages_sent).await == before {
                    break error;
                }
            }
        }
        assert!(sent < 10_000, "the mark is never reached");
    };
    assert_eq!(refused, TrySendError::Full(padded(sent, 8_192)));
    assert!(xpub.peers().iter().all(|peer| peer.queued_messages <= 10));
    xpub.send_to(free.id, "B").unwrap();
    assert_eq!(other.next().await, "B".into());
    for number in 0..sent {
        assert_eq!(stuck.message().await.unwrap()[0], number.to_string().as_bytes());
    }
    xpub.send_to(peer.id, "there is room").unwrap();
    assert_eq!(stuck.message().await.unwrap(), [b"there is room"]);
    assert_eq!(xpub.stats().messages_dropped, 0);
}

async fn a_message_to_a_peer_that_has_gone_comes_back(place: Place) {
    let (xpub, endpoint) = bound_xpub(&place, xpub_builder()).await;
    let raw = raw_subscriber(&endpoint, &[b"A"]).await;
    let (peer, _) = subscribed(&xpub).await;
    drop(raw);
    assert!(matches!(next_event(&xpub).await, XPubEvent::Cancelled { .. }));
    assert_eq!(xpub.send_to(peer.id, "anybody?"), Err(TrySendError::NoPeer("anybody?".into())));
    let large = vec![0; (64 << 20) + 1];
    let _raw = raw_subscriber(&endpoint, &[b"A"]).await;
    let (peer, _) = subscribed(&xpub).await;
    assert!(matches!(xpub.send_to(peer.id, large), Err(TrySendError::TooLarge(_))));
    within(xpub.close()).await.unwrap();
    assert!(xpub.send_to(peer.id, "closed").is_err());
}

async fn with_wait_a_mark_of_empty_messages_is_accepted_and_received(place: Place) {
    const MARK: usize = 2_000;
    let builder =
        xpub_builder().slow_subscriber(SlowSubscriber::Wait).send_high_water_mark(MARK).kernel_send_buffer(65_536);
    let (xpub, endpoint) = bound_xpub(&place, builder).await;
    let subscriber = subscriber(&endpoint, &[""]);
    assert_eq!(requests(&xpub, 1).await, ["+"]);
    for _ in 0..MARK {
        xpub.try_send("").unwrap();
    }
    assert_eq!(texts(&subscriber, MARK).await.len(), MARK);
    // Until it does not go on.
    let mut sent = 0;
    while xpub.try_send("").is_ok() {
        sent += 1;
        assert!(sent < 10_000_000, "it never says that it is full");
    }
    assert_eq!(texts(&subscriber, sent).await.len(), sent);
    xpub.say("end").await;
    assert_eq!(subscriber.next().await, "end".into());
    assert_eq!(xpub.stats().messages_dropped, 0);
}

async fn with_wait_sending_and_receiving_in_turn_loses_nothing(place: Place) {
    const MARK: usize = 2_000;
    const MESSAGES: u64 = 6_000;
    let builder = xpub_builder().slow_subscriber(SlowSubscriber::Wait).send_high_water_mark(MARK);
    let (xpub, endpoint) = bound_xpub(&place, builder).await;
    let subscriber = subscriber(&endpoint, &[""]);
    assert_eq!(requests(&xpub, 1).await, ["+"]);
    let (mut sent, mut received) = (0, 0);
    while received < MESSAGES {
        while sent < MESSAGES && xpub.try_send(numbered(sent)).is_ok() {
            sent += 1;
        }
        assert_eq!(number(&subscriber.next().await), received);
        received += 1;
        while let Ok(message) = subscriber.try_recv() {
            assert_eq!(number(&message), received);
            received += 1;
        }
    }
    assert_eq!(xpub.stats().messages_dropped, 0);
}

async fn inverted_xpubs_send_what_does_not_match(place: Place) {
    let (xpub, endpoint) = bound_xpub(&place, xpub_builder().invert_matching(true)).await;
    let mut first = raw_subscriber(&endpoint, &[b"prefix1"]).await;
    let mut second = raw_subscriber(&endpoint, &[b"p2"]).await;
    let mut reported = requests(&xpub, 2).await;
    reported.sort();
    assert_eq!(reported, ["+p2", "+prefix1"]);
    for text in ["prefix1", "p2", "prefix12", "end"] {
        xpub.say(text).await;
    }
    for (raw, expected) in [(&mut first, &["p2", "end"][..]), (&mut second, &["prefix1", "prefix12", "end"])] {
        for text in expected {
            assert_eq!(raw.message().await.unwrap(), [text.as_bytes()]);
        }
    }
}

async fn an_xpub_keeps_the_limits_of_a_publisher(place: Place) {
    let builder = xpub_builder().max_topic_length(5).max_subscriptions(3).max_subscription_bytes(10);
    let cases: [(&[&[u8]], ProtocolError); 3] = [
        (&[b"A", b"123456"], ProtocolError::TopicTooLong { size: 6, limit: 5 }),
        (&[b"A", b"B", b"C", b"D"], ProtocolError::TooManySubscriptions { limit: 3 }),
        (&[b"12345", b"54321", b"1"], ProtocolError::SubscriptionsTooLarge { limit: 10 }),
    ];
    for (topics, expected) in cases {
        for manual in [false, true] {
            let (xpub, endpoint) = bound_xpub(&place, builder.clone().manual(manual)).await;
            let mut monitor = xpub.monitor();
            let mut raw = raw_subscriber(&endpoint, topics).await;
            raw.end().await;
            assert_eq!(wait_reason(&mut monitor).await, DisconnectReason::Protocol(expected.clone()));
            // What was in force is reported, and then cancelled.
            let allowed = topics.len() - 1;
            let reported = requests(&xpub, 2 * allowed).await;
            assert!(reported[..allowed].iter().all(|request| request.starts_with('+')), "{reported:?}");
            assert!(reported[allowed..].iter().all(|request| request.starts_with('-')), "{reported:?}");
            assert_eq!(xpub.try_recv(), Err(TryRecvError::Empty));
        }
    }
}

async fn many_peers_share_a_topic(place: Place) {
    const PEERS: usize = 50;
    let (xpub, endpoint) = bound_xpub(&place, xpub_builder()).await;
    let mut raws = Vec::new();
    for peer in 0..PEERS {
        raws.push(raw_subscriber(&endpoint, &[b"shared", peer.to_string().as_bytes()]).await);
    }
    let mut reported = requests(&xpub, PEERS + 1).await;
    reported.retain(|request| request == "+shared");
    assert_eq!(reported.len(), 1);
    xpub.known("shared", PEERS).await;
    while let Some(raw) = raws.pop() {
        drop(raw);
        let request = requests(&xpub, 1).await.remove(0);
        if raws.is_empty() {
            let mut last = vec![request, requests(&xpub, 1).await.remove(0)];
            last.sort();
            assert_eq!(last, ["-0", "-shared"]);
        } else {
            assert_eq!(request, format!("-{}", raws.len()));
        }
    }
    assert_eq!(xpub.subscriptions(), 0);
}
