//! What rzmq 0.5.28 is known for: streams corrupted under back-pressure, messages and wake-ups that are lost.

use std::time::Duration;

use futures::poll;
use tokio::task::JoinSet;

use super::stand::*;
use crate::common::raw::*;
use crate::common::*;

crate::common::over_each_transport! {
    a_ping_never_stands_between_a_header_and_its_body_under_back_pressure,
    a_storm_of_connections_kills_no_socket,
    a_message_that_waits_for_the_one_peer_survives_its_departure,
    pings_tell_the_time_to_live_in_tenths_of_a_second,
}

// rzmq: PING and PONG are put at chunk 0 or 1 of what is to be written, which under back-pressure may be the middle of a frame.
//
// The reader is always slower than the writer, so that there is a frame in the making whenever a PING or PONG is due; and they must
// come all the same.
async fn a_ping_never_stands_between_a_header_and_its_body_under_back_pressure(place: Place) {
    const MESSAGES: u64 = 150;
    /// A fast machine needs more messages than a slow one for the same time.
    const AT_MOST: u64 = 20_000;
    const LENGTH: usize = 20_000;
    let builder = push_builder().heartbeat_interval(Duration::from_millis(3)).heartbeat_timeout(PATIENCE);
    let push = builder.kernel_send_buffer(4_096).send_high_water_mark(20).build().unwrap();
    let endpoint = within(push.bind(place.wildcard())).await.unwrap();
    let mut slow = Raw::peer(&endpoint, READY_PULL).await;
    let sending = tokio::spawn({
        let push = push.clone();
        async move {
            for number in 0..AT_MOST {
                push.send(triple(number, LENGTH)).await.unwrap();
            }
        }
    });
    let (mut messages, mut pings, mut pongs) = (0, 0, 0);
    let mut frames = Vec::new();
    while messages < MESSAGES || pings < 3 || pongs < 3 {
        assert!(messages < AT_MOST - 10, "only {pings} PINGs and {pongs} PONGs in {messages} messages");
        let frame = slow.frame().await.expect("the stream makes sense");
        if frame.is_command() {
            assert!(frames.is_empty(), "a command within a message");
            match frame.body.get(..5) {
                Some(b"\x04PING") => pings += 1,
                Some(b"\x04PONG") => pongs += 1,
                _ => panic!("{:?}", frame.body),
            }
            continue;
        }
        let more = frame.more();
        frames.push(frame.body);
        if !more {
            assert_eq!(whole_number(&frames, LENGTH), messages);
            frames.clear();
            messages += 1;
            slow.send(&ping(b"?")).await;
        }
    }
    sending.abort();
}

// rzmq: what its parts tell each other goes through a broadcast channel; in a storm of connections some lag behind, and their
// sockets end.
async fn a_storm_of_connections_kills_no_socket(place: Place) {
    const SOCKETS: u64 = 50;
    const STRANGERS: usize = 300;
    if !may_open(2_000) {
        return;
    }
    let pull = new_pull();
    let _unread = pull.monitor();
    let endpoint = within(pull.bind(place.wildcard())).await.unwrap();
    let early = new_push();
    early.connect(&endpoint).unwrap();
    within(pull.wait_connected(1)).await.unwrap();
    let mut storm = JoinSet::new();
    for stranger in 0..STRANGERS {
        let endpoint = endpoint.clone();
        storm.spawn(async move {
            let mut raw = Raw::dial(&endpoint).await;
            if stranger % 2 == 0 {
                raw.shake_hands(READY_PUSH).await;
            }
        });
    }
    let pushes: Vec<_> = (0..SOCKETS).map(|_| new_push()).collect();
    for (push, number) in pushes.iter().zip(1..) {
        push.connect(&endpoint).unwrap();
        push.try_send(numbered(number)).unwrap();
    }
    within(early.send(numbered(0))).await.unwrap();
    within(storm.join_all()).await;
    let mut numbers = recv_numbers(&pull, SOCKETS as usize + 1).await;
    numbers.sort_unstable();
    assert_eq!(numbers, (0..=SOCKETS).collect::<Vec<_>>());
    eventually(|| pull.stats().peers == SOCKETS as usize + 1).await;
}

// rzmq: a message whose `send` waits for room at the only peer is lost when that peer goes away.
async fn a_message_that_waits_for_the_one_peer_survives_its_departure(place: Place) {
    const LENGTH: usize = 50_000;
    let push = push_builder().kernel_send_buffer(4_096).send_high_water_mark(1).build().unwrap();
    let endpoint = within(push.bind(place.wildcard())).await.unwrap();
    let mut only = Raw::peer(&endpoint, READY_PULL).await;
    within(push.wait_connected(1)).await.unwrap();
    let mut queued = 0;
    let waiting = loop {
        let mut send = Box::pin(push.send(padded(queued, LENGTH)));
        let sent = tokio::time::timeout(Duration::from_millis(300), &mut send).await;
        if sent.is_err() {
            break send;
        }
        queued += 1;
        assert!(queued < 1_000, "the peer takes everything");
    };
    // It leaves in the middle of a message.
    only.read(LENGTH / 2).await;
    drop(only);
    let heir = new_pull();
    heir.connect(&endpoint).unwrap();
    let mut waiting = waiting;
    let sending = async {
        within(&mut waiting).await.unwrap();
        within(push.send("end")).await.unwrap();
    };
    let receiving = async {
        let mut numbers = Vec::new();
        loop {
            let message = within(heir.recv()).await.unwrap();
            if message == "end".into() {
                return numbers;
            }
            numbers.push(number(&message));
        }
    };
    let ((), numbers) = tokio::join!(sending, receiving);
    // The kernel may have taken some; from the first one that it had not, all are there, with the one that waited.
    assert_eq!(numbers.last(), Some(&queued));
    let first = numbers[0];
    assert_eq!(numbers, (first..=queued).collect::<Vec<_>>());
    assert_eq!(first, push.stats().messages_sent - (numbers.len() as u64 + 1), "more is missing than was sent");
}

// rzmq: a waiter looks first and registers afterwards (`notified()`), so that a wake-up in between is lost. (The interleavings
// themselves are gone through one by one by the models of the queues.)
//
// With marks of 1 every message is waited for on both sides; one lost wake-up and it hangs.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_wake_up_is_lost_between_looking_and_waiting() {
    const SENDERS: u64 = 4;
    const EACH: u64 = 1_000;
    for transport in [Transport::Tcp, Transport::Ipc] {
        let place = Place::new(transport);
        let push = push_builder().send_high_water_mark(1).build().unwrap();
        let pull = pull_builder().receive_high_water_mark(1).build().unwrap();
        let (push, pull) = join(&place, push, pull).await;
        let mut sending = JoinSet::new();
        let mut receiving = JoinSet::new();
        for sender in 0..SENDERS {
            let (push, pull) = (push.clone(), pull.clone());
            sending.spawn(async move { send_numbers(&push, sender * EACH..(sender + 1) * EACH).await });
            receiving.spawn(async move { recv_numbers(&pull, EACH as usize).await });
        }
        within(sending.join_all()).await;
        let mut numbers = within(receiving.join_all()).await.concat();
        numbers.sort_unstable();
        assert_eq!(numbers, (0..SENDERS * EACH).collect::<Vec<_>>());
        // Also for one who begins to wait when there is nothing.
        let mut waiting = Box::pin(pull.recv());
        assert!(poll!(&mut waiting).is_pending());
        within(push.send("last")).await.unwrap();
        assert_eq!(within(waiting).await.unwrap(), "last".into());
    }
}

// rzmq: PING tells the time to live in milliseconds, which the peer takes for a hundred times as long.
async fn pings_tell_the_time_to_live_in_tenths_of_a_second(place: Place) {
    let builder = push_builder().heartbeat_interval(Duration::from_millis(10)).heartbeat_timeout(PATIENCE);
    let push = builder.heartbeat_ttl(Duration::from_secs(2)).build().unwrap();
    let endpoint = within(push.bind(place.wildcard())).await.unwrap();
    let mut raw = Raw::peer(&endpoint, READY_PULL).await;
    let ping = raw.frame().await.unwrap().body;
    assert_eq!(ping[..7], [b"\x04PING", &20_u16.to_be_bytes()[..]].concat());
}
