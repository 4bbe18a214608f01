//! Models of the queues: senders, receivers and the I/O task in every order in which they may meet. How to run: `sync.rs`.

use std::collections::VecDeque;
use std::future::{Future, poll_fn};
use std::sync::Arc;
use std::task::{Poll, Waker};

use bytes::Bytes;
use loom::future::block_on;
use loom::thread;

use crate::error::{RecvError, TryRecvError};
use crate::message::Message;
use crate::monitor::Peer;
use crate::options::HighWaterMark;
use crate::queue::inbound::Inbound;
use crate::queue::outbound::{Call, Outbound, Refused};
use crate::queue::waiters::Ticket;
use crate::sync::AtomicWaker;
use crate::sync::checked::model;
use crate::zmtp::encoder::{Batch, Position};
use crate::zmtp::run::Run;

/// The limit of most models: it is reached at once, and what is seldom seen takes one switch of threads too many, or two.
const PREEMPTIONS: usize = 3;

const ALL: HighWaterMark = HighWaterMark { messages: 0, bytes: 0 };

// --- outbound -------------------------------------------------------------------------------------------------------

/// A FIFO, and what its I/O task is woken by.
struct Sending {
    queue: Outbound,
    io: AtomicWaker,
}

fn sending(mark: usize, queued: &[u8]) -> Arc<Sending> {
    let queue = Outbound::new(HighWaterMark { messages: mark, bytes: 0 });
    for byte in queued {
        assert_eq!(queue.offer(&message(*byte)), Ok(Call::Nobody));
    }
    Arc::new(Sending { queue, io: AtomicWaker::new() })
}

fn message(byte: u8) -> Message {
    vec![byte].into()
}

/// The one-byte messages of a batch.
fn bodies(batch: &Batch) -> Vec<u8> {
    let first = batch.message_at(Position::default());
    let parts = std::iter::successors(first, |part| batch.message_at(part.end));
    parts.map(|part| batch.first_frame(part.start).0[0]).collect()
}

/// What the future of `send` does: its place among those who wait goes with it.
struct Place<'a> {
    queue: &'a Outbound,
    ticket: Option<Ticket>,
}

impl Drop for Place<'_> {
    fn drop(&mut self) {
        if let Some(ticket) = self.ticket.take() {
            self.queue.leave(ticket);
        }
    }
}

fn send(to: &Sending, byte: u8) -> Result<(), Refused> {
    let message = message(byte);
    let mut place = Place { queue: &to.queue, ticket: None };
    let call = block_on(poll_fn(|cx| to.queue.poll_offer(&message, &mut place.ticket, cx.waker())))?;
    if call == Call::Wake {
        to.io.wake();
    }
    Ok(())
}

/// The I/O task, with one peer that always has room, until it has routed so many messages.
fn route(from: &Sending, count: usize) -> Vec<u8> {
    let mut out = Vec::new();
    block_on(poll_fn(|cx| {
        from.io.register(cx.waker());
        while let Some(taken) = from.queue.take() {
            out.extend(bodies(&taken.batch));
            from.queue.settle(taken.messages, taken.payload, None);
        }
        if out.len() >= count {
            return Poll::Ready(());
        }
        if !from.queue.sleep(true) {
            cx.waker().wake_by_ref();
        }
        Poll::Pending
    }));
    out
}

#[test]
fn a_sender_at_the_mark_and_the_io_task_wake_each_other() {
    model(PREEMPTIONS, || {
        let sockets = sending(1, &[]);
        let sender = thread::spawn({
            let sockets = sockets.clone();
            move || (1..=3).for_each(|byte| send(&sockets, byte).unwrap())
        });
        assert_eq!(route(&sockets, 3), [1, 2, 3]);
        sender.join().unwrap();
        assert_eq!(sockets.queue.depth(), (0, 0));
    });
}

#[test]
fn two_senders_at_the_mark_both_get_their_turns() {
    model(PREEMPTIONS, || {
        let sockets = sending(1, &[0]);
        let senders = [1, 2].map(|byte| {
            let sockets = sockets.clone();
            thread::spawn(move || send(&sockets, byte).unwrap())
        });
        let order = route(&sockets, 3);
        for sender in senders {
            sender.join().unwrap();
        }
        assert!(order == [0, 1, 2] || order == [0, 2, 1], "{order:?}");
        assert_eq!(sockets.queue.depth(), (0, 0));
    });
}

#[test]
fn a_turn_given_to_a_sender_that_leaves_passes_on() {
    model(PREEMPTIONS, || {
        let sockets = sending(1, &[0]);
        let mut ticket = None;
        assert!(sockets.queue.poll_offer(&message(1), &mut ticket, Waker::noop()).is_pending());
        let leaver = thread::spawn({
            let sockets = sockets.clone();
            move || sockets.queue.leave(ticket.unwrap())
        });
        let sender = thread::spawn({
            let sockets = sockets.clone();
            move || send(&sockets, 2).unwrap()
        });
        assert_eq!(route(&sockets, 2), [0, 2]);
        sender.join().unwrap();
        leaver.join().unwrap();
    });
}

#[test]
fn a_send_that_is_cancelled_while_it_waits_is_sent_whole_or_not_at_all() {
    model(PREEMPTIONS, || {
        let sockets = sending(1, &[0]);
        let canceller = thread::spawn({
            let sockets = sockets.clone();
            // Polled twice by somebody who then loses interest.
            move || {
                let mut place = Place { queue: &sockets.queue, ticket: None };
                let mut poll = || sockets.queue.poll_offer(&message(1), &mut place.ticket, Waker::noop());
                let result = match poll() {
                    Poll::Pending => poll(),
                    ready => ready,
                };
                if let Poll::Ready(Ok(Call::Wake)) = result {
                    sockets.io.wake();
                }
                result.is_ready()
            }
        });
        let sender = thread::spawn({
            let sockets = sockets.clone();
            move || send(&sockets, 2).unwrap()
        });
        let mut routed = route(&sockets, 2);
        sender.join().unwrap();
        if canceller.join().unwrap() {
            routed.extend(route(&sockets, 3 - routed.len()));
        }
        let after: Vec<_> = routed.iter().filter(|byte| **byte != 1).collect();
        assert_eq!(after, [&0, &2]);
        assert_eq!(sockets.queue.depth(), (0, 0));
    });
}

#[test]
fn closing_wakes_every_sender_that_waits() {
    model(PREEMPTIONS, || {
        let sockets = sending(1, &[0]);
        let senders = [1, 2].map(|byte| {
            let sockets = sockets.clone();
            thread::spawn(move || send(&sockets, byte))
        });
        sockets.queue.close();
        for sender in senders {
            assert_eq!(sender.join().unwrap(), Err(Refused::Closed));
        }
        assert_eq!(sockets.queue.depth(), (1, 1));
    });
}

#[test]
fn closing_leaves_no_sender_waiting_and_loses_nothing_that_was_taken() {
    model(2, || {
        let sockets = sending(1, &[0]);
        let senders = [1, 2].map(|byte| {
            let sockets = sockets.clone();
            thread::spawn(move || send(&sockets, byte).map_or_else(|_| vec![], |()| vec![byte]))
        });
        let closer = thread::spawn({
            let sockets = sockets.clone();
            move || sockets.queue.close()
        });
        let mut routed = route(&sockets, 1);
        let mut accepted = senders.map(|sender| sender.join().unwrap()).concat();
        closer.join().unwrap();
        routed.extend(std::iter::from_fn(|| sockets.queue.take()).flat_map(|taken| bodies(&taken.batch)));
        accepted.insert(0, 0);
        routed.sort_unstable();
        assert_eq!(routed, accepted);
    });
}

#[test]
fn messages_that_come_back_stay_ahead_of_those_sent_meanwhile() {
    model(PREEMPTIONS, || {
        let sockets = sending(0, &[1, 2]);
        let sender = thread::spawn({
            let sockets = sockets.clone();
            move || (3..=4).for_each(|byte| send(&sockets, byte).unwrap())
        });
        // No peer had room for them …
        let taken = sockets.queue.take().unwrap();
        sockets.queue.settle(taken.messages, taken.payload, Some(taken.batch));
        // … and the peer that was given them was lost.
        let taken = sockets.queue.take().unwrap();
        sockets.queue.settle(taken.messages, taken.payload, None);
        sockets.queue.give_back([taken.batch].into_iter());
        assert_eq!(route(&sockets, 4), [1, 2, 3, 4]);
        sender.join().unwrap();
        assert_eq!(sockets.queue.depth(), (0, 0));
    });
}

// --- inbound --------------------------------------------------------------------------------------------------------

/// An inbound queue, and what its I/O task is woken by.
struct Receiving {
    queue: Inbound,
    io: AtomicWaker,
}

fn receiving(mark: usize) -> Arc<Receiving> {
    let queue = Inbound::new(HighWaterMark { messages: mark, bytes: 0 }, false);
    Arc::new(Receiving { queue, io: AtomicWaker::new() })
}

/// One-byte messages.
fn run(bytes: &[u8]) -> VecDeque<Run> {
    let wire: Vec<u8> = bytes.iter().flat_map(|byte| [0, 1, *byte]).collect();
    VecDeque::from([Run::packed(Bytes::from(wire), bytes.len(), bytes.len())])
}

fn offer(to: &Receiving, bytes: &[u8]) {
    let mut waiting = run(bytes);
    to.queue.offer(0, &Peer::for_tests(1), &mut waiting, ALL);
    assert!(waiting.is_empty());
}

/// The I/O task, with one peer that has sent these messages, until all have found room.
fn admit(to: &Receiving, bytes: &[u8]) {
    let mut waiting = run(bytes);
    block_on(poll_fn(|cx| {
        to.io.register(cx.waker());
        to.queue.offer(0, &Peer::for_tests(1), &mut waiting, ALL);
        let Some(next) = waiting.front() else {
            return Poll::Ready(());
        };
        if !to.queue.sleep(next.next_size()) {
            cx.waker().wake_by_ref();
        }
        Poll::Pending
    }));
}

/// What the future of `recv` waits with: its place among those who wait goes with it.
struct Seat<'a> {
    queue: &'a Inbound,
    ticket: Option<Ticket>,
}

impl Drop for Seat<'_> {
    fn drop(&mut self) {
        if let Some(ticket) = self.ticket.take() {
            self.queue.leave(ticket);
        }
    }
}

fn readable(queue: &Inbound) -> impl Future<Output = Result<(), RecvError>> + '_ {
    let mut seat = Seat { queue, ticket: None };
    poll_fn(move |cx| seat.queue.poll_wait(&mut seat.ticket, cx.waker()))
}

fn recv(from: &Receiving) -> Result<u8, RecvError> {
    block_on(async {
        loop {
            let mut message = Message::default();
            match from.queue.pop_into(&mut message, || from.io.wake()) {
                Ok(()) => return Ok(message[0][0]),
                Err(TryRecvError::Closed) => return Err(RecvError::Closed),
                Err(TryRecvError::Empty) => readable(&from.queue).await?,
            }
        }
    })
}

#[test]
fn a_receiver_of_an_empty_queue_and_an_io_task_without_room_wake_each_other() {
    model(PREEMPTIONS, || {
        let sockets = receiving(1);
        let receiver = thread::spawn({
            let sockets = sockets.clone();
            move || [0; 3].map(|_| recv(&sockets).unwrap())
        });
        admit(&sockets, &[1, 2, 3]);
        assert_eq!(receiver.join().unwrap(), [1, 2, 3]);
        assert_eq!(sockets.queue.depth(), (0, 0));
    });
}

#[test]
fn two_receivers_get_each_message_once() {
    model(PREEMPTIONS, || {
        let sockets = receiving(2);
        let receivers = [0; 2].map(|_| {
            let sockets = sockets.clone();
            thread::spawn(move || recv(&sockets).unwrap())
        });
        admit(&sockets, &[1, 2]);
        let mut received = receivers.map(|receiver| receiver.join().unwrap());
        received.sort_unstable();
        assert_eq!(received, [1, 2]);
    });
}

#[test]
fn a_turn_given_to_a_receiver_that_leaves_passes_on() {
    model(PREEMPTIONS, || {
        let sockets = receiving(0);
        let mut ticket = None;
        assert!(sockets.queue.poll_wait(&mut ticket, Waker::noop()).is_pending());
        let leaver = thread::spawn({
            let sockets = sockets.clone();
            move || sockets.queue.leave(ticket.unwrap())
        });
        let receiver = thread::spawn({
            let sockets = sockets.clone();
            move || recv(&sockets).unwrap()
        });
        offer(&sockets, &[1]);
        assert_eq!(receiver.join().unwrap(), 1);
        leaver.join().unwrap();
    });
}

#[test]
fn a_receiver_that_is_woken_in_vain_keeps_its_place_and_takes_nobodys_turn() {
    model(2, || {
        let sockets = receiving(0);
        let receivers = [0; 2].map(|_| {
            let sockets = sockets.clone();
            thread::spawn(move || recv(&sockets).unwrap())
        });
        let stream = thread::spawn({
            let sockets = sockets.clone();
            move || sockets.queue.wake_one()
        });
        offer(&sockets, &[1]);
        offer(&sockets, &[2]);
        let mut received = receivers.map(|receiver| receiver.join().unwrap());
        received.sort_unstable();
        assert_eq!(received, [1, 2]);
        stream.join().unwrap();
    });
}

#[test]
fn an_observer_that_is_not_polled_again_takes_no_turn() {
    model(PREEMPTIONS, || {
        let sockets = receiving(0);
        let mut ticket = None;
        assert!(sockets.queue.poll_observe(&mut ticket, Waker::noop()).is_pending());
        let receiver = thread::spawn({
            let sockets = sockets.clone();
            move || recv(&sockets).unwrap()
        });
        let observer = thread::spawn({
            let sockets = sockets.clone();
            move || sockets.queue.forget(ticket.unwrap())
        });
        offer(&sockets, &[1]);
        assert_eq!(receiver.join().unwrap(), 1);
        observer.join().unwrap();
    });
}

#[test]
fn closing_leaves_no_receiver_waiting_and_counts_what_nobody_got() {
    model(PREEMPTIONS, || {
        let sockets = receiving(0);
        let receiver = thread::spawn({
            let sockets = sockets.clone();
            move || usize::from(recv(&sockets).is_ok())
        });
        let closer = thread::spawn({
            let sockets = sockets.clone();
            move || sockets.queue.close()
        });
        offer(&sockets, &[1]);
        let received = receiver.join().unwrap();
        closer.join().unwrap();
        assert_eq!((received + sockets.queue.unread(), sockets.queue.depth()), (1, (0, 0)));
    });
}
