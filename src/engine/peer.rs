//! One peer: a byte stream, its protocol automaton, and what is on its way in and out.

use std::future::Future;
use std::io::{self, IoSlice};
use std::net::IpAddr;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::task::{Context, Poll, Waker, ready};
use tokio::time::Instant;

use bytes::buf::Limit;
use bytes::{BufMut, BytesMut};
use tokio::io::{AsyncReadExt, AsyncWrite};
use tokio::sync::{OwnedSemaphorePermit, oneshot};
use tracing::Span;

use crate::engine::flood::Allowance;
use crate::engine::outgoing::{Outgoing, Written};
use crate::engine::shared::{AttachmentId, Ended, PeerWaker};
use crate::engine::slabs::Slabs;
use crate::engine::vigil::Vigil;
use crate::engine::waiting::Waiting;
use crate::error::ProtocolError;
use crate::monitor;
use crate::options::Options;
use crate::transport::{PeerAddress, Stream};
use crate::zmtp::connection::Connection;
use crate::zmtp::greeting::Version;
use crate::zmtp::socket_type::SocketType;

/// The most slices that go into one vectored write: two for each message, if all are chained.
const SLICES: usize = 256;

/// A read begins only if there is room for this much, or for half of what is in the buffer already.
const READ_MINIMUM: usize = 2 * 1024;

/// After a body of at least this much another one is likely …
const LARGE_BODY: usize = 128 * 1024;
/// … which is read straight to its place, but for this much that may come with its header.
const READ_HEAD: usize = 4 * 1024;

/// A connection and everything that belongs to it alone.
#[derive(Debug)]
pub(crate) struct Peer {
    pub(crate) about: Arc<monitor::Peer>,
    /// What its diagnostics stand in.
    pub(crate) span: Span,
    pub(crate) attachment: AttachmentId,
    pub(crate) connection: Connection,
    stream: Box<dyn Stream>,
    waker: Waker,
    named: Arc<PeerWaker>,
    /// Held until the handshake is finished.
    pub(crate) permit: Option<OwnedSemaphorePermit>,
    /// Counted there until then.
    pub(crate) pending_from: Option<IpAddr>,
    /// For the task that dialled this connection.
    pub(crate) ended: Option<oneshot::Sender<Ended>>,

    /// Bytes that are not yet a whole message; shares a slab only while its peer is being read.
    pub(crate) input: BytesMut,
    /// The last read filled little of the slab: messages in it are copied out, or each would keep a slab alive.
    pub(crate) is_sparse: bool,
    /// It is to be given back, however little of it is left in sight.
    input_is_slab: bool,
    /// What was read last is the end of a large body.
    ended_body: bool,
    /// How many bytes of a message that is not whole are held, as far as that has been counted.
    pub(crate) unfinished: usize,
    /// Among the engine's peers that wait to go on with a message.
    pub(crate) in_line: bool,
    /// Messages that found no room in the inbound queue.
    pub(crate) waiting: Waiting,
    /// What of its messages waits in the engine's history, in bytes of memory.
    pub(crate) in_history: usize,
    /// We have said that nothing more will come, and wait for the peer to close.
    pub(crate) leaving: bool,
    /// Among the engine's peers with messages that found no room.
    pub(crate) in_waiting: bool,
    /// Among the engine's peers to be read.
    pub(crate) in_readable: bool,

    /// On its way to the kernel.
    pub(crate) out: Outgoing,
    /// The kernel takes no more for now; its waker tells when it does.
    blocked: bool,
    /// Among the engine's peers to be written.
    pub(crate) in_writable: bool,
    has_written_messages: bool,
    /// The peer has sent something since the handshake.
    pub(crate) talks: bool,
    /// Nothing can be sent any more; what the peer has sent may still be read.
    write_failed: bool,
    /// What kind of socket the peer is, once the handshake is finished, and which version is spoken.
    pub(crate) kind: Option<(SocketType, Version)>,
    pub(crate) counts: PeerCounts,
    pub(crate) vigil: Vigil,
    /// Commands that it may still send.
    commands: Allowance,
}

/// The running totals of one peer.
#[derive(Debug, Default)]
pub(crate) struct PeerCounts {
    pub(crate) sent: u64,
    pub(crate) bytes_sent: usize,
    pub(crate) received: u64,
    pub(crate) bytes_received: u64,
    pub(crate) dropped: u64,
}

impl Peer {
    pub(crate) fn new(
        about: Arc<monitor::Peer>,
        span: Span,
        attachment: AttachmentId,
        connection: Connection,
        stream: Box<dyn Stream>,
        named: Arc<PeerWaker>,
    ) -> Self {
        Self {
            about,
            span,
            attachment,
            connection,
            stream,
            waker: named.clone().into(),
            named,
            permit: None,
            pending_from: None,
            ended: None,
            input: BytesMut::new(),
            is_sparse: false,
            input_is_slab: false,
            ended_body: false,
            unfinished: 0,
            in_line: false,
            waiting: Waiting::default(),
            in_history: 0,
            leaving: false,
            in_waiting: false,
            in_readable: false,
            out: Outgoing::default(),
            blocked: false,
            in_writable: false,
            has_written_messages: false,
            talks: false,
            write_failed: false,
            kind: None,
            counts: PeerCounts::default(),
            vigil: Vigil::default(),
            commands: Allowance::new(Instant::now()),
        }
    }

    /// The stream may be ready again.
    pub(crate) fn woken(&mut self) {
        // Before the stream is polled, so that what happens from then on names the peer again.
        self.named.reset();
        self.blocked = false;
    }

    /// Whether more messages may be given to this peer.
    #[inline]
    pub(crate) fn has_room(&self) -> bool {
        !self.blocked && !self.out.is_large() && !self.leaving
    }

    /// Counts commands, or what costs the peer as little to send and us as much to take.
    #[inline]
    pub(crate) fn count_commands(
        &mut self,
        count: usize,
        options: &Options,
        to_publisher: bool,
    ) -> Result<(), ProtocolError> {
        let (burst, rate) = (options.command_burst(to_publisher), options.max_commands_per_second);
        if self.commands.spend(count, burst, rate) { Ok(()) } else { Err(ProtocolError::CommandFlood) }
    }

    /// Whether the kernel takes no more for now.
    pub(crate) fn is_blocked(&self) -> bool {
        self.blocked
    }

    /// Whether there is something that could be written now.
    pub(crate) fn wants_write(&self) -> bool {
        !self.blocked
            && !self.leaving
            && !self.write_failed
            && (self.out.pending() > 0 || !self.connection.control().is_empty())
    }

    /// Reads once, up to about `limit` bytes, into the input or straight into the body that is being received; 0 is the end of the stream.
    pub(crate) fn poll_read(&mut self, slabs: &mut Slabs, limit: usize) -> Poll<io::Result<usize>> {
        let waker = self.waker.clone();
        let mut cx = Context::from_waker(&waker);
        if self.input.is_empty() && !self.leaving {
            if let Some(mut body) = self.connection.body_buffer() {
                let missing = Limit::limit(&body);
                body.set_limit(limit.min(missing));
                let count = ready!(pin!(self.stream.read_buf(&mut body)).poll(&mut cx))?;
                self.ended_body = count == missing && body.get_ref().len() >= LARGE_BODY;
                return Poll::Ready(Ok(count));
            }
        }
        let limit = if self.ended_body { limit.min(READ_HEAD) } else { limit };
        let used = self.input.len();
        if self.input.capacity() - used < READ_MINIMUM.max(used / 2) {
            let mut slab = slabs.take();
            slab.extend_from_slice(&self.input);
            self.replace_input(slab, true, slabs);
        }
        let room = self.input.capacity() - used;
        let mut input = (&mut self.input).limit(limit);
        let count = ready!(pin!(self.stream.read_buf(&mut input)).poll(&mut cx))?;
        self.ended_body = false;
        slabs.learn(count, room);
        self.is_sparse = count < room / 4;
        Poll::Ready(Ok(count))
    }

    /// Reads what is there at this moment, through `scratch`; see [`Stream::read_now`]. The end of the stream is left to the
    /// next proper read.
    pub(crate) fn read_now(&mut self, scratch: &mut [u8]) -> Option<usize> {
        match self.stream.read_now(scratch) {
            Ok(count) if count > 0 => {
                self.input.extend_from_slice(&scratch[..count]);
                // What it shares is not a slab.
                self.is_sparse = false;
                Some(count)
            }
            _ => None,
        }
    }

    /// Gives the slab back once there is nothing more to read for now: a waiting peer holds what it needs.
    pub(crate) fn rest_input(&mut self, slabs: &mut Slabs) {
        let partial = match self.input.len() {
            0 => BytesMut::new(),
            // A long message that trickles in finds room without being copied for every few bytes.
            length => {
                let mut partial = BytesMut::with_capacity(if length < READ_MINIMUM { length } else { 2 * length });
                partial.extend_from_slice(&self.input);
                partial
            }
        };
        self.replace_input(partial, false, slabs);
    }

    /// Gives a slab back that is still held; `false` if there is none.
    pub(crate) fn give_back_slab(&mut self, slabs: &mut Slabs) -> bool {
        let has_slab = self.input_is_slab;
        if has_slab {
            self.rest_input(slabs);
        }
        has_slab
    }

    /// How many bytes are held of a message that is not whole, those in a slab excepted.
    #[inline]
    pub(crate) fn held(&self) -> usize {
        let input = if self.input_is_slab { 0 } else { self.input.capacity() };
        self.connection.held() + input
    }

    fn replace_input(&mut self, input: BytesMut, is_slab: bool, slabs: &mut Slabs) {
        let old = std::mem::replace(&mut self.input, input);
        if std::mem::replace(&mut self.input_is_slab, is_slab) {
            slabs.put(old);
        }
    }

    /// Writes until everything is taken or the kernel takes no more.
    ///
    /// Control bytes go out between messages only: never inside of a frame or a multipart message.
    pub(crate) fn write(&mut self, written: &mut Written) -> io::Result<()> {
        let waker = self.waker.clone();
        let mut cx = Context::from_waker(&waker);
        while !self.write_failed {
            let has_control = !self.connection.control().is_empty();
            let result = if has_control && self.out.is_between() {
                let result = Pin::new(&mut self.stream).poll_write(&mut cx, self.connection.control());
                result.map_ok(|count| self.connection.control_sent(count))
            } else if self.out.pending() > 0 {
                let mut slices = [IoSlice::new(&[]); SLICES];
                // What waits to follow the message that has been begun need not wait for all others.
                let used = match has_control {
                    true => self.out.gather_begun(&mut slices),
                    false => self.out.gather(&mut slices),
                };
                let result = match &slices[..used] {
                    [only] => Pin::new(&mut self.stream).poll_write(&mut cx, only),
                    many => Pin::new(&mut self.stream).poll_write_vectored(&mut cx, many),
                };
                result.map_ok(|count| {
                    self.has_written_messages = true;
                    self.out.advance(count, written);
                })
            } else {
                return Ok(());
            };
            match result {
                Poll::Ready(Ok(())) => {}
                Poll::Ready(Err(error)) => {
                    self.write_failed = true;
                    return Err(error);
                }
                Poll::Pending => {
                    self.blocked = true;
                    return Ok(());
                }
            }
        }
        Ok(())
    }

    /// Whether the kernel has taken messages for this peer, which it may not have read yet.
    pub(crate) fn has_written_messages(&self) -> bool {
        self.has_written_messages
    }

    /// Whether a process that ended now would cost this peer messages that it has been sent; see `Engine::leave`.
    pub(crate) fn must_not_be_cut_off(&self) -> bool {
        self.leaving && (self.talks || matches!(self.about.address, PeerAddress::Ipc { .. }))
    }

    /// Says on the stream that nothing more will come.
    pub(crate) fn shut_down(&mut self) {
        let mut cx = Context::from_waker(&self.waker);
        // Nothing is left to be done if this fails: the stream is dropped next.
        let _ = Pin::new(&mut self.stream).poll_shutdown(&mut cx);
    }
}
