//! What users hold: one file per socket type, and what they share.

pub(crate) mod handle;
pub(crate) mod proxy;
pub(crate) mod publish;
pub(crate) mod publisher;
pub(crate) mod pull;
pub(crate) mod push;
pub(crate) mod receiving;
pub(crate) mod sending;
pub(crate) mod subscribe;
pub(crate) mod subscriptions;
pub(crate) mod turns;
pub(crate) mod xpublish;
pub(crate) mod xsubscribe;
