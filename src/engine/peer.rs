//! One peer: a byte stream, its protocol automaton, and what is on its way in and out.

use std::collections::VecDeque;
use std::future::Future;
use std::io::{self, IoSlice};
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::task::{Context, Poll, Waker, ready};

use bytes::{BufMut, BytesMut};
use tokio::io::{AsyncReadExt, AsyncWrite};
use tokio::sync::{OwnedSemaphorePermit, oneshot};

use crate::engine::shared::{AttachmentId, Ended, PeerWaker};
use crate::engine::slabs::Slabs;
use crate::monitor;
use crate::transport::{PeerAddress, Stream};
use crate::zmtp::connection::Connection;
use crate::zmtp::encoder::{BATCH_BYTES, Batch, Cursor, Spans};
use crate::zmtp::run::Run;

/// The most slices that go into one vectored write.
const SLICES: usize = 64;

/// A read begins only if there is room for this much, or for half of what is in the buffer already.
const READ_MINIMUM: usize = 2 * 1024;

/// A connection and everything that belongs to it alone.
#[derive(Debug)]
pub(crate) struct Peer {
    pub(crate) about: monitor::Peer,
    pub(crate) attachment: AttachmentId,
    pub(crate) connection: Connection,
    stream: Box<dyn Stream>,
    waker: Waker,
    named: Arc<PeerWaker>,
    /// Held until the handshake is finished.
    pub(crate) permit: Option<OwnedSemaphorePermit>,
    /// For the task that dialled this connection.
    pub(crate) ended: Option<oneshot::Sender<Ended>>,

    /// Bytes that are not yet a whole message; shares a slab only while its peer is being read.
    pub(crate) input: BytesMut,
    /// The last read filled little of the slab: messages in it are copied out, or each would keep a slab alive.
    pub(crate) is_sparse: bool,
    /// It is to be given back, however little of it is left in sight.
    input_is_slab: bool,
    /// Messages that found no room in the inbound queue.
    pub(crate) waiting: VecDeque<Run>,
    /// We have said that nothing more will come, and wait for the peer to close.
    pub(crate) leaving: bool,
    /// Among the engine's peers with messages that found no room.
    pub(crate) in_waiting: bool,
    /// Among the engine's peers to be read.
    pub(crate) in_readable: bool,

    /// Batches on their way to the kernel; `cursor` says how far the first one has got.
    out: VecDeque<Batch>,
    cursor: Cursor,
    /// Bytes left of the first batch.
    first_left: usize,
    /// Bytes left of all batches.
    pending: usize,
    /// The kernel takes no more for now; its waker tells when it does.
    blocked: bool,
    /// Among the engine's peers to be written.
    pub(crate) in_writable: bool,
    has_written_messages: bool,
    /// The peer has sent something since the handshake.
    pub(crate) talks: bool,
    /// Nothing can be sent any more; what the peer has sent may still be read.
    write_failed: bool,
}

/// What a write got done.
#[derive(Debug, Default)]
pub(crate) struct Written {
    pub(crate) messages: usize,
    pub(crate) payload: usize,
    /// Emptied batches, for their buffers.
    pub(crate) spare: Vec<Batch>,
}

impl Peer {
    pub(crate) fn new(
        about: monitor::Peer,
        attachment: AttachmentId,
        connection: Connection,
        stream: Box<dyn Stream>,
        named: Arc<PeerWaker>,
    ) -> Self {
        Self {
            about,
            attachment,
            connection,
            stream,
            waker: named.clone().into(),
            named,
            permit: None,
            ended: None,
            input: BytesMut::new(),
            is_sparse: false,
            input_is_slab: false,
            waiting: VecDeque::new(),
            leaving: false,
            in_waiting: false,
            in_readable: false,
            out: VecDeque::new(),
            cursor: Cursor::default(),
            first_left: 0,
            pending: 0,
            blocked: false,
            in_writable: false,
            has_written_messages: false,
            talks: false,
            write_failed: false,
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
        !self.blocked && self.pending < BATCH_BYTES && !self.leaving
    }

    /// Bytes of messages on their way to the kernel.
    pub(crate) fn pending(&self) -> usize {
        self.pending
    }

    /// Whether there is something that could be written now.
    pub(crate) fn wants_write(&self) -> bool {
        !self.blocked
            && !self.leaving
            && !self.write_failed
            && (self.pending > 0 || !self.connection.control().is_empty())
    }

    /// Adds a whole batch.
    pub(crate) fn give(&mut self, batch: Batch) {
        self.pending += batch.wire_len();
        if self.out.is_empty() {
            self.first_left = batch.wire_len();
        }
        self.out.push_back(batch);
    }

    /// Adds the next message of a batch that is dealt out.
    #[inline]
    pub(crate) fn deal(&mut self, spans: &mut Spans, spare: impl FnOnce() -> Batch) {
        if self.out.back().is_none_or(Batch::is_full) {
            self.give(spare());
        }
        let first = self.out.len() == 1;
        if let Some(last) = self.out.back_mut() {
            let before = last.wire_len();
            spans.deal(last);
            let added = last.wire_len() - before;
            self.pending += added;
            if first {
                self.first_left += added;
            }
        }
    }

    /// Reads once, up to about `limit` bytes, into the input or straight into the body that is being received; 0 is the end of the stream.
    pub(crate) fn poll_read(&mut self, slabs: &mut Slabs, limit: usize) -> Poll<io::Result<usize>> {
        let waker = self.waker.clone();
        let mut cx = Context::from_waker(&waker);
        if self.input.is_empty() && !self.leaving {
            if let Some(mut body) = self.connection.body_buffer() {
                return pin!(self.stream.read_buf(&mut body)).poll(&mut cx);
            }
        }
        let used = self.input.len();
        if self.input.capacity() - used < READ_MINIMUM.max(used / 2) {
            let mut slab = slabs.take();
            slab.extend_from_slice(&self.input);
            self.replace_input(slab, true, slabs);
        }
        let room = self.input.capacity() - used;
        let mut input = (&mut self.input).limit(limit);
        let count = ready!(pin!(self.stream.read_buf(&mut input)).poll(&mut cx))?;
        slabs.learn(count, room);
        self.is_sparse = count < room / 4;
        Poll::Ready(Ok(count))
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

    fn replace_input(&mut self, input: BytesMut, is_slab: bool, slabs: &mut Slabs) {
        let old = std::mem::replace(&mut self.input, input);
        if std::mem::replace(&mut self.input_is_slab, is_slab) {
            slabs.put(old);
        }
    }

    /// Writes until everything is taken or the kernel takes no more.
    ///
    /// Control bytes go out between batches only: never inside of a frame or a multipart message.
    pub(crate) fn write(&mut self, written: &mut Written) -> io::Result<()> {
        let waker = self.waker.clone();
        let mut cx = Context::from_waker(&waker);
        while !self.write_failed {
            let between = self.out.front().is_none_or(|first| self.first_left == first.wire_len());
            let control = self.connection.control();
            let result = if between && !control.is_empty() {
                let result = Pin::new(&mut self.stream).poll_write(&mut cx, control);
                result.map_ok(|count| self.connection.control_sent(count))
            } else if self.pending > 0 {
                let mut slices = [IoSlice::new(&[]); SLICES];
                let mut used = 0;
                let mut cursor = self.cursor;
                for batch in &self.out {
                    used += batch.gather(cursor, &mut slices[used..]);
                    cursor = Cursor::default();
                }
                let result = match &slices[..used] {
                    [only] => Pin::new(&mut self.stream).poll_write(&mut cx, only),
                    many => Pin::new(&mut self.stream).poll_write_vectored(&mut cx, many),
                };
                result.map_ok(|count| self.advance(count, written))
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

    fn advance(&mut self, mut count: usize, written: &mut Written) {
        self.pending -= count;
        self.has_written_messages = true;
        while count >= self.first_left {
            count -= self.first_left;
            let Some(batch) = self.out.pop_front() else {
                self.first_left = 0;
                return;
            };
            written.messages += batch.messages();
            written.payload += batch.payload();
            written.spare.push(batch);
            self.cursor = Cursor::default();
            self.first_left = self.out.front().map_or(0, Batch::wire_len);
            if self.first_left == 0 {
                return;
            }
        }
        if let Some(first) = self.out.front() {
            first.advance(&mut self.cursor, count);
            self.first_left -= count;
        }
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

    /// Takes back the messages that the kernel has not taken whole; counts the others as written.
    pub(crate) fn take_back(&mut self, written: &mut Written) -> VecDeque<Batch> {
        let mut out = std::mem::take(&mut self.out);
        if let Some(first) = out.front_mut() {
            let (messages, payload) = (first.messages(), first.payload());
            first.forget_taken(self.cursor);
            written.messages += messages - first.messages();
            written.payload += payload - first.payload();
        }
        (self.cursor, self.first_left, self.pending) = (Cursor::default(), 0, 0);
        out
    }
}
