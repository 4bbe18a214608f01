//! Orders: what the parent tells its children, a line each on their standard input.

use std::collections::BTreeSet;
use std::fmt;
use std::io::{self, BufRead};

use tokio::sync::watch;

/// One line.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Order {
    /// A worker has died.
    Dead(usize),
    /// The ventilator has ended: what a worker has received by the end of that connection is all there is.
    NoMore,
}

impl fmt::Display for Order {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Dead(worker) => writeln!(f, "dead {worker}"),
            Self::NoMore => writeln!(f, "no more"),
        }
    }
}

/// All orders that have come.
#[derive(Debug, Default)]
pub(crate) struct Orders {
    pub(crate) dead: BTreeSet<usize>,
    pub(crate) no_more: bool,
}

impl Orders {
    fn obey(&mut self, line: &str) {
        if line == "no more" {
            self.no_more = true;
        } else if let Some(worker) = line.strip_prefix("dead ").and_then(|worker| worker.parse().ok()) {
            self.dead.insert(worker);
        }
    }
}

/// Follows standard input. When that ends the parent is gone, nobody wants the work, and the process exits.
pub(crate) fn follow() -> watch::Receiver<Orders> {
    let (sender, orders) = watch::channel(Orders::default());
    // A thread of its own: a runtime would wait for the read to end before it ends.
    std::thread::spawn(move || {
        for line in io::stdin().lock().lines().map_while(Result::ok) {
            sender.send_modify(|orders| orders.obey(&line));
        }
        std::process::exit(1);
    });
    orders
}
