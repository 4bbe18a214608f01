//! Benchmark peer "sinew": default options, one message per call, a fresh payload each.
//!
//! `--variant current` (also `default`) is a current-thread runtime, `multi` a multi-thread one; `spin` is a current-thread
//! one whose receiving sockets spin before they sleep. A PUB that must not drop has the policy `SlowSubscriber::Wait`.

use std::time::Duration;

use anyhow::{Result, bail};
use bytes::Bytes;
use harness::{Args, Library, Parser, PubSub, Publish, Pull, Push};
use sinew::{PubSocket, PullSocket, PushSocket, SlowSubscriber, SubSocket};
use tokio::runtime::Builder;

/// How long a receiver looks for bytes before it sleeps, in the variant that does: longer than a round trip takes.
const SPIN: Duration = Duration::from_micros(100);

fn main() -> Result<()> {
    let args = Args::parse();
    harness::prepare_process(&args)?;
    let (mut runtime, spin) = match args.variant.as_str() {
        "default" | "current" => (Builder::new_current_thread(), Duration::ZERO),
        "multi" => (Builder::new_multi_thread(), Duration::ZERO),
        "spin" => (Builder::new_current_thread(), SPIN),
        other => bail!("sinew has the variants current, multi and spin, not {other}"),
    };
    runtime.enable_all().build()?.block_on(harness::run_with_pubsub(Sinew { spin }, &args))
}

struct Sinew {
    spin: Duration,
}

impl Library for Sinew {
    type Push = Sender;
    type Pull = Receiver;

    async fn pull(&self, endpoint: &str, _peers: usize) -> Result<(Receiver, String)> {
        let socket = PullSocket::builder().spin(self.spin).build()?;
        let endpoint = socket.bind(endpoint).await?;
        Ok((Receiver { socket }, endpoint.to_string()))
    }

    async fn push(&self, endpoints: &[String]) -> Result<Sender> {
        let socket = PushSocket::new();
        for endpoint in endpoints {
            socket.connect(endpoint.as_str())?;
        }
        Ok(Sender { socket })
    }

    async fn pause(&self, duration: Duration) {
        tokio::time::sleep(duration).await;
    }
}

impl PubSub for Sinew {
    type Pub = Publisher;
    type Sub = Subscriber;

    async fn publisher(&self, endpoint: &str, lossy: bool) -> Result<(Publisher, String)> {
        let mut builder = PubSocket::builder();
        if !lossy {
            builder = builder.slow_subscriber(SlowSubscriber::Wait);
        }
        let socket = builder.build()?;
        let endpoint = socket.bind(endpoint).await?;
        Ok((Publisher { socket }, endpoint.to_string()))
    }

    async fn subscriber(&self, endpoint: &str, prefixes: &[String]) -> Result<Subscriber> {
        let socket = SubSocket::new();
        for prefix in prefixes {
            socket.subscribe(prefix);
        }
        socket.connect(endpoint)?;
        Ok(Subscriber { socket })
    }
}

struct Sender {
    socket: PushSocket,
}

impl Push for Sender {
    #[inline]
    async fn send(&mut self, body: Vec<u8>) -> Result<()> {
        self.socket.send(body).await?;
        Ok(())
    }

    #[inline]
    async fn send_shared(&mut self, body: &Bytes) -> Result<()> {
        self.socket.send(body.clone()).await?;
        Ok(())
    }

    async fn finish(&mut self) -> Result<()> {
        self.socket.close().await?;
        Ok(())
    }
}

struct Receiver {
    socket: PullSocket,
}

impl Pull for Receiver {
    #[inline]
    async fn recv(&mut self, take: &mut impl FnMut(&[u8])) -> Result<()> {
        let message = self.socket.recv().await?;
        take(&message[0]);
        Ok(())
    }
}

struct Publisher {
    socket: PubSocket,
}

impl Publish for Publisher {
    async fn admit(&mut self, topic: &str, subscribers: usize) -> Result<()> {
        Ok(self.socket.wait_subscribed(topic, subscribers).await?)
    }

    #[inline]
    async fn send(&mut self, body: Vec<u8>) -> Result<()> {
        self.socket.send(body).await?;
        Ok(())
    }
}

struct Subscriber {
    socket: SubSocket,
}

impl Pull for Subscriber {
    #[inline]
    async fn recv(&mut self, take: &mut impl FnMut(&[u8])) -> Result<()> {
        let message = self.socket.recv().await?;
        take(&message[0]);
        Ok(())
    }
}
