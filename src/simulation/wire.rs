//! What was said on a connection, read from its tape by a reader of its own that shares nothing with the library.

use crate::simulation::stream::Tape;
use crate::simulation::world::Tag;

/// What one side has sent whole, messages only, and how many of them the other side has read whole.
#[derive(Debug, Default)]
pub(super) struct Said {
    pub(super) messages: Vec<Tag>,
    pub(super) heard: usize,
}

const GREETING: usize = 64;
const MORE: u8 = 1;
const LONG: u8 = 2;
const COMMAND: u8 = 4;

impl Said {
    pub(super) fn read(tape: &Tape) -> Self {
        let mut said = Self::default();
        let mut at = GREETING;
        while let Some((flags, body, end)) = frame(&tape.bytes, at) {
            at = end;
            if flags & (COMMAND | MORE) == 0 {
                said.messages.extend(Tag::of(body));
                said.heard += usize::from(end <= tape.read);
            }
        }
        said
    }

    /// The messages that were read by the other side.
    pub(super) fn heard(&self) -> &[Tag] {
        &self.messages[..self.heard]
    }
}

fn frame(bytes: &[u8], at: usize) -> Option<(u8, &[u8], usize)> {
    let flags = *bytes.get(at)?;
    let (start, length) = match flags & LONG {
        0 => (at + 2, u64::from(*bytes.get(at + 1)?)),
        _ => (at + 9, u64::from_be_bytes(bytes.get(at + 1..at + 9)?.try_into().ok()?)),
    };
    let end = usize::try_from(length).ok()?.checked_add(start)?;
    Some((flags, bytes.get(start..end)?, end))
}
