//! A value that tasks wait for. They are woken in the order in which they began to wait.
//!
//! tokio's `watch` wakes them in an order that it rolls dice for, so that no run with two of them could be repeated.

use std::sync::{Mutex, MutexGuard, PoisonError};

use tokio::sync::Notify;

#[derive(Debug)]
pub(crate) struct Watched<T> {
    value: Mutex<T>,
    changes: Notify,
}

impl<T: Copy> Watched<T> {
    pub(crate) fn new(value: T) -> Self {
        Self { value: Mutex::new(value), changes: Notify::new() }
    }

    pub(crate) fn get(&self) -> T {
        *self.lock()
    }

    pub(crate) fn set(&self, value: T) {
        self.modify(|old| {
            *old = value;
            true
        });
    }

    /// Lets `change` change the value; it says whether it has.
    pub(crate) fn modify(&self, change: impl FnOnce(&mut T) -> bool) {
        let has_changed = change(&mut self.lock());
        if has_changed {
            self.changes.notify_waiters();
        }
    }

    /// Waits until the value is as it is wanted. Waiting changes nothing.
    pub(crate) async fn wait_for(&self, is_wanted: impl Fn(T) -> bool) -> T {
        loop {
            // Before looking: it hears of every change from here on.
            let change = self.changes.notified();
            let value = self.get();
            if is_wanted(value) {
                return value;
            }
            change.await;
        }
    }

    fn lock(&self) -> MutexGuard<'_, T> {
        self.value.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use futures::FutureExt;
    use futures::stream::{FuturesUnordered, StreamExt};

    use super::*;

    #[test]
    fn a_change_after_the_look_is_not_lost_and_one_that_nobody_wants_wakes_nobody_for_good() {
        let value = Watched::new(0);
        let mut three = std::pin::pin!(value.wait_for(|value| value >= 3));
        assert_eq!(three.as_mut().now_or_never(), None);
        value.set(2);
        assert_eq!(three.as_mut().now_or_never(), None);
        value.modify(|value| std::mem::replace(value, 3) != 3);
        assert_eq!(three.now_or_never(), Some(3));
        assert_eq!(value.wait_for(|value| value == 3).now_or_never(), Some(3));
    }

    #[test]
    fn tasks_are_woken_in_the_order_in_which_they_began_to_wait() {
        let value = Arc::new(Watched::new(false));
        let waits = |number: usize| {
            let value = value.clone();
            async move {
                value.wait_for(|value| value).await;
                number
            }
        };
        // Futures that are woken are polled in the order of their wake-ups.
        let mut tasks: FuturesUnordered<_> = (0..100).map(waits).collect();
        assert_eq!(tasks.next().now_or_never(), None);
        let first_to_wait: Vec<usize> = (0..100).collect();
        value.set(true);
        let woken: Vec<usize> = tasks.collect().now_or_never().expect("all are woken");
        assert!(woken == first_to_wait || woken.iter().rev().eq(&first_to_wait), "{woken:?}");
    }
}
