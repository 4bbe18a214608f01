//! Counts the words of a folder's text files in a pipeline of processes: a ventilator, workers and a sink.
//!
//! ```text
//! cargo run --release --example pipeline
//! cargo run --release --example pipeline -- --transport tcp --workers 4 --top 10 FOLDER
//! ```
//!
//! ```text
//!                  PUSH        PULL         PUSH        PULL
//!              ┌──────────────────▶ worker 0 ──────────────────┐
//!   ventilator ┼──────────────────▶ worker 1 ──────────────────┼▶ sink
//!              └──────────────────▶ worker 2 ──────────────────┘
//! ```
//!
//! The program starts copies of itself for the roles. Without a FOLDER it counts this project; `examples/data` holds
//! some real text. Then it counts once more by itself, on one thread, and compares: it exits with 0 if both counts
//! agree, with 1 if they do not or something else goes wrong, and with 3 if workers have died. Then it says what was
//! lost in flight, and compares the rest. To see that, `kill -9` a worker or use `--kill-a-worker`.
//!
//! How the end comes, without anybody waiting for a time to pass:
//!
//! * The ventilator closes its socket, which hands over the last tasks; then it tells the sink that it has sent all,
//!   and exits. The parent notices, and tells the workers that there is no more.
//! * A worker ends when it knows that, its connection to the ventilator has ended, and it has read everything that
//!   this had brought. Its last message to the sink says how many counts it has sent; it comes after them, on the
//!   same connection.
//! * The parent notices when a worker dies and tells the others. The socket of the ventilator gives to others what
//!   had not left for that worker; if none is left the ventilator stops.
//! * The sink ends when each worker has sent its last message or is dead, all connections have ended, and it has read
//!   everything that they had brought. Of the pieces that the ventilator has sent those without a count are lost.

mod check;
mod connections;
mod orders;
mod parent;
mod sink;
mod text;
mod ventilator;
mod wire;
mod worker;

use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;

use clap::{Parser, Subcommand, ValueEnum};
use sinew::{Endpoint, PushSocket};

use crate::wire::Failure;

/// Sockets close when everything has been handed over. There is no limit: the parent ends who waits for nobody.
const LINGER: Duration = Duration::MAX;

/// Counts the words of text files with several processes.
#[derive(Debug, Parser)]
#[command(name = "pipeline", args_conflicts_with_subcommands = true, disable_help_subcommand = true)]
struct Arguments {
    /// What to count: all text files in and below it, but for folders named target or .git. By default this project.
    folder: Option<PathBuf>,
    /// How the processes talk to each other.
    #[arg(long, value_enum, default_value_t = Transport::Ipc)]
    transport: Transport,
    /// How many workers; by default one for each CPU, and at least 2.
    #[arg(long, value_parser = clap::value_parser!(u8).range(1..))]
    workers: Option<u8>,
    /// How many words to print.
    #[arg(long, default_value_t = 20)]
    top: usize,
    /// Files that are larger than this many bytes are cut at line ends.
    #[arg(long, value_name = "BYTES", default_value_t = 1 << 20, value_parser = piece)]
    piece: usize,
    /// Kill a worker when it has begun its second piece.
    #[arg(long)]
    kill_a_worker: bool,
    #[command(subcommand)]
    role: Option<Role>,
}

#[derive(Debug, Clone, Copy, ValueEnum)]
enum Transport {
    Ipc,
    Tcp,
}

/// What a copy of the program is.
#[derive(Debug, Subcommand)]
enum Role {
    #[command(name = "as-ventilator", hide = true)]
    Ventilator(ventilator::Arguments),
    #[command(name = "as-worker", hide = true)]
    Worker(worker::Arguments),
    #[command(name = "as-sink", hide = true)]
    Sink(sink::Arguments),
}

/// A message carries a piece or its count, and both must stay below the limit of 64 MiB, also if a piece is stretched.
fn piece(text: &str) -> Result<usize, String> {
    match text.parse() {
        Ok(bytes) if (1..=1 << 20).contains(&bytes) => Ok(bytes),
        _ => Err(format!("must be between 1 and {}", 1 << 20)),
    }
}

impl Arguments {
    fn folder(&self) -> PathBuf {
        let project = Path::new(env!("CARGO_MANIFEST_DIR"));
        match &self.folder {
            Some(folder) => folder.clone(),
            None if project.is_dir() => project.to_owned(),
            None => ".".into(),
        }
    }

    fn workers(&self) -> usize {
        let cpus = || std::thread::available_parallelism().map_or(2, |cpus| cpus.get().clamp(2, u8::MAX.into()));
        self.workers.map_or_else(cpus, usize::from)
    }
}

#[tokio::main(worker_threads = 2)]
async fn main() -> ExitCode {
    let arguments = Arguments::parse();
    let (name, result) = match arguments.role {
        None => ("pipeline", parent::run(&arguments).await),
        Some(Role::Ventilator(role)) => ("ventilator", ventilator::run(role).await.map(|()| ExitCode::SUCCESS)),
        Some(Role::Worker(role)) => ("worker", worker::run(role).await.map(|()| ExitCode::SUCCESS)),
        Some(Role::Sink(role)) => ("sink", sink::run(role).await.map(|()| ExitCode::SUCCESS)),
    };
    result.unwrap_or_else(|error| {
        eprintln!("{name}: {error}");
        ExitCode::FAILURE
    })
}

/// A socket that pushes to one peer: what is sent on it stays in order.
fn push_to(endpoint: Endpoint) -> Result<PushSocket, Failure> {
    let socket = PushSocket::builder().linger(LINGER).build()?;
    socket.connect(endpoint)?;
    Ok(socket)
}

/// Closes a socket when everything has been handed over.
async fn flush(socket: &PushSocket) -> Result<(), Failure> {
    match socket.close().await?.unsent {
        0 => Ok(()),
        unsent => Err(format!("{unsent} messages were not sent").into()),
    }
}
