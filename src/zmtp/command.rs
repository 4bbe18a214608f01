//! Commands: their names, and the bodies of those that travel between ready peers (RFC 37, "Commands").

use std::time::Duration;

use crate::error::ProtocolError;
use crate::zmtp::frame;

/// What a PING's time to live is counted in.
pub(crate) const TTL_UNIT: Duration = Duration::from_millis(100);
/// In that unit.
pub(crate) const TTL_MAXIMUM: u16 = 655;

/// The longest context that a PING may carry and a PONG returns.
const CONTEXT_MAXIMUM: usize = 16;

/// Appends a whole command frame.
pub(crate) fn write(out: &mut Vec<u8>, name: &str, data: &[&[u8]]) {
    let length = 1 + name.len() + data.iter().map(|part| part.len()).sum::<usize>();
    frame::write_header(out, frame::COMMAND, length);
    #[allow(clippy::cast_possible_truncation)] // names are literals of at most nine letters
    out.push(name.len() as u8);
    out.extend_from_slice(name.as_bytes());
    for part in data {
        out.extend_from_slice(part);
    }
}

/// Splits a command frame's body into name and data; `None` if the name is empty or cut.
pub(crate) fn split(body: &[u8]) -> Option<(&[u8], &[u8])> {
    let (&length, rest) = body.split_first()?;
    let length = usize::from(length);
    (length > 0 && length <= rest.len()).then(|| rest.split_at(length))
}

/// Reads the data of a PING: the time to live in tenths of a second, and the context to return.
pub(crate) fn read_ping(data: &[u8]) -> Result<(u16, &[u8]), ProtocolError> {
    match data.split_first_chunk::<2>() {
        Some((ttl, context)) if context.len() <= CONTEXT_MAXIMUM => Ok((u16::from_be_bytes(*ttl), context)),
        _ => Err(ProtocolError::MalformedCommand("PING")),
    }
}

/// Appends a PING. libzmq reckons wrongly with more than 65.5 seconds, so that is the longest time to live.
pub(crate) fn write_ping(out: &mut Vec<u8>, time_to_live: Duration, context: &[u8]) {
    let tenths = (time_to_live.as_millis() / TTL_UNIT.as_millis()).min(u128::from(TTL_MAXIMUM));
    let tenths = u16::try_from(tenths).unwrap_or(TTL_MAXIMUM);
    write(out, "PING", &[&tenths.to_be_bytes(), context]);
}

/// Appends the answer to a PING.
pub(crate) fn write_pong(out: &mut Vec<u8>, context: &[u8]) {
    write(out, "PONG", &[context]);
}

/// Appends an ERROR with this reason, cut to the 255 bytes that fit.
pub(crate) fn write_error(out: &mut Vec<u8>, reason: &str) {
    let reason = &reason.as_bytes()[..reason.len().min(usize::from(u8::MAX))];
    #[allow(clippy::cast_possible_truncation)] // cut in the line above
    write(out, "ERROR", &[&[reason.len() as u8], reason]);
}

/// Reads the data of an ERROR: the reason.
pub(crate) fn read_error(data: &[u8]) -> Result<String, ProtocolError> {
    match data.split_first() {
        Some((&length, reason)) if usize::from(length) == reason.len() => Ok(legible(&String::from_utf8_lossy(reason))),
        _ => Err(ProtocolError::MalformedCommand("ERROR")),
    }
}

/// A peer's text as it may stand in logs: with no line of its own making, and nothing that a terminal obeys.
pub(crate) fn legible(text: &str) -> String {
    text.chars().map(|c| if c.is_control() { c.escape_default().to_string() } else { c.to_string() }).collect()
}

/// The names of the commands that carry a subscription's prefix.
pub(crate) const SUBSCRIBE: &str = "SUBSCRIBE";
pub(crate) const CANCEL: &str = "CANCEL";

/// How many bytes a command has besides the prefix that it carries.
pub(crate) const SUBSCRIBE_OVERHEAD: usize = 1 + SUBSCRIBE.len();

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_peers_reason_has_no_lines_and_nothing_for_terminals() {
        let text = "n\u{f6}\n\0\x1b[2J\u{9b} ok";
        let mut data = vec![u8::try_from(text.len()).unwrap()];
        data.extend_from_slice(text.as_bytes());
        assert_eq!(read_error(&data).unwrap(), "n\u{f6}\\n\\u{0}\\u{1b}[2J\\u{9b} ok");
    }

    #[test]
    fn a_pong_is_the_frame_that_libzmq_sends() {
        let mut out = Vec::new();
        write_pong(&mut out, b"CTX");
        assert_eq!(out, b"\x04\x08\x04PONGCTX");
    }

    #[test]
    fn a_ping_is_the_frame_that_libzmq_sends_and_never_lives_too_long_for_it() {
        let mut out = Vec::new();
        write_ping(&mut out, Duration::from_secs(1), b"");
        assert_eq!(out, b"\x04\x07\x04PING\x00\x0a");
        out.clear();
        write_ping(&mut out, Duration::from_secs(7_000), b"CTX");
        assert_eq!(out[7..], [2, 143, b'C', b'T', b'X']);
    }

    #[test]
    fn a_ping_carries_ttl_and_context() {
        assert_eq!(read_ping(b"\x00\x0a"), Ok((10, &b""[..])));
        assert_eq!(read_ping(b"\x02\x8fCTX"), Ok((655, &b"CTX"[..])));
    }

    #[test]
    fn a_ping_without_ttl_or_with_a_long_context_is_malformed() {
        let malformed = Err(ProtocolError::MalformedCommand("PING"));
        assert_eq!(read_ping(b""), malformed);
        assert_eq!(read_ping(b"\x00"), malformed);
        assert_eq!(read_ping(&[0; 2 + 17]), malformed);
        assert!(read_ping(&[0; 2 + 16]).is_ok());
    }

    #[test]
    fn names_are_split_from_data() {
        assert_eq!(split(b"\x04PONGx"), Some((&b"PONG"[..], &b"x"[..])));
        assert_eq!(split(b""), None);
        assert_eq!(split(b"\x00x"), None);
        assert_eq!(split(b"\x05PONG"), None);
    }

    #[test]
    fn an_error_carries_its_reason() {
        let mut out = Vec::new();
        write_error(&mut out, "400");
        assert_eq!(out, b"\x04\x0a\x05ERROR\x03400");
        assert_eq!(read_error(b"\x03400"), Ok("400".into()));
        assert!(read_error(b"\x04400").is_err());
        assert!(read_error(b"").is_err());
    }

    #[test]
    fn a_long_reason_is_cut_to_what_fits() {
        let mut out = Vec::new();
        write_error(&mut out, &"x".repeat(300));
        let header = frame::Header::read(&out).unwrap().unwrap();
        let (name, data) = split(&out[header.length..]).unwrap();
        assert_eq!((name, read_error(data).unwrap().len()), (&b"ERROR"[..], 255));
    }
}
