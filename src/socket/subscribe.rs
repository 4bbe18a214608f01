//! SUB: receives what it has subscribed to, from all its publishers (RFC 29).

use std::sync::Arc;

use crate::engine::pattern::{Incoming, Inward, Pattern, Reach, Unsent};
use crate::error::{BuildError, ProtocolError};
use crate::message::Message;
use crate::options::{Options, common_options};
use crate::socket::handle::{Core, common_methods};
use crate::socket::receiving::{conflate_option, receiving_close, receiving_methods, receiving_options};
use crate::socket::subscriptions::{Publishers, Subscriptions};
use crate::zmtp::encoder::Batch;
use crate::zmtp::run::Run;
use crate::zmtp::socket_type::SocketType;

/// Tells publishers what is wanted, and takes what comes.
#[derive(Debug, Default)]
pub(crate) struct Sub {
    subscriptions: Arc<Subscriptions>,
    publishers: Publishers,
}

impl Pattern for Sub {
    const SOCKET_TYPE: SocketType = SocketType::Sub;
    const UNSENT: Unsent = Unsent::Forget;

    fn attach(&mut self, slot: usize, reach: Reach<'_>) {
        self.publishers.join(slot, &self.subscriptions, reach);
    }

    fn detach(&mut self, slot: usize, _reach: Reach<'_>, _inward: &mut Vec<Inward>) {
        self.publishers.leave(slot, &self.subscriptions);
    }

    fn has_room(&self) -> bool {
        false
    }

    fn route(&mut self, batch: Batch, _reach: Reach<'_>) -> Option<Batch> {
        Some(batch)
    }

    fn receive(
        &mut self,
        _slot: usize,
        incoming: Incoming,
        reach: Reach<'_>,
        inward: &mut Vec<Inward>,
    ) -> Result<(), ProtocolError> {
        match incoming {
            // The newest one is kept: it must be one that the user wants.
            Incoming::Run(mut run) if reach.shared.options.conflate => {
                let mut message = Message::default();
                while run.next_into(&mut message) {
                    if self.subscriptions.admit(&message[0]) {
                        inward.push(Inward::Messages(Run::whole(std::mem::take(&mut message))));
                    } else {
                        reach.shared.counters.messages_received.add(1);
                    }
                }
            }
            // Whether it is wanted is looked at when the user takes it: only then is it certain.
            Incoming::Run(run) => inward.push(Inward::Messages(run)),
            Incoming::Subscribe(_) | Incoming::Cancel(_) => {}
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

/// Builds a [`SubSocket`] with other options than the defaults.
///
/// ```
/// use sinew::SubSocket;
///
/// let sub = SubSocket::builder().receive_high_water_mark(10_000).build()?;
/// # Ok::<(), sinew::BuildError>(())
/// ```
#[derive(Debug, Clone, Default)]
#[must_use]
pub struct SubBuilder {
    options: Options,
}

impl SubBuilder {
    receiving_options!();

    conflate_option!();

    /// Receives what does *not* match a subscription. The publisher must be told the same
    /// ([`PubBuilder::invert_matching`](crate::PubBuilder::invert_matching)). Default: off.
    pub fn invert_matching(mut self, invert: bool) -> Self {
        self.options.invert_matching = invert;
        self
    }

    common_options!();

    /// Makes the socket.
    ///
    /// # Errors
    ///
    /// [`BuildError`] names the option that makes no sense.
    pub fn build(self) -> Result<SubSocket, BuildError> {
        self.options.check()?;
        Ok(SubSocket::with(self.options))
    }
}

/// Receives from PUB and XPUB peers what it has subscribed to (RFC 29).
///
/// A subscription is a prefix that is compared, byte by byte, with the first frame of a message; without any nothing is
/// received, and the empty one is everything. Publishers send only what matches, and it is checked here once more:
/// nothing that does not match is received after [`unsubscribe`](Self::unsubscribe) has returned.
///
/// Subscriptions are the socket's state: every publisher is told all of them whenever it is connected, and none is lost to
/// a high-water mark. What a publisher sends before it has been told does not come; see
/// [`PubSocket::wait_subscribed`](crate::PubSocket::wait_subscribed) for how to begin without a loss.
///
/// Messages of one publisher keep their order. When the inbound queue is at a high-water mark publishers are not read any
/// more; what becomes of further messages then is the publisher's decision ([`SlowSubscriber`](crate::SlowSubscriber)).
///
/// Handles are cheap to clone and may be used from any task or thread. When the last one is dropped the socket closes.
///
/// ```
/// # tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(async {
/// use sinew::{PubSocket, SubSocket};
///
/// let publisher = PubSocket::new();
/// let endpoint = publisher.bind("tcp://127.0.0.1:*").await?;
///
/// let subscriber = SubSocket::new();
/// subscriber.subscribe("weather.");
/// subscriber.connect(&endpoint)?;
///
/// publisher.wait_subscribed("weather.oslo", 1).await?;
/// publisher.send(["weather.oslo", "snow"]).await?;
/// publisher.send(["traffic.oslo", "calm"]).await?; // nobody has subscribed to that
///
/// let message = subscriber.recv().await?;
/// assert_eq!(&message[1], b"snow");
/// # Ok::<(), Box<dyn std::error::Error>>(()) }).unwrap();
/// ```
#[derive(Debug, Clone)]
pub struct SubSocket {
    core: Arc<Core>,
    subscriptions: Arc<Subscriptions>,
}

impl Default for SubSocket {
    fn default() -> Self {
        Self::new()
    }
}

impl SubSocket {
    /// A socket with the default options. It needs a runtime only from the first `bind` or `connect` on.
    pub fn new() -> Self {
        Self::with(Options::default())
    }

    fn with(options: Options) -> Self {
        let subscriptions = Arc::new(Subscriptions::new(options.invert_matching));
        let pattern = Sub { subscriptions: subscriptions.clone(), publishers: Publishers::default() };
        let (core, _) = Core::with_pattern(options, pattern);
        Self { core: Arc::new(core.filtered(subscriptions.clone())), subscriptions }
    }

    /// Sets options first.
    pub fn builder() -> SubBuilder {
        SubBuilder::default()
    }

    common_methods!();

    /// Receives messages whose first frame begins with these bytes from now on, those that are queued already included.
    /// Counted: what has been subscribed to several times must be unsubscribed as often.
    ///
    /// A publisher may have limits; those here accept prefixes of 4,096 bytes and 250,000 of them unless told otherwise. One that
    /// is asked for more ends the connection, and again after each reconnection; only its own monitor says why.
    pub fn subscribe(&self, prefix: impl AsRef<[u8]>) {
        if self.subscriptions.subscribe(prefix.as_ref()) {
            self.core.shared.signal.wake();
        }
    }

    /// Takes one subscription back. When it was the last one for these bytes, and no other matches, such messages are not
    /// received any more once this has returned, not even those that are queued. Without a subscription it has no effect.
    pub fn unsubscribe(&self, prefix: impl AsRef<[u8]>) {
        if self.subscriptions.unsubscribe(prefix.as_ref()) {
            self.core.shared.signal.wake();
        }
    }

    receiving_methods!();

    receiving_close!();
}
