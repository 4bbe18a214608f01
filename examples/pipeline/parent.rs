//! The parent: starts ventilator, workers and sink, watches over them, and checks the count.

use std::collections::HashMap;
use std::fmt;
use std::io;
use std::path::Path;
use std::process::{ExitCode, ExitStatus, Stdio};
use std::sync::Arc;
use std::time::Instant;

use indicatif::HumanCount;
use sinew::PullSocket;
use tempfile::TempDir;
use tokio::io::AsyncWriteExt;
use tokio::process::{Child, ChildStdin, Command};
use tokio::sync::Notify;
use tokio::task::JoinSet;

use crate::check::Count;
use crate::orders::Order;
use crate::wire::{Failure, ToParent};
use crate::{Arguments, Transport};

/// The exit code when workers have died; 1 is any other failure.
const WORKERS_DIED: u8 = 3;

/// The exit code after Ctrl-C, as shells have it.
const INTERRUPTED: u8 = 130;

/// The worker that `--kill-a-worker` kills.
const DOOMED: usize = 0;

/// So many differences are shown.
const DIFFERENCES_SHOWN: usize = 20;

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
enum Role {
    Sink,
    Ventilator,
    Worker(usize),
}

impl fmt::Display for Role {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Sink => f.write_str("sink"),
            Self::Ventilator => f.write_str("ventilator"),
            Self::Worker(number) => write!(f, "worker {number}"),
        }
    }
}

/// Runs the whole pipeline.
pub(crate) async fn run(arguments: &Arguments) -> Result<ExitCode, Failure> {
    let folder = arguments.folder();
    let folder = folder.canonicalize().map_err(|error| format!("{}: {error}", folder.display()))?;
    if !folder.is_dir() {
        return Err(format!("{} is not a folder", folder.display()).into());
    }
    let mut family = Family::new(arguments, &folder).await?;
    tokio::select! {
        biased;
        interrupted = tokio::signal::ctrl_c() => {
            interrupted?;
            eprintln!("interrupted");
            return Ok(ExitCode::from(INTERRUPTED));
        }
        watched = family.watch() => watched?,
    }
    check(&folder, arguments.piece, &family.count, family.died)
}

/// All children and what is known of them. Those that live are killed when it is dropped.
struct Family<'a> {
    arguments: &'a Arguments,
    folder: &'a Path,
    sockets: Sockets,
    /// What the children tell.
    control: PullSocket,
    control_endpoint: String,
    children: JoinSet<(Role, io::Result<ExitStatus>)>,
    reins: HashMap<Role, Reins>,
    /// Where the workers find the sink.
    sink: String,
    /// Of the workers.
    died: usize,
    /// What the sink reports.
    count: Count,
    reported: bool,
}

/// The means to lead a child that runs.
struct Reins {
    pid: Option<u32>,
    orders: ChildStdin,
    kill: Arc<Notify>,
}

impl<'a> Family<'a> {
    async fn new(arguments: &'a Arguments, folder: &'a Path) -> Result<Self, Failure> {
        let sockets = Sockets { transport: arguments.transport, folder: tempfile::tempdir()? };
        let control = PullSocket::new();
        let control_endpoint = control.bind(sockets.endpoint("control")).await?.to_string();
        Ok(Self {
            arguments,
            folder,
            sockets,
            control,
            control_endpoint,
            children: JoinSet::new(),
            reins: HashMap::new(),
            sink: String::new(),
            died: 0,
            count: Count::default(),
            reported: false,
        })
    }

    /// Ready when all children have ended and the sink has reported; fails with the first one that the rest needs.
    async fn watch(&mut self) -> Result<(), Failure> {
        self.start_sink()?;
        // Each child ends sooner or later by what it hears from others; that one has died is heard from here.
        while !self.children.is_empty() || !self.reported {
            tokio::select! {
                message = self.control.recv() => self.hear(message?.try_into()?)?,
                Some(ended) = self.children.join_next() => {
                    let (role, status) = ended?;
                    self.ended(role, status?).await?;
                }
            }
        }
        if self.arguments.kill_a_worker && self.died == 0 {
            eprintln!("worker {DOOMED} was not killed: it got no second piece");
        }
        Ok(())
    }

    fn hear(&mut self, message: ToParent) -> Result<(), Failure> {
        match message {
            ToParent::Bound { role, endpoint } if role == "sink" => {
                self.sink = endpoint;
                self.start_ventilator()?;
            }
            ToParent::Bound { endpoint, .. } => self.start_workers(&endpoint)?,
            ToParent::Halfway { worker } => {
                if let Some(reins) = self.reins.get(&Role::Worker(worker)) {
                    reins.kill.notify_one();
                }
            }
            ToParent::Pieces(pieces) => self.count.ledger.extend(pieces),
            ToParent::Words(words) => self.count.words.extend(words),
            ToParent::Reported => self.reported = true,
        }
        Ok(())
    }

    async fn ended(&mut self, role: Role, status: ExitStatus) -> Result<(), Failure> {
        let pid = self.reins.remove(&role).and_then(|reins| reins.pid).unwrap_or_default();
        match (role, status.success()) {
            (Role::Worker(worker), false) => {
                eprintln!("{role} (process {pid}) died: {status}");
                self.died += 1;
                self.tell_all(Order::Dead(worker)).await;
            }
            (_, false) => return Err(format!("the {role} (process {pid}) died: {status}").into()),
            (Role::Ventilator, true) => self.tell_all(Order::NoMore).await,
            (_, true) => {}
        }
        Ok(())
    }

    async fn tell_all(&mut self, order: Order) {
        for reins in self.reins.values_mut() {
            // Whoever has just died need not know, and is noticed elsewhere.
            let _ = reins.orders.write_all(order.to_string().as_bytes()).await;
        }
    }

    // --- the children -----------------------------------------------------------------------------------------------

    fn start_sink(&mut self) -> io::Result<()> {
        let mut command = self.command("as-sink")?;
        command.arg("--workers").arg(self.arguments.workers().to_string());
        command.arg("--top").arg(self.arguments.top.to_string());
        command.arg("--bind").arg(self.sockets.endpoint("results"));
        command.arg("--parent").arg(&self.control_endpoint);
        self.start(Role::Sink, command)
    }

    fn start_ventilator(&mut self) -> io::Result<()> {
        let mut command = self.command("as-ventilator")?;
        command.arg("--folder").arg(self.folder);
        command.arg("--piece").arg(self.arguments.piece.to_string());
        command.arg("--workers").arg(self.arguments.workers().to_string());
        command.arg("--bind").arg(self.sockets.endpoint("tasks"));
        command.arg("--sink").arg(&self.sink);
        command.arg("--parent").arg(&self.control_endpoint);
        self.start(Role::Ventilator, command)
    }

    fn start_workers(&mut self, ventilator: &str) -> io::Result<()> {
        for number in 0..self.arguments.workers() {
            let mut command = self.command("as-worker")?;
            command.arg("--number").arg(number.to_string());
            command.arg("--ventilator").arg(ventilator);
            command.arg("--sink").arg(&self.sink);
            if self.arguments.kill_a_worker && number == DOOMED {
                command.arg("--doomed").arg(&self.control_endpoint);
            }
            self.start(Role::Worker(number), command)?;
        }
        let pid = |number| self.reins.get(&Role::Worker(number)).and_then(|reins| reins.pid).unwrap_or_default();
        let pids: Vec<_> = (0..self.arguments.workers()).map(|number| pid(number).to_string()).collect();
        eprintln!("workers   processes {}", pids.join(" "));
        Ok(())
    }

    /// A copy of this program, in a role. Ctrl-C reaches the parent only, which then ends the others.
    fn command(&self, role: &str) -> io::Result<std::process::Command> {
        let mut command = std::process::Command::new(std::env::current_exe()?);
        #[cfg(unix)]
        std::os::unix::process::CommandExt::process_group(&mut command, 0);
        command.arg(role);
        Ok(command)
    }

    fn start(&mut self, role: Role, command: std::process::Command) -> io::Result<()> {
        let mut child = Command::from(command).stdin(Stdio::piped()).kill_on_drop(true).spawn()?;
        let orders = child.stdin.take().ok_or(io::ErrorKind::BrokenPipe)?;
        let kill = Arc::new(Notify::new());
        self.reins.insert(role, Reins { pid: child.id(), orders, kill: kill.clone() });
        self.children.spawn(async move { (role, supervise(child, kill).await) });
        Ok(())
    }
}

/// Waits for the end of a child, or brings it about.
async fn supervise(mut child: Child, kill: Arc<Notify>) -> io::Result<ExitStatus> {
    tokio::select! {
        status = child.wait() => return status,
        () = kill.notified() => child.start_kill()?,
    }
    child.wait().await
}

/// Where the sockets are bound.
struct Sockets {
    transport: Transport,
    /// For the files of IPC sockets, also those that a killed process leaves behind.
    folder: TempDir,
}

impl Sockets {
    fn endpoint(&self, name: &str) -> String {
        match self.transport {
            Transport::Ipc => format!("ipc://{}", self.folder.path().join(name).display()),
            Transport::Tcp => "tcp://127.0.0.1:*".to_owned(),
        }
    }
}

fn check(folder: &Path, limit: usize, count: &Count, died: usize) -> Result<ExitCode, Failure> {
    let start = Instant::now();
    let right = Count::plain(folder, limit, &count.lost())?;
    let differences = count.differences(&right);
    if !differences.is_empty() {
        for difference in differences.iter().take(DIFFERENCES_SHOWN) {
            eprintln!("differs   {difference}");
        }
        return Err(format!("the count is wrong: {} differences", differences.len()).into());
    }
    let words = HumanCount(right.words.values().sum());
    let rest = if count.lost().is_empty() { "" } else { " on the rest" };
    let seconds = start.elapsed().as_secs_f64();
    println!("check     a plain single-threaded count agrees{rest}: {words} words, {seconds:.3} s");
    Ok(if died == 0 { ExitCode::SUCCESS } else { ExitCode::from(WORKERS_DIED) })
}
