//! PUSH: sends each message to one of its peers, in turn (RFC 30).

use std::sync::Arc;

use crate::engine::outgoing::Tail;
use crate::engine::pattern::{Incoming, Inward, Pattern, Reach, Unsent};
use crate::engine::peer::Peer;
use crate::engine::peers::Peers;
use crate::error::{BuildError, ProtocolError};
use crate::options::{Options, common_options};
use crate::routing::round_robin::RoundRobin;
use crate::socket::handle::{Core, common_methods};
use crate::socket::sending::{sending_methods, sending_options};
use crate::zmtp::encoder::Batch;
use crate::zmtp::socket_type::SocketType;

/// A list of so many peers' batches is kept between two deals.
const HANDS: usize = 64;

/// Deals messages to the peers that have room.
#[derive(Debug, Default)]
pub(crate) struct Push {
    ring: RoundRobin,
    /// A scratch list of the peers' last batches, by slot, in the order of their turns.
    hands: Vec<(usize, Tail)>,
}

impl Pattern for Push {
    const SOCKET_TYPE: SocketType = SocketType::Push;
    const UNSENT: Unsent = Unsent::Return;

    fn attach(&mut self, slot: usize, _reach: Reach<'_>) {
        self.ring.join(slot);
    }

    fn detach(&mut self, slot: usize, _reach: Reach<'_>, _inward: &mut Vec<Inward>) {
        self.ring.leave(slot);
    }

    fn full(&mut self, slot: usize) {
        self.ring.leave(slot);
    }

    fn writable(&mut self, slot: usize) {
        self.ring.join(slot);
    }

    fn has_room(&self) -> bool {
        !self.ring.is_empty()
    }

    fn receive(
        &mut self,
        slot: usize,
        incoming: Incoming,
        reach: Reach<'_>,
        _inward: &mut Vec<Inward>,
    ) -> Result<(), ProtocolError> {
        let Incoming::Run(run) = incoming else {
            return Ok(());
        };
        reach.shared.counters.messages_refused.add(run.messages());
        // Nobody has a reason to send many.
        match reach.peers.get_mut(slot) {
            Some(peer) => peer.count_commands(run.messages(), &reach.shared.options, false),
            None => Ok(()),
        }
    }

    fn route(&mut self, batch: Batch, Reach { peers, .. }: Reach<'_>) -> Option<Batch> {
        if let Some(slot) = self.ring.only() {
            let mut batch = Some(batch);
            let has_room = peers.give(slot, |peer, _| {
                peer.out.give(batch.take().unwrap_or_default());
                peer.has_room()
            });
            if has_room != Some(true) {
                self.ring.leave(slot);
            }
            return batch;
        }
        self.deal(batch, peers)
    }
}

impl Push {
    /// Deals messages one by one, each to the peer whose turn it is; gives back what nobody has room for.
    ///
    /// The last batch of each peer is at hand from its first turn on: what is added to it is counted once for all.
    fn deal(&mut self, batch: Batch, peers: &mut Peers) -> Option<Batch> {
        let lend = |peer: &mut Peer, spare: &mut Vec<Batch>| peer.out.lend(|| spare.pop().unwrap_or_default());
        let (mut messages, mut turn) = (batch.into_spans(), 0);
        while !messages.is_empty() {
            if turn == self.hands.len() {
                match self.ring.after(turn) {
                    Some(slot) => match peers.give(slot, lend) {
                        Some(tail) => self.hands.push((slot, tail)),
                        None => {
                            self.ring.leave(slot);
                            continue;
                        }
                    },
                    None if turn == 0 => break,
                    None => turn = 0,
                }
            }
            if self.hands[turn].1.deal(&mut messages) {
                turn += 1;
                continue;
            }
            let (slot, tail) = self.hands.remove(turn);
            let renew = |peer: &mut Peer, spare: &mut Vec<Batch>| {
                peer.out.take_home(tail);
                peer.has_room().then(|| lend(peer, spare))
            };
            match peers.give(slot, renew).flatten() {
                Some(tail) => {
                    self.hands.insert(turn, (slot, tail));
                    turn += 1;
                }
                None => self.ring.leave(slot),
            }
        }
        for (slot, tail) in self.hands.drain(..) {
            peers.give(slot, |peer, _| peer.out.take_home(tail));
        }
        self.hands.shrink_to(HANDS);
        self.ring.advance(turn);
        Some(if messages.is_empty() { messages.into_spare() } else { messages.rest() })
    }
}

/// Builds a [`PushSocket`] with other options than the defaults.
///
/// ```
/// use std::time::Duration;
/// use sinew::PushSocket;
///
/// let push = PushSocket::builder()
///     .send_high_water_mark(10_000)
///     .linger(Duration::from_secs(1))
///     .build()?;
/// # Ok::<(), sinew::BuildError>(())
/// ```
#[derive(Debug, Clone, Default)]
#[must_use]
pub struct PushBuilder {
    options: Options,
}

impl PushBuilder {
    sending_options!("may be queued before `send` waits");

    common_options!();

    /// Makes the socket.
    ///
    /// # Errors
    ///
    /// [`BuildError`] names the option that makes no sense.
    pub fn build(self) -> Result<PushSocket, BuildError> {
        self.options.check()?;
        Ok(PushSocket::with(self.options))
    }
}

/// Sends messages to PULL peers: each message to one of them, in turn (RFC 30).
///
/// A message goes to the next peer that has room; without one it waits in the outbound queue, and when the queue has
/// reached its high-water mark `send` waits. Nothing is ever discarded: messages that a lost peer's connection had not
/// taken go back to the head of the queue for the others. What the kernel had taken may be lost with the peer.
///
/// Handles are cheap to clone and may be used from any task or thread. When the last one is dropped the socket closes in
/// the background, and goes on delivering for the linger time; [`close`](Self::close) does the same and says what became
/// of the messages. A runtime that ends first ends the socket, too.
///
/// ```
/// # tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(async {
/// use sinew::{PullSocket, PushSocket};
///
/// let pull = PullSocket::new();
/// let endpoint = pull.bind("tcp://127.0.0.1:*").await?;
///
/// let push = PushSocket::new();
/// push.connect(&endpoint)?;
/// push.send("Hello World!").await?;
/// push.send(["part one", "part two"]).await?;
///
/// assert_eq!(&pull.recv().await?[0], b"Hello World!");
/// assert_eq!(pull.recv().await?.frame_count(), 2);
/// push.close().await?;
/// # Ok::<(), Box<dyn std::error::Error>>(()) }).unwrap();
/// ```
#[derive(Debug, Clone)]
pub struct PushSocket {
    core: Arc<Core>,
}

impl Default for PushSocket {
    fn default() -> Self {
        Self::new()
    }
}

impl PushSocket {
    /// A socket with the default options. It needs a runtime only from the first `bind` or `connect` on.
    pub fn new() -> Self {
        Self::with(Options::default())
    }

    fn with(options: Options) -> Self {
        Self { core: Arc::new(Core::with_pattern(options, Push::default()).0) }
    }

    /// Sets options first.
    pub fn builder() -> PushBuilder {
        PushBuilder::default()
    }

    common_methods!();

    sending_methods!("Waits while the outbound queue is at a high-water mark.");
}
