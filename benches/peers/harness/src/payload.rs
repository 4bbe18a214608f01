//! Payloads that carry what the receiver checks.

use bytes::Bytes;

/// The filler of every body, neither zero (which the allocator gets for free) nor repeated by the counter.
pub(crate) const FILL: u8 = 0x5a;

/// Bits of the head that number the messages; the bits above name the source.
const COUNTER_BITS: u32 = 48;

/// Makes the payloads of one source: a head of eight bytes (source, counter), then filler.
#[derive(Debug)]
pub struct Payload {
    size: usize,
    head: u64,
    shared: Bytes,
}

impl Payload {
    /// The payloads of source number `source`.
    pub fn new(size: usize, source: usize) -> Self {
        Self { size, head: (source as u64) << COUNTER_BITS, shared: vec![FILL; size].into() }
    }

    /// The next payload, freshly allocated.
    #[inline]
    pub fn fresh(&mut self) -> Vec<u8> {
        let mut body = vec![FILL; self.size];
        body[..8].copy_from_slice(&self.next_head().to_le_bytes());
        body
    }

    /// Bytes in each payload.
    #[inline]
    pub fn size(&self) -> usize {
        self.size
    }

    /// The next payload in two parts, the head and the filler.
    pub fn split(&mut self) -> ([u8; 8], &[u8]) {
        (self.next_head().to_le_bytes(), &self.shared[8..])
    }

    /// Writes the next payload to the end of a buffer.
    #[inline]
    pub fn append_to(&mut self, buffer: &mut Vec<u8>) {
        let head = self.next_head();
        buffer.extend_from_slice(&head.to_le_bytes());
        buffer.extend_from_slice(&self.shared[8..]);
    }

    /// The payload that all messages share; it has no counter.
    pub fn shared(&self) -> &Bytes {
        &self.shared
    }

    #[inline]
    fn next_head(&mut self) -> u64 {
        let head = self.head;
        self.head += 1;
        head
    }
}

/// The source and the counter of a body.
#[inline]
pub(crate) fn read_head(body: &[u8]) -> Option<(usize, u64)> {
    let head = u64::from_le_bytes(*body.first_chunk()?);
    let source = usize::try_from(head >> COUNTER_BITS).ok()?;
    Some((source, head & ((1 << COUNTER_BITS) - 1)))
}

/// A body of `size` bytes with a head that no [`Payload`] reaches: `mark` counts from the top.
pub(crate) fn marker(size: usize, mark: u64) -> Vec<u8> {
    let mut body = vec![FILL; size];
    body[..8].copy_from_slice(&(u64::MAX - mark).to_le_bytes());
    body
}

/// The mark of a body made by [`marker`], if it is one.
#[inline]
pub(crate) fn read_mark(body: &[u8]) -> Option<u64> {
    let head = u64::from_le_bytes(*body.first_chunk()?);
    (head > u64::MAX - 16).then(|| u64::MAX - head)
}
