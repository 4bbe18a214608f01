//! Target `connection`: everything that a peer sends, from its first byte on.

use std::time::Duration;

use bytes::{Bytes, BytesMut};

use crate::error::ProtocolError;
use crate::fuzzing::choices::{Choices, Pieces};
use crate::fuzzing::frames::check_memory;
use crate::message::Message;
use crate::zmtp::connection::{CONTROL_MAXIMUM, Config, Connection, Event};
use crate::zmtp::decoder::{COMMAND_MAXIMUM, Limits};
use crate::zmtp::greeting::{self, Version};
use crate::zmtp::null;
use crate::zmtp::socket_type::SocketType;

/// What a connection shows to its owner.
#[derive(Debug, PartialEq)]
enum Seen {
    Ready(SocketType, Version),
    Message(Message),
    Subscribe(Bytes),
    Cancel(Bytes),
    Ping(Duration),
    Pong(Option<u32>),
    Command,
}

/// All that became of a connection.
#[derive(Debug, PartialEq, Default)]
struct Story {
    seen: Vec<Seen>,
    error: Option<ProtocolError>,
    /// What was sent, greeting and all.
    sent: Vec<u8>,
    is_greeting: bool,
    is_ready: bool,
}

/// One byte chooses the socket, one what comes before the input (so that mutations need not find a greeting) and whether the
/// peer reads; two the limits, five the pieces in which the others arrive.
///
/// Invariants: the story is the same whether the stream comes in one piece or in any others; READY comes once and before
/// everything else; nothing takes a step without progress; what the connection holds stays within what the limits allow.
pub fn connection(data: &[u8]) {
    let mut choices = Choices::new(data);
    let socket_type = choices.one_of(&SocketType::ALL);
    let kind = choices.byte();
    let limits = Limits {
        message: choices.one_of(&[1, 300, 5_000, 1 << 20, 64 << 20]),
        frame: usize::MAX,
        frames: choices.one_of(&[1, 3, 100, 10_000]),
        command: COMMAND_MAXIMUM,
        subscriptions: socket_type.publishes(),
    };
    let config = Config { socket_type, limits, metadata: COMMAND_MAXIMUM, careful: kind & 1 != 0 };
    let reads = kind & 2 == 0;
    let pieces = Pieces::choose(&mut choices);
    let mut wire = Vec::new();
    if kind & 4 != 0 {
        wire.extend(greeting::write(null::NAME, false));
        wire[11] = kind >> 7;
    }
    if kind & 12 == 12 {
        let theirs = SocketType::ALL.into_iter().find(|theirs| socket_type.accepts(*theirs));
        null::write_ready(&mut wire, theirs.expect("every type has one that it talks to"));
    }
    wire.extend_from_slice(choices.rest());
    let whole = run(&wire, config, reads, None);
    assert_eq!(run(&wire, config, reads, Some(pieces)), whole);
}

/// `reads`: whether the peer takes what is sent to it.
fn run(mut wire: &[u8], config: Config, reads: bool, mut pieces: Option<Pieces>) -> Story {
    let mut unpacking = pieces.clone().unwrap_or(Pieces::WHOLE);
    let (mut connection, mut input, mut story) = (Connection::new(config), BytesMut::new(), Story::default());
    let mut steps = wire.len() + 1;
    'stream: while !wire.is_empty() {
        match &mut pieces {
            Some(pieces) => pieces.arrive(&mut wire, connection.body_buffer(), &mut input),
            None => input.extend_from_slice(std::mem::take(&mut wire)),
        }
        loop {
            let was_ready = connection.is_ready();
            match connection.receive(&mut input) {
                Ok(Event::Incomplete) => break,
                Ok(Event::Ready { socket_type, version }) => {
                    assert!(!was_ready && connection.is_ready() && config.socket_type.accepts(socket_type));
                    story.seen.push(Seen::Ready(socket_type, version));
                }
                Ok(Event::Run(run)) => {
                    assert!(was_ready);
                    unpacking.unpack(run, |message| {
                        assert!(message.byte_len() <= config.limits.message);
                        assert!(message.frame_count() <= config.limits.frames);
                        story.seen.push(Seen::Message(message));
                    });
                }
                Ok(Event::Command) => {
                    assert!(was_ready);
                    story.seen.push(Seen::Command);
                }
                Ok(Event::Ping { time_to_live }) => {
                    assert!(was_ready);
                    story.seen.push(Seen::Ping(time_to_live));
                }
                Ok(Event::Pong { number }) => {
                    assert!(was_ready);
                    story.seen.push(Seen::Pong(number));
                }
                Ok(Event::Subscribe(prefix)) => {
                    assert!(was_ready);
                    story.seen.push(Seen::Subscribe(prefix));
                }
                Ok(Event::Cancel(prefix)) => {
                    assert!(was_ready);
                    story.seen.push(Seen::Cancel(prefix));
                }
                Err(error) => {
                    story.error = Some(error);
                    break 'stream;
                }
            }
            steps = steps.checked_sub(1).expect("there are more steps than bytes");
            if reads {
                send_half(&mut connection, &mut story.sent);
            }
        }
        let left = input.len();
        assert!(matches!(connection.receive(&mut input), Ok(Event::Incomplete)) && input.len() == left);
        check_memory(connection.decoder(), &config.limits, left);
        assert!(!connection.is_refused_by_closing() || connection.is_greeting());
    }
    assert!(connection.control().len() <= CONTROL_MAXIMUM + 2 * greeting::LENGTH);
    story.sent.extend_from_slice(connection.control());
    connection.control_sent(connection.control().len());
    assert!(connection.control().is_empty());
    Story { is_greeting: connection.is_greeting(), is_ready: connection.is_ready(), ..story }
}

/// Lets the peer read a half of what waits for it: so it never becomes a flood, however the stream is cut.
fn send_half(connection: &mut Connection, sent: &mut Vec<u8>) {
    let count = connection.control().len().div_ceil(2);
    sent.extend_from_slice(&connection.control()[..count]);
    connection.control_sent(count);
}
