//! The ventilator: finds the text files, and pushes their pieces to the workers.

use std::path::PathBuf;
use std::pin::pin;

use clap::Args;
use sinew::{Endpoint, PushSocket};
use tokio::sync::watch;

use crate::orders::{self, Orders};
use crate::text::{self, TextFile};
use crate::wire::{Failure, Piece, Task, ToParent, ToSink};
use crate::{LINGER, push_to};

/// What the parent tells the ventilator to begin with.
#[derive(Debug, Args)]
pub(crate) struct Arguments {
    #[arg(long)]
    folder: PathBuf,
    #[arg(long)]
    piece: usize,
    #[arg(long)]
    workers: usize,
    #[arg(long)]
    bind: Endpoint,
    #[arg(long)]
    sink: Endpoint,
    #[arg(long)]
    parent: Endpoint,
}

pub(crate) async fn run(arguments: Arguments) -> Result<(), Failure> {
    let orders = orders::follow();
    let parent = push_to(arguments.parent)?;
    let sink = push_to(arguments.sink)?;
    let tasks = PushSocket::builder().linger(LINGER).build()?;
    let endpoint = tasks.bind(arguments.bind).await?.to_string();
    parent.send(ToParent::Bound { role: "ventilator".into(), endpoint }).await?;

    let found = text::walk(&arguments.folder);
    for (path, error) in &found.unreadable {
        eprintln!("not counted: {}: {error}", path.display());
    }
    let mut workers = Workers { tasks, orders, all: arguments.workers, left: true };
    workers.wait_connected().await?;

    let bytes = found.files.iter().map(|file| file.bytes).sum();
    sink.send(ToSink::Total { files: found.files.len() as u64, bytes }).await?;
    for TextFile { path, name, .. } in found.files {
        // Also without workers: the sink is told what they would have got.
        for piece in text::pieces(&path, arguments.piece)? {
            let (offset, text) = piece?;
            let piece = Piece { file: name.clone(), offset };
            workers.send(Task { piece: piece.clone(), text: text.into() }).await?;
            sink.send(ToSink::Sent(piece)).await?;
        }
    }
    workers.close().await?;
    sink.send(ToSink::AllSent).await?;
    crate::flush(&sink).await
}

/// The workers, for as long as some are left: with the last one the tasks have nowhere to go.
#[derive(Debug)]
struct Workers {
    tasks: PushSocket,
    orders: watch::Receiver<Orders>,
    all: usize,
    left: bool,
}

impl Workers {
    /// Waits until all workers are connected that are alive, so that each gets its share.
    async fn wait_connected(&mut self) -> Result<(), Failure> {
        loop {
            let dead = self.orders.borrow_and_update().dead.len();
            tokio::select! {
                connected = self.tasks.wait_connected(self.all - dead) => return Ok(connected?),
                order = self.orders.changed() => order?,
            }
        }
    }

    async fn send(&mut self, task: Task) -> Result<(), Failure> {
        if self.left {
            tokio::select! {
                sent = self.tasks.send(task) => sent?,
                _ = self.orders.wait_for(|orders| orders.dead.len() == self.all) => self.left = false,
            }
        }
        Ok(())
    }

    /// Ready when the last task has been handed over, however long the workers take.
    async fn close(&mut self) -> Result<(), Failure> {
        let close = pin!(self.tasks.close());
        tokio::select! {
            closed = close => match closed?.unsent {
                0 => {}
                unsent => return Err(format!("{unsent} tasks were not sent").into()),
            },
            _ = self.orders.wait_for(|orders| orders.dead.len() == self.all) => self.left = false,
        }
        Ok(())
    }
}
