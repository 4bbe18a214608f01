//! Time, CPU time and memory of this process.

use std::time::Instant;

use anyhow::{Context, Result, anyhow};
use nix::{
    sched::{CpuSet, sched_setaffinity},
    sys::resource::{Resource, UsageWho, getrlimit, getrusage, setrlimit},
    sys::time::TimeVal,
    unistd::Pid,
};
use serde::{Deserialize, Serialize};

use crate::Args;

/// What a process prints at the end.
#[derive(Debug, Clone, Copy, Default, Serialize, Deserialize)]
pub struct Report {
    /// Messages sent or received (round trips for ping and pong, connections for crowd).
    pub messages: u64,
    /// Bytes in their bodies.
    pub bytes: u64,
    /// Wall-clock time: receivers from the first to the last message, senders until all was handed over.
    pub seconds: f64,
    /// User and system time of all threads.
    pub cpu_seconds: f64,
    /// The most physical memory that the process ever had.
    pub peak_rss_kib: u64,
    /// Round-trip percentiles, for ping only.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub p50_us: Option<f64>,
    /// 99th percentile.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub p99_us: Option<f64>,
    /// 99.9th percentile.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub p999_us: Option<f64>,
}

impl Report {
    /// A report on `messages` bodies of `size` bytes.
    pub fn new(messages: u64, size: usize, (seconds, cpu_seconds): (f64, f64)) -> Result<Self> {
        Ok(Self {
            messages,
            bytes: messages * size as u64,
            seconds,
            cpu_seconds,
            peak_rss_kib: memory("VmHWM:")?,
            ..Self::default()
        })
    }

    /// Adds the percentiles of round trips given in microseconds.
    pub fn with_trips(mut self, mut trips: Vec<f64>) -> Self {
        trips.sort_unstable_by(f64::total_cmp);
        self.p50_us = percentile(&trips, 0.5);
        self.p99_us = percentile(&trips, 0.99);
        self.p999_us = percentile(&trips, 0.999);
        self
    }

    /// Prints the report as one line of JSON.
    pub fn print(&self) -> Result<()> {
        println!("{}", serde_json::to_string(self)?);
        Ok(())
    }
}

/// What a host prints when asked.
#[derive(Debug, Clone, Copy, Serialize, Deserialize)]
pub struct Sample {
    /// Physical memory now.
    pub rss_kib: u64,
    /// User and system time so far.
    pub cpu_seconds: f64,
}

impl Sample {
    /// Looks at this process.
    pub fn now() -> Result<Self> {
        Ok(Self { rss_kib: memory("VmRSS:")?, cpu_seconds: cpu_seconds() })
    }
}

/// A stop watch for wall-clock and CPU time.
#[derive(Debug)]
pub struct Meter {
    start: Instant,
    cpu: f64,
}

impl Meter {
    /// Starts now.
    pub fn start() -> Self {
        Self { start: Instant::now(), cpu: cpu_seconds() }
    }

    /// Wall-clock and CPU seconds since the start.
    pub fn elapsed(&self) -> (f64, f64) {
        (self.start.elapsed().as_secs_f64(), cpu_seconds() - self.cpu)
    }
}

/// Pins the process to a CPU if asked to, and lifts the soft limit of open files to the hard one.
pub fn prepare_process(args: &Args) -> Result<()> {
    if let Some(cpu) = args.cpu {
        let mut cpus = CpuSet::new();
        cpus.set(cpu)?;
        sched_setaffinity(Pid::from_raw(0), &cpus).with_context(|| format!("pinning to CPU {cpu}"))?;
    }
    let (_, hard) = getrlimit(Resource::RLIMIT_NOFILE)?;
    setrlimit(Resource::RLIMIT_NOFILE, hard, hard)?;
    Ok(())
}

fn cpu_seconds() -> f64 {
    let seconds = |time: TimeVal| time.tv_sec() as f64 + time.tv_usec() as f64 / 1e6;
    getrusage(UsageWho::RUSAGE_SELF).map_or(f64::NAN, |usage| seconds(usage.user_time()) + seconds(usage.system_time()))
}

/// A line of `/proc/self/status`, in KiB. (`ru_maxrss` would not do: it starts at what the parent had before `exec`.)
fn memory(key: &str) -> Result<u64> {
    let status = std::fs::read_to_string("/proc/self/status")?;
    let line = status.lines().find_map(|line| line.strip_prefix(key));
    let number = line.and_then(|rest| rest.split_whitespace().next());
    number.ok_or_else(|| anyhow!("no {key} in /proc/self/status"))?.parse().context("reading /proc/self/status")
}

/// The smallest value that at least `part` of all values do not exceed.
fn percentile(sorted: &[f64], part: f64) -> Option<f64> {
    let rank = (sorted.len() as f64 * part).ceil() as usize;
    sorted.get(rank.clamp(1, sorted.len().max(1)) - 1).copied()
}
