//! Inward: the steps that read peers and admit their messages to the inbound queue.

use std::sync::Arc;
use std::task::Poll;

use crate::engine::pattern::{Incoming, Inward, Pattern, Reach};
use crate::engine::peer::Peer;
use crate::engine::state::Engine;
use crate::engine::waiting::Admitted;
use crate::error::ProtocolError;
use crate::monitor::{self, DisconnectReason, Event};
use crate::options::HighWaterMark;
use crate::zmtp::connection;
use crate::zmtp::greeting::Version;
use crate::zmtp::socket_type::SocketType;

/// Reads in one turn, over all peers …
const READS: usize = 64;
/// … and bytes: what has been read should be consumed while it is still in the processor's cache.
const READ_BYTES: usize = 512 * 1024;

/// A user that spins looks at so many peers …
const SPIN_PEERS: usize = 4;
/// … for so many bytes of each.
const LOOK_BYTES: usize = 64 * 1024;

/// Commands are taken from this many bytes of messages that found no room in the inbound queue; then the peer is not
/// read until they have been admitted.
const READ_AHEAD: usize = 64 * 1024;

/// While all peers together have this much waiting for room, those that have nothing waiting are read only a little.
const READ_AHEAD_TOTAL: usize = 8 * 1024 * 1024;
const READ_LITTLE: usize = 4 * 1024;

impl<P: Pattern> Engine<P> {
    /// Moves messages that waited into the inbound queue, a share of each peer in turn.
    pub(super) fn admit(&mut self) {
        self.waiting_size = usize::MAX;
        let mark = self.shared.options.receive;
        while let Some(Admitted { slot, from, cost }) = self.history.admit(&self.shared.inbound, mark) {
            self.waiting_bytes -= cost;
            if let Some(peer) = self.peers.get_mut(slot).filter(|peer| peer.about.id == from.id) {
                peer.in_history -= cost;
                if cost > 0 && peer.in_history == 0 {
                    self.make_readable(slot);
                }
            }
        }
        if let Some(size) = self.history.next_size() {
            self.waiting_size = size;
        }
        while let Some((lane, about, waiting)) = self.orphans.front_mut() {
            self.waiting_bytes -= waiting.offer(&self.shared.inbound, *lane, about, mark);
            if let Some(size) = waiting.next_size() {
                self.waiting_size = size;
                break;
            }
            self.orphans.pop_front();
        }
        for _ in 0..self.waiting.len() {
            let Some(slot) = self.waiting.pop_front() else {
                return;
            };
            let before = self.waiting_bytes;
            if self.offer(slot) {
                self.make_readable(slot);
            } else if self.waiting_bytes < before {
                self.waiting.push_back(slot);
            } else {
                // There is no room for its next message. It comes first when there is, or it might never fit.
                self.waiting.push_front(slot);
                return;
            }
        }
    }

    /// Offers a peer's messages to the inbound queue, its share of them; `true` if none of them waits any longer.
    fn offer(&mut self, slot: usize) -> bool {
        let Some(peer) = self.peers.get_mut(slot) else {
            return true;
        };
        let mark = self.shared.options.receive;
        let peers = self.waiting.len() + 1;
        // Rounded up: a share of nothing would be no limit.
        let share = HighWaterMark { messages: mark.messages.div_ceil(peers), bytes: mark.bytes.div_ceil(peers) };
        self.waiting_bytes -= peer.waiting.offer(&self.shared.inbound, slot, &peer.about, share);
        peer.in_waiting = !peer.waiting.is_empty();
        if let Some(size) = peer.waiting.next_size() {
            self.waiting_size = self.waiting_size.min(size);
        }
        !peer.in_waiting
    }

    pub(super) fn make_readable(&mut self, slot: usize) {
        if let Some(peer) = self.peers.get_mut(slot) {
            if !peer.in_readable {
                peer.in_readable = true;
                self.readable.push_back(slot);
            }
        }
    }

    /// Reads peers in turn; `true` if some were not got round to.
    pub(super) fn read(&mut self) -> bool {
        let mut woken = std::mem::take(&mut self.woken);
        self.shared.signal.take_ready(&mut woken);
        for slot in woken.drain(..) {
            if let Some(peer) = self.peers.get_mut(slot) {
                let had_room = peer.has_room();
                peer.woken();
                // What is half sent may go on.
                self.peers.give(slot, |_, _| ());
                let has_room = |peer: &mut Peer| !had_room && peer.has_room() && peer.connection.is_ready();
                if self.peers.get_mut(slot).is_some_and(has_room) {
                    self.pattern.writable(slot);
                }
                self.make_readable(slot);
            }
        }
        self.woken = woken;
        let mut bytes = 0;
        for _ in 0..READS {
            if bytes >= READ_BYTES {
                break;
            }
            let Some(slot) = self.readable.pop_front() else {
                return false;
            };
            if let Some(peer) = self.peers.get_mut(slot) {
                peer.in_readable = false;
                // A peer that is not read now is when its messages have been admitted. One without any is always read, if
                // only a little: there may be a handshake to be finished, a PING to be answered, an end to be noticed.
                let crowded = self.waiting_bytes >= READ_AHEAD_TOTAL;
                let waits = peer.waiting.cost() + peer.in_history;
                if waits < READ_AHEAD && (waits == 0 || !crowded) {
                    self.resumed(slot);
                    let limit = if crowded { READ_LITTLE } else { usize::MAX };
                    let limit = limit.min(self.readable_amount(slot));
                    bytes += self.read_peer(slot, limit);
                } else {
                    self.paused(slot);
                }
            }
        }
        !self.readable.is_empty()
    }

    /// Reads a peer once and handles what has come; says how many bytes that were.
    fn read_peer(&mut self, slot: usize, limit: usize) -> usize {
        let was_tight = self.is_tight();
        let Some(peer) = self.peers.get_mut(slot) else {
            return 0;
        };
        match peer.poll_read(&mut self.slabs, limit) {
            Poll::Pending => {
                peer.rest_input(&mut self.slabs);
                if !P::SOCKET_TYPE.receives() {
                    self.slabs.keep_no_small_ones();
                }
                self.note_unfinished(slot);
                self.pass_lead(slot);
            }
            Poll::Ready(Ok(count)) if peer.leaving && count > 0 => {
                peer.input.clear();
                self.make_readable(slot);
                return count;
            }
            Poll::Ready(Ok(0)) => self.end_of_stream(slot, DisconnectReason::PeerClosed),
            Poll::Ready(Ok(count)) => {
                self.note_received(slot, count);
                match self.receive(slot) {
                    Ok(()) => {
                        self.note_unfinished(slot);
                        match self.must_wait(slot, was_tight) {
                            true => self.paused(slot),
                            false => self.make_readable(slot),
                        }
                    }
                    Err(error) => self.refuse(slot, error),
                }
                return count;
            }
            Poll::Ready(Err(error)) => self.end_of_stream(slot, DisconnectReason::Io(error.kind())),
        }
        0
    }

    fn note_received(&mut self, slot: usize, count: usize) {
        if let Some(peer) = self.peers.get_mut(slot) {
            peer.talks |= peer.connection.is_ready();
            peer.counts.bytes_received += count as u64;
        }
        self.shared.counters.bytes_received.add(count);
        self.heard(slot);
    }

    /// Looks whether something has come from a peer, without asking the runtime, which may not know yet; and takes it.
    pub(super) fn look_at(&mut self, slot: usize) -> bool {
        let Some(peer) = self.peers.get_mut(slot).filter(|peer| !peer.leaving) else {
            return false;
        };
        if self.scratch.is_empty() {
            self.scratch = vec![0; LOOK_BYTES];
        }
        let Some(count) = peer.read_now(&mut self.scratch) else {
            return false;
        };
        self.note_received(slot, count);
        match self.receive(slot) {
            Ok(()) => self.note_unfinished(slot),
            Err(error) => self.refuse(slot, error),
        }
        true
    }

    /// Looks once whether something has come for a user that spins, and takes it; `true` if so. It looks at few peers: with
    /// many of them the runtime is faster.
    pub(crate) fn read_now(&mut self) -> bool {
        let mut found = false;
        for slot in 0..self.peers.slot_count().min(SPIN_PEERS) {
            let has_room = |peer: &mut Peer| peer.waiting.is_empty() && !peer.vigil.is_paused;
            found |= self.peers.get_mut(slot).is_some_and(has_room) && self.look_at(slot);
        }
        if found {
            self.admit();
            self.write(false);
        }
        found
    }

    /// Lets the protocol take what is whole, and passes it on.
    pub(super) fn receive(&mut self, slot: usize) -> Result<(), ProtocolError> {
        loop {
            let Some(peer) = self.peers.get_mut(slot) else {
                return Ok(());
            };
            let event = peer.connection.receive(&mut peer.input);
            if matches!(&event, Ok(event) if event.is_command()) {
                peer.count_commands(1, &self.shared.options, P::SOCKET_TYPE.publishes())?;
            }
            let more = match event {
                Ok(connection::Event::Run(run)) => self.pass_on(slot, Incoming::Run(run)).map(|()| true),
                Ok(connection::Event::Subscribe(prefix)) => {
                    self.pass_on(slot, Incoming::Subscribe(prefix)).map(|()| true)
                }
                Ok(connection::Event::Cancel(prefix)) => self.pass_on(slot, Incoming::Cancel(prefix)).map(|()| true),
                Ok(connection::Event::Ping { time_to_live }) => {
                    self.heard_ping(slot, time_to_live);
                    Ok(true)
                }
                // The answer to a PING is asked for; another sign of life is a command like any other.
                Ok(connection::Event::Pong { number: Some(number) }) if peer.vigil.answered(number) => Ok(true),
                Ok(connection::Event::Pong { .. }) => {
                    peer.count_commands(1, &self.shared.options, P::SOCKET_TYPE.publishes()).map(|()| true)
                }
                Ok(connection::Event::Command) => Ok(true),
                Ok(connection::Event::Ready { socket_type, version }) => {
                    self.welcome(slot, socket_type, version);
                    Ok(true)
                }
                Ok(connection::Event::Incomplete) => Ok(false),
                Err(error) => Err(error),
            };
            if let Ok(true) = more {
                continue;
            }
            self.peers.give(slot, |_, _| ());
            // All that is in the input has been seen: admitted is after reading, so that all peers get their shares.
            let new = |peer: &&mut Peer| !peer.waiting.is_empty() && !peer.in_waiting;
            if let Some(peer) = self.peers.get_mut(slot).filter(new) {
                peer.in_waiting = true;
                self.waiting.push_back(slot);
            }
            return more.map(drop);
        }
    }

    /// A peer has finished the handshake.
    fn welcome(&mut self, slot: usize, socket_type: SocketType, version: Version) {
        let Some(peer) = self.peers.get_mut(slot) else {
            return;
        };
        peer.permit = None;
        if let Some(source) = peer.pending_from.take() {
            self.sources.leave(source);
        }
        peer.kind = Some((socket_type, version));
        peer.about = Arc::new(monitor::Peer { socket_type: Some(socket_type), ..peer.about.as_ref().clone() });
        let about = &peer.about;
        tracing::debug!(parent: &peer.span, %socket_type, %version, "handshake succeeded");
        self.shared.reporter.report(|| Event::HandshakeSucceeded {
            peer: about.as_ref().clone(),
            socket_type,
            version,
        });
        self.ready_peers += 1;
        self.show_presence();
        self.pattern.attach(slot, Reach { peers: &mut self.peers, shared: &self.shared });
        self.watch(slot);
    }

    /// Lets the pattern see what a peer has sent, and keeps what of it is for the user.
    #[inline]
    fn pass_on(&mut self, slot: usize, incoming: Incoming) -> Result<(), ProtocolError> {
        let mut inward = std::mem::take(&mut self.inward);
        let reach = Reach { peers: &mut self.peers, shared: &self.shared };
        let result = self.pattern.receive(slot, incoming, reach, &mut inward);
        self.keep(slot, &mut inward);
        self.inward = inward;
        result
    }

    /// Keeps what is for the user until there is room in the inbound queue.
    pub(super) fn keep(&mut self, slot: usize, inward: &mut Vec<Inward>) {
        let Some(peer) = self.peers.get_mut(slot) else {
            return inward.clear();
        };
        for inward in inward.drain(..) {
            let mut run = match inward {
                Inward::Messages(run) => run,
                Inward::Report(run) => {
                    if !self.history.report(slot, &peer.about, run) {
                        self.shared.counters.messages_dropped_unread.add(1);
                    }
                    continue;
                }
            };
            self.shared.counters.messages_received.add(run.messages());
            peer.counts.received += run.messages() as u64;
            if peer.is_sparse {
                run.detach();
            }
            self.waiting_bytes += if P::ORDERED {
                let cost = self.history.message(slot, &peer.about, run);
                peer.in_history += cost;
                cost
            } else {
                peer.waiting.push(run)
            };
        }
    }
}
