//! Target `greeting`: the peer's first 64 bytes.

use crate::error::ProtocolError;
use crate::fuzzing::choices::Choices;
use crate::zmtp::greeting::{self, Version};

/// The first byte chooses our mechanism, the others are what the peer sends.
///
/// Invariants: what is read is what a plain reading of RFC 37 says; a refusal comes with the first byte that shows it, and
/// no later byte changes it; what we write is read back.
pub fn greeting(data: &[u8]) {
    let mut choices = Choices::new(data);
    let mechanism = choices.one_of(&["NULL", "PLAIN", "CURVE"]);
    let wire = choices.rest();
    for length in 0..=wire.len().min(greeting::LENGTH + 2) {
        let bytes = &wire[..length];
        assert_eq!(greeting::read(bytes, mechanism), expected(bytes, mechanism), "{}", bytes.escape_ascii());
    }
    let ours = greeting::write(mechanism, wire.len() % 2 == 1);
    assert_eq!(greeting::read(&[&ours[..], wire].concat(), mechanism), Ok(Some(Version::V3_1)));
}

fn expected(bytes: &[u8], mechanism: &'static str) -> Result<Option<Version>, ProtocolError> {
    for (at, byte) in bytes.iter().enumerate() {
        match at {
            0 if *byte != 0xFF => return Err(ProtocolError::NotZmtp { first: *byte }),
            9 if byte % 2 == 0 => return Err(ProtocolError::VersionTooOld { major: 1 }),
            10 if *byte < 3 => return Err(ProtocolError::VersionTooOld { major: 2 }),
            63 if !bytes[12..32].starts_with(mechanism.as_bytes())
                || bytes[12 + mechanism.len()..32].iter().any(|byte| *byte != 0) =>
            {
                let name: Vec<u8> = bytes[12..32].iter().copied().take_while(|byte| *byte != 0).collect();
                let theirs = name.escape_ascii().to_string();
                return Err(ProtocolError::MechanismMismatch { ours: mechanism, theirs });
            }
            63 if bytes[10..12] == [3, 0] => return Ok(Some(Version::V3_0)),
            63 => return Ok(Some(Version::V3_1)),
            _ => {}
        }
    }
    Ok(None)
}
