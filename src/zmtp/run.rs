//! Runs of received messages: still encoded, already validated, turned into messages where they are consumed.

use std::ops::Range;

use bytes::{Buf, Bytes};

use crate::message::{Frame, Message};
use crate::zmtp::frame::{self, Header};

/// Bodies from this size on share the buffer that they were received in; smaller ones are copied out of it, so
/// that a small message which is kept does not keep a large buffer alive.
pub(crate) const SHARE_FROM: usize = 4 * 1024;

/// Consecutive messages of one peer.
#[derive(Debug)]
pub(crate) struct Run {
    body: Body,
    messages: usize,
    payload: usize,
}

#[derive(Debug)]
enum Body {
    /// Whole messages, as they came over the wire; the decoder has checked every header.
    Packed { wire: Bytes, at: usize },
    /// One message that was assembled frame by frame.
    Whole(Option<Message>),
}

impl Run {
    /// A run of `messages` whole and valid messages with `payload` bytes in their bodies.
    pub(crate) fn packed(wire: Bytes, messages: usize, payload: usize) -> Self {
        Self { body: Body::Packed { wire, at: 0 }, messages, payload }
    }

    /// A run of one message.
    pub(crate) fn whole(message: Message) -> Self {
        let payload = message.byte_len();
        Self { body: Body::Whole(Some(message)), messages: 1, payload }
    }

    /// A run of one message, in the form that takes the least memory: several small frames in their encoding.
    pub(crate) fn compact(message: Message) -> Self {
        if message.frame_count() == 1 || message.iter().any(|frame| frame.len() >= SHARE_FROM) {
            return Self::whole(message);
        }
        let mut wire = Vec::new();
        let last = message.frame_count() - 1;
        for (index, frame) in message.iter().enumerate() {
            frame::write_header(&mut wire, if index == last { 0 } else { frame::MORE }, frame.len());
            wire.extend_from_slice(frame);
        }
        Self::packed(Bytes::from(wire), 1, message.byte_len())
    }

    /// How many messages are left.
    pub(crate) fn messages(&self) -> usize {
        self.messages
    }

    /// The sum of the bodies that are left, in bytes.
    pub(crate) fn payload(&self) -> usize {
        self.payload
    }

    /// The next message's size over all frames, in bytes.
    #[inline]
    pub(crate) fn next_size(&self) -> usize {
        match &self.body {
            Body::Packed { wire, at } => match wire.get(*at..) {
                Some(&[0, length, ..]) => usize::from(length),
                Some(rest) => measure(rest).map_or(0, |(_, payload)| payload),
                None => 0,
            },
            Body::Whole(_) => self.payload,
        }
    }

    /// Moves the next message into `slot`; `false` if there is none left.
    #[inline]
    pub(crate) fn next_into(&mut self, slot: &mut Message) -> bool {
        let Some(left) = self.messages.checked_sub(1) else {
            return false;
        };
        self.messages = left;
        let size = match &mut self.body {
            Body::Packed { wire, at } => unpack_message(wire, at, slot),
            Body::Whole(message) => message.take().map(|message| {
                *slot = message;
                self.payload
            }),
        };
        self.payload -= size.unwrap_or(0);
        size.is_some()
    }

    #[cfg(test)]
    pub(crate) fn next(&mut self) -> Option<Message> {
        let mut slot = Message::default();
        self.next_into(&mut slot).then_some(slot)
    }

    /// Copies the messages out of the buffer that they were received in, so that it can be used again.
    pub(crate) fn detach(&mut self) {
        if let Body::Packed { wire, at } = &mut self.body {
            *wire = Bytes::copy_from_slice(&wire[std::mem::take(at)..]);
        }
    }

    /// How many bytes the messages take in memory.
    pub(crate) fn memory(&self) -> usize {
        match &self.body {
            Body::Packed { wire, at } => wire.len() - at,
            Body::Whole(Some(message)) => self.payload + message.frame_count() * size_of::<Frame>(),
            Body::Whole(None) => 0,
        }
    }

    #[cfg(test)]
    pub(crate) fn is_packed(&self) -> bool {
        matches!(self.body, Body::Packed { .. })
    }

    /// All frames of a message that is not yet whole.
    pub(crate) fn into_frames(self) -> Vec<Frame> {
        match self.body {
            Body::Packed { wire, mut at } => {
                std::iter::from_fn(|| unpack_frame(&wire, &mut at)).map(|(frame, _)| frame).collect()
            }
            Body::Whole(message) => message.map(Message::into_frames).unwrap_or_default(),
        }
    }

    /// Splits off as many messages at the front as `admits` allows; it is asked with the messages and bytes that
    /// are split off so far and the size of the next message.
    pub(crate) fn split_front(&mut self, admits: impl Fn(usize, usize, usize) -> bool) -> Option<Self> {
        let (mut end, mut messages, mut payload) = (0, 0, 0);
        match &mut self.body {
            Body::Packed { wire, at } => {
                wire.advance(std::mem::take(at));
                while let Some((length, size)) = measure(&wire[end..]) {
                    if !admits(messages, payload, size) {
                        break;
                    }
                    (end, messages, payload) = (end + length, messages + 1, payload + size);
                }
                if messages == 0 {
                    return None;
                }
                let front = Self::packed(wire.split_to(end), messages, payload);
                self.messages -= messages;
                self.payload -= payload;
                Some(front)
            }
            Body::Whole(message) => {
                admits(0, 0, self.payload).then_some(())?;
                (self.messages, self.payload) = (0, 0);
                message.take().map(Self::whole)
            }
        }
    }
}

/// The length on the wire and the payload of the message at the start of `wire`; `None` at its end.
#[inline]
fn measure(wire: &[u8]) -> Option<(usize, usize)> {
    let (mut end, mut payload) = (0, 0);
    loop {
        let header = Header::read(&wire[end..]).ok().flatten()?;
        #[allow(clippy::cast_possible_truncation)] // the decoder has checked it
        let body = header.body as usize;
        end += header.length + body;
        payload += body;
        if !header.more() {
            return Some((end, payload));
        }
    }
}

/// Moves the message at `at` into `slot`, and `at` to the next one; returns the message's size, or `None` at the end.
#[inline]
fn unpack_message(wire: &Bytes, at: &mut usize, slot: &mut Message) -> Option<usize> {
    // The common cases without a detour: one frame, short or long.
    match (wire.get(*at..), slot.single_mut()) {
        (Some(&[0, length, ref body @ ..]), Some(frame)) => {
            let length = usize::from(length);
            *at += frame::SHORT_HEADER + length;
            frame.copy_from_front(body, length);
            Some(length)
        }
        (Some(&[frame::LONG, ..]), Some(frame)) => {
            let (body, _) = pass_frame(wire, at)?;
            let length = body.len();
            unpack_body(wire, body, frame);
            Some(length)
        }
        _ => {
            *slot = unpack_frames(wire, at)?;
            Some(slot.byte_len())
        }
    }
}

fn unpack_frames(wire: &Bytes, at: &mut usize) -> Option<Message> {
    let mut frames = Vec::new();
    loop {
        let (frame, more) = unpack_frame(wire, at)?;
        match (more, frames.is_empty()) {
            (false, true) => return Some(Message::from(frame)),
            (false, false) => {
                frames.push(frame);
                return Some(Message::from_frames(frames));
            }
            (true, _) => frames.push(frame),
        }
    }
}

fn unpack_frame(wire: &Bytes, at: &mut usize) -> Option<(Frame, bool)> {
    let (body, more) = pass_frame(wire, at)?;
    let mut frame = Frame::default();
    unpack_body(wire, body, &mut frame);
    Some((frame, more))
}

/// Moves `at` past a frame; returns where its body is, and whether more frames follow.
#[inline]
fn pass_frame(wire: &Bytes, at: &mut usize) -> Option<(Range<usize>, bool)> {
    let header = Header::read(&wire[*at..]).ok().flatten()?;
    let start = *at + header.length;
    #[allow(clippy::cast_possible_truncation)] // the decoder has checked it
    let end = start + header.body as usize;
    *at = end;
    Some((start..end, header.more()))
}

/// Gives `frame` a body that has been received, in place.
#[inline]
fn unpack_body(wire: &Bytes, body: Range<usize>, frame: &mut Frame) {
    if body.len() < SHARE_FROM {
        frame.copy_from_front(&wire[body.start..], body.len());
    } else {
        *frame = Frame::from(wire.slice(body));
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    /// The messages in wire bytes that hold nothing else.
    pub(crate) fn unpack(wire: &[u8]) -> Vec<Message> {
        let wire = Bytes::copy_from_slice(wire);
        let mut at = 0;
        let next = || {
            let mut slot = Message::default();
            unpack_message(&wire, &mut at, &mut slot).map(|_| slot)
        };
        std::iter::from_fn(next).collect()
    }

    fn three() -> Run {
        Run::packed(Bytes::from_static(b"\x00\x01a\x01\x01b\x00\x01c\x00\x00"), 3, 3)
    }

    #[test]
    fn messages_come_out_in_order() {
        let mut run = three();
        assert_eq!(run.next(), Some("a".into()));
        assert_eq!((run.messages(), run.payload()), (2, 2));
        assert_eq!(run.next(), Some(["b", "c"].into()));
        assert_eq!(run.next(), Some("".into()));
        assert_eq!((run.next(), run.messages(), run.payload()), (None, 0, 0));
    }

    #[test]
    fn a_message_of_many_small_frames_takes_little_more_than_on_the_wire() {
        let message = Message::from(vec![""; 10_000]);
        let mut run = Run::compact(message.clone());
        assert!(run.memory() <= 20_000, "{}", run.memory());
        assert_eq!((run.messages(), run.payload()), (1, 0));
        assert_eq!((run.next(), run.next()), (Some(message), None));
        for message in [Message::from("alone"), Message::from(vec![vec![1; SHARE_FROM], vec![2; 3]])] {
            let mut run = Run::compact(message.clone());
            assert_eq!((run.payload(), run.next()), (message.byte_len(), Some(message)));
        }
    }

    #[test]
    fn a_run_is_split_where_room_ends() {
        let mut run = three();
        assert!(run.split_front(|_, _, _| false).is_none());
        let mut front = run.split_front(|messages, _, _| messages < 2).unwrap();
        assert_eq!((front.messages(), front.payload()), (2, 3));
        assert_eq!((run.messages(), run.payload()), (1, 0));
        assert_eq!((front.next(), front.next(), front.next()), (Some("a".into()), Some(["b", "c"].into()), None));
        assert_eq!((run.next(), run.next()), (Some("".into()), None));
    }

    #[test]
    fn a_run_is_split_after_messages_were_taken() {
        let mut run = three();
        run.next();
        let mut front = run.split_front(|_, payload, size| payload + size <= 2).unwrap();
        assert_eq!(front.messages(), 2);
        assert_eq!((front.next(), front.next()), (Some(["b", "c"].into()), Some("".into())));
        assert_eq!(run.messages(), 0);
    }

    #[test]
    fn a_single_message_is_split_off_whole_or_not_at_all() {
        let mut run = Run::whole(["b", "c"].into());
        assert!(run.split_front(|_, _, size| size < 2).is_none());
        let mut front = run.split_front(|_, _, size| size == 2).unwrap();
        assert_eq!((front.next(), run.next(), run.messages()), (Some(["b", "c"].into()), None, 0));
    }

    #[test]
    fn a_detached_run_leaves_its_buffer_alone() {
        let mut run = three();
        run.next();
        let before = run.memory();
        run.detach();
        assert_eq!((run.memory(), run.next()), (before, Some(["b", "c"].into())));
    }

    #[test]
    fn large_bodies_share_the_buffer_and_small_ones_do_not() {
        let mut wire = vec![2, 0, 0, 0, 0, 0, 0];
        wire.extend(u16::try_from(SHARE_FROM).unwrap().to_be_bytes());
        wire.resize(9 + SHARE_FROM, 7);
        wire.extend([0, 200]);
        wire.resize(9 + SHARE_FROM + 2 + 200, 8);
        let wire = Bytes::from(wire);
        let mut run = Run::packed(wire.clone(), 2, SHARE_FROM + 200);
        let range = wire.as_ptr_range();
        assert!(range.contains(&run.next().unwrap()[0].as_ptr()));
        assert!(!range.contains(&run.next().unwrap()[0].as_ptr()));
    }
}
