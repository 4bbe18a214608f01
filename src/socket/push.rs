//! PUSH: sends each message to one of its peers, in turn (RFC 30).

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use futures::Sink;

use crate::engine::pattern::Pattern;
use crate::engine::peer::Peer;
use crate::engine::peers::Peers;
use crate::error::{BuildError, CloseError, SendError, TrySendError};
use crate::message::Message;
use crate::options::{Options, common_options};
use crate::queue::outbound::Refused;
use crate::routing::round_robin::RoundRobin;
use crate::socket::handle::{Core, RoomTicket, Sending, common_methods};
use crate::stats::Closed;
use crate::zmtp::encoder::Batch;
use crate::zmtp::socket_type::SocketType;

/// Deals messages to the peers that have room.
#[derive(Debug, Default)]
pub(crate) struct Push {
    ring: RoundRobin,
}

impl Pattern for Push {
    const SOCKET_TYPE: SocketType = SocketType::Push;
    const RECEIVES: bool = false;

    fn attach(&mut self, slot: usize) {
        self.ring.join(slot);
    }

    fn detach(&mut self, slot: usize) {
        self.ring.leave(slot);
    }

    fn full(&mut self, slot: usize) {
        self.ring.leave(slot);
    }

    fn writable(&mut self, slot: usize) {
        self.ring.join(slot);
    }

    fn has_room(&self) -> bool {
        !self.ring.is_empty()
    }

    fn route(&mut self, batch: Batch, peers: &mut Peers) -> Option<Batch> {
        if let Some(slot) = self.ring.only() {
            let mut batch = Some(batch);
            let has_room = peers.give(slot, |peer, _| {
                peer.give(batch.take().unwrap_or_default());
                peer.has_room()
            });
            if has_room != Some(true) {
                self.ring.leave(slot);
            }
            return batch;
        }
        let mut messages = batch.into_spans();
        while !messages.is_empty() {
            let Some(slot) = self.ring.current() else {
                return Some(messages.rest());
            };
            let deal = |peer: &mut Peer, spare: &mut Vec<Batch>| {
                peer.deal(&mut messages, || spare.pop().unwrap_or_default());
                peer.has_room()
            };
            match peers.give(slot, deal) {
                Some(true) => self.ring.next(),
                _ => self.ring.leave(slot),
            }
        }
        Some(messages.into_spare())
    }
}

/// Builds a [`PushSocket`] with other options than the defaults.
///
/// ```
/// use std::time::Duration;
/// use sinew::PushSocket;
///
/// let push = PushSocket::builder()
///     .send_high_water_mark(10_000)
///     .linger(Duration::from_secs(1))
///     .build()?;
/// # Ok::<(), sinew::BuildError>(())
/// ```
#[derive(Debug, Clone, Default)]
#[must_use]
pub struct PushBuilder {
    options: Options,
}

impl PushBuilder {
    /// How many messages may be queued before `send` waits. Default: 1,000; 0 means no limit.
    pub fn send_high_water_mark(mut self, messages: usize) -> Self {
        self.options.send.messages = messages;
        self
    }

    /// How many bytes of message bodies may be queued before `send` waits. Default: 64 MiB; 0 means no limit. A message
    /// that is larger than this is queued alone.
    pub fn send_high_water_mark_bytes(mut self, bytes: usize) -> Self {
        self.options.send.bytes = bytes;
        self
    }

    common_options!();

    /// Makes the socket.
    ///
    /// # Errors
    ///
    /// [`BuildError`] names the option that makes no sense.
    pub fn build(self) -> Result<PushSocket, BuildError> {
        self.options.check()?;
        Ok(PushSocket { core: Arc::new(Core::new(self.options)) })
    }
}

/// Sends messages to PULL peers: each message to one of them, in turn (RFC 30).
///
/// A message goes to the next peer that has room; without one it waits in the outbound queue, and when the queue has
/// reached its high-water mark `send` waits. Nothing is ever discarded: messages that a lost peer's connection had not
/// taken go back to the head of the queue for the others. What the kernel had taken may be lost with the peer.
///
/// Handles are cheap to clone and may be used from any task or thread. When the last one is dropped the socket closes in
/// the background, and goes on delivering for the linger time; [`close`](Self::close) does the same and says what became
/// of the messages. A runtime that ends first ends the socket, too.
///
/// ```
/// # tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(async {
/// use sinew::{PullSocket, PushSocket};
///
/// let pull = PullSocket::new();
/// let endpoint = pull.bind("tcp://127.0.0.1:*").await?;
///
/// let push = PushSocket::new();
/// push.connect(&endpoint)?;
/// push.send("Hello World!").await?;
/// push.send(["part one", "part two"]).await?;
///
/// assert_eq!(&pull.recv().await?[0], b"Hello World!");
/// assert_eq!(pull.recv().await?.frame_count(), 2);
/// push.close().await?;
/// # Ok::<(), Box<dyn std::error::Error>>(()) }).unwrap();
/// ```
#[derive(Debug, Clone)]
pub struct PushSocket {
    core: Arc<Core<Push>>,
}

impl Default for PushSocket {
    fn default() -> Self {
        Self::new()
    }
}

impl PushSocket {
    /// A socket with the default options. It needs a runtime only from the first `bind` or `connect` on.
    pub fn new() -> Self {
        Self { core: Arc::new(Core::new(Options::default())) }
    }

    /// Sets options first.
    pub fn builder() -> PushBuilder {
        PushBuilder::default()
    }

    common_methods!();

    /// Queues a message; waits while the outbound queue is at a high-water mark.
    ///
    /// Ready means queued, not delivered: the I/O task does the rest.
    ///
    /// # Errors
    ///
    /// [`SendError`] gives the message back: the socket is closed, or the message is too large for it.
    ///
    /// # Cancel safety
    ///
    /// Dropped before it is ready, the message was not sent, and whoever else waits is not disturbed. To keep the
    /// message, keep a clone of it.
    #[inline]
    pub fn send(&self, message: impl Into<Message>) -> SendMessage<'_> {
        SendMessage(self.core.send(message.into()))
    }

    /// Queues a message if that is possible at once.
    ///
    /// # Errors
    ///
    /// [`TrySendError`] gives the message back: a high-water mark is reached, the socket is closed, or the message is too
    /// large for it.
    pub fn try_send(&self, message: impl Into<Message>) -> Result<(), TrySendError> {
        let message = message.into();
        if !self.core.is_acceptable(&message) {
            return Err(TrySendError::TooLarge(message));
        }
        match self.core.offer_with_turn(&message) {
            Ok(()) => Ok(()),
            Err(Refused::Full) => Err(TrySendError::Full(message)),
            Err(Refused::Closed) => Err(TrySendError::Closed(message)),
        }
    }

    /// The socket as a [`Sink`] of messages. Flushed means queued, as for [`send`](Self::send); a sink that is dropped
    /// without a flush may lose the one message that it still held.
    ///
    /// ```
    /// # tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(async {
    /// use futures::{SinkExt, StreamExt, stream};
    ///
    /// let push = sinew::PushSocket::new();
    /// let mut numbers = stream::iter(["one", "two"]).map(|text| Ok(text.into()));
    /// push.sink().send_all(&mut numbers).await?;
    /// assert_eq!(push.stats().outbound_messages, 2);
    /// # Ok::<(), sinew::SendError>(()) }).unwrap();
    /// ```
    pub fn sink(&self) -> MessageSink<'_> {
        MessageSink { socket: self, held: None, ticket: RoomTicket::default() }
    }

    /// Closes the socket for all its handles: takes no more messages, hands what is queued to the kernel for up to the
    /// linger time, and ends all connections.
    ///
    /// What the kernel has taken is flushed as far as this socket can tell, and on its way to the peer also when the process
    /// ends; but a peer over IPC, or one that sends something meanwhile, might lose what it has not read. So this waits, for
    /// the linger time at most, until those peers have closed their side.
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

/// The future of [`PushSocket::send`]. Nothing is sent before it is polled.
#[derive(Debug)]
#[must_use = "nothing is sent unless the future is awaited"]
pub struct SendMessage<'a>(Sending<'a, Push>);

impl Future for SendMessage<'_> {
    type Output = Result<(), SendError>;

    #[inline]
    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        Pin::new(&mut self.0).poll(cx)
    }
}

/// A [`Sink`] of messages that borrows a [`PushSocket`]; see [`PushSocket::sink`].
#[derive(Debug)]
pub struct MessageSink<'a> {
    socket: &'a PushSocket,
    /// Accepted when there was room, which was too little for it, or which somebody else then took. Lost if the sink is
    /// dropped before it is flushed.
    held: Option<Message>,
    ticket: RoomTicket,
}

impl MessageSink<'_> {
    fn poll_held(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), SendError>> {
        while let Some(message) = &self.held {
            match self.socket.core.offer_with_turn(message) {
                Ok(()) => self.held = None,
                Err(Refused::Full) => {
                    let size = message.byte_len();
                    if self.ticket.poll(&self.socket.core, size, cx).is_pending() {
                        return Poll::Pending;
                    }
                }
                Err(Refused::Closed) => {
                    return Poll::Ready(self.held.take().map_or(Ok(()), |message| Err(SendError::Closed(message))));
                }
            }
        }
        Poll::Ready(Ok(()))
    }
}

impl Sink<Message> for MessageSink<'_> {
    type Error = SendError;

    /// Ready when a message is likely to find room.
    fn poll_ready(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Result<(), SendError>> {
        ready!(self.poll_held(cx))?;
        let this = &mut *self;
        if !this.socket.core.has_room() {
            this.socket.core.take_turn(true);
        }
        this.ticket.poll(&this.socket.core, 0, cx).map(Ok)
    }

    fn start_send(mut self: Pin<&mut Self>, message: Message) -> Result<(), SendError> {
        match self.socket.try_send(message) {
            Ok(()) => Ok(()),
            Err(TrySendError::Full(message)) => {
                self.held = Some(message);
                Ok(())
            }
            Err(TrySendError::Closed(message)) => Err(SendError::Closed(message)),
            Err(TrySendError::TooLarge(message)) => Err(SendError::TooLarge(message)),
        }
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Result<(), SendError>> {
        self.poll_held(cx)
    }

    fn poll_close(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Result<(), SendError>> {
        self.poll_held(cx)
    }
}

impl Drop for MessageSink<'_> {
    fn drop(&mut self) {
        self.ticket.leave(&self.socket.core);
    }
}
