//! The sink: merges what the workers have counted, shows progress, and reports.

use std::collections::BTreeSet;
use std::io::{self, Write};
use std::time::{Duration, Instant};

use clap::Args;
use indicatif::{HumanBytes, HumanCount, ProgressBar, ProgressStyle};
use sinew::{Endpoint, PullSocket, PushSocket};

use crate::connections::Connections;
use crate::orders::Orders;
use crate::text::Counts;
use crate::wire::{BATCH, Failure, Ledger, Piece, Size, ToParent, ToSink};
use crate::{flush, orders, push_to};

/// What the parent tells the sink to begin with.
#[derive(Debug, Args)]
pub(crate) struct Arguments {
    #[arg(long)]
    workers: usize,
    #[arg(long)]
    top: usize,
    #[arg(long)]
    bind: Endpoint,
    #[arg(long)]
    parent: Endpoint,
}

pub(crate) async fn run(arguments: Arguments) -> Result<(), Failure> {
    let mut orders = orders::follow();
    let parent = push_to(arguments.parent)?;
    let results = PullSocket::new();
    let mut connections = Connections::new(results.monitor());
    let endpoint = results.bind(arguments.bind).await?.to_string();
    parent.send(ToParent::Bound { role: "sink".into(), endpoint }).await?;

    let mut accounts = Accounts::new(arguments.workers);
    let mut received = 0;
    loop {
        // In this order: who is accounted for connects no more, and once a connection has ended all that it brought is
        // counted as received. What a dead worker had sent before its death is in the accounts, too, then.
        let accounted = accounts.are_complete(&orders.borrow_and_update());
        if accounted && connections.all_ended()? && received == results.stats().messages_received {
            break;
        }
        let message = tokio::select! {
            message = results.recv() => message?,
            change = connections.change() => { change?; continue }
            order = orders.changed() => { order?; continue }
        };
        received += 1;
        accounts.enter(message.try_into()?)?;
    }
    accounts.bar.finish_and_clear();
    accounts.check()?;
    accounts.print(arguments.top, &orders.borrow())?;
    accounts.report(&parent).await
}

/// What a worker has done.
#[derive(Debug, Clone, Default)]
struct Share {
    pieces: u64,
    bytes: u64,
    /// How many pieces it says it has counted; it says so at its end.
    done: Option<u64>,
}

/// Everything that was heard.
#[derive(Debug)]
struct Accounts {
    ledger: Ledger,
    words: Counts,
    shares: Vec<Share>,
    all_sent: bool,
    begin: Instant,
    elapsed: Duration,
    /// Hidden if standard error is no terminal.
    bar: ProgressBar,
}

impl Accounts {
    fn new(workers: usize) -> Self {
        let style = ProgressStyle::with_template("{bar:40} {bytes} of {total_bytes}, {bytes_per_sec}, {eta} left");
        Self {
            ledger: Ledger::new(),
            words: Counts::new(),
            shares: vec![Share::default(); workers],
            all_sent: false,
            begin: Instant::now(),
            elapsed: Duration::ZERO,
            bar: ProgressBar::new(0).with_style(style.unwrap_or_else(|_| ProgressStyle::default_bar())),
        }
    }

    /// Whether everybody has said its last word, or cannot say it any more.
    fn are_complete(&self, orders: &Orders) -> bool {
        let done = |(worker, share): (usize, &Share)| share.done.is_some() || orders.dead.contains(&worker);
        self.all_sent && self.shares.iter().enumerate().all(done)
    }

    fn enter(&mut self, message: ToSink) -> Result<(), Failure> {
        match message {
            ToSink::Total { bytes, .. } => {
                self.begin = Instant::now();
                self.bar.set_length(bytes);
            }
            ToSink::Sent(piece) => {
                // Its count may have been faster.
                self.ledger.entry(piece).or_default();
            }
            ToSink::AllSent => self.all_sent = true,
            ToSink::Counted { worker, piece, size, words } => {
                let share = self.shares.get_mut(worker).ok_or("a count of an unknown worker")?;
                share.pieces += 1;
                share.bytes += size.bytes;
                for (word, count) in words {
                    *self.words.entry(word).or_default() += count;
                }
                self.bar.inc(size.bytes);
                self.elapsed = self.begin.elapsed();
                let entry = self.ledger.entry(piece.clone()).or_default();
                if entry.replace(size).is_some() {
                    return Err(format!("{piece} was counted twice").into());
                }
            }
            ToSink::Done { worker, pieces } => {
                self.shares.get_mut(worker).ok_or("an unknown worker is done")?.done = Some(pieces);
            }
        }
        Ok(())
    }

    /// Everything that a living worker has sent must have come.
    fn check(&self) -> Result<(), Failure> {
        for (worker, share) in self.shares.iter().enumerate() {
            if share.done.is_some_and(|done| done != share.pieces) {
                return Err(format!("of what worker {worker} sent only {} counts came", share.pieces).into());
            }
        }
        Ok(())
    }

    fn print(&self, top: usize, orders: &Orders) -> io::Result<()> {
        let mut out = io::stdout().lock();
        let counted: Vec<(&Piece, Size)> = self.ledger.iter().filter_map(|(p, s)| s.map(|size| (p, size))).collect();
        let bytes: u64 = counted.iter().map(|(_, size)| size.bytes).sum();
        let words: u64 = counted.iter().map(|(_, size)| size.words).sum();
        let files = counted.iter().map(|(piece, _)| &piece.file).collect::<BTreeSet<_>>().len() as u64;
        let pieces = counted.len() as u64;

        let mut ranking: Vec<_> = self.words.iter().collect();
        ranking.sort_by(|(word, count), (other, other_count)| other_count.cmp(count).then(word.cmp(other)));
        for (word, count) in ranking.into_iter().take(top) {
            writeln!(out, "{:>12}  {word}", HumanCount(*count).to_string())?;
        }
        let different = HumanCount(self.words.len() as u64);
        writeln!(out, "words     {} ({different} different)", HumanCount(words))?;
        writeln!(out, "files     {}, {}/s", HumanCount(files), self.rate(files))?;
        writeln!(out, "bytes     {}, {}/s", HumanBytes(bytes), HumanBytes(self.rate_of(bytes)))?;
        // A task and a count for each piece; the ventilator's notes to the sink are not counted.
        writeln!(out, "messages  {} and as many back, {}/s", HumanCount(pieces), self.rate(2 * pieces))?;
        writeln!(out, "time      {:.3} s", self.elapsed.as_secs_f64())?;
        for (worker, share) in self.shares.iter().enumerate() {
            let (of_pieces, of_bytes) = (percent(share.pieces, pieces), percent(share.bytes, bytes));
            let fate = if orders.dead.contains(&worker) { ", died" } else { "" };
            let own = HumanCount(share.pieces);
            writeln!(out, "worker {worker:<2} {own} ({of_pieces} %) of the messages, {of_bytes} % of the bytes{fate}")?;
        }
        self.print_lost(&mut out, orders)
    }

    fn print_lost(&self, out: &mut impl Write, orders: &Orders) -> io::Result<()> {
        if orders.dead.is_empty() {
            return Ok(());
        }
        let lost: Vec<_> = self.ledger.iter().filter(|(_, size)| size.is_none()).map(|(piece, _)| piece).collect();
        let left = if orders.dead.len() == self.shares.len() { "none is left; " } else { "" };
        writeln!(out, "died      {} of the workers; {left}messages lost in flight: {}", orders.dead.len(), lost.len())?;
        lost.iter().try_for_each(|piece| writeln!(out, "lost      {piece}"))
    }

    fn rate(&self, count: u64) -> HumanCount {
        HumanCount(self.rate_of(count))
    }

    fn rate_of(&self, count: u64) -> u64 {
        let micros = self.elapsed.as_micros().max(1);
        u64::try_from(u128::from(count) * 1_000_000 / micros).unwrap_or(u64::MAX)
    }

    /// Tells the parent everything, for its check.
    async fn report(self, parent: &PushSocket) -> Result<(), Failure> {
        let mut pieces = self.ledger.into_iter().peekable();
        while pieces.peek().is_some() {
            parent.send(ToParent::Pieces(pieces.by_ref().take(BATCH).collect())).await?;
        }
        let mut words = self.words.into_iter().peekable();
        while words.peek().is_some() {
            parent.send(ToParent::Words(words.by_ref().take(BATCH).collect())).await?;
        }
        parent.send(ToParent::Reported).await?;
        flush(parent).await
    }
}

fn percent(part: u64, whole: u64) -> u64 {
    (200 * part + whole) / (2 * whole.max(1))
}
