//! What the handles of all socket types share: bind and connect, close, monitor, numbers, and the way to the queues.

use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32};

use futures::future;
use tokio::runtime;
use tracing::Instrument;

use crate::endpoint::{Endpoint, EndpointError};
use crate::engine::dial::dial;
use crate::engine::drive::Drive;
use crate::engine::listen::listen;
use crate::engine::pattern::Pattern;
use crate::engine::shared::{Attachment, AttachmentKind, Command, Presence, Shared};
use crate::engine::state::Engine;
use crate::error::{BindError, CloseError, ConnectError, DetachError, TryRecvError, WaitError};
use crate::message::Message;
use crate::monitor::{Event, Monitor, Peer, PeerStats};
use crate::options::Options;
use crate::socket::subscriptions::Subscriptions;
use crate::stats::{Closed, Stats};
use crate::sync::{Mutex, lock};
use crate::transport::Listener;

/// Whether the I/O task runs.
#[derive(Debug)]
enum Life {
    /// Nothing is attached yet, so there is nothing to do for it.
    New,
    /// In this runtime, and everything else of the socket with it.
    Started(runtime::Handle),
    Closing,
}

/// A socket without the methods of its type. Cloned handles share it; it closes when the last one is dropped.
#[derive(Debug)]
pub(crate) struct Core {
    pub(super) shared: Arc<Shared>,
    pub(super) engine: Arc<dyn Drive>,
    /// What a SUB lets through.
    filter: Option<Arc<Subscriptions>>,
    life: Mutex<Life>,
    /// Roughly counts calls of `send` and `recv`.
    pub(super) calls: AtomicU32,
    /// The next `send` lets others have a turn first.
    pub(super) gives_way: AtomicBool,
}

impl Core {
    /// A socket around an engine.
    pub(crate) fn new(shared: Arc<Shared>, engine: Arc<dyn Drive>) -> Self {
        Self {
            shared,
            engine,
            filter: None,
            life: Mutex::new(Life::New),
            calls: AtomicU32::new(0),
            gives_way: AtomicBool::new(false),
        }
    }

    /// A socket with this pattern, and its engine, for what only its type can do.
    pub(crate) fn with_pattern<P: Pattern>(options: Options, pattern: P) -> (Self, Arc<Mutex<Engine<P>>>) {
        let shared = Arc::new(Shared::new(options, P::SOCKET_TYPE));
        let engine = Arc::new(Mutex::new(Engine::new(shared.clone(), pattern)));
        (Self::new(shared, engine.clone()), engine)
    }

    /// Lets only those messages through to the user that have been subscribed to.
    pub(crate) fn filtered(mut self, subscriptions: Arc<Subscriptions>) -> Self {
        self.filter = Some(subscriptions);
        self
    }

    // --- endpoints --------------------------------------------------------------------------------------------------

    pub(crate) async fn bind(&self, requested: Endpoint) -> Result<Endpoint, BindError> {
        requested.check_bindable()?;
        let runtime = self.runtime().ok_or(BindError::NoRuntime)?;
        if self.is_closed() {
            return Err(BindError::Closed);
        }
        let (listener, resolved) = match Listener::bind(&requested, &self.shared.options, &runtime).await {
            Ok(bound) => bound,
            Err(error) => {
                let (endpoint, cause) = (requested, error.to_string());
                tracing::debug!(parent: &self.shared.span, %endpoint, %cause, "cannot listen");
                self.shared.reporter.report(|| Event::BindFailed { endpoint, cause });
                return Err(error);
            }
        };
        let id = self.shared.next_attachment();
        let listener = Arc::new(Mutex::new(Some(listener)));
        let attachment = || Attachment {
            id,
            kind: AttachmentKind::Bound,
            requested,
            resolved: resolved.clone(),
            listener: Some(listener.clone()),
            task: runtime.spawn(
                listen(self.shared.clone(), listener, resolved.clone(), id)
                    .instrument(tracing::debug_span!(parent: &self.shared.span, "bound", endpoint = %resolved)),
            ),
        };
        self.shared.attach(attachment).ok_or(BindError::Closed)?;
        tracing::debug!(parent: &self.shared.span, endpoint = %resolved, "listening");
        self.shared.reporter.report(|| Event::Listening { endpoint: resolved.clone() });
        self.start(&runtime);
        Ok(resolved)
    }

    pub(crate) fn connect(&self, endpoint: Endpoint) -> Result<(), ConnectError> {
        endpoint.check_connectable()?;
        let runtime = self.runtime().ok_or(ConnectError::NoRuntime)?;
        let id = self.shared.next_attachment();
        let attachment = || Attachment {
            id,
            kind: AttachmentKind::Connected,
            requested: endpoint.clone(),
            resolved: endpoint.clone(),
            listener: None,
            task: runtime.spawn(
                dial(self.shared.clone(), endpoint.clone(), id)
                    .instrument(tracing::debug_span!(parent: &self.shared.span, "connected", %endpoint)),
            ),
        };
        let attached = match self.engine.connects_once() {
            true => self.shared.attach_once(&endpoint, attachment),
            false => self.shared.attach(attachment),
        };
        attached.ok_or(ConnectError::Closed)?;
        self.start(&runtime);
        Ok(())
    }

    pub(crate) fn unbind(&self, endpoint: Endpoint) -> Result<(), DetachError> {
        self.detach(AttachmentKind::Bound, endpoint)
    }

    pub(crate) fn disconnect(&self, endpoint: Endpoint) -> Result<(), DetachError> {
        self.detach(AttachmentKind::Connected, endpoint)
    }

    fn detach(&self, kind: AttachmentKind, endpoint: Endpoint) -> Result<(), DetachError> {
        let gone = self.shared.detach(kind, &endpoint).ok_or(DetachError::Closed)?;
        if gone.is_empty() {
            return Err(DetachError::NotAttached(endpoint));
        }
        for attachment in gone {
            self.shared.signal.command(Command::Detach(attachment.id));
            self.shared.reporter.report(|| Event::Detached { endpoint: attachment.resolved.clone() });
        }
        Ok(())
    }

    /// Where the socket's tasks run: from the first attachment on always in the same runtime, whoever calls.
    fn runtime(&self) -> Option<runtime::Handle> {
        let current = runtime::Handle::try_current().ok()?;
        match &*lock(&self.life) {
            Life::Started(runtime) => Some(runtime.clone()),
            Life::New | Life::Closing => Some(current),
        }
    }

    /// Starts the I/O task with the first attachment.
    fn start(&self, runtime: &runtime::Handle) {
        let mut life = lock(&self.life);
        if matches!(*life, Life::New) {
            *life = Life::Started(runtime.clone());
            runtime.spawn(self.engine.clone().run(self.shared.clone()));
        }
    }

    // --- the end ----------------------------------------------------------------------------------------------------

    pub(crate) async fn close(&self) -> Result<Closed, CloseError> {
        self.begin_close();
        match self.shared.presence.wait_for(|presence| !presence.is_open()).await {
            Presence::Closed(closed) => Ok(closed),
            _ => Err(CloseError::RuntimeEnded),
        }
    }

    fn begin_close(&self) {
        let before = std::mem::replace(&mut *lock(&self.life), Life::Closing);
        if matches!(before, Life::Closing) {
            return;
        }
        self.shared.outbound.close();
        self.shared.inbound.close();
        if matches!(before, Life::Started(_)) {
            self.shared.signal.command(Command::Close);
            return;
        }
        // Nothing was ever attached, unless it was in this very moment.
        drop(self.shared.detach_all());
        let (unsent, _) = self.shared.outbound.depth();
        let unsent = unsent as u64;
        self.shared.end(Presence::Closed(Closed { unsent, ..Closed::default() }));
    }

    pub(crate) fn is_closed(&self) -> bool {
        matches!(*lock(&self.life), Life::Closing) || !self.shared.presence.get().is_open()
    }

    /// Waits until the socket is closed.
    pub(crate) async fn closed(&self) {
        self.shared.presence.wait_for(|presence| !presence.is_open()).await;
    }

    // --- what it shows ----------------------------------------------------------------------------------------------

    pub(crate) async fn wait_connected(&self, count: usize) -> Result<(), WaitError> {
        let is_reached = |presence| !matches!(presence, Presence::Open { peers } if peers < count);
        match self.shared.presence.wait_for(is_reached).await {
            Presence::Open { .. } => Ok(()),
            _ => Err(WaitError::Closed),
        }
    }

    /// Waits until `is_reached`, which depends on subscriptions of peers.
    pub(crate) async fn wait_for_subscriptions(&self, is_reached: impl Fn() -> bool) -> Result<(), WaitError> {
        let changes = &self.shared.subscription_changes;
        loop {
            if self.is_closed() {
                return Err(WaitError::Closed);
            }
            // Seen before looking: a change meanwhile is not lost.
            let seen = changes.get();
            if is_reached() {
                return Ok(());
            }
            future::select(pin!(changes.wait_for(|now| now != seen)), pin!(self.closed())).await;
        }
    }

    pub(crate) fn monitor(&self) -> Monitor {
        let monitor = self.shared.reporter.subscribe(!self.shared.presence.get().is_open());
        self.shared.signal.observe();
        monitor
    }

    pub(crate) fn stats(&self) -> Stats {
        let counters = &self.shared.counters;
        let messages_dropped_slow = counters.messages_dropped_slow.get();
        let messages_dropped_lost = counters.messages_dropped_lost.get();
        let messages_dropped_replaced = self.shared.inbound.replaced() as u64;
        let messages_dropped_unread = counters.messages_dropped_unread.get();
        let (outbound_messages, outbound_bytes) = self.shared.outbound.depth();
        let (inbound_messages, inbound_bytes) = self.shared.inbound.depth();
        Stats {
            peers: match self.shared.presence.get() {
                Presence::Open { peers } => peers,
                _ => 0,
            },
            messages_sent: counters.messages_sent.get(),
            bytes_sent: counters.bytes_sent.get(),
            messages_received: counters.messages_received.get(),
            bytes_received: counters.bytes_received.get(),
            messages_returned: counters.messages_returned.get(),
            messages_refused: counters.messages_refused.get(),
            messages_dropped: messages_dropped_slow
                + messages_dropped_lost
                + messages_dropped_replaced
                + messages_dropped_unread,
            messages_dropped_slow,
            messages_dropped_lost,
            messages_dropped_replaced,
            messages_dropped_unread,
            messages_unmatched: counters.messages_unmatched.get() + self.shared.outbound.unmatched(),
            connects_retried: counters.connects_retried.get(),
            handshakes_failed: counters.handshakes_failed.get(),
            connections_refused: counters.connections_refused.get(),
            outbound_messages,
            outbound_bytes,
            unfinished_bytes: counters.unfinished_bytes.get(),
            inbound_messages,
            inbound_bytes,
        }
    }

    pub(crate) fn watch(&self) -> (Vec<PeerStats>, Monitor) {
        let (mut peers, mut monitor) = (Vec::new(), None);
        // Both while the engine rests: nothing that concerns a peer happens in between.
        self.engine.rest(&mut |stats| {
            peers = stats;
            monitor = Some(self.monitor());
        });
        (peers, monitor.unwrap_or_else(|| self.monitor()))
    }

    pub(crate) fn peers(&self) -> Vec<PeerStats> {
        let mut peers = Vec::new();
        self.engine.rest(&mut |stats| peers = stats);
        peers
    }

    // --- sending ----------------------------------------------------------------------------------------------------

    /// Whether peers with the same limits accept a message. One that they refuse would cost one connection after the
    /// other.
    #[inline]
    pub(crate) fn is_acceptable(&self, message: &Message) -> bool {
        self.shared.options.admits(message)
    }

    /// Whether a message without a body would find room.
    pub(crate) fn has_room(&self) -> bool {
        self.shared.outbound.has_room()
    }

    // --- receiving --------------------------------------------------------------------------------------------------

    /// Moves the next message into `slot` if there is one.
    #[inline]
    pub(crate) fn pop_into(&self, slot: &mut Message) -> Result<(), TryRecvError> {
        loop {
            self.shared.inbound.pop_into(slot, || self.shared.signal.wake())?;
            if self.lets_through(slot) {
                return Ok(());
            }
        }
    }

    /// Takes the next message if there is one, and says who has sent it.
    pub(crate) fn pop_from(&self) -> Result<(Message, Arc<Peer>), TryRecvError> {
        loop {
            let mut message = Message::default();
            let from = self.shared.inbound.pop_from(&mut message, || self.shared.signal.wake())?;
            if self.lets_through(&message) {
                return Ok((message, from));
            }
        }
    }

    /// Takes up to `max` messages, as far as there are any.
    pub(crate) fn pop_many(&self, out: &mut Vec<Message>, max: usize) -> Result<usize, TryRecvError> {
        let before = out.len();
        loop {
            self.shared.inbound.pop_many(out, max, || self.shared.signal.wake())?;
            if self.filter.is_some() {
                let mut kept = before;
                for index in before..out.len() {
                    if self.lets_through(&out[index]) {
                        out.swap(kept, index);
                        kept += 1;
                    }
                }
                out.truncate(kept);
            }
            if out.len() > before {
                return Ok(out.len() - before);
            }
        }
    }

    #[inline]
    fn lets_through(&self, message: &Message) -> bool {
        match &self.filter {
            Some(subscriptions) => subscriptions.admit(&message[0]),
            None => true,
        }
    }

    /// There was no message. Takes a turn of the engine, which may bring one; says whether to look again.
    pub(crate) fn fetch(&self) -> bool {
        self.take_turn(false)
    }

    /// Looks for bytes that come until there is a message, or for so long as the options say.
    #[cold]
    pub(super) fn spin(&self) {
        let start = std::time::Instant::now();
        while self.shared.inbound.is_awaited() && start.elapsed() < self.shared.options.spin {
            if !self.engine.read_now() {
                std::hint::spin_loop();
            }
        }
    }
}

impl Drop for Core {
    fn drop(&mut self) {
        self.begin_close();
    }
}

/// Reads an endpoint from whatever the user gave.
pub(crate) fn endpoint<E>(endpoint: E) -> Result<Endpoint, EndpointError>
where
    E: TryInto<Endpoint>,
    E::Error: Into<EndpointError>,
{
    endpoint.try_into().map_err(Into::into)
}

/// The methods that the handles of all socket types have, around a field `core: Arc<Core<_>>`.
macro_rules! common_methods {
    () => {
        /// Listens on an endpoint; gives it back with nothing left to choose: the port for `*`, the path for `ipc://*`.
        ///
        /// A socket may be bound and connected to any number of endpoints, in any order. `tcp://*:port` is every
        /// interface, IPv6 and IPv4. A stale IPC file is replaced, a live one is in use; the file is removed when the
        /// socket is closed. The connections themselves are accepted in the background.
        ///
        /// # Errors
        ///
        /// [`BindError`](crate::BindError): the endpoint is malformed, in use or refused by the system, or the socket is closed.
        ///
        /// # Panics
        ///
        /// If the current tokio runtime was built without I/O or time.
        ///
        /// # Cancel safety
        ///
        /// Dropped before it is ready, the socket listens or it does not; it never half does.
        pub async fn bind<E>(&self, endpoint: E) -> Result<$crate::endpoint::Endpoint, $crate::error::BindError>
        where
            E: TryInto<$crate::endpoint::Endpoint>,
            E::Error: Into<$crate::endpoint::EndpointError>,
        {
            self.core.bind($crate::socket::handle::endpoint(endpoint)?).await
        }

        /// Connects to an endpoint, in the background and for as long as the socket is open: whoever is to be reached
        /// there need not be up yet, and may come and go. Names are resolved anew at every attempt.
        ///
        /// A second call with the same endpoint makes a second connection with PUSH and PULL. With publishers and subscribers
        /// it changes nothing: everything would come twice.
        ///
        /// # Errors
        ///
        /// [`ConnectError`](crate::ConnectError): the endpoint is malformed or a wildcard, or the socket is closed. That nobody can be
        /// reached is no error; the monitor shows it.
        ///
        /// # Panics
        ///
        /// If the current tokio runtime was built without I/O or time.
        pub fn connect<E>(&self, endpoint: E) -> Result<(), $crate::error::ConnectError>
        where
            E: TryInto<$crate::endpoint::Endpoint>,
            E::Error: Into<$crate::endpoint::EndpointError>,
        {
            self.core.connect($crate::socket::handle::endpoint(endpoint)?)
        }

        /// Stops listening on an endpoint and closes the connections that were accepted there. The endpoint is the one
        /// that `bind` was given or the one that it returned; what was bound several times by the same text, a wildcard, is
        /// unbound altogether. When this returns the address is free again.
        ///
        /// # Errors
        ///
        /// [`DetachError`](crate::DetachError): the socket does not listen there, or is closed.
        ///
        /// # Cancel safety
        ///
        /// Once polled the socket stops listening, also if the future is dropped then.
        pub async fn unbind<E>(&self, endpoint: E) -> Result<(), $crate::error::DetachError>
        where
            E: TryInto<$crate::endpoint::Endpoint>,
            E::Error: Into<$crate::endpoint::EndpointError>,
        {
            self.core.unbind($crate::socket::handle::endpoint(endpoint)?)
        }

        /// Closes the connection to an endpoint, or all of them if there are several, and makes no new one.
        ///
        /// # Errors
        ///
        /// [`DetachError`](crate::DetachError): the socket is not connected to it by [`connect`](Self::connect), or is closed.
        pub fn disconnect<E>(&self, endpoint: E) -> Result<(), $crate::error::DetachError>
        where
            E: TryInto<$crate::endpoint::Endpoint>,
            E::Error: Into<$crate::endpoint::EndpointError>,
        {
            self.core.disconnect($crate::socket::handle::endpoint(endpoint)?)
        }

        /// Waits until at least `count` peers are connected and have finished the handshake.
        ///
        /// # Errors
        ///
        /// [`WaitError::Closed`](crate::WaitError::Closed) if the socket is or gets closed.
        ///
        /// # Cancel safety
        ///
        /// Waiting changes nothing.
        pub async fn wait_connected(&self, count: usize) -> Result<(), $crate::error::WaitError> {
            self.core.wait_connected(count).await
        }

        pub(crate) fn core(&self) -> &std::sync::Arc<$crate::socket::handle::Core> {
            &self.core
        }

        /// A stream of what happens to the connections from now on.
        pub fn monitor(&self) -> $crate::monitor::Monitor {
            self.core.monitor()
        }

        /// The peers that are connected and have finished the handshake, and a stream of what happens from then on, with no
        /// gap in between: a peer that is in neither is still in the handshake, and its success will be in the stream.
        pub fn watch(&self) -> (Vec<$crate::monitor::PeerStats>, $crate::monitor::Monitor) {
            self.core.watch()
        }

        /// The peers that are connected and have finished the handshake, each with its numbers at this moment.
        pub fn peers(&self) -> Vec<$crate::monitor::PeerStats> {
            self.core.peers()
        }

        /// The socket's numbers at this moment.
        pub fn stats(&self) -> $crate::stats::Stats {
            self.core.stats()
        }
    };
}

pub(crate) use common_methods;
