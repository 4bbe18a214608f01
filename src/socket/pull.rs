//! PULL: receives from all its peers, fairly (RFC 30).

use std::future::Future;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use futures::Stream;
use tokio::task::coop::consume_budget;

use crate::engine::pattern::Pattern;
use crate::engine::peers::Peers;
use crate::error::{BuildError, CloseError, RecvError, TryRecvError};
use crate::message::Message;
use crate::options::{Options, common_options};
use crate::socket::handle::{Core, MessageTicket, common_methods};
use crate::stats::Closed;
use crate::zmtp::encoder::Batch;
use crate::zmtp::socket_type::SocketType;

/// Sends nothing.
#[derive(Debug, Default)]
pub(crate) struct Pull;

impl Pattern for Pull {
    const SOCKET_TYPE: SocketType = SocketType::Pull;
    const RECEIVES: bool = true;

    fn attach(&mut self, _slot: usize) {}

    fn detach(&mut self, _slot: usize) {}

    fn full(&mut self, _slot: usize) {}

    fn writable(&mut self, _slot: usize) {}

    fn has_room(&self) -> bool {
        false
    }

    fn route(&mut self, batch: Batch, _peers: &mut Peers) -> Option<Batch> {
        Some(batch)
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
    /// How many received messages may be queued before peers are made to wait. Default: 1,000; 0 means no limit.
    pub fn receive_high_water_mark(mut self, messages: usize) -> Self {
        self.options.receive.messages = messages;
        self
    }

    /// How many bytes of received message bodies may be queued before peers are made to wait. Default: 64 MiB; 0 means
    /// no limit. A message that is larger than this is queued alone.
    pub fn receive_high_water_mark_bytes(mut self, bytes: usize) -> Self {
        self.options.receive.bytes = bytes;
        self
    }

    common_options!();

    /// Makes the socket.
    ///
    /// # Errors
    ///
    /// [`BuildError`] names the option that makes no sense.
    pub fn build(self) -> Result<PullSocket, BuildError> {
        self.options.check()?;
        Ok(PullSocket { core: Arc::new(Core::new(self.options)) })
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
    core: Arc<Core<Pull>>,
}

impl Default for PullSocket {
    fn default() -> Self {
        Self::new()
    }
}

impl PullSocket {
    /// A socket with the default options. It needs a runtime only from the first `bind` or `connect` on.
    pub fn new() -> Self {
        Self { core: Arc::new(Core::new(Options::default())) }
    }

    /// Sets options first.
    pub fn builder() -> PullBuilder {
        PullBuilder::default()
    }

    common_methods!();

    /// Takes the next message; waits until there is one.
    ///
    /// # Errors
    ///
    /// [`RecvError::Closed`] once the socket is closed.
    ///
    /// # Cancel safety
    ///
    /// Dropped before it is ready, no message is lost: none has been taken.
    pub async fn recv(&self) -> Result<Message, RecvError> {
        if self.core.is_due() {
            consume_budget().await;
        }
        loop {
            {
                let mut message = Message::default();
                match self.core.pop_into(&mut message) {
                    Ok(()) => return Ok(message),
                    Err(TryRecvError::Closed) => return Err(RecvError::Closed),
                    Err(TryRecvError::Empty) => {}
                }
            }
            self.core.readable().await?;
        }
    }

    /// Takes the next message if there is one.
    ///
    /// # Errors
    ///
    /// [`TryRecvError`]: there is none, or the socket is closed.
    pub fn try_recv(&self) -> Result<Message, TryRecvError> {
        let mut message = Message::default();
        match self.core.pop_into(&mut message) {
            Err(TryRecvError::Empty) if self.core.fetch() => self.core.pop_into(&mut message)?,
            other => other?,
        }
        Ok(message)
    }

    /// Waits until there is a message, and takes what is there, up to `max` messages, to the end of `messages`; gives
    /// their number. Cheaper than as many calls of [`recv`](Self::recv). With a `max` of 0 it returns 0 at once.
    ///
    /// # Errors
    ///
    /// [`RecvError::Closed`] once the socket is closed.
    ///
    /// # Cancel safety
    ///
    /// Dropped before it is ready, no message is lost: none has been taken.
    ///
    /// ```
    /// # tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(async {
    /// # let (pull, push) = (sinew::PullSocket::new(), sinew::PushSocket::new());
    /// # push.connect(&pull.bind("ipc://*").await?)?;
    /// # push.send("work").await?;
    /// let mut messages = Vec::new();
    /// let count = pull.recv_many(&mut messages, 100).await?;
    /// assert_eq!(count, messages.len());
    /// # Ok::<(), Box<dyn std::error::Error>>(()) }).unwrap();
    /// ```
    pub async fn recv_many(&self, messages: &mut Vec<Message>, max: usize) -> Result<usize, RecvError> {
        if max == 0 {
            return Ok(0);
        }
        consume_budget().await;
        loop {
            match self.core.pop_many(messages, max) {
                Ok(count) => return Ok(count),
                Err(TryRecvError::Closed) => return Err(RecvError::Closed),
                Err(TryRecvError::Empty) => self.core.readable().await?,
            }
        }
    }

    /// The messages as a [`Stream`], which ends when the socket is closed. Dropping it loses no message.
    ///
    /// ```
    /// # tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(async {
    /// # let (pull, push) = (sinew::PullSocket::new(), sinew::PushSocket::new());
    /// # push.connect(&pull.bind("ipc://*").await?)?;
    /// # push.send("work").await?;
    /// use futures::StreamExt;
    ///
    /// let mut messages = pull.stream();
    /// while let Some(message) = messages.next().await {
    ///     println!("{message:?}");
    /// #   break;
    /// }
    /// # Ok::<(), Box<dyn std::error::Error>>(()) }).unwrap();
    /// ```
    pub fn stream(&self) -> Messages<'_> {
        Messages { socket: self, ticket: MessageTicket::default() }
    }

    /// Closes the socket for all its handles: ends all connections, and discards messages that nobody has received; their
    /// number is in the result.
    ///
    /// # Errors
    ///
    /// [`CloseError`] if the runtime of the socket ended before.
    ///
    /// # Cancel safety
    ///
    /// Once polled the socket closes, also if the future is dropped then. A later call gives the same result.
    pub async fn close(&self) -> Result<Closed, CloseError> {
        self.core.close().await
    }
}

/// A [`Stream`] of messages that borrows a [`PullSocket`]; see [`PullSocket::stream`].
#[derive(Debug)]
pub struct Messages<'a> {
    socket: &'a PullSocket,
    ticket: MessageTicket,
}

impl Stream for Messages<'_> {
    type Item = Message;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Message>> {
        let this = &mut *self;
        if this.socket.core.is_due() {
            ready!(pin!(consume_budget()).poll(cx));
        }
        loop {
            match this.socket.try_recv() {
                Ok(message) => return Poll::Ready(Some(message)),
                Err(TryRecvError::Closed) => return Poll::Ready(None),
                Err(TryRecvError::Empty) => {
                    if ready!(this.ticket.poll(&this.socket.core, cx)).is_err() {
                        return Poll::Ready(None);
                    }
                }
            }
        }
    }
}

impl Drop for Messages<'_> {
    fn drop(&mut self) {
        self.ticket.leave(&self.socket.core);
    }
}
