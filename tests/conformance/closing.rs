//! Close and linger: what is still delivered, what is counted, and that it always ends.

use std::time::{Duration, Instant};

use futures::{StreamExt, poll};
use sinew::{
    BindError, ConnectError, DetachError, Message, PushSocket, RecvError, SendError, TryRecvError, TrySendError,
    WaitError,
};

use crate::common::raw::{READY_PULL, Raw, ping};
use crate::common::*;

crate::behaviours! {
    without_linger_what_no_peer_can_take_is_discarded_at_once_and_counted,
    close_waits_for_a_peer_no_longer_than_linger,
    close_waits_for_a_peer_that_does_not_read_no_longer_than_linger,
    close_delivers_to_a_peer_that_appears_while_it_lingers,
    close_delivers_everything_to_a_peer_that_reads,
    close_with_nothing_to_deliver_does_not_linger,
    close_counts_every_message_once,
    dropping_the_last_handle_delivers_in_the_background,
    dropping_the_last_handle_waits_for_a_peer,
    a_handle_that_is_left_keeps_the_socket_open,
    a_closed_socket_refuses_everything_and_gives_messages_back,
    close_is_idempotent,
    close_wakes_sends_that_wait,
    close_wakes_receivers_that_wait,
    a_close_that_is_dropped_closes_all_the_same,
    close_counts_what_was_never_received,
    bytes_that_come_at_the_last_moment_cost_no_message_that_was_sent,
}

fn lingering(linger: Duration) -> PushSocket {
    push_builder().linger(linger).build().unwrap()
}

const SHORT: Duration = Duration::from_millis(200);
const LONG: Duration = Duration::from_secs(3_600);

async fn without_linger_what_no_peer_can_take_is_discarded_at_once_and_counted(place: Place) {
    let push = lingering(Duration::ZERO);
    push.connect(place.fresh()).unwrap();
    send_numbers(&push, 0..10).await;
    let start = Instant::now();
    let closed = within(push.close()).await.unwrap();
    assert_eq!((closed.flushed, closed.unsent), (0, 10));
    assert!(start.elapsed() < TOLERANCE);
}

async fn close_waits_for_a_peer_no_longer_than_linger(place: Place) {
    let push = lingering(SHORT);
    push.connect(place.fresh()).unwrap();
    send_numbers(&push, 0..10).await;
    let start = Instant::now();
    let closed = within(push.close()).await.unwrap();
    assert_eq!((closed.flushed, closed.unsent), (0, 10));
    assert!((SHORT..SHORT + TOLERANCE).contains(&start.elapsed()), "{:?}", start.elapsed());
}

async fn close_waits_for_a_peer_that_does_not_read_no_longer_than_linger(place: Place) {
    for linger in [Duration::ZERO, SHORT] {
        let push = lingering(linger);
        let endpoint = within(push.bind(place.wildcard())).await.unwrap();
        let mut lazy = Raw::peer(&endpoint, READY_PULL).await;
        for number in 0..500 {
            within(push.send(padded(number, 64 * 1024))).await.unwrap();
        }
        let sent = settled(|| push.stats().messages_sent).await;
        assert!(sent < 500);
        let start = Instant::now();
        let closed = within(push.close()).await.unwrap();
        assert!((linger..linger + TOLERANCE).contains(&start.elapsed()), "{:?}", start.elapsed());
        // The kernel may take a little more before the close, late though it is.
        assert_eq!(push.stats().messages_sent + closed.unsent, 500);
        assert!(closed.unsent > 0 && closed.flushed <= 500 - sent - closed.unsent);
        lazy.end().await;
    }
}

async fn close_delivers_to_a_peer_that_appears_while_it_lingers(place: Place) {
    let endpoint = place.fresh();
    let push = lingering(LONG);
    push.connect(&endpoint).unwrap();
    send_numbers(&push, 0..100).await;
    let mut close = Box::pin(push.close());
    assert!(poll!(&mut close).is_pending());
    let pull = new_pull();
    within(pull.bind(&endpoint)).await.unwrap();
    let closed = within(close).await.unwrap();
    assert_eq!((closed.flushed, closed.unsent), (100, 0));
    assert_eq!(recv_numbers(&pull, 100).await, (0..100).collect::<Vec<_>>());
}

async fn close_delivers_everything_to_a_peer_that_reads(place: Place) {
    let push = push_builder().linger(LONG).send_high_water_mark(0).build().unwrap();
    let (push, pull) = join(&place, push, new_pull()).await;
    for number in 0..500 {
        within(push.send(padded(number, 50_000))).await.unwrap();
    }
    let sent = push.stats().messages_sent;
    let closing = tokio::spawn(async move { within(push.close()).await.unwrap() });
    for expected in 0..500 {
        assert_eq!(within(pull.recv()).await.unwrap(), padded(expected, 50_000));
    }
    let closed = within(closing).await.unwrap();
    assert_eq!(closed.unsent, 0);
    // Some may have been sent between the look and the close.
    assert!(closed.flushed <= 500 - sent);
}

async fn close_with_nothing_to_deliver_does_not_linger(place: Place) {
    let connected = lingering(LONG);
    connected.connect(place.fresh()).unwrap();
    let (push, pull) = join(&place, lingering(LONG), new_pull()).await;
    for push in [lingering(LONG), connected, push] {
        let closed = within(push.close()).await.unwrap();
        assert_eq!((closed.flushed, closed.unsent), (0, 0));
    }
    assert_eq!(within(pull.close()).await.unwrap().unread, 0);

    // Nor is there anything to wait for when messages have nowhere to go for ever.
    let unattached = lingering(LONG);
    unattached.try_send("x").unwrap();
    assert_eq!(within(unattached.close()).await.unwrap().unsent, 1);
    let detached = lingering(LONG);
    let endpoint = place.fresh();
    detached.connect(&endpoint).unwrap();
    detached.try_send("x").unwrap();
    detached.disconnect(&endpoint).unwrap();
    assert_eq!(within(detached.close()).await.unwrap().unsent, 1);
}

async fn close_counts_every_message_once(place: Place) {
    let (push, pull) = join(&place, lingering(LONG), new_pull()).await;
    send_numbers(&push, 0..1_000).await;
    let closed = within(push.close()).await.unwrap();
    let sent = push.stats().messages_sent;
    assert_eq!((closed.unsent, sent), (0, 1_000));
    assert!(closed.flushed <= 1_000);
    assert_eq!(recv_numbers(&pull, 1_000).await, (0..1_000).collect::<Vec<_>>());
}

async fn dropping_the_last_handle_delivers_in_the_background(place: Place) {
    let (push, pull) = join(&place, lingering(LONG), new_pull()).await;
    for number in 0..300 {
        within(push.send(padded(number, 50_000))).await.unwrap();
    }
    drop(push);
    for expected in 0..300 {
        assert_eq!(number(&within(pull.recv()).await.unwrap()), expected);
    }
    eventually(|| pull.stats().peers == 0).await;
}

async fn dropping_the_last_handle_waits_for_a_peer(place: Place) {
    let endpoint = place.fresh();
    let push = lingering(LONG);
    push.connect(&endpoint).unwrap();
    send_numbers(&push, 0..10).await;
    let mut monitor = push.monitor();
    drop(push);
    let pull = new_pull();
    within(pull.bind(&endpoint)).await.unwrap();
    assert_eq!(recv_numbers(&pull, 10).await, (0..10).collect::<Vec<_>>());
    within(async { while monitor.next().await.is_some() {} }).await;

    let impatient = lingering(SHORT);
    impatient.connect(place.fresh()).unwrap();
    impatient.try_send("never arrives").unwrap();
    let mut monitor = impatient.monitor();
    drop(impatient);
    // The monitor ends with the socket, which nobody holds any more.
    within(async { while monitor.next().await.is_some() {} }).await;
}

async fn a_handle_that_is_left_keeps_the_socket_open(place: Place) {
    let (push, pull) = pair(&place).await;
    let other = push.clone();
    drop(push);
    send_numbers(&other, 0..10).await;
    let other_pull = pull.clone();
    drop(pull);
    assert_eq!(recv_numbers(&other_pull, 10).await, (0..10).collect::<Vec<_>>());
}

async fn a_closed_socket_refuses_everything_and_gives_messages_back(place: Place) {
    let (push, pull) = pair(&place).await;
    within(push.close()).await.unwrap();
    within(pull.close()).await.unwrap();
    let message = padded(7, 1_000);
    assert_eq!(within(push.send(message.clone())).await, Err(SendError::Closed(message.clone())));
    assert_eq!(push.try_send(message.clone()), Err(TrySendError::Closed(message.clone())));
    let mut sink = push.sink();
    assert_eq!(within(futures::SinkExt::send(&mut sink, message.clone())).await, Err(SendError::Closed(message)));
    assert_eq!(within(pull.recv()).await, Err(RecvError::Closed));
    assert_eq!(pull.try_recv(), Err(TryRecvError::Closed));
    assert_eq!(within(pull.recv_many(&mut Vec::new(), 10)).await, Err(RecvError::Closed));
    assert_eq!(within(pull.stream().next()).await, None);
    assert_eq!(within(push.wait_connected(1)).await, Err(WaitError::Closed));
    assert!(matches!(within(push.bind(place.wildcard())).await, Err(BindError::Closed)));
    let endpoint = place.fresh();
    assert_eq!(push.connect(&endpoint), Err(ConnectError::Closed));
    assert_eq!(push.disconnect(&endpoint), Err(DetachError::Closed));
    assert_eq!(within(push.unbind(&endpoint)).await, Err(DetachError::Closed));
    assert_eq!(within(push.monitor().next()).await, None);
    assert_eq!((push.stats().peers, pull.stats().peers), (0, 0));
}

async fn close_is_idempotent(place: Place) {
    let push = lingering(SHORT);
    push.connect(place.fresh()).unwrap();
    send_numbers(&push, 0..5).await;
    let (first, second, third) = within(async { tokio::join!(push.close(), push.close(), push.close()) }).await;
    let later = within(push.close()).await;
    assert_eq!(first.unwrap().unsent, 5);
    assert!([second, third, later].iter().all(|closed| *closed == first));
}

async fn close_wakes_sends_that_wait(place: Place) {
    let push = push_builder().send_high_water_mark(1).linger(SHORT).build().unwrap();
    push.connect(place.fresh()).unwrap();
    push.try_send("first").unwrap();
    let waiting: Vec<_> = (0..10)
        .map(|number| {
            let push = push.clone();
            tokio::spawn(async move { push.send(numbered(number)).await })
        })
        .collect();
    let mut here = Box::pin(push.send("here"));
    assert!(poll!(&mut here).is_pending());
    tokio::task::yield_now().await;
    assert_eq!(within(push.close()).await.unwrap().unsent, 1);
    assert_eq!(within(here).await, Err(SendError::Closed("here".into())));
    for (number, send) in waiting.into_iter().enumerate() {
        assert_eq!(within(send).await.unwrap(), Err(SendError::Closed(numbered(number as u64))));
    }
}

async fn close_wakes_receivers_that_wait(place: Place) {
    let (_push, pull) = pair(&place).await;
    let waiting: Vec<_> = (0..10)
        .map(|_| {
            let pull = pull.clone();
            tokio::spawn(async move { pull.recv().await })
        })
        .collect();
    let mut many = Vec::new();
    let mut here = Box::pin(pull.recv_many(&mut many, 5));
    let mut stream = pull.stream();
    assert!(poll!(&mut here).is_pending());
    assert!(poll!(stream.next()).is_pending());
    tokio::task::yield_now().await;
    within(pull.close()).await.unwrap();
    assert_eq!(within(here).await, Err(RecvError::Closed));
    assert_eq!(within(stream.next()).await, None);
    for recv in waiting {
        assert_eq!(within(recv).await.unwrap(), Err(RecvError::Closed));
    }
}

async fn a_close_that_is_dropped_closes_all_the_same(place: Place) {
    let endpoint = place.fresh();
    let push = lingering(LONG);
    push.connect(&endpoint).unwrap();
    send_numbers(&push, 0..10).await;
    let mut close = Box::pin(push.close());
    assert!(poll!(&mut close).is_pending());
    drop(close);
    assert!(matches!(push.try_send("late"), Err(TrySendError::Closed(_))));
    let pull = new_pull();
    within(pull.bind(&endpoint)).await.unwrap();
    assert_eq!(within(push.close()).await.unwrap().flushed, 10);
    assert_eq!(recv_numbers(&pull, 10).await, (0..10).collect::<Vec<_>>());
}

async fn close_counts_what_was_never_received(place: Place) {
    // Some in the queue, some that found no room in it.
    let pull = pull_builder().receive_high_water_mark(10).build().unwrap();
    let (push, pull) = join(&place, new_push(), pull).await;
    send_numbers(&push, 0..100).await;
    eventually(|| pull.stats().messages_received == 100).await;
    assert_eq!(recv_numbers(&pull, 5).await, [0, 1, 2, 3, 4]);
    assert_eq!(within(pull.close()).await.unwrap().unread, 95);
}

async fn bytes_that_come_at_the_last_moment_cost_no_message_that_was_sent(place: Place) {
    const MESSAGES: u64 = 20;
    let push = lingering(LONG);
    let endpoint = within(push.bind(place.wildcard())).await.unwrap();
    let mut peer = Raw::peer(&endpoint, READY_PULL).await;
    within(push.wait_connected(1)).await.unwrap();
    for number in 0..MESSAGES {
        within(push.send(padded(number, 5_000))).await.unwrap();
    }
    eventually(|| push.stats().messages_sent == MESSAGES).await;
    // A connection that is closed with bytes unread is reset, and a reset discards what is still under way.
    peer.send(&ping(b"")).await;
    let closed = push.close();
    let reading = async move {
        let mut received = Vec::new();
        while let Some(message) = peer.message().await {
            let frames: Message = message.into_iter().collect();
            received.push(number(&frames));
        }
        // Closing waits for this.
        drop(peer);
        received
    };
    let (closed, received) = within(async { tokio::join!(closed, reading) }).await;
    assert_eq!(closed.unwrap().unsent, 0);
    assert_eq!(received, (0..MESSAGES).collect::<Vec<_>>());
}
