//! Sends messages to whoever pulls, and does not exit before they are handed over.
//!
//! ```text
//! cargo run --example push -- --connect tcp://localhost:5555 'Hello World!'
//! ```
//!
//! prints `Sent 'Hello World!'` once the message has been handed to a peer's connection. The other end may be the
//! example `pull` or any ZeroMQ PULL socket, and may be started later: `push` waits for it, with a patience of
//! `--timeout` seconds for each of its waits: for the first peer, for room in the queue, and for the last messages to
//! leave. When the patience is over, or on Ctrl-C, it says what was not sent and exits with 1.

use std::error::Error;
use std::io::{self, Write};
use std::process::ExitCode;
use std::time::Duration;

use clap::Parser;
use futures::{FutureExt, StreamExt};
use sinew::{Endpoint, Event, Message, Monitor, PushSocket};

/// Sends messages to PULL sockets.
#[derive(Debug, Parser)]
#[command(name = "push")]
struct Arguments {
    /// Listen here, like 'tcp://*:5555' or 'ipc:///tmp/work'; may be repeated.
    #[arg(long, value_name = "ENDPOINT", required_unless_present = "connect")]
    bind: Vec<Endpoint>,
    /// Connect to this, like tcp://localhost:5555; may be repeated.
    #[arg(long, value_name = "ENDPOINT")]
    connect: Vec<Endpoint>,
    /// Send all of it so many times.
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = clap::value_parser!(u64).range(1..))]
    count: u64,
    /// Send the texts as the frames of one message, not as a message each.
    #[arg(long)]
    multipart: bool,
    /// How long to wait for a peer, for room, and for the end.
    #[arg(long, value_name = "SECONDS", default_value = "10", value_parser = seconds)]
    timeout: Duration,
    /// What to send.
    #[arg(value_name = "MESSAGE", required = true)]
    texts: Vec<String>,
}

fn seconds(text: &str) -> Result<Duration, String> {
    let seconds: f64 = text.parse().map_err(|_| "not a number".to_string())?;
    Duration::try_from_secs_f64(seconds).map_err(|error| error.to_string())
}

impl Arguments {
    fn messages(&self) -> Vec<(String, Message)> {
        if self.multipart {
            return vec![(quoted(&self.texts), self.texts.clone().into())];
        }
        self.texts.iter().map(|text| (quoted(std::slice::from_ref(text)), text.into())).collect()
    }
}

fn quoted(texts: &[String]) -> String {
    texts.iter().map(|text| format!("'{text}'")).collect::<Vec<_>>().join(", ")
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> ExitCode {
    match push(&Arguments::parse()).await {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("push: {error}");
            ExitCode::FAILURE
        }
    }
}

async fn push(arguments: &Arguments) -> Result<(), Box<dyn Error>> {
    let socket = PushSocket::builder().linger(arguments.timeout).build()?;
    let mut monitor = socket.monitor();
    for endpoint in &arguments.bind {
        eprintln!("Listening on {}", socket.bind(endpoint.clone()).await?);
    }
    for endpoint in &arguments.connect {
        socket.connect(endpoint.clone())?;
    }
    let messages = arguments.messages();
    let failure = tokio::select! {
        result = deliver(&socket, &messages, arguments, &mut monitor) => result.err(),
        interrupted = tokio::signal::ctrl_c() => interrupted.map(|()| Some("interrupted".into()))?,
    };
    let total = messages.len() as u64 * arguments.count;
    let sent = socket.stats().messages_sent;
    match failure {
        None => report(&messages, arguments.count)?,
        Some(cause) if sent == 0 => {
            let names: Vec<_> = messages.iter().map(|(name, _)| name.as_str()).collect();
            let times = if arguments.count > 1 { format!(" ({} times)", arguments.count) } else { String::new() };
            return Err(format!("{cause}; not sent: {}{times}", names.join("; ")).into());
        }
        Some(cause) => return Err(format!("{cause}; {} of {total} messages were not sent", total - sent).into()),
    }
    Ok(())
}

/// Ready when everything has been handed over.
async fn deliver(
    socket: &PushSocket,
    messages: &[(String, Message)],
    arguments: &Arguments,
    monitor: &mut Monitor,
) -> Result<(), Box<dyn Error>> {
    let patience = arguments.timeout;
    if tokio::time::timeout(patience, socket.wait_connected(1)).await.is_err() {
        return Err(format!("nobody to send to within {patience:?}{}", last_failure(monitor)).into());
    }
    for _ in 0..arguments.count {
        for (_, message) in messages {
            match tokio::time::timeout(patience, socket.send(message)).await {
                Ok(sent) => sent?,
                Err(_) => return Err(format!("nobody took anything for {patience:?}").into()),
            }
        }
    }
    match socket.close().await?.unsent {
        0 => Ok(()),
        _ => Err(format!("not everything was taken within {patience:?}").into()),
    }
}

/// What the last attempt to connect failed with, for a message.
fn last_failure(monitor: &mut Monitor) -> String {
    let mut last = String::new();
    while let Some(Some(event)) = monitor.next().now_or_never() {
        match event {
            Event::ConnectRetried { endpoint, cause, .. } => last = format!(" ({endpoint}: {cause})"),
            Event::HandshakeFailed { peer, reason } => last = format!(" ({}: {reason})", peer.endpoint),
            _ => {}
        }
    }
    last
}

fn report(messages: &[(String, Message)], count: u64) -> io::Result<()> {
    let mut out = io::stdout().lock();
    for _ in 0..count {
        for (name, _) in messages {
            writeln!(out, "Sent {name}")?;
        }
    }
    Ok(())
}
