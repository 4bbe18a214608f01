//! Tasks that wait for a queue, in the order in which they began to wait.

use std::collections::BTreeMap;
use std::task::Waker;

/// A place among the waiters; it is kept when its task is woken in vain.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Ticket(u64);

/// The waiters of one queue, guarded by that queue's lock.
///
/// A task registers under the same lock under which it found nothing to do, so that no change can fall between
/// the two. A waiter that was woken and goes away without using its turn must pass it on; see the callers of
/// [`Waiters::leave`].
#[derive(Debug, Default)]
pub(crate) struct Waiters {
    tasks: BTreeMap<Ticket, Waker>,
    next: u64,
}

impl Waiters {
    /// Registers a task, at its old place if it has one.
    pub(crate) fn register(&mut self, ticket: &mut Option<Ticket>, waker: &Waker) {
        let ticket = *ticket.get_or_insert_with(|| {
            self.next += 1;
            Ticket(self.next)
        });
        match self.tasks.get_mut(&ticket) {
            Some(known) => known.clone_from(waker),
            None => {
                self.tasks.insert(ticket, waker.clone());
            }
        }
    }

    /// Gives up a place; `false` if its task had been woken.
    pub(crate) fn leave(&mut self, ticket: Ticket) -> bool {
        self.tasks.remove(&ticket).is_some()
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.tasks.is_empty()
    }

    /// Takes the first `count` waiters out, to be woken once the queue's lock is released.
    #[must_use]
    pub(crate) fn take(&mut self, count: usize) -> Woken {
        let count = count.min(self.tasks.len());
        Woken((0..count).filter_map(|_| self.tasks.pop_first()).map(|(_, waker)| waker).collect())
    }
}

/// Waiters whose turn it is.
#[derive(Debug, Default)]
pub(crate) struct Woken(Vec<Waker>);

impl Woken {
    pub(crate) fn wake(self) {
        self.0.into_iter().for_each(Waker::wake);
    }
}
