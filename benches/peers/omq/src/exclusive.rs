//! Round trips with omq's exclusive mode: the caller drives the connection itself, so there is no hop between tasks.
//!
//! That mode has no PUSH and no PULL, and one peer only: here are two PAIRs over one TCP connection.

use std::time::Instant;

use anyhow::{Result, bail, ensure};
use harness::{Args, Meter, Payload, Report, Role, until_stdin_closes};
use omq_tokio::{
    Message, SocketType,
    exclusive::{Options, Socket},
};

const WARM_UP: u64 = 1_000;

/// Plays ping or pong.
pub(crate) async fn run(args: &Args) -> Result<()> {
    match args.role {
        Role::Ping => ping(args).await,
        Role::Pong => pong(args).await,
        role => bail!("omq's exclusive mode cannot play {role:?}"),
    }
}

async fn ping(args: &Args) -> Result<()> {
    let endpoint = args.endpoint[0].as_str();
    let mut socket = Socket::connect(SocketType::Pair, endpoint, Options::default()).await?;
    let mut payload = Payload::new(args.size, 0);
    for _ in 0..WARM_UP {
        send(&mut socket, &mut payload).await?;
        receive(&mut socket, args.size).await?;
    }
    let mut trips = Vec::with_capacity(usize::try_from(args.count)?);
    let meter = Meter::start();
    for _ in 0..args.count {
        let start = Instant::now();
        send(&mut socket, &mut payload).await?;
        receive(&mut socket, args.size).await?;
        trips.push(start.elapsed().as_nanos() as f64 / 1e3);
    }
    Report::new(args.count, args.size, meter.elapsed())?.with_trips(trips).print()
}

async fn pong(args: &Args) -> Result<()> {
    let endpoint = args.endpoint[0].as_str();
    let (mut socket, endpoint) = Socket::bind(SocketType::Pair, endpoint, Options::default()).await?;
    println!("ready {endpoint}");
    let mut payload = Payload::new(args.size, 0);
    let mut meter = Meter::start();
    for trip in 0..WARM_UP + args.count {
        if trip == WARM_UP {
            meter = Meter::start();
        }
        receive(&mut socket, args.size).await?;
        send(&mut socket, &mut payload).await?;
    }
    let measured = meter.elapsed();
    until_stdin_closes().await;
    Report::new(args.count, args.size, measured)?.print()
}

async fn send(socket: &mut Socket, payload: &mut Payload) -> Result<()> {
    Ok(socket.send(&Message::from(payload.fresh())).await?)
}

async fn receive(socket: &mut Socket, size: usize) -> Result<()> {
    let bytes = socket.recv().await?.byte_len();
    ensure!(bytes == size, "an answer of {bytes} bytes instead of {size}");
    Ok(())
}
