//! Choices derived from an input's bytes, and a stream that arrives in the pieces that they choose.

use bytes::buf::Limit;
use bytes::{BufMut, BytesMut};

use crate::message::Message;
use crate::zmtp::run::Run;

/// An input that is used up from the front.
#[derive(Debug, Clone, Copy)]
pub(super) struct Choices<'a>(&'a [u8]);

impl<'a> Choices<'a> {
    pub(super) fn new(data: &'a [u8]) -> Self {
        Self(data)
    }

    pub(super) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// The next byte; zero when there are no more.
    pub(super) fn byte(&mut self) -> u8 {
        self.array::<1>()[0]
    }

    /// The next bytes; zeros when there are no more.
    pub(super) fn array<const N: usize>(&mut self) -> [u8; N] {
        let (front, rest) = self.0.split_at(N.min(self.0.len()));
        self.0 = rest;
        let mut array = [0; N];
        array[..front.len()].copy_from_slice(front);
        array
    }

    /// One of the options.
    pub(super) fn one_of<T: Copy>(&mut self, options: &[T]) -> T {
        options[usize::from(self.byte()) % options.len()]
    }

    /// Everything that is left.
    pub(super) fn rest(self) -> &'a [u8] {
        self.0
    }
}

/// The sizes of the pieces in which a stream arrives: a few, round and round.
#[derive(Debug, Clone)]
pub(super) struct Pieces {
    codes: [u8; 4],
    turn: usize,
    /// What every piece has besides: a long stream must not come in too many of them.
    least: usize,
    /// Whether the buffer changes whenever all that is whole has been taken out of it, as it does in the engine.
    moves: bool,
}

impl Pieces {
    /// For a stream that comes in one piece.
    pub(super) const WHOLE: Self = Self { codes: [0; 4], turn: 0, least: 0, moves: false };

    pub(super) fn choose(choices: &mut Choices<'_>) -> Self {
        Self { codes: choices.array(), turn: 0, least: 0, moves: choices.byte() & 1 == 1 }
    }

    /// The same for a stream of this length.
    pub(super) fn of(self, length: usize) -> Self {
        Self { least: length / 500, ..self }
    }

    /// The size of the next piece.
    pub(super) fn size(&mut self) -> usize {
        let code = self.codes[self.turn % self.codes.len()];
        self.turn += 1;
        self.least + if code < 0x80 { usize::from(code) + 1 } else { 0x80 << (code % 16) }
    }

    /// Takes the next piece off the front of `wire`: into the body that is being received, if there is one and nothing comes
    /// before it, as the engine does, or else to the end of `input`.
    pub(super) fn arrive(&mut self, wire: &mut &[u8], body: Option<Limit<&mut BytesMut>>, input: &mut BytesMut) {
        let size = self.size().min(wire.len());
        match body.filter(|_| input.is_empty()) {
            Some(mut body) => {
                let count = body.chunk_mut().len().min(size);
                body.put_slice(&wire[..count]);
                *wire = &wire[count..];
            }
            None => {
                if self.moves {
                    *input = BytesMut::from(&input[..]);
                }
                input.extend_from_slice(&wire[..size]);
                *wire = &wire[size..];
            }
        }
    }

    /// Takes the messages out of a run in one of the ways in which the library does, and checks its counts.
    pub(super) fn unpack(&mut self, mut run: Run, mut message: impl FnMut(Message)) {
        let code = self.codes[self.turn % self.codes.len()];
        if code & 0x10 != 0 {
            run.detach();
        }
        if code & 0x20 != 0 {
            let (messages, payload) = (run.messages(), run.payload());
            let count = usize::from(code & 7);
            let front = run.split_front(|before, _, _| before < count);
            let (front_messages, front_payload) = front.as_ref().map_or((0, 0), |run| (run.messages(), run.payload()));
            assert_eq!(front_messages, count.min(messages));
            assert_eq!((front_messages + run.messages(), front_payload + run.payload()), (messages, payload));
            if let Some(front) = front {
                unpack_all(front, &mut message);
            }
        }
        unpack_all(run, &mut message);
    }
}

fn unpack_all(mut run: Run, message: &mut impl FnMut(Message)) {
    let mut slot = Message::default();
    while run.messages() > 0 {
        let (messages, payload, size) = (run.messages(), run.payload(), run.next_size());
        assert!(run.next_into(&mut slot), "{messages} messages are left, but none comes");
        assert_eq!((slot.byte_len(), run.messages(), run.payload()), (size, messages - 1, payload - size));
        message(std::mem::take(&mut slot));
    }
    assert!(!run.next_into(&mut slot), "a message comes that was not counted");
    assert_eq!((run.payload(), run.memory()), (0, 0));
}
