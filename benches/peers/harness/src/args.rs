//! The command line, the same for every peer.

use clap::{Parser, ValueEnum};

/// One process of a benchmark cell.
#[derive(Debug, Clone, Parser)]
#[command(version, about)]
pub struct Args {
    /// What this process does.
    pub role: Role,

    /// Where to bind (pull, pong, pub, host) or to connect (the others). `push` takes a list, separated by commas.
    #[arg(long, value_delimiter = ',', required = true)]
    pub endpoint: Vec<String>,

    /// Bytes in a message's body, 16 at least.
    #[arg(long, default_value_t = 64)]
    pub size: usize,

    /// Messages in all; round trips for ping and pong; connections for crowd.
    #[arg(long, default_value_t = 1_000_000)]
    pub count: u64,

    /// The library's mode; each peer documents its own.
    #[arg(long, default_value = "default")]
    pub variant: String,

    /// Send one shared payload again and again, in the library's zero-copy form where it has one.
    #[arg(long)]
    pub shared: bool,

    /// Sockets in this process: bound ones for pull, connected ones for push and sub.
    #[arg(long, default_value_t = 1)]
    pub sockets: usize,

    /// Connections that a bound socket will get (a few libraries must be told).
    #[arg(long, default_value_t = 1)]
    pub peers: usize,

    /// PUB goes round this many topics, of which SUB wants the first. Without it, SUB wants everything.
    #[arg(long, requires = "subscriptions")]
    pub topics: Option<usize>,

    /// Prefixes that SUB subscribes to: the topic that it wants, and others that are never published.
    #[arg(long, requires = "topics", value_parser = clap::value_parser!(u64).range(1..))]
    pub subscriptions: Option<u64>,

    /// PUB drops what a full subscriber cannot take, instead of waiting for it.
    #[arg(long)]
    pub lossy: bool,

    /// Run on this CPU only.
    #[arg(long)]
    pub cpu: Option<usize>,
}

/// What a process does.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Role {
    /// Connects and sends.
    Push,
    /// Binds and receives.
    Pull,
    /// Sends and waits for the answer, over two PUSH/PULL pairs.
    Ping,
    /// Answers.
    Pong,
    /// Binds and publishes.
    Pub,
    /// Connects and subscribes.
    Sub,
    /// Binds a PULL and reports its memory and CPU time for each line on standard input.
    Host,
    /// Connects many idle PUSH peers to a host (peer-raw only).
    Crowd,
}
