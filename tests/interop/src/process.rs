//! A libzmq peer in a process of its own, to be killed.

use std::process::Stdio;
use std::time::Duration;

use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader, Lines};
use tokio::process::{Child, ChildStdin, ChildStdout, Command};

use crate::{Role, within};

/// The program `libzmq-peer` as a child; it never outlives the test.
#[derive(Debug)]
pub struct Process {
    child: Child,
    orders: ChildStdin,
    lines: Lines<BufReader<ChildStdout>>,
    /// Where it is bound or connected, with nothing left to choose.
    pub endpoint: String,
}

impl Process {
    /// Starts a PULL, which reads what it is told to read.
    pub async fn pull(program: &str, role: Role, endpoint: &str) -> Self {
        Self::start(program, "pull", role, endpoint, 0, Duration::ZERO).await
    }

    /// Starts a PULL that sends heartbeats.
    pub async fn pull_with_heartbeat(program: &str, role: Role, endpoint: &str, interval: Duration) -> Self {
        Self::start(program, "pull", role, endpoint, 0, interval).await
    }

    /// Starts a PUSH that sends numbered messages of `size` bytes without end.
    pub async fn push(program: &str, role: Role, endpoint: &str, size: usize) -> Self {
        Self::start(program, "push", role, endpoint, size, Duration::ZERO).await
    }

    async fn start(program: &str, end: &str, role: Role, endpoint: &str, size: usize, heartbeat: Duration) -> Self {
        let role = match role {
            Role::Binds => "bind",
            Role::Connects => "connect",
        };
        let mut child = Command::new(program)
            .args([end, role, endpoint, &size.to_string(), &heartbeat.as_millis().to_string()])
            // The child ends when this is closed.
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .kill_on_drop(true)
            .spawn()
            .expect("a child process");
        let orders = child.stdin.take().expect("the child's input");
        let lines = BufReader::new(child.stdout.take().expect("the child's output")).lines();
        let mut process = Self { child, orders, lines, endpoint: String::new() };
        process.endpoint = process.line().await;
        process
    }

    /// The next line that it says.
    async fn line(&mut self) -> String {
        within("the child says something", self.lines.next_line())
            .await
            .expect("the child's output")
            .expect("the child is still there")
    }

    /// Has it receive so many messages; gives their numbers.
    pub async fn read(&mut self, count: usize) -> Vec<usize> {
        self.orders.write_all(format!("{count}\n").as_bytes()).await.expect("the child is still there");
        let mut numbers = Vec::new();
        for _ in 0..count {
            numbers.push(self.line().await.parse().expect("the number of a message"));
        }
        numbers
    }

    /// Kills it with a signal that it cannot catch, and waits until it is gone.
    pub async fn kill(mut self) {
        within("the child is gone", self.child.kill()).await.expect("the child was there");
    }
}
