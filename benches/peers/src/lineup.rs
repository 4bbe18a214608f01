//! Who takes part, and in what.

use anyhow::{Result, ensure};

use crate::{
    Extent,
    cell::{Cell, Pattern, Transport},
};

/// A peer program in one of its variants.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Peer {
    pub(crate) name: &'static str,
    pub(crate) variant: &'static str,
    /// The smallest extent that includes it.
    from: Extent,
}

const fn peer(name: &'static str, variant: &'static str, from: Extent) -> Peer {
    Peer { name, variant, from }
}

/// Everybody, in the order of the tables.
const LINEUP: [Peer; 21] = [
    peer("raw", "default", Extent::Quick),
    peer("raw", "unpaced", Extent::Quick),
    peer("raw", "spin", Extent::Normal),
    peer("sinew", "current", Extent::Quick),
    peer("sinew", "multi", Extent::Quick),
    peer("sinew", "spin", Extent::Normal),
    peer("libzmq", "default", Extent::Quick),
    peer("libzmq", "deep", Extent::Full),
    peer("omq", "default", Extent::Quick),
    peer("omq", "exclusive", Extent::Quick),
    peer("omq", "batch", Extent::Full),
    peer("omq", "multi", Extent::Full),
    peer("rzmq", "default", Extent::Quick),
    peer("rzmq", "current", Extent::Full),
    peer("rzmq", "uring", Extent::Quick),
    peer("zeromq", "default", Extent::Quick),
    peer("zeromq", "multi", Extent::Full),
    peer("monocoque", "default", Extent::Quick),
    peer("monocoque", "coalesce", Extent::Quick),
    peer("monocoque", "flush64", Extent::Quick),
    peer("nng", "default", Extent::Quick),
];

/// The peer of this name.
pub(crate) fn find(name: &str, variant: &str) -> Option<Peer> {
    LINEUP.into_iter().find(|peer| peer.name == name && peer.variant == variant)
}

impl Peer {
    /// Where it stands in the tables.
    pub(crate) fn place(&self) -> Option<usize> {
        LINEUP.iter().position(|peer| peer == self)
    }

    /// Whether the benchmark does without it where it cannot be built.
    pub(crate) fn is_optional(&self) -> bool {
        self.name == "nng"
    }

    /// `name` or `name/variant`.
    pub(crate) fn label(&self) -> String {
        if self.variant == "default" { self.name.to_owned() } else { format!("{}/{}", self.name, self.variant) }
    }

    /// Whether this peer can play in a cell at all.
    pub(crate) fn supports(&self, cell: &Cell) -> bool {
        let ping_pong = matches!(cell.pattern, Pattern::PingPong { .. });
        let pipeline = matches!(cell.pattern, Pattern::Pipeline { .. });
        let is_shared = matches!(cell.pattern, Pattern::Pipeline { shared: true, .. });
        let lossy = matches!(cell.pattern, Pattern::PubSub { lossy: true, .. });
        if matches!(cell.pattern, Pattern::Match { subscriptions: 100_000, .. }) {
            // For those whose rate does not fall with the number of subscriptions.
            return matches!((self.name, self.variant), ("sinew", "current" | "multi") | ("libzmq", "default"));
        }
        match (self.name, self.variant) {
            // Two spinning processes on one core only take each other's time slices.
            ("raw" | "sinew", "spin") => cell.pattern == Pattern::PingPong { cores: 2 },
            // Its frames are the same bytes whether the payload is shared or not.
            ("raw", "default") => ping_pong || pipeline && !is_shared,
            ("raw", "unpaced") => pipeline && !is_shared && cell.transport == Transport::Tcp,
            // A socket driven by its owner, one connection, TCP only; it has no PUSH and no PULL.
            ("omq", "exclusive") => ping_pong && cell.transport == Transport::Tcp,
            ("rzmq", "uring") => cell.transport == Transport::Tcp,
            // Its PullFanIn is for TCP only, and its PULL is one connection.
            ("monocoque", _) if cell.transport == Transport::Ipc && pipeline => {
                matches!(cell.pattern, Pattern::Pipeline { senders: 1, .. })
            }
            // A message that waits for a flush gets no answer; its PUB coalesces in any variant, never waits, and has TCP only.
            ("monocoque", "default") => {
                let publishes = lossy || matches!(cell.pattern, Pattern::Match { .. });
                pipeline || ping_pong || publishes && cell.transport == Transport::Tcp
            }
            ("monocoque", _) => pipeline,
            // Its SUB filters what its PUB sends to all; and it has a protocol of its own, which the idle peers do not speak.
            ("nng", _) => pipeline || ping_pong || lossy,
            // Its PUB always drops what a full subscriber cannot take.
            ("zeromq", _) => !matches!(cell.pattern, Pattern::PubSub { lossy: false, .. }),
            _ => true,
        }
    }

    fn is_named(&self, wanted: &str) -> bool {
        match wanted.split_once('/') {
            Some((name, variant)) => name == self.name && variant == self.variant,
            None => wanted == self.name,
        }
    }
}

/// The peers of an extent, or of `only` (a full name with its variant is taken from any extent).
pub(crate) fn choose(extent: Extent, only: &[String]) -> Result<Vec<Peer>> {
    for wanted in only {
        ensure!(LINEUP.iter().any(|peer| peer.is_named(wanted)), "there is no peer {wanted}");
    }
    let wanted = |peer: &Peer| {
        let asked = |wanted: &String| peer.is_named(wanted) && (wanted.contains('/') || peer.from <= extent);
        if only.is_empty() { peer.from <= extent } else { only.iter().any(asked) }
    };
    Ok(LINEUP.into_iter().filter(wanted).collect())
}
