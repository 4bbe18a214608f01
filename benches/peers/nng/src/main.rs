//! Benchmark peer "nng": the C library 1.4 through the crate `nng`, which builds it with CMake.
//!
//! Blocking calls from one thread, as in its own benchmark; nng's threads do the rest. A body is copied into nng's message,
//! for which the crate has no other way. Queues have the largest size that nng allows. Several receiving sockets are polled,
//! then drained without waiting. Its PUB always drops, and its SUB filters what it gets, so it plays in the lossy cells only.

use std::{
    os::fd::{BorrowedFd, RawFd},
    time::Duration,
};

use anyhow::{Context, Result, anyhow, bail};
use bytes::Bytes;
use harness::{Args, Library, Parser, PubSub, Publish, Pull, Push};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nng::{
    Error, Listener, Message, Protocol, Socket,
    options::{
        Options, RecvBufferSize, RecvFd, RecvMaxSize, SendBufferSize, protocol::pubsub::Subscribe,
        transport::tcp::BoundPort,
    },
};

/// The largest queue that nng allows.
const QUEUE: i32 = 8_192;

/// Messages taken from one socket before the next one's turn.
const TURN: usize = 256;

fn main() -> Result<()> {
    let args = Args::parse();
    harness::prepare_process(&args)?;
    if args.variant != "default" {
        bail!("nng has the variant default, not {}", args.variant);
    }
    futures::executor::block_on(harness::run_with_pubsub(Nng, &args))
}

struct Nng;

fn listening(protocol: Protocol, endpoint: &str) -> Result<(Socket, String)> {
    let socket = open(protocol)?;
    // A listener goes on when its handle is dropped.
    let listener = Listener::new(&socket, endpoint)?;
    let endpoint = match endpoint.strip_suffix(":0") {
        Some(host) => format!("{host}:{}", listener.get_opt::<BoundPort>()?),
        None => endpoint.to_owned(),
    };
    Ok((socket, endpoint))
}

fn open(protocol: Protocol) -> Result<Socket> {
    let socket = Socket::new(protocol)?;
    match protocol {
        Protocol::Push0 | Protocol::Pub0 => socket.set_opt::<SendBufferSize>(QUEUE)?,
        Protocol::Sub0 => socket.set_opt::<RecvBufferSize>(QUEUE)?,
        // PULL has no queue of its own.
        _ => {}
    }
    socket.set_opt::<RecvMaxSize>(0)?;
    Ok(socket)
}

impl Library for Nng {
    type Push = Sender;
    type Pull = Receiver;

    async fn pull(&self, endpoint: &str, _peers: usize) -> Result<(Receiver, String)> {
        let (socket, endpoint) = listening(Protocol::Pull0, endpoint)?;
        Ok((Receiver(socket), endpoint))
    }

    async fn push(&self, endpoints: &[String]) -> Result<Sender> {
        let socket = open(Protocol::Push0)?;
        for endpoint in endpoints {
            socket.dial(endpoint)?;
        }
        Ok(Sender(socket))
    }

    async fn pause(&self, duration: Duration) {
        std::thread::sleep(duration);
    }

    async fn drain(pulls: &mut [Receiver], take: impl FnMut(usize, &[u8]) -> bool) -> Result<()> {
        poll_all(pulls, take)
    }
}

impl PubSub for Nng {
    type Pub = Sender;
    type Sub = Receiver;

    async fn publisher(&self, endpoint: &str, _lossy: bool) -> Result<(Sender, String)> {
        let (socket, endpoint) = listening(Protocol::Pub0, endpoint)?;
        Ok((Sender(socket), endpoint))
    }

    async fn subscriber(&self, endpoint: &str, prefixes: &[String]) -> Result<Receiver> {
        let socket = open(Protocol::Sub0)?;
        for prefix in prefixes {
            socket.set_opt::<Subscribe>(prefix.clone().into_bytes())?;
        }
        socket.dial(endpoint)?;
        Ok(Receiver(socket))
    }

    async fn drain_subs(subs: &mut [Receiver], take: impl FnMut(usize, &[u8]) -> bool) -> Result<()> {
        poll_all(subs, take)
    }
}

/// A PUSH or PUB socket.
struct Sender(Socket);

impl Sender {
    #[inline]
    fn send_copy(&self, body: &[u8]) -> Result<()> {
        self.0.send(Message::from(body)).map_err(|(_, error)| anyhow!(error))
    }
}

impl Push for Sender {
    #[inline]
    async fn send(&mut self, body: Vec<u8>) -> Result<()> {
        self.send_copy(&body)
    }

    #[inline]
    async fn send_shared(&mut self, body: &Bytes) -> Result<()> {
        self.send_copy(body)
    }

    // What is queued goes out while the socket lives, and the driver lets it live until the receiver has everything.
    async fn finish(&mut self) -> Result<()> {
        Ok(())
    }
}

impl Publish for Sender {
    #[inline]
    async fn send(&mut self, body: Vec<u8>) -> Result<()> {
        self.send_copy(&body)
    }
}

/// A PULL or SUB socket.
struct Receiver(Socket);

impl Pull for Receiver {
    #[inline]
    async fn recv(&mut self, take: &mut impl FnMut(&[u8])) -> Result<()> {
        let message = self.0.recv()?;
        take(&message);
        Ok(())
    }
}

impl Receiver {
    /// Takes what is there, up to a turn.
    fn take_queued(&mut self, mut take: impl FnMut(&[u8]) -> bool) -> Result<bool> {
        for _ in 0..TURN {
            match self.0.try_recv() {
                Ok(message) if take(&message) => return Ok(true),
                Ok(_) => {}
                Err(Error::TryAgain) => break,
                Err(error) => return Err(error.into()),
            }
        }
        Ok(false)
    }
}

fn poll_all(receivers: &mut [Receiver], mut take: impl FnMut(usize, &[u8]) -> bool) -> Result<()> {
    let descriptors: Vec<RawFd> =
        receivers.iter().map(|receiver| Ok(receiver.0.get_opt::<RecvFd>()?)).collect::<Result<_>>()?;
    loop {
        let mut items: Vec<PollFd> = descriptors.iter().map(|fd| PollFd::new(borrow(*fd), PollFlags::POLLIN)).collect();
        poll(&mut items, PollTimeout::NONE).context("waiting for messages")?;
        let readable: Vec<bool> = items.iter().map(|item| item.any().unwrap_or(false)).collect();
        for (index, receiver) in receivers.iter_mut().enumerate().filter(|(index, _)| readable[*index]) {
            if receiver.take_queued(|body| take(index, body))? {
                return Ok(());
            }
        }
    }
}

#[expect(unsafe_code, reason = "nng names descriptors by their number")]
fn borrow<'a>(descriptor: RawFd) -> BorrowedFd<'a> {
    // SAFETY: the descriptor belongs to a socket in the caller's list, which outlives the poll.
    unsafe { BorrowedFd::borrow_raw(descriptor) }
}
