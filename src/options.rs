//! The options of a socket: typed values, safe defaults, checked in one place.

use std::net::IpAddr;
use std::time::Duration;

use crate::error::BuildError;
use crate::message::Message;

/// How much a queue may hold; 0 means no limit. Whichever is reached first counts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct HighWaterMark {
    /// Whole messages.
    pub(crate) messages: usize,
    /// The sum of the frame bodies, in bytes.
    pub(crate) bytes: usize,
}

impl HighWaterMark {
    const DEFAULT: Self = Self { messages: 1_000, bytes: 64 << 20 };

    /// Whether a message of `size` bytes may join `messages` others with `bytes` in all.
    ///
    /// A message larger than the byte mark passes when the queue is empty, or it could never be sent.
    #[inline]
    pub(crate) fn admits(&self, messages: usize, bytes: usize, size: usize) -> bool {
        (self.messages == 0 || messages < self.messages)
            && (self.bytes == 0 || messages == 0 || bytes.saturating_add(size) <= self.bytes)
    }

    /// Whether at most half of what may be there is.
    pub(crate) fn has_eased(&self, messages: usize, bytes: usize) -> bool {
        self.half_free(messages) && (self.bytes == 0 || bytes <= self.bytes / 2)
    }

    /// Whether at most half of the messages are there: the moment to fill a queue up again.
    #[inline]
    pub(crate) fn half_free(&self, messages: usize) -> bool {
        self.messages == 0 || messages <= self.messages / 2
    }
}

/// What a publisher does with messages for a subscriber whose queue is at a high-water mark.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
#[non_exhaustive]
pub enum SlowSubscriber {
    /// Drops the messages that come now; the subscriber gets what it had to wait for, and misses what comes after.
    #[default]
    DropNewest,
    /// Drops the messages that have waited longest, so that the subscriber gets the newest ones.
    DropOldest,
    /// At most one whole message waits for a subscriber, the latest. The high-water marks have no meaning then.
    KeepLatest,
    /// Drops nothing: sending waits until the subscriber has room, for all subscribers.
    Wait,
    /// Ends the subscriber's connection ([`DisconnectReason::TooSlow`](crate::DisconnectReason::TooSlow)).
    Disconnect,
}

impl SlowSubscriber {
    /// Whether older messages make room for newer ones.
    #[inline]
    pub(crate) fn drops_older(self) -> bool {
        matches!(self, Self::DropOldest | Self::KeepLatest)
    }
}

/// What every socket type can be told; its builder shows the part that applies to it.
#[derive(Debug, Clone)]
pub(crate) struct Options {
    pub(crate) send: HighWaterMark,
    pub(crate) receive: HighWaterMark,
    pub(crate) linger: Duration,
    pub(crate) max_message_size: usize,
    /// No more than `max_message_size`, whatever it says.
    pub(crate) max_frame_size: usize,
    pub(crate) max_frames: usize,
    pub(crate) max_metadata_size: usize,
    pub(crate) max_unfinished_bytes: usize,
    pub(crate) handshake_timeout: Duration,
    pub(crate) max_pending_handshakes: usize,
    /// `None`: the default, which does not hold for local sources.
    pub(crate) max_pending_handshakes_per_source: Option<usize>,
    pub(crate) max_connections: usize,
    pub(crate) max_commands_per_second: usize,
    pub(crate) connect_timeout: Duration,
    pub(crate) reconnect_first: Duration,
    pub(crate) reconnect_longest: Duration,
    pub(crate) backlog: u32,
    pub(crate) kernel_send_buffer: Option<usize>,
    pub(crate) kernel_receive_buffer: Option<usize>,
    /// Zero: off.
    pub(crate) tcp_keepalive: Duration,
    /// Zero: the system's.
    pub(crate) tcp_user_timeout: Duration,
    /// Zero: off.
    pub(crate) spin: Duration,
    /// Zero: off.
    pub(crate) heartbeat_interval: Duration,
    /// Zero: as the interval.
    pub(crate) heartbeat_timeout: Duration,
    /// Zero: none is announced.
    pub(crate) heartbeat_ttl: Duration,

    // Of publishers and subscribers only.
    pub(crate) slow_subscriber: SlowSubscriber,
    pub(crate) invert_matching: bool,
    pub(crate) max_topic_length: usize,
    pub(crate) max_subscriptions: usize,
    pub(crate) max_subscription_bytes: usize,
    pub(crate) verbose: bool,
    pub(crate) verboser: bool,
    pub(crate) manual: bool,
    pub(crate) welcome: Option<Message>,
    pub(crate) verbose_unsubscribe: bool,
    pub(crate) conflate: bool,
}

const PENDING_HANDSHAKES_PER_SOURCE: usize = 512;
const METADATA_SIZE: usize = 16 * 1024;

impl Default for Options {
    fn default() -> Self {
        Self {
            send: HighWaterMark::DEFAULT,
            receive: HighWaterMark::DEFAULT,
            linger: Duration::from_secs(5),
            max_message_size: 64 << 20,
            max_frame_size: usize::MAX,
            max_frames: 10_000,
            max_metadata_size: METADATA_SIZE,
            max_unfinished_bytes: 256 << 20,
            handshake_timeout: Duration::from_secs(10),
            max_pending_handshakes: 1_024,
            max_pending_handshakes_per_source: None,
            max_connections: 65_536,
            max_commands_per_second: 10_000,
            connect_timeout: Duration::from_secs(10),
            reconnect_first: Duration::from_millis(100),
            reconnect_longest: Duration::from_secs(30),
            backlog: 1_024,
            kernel_send_buffer: None,
            kernel_receive_buffer: None,
            tcp_keepalive: Duration::from_secs(60),
            tcp_user_timeout: Duration::ZERO,
            spin: Duration::ZERO,
            heartbeat_interval: Duration::ZERO,
            heartbeat_timeout: Duration::ZERO,
            heartbeat_ttl: Duration::ZERO,
            slow_subscriber: SlowSubscriber::default(),
            invert_matching: false,
            max_topic_length: 4_096,
            max_subscriptions: 250_000,
            max_subscription_bytes: 32 << 20,
            verbose: false,
            verboser: false,
            manual: false,
            welcome: None,
            verbose_unsubscribe: false,
            conflate: false,
        }
    }
}

impl Options {
    /// How many connections from one address may be in the handshake at one time.
    pub(crate) fn pending_handshakes_from(&self, source: IpAddr) -> usize {
        match self.max_pending_handshakes_per_source {
            Some(limit) => limit,
            None if source.is_loopback() => usize::MAX,
            None => PENDING_HANDSHAKES_PER_SOURCE,
        }
    }

    /// How many commands a peer may send at once, before the rate counts: a publisher's all of its subscriptions and their
    /// cancellations.
    pub(crate) fn command_burst(&self, publishes: bool) -> usize {
        let subscriptions = if publishes { self.max_subscriptions.saturating_mul(2) } else { 0 };
        self.max_commands_per_second.saturating_add(subscriptions)
    }

    /// How long a peer may take to answer a PING.
    pub(crate) fn heartbeat_timeout(&self) -> Duration {
        if self.heartbeat_timeout.is_zero() { self.heartbeat_interval } else { self.heartbeat_timeout }
    }

    /// Whether a message is within the limits.
    #[inline]
    pub(crate) fn admits(&self, message: &Message) -> bool {
        let fits = message.byte_len() <= self.max_message_size && message.frame_count() <= self.max_frames;
        // Usually the message is no larger than a frame may be.
        fits && (message.byte_len() <= self.max_frame_size
            || message.iter().all(|frame| frame.len() <= self.max_frame_size))
    }

    /// How much may wait for one subscriber.
    #[inline]
    pub(crate) fn subscriber_mark(&self) -> HighWaterMark {
        match self.slow_subscriber {
            SlowSubscriber::KeepLatest => HighWaterMark { messages: 1, bytes: 0 },
            _ => self.send,
        }
    }

    pub(crate) fn check(&self) -> Result<(), BuildError> {
        let positive = [
            ("max_message_size", self.max_message_size != 0),
            ("max_frame_size", self.max_frame_size != 0),
            ("max_frames", self.max_frames != 0),
            ("max_unfinished_bytes", self.max_unfinished_bytes != 0),
            ("max_metadata_size", self.max_metadata_size != 0),
            ("max_subscriptions", self.max_subscriptions != 0),
            ("handshake_timeout", !self.handshake_timeout.is_zero()),
            ("max_pending_handshakes", self.max_pending_handshakes != 0),
            ("max_pending_handshakes_per_source", self.max_pending_handshakes_per_source != Some(0)),
            ("max_connections", self.max_connections != 0),
            ("max_commands_per_second", self.max_commands_per_second != 0),
            ("connect_timeout", !self.connect_timeout.is_zero()),
            ("reconnect_delay", !self.reconnect_first.is_zero()),
            ("backlog", self.backlog != 0),
            ("kernel_send_buffer", self.kernel_send_buffer != Some(0)),
            ("kernel_receive_buffer", self.kernel_receive_buffer != Some(0)),
        ];
        if let Some((option, _)) = positive.into_iter().find(|(_, positive)| !positive) {
            return Err(BuildError::Zero { option });
        }
        if self.reconnect_first > self.reconnect_longest {
            return Err(BuildError::ReconnectDelay { first: self.reconnect_first, longest: self.reconnect_longest });
        }
        const KERNEL_MAXIMUM: u64 = i32::MAX as u64;
        let bounded = [
            ("backlog", u64::from(self.backlog)),
            ("kernel_send_buffer", self.kernel_send_buffer.unwrap_or(1) as u64),
            ("kernel_receive_buffer", self.kernel_receive_buffer.unwrap_or(1) as u64),
            // In the units that the kernel counts in.
            ("tcp_keepalive", self.tcp_keepalive.as_secs()),
            ("tcp_user_timeout", u64::try_from(self.tcp_user_timeout.as_millis()).unwrap_or(u64::MAX)),
        ];
        // Beyond that libzmq reckons in the wrong unit.
        const TTL_MAXIMUM: Duration = Duration::from_millis(65_500);
        if self.heartbeat_ttl > TTL_MAXIMUM {
            return Err(BuildError::TooLarge { option: "heartbeat_ttl", maximum: TTL_MAXIMUM.as_secs() });
        }
        if self.welcome.as_ref().is_some_and(|message| !self.admits(message)) {
            return Err(BuildError::WelcomeMessage);
        }
        match bounded.into_iter().find(|(_, value)| *value > KERNEL_MAXIMUM) {
            Some((option, _)) => Err(BuildError::TooLarge { option, maximum: KERNEL_MAXIMUM }),
            None => Ok(()),
        }
    }
}

/// The builder methods that every socket type shares, around a field `options: Options`.
macro_rules! common_options {
    () => {
        /// How long [`close`](crate::PushSocket::close), or dropping the last handle, may go on delivering what
        /// is queued. Default: 5 seconds; zero discards at once (and counts what was discarded).
        pub fn linger(mut self, linger: std::time::Duration) -> Self {
            self.options.linger = linger;
            self
        }

        /// The largest message that is sent or accepted, in bytes over all its frames. Default: 64 MiB.
        ///
        /// A larger one is refused by `send`; a peer that sends one loses its connection before anything is
        /// allocated for it.
        pub fn max_message_size(mut self, bytes: usize) -> Self {
            self.options.max_message_size = bytes;
            self
        }

        /// The largest frame of a message that is sent or accepted, in bytes. Default: the largest message.
        ///
        /// A larger one is refused by `send`; a peer that sends one loses its connection before anything is
        /// allocated for it.
        pub fn max_frame_size(mut self, bytes: usize) -> Self {
            self.options.max_frame_size = bytes;
            self
        }

        /// The largest number of frames in a message, sent or accepted. Default: 10,000.
        pub fn max_frames(mut self, frames: usize) -> Self {
            self.options.max_frames = frames;
            self
        }

        /// How many bytes of messages that have not come whole may be held for all peers together. Default: 256 MiB.
        ///
        /// From half of it on peers in the middle of a message take turns. When it is used up one of them is read on until its
        /// message is whole, and loses its connection if it brings less than 64 KiB in a second while others wait. A peer
        /// that holds less than 4 KiB never waits.
        ///
        /// A sender that has heartbeats should give a receiver that may come to this several seconds to answer.
        pub fn max_unfinished_bytes(mut self, bytes: usize) -> Self {
            self.options.max_unfinished_bytes = bytes;
            self
        }

        /// How much a peer may say about itself in the handshake, in bytes: its READY command with all the properties in it.
        /// Default: 16 KiB. A peer of the sockets here or of libzmq needs some 40, and as many as its identity is long.
        pub fn max_metadata_size(mut self, bytes: usize) -> Self {
            self.options.max_metadata_size = bytes;
            self
        }

        /// How many accepted connections from one address may be in the handshake at one time; further ones are closed
        /// at once. Default: 512, and no limit for connections from this host.
        pub fn max_pending_handshakes_per_source(mut self, handshakes: usize) -> Self {
            self.options.max_pending_handshakes_per_source = Some(handshakes);
            self
        }

        /// How many connections the socket may have, accepted and dialled ones together; further ones are closed at once
        /// ([`Event::Refused`](crate::Event::Refused)). Default: 65,536.
        pub fn max_connections(mut self, connections: usize) -> Self {
            self.options.max_connections = connections;
            self
        }

        /// How many commands each peer may send per second: PING, SUBSCRIBE, CANCEL and unknown ones. Default: 10,000.
        ///
        /// Those of a second may come at once, and at a publisher twice as many as a peer may have subscriptions; a peer that
        /// goes on beyond that loses its connection.
        pub fn max_commands_per_second(mut self, commands: usize) -> Self {
            self.options.max_commands_per_second = commands;
            self
        }

        /// How often a PING is sent to each peer that understands it (ZMTP 3.1), once in a millisecond at most. Default: zero,
        /// none.
        ///
        /// A peer of which no byte comes within the [timeout](Self::heartbeat_timeout) after a PING is given up
        /// ([`DisconnectReason::Silent`](crate::DisconnectReason::Silent)), and dialled again if it was dialled. One that may
        /// merely be slow is not: a peer that we ourselves do not read, or that has much to read before the PING, 100
        /// messages or 32 KiB.
        ///
        /// Heartbeats are off by default because TCP keepalive, which is on, finds a host that has vanished without waking
        /// either program. They find more, and sooner: a process that hangs, or something in between that swallows bytes.
        pub fn heartbeat_interval(mut self, interval: std::time::Duration) -> Self {
            self.options.heartbeat_interval = interval;
            self
        }

        /// How long a peer may take to show life after a PING. Default: zero, the interval.
        pub fn heartbeat_timeout(mut self, timeout: std::time::Duration) -> Self {
            self.options.heartbeat_timeout = timeout;
            self
        }

        /// What PINGs ask of the peer: to give this socket up after so much silence; in tenths of a second, rounded down, 65.5
        /// seconds at most. Default: zero, nothing.
        pub fn heartbeat_ttl(mut self, ttl: std::time::Duration) -> Self {
            self.options.heartbeat_ttl = ttl;
            self
        }

        /// How long a new connection may take to finish the ZMTP handshake. Default: 10 seconds.
        pub fn handshake_timeout(mut self, timeout: std::time::Duration) -> Self {
            self.options.handshake_timeout = timeout;
            self
        }

        /// How many accepted connections may be in the handshake at one time; further ones wait in the
        /// listener's backlog. Default: 1,024.
        pub fn max_pending_handshakes(mut self, connections: usize) -> Self {
            self.options.max_pending_handshakes = connections;
            self
        }

        /// How long one attempt to connect to one address may take. Default: 10 seconds.
        pub fn connect_timeout(mut self, timeout: std::time::Duration) -> Self {
            self.options.connect_timeout = timeout;
            self
        }

        /// The pause before the first attempt to reconnect, and the longest one: it doubles from attempt to
        /// attempt, with jitter, and starts again after a successful handshake. Default: 100 ms and 30 s.
        pub fn reconnect_delay(mut self, first: std::time::Duration, longest: std::time::Duration) -> Self {
            self.options.reconnect_first = first;
            self.options.reconnect_longest = longest;
            self
        }

        /// How many connections the system may hold ready for a listener, `listen(2)`'s backlog. Default: 1,024.
        pub fn backlog(mut self, connections: u32) -> Self {
            self.options.backlog = connections;
            self
        }

        /// The size of the kernel's send buffer, `SO_SNDBUF`, in bytes. Default: the system's over TCP; over IPC 2 MiB, or as
        /// much of it as the system allows (`net.core.wmem_max`), as the system's own cannot grow.
        pub fn kernel_send_buffer(mut self, bytes: usize) -> Self {
            self.options.kernel_send_buffer = Some(bytes);
            self
        }

        /// After how much silence the kernel asks whether a TCP peer's host is still there: it does so up to six times, a
        /// sixth of this time apart, and then ends the connection. Default: 60 seconds; zero means never. At least one
        /// second; fractions of a second are cut off.
        ///
        /// This costs no wake-up and finds peers that vanished without a word, which a socket that only receives would
        /// otherwise never notice. It does not end the connection of a peer that is merely slow.
        pub fn tcp_keepalive(mut self, silence: std::time::Duration) -> Self {
            self.options.tcp_keepalive = silence;
            self
        }

        /// How long data that was sent to a TCP peer may stay unacknowledged before the kernel ends the connection,
        /// `TCP_USER_TIMEOUT`, in milliseconds. Default: zero, which means the system's, about a quarter of an hour. On
        /// systems without it this has no effect.
        ///
        /// Beware: the kernel also counts the time in which a peer is alive and does not read.
        pub fn tcp_user_timeout(mut self, timeout: std::time::Duration) -> Self {
            self.options.tcp_user_timeout = timeout;
            self
        }

        /// The size of the kernel's receive buffer, `SO_RCVBUF`, in bytes. Default: the system's.
        pub fn kernel_receive_buffer(mut self, bytes: usize) -> Self {
            self.options.kernel_receive_buffer = Some(bytes);
            self
        }
    };
}

pub(crate) use common_options;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_defaults_are_valid() {
        assert_eq!(Options::default().check(), Ok(()));
    }

    #[test]
    fn zero_and_contradicting_values_are_named() {
        let zero = Options { max_frames: 0, ..Options::default() };
        assert_eq!(zero.check(), Err(BuildError::Zero { option: "max_frames" }));
        let crossed = Options { reconnect_first: Duration::from_secs(60), ..Options::default() };
        assert!(matches!(crossed.check(), Err(BuildError::ReconnectDelay { .. })));
        let huge = Options { backlog: u32::MAX, ..Options::default() };
        assert!(matches!(huge.check(), Err(BuildError::TooLarge { option: "backlog", .. })));
    }

    #[test]
    fn a_welcome_has_the_limits_of_any_message() {
        let limits = Options { max_message_size: 10, max_frame_size: 6, max_frames: 2, ..Options::default() };
        for (welcome, is_valid) in [
            (Message::from("123456"), true),
            (["12345", "67890"].into(), true),
            ("1234567".into(), false),
            (["123456", "12345"].into(), false),
            (["", "", ""].into(), false),
        ] {
            let options = Options { welcome: Some(welcome.clone()), ..limits.clone() };
            assert_eq!(options.check(), if is_valid { Ok(()) } else { Err(BuildError::WelcomeMessage) }, "{welcome:?}");
        }
    }

    #[test]
    fn a_mark_admits_up_to_its_messages_and_bytes() {
        let mark = HighWaterMark { messages: 2, bytes: 10 };
        assert!(mark.admits(0, 0, 5));
        assert!(mark.admits(1, 5, 5));
        assert!(!mark.admits(1, 5, 6));
        assert!(!mark.admits(2, 2, 0));
    }

    #[test]
    fn a_message_over_the_byte_mark_passes_when_nothing_is_queued() {
        let mark = HighWaterMark { messages: 2, bytes: 10 };
        assert!(mark.admits(0, 0, 11));
        assert!(!mark.admits(1, 0, 11));
    }

    #[test]
    fn zero_means_no_limit() {
        let mark = HighWaterMark { messages: 0, bytes: 0 };
        assert!(mark.admits(usize::MAX - 1, usize::MAX, usize::MAX));
        assert!(mark.half_free(usize::MAX));
    }
}
