//! What every benchmark peer shares: the command line, the payloads and their checks, the measurement, the roles.
//!
//! A peer implements [`Library`] (and [`PubSub`] where its library has the pattern) and calls [`run`] or
//! [`run_with_pubsub`]. Everything is generic, so the compiler sees one loop per library, without a virtual call.

mod args;
mod ledger;
mod library;
mod matching;
mod meter;
mod payload;
mod pingpong;
mod pipeline;
mod pubsub;
mod stdin;

pub use args::{Args, Role};
pub use clap::Parser;
pub use ledger::{Ledger, Order};
pub use library::{Library, PubSub, Publish, Pull, Push};
pub use meter::{Meter, Report, Sample, prepare_process};
pub use payload::Payload;
pub use stdin::until_stdin_closes;

use anyhow::{Result, bail};

/// Plays the role that the command line asks for.
pub async fn run<L: Library>(library: L, args: &Args) -> Result<()> {
    match args.role {
        Role::Push => pipeline::push(&library, args).await,
        Role::Pull => pipeline::pull(&library, args).await,
        Role::Ping => pingpong::ping(&library, args).await,
        Role::Pong => pingpong::pong(&library, args).await,
        Role::Host => pipeline::host(&library, args).await,
        Role::Pub | Role::Sub | Role::Crowd => bail!("this peer cannot play {:?}", args.role),
    }
}

/// Like [`run`], for a library that has PUB/SUB.
pub async fn run_with_pubsub<L: PubSub>(library: L, args: &Args) -> Result<()> {
    match (args.role, args.topics.zip(args.subscriptions)) {
        (Role::Pub, Some((topics, subscriptions))) => matching::publish(&library, args, topics, subscriptions).await,
        (Role::Sub, Some((topics, subscriptions))) => matching::subscribe(&library, args, topics, subscriptions).await,
        (Role::Pub, None) => pubsub::publish(&library, args).await,
        (Role::Sub, None) => pubsub::subscribe(&library, args).await,
        _ => run(library, args).await,
    }
}
