//! A peer's process: its lines, its standard input, and its certain end.

use std::{
    io::{BufRead, BufReader, Read, Write},
    path::Path,
    process::{Child, ChildStdin, Command, Stdio},
    sync::{
        Arc, Mutex, PoisonError,
        mpsc::{self, Receiver, RecvTimeoutError},
    },
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, anyhow, bail};
use serde::de::DeserializeOwned;

/// A child process that is killed when it is dropped.
pub(crate) struct Process {
    child: Child,
    input: Option<ChildStdin>,
    lines: Receiver<String>,
    complaints: Arc<Mutex<String>>,
    deadline: Instant,
    name: String,
}

impl Process {
    /// Starts a program that must be finished within `limit`.
    pub(crate) fn start(program: &Path, arguments: &[String], limit: Duration) -> Result<Self> {
        let mut child = Command::new(program)
            .args(arguments)
            .env("RUST_BACKTRACE", "0")
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .with_context(|| format!("starting {}", program.display()))?;
        let (sender, lines) = mpsc::channel();
        if let Some(output) = child.stdout.take() {
            thread::spawn(move || {
                BufReader::new(output).lines().map_while(Result::ok).try_for_each(|line| sender.send(line))
            });
        }
        let complaints = Arc::new(Mutex::new(String::new()));
        if let Some(mut errors) = child.stderr.take() {
            let complaints = complaints.clone();
            thread::spawn(move || {
                let mut text = String::new();
                // What cannot be read is not worth a complaint of its own.
                let _ = errors.read_to_string(&mut text);
                *complaints.lock().unwrap_or_else(PoisonError::into_inner) = text;
            });
        }
        let name = program.file_name().unwrap_or_default().to_string_lossy();
        let name = format!("{name} {}", arguments.first().map_or("", String::as_str));
        let input = child.stdin.take();
        Ok(Self { child, input, lines, complaints, deadline: Instant::now() + limit, name })
    }

    /// The next line that it prints.
    pub(crate) fn line(&mut self) -> Result<String> {
        match self.lines.recv_timeout(self.deadline.saturating_duration_since(Instant::now())) {
            Ok(line) => Ok(line),
            Err(RecvTimeoutError::Timeout) => bail!("{} took too long", self.name),
            Err(RecvTimeoutError::Disconnected) => Err(self.failure()),
        }
    }

    /// The next line, which must begin with `word`; returns the rest.
    pub(crate) fn announced(&mut self, word: &str) -> Result<String> {
        let line = self.line()?;
        let rest = line.strip_prefix(word).ok_or_else(|| anyhow!("{} said {line:?}, not {word}", self.name))?;
        Ok(rest.trim().to_owned())
    }

    /// The next line, as JSON.
    pub(crate) fn json<T: DeserializeOwned>(&mut self) -> Result<T> {
        let line = self.line()?;
        serde_json::from_str(&line).with_context(|| format!("{} said {line:?}", self.name))
    }

    /// Sends it an empty line.
    pub(crate) fn nudge(&mut self) -> Result<()> {
        if let Some(input) = &mut self.input {
            input.write_all(b"\n").with_context(|| format!("nudging {}", self.name))?;
        }
        Ok(())
    }

    /// Tells it that it may stop.
    pub(crate) fn release(&mut self) {
        self.input = None;
    }

    /// Whether it ended with a failure; a short-lived question, for while somebody else is waited for.
    fn failure(&mut self) -> anyhow::Error {
        let status = self.child.wait();
        // The thread that reads the complaints sees their end at the same time as this one.
        thread::sleep(Duration::from_millis(20));
        let complaints = self.complaints.lock().unwrap_or_else(PoisonError::into_inner);
        let first = complaints.lines().find(|line| !line.trim().is_empty()).unwrap_or("no message");
        match status {
            Ok(status) => anyhow!("{} ended with {status}: {first}", self.name),
            Err(error) => anyhow!("{} is gone: {error}", self.name),
        }
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        // Both fail only if the process is gone already, which is what is wanted.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
