//! Many idle PUSH peers: the cheapest possible other side for a host whose cost per peer is measured.

use std::{
    io::{Read, Write},
    time::Instant,
};

use anyhow::{Context, Result, ensure};
use harness::{Args, Meter, Report};

use crate::stream::Stream;

/// Handshakes under way at the same time.
const WINDOW: u64 = 64;

/// ZMTP 3.0 greeting (RFC 23): signature, version 3.0, mechanism NULL, not a server.
fn greeting() -> [u8; 64] {
    let mut greeting = [0; 64];
    greeting[0] = 0xff;
    greeting[9] = 0x7f;
    greeting[10] = 3;
    greeting[12..16].copy_from_slice(b"NULL");
    greeting
}

/// The READY command of a PUSH socket, as a short command frame.
const READY: &[u8] = b"\x04\x1a\x05READY\x0bSocket-Type\x00\x00\x00\x04PUSH";

/// Connects `count` peers, waiting for each one's handshake, then holds them until standard input closes.
pub(crate) fn crowd(args: &Args) -> Result<()> {
    let meter = Meter::start();
    let start = Instant::now();
    let mut peers = Vec::new();
    let mut left = args.count;
    while left > 0 {
        let fresh = peers.len();
        for _ in 0..left.min(WINDOW) {
            let mut stream = Stream::connect(&args.endpoint[0], false)?;
            stream.write_all(&[greeting().as_slice(), READY].concat())?;
            peers.push(stream);
            left -= 1;
        }
        for stream in &mut peers[fresh..] {
            await_ready(stream).context("shaking hands")?;
        }
    }
    let seconds = start.elapsed().as_secs_f64();
    let (_, cpu_seconds) = meter.elapsed();
    Report::new(args.count, 0, (seconds, cpu_seconds))?.print()?;
    // Held here, on the main thread, until the driver has measured.
    std::io::stdin().read_to_end(&mut Vec::new())?;
    drop(peers);
    Ok(())
}

/// Reads the other side's greeting and its first command.
fn await_ready(stream: &mut Stream) -> Result<()> {
    let mut greeting = [0; 64];
    stream.read_exact(&mut greeting)?;
    let mut head = [0; 2];
    stream.read_exact(&mut head)?;
    ensure!(head[0] == 0x04, "a frame with the flags {:#x} instead of READY", head[0]);
    let mut command = vec![0; usize::from(head[1])];
    stream.read_exact(&mut command)?;
    ensure!(command.starts_with(b"\x05READY"), "a command that is not READY");
    Ok(())
}
