//! What all sending sockets share: `send`, `try_send` and the sink.

use std::future::Future;
use std::pin::{Pin, pin};
use std::task::{Context, Poll, ready};

use futures::Sink;
use tokio::task::coop::consume_budget;

use crate::error::{SendError, TrySendError};
use crate::message::Message;
use crate::queue::outbound::{Call, Refused};
use crate::queue::waiters::Ticket;
use crate::socket::handle::Core;

/// The future of `send`, see [`PushSocket::send`](crate::PushSocket::send): waits for room in the outbound queue. Nothing is sent
/// before it is polled, nor if it is dropped before it is ready. Its errors are those of [`SendError`]; polled after its end it
/// panics.
#[derive(Debug)]
#[must_use = "nothing is sent unless the future is awaited"]
pub struct SendMessage<'a> {
    core: &'a Core,
    message: Message,
    ticket: Option<Ticket>,
    is_done: bool,
}

impl<'a> SendMessage<'a> {
    #[inline]
    pub(crate) fn new(core: &'a Core, message: Message) -> Self {
        Self { core, message, ticket: None, is_done: false }
    }
}

impl Future for SendMessage<'_> {
    type Output = Result<(), SendError>;

    #[inline]
    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let this = &mut *self;
        assert!(!this.is_done, "a send was polled after it had finished");
        if this.core.is_due() && this.core.poll_due(cx).is_pending() {
            return Poll::Pending;
        }
        // The first look only: one that waits has its place among those who wait.
        if this.ticket.is_none() && this.core.is_acceptable(&this.message) && this.core.offer(&this.message).is_ok() {
            this.is_done = true;
            return Poll::Ready(Ok(()));
        }
        this.poll_slowly(cx)
    }
}

impl SendMessage<'_> {
    /// The queue is full or closed, or the message is not acceptable.
    #[cold]
    fn poll_slowly(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), SendError>> {
        if !self.core.is_acceptable(&self.message) {
            self.is_done = true;
            return Poll::Ready(Err(SendError::TooLarge(std::mem::take(&mut self.message))));
        }
        ready!(pin!(consume_budget()).poll(cx));
        self.core.take_turn(true);
        let offered = self.core.shared.outbound.poll_offer(&self.message, &mut self.ticket, cx.waker());
        let result = ready!(offered);
        self.is_done = true;
        match result {
            Ok(call) => {
                match call {
                    Call::Nobody => {}
                    Call::GiveWay => self.core.give_way(),
                    _ => self.core.shared.signal.wake(),
                }
                Poll::Ready(Ok(()))
            }
            Err(_) => Poll::Ready(Err(SendError::Closed(std::mem::take(&mut self.message)))),
        }
    }
}

impl Drop for SendMessage<'_> {
    fn drop(&mut self) {
        if let Some(ticket) = self.ticket.take() {
            self.core.shared.outbound.leave(ticket);
        }
    }
}

/// Queues a message if that is possible at once.
pub(crate) fn try_send(core: &Core, message: Message) -> Result<(), TrySendError> {
    if !core.is_acceptable(&message) {
        return Err(TrySendError::TooLarge(message));
    }
    match core.offer_with_turn(&message) {
        Ok(()) => Ok(()),
        Err(Refused::Full) => Err(TrySendError::Full(message)),
        Err(Refused::Closed) => Err(TrySendError::Closed(message)),
    }
}

/// Observes the room in the outbound queue, for sinks.
#[derive(Debug, Default)]
struct RoomTicket(Option<Ticket>);

impl RoomTicket {
    fn poll(&mut self, core: &Core, size: usize, cx: &mut Context<'_>) -> Poll<()> {
        core.shared.outbound.poll_room(size, &mut self.0, cx.waker())
    }

    fn leave(&mut self, core: &Core) {
        if let Some(ticket) = self.0.take() {
            core.shared.outbound.forget(ticket);
        }
    }
}

/// A [`Sink`] of messages that borrows a socket; made by its `sink` method, see [`PushSocket::sink`](crate::PushSocket::sink).
#[derive(Debug)]
pub struct MessageSink<'a> {
    core: &'a Core,
    /// Accepted when there was room, which was too little for it, or which somebody else then took. Lost if the sink is
    /// dropped before it is flushed.
    held: Option<Message>,
    ticket: RoomTicket,
}

impl<'a> MessageSink<'a> {
    pub(crate) fn new(core: &'a Core) -> Self {
        Self { core, held: None, ticket: RoomTicket::default() }
    }

    fn poll_held(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), SendError>> {
        while let Some(message) = &self.held {
            match self.core.offer_with_turn(message) {
                Ok(()) => self.held = None,
                Err(Refused::Full) => {
                    let size = message.byte_len();
                    if self.ticket.poll(self.core, size, cx).is_pending() {
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
        // A source that is always ready, and a queue that always has room, would keep their thread for ever.
        if self.core.is_due() {
            ready!(self.core.poll_due(cx));
        }
        ready!(self.poll_held(cx))?;
        let this = &mut *self;
        if !this.core.has_room() {
            this.core.take_turn(true);
        }
        this.ticket.poll(this.core, 0, cx).map(Ok)
    }

    fn start_send(mut self: Pin<&mut Self>, message: Message) -> Result<(), SendError> {
        match try_send(self.core, message) {
            Ok(()) => Ok(()),
            Err(TrySendError::Full(message)) => {
                self.held = Some(message);
                Ok(())
            }
            Err(TrySendError::TooLarge(message)) => Err(SendError::TooLarge(message)),
            Err(TrySendError::Closed(message) | TrySendError::NoPeer(message)) => Err(SendError::Closed(message)),
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
        self.ticket.leave(self.core);
    }
}

/// The methods of sending sockets, around a field `core: Arc<Core>`.
macro_rules! sending_methods {
    ($($waits:literal)+) => {
        /// Queues a message.
        ///
        $(#[doc = $waits])+
        ///
        /// Ready means queued, not delivered: the I/O task does the rest. Now and then it is not ready at once although there is
        /// room, so that other tasks have their turn; [`try_send`](Self::try_send) never waits.
        ///
        /// # Errors
        ///
        /// [`SendError`](crate::SendError) gives the message back: the socket is closed, or the message is too large for it.
        ///
        /// # Cancel safety
        ///
        /// Dropped before it is ready, the message was not sent, and whoever else waits is not disturbed. To keep the
        /// message, keep a clone of it.
        #[inline]
        pub fn send(&self, message: impl Into<$crate::message::Message>) -> $crate::socket::sending::SendMessage<'_> {
            $crate::socket::sending::SendMessage::new(&self.core, message.into())
        }

        /// Queues a message if that is possible at once.
        ///
        /// # Errors
        ///
        /// [`TrySendError`](crate::TrySendError) gives the message back: the outbound queue is full, the socket is closed,
        /// or the message is too large for it.
        pub fn try_send(
            &self,
            message: impl Into<$crate::message::Message>,
        ) -> Result<(), $crate::error::TrySendError> {
            $crate::socket::sending::try_send(&self.core, message.into())
        }

        /// The socket as a [`Sink`](futures::Sink) of messages. Flushed means queued, as for [`send`](Self::send); a sink
        /// that is dropped without a flush may lose the one message that it still held.
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
        pub fn sink(&self) -> $crate::socket::sending::MessageSink<'_> {
            $crate::socket::sending::MessageSink::new(&self.core)
        }

        /// Closes the socket for all its handles: takes no more messages, hands what is queued to the kernel for up to
        /// the linger time, and ends all connections.
        ///
        /// What the kernel has taken is flushed as far as this socket can tell, and on its way to the peer also when the
        /// process ends; but a peer over IPC, or one that sends something meanwhile, might lose what it has not read. So
        /// this waits, for the linger time at most, until those peers have closed their side.
        ///
        /// # Errors
        ///
        /// [`CloseError`](crate::CloseError) if the runtime of the socket ended before.
        ///
        /// # Cancel safety
        ///
        /// Once polled the socket closes, also if the future is dropped then. A later call gives the same result.
        pub async fn close(&self) -> Result<$crate::stats::Closed, $crate::error::CloseError> {
            self.core.close().await
        }
    };
}

/// The builder's options of sending sockets.
macro_rules! sending_options {
    ($queue:literal) => {
        #[doc = concat!("How many messages ", $queue, ". Default: 1,000; 0 means no limit.")]
        pub fn send_high_water_mark(mut self, messages: usize) -> Self {
            self.options.send.messages = messages;
            self
        }

        #[doc = concat!("How many bytes of message bodies ", $queue, ". Default: 64 MiB; 0 means no limit.")]
        ///
        /// A message that is larger than this is queued alone.
        pub fn send_high_water_mark_bytes(mut self, bytes: usize) -> Self {
            self.options.send.bytes = bytes;
            self
        }
    };
}

pub(crate) use {sending_methods, sending_options};
