//! One connection's protocol automaton: greeting, handshake, traffic.

use std::time::Duration;

use bytes::{Bytes, BytesMut};

use crate::error::ProtocolError;
use crate::zmtp::decoder::{self, Decoded, Decoder, Limits};
use crate::zmtp::frame::Header;
use crate::zmtp::greeting::{self, Version};
use crate::zmtp::run::Run;
use crate::zmtp::socket_type::SocketType;
use crate::zmtp::{command, null};

/// A peer that lets this many bytes of answers pile up sends commands without reading.
pub(crate) const CONTROL_MAXIMUM: usize = 64 * 1024;

/// What a connection needs to know about its socket.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Config {
    pub(crate) socket_type: SocketType,
    pub(crate) limits: Limits,
    /// Bytes in the peer's READY.
    pub(crate) metadata: usize,
    /// The last connection to this peer ended when it had seen our greeting and not yet shown its own: it gets ours in two
    /// steps, so that it shows its mechanism before it sees ours.
    pub(crate) careful: bool,
}

/// What a call of [`Connection::receive`] found.
#[derive(Debug)]
pub(crate) enum Event {
    /// Nothing whole is left; more bytes are needed.
    Incomplete,
    /// The handshake is finished: messages may be sent, and may come.
    Ready { socket_type: SocketType, version: Version },
    /// Messages have come.
    Run(Run),
    /// The peer wants messages whose topic begins like this.
    Subscribe(Bytes),
    /// The peer no longer wants them.
    Cancel(Bytes),
    /// A PING, which has been answered; the peer wants to be given up after so much silence, unless it is zero.
    Ping { time_to_live: Duration },
    /// The answer to the PING with this number, or a sign of life without one.
    Pong { number: Option<u32> },
    /// A command that concerns nobody else.
    Command,
}

impl Event {
    /// Whether this was a command, which costs a peer nothing to send. A PONG may be what we have asked for.
    pub(crate) fn is_command(&self) -> bool {
        matches!(self, Self::Subscribe(_) | Self::Cancel(_) | Self::Ping { .. } | Self::Command)
    }
}

///```text
///  Greeting ──peer's 64 bytes──▶ Handshake ──peer's READY──▶ Ready
///      └───────────────────────────┴──── any error ───────────┴──▶ the owner closes the stream
///```
#[derive(Debug)]
enum Phase {
    Greeting,
    Handshake { version: Version },
    Ready { version: Version },
}

/// The protocol's side of a connection: bytes in, events out, and bytes to be sent between messages.
#[derive(Debug)]
pub(crate) struct Connection {
    config: Config,
    phase: Phase,
    decoder: Decoder,
    /// Greeting and commands that wait to be sent, whole and in order.
    control: Vec<u8>,
    /// The rest of a greeting that is sent in two steps.
    greeting_rest: Vec<u8>,
    /// The peer's signature has come.
    is_zmtp: bool,
}

impl Connection {
    /// A new connection; its greeting is ready to be sent before anything has come from the peer.
    pub(crate) fn new(config: Config) -> Self {
        let mut control = greeting::write(null::NAME, false).to_vec();
        let greeting_rest = if config.careful { control.split_off(greeting::OPENING) } else { Vec::new() };
        Self {
            config,
            phase: Phase::Greeting,
            decoder: Decoder::new(config.limits),
            control,
            greeting_rest,
            is_zmtp: false,
        }
    }

    /// Bytes to be sent when no message is half sent.
    pub(crate) fn control(&self) -> &[u8] {
        &self.control
    }

    /// Says that this many control bytes have been sent.
    pub(crate) fn control_sent(&mut self, count: usize) {
        if count == self.control.len() {
            // Control bytes are rare: an idle connection keeps no buffer for them.
            self.control = Vec::new();
        } else {
            self.control.drain(..count);
        }
    }

    /// Whether a peer that closes now does not like what it has seen of our greeting: libzmq closes without showing its
    /// own mechanism when ours is another one.
    pub(crate) fn is_refused_by_closing(&self) -> bool {
        self.is_zmtp && self.is_greeting()
    }

    /// Whether the peer has not shown its whole greeting.
    pub(crate) fn is_greeting(&self) -> bool {
        matches!(self.phase, Phase::Greeting)
    }

    pub(crate) fn is_ready(&self) -> bool {
        matches!(self.phase, Phase::Ready { .. })
    }

    /// Whether the peer understands the commands of 3.1.
    pub(crate) fn is_current(&self) -> bool {
        matches!(self.phase, Phase::Ready { version: Version::V3_1 })
    }

    /// Sends a PING with this time to live; its answer will carry the number. `false` if one waits to be sent still.
    pub(crate) fn ping(&mut self, time_to_live: Duration, number: u32) -> bool {
        let sends = self.is_current() && self.control.is_empty();
        if sends {
            command::write_ping(&mut self.control, time_to_live, &number.to_be_bytes());
        }
        sends
    }

    /// Shows the peer that we live, without an answer.
    pub(crate) fn show_life(&mut self) {
        if self.is_current() && self.control.is_empty() {
            command::write_pong(&mut self.control, b"");
        }
    }

    #[cfg(any(fuzzing, test))]
    pub(crate) fn decoder(&self) -> &Decoder {
        &self.decoder
    }

    /// How many bytes of a message that is not whole are held outside of the input.
    #[inline]
    pub(crate) fn held(&self) -> usize {
        self.decoder.held()
    }

    /// Where the rest of a large body may be read into directly, when the input is empty.
    pub(crate) fn body_buffer(&mut self) -> Option<bytes::buf::Limit<&mut BytesMut>> {
        self.decoder.body_buffer()
    }

    /// Takes what is whole from the front of `input`. To be called again until it says [`Event::Incomplete`];
    /// what is in `input` then must still be there, with more behind it, at the next call.
    ///
    /// After an error the connection must be closed, once what [`control`](Self::control) holds has been offered to
    /// the peer: it may be an ERROR with the reason.
    pub(crate) fn receive(&mut self, input: &mut BytesMut) -> Result<Event, ProtocolError> {
        match self.phase {
            Phase::Greeting => self.receive_greeting(input),
            Phase::Handshake { version } => self.receive_handshake(version, input),
            Phase::Ready { .. } => self.receive_traffic(input),
        }
    }

    fn receive_greeting(&mut self, input: &mut BytesMut) -> Result<Event, ProtocolError> {
        let opening = &input[..input.len().min(greeting::OPENING)];
        greeting::read(opening, null::NAME)?;
        // Before the rest is read: a peer that is refused for it gets to know our mechanism, however its bytes were cut.
        if opening.len() == greeting::OPENING {
            self.control.append(&mut self.greeting_rest);
        }
        self.is_zmtp = input.len() >= greeting::SIGNATURE;
        let version = greeting::read(input, null::NAME)?;
        let Some(version) = version else {
            return Ok(Event::Incomplete);
        };
        let _ = input.split_to(greeting::LENGTH);
        self.phase = Phase::Handshake { version };
        null::write_ready(&mut self.control, self.config.socket_type);
        self.receive_handshake(version, input)
    }

    fn receive_handshake(&mut self, version: Version, input: &mut BytesMut) -> Result<Event, ProtocolError> {
        match Header::read(input)? {
            Some(header) if !header.is_command() => return Err(ProtocolError::Unexpected("message".into())),
            Some(_) => {}
            None => return Ok(Event::Incomplete),
        }
        let Decoded::Command(body) = decoder::take_command(input, self.config.metadata, false)? else {
            return Ok(Event::Incomplete);
        };
        match null::read_ready(&body, self.config.socket_type) {
            Ok(socket_type) => {
                self.phase = Phase::Ready { version };
                Ok(Event::Ready { socket_type, version })
            }
            Err(error) => {
                // A libzmq peer that gets an ERROR never tries again; both of these are for good.
                if matches!(error, ProtocolError::SocketTypeMismatch { .. } | ProtocolError::InvalidMetadata(_)) {
                    command::write_error(&mut self.control, &error.to_string());
                }
                Err(error)
            }
        }
    }

    fn receive_traffic(&mut self, input: &mut BytesMut) -> Result<Event, ProtocolError> {
        match self.decoder.decode(input)? {
            Decoded::Incomplete => Ok(Event::Incomplete),
            Decoded::Run(run) => Ok(Event::Run(run)),
            Decoded::Command(body) => self.receive_command(&body),
        }
    }

    fn receive_command(&mut self, body: &Bytes) -> Result<Event, ProtocolError> {
        match command::split(body) {
            Some((b"PING", data)) => {
                let (ttl, context) = command::read_ping(data)?;
                if self.control.len() > CONTROL_MAXIMUM {
                    return Err(ProtocolError::CommandFlood);
                }
                command::write_pong(&mut self.control, context);
                Ok(Event::Ping { time_to_live: u32::from(ttl) * command::TTL_UNIT })
            }
            Some((b"PONG", context)) => Ok(Event::Pong { number: context.try_into().ok().map(u32::from_be_bytes) }),
            Some((b"SUBSCRIBE", prefix)) => Ok(Event::Subscribe(body.slice_ref(prefix))),
            Some((b"CANCEL", prefix)) => Ok(Event::Cancel(body.slice_ref(prefix))),
            // Unknown commands are the protocol's extension point, and what is no command at all has no effect either.
            _ => Ok(Event::Command),
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::message::Message;
    use crate::zmtp::decoder::COMMAND_MAXIMUM;

    const LIMITS: Limits =
        Limits { message: 1_000, frame: 1_000, frames: 10, command: COMMAND_MAXIMUM, subscriptions: false };

    const READY_PUSH: &[u8] = b"\x04\x1a\x05READY\x0bSocket-Type\0\0\0\x04PUSH";
    const READY_PULL: &[u8] = b"\x04\x1a\x05READY\x0bSocket-Type\0\0\0\x04PULL";

    fn pull() -> Connection {
        Connection::new(Config { socket_type: SocketType::Pull, limits: LIMITS, metadata: 1_000, careful: false })
    }

    fn greeting_of(minor: u8) -> Vec<u8> {
        let mut greeting = greeting::write("NULL", false).to_vec();
        greeting[11] = minor;
        greeting
    }

    /// Feeds `wire` in pieces; gives the messages, or why it failed.
    fn feed(connection: &mut Connection, wire: &[u8], chunk: usize) -> Result<Vec<Message>, ProtocolError> {
        let (mut input, mut messages) = (BytesMut::new(), Vec::new());
        for piece in wire.chunks(chunk) {
            input.extend_from_slice(piece);
            loop {
                match connection.receive(&mut input)? {
                    Event::Incomplete => break,
                    Event::Run(mut run) => messages.extend(std::iter::from_fn(|| run.next())),
                    Event::Ready { .. }
                    | Event::Subscribe(_)
                    | Event::Cancel(_)
                    | Event::Ping { .. }
                    | Event::Pong { .. }
                    | Event::Command => {}
                }
            }
        }
        Ok(messages)
    }

    fn ready_pull() -> Connection {
        let mut connection = pull();
        feed(&mut connection, &[&greeting_of(1), READY_PUSH].concat(), 100).unwrap();
        let sent = connection.control().len();
        connection.control_sent(sent);
        connection
    }

    #[test]
    fn the_session_of_a_libzmq_push_decodes_in_any_chunking() {
        let mut wire = [&greeting_of(1)[..], READY_PUSH, b"\x00\x05Hello\x01\x01A\x01\x00\x00\x02CC"].concat();
        wire.extend([0, 255]);
        wire.extend([b'x'; 255]);
        wire.extend([2, 0, 0, 0, 0, 0, 0, 1, 0]);
        wire.extend([b'y'; 256]);
        let expected = vec![
            Message::from("Hello"),
            Message::from(["A", "", "CC"]),
            Message::from([b'x'; 255].to_vec()),
            Message::from([b'y'; 256].to_vec()),
        ];
        for chunk in (1..80).chain([wire.len()]) {
            let mut connection = pull();
            assert_eq!(feed(&mut connection, &wire, chunk).unwrap(), expected);
            assert!(connection.is_ready());
            assert_eq!(connection.control(), [&greeting_of(1)[..], READY_PULL].concat());
        }
    }

    #[test]
    fn the_greeting_is_offered_before_anything_has_come() {
        assert_eq!(pull().control(), greeting_of(1));
    }

    #[test]
    fn a_careful_greeting_waits_for_the_peers_version() {
        let config = Config { socket_type: SocketType::Pull, limits: LIMITS, metadata: 1_000, careful: true };
        let mut connection = Connection::new(config);
        assert_eq!(connection.control(), &greeting_of(1)[..11]);
        let mut input = BytesMut::from(&greeting_of(1)[..10]);
        connection.receive(&mut input).unwrap();
        assert_eq!(connection.control().len(), 11);
        assert!(connection.is_refused_by_closing());
        input.extend_from_slice(&greeting_of(1)[10..11]);
        connection.receive(&mut input).unwrap();
        assert_eq!(connection.control(), greeting_of(1));
        input.extend_from_slice(&greeting_of(1)[11..]);
        connection.receive(&mut input).unwrap();
        assert_eq!(connection.control(), [&greeting_of(1)[..], READY_PULL].concat());
        assert!(!connection.is_refused_by_closing());
    }

    #[test]
    fn our_ready_follows_the_peers_greeting_without_waiting_for_its_ready() {
        let mut connection = pull();
        feed(&mut connection, &greeting_of(0), 64).unwrap();
        assert_eq!(connection.control()[64..], *READY_PULL);
        assert!(!connection.is_ready());
    }

    #[test]
    fn the_older_version_is_spoken() {
        let mut connection = pull();
        let mut input = BytesMut::from(&[&greeting_of(0), READY_PUSH].concat()[..]);
        let event = connection.receive(&mut input).unwrap();
        let version = Version::V3_0;
        let socket_type = SocketType::Push;
        assert!(matches!(event, Event::Ready { version: v, socket_type: s } if v == version && s == socket_type));
    }

    #[test]
    fn a_wrong_socket_type_is_told_why() {
        let mut connection = pull();
        let error = feed(&mut connection, &[&greeting_of(1), READY_PULL].concat(), 200).unwrap_err();
        assert!(matches!(error, ProtocolError::SocketTypeMismatch { .. }));
        let answer = &connection.control()[64 + READY_PULL.len()..];
        assert!(answer.starts_with(b"\x04") && answer[3..].starts_with(b"ERROR"), "{answer:?}");
        assert_eq!(answer[9..], *b"socket type mismatch: a PULL cannot talk to a PULL");
    }

    #[test]
    fn a_message_before_ready_is_unexpected() {
        let error = feed(&mut pull(), &[&greeting_of(1), &b"\x00\x05Hello"[..]].concat(), 100).unwrap_err();
        assert_eq!(error, ProtocolError::Unexpected("message".into()));
    }

    #[test]
    fn the_handshake_has_a_size_limit_of_its_own() {
        let wire = [&greeting_of(1), &b"\x06\0\0\0\0\0\x01\0\0"[..]].concat();
        let error = feed(&mut pull(), &wire, 100).unwrap_err();
        assert!(matches!(error, ProtocolError::CommandTooLarge { size: 65_536, .. }));
    }

    #[test]
    fn a_ping_is_answered_with_its_context_even_inside_a_message() {
        let mut connection = ready_pull();
        let wire = b"\x01\x01A\x04\x0a\x04PING\x00\x00CTX\x00\x01B";
        assert_eq!(feed(&mut connection, wire, 1).unwrap(), [Message::from(["A", "B"])]);
        assert_eq!(connection.control(), b"\x04\x08\x04PONGCTX");
    }

    #[test]
    fn a_ping_without_ttl_is_malformed() {
        let error = feed(&mut ready_pull(), b"\x04\x05\x04PING", 10).unwrap_err();
        assert_eq!(error, ProtocolError::MalformedCommand("PING"));
    }

    #[test]
    fn pings_without_end_are_not_answered_without_end() {
        let wire = b"\x04\x07\x04PING\x00\x00".repeat(20_000);
        assert_eq!(feed(&mut ready_pull(), &wire, 9_000).unwrap_err(), ProtocolError::CommandFlood);
    }

    #[test]
    fn unknown_commands_and_what_a_pull_is_not_asked_have_no_effect() {
        let mut connection = ready_pull();
        let wire = b"\x04\x04\x03FOO\x04\x00\x04\x02\x09S\x04\x0b\x09SUBSCRIBEA\x04\x06\x05READY\x00\x01x";
        assert_eq!(feed(&mut connection, wire, 7).unwrap(), [Message::from("x")]);
        assert_eq!(connection.control(), b"");
    }

    #[test]
    fn subscriptions_come_out_with_their_prefixes() {
        let mut connection = ready_pull();
        let mut input = BytesMut::from(&b"\x04\x0b\x09SUBSCRIBEA\x04\x0a\x09SUBSCRIBE\x04\x08\x06CANCELA"[..]);
        assert!(matches!(connection.receive(&mut input), Ok(Event::Subscribe(prefix)) if prefix == "A"));
        assert!(matches!(connection.receive(&mut input), Ok(Event::Subscribe(prefix)) if prefix.is_empty()));
        assert!(matches!(connection.receive(&mut input), Ok(Event::Cancel(prefix)) if prefix == "A"));
    }

    proptest! {
        #[test]
        fn any_bytes_after_the_greeting_fail_or_wait_without_a_panic(
            wire in proptest::collection::vec(any::<u8>(), 0..200),
            chunk in 1_usize..30,
        ) {
            let _ = feed(&mut pull(), &wire, chunk);
            let _ = feed(&mut pull(), &[&greeting_of(1), &wire[..]].concat(), chunk);
            let _ = feed(&mut ready_pull(), &wire, chunk);
        }
    }
}
