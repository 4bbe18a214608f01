//! Benchmark peer "omq": omq-tokio on a current-thread runtime, its fastest form here.
//!
//! As in its own benchmark: `try_send` first and `send` when that is full; `recv`, then `try_recv` for what else is
//! there. Bodies of up to 55 bytes are sent inline (`Message::from_slice`), larger ones are given away. Linger is zero by
//! default in omq, which would lose the tail, so it is set to forever. `--variant batch` receives with `recv_many_into`;
//! `multi` runs on a multi-thread runtime; `exclusive` is for ping and pong only, see [`exclusive`].

mod exclusive;

use std::time::Duration;

use anyhow::{Result, bail};
use bytes::Bytes;
use harness::{Args, Library, Parser, PubSub, Publish, Pull, Push};
use omq_tokio::{Context, Error, Message, Options, Socket, SocketType, TrySendError, message::MAX_INLINE_MESSAGE};
use tokio::runtime::Builder;

/// Messages taken before the other tasks of the runtime get a turn.
const TURN: usize = 256;

fn main() -> Result<()> {
    let args = Args::parse();
    harness::prepare_process(&args)?;
    let (mut runtime, batch) = match args.variant.as_str() {
        "default" => (Builder::new_current_thread(), false),
        "batch" => (Builder::new_current_thread(), true),
        "multi" => (Builder::new_multi_thread(), false),
        "exclusive" => (Builder::new_current_thread(), false),
        other => bail!("omq has the variants default, batch, multi and exclusive, not {other}"),
    };
    runtime.enable_all().build()?.block_on(async {
        if args.variant == "exclusive" {
            return exclusive::run(&args).await;
        }
        let library = Omq { context: Context::current(), batch };
        harness::run_with_pubsub(library, &args).await
    })
}

struct Omq {
    context: Context,
    batch: bool,
}

impl Omq {
    fn socket(&self, kind: SocketType, nodrop: bool) -> Socket {
        let mut options = Options::default().linger_forever();
        options.xpub_nodrop = nodrop;
        self.context.socket(kind, options)
    }

    fn receiver(&self, socket: Socket) -> Receiver {
        Receiver { socket, batch: self.batch.then(|| Vec::with_capacity(TURN)) }
    }
}

impl Library for Omq {
    type Push = Sender;
    type Pull = Receiver;

    async fn pull(&self, endpoint: &str, _peers: usize) -> Result<(Receiver, String)> {
        let socket = self.socket(SocketType::Pull, false);
        let endpoint = socket.bind(endpoint).await?;
        Ok((self.receiver(socket), endpoint.to_string()))
    }

    async fn push(&self, endpoints: &[String]) -> Result<Sender> {
        let socket = self.socket(SocketType::Push, false);
        for endpoint in endpoints {
            socket.connect(endpoint.as_str()).await?;
        }
        socket.wait_connected(endpoints.len(), Duration::from_secs(5)).await?;
        Ok(Sender { socket, never_waits: false })
    }

    async fn pause(&self, duration: Duration) {
        tokio::time::sleep(duration).await;
    }
}

impl PubSub for Omq {
    type Pub = Sender;
    type Sub = Receiver;

    async fn publisher(&self, endpoint: &str, lossy: bool) -> Result<(Sender, String)> {
        let socket = self.socket(SocketType::Pub, !lossy);
        let endpoint = socket.bind(endpoint).await?;
        Ok((Sender { socket, never_waits: lossy }, endpoint.to_string()))
    }

    async fn subscriber(&self, endpoint: &str, prefixes: &[String]) -> Result<Receiver> {
        let socket = self.socket(SocketType::Sub, false);
        socket.connect(endpoint).await?;
        for prefix in prefixes {
            socket.subscribe(Bytes::from(prefix.clone())).await?;
        }
        Ok(self.receiver(socket))
    }
}

struct Sender {
    socket: Socket,
    /// A PUB that drops instead.
    never_waits: bool,
}

impl Sender {
    #[inline]
    async fn send_message(&self, message: Message) -> Result<()> {
        match self.socket.try_send(message) {
            Ok(()) => Ok(()),
            Err(TrySendError::Full(message)) => Ok(self.socket.send(message).await?),
            Err(error) => bail!("try_send: {error}"),
        }
    }

    #[inline]
    async fn send_fresh(&self, body: Vec<u8>) -> Result<()> {
        let small = body.len() <= MAX_INLINE_MESSAGE;
        self.send_message(if small { Message::from_slice(&body) } else { Message::from(body) }).await
    }
}

impl Push for Sender {
    #[inline]
    async fn send(&mut self, body: Vec<u8>) -> Result<()> {
        self.send_fresh(body).await
    }

    #[inline]
    async fn send_shared(&mut self, body: &Bytes) -> Result<()> {
        let small = body.len() <= MAX_INLINE_MESSAGE;
        self.send_message(if small { Message::from_slice(body) } else { Message::single(body.clone()) }).await
    }

    async fn finish(&mut self) -> Result<()> {
        // A clone is another handle of the same socket.
        Ok(self.socket.clone().close().await?)
    }
}

impl Publish for Sender {
    #[inline]
    async fn send(&mut self, body: Vec<u8>) -> Result<()> {
        self.send_fresh(body).await?;
        if self.never_waits {
            // Without this its other tasks would get no turn on a current-thread runtime, and two thirds of the few
            // messages that are wanted would be dropped.
            tokio::task::coop::consume_budget().await;
        }
        Ok(())
    }
}

struct Receiver {
    socket: Socket,
    /// What `recv_many_into` fills, in the variant that uses it.
    batch: Option<Vec<Message>>,
}

impl Pull for Receiver {
    #[inline]
    async fn recv(&mut self, take: &mut impl FnMut(&[u8])) -> Result<()> {
        if let Some(batch) = &mut self.batch {
            self.socket.recv_many_into(TURN, batch).await?;
            batch.drain(..).for_each(|message| take_body(&message, take));
            return Ok(());
        }
        let first = match self.socket.try_recv() {
            Err(Error::WouldBlock) => self.socket.recv().await?,
            outcome => outcome?,
        };
        take_body(&first, take);
        for _ in 1..TURN {
            match self.socket.try_recv() {
                Ok(message) => take_body(&message, take),
                Err(Error::WouldBlock) => break,
                Err(error) => return Err(error.into()),
            }
        }
        tokio::task::coop::consume_budget().await;
        Ok(())
    }
}

#[inline]
fn take_body(message: &Message, take: &mut impl FnMut(&[u8])) {
    take(message.part_slice(0).unwrap_or_default());
}
