//! Socket types and which of them may talk to each other (RFC 37, "The NULL security mechanism").

/// The type of a socket, as READY's `Socket-Type` names it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum SocketType {
    /// Sends to PULL peers in turn (RFC 30).
    Push,
    /// Receives from PUSH peers (RFC 30).
    Pull,
    /// Sends to those SUB and XSUB peers that have subscribed to it (RFC 29).
    Pub,
    /// Receives what it has subscribed to from PUB and XPUB peers (RFC 29).
    Sub,
    /// A PUB whose application sees the subscriptions (RFC 29).
    XPub,
    /// A SUB whose application sends the subscriptions (RFC 29).
    XSub,
}

impl SocketType {
    pub(crate) const ALL: [Self; 6] = [Self::Push, Self::Pull, Self::Pub, Self::Sub, Self::XPub, Self::XSub];

    /// The name on the wire.
    pub fn name(self) -> &'static str {
        match self {
            Self::Push => "PUSH",
            Self::Pull => "PULL",
            Self::Pub => "PUB",
            Self::Sub => "SUB",
            Self::XPub => "XPUB",
            Self::XSub => "XSUB",
        }
    }

    /// Finds the type with this exact name.
    pub(crate) fn from_name(name: &[u8]) -> Option<Self> {
        Self::ALL.into_iter().find(|socket_type| socket_type.name().as_bytes() == name)
    }

    /// Whether what peers send is for the user, so that it is read to the end even if nothing can be sent to the peer any
    /// more. (An XPUB's users do not miss the last words of a subscriber that has gone.)
    pub(crate) fn receives(self) -> bool {
        matches!(self, Self::Pull | Self::Sub | Self::XSub)
    }

    /// Whether a second connection to the same peer would only double what the first one carries.
    pub(crate) fn connects_once(self) -> bool {
        !matches!(self, Self::Push | Self::Pull)
    }

    /// Whether peers subscribe to what it sends.
    pub(crate) fn publishes(self) -> bool {
        matches!(self, Self::Pub | Self::XPub)
    }

    /// Whether a connection between these two types makes sense.
    pub(crate) fn accepts(self, peer: Self) -> bool {
        match self {
            Self::Push => peer == Self::Pull,
            Self::Pull => peer == Self::Push,
            Self::Pub | Self::XPub => matches!(peer, Self::Sub | Self::XSub),
            Self::Sub | Self::XSub => matches!(peer, Self::Pub | Self::XPub),
        }
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
        assert!(!SocketType::Pull.accepts(SocketType::Pub));
    }

    #[test]
    fn publishers_and_subscribers_accept_each_other_in_both_forms() {
        for publisher in [SocketType::Pub, SocketType::XPub] {
            for subscriber in [SocketType::Sub, SocketType::XSub] {
                assert!(publisher.accepts(subscriber) && subscriber.accepts(publisher));
            }
            assert!(!publisher.accepts(SocketType::Pub) && !publisher.accepts(SocketType::Pull));
        }
        assert!(!SocketType::Sub.accepts(SocketType::XSub) && !SocketType::Sub.accepts(SocketType::Push));
    }
}
