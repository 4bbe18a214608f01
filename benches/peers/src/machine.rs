//! Where and with what it was measured.

use std::{fs::read_to_string, path::Path, process::Command};

use anyhow::{Context, Result};

use crate::results::Session;

/// The crates whose versions matter.
const CRATES: [&str; 10] =
    ["sinew", "zmq", "zeromq-src", "omq-tokio", "rzmq", "zeromq", "monocoque-rs", "nng", "nng-sys", "tokio"];

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

/// The sessions that the results are of, each with its machine: what is known of them already, and this one.
pub(crate) fn list(known: &str, sessions: &[Session], current: &Session, description: &str) -> String {
    let mut list = String::new();
    for session in sessions {
        let head = head(session);
        let old = known.split("\n\n").find_map(|block| block.strip_prefix(&head));
        let machine = if session == current { description } else { old.unwrap_or("unknown").trim() };
        list.push_str(&format!("{head}{machine}\n\n"));
    }
    format!("{}\n", list.trim_end())
}

fn head(session: &Session) -> String {
    format!("measured: {}, sinew {}\n", session.started, session.commit)
}

/// A session that starts now, with the version of sinew that lies there.
pub(crate) fn session(home: &Path) -> Session {
    let git = |arguments: &[&str]| {
        let output = Command::new("git").arg("-C").arg(home).args(arguments).output().ok()?;
        output.status.success().then(|| String::from_utf8_lossy(&output.stdout).trim().to_owned())
    };
    let started = jiff::Timestamp::now().strftime("%Y-%m-%dT%H:%MZ").to_string();
    let commit = git(&["rev-parse", "--short", "HEAD"]).unwrap_or_else(|| "unknown".to_owned());
    // What is measured is the library, as it lies there.
    let changes = git(&["status", "--porcelain", "--untracked-files=no", "--", "../../src", "../../Cargo.toml"]);
    let mark = if changes.is_some_and(|changes| !changes.is_empty()) { "+changes" } else { "" };
    Session { started, commit: commit + mark }
}

/// A crate's version in a lock file, which is a list of `name` and `version` lines.
fn locked_version<'a>(lock: &'a str, name: &str) -> Option<&'a str> {
    let mut lines = lock.lines();
    lines.find(|line| *line == format!("name = \"{name}\""))?;
    lines.next()?.strip_prefix("version = \"")?.strip_suffix('"')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn machines_stay_as_long_as_something_is_left_that_they_measured() {
        let session = |started: &str| Session { started: started.to_owned(), commit: "0123abc".to_owned() };
        let (first, second, third) = (session("1"), session("2"), session("3"));
        let list = |known: &str, sessions: &[&Session], current, description| {
            let sessions: Vec<Session> = sessions.iter().copied().cloned().collect();
            super::list(known, &sessions, current, description)
        };
        let known = list("", &[&first], &first, "CPUs: 2\nversions: 1");
        assert_eq!(known, "measured: 1, sinew 0123abc\nCPUs: 2\nversions: 1\n");
        let known = list(&known, &[&first, &second], &second, "CPUs: 4");
        assert_eq!(known, "measured: 1, sinew 0123abc\nCPUs: 2\nversions: 1\n\nmeasured: 2, sinew 0123abc\nCPUs: 4\n");
        let known = list(&known, &[&second, &third], &third, "CPUs: 8");
        assert_eq!(known, "measured: 2, sinew 0123abc\nCPUs: 4\n\nmeasured: 3, sinew 0123abc\nCPUs: 8\n");
    }
}
