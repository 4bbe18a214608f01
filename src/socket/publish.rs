//! PUB: sends each message to those who have subscribed to it (RFC 29).

use std::sync::Arc;

use crate::engine::state::Engine;
use crate::error::BuildError;
use crate::options::{Options, common_options};
use crate::socket::handle::{Core, common_methods};
use crate::socket::publisher::{Publisher, publisher_methods, publisher_options};
use crate::socket::sending::{sending_methods, sending_options};
use crate::sync::Mutex;

/// Builds a [`PubSocket`] with other options than the defaults.
///
/// ```
/// use sinew::{PubSocket, SlowSubscriber};
///
/// let publisher = PubSocket::builder()
///     .send_high_water_mark(10_000)
///     .slow_subscriber(SlowSubscriber::DropOldest)
///     .build()?;
/// # Ok::<(), sinew::BuildError>(())
/// ```
#[derive(Debug, Clone, Default)]
#[must_use]
pub struct PubBuilder {
    options: Options,
}

impl PubBuilder {
    sending_options!("may be queued for each subscriber, and as many again on their way to be matched");

    publisher_options!();

    common_options!();

    /// Makes the socket.
    ///
    /// # Errors
    ///
    /// [`BuildError`] names the option that makes no sense.
    pub fn build(self) -> Result<PubSocket, BuildError> {
        self.options.check()?;
        Ok(PubSocket::with(self.options))
    }
}

/// Sends each message to those SUB and XSUB peers that have subscribed to it (RFC 29).
///
/// A peer has subscribed to a message if the first frame begins with a prefix that it has subscribed to. A message is
/// encoded once, however many get it, and what matching costs depends on the topic's length and on the number of matches
/// alone. A message that nobody has subscribed to is dropped and counted
/// ([`messages_unmatched`](crate::Stats::messages_unmatched)), in nearly all cases by `send` itself: it waits for no room then.
/// (While peers have subscribed to prefixes of more than eight different lengths it goes through the queue first.)
///
/// Each subscriber has a queue of its own with the high-water marks. What happens to messages for one that is too slow is
/// the socket's [`SlowSubscriber`] policy: by default they are dropped, counted for the socket and for the peer
/// ([`peers`](Self::peers)), and the monitor tells when that begins and ends. The others are not slowed by it.
///
/// What is sent before a subscription has arrived does not reach that subscriber. [`wait_subscribed`](Self::wait_subscribed)
/// waits for it; nobody needs to sleep.
///
/// Handles are cheap to clone and may be used from any task or thread. When the last one is dropped the socket closes in
/// the background, and goes on delivering for the linger time; [`close`](Self::close) does the same and says what became
/// of the messages.
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
/// assert_eq!(&subscriber.recv().await?[1], b"snow");
/// # Ok::<(), Box<dyn std::error::Error>>(()) }).unwrap();
/// ```
///
/// [`SlowSubscriber`]: crate::SlowSubscriber
#[derive(Debug, Clone)]
pub struct PubSocket {
    core: Arc<Core>,
    engine: Arc<Mutex<Engine<Publisher<false>>>>,
}

impl Default for PubSocket {
    fn default() -> Self {
        Self::new()
    }
}

impl PubSocket {
    /// A socket with the default options. It needs a runtime only from the first `bind` or `connect` on.
    pub fn new() -> Self {
        Self::with(Options::default())
    }

    fn with(options: Options) -> Self {
        let (core, engine) = Core::with_pattern(options, Publisher::default());
        Self { core: Arc::new(core), engine }
    }

    /// Sets options first.
    pub fn builder() -> PubBuilder {
        PubBuilder::default()
    }

    common_methods!();

    publisher_methods!();

    sending_methods!(
        "Waits while the I/O task has not yet matched as many messages as the high-water mark allows. It never waits for a"
        "subscriber, unless the policy is [`SlowSubscriber::Wait`](crate::SlowSubscriber::Wait). What nobody has subscribed to is"
        "dropped, nearly always without waiting."
    );
}
