//! What users hold: one type per socket type.

pub(crate) mod handle;
pub(crate) mod pull;
pub(crate) mod push;
