//! The locks, atomics and wakers of everything that tasks wait for: std's, or a model checker's.
//!
//! With `--cfg sinew_loom` the unit tests get loom's, which tries every order in which threads may reach them, and every value
//! that an atomic may show by its ordering. The models are the modules called `model`:
//!
//! ```text
//! RUSTFLAGS="--cfg sinew_loom" CARGO_TARGET_DIR=target/loom cargo test --release --lib model::
//! ```
//!
//! `Arc`s stay std's (`Wake` and `dyn` need them), and so do counters that nobody waits for.

#[cfg(all(test, sinew_loom))]
pub(crate) use self::checked::AtomicWaker;
#[cfg(all(test, sinew_loom))]
pub(crate) use loom::{
    sync::atomic::{AtomicBool, AtomicUsize, Ordering},
    sync::{Mutex, MutexGuard},
};

#[cfg(not(all(test, sinew_loom)))]
pub(crate) use {
    futures::task::AtomicWaker,
    std::sync::atomic::{AtomicBool, AtomicUsize, Ordering},
    std::sync::{Mutex, MutexGuard},
};

/// What loom names differently, and how its models are run.
#[cfg(all(test, sinew_loom))]
pub(crate) mod checked {
    use std::sync::Arc;
    use std::sync::atomic::{AtomicUsize, Ordering};
    use std::task::Waker;

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
