//! One virtual connection: two directions of bytes, with delays, small buffers and cuts, that remember all they were given.

use std::collections::VecDeque;
use std::io::{self, IoSlice};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use fastrand::Rng;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::runtime::Handle;
use tokio::time::Instant;

use crate::simulation::network::{Address, Weather};
use crate::simulation::trace::{Did, Trace};
use crate::sync::{Mutex, lock};
use crate::transport::Stream;

/// How an end learns that its connection is cut.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Notice {
    /// As if the other end had closed.
    End,
    /// An error; with or without what has arrived before.
    Reset { keeps_arrived: bool },
}

/// What goes wrong with a connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Trouble {
    /// Everything under way is lost, and both ends learn of it, one after the other.
    Reset,
    /// Everything under way is lost, and one end sees the end of the stream; the other one sees what that does.
    HalfClose,
    /// Nothing arrives for so long.
    Freeze(Duration),
    /// Everything is lost from now on, and nobody learns of it before [`Connection::heal`].
    Swallow,
}

/// The bytes of one direction.
#[derive(Debug)]
struct Pipe {
    /// All that was ever written.
    tape: Vec<u8>,
    /// Up to which byte there is when what to read.
    arrivals: VecDeque<(usize, Instant)>,
    arrived: usize,
    read: usize,
    /// The most bytes that may be under way or unread.
    capacity: usize,
    /// A blocked writer is woken when there is so much room.
    wake_room: usize,
    latency: Duration,
    /// A freeze.
    not_before: Option<Instant>,
    /// The writer has said that nothing more will come, and when that arrives.
    fin: Option<Instant>,
    /// Nothing arrives any more.
    swallows: bool,
    reader: Option<Waker>,
    writer: Option<Waker>,
}

impl Pipe {
    fn new(weather: &Weather, rng: &mut Rng) -> Self {
        let capacity = weather.capacity.max(2);
        Self {
            tape: Vec::new(),
            arrivals: VecDeque::new(),
            arrived: 0,
            read: 0,
            capacity,
            wake_room: rng.usize(1..=capacity / 2),
            latency: Duration::from_millis(rng.u64(0..=weather.latency)),
            not_before: None,
            fin: None,
            swallows: false,
            reader: None,
            writer: None,
        }
    }

    fn look(&mut self, now: Instant) {
        while let Some((position, _)) = self.arrivals.front().filter(|(_, at)| *at <= now) {
            self.arrived = *position;
            self.arrivals.pop_front();
        }
    }

    fn room(&self) -> usize {
        self.capacity.saturating_sub(self.tape.len() - self.read)
    }

    /// When something that is sent now arrives: never before what was sent earlier.
    fn arrival(&self, now: Instant, rng: &mut Rng) -> Instant {
        let jitter = Duration::from_millis(rng.u64(0..=u64::try_from(self.latency.as_millis()).unwrap_or(0)));
        let last = self.arrivals.back().map(|(_, at)| *at);
        (now + self.latency + jitter).max(self.not_before.unwrap_or(now)).max(last.unwrap_or(now))
    }

    /// What has not arrived never will.
    fn cut(&mut self, now: Instant) {
        self.look(now);
        self.arrivals.clear();
        self.swallows = true;
    }
}

#[derive(Debug, Default)]
struct Side {
    /// It has closed its end.
    is_gone: bool,
    notice: Option<(Instant, Notice)>,
}

#[derive(Debug)]
struct State {
    rng: Rng,
    /// By the side that writes: 0 has dialled, 1 has accepted.
    pipes: [Pipe; 2],
    sides: [Side; 2],
    was_disturbed: bool,
    /// Where it is written down what happens here, and under which name.
    trace: Trace,
    name: usize,
}

/// A connection, as the network sees it.
#[derive(Debug)]
pub(super) struct Connection {
    /// Who dialled and who accepted.
    pub(super) owners: [u16; 2],
    pub(super) is_ipc: bool,
    /// Somebody who is no socket takes part.
    pub(super) is_hostile: bool,
    state: Mutex<State>,
}

/// What one side has written, and how far the other one has read.
#[derive(Debug)]
pub(super) struct Tape {
    pub(super) bytes: Vec<u8>,
    pub(super) read: usize,
}

impl Connection {
    /// A connection between two ends.
    pub(super) fn between(
        dialled: Address,
        listener: u16,
        is_hostile: bool,
        weather: &Weather,
        rng: &mut Rng,
        (name, trace): (usize, &Trace),
    ) -> [End; 2] {
        let mut rng = rng.fork();
        let pipes = [Pipe::new(weather, &mut rng), Pipe::new(weather, &mut rng)];
        let state = State { rng, pipes, sides: Default::default(), was_disturbed: false, trace: trace.clone(), name };
        let connection = Arc::new(Self {
            owners: [dialled.owner, listener],
            is_ipc: dialled.is_ipc,
            is_hostile,
            state: Mutex::new(state),
        });
        [0, 1].map(|side| End { connection: connection.clone(), side })
    }

    pub(super) fn is_alive(&self) -> bool {
        lock(&self.state).sides.iter().all(|side| !side.is_gone && side.notice.is_none())
    }

    /// Whether the network, and not its ends, may have lost something.
    pub(super) fn was_disturbed(&self) -> bool {
        lock(&self.state).was_disturbed
    }

    pub(super) fn tape(&self, writer: usize) -> Tape {
        let state = lock(&self.state);
        Tape { bytes: state.pipes[writer].tape.clone(), read: state.pipes[writer].read }
    }

    pub(super) fn disturb(self: &Arc<Self>, trouble: Trouble) {
        let mut state = lock(&self.state);
        let State { rng, pipes, sides, was_disturbed, trace, name } = &mut *state;
        let now = Instant::now();
        trace.note(*name, 0, Did::Disturb);
        *was_disturbed = true;
        if let Trouble::Freeze(time) = trouble {
            for (writer, pipe) in pipes.iter_mut().enumerate() {
                pipe.look(now);
                pipe.not_before = Some(now + time);
                pipe.arrivals.iter_mut().for_each(|(_, at)| *at = (*at).max(now + time));
                pipe.fin = pipe.fin.map(|at| at.max(now + time));
                self.wake_at(now + time, 1 - writer);
            }
            return;
        }
        pipes.iter_mut().for_each(|pipe| pipe.cut(now));
        let first = rng.usize(0..2);
        for side in [first, 1 - first] {
            let notice = match trouble {
                Trouble::Reset => Notice::Reset { keeps_arrived: rng.bool() },
                Trouble::HalfClose if side == first => Notice::End,
                _ => continue,
            };
            let at = now + Duration::from_millis(rng.u64(0..100));
            sides[side].notice = Some((at, notice));
            self.wake_at(at, side);
        }
    }

    /// Those who do not know yet that nothing arrives learn it.
    pub(super) fn heal(self: &Arc<Self>) {
        let mut state = lock(&self.state);
        let now = Instant::now();
        if state.pipes[0].swallows {
            for side in 0..2 {
                state.sides[side].notice.get_or_insert((now, Notice::Reset { keeps_arrived: true }));
                self.wake_at(now, side);
            }
        }
    }

    /// Wakes whoever reads or writes on this side, then.
    fn wake_at(self: &Arc<Self>, at: Instant, side: usize) {
        // Without a runtime nobody is left to be woken.
        if let Ok(runtime) = Handle::try_current() {
            let connection = self.clone();
            runtime.spawn(async move {
                tokio::time::sleep_until(at).await;
                connection.wake(side);
            });
        }
    }

    fn wake(&self, side: usize) {
        let mut state = lock(&self.state);
        let wakers = [state.pipes[1 - side].reader.take(), state.pipes[side].writer.take()];
        drop(state);
        wakers.into_iter().flatten().for_each(Waker::wake);
    }

    fn wake_reader(&self, writer: usize) {
        let waker = lock(&self.state).pipes[writer].reader.take();
        if let Some(waker) = waker {
            waker.wake();
        }
    }

    fn wake_reader_at(self: &Arc<Self>, at: Instant, now: Instant, writer: usize) {
        if at <= now {
            self.wake_reader(writer);
        } else if let Ok(runtime) = Handle::try_current() {
            let connection = self.clone();
            runtime.spawn(async move {
                tokio::time::sleep_until(at).await;
                connection.wake_reader(writer);
            });
        }
    }

    fn shut_down(self: &Arc<Self>, side: usize) {
        let now = Instant::now();
        let mut state = lock(&self.state);
        let State { rng, pipes, trace, name, .. } = &mut *state;
        let pipe = &mut pipes[side];
        trace.note(*name, side, Did::ShutDown);
        if pipe.fin.is_some() || pipe.swallows {
            return;
        }
        let at = pipe.arrival(now, rng);
        pipe.fin = Some(at);
        drop(state);
        self.wake_reader_at(at, now, side);
    }

    /// An end is closed altogether.
    fn close(self: &Arc<Self>, side: usize) {
        let (now, other) = (Instant::now(), 1 - side);
        self.shut_down(side);
        let mut state = lock(&self.state);
        state.sides[side].is_gone = true;
        state.trace.note(state.name, side, Did::Close);
        let incoming = &state.pipes[other];
        // Something came, or is coming, that will never be read: the other end is told so by a reset.
        let unread = incoming.tape.len() > incoming.read && !incoming.swallows;
        if unread {
            self.reset(&mut state, other, now);
        }
        drop(state);
        self.wake(other);
    }

    /// Tells a side that the other one is not there; what is on its way to it may be lost with that.
    fn reset(self: &Arc<Self>, state: &mut State, side: usize, now: Instant) {
        let State { rng, pipes, sides, .. } = state;
        if sides[side].notice.is_some() || sides[side].is_gone {
            return;
        }
        let incoming = &mut pipes[1 - side];
        // What is in a Unix-domain socket is there.
        let (at, keeps_arrived) = match self.is_ipc {
            true => (now, true),
            false => (now + incoming.latency, rng.bool()),
        };
        sides[side].notice = Some((at, Notice::Reset { keeps_arrived }));
        incoming.arrivals.retain(|(_, arrival)| *arrival <= at);
        incoming.fin = incoming.fin.filter(|fin| *fin <= at);
        self.wake_at(at, side);
    }
}

/// So many bytes at most are taken in one go: of all magnitudes.
fn grain(rng: &mut Rng) -> usize {
    let magnitude = rng.u32(0..=16);
    rng.usize(1..=1 << magnitude)
}

/// One end of a connection, closed when it is dropped.
#[derive(Debug)]
pub(super) struct End {
    pub(super) connection: Arc<Connection>,
    side: usize,
}

impl End {
    fn poll_write_slices(&self, cx: &mut Context<'_>, slices: &[IoSlice<'_>]) -> Poll<io::Result<usize>> {
        let (now, side, other) = (Instant::now(), self.side, 1 - self.side);
        let mut state = lock(&self.connection.state);
        let is_reset = |(at, notice): &(Instant, Notice)| *at <= now && *notice != Notice::End;
        if state.sides[side].notice.as_ref().is_some_and(is_reset) || state.pipes[side].fin.is_some() {
            return Poll::Ready(Err(io::ErrorKind::BrokenPipe.into()));
        }
        if state.sides[other].is_gone {
            if self.connection.is_ipc {
                return Poll::Ready(Err(io::ErrorKind::BrokenPipe.into()));
            }
            self.connection.reset(&mut state, side, now);
        }
        let State { rng, pipes, trace, name, .. } = &mut *state;
        let pipe = &mut pipes[side];
        let mut left = pipe.room().min(grain(rng));
        if pipe.room() == 0 {
            pipe.writer = Some(cx.waker().clone());
            return Poll::Pending;
        }
        let before = pipe.tape.len();
        for slice in slices {
            let count = slice.len().min(left);
            pipe.tape.extend_from_slice(&slice[..count]);
            left -= count;
        }
        let (count, position) = (pipe.tape.len() - before, pipe.tape.len());
        trace.note(*name, side, Did::Write(&pipe.tape[before..]));
        if pipe.swallows || count == 0 {
            return Poll::Ready(Ok(count));
        }
        let at = pipe.arrival(now, rng);
        let is_scheduled = pipe.arrivals.back().is_some_and(|(_, last)| *last == at && at > now);
        pipe.arrivals.push_back((position, at));
        drop(state);
        if !is_scheduled {
            self.connection.wake_reader_at(at, now, side);
        }
        Poll::Ready(Ok(count))
    }
}

/// Not for readers that spin: how often they look depends on the clock on the wall.
impl Stream for End {}

impl AsyncRead for End {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let (now, side, writer) = (Instant::now(), self.side, 1 - self.side);
        let mut state = lock(&self.connection.state);
        let State { rng, pipes, sides, trace, name, .. } = &mut *state;
        let pipe = &mut pipes[writer];
        pipe.look(now);
        let notice = sides[side].notice.filter(|(at, _)| *at <= now).map(|(_, notice)| notice);
        let is_lost = notice == Some(Notice::Reset { keeps_arrived: false });
        if pipe.arrived > pipe.read && !is_lost {
            let count = (pipe.arrived - pipe.read).min(buffer.remaining()).min(grain(rng));
            buffer.put_slice(&pipe.tape[pipe.read..pipe.read + count]);
            pipe.read += count;
            trace.note(*name, side, Did::Read(count));
            let waker = if pipe.room() >= pipe.wake_room { pipe.writer.take() } else { None };
            drop(state);
            if let Some(waker) = waker {
                waker.wake();
            }
            return Poll::Ready(Ok(()));
        }
        match notice {
            Some(Notice::Reset { .. }) => return Poll::Ready(Err(io::ErrorKind::ConnectionReset.into())),
            Some(Notice::End) => return Poll::Ready(Ok(())),
            None => {}
        }
        if pipe.arrivals.is_empty() && pipe.fin.is_some_and(|at| at <= now) {
            return Poll::Ready(Ok(()));
        }
        pipe.reader = Some(cx.waker().clone());
        Poll::Pending
    }
}

impl AsyncWrite for End {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        self.poll_write_slices(cx, &[IoSlice::new(bytes)])
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        self.poll_write_slices(cx, slices)
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    fn poll_flush(self: Pin<&mut Self>, _cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.connection.shut_down(self.side);
        Poll::Ready(Ok(()))
    }
}

impl Drop for End {
    fn drop(&mut self) {
        self.connection.close(self.side);
    }
}
