//! Numbers: running totals of a socket, and what became of its messages when it was closed.

use std::sync::atomic::{AtomicU64, Ordering};

/// What close has done with the messages that were left.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[non_exhaustive]
pub struct Closed {
    /// Messages that were still queued when the socket was closed, and were handed to the kernel since.
    pub flushed: u64,
    /// Messages that could not be handed to the kernel before the linger time was over.
    pub unsent: u64,
    /// Messages that had arrived and were never received.
    pub unread: u64,
}

/// A socket's numbers at one moment; totals count from its creation.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[non_exhaustive]
pub struct Stats {
    /// Peers that have finished the handshake and are connected.
    pub peers: usize,
    /// Messages handed to the kernel whole. Those at the beginning of a batch that the kernel has taken in part count when it
    /// has taken all of it, or when the socket's `peers` are looked at.
    pub messages_sent: u64,
    /// Their bodies, in bytes.
    pub bytes_sent: u64,
    /// Messages that came from peers whole, received by the user or not.
    pub messages_received: u64,
    /// Bytes that came from peers, including all of the protocol's.
    pub bytes_received: u64,
    /// Messages that went back to the outbound queue because their peer was lost before they had left.
    pub messages_returned: u64,
    /// Messages from peers that have no right to send to this type of socket; they were dropped.
    pub messages_refused: u64,
    /// Messages that were dropped for a peer: a publisher's because the subscriber was too slow or was lost, a receiver's
    /// because a newer one replaced them (conflate). A message that is dropped for several peers counts for each.
    pub messages_dropped: u64,
    /// Published messages that nobody had subscribed to; an XSUB's upstream messages when there was no publisher.
    pub messages_unmatched: u64,
    /// Messages in the outbound queue.
    pub outbound_messages: usize,
    /// Their bodies, in bytes.
    pub outbound_bytes: usize,
    /// Messages in the inbound queue.
    pub inbound_messages: usize,
    /// Their bodies, in bytes.
    pub inbound_bytes: usize,
}

/// The running totals, written by the I/O task once per batch.
#[derive(Debug, Default)]
pub(crate) struct Counters {
    pub(crate) messages_sent: Counter,
    pub(crate) bytes_sent: Counter,
    pub(crate) messages_received: Counter,
    pub(crate) bytes_received: Counter,
    pub(crate) messages_returned: Counter,
    pub(crate) messages_refused: Counter,
    pub(crate) messages_dropped: Counter,
    pub(crate) messages_unmatched: Counter,
}

/// A total that only grows.
#[derive(Debug, Default)]
pub(crate) struct Counter(AtomicU64);

impl Counter {
    pub(crate) fn add(&self, count: usize) {
        self.0.fetch_add(count as u64, Ordering::Relaxed);
    }

    pub(crate) fn get(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}
