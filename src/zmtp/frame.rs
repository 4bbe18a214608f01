//! The header of a frame: flags and size (RFC 37, "Framing").

use crate::error::ProtocolError;

/// Another frame of the same message follows.
pub(crate) const MORE: u8 = 0x01;
/// The size is eight bytes instead of one.
pub(crate) const LONG: u8 = 0x02;
/// The body is a command.
pub(crate) const COMMAND: u8 = 0x04;

pub(crate) const SHORT_HEADER: usize = 2;
const LONG_HEADER: usize = 9;

/// A decoded frame header.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Header {
    flags: u8,
    /// The header's own length in bytes.
    pub(crate) length: usize,
    /// The length of the body in bytes, as the peer says: unchecked.
    pub(crate) body: u64,
}

impl Header {
    /// Reads the header at the start of `bytes`; `None` if more bytes are needed.
    #[inline]
    pub(crate) fn read(bytes: &[u8]) -> Result<Option<Self>, ProtocolError> {
        let Some(&flags) = bytes.first() else {
            return Ok(None);
        };
        // The legal values are 00, 01, 02, 03, 04 and 06: a command is never followed by MORE.
        if flags > (COMMAND | LONG) || flags == (COMMAND | MORE) {
            return Err(ProtocolError::IllegalFlags(flags));
        }
        if flags & LONG == 0 {
            return Ok(bytes.get(1).map(|&size| Self { flags, length: SHORT_HEADER, body: u64::from(size) }));
        }
        let size = bytes.get(1..).and_then(|rest| rest.first_chunk());
        Ok(size.map(|size| Self { flags, length: LONG_HEADER, body: u64::from_be_bytes(*size) }))
    }

    /// The long header of a command.
    pub(crate) fn long_command(body: u64) -> Self {
        Self { flags: COMMAND | LONG, length: LONG_HEADER, body }
    }

    #[inline]
    pub(crate) fn is_command(self) -> bool {
        self.flags & COMMAND != 0
    }

    /// Whether another frame of the same message follows.
    #[inline]
    pub(crate) fn more(self) -> bool {
        self.flags & MORE != 0
    }
}

/// Appends the header of a body of `body` bytes; `flags` are `MORE` or `COMMAND` or none.
#[inline]
pub(crate) fn write_header(out: &mut Vec<u8>, flags: u8, body: usize) {
    match u8::try_from(body) {
        Ok(short) => out.extend_from_slice(&[flags, short]),
        Err(_) => {
            let mut header = [flags | LONG; LONG_HEADER];
            header[1..].copy_from_slice(&(body as u64).to_be_bytes());
            out.extend_from_slice(&header);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn header(flags: u8, length: usize, body: u64) -> Result<Option<Header>, ProtocolError> {
        Ok(Some(Header { flags, length, body }))
    }

    #[test]
    fn short_and_long_headers_are_read() {
        assert_eq!(Header::read(&[0, 5]), header(0, 2, 5));
        assert_eq!(Header::read(&[1, 255, 9]), header(MORE, 2, 255));
        assert_eq!(Header::read(&[2, 0, 0, 0, 0, 0, 0, 1, 0]), header(LONG, 9, 256));
        assert_eq!(Header::read(&[6, 255, 255, 255, 255, 255, 255, 255, 255]), header(6, 9, u64::MAX));
    }

    #[test]
    fn a_long_header_may_announce_a_small_body() {
        assert_eq!(Header::read(&[2, 0, 0, 0, 0, 0, 0, 0, 1]), header(LONG, 9, 1));
    }

    #[test]
    fn a_header_cut_anywhere_asks_for_more() {
        for cut in 0..9 {
            assert_eq!(Header::read(&[2, 0, 0, 0, 0, 0, 0, 1, 0][..cut]), Ok(None));
        }
        assert_eq!(Header::read(&[4]), Ok(None));
    }

    #[test]
    fn only_six_flag_bytes_are_legal() {
        let legal = [0, 1, 2, 3, 4, 6];
        for flags in 0..=255_u8 {
            let read = Header::read(&[flags, 0, 0, 0, 0, 0, 0, 0, 0]);
            assert_eq!(read.is_ok(), legal.contains(&flags), "{flags:#x}");
        }
    }

    #[test]
    fn what_is_written_is_read_back() {
        for body in [0, 1, 255, 256, 65_536, usize::MAX] {
            let mut out = Vec::new();
            write_header(&mut out, MORE, body);
            assert_eq!(out.len(), if body <= 255 { SHORT_HEADER } else { LONG_HEADER });
            let read = Header::read(&out).unwrap().unwrap();
            assert_eq!((read.more(), read.is_command(), read.body), (true, false, body as u64));
        }
    }
}
