//! What is measured.

use std::fmt;

use crate::Extent;

/// One thing to measure, for every peer that can do it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Cell {
    pub(crate) pattern: Pattern,
    pub(crate) transport: Transport,
    /// Bytes in a body.
    pub(crate) size: usize,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Pattern {
    /// `senders` PUSH sockets in one process, `receivers` PULL sockets in another.
    Pipeline { senders: usize, receivers: usize, shared: bool },
    /// Round trips over two PUSH/PULL pairs, with both processes on one core or on two.
    PingPong { cores: usize },
    /// One PUB, and all SUBs in one process.
    PubSub { subscribers: usize, lossy: bool },
    /// One PUB that goes round `topics` topics, and one SUB with `subscriptions` prefixes, of which one is published.
    Match { topics: usize, subscriptions: usize },
    /// Connections to one PULL over which nothing goes.
    Idle { peers: u64 },
    /// One PUSH that sends to a PULL with `idle` other connections, over which nothing goes.
    Busy { idle: u64 },
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Transport {
    Tcp,
    Ipc,
}

impl Cell {
    /// Whether the three columns of a table mean this cell.
    pub(crate) fn is_named(&self, pattern: &str, transport: &str, size: &str) -> bool {
        self.pattern.to_string() == pattern && self.transport.to_string() == transport && self.size.to_string() == size
    }
}

impl fmt::Display for Cell {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {} {}", self.pattern, self.transport, self.size)
    }
}

impl fmt::Display for Pattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Pipeline { senders: 1, receivers: 1, shared: false } => write!(f, "push-pull"),
            Self::Pipeline { senders: 1, receivers: 1, shared: true } => write!(f, "push-pull-shared"),
            Self::Pipeline { senders, receivers, .. } => write!(f, "push-pull-{senders}-to-{receivers}"),
            Self::PingPong { cores: 1 } => write!(f, "ping-pong-one-core"),
            Self::PingPong { .. } => write!(f, "ping-pong-two-cores"),
            Self::PubSub { subscribers, lossy: false } => write!(f, "pub-sub-to-{subscribers}"),
            Self::PubSub { subscribers, lossy: true } => write!(f, "pub-sub-lossy-to-{subscribers}"),
            Self::Match { topics, subscriptions } => write!(f, "match-{topics}-topics-{subscriptions}-subscriptions"),
            Self::Idle { peers } => write!(f, "idle-{peers}"),
            Self::Busy { idle } => write!(f, "busy-among-{idle}"),
        }
    }
}

impl fmt::Display for Transport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Tcp => "tcp",
            Self::Ipc => "ipc",
        })
    }
}

/// All cells of an extent, in the order in which they are run.
pub(crate) fn all(extent: Extent) -> Vec<Cell> {
    let quick = extent == Extent::Quick;
    let full = extent == Extent::Full;
    let sizes: &[usize] = if quick { &[64, 1024] } else { &[16, 64, 256, 1024, 8192, 65_536, 1_048_576] };
    let small: &[usize] = if quick { &[64] } else { &[64, 1024] };
    let large: &[usize] = if full { sizes } else { &[65_536, 1_048_576] };
    let audiences: &[usize] = if quick { &[8] } else { &[1, 8, 64] };
    let topics: &[usize] = if quick { &[1_000] } else { &[1_000, 100_000] };
    let crowds: &[u64] = if quick { &[1_000] } else { &[1_000, 5_000] };
    let subscriptions: &[usize] = if full { &[1, 10_000, 100_000] } else { &[1, 10_000] };
    let pipeline = |senders, receivers, shared| Pattern::Pipeline { senders, receivers, shared };

    let mut patterns: Vec<(Pattern, &[usize])> = vec![(pipeline(1, 1, false), sizes)];
    if !quick {
        patterns.push((pipeline(1, 1, true), large));
    }
    patterns.extend([(pipeline(1, 8, false), small), (pipeline(8, 1, false), small)]);
    patterns.extend([1, 2].map(|cores| (Pattern::PingPong { cores }, &[64][..])));
    for &subscribers in audiences {
        patterns.push((Pattern::PubSub { subscribers, lossy: false }, small));
        if !quick {
            patterns.push((Pattern::PubSub { subscribers, lossy: true }, small));
        }
    }
    for &topics in topics {
        let cells = subscriptions.iter().map(|&subscriptions| Pattern::Match { topics, subscriptions });
        patterns.extend(cells.map(|pattern| (pattern, &[64][..])));
    }
    patterns.extend(crowds.iter().map(|&peers| (Pattern::Idle { peers }, &[64][..])));
    // Without any, it is what the others are compared with.
    patterns.extend([Some(&0), crowds.last()].into_iter().flatten().map(|&idle| (Pattern::Busy { idle }, &[64][..])));

    let mut cells = Vec::new();
    for (pattern, sizes) in patterns {
        for &transport in pattern.transports() {
            cells.extend(sizes.iter().map(|&size| Cell { pattern, transport, size }));
        }
    }
    cells
}

impl Pattern {
    /// Over which transports it is measured: one is enough where the work is not theirs.
    fn transports(self) -> &'static [Transport] {
        match self {
            Self::Match { .. } | Self::Busy { .. } => &[Transport::Tcp],
            _ => &[Transport::Tcp, Transport::Ipc],
        }
    }
}
