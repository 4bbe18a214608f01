//! Models of the I/O task: an engine with one peer, its task, its users and its stream in every order in which they may meet.
//! How to run: `sync.rs`.

use std::future::poll_fn;
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use futures::StreamExt;
use loom::future::block_on;
use loom::thread;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::runtime::Runtime;

use crate::engine::drive::Drive;
use crate::engine::pattern::Pattern;
use crate::engine::peer::Peer;
use crate::engine::shared::{Command, PeerWaker, Shared};
use crate::engine::state::Engine;
use crate::message::Message;
use crate::monitor::{self, Event, PeerId};
use crate::options::{HighWaterMark, Options};
use crate::queue::outbound::{Call, Refused};
use crate::socket::handle::Core;
use crate::socket::pull::Pull;
use crate::socket::push::Push;
use crate::socket::receiving::ReceiveMessage;
use crate::sync::checked::model;
use crate::sync::{Mutex, lock};
use crate::transport::{PeerAddress, Stream};
use crate::zmtp::connection::{self, Connection};
use crate::zmtp::decoder::{COMMAND_MAXIMUM, Limits};
use crate::zmtp::greeting;
use crate::zmtp::null;
use crate::zmtp::socket_type::SocketType;

/// A stream whose other end is the model.
#[derive(Debug, Clone, Default)]
struct Wire(Arc<Mutex<Ends>>);

#[derive(Debug, Default)]
struct Ends {
    to_read: Vec<u8>,
    reader: Option<Waker>,
    written: Vec<u8>,
    /// The kernel takes no more.
    is_full: bool,
    writer: Option<Waker>,
    /// Waits for what is written.
    witness: Option<Waker>,
    /// We have said that nothing more will come, and the peer has closed.
    is_shut: bool,
}

impl Wire {
    fn change(&self, change: impl FnOnce(&mut Ends) -> Option<Waker>) {
        let woken = change(&mut lock(&self.0));
        if let Some(waker) = woken {
            waker.wake();
        }
    }

    /// Something comes from the peer.
    fn bring(&self, bytes: &[u8]) {
        self.change(|ends| {
            ends.to_read.extend_from_slice(bytes);
            ends.reader.take()
        });
    }

    /// The kernel takes more again.
    fn drain(&self) {
        self.change(|ends| {
            ends.is_full = false;
            ends.writer.take()
        });
    }

    /// Waits until so many bytes have been written.
    fn written(&self, count: usize) -> Vec<u8> {
        block_on(poll_fn(|cx| {
            let mut ends = lock(&self.0);
            if ends.written.len() >= count {
                return Poll::Ready(ends.written.clone());
            }
            ends.witness = Some(cx.waker().clone());
            Poll::Pending
        }))
    }
}

impl Stream for Wire {}

impl AsyncRead for Wire {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, into: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let mut ends = lock(&self.0);
        if ends.to_read.is_empty() && !ends.is_shut {
            ends.reader = Some(cx.waker().clone());
            return Poll::Pending;
        }
        let count = ends.to_read.len().min(into.remaining());
        into.put_slice(&ends.to_read[..count]);
        ends.to_read.drain(..count);
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for Wire {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let mut result = Poll::Pending;
        self.change(|ends| {
            if ends.is_full {
                ends.writer = Some(cx.waker().clone());
                return None;
            }
            ends.written.extend_from_slice(bytes);
            result = Poll::Ready(Ok(bytes.len()));
            ends.witness.take()
        });
        result
    }

    fn poll_flush(self: Pin<&mut Self>, _cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.change(|ends| {
            ends.is_shut = true;
            ends.reader.take()
        });
        Poll::Ready(Ok(()))
    }
}

/// A socket with a peer that has finished the handshake.
struct Socket<P: Pattern> {
    shared: Arc<Shared>,
    engine: Arc<Mutex<Engine<P>>>,
    wire: Wire,
}

impl<P: Pattern> Socket<P> {
    fn new(options: Options, peer_type: SocketType) -> Self {
        let shared = Arc::new(Shared::new(options, P::SOCKET_TYPE));
        let mut engine = Engine::new(shared.clone(), P::default());
        let wire = Wire::default();
        let mut handshake = greeting::write(null::NAME, false).to_vec();
        null::write_ready(&mut handshake, peer_type);
        wire.bring(&handshake);

        let about = Arc::new(monitor::Peer {
            id: PeerId(1),
            endpoint: "tcp://127.0.0.1:1".parse().unwrap(),
            address: PeerAddress::Tcp(([127, 0, 0, 1], 2).into()),
            socket_type: None,
        });
        let limits = Limits { message: 100, frame: 100, frames: 1, command: COMMAND_MAXIMUM, subscriptions: false };
        let connection = Connection::new(connection::Config {
            socket_type: P::SOCKET_TYPE,
            limits,
            metadata: COMMAND_MAXIMUM,
            careful: false,
        });
        let waker = Arc::new(PeerWaker::new(shared.clone(), 0));
        let peer = Peer::new(
            about,
            tracing::Span::none(),
            shared.next_attachment(),
            connection,
            Box::new(wire.clone()),
            waker,
        );
        engine.peers.insert(peer);
        engine.peers.give(0, |_, _| ());
        engine.make_readable(0);
        for _ in 0..3 {
            engine.turn_for_user(false);
        }
        assert_eq!((engine.ready_peers, engine.sleep()), (1, true));
        lock(&wire.0).written.clear();
        Self { shared, engine: Arc::new(Mutex::new(engine)), wire }
    }

    /// The I/O task, until the socket is closed.
    fn start(&self) -> thread::JoinHandle<()> {
        let (engine, shared) = (self.engine.clone(), self.shared.clone());
        thread::spawn(move || block_on(engine.run(shared)))
    }

    fn close(&self) {
        self.shared.outbound.close();
        self.shared.inbound.close();
        self.shared.signal.command(Command::Close);
    }

    /// What `send` does when there is room.
    fn offer(&self, byte: u8) -> Result<(), Refused> {
        if self.shared.outbound.offer(&Message::from(vec![byte]))? == Call::Wake && !self.engine.take_turn(false) {
            self.shared.signal.wake();
        }
        Ok(())
    }

    /// What `send` does when there is none.
    fn send(&self, byte: u8) {
        let (message, mut ticket) = (Message::from(vec![byte]), None);
        let call = block_on(poll_fn(|cx| {
            self.engine.take_turn(true);
            self.shared.outbound.poll_offer(&message, &mut ticket, cx.waker())
        }));
        if call.unwrap() == Call::Wake {
            self.shared.signal.wake();
        }
    }
}

fn wire(bytes: &[u8]) -> Vec<u8> {
    bytes.iter().flat_map(|byte| [0, 1, *byte]).collect()
}

fn push(mark: usize) -> Socket<Push> {
    let send = HighWaterMark { messages: mark, bytes: 0 };
    Socket::new(Options { send, ..Options::default() }, SocketType::Pull)
}

fn pull() -> Socket<Pull> {
    let receive = HighWaterMark { messages: 1, bytes: 0 };
    Socket::new(Options { receive, ..Options::default() }, SocketType::Push)
}

/// A runtime whose time passes only while all of it waits.
fn paused_runtime() -> Runtime {
    tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build().unwrap()
}

/// Runs a model of a whole engine, at a moment that does not pass.
fn engine_model(preemptions: usize, run: impl Fn() + Send + Sync + 'static) {
    let runtime = paused_runtime();
    let _entered = runtime.enter();
    model(preemptions, run);
}

#[test]
fn a_command_reaches_a_driver_that_goes_to_sleep() {
    model(3, || {
        let shared = Arc::new(Shared::new(Options::default(), SocketType::Push));
        let handles = [0; 2].map(|_| {
            let shared = shared.clone();
            thread::spawn(move || shared.signal.command(Command::Close))
        });
        let mut obeyed = 0;
        block_on(poll_fn(|cx| {
            shared.signal.register(cx.waker());
            obeyed += shared.signal.take_commands().len();
            if obeyed == 2 { Poll::Ready(()) } else { Poll::Pending }
        }));
        for handle in handles {
            handle.join().unwrap();
        }
    });
}

#[test]
fn a_stream_that_becomes_ready_while_it_is_looked_at_is_looked_at_again() {
    model(None, || {
        let shared = Arc::new(Shared::new(Options::default(), SocketType::Push));
        let named = Arc::new(PeerWaker::new(shared.clone(), 7));
        let mut stream = Wire::default();
        lock(&stream.0).reader = Some(named.clone().into());
        let peer = thread::spawn({
            let stream = stream.clone();
            move || [1, 2].map(|byte| stream.bring(&[byte]))
        });
        let (mut read, mut ready) = (Vec::new(), Vec::new());
        block_on(poll_fn(|cx| {
            shared.signal.register(cx.waker());
            shared.signal.take_ready(&mut ready);
            for slot in ready.drain(..) {
                assert_eq!(slot, 7);
                named.reset();
                let waker = named.clone().into();
                let mut bytes = [0; 8];
                loop {
                    let mut buffer = ReadBuf::new(&mut bytes);
                    if Pin::new(&mut stream).poll_read(&mut Context::from_waker(&waker), &mut buffer).is_pending() {
                        break;
                    }
                    read.extend_from_slice(buffer.filled());
                }
            }
            if read.len() == 2 { Poll::Ready(()) } else { Poll::Pending }
        }));
        assert_eq!(read, [1, 2]);
        peer.join().unwrap();
        // The stream holds the waker, which holds the socket.
        lock(&stream.0).reader = None;
    });
}

#[test]
fn what_is_sent_is_written_whoever_takes_the_turn() {
    engine_model(4, || {
        let socket = push(1);
        let task = socket.start();
        for byte in 1..=2 {
            if socket.offer(byte) == Err(Refused::Full) {
                socket.send(byte);
            }
        }
        assert_eq!(socket.wire.written(6), wire(&[1, 2]));
        socket.close();
        task.join().unwrap();
    });
}

#[test]
fn what_is_sent_during_a_users_turn_is_written() {
    engine_model(2, || {
        let socket = Arc::new(push(0));
        let task = socket.start();
        let other = thread::spawn({
            let socket = socket.clone();
            move || socket.offer(1).unwrap()
        });
        socket.offer(1).unwrap();
        assert_eq!(socket.wire.written(6), wire(&[1, 1]));
        socket.close();
        task.join().unwrap();
        other.join().unwrap();
    });
}

#[test]
fn a_sender_at_the_mark_goes_on_when_the_kernel_takes_more() {
    engine_model(2, || {
        let socket = push(1);
        lock(&socket.wire.0).is_full = true;
        let task = socket.start();
        let kernel = thread::spawn({
            let wire = socket.wire.clone();
            move || wire.drain()
        });
        for byte in 1..=3 {
            if socket.offer(byte) == Err(Refused::Full) {
                socket.send(byte);
            }
        }
        assert_eq!(socket.wire.written(9), wire(&[1, 2, 3]));
        socket.close();
        task.join().unwrap();
        kernel.join().unwrap();
    });
}

#[test]
fn what_is_sent_before_the_close_is_written() {
    engine_model(2, || {
        let socket = Arc::new(push(0));
        lock(&socket.wire.0).is_full = true;
        let task = socket.start();
        let kernel = thread::spawn({
            let wire = socket.wire.clone();
            move || wire.drain()
        });
        let sender = thread::spawn({
            let socket = socket.clone();
            move || socket.offer(1).is_ok()
        });
        socket.close();
        let sent = if sender.join().unwrap() { wire(&[1]) } else { Vec::new() };
        task.join().unwrap();
        kernel.join().unwrap();
        assert_eq!(lock(&socket.wire.0).written, sent);
    });
}

#[test]
fn a_deadline_that_a_users_turn_sets_is_kept() {
    model(None, || {
        paused_runtime().block_on(async {
            let socket = push(0);
            let mut monitor = socket.shared.reporter.subscribe(false);
            let task = tokio::spawn(socket.engine.clone().run(socket.shared.clone()));
            // On the runtime's own clock: the deadlines that the I/O task has set for itself run out.
            tokio::time::sleep(Duration::from_secs(10)).await;
            lock(&socket.wire.0).is_full = true;
            socket.offer(1).unwrap();
            let congested = async { while !matches!(monitor.next().await, Some(Event::Congested { .. })) {} };
            tokio::time::timeout(Duration::from_secs(10), congested).await.expect("the peer takes nothing");
            socket.wire.drain();
            socket.close();
            task.await.unwrap();
        });
    });
}

#[test]
fn what_comes_is_received_whoever_takes_the_turn() {
    engine_model(2, || {
        let socket = pull();
        let task = socket.start();
        let peer = thread::spawn({
            let stream = socket.wire.clone();
            // Half a message, and one and a half.
            move || [&[0][..], &[1, 1, 0, 1, 2]].map(|bytes| stream.bring(bytes))
        });
        let core = Core::new(socket.shared.clone(), socket.engine.clone());
        for byte in 1..=2 {
            assert_eq!(block_on(ReceiveMessage::new(&core)), Ok(Message::from(vec![byte])));
        }
        socket.close();
        task.join().unwrap();
        peer.join().unwrap();
    });
}

#[test]
fn closing_ends_a_recv_whoever_takes_the_turn() {
    engine_model(2, || {
        let socket = pull();
        let task = socket.start();
        let peer = thread::spawn({
            let stream = socket.wire.clone();
            move || stream.bring(&wire(&[1]))
        });
        // Outlives the task: only then is its own end none.
        let core = Arc::new(Core::new(socket.shared.clone(), socket.engine.clone()));
        let receiver = thread::spawn({
            let core = core.clone();
            move || block_on(ReceiveMessage::new(&core)).is_ok()
        });
        socket.close();
        task.join().unwrap();
        receiver.join().unwrap();
        peer.join().unwrap();
    });
}
