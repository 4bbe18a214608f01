//! Target `frames`: the decoder, compared with a naive one.

use bytes::BytesMut;

use crate::error::ProtocolError;
use crate::fuzzing::choices::{Choices, Pieces};
use crate::message::{Frame, Message};
use crate::zmtp::decoder::{ALLOCATE_AHEAD, ASSEMBLE_FROM, COMMAND_MAXIMUM, Decoded, Decoder, Limits};

/// What comes out of a stream.
#[derive(Debug, PartialEq)]
enum Item {
    Message(Message),
    Command(Vec<u8>),
}

/// Four bytes choose the limits, five the pieces in which the others arrive.
///
/// Invariants: the same items, and the same error at the same place, as the naive decoder gives; no step without progress;
/// what the decoder and the input hold stays within what the limits allow.
pub fn frames(data: &[u8]) {
    let mut choices = Choices::new(data);
    let mut limits = Limits {
        message: choices.one_of(&[1, 7, 64, 300, 5_000, 70_000, 1 << 20, usize::MAX]),
        frames: choices.one_of(&[1, 2, 3, 8, 100, 10_000, usize::MAX]),
        command: choices.one_of(&[COMMAND_MAXIMUM, 1, 300, usize::MAX]),
        frame: usize::MAX,
        subscriptions: false,
    };
    let flags = choices.byte();
    limits.subscriptions = flags & 1 == 1;
    limits.frame = [usize::MAX, 1, 64, 1_000][usize::from(flags >> 1 & 3)];
    let pieces = Pieces::choose(&mut choices);
    let wire = choices.rest();
    let expected = naive(wire, &limits);
    assert_eq!(decode(wire, limits, None), expected);
    assert_eq!(decode(wire, limits, Some(pieces)), expected);
}

/// Decodes a stream that comes in pieces, or in one.
fn decode(mut wire: &[u8], limits: Limits, pieces: Option<Pieces>) -> (Vec<Item>, Option<ProtocolError>) {
    let mut unpacking = pieces.clone().unwrap_or(Pieces::WHOLE);
    let (mut decoder, mut input, mut items) = (Decoder::new(limits), BytesMut::new(), Vec::new());
    let mut pieces = pieces;
    let mut steps = wire.len() + 1;
    while !wire.is_empty() {
        match &mut pieces {
            Some(pieces) => pieces.arrive(&mut wire, decoder.body_buffer(), &mut input),
            None => input.extend_from_slice(std::mem::take(&mut wire)),
        }
        loop {
            match decoder.decode(&mut input) {
                Ok(Decoded::Incomplete) => break,
                Ok(Decoded::Command(body)) => items.push(Item::Command(body.to_vec())),
                Ok(Decoded::Run(run)) => unpacking.unpack(run, |message| items.push(Item::Message(message))),
                Err(error) => return (items, Some(error)),
            }
            steps = steps.checked_sub(1).expect("there are more steps than bytes");
        }
        let left = input.len();
        assert!(matches!(decoder.decode(&mut input), Ok(Decoded::Incomplete)) && input.len() == left);
        check_memory(&decoder, &limits, left);
    }
    (items, None)
}

/// After everything whole has been taken.
pub(super) fn check_memory(decoder: &Decoder, limits: &Limits, input: usize) {
    let frames = limits.frames.saturating_mul(size_of::<Frame>()).saturating_add(limits.message);
    let held = frames.saturating_mul(2).saturating_add(ALLOCATE_AHEAD);
    assert!(decoder.memory() <= held, "the decoder holds {} bytes under {limits:?}", decoder.memory());
    // What counts against the budget is what is there, without the room that was made for more.
    assert!(decoder.held() <= decoder.memory(), "{} bytes count, of {}", decoder.held(), decoder.memory());
    let waits = ASSEMBLE_FROM.max(COMMAND_MAXIMUM).max(limits.command).saturating_add(9);
    assert!(input <= waits, "{input} bytes wait in the input");
}

/// Decodes a whole stream at once, as the RFC describes it.
fn naive(mut wire: &[u8], limits: &Limits) -> (Vec<Item>, Option<ProtocolError>) {
    let (mut items, mut frames, mut payload) = (Vec::new(), Vec::<Frame>::new(), 0_u64);
    loop {
        let Some((&flags, rest)) = wire.split_first() else {
            return (items, None);
        };
        if ![0, 1, 2, 3, 4, 6].contains(&flags) {
            return (items, Some(ProtocolError::IllegalFlags(flags)));
        }
        let size_length = if flags & 2 == 0 { 1 } else { 8 };
        if rest.len() < size_length {
            return (items, None);
        }
        let (size, mut rest) = rest.split_at(size_length);
        let mut size = size.iter().fold(0, |size, byte| size << 8 | u64::from(*byte));
        if limits.subscriptions && (flags, size) == (4, 0) {
            match without_long_flag(wire) {
                Some(true) => (size, rest) = (256 + u64::from(wire[8]), &wire[9..]),
                Some(false) => {}
                None => return (items, None),
            }
        }
        let is_command = flags & 4 != 0;
        let error = if is_command {
            let limit = limits.command as u64;
            (size > limit).then_some(ProtocolError::CommandTooLarge { size, limit })
        } else {
            let (total, limit) = (u128::from(payload) + u128::from(size), limits.message as u64);
            if total > u128::from(limit) {
                let size = u64::try_from(total).unwrap_or(u64::MAX);
                Some(ProtocolError::MessageTooLarge { size, limit })
            } else if size > limits.frame as u64 {
                Some(ProtocolError::FrameTooLarge { size, limit: limits.frame as u64 })
            } else if frames.len() == limits.frames {
                Some(ProtocolError::TooManyFrames { limit: limits.frames })
            } else {
                None
            }
        };
        if error.is_some() {
            return (items, error);
        }
        if (rest.len() as u64) < size {
            return (items, None);
        }
        let (body, rest) = rest.split_at(usize::try_from(size).unwrap());
        wire = rest;
        if is_command {
            items.push(Item::Command(body.to_vec()));
            continue;
        }
        frames.push(body.into());
        payload += size;
        if flags & 1 == 0 {
            items.push(Item::Message(Message::from(std::mem::take(&mut frames))));
            payload = 0;
        }
    }
}

/// Whether this is a long subscription or cancellation whose flags do not say so, as libzmq before 4.3.5 writes them; `None`
/// if more bytes are needed to say so.
fn without_long_flag(wire: &[u8]) -> Option<bool> {
    let forms = [&b"\x09SUBSCRIBE"[..], b"\x06CANCEL"].map(|name| [b"\x04\0\0\0\0\0\0\x01?", name].concat());
    let agrees = |form: &Vec<u8>| wire.iter().zip(form).enumerate().all(|(at, (byte, other))| at == 8 || byte == other);
    let form = forms.iter().find(|form| agrees(form));
    form.map_or(Some(false), |form| (wire.len() >= form.len()).then_some(true))
}
