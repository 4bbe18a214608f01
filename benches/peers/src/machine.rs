//! Where and with what it was measured.

use std::{fs::read_to_string, path::Path};

use anyhow::{Context, Result};

/// The crates whose versions matter.
const CRATES: [&str; 8] = ["sinew", "zmq", "zeromq-src", "omq-tokio", "rzmq", "zeromq", "monocoque-rs", "tokio"];

/// A few lines for people.
pub(crate) fn describe(home: &Path) -> Result<String> {
    let file = |path: &str| read_to_string(path).map_or_else(|_| "unknown".to_owned(), |text| text.trim().to_owned());
    let cpus = std::thread::available_parallelism().map_or(0, usize::from);
    let cpu_info = file("/proc/cpuinfo");
    let model = cpu_info.lines().find_map(|line| line.strip_prefix("model name")?.split_once(':'));
    let lock = read_to_string(home.join("Cargo.lock")).context("reading Cargo.lock")?;
    let versions = CRATES.map(|name| format!("{name} {}", locked_version(&lock, name).unwrap_or("absent")));
    Ok(format!(
        "kernel: Linux {}\nCPUs: {cpus} × {}\nTCP congestion control: {}\nload average at the start: {}\nversions: {}",
        file("/proc/sys/kernel/osrelease"),
        model.map_or("unknown", |(_, name)| name.trim()),
        file("/proc/sys/net/ipv4/tcp_congestion_control"),
        file("/proc/loadavg"),
        versions.join(", "),
    ))
}

/// A crate's version in a lock file, which is a list of `name` and `version` lines.
fn locked_version<'a>(lock: &'a str, name: &str) -> Option<&'a str> {
    let mut lines = lock.lines();
    lines.find(|line| *line == format!("name = \"{name}\""))?;
    lines.next()?.strip_prefix("version = \"")?.strip_suffix('"')
}
