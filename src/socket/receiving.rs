//! What all receiving sockets share: `recv` and its kin, and the stream.

use std::pin::{Pin, pin};
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use futures::Stream;
use tokio::task::coop::consume_budget;

use crate::error::{RecvError, TryRecvError};
use crate::message::Message;
use crate::monitor::Peer;
use crate::queue::waiters::Ticket;
use crate::socket::handle::Core;

/// The future of `recv`, see [`PullSocket::recv`](crate::PullSocket::recv): waits for a message in the inbound queue. Dropped
/// before it is ready it has taken none. Its error is [`RecvError::Closed`]; polled after its end it panics.
#[derive(Debug)]
#[must_use = "nothing is received unless the future is awaited"]
pub struct ReceiveMessage<'a> {
    readable: Readable<'a>,
    is_done: bool,
}

impl<'a> ReceiveMessage<'a> {
    #[inline]
    pub(crate) fn new(core: &'a Core) -> Self {
        Self { readable: Readable::new(core), is_done: false }
    }
}

impl Future for ReceiveMessage<'_> {
    type Output = Result<Message, RecvError>;

    #[inline]
    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let this = &mut *self;
        assert!(!this.is_done, "a recv was polled after it had finished");
        // One value from here to the end, which a message is received into: a result that is made of a message, or that is one
        // of several, is moved in smaller pieces.
        let mut result = Poll::Ready(Ok(Message::default()));
        if this.readable.core.is_due() && pin!(consume_budget()).poll(cx).is_pending() {
            result = Poll::Pending;
        } else if this.take_at_once(&mut result) {
            this.is_done = true;
        } else {
            this.poll_slowly(cx, &mut result);
        }
        result
    }
}

impl ReceiveMessage<'_> {
    /// The first look only: one that waits has its place among those who wait.
    #[inline]
    fn take_at_once(&self, result: &mut Poll<Result<Message, RecvError>>) -> bool {
        match result {
            Poll::Ready(Ok(slot)) => self.readable.ticket.is_none() && self.readable.core.pop_into(slot).is_ok(),
            _ => false,
        }
    }

    /// There was no message, or one is waited for.
    #[cold]
    fn poll_slowly(&mut self, cx: &mut Context<'_>, result: &mut Poll<Result<Message, RecvError>>) {
        *result = self.poll_waiting(cx);
        self.is_done = result.is_ready();
    }

    fn poll_waiting(&mut self, cx: &mut Context<'_>) -> Poll<Result<Message, RecvError>> {
        loop {
            ready!(Pin::new(&mut self.readable).poll(cx))?;
            let mut message = Message::default();
            match self.readable.core.pop_into(&mut message) {
                Ok(()) => return Poll::Ready(Ok(message)),
                Err(TryRecvError::Closed) => return Poll::Ready(Err(RecvError::Closed)),
                Err(TryRecvError::Empty) => {}
            }
        }
    }
}

/// The same, with the peer that has sent it.
pub(crate) async fn recv_from(core: &Core) -> Result<(Message, Arc<Peer>), RecvError> {
    if core.is_due() {
        consume_budget().await;
    }
    let mut readable = Readable::new(core);
    loop {
        match core.pop_from() {
            Ok(found) => return Ok(found),
            Err(TryRecvError::Closed) => return Err(RecvError::Closed),
            Err(TryRecvError::Empty) => (&mut readable).await?,
        }
    }
}

/// Takes the next message if there is one.
pub(crate) fn try_recv(core: &Core) -> Result<Message, TryRecvError> {
    let mut message = Message::default();
    match core.pop_into(&mut message) {
        Err(TryRecvError::Empty) if core.fetch() => core.pop_into(&mut message)?,
        other => other?,
    }
    Ok(message)
}

/// Waits until there is a message, and takes what is there.
pub(crate) async fn recv_many(core: &Core, messages: &mut Vec<Message>, max: usize) -> Result<usize, RecvError> {
    if max == 0 {
        return Ok(0);
    }
    consume_budget().await;
    let mut readable = Readable::new(core);
    loop {
        match core.pop_many(messages, max) {
            Ok(count) => return Ok(count),
            Err(TryRecvError::Closed) => return Err(RecvError::Closed),
            Err(TryRecvError::Empty) => (&mut readable).await?,
        }
    }
}

/// Waits for a message in the inbound queue, and takes none: dropped at any time it loses none. Who finds none when it is ready,
/// because it was woken in vain, waits again at its old place.
#[derive(Debug)]
pub(crate) struct Readable<'a> {
    core: &'a Core,
    ticket: Option<Ticket>,
    /// Once is enough: what comes later wakes the task.
    has_spun: bool,
}

impl<'a> Readable<'a> {
    pub(crate) fn new(core: &'a Core) -> Self {
        Self { core, ticket: None, has_spun: false }
    }
}

impl Future for Readable<'_> {
    type Output = Result<(), RecvError>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let this = &mut *self;
        ready!(pin!(consume_budget()).poll(cx));
        // When it is woken this may be by a stream that can be read; when it is not yet, one may be readable all the same.
        this.core.take_turn(false);
        if !this.core.shared.options.spin.is_zero() && !this.has_spun {
            this.has_spun = true;
            this.core.spin();
        }
        this.core.shared.inbound.poll_wait(&mut this.ticket, cx.waker())
    }
}

impl Drop for Readable<'_> {
    fn drop(&mut self) {
        if let Some(ticket) = self.ticket.take() {
            self.core.shared.inbound.leave(ticket);
        }
    }
}

/// Observes the messages in the inbound queue, for streams.
#[derive(Debug, Default)]
struct MessageTicket(Option<Ticket>);

impl MessageTicket {
    fn poll(&mut self, core: &Core, cx: &mut Context<'_>) -> Poll<Result<(), RecvError>> {
        core.shared.inbound.poll_observe(&mut self.0, cx.waker())
    }

    fn leave(&mut self, core: &Core) {
        if let Some(ticket) = self.0.take() {
            core.shared.inbound.forget(ticket);
        }
    }
}

/// A [`Stream`] of messages that borrows a socket; made by its `stream` method, see
/// [`PullSocket::stream`](crate::PullSocket::stream).
#[derive(Debug)]
pub struct Messages<'a> {
    core: &'a Core,
    ticket: MessageTicket,
}

impl<'a> Messages<'a> {
    pub(crate) fn new(core: &'a Core) -> Self {
        Self { core, ticket: MessageTicket::default() }
    }
}

impl Stream for Messages<'_> {
    type Item = Message;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Message>> {
        let this = &mut *self;
        if this.core.is_due() {
            ready!(pin!(consume_budget()).poll(cx));
        }
        loop {
            match try_recv(this.core) {
                Ok(message) => return Poll::Ready(Some(message)),
                Err(TryRecvError::Closed) => return Poll::Ready(None),
                Err(TryRecvError::Empty) => {
                    if ready!(this.ticket.poll(this.core, cx)).is_err() {
                        return Poll::Ready(None);
                    }
                }
            }
        }
    }
}

impl Drop for Messages<'_> {
    fn drop(&mut self) {
        self.ticket.leave(self.core);
    }
}

/// The methods of receiving sockets, around a field `core: Arc<Core>`.
macro_rules! receiving_methods {
    () => {
        /// Takes the next message; waits until there is one.
        ///
        /// # Errors
        ///
        /// [`RecvError::Closed`](crate::RecvError::Closed) once the socket is closed.
        ///
        /// # Cancel safety
        ///
        /// Dropped before it is ready, no message is lost: none has been taken. One that is kept and no longer polled may hold up
        /// others that wait.
        ///
        /// ```
        /// # tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(async {
        /// # let (pull, push) = (sinew::PullSocket::new(), sinew::PushSocket::new());
        /// # push.connect(&pull.bind("ipc://*").await?)?;
        /// # push.send("work").await?;
        /// let message = pull.recv().await?;
        /// assert_eq!(&message[0], b"work");
        /// # Ok::<(), Box<dyn std::error::Error>>(()) }).unwrap();
        /// ```
        #[inline]
        pub fn recv(&self) -> $crate::socket::receiving::ReceiveMessage<'_> {
            $crate::socket::receiving::ReceiveMessage::new(&self.core)
        }

        /// Like [`recv`](Self::recv), and says which peer has sent the message.
        ///
        /// # Errors
        ///
        /// [`RecvError::Closed`](crate::RecvError::Closed) once the socket is closed.
        ///
        /// # Cancel safety
        ///
        /// Dropped before it is ready, no message is lost: none has been taken.
        pub async fn recv_from(
            &self,
        ) -> Result<($crate::message::Message, std::sync::Arc<$crate::monitor::Peer>), $crate::error::RecvError> {
            $crate::socket::receiving::recv_from(&self.core).await
        }

        /// Takes the next message if there is one.
        ///
        /// # Errors
        ///
        /// [`TryRecvError`](crate::TryRecvError): there is none, or the socket is closed.
        pub fn try_recv(&self) -> Result<$crate::message::Message, $crate::error::TryRecvError> {
            $crate::socket::receiving::try_recv(&self.core)
        }

        /// Waits until there is a message, and takes what is there, up to `max` messages, to the end of `messages`; gives
        /// their number. Cheaper than as many calls of [`recv`](Self::recv). With a `max` of 0 it returns 0 at once.
        ///
        /// # Errors
        ///
        /// [`RecvError::Closed`](crate::RecvError::Closed) once the socket is closed.
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
        pub async fn recv_many(
            &self,
            messages: &mut Vec<$crate::message::Message>,
            max: usize,
        ) -> Result<usize, $crate::error::RecvError> {
            $crate::socket::receiving::recv_many(&self.core, messages, max).await
        }

        /// The messages as a [`Stream`](futures::Stream), which ends when the socket is closed. Dropping it loses no
        /// message.
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
        pub fn stream(&self) -> $crate::socket::receiving::Messages<'_> {
            $crate::socket::receiving::Messages::new(&self.core)
        }
    };
}

/// `close` of sockets that only receive.
macro_rules! receiving_close {
    () => {
        /// Closes the socket for all its handles: ends all connections, and discards messages that nobody has received;
        /// their number is in the result.
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

/// The builder's options of receiving sockets.
macro_rules! receiving_options {
    () => {
        /// How many received messages may be queued before peers are made to wait. Default: 1,000; 0 means no limit.
        pub fn receive_high_water_mark(mut self, messages: usize) -> Self {
            self.options.receive.messages = messages;
            self
        }

        /// How many bytes of received message bodies may be queued before peers are made to wait. Default: 64 MiB; 0
        /// means no limit. A message that is larger than this is queued alone.
        pub fn receive_high_water_mark_bytes(mut self, bytes: usize) -> Self {
            self.options.receive.bytes = bytes;
            self
        }

        /// How long `recv` looks for bytes itself, again and again, before it waits to be woken. Default: zero, not at all.
        ///
        /// For conversations between two processors that are not needed for anything else: a thread that sleeps takes some
        /// tens of microseconds to wake. While it looks, other tasks of its thread stand still. It looks at the first four
        /// connections of the socket.
        pub fn spin(mut self, spin: std::time::Duration) -> Self {
            self.options.spin = spin;
            self
        }
    };
}

/// The builder's option of sockets that may keep only the newest message.
macro_rules! conflate_option {
    () => {
        /// Keeps only the newest whole message of each peer, until it is received; messages that it replaces are counted
        /// in [`Stats::messages_dropped`](crate::Stats::messages_dropped). Peers are never made to wait then. Default: off.
        pub fn conflate(mut self, conflate: bool) -> Self {
            self.options.conflate = conflate;
            self
        }
    };
}

pub(crate) use {conflate_option, receiving_close, receiving_methods, receiving_options};

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use futures::FutureExt;

    use super::*;
    use crate::SubSocket;
    use crate::options::HighWaterMark;
    use crate::queue::waiters::Wakes;
    use crate::zmtp::run::Run;

    #[tokio::test]
    async fn one_that_is_woken_in_vain_keeps_its_place() {
        let sub = SubSocket::new();
        sub.subscribe("wanted");
        let from = Peer::for_tests(1);
        let arrive = |wire: &'static [u8]| {
            let mut run = [Run::packed(Bytes::from_static(wire), 1, 6)].into();
            sub.core().shared.inbound.offer(0, &from, &mut run, HighWaterMark { messages: 0, bytes: 0 });
        };
        let ways = [
            async { sub.recv().await.unwrap() }.boxed_local(),
            async { sub.recv_from().await.unwrap().0 }.boxed_local(),
            async {
                let mut messages = Vec::new();
                sub.recv_many(&mut messages, 10).await.unwrap();
                messages.remove(0)
            }
            .boxed_local(),
        ];
        for mut first in ways {
            let woken = [Arc::new(Wakes::default()), Arc::new(Wakes::default())];
            let wakers = woken.clone().map(Into::into);
            let count = || [0, 1].map(|task: usize| woken[task].count());
            let mut second = sub.recv();
            assert!(first.poll_unpin(&mut Context::from_waker(&wakers[0])).is_pending());
            assert!(second.poll_unpin(&mut Context::from_waker(&wakers[1])).is_pending());
            arrive(b"\0\x06nobody");
            assert_eq!(count(), [1, 0]);
            assert!(first.poll_unpin(&mut Context::from_waker(&wakers[0])).is_pending());
            arrive(b"\0\x06wanted");
            assert_eq!(count(), [2, 0]);
            assert_eq!(first.await, Message::from("wanted"));
            drop(second);
        }
    }
}
