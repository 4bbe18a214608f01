//! Socket types and which of them may talk to each other (RFC 37, "The NULL security mechanism").

/// The type of a socket, as READY's `Socket-Type` names it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum SocketType {
    /// Sends to PULL peers in turn (RFC 30).
    Push,
    /// Receives from PUSH peers (RFC 30).
    Pull,
}

impl SocketType {
    /// The name on the wire.
    pub fn name(self) -> &'static str {
        match self {
            Self::Push => "PUSH",
            Self::Pull => "PULL",
        }
    }

    /// Finds the type with this exact name.
    pub(crate) fn from_name(name: &[u8]) -> Option<Self> {
        [Self::Push, Self::Pull].into_iter().find(|socket_type| socket_type.name().as_bytes() == name)
    }

    /// Whether a connection between these two types makes sense.
    pub(crate) fn accepts(self, peer: Self) -> bool {
        matches!((self, peer), (Self::Push, Self::Pull) | (Self::Pull, Self::Push))
    }
}

impl std::fmt::Display for SocketType {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.name())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_exact() {
        assert_eq!(SocketType::from_name(b"PULL"), Some(SocketType::Pull));
        assert_eq!(SocketType::from_name(b"pull"), None);
        assert_eq!(SocketType::from_name(b"PULLS"), None);
    }

    #[test]
    fn push_and_pull_accept_each_other_only() {
        assert!(SocketType::Push.accepts(SocketType::Pull));
        assert!(SocketType::Pull.accepts(SocketType::Push));
        assert!(!SocketType::Push.accepts(SocketType::Push));
        assert!(!SocketType::Pull.accepts(SocketType::Pull));
    }
}
