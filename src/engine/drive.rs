//! The engine as the handles see it, whatever its pattern.

use std::fmt::Debug;
use std::future::Future;
use std::pin::{Pin, pin};
use std::sync::{Arc, TryLockError};
use std::task::{Context, Poll, Waker};

use tokio::task::coop::unconstrained;

use crate::engine::pattern::{Pattern, Reach};
use crate::engine::shared::Shared;
use crate::engine::state::Engine;
use crate::engine::task;
use crate::monitor::PeerStats;
use crate::sync::{Mutex, lock};

/// What handles do with an engine.
pub(crate) trait Drive: Debug + Send + Sync {
    /// Drives the engine on the caller's time, unless somebody does already: work that is here is done here, without a hop
    /// to another task or thread. `sending`: see [`Engine::turn_for_user`].
    fn take_turn(&self, sending: bool) -> bool;

    /// Looks once for bytes that have come, without the runtime; `true` if there were some.
    fn read_now(&self) -> bool;

    /// The I/O task.
    fn run(self: Arc<Self>, shared: Arc<Shared>) -> Pin<Box<dyn Future<Output = ()> + Send>>;

    /// Whether a second `connect` to the same endpoint makes no second connection: a subscriber would get everything twice.
    fn connects_once(&self) -> bool;

    /// Calls `then` with the numbers of all peers that have finished the handshake, while the engine does nothing.
    fn rest(&self, then: &mut dyn FnMut(Vec<PeerStats>));
}

/// Lets a handle do something with the pattern itself, once all that was sent before has been routed, unless that has to
/// wait. Waits for the turn that the engine may be taking.
pub(crate) fn consult<P: Pattern, R>(engine: &Mutex<Engine<P>>, what: impl FnOnce(&mut P, Reach<'_>) -> R) -> R {
    let mut engine = lock(engine);
    unbudgeted(|| engine.route_for_user());
    let Engine { pattern, peers, shared, .. } = &mut *engine;
    what(pattern, Reach { peers, shared })
}

/// Polls streams for a user's task: one that has used up its budget would be told that they are not ready, which is not
/// true.
fn unbudgeted(mut poll: impl FnMut()) {
    let poll = std::future::poll_fn(|_| {
        poll();
        Poll::Ready(())
    });
    let _ = pin!(unconstrained(poll)).poll(&mut Context::from_waker(Waker::noop()));
}

impl<P: Pattern> Drive for Mutex<Engine<P>> {
    fn take_turn(&self, sending: bool) -> bool {
        let mut engine = match self.try_lock() {
            Ok(engine) => engine,
            Err(TryLockError::Poisoned(engine)) => engine.into_inner(),
            Err(TryLockError::WouldBlock) => return false,
        };
        unbudgeted(|| engine.turn_for_user(sending));
        true
    }

    fn read_now(&self) -> bool {
        match self.try_lock() {
            Ok(mut engine) => {
                let mut found = false;
                unbudgeted(|| found = engine.read_now());
                if found && !engine.sleep() {
                    engine.shared.signal.wake();
                }
                found
            }
            Err(_) => false,
        }
    }

    fn run(self: Arc<Self>, shared: Arc<Shared>) -> Pin<Box<dyn Future<Output = ()> + Send>> {
        Box::pin(task::run(self, shared))
    }

    fn connects_once(&self) -> bool {
        P::SOCKET_TYPE.connects_once()
    }

    fn rest(&self, then: &mut dyn FnMut(Vec<PeerStats>)) {
        let mut engine = lock(self);
        then(engine.peer_stats());
    }
}
