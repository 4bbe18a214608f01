//! Round trips over two PUSH/PULL pairs: each side binds a PULL, and the first message says where to answer.

use std::time::Instant;

use anyhow::{Context, Result, ensure};

use crate::{
    Args, Library, Meter, Payload, Pull, Push, Report,
    pipeline::{announce, check_size},
    until_stdin_closes,
};

/// Round trips before the measured ones.
const WARM_UP: u64 = 1_000;

/// Sends, waits for the answer, and so on.
pub(crate) async fn ping<L: Library>(library: &L, args: &Args) -> Result<()> {
    check_size(args)?;
    let reply_to = match args.endpoint[0].strip_prefix("ipc://") {
        Some(path) => format!("ipc://{path}-reply"),
        None => "tcp://127.0.0.1:0".to_owned(),
    };
    let (mut pull, reply_to) = library.pull(&reply_to, 1).await?;
    let mut push = library.push(&args.endpoint[..1]).await?;
    push.send(reply_to.into_bytes()).await?;
    receive_one(&mut pull, args.size).await?;

    let mut payload = Payload::new(args.size, 0);
    for _ in 0..WARM_UP {
        push.send(payload.fresh()).await?;
        receive_one(&mut pull, args.size).await?;
    }
    let mut trips = Vec::with_capacity(usize::try_from(args.count)?);
    let meter = Meter::start();
    for _ in 0..args.count {
        let start = Instant::now();
        push.send(payload.fresh()).await?;
        receive_one(&mut pull, args.size).await?;
        trips.push(start.elapsed().as_nanos() as f64 / 1e3);
    }
    let measured = meter.elapsed();
    push.finish().await?;
    Report::new(args.count, args.size, measured)?.with_trips(trips).print()
}

/// Answers with a payload of its own.
pub(crate) async fn pong<L: Library>(library: &L, args: &Args) -> Result<()> {
    check_size(args)?;
    let (mut pull, endpoint) = library.pull(&args.endpoint[0], 1).await?;
    announce(&format!("ready {endpoint}"))?;
    let mut reply_to = Vec::new();
    while reply_to.is_empty() {
        pull.recv(&mut |body| reply_to.extend_from_slice(body)).await?;
    }
    let reply_to = String::from_utf8(reply_to).context("the first message is not an endpoint")?;
    let mut push = library.push(&[reply_to]).await?;

    let mut payload = Payload::new(args.size, 0);
    push.send(payload.fresh()).await?;
    let mut meter = Meter::start();
    for trip in 0..WARM_UP + args.count {
        if trip == WARM_UP {
            meter = Meter::start();
        }
        receive_one(&mut pull, args.size).await?;
        push.send(payload.fresh()).await?;
    }
    let measured = meter.elapsed();
    push.finish().await?;
    // The last answer may still be on its way through the library.
    until_stdin_closes().await;
    Report::new(args.count, args.size, measured)?.print()
}

#[inline]
async fn receive_one(pull: &mut impl Pull, size: usize) -> Result<()> {
    let mut bytes = 0;
    while bytes == 0 {
        pull.recv(&mut |body| bytes += body.len()).await?;
    }
    ensure!(bytes == size, "an answer of {bytes} bytes instead of {size}");
    Ok(())
}
