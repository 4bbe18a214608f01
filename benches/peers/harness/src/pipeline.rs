//! PUSH and PULL: throughput with one or several sockets at either end, and the host of idle peers.

use std::io::Write;

use anyhow::{Result, ensure};

use crate::{Args, Ledger, Library, Meter, Order, Payload, Pull, Push, Report, Sample, stdin, until_stdin_closes};

/// Sends `count` messages, spread over the process's sockets in turn, and hands them over.
pub(crate) async fn push<L: Library>(library: &L, args: &Args) -> Result<()> {
    check_size(args)?;
    let mut lines = Vec::with_capacity(args.sockets);
    for source in 0..args.sockets {
        lines.push((library.push(&args.endpoint).await?, Payload::new(args.size, source)));
    }
    let meter = Meter::start();
    let mut left = args.count;
    while left > 0 {
        for (push, payload) in &mut lines {
            if left == 0 {
                break;
            }
            if args.shared {
                push.send_shared(payload.shared()).await?;
            } else {
                push.send(payload.fresh()).await?;
            }
            left -= 1;
        }
    }
    for (push, _) in &mut lines {
        push.finish().await?;
    }
    let (seconds, _) = meter.elapsed();
    // Not every library can say when its queues are empty; so the driver does, when the receiver has everything.
    until_stdin_closes().await;
    let (_, cpu_seconds) = meter.elapsed();
    Report::new(args.count, args.size, (seconds, cpu_seconds))?.print()
}

/// Receives `count` messages, over all of the process's sockets.
pub(crate) async fn pull<L: Library>(library: &L, args: &Args) -> Result<()> {
    check_size(args)?;
    let mut pulls = bind(library, args).await?;
    let order = match (args.shared, args.sockets) {
        (true, _) => Order::Unnumbered,
        (false, 1) => Order::Exact,
        (false, _) => Order::Rising,
    };
    let mut ledger = Ledger::new(args.size, args.count, order, args.sockets.max(args.peers));
    if let [pull] = pulls.as_mut_slice() {
        while !ledger.is_done() {
            pull.recv(&mut |body| {
                ledger.take(0, body);
            })
            .await?;
        }
    } else {
        L::drain(&mut pulls, |socket, body| ledger.take(socket, body)).await?;
    }
    Report::new(args.count, args.size, ledger.close()?)?.print()
}

/// Hosts idle peers; every line on standard input is answered with a [`Sample`], its end ends the process.
pub(crate) async fn host<L: Library>(library: &L, args: &Args) -> Result<()> {
    let mut pulls = bind(library, args).await?;
    let report = || match Sample::now().map(|sample| serde_json::to_string(&sample)) {
        Ok(Ok(line)) => println!("{line}"),
        failure => eprintln!("{failure:?}"),
    };
    stdin::on_each_line(report, || std::process::exit(0));
    L::drain(&mut pulls, |_, _| false).await
}

/// Binds the process's PULL sockets and says where.
async fn bind<L: Library>(library: &L, args: &Args) -> Result<Vec<L::Pull>> {
    let mut pulls = Vec::with_capacity(args.sockets);
    let mut endpoints = Vec::with_capacity(args.sockets);
    for index in 0..args.sockets {
        let (pull, endpoint) = library.pull(&nth_endpoint(&args.endpoint[0], index), args.peers).await?;
        pulls.push(pull);
        endpoints.push(endpoint);
    }
    announce(&format!("ready {}", endpoints.join(",")))?;
    Ok(pulls)
}

/// Tells the driver something, at once.
pub(crate) fn announce(line: &str) -> Result<()> {
    let mut out = std::io::stdout().lock();
    writeln!(out, "{line}")?;
    Ok(out.flush()?)
}

/// A wildcard port serves any number of sockets; a path needs a number.
fn nth_endpoint(endpoint: &str, index: usize) -> String {
    if index > 0 && endpoint.starts_with("ipc://") { format!("{endpoint}-{index}") } else { endpoint.to_owned() }
}

pub(crate) fn check_size(args: &Args) -> Result<()> {
    ensure!(args.size >= 16, "the smallest payload is 16 bytes");
    Ok(())
}
