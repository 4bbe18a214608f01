//! Measures how many messages a second a PULL socket receives; the other end is `remote_thr`.
//!
//! ```text
//! cargo run --release --example local_thr -- tcp://127.0.0.1:5555 64 1000000
//! cargo run --release --example remote_thr -- tcp://127.0.0.1:5555 64 1000000
//! ```
//!
//! Arguments and output are those of libzmq's tool of this name, so that either end can be libzmq's. The clock runs
//! from the first message to the last.

use std::error::Error;
use std::time::{Duration, Instant};

use clap::Parser;
use sinew::{Endpoint, Message, PullSocket};

/// Messages that are taken from the socket in one go.
const BATCH: usize = 1_024;

/// Receives messages and prints the throughput.
#[derive(Debug, Parser)]
#[command(name = "local_thr")]
struct Arguments {
    bind_to: Endpoint,
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
    let Arguments { bind_to, message_size, message_count, .. } = Arguments::parse();
    // libzmq takes the largest message that memory holds; so does a measurement of any size.
    let socket = PullSocket::builder().max_message_size(message_size.max(64 << 20)).build()?;
    let bound = socket.bind(bind_to.clone()).await?;
    if bound != bind_to {
        eprintln!("listening on {bound}");
    }

    check(&socket.recv().await?, message_size)?;
    let start = Instant::now();
    let mut left = message_count - 1;
    let mut batch = Vec::with_capacity(BATCH);
    while left > 0 {
        let max = usize::try_from(left).map_or(BATCH, |left| left.min(BATCH));
        left -= socket.recv_many(&mut batch, max).await? as u64;
        for message in batch.drain(..) {
            check(&message, message_size)?;
        }
    }
    let elapsed = start.elapsed().max(Duration::from_micros(1));

    #[allow(clippy::cast_precision_loss)] // a measurement has not that many digits
    let (size, count) = (message_size as f64, message_count as f64);
    let throughput = count / elapsed.as_secs_f64();
    println!("message size: {message_size} [B]");
    println!("message count: {message_count}");
    println!("mean throughput: {} [msg/s]", throughput.trunc());
    println!("mean throughput: {:.3} [Mb/s]", throughput * size * 8.0 / 1e6);
    socket.close().await?;
    Ok(())
}

fn check(message: &Message, size: usize) -> Result<(), &'static str> {
    if message.frame_count() != 1 || message.byte_len() != size {
        return Err("message of incorrect size received");
    }
    Ok(())
}
