//! The locks, atomics and wakers of everything that tasks wait for: std's or our own, or a model checker's.
//!
//! With `--cfg sinew_loom` the unit tests get loom's, which tries every order in which threads may reach them, and every value
//! that an atomic may show by its ordering. The models are the modules called `model`:
//!
//! ```text
//! RUSTFLAGS="--cfg sinew_loom" CARGO_TARGET_DIR=target/loom cargo test --release --lib model::
//! ```
//!
//! `Arc`s stay std's (`Wake` and `dyn` need them), and so do counters that nobody waits for.

use std::sync::PoisonError;

#[cfg(all(test, sinew_loom))]
pub(crate) use self::checked::{AtomicWaker, BriefLock};
#[cfg(all(test, sinew_loom))]
pub(crate) use loom::{
    sync::atomic::{AtomicBool, AtomicUsize, Ordering},
    sync::{Mutex, MutexGuard},
};

#[cfg(not(all(test, sinew_loom)))]
pub(crate) use {
    self::brief::BriefLock,
    futures::task::AtomicWaker,
    std::sync::atomic::{AtomicBool, AtomicUsize, Ordering},
    std::sync::{Mutex, MutexGuard},
};

/// Locks, whatever a panic elsewhere has left behind: no invariant of ours spans a call into foreign code.
#[inline]
pub(crate) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// The lock of the queues, which every message passes.
#[cfg(not(all(test, sinew_loom)))]
mod brief {
    use std::fmt;
    use std::time::Duration;

    use spin::mutex::{SpinMutex, SpinMutexGuard};

    /// How many pauses of the processor there are each time before a taken lock is looked at again. Who looks more often takes the
    /// lock from its holder after every message, and the queue with it from one processor's cache to the other's.
    const PAUSES: [usize; 5] = [32, 64, 128, 256, 512];

    /// How long who waits sleeps then, before it begins anew: the holder has lost the processor, or others take turns.
    const SLEEP: Duration = Duration::from_micros(50);

    /// A lock that is held for a moment: while a message, or some dozens, are copied. It is let go by a plain store: std's needs
    /// an exchange for it, which waits until all that was stored under the lock has left the store buffer. For that nobody is
    /// woken: who waits looks again. A guard is not to be kept over an `await`.
    #[derive(Default)]
    pub(crate) struct BriefLock<T>(SpinMutex<T>);

    /// Without what it guards: nothing is written somewhere while it is held.
    impl<T> fmt::Debug for BriefLock<T> {
        fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            f.debug_struct("BriefLock").finish_non_exhaustive()
        }
    }

    impl<T> BriefLock<T> {
        pub(crate) fn new(value: T) -> Self {
            Self(SpinMutex::new(value))
        }

        #[inline]
        pub(crate) fn lock(&self) -> SpinMutexGuard<'_, T> {
            self.0.try_lock().unwrap_or_else(|| self.wait())
        }

        #[cold]
        fn wait(&self) -> SpinMutexGuard<'_, T> {
            loop {
                for pauses in PAUSES {
                    for _ in 0..pauses {
                        std::hint::spin_loop();
                    }
                    if let Some(guard) = self.0.try_lock() {
                        return guard;
                    }
                }
                std::thread::sleep(SLEEP);
            }
        }
    }

    #[cfg(test)]
    mod tests {
        use std::sync::Arc;
        use std::thread;

        use super::*;

        #[test]
        fn one_thread_at_a_time_has_it() {
            const ROUNDS: u64 = 20_000;
            let lock = Arc::new(BriefLock::new((0_u64, 0_u64)));
            let count = || {
                let lock = lock.clone();
                thread::spawn(move || {
                    for _ in 0..ROUNDS {
                        let mut both = lock.lock();
                        both.0 += 1;
                        assert_eq!(both.0, both.1 + 1, "somebody else has it too");
                        both.1 += 1;
                    }
                })
            };
            for thread in [count(), count(), count(), count()] {
                thread.join().unwrap();
            }
            assert_eq!(*lock.lock(), (4 * ROUNDS, 4 * ROUNDS));
        }

        /// The processor time that this thread has had.
        fn spent() -> Duration {
            let time = rustix::time::clock_gettime(rustix::time::ClockId::ThreadCPUTime);
            Duration::try_from(time).unwrap()
        }

        #[test]
        fn who_waits_for_long_sleeps() {
            const HELD: Duration = Duration::from_millis(200);
            let lock = Arc::new(BriefLock::new(1));
            let held = lock.lock();
            let other = lock.clone();
            let (begins, has_begun) = std::sync::mpsc::channel();
            let waiting = thread::spawn(move || {
                begins.send(()).unwrap();
                assert_eq!(*other.lock(), 1);
                spent()
            });
            has_begun.recv().unwrap();
            thread::sleep(HELD);
            drop(held);
            let spent = waiting.join().unwrap();
            assert!(spent < HELD / 2, "{spent:?}");
        }

        #[test]
        fn a_panic_under_it_lets_it_go() {
            let lock = Arc::new(BriefLock::new(0));
            let other = lock.clone();
            let panicked = thread::spawn(move || {
                let _held = other.lock();
                panic!("on purpose");
            });
            assert!(panicked.join().is_err());
            assert_eq!(*lock.lock(), 0);
        }
    }
}

/// What loom names differently, and how its models are run.
#[cfg(all(test, sinew_loom))]
pub(crate) mod checked {
    use std::sync::Arc;
    use std::sync::atomic::{AtomicUsize, Ordering};
    use std::task::Waker;

    use loom::sync::{Mutex, MutexGuard};

    /// The model's lock stands for ours, which lets go with a store that releases.
    #[derive(Debug, Default)]
    pub(crate) struct BriefLock<T>(Mutex<T>);

    impl<T> BriefLock<T> {
        pub(crate) fn new(value: T) -> Self {
            Self(Mutex::new(value))
        }

        pub(crate) fn lock(&self) -> MutexGuard<'_, T> {
            super::lock(&self.0)
        }
    }

    #[derive(Debug)]
    pub(crate) struct AtomicWaker(loom::future::AtomicWaker);

    impl AtomicWaker {
        pub(crate) fn new() -> Self {
            Self(loom::future::AtomicWaker::new())
        }

        pub(crate) fn register(&self, waker: &Waker) {
            self.0.register_by_ref(waker);
        }

        pub(crate) fn wake(&self) {
            self.0.wake();
        }
    }

    /// Steps of one execution; a model that needs more does not end.
    const STEPS: usize = 20_000;

    /// Runs a model in every order in which no more than `preemptions` threads lose the processor against their will; `None`:
    /// in every order. A thread that waits for a wake-up which does not come is a deadlock, and an error.
    pub(crate) fn model(preemptions: impl Into<Option<usize>>, run: impl Fn() + Send + Sync + 'static) {
        let mut builder = loom::model::Builder::new();
        builder.max_branches = STEPS;
        builder.preemption_bound = preemptions.into();
        let orders = Arc::new(AtomicUsize::new(0));
        let counted = orders.clone();
        builder.check(move || {
            counted.fetch_add(1, Ordering::Relaxed);
            run();
        });
        println!("{} orders", orders.load(Ordering::Relaxed));
    }
}
