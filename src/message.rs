//! Messages and their frames: small bodies inline, large ones shared.

use std::fmt;
use std::ops::{Deref, Index};
use std::sync::Arc;

use bytes::Bytes;

use crate::length::Length;

/// Bodies of up to this many bytes live inside the [`Frame`] itself, without a heap allocation.
pub(crate) const INLINE_SIZE: usize = 64;

/// The place for a small body. Aligned, so that a move of it is a few whole-register copies, none of which lies on two lines
/// of the cache.
#[derive(Clone, Copy)]
#[repr(align(16))]
struct Window([u8; INLINE_SIZE]);

// The layout decides how fast a message moves. A move is made of pieces of 16 bytes, and a piece that was not stored as one
// waits until its parts have left the store buffer. So the window comes first, and what tells this body from others last, in a
// word that is moved apart.
#[derive(Clone)]
enum Body {
    Inline {
        /// What it holds past the length is arbitrary.
        window: Window,
        length: Length,
        /// Fills what the alignment leaves. Without it a tag in front of the window would take no more room, and be preferred.
        _rest: u64,
    },
    Shared(Bytes),
}

/// One frame (part) of a [`Message`]: any bytes, also none.
///
/// Up to 64 bytes are stored in place; more are reference-counted, so that a clone never copies them.
///
/// ```
/// use sinew::Frame;
///
/// let frame = Frame::from("weather.berlin");
/// assert_eq!(&frame[..], b"weather.berlin");
/// ```
#[derive(Clone)]
pub struct Frame(Body);

impl Frame {
    /// Makes a frame from a copy of `body`.
    #[inline]
    pub fn copy_from_slice(body: &[u8]) -> Self {
        let Some(length) = Length::new(body.len()) else {
            return Self(Body::Shared(Bytes::copy_from_slice(body)));
        };
        let mut window = Window([0; INLINE_SIZE]);
        copy_small(&mut window.0, body);
        Self(Body::Inline { window, length, _rest: 0 })
    }

    /// Makes this frame a copy of the first `length` bytes of `source`.
    ///
    /// Reading a whole fixed-size window where the buffer allows it turns the copy of a small body into a few register
    /// moves; what the window holds past `length` is never visible.
    #[inline]
    pub(crate) fn copy_from_front(&mut self, source: &[u8], length: usize) {
        match (source.first_chunk(), Length::new(length), &mut self.0) {
            // In place: building a frame elsewhere and moving it here costs more than the copy.
            (Some(bytes), Some(length), Body::Inline { window, length: known, .. }) => {
                *known = length;
                window.0 = *bytes;
            }
            // An arm of its own: if it and the next one ended in one value, that would be moved in pieces of other widths than
            // it was stored in.
            (_, None, _) => self.0 = Body::Shared(Bytes::copy_from_slice(&source[..length])),
            _ => *self = Self::copy_from_slice(&source[..length]),
        }
    }

    /// The frame as [`Bytes`]: without a copy if it is larger than 64 bytes.
    ///
    /// ```
    /// let frame = sinew::Frame::from(vec![7; 100]);
    /// assert_eq!(frame.into_bytes(), vec![7; 100]);
    /// ```
    pub fn into_bytes(self) -> Bytes {
        match self.0 {
            Body::Inline { window, length, .. } => Bytes::copy_from_slice(&window.0[..length.get()]),
            Body::Shared(bytes) => bytes,
        }
    }

    /// The inline body as a fixed-size window and its length, for copying it in one go.
    #[inline]
    pub(crate) fn window(&self) -> Option<(&[u8; INLINE_SIZE], usize)> {
        match &self.0 {
            Body::Inline { window, length, .. } => Some((&window.0, length.get())),
            Body::Shared(_) => None,
        }
    }

    /// Whether nobody else holds the body.
    fn is_unique(&self) -> bool {
        match &self.0 {
            Body::Inline { .. } => true,
            Body::Shared(bytes) => bytes.is_unique(),
        }
    }
}

impl Default for Frame {
    /// An empty frame.
    fn default() -> Self {
        Self::copy_from_slice(&[])
    }
}

impl Deref for Frame {
    type Target = [u8];

    #[inline]
    fn deref(&self) -> &[u8] {
        match &self.0 {
            Body::Inline { window, length, .. } => &window.0[..length.get()],
            Body::Shared(bytes) => bytes,
        }
    }
}

impl AsRef<[u8]> for Frame {
    fn as_ref(&self) -> &[u8] {
        self
    }
}

impl PartialEq for Frame {
    fn eq(&self, other: &Self) -> bool {
        **self == **other
    }
}

impl Eq for Frame {}

impl PartialEq<[u8]> for Frame {
    fn eq(&self, other: &[u8]) -> bool {
        **self == *other
    }
}

impl PartialEq<&[u8]> for Frame {
    fn eq(&self, other: &&[u8]) -> bool {
        **self == **other
    }
}

impl PartialEq<str> for Frame {
    fn eq(&self, other: &str) -> bool {
        **self == *other.as_bytes()
    }
}

impl PartialEq<&str> for Frame {
    fn eq(&self, other: &&str) -> bool {
        **self == *other.as_bytes()
    }
}

impl fmt::Debug for Frame {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        const SHOWN: usize = 64;
        let shown = &self[..self.len().min(SHOWN)];
        write!(f, "b\"{}\"", shown.escape_ascii())?;
        if self.len() > SHOWN {
            write!(f, "… ({} bytes)", self.len())?;
        }
        Ok(())
    }
}

impl From<Bytes> for Frame {
    #[inline]
    fn from(bytes: Bytes) -> Self {
        if bytes.len() <= INLINE_SIZE { Self::copy_from_slice(&bytes) } else { Self(Body::Shared(bytes)) }
    }
}

impl From<Vec<u8>> for Frame {
    #[inline]
    fn from(body: Vec<u8>) -> Self {
        if body.len() <= INLINE_SIZE { Self::copy_from_slice(&body) } else { Self(Body::Shared(Bytes::from(body))) }
    }
}

impl From<String> for Frame {
    fn from(body: String) -> Self {
        Self::from(body.into_bytes())
    }
}

impl From<&[u8]> for Frame {
    #[inline]
    fn from(body: &[u8]) -> Self {
        Self::copy_from_slice(body)
    }
}

impl<const N: usize> From<&[u8; N]> for Frame {
    #[inline]
    fn from(body: &[u8; N]) -> Self {
        Self::copy_from_slice(body)
    }
}

impl From<&str> for Frame {
    #[inline]
    fn from(body: &str) -> Self {
        Self::copy_from_slice(body.as_bytes())
    }
}

impl From<&String> for Frame {
    fn from(body: &String) -> Self {
        Self::copy_from_slice(body.as_bytes())
    }
}

impl From<&Frame> for Frame {
    fn from(frame: &Frame) -> Self {
        frame.clone()
    }
}

/// Copies a body of at most [`INLINE_SIZE`] bytes with a few moves of fixed sizes, which may overlap: a call of
/// `memcpy` for an unknown length takes longer than the copy.
#[inline]
fn copy_small(window: &mut [u8; INLINE_SIZE], body: &[u8]) {
    #[inline]
    fn ends<const N: usize>(window: &mut [u8; INLINE_SIZE], body: &[u8]) {
        if let (Some(first), Some(last)) = (body.first_chunk::<N>(), body.last_chunk::<N>()) {
            window[..N].copy_from_slice(first);
            window[body.len() - N..body.len()].copy_from_slice(last);
        }
    }
    match body.len() {
        32.. => ends::<32>(window, body),
        16.. => ends::<16>(window, body),
        8.. => ends::<8>(window, body),
        4.. => ends::<4>(window, body),
        2.. => ends::<2>(window, body),
        _ => ends::<1>(window, body),
    }
}

#[derive(Clone)]
enum Frames {
    One(Frame),
    /// Two or more; [`Message::from_frames`] is the only place that builds it.
    Many(Arc<[Frame]>),
}

/// What a socket sends and receives: one or more [`Frame`]s that travel together or not at all.
///
/// Strings, byte slices, vectors and [`Bytes`] convert into a message of one frame; arrays, vectors and
/// iterators of those into a multipart message. A message always has at least one frame: an empty array makes
/// a message of one empty frame. A clone is cheap: at most 64 bytes are copied, or a reference count changes.
///
/// ```
/// use sinew::Message;
///
/// let single = Message::from("Hello World!");
/// assert_eq!(&single[0], b"Hello World!");
///
/// let multipart = Message::from(["part one", "part two"]);
/// assert_eq!(multipart.frame_count(), 2);
/// assert_eq!(multipart.byte_len(), 16);
/// for frame in &multipart {
///     println!("{frame:?}");
/// }
///
/// let numbers: Message = (0..3).map(|n: u8| vec![n]).collect();
/// assert_eq!(&numbers[2], [2]);
/// ```
#[derive(Clone)]
pub struct Message(Frames);

impl Message {
    /// Makes a message of these frames; of one empty frame if there are none.
    pub(crate) fn from_frames(mut frames: Vec<Frame>) -> Self {
        match frames.len() {
            0 => Self::default(),
            1 => frames.pop().map(Self::from).unwrap_or_default(),
            _ => Self(Frames::Many(frames.into())),
        }
    }

    /// The frame of a message that has only one.
    #[inline]
    pub(crate) fn single_mut(&mut self) -> Option<&mut Frame> {
        match &mut self.0 {
            Frames::One(frame) => Some(frame),
            Frames::Many(_) => None,
        }
    }

    /// How many bytes there are in bodies of at least so many that nobody else holds.
    pub(crate) fn unique_len(&self, from: usize) -> usize {
        if matches!(&self.0, Frames::Many(frames) if Arc::strong_count(frames) > 1) {
            return 0;
        }
        self.frames().iter().filter(|frame| frame.len() >= from && frame.is_unique()).map(|frame| frame.len()).sum()
    }

    /// How many frames there are; at least one.
    #[inline]
    pub fn frame_count(&self) -> usize {
        self.frames().len()
    }

    /// The sum of the frames' lengths, in bytes.
    #[inline]
    pub fn byte_len(&self) -> usize {
        match &self.0 {
            Frames::One(frame) => frame.len(),
            Frames::Many(frames) => frames.iter().map(|frame| frame.len()).sum(),
        }
    }

    /// The frames as a slice, in order; never empty.
    #[inline]
    pub fn frames(&self) -> &[Frame] {
        match &self.0 {
            Frames::One(frame) => std::slice::from_ref(frame),
            Frames::Many(frames) => frames,
        }
    }

    /// The frame at `index`, if there is one.
    pub fn get(&self, index: usize) -> Option<&Frame> {
        self.frames().get(index)
    }

    /// The frames in order.
    pub fn iter(&self) -> std::slice::Iter<'_, Frame> {
        self.frames().iter()
    }

    /// The frames by value, without copying bodies of more than 64 bytes.
    ///
    /// ```
    /// let message = sinew::Message::from(["key", "value"]);
    /// let [key, value] = message.into_frames().try_into().unwrap();
    /// assert_eq!((key, value), ("key".into(), "value".into()));
    /// ```
    pub fn into_frames(self) -> Vec<Frame> {
        match self.0 {
            Frames::One(frame) => vec![frame],
            Frames::Many(frames) => frames.to_vec(),
        }
    }
}

impl Default for Message {
    /// A message of one empty frame.
    fn default() -> Self {
        Self(Frames::One(Frame::default()))
    }
}

impl Index<usize> for Message {
    type Output = [u8];

    /// The bytes of the frame at `index`.
    ///
    /// # Panics
    ///
    /// If there is no such frame; [`Message::get`] does not.
    #[inline]
    fn index(&self, index: usize) -> &[u8] {
        &self.frames()[index]
    }
}

impl PartialEq for Message {
    fn eq(&self, other: &Self) -> bool {
        self.frames() == other.frames()
    }
}

impl Eq for Message {}

impl fmt::Debug for Message {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(self.frames()).finish()
    }
}

impl<'a> IntoIterator for &'a Message {
    type Item = &'a Frame;
    type IntoIter = std::slice::Iter<'a, Frame>;

    fn into_iter(self) -> Self::IntoIter {
        self.iter()
    }
}

impl IntoIterator for Message {
    type Item = Frame;
    type IntoIter = std::vec::IntoIter<Frame>;

    fn into_iter(self) -> Self::IntoIter {
        self.into_frames().into_iter()
    }
}

impl<T: Into<Frame>> FromIterator<T> for Message {
    fn from_iter<I: IntoIterator<Item = T>>(frames: I) -> Self {
        Self::from_frames(frames.into_iter().map(Into::into).collect())
    }
}

impl<T: Into<Frame>, const N: usize> From<[T; N]> for Message {
    fn from(frames: [T; N]) -> Self {
        frames.into_iter().collect()
    }
}

impl<T: Into<Frame>> From<Vec<T>> for Message {
    fn from(frames: Vec<T>) -> Self {
        frames.into_iter().collect()
    }
}

macro_rules! single_frame {
    ($($source:ty),+) => {$(
        impl From<$source> for Message {
            #[inline]
            fn from(body: $source) -> Self {
                Self(Frames::One(Frame::from(body)))
            }
        }
    )+};
}

single_frame!(Bytes, Vec<u8>, String, &String, &[u8], &str, &Frame);

impl From<Frame> for Message {
    #[inline]
    fn from(frame: Frame) -> Self {
        Self(Frames::One(frame))
    }
}

impl<const N: usize> From<&[u8; N]> for Message {
    #[inline]
    fn from(body: &[u8; N]) -> Self {
        Self(Frames::One(Frame::from(body)))
    }
}

impl From<&Message> for Message {
    fn from(message: &Message) -> Self {
        message.clone()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What the comment at [`Body`] says of the layout: a body is told by a word that it has anyway, and so is a result.
    #[test]
    #[cfg(target_pointer_width = "64")]
    fn a_message_is_a_window_and_a_word() {
        use std::task::Poll;

        assert_eq!(size_of::<Message>(), INLINE_SIZE + 16);
        assert_eq!(size_of::<Poll<Result<Message, crate::RecvError>>>(), size_of::<Message>());
        assert_eq!(size_of::<Option<crate::SendError>>(), size_of::<Message>() + 16);
    }

    #[test]
    fn every_source_converts_into_the_same_frame() {
        let expected = Message::from("abc");
        assert_eq!(Message::from(String::from("abc")), expected);
        assert_eq!(Message::from(&String::from("abc")), expected);
        assert_eq!(Message::from(b"abc"), expected);
        assert_eq!(Message::from(&b"abc"[..]), expected);
        assert_eq!(Message::from(b"abc".to_vec()), expected);
        assert_eq!(Message::from(Bytes::from_static(b"abc")), expected);
        assert_eq!(Message::from(Frame::from("abc")), expected);
        assert_eq!(Message::from(["abc"]), expected);
        assert_eq!(Message::from(vec!["abc"]), expected);
        assert_eq!(Message::from(vec![b"abc".to_vec()]), expected);
        assert_eq!(["abc"].into_iter().collect::<Message>(), expected);
    }

    #[test]
    fn an_empty_array_is_one_empty_frame() {
        let message = Message::from(Vec::<&str>::new());
        assert_eq!(message.frame_count(), 1);
        assert_eq!(&message[0], b"");
        assert_eq!(message, Message::default());
    }

    #[test]
    fn bodies_at_the_inline_limit_keep_their_bytes() {
        for length in (0..70).chain([255, 256, 1000]) {
            let body: Vec<u8> = (0..=250).cycle().take(length).collect();
            let message = Message::from(body.clone());
            assert_eq!(&message[0], body);
            assert_eq!(message.byte_len(), length);
            assert_eq!(message.clone().into_frames()[0].clone().into_bytes(), body);
            assert_eq!(message.frames()[0].window().is_some(), length <= 64);
        }
    }

    #[test]
    fn what_a_window_holds_past_the_length_is_not_part_of_the_frame() {
        let buffer: Vec<u8> = (0..100).collect();
        let copy = |start: usize, length| {
            let mut frame = Frame::default();
            frame.copy_from_front(&buffer[start..], length);
            frame
        };
        assert_eq!(copy(0, 3), Frame::from(&[0, 1, 2]));
        assert_eq!(copy(97, 3), Frame::from(&[97, 98, 99]));
        assert_eq!(copy(0, 80), Frame::from(&buffer[..80]));
        let mut shared = Frame::from(vec![1; 100]);
        shared.copy_from_front(&buffer, 2);
        assert_eq!(shared, Frame::from(&[0, 1]));
    }

    #[test]
    fn a_message_is_as_small_as_its_inline_frame() {
        assert_eq!(size_of::<Message>(), INLINE_SIZE + 16);
    }

    #[test]
    fn a_body_that_somebody_keeps_or_that_is_copied_is_not_freed_when_it_is_written() {
        let large = || Message::from(vec![7; 1_000]);
        assert_eq!((large().unique_len(1_000), large().unique_len(1_001)), (1_000, 0));
        let kept = large();
        assert_eq!(kept.clone().unique_len(0), 0);
        assert_eq!(kept.unique_len(0), 1_000);
        let multipart = Message::from([vec![1; 10], vec![2; 1_000], vec![3; 2_000]]);
        assert_eq!(multipart.unique_len(1_000), 3_000);
        let clone = multipart.clone();
        assert_eq!(clone.unique_len(1_000), 0);
        drop(multipart);
        assert_eq!(clone.unique_len(1_000), 3_000);
        assert_eq!(Message::from(Bytes::from_static(&[7; 1_000])).unique_len(0), 0);
    }

    #[test]
    fn a_long_frame_is_abbreviated_in_debug_output() {
        let text = format!("{:?}", Message::from(vec![b'x'; 100]));
        assert!(text.ends_with("… (100 bytes)]"), "{text}");
    }
}
