//! The NULL mechanism: one READY with metadata from each side (RFC 37, "The NULL security mechanism").

use crate::error::ProtocolError;
use crate::zmtp::command;
use crate::zmtp::socket_type::SocketType;

/// The mechanism's name in the greeting.
pub(crate) const NAME: &str = "NULL";

const SOCKET_TYPE: &str = "Socket-Type";
const IDENTITY: &str = "Identity";
const IDENTITY_MAXIMUM: usize = 255;

/// Appends our READY.
pub(crate) fn write_ready(out: &mut Vec<u8>, socket_type: SocketType) {
    let mut metadata = Vec::new();
    write_property(&mut metadata, SOCKET_TYPE, socket_type.name().as_bytes());
    command::write(out, "READY", &[&metadata]);
}

/// Reads the peer's first command, which must be a READY that suits `ours`; gives the peer's socket type.
pub(crate) fn read_ready(body: &[u8], ours: SocketType) -> Result<SocketType, ProtocolError> {
    match command::split(body) {
        Some((b"READY", metadata)) => read_metadata(metadata, ours),
        Some((b"ERROR", data)) => Err(ProtocolError::Refused { reason: command::read_error(data)? }),
        Some((name, _)) => Err(ProtocolError::Unexpected(format!("{} command", name.escape_ascii()))),
        None => Err(ProtocolError::MalformedCommand("handshake")),
    }
}

fn write_property(out: &mut Vec<u8>, name: &str, value: &[u8]) {
    #[allow(clippy::cast_possible_truncation)] // names are literals, values are short names or identities
    out.push(name.len() as u8);
    out.extend_from_slice(name.as_bytes());
    #[allow(clippy::cast_possible_truncation)]
    out.extend_from_slice(&(value.len() as u32).to_be_bytes());
    out.extend_from_slice(value);
}

struct Property<'a> {
    name: &'a [u8],
    value: &'a [u8],
}

/// Splits the first property off a metadata block; gives the rest as well.
fn split_property(block: &[u8]) -> Result<(Property<'_>, &[u8]), ProtocolError> {
    let cut = ProtocolError::InvalidMetadata("a property is cut short");
    let Some((&name_length, rest)) = block.split_first() else {
        return Err(cut);
    };
    if name_length == 0 {
        return Err(ProtocolError::InvalidMetadata("a property has no name"));
    }
    let Some((name, rest)) = rest.split_at_checked(usize::from(name_length)) else {
        return Err(cut);
    };
    let Some((value_length, rest)) = rest.split_first_chunk::<4>() else {
        return Err(cut);
    };
    let value_length = u32::from_be_bytes(*value_length);
    if value_length > i32::MAX as u32 {
        return Err(ProtocolError::InvalidMetadata("a value is longer than 2^31-1 bytes"));
    }
    match rest.split_at_checked(value_length as usize) {
        Some((value, rest)) => Ok((Property { name, value }, rest)),
        None => Err(cut),
    }
}

/// Names are compared without regard to case, as the RFC says; unknown ones are skipped; the first of a kind wins.
fn read_metadata(mut block: &[u8], ours: SocketType) -> Result<SocketType, ProtocolError> {
    let mut socket_type = None;
    while !block.is_empty() {
        let (Property { name, value }, rest) = split_property(block)?;
        block = rest;
        if name.eq_ignore_ascii_case(SOCKET_TYPE.as_bytes()) {
            socket_type.get_or_insert(value);
        } else if name.eq_ignore_ascii_case(IDENTITY.as_bytes())
            && (value.len() > IDENTITY_MAXIMUM || value.first() == Some(&0))
        {
            return Err(ProtocolError::InvalidMetadata("an identity is too long or begins with zero"));
        }
    }
    let theirs = socket_type.ok_or(ProtocolError::InvalidMetadata("there is no Socket-Type"))?;
    SocketType::from_name(theirs).filter(|theirs| ours.accepts(*theirs)).ok_or_else(|| {
        ProtocolError::SocketTypeMismatch {
            ours: ours.name(),
            theirs: theirs[..theirs.len().min(32)].escape_ascii().to_string(),
        }
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ready(properties: &[(&str, &[u8])]) -> Vec<u8> {
        let mut body = b"\x05READY".to_vec();
        for (name, value) in properties {
            write_property(&mut body, name, value);
        }
        body
    }

    fn read(body: &[u8]) -> Result<SocketType, ProtocolError> {
        read_ready(body, SocketType::Push)
    }

    #[test]
    fn ours_is_the_frame_that_libzmq_sends() {
        let mut out = Vec::new();
        write_ready(&mut out, SocketType::Pull);
        assert_eq!(out, b"\x04\x1a\x05READY\x0bSocket-Type\0\0\0\x04PULL");
    }

    #[test]
    fn a_suitable_peer_is_accepted_whatever_else_it_says() {
        let body = ready(&[("X-Build", b"7"), ("socket-TYPE", b"PULL"), ("Identity", b""), ("Identity", b"me")]);
        assert_eq!(read(&body), Ok(SocketType::Pull));
    }

    #[test]
    fn another_socket_type_is_refused_by_name() {
        for theirs in ["PUSH", "SUB", "pull", ""] {
            let error = ProtocolError::SocketTypeMismatch { ours: "PUSH", theirs: theirs.into() };
            assert_eq!(read(&ready(&[("Socket-Type", theirs.as_bytes())])), Err(error));
        }
    }

    #[test]
    fn the_readys_that_libzmq_sends_for_other_types_are_understood_and_refused_by_name() {
        let frames: [(&[u8], &str); 6] = [
            (b"\x04\x19\x05READY\x0bSocket-Type\0\0\0\x03PUB", "PUB"),
            (b"\x04\x19\x05READY\x0bSocket-Type\0\0\0\x03SUB", "SUB"),
            (b"\x04\x1a\x05READY\x0bSocket-Type\0\0\0\x04XPUB", "XPUB"),
            (b"\x04\x1a\x05READY\x0bSocket-Type\0\0\0\x04XSUB", "XSUB"),
            (b"\x04\x2c\x05READY\x0bSocket-Type\0\0\0\x06DEALER\x08Identity\0\0\0\x03id1", "DEALER"),
            (b"\x04\x29\x05READY\x0bSocket-Type\0\0\0\x06ROUTER\x08Identity\0\0\0\0", "ROUTER"),
        ];
        for (frame, theirs) in frames {
            assert_eq!(usize::from(frame[1]), frame.len() - 2);
            let error = ProtocolError::SocketTypeMismatch { ours: "PUSH", theirs: theirs.into() };
            assert_eq!(read(&frame[2..]), Err(error));
        }
    }

    #[test]
    fn a_block_cut_anywhere_is_invalid() {
        let body = ready(&[("Socket-Type", b"PULL")]);
        for cut in b"\x05READY".len()..body.len() {
            assert!(matches!(read(&body[..cut]), Err(ProtocolError::InvalidMetadata(_))), "{cut}");
        }
    }

    #[test]
    fn malformed_properties_are_invalid() {
        let mut nameless = ready(&[("Socket-Type", b"PULL")]);
        nameless.extend([0, 0, 0, 0, 0]);
        let mut leftover = ready(&[("Socket-Type", b"PULL")]);
        leftover.push(1);
        let mut enormous = ready(&[]);
        enormous.extend(b"\x01X\xff\xff\xff\xff");
        let long = ready(&[("Socket-Type", b"PULL"), ("Identity", &[1; 256])]);
        let reserved = ready(&[("Socket-Type", b"PULL"), ("Identity", b"\0me")]);
        for body in [nameless, leftover, enormous, long, reserved, ready(&[])] {
            assert!(matches!(read(&body), Err(ProtocolError::InvalidMetadata(_))));
        }
    }

    #[test]
    fn an_error_and_other_commands_end_the_handshake() {
        let reason = "go away".into();
        assert_eq!(read(b"\x05ERROR\x07go away"), Err(ProtocolError::Refused { reason }));
        assert_eq!(read(b"\x05ERROR\x08go away"), Err(ProtocolError::MalformedCommand("ERROR")));
        assert_eq!(read(b"\x05HELLO"), Err(ProtocolError::Unexpected("HELLO command".into())));
        assert_eq!(read(b""), Err(ProtocolError::MalformedCommand("handshake")));
        assert_eq!(read(b"\x09READY"), Err(ProtocolError::MalformedCommand("handshake")));
    }
}
