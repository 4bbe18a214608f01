//! Weather: a publisher of the readings of many stations, and subscribers that follow the zip codes of their choice.
//!
//! In two terminals, in any order:
//!
//! ```text
//! cargo run --release --example weather -- publish
//! cargo run --release --example weather -- subscribe 10 801
//! ```
//!
//! The publisher sends 1,000 updates a second of 1,000 stations; the subscriber shows live what comes from the stations
//! whose zip codes begin with 10 or with 801. Ctrl-C, or `--count` updates, ends either of them with a summary.
//!
//! An update has two frames: the zip code, which is the topic, and the reading as text, `NUMBER CELSIUS HUMIDITY`. Each
//! station numbers its updates from 1, so that a subscriber knows what it has missed: what a slow subscriber has no room
//! for is dropped. To see that, use `publish --rate 0` and `subscribe --stall 5`, which reads nothing for 5 seconds.
//!
//! Either end may be any ZeroMQ program; in Python a subscriber is
//!
//! ```text
//! import zmq
//! socket = zmq.Context().socket(zmq.SUB)
//! socket.connect("tcp://localhost:5556")
//! socket.subscribe("10")
//! while True: print(socket.recv_multipart())
//! ```
//!
//! Nothing is lost at the beginning: with `--subscribers 2` the publisher sends its first update when two subscribers
//! have asked for it.

mod publish;
mod subscribe;
mod update;

use std::error::Error;
use std::fmt::Write;
use std::process::ExitCode;
use std::time::Duration;

use clap::{Parser, Subcommand};
use indicatif::{HumanCount, ProgressState, ProgressStyle};

/// Any failure; the programs only report them.
type Failure = Box<dyn Error + Send + Sync>;

/// Where publishers listen and subscribers look for them, unless told otherwise.
const ENDPOINT: &str = "tcp://127.0.0.1:5556";

/// Publishes the weather, or follows it.
#[derive(Debug, Parser)]
#[command(name = "weather", disable_help_subcommand = true)]
struct Arguments {
    #[command(subcommand)]
    role: Role,
}

#[derive(Debug, Subcommand)]
enum Role {
    /// Sends updates of many stations.
    Publish(publish::Arguments),
    /// Follows the stations whose zip codes begin with one of the filters.
    Subscribe(subscribe::Arguments),
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> ExitCode {
    let result = match Arguments::parse().role {
        Role::Publish(arguments) => publish::run(&arguments).await,
        Role::Subscribe(arguments) => subscribe::run(&arguments).await,
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("weather: {error}");
            ExitCode::FAILURE
        }
    }
}

/// How many a second that is.
fn rate(count: u64, elapsed: Duration) -> HumanCount {
    let micros = elapsed.as_micros().max(1);
    HumanCount(u64::try_from(u128::from(count) * 1_000_000 / micros).unwrap_or(u64::MAX))
}

/// How a bar looks; `{rate}` is how much comes a second at present.
fn style(template: &str) -> ProgressStyle {
    let style = ProgressStyle::with_template(template).unwrap_or_else(|_| ProgressStyle::default_spinner());
    style.with_key("rate", |state: &ProgressState, text: &mut dyn Write| {
        // There is nobody to be told that a terminal takes no text.
        let _ = write!(text, "{:.0}/s", state.per_sec());
    })
}
