//! Where messages go: plain data structures, without locks and without I/O.

pub(crate) mod prefixes;
pub(crate) mod round_robin;
pub(crate) mod sieve;
pub(crate) mod topics;
