//! PULL: receives from all its peers, fairly (RFC 30).

use std::sync::Arc;

use crate::engine::pattern::{Incoming, Inward, Pattern, Reach, Unsent};
use crate::error::{BuildError, ProtocolError};
use crate::options::{Options, common_options};
use crate::socket::handle::{Core, common_methods};
use crate::socket::receiving::{conflate_option, receiving_close, receiving_methods, receiving_options};
use crate::zmtp::encoder::Batch;
use crate::zmtp::socket_type::SocketType;

/// Sends nothing.
#[derive(Debug, Default)]
pub(crate) struct Pull;

impl Pattern for Pull {
    const SOCKET_TYPE: SocketType = SocketType::Pull;
    const UNSENT: Unsent = Unsent::Forget;

    fn attach(&mut self, _slot: usize, _reach: Reach<'_>) {}

    fn detach(&mut self, _slot: usize, _reach: Reach<'_>, _inward: &mut Vec<Inward>) {}

    fn has_room(&self) -> bool {
        false
    }

    fn route(&mut self, batch: Batch, _reach: Reach<'_>) -> Option<Batch> {
        Some(batch)
    }

    #[inline]
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
}

/// Builds a [`PullSocket`] with other options than the defaults.
///
/// ```
/// use sinew::PullSocket;
///
/// let pull = PullSocket::builder()
///     .receive_high_water_mark(100)
///     .max_message_size(1 << 20)
///     .build()?;
/// # Ok::<(), sinew::BuildError>(())
/// ```
#[derive(Debug, Clone, Default)]
#[must_use]
pub struct PullBuilder {
    options: Options,
}

impl PullBuilder {
    receiving_options!();

    conflate_option!();

    common_options!();

    /// Makes the socket.
    ///
    /// # Errors
    ///
    /// [`BuildError`] names the option that makes no sense.
    pub fn build(self) -> Result<PullSocket, BuildError> {
        self.options.check()?;
        Ok(PullSocket::with(self.options))
    }
}

/// Receives messages from PUSH peers: one from each of them in turn, as far as they have any (RFC 30).
///
/// Messages of one peer keep their order. A message arrives whole or not at all, and one that has arrived can be
/// received after its peer has gone. When the inbound queue is at a high-water mark peers are not read any more, and so
/// made to wait.
///
/// Handles are cheap to clone and may be used from any task or thread: several tasks may receive, and each message goes
/// to one of them. When the last handle is dropped the socket closes.
///
/// ```
/// # tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(async {
/// use sinew::{PullSocket, PushSocket};
///
/// let pull = PullSocket::new();
/// let endpoint = pull.bind("ipc://*").await?;
///
/// let push = PushSocket::new();
/// push.connect(&endpoint)?;
/// push.send("work").await?;
///
/// let message = pull.recv().await?;
/// assert_eq!(&message[0], b"work");
/// # Ok::<(), Box<dyn std::error::Error>>(()) }).unwrap();
/// ```
#[derive(Debug, Clone)]
pub struct PullSocket {
    core: Arc<Core>,
}

impl Default for PullSocket {
    fn default() -> Self {
        Self::new()
    }
}

impl PullSocket {
    /// A socket with the default options. It needs a runtime only from the first `bind` or `connect` on.
    pub fn new() -> Self {
        Self::with(Options::default())
    }

    fn with(options: Options) -> Self {
        Self { core: Arc::new(Core::with_pattern(options, Pull).0) }
    }

    /// Sets options first.
    pub fn builder() -> PullBuilder {
        PullBuilder::default()
    }

    common_methods!();

    receiving_methods!();

    receiving_close!();
}
