//! Benchmark peer "monocoque": monocoque-rs on io_uring (compio), one thread, one connection per socket.
//!
//! * `--variant default`: every send is a write of its own, as the library comes.
//! * `--variant coalesce`: writes are collected and never flushed until the very end. Nothing would go out after the
//!   last full 64 KiB without the flush that [`Push::finish`] does for the sake of the count.
//! * `--variant flush64`: coalescing, and a flush after every 64 messages of a connection, as in its own benchmark.
//!
//! Messages go out as one frame without a vector (`send_one`); they are received into a reused vector, and drained.
//! Several receiving connections on one endpoint are its `PullFanIn` (TCP only); several endpoints of one sender are
//! several sockets in turn, which is what its `PushFanOut` does.
//!
//! Its PUB (TCP only) hands every message to a pool of threads, which collect what is queued into one write per subscriber;
//! when a thread's queue of 1000 messages is full, the message is dropped. It has no form that waits, so it plays in the
//! lossy cells only, in the variant `default`: coalescing changes nothing there. Messages go out as borrowed frames
//! (`send_frames`), the form that its documentation recommends for much of which nobody wants a part.

use std::{collections::VecDeque, time::Duration};

use anyhow::{Result, anyhow, bail, ensure};
use bytes::Bytes;
use harness::{Args, Library, Parser, PubSub, Publish, Pull, Push};
use monocoque::{
    SocketOptions,
    rt::{LocalRuntime, TcpListener, TcpStream, UnixListener, UnixStream, sleep},
    zmq::{PubSocket, PullFanIn, PullSocket, PushSocket, SubSocket},
};

/// Messages of one connection between two flushes, in the variant that flushes.
const FLUSH_EVERY: u32 = 64;

fn main() -> Result<()> {
    let args = Args::parse();
    harness::prepare_process(&args)?;
    let library = match args.variant.as_str() {
        "default" => Monocoque { coalesce: false, flush_every: None },
        "coalesce" => Monocoque { coalesce: true, flush_every: None },
        "flush64" => Monocoque { coalesce: true, flush_every: Some(FLUSH_EVERY) },
        other => bail!("monocoque has the variants default, coalesce and flush64, not {other}"),
    };
    LocalRuntime::new()?.block_on(harness::run_with_pubsub(library, &args))
}

struct Monocoque {
    coalesce: bool,
    flush_every: Option<u32>,
}

impl Library for Monocoque {
    type Push = Sender;
    type Pull = Receiver;

    async fn pull(&self, endpoint: &str, peers: usize) -> Result<(Receiver, String)> {
        if let Some(path) = endpoint.strip_prefix("ipc://") {
            ensure!(peers == 1, "monocoque has no fan-in over IPC");
            let listener = UnixListener::bind(path).await?;
            return Ok((Receiver::new(Source::IpcListener(listener)), endpoint.to_owned()));
        }
        let listener = TcpListener::bind(tcp_address(endpoint)?).await?;
        let endpoint = format!("tcp://{}", listener.local_addr()?);
        Ok((Receiver::new(Source::TcpListener(listener, peers)), endpoint))
    }

    async fn push(&self, endpoints: &[String]) -> Result<Sender> {
        let options = SocketOptions::default().with_write_coalescing(self.coalesce);
        let mut lines = Vec::new();
        for endpoint in endpoints {
            let line = if let Some(path) = endpoint.strip_prefix("ipc://") {
                let stream = UnixStream::connect(path).await?;
                Line::Ipc(PushSocket::from_unix_stream_with_options(stream, options.clone()).await?)
            } else {
                Line::Tcp(PushSocket::connect_with_options(tcp_address(endpoint)?, options.clone()).await?)
            };
            lines.push(line);
        }
        let flush_after = self.flush_every.map(|every| every * lines.len() as u32);
        Ok(Sender { lines, next: 0, flush_after, unflushed: 0 })
    }

    async fn pause(&self, duration: Duration) {
        sleep(duration).await;
    }
}

impl PubSub for Monocoque {
    type Pub = Publisher;
    type Sub = Subscriber;

    async fn publisher(&self, endpoint: &str, lossy: bool) -> Result<(Publisher, String)> {
        ensure!(lossy, "monocoque's PUB cannot wait for subscribers");
        let socket = PubSocket::bind(tcp_address(endpoint)?).await?;
        let endpoint = format!("tcp://{}", socket.local_addr()?);
        Ok((Publisher { socket }, endpoint))
    }

    async fn subscriber(&self, endpoint: &str, prefixes: &[String]) -> Result<Subscriber> {
        let mut socket = SubSocket::connect(endpoint).await?;
        for prefix in prefixes {
            socket.subscribe(prefix.as_bytes()).await?;
        }
        Ok(Subscriber { socket, frames: Vec::with_capacity(4) })
    }
}

struct Publisher {
    socket: PubSocket,
}

impl Publish for Publisher {
    /// Nobody else accepts subscribers. That they are subscribed is not known.
    async fn admit(&mut self, _topic: &str, subscribers: usize) -> Result<()> {
        for _ in 0..subscribers {
            self.socket.accept_subscriber().await?;
        }
        Ok(())
    }

    #[inline]
    async fn send(&mut self, body: Vec<u8>) -> Result<()> {
        Ok(self.socket.send_frames(&[body.into()]).await?)
    }
}

struct Subscriber {
    socket: SubSocket,
    frames: Vec<Bytes>,
}

impl Pull for Subscriber {
    #[inline]
    async fn recv(&mut self, take: &mut impl FnMut(&[u8])) -> Result<()> {
        ensure!(self.socket.recv_into(&mut self.frames).await?, "the connection ended early");
        take_body(&self.frames, take);
        while self.socket.try_recv_into(&mut self.frames)? {
            take_body(&self.frames, take);
        }
        Ok(())
    }
}

fn tcp_address(endpoint: &str) -> Result<&str> {
    endpoint.strip_prefix("tcp://").ok_or_else(|| anyhow!("not an endpoint: {endpoint}"))
}

/// One PUSH socket, which is one connection.
enum Line {
    Tcp(PushSocket<TcpStream>),
    Ipc(PushSocket<UnixStream>),
}

impl Line {
    #[inline]
    async fn send(&mut self, body: Bytes) -> Result<()> {
        match self {
            Self::Tcp(push) => push.send_one(body).await?,
            Self::Ipc(push) => push.send_one(body).await?,
        }
        Ok(())
    }

    async fn flush(&mut self) -> Result<()> {
        match self {
            Self::Tcp(push) => push.flush().await?,
            Self::Ipc(push) => push.flush().await?,
        }
        Ok(())
    }
}

struct Sender {
    lines: Vec<Line>,
    next: usize,
    flush_after: Option<u32>,
    unflushed: u32,
}

impl Sender {
    #[inline]
    async fn send_bytes(&mut self, body: Bytes) -> Result<()> {
        self.lines[self.next].send(body).await?;
        self.next = if self.next + 1 == self.lines.len() { 0 } else { self.next + 1 };
        self.unflushed += 1;
        if Some(self.unflushed) == self.flush_after {
            self.flush().await?;
        }
        Ok(())
    }

    async fn flush(&mut self) -> Result<()> {
        self.unflushed = 0;
        for line in &mut self.lines {
            line.flush().await?;
        }
        Ok(())
    }
}

impl Push for Sender {
    #[inline]
    async fn send(&mut self, body: Vec<u8>) -> Result<()> {
        self.send_bytes(body.into()).await
    }

    #[inline]
    async fn send_shared(&mut self, body: &Bytes) -> Result<()> {
        self.send_bytes(body.clone()).await
    }

    async fn finish(&mut self) -> Result<()> {
        self.flush().await
    }
}

/// Where messages come from; listeners become sockets when the first message is asked for.
enum Source {
    TcpListener(TcpListener, usize),
    IpcListener(UnixListener),
    Tcp(PullSocket<TcpStream>),
    Ipc(PullSocket<UnixStream>),
    FanIn(PullFanIn),
}

struct Receiver {
    source: Source,
    frames: Vec<Bytes>,
    /// Keeps a batch's storage in the fan-in.
    batch: VecDeque<Vec<Bytes>>,
}

impl Receiver {
    fn new(source: Source) -> Self {
        Self { source, frames: Vec::with_capacity(4), batch: VecDeque::new() }
    }

    async fn accept(&mut self) -> Result<()> {
        let accepted = match &self.source {
            Source::TcpListener(listener, 1) => {
                let (stream, _) = listener.accept().await?;
                Source::Tcp(PullSocket::from_tcp(stream).await?)
            }
            Source::TcpListener(listener, peers) => {
                Source::FanIn(PullFanIn::accept_workers(listener, *peers, SocketOptions::default()).await?)
            }
            Source::IpcListener(listener) => {
                let (stream, _) = listener.accept().await?;
                Source::Ipc(PullSocket::from_unix_stream(stream).await?)
            }
            Source::Tcp(_) | Source::Ipc(_) | Source::FanIn(_) => return Ok(()),
        };
        self.source = accepted;
        Ok(())
    }
}

impl Pull for Receiver {
    #[inline]
    async fn recv(&mut self, take: &mut impl FnMut(&[u8])) -> Result<()> {
        match &mut self.source {
            Source::Tcp(pull) => {
                ensure!(pull.recv_into(&mut self.frames).await?, "the connection ended early");
                take_body(&self.frames, take);
                while pull.try_recv_into(&mut self.frames)? {
                    take_body(&self.frames, take);
                }
            }
            Source::Ipc(pull) => {
                ensure!(pull.recv_into(&mut self.frames).await?, "the connection ended early");
                take_body(&self.frames, take);
                while pull.try_recv_into(&mut self.frames)? {
                    take_body(&self.frames, take);
                }
            }
            Source::FanIn(sink) => {
                let batch = sink.recv_batch().await?.ok_or_else(|| anyhow!("all connections ended early"))?;
                self.batch.extend(batch);
                self.batch.drain(..).for_each(|frames| take_body(&frames, take));
            }
            Source::TcpListener(..) | Source::IpcListener(_) => self.accept().await?,
        }
        Ok(())
    }
}

#[inline]
fn take_body(frames: &[Bytes], take: &mut impl FnMut(&[u8])) {
    take(frames.first().map_or(&[], AsRef::as_ref));
}
