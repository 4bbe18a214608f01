//! Names whose addresses change: each attempt to connect looks again. In a mount namespace with an `/etc` of its own.

use std::net::Ipv4Addr;
use std::path::PathBuf;

use sinew::{Endpoint, Event, Monitor, PullSocket};
use tokio::process::Command;

use crate::common::*;
use crate::process::{alone_by, may_run, name_of, run};

const NAME: &str = "feed.test";

/// Nobody else listens there, and both are loopback.
const FIRST: Ipv4Addr = Ipv4Addr::new(127, 83, 0, 1);
const SECOND: Ipv4Addr = Ipv4Addr::new(127, 83, 0, 2);

#[test]
fn a_name_is_looked_up_again_for_each_attempt_to_connect() {
    // A container may allow the namespace and forbid to mount in it.
    if !may_run("unshare", &["--map-root-user", "--mount", "mount", "--bind", "/tmp", "/etc"]) {
        return;
    }
    let mut command = Command::new("unshare");
    command.args(["--map-root-user", "--mount"]).arg(std::env::current_exe().unwrap());
    alone_by(command, name_of(a_name_is_looked_up_again_for_each_attempt_to_connect), follow);
}

/// An `/etc` in which names are looked up in one file only, and nobody on the network is asked.
struct Names {
    folder: tempfile::TempDir,
}

impl Names {
    /// Takes the place of `/etc` in this namespace.
    fn mount() -> Self {
        let names = Self { folder: tempfile::tempdir().unwrap() };
        std::fs::write(names.path("nsswitch.conf"), "hosts: files\n").unwrap();
        // All lines with a name count, not the first one only.
        std::fs::write(names.path("host.conf"), "multi on\n").unwrap();
        names.are(&[]);
        run("mount", "--bind", &[names.folder.path().to_str().unwrap(), "/etc"]);
        names
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// The addresses that the name has from now on.
    fn are(&self, addresses: &[Ipv4Addr]) {
        let lines: String = addresses.iter().map(|address| format!("{address} {NAME}\n")).collect();
        // At once, or a look in between would find half of it.
        std::fs::write(self.path("new"), lines).unwrap();
        std::fs::rename(self.path("new"), self.path("hosts")).unwrap();
    }
}

/// A PULL at this address.
async fn pull_at(address: Ipv4Addr, port: &str) -> (PullSocket, String) {
    let pull = new_pull();
    let endpoint = within(pull.bind(format!("tcp://{address}:{port}"))).await.unwrap();
    let port = endpoint.to_string().rsplit_once(':').unwrap().1.to_owned();
    (pull, port)
}

/// Why the next attempt to connect failed.
async fn next_failure(monitor: &mut Monitor) -> String {
    wait_for(monitor, |event| match event {
        Event::ConnectRetried { cause, .. } => Some(cause),
        _ => None,
    })
    .await
}

async fn follow() {
    let names = Names::mount();
    let (first, port) = pull_at(FIRST, "*").await;
    let push = new_push();
    let mut monitor = push.monitor();
    let endpoint: Endpoint = format!("tcp://{NAME}:{port}").parse().unwrap();

    // Nobody knows the name, again and again; messages wait.
    push.connect(&endpoint).unwrap();
    send_numbers(&push, 0..10).await;
    let unknown = next_failure(&mut monitor).await;
    assert_eq!(next_failure(&mut monitor).await, unknown);
    assert_eq!(push.stats().messages_sent, 0);

    // It is known.
    names.are(&[FIRST]);
    assert_eq!(recv_numbers(&first, 10).await, (0..10).collect::<Vec<_>>());

    // It moves. The connection that there is stays, …
    let (second, _) = pull_at(SECOND, &port).await;
    names.are(&[SECOND]);
    send_numbers(&push, 10..20).await;
    assert_eq!(recv_numbers(&first, 10).await, (10..20).collect::<Vec<_>>());
    // … and the next one goes to where the name is now.
    within(first.close()).await.unwrap();
    wait_disconnected(&mut monitor).await;
    send_numbers(&push, 20..30).await;
    assert_eq!(recv_numbers(&second, 10).await, (20..30).collect::<Vec<_>>());

    // It is gone, and that is told of in the same words; then it has two addresses, at one of which nobody listens.
    names.are(&[]);
    within(second.close()).await.unwrap();
    wait_disconnected(&mut monitor).await;
    while next_failure(&mut monitor).await != unknown {}
    let (second, _) = pull_at(SECOND, &port).await;
    names.are(&[FIRST, SECOND]);
    send_numbers(&push, 30..40).await;
    assert_eq!(recv_numbers(&second, 10).await, (30..40).collect::<Vec<_>>());
    assert_eq!(within(push.close()).await.unwrap().unsent, 0);
}
