//! Benchmark peer "raw": ZMTP frames over plain blocking sockets, without greeting, queue or thread.
//!
//! It shows what the kernel allows: frames (`flags, length, body`) are encoded into a buffer of 256 KiB, which one
//! `write` hands over, and reads of 256 KiB are parsed in place. `--variant unpaced` sends over TCP without the timers of
//! a congestion control that paces, as sinew does over loopback. The role `crowd` is the idle peer of the other
//! libraries' hosts: it does the ZMTP 3.0 handshake with the NULL mechanism and then keeps quiet.

mod crowd;
mod frames;
mod pingpong;
mod stream;

use std::io::{Read, stdin};

use anyhow::{Result, bail};
use frames::{Frames, Outgoing};
use harness::{Args, Ledger, Meter, Order, Parser, Payload, Report, Role};
use stream::{Listener, Stream, wait_readable};

fn main() -> Result<()> {
    let args = Args::parse();
    harness::prepare_process(&args)?;
    match args.role {
        Role::Push => push(&args),
        Role::Pull => pull(&args),
        Role::Ping => pingpong::ping(&args),
        Role::Pong => pingpong::pong(&args),
        Role::Crowd => crowd::crowd(&args),
        Role::Pub | Role::Sub | Role::Host => bail!("peer-raw cannot play {:?}", args.role),
    }
}

/// Sends buffer after buffer, over each connection in turn.
fn push(args: &Args) -> Result<()> {
    let (mut lines, mut sources) = (Vec::new(), Vec::new());
    for source in 0..args.sockets {
        for endpoint in &args.endpoint {
            lines.push((Stream::connect(endpoint, args.variant == "unpaced")?, Outgoing::new(), source));
        }
        sources.push(Payload::new(args.size, source));
    }
    let meter = Meter::start();
    let mut left = args.count;
    while left > 0 {
        for (stream, outgoing, source) in &mut lines {
            while left > 0 {
                left -= 1;
                if outgoing.add(stream, &mut sources[*source])? {
                    break;
                }
            }
        }
    }
    for (stream, outgoing, _) in &mut lines {
        outgoing.flush(stream)?;
    }
    let measured = meter.elapsed();
    // A connection's end must not be seen before the data of the others.
    stdin().read_to_end(&mut Vec::new())?;
    Report::new(args.count, args.size, measured)?.print()
}

/// Reads and parses whatever connection has something.
fn pull(args: &Args) -> Result<()> {
    let (listeners, endpoints): (Vec<_>, Vec<_>) = (0..args.sockets)
        .map(|index| Listener::bind(&args.endpoint[0], index))
        .collect::<Result<Vec<_>>>()?
        .into_iter()
        .unzip();
    println!("ready {}", endpoints.join(","));
    let mut inputs = Vec::new();
    for (socket, listener) in listeners.iter().enumerate() {
        for _ in 0..args.peers {
            inputs.push((socket, listener.accept()?, Frames::new(args.size)));
        }
    }
    let order = if args.sockets == 1 { Order::Exact } else { Order::Rising };
    let mut ledger = Ledger::new(args.size, args.count, order, args.sockets.max(args.peers));
    if let [(socket, stream, frames)] = inputs.as_mut_slice() {
        while !ledger.is_done() {
            frames.read(stream, |body| ledger.take(*socket, body))?;
        }
    }
    while !ledger.is_done() {
        let readable = wait_readable(inputs.iter().map(|(_, stream, _)| stream))?;
        for ((socket, stream, frames), _) in inputs.iter_mut().zip(readable).filter(|(_, ready)| *ready) {
            frames.read(stream, |body| ledger.take(*socket, body))?;
        }
    }
    Report::new(args.count, args.size, ledger.close()?)?.print()
}
