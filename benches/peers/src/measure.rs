//! One run of one peer in one cell.

use std::{
    path::PathBuf,
    sync::atomic::{AtomicUsize, Ordering},
    thread,
    time::Duration,
};

use anyhow::{Context, Result};
use harness::{Report, Sample};
use serde::{Deserialize, Serialize};
use tempfile::TempDir;

use crate::{
    cell::{Cell, Pattern, Transport},
    lineup::Peer,
    process::Process,
};

/// What a run may take at most, connecting and closing included.
const LIMIT: Duration = Duration::from_secs(20);

/// A calibration run shorter than this says little.
const LONG_ENOUGH: f64 = 0.1;

/// How much longer a calibration run may be than the one before.
const GROWTH: f64 = 40.0;

/// Memory of idle peers is looked at when nothing has happened for so long, and CPU time over as long again.
const SETTLE: Duration = Duration::from_millis(500);
const WATCH: Duration = Duration::from_secs(1);

/// What a run gave; what a cell does not measure is empty.
#[derive(Debug, Clone, Copy, Default, Serialize, Deserialize)]
pub(crate) struct Outcome {
    /// Messages that arrived (round trips, connections).
    pub(crate) messages: u64,
    pub(crate) seconds: f64,
    /// Messages (round trips, connections) per second.
    pub(crate) rate: f64,
    /// CPU time per message at the sending end.
    pub(crate) send_cpu_us: Option<f64>,
    /// CPU time per message at the receiving end.
    pub(crate) receive_cpu_us: Option<f64>,
    pub(crate) send_peak_kib: Option<u64>,
    pub(crate) receive_peak_kib: Option<u64>,
    pub(crate) p50_us: Option<f64>,
    pub(crate) p99_us: Option<f64>,
    pub(crate) p999_us: Option<f64>,
    /// Memory that a connected peer costs the host.
    pub(crate) peer_kib: Option<f64>,
    /// CPU time that all idle peers together cost the host per second.
    pub(crate) idle_cpu_us_per_s: Option<f64>,
    /// Of what the subscribers wanted, the part that arrived.
    pub(crate) arrived: Option<f64>,
}

impl Outcome {
    fn new(sender: &Report, receiver: &Report) -> Self {
        let per_message = |cpu: f64, messages: u64| Some(cpu * 1e6 / messages as f64);
        Self {
            messages: receiver.messages,
            seconds: receiver.seconds,
            rate: receiver.messages as f64 / receiver.seconds,
            send_cpu_us: per_message(sender.cpu_seconds, receiver.messages),
            receive_cpu_us: per_message(receiver.cpu_seconds, receiver.messages),
            send_peak_kib: Some(sender.peak_rss_kib),
            receive_peak_kib: Some(receiver.peak_rss_kib),
            p50_us: sender.p50_us,
            p99_us: sender.p99_us,
            p999_us: sender.p999_us,
            ..Self::default()
        }
    }
}

/// Seconds that a peer takes in a cell, with its calibration; measured, roughly, with 2 CPUs.
pub(crate) fn estimate(cell: &Cell, runs: usize, target: f64) -> f64 {
    /// Starting and ending two processes.
    const PROCESSES: f64 = 0.1;
    let beside = match cell.pattern {
        Pattern::Idle { peers } => return runs as f64 * (SETTLE * 2 + WATCH).as_secs_f64() + peers as f64 / 10_000.0,
        Pattern::Match { subscriptions, .. } => subscriptions as f64 / 50_000.0,
        Pattern::Busy { idle } => idle as f64 / 10_000.0,
        _ => 0.0,
    };
    // Calibrating takes three runs, of which the last is about as long as it should be.
    (runs as f64 + 1.2) * target + (runs as f64 + 3.0) * (PROCESSES + beside)
}

/// Runs peers.
pub(crate) struct Bench {
    binaries: PathBuf,
    /// For the paths of IPC endpoints.
    folder: TempDir,
    next_path: AtomicUsize,
    /// Seconds that a run should take.
    target: f64,
}

impl Bench {
    pub(crate) fn new(binaries: PathBuf, target: f64) -> Result<Self> {
        let folder = TempDir::with_prefix("peers-").context("making a folder for IPC endpoints")?;
        Ok(Self { binaries, folder, next_path: AtomicUsize::new(0), target })
    }

    /// Finds how many messages fill a run; warms the peer up by the way.
    pub(crate) fn calibrate(&self, cell: &Cell, peer: &Peer) -> Result<u64> {
        if let Pattern::Idle { peers } = cell.pattern {
            return Ok(peers);
        }
        let audience = if let Pattern::PubSub { subscribers, .. } = cell.pattern { subscribers } else { 1 };
        let mut count = (16_000_000 / cell.size as u64 / audience as u64).clamp(16, 4_000);
        loop {
            let outcome = self.measure(cell, peer, count)?;
            // The receiver starts its watch when the first message is there; count what a very short run hides.
            let seconds = outcome.seconds.max(1e-6);
            let next = count as f64 * (self.target / seconds).min(GROWTH);
            if seconds >= LONG_ENOUGH || next as u64 <= count {
                return Ok((next as u64).max(16));
            }
            count = next as u64;
        }
    }

    /// One run with `count` messages.
    pub(crate) fn measure(&self, cell: &Cell, peer: &Peer, count: u64) -> Result<Outcome> {
        match cell.pattern {
            Pattern::Pipeline { senders, receivers, shared } => {
                self.pipeline(cell, peer, count, senders, receivers, shared)
            }
            Pattern::PingPong { cores } => self.ping_pong(cell, peer, count, cores),
            Pattern::PubSub { subscribers, lossy } => self.pub_sub(cell, peer, count, subscribers, lossy),
            Pattern::Match { topics, subscriptions } => self.match_topics(cell, peer, count, topics, subscriptions),
            Pattern::Idle { peers } => self.idle(cell, peer, peers),
            Pattern::Busy { idle } => self.busy(cell, peer, count, idle),
        }
    }

    fn pipeline(
        &self,
        cell: &Cell,
        peer: &Peer,
        count: u64,
        senders: usize,
        receivers: usize,
        shared: bool,
    ) -> Result<Outcome> {
        let shared = if shared { "--shared" } else { "" };
        let pull = format!("--sockets {receivers} --peers {senders} {shared}");
        let mut pull = self.start(cell, peer, "pull", &self.endpoint(cell), count, &pull)?;
        let endpoint = pull.announced("ready")?;
        let push = format!("--sockets {senders} {shared}");
        let mut push = self.start(cell, peer, "push", &endpoint, count, &push)?;
        let received: Report = pull.json()?;
        push.release();
        Ok(Outcome::new(&push.json()?, &received))
    }

    fn ping_pong(&self, cell: &Cell, peer: &Peer, count: u64, cores: usize) -> Result<Outcome> {
        let mut pong = self.start(cell, peer, "pong", &self.endpoint(cell), count, "--cpu 0")?;
        let endpoint = pong.announced("ready")?;
        let cpu = format!("--cpu {}", cores - 1);
        let mut ping = self.start(cell, peer, "ping", &endpoint, count, &cpu)?;
        let pinged: Report = ping.json()?;
        pong.release();
        let ponged: Report = pong.json()?;
        Ok(Outcome::new(&pinged, &Report { seconds: pinged.seconds, ..ponged }))
    }

    fn pub_sub(&self, cell: &Cell, peer: &Peer, count: u64, subscribers: usize, lossy: bool) -> Result<Outcome> {
        let lossy = if lossy { "--lossy" } else { "" };
        let publisher = format!("--peers {subscribers} {lossy}");
        let subs = format!("--sockets {subscribers} {lossy}");
        let (sent, received) = self.publish(cell, peer, count, &publisher, &subs)?;
        let wanted = count * subscribers as u64;
        Ok(Outcome { arrived: Some(received.messages as f64 / wanted as f64), ..Outcome::new(&sent, &received) })
    }

    /// Every library publishes as it comes: nobody has to wait for a subscriber that gets next to nothing.
    fn match_topics(
        &self,
        cell: &Cell,
        peer: &Peer,
        count: u64,
        topics: usize,
        subscriptions: usize,
    ) -> Result<Outcome> {
        let more = format!("--lossy --topics {topics} --subscriptions {subscriptions}");
        let (sent, received) = self.publish(cell, peer, count, &more, &more)?;
        // A first message that was held up behind probes would make the subscriber's span too short.
        let seconds = received.seconds.max(sent.seconds);
        let published = Report { messages: sent.messages, seconds, ..received };
        Ok(Outcome {
            receive_cpu_us: None,
            arrived: Some(received.messages as f64 / count.div_ceil(topics as u64) as f64),
            ..Outcome::new(&sent, &published)
        })
    }

    /// Runs a publisher and the process of its subscribers.
    fn publish(&self, cell: &Cell, peer: &Peer, count: u64, publisher: &str, subs: &str) -> Result<(Report, Report)> {
        let mut publisher = self.start(cell, peer, "pub", &self.endpoint(cell), count, publisher)?;
        let endpoint = publisher.announced("ready")?;
        let mut subs = self.start(cell, peer, "sub", &endpoint, count, subs)?;
        subs.announced("joined")?;
        publisher.nudge()?;
        let received: Report = subs.json()?;
        publisher.release();
        Ok((publisher.json()?, received))
    }

    fn idle(&self, cell: &Cell, peer: &Peer, peers: u64) -> Result<Outcome> {
        let mut host = self.start(cell, peer, "host", &self.endpoint(cell), 0, "")?;
        let endpoint = host.announced("ready")?;
        let mut sample = |pause| -> Result<Sample> {
            thread::sleep(pause);
            host.nudge()?;
            host.json()
        };
        let before = sample(SETTLE)?;
        let (_crowd, connected) = self.crowd(&endpoint, peers)?;
        let quiet = sample(SETTLE)?;
        let later = sample(WATCH)?;
        Ok(Outcome {
            messages: peers,
            seconds: connected.seconds,
            rate: peers as f64 / connected.seconds,
            peer_kib: Some(quiet.rss_kib.saturating_sub(before.rss_kib) as f64 / peers as f64),
            receive_cpu_us: Some((quiet.cpu_seconds - before.cpu_seconds) * 1e6 / peers as f64),
            idle_cpu_us_per_s: Some((later.cpu_seconds - quiet.cpu_seconds) * 1e6 / WATCH.as_secs_f64()),
            ..Outcome::default()
        })
    }

    fn busy(&self, cell: &Cell, peer: &Peer, count: u64, idle: u64) -> Result<Outcome> {
        let mut pull = self.start(cell, peer, "pull", &self.endpoint(cell), count, &format!("--peers {}", idle + 1))?;
        let endpoint = pull.announced("ready")?;
        let _crowd = if idle > 0 { Some(self.crowd(&endpoint, idle)?) } else { None };
        let mut push = self.start(cell, peer, "push", &endpoint, count, "")?;
        let received: Report = pull.json()?;
        push.release();
        Ok(Outcome::new(&push.json()?, &received))
    }

    /// Connects idle peers, which stay until the process is dropped.
    fn crowd(&self, endpoint: &str, peers: u64) -> Result<(Process, Report)> {
        let arguments = arguments("crowd", endpoint, 64, peers, "");
        let mut crowd = Process::start(&self.binaries.join("peer-raw"), &arguments, LIMIT)?;
        let connected = crowd.json()?;
        Ok((crowd, connected))
    }

    fn start(&self, cell: &Cell, peer: &Peer, role: &str, endpoint: &str, count: u64, more: &str) -> Result<Process> {
        let mut arguments = arguments(role, endpoint, cell.size, count, more);
        arguments.extend(["--variant".to_owned(), peer.variant.to_owned()]);
        Process::start(&self.binaries.join(format!("peer-{}", peer.name)), &arguments, LIMIT)
    }

    /// An endpoint to bind that nobody else uses.
    fn endpoint(&self, cell: &Cell) -> String {
        match cell.transport {
            Transport::Tcp => "tcp://127.0.0.1:0".to_owned(),
            Transport::Ipc => {
                let number = self.next_path.fetch_add(1, Ordering::Relaxed);
                format!("ipc://{}", self.folder.path().join(number.to_string()).display())
            }
        }
    }
}

fn arguments(role: &str, endpoint: &str, size: usize, count: u64, more: &str) -> Vec<String> {
    let size = size.to_string();
    let count = count.to_string();
    let first = [role, "--endpoint", endpoint, "--size", &size, "--count", &count];
    first.into_iter().chain(more.split_whitespace()).map(str::to_owned).collect()
}
