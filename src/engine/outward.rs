//! Outward: the steps that route the outbound FIFO and write to peers.

use crate::engine::outgoing::Written;
use crate::engine::pattern::{Pattern, Reach, Unsent};
use crate::engine::peer::Peer;
use crate::engine::state::Engine;
use crate::monitor::DisconnectReason;
use crate::zmtp::encoder::{BATCH_BYTES, Batch, SMALL_BUFFER};

/// How often more is collected for one write while senders wait for room.
const COLLECT_ROUNDS: usize = 64;

/// With several peers less is collected for each, but this much: what is written should still be in the processor's cache.
const COLLECT_BYTES: usize = 64 * 1024;

/// So many batches are routed in one turn: a sender that keeps up with a publisher must not keep it from all else.
const ROUTE_BATCHES: usize = 16;

impl<P: Pattern> Engine<P> {
    /// Gives queued messages to peers with room; `true` if senders waited for it.
    pub(super) fn route(&mut self) -> bool {
        let mut senders_waited = false;
        for _ in 0..ROUTE_BATCHES {
            if !self.pattern.has_room() {
                break;
            }
            let Some(taken) = self.shared.outbound.take() else {
                break;
            };
            if P::UNSENT == Unsent::Drop {
                self.make_room(taken.messages, taken.payload);
            }
            let rest = self.pattern.route(taken.batch, Reach { peers: &mut self.peers, shared: &self.shared });
            let (rest, spare) = rest.map_or((None, None), |batch| match batch.is_empty() {
                true => (None, Some(batch)),
                false => (Some(batch), None),
            });
            senders_waited |= self.shared.outbound.settle(taken.messages, taken.payload, rest);
            if let Some(spare) = spare {
                self.note_kept(&spare);
                self.shared.outbound.recycle(spare);
            }
            self.dismiss();
        }
        senders_waited
    }

    /// Ends the connections that the pattern no longer wants.
    pub(super) fn dismiss(&mut self) {
        while let Some(slot) = self.pattern.dismissed() {
            self.end(slot, DisconnectReason::TooSlow);
        }
    }

    /// Writes to those peers that would go beyond their marks by so much more: nothing is to be dropped for a peer that takes
    /// what it is given.
    fn make_room(&mut self, messages: usize, payload: usize) {
        let mark = self.shared.options.subscriber_mark();
        let mut writable = self.peers.take_writable();
        writable.retain(|slot| {
            let exceeds = |peer: &mut Peer| peer.out.would_exceed(mark, messages, payload);
            let exceeds = self.peers.get_mut(*slot).is_some_and(exceeds);
            if exceeds {
                self.write_peer(*slot);
            }
            !exceeds
        });
        self.peers.restore_writable(writable);
    }

    /// Writes to every peer that has something to send; `true` if some writes were put off.
    pub(super) fn write(&mut self, more_will_come: bool) -> bool {
        // While senders wait for room there is more to come at once: one large write is cheaper than many small ones.
        let collect =
            more_will_come && self.pattern.has_room() && self.collected < COLLECT_ROUNDS && self.closing.is_none();
        let mut put_off = false;
        let mut writable = self.peers.take_writable();
        let enough = (BATCH_BYTES / writable.len().max(1)).max(COLLECT_BYTES);
        let mut index = 0;
        while let Some(&slot) = writable.get(index) {
            let small = |peer: &mut Peer| (1..enough).contains(&peer.out.pending());
            if collect && self.peers.get_mut(slot).is_some_and(small) {
                put_off = true;
                index += 1;
            } else {
                writable.swap_remove(index);
                self.write_peer(slot);
            }
        }
        self.peers.restore_writable(writable);
        self.collected = if put_off { self.collected + 1 } else { 0 };
        put_off
    }

    pub(super) fn write_peer(&mut self, slot: usize) {
        let Some(peer) = self.peers.get_mut(slot) else {
            return;
        };
        peer.in_writable = false;
        let mut written = Written::default();
        let (had_room, before) = (peer.has_room(), peer.out.pending());
        let result = peer.write(&mut written);
        let progress = peer.out.pending() < before;
        if peer.connection.control().is_empty() {
            peer.vigil.control_left();
        }
        let has_room = peer.has_room();
        if written.messages > 0 {
            peer.counts.sent += written.messages as u64;
            peer.counts.bytes_sent += written.payload;
            self.pattern.written(slot, peer, &self.shared);
        }
        self.count(written);
        self.note_congestion(slot, progress);
        if has_room != had_room && self.peers.get_mut(slot).is_some_and(|peer| peer.connection.is_ready()) {
            if has_room { self.pattern.writable(slot) } else { self.pattern.full(slot) }
        }
        if let Err(error) = result {
            if P::SOCKET_TYPE.receives() {
                // The peer may have sent messages before it went; reading finds its end.
                self.make_readable(slot);
            } else {
                self.end(slot, DisconnectReason::Io(error.kind()));
            }
        }
    }

    /// A batch will be kept for its buffer.
    fn note_kept(&mut self, batch: &Batch) {
        self.keeps_much |= batch.capacity() > SMALL_BUFFER;
        self.needs_much |= batch.filled() > SMALL_BUFFER;
    }

    pub(super) fn count(&mut self, written: Written) {
        let counters = &self.shared.counters;
        counters.messages_sent.add(written.messages);
        counters.bytes_sent.add(written.payload);
        for batch in written.spare {
            self.note_kept(&batch);
            if let Some(batch) = self.peers.recycle(batch) {
                self.shared.outbound.recycle(batch);
            }
        }
    }
}
