//! Prints the messages that it receives.
//!
//! ```text
//! cargo run --example pull -- --bind 'tcp://*:5555'
//! ```
//!
//! prints `Received 'Hello World!'` for each message, until Ctrl-C or until `--count` messages have come. The frames
//! of a multipart message stand side by side: `Received 'part one', 'part two'`. What is not UTF-8 is shown with `�`.
//! The other end may be the example `push` or any ZeroMQ PUSH socket, before or after this one.

use std::error::Error;
use std::io::{self, Write};
use std::process::ExitCode;

use clap::Parser;
use sinew::{Endpoint, Message, PullSocket};

/// Receives from PUSH sockets.
#[derive(Debug, Parser)]
#[command(name = "pull")]
struct Arguments {
    /// Listen here, like 'tcp://*:5555' or 'ipc:///tmp/work'; may be repeated.
    #[arg(long, value_name = "ENDPOINT", required_unless_present = "connect")]
    bind: Vec<Endpoint>,
    /// Connect to this, like tcp://localhost:5555; may be repeated.
    #[arg(long, value_name = "ENDPOINT")]
    connect: Vec<Endpoint>,
    /// End after so many messages.
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..))]
    count: Option<u64>,
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> ExitCode {
    match pull(&Arguments::parse()).await {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("pull: {error}");
            ExitCode::FAILURE
        }
    }
}

async fn pull(arguments: &Arguments) -> Result<(), Box<dyn Error>> {
    let socket = PullSocket::new();
    for endpoint in &arguments.bind {
        eprintln!("Listening on {}", socket.bind(endpoint.clone()).await?);
    }
    for endpoint in &arguments.connect {
        socket.connect(endpoint.clone())?;
    }
    tokio::select! {
        result = print(&socket, arguments.count.unwrap_or(u64::MAX)) => result?,
        interrupted = tokio::signal::ctrl_c() => interrupted?,
    }
    let unread = socket.close().await?.unread;
    if unread > 0 {
        eprintln!("Not read: {unread} more messages that had arrived");
    }
    Ok(())
}

async fn print(socket: &PullSocket, count: u64) -> Result<(), Box<dyn Error>> {
    for _ in 0..count {
        let message = socket.recv().await?;
        writeln!(io::stdout(), "Received {}", readable(&message))?;
    }
    Ok(())
}

fn readable(message: &Message) -> String {
    let frames: Vec<_> = message.iter().map(|frame| format!("'{}'", String::from_utf8_lossy(frame))).collect();
    frames.join(", ")
}
