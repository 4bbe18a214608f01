//! Read buffers, shared by all peers of a socket: an idle peer holds none.

use bytes::BytesMut;

/// Reads begin with this size …
const SMALLEST: usize = 8 * 1024;
/// … and grow up to this one while they come back full.
const LARGEST: usize = 256 * 1024;
/// So many emptied buffers are kept: a full inbound queue of middling messages shares several.
const SPARE: usize = 8;

/// The buffers that are free, and the size that reads have at present.
#[derive(Debug)]
pub(crate) struct Slabs {
    size: usize,
    spare: Vec<BytesMut>,
    /// A read was larger than the smallest buffer since the last look.
    needed: bool,
}

impl Default for Slabs {
    fn default() -> Self {
        Self { size: SMALLEST, spare: Vec::new(), needed: false }
    }
}

impl Slabs {
    /// An empty buffer with room for a read.
    pub(crate) fn take(&mut self) -> BytesMut {
        let free = self.spare.iter_mut().position(|slab| slab.try_reclaim(self.size));
        match free {
            Some(index) => self.spare.swap_remove(index),
            None => BytesMut::with_capacity(self.size),
        }
    }

    /// Takes a buffer back, when its contents have been used or are shared with others.
    pub(crate) fn put(&mut self, mut slab: BytesMut) {
        slab.clear();
        if self.spare.len() < SPARE {
            self.spare.push(slab);
        } else {
            // The oldest one may be kept busy by a user for long.
            self.spare.rotate_left(1);
            self.spare[SPARE - 1] = slab;
        }
    }

    /// Gives buffers of the smallest size back: a socket that receives no messages reads little, and seldom.
    pub(crate) fn keep_no_small_ones(&mut self) {
        if !self.is_large() {
            self.spare.clear();
        }
    }

    /// Learns from a read of `count` bytes where there was room for `room`.
    pub(crate) fn learn(&mut self, count: usize, room: usize) {
        self.needed |= count > SMALLEST;
        if count == room {
            self.size = (self.size * 4).min(LARGEST);
        }
    }

    /// Whether buffers are larger than those of a conversation of small messages.
    pub(crate) fn is_large(&self) -> bool {
        self.size > SMALLEST
    }

    /// Whether they had to be since the last look.
    pub(crate) fn take_needed(&mut self) -> bool {
        std::mem::take(&mut self.needed)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_buffer_is_used_again_once_nobody_shares_it() {
        let mut slabs = Slabs::default();
        let mut slab = slabs.take();
        slab.extend_from_slice(b"message");
        let address = slab.as_ptr();
        let message = slab.split().freeze();
        slabs.put(slab);
        assert_ne!(slabs.take().as_ptr(), address);
        drop(message);
        assert_eq!(slabs.take().as_ptr(), address);
    }

    #[test]
    fn reads_grow_while_they_are_full() {
        let mut slabs = Slabs::default();
        assert_eq!(slabs.take().capacity(), SMALLEST);
        slabs.learn(SMALLEST, SMALLEST);
        assert!(slabs.is_large() && !slabs.take_needed());
        for _ in 0..5 {
            slabs.learn(SMALLEST + 1, SMALLEST + 1);
        }
        slabs.learn(100, LARGEST);
        assert_eq!(slabs.take().capacity(), LARGEST);
        assert!(slabs.take_needed());
        slabs.learn(SMALLEST, LARGEST);
        assert!(slabs.is_large() && !slabs.take_needed());
    }
}
