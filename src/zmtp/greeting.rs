//! The greeting: 64 bytes that open a connection in each direction (RFC 37, "Version negotiation").

use crate::error::ProtocolError;

/// The length of the whole greeting.
pub(crate) const LENGTH: usize = 64;

/// The length of the signature, which tells ZMTP from everything else.
pub(crate) const SIGNATURE: usize = 10;

/// Signature and major version: what a peer needs before it goes on with its own greeting.
pub(crate) const OPENING: usize = 11;

const MAJOR: usize = 10;
const MINOR: usize = 11;
const MECHANISM: std::ops::Range<usize> = 12..32;

/// The version both ends speak: the older of the two that they announced.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[non_exhaustive]
pub enum Version {
    /// ZMTP 3.0 (RFC 23).
    V3_0,
    /// ZMTP 3.1 (RFC 37).
    V3_1,
}

impl std::fmt::Display for Version {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::V3_0 => "3.0",
            Self::V3_1 => "3.1",
        })
    }
}

/// Our greeting: ZMTP 3.1 with this mechanism.
///
/// `as_server` is for mechanisms with a client and a server side; NULL has none.
pub(crate) fn write(mechanism: &str, as_server: bool) -> [u8; LENGTH] {
    let mut greeting = [0; LENGTH];
    greeting[0] = 0xFF;
    // A 1.0 peer reads the first ten bytes as the header of an identity frame with this long length.
    greeting[8] = 1;
    greeting[9] = 0x7F;
    greeting[MAJOR] = 3;
    greeting[MINOR] = 1;
    greeting[MECHANISM][..mechanism.len()].copy_from_slice(mechanism.as_bytes());
    greeting[MECHANISM.end] = u8::from(as_server);
    greeting
}

/// Reads the peer's greeting as far as it has come: `None` if more bytes are needed.
///
/// A peer that is not acceptable is refused at the first byte that shows it.
pub(crate) fn read(bytes: &[u8], mechanism: &'static str) -> Result<Option<Version>, ProtocolError> {
    match bytes.first() {
        Some(0xFF) | None => {}
        Some(&first) => return Err(ProtocolError::NotZmtp { first }),
    }
    // Only bit 0 of the last signature byte says "not ZMTP 1.0"; the padding before it means nothing.
    if bytes.get(SIGNATURE - 1).is_some_and(|last| last & 1 == 0) {
        return Err(ProtocolError::VersionTooOld { major: 1 });
    }
    // ZMTP 2.0 announces revision 1; pre-releases sent 0, and its specification allowed 2.
    if bytes.get(MAJOR).is_some_and(|revision| *revision < 3) {
        return Err(ProtocolError::VersionTooOld { major: 2 });
    }
    let Some(greeting) = bytes.first_chunk::<LENGTH>() else {
        return Ok(None);
    };
    let name = &greeting[MECHANISM];
    let expected = &write(mechanism, false)[MECHANISM];
    if name != expected {
        let text = name.split(|byte| *byte == 0).next().unwrap_or_default();
        return Err(ProtocolError::MechanismMismatch { ours: mechanism, theirs: text.escape_ascii().to_string() });
    }
    let version = if greeting[MAJOR] == 3 && greeting[MINOR] == 0 { Version::V3_0 } else { Version::V3_1 };
    Ok(Some(version))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn changed(at: usize, byte: u8) -> [u8; LENGTH] {
        let mut greeting = write("NULL", false);
        greeting[at] = byte;
        greeting
    }

    #[test]
    fn ours_is_the_one_that_libzmq_sends() {
        let mut expected = vec![0xFF, 0, 0, 0, 0, 0, 0, 0, 1, 0x7F, 3, 1];
        expected.extend(b"NULL");
        expected.resize(LENGTH, 0);
        assert_eq!(write("NULL", false)[..], expected);
        assert_eq!(write("PLAIN", true)[32], 1);
    }

    #[test]
    fn a_greeting_cut_anywhere_asks_for_more() {
        let greeting = write("NULL", false);
        for cut in 0..LENGTH {
            assert_eq!(read(&greeting[..cut], "NULL"), Ok(None), "{cut}");
        }
        assert_eq!(read(&greeting, "NULL"), Ok(Some(Version::V3_1)));
    }

    #[test]
    fn versions_from_3_0_up_are_accepted() {
        assert_eq!(read(&changed(MINOR, 0), "NULL"), Ok(Some(Version::V3_0)));
        assert_eq!(read(&changed(MINOR, 7), "NULL"), Ok(Some(Version::V3_1)));
        assert_eq!(read(&changed(MAJOR, 4), "NULL"), Ok(Some(Version::V3_1)));
    }

    #[test]
    fn older_versions_are_refused_at_the_first_byte_that_shows_them() {
        for revision in [0, 1, 2] {
            let greeting = changed(MAJOR, revision);
            assert_eq!(read(&greeting[..11], "NULL"), Err(ProtocolError::VersionTooOld { major: 2 }));
        }
        let unversioned = changed(SIGNATURE - 1, 0);
        assert_eq!(read(&unversioned[..10], "NULL"), Err(ProtocolError::VersionTooOld { major: 1 }));
        assert_eq!(read(b"G", "NULL"), Err(ProtocolError::NotZmtp { first: b'G' }));
    }

    #[test]
    fn padding_filler_and_as_server_mean_nothing() {
        // Byte 8 is 04 in the greeting of a libzmq socket with an identity of three bytes.
        for at in [1, 7, 8, 32, 33, 63] {
            assert_eq!(read(&changed(at, 0xAA), "NULL"), Ok(Some(Version::V3_1)));
        }
        assert_eq!(read(&changed(SIGNATURE - 1, 1), "NULL"), Ok(Some(Version::V3_1)));
    }

    #[test]
    fn the_mechanism_must_match_in_all_twenty_bytes() {
        for (at, byte) in [(12, b'n'), (16, b'X'), (31, 1)] {
            assert!(matches!(read(&changed(at, byte), "NULL"), Err(ProtocolError::MechanismMismatch { .. })));
        }
        let error = read(&write("CURVE", false), "NULL").unwrap_err();
        let theirs = "CURVE".into();
        assert_eq!(error, ProtocolError::MechanismMismatch { ours: "NULL", theirs });
    }
}
