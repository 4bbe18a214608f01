//! Target `commands`: the bodies of commands, READY with its metadata among them.

use bytes::BytesMut;

use crate::error::ProtocolError;
use crate::zmtp::decoder::{self, COMMAND_MAXIMUM, Decoded};
use crate::zmtp::socket_type::SocketType;
use crate::zmtp::{command, frame, null};

const LIMITS: [usize; 3] = [64, COMMAND_MAXIMUM, usize::MAX];

/// The bytes are a command's body.
///
/// Invariants: a body that is framed is taken out again, as soon as it is whole and not before; name and data are the
/// body's parts; a PING's answer returns its context; a READY that is accepted suits us, and what it says does not depend
/// on properties that nobody knows; an ERROR that is written is read back, as far as it fits.
pub fn commands(data: &[u8]) {
    framed(data);
    if let Some((name, rest)) = command::split(data) {
        assert_eq!([&[u8::try_from(name.len()).unwrap()], name, rest].concat(), data);
        ping(rest);
        ready(name, rest);
    }
    for ours in SocketType::ALL {
        if let Ok(theirs) = null::read_ready(data, ours) {
            assert!(ours.accepts(theirs));
        }
        let mut written = Vec::new();
        null::write_ready(&mut written, ours);
        for theirs in SocketType::ALL {
            assert_eq!(null::read_ready(&written[2..], theirs).is_ok(), theirs.accepts(ours));
        }
    }
    error(data);
}

fn framed(body: &[u8]) {
    let mut wire = Vec::new();
    frame::write_header(&mut wire, frame::COMMAND, body.len());
    wire.extend_from_slice(body);
    for (limit, end) in LIMITS.into_iter().flat_map(|limit| [(limit, wire.len() - 1), (limit, wire.len())]) {
        let mut input = BytesMut::from(&wire[..end]);
        match decoder::take_command(&mut input, limit, false) {
            Ok(Decoded::Command(taken)) => {
                assert_eq!((&taken[..], end, input.len()), (body, wire.len(), 0));
            }
            Ok(other) => {
                assert!(matches!(other, Decoded::Incomplete) && end < wire.len() && input.len() == end);
            }
            Err(error) => {
                let (size, limit) = (body.len() as u64, limit as u64);
                assert_eq!(error, ProtocolError::CommandTooLarge { size, limit });
                assert!(size > limit);
            }
        }
    }
}

fn ping(data: &[u8]) {
    let Ok((ttl, context)) = command::read_ping(data) else {
        assert!(!(2..=18).contains(&data.len()));
        return;
    };
    assert_eq!([&ttl.to_be_bytes()[..], context].concat(), data);
    let mut pong = Vec::new();
    command::write_pong(&mut pong, context);
    let header = frame::Header::read(&pong).unwrap().unwrap();
    assert!(header.is_command() && header.body == (pong.len() - header.length) as u64);
    assert_eq!(command::split(&pong[header.length..]), Some((&b"PONG"[..], context)));
}

fn ready(name: &[u8], metadata: &[u8]) {
    if name != b"READY" {
        return;
    }
    for ours in SocketType::ALL {
        let plain = [b"\x05READY", metadata].concat();
        let extended = [b"\x05READY\x06X-Name\0\0\0\x05value", metadata].concat();
        assert_eq!(null::read_ready(&plain, ours), null::read_ready(&extended, ours));
    }
}

fn error(reason: &[u8]) {
    let reason = String::from_utf8_lossy(reason);
    let mut written = Vec::new();
    command::write_error(&mut written, &reason);
    let header = frame::Header::read(&written).unwrap().unwrap();
    let (name, data) = command::split(&written[header.length..]).unwrap();
    let expected = String::from_utf8_lossy(&reason.as_bytes()[..reason.len().min(255)]);
    assert_eq!((name, command::read_error(data)), (&b"ERROR"[..], Ok(command::legible(&expected))));
}
