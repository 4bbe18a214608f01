//! Cancellation: whatever is dropped at whatever moment loses nothing, sends nothing twice, and wakes the others.

use std::collections::HashSet;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::task::{Context, Poll, Wake, Waker};
use std::time::Duration;

use futures::{SinkExt, StreamExt, poll};
use sinew::{Message, PullSocket, PushSocket};
use tokio::task::JoinSet;

use crate::common::*;

crate::behaviours! {
    a_send_dropped_while_it_waits_has_not_sent,
    a_send_dropped_after_its_turn_came_passes_the_turn_on,
    a_send_polled_any_number_of_times_and_dropped_sends_once_or_not_at_all,
    a_recv_dropped_while_it_waits_loses_nothing,
    a_recv_dropped_after_its_turn_came_passes_the_turn_on,
    a_recv_polled_any_number_of_times_and_dropped_loses_nothing,
    a_dropped_sink_passes_its_turn_on,
    a_stream_that_nobody_polls_keeps_nobody_from_messages,
    a_sink_that_nobody_polls_keeps_nobody_from_sending,
    a_bind_polled_any_number_of_times_and_dropped_listens_or_does_not,
    waiting_for_peers_may_be_dropped,
    sends_and_recvs_cancelled_at_random_deliver_exactly_what_was_sent,
    order_holds_when_sends_and_recvs_are_cancelled_at_random,
}

/// A waker that remembers whether it was called.
#[derive(Default)]
struct Flag(AtomicBool);

impl Wake for Flag {
    fn wake(self: Arc<Self>) {
        self.0.store(true, Ordering::SeqCst);
    }
}

impl Flag {
    fn is_up(&self) -> bool {
        self.0.load(Ordering::SeqCst)
    }
}

/// Polls once, by hand; the flag goes up when the future is woken.
fn poll_once<F: Future + ?Sized>(future: Pin<&mut F>) -> (Poll<F::Output>, Arc<Flag>) {
    let flag = Arc::new(Flag::default());
    let waker = Waker::from(flag.clone());
    (future.poll(&mut Context::from_waker(&waker)), flag)
}

/// A bound PUSH without a peer and with one place in its queue, which is taken; and where it listens.
async fn full_push(place: &Place) -> (PushSocket, sinew::Endpoint) {
    let push = push_builder().send_high_water_mark(1).build().unwrap();
    let endpoint = within(push.bind(place.wildcard())).await.unwrap();
    push.try_send(numbered(0)).unwrap();
    (push, endpoint)
}

async fn a_send_dropped_while_it_waits_has_not_sent(place: Place) {
    let (push, endpoint) = full_push(&place).await;
    let mut dropped = Box::pin(push.send(numbered(1)));
    let mut kept = Box::pin(push.send(numbered(2)));
    assert!(poll!(&mut dropped).is_pending());
    assert!(poll!(&mut kept).is_pending());
    drop(dropped);
    let pull = new_pull();
    pull.connect(&endpoint).unwrap();
    within(kept).await.unwrap();
    send_numbers(&push, 3..4).await;
    assert_eq!(recv_numbers(&pull, 3).await, [0, 2, 3]);
}

async fn a_send_dropped_after_its_turn_came_passes_the_turn_on(place: Place) {
    let (push, endpoint) = full_push(&place).await;
    let mut first = Box::pin(push.send(numbered(1)));
    let (polled, first_flag) = poll_once(first.as_mut());
    assert!(polled.is_pending());
    let second = tokio::spawn({
        let push = push.clone();
        async move { push.send(numbered(2)).await }
    });
    let pull = new_pull();
    pull.connect(&endpoint).unwrap();
    eventually(|| first_flag.is_up()).await;
    drop(first);
    within(second).await.unwrap().unwrap();
    assert_eq!(recv_numbers(&pull, 2).await, [0, 2]);
}

async fn a_send_polled_any_number_of_times_and_dropped_sends_once_or_not_at_all(place: Place) {
    for polls in 0..20 {
        let (push, endpoint) = full_push(&place).await;
        let pull = new_pull();
        pull.connect(&endpoint).unwrap();
        let mut send = Box::pin(push.send(numbered(1)));
        let mut sent = false;
        for _ in 0..polls {
            if let Poll::Ready(result) = poll_once(send.as_mut()).0 {
                result.unwrap();
                sent = true;
                break;
            }
            tokio::task::yield_now().await;
        }
        drop(send);
        send_numbers(&push, 2..3).await;
        let expected = if sent { vec![0, 1, 2] } else { vec![0, 2] };
        assert_eq!(recv_numbers(&pull, expected.len()).await, expected, "after {polls} polls");
    }
}

async fn a_recv_dropped_while_it_waits_loses_nothing(place: Place) {
    let (push, pull) = pair(&place).await;
    let mut dropped = Box::pin(pull.recv());
    let mut kept = Box::pin(pull.recv());
    assert!(poll!(&mut dropped).is_pending());
    assert!(poll!(&mut kept).is_pending());
    drop(dropped);
    send_numbers(&push, 0..2).await;
    assert_eq!(number(&within(kept).await.unwrap()), 0);
    assert_eq!(recv_numbers(&pull, 1).await, [1]);
}

async fn a_recv_dropped_after_its_turn_came_passes_the_turn_on(place: Place) {
    let (push, pull) = pair(&place).await;
    let mut many = Vec::new();
    let mut first = Box::pin(pull.recv());
    let mut second = Box::pin(pull.recv_many(&mut many, 10));
    let (_, first_flag) = poll_once(first.as_mut());
    let (_, second_flag) = poll_once(second.as_mut());
    let mut third = Box::pin(pull.recv());
    assert!(poll!(&mut third).is_pending());
    send_numbers(&push, 0..1).await;
    eventually(|| first_flag.is_up()).await;
    drop(first);
    eventually(|| second_flag.is_up()).await;
    drop(second);
    assert_eq!(number(&within(third).await.unwrap()), 0);
    assert!(many.is_empty());
}

async fn a_recv_polled_any_number_of_times_and_dropped_loses_nothing(place: Place) {
    const MESSAGES: u64 = 200;
    let (push, pull) = pair(&place).await;
    let sending = tokio::spawn(async move {
        for number in 0..MESSAGES {
            send_numbers(&push, [number]).await;
            tokio::task::yield_now().await;
        }
        push
    });
    let mut seen = Vec::new();
    let mut round = 0;
    let receiving = async {
        while seen.len() < MESSAGES as usize {
            round += 1;
            let mut many = Vec::new();
            {
                let mut recv = Box::pin(pull.recv());
                let mut recv_many = Box::pin(pull.recv_many(&mut many, 3));
                for _ in 0..round % 5 {
                    if let Poll::Ready(message) = poll_once(recv.as_mut()).0 {
                        seen.push(number(&message.unwrap()));
                        break;
                    }
                    if let Poll::Ready(count) = poll_once(recv_many.as_mut()).0 {
                        assert!((1..=3).contains(&count.unwrap()));
                        break;
                    }
                    tokio::task::yield_now().await;
                }
            }
            seen.extend(many.iter().map(number));
            tokio::task::yield_now().await;
        }
    };
    within(receiving).await;
    assert_eq!(seen, (0..MESSAGES).collect::<Vec<_>>());
    within(sending).await.unwrap();
}

async fn a_dropped_sink_passes_its_turn_on(place: Place) {
    let (push, endpoint) = full_push(&place).await;
    let mut sink = push.sink();
    let (polled, flag) = poll_once(Pin::new(&mut sink.feed(numbered(1))));
    assert!(polled.is_pending(), "the queue is full");
    let other = tokio::spawn({
        let push = push.clone();
        async move { push.send(numbered(2)).await }
    });
    let pull = new_pull();
    pull.connect(&endpoint).unwrap();
    eventually(|| flag.is_up()).await;
    drop(sink);
    within(other).await.unwrap().unwrap();
    assert_eq!(recv_numbers(&pull, 2).await, [0, 2]);
}

async fn a_stream_that_nobody_polls_keeps_nobody_from_messages(place: Place) {
    let (push, pull) = pair(&place).await;
    // A `select` that another branch won: the stream is kept for later, and not polled meanwhile.
    let mut stream = pull.stream();
    assert!(poll!(stream.next()).is_pending());
    let mut other = Box::pin(pull.recv());
    assert!(poll!(&mut other).is_pending());
    send_numbers(&push, 0..1).await;
    assert_eq!(number(&within(other).await.unwrap()), 0);

    send_numbers(&push, 1..2).await;
    assert_eq!(number(&within(stream.next()).await.unwrap()), 1);
}

async fn a_sink_that_nobody_polls_keeps_nobody_from_sending(place: Place) {
    let (push, endpoint) = full_push(&place).await;
    let mut sink = push.sink();
    assert!(poll!(sink.feed(numbered(1))).is_pending(), "the queue is full");
    let mut other = Box::pin(push.send(numbered(2)));
    assert!(poll!(&mut other).is_pending());
    let pull = new_pull();
    pull.connect(&endpoint).unwrap();
    within(other).await.unwrap();
    within(sink.send(numbered(1))).await.unwrap();
    let mut numbers = recv_numbers(&pull, 3).await;
    numbers.sort_unstable();
    assert_eq!(numbers, [0, 1, 2]);
}

async fn a_bind_polled_any_number_of_times_and_dropped_listens_or_does_not(place: Place) {
    for polls in 0..10 {
        let pull = new_pull();
        let endpoint = place.fresh();
        let mut bound = false;
        {
            let mut bind = Box::pin(pull.bind(&endpoint));
            for _ in 0..polls {
                if poll_once(bind.as_mut()).0.is_ready() {
                    bound = true;
                    break;
                }
                tokio::task::yield_now().await;
            }
        }
        // Whichever it was, the socket and the address are usable.
        if bound {
            let mut unbind = Box::pin(pull.unbind(&endpoint));
            let _ = poll_once(unbind.as_mut());
            drop(unbind);
            within(pull.close()).await.unwrap();
            let next = new_pull();
            // Whoever does not wait for `unbind` may find the address taken for a moment.
            within(async {
                while next.bind(&endpoint).await.is_err() {
                    tokio::task::yield_now().await;
                }
            })
            .await;
        } else {
            within(pull.bind(&endpoint)).await.unwrap();
        }
    }
}

async fn waiting_for_peers_may_be_dropped(place: Place) {
    let (push, pull) = (new_push(), new_pull());
    let mut dropped = Box::pin(pull.wait_connected(1));
    let mut kept = Box::pin(pull.wait_connected(1));
    assert!(poll!(&mut dropped).is_pending());
    assert!(poll!(&mut kept).is_pending());
    drop(dropped);
    push.connect(within(pull.bind(place.wildcard())).await.unwrap()).unwrap();
    within(kept).await.unwrap();
}

/// A short time, often none.
fn moment(random: &mut fastrand::Rng) -> Duration {
    Duration::from_micros(random.u64(..8) * random.u64(..300))
}

/// Sends messages `0..count` of `sender` under random time limits; gives the ones of which `send` said that they were sent.
async fn send_under_time_limits(push: PushSocket, sender: u64, count: u64) -> Vec<(u64, u64)> {
    let mut random = fastrand::Rng::with_seed(sender);
    let mut sent = Vec::new();
    for number in 0..count {
        let message = [sender.to_string(), number.to_string()];
        if let Ok(result) = tokio::time::timeout(moment(&mut random), push.send(message)).await {
            result.unwrap();
            sent.push((sender, number));
        }
        if random.u8(..10) == 0 {
            tokio::task::yield_now().await;
        }
    }
    sent
}

/// Receives in different ways under random time limits until the socket is closed.
async fn recv_under_time_limits(pull: PullSocket, seed: u64, count: Arc<AtomicUsize>) -> Vec<(u64, u64)> {
    let mut random = fastrand::Rng::with_seed(seed);
    let mut received: Vec<Message> = Vec::new();
    loop {
        let before = received.len();
        let limit = moment(&mut random);
        match random.u8(..3) {
            0 => match tokio::time::timeout(limit, pull.recv()).await {
                Ok(Ok(message)) => received.push(message),
                Ok(Err(_)) => break,
                Err(_) => {}
            },
            1 => {
                if let Ok(Err(_)) = tokio::time::timeout(limit, pull.recv_many(&mut received, 5)).await {
                    break;
                }
            }
            _ => match tokio::time::timeout(limit, pull.stream().next()).await {
                Ok(Some(message)) => received.push(message),
                Ok(None) => break,
                Err(_) => {}
            },
        }
        count.fetch_add(received.len() - before, Ordering::SeqCst);
    }
    let text = |body: &[u8]| std::str::from_utf8(body).unwrap().parse().unwrap();
    received.iter().map(|message| (text(&message[0]), text(&message[1]))).collect()
}

/// Runs senders and receivers; gives what was sent, in each sender's order, and what each receiver got.
async fn cancel_at_random(place: &Place, senders: u64, receivers: u64) -> (Vec<(u64, u64)>, Vec<Vec<(u64, u64)>>) {
    const EACH: u64 = 300;
    let push = push_builder().send_high_water_mark(4).kernel_send_buffer(4_096).build().unwrap();
    let pull = pull_builder().receive_high_water_mark(4).build().unwrap();
    let (push, pull) = join(place, push, pull).await;
    let received = Arc::new(AtomicUsize::new(0));
    let mut receiving = JoinSet::new();
    for receiver in 0..receivers {
        receiving.spawn(recv_under_time_limits(pull.clone(), 1_000 + receiver, received.clone()));
    }
    let mut sending = JoinSet::new();
    for sender in 0..senders {
        sending.spawn(send_under_time_limits(push.clone(), sender, EACH));
    }
    let sent = within(sending.join_all()).await.concat();
    let mut monitor = pull.monitor();
    assert_eq!(within(push.close()).await.unwrap().unsent, 0);
    wait_disconnected(&mut monitor).await;
    eventually(|| received.load(Ordering::SeqCst) >= sent.len()).await;
    within(pull.close()).await.unwrap();
    (sent, within(receiving.join_all()).await)
}

async fn sends_and_recvs_cancelled_at_random_deliver_exactly_what_was_sent(place: Place) {
    let (sent, received) = cancel_at_random(&place, 20, 4).await;
    let received = received.concat();
    let unique: HashSet<_> = received.iter().copied().collect();
    assert_eq!(unique.len(), received.len(), "a message was received twice");
    assert_eq!(unique, sent.into_iter().collect::<HashSet<_>>());
}

async fn order_holds_when_sends_and_recvs_are_cancelled_at_random(place: Place) {
    let (sent, received) = cancel_at_random(&place, 5, 1).await;
    for sender in 0..5 {
        let of = |list: &[(u64, u64)]| list.iter().copied().filter(|(from, _)| *from == sender).collect::<Vec<_>>();
        assert_eq!(of(&received[0]), of(&sent));
    }
}
