//! PUB and SUB: one publisher, all subscribers in one process.
//!
//! The publisher sends probes until every subscriber has seen one (the driver passes that on), then the messages,
//! then end marks until the driver has what it wants.

use std::{
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use anyhow::{Result, ensure};

use crate::{
    Args, Meter, Payload, PubSub, Publish, Report,
    payload::{marker, read_head, read_mark},
    pipeline::{announce, check_size},
    stdin,
};

pub(crate) const PROBE: u64 = 0;
pub(crate) const END: u64 = 1;

/// Messages between two looks at the clock.
const CLOCK_EVERY: u64 = 256;

/// Time between two probes or end marks.
pub(crate) const PROBE_INTERVAL: Duration = Duration::from_millis(5);

/// Publishes `count` messages to subscribers that are all there.
pub(crate) async fn publish<L: PubSub>(library: &L, args: &Args) -> Result<()> {
    check_size(args)?;
    let (mut publisher, endpoint) = library.publisher(&args.endpoint[0], args.lossy).await?;
    announce(&format!("ready {endpoint}"))?;
    publisher.admit("", args.peers).await?;

    let stage = Stage::new();
    while !stage.all_have_joined() {
        publisher.send(marker(args.size, PROBE)).await?;
        library.pause(PROBE_INTERVAL).await;
    }

    let mut payload = Payload::new(args.size, 0);
    let meter = Meter::start();
    for _ in 0..args.count {
        publisher.send(payload.fresh()).await?;
    }
    let (seconds, _) = meter.elapsed();
    while !stage.all_have_finished() {
        publisher.send(marker(args.size, END)).await?;
        library.pause(PROBE_INTERVAL).await;
    }
    let (_, cpu_seconds) = meter.elapsed();
    Report::new(args.count, args.size, (seconds, cpu_seconds))?.print()
}

/// What the driver has said: its first line comes when all have joined, the end of its lines when all have finished.
pub(crate) struct Stage(Arc<AtomicUsize>);

impl Stage {
    pub(crate) fn new() -> Self {
        let stage = Arc::new(AtomicUsize::new(0));
        let (each, end) = (stage.clone(), stage.clone());
        stdin::on_each_line(move || each.store(1, Ordering::Relaxed), move || end.store(2, Ordering::Relaxed));
        Self(stage)
    }

    pub(crate) fn all_have_joined(&self) -> bool {
        self.0.load(Ordering::Relaxed) >= 1
    }

    pub(crate) fn all_have_finished(&self) -> bool {
        self.0.load(Ordering::Relaxed) >= 2
    }
}

/// Receives until every subscriber has seen an end mark; reports what all of them got together.
pub(crate) async fn subscribe<L: PubSub>(library: &L, args: &Args) -> Result<()> {
    check_size(args)?;
    let mut subs = Vec::with_capacity(args.sockets);
    for _ in 0..args.sockets {
        subs.push(library.subscriber(&args.endpoint[0], &[String::new()]).await?);
    }
    let mut seats = vec![Seat::default(); args.sockets];
    let mut waiting = args.sockets;
    let mut running = args.sockets;
    let mut meter = None;
    let mut measured = (0.0, 0.0);
    let mut delivered = 0_u64;
    let mut fault = None;
    L::drain_subs(&mut subs, |index, body| {
        let seat = &mut seats[index];
        match read_mark(body) {
            Some(PROBE) => {
                if !std::mem::replace(&mut seat.joined, true) {
                    waiting -= 1;
                    if waiting == 0
                        && let Err(error) = announce("joined")
                    {
                        fault.get_or_insert(error.to_string());
                    }
                }
            }
            Some(_) => {
                if !std::mem::replace(&mut seat.left, true) {
                    running -= 1;
                    if delivered < CLOCK_EVERY {
                        measured = meter.as_ref().map_or(measured, Meter::elapsed);
                    }
                }
            }
            None => {
                let meter = meter.get_or_insert_with(Meter::start);
                if body.len() != args.size {
                    fault.get_or_insert(format!("a message of {} bytes instead of {}", body.len(), args.size));
                }
                if let Err(error) = seat.take(body, args.lossy) {
                    fault.get_or_insert(error.to_string());
                }
                delivered += 1;
                // The last message ends the span; a lossy subscriber may miss that, so look at the clock on the way.
                if seat.next == args.count || delivered.is_multiple_of(CLOCK_EVERY) {
                    measured = meter.elapsed();
                }
            }
        }
        running == 0 || fault.is_some()
    })
    .await?;
    if let Some(fault) = fault {
        anyhow::bail!("{fault}");
    }
    ensure!(
        args.lossy || delivered == args.count * args.sockets as u64,
        "{delivered} messages delivered, not {} to each of {}",
        args.count,
        args.sockets
    );
    Report::new(delivered, args.size, measured)?.print()
}

/// One subscriber's books.
#[derive(Debug, Clone, Default)]
struct Seat {
    joined: bool,
    left: bool,
    next: u64,
}

impl Seat {
    #[inline]
    fn take(&mut self, body: &[u8], lossy: bool) -> Result<()> {
        let counter = read_head(body).map_or(0, |(_, counter)| counter);
        ensure!(
            counter == self.next || lossy && counter > self.next,
            "message {counter} came where {} was due",
            self.next
        );
        self.next = counter + 1;
        Ok(())
    }
}
