//! Numbers: running totals of a socket, and what became of its messages when it was closed.

use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};

/// What close has done with the messages that were left.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[non_exhaustive]
pub struct Closed {
    /// Messages that were still queued when the socket was closed, and were handed to the kernel since.
    pub flushed: u64,
    /// Messages that could not be handed to the kernel before the linger time was over.
    pub unsent: u64,
    /// Messages that had arrived and were never received; at an XPUB also subscriptions and cancellations.
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
    /// Messages that came from peers whole, received by the user or not. Subscriptions and cancellations are none, also where
    /// an XPUB receives them as messages.
    pub messages_received: u64,
    /// Bytes that came from peers, including all of the protocol's.
    pub bytes_received: u64,
    /// Messages that went back to the outbound queue because their peer was lost before they had left.
    pub messages_returned: u64,
    /// Messages from peers that have no right to send to this type of socket; they were dropped.
    pub messages_refused: u64,
    /// Messages that were dropped; a message that is dropped for several peers counts for each. The sum of the four that
    /// follow, which say why.
    pub messages_dropped: u64,
    /// Of the dropped ones, those that a peer was too slow for, or was not given because only the latest one is kept for it.
    pub messages_dropped_slow: u64,
    /// Of the dropped ones, those that had not left for a peer when it was lost.
    pub messages_dropped_lost: u64,
    /// Of the dropped ones, those that had come and were replaced by newer ones before they were received (conflate).
    pub messages_dropped_replaced: u64,
    /// Of the dropped ones, an XPUB's reports of subscriptions that were not received and became too many.
    pub messages_dropped_unread: u64,
    /// Published messages that nobody had subscribed to; an XSUB's upstream messages when there was no publisher.
    pub messages_unmatched: u64,
    /// How often connecting was tried again, after a failure or after the end of a connection.
    pub connects_retried: u64,
    /// Connections that ended before their handshake was finished.
    pub handshakes_failed: u64,
    /// Connections that were closed at once because there were too many.
    pub connections_refused: u64,
    /// Messages in the outbound queue.
    pub outbound_messages: usize,
    /// Their bodies, in bytes.
    pub outbound_bytes: usize,
    /// Bytes of messages that have not come whole.
    pub unfinished_bytes: usize,
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
    pub(crate) messages_dropped_slow: Counter,
    pub(crate) messages_dropped_lost: Counter,
    pub(crate) messages_dropped_unread: Counter,
    pub(crate) messages_unmatched: Counter,
    pub(crate) connects_retried: Counter,
    pub(crate) handshakes_failed: Counter,
    pub(crate) connections_refused: Counter,
    pub(crate) unfinished_bytes: Level,
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

/// A number that goes up and down.
#[derive(Debug, Default)]
pub(crate) struct Level(AtomicUsize);

impl Level {
    pub(crate) fn set(&self, level: usize) {
        self.0.store(level, Ordering::Relaxed);
    }

    pub(crate) fn get(&self) -> usize {
        self.0.load(Ordering::Relaxed)
    }
}
