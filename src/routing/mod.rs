//! Where messages go: plain data structures, without locks and without I/O.

pub(crate) mod round_robin;
