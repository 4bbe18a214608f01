//! What can go wrong: one small enum per operation, and why a peer's connection ended.

use std::io;
use std::time::Duration;

use thiserror::Error;

use crate::endpoint::{Endpoint, EndpointError};
use crate::message::Message;

/// Why a builder refused its options.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum BuildError {
    /// An option that must be positive is zero.
    #[error("{option} must not be zero")]
    Zero {
        /// The builder method's name.
        option: &'static str,
    },
    /// The first reconnect delay is longer than the longest one.
    #[error("reconnect_delay: the first delay ({first:?}) is longer than the longest ({longest:?})")]
    ReconnectDelay {
        /// The delay before the first attempt.
        first: Duration,
        /// The longest delay.
        longest: Duration,
    },
    /// The welcome message is larger than the socket's own limits: peers with the same ones would end every connection.
    #[error("the welcome message exceeds the socket's own limits")]
    WelcomeMessage,
    /// An option is larger than the protocol or the system can express.
    #[error("{option} must be at most {maximum}")]
    TooLarge {
        /// The builder method's name.
        option: &'static str,
        /// The largest value that it takes.
        maximum: u64,
    },
}

/// Why `bind` failed; nothing is bound then.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum BindError {
    /// The text is not an endpoint.
    #[error(transparent)]
    Endpoint(#[from] EndpointError),
    /// Somebody already listens there, perhaps this very socket.
    #[error("{0} is already in use")]
    AddrInUse(Endpoint),
    /// The host is neither a local interface nor a name that resolves to an address.
    #[error("{endpoint}: no such interface or host")]
    UnknownHost {
        /// What was to be bound.
        endpoint: Endpoint,
        /// What the resolver said.
        source: io::Error,
    },
    /// The system refused: no permission, no such address, a missing folder, no descriptors left ….
    #[error("cannot bind {endpoint}: {source}")]
    Io {
        /// What was to be bound.
        endpoint: Endpoint,
        /// What the system said.
        source: io::Error,
    },
    /// The socket has been closed.
    #[error("the socket is closed")]
    Closed,
    /// There is no tokio runtime with I/O and time enabled in this context.
    #[error("bind must be called within a tokio runtime")]
    NoRuntime,
}

/// Why `connect` failed; later trouble with the connection is retried and shows in the monitor instead.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum ConnectError {
    /// The text is not an endpoint, or not one that can be connected to.
    #[error(transparent)]
    Endpoint(#[from] EndpointError),
    /// The socket has been closed.
    #[error("the socket is closed")]
    Closed,
    /// There is no tokio runtime with I/O and time enabled in this context.
    #[error("connect must be called within a tokio runtime")]
    NoRuntime,
}

/// Why `unbind` or `disconnect` failed.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum DetachError {
    /// The text is not an endpoint.
    #[error(transparent)]
    Endpoint(#[from] EndpointError),
    /// This socket is not bound to, or not connected to, this endpoint.
    #[error("the socket is not attached to {0}")]
    NotAttached(Endpoint),
    /// The socket has been closed.
    #[error("the socket is closed")]
    Closed,
}

/// Why `send` failed; the message comes back.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[non_exhaustive]
#[repr(u64)] // no promise: by a message's alignment the tag would be of 16 bytes, read as such before they have left the store buffer
pub enum SendError {
    /// The socket has been closed, or its runtime has ended.
    #[error("the socket is closed")]
    Closed(Message),
    /// The message is larger than `max_message_size`, has more frames than `max_frames`, or one larger than `max_frame_size`.
    #[error("the message has {} bytes in {} frames, more than this socket's limit", .0.byte_len(), .0.frame_count())]
    TooLarge(Message),
}

impl SendError {
    /// The message that was not sent.
    pub fn into_message(self) -> Message {
        match self {
            Self::Closed(message) | Self::TooLarge(message) => message,
        }
    }
}

/// Why `try_send` failed; the message comes back.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[non_exhaustive]
#[repr(u64)] // as above
pub enum TrySendError {
    /// A high-water mark is reached.
    #[error("the outbound queue is full")]
    Full(Message),
    /// The socket has been closed, or its runtime has ended.
    #[error("the socket is closed")]
    Closed(Message),
    /// The message is larger than `max_message_size`, has more frames than `max_frames`, or one larger than `max_frame_size`.
    #[error("the message has {} bytes in {} frames, more than this socket's limit", .0.byte_len(), .0.frame_count())]
    TooLarge(Message),
    /// The peer that it was for has gone (`send_to`).
    #[error("the peer has gone")]
    NoPeer(Message),
}

impl TrySendError {
    /// The message that was not sent.
    pub fn into_message(self) -> Message {
        match self {
            Self::Full(message) | Self::Closed(message) | Self::TooLarge(message) | Self::NoPeer(message) => message,
        }
    }
}

impl From<SendError> for TrySendError {
    fn from(error: SendError) -> Self {
        match error {
            SendError::Closed(message) => Self::Closed(message),
            SendError::TooLarge(message) => Self::TooLarge(message),
        }
    }
}

/// Why `recv` failed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum RecvError {
    /// The socket has been closed, or its runtime has ended.
    #[error("the socket is closed")]
    Closed,
}

/// Why `try_recv` returned no message.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum TryRecvError {
    /// No message has arrived.
    #[error("no message is waiting")]
    Empty,
    /// The socket has been closed, or its runtime has ended.
    #[error("the socket is closed")]
    Closed,
}

/// Why waiting for a state of the socket ended without it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum WaitError {
    /// The socket has been closed, or its runtime has ended.
    #[error("the socket is closed")]
    Closed,
}

/// Why `close` could not say what became of the messages.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum CloseError {
    /// The runtime that drove the socket ended before the socket was closed.
    #[error("the runtime of the socket has ended")]
    RuntimeEnded,
}

/// What a peer did that the protocol forbids, or why it and this socket cannot talk; the connection is closed.
///
/// Section numbers are those of RFC 37 (ZMTP 3.1) unless another RFC is named.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum ProtocolError {
    /// The first bytes are not a ZMTP greeting: ZMTP 1.0, or another protocol altogether.
    #[error("not a ZMTP 3 greeting (first byte {first:#04x})")]
    NotZmtp {
        /// The first byte of the stream.
        first: u8,
    },
    /// The peer speaks a version older than 3.0, in which nothing could be authenticated.
    #[error("the peer speaks ZMTP {major}.x; 3.0 is the oldest accepted")]
    VersionTooOld {
        /// The major version that its greeting means: 2 for everything between 1.0 and 3.0.
        major: u8,
    },
    /// The peer uses another security mechanism.
    #[error("mechanism mismatch: the peer uses {theirs:?}, this socket {ours}")]
    MechanismMismatch {
        /// This socket's mechanism.
        ours: &'static str,
        /// The peer's mechanism, as far as it is text.
        theirs: String,
    },
    /// The peer's socket type does not go with ours.
    #[error("socket type mismatch: a {ours} cannot talk to a {theirs}")]
    SocketTypeMismatch {
        /// This socket's type.
        ours: &'static str,
        /// The peer's type, as far as it is text.
        theirs: String,
    },
    /// A command or message came at a moment when another one was due.
    #[error("unexpected {0} during the handshake")]
    Unexpected(String),
    /// A command's body does not have the form of that command.
    #[error("malformed {0} command")]
    MalformedCommand(&'static str),
    /// The READY metadata is malformed, incomplete or over the limit.
    #[error("invalid metadata: {0}")]
    InvalidMetadata(&'static str),
    /// The peer refused us with an ERROR command.
    #[error("the peer refused the connection: {reason}")]
    Refused {
        /// The peer's text, with control characters escaped.
        reason: String,
    },
    /// Reserved bits are set in a frame's flags, or a command has the MORE flag.
    #[error("illegal frame flags {0:#04x}")]
    IllegalFlags(u8),
    /// A message is larger than `max_message_size`.
    #[error("a message of at least {size} bytes exceeds the limit of {limit}")]
    MessageTooLarge {
        /// What the frame headers add up to so far, in bytes.
        size: u64,
        /// The limit, in bytes.
        limit: u64,
    },
    /// A frame of a message is larger than `max_frame_size`.
    #[error("a frame of {size} bytes exceeds the limit of {limit}")]
    FrameTooLarge {
        /// The size in the frame header, in bytes.
        size: u64,
        /// The limit, in bytes.
        limit: u64,
    },
    /// A message has more frames than `max_frames`.
    #[error("a message has more than {limit} frames")]
    TooManyFrames {
        /// The limit.
        limit: usize,
    },
    /// A command is larger than commands may be.
    #[error("a command of {size} bytes exceeds the limit of {limit}")]
    CommandTooLarge {
        /// The size in the frame header, in bytes.
        size: u64,
        /// The limit, in bytes.
        limit: u64,
    },
    /// The peer sends more commands than `max_commands_per_second`, or PINGs without reading the PONGs.
    #[error("the peer sends too many commands")]
    CommandFlood,
    /// The peer closed the connection when it saw our greeting, before it had shown its own mechanism.
    #[error("the peer closed the connection over our greeting; it may use another mechanism than {ours}")]
    GreetingRefused {
        /// This socket's mechanism.
        ours: &'static str,
    },
    /// A subscription is longer than `max_topic_length`.
    #[error("a subscription to a topic of {size} bytes exceeds the limit of {limit}")]
    TopicTooLong {
        /// Its length in bytes.
        size: usize,
        /// The limit, in bytes.
        limit: usize,
    },
    /// The peer has more subscriptions than `max_subscriptions`.
    #[error("the peer has more than {limit} subscriptions")]
    TooManySubscriptions {
        /// The limit.
        limit: usize,
    },
    /// The peer's subscriptions are longer, added up, than `max_subscription_bytes`.
    #[error("the peer's subscriptions exceed {limit} bytes")]
    SubscriptionsTooLarge {
        /// The limit, in bytes.
        limit: usize,
    },
    /// The rest of a message did not come, while others had to wait for it ([`max_unfinished_bytes`]).
    ///
    /// [`max_unfinished_bytes`]: crate::PullBuilder::max_unfinished_bytes
    #[error("the rest of a message that others waited for did not come")]
    UnfinishedMessage,
    /// The handshake was not finished in time.
    #[error("the handshake was not finished in time")]
    HandshakeTimeout,
}

impl ProtocolError {
    /// Whether trying again soon is pointless: the peer is configured otherwise.
    pub(crate) fn is_permanent(&self) -> bool {
        matches!(
            self,
            Self::NotZmtp { .. }
                | Self::VersionTooOld { .. }
                | Self::MechanismMismatch { .. }
                | Self::SocketTypeMismatch { .. }
                | Self::Refused { .. }
        )
    }
}
