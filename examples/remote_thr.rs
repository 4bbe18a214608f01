//! Sends as many messages as fast as a PUSH socket can; the other end is `local_thr`, which see.
//!
//! ```text
//! cargo run --release --example remote_thr -- tcp://127.0.0.1:5555 64 1000000
//! ```
//!
//! Arguments are those of libzmq's tool of this name, so that either end can be libzmq's. Like that it prints
//! nothing, and waits for as long as it takes until somebody has taken the last message.

use std::error::Error;
use std::time::Duration;

use clap::Parser;
use sinew::{Endpoint, Message, PushSocket};

/// Sends messages for a measurement.
#[derive(Debug, Parser)]
#[command(name = "remote_thr")]
struct Arguments {
    connect_to: Endpoint,
    /// In bytes.
    message_size: usize,
    #[arg(value_parser = clap::value_parser!(u64).range(1..))]
    message_count: u64,
    /// Only 0 is supported.
    #[arg(value_parser = clap::value_parser!(u8).range(..=0), default_value_t = 0, hide_default_value = true)]
    enable_curve: u8,
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Box<dyn Error>> {
    let Arguments { connect_to, message_size, message_count, .. } = Arguments::parse();
    let socket = PushSocket::builder().linger(Duration::MAX).max_message_size(message_size.max(64 << 20)).build()?;
    socket.connect(connect_to)?;

    let message = Message::from(vec![0u8; message_size]);
    for _ in 0..message_count {
        socket.send(&message).await?;
    }
    match socket.close().await?.unsent {
        0 => Ok(()),
        unsent => Err(format!("{unsent} messages were not sent").into()),
    }
}
