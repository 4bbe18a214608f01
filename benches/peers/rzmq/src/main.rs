//! Benchmark peer "rzmq": one `send` and one `recv` per message, high-water marks of 100,000 as in its own benchmark.
//!
//! `--variant default` is epoll on tokio's multi-thread runtime, the form its documentation shows; `current` is the same on a
//! current-thread runtime; `uring` moves the connections to its io_uring backend (TCP only: IPC stays on epoll there).

use std::time::Duration;

use anyhow::{Context as _, Result, bail};
use bytes::Bytes;
use harness::{Args, Library, Parser, PubSub, Publish, Pull, Push};
use rzmq::{
    Context, Msg, Socket, SocketType,
    socket::options::{IO_URING_SESSION_ENABLED, LAST_ENDPOINT, LINGER, RCVHWM, SNDHWM, SUBSCRIBE, XPUB_NODROP},
    uring::{UringConfig, initialize_uring_backend},
};
use tokio::runtime::Builder;

const HIGH_WATER_MARK: i32 = 100_000;

fn main() -> Result<()> {
    let args = Args::parse();
    harness::prepare_process(&args)?;
    let (mut runtime, uring) = match args.variant.as_str() {
        "default" => (Builder::new_multi_thread(), false),
        "current" => (Builder::new_current_thread(), false),
        "uring" => (Builder::new_multi_thread(), true),
        other => bail!("rzmq has the variants default, current and uring, not {other}"),
    };
    runtime.enable_all().build()?.block_on(async {
        if uring {
            initialize_uring_backend(UringConfig::default())?;
        }
        harness::run_with_pubsub(Rzmq { context: Context::new()?, uring }, &args).await
    })
}

struct Rzmq {
    context: Context,
    uring: bool,
}

impl Rzmq {
    async fn socket(&self, kind: SocketType) -> Result<Socket> {
        let socket = self.context.socket(kind)?;
        socket.set_option(SNDHWM, HIGH_WATER_MARK).await?;
        socket.set_option(RCVHWM, HIGH_WATER_MARK).await?;
        socket.set_option(LINGER, -1_i32).await?;
        if self.uring {
            socket.set_option(IO_URING_SESSION_ENABLED, true).await?;
        }
        Ok(socket)
    }

    async fn bound(socket: &Socket, endpoint: &str) -> Result<String> {
        socket.bind(endpoint).await?;
        if !endpoint.starts_with("tcp://") {
            return Ok(endpoint.to_owned());
        }
        let endpoint = socket.get_option(LAST_ENDPOINT).await?;
        let endpoint = String::from_utf8(endpoint).context("an endpoint that is not UTF-8")?;
        Ok(endpoint.trim_end_matches('\0').to_owned())
    }
}

impl Library for Rzmq {
    type Push = Sender;
    type Pull = Receiver;

    async fn pull(&self, endpoint: &str, _peers: usize) -> Result<(Receiver, String)> {
        let socket = self.socket(SocketType::Pull).await?;
        let endpoint = Self::bound(&socket, endpoint).await?;
        Ok((Receiver { socket }, endpoint))
    }

    async fn push(&self, endpoints: &[String]) -> Result<Sender> {
        let socket = self.socket(SocketType::Push).await?;
        for endpoint in endpoints {
            socket.connect(endpoint).await?;
        }
        Ok(Sender { socket })
    }

    async fn pause(&self, duration: Duration) {
        tokio::time::sleep(duration).await;
    }
}

impl PubSub for Rzmq {
    type Pub = Sender;
    type Sub = Receiver;

    async fn publisher(&self, endpoint: &str, lossy: bool) -> Result<(Sender, String)> {
        let socket = self.socket(SocketType::Pub).await?;
        socket.set_option(XPUB_NODROP, i32::from(!lossy)).await?;
        let endpoint = Self::bound(&socket, endpoint).await?;
        Ok((Sender { socket }, endpoint))
    }

    async fn subscriber(&self, endpoint: &str, prefixes: &[String]) -> Result<Receiver> {
        let socket = self.socket(SocketType::Sub).await?;
        for prefix in prefixes {
            socket.set_option_raw(SUBSCRIBE, prefix.as_bytes()).await?;
        }
        socket.connect(endpoint).await?;
        Ok(Receiver { socket })
    }
}

struct Sender {
    socket: Socket,
}

impl Push for Sender {
    #[inline]
    async fn send(&mut self, body: Vec<u8>) -> Result<()> {
        Ok(self.socket.send(Msg::from_vec(body)).await?)
    }

    #[inline]
    async fn send_shared(&mut self, body: &Bytes) -> Result<()> {
        Ok(self.socket.send(Msg::from_bytes(body.clone())).await?)
    }

    async fn finish(&mut self) -> Result<()> {
        Ok(self.socket.close().await?)
    }
}

impl Publish for Sender {
    #[inline]
    async fn send(&mut self, body: Vec<u8>) -> Result<()> {
        Ok(self.socket.send(Msg::from_vec(body)).await?)
    }
}

struct Receiver {
    socket: Socket,
}

impl Pull for Receiver {
    #[inline]
    async fn recv(&mut self, take: &mut impl FnMut(&[u8])) -> Result<()> {
        let message = self.socket.recv().await?;
        take(message.data().unwrap_or_default());
        Ok(())
    }
}
