//! The engine's state: everything that the I/O task owns, and how it goes to sleep.

use std::collections::hash_map::Entry;
use std::collections::{HashMap, VecDeque};
use std::net::IpAddr;
use std::sync::Arc;

use tokio::time::Instant;

use crate::engine::pattern::{Inward, Pattern};
use crate::engine::peers::Peers;
use crate::engine::shared::Shared;
use crate::engine::slabs::Slabs;
use crate::engine::unfinished::Unfinished;
use crate::engine::vigil::Duties;
use crate::engine::waiting::{History, Waiting};
use crate::monitor::{self, PeerId, PeerStats};

/// A socket that has been told to close.
#[derive(Debug, Clone, Copy)]
pub(super) struct Closing {
    /// `None`: longer than time is counted.
    pub(super) deadline: Option<Instant>,
    /// Messages written before the socket was closed.
    pub(super) sent_before: u64,
    /// Messages that were dropped since because their peers were lost.
    pub(super) lost: u64,
}

/// How many connections are in the handshake, by the address that they come from.
#[derive(Debug, Default)]
pub(super) struct Sources(HashMap<IpAddr, usize>);

impl Sources {
    /// Counts one more; `false` if there are as many as may be.
    pub(super) fn enter(&mut self, source: IpAddr, limit: usize) -> bool {
        let count = self.0.entry(source).or_default();
        let admits = *count < limit;
        *count += usize::from(admits);
        admits
    }

    pub(super) fn leave(&mut self, source: IpAddr) {
        if let Entry::Occupied(mut entry) = self.0.entry(source) {
            *entry.get_mut() -= 1;
            if *entry.get() == 0 {
                entry.remove();
            }
        }
    }
}

/// Everything that the I/O task owns.
#[derive(Debug)]
pub(crate) struct Engine<P> {
    pub(super) shared: Arc<Shared>,
    pub(super) pattern: P,
    pub(super) peers: Peers,
    pub(super) slabs: Slabs,
    pub(super) next_peer: u64,
    /// Peers that have finished the handshake.
    pub(super) ready_peers: usize,
    /// Peers that may have something to read, in the order of their turns.
    pub(super) readable: VecDeque<usize>,
    /// Peers with messages that found no room.
    pub(super) waiting: VecDeque<usize>,
    /// Bytes that wait for room, over all peers.
    pub(super) waiting_bytes: usize,
    /// The size of the smallest message that found no room in this turn.
    pub(super) waiting_size: usize,
    /// Messages that have not come whole.
    pub(super) unfinished: Unfinished,
    /// Messages of peers that have gone that found no room; the slot is their lane.
    pub(super) orphans: VecDeque<(usize, Arc<monitor::Peer>, Waiting)>,
    /// What waits for room of a pattern that wants it in one order.
    pub(super) history: History,
    /// A scratch buffer, for users that spin.
    pub(super) scratch: Vec<u8>,
    /// A scratch list of what has come for the user.
    pub(super) inward: Vec<Inward>,
    /// A scratch list of woken peers.
    pub(super) woken: Vec<usize>,
    /// How often the write was put off to collect more.
    pub(super) collected: usize,
    /// Emptied batches are kept whose buffers an idle socket should not hold.
    pub(super) keeps_much: bool,
    /// Such a one has been filled since the last look.
    pub(super) needs_much: bool,
    /// When the I/O task will look at the time, as far as it has said.
    pub(super) armed: Option<Instant>,
    /// When to look whether large buffers are still of use.
    pub(super) release_at: Option<Instant>,
    /// Until when peers must have finished the handshake, in order.
    pub(super) handshakes: VecDeque<(Instant, usize, PeerId)>,
    /// Where connections come from that are in the handshake.
    pub(super) sources: Sources,
    /// What is due for which peer.
    pub(super) duties: Duties,
    /// Until when peers that we have left may go on reading, in order.
    pub(super) leaving: VecDeque<(Instant, usize, PeerId)>,
    pub(super) closing: Option<Closing>,
}

impl<P: Pattern> Engine<P> {
    pub(crate) fn new(shared: Arc<Shared>, pattern: P) -> Self {
        Self {
            shared,
            pattern,
            peers: Peers::default(),
            slabs: Slabs::default(),
            next_peer: 1,
            ready_peers: 0,
            readable: VecDeque::new(),
            waiting: VecDeque::new(),
            waiting_bytes: 0,
            waiting_size: usize::MAX,
            unfinished: Unfinished::default(),
            orphans: VecDeque::new(),
            history: History::default(),
            scratch: Vec::new(),
            inward: Vec::new(),
            woken: Vec::new(),
            collected: 0,
            keeps_much: false,
            needs_much: false,
            armed: None,
            release_at: None,
            handshakes: VecDeque::new(),
            sources: Sources::default(),
            duties: Duties::default(),
            leaving: VecDeque::new(),
            closing: None,
        }
    }

    /// The numbers of all peers that have finished the handshake.
    pub(crate) fn peer_stats(&mut self) -> Vec<PeerStats> {
        let (pattern, counters) = (&self.pattern, &self.shared.counters);
        let stats = self.peers.iter_mut().filter(|(_, peer)| !peer.leaving).filter_map(|(slot, peer)| {
            let (socket_type, version) = peer.kind?;
            let (messages, payload) = peer.out.take_settled();
            peer.counts.sent += messages as u64;
            peer.counts.bytes_sent += payload;
            counters.messages_sent.add(messages);
            counters.bytes_sent.add(payload);
            let (queued_messages, queued_bytes) = peer.out.depth();
            Some(PeerStats {
                peer: peer.about.clone(),
                socket_type,
                version,
                messages_sent: peer.counts.sent,
                bytes_sent: peer.counts.bytes_sent as u64,
                messages_received: peer.counts.received,
                bytes_received: peer.counts.bytes_received,
                messages_dropped: peer.counts.dropped,
                queued_messages,
                queued_bytes,
                subscriptions: pattern.subscriptions(slot),
                is_congested: peer.vigil.is_congested,
                is_losing: pattern.is_losing(slot),
            })
        });
        stats.collect()
    }

    /// Says what to be woken for; `false` if there is something to do already.
    pub(super) fn sleep(&self) -> bool {
        if !self.readable.is_empty() {
            return false;
        }
        let waits = self.waiting_bytes > 0 || self.history.next_size().is_some();
        let inbound_sleeps = !waits || self.shared.inbound.sleep(self.waiting_size);
        self.shared.outbound.sleep(self.pattern.has_room()) && inbound_sleeps
    }
}
