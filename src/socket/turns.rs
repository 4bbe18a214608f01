//! Whose turn it is: whether a `send` drives the engine itself or wakes the I/O task, and when a task lets others go first.

use std::cell::Cell;
use std::pin::pin;
use std::sync::atomic::Ordering;
use std::task::{Context, Poll};
use std::time::Duration;

use tokio::task::coop::consume_budget;

use crate::engine::shared::Presence;
use crate::message::Message;
use crate::queue::outbound::{Call, Refused};
use crate::socket::handle::Core;

/// Calls of engines that are closer together than this are load and not a conversation.
const CALLS_APART: Duration = Duration::from_micros(2);

/// Among many messages that nobody wants one that is wanted waits no longer than about this for others.
const LOADS_APART: Duration = Duration::from_micros(50);

thread_local! {
    /// When this thread last called an engine.
    static LAST_CALL: Cell<Option<tokio::time::Instant>> = const { Cell::new(None) };
}

/// A publisher's `send` writes to so many peers itself; with more of them the I/O task does.
const CROWD: usize = 16;

/// So many calls of `send` or `recv` use up one unit of their task's budget, of which tokio gives 128.
const CALLS_PER_UNIT: u32 = 128;

impl Core {
    /// Queues a message if there is room.
    #[inline]
    pub(crate) fn offer(&self, message: &Message) -> Result<(), Refused> {
        match self.shared.outbound.offer(message)? {
            Call::Nobody => {}
            Call::GiveWay => self.give_way(),
            call => self.call_engine(call),
        }
        Ok(())
    }

    /// The engine sleeps and there is a message for it, or a large one, or as many as one write takes. These are written from here,
    /// and so is a message when this thread has called no engine just before, which saves the hop to the I/O task. When messages
    /// follow each other closely, on this socket or on several in turn, the I/O task is woken, and sends what has come until
    /// then in one go.
    #[cold]
    fn call_engine(&self, call: Call) {
        let apart = match call {
            Call::Write | Call::WriteNow => Duration::ZERO,
            Call::Load => LOADS_APART,
            _ => CALLS_APART,
        };
        let much = matches!(call, Call::Write | Call::WriteNow);
        let now = LAST_CALL.get().is_none_or(|last| last.elapsed() >= apart);
        // A message for very many peers is the I/O task's work.
        if !now || self.has_crowd() || !self.take_turn(call == Call::Write) {
            self.shared.signal.wake();
        }
        if much {
            // A turn counts as many calls.
            self.calls.store(CALLS_PER_UNIT - 1, Ordering::Relaxed);
        }
        if now || call != Call::Load {
            // At the end: what a write takes is no pause of the user's.
            LAST_CALL.set(Some(tokio::time::Instant::now()));
        }
    }

    /// Whether one message may go to more peers than its sender should write to.
    fn has_crowd(&self) -> bool {
        let crowded = |presence: Presence| matches!(presence, Presence::Open { peers } if peers > CROWD);
        self.engine.connects_once() && crowded(self.shared.presence.get())
    }

    /// Queues a message if there is room, or if a turn of the engine makes some.
    pub(crate) fn offer_with_turn(&self, message: &Message) -> Result<(), Refused> {
        match self.offer(message) {
            Err(Refused::Full) if self.take_turn(true) => self.offer(message),
            other => other,
        }
    }

    /// Whether this call of `send` or `recv` should give other tasks a chance first: a task that always finds room, or
    /// messages, would never let the runtime look at streams and timers.
    #[inline]
    pub(crate) fn is_due(&self) -> bool {
        let calls = self.calls.load(Ordering::Relaxed).wrapping_add(1);
        self.calls.store(calls, Ordering::Relaxed);
        calls % CALLS_PER_UNIT == 0
    }

    /// Has the next `send` be due, and give way to other tasks.
    #[cold]
    pub(crate) fn give_way(&self) {
        self.gives_way.store(true, Ordering::Relaxed);
        self.calls.store(CALLS_PER_UNIT - 1, Ordering::Relaxed);
    }

    /// A `send` that is due: lets other tasks have a turn if they are to, or uses up some of its task's budget.
    #[cold]
    pub(crate) fn poll_due(&self, cx: &mut Context<'_>) -> Poll<()> {
        if self.gives_way.swap(false, Ordering::Relaxed) {
            cx.waker().wake_by_ref();
            return Poll::Pending;
        }
        pin!(consume_budget()).poll(cx)
    }

    /// Drives the engine on the caller's time, unless somebody does already.
    pub(crate) fn take_turn(&self, sending: bool) -> bool {
        self.engine.take_turn(sending)
    }
}

#[cfg(test)]
mod tests {
    use std::future::{Future, ready};
    use std::pin::Pin;
    use std::sync::Arc;

    use futures::FutureExt;

    use super::*;
    use crate::engine::drive::Drive;
    use crate::engine::shared::Shared;
    use crate::monitor::PeerStats;
    use crate::options::Options;
    use crate::queue::waiters::Wakes;
    use crate::socket::sending::SendMessage;
    use crate::sync::{Mutex, lock};
    use crate::zmtp::encoder::{LARGE_MESSAGE, WRITE_BYTES};
    use crate::zmtp::socket_type::SocketType;

    /// An engine that does nothing but note whether more was said to come.
    #[derive(Debug, Default)]
    struct Turns(Mutex<Vec<bool>>);

    impl Drive for Turns {
        fn take_turn(&self, sending: bool) -> bool {
            lock(&self.0).push(sending);
            true
        }

        fn read_now(&self) -> bool {
            false
        }

        fn run(self: Arc<Self>, _: Arc<Shared>) -> Pin<Box<dyn Future<Output = ()> + Send>> {
            Box::pin(ready(()))
        }

        fn connects_once(&self) -> bool {
            false
        }

        fn rest(&self, _: &mut dyn FnMut(Vec<PeerStats>)) {}
    }

    #[test]
    fn of_what_follows_closely_a_sender_writes_large_messages_and_full_queues_alone() {
        let shared = Arc::new(Shared::new(Options::default(), SocketType::Push));
        let engine = Arc::new(Turns::default());
        let core = Core::new(shared.clone(), engine.clone());
        let turns = |messages: &[usize]| {
            assert!(shared.outbound.sleep(true));
            for size in messages {
                LAST_CALL.set(Some(tokio::time::Instant::now() + Duration::from_secs(3_600)));
                core.offer(&vec![0; *size].into()).unwrap();
            }
            while let Some(taken) = shared.outbound.take() {
                shared.outbound.settle(taken.messages, taken.payload, None);
            }
            std::mem::take(&mut *lock(&engine.0))
        };
        assert_eq!(turns(&[1, 1, LARGE_MESSAGE - 1]), []);
        assert_eq!(turns(&[1, LARGE_MESSAGE, 1, LARGE_MESSAGE]), [false, false]);
        assert_eq!(turns(&[WRITE_BYTES / 16; 16]), [true]);
        assert!(shared.outbound.sleep(true));
        LAST_CALL.set(None);
        core.offer(&"the first for long".into()).unwrap();
        assert_eq!(*lock(&engine.0), [false]);
    }

    #[test]
    fn after_a_large_message_that_no_peer_takes_others_have_a_turn_once() {
        let core = Core::new(Arc::new(Shared::new(Options::default(), SocketType::Push)), Arc::new(Turns::default()));
        for (size, waits) in
            [(LARGE_MESSAGE, false), (1, true), (1, false), (LARGE_MESSAGE, false), (LARGE_MESSAGE, true)]
        {
            let woken = Arc::new(Wakes::default());
            let waker = woken.clone().into();
            let mut send = SendMessage::new(&core, vec![0; size].into());
            assert_eq!(send.poll_unpin(&mut Context::from_waker(&waker)).is_pending(), waits, "{size}");
            assert_eq!(woken.count(), usize::from(waits), "at once");
            if waits {
                assert!(send.poll_unpin(&mut Context::from_waker(&waker)).is_ready());
            }
        }
        assert_eq!(core.shared.outbound.depth().0, 5);
    }
}
