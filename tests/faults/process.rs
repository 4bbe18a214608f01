//! Processes: this program again, with a part to play, or with one test that has a process to itself.

use std::ffi::OsStr;
use std::process::{ExitStatus, Stdio};
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process};
use tokio::process::{Child, ChildStdin, Command};

use crate::common::*;

/// Which part a process is to play; unset in the process that runs the tests.
const PART: &str = "SINEW_FAULT_PART";
/// Which test has this process to itself.
const ALONE: &str = "SINEW_FAULT_ALONE";

/// How long the large scale may take; `None` is the small scale.
pub(crate) fn soak() -> Option<Duration> {
    seconds("SINEW_SOAK")
}

/// How long all faults go on at random in every run.
pub(crate) fn short_soak() -> Duration {
    const USUAL: Duration = Duration::from_secs(20);
    const LONGEST: Duration = Duration::from_secs(60);
    seconds("SINEW_SHORT_SOAK").or(soak()).map_or(USUAL, |length| length.min(LONGEST))
}

fn seconds(variable: &str) -> Option<Duration> {
    let number = std::env::var(variable).ok()?.parse();
    Some(Duration::from_secs(number.unwrap_or_else(|_| panic!("{variable} is a number of seconds"))))
}

/// The small scale or the large one.
pub(crate) fn scale<T>(small: T, large: T) -> T {
    if soak().is_some() { large } else { small }
}

/// Choices at random that a failed test prints the seed of.
pub(crate) fn random() -> fastrand::Rng {
    let seed = std::env::var("SINEW_SEED").map_or_else(|_| fastrand::u64(..), |seed| seed.parse().unwrap());
    println!("SINEW_SEED={seed}");
    fastrand::Rng::with_seed(seed)
}

/// The part that this process has been started for.
pub(crate) fn part() -> Option<String> {
    std::env::var(PART).ok()
}

/// A variable that the starter of this process has set.
pub(crate) fn given(name: &str) -> String {
    std::env::var(name).unwrap_or_else(|_| panic!("{name} is not set"))
}

/// Returns when whoever started this process has closed its standard input, or has gone; then this process ends soon, come
/// what may.
pub(crate) async fn told_to_end() {
    let (tell, told) = tokio::sync::oneshot::channel();
    std::thread::spawn(move || {
        // Nothing is ever written to it; an error is an end as well.
        let _ = std::io::copy(&mut std::io::stdin(), &mut std::io::sink());
        let _ = tell.send(());
        std::thread::sleep(2 * PATIENCE);
        std::process::exit(3);
    });
    let _ = told.await;
}

/// A process that plays a part; it is killed when this is dropped.
pub(crate) struct Process {
    child: Child,
    pid: Pid,
    stdin: Option<ChildStdin>,
}

impl Process {
    /// Starts this program again with this part and these variables.
    pub(crate) fn start(part: &str, variables: &[(&str, &OsStr)]) -> Self {
        Self::start_by(this_program(), part, variables)
    }

    /// The same by another command, to which this program with its arguments is added.
    pub(crate) fn start_by(mut command: Command, part: &str, variables: &[(&str, &OsStr)]) -> Self {
        command.args([crate::parts::ENTRY, "--exact", "--nocapture", "--test-threads=1"]);
        command.env(PART, part).envs(variables.iter().copied());
        let mut child =
            command.stdin(Stdio::piped()).stdout(Stdio::null()).kill_on_drop(true).spawn().expect("a process");
        let pid = child.id().and_then(|id| Pid::from_raw(id.try_into().unwrap())).expect("it has just been started");
        Self { stdin: child.stdin.take(), child, pid }
    }

    pub(crate) fn id(&self) -> u32 {
        self.pid.as_raw_nonzero().get().unsigned_abs()
    }

    pub(crate) fn signal(&self, signal: Signal) {
        kill_process(self.pid, signal).unwrap();
    }

    /// `kill -9`.
    pub(crate) async fn kill(&mut self) {
        within(self.child.kill()).await.unwrap();
    }

    /// Lets it end by itself.
    pub(crate) fn tell_to_end(&mut self) {
        self.stdin = None;
    }

    /// Lets it end by itself, and waits for that.
    pub(crate) async fn end(&mut self) -> ExitStatus {
        self.tell_to_end();
        self.ended().await
    }

    /// Waits until it has ended by itself.
    pub(crate) async fn ended(&mut self) -> ExitStatus {
        within(self.child.wait()).await.unwrap()
    }
}

/// The command that runs this program.
pub(crate) fn this_program() -> Command {
    Command::new(std::env::current_exe().unwrap())
}

/// The name under which the harness knows the test whose function this is.
pub(crate) fn name_of<T>(_test: T) -> &'static str {
    let path = std::any::type_name::<T>();
    path.split_once("::").expect("it is in a crate").1
}

/// Runs a test's body in a process of its own.
pub(crate) fn alone<F: Future<Output = ()>>(test: &'static str, body: impl FnOnce() -> F) {
    alone_by(this_program(), test, body);
}

/// The same by another command, to which this program with its arguments is added.
pub(crate) fn alone_by<F: Future<Output = ()>>(command: Command, test: &'static str, body: impl FnOnce() -> F) {
    if std::env::var(ALONE).is_ok_and(|name| name == test) {
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
        return runtime.block_on(async {
            let end = async {
                told_to_end().await;
                panic!("nobody waits for the outcome");
            };
            tokio::select! { () = body() => (), () = end => () }
        });
    }
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(run_alone(command, test));
}

/// Starts this program again for this one test, and waits until it has passed.
pub(crate) async fn run_alone(mut command: Command, test: &str) {
    // A test is given up by its own limits, one for each of its steps, not by this one.
    let longest = 10 * PATIENCE + 2 * soak().unwrap_or_default() + short_soak();
    command.args([test, "--exact", "--nocapture", "--include-ignored", "--test-threads=1"]).env(ALONE, test);
    let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).kill_on_drop(true).spawn().unwrap();
    // Kept open while the process is waited for.
    let _stdin = child.stdin.take();
    let Ok(output) = tokio::time::timeout(longest, child.wait_with_output()).await else {
        panic!("{test} hangs");
    };
    let output = output.unwrap();
    let text = String::from_utf8_lossy(&output.stdout);
    print!("{text}");
    assert!(output.status.success() && text.contains("1 passed"), "{test} has failed in its own process");
}

/// Whether this user may make a namespace of this kind here; says so if not.
pub(crate) fn may_unshare(kind: &str) -> bool {
    may_run("unshare", &["--map-root-user", kind, "true"])
}

/// Whether this command is there and succeeds; says so if not.
pub(crate) fn may_run(command: &str, arguments: &[&str]) -> bool {
    match std::process::Command::new(command).args(arguments).output() {
        Ok(output) if output.status.success() => true,
        Ok(output) => {
            let complaint = String::from_utf8_lossy(&output.stderr);
            println!("skipped: {command} {}: {}", arguments.join(" "), complaint.trim());
            false
        }
        Err(error) => {
            println!("skipped: {command}: {error}");
            false
        }
    }
}

/// Runs a command of the system, which must succeed.
pub(crate) fn run(command: &str, arguments: &str, more: &[&str]) {
    let arguments: Vec<_> = arguments.split(' ').chain(more.iter().copied()).collect();
    let status = std::process::Command::new(command).args(&arguments).status().unwrap();
    assert!(status.success(), "{command} {arguments:?}");
}
