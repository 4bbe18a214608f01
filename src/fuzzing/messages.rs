//! Messages made from choices, and their encoding as the RFC describes it.

use crate::fuzzing::choices::Choices;
use crate::message::Message;
use crate::zmtp::decoder::{ALLOCATE_AHEAD, ASSEMBLE_FROM};
use crate::zmtp::encoder::CHAIN_FROM;
use crate::zmtp::run::SHARE_FROM;

/// An input stops making messages when they have this many bytes.
const PAYLOAD_MAXIMUM: usize = 256 << 10;

/// The most that [`many`] makes.
pub(super) const MESSAGE_MAXIMUM: usize = FRAMES_MAXIMUM * (ALLOCATE_AHEAD + 255);
pub(super) const FRAMES_MAXIMUM: usize = 4;

/// A message with frames of lengths around those at which the code takes another way.
pub(super) fn one(choices: &mut Choices<'_>) -> Message {
    let count = 1 + usize::from(choices.byte()) % FRAMES_MAXIMUM;
    let frames = (0..count).map(|_| {
        let [code, first] = choices.array();
        let length = match usize::from(code) {
            code @ ..128 => code,
            code @ 128..160 => code - 128 + 240,
            code @ 160..176 => code - 160 + SHARE_FROM - 8,
            code @ 176..192 => code - 176 + CHAIN_FROM - 8,
            code @ 192..216 => code - 192 + ASSEMBLE_FROM - 16,
            code @ 216..255 => (code - 216) * 1_000,
            code => code + ALLOCATE_AHEAD,
        };
        let mut body = vec![first; length];
        body.iter_mut().step_by(61).zip((0..=u8::MAX).cycle()).for_each(|(byte, other)| *byte = other);
        body
    });
    frames.collect()
}

/// Messages from all that is left.
pub(super) fn many(mut choices: Choices<'_>) -> Vec<Message> {
    let (mut messages, mut payload) = (Vec::new(), 0);
    while !choices.is_empty() && payload < PAYLOAD_MAXIMUM {
        let message = one(&mut choices);
        payload += message.byte_len();
        messages.push(message);
    }
    messages
}

pub(super) fn encoding(message: &Message) -> Vec<u8> {
    encodings(std::slice::from_ref(message))
}

pub(super) fn encodings(messages: &[Message]) -> Vec<u8> {
    let mut wire = Vec::new();
    messages.iter().for_each(|message| encode(message, &mut wire));
    wire
}

fn encode(message: &Message, wire: &mut Vec<u8>) {
    let last = message.frame_count() - 1;
    for (index, frame) in message.iter().enumerate() {
        let more = u8::from(index < last);
        match u8::try_from(frame.len()) {
            Ok(length) => wire.extend([more, length]),
            Err(_) => {
                wire.push(more | 2);
                wire.extend((frame.len() as u64).to_be_bytes());
            }
        }
        wire.extend_from_slice(frame);
    }
}
