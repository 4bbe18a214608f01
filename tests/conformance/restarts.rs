//! Peers that go and come back, and what becomes of their messages.

use std::collections::HashSet;
use std::time::Duration;

use sinew::{DisconnectReason, Event};

use crate::common::raw::{READY_PULL, RawListener};
use crate::common::*;

crate::behaviours! {
    a_server_that_restarts_is_found_again,
    a_client_that_restarts_is_served_again,
    the_last_peer_gone_and_back_gets_what_was_queued,
    messages_of_a_lost_peer_return_to_the_head_in_order,
    messages_of_a_lost_peer_go_to_a_peer_that_is_there_already,
    received_messages_outlive_their_peer,
    messages_that_found_no_room_outlive_their_peer,
    received_messages_outlive_unbind,
}

async fn a_server_that_restarts_is_found_again(place: Place) {
    const ROUNDS: u64 = 5;
    let endpoint = place.fresh();
    let push = new_push();
    push.connect(&endpoint).unwrap();
    for round in 0..ROUNDS {
        let pull = new_pull();
        within(pull.bind(&endpoint)).await.unwrap();
        let mut monitor = push.monitor();
        within(push.wait_connected(1)).await.unwrap();
        within(push.send(numbered(round))).await.unwrap();
        assert_eq!(number(&within(pull.recv()).await.unwrap()), round);
        within(pull.close()).await.unwrap();
        wait_disconnected(&mut monitor).await;
    }
}

async fn a_client_that_restarts_is_served_again(place: Place) {
    const ROUNDS: u64 = 5;
    let pull = new_pull();
    let endpoint = within(pull.bind(place.wildcard())).await.unwrap();
    for round in 0..ROUNDS {
        let mut monitor = pull.monitor();
        let push = new_push();
        push.connect(&endpoint).unwrap();
        within(push.send(numbered(round))).await.unwrap();
        assert_eq!(number(&within(pull.recv()).await.unwrap()), round);
        drop(push);
        wait_disconnected(&mut monitor).await;
        assert_eq!(pull.stats().peers, 0);
    }
}

async fn the_last_peer_gone_and_back_gets_what_was_queued(place: Place) {
    let push = new_push();
    let endpoint = within(push.bind(place.wildcard())).await.unwrap();
    let mut monitor = push.monitor();
    let first = new_pull();
    first.connect(&endpoint).unwrap();
    send_numbers(&push, 0..1).await;
    assert_eq!(recv_numbers(&first, 1).await, [0]);
    within(first.close()).await.unwrap();
    wait_disconnected(&mut monitor).await;

    send_numbers(&push, 1..101).await;
    assert_eq!((push.stats().peers, push.stats().outbound_messages), (0, 100));
    let second = new_pull();
    second.connect(&endpoint).unwrap();
    assert_eq!(recv_numbers(&second, 100).await, (1..101).collect::<Vec<_>>());
}

/// A size of which the kernel takes few and the FIFO has some; large enough to be chained.
const LARGE: usize = 32 * 1024;
const MESSAGES: u64 = 900;

async fn messages_of_a_lost_peer_return_to_the_head_in_order(place: Place) {
    let (listener, endpoint) = RawListener::bind(&place);
    let push = new_push();
    let mut monitor = push.monitor();
    push.connect(&endpoint).unwrap();
    let mut lost = listener.accept().await;
    lost.shake_hands(READY_PULL).await;
    for number in 0..MESSAGES {
        // Small and large ones, so that a returned batch is cut inside of either.
        within(push.send(padded(number, if number % 3 == 0 { 100 } else { LARGE }))).await.unwrap();
    }
    settled(|| push.stats().messages_sent).await;
    // The peer is lost with everything that it was sent, and one message that it had only in part.
    drop((lost, listener));
    let returned = wait_disconnected(&mut monitor).await as u64;
    let stats = push.stats();
    let sent = stats.messages_sent;
    assert!(0 < sent && sent < MESSAGES && returned > 0, "{sent} sent, {returned} returned");
    assert_eq!((stats.messages_returned, stats.outbound_messages as u64), (returned, MESSAGES - sent));

    let pull = new_pull();
    push.connect(within(pull.bind(place.wildcard())).await.unwrap()).unwrap();
    for expected in sent..MESSAGES {
        let message = within(pull.recv()).await.unwrap();
        assert_eq!(message, padded(expected, if expected % 3 == 0 { 100 } else { LARGE }));
    }
}

async fn messages_of_a_lost_peer_go_to_a_peer_that_is_there_already(place: Place) {
    let (listener, endpoint) = RawListener::bind(&place);
    let (push, pull) = (new_push(), new_pull());
    push.connect(&endpoint).unwrap();
    push.connect(within(pull.bind(place.wildcard())).await.unwrap()).unwrap();
    let mut lost = listener.accept().await;
    lost.shake_hands(READY_PULL).await;
    within(push.wait_connected(2)).await.unwrap();

    let sending = tokio::spawn({
        let push = push.clone();
        async move {
            for number in 0..MESSAGES {
                push.send(padded(number, LARGE)).await.unwrap();
            }
        }
    });
    let mut seen = HashSet::new();
    while seen.len() < MESSAGES as usize / 2 {
        assert!(seen.insert(number(&within(pull.recv()).await.unwrap())), "received twice");
    }
    settled(|| push.stats().messages_sent).await;
    let mut monitor = push.monitor();
    drop((lost, listener));
    wait_disconnected(&mut monitor).await;
    // All that were not wholly on their way to the lost peer arrive: those sent after its end, and those it gave back.
    let mut at_pull = pull.monitor();
    let finish = tokio::spawn(async move {
        within(sending).await.unwrap();
        within(push.close()).await.unwrap()
    });
    let mut end = std::pin::pin!(wait_disconnected(&mut at_pull));
    loop {
        tokio::select! {
            message = within(pull.recv()) => assert!(seen.insert(number(&message.unwrap())), "received twice"),
            _ = &mut end => break,
        }
    }
    while let Ok(message) = pull.try_recv() {
        assert!(seen.insert(number(&message)), "received twice");
    }
    assert_eq!(within(finish).await.unwrap().unsent, 0);
    let missing = MESSAGES - seen.len() as u64;
    assert!((1..MESSAGES / 2).contains(&missing), "{missing} were lost with the kernel's buffers");
}

async fn received_messages_outlive_their_peer(place: Place) {
    let (push, pull) = pair(&place).await;
    let mut monitor = pull.monitor();
    send_numbers(&push, 0..100).await;
    within(push.close()).await.unwrap();
    wait_disconnected(&mut monitor).await;
    assert_eq!((pull.stats().peers, pull.stats().inbound_messages), (0, 100));
    assert_eq!(recv_numbers(&pull, 100).await, (0..100).collect::<Vec<_>>());
}

async fn messages_that_found_no_room_outlive_their_peer(place: Place) {
    const MESSAGES: u64 = 1_000;
    let pull = pull_builder().receive_high_water_mark(3).build().unwrap();
    let (push, pull) = join(&place, new_push(), pull).await;
    let mut monitor = pull.monitor();
    send_numbers(&push, 0..MESSAGES).await;
    assert_eq!(within(push.close()).await.unwrap().unsent, 0);
    wait_disconnected(&mut monitor).await;
    assert_eq!(pull.stats().inbound_messages, 3);
    // Another peer takes the place of the one that is gone; the rest comes all the same.
    let next = new_push();
    next.connect(within(pull.bind(place.wildcard())).await.unwrap()).unwrap();
    send_numbers(&next, MESSAGES..MESSAGES + 10).await;
    let numbers = recv_numbers(&pull, MESSAGES as usize + 10).await;
    let (new, old): (Vec<_>, Vec<_>) = numbers.into_iter().partition(|number| *number >= MESSAGES);
    assert_eq!(old, (0..MESSAGES).collect::<Vec<_>>());
    assert_eq!(new, (MESSAGES..MESSAGES + 10).collect::<Vec<_>>());
}

async fn received_messages_outlive_unbind(place: Place) {
    let (push, pull) = (new_push(), new_pull());
    let endpoint = within(pull.bind(place.wildcard())).await.unwrap();
    push.connect(&endpoint).unwrap();
    send_numbers(&push, 0..100).await;
    eventually(|| pull.stats().inbound_messages == 100).await;
    let mut monitor = pull.monitor();
    within(pull.unbind(&endpoint)).await.unwrap();
    let reason = wait_for(&mut monitor, |event| match event {
        Event::Disconnected { reason, .. } => Some(reason),
        _ => None,
    });
    assert_eq!(reason.await, DisconnectReason::Local);
    assert_eq!(recv_numbers(&pull, 100).await, (0..100).collect::<Vec<_>>());
}

mod exactly {
    //! On one thread, where nothing runs while the test reads: what the kernel had taken can be seen to the last byte.

    use std::io::Read;
    use std::net::TcpListener;
    use std::os::unix::net::UnixListener;

    use super::*;
    use crate::common::raw::proper_greeting;

    #[tokio::test]
    async fn nothing_is_missing_between_what_was_written_and_what_returned_over_tcp() {
        let place = Place::new(Transport::Tcp);
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let endpoint = format!("tcp://{}", listener.local_addr().unwrap());
        let push = new_push();
        push.connect(endpoint).unwrap();
        listener.set_nonblocking(true).unwrap();
        let mut stream = None;
        eventually(|| {
            stream = listener.accept().ok();
            stream.is_some()
        })
        .await;
        let (stream, _) = stream.unwrap();
        stream.set_nonblocking(false).unwrap();
        stream.set_read_timeout(Some(QUIET)).unwrap();
        check(&place, push, stream, listener).await;
    }

    #[tokio::test]
    async fn nothing_is_missing_between_what_was_written_and_what_returned_over_ipc() {
        let place = Place::new(Transport::Ipc);
        let endpoint = place.fresh().to_string();
        let listener = UnixListener::bind(endpoint.strip_prefix("ipc://").unwrap()).unwrap();
        let push = new_push();
        push.connect(endpoint).unwrap();
        listener.set_nonblocking(true).unwrap();
        let mut stream = None;
        eventually(|| {
            stream = listener.accept().ok();
            stream.is_some()
        })
        .await;
        let (stream, _) = stream.unwrap();
        stream.set_nonblocking(false).unwrap();
        stream.set_read_timeout(Some(QUIET)).unwrap();
        check(&place, push, stream, listener).await;
    }

    /// Once nothing has come for so long, the kernel has nothing more.
    const QUIET: Duration = Duration::from_millis(300);

    async fn check(
        place: &Place,
        push: sinew::PushSocket,
        mut stream: impl Read + std::io::Write,
        listener: impl Sized,
    ) {
        stream.write_all(&[&proper_greeting()[..], READY_PULL].concat()).unwrap();
        let mut monitor = push.monitor();
        within(push.wait_connected(1)).await.unwrap();
        for number in 0..MESSAGES {
            within(push.send(padded(number, LARGE))).await.unwrap();
        }
        settled(|| push.stats().messages_sent).await;

        // From here to the end of the stream no task runs, so nothing more is written.
        let mut wire = Vec::new();
        let mut chunk = vec![0; 64 * 1024];
        while let Ok(count) = stream.read(&mut chunk) {
            wire.extend_from_slice(&chunk[..count]);
        }
        drop((stream, listener));

        let whole = whole_messages(&wire[64 + READY_PULL.len()..]);
        wait_disconnected(&mut monitor).await;
        assert_eq!(push.stats().messages_sent, whole);
        let pull = new_pull();
        push.connect(within(pull.bind(place.wildcard())).await.unwrap()).unwrap();
        assert_eq!(recv_numbers(&pull, (MESSAGES - whole) as usize).await, (whole..MESSAGES).collect::<Vec<_>>());
    }

    /// How many whole messages of [`LARGE`] bytes, numbered from 0, are in these bytes.
    fn whole_messages(mut wire: &[u8]) -> u64 {
        let mut count = 0;
        loop {
            let digits = count.to_string();
            let length = 2 + digits.len() + 9 + LARGE - digits.len();
            let Some((message, rest)) = wire.split_at_checked(length) else {
                return count;
            };
            assert_eq!(&message[2..2 + digits.len()], digits.as_bytes());
            (wire, count) = (rest, count + 1);
        }
    }
}
