//! XSUB: a SUB whose application sends the subscriptions as messages, for proxies (RFC 29).

use std::sync::Arc;

use crate::engine::drive::consult;
use crate::engine::pattern::{Incoming, Inward, Pattern, Reach, Unsent};
use crate::engine::state::Engine;
use crate::error::{BuildError, ProtocolError};
use crate::options::{Options, common_options};
use crate::socket::handle::{Core, common_methods};
use crate::socket::receiving::{receiving_methods, receiving_options};
use crate::socket::sending::{sending_methods, sending_options};
use crate::socket::subscriptions::{Publishers, Subscriptions};
use crate::sync::Mutex;
use crate::zmtp::encoder::{Batch, Part, Position};
use crate::zmtp::socket_type::SocketType;

/// Sends subscriptions and other messages to all publishers, and takes what comes.
#[derive(Debug, Default)]
pub(crate) struct XSub {
    subscriptions: Arc<Subscriptions>,
    publishers: Publishers,
}

impl XSub {
    /// Sends a message to every publisher that has room.
    fn send_upstream(&self, batch: &Batch, message: &Part, reach: &mut Reach<'_>) {
        let mark = reach.shared.options.send;
        if self.publishers.slots().is_empty() {
            reach.shared.counters.messages_unmatched.add(message.messages);
        }
        for slot in self.publishers.slots() {
            let sent = reach.peers.give(*slot, |peer, spare| {
                let admits = peer.out.admits(mark, message.payload);
                if admits {
                    let append = |tail: &mut Batch| tail.append(batch, message);
                    peer.out.add(append, || spare.pop().unwrap_or_default());
                } else {
                    peer.counts.dropped += 1;
                }
                admits
            });
            if sent == Some(false) {
                reach.shared.counters.messages_dropped_slow.add(1);
            }
        }
    }
}

impl Pattern for XSub {
    const SOCKET_TYPE: SocketType = SocketType::XSub;
    const UNSENT: Unsent = Unsent::Drop;

    fn attach(&mut self, slot: usize, reach: Reach<'_>) {
        self.publishers.join(slot, &self.subscriptions, reach);
    }

    fn detach(&mut self, slot: usize, _reach: Reach<'_>, _inward: &mut Vec<Inward>) {
        self.publishers.leave(slot, &self.subscriptions);
    }

    fn has_room(&self) -> bool {
        true
    }

    fn route(&mut self, mut batch: Batch, mut reach: Reach<'_>) -> Option<Batch> {
        let mut at = Position::default();
        while let Some(message) = batch.message_at(at) {
            match batch.first_frame(at) {
                ([1, prefix @ ..], true) => {
                    self.subscriptions.subscribe(prefix);
                    self.publishers.tell_news(&self.subscriptions, &mut reach);
                }
                ([0, prefix @ ..], true) => {
                    self.subscriptions.unsubscribe(prefix);
                    self.publishers.tell_news(&self.subscriptions, &mut reach);
                }
                _ => self.send_upstream(&batch, &message, &mut reach),
            }
            at = message.end;
        }
        batch.clear();
        Some(batch)
    }

    fn receive(
        &mut self,
        _slot: usize,
        incoming: Incoming,
        _reach: Reach<'_>,
        inward: &mut Vec<Inward>,
    ) -> Result<(), ProtocolError> {
        if let Incoming::Run(run) = incoming {
            inward.push(Inward::Messages(run));
        }
        Ok(())
    }

    fn dismissed(&mut self) -> Option<usize> {
        self.publishers.dismissed()
    }

    fn obey(&mut self, mut reach: Reach<'_>) {
        self.publishers.tell_news(&self.subscriptions, &mut reach);
    }
}

/// Builds an [`XSubSocket`] with other options than the defaults.
#[derive(Debug, Clone, Default)]
#[must_use]
pub struct XSubBuilder {
    options: Options,
}

impl XSubBuilder {
    receiving_options!();

    sending_options!("of upstream messages may be queued for each publisher before further ones are dropped");

    /// Forwards every cancellation, also when others of the same subscription are left. For a proxy in front of a
    /// publisher that wants to see them all. Default: off.
    pub fn verbose_unsubscribe(mut self, verbose: bool) -> Self {
        self.options.verbose_unsubscribe = verbose;
        self
    }

    common_options!();

    /// Makes the socket.
    ///
    /// # Errors
    ///
    /// [`BuildError`] names the option that makes no sense.
    pub fn build(self) -> Result<XSubSocket, BuildError> {
        self.options.check()?;
        Ok(XSubSocket::with(self.options))
    }
}

/// A SUB whose application sends the subscriptions as messages: the publishers' side of a proxy (RFC 29).
///
/// A message of one frame that begins with byte 1 subscribes to the rest of it at all publishers, one that begins with 0
/// cancels; the socket counts them, as a [`SubSocket`](crate::SubSocket) does, and tells every publisher that is
/// connected later. Any other message goes upstream to all publishers that have room for it, and reaches the application
/// of an XPUB. Nothing is filtered on receiving.
///
/// ```
/// # tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(async {
/// use sinew::{PubSocket, XSubSocket};
///
/// let publisher = PubSocket::new();
/// let endpoint = publisher.bind("tcp://127.0.0.1:*").await?;
/// let subscriber = XSubSocket::new();
/// subscriber.connect(&endpoint)?;
/// subscriber.send("\x01weather.").await?;
///
/// publisher.wait_subscribed("weather.oslo", 1).await?;
/// publisher.send(["weather.oslo", "snow"]).await?;
/// assert_eq!(&subscriber.recv().await?[1], b"snow");
/// # Ok::<(), Box<dyn std::error::Error>>(()) }).unwrap();
/// ```
#[derive(Debug, Clone)]
pub struct XSubSocket {
    core: Arc<Core>,
    engine: Arc<Mutex<Engine<XSub>>>,
    subscriptions: Arc<Subscriptions>,
}

impl Default for XSubSocket {
    fn default() -> Self {
        Self::new()
    }
}

impl XSubSocket {
    /// A socket with the default options. It needs a runtime only from the first `bind` or `connect` on.
    pub fn new() -> Self {
        Self::with(Options::default())
    }

    fn with(options: Options) -> Self {
        let subscriptions = Arc::new(Subscriptions::verbose(options.verbose_unsubscribe));
        let pattern = XSub { subscriptions: subscriptions.clone(), publishers: Publishers::default() };
        let (core, engine) = Core::with_pattern(options, pattern);
        Self { core: Arc::new(core), engine, subscriptions }
    }

    /// Sets options first.
    pub fn builder() -> XSubBuilder {
        XSubBuilder::default()
    }

    common_methods!();

    /// Subscribes without waiting for a place in the outbound queue, but after what was sent before. Counted, together with
    /// what is sent as messages.
    pub fn subscribe(&self, prefix: impl AsRef<[u8]>) {
        consult(&self.engine, |_, _| ());
        if self.subscriptions.subscribe(prefix.as_ref()) {
            self.core.shared.signal.wake();
        }
    }

    /// Takes one subscription back, after what was sent before.
    pub fn unsubscribe(&self, prefix: impl AsRef<[u8]>) {
        consult(&self.engine, |_, _| ());
        if self.subscriptions.unsubscribe(prefix.as_ref()) {
            self.core.shared.signal.wake();
        }
    }

    receiving_methods!();

    sending_methods!("Waits while the I/O task has not yet seen as many messages as the high-water mark allows.");
}
