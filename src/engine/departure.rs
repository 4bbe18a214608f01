//! The end: the departure of a peer, and the closing of the socket.

use std::collections::VecDeque;

use tokio::time::Instant;

use crate::engine::outgoing::Written;
use crate::engine::pattern::{Pattern, Reach, Unsent};
use crate::engine::shared::{Ended, Presence};
use crate::engine::state::Engine;
use crate::error::ProtocolError;
use crate::monitor::{DisconnectReason, Event};
use crate::stats::Closed;
use crate::zmtp::null;

impl<P: Pattern> Engine<P> {
    /// Ends a connection over what its peer did; the reason may still be on its way to the peer.
    pub(super) fn refuse(&mut self, slot: usize, error: ProtocolError) {
        if let Some(peer) = self.peers.get_mut(slot) {
            if !peer.connection.is_ready() {
                let mut written = Written::default();
                // Whether the peer hears of it or not, the connection ends.
                let _ = peer.write(&mut written);
            }
        }
        self.end(slot, DisconnectReason::Protocol(error));
    }

    /// Ends a connection on our side.
    ///
    /// What the kernel has taken is not yet with the peer. A TCP connection that is closed when something of the peer's
    /// comes in, a PING perhaps, is reset, and a reset discards what is under way; and a libzmq peer that is not reading,
    /// because its queue is full, drops what is left in a Unix-domain socket when that is closed altogether. So we say that
    /// nothing more will come, and go on reading until the peer closes, for the linger time at most.
    pub(super) fn leave(&mut self, slot: usize) {
        let Some(peer) = self.peers.get_mut(slot) else {
            return;
        };
        if peer.leaving {
            return;
        }
        if P::UNSENT == Unsent::Forget || !peer.has_written_messages() {
            return self.end(slot, DisconnectReason::Local);
        }
        let id = peer.about.id;
        // Without a deadline if linger is longer than time is counted.
        if let Some(deadline) = Instant::now().checked_add(self.shared.options.linger) {
            self.leaving.push_back((deadline, slot, id));
        }
        self.detach_peer(slot, DisconnectReason::Local);
        if let Some(peer) = self.peers.get_mut(slot) {
            peer.leaving = true;
            peer.shut_down();
        }
        self.make_readable(slot);
    }

    /// Ends a connection that the peer has closed or lost.
    pub(super) fn end_of_stream(&mut self, slot: usize, reason: DisconnectReason) {
        let refused = self.peers.get_mut(slot).is_some_and(|peer| peer.connection.is_refused_by_closing());
        let reason = match refused {
            true => DisconnectReason::Protocol(ProtocolError::GreetingRefused { ours: null::NAME }),
            false => reason,
        };
        self.end(slot, reason);
    }

    /// Removes a peer.
    pub(super) fn end(&mut self, slot: usize, reason: DisconnectReason) {
        if self.peers.get_mut(slot).is_some_and(|peer| !peer.leaving) {
            self.detach_peer(slot, reason);
        }
        if let Some(mut peer) = self.peers.remove(slot) {
            if let Some(source) = peer.pending_from.take() {
                self.sources.leave(source);
            }
            peer.shut_down();
        }
    }

    /// Takes a peer out of the traffic: what has not left goes back, what has come stays.
    pub(super) fn detach_peer(&mut self, slot: usize, reason: DisconnectReason) {
        self.forget_unfinished(slot);
        let Some(peer) = self.peers.get_mut(slot) else {
            return;
        };
        let was_ready = peer.connection.is_ready();
        let in_greeting = peer.connection.is_greeting();
        if was_ready {
            let mut inward = std::mem::take(&mut self.inward);
            let reach = Reach { peers: &mut self.peers, shared: &self.shared };
            self.pattern.detach(slot, reach, &mut inward);
            self.keep(slot, &mut inward);
            self.inward = inward;
            self.ready_peers -= 1;
            self.show_presence();
        }
        let Some(peer) = self.peers.get_mut(slot) else {
            return;
        };
        let mut written = Written::default();
        let returned = match P::UNSENT {
            Unsent::Return => peer.out.take_back(&mut written),
            Unsent::Drop | Unsent::Forget => VecDeque::new(),
        };
        let dropped = match P::UNSENT {
            Unsent::Drop => peer.out.abandon(&mut written),
            Unsent::Return | Unsent::Forget => 0,
        };
        let waiting = std::mem::take(&mut peer.waiting);
        let was_in_waiting = std::mem::take(&mut peer.in_waiting);
        let about = peer.about.clone();
        let span = peer.span.clone();
        let ended = peer.ended.take();
        let count = returned.iter().map(|batch| batch.messages()).sum();
        self.count(written);
        self.shared.counters.messages_returned.add(count);
        self.shared.counters.messages_dropped_lost.add(dropped);
        if let Some(closing) = &mut self.closing {
            closing.lost += dropped as u64;
        }
        self.shared.outbound.give_back(returned.into_iter());
        if was_in_waiting {
            self.waiting.retain(|other| *other != slot);
        }
        if !waiting.is_empty() {
            self.orphans.push_back((slot, about.clone(), waiting));
            // Before anybody hears that the peer has gone.
            self.admit();
        }
        if let Some(ended) = ended {
            // If the dialling task is gone nobody needs to know.
            let _ = ended.send(Ended {
                was_ready,
                permanent: matches!(&reason, DisconnectReason::Protocol(error) if error.is_permanent()),
                in_greeting,
                cause: reason.to_string(),
            });
        }
        tracing::debug!(parent: &span, %reason, returned = count, dropped, "connection ended");
        self.shared.counters.handshakes_failed.add(usize::from(!was_ready));
        self.shared.reporter.report(|| {
            let peer = about.as_ref().clone();
            if was_ready {
                Event::Disconnected { peer, reason, returned: count, dropped }
            } else {
                Event::HandshakeFailed { peer, reason }
            }
        });
    }

    pub(super) fn show_presence(&self) {
        let peers = self.ready_peers;
        self.shared.presence.modify(|presence| {
            let open = matches!(presence, Presence::Open { .. });
            if open {
                *presence = Presence::Open { peers };
            }
            open
        });
    }

    /// Whether nobody is left, not even a peer that is still reading.
    pub(super) fn is_deserted(&self) -> bool {
        self.peers.iter().next().is_none()
    }

    /// Whether closing is done: everything has left, or the time is over, or there is nowhere to go.
    ///
    /// Peers that need not be waited for may still be reading then; the I/O task sees to them.
    pub(super) fn closed(&mut self) -> Option<Closed> {
        let closing = self.closing?;
        let (queued, _) = self.shared.outbound.depth();
        let on_the_way = P::UNSENT != Unsent::Forget && self.peers.iter().any(|(_, peer)| peer.out.pending() > 0);
        let expired = closing.deadline.is_some_and(|deadline| deadline <= Instant::now());
        let nowhere = self.peers.slots().is_empty() && !self.shared.is_attached();
        if (queued > 0 || on_the_way) && !expired && !nowhere {
            return None;
        }
        // Nobody is accepted or dialled any more while the last peers read what they were sent.
        drop(self.shared.detach_all());
        for slot in self.peers.slots() {
            if expired { self.end(slot, DisconnectReason::Local) } else { self.leave(slot) }
        }
        if !expired && self.peers.iter().any(|(_, peer)| peer.must_not_be_cut_off()) {
            return None;
        }
        let (queued, _) = self.shared.outbound.depth();
        let lost = self.closing.map_or(0, |closing| closing.lost);
        let sent = self.shared.counters.messages_sent.get();
        Some(Closed {
            flushed: sent - closing.sent_before,
            unsent: queued as u64 + lost,
            unread: self.shared.inbound.unread() as u64,
        })
    }
}
