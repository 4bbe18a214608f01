//! Benchmark peer "libzmq": the C++ library through the crate `zmq`, which builds it from source.
//!
//! Its fastest use, measured: one I/O thread, blocking calls from one thread, its own high-water mark of 1000; small
//! bodies given by reference (`zmq_send` copies them into one block; `zmq_msg_init_data` would allocate a second block
//! for its counter) and large ones given away without a copy. Several receiving sockets are polled, then drained without
//! waiting. `--variant deep` has high-water marks of 100,000.

use std::{ffi::c_int, time::Duration};

use anyhow::{Result, anyhow, bail, ensure};
use bytes::Bytes;
use harness::{Args, Library, Parser, PubSub, Publish, Pull, Push};
use zmq::{Context, DONTWAIT, Message, POLLIN, Socket, SocketType};

/// From `zmq.h`.
const ZMQ_XPUB_NODROP: c_int = 69;

/// Messages that either side may queue.
const HIGH_WATER_MARK: i32 = 100_000;

/// From this size on, a payload is given away instead of copied.
const GIVE_AWAY: usize = 4096;

/// Messages taken from one socket before the next one's turn.
const TURN: usize = 256;

fn main() -> Result<()> {
    let args = Args::parse();
    harness::prepare_process(&args)?;
    let high_water_mark = match args.variant.as_str() {
        "default" => None,
        "deep" => Some(HIGH_WATER_MARK),
        other => bail!("libzmq has the variants default and deep, not {other}"),
    };
    let library = Libzmq { context: Context::new(), high_water_mark };
    futures::executor::block_on(harness::run_with_pubsub(library, &args))
}

struct Libzmq {
    context: Context,
    high_water_mark: Option<i32>,
}

impl Libzmq {
    fn socket(&self, kind: SocketType) -> Result<Socket> {
        let socket = self.context.socket(kind)?;
        socket.set_linger(-1)?;
        if let Some(mark) = self.high_water_mark {
            socket.set_sndhwm(mark)?;
            socket.set_rcvhwm(mark)?;
        }
        Ok(socket)
    }

    fn bound(&self, kind: SocketType, endpoint: &str) -> Result<(Socket, String)> {
        let socket = self.socket(kind)?;
        socket.bind(endpoint)?;
        let endpoint = socket.get_last_endpoint()?.map_err(|_| anyhow!("an endpoint that is not UTF-8"))?;
        Ok((socket, endpoint))
    }

    fn connected(&self, kind: SocketType, endpoints: &[String]) -> Result<Socket> {
        let socket = self.socket(kind)?;
        for endpoint in endpoints {
            socket.connect(endpoint)?;
        }
        Ok(socket)
    }
}

impl Library for Libzmq {
    type Push = Sender;
    type Pull = Receiver;

    async fn pull(&self, endpoint: &str, _peers: usize) -> Result<(Receiver, String)> {
        let (socket, endpoint) = self.bound(SocketType::PULL, endpoint)?;
        Ok((Receiver { socket, message: Message::new() }, endpoint))
    }

    async fn push(&self, endpoints: &[String]) -> Result<Sender> {
        let socket = self.connected(SocketType::PUSH, endpoints)?;
        Ok(Sender { socket })
    }

    async fn pause(&self, duration: Duration) {
        std::thread::sleep(duration);
    }

    async fn drain(pulls: &mut [Receiver], take: impl FnMut(usize, &[u8]) -> bool) -> Result<()> {
        poll_all(pulls, take)
    }
}

impl PubSub for Libzmq {
    type Pub = Sender;
    type Sub = Receiver;

    async fn publisher(&self, endpoint: &str, lossy: bool) -> Result<(Sender, String)> {
        let (mut socket, endpoint) = self.bound(SocketType::PUB, endpoint)?;
        if !lossy {
            wait_for_subscribers(&mut socket)?;
        }
        Ok((Sender { socket }, endpoint))
    }

    async fn subscriber(&self, endpoint: &str, prefixes: &[String]) -> Result<Receiver> {
        let socket = self.socket(SocketType::SUB)?;
        // Subscriptions beyond the send high-water mark would be lost without a word.
        socket.set_sndhwm(0)?;
        socket.connect(endpoint)?;
        for prefix in prefixes {
            socket.set_subscribe(prefix.as_bytes())?;
        }
        Ok(Receiver { socket, message: Message::new() })
    }

    async fn drain_subs(subs: &mut [Receiver], take: impl FnMut(usize, &[u8]) -> bool) -> Result<()> {
        poll_all(subs, take)
    }
}

/// Sets `ZMQ_XPUB_NODROP`, which the crate lacks.
#[expect(unsafe_code, reason = "the crate has no method for this option")]
fn wait_for_subscribers(socket: &mut Socket) -> Result<()> {
    let yes: c_int = 1;
    // SAFETY: the socket is alive, and the option is an int, passed with its size.
    let outcome = unsafe {
        let socket = socket.as_mut_ptr();
        zmq_sys::zmq_setsockopt(socket, ZMQ_XPUB_NODROP, (&raw const yes).cast(), size_of::<c_int>())
    };
    ensure!(outcome == 0, "libzmq does not know ZMQ_XPUB_NODROP");
    Ok(())
}

/// A PUSH or PUB socket.
struct Sender {
    socket: Socket,
}

impl Sender {
    #[inline]
    fn send_now(&self, body: Vec<u8>) -> Result<()> {
        if body.len() < GIVE_AWAY {
            self.socket.send(body.as_slice(), 0)?;
        } else {
            self.socket.send(body, 0)?;
        }
        Ok(())
    }
}

impl Push for Sender {
    #[inline]
    async fn send(&mut self, body: Vec<u8>) -> Result<()> {
        self.send_now(body)
    }

    // The crate has no safe form of zmq_msg_copy: sharing saves our allocation, not libzmq's copy.
    #[inline]
    async fn send_shared(&mut self, body: &Bytes) -> Result<()> {
        Ok(self.socket.send(body.as_ref(), 0)?)
    }

    // What is queued goes out while the context lives; its end waits for it, as the linger is endless.
    async fn finish(&mut self) -> Result<()> {
        Ok(())
    }
}

impl Publish for Sender {
    #[inline]
    async fn send(&mut self, body: Vec<u8>) -> Result<()> {
        self.send_now(body)
    }
}

/// A PULL or SUB socket.
struct Receiver {
    socket: Socket,
    message: Message,
}

impl Receiver {
    /// Takes what is there, up to `most` messages.
    fn take_queued(&mut self, most: usize, mut take: impl FnMut(&[u8]) -> bool) -> Result<bool> {
        for _ in 0..most {
            match self.socket.recv(&mut self.message, DONTWAIT) {
                Ok(()) if take(&self.message) => return Ok(true),
                Ok(()) => {}
                Err(zmq::Error::EAGAIN) => break,
                Err(error) => return Err(error.into()),
            }
        }
        Ok(false)
    }
}

impl Pull for Receiver {
    #[inline]
    async fn recv(&mut self, take: &mut impl FnMut(&[u8])) -> Result<()> {
        self.socket.recv(&mut self.message, 0)?;
        take(&self.message);
        Ok(())
    }
}

fn poll_all(receivers: &mut [Receiver], mut take: impl FnMut(usize, &[u8]) -> bool) -> Result<()> {
    loop {
        let mut items: Vec<_> = receivers.iter().map(|receiver| receiver.socket.as_poll_item(POLLIN)).collect();
        zmq::poll(&mut items, -1)?;
        let readable: Vec<_> = items.iter().map(|item| item.is_readable()).collect();
        for (index, receiver) in receivers.iter_mut().enumerate().filter(|(index, _)| readable[*index]) {
            if receiver.take_queued(TURN, |body| take(index, body))? {
                return Ok(());
            }
        }
    }
}
