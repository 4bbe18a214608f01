//! The inbound queue: messages that peers have sent and no user has received yet, one lane per peer.

use std::collections::VecDeque;
use std::sync::Arc;
use std::task::{Poll, Waker};

use crate::error::{RecvError, TryRecvError};
use crate::message::Message;
use crate::monitor::Peer;
use crate::options::HighWaterMark;
use crate::queue::release_if_empty;
use crate::queue::waiters::{Ticket, Waiters, Woken};
use crate::sync::BriefLock;
use crate::zmtp::run::Run;

/// So many peers that have gone may have left a last message in a lane that keeps only the newest of each.
pub(crate) const CONFLATED_GONE: usize = 16;

/// So many messages are unpacked while the queue is locked, then others get their chance.
const UNPACKED_AT_ONCE: usize = 64;

/// Messages that wait, and who sent them.
#[derive(Debug)]
struct Entry {
    run: Run,
    from: Arc<Peer>,
}

#[derive(Debug, Default)]
struct State {
    /// By the peer's slot. A lane outlives its peer until it is empty.
    lanes: Vec<VecDeque<Entry>>,
    /// The lanes that are not empty, in the order of their turns.
    turns: VecDeque<usize>,
    messages: usize,
    payload: usize,
    waiters: Waiters,
    closed: bool,
    /// Messages that came and will never be received, because the queue is closed.
    unread: usize,
    /// Messages that a newer one has replaced.
    replaced: usize,
    /// The engine has messages that found no room, the smallest of this size, and wants to know when there is some.
    engine_waits: Option<usize>,
}

impl State {
    /// Moves the next message into `slot`: one from each lane in turn. `false` if there is none.
    #[inline]
    fn pop_into(&mut self, slot: &mut Message) -> bool {
        let Some(&turn) = self.turns.front() else {
            return false;
        };
        let lane = &mut self.lanes[turn];
        let Some(Entry { run, .. }) = lane.front_mut() else {
            return false;
        };
        self.messages -= 1;
        let before = run.payload();
        let taken = run.next_into(slot);
        self.payload -= before - run.payload();
        if run.messages() == 0 {
            lane.pop_front();
            if lane.is_empty() {
                release_if_empty(lane);
                self.turns.pop_front();
                return taken;
            }
        }
        if self.turns.len() > 1 {
            self.turns.rotate_left(1);
        }
        taken
    }

    /// Why there is no message.
    fn nothing(&self) -> TryRecvError {
        if self.closed { TryRecvError::Closed } else { TryRecvError::Empty }
    }

    /// Who sent the next message.
    fn next_from(&self) -> Option<Arc<Peer>> {
        self.turns.front().and_then(|turn| self.lanes[*turn].front()).map(|entry| entry.from.clone())
    }

    fn push(&mut self, lane: usize, from: &Arc<Peer>, run: Run) {
        if lane >= self.lanes.len() {
            self.lanes.resize_with(lane + 1, VecDeque::new);
        }
        self.messages += run.messages();
        self.payload += run.payload();
        if self.lanes[lane].is_empty() {
            self.turns.push_back(lane);
        }
        self.lanes[lane].push_back(Entry { run, from: from.clone() });
    }

    /// Puts the newest of the messages in the place of what the lane has.
    fn replace(&mut self, lane: usize, from: &Arc<Peer>, waiting: &mut VecDeque<Run>) {
        let mut messages: usize = waiting.iter().map(Run::messages).sum();
        let mut newest = waiting.pop_back();
        waiting.clear();
        if let Some(run) = &mut newest {
            let last = run.messages();
            run.split_front(|before, _, _| before + 1 < last);
            run.detach();
        }
        let was_empty = self.lanes.get(lane).is_none_or(VecDeque::is_empty);
        if let Some(entries) = self.lanes.get_mut(lane) {
            // The last messages of peers that have gone are kept, but not of any number of them.
            let gone = entries.len().saturating_sub(CONFLATED_GONE);
            for (index, Entry { run, from: other }) in std::mem::take(entries).into_iter().enumerate() {
                if index >= gone && other.id != from.id {
                    entries.push_back(Entry { run, from: other });
                } else {
                    messages += run.messages();
                    self.messages -= run.messages();
                    self.payload -= run.payload();
                }
            }
        }
        if !was_empty && self.lanes[lane].is_empty() {
            self.turns.retain(|turn| *turn != lane);
        }
        if let Some(run) = newest {
            self.replaced += messages - run.messages();
            self.push(lane, from, run);
        }
    }

    /// Whether a message of `size` bytes fits and half of the queue is free: the engine works in batches.
    fn has_room(&self, mark: &HighWaterMark, size: usize) -> bool {
        mark.half_free(self.messages) && mark.admits(self.messages, self.payload, size)
    }

    /// Whether the engine waits for room and there is enough of it now.
    #[inline]
    fn call_engine(&mut self, mark: &HighWaterMark) -> bool {
        match self.engine_waits {
            Some(size) if self.has_room(mark, size) => {
                self.engine_waits = None;
                true
            }
            _ => false,
        }
    }
}

/// The queue with its high-water marks.
#[derive(Debug)]
pub(crate) struct Inbound {
    mark: HighWaterMark,
    /// Only the newest message of each peer is kept.
    conflate: bool,
    state: BriefLock<State>,
}

impl Inbound {
    pub(crate) fn new(mark: HighWaterMark, conflate: bool) -> Self {
        Self { mark, conflate, state: BriefLock::default() }
    }

    /// Takes as many messages from the front of `waiting` as there is room for and `share` allows, one at least if there
    /// is room for it; says how many bytes of memory that were.
    pub(crate) fn offer(
        &self,
        lane: usize,
        from: &Arc<Peer>,
        waiting: &mut VecDeque<Run>,
        share: HighWaterMark,
    ) -> usize {
        let mut taken = 0;
        let woken = {
            let mut state = self.state.lock();
            if state.closed {
                for run in waiting.drain(..) {
                    state.unread += run.messages();
                    taken += run.memory();
                }
                return taken;
            }
            if self.conflate && !waiting.is_empty() {
                taken = waiting.iter().map(Run::memory).sum();
                state.replace(lane, from, waiting);
                let woken = state.waiters.take(1);
                drop(state);
                woken.wake();
                return taken;
            }
            let (messages, payload) = (state.messages, state.payload);
            while let Some(run) = waiting.front_mut() {
                // What is admitted so far, of this peer and in all.
                let (added, added_bytes) = (state.messages - messages, state.payload - payload);
                let admits = |more: usize, bytes: usize, size: usize| {
                    self.mark.admits(messages + added + more, payload + added_bytes + bytes, size)
                        && share.admits(added + more, added_bytes + bytes, size)
                };
                // A whole run, without looking at its messages; the last of them may be as large as it all.
                let fits = |mark: &HighWaterMark, messages: usize, bytes: usize| {
                    (mark.messages == 0 || messages + run.messages() <= mark.messages)
                        && (mark.bytes == 0 || bytes + run.payload() <= mark.bytes)
                };
                let whole =
                    fits(&self.mark, messages + added, payload + added_bytes) && fits(&share, added, added_bytes);
                let front = if whole { waiting.pop_front() } else { run.split_front(admits) };
                let Some(front) = front else {
                    break;
                };
                if waiting.front().is_some_and(|run| run.messages() == 0) {
                    waiting.pop_front();
                }
                taken += front.memory();
                state.push(lane, from, front);
            }
            let added = state.messages - messages;
            state.waiters.take(added)
        };
        woken.wake();
        taken
    }

    /// The engine is about to sleep with messages that found no room, the smallest of `size` bytes; `false` if there is
    /// room already.
    pub(crate) fn sleep(&self, size: usize) -> bool {
        let mut state = self.state.lock();
        let room = state.has_room(&self.mark, size);
        state.engine_waits = (!room).then_some(size);
        !room
    }

    /// Moves the next message into `slot`; calls `engine` if it waits for room and there is enough of it now.
    #[inline]
    pub(crate) fn pop_into(&self, slot: &mut Message, engine: impl FnOnce()) -> Result<(), TryRecvError> {
        let calls = {
            let mut state = self.state.lock();
            if !state.pop_into(slot) {
                return Err(state.nothing());
            }
            state.call_engine(&self.mark)
        };
        if calls {
            engine();
        }
        Ok(())
    }

    /// Like [`pop_into`](Self::pop_into); gives the peer that has sent the message as well.
    pub(crate) fn pop_from(&self, slot: &mut Message, engine: impl FnOnce()) -> Result<Arc<Peer>, TryRecvError> {
        let (from, calls) = {
            let mut state = self.state.lock();
            let from = state.next_from().ok_or_else(|| state.nothing())?;
            state.pop_into(slot);
            (from, state.call_engine(&self.mark))
        };
        if calls {
            engine();
        }
        Ok(from)
    }

    /// How many messages a newer one has replaced.
    pub(crate) fn replaced(&self) -> usize {
        self.state.lock().replaced
    }

    /// Takes up to `max` messages of those that are there and says how many; calls `engine` as [`pop_into`](Self::pop_into) does.
    pub(crate) fn pop_many(
        &self,
        out: &mut Vec<Message>,
        max: usize,
        engine: impl Fn(),
    ) -> Result<usize, TryRecvError> {
        let before = out.len();
        let mut left = max;
        loop {
            out.reserve(left.min(UNPACKED_AT_ONCE));
            let calls = {
                let mut state = self.state.lock();
                left = left.min(state.messages);
                if left == 0 && out.len() == before {
                    return Err(state.nothing());
                }
                let portion = left.min(UNPACKED_AT_ONCE);
                for _ in 0..portion {
                    let mut slot = Message::default();
                    state.pop_into(&mut slot);
                    out.push(slot);
                }
                left -= portion;
                state.call_engine(&self.mark)
            };
            if calls {
                engine();
            }
            if left == 0 {
                return Ok(out.len() - before);
            }
        }
    }

    /// Wakes a task that waits for a message, to look for one itself; it keeps its place if it finds none.
    pub(crate) fn wake_one(&self) {
        let woken = self.state.lock().waiters.take(1);
        woken.wake();
    }

    /// Registers for the next message, unless there is one: `Ready(Ok)` means "look again".
    pub(crate) fn poll_wait(&self, ticket: &mut Option<Ticket>, waker: &Waker) -> Poll<Result<(), RecvError>> {
        self.poll_with(|waiters| waiters.register(ticket, waker))
    }

    /// The same for an observer.
    pub(crate) fn poll_observe(&self, ticket: &mut Option<Ticket>, waker: &Waker) -> Poll<Result<(), RecvError>> {
        self.poll_with(|waiters| waiters.observe(ticket, waker))
    }

    fn poll_with(&self, register: impl FnOnce(&mut Waiters)) -> Poll<Result<(), RecvError>> {
        let mut state = self.state.lock();
        if state.messages > 0 {
            return Poll::Ready(Ok(()));
        }
        if state.closed {
            return Poll::Ready(Err(RecvError::Closed));
        }
        // Registered under the lock under which the queue was found empty: no wake-up can fall in between.
        register(&mut state.waiters);
        Poll::Pending
    }

    /// Gives up observing.
    pub(crate) fn forget(&self, ticket: Ticket) {
        self.state.lock().waiters.leave(ticket);
    }

    /// Gives up waiting. A turn that was already given passes on to the next waiter, if there is a message.
    pub(crate) fn leave(&self, ticket: Ticket) {
        let woken = {
            let mut state = self.state.lock();
            if state.waiters.leave(ticket) || state.messages == 0 {
                return;
            }
            state.waiters.take(1)
        };
        woken.wake();
    }

    /// Discards what is queued and what is offered from now on.
    pub(crate) fn close(&self) {
        let woken: Woken = {
            let mut state = self.state.lock();
            state.closed = true;
            state.lanes.clear();
            state.turns.clear();
            state.payload = 0;
            state.unread += std::mem::take(&mut state.messages);
            state.waiters.take(usize::MAX)
        };
        woken.wake();
    }

    /// How many messages came and were never received, when the queue is closed.
    pub(crate) fn unread(&self) -> usize {
        self.state.lock().unread
    }

    /// Whether there is no message, and there may be one.
    pub(crate) fn is_awaited(&self) -> bool {
        let state = self.state.lock();
        state.messages == 0 && !state.closed
    }

    /// Messages and bytes that are queued.
    pub(crate) fn depth(&self) -> (usize, usize) {
        let state = self.state.lock();
        (state.messages, state.payload)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use bytes::Bytes;

    /// A run of one-byte messages.
    fn run(bytes: &[u8]) -> VecDeque<Run> {
        let wire: Vec<u8> = bytes.iter().flat_map(|byte| [0, 1, *byte]).collect();
        VecDeque::from([Run::packed(Bytes::from(wire), bytes.len(), bytes.len())])
    }

    const ALL: HighWaterMark = HighWaterMark { messages: 0, bytes: 0 };

    fn queue(messages: usize, bytes: usize) -> Inbound {
        Inbound::new(HighWaterMark { messages, bytes }, false)
    }

    fn offer(queue: &Inbound, lane: usize, waiting: &mut VecDeque<Run>, share: HighWaterMark) -> bool {
        let memory = |waiting: &VecDeque<Run>| waiting.iter().map(Run::memory).sum::<usize>();
        let before = memory(waiting);
        let taken = queue.offer(lane, &Peer::for_tests(1), waiting, share);
        assert_eq!(before - taken, memory(waiting));
        waiting.is_empty()
    }

    #[test]
    fn a_lane_that_was_long_keeps_no_room_for_that() {
        let queue = queue(0, 0);
        for _ in 0..1_000 {
            offer(&queue, 0, &mut run(b"x"), ALL);
        }
        while pop(&queue).is_ok() {}
        assert!(queue.state.lock().lanes[0].capacity() <= 16);
    }

    fn pop(queue: &Inbound) -> Result<Message, TryRecvError> {
        let mut slot = Message::default();
        queue.pop_into(&mut slot, || ()).map(|()| slot)
    }

    fn drain(queue: &Inbound) -> Vec<u8> {
        std::iter::from_fn(|| pop(queue).ok()).map(|message| message[0][0]).collect()
    }

    #[test]
    fn many_are_taken_in_order_as_many_as_were_there_or_wanted() {
        const COUNT: usize = 3 * UNPACKED_AT_ONCE + 7;
        let queue = queue(0, 0);
        let sent: Vec<u8> = (0..=u8::MAX).cycle().take(COUNT).collect();
        offer(&queue, 0, &mut run(&sent), ALL);
        let mut taken = Vec::new();
        assert_eq!(queue.pop_many(&mut taken, 0, || ()), Err(TryRecvError::Empty));
        assert_eq!(queue.pop_many(&mut taken, UNPACKED_AT_ONCE + 1, || ()), Ok(UNPACKED_AT_ONCE + 1));
        assert_eq!(queue.pop_many(&mut taken, usize::MAX, || ()), Ok(COUNT - UNPACKED_AT_ONCE - 1));
        assert_eq!(queue.pop_many(&mut taken, usize::MAX, || ()), Err(TryRecvError::Empty));
        assert_eq!(taken.iter().map(|message| message[0][0]).collect::<Vec<_>>(), sent);
        queue.close();
        assert_eq!(queue.pop_many(&mut taken, usize::MAX, || ()), Err(TryRecvError::Closed));
    }

    /// The first thing that an engine does which is called is to offer more.
    #[test]
    fn the_engine_is_called_when_the_queue_is_not_locked() {
        let queue = queue(2, 0);
        let mut waiting = run(b"abcd");
        offer(&queue, 0, &mut waiting, ALL);
        assert!(queue.sleep(1));
        let (mut calls, mut seen) = (0, Vec::new());
        let mut slot = Message::default();
        let mut engine = || {
            offer(&queue, 0, &mut waiting, ALL);
            calls += 1;
        };
        while queue.pop_into(&mut slot, &mut engine).is_ok() {
            seen.push(slot[0][0]);
        }
        assert_eq!((calls, &seen[..]), (1, &b"abc"[..]));
    }

    #[test]
    fn lanes_take_turns_message_by_message() {
        let queue = queue(0, 0);
        offer(&queue, 3, &mut run(b"abc"), ALL);
        offer(&queue, 0, &mut run(b"1"), ALL);
        offer(&queue, 7, &mut run(b"xy"), ALL);
        assert_eq!(drain(&queue), b"a1xbyc");
    }

    #[test]
    fn exactly_the_mark_is_admitted_and_the_rest_waits_in_order() {
        for mark in [1, 2, 5] {
            let queue = queue(mark, 0);
            let mut waiting = run(b"abcdef");
            assert!(!offer(&queue, 0, &mut waiting, ALL));
            assert_eq!(queue.depth(), (mark, mark));
            let mut seen = drain(&queue);
            while !waiting.is_empty() {
                offer(&queue, 0, &mut waiting, ALL);
                seen.extend(drain(&queue));
            }
            assert_eq!(seen, b"abcdef");
        }
    }

    #[test]
    fn bytes_count_and_a_large_message_passes_when_nothing_is_queued() {
        let queue = queue(0, 3);
        let mut waiting = run(b"abcd");
        assert!(!offer(&queue, 0, &mut waiting, ALL));
        assert_eq!(queue.depth(), (3, 3));
        let mut large = VecDeque::from([Run::whole("large".into())]);
        assert!(!offer(&queue, 1, &mut large, ALL));
        drain(&queue);
        assert!(offer(&queue, 1, &mut large, ALL));
        assert_eq!(queue.depth(), (1, 5));
    }

    #[test]
    fn the_engine_is_called_when_half_is_free() {
        let queue = queue(4, 0);
        offer(&queue, 0, &mut run(b"abcd"), ALL);
        assert!(queue.sleep(1));
        let calls = (0..4).map(|_| {
            let mut called = false;
            queue.pop_into(&mut Message::default(), || called = true).unwrap();
            called
        });
        assert_eq!(calls.collect::<Vec<_>>(), [false, true, false, false]);
        assert!(!queue.sleep(1), "there is room already");
    }

    #[test]
    fn the_engine_is_not_called_before_what_waits_fits() {
        let queue = queue(0, 4);
        offer(&queue, 0, &mut run(b"ab"), ALL);
        let mut large = VecDeque::from([Run::whole("abc".into())]);
        assert!(!offer(&queue, 1, &mut large, ALL));
        assert!(queue.sleep(3), "half is free, but not enough");
        let mut called = false;
        queue.pop_into(&mut Message::default(), || called = true).unwrap();
        assert!(called && offer(&queue, 1, &mut large, ALL));
    }

    #[test]
    fn a_share_in_messages_or_in_bytes_is_kept_but_for_a_first_large_message() {
        let queue = queue(0, 0);
        let mut waiting = run(b"abcdef");
        assert!(!offer(&queue, 0, &mut waiting, HighWaterMark { messages: 2, bytes: 0 }));
        assert_eq!(queue.depth(), (2, 2));
        assert!(!offer(&queue, 0, &mut waiting, HighWaterMark { messages: 0, bytes: 3 }));
        assert_eq!(queue.depth(), (5, 5));
        let mut large = VecDeque::from([Run::whole("large".into()), Run::whole("large".into())]);
        assert!(!offer(&queue, 1, &mut large, HighWaterMark { messages: 0, bytes: 3 }));
        assert_eq!(queue.depth(), (6, 10));
    }

    #[test]
    fn many_are_taken_at_once() {
        let queue = queue(0, 0);
        offer(&queue, 0, &mut run(b"abc"), ALL);
        let mut out = Vec::new();
        assert_eq!(queue.pop_many(&mut out, 2, || ()), Ok(2));
        assert_eq!(queue.pop_many(&mut out, 9, || ()), Ok(1));
        assert_eq!(out, ["a".into(), "b".into(), "c".into()]);
        assert_eq!(queue.pop_many(&mut out, 9, || ()), Err(TryRecvError::Empty));
    }

    #[test]
    fn closing_counts_what_was_never_received() {
        let queue = queue(0, 0);
        offer(&queue, 0, &mut run(b"abc"), ALL);
        queue.close();
        assert_eq!(pop(&queue), Err(TryRecvError::Closed));
        assert!(offer(&queue, 0, &mut run(b"d"), ALL));
        assert_eq!((queue.depth(), queue.unread()), ((0, 0), 4));
    }

    #[test]
    fn conflation_keeps_the_newest_whole_message_of_each_lane() {
        let queue = Inbound::new(HighWaterMark { messages: 1, bytes: 1 }, true);
        assert!(offer(&queue, 0, &mut run(b"abc"), ALL));
        assert!(offer(&queue, 1, &mut VecDeque::from([Run::whole(["x", "y"].into())]), ALL));
        assert!(offer(&queue, 0, &mut run(b"de"), ALL));
        assert_eq!((queue.depth(), queue.replaced()), ((2, 3), 4));
        assert_eq!(pop(&queue), Ok(["x", "y"].into()));
        assert_eq!(pop(&queue), Ok("e".into()));
    }

    #[test]
    fn conflation_keeps_the_last_message_of_a_peer_that_has_gone() {
        let queue = Inbound::new(ALL, true);
        for id in 0..40 {
            let from = Peer::for_tests(id);
            queue.offer(0, &from, &mut run(b"ab"), ALL);
        }
        assert_eq!((queue.depth().0, queue.replaced()), (CONFLATED_GONE + 1, 80 - CONFLATED_GONE - 1));
        assert_eq!(drain(&queue).len(), CONFLATED_GONE + 1);
    }

    #[test]
    fn the_sender_of_a_message_is_told_on_request() {
        let queue = queue(0, 0);
        let from = Peer::for_tests(1);
        queue.offer(0, &from, &mut run(b"a"), ALL);
        let mut slot = Message::default();
        assert!(Arc::ptr_eq(&queue.pop_from(&mut slot, || ()).unwrap(), &from));
        assert_eq!(slot, "a".into());
        assert_eq!(queue.pop_from(&mut slot, || ()).unwrap_err(), TryRecvError::Empty);
    }
}
