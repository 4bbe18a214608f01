//! The proxy: forwarders and streamers, capture, pause, resume and stop, and what its counters say.

use std::time::Duration;

use futures::poll;
use sinew::{
    Endpoint, Message, Proxy, ProxyHandle, PubSocket, PullSocket, PushSocket, SlowSubscriber, SubSocket, TryRecvError,
    XPubSocket, XSubSocket, proxy,
};

use crate::common::topics::*;
use crate::common::*;

crate::behaviours! {
    a_forwarder_passes_subscriptions_back_and_messages_on,
    a_forwarder_joins_many_publishers_and_many_subscribers,
    a_subscriber_that_leaves_is_cancelled_at_the_publisher,
    a_publisher_that_comes_later_learns_what_is_subscribed,
    user_messages_pass_a_forwarder_upstream,
    a_streamer_passes_everything_in_order,
    a_streamer_deals_to_its_workers,
    the_capture_gets_a_copy_of_both_directions,
    a_capture_may_publish,
    nothing_passes_while_it_is_paused_and_nothing_is_lost,
    a_pause_holds_back_both_directions,
    what_was_taken_is_handed_over_before_it_stops,
    proxies_in_turn_on_the_same_sockets_lose_nothing,
    a_dropped_handle_stops_it,
    the_counters_say_what_was_forwarded,
    waiting_ends_when_either_socket_is_closed,
    the_function_runs_until_a_socket_is_closed,
    with_marks_all_the_way_nothing_is_lost,
}

/// An XSUB and an XPUB, bound, and the proxy between them.
struct Forwarder {
    frontend: XSubSocket,
    backend: XPubSocket,
    front: Endpoint,
    back: Endpoint,
    handle: ProxyHandle,
}

async fn forwarder(place: &Place) -> Forwarder {
    let (backend, back) = bound_xpub(place, xpub_builder()).await;
    let frontend = new_xsub();
    let front = within(frontend.bind(place.wildcard())).await.unwrap();
    let handle = Proxy::new(&frontend, &backend).start();
    Forwarder { frontend, backend, front, back, handle }
}

fn publisher(endpoint: &Endpoint) -> PubSocket {
    let publisher = new_pub();
    publisher.connect(endpoint).unwrap();
    publisher
}

/// A PUSH, a PULL and a PUSH to put a proxy between, and a PULL.
async fn streamer(place: &Place) -> (PushSocket, PullSocket, PushSocket, PullSocket) {
    let (source, frontend) = pair(place).await;
    let (backend, sink) = pair(place).await;
    (source, frontend, backend, sink)
}

async fn a_forwarder_passes_subscriptions_back_and_messages_on(place: Place) {
    let forwarder = forwarder(&place).await;
    let publisher = publisher(&forwarder.front);
    let subscriber = subscriber(&forwarder.back, &["A"]);
    publisher.known("A", 1).await;
    publisher.say("B").await;
    publisher.say(["A", "", "payload"]).await;
    assert_eq!(subscriber.next().await, ["A", "", "payload"].into());
    subscriber.subscribe("");
    publisher.known("anything", 1).await;
    publisher.say("").await;
    assert_eq!(subscriber.next().await, "".into());
    within(forwarder.handle.stop()).await;
}

async fn a_forwarder_joins_many_publishers_and_many_subscribers(place: Place) {
    const SIDES: usize = 4;
    const MESSAGES: usize = 200;
    let forwarder = forwarder(&place).await;
    let publishers = (0..SIDES).map(|_| publisher(&forwarder.front)).collect::<Vec<_>>();
    let all = (0..SIDES).map(|_| subscriber(&forwarder.back, &[""])).collect::<Vec<_>>();
    let some = (0..SIDES).map(|name| subscriber(&forwarder.back, &[&name.to_string()])).collect::<Vec<_>>();
    forwarder.backend.known("0", SIDES + 1).await;
    eventually(|| forwarder.backend.subscriptions() == 2 * SIDES).await;
    for (name, publisher) in publishers.iter().enumerate() {
        publisher.known(name.to_string(), 1).await;
    }
    for number in 0..MESSAGES {
        for (name, publisher) in publishers.iter().enumerate() {
            publisher.say([name.to_string(), number.to_string()]).await;
        }
    }
    for subscriber in &all {
        let mut next = [0; SIDES];
        for _ in 0..SIDES * MESSAGES {
            let message = subscriber.next().await;
            let number = &mut next[usize::from(message[0][0] - b'0')];
            assert_eq!(message[1], *number.to_string().as_bytes());
            *number += 1;
        }
    }
    for (name, subscriber) in some.iter().enumerate() {
        for number in 0..MESSAGES {
            assert_eq!(subscriber.next().await, [name.to_string(), number.to_string()].into());
        }
    }
}

async fn a_subscriber_that_leaves_is_cancelled_at_the_publisher(place: Place) {
    let forwarder = forwarder(&place).await;
    let publisher = publisher(&forwarder.front);
    let (first, second) = (subscriber(&forwarder.back, &["1"]), subscriber(&forwarder.back, &["1"]));
    publisher.known("1", 1).await;
    forwarder.backend.known("1", 2).await;
    publisher.say(["1", "X"]).await;
    for subscriber in [&first, &second] {
        assert_eq!(subscriber.next().await, ["1", "X"].into());
    }
    within(first.close()).await.unwrap();
    eventually(|| forwarder.backend.subscriptions() == 1).await;
    publisher.say(["1", "Y"]).await;
    assert_eq!(second.next().await, ["1", "Y"].into());
    within(second.close()).await.unwrap();
    eventually(|| publisher.subscriptions() == 0).await;
    publisher.say(["1", "Z"]).await;
    eventually(|| publisher.stats().messages_unmatched == 1).await;
    eventually(|| forwarder.handle.counters().frontend_to_backend.messages == 2).await;
}

async fn a_publisher_that_comes_later_learns_what_is_subscribed(place: Place) {
    let forwarder = forwarder(&place).await;
    let subscriber = subscriber(&forwarder.back, &["A", "B"]);
    forwarder.backend.known("A", 1).await;
    for number in 0..5 {
        let publisher = publisher(&forwarder.front);
        publisher.known("A", 1).await;
        publisher.known("B", 1).await;
        publisher.say(["A".to_string(), number.to_string()]).await;
        assert_eq!(subscriber.next().await, ["A".to_string(), number.to_string()].into());
    }
}

async fn user_messages_pass_a_forwarder_upstream(place: Place) {
    let forwarder = forwarder(&place).await;
    let upstream = new_xpub();
    upstream.connect(&forwarder.front).unwrap();
    within(forwarder.frontend.wait_connected(1)).await.unwrap();
    let xsub = new_xsub();
    xsub.connect(&forwarder.back).unwrap();
    within(xsub.wait_connected(1)).await.unwrap();
    within(xsub.send(["hello", "up there"])).await.unwrap();
    assert_eq!(upstream.next().await, ["hello", "up there"].into());
    // It is counted once it has been handed over.
    eventually(|| forwarder.handle.counters().backend_to_frontend.messages == 1).await;
}

async fn a_streamer_passes_everything_in_order(place: Place) {
    const MESSAGES: u64 = 5_000;
    let (source, frontend, backend, sink) = streamer(&place).await;
    let handle = Proxy::new(&frontend, &backend).start();
    let sending = async {
        for number in 0..MESSAGES {
            within(source.send(padded(number, 100))).await.unwrap();
        }
    };
    let receiving = async {
        for number in 0..MESSAGES {
            assert_eq!(sink.next().await, padded(number, 100));
        }
    };
    tokio::join!(sending, receiving);
    let counters = within(handle.stop()).await;
    assert_eq!((counters.frontend_to_backend.messages, counters.frontend_to_backend.bytes), (MESSAGES, MESSAGES * 100));
    assert_eq!((counters.backend_to_frontend.messages, counters.frontend_to_backend.undelivered), (0, 0));
}

async fn a_streamer_deals_to_its_workers(place: Place) {
    const WORKERS: usize = 3;
    let (source, frontend) = pair(&place).await;
    let backend = new_push();
    let back = within(backend.bind(place.wildcard())).await.unwrap();
    let workers = (0..WORKERS).map(|_| new_pull()).collect::<Vec<_>>();
    workers.iter().for_each(|worker| worker.connect(&back).unwrap());
    within(backend.wait_connected(WORKERS)).await.unwrap();
    let _handle = Proxy::new(&frontend, &backend).start();
    send_numbers(&source, 0..300).await;
    let mut received = Vec::new();
    for worker in &workers {
        let numbers = recv_numbers(worker, 100).await;
        assert!(numbers.is_sorted());
        received.extend(numbers);
    }
    received.sort();
    assert_eq!(received, (0..300).collect::<Vec<_>>());
}

async fn the_capture_gets_a_copy_of_both_directions(place: Place) {
    let (backend, back) = bound_xpub(&place, xpub_builder()).await;
    let frontend = new_xsub();
    let front = within(frontend.bind(place.wildcard())).await.unwrap();
    let (capture, captured) = pair(&place).await;
    let _handle = Proxy::new(&frontend, &backend).capture(&capture).start();
    let publisher = publisher(&front);
    let subscriber = subscriber(&back, &["A"]);
    publisher.known("A", 1).await;
    publisher.say(["A", "one"]).await;
    publisher.say("A two").await;
    assert_eq!(texts(&subscriber, 2).await, ["A", "A two"]);
    within(subscriber.close()).await.unwrap();
    let expected: [Message; 4] = [b"\x01A".into(), ["A", "one"].into(), "A two".into(), b"\0A".into()];
    for message in expected {
        assert_eq!(captured.next().await, message);
    }
}

async fn a_capture_may_publish(place: Place) {
    let (source, frontend, backend, sink) = streamer(&place).await;
    let (capture, endpoint) = bound_pub(&place, pub_builder()).await;
    let watcher = subscriber(&endpoint, &["1"]);
    capture.known("1", 1).await;
    let _handle = Proxy::new(&frontend, &backend).capture(&capture).start();
    send_numbers(&source, 0..20).await;
    assert_eq!(recv_numbers(&sink, 20).await, (0..20).collect::<Vec<_>>());
    assert_eq!(texts(&watcher, 11).await, ["1", "10", "11", "12", "13", "14", "15", "16", "17", "18", "19"]);
    // A capture that is closed holds nothing up.
    within(capture.close()).await.unwrap();
    send_numbers(&source, 20..40).await;
    assert_eq!(recv_numbers(&sink, 20).await, (20..40).collect::<Vec<_>>());
}

/// Waits until a proxy that was paused has nothing in hand.
async fn paused(handle: &ProxyHandle) {
    handle.pause();
    settled(|| handle.counters().frontend_to_backend.messages + handle.counters().backend_to_frontend.messages).await;
}

async fn nothing_passes_while_it_is_paused_and_nothing_is_lost(place: Place) {
    const MESSAGES: u64 = 200;
    let (source, frontend, backend, sink) = streamer(&place).await;
    let handle = Proxy::new(&frontend, &backend).start();
    for round in 0..5 {
        let first = 2 * MESSAGES * round;
        send_numbers(&source, first..first + MESSAGES).await;
        if round % 2 == 0 {
            handle.pause(); // while they are on their way
        }
        paused(&handle).await;
        let before = handle.counters();
        send_numbers(&source, first + MESSAGES..first + 2 * MESSAGES).await;
        let waiting = (first + 2 * MESSAGES - before.frontend_to_backend.messages) as usize;
        eventually(|| frontend.stats().inbound_messages == waiting).await;
        assert_eq!(handle.counters(), before);
        handle.resume();
        assert_eq!(recv_numbers(&sink, 2 * MESSAGES as usize).await, (first..first + 2 * MESSAGES).collect::<Vec<_>>());
    }
}

async fn a_pause_holds_back_both_directions(place: Place) {
    let forwarder = forwarder(&place).await;
    let publisher = publisher(&forwarder.front);
    let subscriber = subscriber(&forwarder.back, &["A"]);
    publisher.known("A", 1).await;
    paused(&forwarder.handle).await;
    subscriber.subscribe("B");
    forwarder.backend.known("B", 1).await;
    publisher.say("A").await;
    eventually(|| forwarder.frontend.stats().inbound_messages == 1).await;
    eventually(|| forwarder.backend.stats().inbound_messages == 1).await;
    assert_eq!((publisher.subscriptions(), subscriber.try_recv()), (1, Err(TryRecvError::Empty)));
    forwarder.handle.resume();
    publisher.known("B", 1).await;
    assert_eq!(subscriber.next().await, "A".into());
}

async fn what_was_taken_is_handed_over_before_it_stops(place: Place) {
    const MESSAGES: u64 = 2_000;
    let (source, frontend, backend, sink) = streamer(&place).await;
    let handle = Proxy::new(&frontend, &backend).start();
    let sending = tokio::spawn({
        let source = source.clone();
        async move { send_numbers(&source, 0..MESSAGES).await }
    });
    assert_eq!(recv_numbers(&sink, 100).await, (0..100).collect::<Vec<_>>());
    let stopping = handle.stop();
    let (counters, ()) = tokio::join!(within(stopping), async {
        // What it still has to hand over needs room.
        while sink.try_recv().is_err() {
            tokio::task::yield_now().await;
        }
    });
    assert_eq!(counters.frontend_to_backend.undelivered, 0);
    let forwarded = counters.frontend_to_backend.messages;
    assert_eq!(recv_numbers(&sink, forwarded as usize - 101).await, (101..forwarded).collect::<Vec<_>>());
    // The rest has stayed in the queue of the frontend.
    assert_eq!(
        recv_numbers(&frontend, (MESSAGES - forwarded) as usize).await,
        (forwarded..MESSAGES).collect::<Vec<_>>()
    );
    within(sending).await.unwrap();
}

async fn proxies_in_turn_on_the_same_sockets_lose_nothing(place: Place) {
    const MESSAGES: u64 = 3_000;
    let (source, frontend, backend, sink) = streamer(&place).await;
    let sending = tokio::spawn(async move { send_numbers(&source, 0..MESSAGES).await });
    let receiving = tokio::spawn(async move { recv_numbers(&sink, MESSAGES as usize).await });
    let mut forwarded = 0;
    while forwarded < MESSAGES {
        let handle = Proxy::new(&frontend, &backend).start();
        eventually(|| handle.counters().frontend_to_backend.messages > 0).await;
        let counters = within(handle.stop()).await;
        assert_eq!(counters.frontend_to_backend.undelivered, 0);
        forwarded += counters.frontend_to_backend.messages;
    }
    within(sending).await.unwrap();
    assert_eq!(within(receiving).await.unwrap(), (0..MESSAGES).collect::<Vec<_>>());
}

async fn a_dropped_handle_stops_it(place: Place) {
    let (source, frontend, backend, sink) = streamer(&place).await;
    let handle = Proxy::new(&frontend, &backend).start();
    send_numbers(&source, 0..10).await;
    assert_eq!(recv_numbers(&sink, 10).await, (0..10).collect::<Vec<_>>());
    paused(&handle).await;
    drop(handle);
    send_numbers(&source, 10..20).await;
    eventually(|| frontend.stats().inbound_messages == 10).await;
    assert_eq!(sink.try_recv(), Err(TryRecvError::Empty));
    assert_eq!(recv_numbers(&frontend, 10).await, (10..20).collect::<Vec<_>>());
}

async fn the_counters_say_what_was_forwarded(place: Place) {
    let forwarder = forwarder(&place).await;
    let publisher = publisher(&forwarder.front);
    let subscriber = subscriber(&forwarder.back, &["A", "BCD"]);
    publisher.known("A", 1).await;
    publisher.known("BCD", 1).await;
    publisher.say(["A", "12345", ""]).await;
    publisher.say("BCDE").await;
    publisher.say("not wanted").await;
    assert_eq!(texts(&subscriber, 2).await, ["A", "BCDE"]);
    let counters = within(forwarder.handle.stop()).await;
    let (there, back) = (counters.frontend_to_backend, counters.backend_to_frontend);
    assert_eq!((there.messages, there.bytes, there.undelivered), (2, 10, 0));
    // The two requests, with their first bytes.
    assert_eq!((back.messages, back.bytes, back.undelivered), (2, 6, 0));
}

async fn waiting_ends_when_either_socket_is_closed(place: Place) {
    for close_frontend in [true, false] {
        let Forwarder { frontend, backend, mut handle, .. } = forwarder(&place).await;
        {
            let mut waiting = Box::pin(handle.wait());
            assert!(poll!(&mut waiting).is_pending());
            match close_frontend {
                true => within(frontend.close()).await.unwrap(),
                false => within(backend.close()).await.unwrap(),
            };
            within(waiting).await;
        }
        let (_source, frontend, backend, _sink) = streamer(&place).await;
        let mut handle = Proxy::new(&frontend, &backend).start();
        let mut waiting = Box::pin(handle.wait());
        assert!(poll!(&mut waiting).is_pending());
        match close_frontend {
            true => within(frontend.close()).await.unwrap(),
            false => within(backend.close()).await.unwrap(),
        };
        within(waiting).await;
    }
}

async fn the_function_runs_until_a_socket_is_closed(place: Place) {
    let (source, frontend, backend, sink) = streamer(&place).await;
    let running = tokio::spawn({
        let frontend = frontend.clone();
        async move { proxy(&frontend, &backend).await }
    });
    send_numbers(&source, 0..100).await;
    assert_eq!(recv_numbers(&sink, 100).await, (0..100).collect::<Vec<_>>());
    assert!(!running.is_finished());
    within(frontend.close()).await.unwrap();
    within(running).await.unwrap();
}

async fn with_marks_all_the_way_nothing_is_lost(place: Place) {
    const MARK: usize = 10;
    const SIZE: usize = 50_000;
    let builder = xpub_builder().slow_subscriber(SlowSubscriber::Wait).send_high_water_mark(MARK);
    let (backend, back) = bound_xpub(&place, builder.receive_high_water_mark(MARK)).await;
    let frontend = xsub_builder().send_high_water_mark(MARK).receive_high_water_mark(MARK).build().unwrap();
    let front = within(frontend.bind(place.wildcard())).await.unwrap();
    let _handle = Proxy::new(&frontend, &backend).start();
    let publisher = xpub_builder().slow_subscriber(SlowSubscriber::Wait).send_high_water_mark(MARK).build().unwrap();
    publisher.connect(&front).unwrap();
    let subscriber: SubSocket = sub_builder().receive_high_water_mark(MARK).build().unwrap();
    subscriber.subscribe("");
    subscriber.connect(&back).unwrap();
    assert_eq!(requests(&publisher, 1).await, ["+"]);
    // Until nothing goes on anywhere.
    let mut sent = 0;
    while let Ok(sending) = tokio::time::timeout(Duration::from_millis(300), publisher.send(padded(sent, SIZE))).await {
        sending.unwrap();
        sent += 1;
        assert!(sent < 10_000, "it is never held back");
    }
    assert!(sent as usize >= 2 * MARK, "{sent} are accepted");
    for number in 0..sent {
        assert_eq!(subscriber.next().await, padded(number, SIZE));
    }
    publisher.say("end").await;
    assert_eq!(subscriber.next().await, "end".into());
}
