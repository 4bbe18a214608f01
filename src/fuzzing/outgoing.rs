//! Target `outgoing`: what is on its way to one peer, compared with a plain queue of encoded messages.

use std::collections::VecDeque;
use std::io::IoSlice;
use std::sync::Arc;

use crate::engine::outgoing::{Outgoing, Written};
use crate::fuzzing::choices::{Choices, Pieces};
use crate::fuzzing::messages::{self, encoding};
use crate::message::Message;
use crate::options::HighWaterMark;
use crate::zmtp::encoder::{Batch, Part, Position};

/// The most slices in a write.
const SLICES: usize = 8;

/// Steps stop when this much is in the queue.
const WIRE_MAXIMUM: usize = 1 << 20;

/// Five bytes choose how writes are cut; then come steps: a byte says which, the following ones with what.
///
/// Invariants: what is offered to the kernel is the queue's bytes, in order; what is left, admitted, dropped, counted as
/// written and taken back is the same as in the queue; a message that was begun is never dropped, and never interrupted.
pub fn outgoing(data: &[u8]) {
    let mut choices = Choices::new(data);
    let mut pieces = Pieces::choose(&mut choices);
    let (mut out, mut model, mut written) = (Outgoing::default(), Model::default(), Written::default());
    // Only what is its peer's alone can be taken back.
    let mut is_own = true;
    while !choices.is_empty() && model.wire_len() < WIRE_MAXIMUM {
        let step = choices.byte();
        let many = usize::from(step >> 4);
        match step & 15 {
            0..=2 => {
                let message = messages::one(&mut choices);
                out.add(|batch| batch.push(&message), Batch::default);
                model.add(&message);
            }
            3 | 4 => {
                let (batch, messages) = batch(&mut choices, many);
                out.give(batch);
                messages.iter().for_each(|message| model.add(message));
            }
            5 | 6 => {
                let (batch, messages) = batch(&mut choices, many);
                let batch = Arc::new(batch);
                let start = usize::from(choices.byte()) % (messages.len() + 1);
                let length = usize::from(choices.byte()) % (messages.len() + 1 - start);
                out.share(&batch, &part(&batch, start, length), Batch::default);
                messages[start..start + length].iter().for_each(|message| model.add(message));
                is_own = false;
            }
            7..=10 => write(&mut out, &mut model, &mut written, 1 + many % SLICES, pieces.size()),
            11 => {
                let bytes = usize::from(choices.byte()) * 100;
                let fits = |messages: usize, payload: usize| messages <= many || payload <= bytes;
                assert_eq!(out.drop_oldest(fits), model.drop_oldest(fits));
                is_own = false;
            }
            12 => {
                let mark = HighWaterMark { messages: many, bytes: usize::from(choices.byte()) * 100 };
                let size = usize::from(choices.byte()) * 10;
                let (messages, payload) = (model.queue.len(), model.payload());
                assert_eq!(out.admits(mark, size), mark.admits(messages, payload, size));
            }
            13 => {
                let (messages, payload) = out.take_settled();
                written.messages += messages;
                written.payload += payload;
                // Whatever the kernel has taken whole has been counted now.
                assert_eq!((written.messages, written.payload), model.taken);
            }
            _ => {
                assert_eq!(out.depth(), (model.queue.len(), model.payload()));
                assert_eq!(out.is_between(), model.begun == 0);
            }
        }
        assert_eq!(out.pending(), model.wire_len());
        // A control frame goes out where it is allowed.
        assert!(!out.is_between() || model.begun == 0);
    }
    let left = if is_own {
        let batches = out.take_back(&mut written);
        for batch in &batches {
            let (messages, mut at) = (batch.messages(), Position::default());
            for (message, _) in model.queue.drain(..messages) {
                let part = batch.message_at(at).expect("there is another message");
                let mut slices = [IoSlice::new(&[]); SLICES];
                let used = batch.gather(part.start.into(), part.end, &mut slices);
                let bytes = slices[..used].iter().map(|slice| &slice[..]).collect::<Vec<_>>().concat();
                assert!(bytes == message, "another message is taken back than was left");
                at = part.end;
            }
        }
        model.queue.len()
    } else {
        let left = out.abandon(&mut written);
        assert_eq!(left, model.queue.len());
        0
    };
    assert_eq!((left, out.pending(), out.depth()), (0, 0, (0, 0)));
    assert_eq!((written.messages, written.payload), model.taken);
}

fn batch(choices: &mut Choices<'_>, count: usize) -> (Batch, Vec<Message>) {
    let messages: Vec<_> = (0..count).map(|_| messages::one(choices)).collect();
    let mut batch = Batch::default();
    messages.iter().for_each(|message| batch.push(message));
    (batch, messages)
}

/// The messages from one on.
fn part(batch: &Batch, start: usize, length: usize) -> Part {
    let next = |at: &mut Position| {
        let message = batch.message_at(*at).expect("there is another message");
        *at = message.end;
        message
    };
    let mut at = Position::default();
    for _ in 0..start {
        next(&mut at);
    }
    let mut part = Part { start: at, end: at, messages: 0, payload: 0 };
    (0..length).for_each(|_| part.extend(&next(&mut at)));
    part
}

fn write(out: &mut Outgoing, model: &mut Model, written: &mut Written, width: usize, size: usize) {
    let mut slices = [IoSlice::new(&[]); SLICES];
    let used = out.gather(&mut slices[..width]);
    let mut left = size;
    let mut taken = 0;
    for slice in &slices[..used] {
        let slice = &slice[..left.min(slice.len())];
        model.take(slice);
        left -= slice.len();
        taken += slice.len();
    }
    assert!(taken > 0 || model.wire_len() == 0, "nothing is offered of {} bytes", model.wire_len());
    out.advance(taken, written);
    assert!(written.messages <= model.taken.0);
}

#[derive(Debug, Default)]
struct Model {
    /// Encodings and payloads.
    queue: VecDeque<(Vec<u8>, usize)>,
    /// Bytes taken of the first one.
    begun: usize,
    /// Messages and bytes of messages that were taken whole.
    taken: (usize, usize),
}

impl Model {
    fn add(&mut self, message: &Message) {
        self.queue.push_back((encoding(message), message.byte_len()));
    }

    fn wire_len(&self) -> usize {
        self.queue.iter().map(|(wire, _)| wire.len()).sum::<usize>() - self.begun
    }

    fn payload(&self) -> usize {
        self.queue.iter().map(|(_, payload)| payload).sum()
    }

    fn take(&mut self, mut bytes: &[u8]) {
        while !bytes.is_empty() {
            let (wire, payload) = self.queue.front().expect("more is offered than there is");
            let count = bytes.len().min(wire.len() - self.begun);
            assert!(bytes[..count] == wire[self.begun..self.begun + count], "other bytes are offered than are next");
            bytes = &bytes[count..];
            self.begun += count;
            if self.begun == wire.len() {
                self.taken.0 += 1;
                self.taken.1 += payload;
                self.queue.pop_front();
                self.begun = 0;
            }
        }
    }

    fn drop_oldest(&mut self, fits: impl Fn(usize, usize) -> bool) -> usize {
        let first = usize::from(self.begun > 0);
        let mut dropped = 0;
        while !fits(self.queue.len(), self.payload()) && self.queue.remove(first).is_some() {
            dropped += 1;
        }
        dropped
    }
}
