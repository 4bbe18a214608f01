//! Benchmark peer "zeromq": the crate of that name (zmq.rs), one `send` and one `recv` per message.
//!
//! `--variant default` is a current-thread runtime, its fastest form here; `multi` is a multi-thread one.
//! A PUSH has no close that waits: its writer task sends what is queued while the runtime lives. A PUB always drops what a
//! full subscriber cannot take, so it plays in the lossy cells only.

use std::time::Duration;

use anyhow::{Result, bail};
use bytes::Bytes;
use harness::{Args, Library, Parser, PubSub, Publish, Pull, Push};
use tokio::runtime::Builder;
use zeromq::{PubSocket, PullSocket, PushSocket, Socket, SocketRecv, SocketSend, SubSocket, ZmqMessage};

fn main() -> Result<()> {
    let args = Args::parse();
    harness::prepare_process(&args)?;
    let mut runtime = match args.variant.as_str() {
        "default" => Builder::new_current_thread(),
        "multi" => Builder::new_multi_thread(),
        other => bail!("zeromq has the variants default and multi, not {other}"),
    };
    runtime.enable_all().build()?.block_on(harness::run_with_pubsub(Zeromq, &args))
}

struct Zeromq;

impl Library for Zeromq {
    type Push = Sender<PushSocket>;
    type Pull = Receiver<PullSocket>;

    async fn pull(&self, endpoint: &str, _peers: usize) -> Result<(Self::Pull, String)> {
        let mut socket = PullSocket::new();
        let endpoint = socket.bind(endpoint).await?;
        Ok((Receiver(socket), endpoint.to_string()))
    }

    async fn push(&self, endpoints: &[String]) -> Result<Self::Push> {
        let mut socket = PushSocket::new();
        for endpoint in endpoints {
            socket.connect(endpoint).await?;
        }
        Ok(Sender(socket))
    }

    async fn pause(&self, duration: Duration) {
        tokio::time::sleep(duration).await;
    }
}

impl PubSub for Zeromq {
    type Pub = Sender<PubSocket>;
    type Sub = Receiver<SubSocket>;

    async fn publisher(&self, endpoint: &str, _lossy: bool) -> Result<(Self::Pub, String)> {
        let mut socket = PubSocket::new();
        let endpoint = socket.bind(endpoint).await?;
        Ok((Sender(socket), endpoint.to_string()))
    }

    async fn subscriber(&self, endpoint: &str, prefixes: &[String]) -> Result<Self::Sub> {
        let mut socket = SubSocket::new();
        socket.connect(endpoint).await?;
        for prefix in prefixes {
            socket.subscribe(prefix).await?;
        }
        Ok(Receiver(socket))
    }
}

struct Sender<S>(S);

impl Push for Sender<PushSocket> {
    #[inline]
    async fn send(&mut self, body: Vec<u8>) -> Result<()> {
        Ok(self.0.send(ZmqMessage::from(body)).await?)
    }

    #[inline]
    async fn send_shared(&mut self, body: &Bytes) -> Result<()> {
        Ok(self.0.send(ZmqMessage::from(body.clone())).await?)
    }

    async fn finish(&mut self) -> Result<()> {
        Ok(())
    }
}

impl Publish for Sender<PubSocket> {
    #[inline]
    async fn send(&mut self, body: Vec<u8>) -> Result<()> {
        self.0.send(ZmqMessage::from(body)).await?;
        // Its PUB never waits, so without this its writer tasks would get no turn on a current-thread runtime.
        tokio::task::coop::consume_budget().await;
        Ok(())
    }
}

struct Receiver<S>(S);

impl<S: SocketRecv> Pull for Receiver<S> {
    #[inline]
    async fn recv(&mut self, take: &mut impl FnMut(&[u8])) -> Result<()> {
        let message = self.0.recv().await?;
        take(message.get(0).map_or(&[], AsRef::as_ref));
        Ok(())
    }
}
