//! The I/O task: one turn is six steps, each with a budget, so that none can starve the others.
//!
//! ```text
//!  obey      what the handles, the dialling and the listening tasks ask for
//!  read      peers whose streams are ready
//!  admit     their messages to the inbound queue, as far as there is room
//!  route     the outbound FIFO, to peers with room
//!  write     peers that have something to send
//!  expire    deadlines
//! ```
//!
//! The engine is a value that is driven. Normally its task drives it; a `send` or `recv` that would have to wait may take
//! a turn itself, with a try-lock, which saves the hop between tasks. Whoever took a turn puts the engine to sleep
//! again: [`Engine::sleep`] says what it wants to be woken for, or that there is more to do.

use std::future::Future;
use std::net::IpAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use tokio::task::coop::unconstrained;
use tokio::time::{Instant, Sleep};

use crate::engine::pattern::{Pattern, Reach};
use crate::engine::peer::Peer;
use crate::engine::shared::{Arrival, AttachmentId, Command, Ended, PeerWaker, Presence, Shared};
use crate::engine::state::{Closing, Engine};
use crate::monitor::{self, Event, PeerId};
use crate::stats::Closed;
use crate::sync::{Mutex, lock};
use crate::zmtp::command::SUBSCRIBE_OVERHEAD;
use crate::zmtp::connection::{self, Connection};
use crate::zmtp::decoder::{COMMAND_MAXIMUM, Limits};

impl<P: Pattern> Engine<P> {
    /// One turn of the I/O task; `true` if there is more to do at once.
    fn turn(&mut self) -> bool {
        self.obey();
        self.obey_handles();
        let more_to_read = self.read();
        self.admit();
        let senders_wait = self.route();
        let more_to_write = self.write(senders_wait);
        self.expire();
        more_to_read || more_to_write
    }

    /// One turn on behalf of a user's task that would have to wait: only what moves messages.
    ///
    /// `sending`: the user will send again at once if there is room, so small batches are not yet written.
    pub(crate) fn turn_for_user(&mut self, sending: bool) {
        self.obey_handles();
        let more_to_read = self.read();
        self.admit();
        let senders_wait = self.route() || sending;
        let more_to_write = self.write(senders_wait);
        if more_to_read || more_to_write || !self.sleep() || self.must_look_earlier() {
            self.shared.signal.wake();
        }
    }

    /// Whether a deadline has come up before the one that the I/O task knows of.
    fn must_look_earlier(&mut self) -> bool {
        self.plan_release();
        let armed = self.armed;
        self.deadline(false).is_some_and(|at| armed.is_none_or(|armed| at < armed))
    }

    /// Routes what is queued, on behalf of a user who wants to do something after it.
    pub(super) fn route_for_user(&mut self) {
        self.obey_handles();
        // What others send meanwhile need not be waited for.
        let (mut left, _) = self.shared.outbound.depth();
        while left > 0 && self.pattern.has_room() {
            self.route();
            let (now, _) = self.shared.outbound.depth();
            if now == 0 || now >= left {
                break;
            }
            left = now;
        }
        if !self.sleep() || self.must_look_earlier() {
            self.shared.signal.wake();
        }
    }

    /// Does what handles have asked of the pattern.
    fn obey_handles(&mut self) {
        self.pattern.obey(Reach { peers: &mut self.peers, shared: &self.shared });
        self.dismiss();
    }

    fn obey(&mut self) {
        for command in self.shared.signal.take_commands() {
            match command {
                Command::Attach(arrival) => self.attach(*arrival),
                Command::Detach(attachment) => self.detach(attachment),
                Command::Observe => self.watch_congestion(),
                Command::Close => self.begin_close(),
            }
        }
    }

    fn attach(&mut self, arrival: Arrival) {
        if !self.shared.has(arrival.attachment) {
            // Made while its endpoint was being detached.
            return;
        }
        let slot = self.peers.next_slot();
        let options = &self.shared.options;
        let source = arrival.permit.as_ref().and_then(|_| arrival.connected.address.ip());
        let crowded = source.is_some_and(|source| !self.sources.enter(source, options.pending_handshakes_from(source)));
        if crowded || self.peers.len() >= options.max_connections {
            return self.turn_away(arrival, source.filter(|_| !crowded));
        }
        let about = Arc::new(monitor::Peer {
            id: PeerId(self.next_peer),
            endpoint: arrival.endpoint,
            address: arrival.connected.address,
            socket_type: None,
        });
        self.next_peer += 1;
        let connection = Connection::new(connection::Config {
            socket_type: P::SOCKET_TYPE,
            limits: Limits {
                message: options.max_message_size,
                frame: options.max_frame_size,
                frames: options.max_frames,
                command: COMMAND_MAXIMUM.max(options.max_topic_length.saturating_add(SUBSCRIBE_OVERHEAD)),
                subscriptions: P::SOCKET_TYPE.publishes(),
            },
            metadata: options.max_metadata_size,
            careful: arrival.careful,
        });
        self.shared.reporter.report(|| match arrival.permit {
            Some(_) => Event::Accepted(about.as_ref().clone()),
            None => Event::Connected(about.as_ref().clone()),
        });
        if let Some(deadline) = Instant::now().checked_add(options.handshake_timeout) {
            self.handshakes.push_back((deadline, slot, about.id));
        }
        let span = tracing::debug_span!(
            parent: &self.shared.span, "peer", id = about.id.0, endpoint = %about.endpoint, address = %about.address
        );
        tracing::debug!(parent: &span, accepted = arrival.permit.is_some(), "new connection");
        let waker = Arc::new(PeerWaker::new(self.shared.clone(), slot));
        let mut peer = Peer::new(about, span, arrival.attachment, connection, arrival.connected.stream, waker);
        peer.permit = arrival.permit;
        peer.pending_from = source;
        peer.ended = arrival.ended;
        self.peers.insert(peer);
        // Both directions begin at once: our greeting goes out before anything of the peer's is read.
        self.peers.give(slot, |_, _| ());
        self.make_readable(slot);
    }

    /// Closes a connection that is one too many.
    fn turn_away(&mut self, arrival: Arrival, entered: Option<IpAddr>) {
        if let Some(source) = entered {
            self.sources.leave(source);
        }
        let (endpoint, address) = (arrival.endpoint, arrival.connected.address);
        tracing::debug!(parent: &self.shared.span, %endpoint, %address, "too many connections");
        if let Some(ended) = arrival.ended {
            // If the dialling task is gone nobody needs to know.
            let cause = "too many connections".to_owned();
            let _ = ended.send(Ended { was_ready: false, permanent: false, in_greeting: false, cause });
        }
        self.shared.counters.connections_refused.add(1);
        self.shared.reporter.report(|| Event::Refused { endpoint, address });
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
            self.closing = Some(Closing {
                deadline: Instant::now().checked_add(self.shared.options.linger),
                sent_before: self.shared.counters.messages_sent.get(),
                lost: 0,
            });
        }
    }
}

/// The future that drives an engine: first until the socket is closed, then until the last peer has gone.
#[derive(Debug)]
struct Driver<P: Pattern> {
    engine: Arc<Mutex<Engine<P>>>,
    shared: Arc<Shared>,
    timer: Pin<Box<Sleep>>,
    is_closed: bool,
}

impl<P: Pattern> Future for Driver<P> {
    type Output = Option<Closed>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let this = &mut *self;
        // Before looking for work: whatever comes during the look wakes this task again.
        this.shared.signal.register(cx.waker());
        let mut engine = lock(&this.engine);
        let more = engine.turn();
        if this.is_closed && engine.is_deserted() {
            return Poll::Ready(None);
        }
        if let Some(closed) = engine.closed().filter(|_| !this.is_closed) {
            this.is_closed = true;
            return Poll::Ready(Some(closed));
        }
        if more || !engine.sleep() {
            cx.waker().wake_by_ref();
            return Poll::Pending;
        }
        let armed_before = engine.armed;
        engine.armed = engine.deadline(this.is_closed);
        if let Some(deadline) = engine.armed {
            if this.timer.deadline() != deadline {
                this.timer.as_mut().reset(deadline);
            }
            if this.timer.as_mut().poll(cx).is_ready() {
                cx.waker().wake_by_ref();
            }
        } else if armed_before.is_some() {
            // One that nobody needs would make each sleep of the runtime's thread a timed one, which is dearer.
            this.timer.set(tokio::time::sleep(Duration::ZERO));
        }
        Poll::Pending
    }
}

/// Drives a socket's engine until the socket is closed and its last peer has gone.
pub(crate) fn run<P: Pattern>(engine: Arc<Mutex<Engine<P>>>, shared: Arc<Shared>) -> impl Future<Output = ()> + Send {
    // Also when the runtime ends under the socket and drops this future, polled or not.
    let end = End { engine: engine.clone(), shared: shared.clone() };
    drive(engine, shared, end)
}

async fn drive<P: Pattern>(engine: Arc<Mutex<Engine<P>>>, shared: Arc<Shared>, _end: End<P>) {
    let timer = Box::pin(tokio::time::sleep(Duration::ZERO));
    // The engine has budgets of its own. With tokio's, a stream that is not polled for want of budget would look full.
    let mut driver = unconstrained(Driver { engine, shared: shared.clone(), timer, is_closed: false });
    if let Some(closed) = (&mut driver).await {
        shared.end(Presence::Closed(closed));
        driver.await;
    }
}

/// Leaves nothing behind: streams end, and everybody who waits learns of it.
#[derive(Debug)]
struct End<P: Pattern> {
    engine: Arc<Mutex<Engine<P>>>,
    shared: Arc<Shared>,
}

impl<P: Pattern> Drop for End<P> {
    fn drop(&mut self) {
        self.shared.signal.end();
        *lock(&self.engine) = Engine::new(self.shared.clone(), P::default());
        self.shared.outbound.close();
        self.shared.inbound.close();
        drop(self.shared.detach_all());
        self.shared.end(Presence::Abandoned);
    }
}
