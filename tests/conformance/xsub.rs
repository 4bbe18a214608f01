//! XSUB: subscriptions as messages, what goes upstream, and no second look at what arrives.

use futures::StreamExt;
use sinew::TryRecvError;

use crate::common::raw::*;
use crate::common::topics::*;
use crate::common::*;

crate::behaviours! {
    messages_subscribe_and_cancel,
    requests_take_the_form_of_the_publishers_version,
    subscribing_by_message_and_by_call_is_the_same,
    as_many_cancellations_as_subscriptions_are_needed,
    verbose_unsubscribe_forwards_every_cancellation,
    what_is_no_request_goes_upstream_to_every_publisher,
    a_message_of_several_frames_is_no_request,
    requests_and_messages_keep_their_order,
    what_arrives_is_not_checked_again,
    the_set_is_sent_again_on_every_new_connection,
    the_set_waits_for_publishers_to_come,
    messages_without_a_publisher_are_dropped_and_counted,
    a_publisher_that_does_not_read_loses_messages_and_no_subscriptions,
    an_empty_message_passes_a_device_made_by_hand,
    every_way_to_receive_gives_the_same,
    calls_and_messages_take_effect_in_their_order,
}

async fn messages_subscribe_and_cancel(place: Place) {
    let (publisher, endpoint) = bound_pub(&place, pub_builder()).await;
    let xsub = new_xsub();
    xsub.connect(&endpoint).unwrap();
    within(xsub.send(b"\x01A")).await.unwrap();
    xsub.try_send(b"\x01B").unwrap();
    eventually(|| publisher.subscriptions() == 2).await;
    for text in ["A", "B", "C"] {
        publisher.say(text).await;
    }
    assert_eq!(texts(&xsub, 2).await, ["A", "B"]);
    within(xsub.send(b"\0A")).await.unwrap();
    eventually(|| publisher.subscriptions() == 1).await;
    publisher.say("A").await;
    publisher.say("B").await;
    assert_eq!(xsub.next().await, "B".into());
    within(xsub.send(b"\x01")).await.unwrap();
    publisher.known("anything", 1).await;
}

async fn requests_take_the_form_of_the_publishers_version(place: Place) {
    for version in VERSIONS {
        for ready in [READY_PUB, READY_XPUB] {
            let (listener, endpoint) = RawListener::bind(&place);
            let xsub = new_xsub();
            xsub.connect(endpoint).unwrap();
            let mut publisher = listener.accept().await;
            publisher.shake_hands_as(version, ready).await;
            for topic in [&b""[..], b"A", b"\0", &[b'T'; 244], &[b'T'; 245], &[b'T'; 246], &[b'T'; 254], &[b'T'; 255]] {
                let (subscribe, cancel) = (subscribe_as(version, topic), cancel_as(version, topic));
                within(xsub.send([b"\x01", topic].concat())).await.unwrap();
                assert_eq!(publisher.read(subscribe.len()).await, subscribe);
                within(xsub.send([b"\0", topic].concat())).await.unwrap();
                assert_eq!(publisher.read(cancel.len()).await, cancel);
            }
            publisher.send(b"\0\x04ALOL").await;
            assert_eq!(xsub.next().await, "ALOL".into());
        }
    }
}

async fn subscribing_by_message_and_by_call_is_the_same(place: Place) {
    let (xpub, endpoint) = bound_xpub(&place, xpub_builder().verboser(true)).await;
    let xsub = new_xsub();
    xsub.connect(&endpoint).unwrap();
    xsub.subscribe("A");
    within(xsub.send(b"\x01A")).await.unwrap();
    assert_eq!(requests(&xpub, 1).await, ["+A"]);
    // The second one may have come with the first set, or after it.
    xsub.unsubscribe("A");
    xsub.subscribe("M");
    let between = requests_until(&xpub, "+M").await;
    assert!(between.iter().all(|request| request == "+A") && between.len() <= 1, "{between:?}");
    within(xsub.send(b"\0A")).await.unwrap();
    assert_eq!(requests(&xpub, 1).await, ["-A"]);
}

async fn as_many_cancellations_as_subscriptions_are_needed(place: Place) {
    let (xpub, endpoint) = bound_xpub(&place, xpub_builder().verboser(true)).await;
    let xsub = new_xsub();
    xsub.connect(&endpoint).unwrap();
    within(xsub.wait_connected(1)).await.unwrap();
    let steps: [(&[u8], &[&str]); 6] =
        [(b"\0A", &[]), (b"\x01A", &["+A"]), (b"\x01A", &["+A"]), (b"\0A", &[]), (b"\0A", &["-A"]), (b"\0A", &[])];
    for (step, expected) in steps {
        within(xsub.send(step)).await.unwrap();
        within(xsub.send("end of step")).await.unwrap();
        assert_eq!(requests_until(&xpub, "end of step").await, expected);
    }
}

async fn verbose_unsubscribe_forwards_every_cancellation(place: Place) {
    for version in VERSIONS {
        let xsub = xsub_builder().verbose_unsubscribe(true).build().unwrap();
        let (listener, endpoint) = RawListener::bind(&place);
        xsub.connect(endpoint).unwrap();
        let mut publisher = listener.accept().await;
        publisher.shake_hands_as(version, READY_XPUB).await;
        within(xsub.wait_connected(1)).await.unwrap();
        // Also one of what is not subscribed.
        for step in [b"\0A", b"\x01A", b"\x01A", b"\0A", b"\0A"] {
            within(xsub.send(step)).await.unwrap();
            let frame = publisher.frame().await.unwrap();
            assert_eq!(frame.request(version), (step[0] == 1, &b"A"[..]));
        }
    }
}

async fn what_is_no_request_goes_upstream_to_every_publisher(place: Place) {
    let xsub = new_xsub();
    let mut publishers = Vec::new();
    for version in VERSIONS {
        let (listener, endpoint) = RawListener::bind(&place);
        xsub.connect(endpoint).unwrap();
        let mut publisher = listener.accept().await;
        publisher.shake_hands_as(version, READY_XPUB).await;
        publishers.push(publisher);
    }
    let (xpub, endpoint) = bound_xpub(&place, xpub_builder()).await;
    xsub.connect(endpoint).unwrap();
    within(xsub.wait_connected(3)).await.unwrap();
    within(xsub.send(b"\x02A")).await.unwrap();
    within(xsub.send("")).await.unwrap();
    within(xsub.send(["one", "", "three"])).await.unwrap();
    for publisher in &mut publishers {
        assert_eq!(publisher.message().await.unwrap(), [b"\x02A"]);
        assert_eq!(publisher.message().await.unwrap(), [b""]);
        assert_eq!(publisher.message().await.unwrap(), [&b"one"[..], b"", b"three"]);
    }
    assert_eq!(xpub.next().await, b"\x02A".into());
    assert_eq!(xpub.next().await, "".into());
    assert_eq!(xpub.next().await, ["one", "", "three"].into());
}

async fn a_message_of_several_frames_is_no_request(place: Place) {
    let (xpub, endpoint) = bound_xpub(&place, xpub_builder()).await;
    let xsub = new_xsub();
    xsub.connect(&endpoint).unwrap();
    within(xsub.wait_connected(1)).await.unwrap();
    for request in [b"\0BC", b"\x01BC"] {
        for frames in [[b"ABC", request], [request, b"ABC"], [request, request]] {
            within(xsub.send(frames)).await.unwrap();
            assert_eq!(xpub.next().await, frames.into());
        }
    }
    assert_eq!(xpub.subscriptions(), 0);
}

async fn requests_and_messages_keep_their_order(place: Place) {
    let (xpub, endpoint) = bound_xpub(&place, xpub_builder()).await;
    let xsub = new_xsub();
    xsub.connect(&endpoint).unwrap();
    within(xsub.wait_connected(1)).await.unwrap();
    let mut expected = Vec::new();
    for number in 0..200 {
        within(xsub.send(format!("\x01{number}"))).await.unwrap();
        within(xsub.send("message")).await.unwrap();
        within(xsub.send(format!("\0{number}"))).await.unwrap();
        expected.extend([format!("+{number}"), "message".into(), format!("-{number}")]);
    }
    assert_eq!(requests(&xpub, expected.len()).await, expected);
}

async fn what_arrives_is_not_checked_again(place: Place) {
    let xsub = new_xsub();
    let endpoint = within(xsub.bind(place.wildcard())).await.unwrap();
    let mut publisher = Raw::peer(&endpoint, READY_PUB).await;
    publisher.send(&frame(0, b"unasked")).await;
    assert_eq!(xsub.next().await, "unasked".into());
    within(xsub.send(b"\x01A")).await.unwrap();
    publisher.frame().await.unwrap();
    publisher.send(&[frame(0, b"B"), frame(0, b"A")].concat()).await;
    assert_eq!(texts(&xsub, 2).await, ["B", "A"]);
}

async fn the_set_is_sent_again_on_every_new_connection(place: Place) {
    for version in VERSIONS {
        let (listener, endpoint) = RawListener::bind(&place);
        let xsub = new_xsub();
        xsub.connect(endpoint).unwrap();
        for request in [b"\x01A", b"\x01B", b"\x01A", b"\x01C", b"\0B"] {
            within(xsub.send(request)).await.unwrap();
        }
        for round in 0..3 {
            let mut publisher = listener.accept().await;
            publisher.shake_hands_as(version, READY_PUB).await;
            within(xsub.wait_connected(1)).await.unwrap();
            within(xsub.send(format!("end of {round}"))).await.unwrap();
            let mut set = Vec::new();
            loop {
                let frame = publisher.frame().await.unwrap();
                if frame.body == format!("end of {round}").into_bytes() {
                    break;
                }
                let (subscribes, topic) = frame.request(version);
                match subscribes {
                    true => set.push(topic.to_vec()),
                    false => set.retain(|other| other != topic),
                }
            }
            set.sort();
            if round > 0 {
                assert_eq!(set, [b"A", b"C"], "each once");
            }
            set.dedup();
            assert_eq!(set, [b"A", b"C"]);
            let mut monitor = xsub.monitor();
            drop(publisher);
            wait_disconnected(&mut monitor).await;
        }
    }
}

async fn the_set_waits_for_publishers_to_come(place: Place) {
    let endpoint = place.fresh();
    let xsub = new_xsub();
    xsub.connect(&endpoint).unwrap();
    // More than the mark of anything.
    for number in 0..10_000 {
        within(xsub.send(format!("\x01topic {number}."))).await.unwrap();
    }
    let publisher = new_pub();
    within(publisher.bind(&endpoint)).await.unwrap();
    publisher.known("topic 9999.", 1).await;
    eventually(|| publisher.subscriptions() == 10_000).await;
}

async fn messages_without_a_publisher_are_dropped_and_counted(place: Place) {
    let endpoint = place.fresh();
    let xsub = new_xsub();
    xsub.connect(&endpoint).unwrap();
    for _ in 0..2_000 {
        within(xsub.send("nobody hears this")).await.unwrap();
    }
    within(xsub.send(b"\x01A")).await.unwrap();
    let xpub = new_xpub();
    within(xpub.bind(&endpoint)).await.unwrap();
    assert_eq!(requests(&xpub, 1).await, ["+A"]);
    within(xsub.send("somebody hears this")).await.unwrap();
    assert_eq!(xpub.next().await, "somebody hears this".into());
    let stats = xsub.stats();
    assert_eq!(stats.messages_unmatched + stats.messages_dropped, 2_000);
}

async fn a_publisher_that_does_not_read_loses_messages_and_no_subscriptions(place: Place) {
    const SENT: u64 = 2_000;
    let xsub = xsub_builder().send_high_water_mark(10).kernel_send_buffer(4_096).build().unwrap();
    let endpoint = within(xsub.bind(place.wildcard())).await.unwrap();
    let mut stuck = Raw::peer(&endpoint, READY_XPUB).await;
    within(xsub.wait_connected(1)).await.unwrap();
    for number in 0..SENT {
        within(xsub.send(padded(number, 8_192))).await.unwrap();
    }
    for number in 0..5_000 {
        xsub.subscribe(format!("topic {number}."));
    }
    settled(|| xsub.stats().messages_dropped).await;
    let kept = SENT - xsub.stats().messages_dropped;
    assert!((1..SENT).contains(&kept), "{kept} are kept");
    let (mut messages, mut topics) = (0, 0);
    while messages < kept || topics < 5_000 {
        let frame = stuck.frame().await.unwrap();
        if frame.is_command() {
            topics += u64::from(frame.request([3, 1]).0);
        } else {
            messages += u64::from(!frame.more());
        }
    }
    assert_eq!((messages, topics), (kept, 5_000));
}

async fn an_empty_message_passes_a_device_made_by_hand(place: Place) {
    let (xpub, back) = bound_xpub(&place, xpub_builder()).await;
    let xsub = new_xsub();
    let front = within(xsub.bind(place.wildcard())).await.unwrap();
    let publisher = new_pub();
    publisher.connect(front).unwrap();
    let subscriber = subscriber(&back, &[""]);
    within(xsub.send(xpub.next().await)).await.unwrap();
    publisher.known("", 1).await;
    publisher.say("").await;
    xpub.say(xsub.next().await).await;
    assert_eq!(subscriber.next().await, "".into());
}

async fn every_way_to_receive_gives_the_same(place: Place) {
    let xsub = new_xsub();
    let endpoint = within(xsub.bind(place.wildcard())).await.unwrap();
    let mut publisher = Raw::peer(&endpoint, READY_PUB).await;
    for round in 0..4 {
        publisher.send(&[frame(0, b"A"), frame(MORE, b"B"), frame(0, b"C"), frame(0, b"D")].concat()).await;
        let mut received = Vec::new();
        while received.len() < 3 {
            match round {
                0 => received.push(within(xsub.recv()).await.unwrap()),
                1 => received.push(within(xsub.recv_from()).await.unwrap().0),
                2 => received.push(within(xsub.stream().next()).await.unwrap()),
                _ => assert_ne!(within(xsub.recv_many(&mut received, 2)).await.unwrap(), 0),
            }
        }
        assert_eq!(received, ["A".into(), ["B", "C"].into(), "D".into()]);
    }
    assert_eq!(xsub.try_recv(), Err(TryRecvError::Empty));
}

async fn calls_and_messages_take_effect_in_their_order(place: Place) {
    let (xpub, endpoint) = bound_xpub(&place, xpub_builder()).await;
    let xsub = new_xsub();
    xsub.connect(&endpoint).unwrap();
    within(xsub.wait_connected(1)).await.unwrap();
    let mut expected = Vec::new();
    for round in 0..100 {
        xsub.try_send(b"\x01A").unwrap();
        xsub.unsubscribe("A");
        xsub.subscribe("B");
        xsub.try_send(b"\0B").unwrap();
        within(xsub.send(round.to_string())).await.unwrap();
        expected.extend(["+A".to_string(), "-A".into(), "+B".into(), "-B".into(), round.to_string()]);
    }
    assert_eq!(requests(&xpub, expected.len()).await, expected);
    assert_eq!(xpub.subscriptions(), 0);
}
