//! What a run's network has carried, and when, as one number: the same seed gives the same number, whenever and wherever it runs.

use std::fmt;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::sync::Arc;

use tokio::time::Instant;

use crate::sync::{Mutex, lock};

/// What somebody has done on a connection.
#[derive(Debug, Hash)]
pub(super) enum Did<'a> {
    /// With who dials, and where.
    Dial(u16, u8),
    Write(&'a [u8]),
    Read(usize),
    ShutDown,
    Close,
    Disturb,
}

struct State {
    start: Instant,
    hasher: DefaultHasher,
    /// Where all of it is printed, for looking for the first difference: `SINEW_SIM_TRACE=1`.
    prints: bool,
}

/// Made where the virtual clock is.
#[derive(Clone)]
pub(super) struct Trace(Arc<Mutex<State>>);

impl fmt::Debug for Trace {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Trace").finish_non_exhaustive()
    }
}

impl Trace {
    pub(super) fn new() -> Self {
        let prints = std::env::var_os("SINEW_SIM_TRACE").is_some();
        Self(Arc::new(Mutex::new(State { start: Instant::now(), hasher: DefaultHasher::new(), prints })))
    }

    /// Something has happened on this side of this connection.
    pub(super) fn note(&self, connection: usize, side: usize, did: Did<'_>) {
        let mut state = lock(&self.0);
        let at = state.start.elapsed();
        (at, connection, side, &did).hash(&mut state.hasher);
        if state.prints {
            match did {
                Did::Write(bytes) => println!("{at:?} {connection}.{side} Write {}", bytes.escape_ascii()),
                did => println!("{at:?} {connection}.{side} {did:?}"),
            }
        }
    }

    pub(super) fn digest(&self) -> u64 {
        lock(&self.0).hasher.finish()
    }
}
