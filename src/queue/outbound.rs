//! The outbound FIFO: messages that users have sent and no peer has been given yet. A publisher's holds back, and drops, what
//! nobody wants.

use std::collections::VecDeque;
use std::task::{Poll, Waker};

use crate::message::Message;
use crate::options::HighWaterMark;
use crate::queue::waiters::{Ticket, Waiters, Woken};
use crate::routing::sieve::{Mark, Sieve, Words};
use crate::sync::BriefLock;
use crate::zmtp::encoder::{BATCH_BYTES, Batch, CHAIN_FROM, LARGE_MESSAGE, SMALL_BUFFER, WRITE_BYTES};

/// Emptied batches that are kept for their buffers.
const SPARE_BATCHES: usize = 8;

/// A message that comes after so many that nobody wanted is load and not a conversation: the time since the last one that was
/// written does not tell.
const LOAD: u32 = 32;

#[derive(Debug, Default)]
struct State {
    /// In order; only the last one is still being filled.
    batches: VecDeque<Batch>,
    messages: usize,
    payload: usize,
    waiters: Waiters,
    closed: bool,
    /// The engine has nothing to do and wants to know of the next message.
    engine_waits: bool,
    /// When the engine last looked, there was a peer with room.
    has_taker: bool,
    spare: Vec<Batch>,
    /// What somebody may want; `None`: everything.
    sieve: Option<Sieve>,
    /// Messages that nobody wanted …
    unmatched: u64,
    /// … and how many of them were the last ones.
    unmatched_since: u32,
}

impl State {
    /// Whether a message is held back, because nobody wants it; counts it then.
    #[inline]
    fn holds_back(&mut self, message: &Message) -> bool {
        let is_unmatched = self.sieve.as_ref().is_some_and(|sieve| !sieve.lets_through(&message[0]));
        if is_unmatched {
            self.unmatched += 1;
            self.unmatched_since = self.unmatched_since.saturating_add(1);
        }
        is_unmatched
    }

    #[inline]
    fn push(&mut self, message: &Message, size: usize) -> Call {
        let is_large = size >= LARGE_MESSAGE;
        // Asked before the batch holds the bodies, too.
        let frees_much = is_large && message.unique_len(CHAIN_FROM) >= LARGE_MESSAGE;
        self.messages += 1;
        self.payload += size;
        let is_full = match self.batches.back_mut() {
            Some(batch) if !batch.is_full() => {
                batch.push(message);
                batch.is_full()
            }
            _ => self.push_first(message),
        };
        let engine_waits = std::mem::take(&mut self.engine_waits);
        let is_load = std::mem::take(&mut self.unmatched_since) >= LOAD;
        if is_large && !self.has_taker {
            Call::GiveWay
        } else if frees_much {
            Call::WriteNow
        } else if is_full && self.has_taker && self.payload >= WRITE_BYTES {
            Call::Write
        } else if is_load && self.has_taker {
            Call::Load
        } else if engine_waits {
            Call::Wake
        } else {
            Call::Nobody
        }
    }

    /// Begins a batch; says whether it is full.
    fn push_first(&mut self, message: &Message) -> bool {
        let mut batch = self.spare.pop().unwrap_or_default();
        batch.push(message);
        let is_full = batch.is_full();
        self.batches.push_back(batch);
        is_full
    }

    /// As many waiters as there may be room for.
    fn take_waiters(&mut self, mark: &HighWaterMark) -> Woken {
        if self.waiters.is_empty() || !mark.admits(self.messages, self.payload, 0) {
            return Woken::default();
        }
        let room = match mark.messages {
            0 => usize::MAX,
            limit => limit - self.messages,
        };
        self.waiters.take(room)
    }
}

/// Why a message was not taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Refused {
    Full,
    Closed,
}

/// What a sender is to do for the message that it has queued.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Call {
    /// Call nobody: somebody will come for it.
    Nobody,
    /// Wake the engine, or write in its place.
    Wake,
    /// Wake the engine, which may be awake already; or write in its place if that was not done for long. More will come soon,
    /// but a task that sends what nobody wants meets no full queue, and may not let the engine's have its turn for long.
    Load,
    /// Write, if that is possible at once: as much is queued as one write should take, and it is still in the processor's
    /// cache.
    Write,
    /// Write, for a large message: its memory will be of use for the next one. It is put off only while others wait for room.
    WriteNow,
    /// Let other tasks have a turn before the next message: this one is large, and no peer takes it now. The runtime may find one
    /// that does; otherwise such messages would fill all of the memory that the queue may take before anybody looks.
    GiveWay,
}

/// The FIFO with its high-water marks.
#[derive(Debug)]
pub(crate) struct Outbound {
    mark: HighWaterMark,
    state: BriefLock<State>,
}

/// What the engine gets when it takes from the FIFO.
#[derive(Debug)]
pub(crate) struct Taken {
    pub(crate) batch: Batch,
    pub(crate) messages: usize,
    pub(crate) payload: usize,
}

impl Outbound {
    pub(crate) fn new(mark: HighWaterMark) -> Self {
        Self { mark, state: BriefLock::default() }
    }

    /// A FIFO that takes only what somebody [wants](Self::add_wanted), by the topic, and drops the rest.
    pub(crate) fn sifting(mark: HighWaterMark) -> Self {
        Self { mark, state: BriefLock::new(State { sieve: Some(Sieve::default()), ..State::default() }) }
    }

    /// Puts a message at the end, unless nobody wants it; says whether the engine is to be called.
    #[inline]
    pub(crate) fn offer(&self, message: &Message) -> Result<Call, Refused> {
        let size = message.byte_len();
        let mut state = self.state.lock();
        if state.closed {
            return Err(Refused::Closed);
        }
        if state.holds_back(message) {
            return Ok(Call::Nobody);
        }
        if !self.mark.admits(state.messages, state.payload, size) {
            return Err(Refused::Full);
        }
        Ok(state.push(message, size))
    }

    /// Puts a message at the end, or waits for room. One that waits is not dropped when nobody wants it any more: its turn is
    /// one that others would wait for.
    pub(crate) fn poll_offer(
        &self,
        message: &Message,
        ticket: &mut Option<Ticket>,
        waker: &Waker,
    ) -> Poll<Result<Call, Refused>> {
        let size = message.byte_len();
        let mut state = self.state.lock();
        if state.closed {
            return Poll::Ready(Err(Refused::Closed));
        }
        if !self.mark.admits(state.messages, state.payload, size) {
            // Registered under the lock under which the queue was found full: no wake-up can fall in between.
            state.waiters.register(ticket, waker);
            return Poll::Pending;
        }
        if let Some(ticket) = ticket.take() {
            state.waiters.leave(ticket);
        }
        Poll::Ready(Ok(state.push(message, size)))
    }

    /// Whether a message of `size` bytes would be taken now, or refused for good; if not, observes when it may be.
    pub(crate) fn poll_room(&self, size: usize, ticket: &mut Option<Ticket>, waker: &Waker) -> Poll<()> {
        let mut state = self.state.lock();
        if state.closed || self.mark.admits(state.messages, state.payload, size) {
            return Poll::Ready(());
        }
        state.waiters.observe(ticket, waker);
        Poll::Pending
    }

    /// Whether a message without a body would be taken.
    pub(crate) fn has_room(&self) -> bool {
        let state = self.state.lock();
        self.mark.admits(state.messages, state.payload, 0)
    }

    /// Gives up observing.
    pub(crate) fn forget(&self, ticket: Ticket) {
        self.state.lock().waiters.leave(ticket);
    }

    /// Gives up waiting. A turn that was already given passes on to the next waiter.
    pub(crate) fn leave(&self, ticket: Ticket) {
        let woken = {
            let mut state = self.state.lock();
            if state.waiters.leave(ticket) {
                return;
            }
            state.take_waiters(&self.mark)
        };
        woken.wake();
    }

    /// Takes the first batch, to be routed. Its messages count as queued until [`settle`](Self::settle) is called.
    pub(crate) fn take(&self) -> Option<Taken> {
        let mut state = self.state.lock();
        let batch = state.batches.pop_front()?;
        Some(Taken { messages: batch.messages(), payload: batch.payload(), batch })
    }

    /// A batch of so many messages and bytes has been routed, but for `rest`, which comes first again. Wakes senders that
    /// now have room; `true` if there were any.
    pub(crate) fn settle(&self, messages: usize, payload: usize, rest: Option<Batch>) -> bool {
        let (senders_waited, woken) = {
            let mut state = self.state.lock();
            state.messages -= messages;
            state.payload -= payload;
            if let Some(rest) = rest {
                state.messages += rest.messages();
                state.payload += rest.payload();
                state.batches.push_front(rest);
            }
            (!state.waiters.is_empty(), state.take_waiters(&self.mark))
        };
        woken.wake();
        senders_waited
    }

    /// Puts batches that no peer has got back to the head, in this order.
    pub(crate) fn give_back(&self, batches: impl DoubleEndedIterator<Item = Batch>) {
        let mut state = self.state.lock();
        for batch in batches.rev().filter(|batch| !batch.is_empty()) {
            state.messages += batch.messages();
            state.payload += batch.payload();
            state.batches.push_front(batch);
        }
    }

    /// Keeps an emptied batch for its buffer.
    pub(crate) fn recycle(&self, mut batch: Batch) {
        batch.clear();
        if (1..=2 * BATCH_BYTES).contains(&batch.capacity()) {
            let mut state = self.state.lock();
            if state.spare.len() < SPARE_BATCHES {
                state.spare.push(batch);
            }
        }
    }

    /// The engine is about to sleep: it is told of the next message if it `wants`. `false` if one is there already.
    pub(crate) fn sleep(&self, wants: bool) -> bool {
        let mut state = self.state.lock();
        state.has_taker = wants;
        if wants && state.messages > 0 {
            return false;
        }
        state.engine_waits = wants;
        true
    }

    /// Gives large buffers back, which an idle socket should not hold.
    pub(crate) fn release(&self) {
        self.state.lock().spare.retain(|batch| batch.capacity() <= SMALL_BUFFER);
    }

    /// Takes no more messages; those that wait to be queued fail.
    pub(crate) fn close(&self) {
        let woken = {
            let mut state = self.state.lock();
            state.closed = true;
            state.waiters.take(usize::MAX)
        };
        woken.wake();
    }

    /// Somebody wants topics with a prefix that nobody wanted before; `true` if the sieve is to be
    /// [renewed](Self::renew_sieve).
    pub(crate) fn add_wanted(&self, mark: Mark) -> bool {
        self.state.lock().sieve.as_mut().is_some_and(|sieve| sieve.add(mark))
    }

    /// Nobody wants topics with this prefix any more; `true` if the sieve is to be renewed.
    pub(crate) fn remove_wanted(&self, mark: Mark) -> bool {
        self.state.lock().sieve.as_mut().is_some_and(|sieve| sieve.remove(mark))
    }

    /// Gives the sieve new words, made of all prefixes that are wanted.
    ///
    /// They are made before, and the old ones go after, without the lock, which all senders need. Only the engine adds prefixes,
    /// and it is here: none comes in between.
    pub(crate) fn renew_sieve(&self, words: Words) {
        let _old = self.state.lock().sieve.as_mut().map(|sieve| sieve.renew(words));
    }

    /// How many messages nobody wanted.
    pub(crate) fn unmatched(&self) -> u64 {
        self.state.lock().unmatched
    }

    /// Messages and bytes that are queued.
    pub(crate) fn depth(&self) -> (usize, usize) {
        let state = self.state.lock();
        (state.messages, state.payload)
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::queue::waiters::Wakes;
    use futures::task::noop_waker;

    fn queue(messages: usize, bytes: usize) -> Outbound {
        Outbound::new(HighWaterMark { messages, bytes })
    }

    /// Takes a batch and says that it has been routed.
    fn take(queue: &Outbound) -> Batch {
        let taken = queue.take().unwrap();
        queue.settle(taken.messages, taken.payload, None);
        taken.batch
    }

    #[test]
    fn what_is_taken_counts_until_it_is_routed() {
        let queue = queue(2, 0);
        queue.offer(&"1".into()).unwrap();
        queue.offer(&"2".into()).unwrap();
        let taken = queue.take().unwrap();
        assert_eq!(queue.offer(&"3".into()), Err(Refused::Full));
        queue.settle(taken.messages, taken.payload, Some(taken.batch));
        assert_eq!((queue.offer(&"3".into()), queue.depth()), (Err(Refused::Full), (2, 2)));
        take(&queue);
        assert!(queue.offer(&"3".into()).is_ok());
    }

    #[test]
    fn exactly_the_mark_is_accepted() {
        for mark in [1, 2, 1_000] {
            let queue = queue(mark, 0);
            for _ in 0..mark {
                assert!(queue.offer(&"x".into()).is_ok());
            }
            assert_eq!(queue.offer(&"y".into()), Err(Refused::Full));
            assert_eq!(queue.depth(), (mark, mark));
        }
    }

    #[test]
    fn bytes_count_as_well_as_messages() {
        let queue = queue(0, 100);
        for _ in 0..10 {
            assert!(queue.offer(&vec![0; 10].into()).is_ok());
        }
        assert!(queue.offer(&vec![0; 1].into()).is_err());
        assert!(queue.offer(&"".into()).is_ok());
    }

    #[test]
    fn the_engine_is_called_once_per_sleep() {
        let queue = queue(10, 0);
        assert!(queue.sleep(true));
        assert!(matches!(queue.offer(&"a".into()), Ok(Call::Wake)));
        assert!(matches!(queue.offer(&"b".into()), Ok(Call::Nobody)));
        assert!(!queue.sleep(true), "there is work");
        assert!(queue.sleep(false));
        assert!(matches!(queue.offer(&"c".into()), Ok(Call::Nobody)), "the engine has no peer with room");
    }

    #[test]
    fn a_sender_writes_when_as_much_is_queued_as_one_write_takes() {
        let queue = queue(0, 0);
        assert!(queue.sleep(true));
        let middling = Message::from(vec![0; WRITE_BYTES / 16]);
        let calls: Vec<_> = (0..20).map(|_| queue.offer(&middling).unwrap()).collect();
        assert_eq!(calls[0], Call::Wake);
        let writes: Vec<_> = (0..20).filter(|index| calls[*index] == Call::Write).collect();
        assert_eq!(writes, [15, 19], "full batches, from so many bytes on");
        assert_eq!(calls.iter().filter(|call| **call == Call::Nobody).count(), 17);
        (0..5).for_each(|_| drop(take(&queue)));
        assert_eq!(queue.offer(&middling), Ok(Call::Nobody));
        assert!(queue.sleep(false));
        assert!((0..20).all(|_| queue.offer(&middling) == Ok(Call::Nobody)), "no peer has room");
    }

    #[test]
    fn a_sender_writes_a_large_message_at_once_that_it_does_not_keep() {
        let queue = queue(0, 0);
        let large = Message::from(vec![0; LARGE_MESSAGE]);
        assert_eq!(queue.offer(&large), Ok(Call::GiveWay), "no peer has room");
        take(&queue);
        assert_eq!(queue.offer(&vec![0; LARGE_MESSAGE - 1].into()), Ok(Call::Nobody));
        take(&queue);
        assert!(queue.sleep(true));
        assert_eq!(queue.offer(&vec![0; LARGE_MESSAGE - 1].into()), Ok(Call::Wake));
        assert_eq!(queue.offer(&large), Ok(Call::WriteNow));
        take(&queue);
        let kept = large.clone();
        assert_eq!(queue.offer(&large), Ok(Call::Nobody), "the memory is in use until {} bytes go", kept.byte_len());
    }

    #[test]
    fn what_nobody_wants_is_counted_and_needs_no_room() {
        let queue = Outbound::sifting(HighWaterMark { messages: 1, bytes: 0 });
        let offer = |topic: &str| queue.offer(&[topic, "A"].into());
        assert_eq!((offer("A1"), queue.depth().0, queue.unmatched()), (Ok(Call::Nobody), 0, 1));
        queue.add_wanted(Mark::of(b"A"));
        assert_eq!((offer("A1"), queue.depth().0, queue.unmatched()), (Ok(Call::Nobody), 1, 1));
        assert_eq!((offer("A2"), offer("B")), (Err(Refused::Full), Ok(Call::Nobody)));
        assert_eq!((queue.depth().0, queue.unmatched()), (1, 2));
        queue.remove_wanted(Mark::of(b"A"));
        assert_eq!((offer("A3"), queue.depth().0, queue.unmatched()), (Ok(Call::Nobody), 1, 3));
        queue.close();
        assert_eq!(offer("B"), Err(Refused::Closed));
    }

    #[test]
    fn a_message_among_many_that_nobody_wants_is_for_the_io_task() {
        let queue = Outbound::sifting(HighWaterMark { messages: 0, bytes: 0 });
        queue.add_wanted(Mark::of(b"A"));
        for (unmatched, call) in [(0, Call::Wake), (LOAD - 1, Call::Wake), (LOAD, Call::Load), (1, Call::Wake)] {
            assert!((0..unmatched).all(|_| queue.offer(&"B".into()) == Ok(Call::Nobody)));
            assert!(queue.sleep(true));
            assert_eq!(queue.offer(&"A".into()), Ok(call), "after {unmatched}");
            take(&queue);
        }
    }

    #[test]
    fn a_renewed_sieve_lets_all_through_that_is_wanted() {
        let queue = Outbound::sifting(HighWaterMark { messages: 0, bytes: 0 });
        let marks: Vec<_> = (0_u32..1_000).map(|number| Mark::of(&number.to_be_bytes())).collect();
        let mut renewed = 0;
        for (index, mark) in marks.iter().enumerate() {
            if queue.add_wanted(*mark) {
                queue.renew_sieve(Words::new(index, marks[..=index].iter().copied()));
                renewed += 1;
            }
        }
        assert!((3..15).contains(&renewed), "{renewed}");
        let offer = |number: u32| queue.offer(&number.to_be_bytes()[..].into()).unwrap();
        assert!((0..1_000).all(|number| offer(number) == Call::Nobody));
        assert_eq!((queue.depth().0, queue.unmatched()), (1_000, 0));
        assert!((1_000..9_000).all(|number| offer(number) == Call::Nobody));
        assert!(queue.unmatched() > 7_800, "{}", queue.unmatched());
    }

    #[test]
    fn what_is_given_back_comes_first_again() {
        let queue = queue(0, 0);
        queue.offer(&"1".into()).unwrap();
        let first = take(&queue);
        queue.offer(&"2".into()).unwrap();
        let second = take(&queue);
        queue.offer(&"3".into()).unwrap();
        queue.give_back([first, Batch::default(), second].into_iter());
        assert_eq!(queue.depth(), (3, 3));
        let order: Vec<_> = std::iter::from_fn(|| queue.take()).map(|taken| taken.batch.messages()).collect();
        assert_eq!(order, [1, 1, 1]);
    }

    #[test]
    fn a_waiter_that_leaves_after_its_turn_passes_it_on() {
        let queue = queue(1, 0);
        queue.offer(&"full".into()).unwrap();
        let (first, first_waker) = counted_waker();
        let (second, second_waker) = counted_waker();
        let (mut a, mut b) = (None, None);
        assert!(queue.poll_offer(&"a".into(), &mut a, &first_waker).is_pending());
        assert!(queue.poll_offer(&"b".into(), &mut b, &second_waker).is_pending());
        take(&queue);
        assert!(first.count() == 1 && second.count() == 0);
        queue.leave(a.unwrap());
        assert_eq!(second.count(), 1);
    }

    #[test]
    fn closing_fails_those_who_wait() {
        let queue = queue(1, 0);
        queue.offer(&"full".into()).unwrap();
        let (woken, waker) = counted_waker();
        let mut ticket = None;
        assert!(queue.poll_offer(&"late".into(), &mut ticket, &waker).is_pending());
        queue.close();
        assert_eq!(woken.count(), 1);
        let result = queue.poll_offer(&"late".into(), &mut ticket, &noop_waker());
        assert_eq!(result, Poll::Ready(Err(Refused::Closed)));
    }

    fn counted_waker() -> (Arc<Wakes>, Waker) {
        let wakes = Arc::new(Wakes::default());
        (wakes.clone(), wakes.into())
    }
}
