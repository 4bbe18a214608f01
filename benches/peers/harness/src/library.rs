//! What a messaging library must be able to do to take part.
#![expect(async_fn_in_trait, reason = "peers are run on one thread; nothing here needs Send")]

use std::{cell::RefCell, time::Duration};

use anyhow::{Result, bail};
use bytes::Bytes;
use futures::{StreamExt, stream::FuturesUnordered};

/// A library's PUSH and PULL.
pub trait Library {
    /// A PUSH socket.
    type Push: Push;
    /// A PULL socket.
    type Pull: Pull;

    /// Binds a PULL and returns it with the endpoint to connect to; `peers` connections will come.
    async fn pull(&self, endpoint: &str, peers: usize) -> Result<(Self::Pull, String)>;

    /// Connects one PUSH to every endpoint.
    async fn push(&self, endpoints: &[String]) -> Result<Self::Push>;

    /// Sleeps without stopping the library's own work.
    async fn pause(&self, duration: Duration);

    /// Receives from several sockets at once, until `take` (given the socket's index) says that it has enough.
    async fn drain(pulls: &mut [Self::Pull], take: impl FnMut(usize, &[u8]) -> bool) -> Result<()> {
        drain_concurrently(pulls, take).await
    }
}

/// A PUSH socket.
pub trait Push {
    /// Sends one message whose payload was made for it.
    async fn send(&mut self, body: Vec<u8>) -> Result<()>;

    /// Sends one message whose payload others share.
    async fn send_shared(&mut self, body: &Bytes) -> Result<()>;

    /// Hands everything over in the library's proper way; the socket is dropped when the receiver has everything.
    async fn finish(&mut self) -> Result<()>;
}

/// A socket that receives: PULL or SUB.
pub trait Pull {
    /// Waits for a message and gives `take` every message that is at hand.
    async fn recv(&mut self, take: &mut impl FnMut(&[u8])) -> Result<()>;
}

/// A library that also has PUB and SUB.
pub trait PubSub: Library {
    /// A PUB socket.
    type Pub: Publish;
    /// A SUB socket.
    type Sub: Pull;

    /// Binds a PUB; unless `lossy`, its sends wait for the slowest subscriber.
    async fn publisher(&self, endpoint: &str, lossy: bool) -> Result<(Self::Pub, String)>;

    /// Connects a SUB that subscribes to these prefixes.
    async fn subscriber(&self, endpoint: &str, prefixes: &[String]) -> Result<Self::Sub>;

    /// Like [`Library::drain`], for subscribers.
    async fn drain_subs(subs: &mut [Self::Sub], take: impl FnMut(usize, &[u8]) -> bool) -> Result<()> {
        drain_concurrently(subs, take).await
    }
}

/// A PUB socket.
pub trait Publish {
    /// Waits until `subscribers` would get a message with this topic, where the library has a way to do that.
    async fn admit(&mut self, topic: &str, subscribers: usize) -> Result<()> {
        let _ = (topic, subscribers);
        Ok(())
    }

    /// Publishes one message.
    async fn send(&mut self, body: Vec<u8>) -> Result<()>;
}

async fn drain_concurrently<P: Pull>(pulls: &mut [P], take: impl FnMut(usize, &[u8]) -> bool) -> Result<()> {
    let take = RefCell::new(take);
    let mut receivers: FuturesUnordered<_> = pulls
        .iter_mut()
        .enumerate()
        .map(async |(index, pull)| {
            loop {
                let mut enough = false;
                pull.recv(&mut |body| enough |= (take.borrow_mut())(index, body)).await?;
                if enough {
                    return Ok::<(), anyhow::Error>(());
                }
            }
        })
        .collect();
    match receivers.next().await {
        Some(outcome) => outcome,
        None => bail!("no socket to receive from"),
    }
}
