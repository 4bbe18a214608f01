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
///
/// An observer waits without being owed a turn: it is woken along with whoever has one. For streams and sinks, which may
/// be left unpolled for as long as their owner likes.
#[derive(Debug, Default)]
pub(crate) struct Waiters {
    tasks: BTreeMap<Ticket, Waker>,
    observers: BTreeMap<Ticket, Waker>,
    next: u64,
}

impl Waiters {
    /// Registers a task, at its old place if it has one.
    pub(crate) fn register(&mut self, ticket: &mut Option<Ticket>, waker: &Waker) {
        put(&mut self.tasks, &mut self.next, ticket, waker);
    }

    /// Registers an observer.
    pub(crate) fn observe(&mut self, ticket: &mut Option<Ticket>, waker: &Waker) {
        put(&mut self.observers, &mut self.next, ticket, waker);
    }

    /// Gives up a place; `false` if its task had been woken and is owed a turn.
    pub(crate) fn leave(&mut self, ticket: Ticket) -> bool {
        self.tasks.remove(&ticket).is_some() || self.observers.remove(&ticket).is_some()
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.tasks.is_empty() && self.observers.is_empty()
    }

    /// Takes the first `count` waiters and all observers out, to be woken once the queue's lock is released.
    #[must_use]
    pub(crate) fn take(&mut self, count: usize) -> Woken {
        if self.is_empty() || count == 0 {
            return Woken::default();
        }
        let count = count.min(self.tasks.len());
        let turns = (0..count).filter_map(|_| self.tasks.pop_first()).map(|(_, waker)| waker);
        let mut woken: Vec<_> = turns.collect();
        woken.extend(std::mem::take(&mut self.observers).into_values());
        Woken(woken)
    }
}

fn put(tasks: &mut BTreeMap<Ticket, Waker>, next: &mut u64, ticket: &mut Option<Ticket>, waker: &Waker) {
    let ticket = *ticket.get_or_insert_with(|| {
        *next += 1;
        Ticket(*next)
    });
    match tasks.get_mut(&ticket) {
        Some(known) => known.clone_from(waker),
        None => {
            tasks.insert(ticket, waker.clone());
        }
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

/// Counts how often a task of a test is woken.
#[cfg(test)]
#[derive(Debug, Default)]
pub(crate) struct Wakes(std::sync::atomic::AtomicUsize);

#[cfg(test)]
impl Wakes {
    pub(crate) fn count(&self) -> usize {
        self.0.load(std::sync::atomic::Ordering::SeqCst)
    }
}

#[cfg(test)]
impl std::task::Wake for Wakes {
    fn wake(self: std::sync::Arc<Self>) {
        self.0.fetch_add(1, std::sync::atomic::Ordering::SeqCst);
    }
}
