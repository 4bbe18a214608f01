//! The background I/O task: it owns a socket's peers and moves bytes and messages between them and the queues.

pub(crate) mod departure;
pub(crate) mod dial;
pub(crate) mod drive;
pub(crate) mod flood;
pub(crate) mod inward;
pub(crate) mod listen;
#[cfg(all(test, sinew_loom))]
mod model;
pub(crate) mod outgoing;
pub(crate) mod outward;
pub(crate) mod pattern;
pub(crate) mod peer;
pub(crate) mod peers;
pub(crate) mod shared;
pub(crate) mod slabs;
pub(crate) mod state;
pub(crate) mod task;
pub(crate) mod timers;
pub(crate) mod unfinished;
pub(crate) mod vigil;
pub(crate) mod waiting;
pub(crate) mod watched;
