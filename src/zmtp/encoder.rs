//! Batches of encoded messages: what waits in the outbound FIFO is already what the kernel will get.

use std::collections::VecDeque;
use std::io::IoSlice;

use bytes::Bytes;

use crate::message::{Frame, Message};
use crate::zmtp::command;
use crate::zmtp::frame::{self, Header};

/// Bodies from this size on are chained by reference instead of copied into the flat buffer.
///
/// Below it one contiguous write beats the extra slices and reference counts (PERFORMANCE.md, "Copy or chain").
pub(crate) const CHAIN_FROM: usize = 8 * 1024;

/// A buffer of up to this many bytes is small: one body that is copied finds room in it, with its header.
pub(crate) const SMALL_BUFFER: usize = CHAIN_FROM + 16;

/// A batch that has reached this many bytes on the wire is full: a larger one would no longer be in the processor's cache
/// when it is written.
pub(crate) const BATCH_BYTES: usize = 256 * 1024;

/// As much as one write should take if so much is there: over TCP several batches at once cost far less than one after the
/// other, and still more would make nothing faster (PERFORMANCE.md, "How much in one write").
pub(crate) const WRITE_BYTES: usize = 4 * BATCH_BYTES;

/// A message whose bodies free so much when it is written is written at once, while its peer keeps up. Bodies of this size, which glibc
/// maps apart at first, make it give what is free at the heap's end back to the system when that is as much as two of them: were
/// several freed at a time, fresh pages would be fetched for the next ones (PERFORMANCE.md, "What was tried").
pub(crate) const LARGE_MESSAGE: usize = 128 * 1024;

/// Messages of up to this many bytes on the wire are dealt out with copies of this size.
const DEAL_WINDOW: usize = 80;

/// A flat buffer that has grown to this much will probably be filled: it gets its final size at once.
const GROW_FROM: usize = 16 * 1024;

/// A body kept outside of the flat buffer.
#[derive(Debug)]
struct Chained {
    /// Where in the flat buffer it belongs: right after its header.
    at: usize,
    body: Bytes,
}

/// Encoded messages in order: one flat buffer, with large bodies chained in by reference.
#[derive(Debug, Default)]
pub(crate) struct Batch {
    flat: Vec<u8>,
    /// In the order of `at`.
    chained: VecDeque<Chained>,
    chained_bytes: usize,
    messages: usize,
    payload: usize,
}

/// How far into a batch the kernel has taken it.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Cursor {
    flat: usize,
    chained: usize,
    /// Bytes taken of the chained body that comes next; its header has been taken then.
    inside: usize,
}

/// A place between two messages of a batch.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct Position {
    flat: usize,
    chained: usize,
}

/// Consecutive messages of a batch.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Part {
    pub(crate) start: Position,
    pub(crate) end: Position,
    pub(crate) messages: usize,
    /// The sum of the frame bodies, in bytes.
    pub(crate) payload: usize,
}

impl Part {
    /// Adds the part that follows.
    #[inline]
    pub(crate) fn extend(&mut self, next: &Part) {
        self.end = next.end;
        self.messages += next.messages;
        self.payload += next.payload;
    }

    /// Takes a part off the front.
    #[inline]
    pub(crate) fn shrink(&mut self, front: &Part) {
        self.start = front.end;
        self.messages -= front.messages;
        self.payload -= front.payload;
    }
}

impl From<Position> for Cursor {
    fn from(position: Position) -> Self {
        Self { flat: position.flat, chained: position.chained, inside: 0 }
    }
}

impl Cursor {
    /// Whether everything before a position has been taken.
    #[inline]
    pub(crate) fn has_passed(self, position: Position) -> bool {
        position.flat <= self.flat && position.chained <= self.chained
    }

    /// Whether this is exactly there.
    pub(crate) fn is_at(self, position: Position) -> bool {
        self.flat == position.flat && self.chained == position.chained && self.inside == 0
    }
}

impl Batch {
    /// Encodes a message at the end.
    #[inline]
    pub(crate) fn push(&mut self, message: &Message) {
        self.messages += 1;
        match message.frames() {
            [only] => self.push_frame(only, 0),
            frames => {
                let last = frames.len() - 1;
                for (index, frame) in frames.iter().enumerate() {
                    self.push_frame(frame, if index == last { 0 } else { frame::MORE });
                }
            }
        }
    }

    #[inline]
    fn push_frame(&mut self, frame: &Frame, flags: u8) {
        self.payload += frame.len();
        if (GROW_FROM..BATCH_BYTES).contains(&self.flat.capacity()) && self.flat.len() > GROW_FROM / 2 {
            self.flat.reserve(BATCH_BYTES + CHAIN_FROM + 16 - self.flat.len());
        }
        if let Some((window, length)) = frame.window() {
            // The whole window is copied, as a few fixed moves, and the part that is not the body cut off again.
            self.flat.reserve(2 + window.len());
            #[allow(clippy::cast_possible_truncation)] // an inline body is shorter than 256 bytes
            self.flat.extend_from_slice(&[flags, length as u8]);
            let end = self.flat.len() + length;
            self.flat.extend_from_slice(window);
            self.flat.truncate(end);
            return;
        }
        frame::write_header(&mut self.flat, flags, frame.len());
        if frame.len() < CHAIN_FROM {
            self.flat.extend_from_slice(frame);
        } else {
            self.chained_bytes += frame.len();
            self.chained.push_back(Chained { at: self.flat.len(), body: frame.clone().into_bytes() });
        }
    }

    /// Encodes a command at the end. It does not count as a message.
    pub(crate) fn push_command(&mut self, name: &str, data: &[u8]) {
        command::write(&mut self.flat, name, &[data]);
    }

    /// Whether there is no message in it.
    pub(crate) fn is_empty(&self) -> bool {
        self.messages == 0
    }

    pub(crate) fn messages(&self) -> usize {
        self.messages
    }

    /// The sum of the frame bodies, in bytes.
    pub(crate) fn payload(&self) -> usize {
        self.payload
    }

    /// How many bytes the batch is on the wire.
    pub(crate) fn wire_len(&self) -> usize {
        self.flat.len() + self.chained_bytes
    }

    pub(crate) fn is_full(&self) -> bool {
        self.wire_len() >= BATCH_BYTES
    }

    /// How much memory the flat buffer holds, used or not.
    pub(crate) fn capacity(&self) -> usize {
        self.flat.capacity()
    }

    /// How much of the buffer has been filled, in bytes.
    pub(crate) fn filled(&self) -> usize {
        self.flat.len()
    }

    /// How much memory the batch keeps from being used otherwise.
    pub(crate) fn memory(&self) -> usize {
        self.flat.capacity() + self.chained_bytes
    }

    /// Empties the batch and keeps its buffer.
    pub(crate) fn clear(&mut self) {
        self.flat.clear();
        self.chained.clear();
        (self.chained_bytes, self.messages, self.payload) = (0, 0, 0);
    }

    /// Fills `slices` with what lies between `cursor` and `end`, in wire order; returns how many it used.
    pub(crate) fn gather<'a>(&'a self, cursor: Cursor, end: Position, slices: &mut [IoSlice<'a>]) -> usize {
        let mut used = 0;
        let mut add = |bytes: &'a [u8], used: &mut usize| match slices.get_mut(*used) {
            Some(slot) if !bytes.is_empty() => {
                *slot = IoSlice::new(bytes);
                *used += 1;
                true
            }
            full_or_nothing => full_or_nothing.is_some(),
        };
        let Cursor { mut flat, mut inside, .. } = cursor;
        for chained in self.chained.range(cursor.chained..end.chained) {
            if !add(&self.flat[flat..chained.at], &mut used) || !add(&chained.body[inside..], &mut used) {
                return used;
            }
            (flat, inside) = (chained.at, 0);
        }
        add(&self.flat[flat..end.flat], &mut used);
        used
    }

    /// Moves `cursor` over `count` more bytes.
    pub(crate) fn advance(&self, cursor: &mut Cursor, mut count: usize) {
        while let Some(chained) = self.chained.get(cursor.chained) {
            let header = chained.at - cursor.flat;
            if count < header {
                break;
            }
            cursor.flat = chained.at;
            count -= header;
            let rest = chained.body.len() - cursor.inside;
            if count < rest {
                cursor.inside += count;
                return;
            }
            count -= rest;
            cursor.chained += 1;
            cursor.inside = 0;
        }
        cursor.flat += count;
    }

    /// Whether the kernel has taken everything.
    #[cfg(test)]
    pub(crate) fn is_taken(&self, cursor: Cursor) -> bool {
        cursor.chained == self.chained.len() && cursor.flat == self.flat.len()
    }

    /// Removes the messages that have been taken whole; the first one left may have been taken in part.
    ///
    /// A peer never delivers a message of which it has not got every byte, so what is left can go to another peer.
    pub(crate) fn forget_taken(&mut self, cursor: Cursor) {
        let mut rest = Batch::default();
        let mut at = Position::default();
        while let Some(message) = self.message_at(at) {
            at = message.end;
            if !cursor.has_passed(at) {
                self.move_message(&message, &mut rest);
            }
        }
        *self = rest;
    }

    /// All messages.
    pub(crate) fn whole(&self) -> Part {
        Part { start: Position::default(), end: self.end(), messages: self.messages, payload: self.payload }
    }

    /// The place behind the last message.
    #[inline]
    pub(crate) fn end(&self) -> Position {
        Position { flat: self.flat.len(), chained: self.chained.len() }
    }

    /// How many bytes a part is on the wire.
    pub(crate) fn wire_len_of(&self, start: Position, end: Position) -> usize {
        let chained = self.chained.range(start.chained..end.chained).map(|chained| chained.body.len());
        end.flat - start.flat + chained.sum::<usize>()
    }

    /// How many bytes of the flat buffer a part takes.
    fn flat_len_of(part: &Part) -> usize {
        part.end.flat - part.start.flat
    }

    /// Adds messages of another batch.
    pub(crate) fn append(&mut self, from: &Batch, part: &Part) {
        let base = self.flat.len();
        self.flat.extend_from_slice(&from.flat[part.start.flat..part.end.flat]);
        for chained in from.chained.range(part.start.chained..part.end.chained) {
            self.chained_bytes += chained.body.len();
            let at = base + (chained.at - part.start.flat);
            self.chained.push_back(Chained { at, body: chained.body.clone() });
        }
        self.messages += part.messages;
        self.payload += part.payload;
    }

    /// Moves a message to the end of `to`.
    #[inline]
    fn move_message(&mut self, message: &Part, to: &mut Batch) {
        let (start, length) = (message.start.flat, Self::flat_len_of(message));
        let base = to.flat.len();
        match self.flat.get(start..start + DEAL_WINDOW) {
            // A copy of a fixed size, cut off again, is faster than one of a small unknown size.
            Some(window) if length <= DEAL_WINDOW => {
                to.flat.extend_from_slice(window);
                to.flat.truncate(base + length);
            }
            _ => to.flat.extend_from_slice(&self.flat[start..message.end.flat]),
        }
        to.messages += 1;
        to.payload += message.payload;
        if message.start.chained == message.end.chained {
            return;
        }
        for chained in self.chained.range_mut(message.start.chained..message.end.chained) {
            to.chained_bytes += chained.body.len();
            to.chained.push_back(Chained { at: base + (chained.at - start), body: std::mem::take(&mut chained.body) });
        }
    }

    /// Finds the message that begins there; a command is a part without a message.
    #[inline]
    pub(crate) fn message_at(&self, at: Position) -> Option<Part> {
        // The common case without a detour: one short frame, which is never chained.
        if let Some(&[0, length, ..]) = self.flat.get(at.flat..) {
            let payload = usize::from(length);
            let end = Position { flat: at.flat + frame::SHORT_HEADER + payload, chained: at.chained };
            return Some(Part { start: at, end, messages: 1, payload });
        }
        let mut part = Part { start: at, end: at, messages: 1, payload: 0 };
        loop {
            let header = Header::read(&self.flat[part.end.flat..]).ok().flatten()?;
            part.end.flat += header.length;
            let body = match self.chained.get(part.end.chained) {
                Some(chained) if chained.at == part.end.flat => {
                    part.end.chained += 1;
                    chained.body.len()
                }
                _ => {
                    #[allow(clippy::cast_possible_truncation)] // encoded here from a usize
                    let body = header.body as usize;
                    part.end.flat += body;
                    body
                }
            };
            if header.is_command() {
                return Some(Part { messages: 0, ..part });
            }
            part.payload += body;
            if !header.more() {
                return Some(part);
            }
        }
    }

    /// The first frame of the message that begins there, and whether it is the only one.
    #[inline]
    pub(crate) fn first_frame(&self, at: Position) -> (&[u8], bool) {
        if let Some(&[0, length, ref rest @ ..]) = self.flat.get(at.flat..) {
            return (&rest[..usize::from(length)], true);
        }
        let Some(header) = Header::read(&self.flat[at.flat..]).ok().flatten() else {
            return (&[], true);
        };
        let start = at.flat + header.length;
        let frame = match self.chained.get(at.chained) {
            Some(chained) if chained.at == start => &chained.body[..],
            #[allow(clippy::cast_possible_truncation)] // encoded here from a usize
            _ => &self.flat[start..start + header.body as usize],
        };
        (frame, !header.more())
    }

    /// A batch of the messages from a place on.
    pub(crate) fn rest_from(&self, start: Position) -> Self {
        let mut part = Part { start, end: self.end(), messages: 0, payload: 0 };
        let mut at = start;
        while let Some(message) = self.message_at(at) {
            part.messages += message.messages;
            part.payload += message.payload;
            at = message.end;
        }
        let mut batch = Self::default();
        batch.append(self, &part);
        batch
    }

    /// Takes the batch apart into its messages, in order.
    pub(crate) fn into_spans(self) -> Spans {
        Spans { batch: self, at: Position::default() }
    }
}

/// A batch that is being dealt out message by message.
#[derive(Debug)]
pub(crate) struct Spans {
    batch: Batch,
    at: Position,
}

impl Spans {
    /// Moves the next message to the end of `to`; `false` if there is none left.
    #[inline]
    pub(crate) fn deal(&mut self, to: &mut Batch) -> bool {
        let Some(message) = self.batch.message_at(self.at) else {
            return false;
        };
        self.batch.move_message(&message, to);
        self.at = message.end;
        true
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.at.flat == self.batch.flat.len()
    }

    /// The messages not yet dealt out, as a batch.
    pub(crate) fn rest(mut self) -> Batch {
        let mut rest = Batch::default();
        while self.deal(&mut rest) {}
        rest
    }

    /// The emptied batch, for its buffer; only when everything has been dealt out.
    pub(crate) fn into_spare(mut self) -> Batch {
        self.batch.clear();
        self.batch
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::zmtp::run::tests::unpack;

    fn batch(messages: &[Message]) -> Batch {
        let mut batch = Batch::default();
        messages.iter().for_each(|message| batch.push(message));
        batch
    }

    /// The wire bytes after `cursor`, gathered through a few slices at a time as a writer would.
    fn wire_from(batch: &Batch, mut cursor: Cursor, width: usize) -> Vec<u8> {
        let mut out = Vec::new();
        loop {
            let mut slices = [IoSlice::new(&[]); 8];
            let used = batch.gather(cursor, batch.end(), &mut slices[..width]);
            let before = out.len();
            slices[..used].iter().for_each(|slice| out.extend_from_slice(slice));
            if out.len() == before {
                return out;
            }
            batch.advance(&mut cursor, out.len() - before);
        }
    }

    fn wire(batch: &Batch) -> Vec<u8> {
        wire_from(batch, Cursor::default(), 8)
    }

    fn mixed() -> Vec<Message> {
        vec![
            Message::from("small"),
            Message::from(vec![1; CHAIN_FROM]),
            Message::from([vec![2; 300], vec![3; CHAIN_FROM + 1], vec![]]),
            Message::from([vec![4; CHAIN_FROM], vec![5; CHAIN_FROM]]),
            Message::from(""),
        ]
    }

    #[test]
    fn messages_are_the_bytes_that_libzmq_sends() {
        assert_eq!(wire(&batch(&["Hello".into()])), b"\x00\x05Hello");
        assert_eq!(wire(&batch(&[["A", "", "CC"].into()])), b"\x01\x01A\x01\x00\x00\x02CC");
        let short = wire(&batch(&[vec![b'x'; 255].into()]));
        assert_eq!((&short[..3], short.len()), (&b"\x00\xffx"[..], 257));
        let long = wire(&batch(&[vec![b'y'; 256].into()]));
        assert_eq!((&long[..10], long.len()), (&b"\x02\0\0\0\0\0\0\x01\0y"[..], 265));
    }

    #[test]
    fn counts_and_lengths_are_those_of_the_messages() {
        let batch = batch(&mixed());
        assert_eq!(batch.messages(), 5);
        assert_eq!(batch.payload(), mixed().iter().map(Message::byte_len).sum::<usize>());
        assert_eq!(batch.wire_len(), wire(&batch).len());
    }

    #[test]
    fn large_bodies_are_chained_and_not_copied() {
        let body = Bytes::from(vec![1; CHAIN_FROM]);
        let batch = batch(&[Message::from(body.clone())]);
        assert_eq!(batch.chained[0].body.as_ptr(), body.as_ptr());
        assert_eq!(batch.flat.len(), 9);
    }

    #[test]
    fn a_write_cut_anywhere_resumes_at_the_same_byte() {
        let batch = batch(&mixed());
        let whole = wire(&batch);
        for step in [1, 7, 4_096, CHAIN_FROM + 11] {
            let (mut cursor, mut done) = (Cursor::default(), 0);
            while done < whole.len() {
                assert!(!batch.is_taken(cursor));
                assert_eq!(wire_from(&batch, cursor, 2), whole[done..], "{done}");
                let count = step.max(whole.len() / 64).min(whole.len() - done);
                batch.advance(&mut cursor, count);
                done += count;
            }
            assert!(batch.is_taken(cursor));
        }
    }

    #[test]
    fn what_was_not_taken_whole_is_kept_whole() {
        let messages = mixed();
        let mut end = 0;
        for (index, message) in messages.iter().enumerate() {
            let start = end;
            end += wire(&batch(std::slice::from_ref(message))).len();
            for taken in [start, start + 1, end - 1] {
                let mut batch = batch(&messages);
                let mut cursor = Cursor::default();
                batch.advance(&mut cursor, taken);
                batch.forget_taken(cursor);
                assert_eq!(unpack(&wire(&batch)), messages[index..], "{taken}");
                assert_eq!(batch.messages(), messages.len() - index);
            }
        }
    }

    #[test]
    fn nothing_is_left_of_a_batch_taken_whole() {
        let mut batch = batch(&mixed());
        let mut cursor = Cursor::default();
        batch.advance(&mut cursor, batch.wire_len());
        batch.forget_taken(cursor);
        assert_eq!((batch.messages(), batch.payload(), batch.wire_len()), (0, 0, 0));
    }

    #[test]
    fn messages_are_dealt_out_one_by_one() {
        let mut spans = batch(&mixed()).into_spans();
        let (mut odd, mut even) = (Batch::default(), Batch::default());
        assert!(spans.deal(&mut even) && spans.deal(&mut odd) && spans.deal(&mut even));
        assert!(!spans.is_empty());
        let rest = spans.rest();
        assert_eq!(unpack(&wire(&even)), [mixed()[0].clone(), mixed()[2].clone()]);
        assert_eq!(unpack(&wire(&odd)), [mixed()[1].clone()]);
        assert_eq!(unpack(&wire(&rest)), mixed()[3..]);
        assert_eq!(rest.payload(), 2 * CHAIN_FROM);
    }
}
