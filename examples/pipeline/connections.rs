//! The connections of a socket that are open, as its monitor tells: whether more may still come.

use std::collections::HashSet;

use futures::{FutureExt, StreamExt};
use sinew::{Event, Monitor, PeerId};

use crate::wire::Failure;

/// Follows a monitor that was made before the socket was attached to anything.
#[derive(Debug)]
pub(crate) struct Connections {
    monitor: Monitor,
    open: HashSet<PeerId>,
}

impl Connections {
    pub(crate) fn new(monitor: Monitor) -> Self {
        Self { monitor, open: HashSet::new() }
    }

    /// Whether no connection is open, in or after the handshake. Everything that ended ones brought is then counted in
    /// the socket's `stats().messages_received`.
    pub(crate) fn all_ended(&mut self) -> Result<bool, Failure> {
        while let Some(event) = self.monitor.next().now_or_never() {
            self.note(event)?;
        }
        Ok(self.open.is_empty())
    }

    /// Waits for news. Dropped before it is ready it misses none.
    pub(crate) async fn change(&mut self) -> Result<(), Failure> {
        let event = self.monitor.next().await;
        self.note(event)
    }

    fn note(&mut self, event: Option<Event>) -> Result<(), Failure> {
        match event {
            Some(Event::Accepted(peer) | Event::Connected(peer)) => {
                self.open.insert(peer.id);
            }
            Some(Event::Disconnected { peer, .. } | Event::HandshakeFailed { peer, .. }) => {
                self.open.remove(&peer.id);
            }
            Some(Event::Missed(count)) => return Err(format!("{count} events of the monitor were missed").into()),
            Some(_) => {}
            None => return Err("the socket was closed".into()),
        }
        Ok(())
    }
}
