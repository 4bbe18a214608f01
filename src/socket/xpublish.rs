//! XPUB: a PUB whose application sees the subscriptions, and may decide on them (RFC 29).

use std::sync::Arc;

use bytes::Bytes;

use crate::engine::drive::consult;
use crate::engine::state::Engine;
use crate::error::{BuildError, RecvError, TrySendError};
use crate::message::Message;
use crate::monitor::{Peer, PeerId};
use crate::options::{Options, common_options};
use crate::socket::handle::{Core, common_methods};
use crate::socket::publisher::{Publisher, publisher_methods, publisher_options};
use crate::socket::receiving::{self, receiving_methods, receiving_options};
use crate::socket::sending::{sending_methods, sending_options};
use crate::sync::Mutex;

/// Builds an [`XPubSocket`] with other options than the defaults.
///
/// ```
/// use sinew::{SlowSubscriber, XPubSocket};
///
/// let publisher = XPubSocket::builder()
///     .verbose(true)
///     .welcome_message("hello")
///     .slow_subscriber(SlowSubscriber::Wait)
///     .build()?;
/// # Ok::<(), sinew::BuildError>(())
/// ```
#[derive(Debug, Clone, Default)]
#[must_use]
pub struct XPubBuilder {
    options: Options,
}

impl XPubBuilder {
    sending_options!("may be queued for each subscriber, and as many again on their way to be matched");

    receiving_options!();

    publisher_options!();

    /// Reports every subscription, also to what has been subscribed to already. Default: only the first of each prefix.
    pub fn verbose(mut self, verbose: bool) -> Self {
        self.options.verbose = verbose;
        self
    }

    /// Reports every subscription and every cancellation. Default: only the first and the last of each prefix.
    pub fn verboser(mut self, verboser: bool) -> Self {
        self.options.verboser = verboser;
        self
    }

    /// Only reports what peers ask for, all of it; the application decides what they get, with
    /// [`subscribe`](XPubSocket::subscribe) and [`unsubscribe`](XPubSocket::unsubscribe). Default: off.
    pub fn manual(mut self, manual: bool) -> Self {
        self.options.manual = manual;
        self
    }

    /// A message that every new peer gets first, whatever it subscribes to. (A SUB lets it through only if it has
    /// subscribed to it.) Default: none.
    pub fn welcome_message(mut self, message: impl Into<Message>) -> Self {
        self.options.welcome = Some(message.into());
        self
    }

    common_options!();

    /// Makes the socket.
    ///
    /// # Errors
    ///
    /// [`BuildError`] names the option that makes no sense.
    pub fn build(self) -> Result<XPubSocket, BuildError> {
        self.options.check()?;
        Ok(XPubSocket::with(self.options))
    }
}

/// What an XPUB receives.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum XPubEvent {
    /// A peer has subscribed.
    Subscribed {
        /// The peer.
        peer: Arc<Peer>,
        /// The prefix.
        topic: Bytes,
    },
    /// A peer has cancelled a subscription, or has gone with it.
    Cancelled {
        /// The peer.
        peer: Arc<Peer>,
        /// The prefix.
        topic: Bytes,
    },
    /// A peer has sent a message of its own.
    Message {
        /// The peer.
        peer: Arc<Peer>,
        /// The message.
        message: Message,
    },
}

impl XPubEvent {
    fn new(message: Message, peer: Arc<Peer>) -> Self {
        if message.frame_count() > 1 {
            return Self::Message { peer, message };
        }
        let topic = |message: Message| message.into_frames().swap_remove(0).into_bytes().slice(1..);
        match message[0].first() {
            Some(1) => Self::Subscribed { peer, topic: topic(message) },
            Some(0) => Self::Cancelled { peer, topic: topic(message) },
            _ => Self::Message { peer, message },
        }
    }
}

/// A [`PubSocket`](crate::PubSocket) whose application sees the subscriptions (RFC 29).
///
/// They are received as messages: the byte 1 and the prefix for the first subscription to a prefix, the byte 0 and the
/// prefix when the last one is cancelled or its peer has gone. [`recv_event`](Self::recv_event) gives them as typed
/// values that name the peer. Messages that peers send upstream are received as well.
///
/// ```
/// # tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(async {
/// use sinew::{SubSocket, XPubEvent, XPubSocket};
///
/// let publisher = XPubSocket::new();
/// let endpoint = publisher.bind("tcp://127.0.0.1:*").await?;
///
/// let subscriber = SubSocket::new();
/// subscriber.subscribe("weather.");
/// subscriber.connect(&endpoint)?;
///
/// let XPubEvent::Subscribed { topic, .. } = publisher.recv_event().await? else { panic!() };
/// assert_eq!(topic, "weather.");
/// publisher.send(["weather.oslo", "snow"]).await?;
/// assert_eq!(&subscriber.recv().await?[1], b"snow");
/// # Ok::<(), Box<dyn std::error::Error>>(()) }).unwrap();
/// ```
#[derive(Debug, Clone)]
pub struct XPubSocket {
    core: Arc<Core>,
    engine: Arc<Mutex<Engine<Publisher<true>>>>,
}

impl Default for XPubSocket {
    fn default() -> Self {
        Self::new()
    }
}

impl XPubSocket {
    /// A socket with the default options. It needs a runtime only from the first `bind` or `connect` on.
    pub fn new() -> Self {
        Self::with(Options::default())
    }

    fn with(options: Options) -> Self {
        let (core, engine) = Core::with_pattern(options, Publisher::default());
        Self { core: Arc::new(core), engine }
    }

    /// Sets options first.
    pub fn builder() -> XPubBuilder {
        XPubBuilder::default()
    }

    common_methods!();

    publisher_methods!();

    /// Subscribes a peer to a prefix, at once: what is sent from now on reaches it. For
    /// [`manual`](XPubBuilder::manual) sockets; has no effect if the peer has gone.
    pub fn subscribe(&self, peer: PeerId, prefix: impl AsRef<[u8]>) {
        consult(&self.engine, |publisher, reach| publisher.apply(peer, true, prefix.as_ref(), &reach));
    }

    /// Takes a subscription of a peer back, at once.
    pub fn unsubscribe(&self, peer: PeerId, prefix: impl AsRef<[u8]>) {
        consult(&self.engine, |publisher, reach| publisher.apply(peer, false, prefix.as_ref(), &reach));
    }

    /// Sends a message to one peer alone, whatever it has subscribed to, behind everything that was sent before.
    ///
    /// # Errors
    ///
    /// [`TrySendError`] gives the message back: the peer's queue is at a high-water mark, the peer has gone, the socket is
    /// closed, or the message is too large for it.
    pub fn send_to(&self, peer: PeerId, message: impl Into<Message>) -> Result<(), TrySendError> {
        let message = message.into();
        if !self.core.is_acceptable(&message) {
            return Err(TrySendError::TooLarge(message));
        }
        if self.core.is_closed() {
            return Err(TrySendError::Closed(message));
        }
        let sent = consult(&self.engine, |publisher, mut reach| publisher.send_to(peer, message, &mut reach));
        self.core.shared.signal.wake();
        sent
    }

    /// Receives the next message as what it means, with the peer that has sent it.
    ///
    /// # Errors
    ///
    /// [`RecvError::Closed`] once the socket is closed.
    ///
    /// # Cancel safety
    ///
    /// Dropped before it is ready, no message is lost: none has been taken.
    pub async fn recv_event(&self) -> Result<XPubEvent, RecvError> {
        let (message, peer) = receiving::recv_from(&self.core).await?;
        Ok(XPubEvent::new(message, peer))
    }

    receiving_methods!();

    sending_methods!(
        "Waits while the I/O task has not yet matched as many messages as the high-water mark allows. It never waits for a"
        "subscriber, unless the policy is [`SlowSubscriber::Wait`](crate::SlowSubscriber::Wait). What nobody has subscribed to is"
        "dropped, nearly always without waiting."
    );
}
