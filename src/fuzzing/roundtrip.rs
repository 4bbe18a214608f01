//! Target `roundtrip`: messages through the encoder, cut into writes, and through the decoder again.

use std::io::IoSlice;

use bytes::BytesMut;

use crate::fuzzing::choices::{Choices, Pieces};
use crate::fuzzing::frames::check_memory;
use crate::fuzzing::messages::{self, encoding, encodings};
use crate::message::Message;
use crate::zmtp::decoder::{COMMAND_MAXIMUM, Decoded, Decoder, Limits};
use crate::zmtp::encoder::{Batch, Cursor, Position};

/// The most slices in a write.
const SLICES: usize = 8;

/// One byte chooses what happens to the batch, two how much of it, one how many slices a write has, five how it is cut, five
/// how it arrives; the others are messages.
///
/// Invariants: what is written is the messages' plain encoding, wherever writes are cut; a batch of which a part was taken
/// keeps every message that was not taken whole; dealing out, copying and walking lose nothing and keep the order; counts
/// and lengths are right; what is decoded is what was encoded.
pub fn roundtrip(data: &[u8]) {
    let mut choices = Choices::new(data);
    let fate = choices.byte();
    let amount = usize::from(u16::from_be_bytes(choices.array()));
    let mut writer = Writer { width: 1 + usize::from(choices.byte()) % SLICES, pieces: Pieces::choose(&mut choices) };
    let pieces = Pieces::choose(&mut choices);
    let messages = messages::many(choices);

    let mut batch = Batch::default();
    messages.iter().for_each(|message| batch.push(message));
    check(&batch, &messages);
    writer.pieces = writer.pieces.of(batch.wire_len());
    let (wire, sent) = match fate % 4 {
        0 => (writer.write(&batch), &messages[..]),
        1 => {
            // Bytes, or as a share of the whole: large messages are cut in the middle as well.
            let bytes = if fate & 0x80 == 0 { amount } else { batch.wire_len() / 0x1_0000 * amount };
            let (first, cursor) = writer.take(&batch, bytes);
            let whole = count_whole(&messages, first.len());
            batch.forget_taken(cursor);
            check(&batch, &messages[whole..]);
            (writer.write(&batch), &messages[whole..])
        }
        2 => {
            let count = amount.min(messages.len());
            let mut spans = batch.into_spans();
            let mut dealt = Batch::default();
            assert!((0..count).all(|_| spans.deal(&mut dealt)));
            assert_eq!(spans.is_empty(), count == messages.len());
            check(&dealt, &messages[..count]);
            let rest = spans.rest();
            check(&rest, &messages[count..]);
            ([writer.write(&dealt), writer.write(&rest)].concat(), &messages[..])
        }
        _ => {
            let count = amount.min(messages.len());
            let at = walk(&batch, &messages, count);
            let rest = batch.rest_from(at);
            check(&rest, &messages[count..]);
            let mut copy = Batch::default();
            copy.append(&batch, &batch.whole());
            copy.append(&rest, &rest.whole());
            let sent = [&messages[..], &messages[count..]].concat();
            check(&copy, &sent);
            assert!(writer.write(&copy) == encodings(&sent));
            (writer.write(&rest), &messages[count..])
        }
    };
    assert!(wire == encodings(sent), "the wire is not the plain encoding");
    decode(&wire, pieces.of(wire.len()), sent);
}

/// How many messages are whole in the first `length` bytes of their encoding.
fn count_whole(messages: &[Message], length: usize) -> usize {
    let ends = messages.iter().scan(0, |end, message| {
        *end += encoding(message).len();
        Some(*end)
    });
    ends.take_while(|end| *end <= length).count()
}

fn check(batch: &Batch, messages: &[Message]) {
    assert_eq!((batch.messages(), batch.is_empty()), (messages.len(), messages.is_empty()));
    assert_eq!(batch.payload(), messages.iter().map(Message::byte_len).sum::<usize>());
    assert_eq!(batch.wire_len_of(Position::default(), batch.end()), batch.wire_len());
}

/// Goes over all messages of a batch one by one; gives the place behind the first `count` of them.
fn walk(batch: &Batch, messages: &[Message], count: usize) -> Position {
    let (mut at, mut found) = (Position::default(), at_zero(count));
    for (index, message) in messages.iter().enumerate() {
        let part = batch.message_at(at).expect("there is another message");
        assert_eq!((part.start, part.messages, part.payload), (at, 1, message.byte_len()));
        assert_eq!(batch.first_frame(at), (&message[0], message.frame_count() == 1));
        assert_eq!(batch.wire_len_of(part.start, part.end), encoding(message).len());
        at = part.end;
        if index + 1 == count {
            found = Some(at);
        }
    }
    assert!(batch.message_at(at).is_none() && at == batch.end());
    found.unwrap_or(at)
}

fn at_zero(count: usize) -> Option<Position> {
    (count == 0).then(Position::default)
}

/// Writes as a peer does, through a few slices at a time and cut where the kernel pleases.
struct Writer {
    width: usize,
    pieces: Pieces,
}

impl Writer {
    /// All of a batch.
    fn write(&mut self, batch: &Batch) -> Vec<u8> {
        let (wire, _) = self.take(batch, usize::MAX);
        assert_eq!(wire.len(), batch.wire_len());
        wire
    }

    /// The first `limit` bytes of a batch, and where they end.
    fn take(&mut self, batch: &Batch, limit: usize) -> (Vec<u8>, Cursor) {
        let (mut wire, mut cursor) = (Vec::new(), Cursor::default());
        loop {
            let mut slices = [IoSlice::new(&[]); SLICES];
            let used = batch.gather(cursor, batch.end(), &mut slices[..self.width]);
            let offered: usize = slices[..used].iter().map(|slice| slice.len()).sum();
            let count = self.pieces.size().min(offered).min(limit - wire.len());
            if count == 0 {
                return (wire, cursor);
            }
            let mut left = count;
            for slice in &slices[..used] {
                let part = &slice[..left.min(slice.len())];
                wire.extend_from_slice(part);
                left -= part.len();
            }
            batch.advance(&mut cursor, count);
        }
    }
}

fn decode(mut wire: &[u8], mut pieces: Pieces, messages: &[Message]) {
    let limits = Limits {
        message: messages::MESSAGE_MAXIMUM,
        frame: usize::MAX,
        frames: messages::FRAMES_MAXIMUM,
        command: COMMAND_MAXIMUM,
        subscriptions: false,
    };
    let (mut decoder, mut input) = (Decoder::new(limits), BytesMut::new());
    let mut unpacking = pieces.clone();
    let mut expected = messages.iter();
    while !wire.is_empty() {
        pieces.arrive(&mut wire, decoder.body_buffer(), &mut input);
        loop {
            match decoder.decode(&mut input).expect("the encoding is right") {
                Decoded::Incomplete => {
                    check_memory(&decoder, &limits, input.len());
                    break;
                }
                Decoded::Command(body) => panic!("there was no command {body:?}"),
                Decoded::Run(run) => unpacking.unpack(run, |message| {
                    assert!(expected.next() == Some(&message), "another message comes than was sent");
                }),
            }
        }
    }
    assert_eq!((expected.len(), input.len(), decoder.memory()), (0, 0, 0));
}
