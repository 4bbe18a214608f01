//! The I/O task: one turn is six steps, each with a budget, so that none can starve the others.
//!
//! ```text
//!  obey      what the handles, the dialling and the listening tasks ask for
//!  admit     messages that waited for room in the inbound queue
//!  read      peers whose streams are ready
//!  route     the outbound FIFO, to peers with room
//!  write     peers that have something to send
//!  expire    deadlines
//! ```
//!
//! The engine is a value that is driven. Normally its task drives it; a `send` or `recv` that would have to wait may take
//! a turn itself, with a try-lock, which saves the hop between tasks. Whoever took a turn puts the engine to sleep
//! again: [`Engine::sleep`] says what it wants to be woken for, or that there is more to do.

use std::collections::VecDeque;
use std::future::Future;
use std::pin::Pin;
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll};
use std::time::Duration;

use tokio::time::{Instant, Sleep};

use crate::engine::pattern::Pattern;
use crate::engine::peer::{Peer, Written};
use crate::engine::peers::Peers;
use crate::engine::shared::{Arrival, AttachmentId, Command, Ended, PeerWaker, Presence, Shared};
use crate::engine::slabs::Slabs;
use crate::error::ProtocolError;
use crate::monitor::{self, DisconnectReason, Event, PeerId};
use crate::queue::lock;
use crate::stats::Closed;
use crate::transport::PeerAddress;
use crate::zmtp::connection::{self, Connection};
use crate::zmtp::decoder::Limits;
use crate::zmtp::encoder::BATCH_BYTES;
use crate::zmtp::run::Run;

/// Reads in one turn, over all peers.
const READS: usize = 16;

/// Commands are taken from this many bytes of messages that found no room in the inbound queue; then the peer is not
/// read until they have been admitted.
const READ_AHEAD: usize = 64 * 1024;

/// No peer is read while all peers together have this much waiting for room.
const READ_AHEAD_TOTAL: usize = 8 * 1024 * 1024;

/// A socket that has had no traffic for this long gives its large buffers back.
const RELEASE_AFTER: Duration = Duration::from_secs(1);

/// How often more is collected for one write while senders wait for room.
const COLLECT_ROUNDS: usize = 64;

/// Everything that the I/O task owns.
#[derive(Debug)]
pub(crate) struct Engine<P> {
    shared: Arc<Shared>,
    pattern: P,
    peers: Peers,
    slabs: Slabs,
    next_peer: u64,
    /// Peers that have finished the handshake.
    ready_peers: usize,
    /// Peers that may have something to read, in the order of their turns.
    readable: VecDeque<usize>,
    /// Peers with messages that found no room.
    waiting: VecDeque<usize>,
    /// Bytes that wait for room, over all peers.
    waiting_bytes: usize,
    /// The size of the smallest message that found no room in this turn.
    waiting_size: usize,
    /// Messages of peers that have gone that found no room; the slot is their lane.
    orphans: VecDeque<(usize, VecDeque<Run>)>,
    /// A scratch list of woken peers.
    woken: Vec<usize>,
    /// How often the write was put off to collect more.
    collected: usize,
    /// Bytes have been read or written since the last look.
    busy: bool,
    /// When to look whether large buffers are still of use.
    release_at: Option<Instant>,
    /// Until when peers must have finished the handshake, in order.
    handshakes: VecDeque<(Instant, usize, PeerId)>,
    /// Until when peers that we have left may go on reading, in order.
    leaving: VecDeque<(Instant, usize, PeerId)>,
    closing: Option<Closing>,
}

#[derive(Debug, Clone, Copy)]
struct Closing {
    /// `None`: longer than time is counted.
    deadline: Option<Instant>,
    /// Messages written before the socket was closed.
    sent_before: u64,
}

impl<P: Pattern> Engine<P> {
    pub(crate) fn new(shared: Arc<Shared>) -> Self {
        Self {
            shared,
            pattern: P::default(),
            peers: Peers::default(),
            slabs: Slabs::default(),
            next_peer: 1,
            ready_peers: 0,
            readable: VecDeque::new(),
            waiting: VecDeque::new(),
            waiting_bytes: 0,
            waiting_size: usize::MAX,
            orphans: VecDeque::new(),
            woken: Vec::new(),
            collected: 0,
            busy: false,
            release_at: None,
            handshakes: VecDeque::new(),
            leaving: VecDeque::new(),
            closing: None,
        }
    }

    /// One turn of the I/O task; `true` if there is more to do at once.
    fn turn(&mut self) -> bool {
        self.obey();
        self.admit();
        let more_to_read = self.read();
        let senders_wait = self.route();
        let more_to_write = self.write(senders_wait);
        self.expire();
        more_to_read || more_to_write
    }

    /// One turn on behalf of a user's task that would have to wait: only what moves messages.
    ///
    /// `sending`: the user will send again at once if there is room, so small batches are not yet written.
    pub(crate) fn turn_for_user(&mut self, sending: bool) {
        self.admit();
        let more_to_read = self.read();
        let senders_wait = self.route() || sending;
        let more_to_write = self.write(senders_wait);
        if more_to_read || more_to_write || !self.sleep() {
            self.shared.signal.wake();
        }
    }

    /// Says what to be woken for; `false` if there is something to do already.
    fn sleep(&self) -> bool {
        if !self.readable.is_empty() && self.waiting_bytes < READ_AHEAD_TOTAL {
            return false;
        }
        let inbound_sleeps = self.waiting_bytes == 0 || self.shared.inbound.sleep(self.waiting_size);
        self.shared.outbound.sleep(self.pattern.has_room()) && inbound_sleeps
    }

    // --- obey -------------------------------------------------------------------------------------------------------

    fn obey(&mut self) {
        for command in self.shared.signal.take_commands() {
            match command {
                Command::Attach(arrival) => self.attach(*arrival),
                Command::Detach(attachment) => self.detach(attachment),
                Command::Close => self.begin_close(),
            }
        }
    }

    fn attach(&mut self, arrival: Arrival) {
        let slot = self.peers.next_slot();
        let options = &self.shared.options;
        let about = monitor::Peer {
            id: PeerId(self.next_peer),
            endpoint: arrival.endpoint,
            address: arrival.connected.address,
        };
        self.next_peer += 1;
        let connection = Connection::new(connection::Config {
            socket_type: P::SOCKET_TYPE,
            limits: Limits { message: options.max_message_size, frames: options.max_frames },
        });
        tracing::debug!(peer = about.id.0, endpoint = %about.endpoint, address = %about.address, "new connection");
        self.shared.reporter.report(|| match arrival.permit {
            Some(_) => Event::Accepted(about.clone()),
            None => Event::Connected(about.clone()),
        });
        if let Some(deadline) = Instant::now().checked_add(options.handshake_timeout) {
            self.handshakes.push_back((deadline, slot, about.id));
        }
        let waker = Arc::new(PeerWaker::new(self.shared.clone(), slot));
        let mut peer = Peer::new(about, arrival.attachment, connection, arrival.connected.stream, waker);
        peer.permit = arrival.permit;
        peer.ended = arrival.ended;
        self.peers.insert(peer);
        // Both directions begin at once: our greeting goes out before anything of the peer's is read.
        self.peers.give(slot, |_, _| ());
        self.make_readable(slot);
    }

    fn detach(&mut self, attachment: AttachmentId) {
        for slot in self.peers.slots() {
            let gone = |peer: &mut Peer| peer.attachment == attachment;
            if self.peers.get_mut(slot).is_some_and(gone) {
                self.leave(slot);
            }
        }
    }

    fn begin_close(&mut self) {
        if self.closing.is_none() {
            let waiting = self.peers.iter().flat_map(|(_, peer)| &peer.waiting);
            let orphans = self.orphans.iter().flat_map(|(_, runs)| runs);
            let unread = waiting.chain(orphans).map(Run::messages).sum();
            self.shared.counters.messages_unread.add(unread);
            self.closing = Some(Closing {
                deadline: Instant::now().checked_add(self.shared.options.linger),
                sent_before: self.shared.counters.messages_sent.get(),
            });
        }
    }

    // --- admit ------------------------------------------------------------------------------------------------------

    /// Moves messages that waited into the inbound queue, a share of each peer in turn.
    fn admit(&mut self) {
        self.waiting_size = usize::MAX;
        while let Some((lane, runs)) = self.orphans.front_mut() {
            let before = cost(runs);
            let all = self.shared.inbound.offer(*lane, runs, usize::MAX);
            self.waiting_bytes -= before - cost(runs);
            if !all {
                self.waiting_size = runs.front().map_or(usize::MAX, Run::next_size);
                break;
            }
            self.orphans.pop_front();
        }
        for _ in 0..self.waiting.len() {
            let share = self.shared.options.receive.messages / self.waiting.len().max(1);
            let Some(slot) = self.waiting.pop_front() else {
                return;
            };
            if self.offer(slot, share.max(1)) {
                self.make_readable(slot);
            } else {
                self.waiting.push_back(slot);
            }
        }
    }

    /// Offers a peer's messages to the inbound queue; `true` if none of them waits any longer.
    fn offer(&mut self, slot: usize, share: usize) -> bool {
        let Some(peer) = self.peers.get_mut(slot) else {
            return true;
        };
        let before = cost(&peer.waiting);
        peer.in_waiting = !self.shared.inbound.offer(slot, &mut peer.waiting, share);
        self.waiting_bytes -= before - cost(&peer.waiting);
        if let Some(run) = peer.waiting.front() {
            self.waiting_size = self.waiting_size.min(run.next_size());
        }
        !peer.in_waiting
    }

    // --- read -------------------------------------------------------------------------------------------------------

    fn make_readable(&mut self, slot: usize) {
        if let Some(peer) = self.peers.get_mut(slot) {
            if !peer.in_readable {
                peer.in_readable = true;
                self.readable.push_back(slot);
            }
        }
    }

    /// Reads peers in turn; `true` if some were not got round to.
    fn read(&mut self) -> bool {
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
        for _ in 0..READS {
            if self.waiting_bytes >= READ_AHEAD_TOTAL {
                return false;
            }
            let Some(slot) = self.readable.pop_front() else {
                return false;
            };
            if let Some(peer) = self.peers.get_mut(slot) {
                peer.in_readable = false;
                if cost(&peer.waiting) < READ_AHEAD {
                    self.read_peer(slot);
                }
            }
        }
        !self.readable.is_empty() && self.waiting_bytes < READ_AHEAD_TOTAL
    }

    /// Reads a peer once and handles what has come.
    fn read_peer(&mut self, slot: usize) {
        let Some(peer) = self.peers.get_mut(slot) else {
            return;
        };
        match peer.poll_read(&mut self.slabs) {
            Poll::Pending => peer.rest_input(&mut self.slabs),
            Poll::Ready(Ok(count)) if peer.leaving && count > 0 => {
                peer.input.clear();
                self.make_readable(slot);
            }
            Poll::Ready(Ok(0)) => self.end(slot, DisconnectReason::PeerClosed),
            Poll::Ready(Ok(count)) => {
                self.busy = true;
                self.shared.counters.bytes_received.add(count);
                match self.receive(slot) {
                    Ok(()) => self.make_readable(slot),
                    Err(error) => self.refuse(slot, error),
                }
            }
            Poll::Ready(Err(error)) => self.end(slot, DisconnectReason::Io(error.kind())),
        }
    }

    /// Lets the protocol take what is whole, and passes it on.
    fn receive(&mut self, slot: usize) -> Result<(), ProtocolError> {
        loop {
            let Some(peer) = self.peers.get_mut(slot) else {
                return Ok(());
            };
            let result = peer.connection.receive(&mut peer.input);
            match result {
                Ok(connection::Event::Run(run)) if P::RECEIVES => {
                    self.shared.counters.messages_received.add(run.messages());
                    peer.waiting.push_back(run);
                    self.waiting_bytes += peer.waiting.back().map_or(0, run_cost);
                }
                Ok(connection::Event::Run(run)) => {
                    self.shared.counters.messages_refused.add(run.messages());
                }
                Ok(connection::Event::Ready { socket_type, version }) => {
                    peer.permit = None;
                    let about = &peer.about;
                    tracing::debug!(peer = about.id.0, endpoint = %about.endpoint, %socket_type, "handshake succeeded");
                    self.shared.reporter.report(|| Event::HandshakeSucceeded {
                        peer: about.clone(),
                        socket_type,
                        version,
                    });
                    self.ready_peers += 1;
                    self.show_presence();
                    self.pattern.attach(slot);
                }
                Ok(connection::Event::Command) => {}
                Ok(connection::Event::Incomplete) | Err(_) => {
                    self.peers.give(slot, |_, _| ());
                    let new = |peer: &mut Peer| !peer.waiting.is_empty() && !peer.in_waiting;
                    if self.peers.get_mut(slot).is_some_and(new) && !self.offer(slot, usize::MAX) {
                        self.waiting.push_back(slot);
                    }
                    return result.map(|_| ());
                }
            }
        }
    }

    // --- route ------------------------------------------------------------------------------------------------------

    /// Gives queued messages to peers with room; `true` if senders waited for it.
    fn route(&mut self) -> bool {
        let mut senders_waited = false;
        while self.pattern.has_room() {
            let Some(taken) = self.shared.outbound.take() else {
                break;
            };
            senders_waited |= taken.senders_waited;
            if let Some(rest) = self.pattern.route(taken.batch, &mut self.peers) {
                self.shared.outbound.give_back(std::iter::once(rest));
                break;
            }
        }
        senders_waited
    }

    // --- write ------------------------------------------------------------------------------------------------------

    /// Writes to every peer that has something to send; `true` if some writes were put off.
    fn write(&mut self, more_will_come: bool) -> bool {
        // While senders wait for room there is more to come at once: one large write is cheaper than many small ones.
        let collect = more_will_come && self.collected < COLLECT_ROUNDS && self.closing.is_none();
        let mut put_off = false;
        let mut writable = self.peers.take_writable();
        let mut index = 0;
        while let Some(&slot) = writable.get(index) {
            let small = |peer: &mut Peer| (1..BATCH_BYTES).contains(&peer.pending());
            if collect && self.peers.get_mut(slot).is_some_and(small) {
                put_off = true;
                index += 1;
            } else {
                writable.swap_remove(index);
                self.write_peer(slot);
            }
        }
        self.peers.restore_writable(writable);
        self.collected = if put_off { self.collected + 1 } else { 0 };
        put_off
    }

    fn write_peer(&mut self, slot: usize) {
        let Some(peer) = self.peers.get_mut(slot) else {
            return;
        };
        peer.in_writable = false;
        let mut written = Written::default();
        let had_room = peer.has_room();
        let result = peer.write(&mut written);
        let has_room = peer.has_room();
        self.count(written);
        if has_room != had_room && self.peers.get_mut(slot).is_some_and(|peer| peer.connection.is_ready()) {
            if has_room { self.pattern.writable(slot) } else { self.pattern.full(slot) }
        }
        if let Err(error) = result {
            if P::RECEIVES {
                // The peer may have sent messages before it went; reading finds its end.
                self.make_readable(slot);
            } else {
                self.end(slot, DisconnectReason::Io(error.kind()));
            }
        }
    }

    fn count(&mut self, written: Written) {
        self.busy |= written.messages > 0;
        let counters = &self.shared.counters;
        counters.messages_sent.add(written.messages);
        counters.bytes_sent.add(written.payload);
        for batch in written.spare {
            if let Some(batch) = self.peers.recycle(batch) {
                self.shared.outbound.recycle(batch);
            }
        }
    }

    // --- expire -----------------------------------------------------------------------------------------------------

    fn expire(&mut self) {
        if self.release_at.is_none() && self.busy && (self.slabs.is_large() || !P::RECEIVES) {
            self.release_at = Some(Instant::now() + RELEASE_AFTER);
        }
        if self.handshakes.is_empty() && self.leaving.is_empty() && self.release_at.is_none() {
            return;
        }
        let now = Instant::now();
        while let Some(&(deadline, slot, id)) = self.leaving.front() {
            let pending = self.peers.get_mut(slot).is_some_and(|peer| peer.about.id == id);
            if pending && deadline > now {
                break;
            }
            self.leaving.pop_front();
            if pending {
                self.end(slot, DisconnectReason::Local);
            }
        }
        while let Some(&(deadline, slot, id)) = self.handshakes.front() {
            let pending =
                self.peers.get_mut(slot).is_some_and(|peer| peer.about.id == id && !peer.connection.is_ready());
            if pending && deadline > now {
                break;
            }
            self.handshakes.pop_front();
            if pending {
                self.refuse(slot, ProtocolError::HandshakeTimeout);
            }
        }
        if self.release_at.is_some_and(|at| at <= now) {
            self.release_at = None;
            if !self.busy {
                self.slabs = Slabs::default();
                self.shared.outbound.release();
                self.peers.release();
            } else {
                self.release_at = Some(now + RELEASE_AFTER);
            }
            self.busy = false;
        }
    }

    /// When the next deadline is.
    fn deadline(&self) -> Option<Instant> {
        let handshake = self.handshakes.front().map(|(deadline, ..)| *deadline);
        let linger = self.closing.and_then(|closing| closing.deadline);
        let leaving = self.leaving.front().map(|(deadline, ..)| *deadline);
        handshake.into_iter().chain(leaving).chain(linger).chain(self.release_at).min()
    }

    // --- the end of a peer, the end of the socket -------------------------------------------------------------------

    /// Ends a connection over what its peer did; the reason may still be on its way to the peer.
    fn refuse(&mut self, slot: usize, error: ProtocolError) {
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
    /// A libzmq peer that is not reading, because its queue is full, drops what is left in a Unix-domain socket when that
    /// is closed altogether. So there we only say that nothing more will come, and wait for the peer to close.
    fn leave(&mut self, slot: usize) {
        let Some(peer) = self.peers.get_mut(slot) else {
            return;
        };
        if peer.leaving {
            return;
        }
        let waits = peer.has_written_messages() && matches!(peer.about.address, PeerAddress::Ipc { .. });
        let Some(deadline) = Instant::now().checked_add(self.shared.options.linger).filter(|_| waits) else {
            return self.end(slot, DisconnectReason::Local);
        };
        self.leaving.push_back((deadline, slot, peer.about.id));
        peer.leaving = true;
        peer.shut_down();
        self.detach_peer(slot, DisconnectReason::Local);
        self.make_readable(slot);
    }

    /// Removes a peer.
    fn end(&mut self, slot: usize, reason: DisconnectReason) {
        if self.peers.get_mut(slot).is_some_and(|peer| !peer.leaving) {
            self.detach_peer(slot, reason);
        }
        if let Some(mut peer) = self.peers.remove(slot) {
            peer.shut_down();
        }
    }

    /// Takes a peer out of the traffic: what has not left goes back, what has come stays.
    fn detach_peer(&mut self, slot: usize, reason: DisconnectReason) {
        let Some(peer) = self.peers.get_mut(slot) else {
            return;
        };
        let was_ready = peer.connection.is_ready();
        if was_ready {
            self.pattern.detach(slot);
            self.ready_peers -= 1;
            self.show_presence();
        }
        let Some(peer) = self.peers.get_mut(slot) else {
            return;
        };
        let mut written = Written::default();
        let returned = peer.take_back(&mut written);
        let waiting = std::mem::take(&mut peer.waiting);
        peer.in_waiting = false;
        let about = peer.about.clone();
        let ended = peer.ended.take();
        let count = returned.iter().map(|batch| batch.messages()).sum();
        self.count(written);
        self.shared.counters.messages_returned.add(count);
        self.shared.outbound.give_back(returned.into_iter());
        self.waiting.retain(|other| *other != slot);
        if !waiting.is_empty() {
            self.orphans.push_back((slot, waiting));
        }
        if let Some(ended) = ended {
            // If the dialling task is gone nobody needs to know.
            let _ = ended.send(Ended {
                was_ready,
                permanent: matches!(&reason, DisconnectReason::Protocol(error) if error.is_permanent()),
                cause: reason.to_string(),
            });
        }
        tracing::debug!(peer = about.id.0, endpoint = %about.endpoint, %reason, returned = count, "connection ended");
        self.shared.reporter.report(|| {
            if was_ready {
                Event::Disconnected { peer: about, reason, returned: count }
            } else {
                Event::HandshakeFailed { peer: about, reason }
            }
        });
    }

    fn show_presence(&self) {
        let peers = self.ready_peers;
        self.shared.presence.send_if_modified(|presence| {
            let open = matches!(presence, Presence::Open { .. });
            if open {
                *presence = Presence::Open { peers };
            }
            open
        });
    }

    /// Whether closing is done: everything has left, or the time is over, or there is nowhere to go.
    fn closed(&mut self) -> Option<Closed> {
        let closing = self.closing?;
        let (queued, _) = self.shared.outbound.depth();
        let on_the_way = self.peers.iter().any(|(_, peer)| peer.pending() > 0);
        let expired = closing.deadline.is_some_and(|deadline| deadline <= Instant::now());
        let nowhere = self.peers.slots().is_empty() && !self.shared.is_attached();
        if (queued > 0 || on_the_way) && !expired && !nowhere {
            return None;
        }
        for slot in self.peers.slots() {
            if expired { self.end(slot, DisconnectReason::Local) } else { self.leave(slot) }
        }
        if !self.peers.slots().is_empty() {
            return None;
        }
        let (unsent, _) = self.shared.outbound.depth();
        let sent = self.shared.counters.messages_sent.get();
        Some(Closed {
            flushed: sent - closing.sent_before,
            unsent: unsent as u64,
            unread: self.shared.counters.messages_unread.get(),
        })
    }
}

/// What runs that wait cost, in bytes: a message without a body is not free either.
fn cost(runs: &VecDeque<Run>) -> usize {
    runs.iter().map(run_cost).sum()
}

fn run_cost(run: &Run) -> usize {
    const MESSAGE: usize = 16;
    run.payload() + run.messages() * MESSAGE
}

/// The future that drives an engine.
#[derive(Debug)]
struct Driver<P: Pattern> {
    engine: Arc<Mutex<Engine<P>>>,
    shared: Arc<Shared>,
    timer: Pin<Box<Sleep>>,
}

impl<P: Pattern> Future for Driver<P> {
    type Output = Closed;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Closed> {
        let this = &mut *self;
        // Before looking for work: whatever comes during the look wakes this task again.
        this.shared.signal.register(cx.waker());
        let mut engine = lock(&this.engine);
        let more = engine.turn();
        if let Some(closed) = engine.closed() {
            return Poll::Ready(closed);
        }
        if more || !engine.sleep() {
            cx.waker().wake_by_ref();
            return Poll::Pending;
        }
        if let Some(deadline) = engine.deadline() {
            if this.timer.deadline() != deadline {
                this.timer.as_mut().reset(deadline);
            }
            if this.timer.as_mut().poll(cx).is_ready() {
                cx.waker().wake_by_ref();
            }
        }
        Poll::Pending
    }
}

/// Drives a socket's engine until the socket is closed.
pub(crate) async fn run<P: Pattern>(engine: Arc<Mutex<Engine<P>>>, shared: Arc<Shared>) {
    // Also when the runtime ends under the socket and drops this future.
    let _end = End { engine: engine.clone(), shared: shared.clone() };
    let driver = Driver { engine, shared: shared.clone(), timer: Box::pin(tokio::time::sleep(Duration::ZERO)) };
    let closed = driver.await;
    for attachment in shared.detach_all() {
        attachment.task.abort();
        // Only then is the address free again. An aborted task is an error to wait for, and that is all there is.
        let _ = attachment.task.await;
    }
    shared.end(Presence::Closed(closed));
}

/// Leaves nothing behind: streams end, and everybody who waits learns of it.
#[derive(Debug)]
struct End<P: Pattern> {
    engine: Arc<Mutex<Engine<P>>>,
    shared: Arc<Shared>,
}

impl<P: Pattern> Drop for End<P> {
    fn drop(&mut self) {
        *lock(&self.engine) = Engine::new(self.shared.clone());
        self.shared.outbound.close();
        self.shared.inbound.close();
        for attachment in self.shared.detach_all() {
            attachment.task.abort();
        }
        self.shared.end(Presence::Abandoned);
    }
}
