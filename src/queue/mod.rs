//! The two queues between a user's `send` and a user's `recv`, each with its exact high-water marks.
//!
//! Both hold messages in their wire encoding, in batches: what crosses between a user's task and the I/O task
//! crosses many messages at a time.

pub(crate) mod inbound;
#[cfg(all(test, sinew_loom))]
mod model;
pub(crate) mod outbound;
pub(crate) mod waiters;

use std::collections::VecDeque;

/// A list that was long once keeps no room for that when it is empty. Short ones keep theirs: they fill again at once.
#[inline]
pub(crate) fn release_if_empty<T>(list: &mut VecDeque<T>) {
    const KEPT: usize = 16;
    if list.is_empty() && list.capacity() > KEPT {
        *list = VecDeque::new();
    }
}
