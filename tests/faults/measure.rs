//! Measures of this process: processor time, descriptors, memory, tasks.

use std::fs::File;
use std::os::unix::fs::FileExt;
use std::time::Duration;

/// The kernel counts a process's time in ticks of this length, on every architecture in user space.
const TICK: Duration = Duration::from_millis(10);

/// Reads the processor time of this process, also when there are no descriptors left.
pub(crate) struct ProcessorTime(File);

impl ProcessorTime {
    pub(crate) fn new() -> Self {
        Self(File::open("/proc/self/stat").unwrap())
    }

    /// In user and kernel mode, over all threads.
    pub(crate) fn used(&self) -> Duration {
        let mut text = [0; 1024];
        let length = self.0.read_at(&mut text, 0).unwrap();
        let text = std::str::from_utf8(&text[..length]).unwrap();
        // The name in parentheses may contain anything; `utime` and `stime` are fields 14 and 15, the name is field 2.
        let fields = text.rsplit_once(')').unwrap().1.split_whitespace().skip(11).take(2);
        fields.map(|ticks| TICK * ticks.parse::<u32>().unwrap()).sum()
    }
}

/// How often the threads of this process have gone to sleep, which is how often they were woken.
pub(crate) fn sleeps() -> u64 {
    let threads = std::fs::read_dir("/proc/self/task").unwrap();
    let of = |thread: std::io::Result<std::fs::DirEntry>| {
        // It may have ended meanwhile.
        let status = std::fs::read_to_string(thread.ok()?.path().join("status")).ok()?;
        let count = status.lines().find_map(|line| line.strip_prefix("voluntary_ctxt_switches:"))?;
        Some(count.trim().parse::<u64>().unwrap())
    };
    threads.filter_map(of).sum()
}

/// How many descriptors are open, the one that counts them not among them.
pub(crate) fn descriptors() -> usize {
    std::fs::read_dir("/proc/self/fd").unwrap().count() - 1
}

/// The memory that this process has in use, in bytes.
pub(crate) fn resident() -> usize {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let value = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap();
    value.trim().strip_suffix(" kB").unwrap().parse::<usize>().unwrap() * 1024
}

/// The tasks of this runtime.
pub(crate) fn tasks() -> usize {
    tokio::runtime::Handle::current().metrics().num_alive_tasks()
}

/// Whether every thread of a process stands still.
pub(crate) fn is_stopped(id: u32) -> bool {
    let mut threads = std::fs::read_dir(format!("/proc/{id}/task")).unwrap();
    threads.all(|thread| {
        // One that has just ended does nothing either. The name in parentheses may contain anything; the state follows.
        let stat = std::fs::read_to_string(thread.unwrap().path().join("stat"));
        stat.map_or(true, |text| text.rsplit_once(')').unwrap().1.trim_start().starts_with('T'))
    })
}

/// Says what was measured, for those who run with `--nocapture`.
macro_rules! measured {
    ($($what:tt)*) => { println!("measured: {}", format_args!($($what)*)) };
}

pub(crate) use measured;
