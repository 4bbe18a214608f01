//! The table of peers, by slot.

use std::collections::HashMap;

use crate::engine::peer::Peer;
use crate::monitor::PeerId;
use crate::zmtp::encoder::{BATCH_BYTES, Batch};

/// Emptied batches that are kept for their buffers while messages are dealt out to many peers.
const SPARE_BATCHES: usize = 16;
const SPARE_BYTES: usize = 2 * BATCH_BYTES;
/// A peer that may get little, and keep it for long, gets none that is larger.
const SMALL_SPARE_BYTES: usize = 64 * 1024;

/// Takes a spare buffer for a peer that may get little.
pub(crate) fn small_spare(spare: &mut Vec<Batch>) -> Batch {
    let small = spare.iter().rposition(|batch| batch.capacity() <= SMALL_SPARE_BYTES);
    small.map(|index| spare.swap_remove(index)).unwrap_or_default()
}

/// A socket's peers. A slot is reused after its peer has gone.
#[derive(Debug, Default)]
pub(crate) struct Peers {
    slots: Vec<Option<Peer>>,
    free: Vec<usize>,
    /// Peers that something was given to and that have not been written to since.
    writable: Vec<usize>,
    spare: Vec<Batch>,
    /// Where each peer is.
    ids: HashMap<PeerId, usize>,
}

impl Peers {
    /// The slot that the next peer will get.
    pub(crate) fn next_slot(&self) -> usize {
        self.free.last().copied().unwrap_or(self.slots.len())
    }

    /// Puts a peer into [`next_slot`](Self::next_slot).
    pub(crate) fn insert(&mut self, peer: Peer) {
        self.ids.insert(peer.about.id, self.next_slot());
        match self.free.pop() {
            Some(slot) => self.slots[slot] = Some(peer),
            None => self.slots.push(Some(peer)),
        }
    }

    #[inline]
    pub(crate) fn get_mut(&mut self, slot: usize) -> Option<&mut Peer> {
        self.slots.get_mut(slot)?.as_mut()
    }

    pub(crate) fn remove(&mut self, slot: usize) -> Option<Peer> {
        let peer = self.slots.get_mut(slot)?.take()?;
        self.free.push(slot);
        self.ids.remove(&peer.about.id);
        Some(peer)
    }

    /// Slots beyond this one are not in use.
    pub(crate) fn slot_count(&self) -> usize {
        self.slots.len()
    }

    /// How many there are.
    pub(crate) fn len(&self) -> usize {
        self.ids.len()
    }

    /// Where a peer is.
    pub(crate) fn slot_of(&self, id: PeerId) -> Option<usize> {
        self.ids.get(&id).copied()
    }

    pub(crate) fn iter_mut(&mut self) -> impl Iterator<Item = (usize, &mut Peer)> {
        self.slots.iter_mut().enumerate().filter_map(|(slot, peer)| Some((slot, peer.as_mut()?)))
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = (usize, &Peer)> {
        self.slots.iter().enumerate().filter_map(|(slot, peer)| Some((slot, peer.as_ref()?)))
    }

    pub(crate) fn slots(&self) -> Vec<usize> {
        self.iter().map(|(slot, _)| slot).collect()
    }

    /// Gives a peer a change, after which it may have something to write.
    #[inline]
    pub(crate) fn give<R>(&mut self, slot: usize, give: impl FnOnce(&mut Peer, &mut Vec<Batch>) -> R) -> Option<R> {
        let peer = self.slots.get_mut(slot)?.as_mut()?;
        let result = give(peer, &mut self.spare);
        if !peer.in_writable && peer.wants_write() {
            peer.in_writable = true;
            self.writable.push(slot);
        }
        Some(result)
    }

    /// The peers that have something to write.
    pub(crate) fn take_writable(&mut self) -> Vec<usize> {
        std::mem::take(&mut self.writable)
    }

    /// Puts the list back for its buffer, with the peers that are still to be written.
    pub(crate) fn restore_writable(&mut self, writable: Vec<usize>) {
        self.writable = writable;
    }

    /// Gives buffers back that an idle socket should not hold.
    pub(crate) fn release(&mut self) {
        self.spare.clear();
    }

    /// Keeps an emptied batch for its buffer; gives it back if there is no need.
    pub(crate) fn recycle(&mut self, mut batch: Batch) -> Option<Batch> {
        if self.len() < 2 || batch.capacity() > SPARE_BYTES || self.spare.len() >= SPARE_BATCHES {
            return Some(batch);
        }
        batch.clear();
        self.spare.push(batch);
        None
    }
}
