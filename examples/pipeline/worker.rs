//! A worker: counts the words of one piece after the other.

use clap::Args;
use sinew::{Endpoint, PullSocket};

use crate::connections::Connections;
use crate::text::{self, Counts};
use crate::wire::{Failure, Size, Task, ToParent, ToSink};
use crate::{flush, orders, push_to};

/// Few, so that a slow or dying worker sits on little work.
const QUEUE: usize = 8;

/// What the parent tells a worker to begin with.
#[derive(Debug, Args)]
pub(crate) struct Arguments {
    #[arg(long)]
    number: usize,
    #[arg(long)]
    ventilator: Endpoint,
    #[arg(long)]
    sink: Endpoint,
    /// Wait with the second piece in hand to be killed, and tell this parent.
    #[arg(long)]
    doomed: Option<Endpoint>,
}

pub(crate) async fn run(arguments: Arguments) -> Result<(), Failure> {
    let worker = arguments.number;
    let mut orders = orders::follow();
    let tasks = PullSocket::builder().receive_high_water_mark(QUEUE).build()?;
    let mut connections = Connections::new(tasks.monitor());
    tasks.connect(arguments.ventilator)?;
    let sink = push_to(arguments.sink)?;

    let mut pieces = 0;
    loop {
        // In this order: once there is no more to come no new connection can bring any, and once a connection has ended
        // all that it brought is counted as received.
        let no_more = orders.borrow_and_update().no_more;
        if no_more && connections.all_ended()? && pieces == tasks.stats().messages_received {
            break;
        }
        let message = tokio::select! {
            message = tasks.recv() => message?,
            change = connections.change() => { change?; continue }
            order = orders.changed() => { order?; continue }
        };
        if let (1, Some(parent)) = (pieces, &arguments.doomed) {
            // So that it is certain what is lost: all but the first piece.
            flush(&sink).await?;
            push_to(parent.clone())?.send(ToParent::Halfway { worker }).await?;
            std::future::pending::<()>().await;
        }
        let Task { piece, text } = message.try_into()?;
        let mut words = Counts::new();
        let size = Size { bytes: text.len() as u64, words: text::count_words(&text, &mut words) };
        sink.send(ToSink::Counted { worker, piece, size, words }).await?;
        pieces += 1;
    }
    sink.send(ToSink::Done { worker, pieces }).await?;
    flush(&sink).await
}
