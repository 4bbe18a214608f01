//! The decoder: cuts a byte stream into runs of whole messages and commands, checking every limit on the way.

use bytes::buf::Limit;
use bytes::{Buf, BufMut, Bytes, BytesMut};

use crate::error::ProtocolError;
use crate::message::{Frame, Message};
use crate::zmtp::frame::{self, Header};
use crate::zmtp::run::Run;

/// The largest command that is accepted unless a socket says otherwise; the metadata of a handshake is a command, too.
pub(crate) const COMMAND_MAXIMUM: usize = 16 * 1024;

/// A run is cut after this many messages, so that dividing one between queue and waiting room stays cheap.
const RUN_MESSAGES: usize = 256;

/// A message that is longer than this on the wire and not there yet gets buffers of its own, which are read into
/// directly; a shorter one waits in the input buffer until it is whole.
pub(crate) const ASSEMBLE_FROM: usize = 64 * 1024;

/// A frame of such a message that is at least this long shares the buffer that it came in.
const SHARE_ASSEMBLED_FROM: usize = 64 * 1024;

/// How far an allocation may run ahead of the bytes that have really come.
pub(crate) const ALLOCATE_AHEAD: usize = 1024 * 1024;

/// What a peer may send.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Limits {
    /// Bytes in a message, over all frames.
    pub(crate) message: usize,
    /// Bytes in a frame of a message.
    pub(crate) frame: usize,
    /// Frames in a message.
    pub(crate) frames: usize,
    /// Bytes in a command after the handshake; some need more than [`COMMAND_MAXIMUM`].
    pub(crate) command: usize,
    /// Subscriptions may come, also in the form that libzmq before 4.3.5 gives some of them; see [`flagless`].
    pub(crate) subscriptions: bool,
}

/// What a call of [`Decoder::decode`] found.
#[derive(Debug)]
pub(crate) enum Decoded {
    /// Nothing whole is left; more bytes are needed.
    Incomplete,
    /// Consecutive whole messages.
    Run(Run),
    /// A command's body.
    Command(Bytes),
}

/// How much of a message has been seen.
#[derive(Debug, Clone, Copy, Default)]
struct Progress {
    frames: usize,
    payload: usize,
}

impl Progress {
    /// Counts one more frame; gives the length of its body.
    #[inline]
    fn add(&mut self, header: Header, limits: &Limits) -> Result<usize, ProtocolError> {
        let room = limits.message - self.payload;
        match usize::try_from(header.body) {
            Ok(body) if body <= room.min(limits.frame) => {
                if self.frames == limits.frames {
                    return Err(ProtocolError::TooManyFrames { limit: limits.frames });
                }
                self.frames += 1;
                self.payload += body;
                Ok(body)
            }
            Ok(body) if body <= room => {
                Err(ProtocolError::FrameTooLarge { size: header.body, limit: limits.frame as u64 })
            }
            _ => Err(ProtocolError::MessageTooLarge {
                size: header.body.saturating_add(self.payload as u64),
                limit: limits.message as u64,
            }),
        }
    }
}

/// A message that is put together frame by frame.
#[derive(Debug, Default)]
struct Assembly {
    frames: Vec<Frame>,
    progress: Progress,
    body: Option<PartialBody>,
}

#[derive(Debug)]
struct PartialBody {
    buffer: BytesMut,
    size: usize,
    more: bool,
}

impl PartialBody {
    fn missing(&self) -> usize {
        self.size - self.buffer.len()
    }
}

/// Decodes one peer's stream; holds no bytes of whole messages.
#[derive(Debug)]
pub(crate) struct Decoder {
    limits: Limits,
    /// Up to here the message at the start of the input has been scanned …
    at: usize,
    /// … and found to have this much.
    progress: Progress,
    assembly: Option<Assembly>,
}

impl Decoder {
    pub(crate) fn new(limits: Limits) -> Self {
        Self { limits, at: 0, progress: Progress::default(), assembly: None }
    }

    /// Takes what is whole from the front of `input`. To be called again until it says [`Decoded::Incomplete`];
    /// what is in `input` then must still be there, with more behind it, at the next call.
    pub(crate) fn decode(&mut self, input: &mut BytesMut) -> Result<Decoded, ProtocolError> {
        if self.assembly.is_some() {
            return self.assemble(input);
        }
        let (mut whole, mut messages, mut payload) = (0, 0, 0);
        let error = loop {
            if messages == RUN_MESSAGES {
                break None;
            }
            let header = match Header::read(&input[self.at..]) {
                Ok(Some(header)) if !header.is_command() => header,
                Ok(None) => break None,
                Ok(Some(_)) if messages > 0 => break None,
                Ok(Some(_)) if self.progress.frames == 0 => {
                    return take_command(input, self.limits.command, self.limits.subscriptions);
                }
                Ok(Some(_)) => return self.begin_assembly(input),
                Err(error) => break Some(error),
            };
            let before = self.progress;
            let body = match self.progress.add(header, &self.limits) {
                Ok(body) => body,
                Err(error) => break Some(error),
            };
            // The limit may be as large as the number type.
            let end = (self.at + header.length).saturating_add(body);
            if end > input.len() {
                self.progress = before;
                if messages == 0 && end > ASSEMBLE_FROM {
                    return self.begin_assembly(input);
                }
                break None;
            }
            self.at = end;
            if !header.more() {
                whole = end;
                messages += 1;
                payload += self.progress.payload;
                self.progress = Progress::default();
            }
        };
        if messages > 0 {
            // An error shows again at the next call: what came before it is still delivered.
            self.at -= whole;
            return Ok(Decoded::Run(Run::packed(input.split_to(whole).freeze(), messages, payload)));
        }
        match error {
            Some(error) => Err(error),
            // The frames that have come whole are a long message already: it must not grow in the input.
            None if self.at > ASSEMBLE_FROM => self.begin_assembly(input),
            None => Ok(Decoded::Incomplete),
        }
    }

    /// Where the rest of a large body may be read into directly, when the input is empty.
    pub(crate) fn body_buffer(&mut self) -> Option<Limit<&mut BytesMut>> {
        let body = self.assembly.as_mut()?.body.as_mut()?;
        let missing = body.missing();
        if body.buffer.capacity() == body.buffer.len() {
            body.buffer.reserve(missing.min(body.buffer.len().max(ALLOCATE_AHEAD)));
        }
        Some((&mut body.buffer).limit(missing))
    }

    /// How many bytes of a message that is not whole are held outside of the input, its frames' own memory included.
    #[inline]
    pub(crate) fn held(&self) -> usize {
        self.assembly.as_ref().map_or(0, |assembly| {
            let missing = assembly.body.as_ref().map_or(0, PartialBody::missing);
            assembly.progress.payload - missing + assembly.frames.capacity() * size_of::<Frame>()
        })
    }

    /// How much memory a message that is not whole takes outside of the input, in bytes.
    #[cfg(any(fuzzing, test))]
    pub(crate) fn memory(&self) -> usize {
        self.assembly.as_ref().map_or(0, |assembly| {
            let bodies: usize = assembly.frames.iter().map(|frame| frame.len()).sum();
            let partial = assembly.body.as_ref().map_or(0, |body| body.buffer.capacity());
            assembly.frames.capacity() * size_of::<Frame>() + bodies + partial
        })
    }

    /// Whether a message has begun and not ended.
    #[cfg(test)]
    fn is_inside_message(&self) -> bool {
        self.assembly.is_some() || self.progress.frames > 0
    }

    /// Moves the frames of the message at the start of the input out of it.
    fn begin_assembly(&mut self, input: &mut BytesMut) -> Result<Decoded, ProtocolError> {
        // Copied: a frame of a few kilobytes must not keep all of the buffer that it came in.
        let frames = Bytes::copy_from_slice(&input.split_to(std::mem::take(&mut self.at)));
        self.assembly = Some(Assembly {
            frames: Run::packed(frames, 1, self.progress.payload).into_frames(),
            progress: std::mem::take(&mut self.progress),
            body: None,
        });
        self.assemble(input)
    }

    fn assemble(&mut self, input: &mut BytesMut) -> Result<Decoded, ProtocolError> {
        let Some(assembly) = &mut self.assembly else {
            return Ok(Decoded::Incomplete);
        };
        loop {
            if let Some(mut body) = assembly.body.take() {
                let count = body.missing().min(input.len());
                body.buffer.extend_from_slice(&input[..count]);
                input.advance(count);
                if body.missing() > 0 {
                    assembly.body = Some(body);
                    return Ok(Decoded::Incomplete);
                }
                assembly.frames.push(Frame::from(body.buffer.freeze()));
                if !body.more {
                    let frames = std::mem::take(&mut assembly.frames);
                    self.assembly = None;
                    return Ok(Decoded::Run(Run::compact(Message::from_frames(frames))));
                }
            }
            let Some(header) = Header::read(input)? else {
                return Ok(Decoded::Incomplete);
            };
            if header.is_command() {
                return take_command(input, self.limits.command, self.limits.subscriptions);
            }
            let size = assembly.progress.add(header, &self.limits)?;
            input.advance(header.length);
            let buffer = if (SHARE_ASSEMBLED_FROM..=input.len()).contains(&size) {
                input.split_to(size)
            } else {
                BytesMut::with_capacity(size.min(ALLOCATE_AHEAD))
            };
            assembly.body = Some(PartialBody { buffer, size, more: header.more() });
        }
    }
}

/// Takes the command at the start of the input, if it is whole.
pub(crate) fn take_command(input: &mut BytesMut, limit: usize, subscriptions: bool) -> Result<Decoded, ProtocolError> {
    let Some(header) = Header::read(input)? else {
        return Ok(Decoded::Incomplete);
    };
    let header = match header.body {
        0 if subscriptions => match flagless(input) {
            Flagless::No => header,
            Flagless::Long(long) => long,
            Flagless::Incomplete => return Ok(Decoded::Incomplete),
        },
        _ => header,
    };
    match usize::try_from(header.body) {
        Ok(size) if size <= limit => {
            if input.len() < header.length.saturating_add(size) {
                return Ok(Decoded::Incomplete);
            }
            input.advance(header.length);
            Ok(Decoded::Command(input.split_to(size).freeze()))
        }
        _ => Err(ProtocolError::CommandTooLarge { size: header.body, limit: limit as u64 }),
    }
}

/// What an empty command turns out to be.
enum Flagless {
    No,
    Long(Header),
    Incomplete,
}

/// libzmq before 4.3.5 writes a SUBSCRIBE or CANCEL of 256 to 264 bytes with a size of eight bytes and forgets to say so.
/// What it looks like instead, an empty command, means nothing and is sent by nobody; and the name tells for certain.
fn flagless(input: &[u8]) -> Flagless {
    const HEADS: [&[u8]; 2] = [b"\x09SUBSCRIBE", b"\x06CANCEL"];
    const START: &[u8] = &[frame::COMMAND, 0, 0, 0, 0, 0, 0, 1];
    let known = START.len().min(input.len());
    if input[..known] != START[..known] {
        return Flagless::No;
    }
    let Some(&last) = input.get(START.len()) else {
        return Flagless::Incomplete;
    };
    let name = &input[START.len() + 1..];
    if HEADS.iter().any(|head| name.starts_with(head)) {
        return Flagless::Long(Header::long_command(256 + u64::from(last)));
    }
    match HEADS.iter().any(|head| head.starts_with(name)) {
        true => Flagless::Incomplete,
        false => Flagless::No,
    }
}

#[cfg(test)]
mod tests {
    use std::io::IoSlice;

    use proptest::collection::vec;
    use proptest::prelude::*;

    use super::*;
    use crate::zmtp::command;
    use crate::zmtp::encoder::{Batch, CHAIN_FROM, Cursor};
    use crate::zmtp::run::SHARE_FROM;

    const LIMITS: Limits =
        Limits { message: 1 << 20, frame: 1 << 20, frames: 8, command: COMMAND_MAXIMUM, subscriptions: true };

    #[derive(Debug, Clone, PartialEq)]
    enum Item {
        Message(Message),
        Command(Vec<u8>),
    }

    fn drain(decoder: &mut Decoder, input: &mut BytesMut, out: &mut Vec<Item>) -> Result<(), ProtocolError> {
        loop {
            match decoder.decode(input)? {
                Decoded::Incomplete => return Ok(()),
                Decoded::Command(body) => out.push(Item::Command(body.to_vec())),
                Decoded::Run(mut run) => {
                    let (messages, payload) = (run.messages(), run.payload());
                    let before = out.len();
                    out.extend(std::iter::from_fn(|| run.next()).map(Item::Message));
                    assert_eq!(out.len() - before, messages);
                    let sum = |item: &Item| match item {
                        Item::Message(message) => message.byte_len(),
                        Item::Command(_) => 0,
                    };
                    assert_eq!(out[before..].iter().map(sum).sum::<usize>(), payload);
                }
            }
        }
    }

    fn decode_in_chunks(wire: &[u8], chunks: &[usize]) -> Result<Vec<Item>, ProtocolError> {
        let (mut decoder, mut input, mut out) = (Decoder::new(LIMITS), BytesMut::new(), Vec::new());
        let mut sizes = chunks.iter().copied().cycle();
        let mut rest = wire;
        while !rest.is_empty() {
            let size = sizes.next().unwrap_or(1).clamp(1, rest.len());
            let (chunk, tail) = rest.split_at(size);
            rest = tail;
            match decoder.body_buffer().filter(|_| input.is_empty()) {
                // As the engine does: part of a chunk goes straight into the body, the rest through the input.
                Some(mut body) => {
                    let direct = body.remaining_mut().min(chunk.len());
                    body.put_slice(&chunk[..direct]);
                    input.extend_from_slice(&chunk[direct..]);
                }
                None => input.extend_from_slice(chunk),
            }
            drain(&mut decoder, &mut input, &mut out)?;
        }
        assert!(input.is_empty() && !decoder.is_inside_message());
        Ok(out)
    }

    fn encode(message: &Message, out: &mut Vec<u8>) {
        let mut batch = Batch::default();
        batch.push(message);
        let mut cursor = Cursor::default();
        while !batch.is_taken(cursor) {
            let mut slices = [IoSlice::new(&[]); 4];
            let used = batch.gather(cursor, batch.end(), &mut slices);
            let before = out.len();
            slices[..used].iter().for_each(|slice| out.extend_from_slice(slice));
            batch.advance(&mut cursor, out.len() - before);
        }
    }

    /// A frame body length around each size at which the code takes another way.
    fn length() -> impl Strategy<Value = usize> {
        prop_oneof![
            4 => 0_usize..70,
            2 => 250_usize..260,
            1 => SHARE_FROM - 1..SHARE_FROM + 2,
            1 => CHAIN_FROM - 1..CHAIN_FROM + 2,
            1 => ASSEMBLE_FROM - 20..ASSEMBLE_FROM + 2,
        ]
    }

    fn message() -> impl Strategy<Value = Message> {
        vec((length(), any::<u8>()), 1..4)
            .prop_map(|frames| frames.into_iter().map(|(length, byte)| vec![byte; length]).collect())
    }

    proptest! {
        #![proptest_config(ProptestConfig { cases: 128, ..ProptestConfig::default() })]

        #[test]
        fn any_chunking_of_any_messages_decodes_to_itself(
            messages in vec(message(), 1..12),
            chunks in vec(prop_oneof![1_usize..10, 1_usize..100_000], 1..6),
        ) {
            let mut wire = Vec::new();
            messages.iter().for_each(|message| encode(message, &mut wire));
            let expected: Vec<Item> = messages.into_iter().map(Item::Message).collect();
            prop_assert_eq!(decode_in_chunks(&wire, &chunks).unwrap(), expected);
        }

        #[test]
        fn commands_come_out_between_messages_wherever_they_stand(
            frames in vec(length(), 1..8),
            at in 0_usize..9,
            chunks in vec(1_usize..5_000, 1..6),
        ) {
            let message: Message = frames.iter().map(|length| vec![7; *length]).collect();
            let mut wire = Vec::new();
            for (index, frame) in message.iter().enumerate() {
                if index == at {
                    command::write_pong(&mut wire, b"x");
                }
                let more = u8::from(index + 1 < frames.len());
                crate::zmtp::frame::write_header(&mut wire, more, frame.len());
                wire.extend_from_slice(frame);
            }
            let items = decode_in_chunks(&wire, &chunks).unwrap();
            let mut expected = vec![Item::Message(message)];
            if at < frames.len() {
                expected.insert(0, Item::Command(b"\x04PONGx".to_vec()));
            }
            prop_assert_eq!(items, expected);
        }

        #[test]
        fn any_bytes_decode_or_fail_without_a_panic(
            wire in vec(prop_oneof![3 => 0_u8..8, 1 => any::<u8>()], 0..200),
            chunk in 1_usize..20,
        ) {
            let (mut decoder, mut input, mut out) = (Decoder::new(LIMITS), BytesMut::new(), Vec::new());
            for chunk in wire.chunks(chunk) {
                input.extend_from_slice(chunk);
                if drain(&mut decoder, &mut input, &mut out).is_err() {
                    break;
                }
            }
        }
    }

    fn error_of(wire: &[u8]) -> ProtocolError {
        decode_in_chunks(wire, &[wire.len()]).unwrap_err()
    }

    #[test]
    fn a_subscription_of_an_old_libzmq_without_the_long_flag_is_understood() {
        let topic = [b'x'; 250];
        let mut wire = b"\x04\0\0\0\0\0\0\x01\x04\x09SUBSCRIBE".to_vec();
        wire.extend(topic);
        wire.extend(b"\x00\x01a\x04\x00\x00\x00\x00\x01b");
        let command = Item::Command([&b"\x09SUBSCRIBE"[..], &topic].concat());
        let rest =
            [Item::Message("a".into()), Item::Command(vec![]), Item::Message("".into()), Item::Message("b".into())];
        for chunk in [1, 7, 9, 10, 500] {
            assert_eq!(
                decode_in_chunks(&wire, &[chunk]).unwrap(),
                [std::slice::from_ref(&command), &rest[..]].concat(),
                "{chunk}"
            );
        }
    }

    #[test]
    fn a_long_header_with_a_small_body_is_accepted() {
        let items = decode_in_chunks(b"\x02\0\0\0\0\0\0\0\x01A", &[1]).unwrap();
        assert_eq!(items, [Item::Message("A".into())]);
    }

    #[test]
    fn enormous_sizes_are_refused_before_anything_is_allocated() {
        for size in [LIMITS.message as u64 + 1, u64::from(u32::MAX), 1 << 63, u64::MAX] {
            let mut wire = vec![2];
            wire.extend(size.to_be_bytes());
            let limit = LIMITS.message as u64;
            assert_eq!(error_of(&wire), ProtocolError::MessageTooLarge { size, limit });
            wire[0] = 6;
            let limit = COMMAND_MAXIMUM as u64;
            assert_eq!(error_of(&wire), ProtocolError::CommandTooLarge { size, limit });
        }
    }

    #[test]
    fn an_allocation_runs_only_a_bounded_way_ahead_of_the_bytes() {
        let limits =
            Limits { message: 1 << 40, frame: 1 << 40, frames: 1, command: COMMAND_MAXIMUM, subscriptions: true };
        let mut decoder = Decoder::new(limits);
        let mut input = BytesMut::from(&b"\x02\0\0\0\xff\0\0\0\0"[..]);
        assert!(matches!(decoder.decode(&mut input), Ok(Decoded::Incomplete)));
        let body = decoder.body_buffer().unwrap();
        assert!(body.get_ref().capacity() <= ALLOCATE_AHEAD);
    }

    #[test]
    fn a_limit_as_large_as_the_number_type_makes_no_sum_overflow() {
        let limits = Limits {
            message: usize::MAX,
            frame: usize::MAX,
            frames: usize::MAX,
            command: COMMAND_MAXIMUM,
            subscriptions: true,
        };
        for wire in [&b"\x02\xff\xff\xff\xff\xff\xff\xff\xff"[..], b"\x01\x01A\x02\xff\xff\xff\xff\xff\xff\xff\xf0"] {
            let (mut decoder, mut input, mut out) = (Decoder::new(limits), BytesMut::from(wire), Vec::new());
            assert_eq!(drain(&mut decoder, &mut input, &mut out), Ok(()));
            assert!(out.is_empty() && decoder.is_inside_message());
        }
    }

    #[test]
    fn small_frames_that_were_assembled_are_kept_encoded() {
        let mut wire = Vec::new();
        encode(&Message::from(["a", "b", "c"]), &mut wire);
        command::write_pong(&mut wire, b"");
        let pong = wire.split_off(9);
        wire.splice(6..6, pong);
        let (mut decoder, mut input) = (Decoder::new(LIMITS), BytesMut::from(&wire[..]));
        assert!(matches!(decoder.decode(&mut input), Ok(Decoded::Command(_))));
        let Ok(Decoded::Run(mut run)) = decoder.decode(&mut input) else {
            panic!("no run");
        };
        assert_eq!((run.is_packed(), run.next()), (true, Some(["a", "b", "c"].into())));
    }

    #[test]
    fn the_limit_counts_all_frames_of_a_message() {
        let mut wire = Vec::new();
        encode(&Message::from([vec![0; LIMITS.message], vec![]]), &mut wire);
        assert!(decode_in_chunks(&wire, &[5_000]).is_ok());
        wire.clear();
        encode(&Message::from([vec![0; LIMITS.message], vec![0; 1]]), &mut wire);
        let error = decode_in_chunks(&wire, &[5_000]).unwrap_err();
        let limit = LIMITS.message as u64;
        assert_eq!(error, ProtocolError::MessageTooLarge { size: limit + 1, limit });
    }

    #[test]
    fn more_frames_than_allowed_are_refused() {
        let error = ProtocolError::TooManyFrames { limit: LIMITS.frames };
        assert_eq!(error_of(&b"\x01\x00".repeat(LIMITS.frames + 1)), error);
    }

    #[test]
    fn messages_before_an_error_are_still_delivered() {
        let (mut decoder, mut out) = (Decoder::new(LIMITS), Vec::new());
        let mut input = BytesMut::from(&b"\x00\x01a\x08"[..]);
        let result = drain(&mut decoder, &mut input, &mut out);
        assert_eq!(result, Err(ProtocolError::IllegalFlags(8)));
        assert_eq!(out, [Item::Message("a".into())]);
    }
}
