//! What is on its way to one peer: pieces of batches, its own or shared with other peers.

use std::collections::VecDeque;
use std::io::IoSlice;
use std::sync::Arc;

use crate::options::HighWaterMark;
use crate::zmtp::encoder::{BATCH_BYTES, Batch, Cursor, Part, Position, Spans, WRITE_BYTES};

/// A part of a batch goes to a peer by reference if it is at least this long and so large a fraction of its batch:
/// less would be more slices than a write takes, or keep much memory for little.
const SHARE_FROM: usize = 16 * 1024;
const SHARE_FRACTION: usize = 4;

#[derive(Debug)]
enum Body {
    /// Nobody else's: more can be added at the end.
    Own(Batch),
    Shared(Arc<Batch>),
}

#[derive(Debug)]
struct Piece {
    body: Body,
    /// What is to be sent of it. Of the first piece some may have been sent already.
    part: Part,
}

impl Piece {
    #[inline]
    fn batch(&self) -> &Batch {
        match &self.body {
            Body::Own(batch) => batch,
            Body::Shared(batch) => batch,
        }
    }

    fn wire_len(&self) -> usize {
        self.batch().wire_len_of(self.part.start, self.part.end)
    }

    /// The first message, if any is left.
    fn first(&self) -> Option<Part> {
        if self.part.start == self.part.end { None } else { self.batch().message_at(self.part.start) }
    }

    /// The buffer, if nobody else uses it.
    fn into_batch(self) -> Option<Batch> {
        match self.body {
            Body::Own(batch) => Some(batch),
            Body::Shared(batch) => Arc::into_inner(batch),
        }
    }
}

/// A peer's last batch, lent for messages to be dealt to it.
#[derive(Debug)]
pub(crate) struct Tail {
    batch: Batch,
    /// Its bytes on the wire, messages and bytes of messages before.
    before: (usize, usize, usize),
    /// Once it is this long it is full, or its peer has as much as one write should take.
    end: usize,
}

impl Tail {
    /// Adds the next message that is dealt out; `false` if it is the last one that finds room here.
    #[inline]
    pub(crate) fn deal(&mut self, spans: &mut Spans) -> bool {
        spans.deal(&mut self.batch);
        self.batch.wire_len() < self.end
    }
}

/// What a write got done.
#[derive(Debug, Default)]
pub(crate) struct Written {
    pub(crate) messages: usize,
    pub(crate) payload: usize,
    /// Emptied batches, for their buffers.
    pub(crate) spare: Vec<Batch>,
}

/// The pieces in order, and how far the kernel has taken the first one.
#[derive(Debug, Default)]
pub(crate) struct Outgoing {
    pieces: VecDeque<Piece>,
    cursor: Cursor,
    /// Bytes left of the first piece.
    first_left: usize,
    /// Bytes left of all pieces.
    pending: usize,
    /// Messages that are left, one that was begun included, as far as has been looked; see [`Self::settle`].
    messages: usize,
    payload: usize,
    /// Messages that were found to have been taken whole, and not yet counted as written.
    settled: (usize, usize),
}

impl Outgoing {
    /// Bytes that are left.
    #[inline]
    pub(crate) fn pending(&self) -> usize {
        self.pending
    }

    /// Messages and bytes of messages that are left, one that was begun included.
    pub(crate) fn depth(&mut self) -> (usize, usize) {
        self.settle();
        (self.messages, self.payload)
    }

    /// Messages and bytes that were found to have been taken whole since they were last counted as written.
    pub(crate) fn take_settled(&mut self) -> (usize, usize) {
        self.settle();
        std::mem::take(&mut self.settled)
    }

    /// Whether the next byte begins a message.
    pub(crate) fn is_between(&mut self) -> bool {
        self.settle();
        self.pieces.front().is_none_or(|first| self.cursor.is_at(first.part.start))
    }

    /// Whether a message of `size` bytes may be added.
    #[inline]
    pub(crate) fn admits(&mut self, mark: HighWaterMark, size: usize) -> bool {
        mark.admits(self.messages, self.payload, size) || {
            self.settle();
            mark.admits(self.messages, self.payload, size)
        }
    }

    /// Whether so many more messages and bytes would go beyond the mark.
    pub(crate) fn would_exceed(&self, mark: HighWaterMark, messages: usize, payload: usize) -> bool {
        (mark.messages > 0 && self.messages + messages > mark.messages)
            || (mark.bytes > 0 && self.payload.saturating_add(payload) > mark.bytes)
    }

    /// Adds a whole batch.
    pub(crate) fn give(&mut self, batch: Batch) {
        let part = batch.whole();
        self.push(Piece { body: Body::Own(batch), part });
    }

    fn push(&mut self, piece: Piece) {
        let length = piece.wire_len();
        if self.pieces.is_empty() {
            self.cursor = piece.part.start.into();
            self.first_left = length;
        }
        self.pending += length;
        self.messages += piece.part.messages;
        self.payload += piece.part.payload;
        self.pieces.push_back(piece);
    }

    /// Adds a part of a batch that others get as well.
    pub(crate) fn share(&mut self, batch: &Arc<Batch>, part: &Part, spare: impl FnOnce() -> Batch) {
        let length = batch.wire_len_of(part.start, part.end);
        if length >= SHARE_FROM && length >= batch.memory() / SHARE_FRACTION {
            self.push(Piece { body: Body::Shared(batch.clone()), part: *part });
        } else {
            self.add(|tail| tail.append(batch, part), spare);
        }
    }

    /// Adds something at the end.
    #[inline]
    pub(crate) fn add(&mut self, add: impl FnOnce(&mut Batch), spare: impl FnOnce() -> Batch) {
        let mut tail = self.lend(spare);
        add(&mut tail.batch);
        self.take_home(tail);
    }

    /// Lends the batch at the end, for messages to be added to it.
    #[inline]
    pub(crate) fn lend(&mut self, spare: impl FnOnce() -> Batch) -> Tail {
        let grows = |piece: &Piece| matches!(&piece.body, Body::Own(batch) if !batch.is_full());
        if !self.pieces.back().is_some_and(grows) {
            self.give(spare());
        }
        let batch = match self.pieces.back_mut() {
            Some(Piece { body: Body::Own(batch), .. }) => std::mem::take(batch),
            _ => Batch::default(),
        };
        let before = (batch.wire_len(), batch.messages(), batch.payload());
        let end = BATCH_BYTES.min(before.0 + WRITE_BYTES.saturating_sub(self.pending));
        Tail { batch, before, end }
    }

    /// Takes back what was lent, before anything else is done.
    #[inline]
    pub(crate) fn take_home(&mut self, tail: Tail) {
        let Tail { batch, before, .. } = tail;
        let (added, messages, payload) =
            (batch.wire_len() - before.0, batch.messages() - before.1, batch.payload() - before.2);
        if self.pieces.len() == 1 {
            self.first_left += added;
        }
        if let Some(Piece { body: Body::Own(place), part }) = self.pieces.back_mut() {
            part.end = batch.end();
            part.messages += messages;
            part.payload += payload;
            self.messages += messages;
            self.payload += payload;
            self.pending += added;
            *place = batch;
        }
    }

    /// Fills `slices` with what is next; returns how many it used.
    pub(crate) fn gather<'a>(&'a self, slices: &mut [IoSlice<'a>]) -> usize {
        let (mut used, mut cursor) = (0, self.cursor);
        for (index, piece) in self.pieces.iter().enumerate() {
            if index > 0 {
                cursor = piece.part.start.into();
            }
            used += piece.batch().gather(cursor, piece.part.end, &mut slices[used..]);
            if used == slices.len() {
                break;
            }
        }
        used
    }

    /// Fills `slices` with the rest of the message that has been begun, so that something else can follow it.
    pub(crate) fn gather_begun<'a>(&'a mut self, slices: &mut [IoSlice<'a>]) -> usize {
        self.settle();
        match self.pieces.front() {
            Some(first) => {
                let end = first.first().map_or(first.part.end, |begun| begun.end);
                first.batch().gather(self.cursor, end, slices)
            }
            None => 0,
        }
    }

    /// The kernel has taken so many bytes more.
    pub(crate) fn advance(&mut self, mut count: usize, written: &mut Written) {
        self.pending -= count;
        while count >= self.first_left {
            count -= self.first_left;
            let Some(piece) = self.pieces.pop_front() else {
                self.first_left = 0;
                break;
            };
            self.count(piece.part.messages, piece.part.payload);
            written.spare.extend(piece.into_batch());
            self.begin_first();
            if self.pieces.is_empty() {
                break;
            }
        }
        if let Some(first) = self.pieces.front() {
            first.batch().advance(&mut self.cursor, count);
            self.first_left -= count;
        }
        // Messages of the first piece are not looked at for this: they count when it is written, or when somebody asks.
        let (messages, payload) = std::mem::take(&mut self.settled);
        written.messages += messages;
        written.payload += payload;
    }

    fn begin_first(&mut self) {
        self.cursor = self.pieces.front().map_or(Position::default(), |first| first.part.start).into();
        self.first_left = self.pieces.front().map_or(0, Piece::wire_len);
    }

    /// So many messages have been taken whole.
    fn count(&mut self, messages: usize, payload: usize) {
        self.messages -= messages;
        self.payload -= payload;
        self.settled.0 += messages;
        self.settled.1 += payload;
    }

    /// Looks how many messages of the first piece the kernel has taken whole. Each message is looked at once.
    fn settle(&mut self) {
        let (mut messages, mut payload) = (0, 0);
        if let Some(first) = self.pieces.front_mut() {
            while let Some(message) = first.first() {
                // The last one is counted when its piece goes.
                if !self.cursor.has_passed(message.end) || message.end == first.part.end {
                    break;
                }
                first.part.shrink(&message);
                messages += message.messages;
                payload += message.payload;
            }
        }
        self.count(messages, payload);
    }

    /// Drops messages that have not been begun, the oldest first, until `fits` is content with what is left; says how many
    /// it were.
    pub(crate) fn drop_oldest(&mut self, fits: impl Fn(usize, usize) -> bool) -> usize {
        if fits(self.messages, self.payload) {
            return 0;
        }
        // The first one may have been begun: it must be finished.
        let kept = usize::from(!self.is_between());
        if let Some(first) = self.pieces.pop_front() {
            match first.first().filter(|begun| kept == 1 && begun.end != first.part.end) {
                Some(begun) => self.split(first, &begun),
                None => self.pieces.push_front(first),
            }
        }
        let mut dropped = 0;
        while !fits(self.messages, self.payload) {
            let Some(piece) = self.pieces.get_mut(kept) else {
                break;
            };
            if let Some(message) = piece.first() {
                self.pending -= piece.batch().wire_len_of(message.start, message.end);
                piece.part.shrink(&message);
                self.messages -= message.messages;
                self.payload -= message.payload;
                dropped += message.messages;
            }
            if piece.part.start == piece.part.end {
                self.pieces.remove(kept);
            }
        }
        if kept == 0 {
            self.begin_first();
        }
        dropped
    }

    /// Puts a piece back in two, the first message apart.
    fn split(&mut self, piece: Piece, begun: &Part) {
        let (batch, mut rest) = match piece.body {
            Body::Own(batch) => (Arc::new(batch), piece.part),
            Body::Shared(batch) => (batch, piece.part),
        };
        rest.shrink(begun);
        self.first_left -= batch.wire_len_of(rest.start, rest.end);
        self.pieces.push_front(Piece { body: Body::Shared(batch.clone()), part: rest });
        self.pieces.push_front(Piece { body: Body::Shared(batch), part: *begun });
    }

    /// Takes back the messages that the kernel has not taken whole, for another peer; counts the others as written.
    pub(crate) fn take_back(&mut self, written: &mut Written) -> VecDeque<Batch> {
        let cursor = self.cursor;
        let mut out = std::mem::take(self);
        let mut batches: VecDeque<_> = out.pieces.drain(..).filter_map(Piece::into_batch).collect();
        if let Some(first) = batches.front_mut() {
            first.forget_taken(cursor);
        }
        let left = |size: fn(&Batch) -> usize| batches.iter().map(size).sum::<usize>();
        written.messages += out.messages + out.settled.0 - left(Batch::messages);
        written.payload += out.payload + out.settled.1 - left(Batch::payload);
        batches
    }

    /// Gives up what the kernel has not taken whole; says how many messages that were.
    pub(crate) fn abandon(&mut self, written: &mut Written) -> usize {
        self.settle();
        let out = std::mem::take(self);
        written.messages += out.settled.0;
        written.payload += out.settled.1;
        out.messages
    }

    /// Whether as much is there as one write should take.
    #[inline]
    pub(crate) fn is_large(&self) -> bool {
        self.pending >= WRITE_BYTES
    }
}

#[cfg(test)]
mod tests {
    use proptest::collection::vec;
    use proptest::prelude::*;

    use super::*;
    use crate::message::Message;
    use crate::zmtp::run::tests::unpack;

    fn batch(messages: &[Message]) -> Batch {
        let mut batch = Batch::default();
        messages.iter().for_each(|message| batch.push(message));
        batch
    }

    /// Writes up to `count` bytes to `wire`.
    fn write(out: &mut Outgoing, count: usize, wire: &mut Vec<u8>, written: &mut Written) {
        let mut slices = [IoSlice::new(&[]); 4];
        let used = out.gather(&mut slices);
        let bytes: Vec<u8> = slices[..used].iter().flat_map(|slice| slice.to_vec()).take(count).collect();
        wire.extend_from_slice(&bytes);
        if !bytes.is_empty() {
            out.advance(bytes.len(), written);
        }
    }

    #[derive(Debug, Clone)]
    enum Step {
        Give(Vec<usize>),
        Share(Vec<usize>, usize, usize),
        Write(usize),
        KeepNewest(usize),
        Look,
    }

    fn sizes() -> impl Strategy<Value = Vec<usize>> {
        vec(prop_oneof![8 => 0_usize..300, 1 => 8_000_usize..20_000], 1..6)
    }

    fn step() -> impl Strategy<Value = Step> {
        prop_oneof![
            2 => sizes().prop_map(Step::Give),
            3 => (sizes(), 0_usize..6, 0_usize..6).prop_map(|(sizes, from, to)| Step::Share(sizes, from, to)),
            6 => prop_oneof![0_usize..40, 0_usize..30_000].prop_map(Step::Write),
            1 => (0_usize..8).prop_map(Step::KeepNewest),
            1 => Just(Step::Look),
        ]
    }

    proptest! {
        /// Whatever is added, written in part and dropped: the wire carries whole messages, in order, and the counts are
        /// those of a list.
        #[test]
        fn the_wire_and_the_counts_are_those_of_a_list(steps in vec(step(), 1..60)) {
            let (mut out, mut wire, mut written) = (Outgoing::default(), Vec::new(), Written::default());
            // Messages that are left, of which the first `begun` bytes of the first one have been written.
            let (mut left, mut begun) = (VecDeque::<Message>::new(), 0);
            let (mut sent, mut number) = (Vec::new(), 0_u8);
            let wire_len = |message: &Message| batch(std::slice::from_ref(message)).wire_len();
            let mut make = |sizes: &[usize]| -> Vec<Message> {
                sizes.iter().map(|size| {
                    number = number.wrapping_add(1);
                    if size % 7 == 0 { [vec![number; *size], vec![number]].into() } else { vec![number; *size].into() }
                }).collect()
            };
            for step in steps {
                match step {
                    Step::Give(sizes) => {
                        let messages = make(&sizes);
                        out.give(batch(&messages));
                        left.extend(messages);
                    }
                    Step::Share(sizes, from, to) => {
                        let messages = make(&sizes);
                        let (from, to) = (from.min(messages.len()), to.min(messages.len()));
                        let shared = Arc::new(batch(&messages));
                        let (mut at, mut part) = (Position::default(), Part::default());
                        for index in 0..to {
                            let message = shared.message_at(at).unwrap();
                            at = message.end;
                            if index == from {
                                part = message;
                            } else if index > from {
                                part.extend(&message);
                            }
                        }
                        if from < to {
                            out.share(&shared, &part, Batch::default);
                            left.extend(messages[from..to].iter().cloned());
                        }
                    }
                    Step::Write(count) => {
                        let before = wire.len();
                        write(&mut out, count, &mut wire, &mut written);
                        begun += wire.len() - before;
                        while left.front().is_some_and(|first| wire_len(first) <= begun) {
                            let first = left.pop_front().unwrap();
                            begun -= wire_len(&first);
                            sent.push(first);
                        }
                    }
                    Step::KeepNewest(count) => {
                        let dropped = out.drop_oldest(|messages, _| messages <= count);
                        let mut expected = 0;
                        while left.len() > count {
                            if begun == 0 {
                                left.pop_front();
                            } else if left.len() > 1 {
                                left.remove(1);
                            } else {
                                break;
                            }
                            expected += 1;
                        }
                        prop_assert_eq!(dropped, expected);
                    }
                    Step::Look => {
                        let payload = left.iter().map(Message::byte_len).sum::<usize>();
                        prop_assert_eq!(out.depth(), (left.len(), payload));
                    }
                }
                prop_assert_eq!(out.pending(), left.iter().map(wire_len).sum::<usize>() - begun);
            }
            let (begun_message, rest) = (begun > 0, left.len());
            if begun_message {
                write(&mut out, wire_len(&left[0]) - begun, &mut wire, &mut written);
                while out.pending() > left.iter().skip(1).map(wire_len).sum::<usize>() {
                    let missing = out.pending() - left.iter().skip(1).map(wire_len).sum::<usize>();
                    write(&mut out, missing, &mut wire, &mut written);
                }
                sent.push(left.pop_front().unwrap());
            }
            prop_assert_eq!(out.abandon(&mut written), rest - usize::from(begun_message));
            prop_assert_eq!(written.messages, sent.len());
            prop_assert_eq!(written.payload, sent.iter().map(Message::byte_len).sum::<usize>());
            prop_assert_eq!(unpack(&wire), sent);
        }
    }

    #[test]
    fn what_was_begun_can_be_finished_alone() {
        let mut out = Outgoing::default();
        out.give(batch(&["first".into(), ["second", "message"].into(), "third".into()]));
        let (mut wire, mut written) = (Vec::new(), Written::default());
        write(&mut out, 7 + 3, &mut wire, &mut written);
        assert!(!out.is_between());
        let mut slices = [IoSlice::new(&[]); 4];
        let used = out.gather_begun(&mut slices);
        let rest: usize = slices[..used].iter().map(|slice| slice.len()).sum();
        assert_eq!(rest, 2 + 6 + 2 + 7 - 3);
        write(&mut out, rest, &mut wire, &mut written);
        assert!(out.is_between());
        assert_eq!(out.depth().0, 1);
    }

    #[test]
    fn a_large_part_is_shared_and_a_small_one_is_copied() {
        let shared = Arc::new(batch(&vec![Message::from(vec![1; 4_000]); 30]));
        let mut out = Outgoing::default();
        out.share(&shared, &shared.message_at(Position::default()).unwrap(), Batch::default);
        assert_eq!(Arc::strong_count(&shared), 1);
        out.share(&shared, &shared.whole(), Batch::default);
        assert_eq!(Arc::strong_count(&shared), 2);
        let mut written = Written::default();
        out.advance(out.pending(), &mut written);
        assert_eq!((Arc::strong_count(&shared), written.messages, out.pending()), (1, 31, 0));
    }
}
