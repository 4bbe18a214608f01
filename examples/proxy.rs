//! A forwarder between many publishers and many subscribers, so that each of them needs one well-known endpoint only.
//!
//! ```text
//! cargo run --release --example proxy
//! cargo run --release --example weather -- publish --connect tcp://localhost:5559 --zip 1
//! cargo run --release --example weather -- publish --connect tcp://localhost:5559 --zip 2
//! cargo run --release --example weather -- subscribe --connect tcp://localhost:5560 10 20
//! ```
//!
//! ```text
//!   publisher ┐  PUB       XSUB       XPUB       SUB  ┌ subscriber
//!   publisher ┼────────────▶ 5559  proxy  5560 ───────┼▶ subscriber
//!   publisher ┘                                       └ subscriber
//! ```
//!
//! What subscribers ask for is passed on to the publishers, so that these send only what somebody wants. Once a second
//! the proxy prints what passes. With `--capture 'tcp://*:5561'` it also publishes there what passes, in both directions.
//! A subscriber that is too slow loses messages; with `--wait` all others wait for it instead.
//! Ctrl-C ends the proxy, with the totals. Publishers and subscribers may be any ZeroMQ programs; a publisher that listens
//! itself is reached with `--publisher ENDPOINT`, another proxy's subscribers' side too.

use std::error::Error;
use std::pin::pin;
use std::process::ExitCode;
use std::time::{Duration, Instant};

use clap::Parser;
use indicatif::{HumanBytes, HumanCount};
use sinew::{Endpoint, Flow, Proxy, PubSocket, SlowSubscriber, Stats, XPubSocket, XSubSocket};

/// Forwards messages from publishers to subscribers, and subscriptions the other way.
#[derive(Debug, Parser)]
#[command(name = "proxy")]
struct Arguments {
    /// Where publishers connect to.
    #[arg(long, value_name = "ENDPOINT", default_value = "tcp://127.0.0.1:5559")]
    frontend: Endpoint,
    /// Where subscribers connect to.
    #[arg(long, value_name = "ENDPOINT", default_value = "tcp://127.0.0.1:5560")]
    backend: Endpoint,
    /// Connect to this publisher, too; may be repeated.
    #[arg(long, value_name = "ENDPOINT")]
    publisher: Vec<Endpoint>,
    /// Publish here a copy of everything that passes.
    #[arg(long, value_name = "ENDPOINT")]
    capture: Option<Endpoint>,
    /// Wait for slow subscribers, and make the publishers wait; without this slow subscribers lose messages.
    #[arg(long)]
    wait: bool,
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> ExitCode {
    match forward(&Arguments::parse()).await {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("proxy: {error}");
            ExitCode::FAILURE
        }
    }
}

async fn forward(arguments: &Arguments) -> Result<(), Box<dyn Error>> {
    let slow = if arguments.wait { SlowSubscriber::Wait } else { SlowSubscriber::DropNewest };
    let subscribers = XPubSocket::builder().slow_subscriber(slow).build()?;
    let (publishers, capture) = (XSubSocket::new(), PubSocket::new());
    let mut proxy = Proxy::new(&publishers, &subscribers);
    if let Some(endpoint) = &arguments.capture {
        eprintln!("What passes is published on {}", capture.bind(endpoint).await?);
        proxy = proxy.capture(&capture);
    }
    eprintln!("Publishers connect to {}", publishers.bind(&arguments.frontend).await?);
    eprintln!("Subscribers connect to {}", subscribers.bind(&arguments.backend).await?);
    for endpoint in &arguments.publisher {
        publishers.connect(endpoint)?;
    }

    let proxy = proxy.start();
    let mut interrupted = pin!(tokio::signal::ctrl_c());
    let mut seconds = tokio::time::interval(Duration::from_secs(1));
    seconds.tick().await;
    let (mut then, mut before) = (Instant::now(), proxy.counters());
    loop {
        tokio::select! {
            interrupted = &mut interrupted => break interrupted?,
            _ = seconds.tick() => {}
        }
        let (now, counters) = (Instant::now(), proxy.counters());
        let forth = rate(before.frontend_to_backend, counters.frontend_to_backend, now - then);
        let back = rate(before.backend_to_frontend, counters.backend_to_frontend, now - then);
        let (from, to) = (publishers.stats().peers, subscribers.stats().peers);
        println!("passing   {forth}, {back} back; publishers: {from}, subscribers: {to}");
        (then, before) = (now, counters);
    }

    // What the proxy has taken from one side it has handed to the other; closing the sockets delivers it.
    let total = proxy.stop().await;
    publishers.close().await?;
    subscribers.close().await?;
    capture.close().await?;
    println!("forwarded {} to subscribers, {} back", sum(total.frontend_to_backend), sum(total.backend_to_frontend));
    let undelivered = total.frontend_to_backend.undelivered + total.backend_to_frontend.undelivered;
    if undelivered > 0 {
        println!("in hand   {} messages found no room in time", HumanCount(undelivered));
    }
    println!("dropped   {}", lost(&subscribers.stats()));
    if arguments.capture.is_some() {
        println!(
            "captured  {} messages, dropped {}",
            HumanCount(capture.stats().messages_sent),
            lost(&capture.stats())
        );
    }
    Ok(())
}

fn lost(stats: &Stats) -> String {
    format!("{} messages for slow subscribers", HumanCount(stats.messages_dropped))
}

fn sum(flow: Flow) -> String {
    format!("{} messages ({})", HumanCount(flow.messages), HumanBytes(flow.bytes))
}

fn rate(from: Flow, to: Flow, elapsed: Duration) -> String {
    let per_second = |from: u64, to: u64| {
        let micros = elapsed.as_micros().max(1);
        u64::try_from(u128::from(to - from) * 1_000_000 / micros).unwrap_or(u64::MAX)
    };
    let messages = HumanCount(per_second(from.messages, to.messages));
    format!("{messages} messages/s ({}/s)", HumanBytes(per_second(from.bytes, to.bytes)))
}
