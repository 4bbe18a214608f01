//! A narrow door: a PULL that takes few connections and few handshakes at a time, and opens and closes; mute peers that hold
//! the places of others; and PUSH sockets that come back until it is their turn.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use fastrand::Rng;
use futures::StreamExt;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::task::JoinSet;
use tokio::time::{Instant, timeout};

use crate::engine::watched::Watched;
use crate::monitor::{DisconnectReason, Event, PeerId};
use crate::simulation::checks::{self, Log};
use crate::simulation::hostile::{self, HOSTILE};
use crate::simulation::network::{Address, Network, owner_of};
use crate::simulation::world::{Tag, Tuning, World, dawdle, magnitude, no_task_is_left, send, tuned, within_long};
use crate::socket::pull::PullSocket;
use crate::socket::push::PushSocket;
use crate::sync::{Mutex, lock};

/// Where the door is.
const PLACE: u8 = 0;

/// Mute peers that finish the handshake have names from here on; other ones are mute from the first byte on.
const MUTE: u16 = HOSTILE + 100;

#[derive(Debug, Clone)]
struct Stand {
    network: Network,
    log: Arc<Mutex<Log>>,
    is_ipc: bool,
    /// All senders are closed: the receiver takes what is left.
    is_over: Arc<Watched<bool>>,
}

impl Stand {
    fn address(&self, owner: u16) -> Address {
        Address { owner, place: PLACE, is_ipc: self.is_ipc }
    }
}

pub(super) async fn run(mut world: World) {
    let stand = Stand {
        network: world.network.clone(),
        log: Arc::default(),
        is_ipc: world.is_ipc,
        is_over: Arc::new(Watched::new(false)),
    };
    let restarts = if world.is_stormy { world.rng.usize(0..4) } else { 0 };
    let mut tuning = world.tuning();
    tuning.most_connections = world.rng.usize(1..4);
    tuning.most_handshakes = world.rng.usize(1..3);
    tuning.handshake = world.arrives;
    tuning.conflates = false;
    if tuning.heartbeat.is_zero() && world.rng.bool() {
        tuning.heartbeat = Duration::from_millis(50 + 8 * world.latency);
    }
    let limits = Limits {
        connections: tuning.most_connections,
        handshakes: tuning.most_handshakes,
        // A mute peer reads at once, and the PING comes when there is room for it.
        silence: Some(2 * tuning.heartbeat + Duration::from_millis(100 + 20 * world.latency))
            .filter(|_| !tuning.heartbeat.is_zero()),
        is_stormy: world.is_stormy,
    };
    let mut receiver = JoinSet::new();
    receiver.spawn(door(stand.clone(), restarts, tuning, limits, world.rng.fork()));
    let mut mutes = JoinSet::new();
    for name in 0..world.rng.u16(0..6) {
        mutes.spawn(mute(stand.clone(), name, world.rng.fork()));
    }
    let mut senders = JoinSet::new();
    let count = world.rng.usize(1..8);
    for _ in 0..count {
        let sizes = world.sizes(40, count);
        let tuning = Tuning { handshake: Duration::from_secs(1_000), ..world.tuning() };
        senders.spawn(sender(stand.clone(), sizes, tuning, world.rng.fork()));
    }
    if world.is_stormy {
        for _ in 0..world.rng.u32(1..12) {
            dawdle(&mut world.rng, 100, 400).await;
            world.network.disturb(&mut world.rng);
        }
    }
    world.network.heal();
    within_long("everybody gets in", all(&mut senders)).await;
    drop(mutes);
    tokio::time::sleep(world.arrives).await;
    stand.is_over.set(true);
    within_long("the door closes", all(&mut receiver)).await;
    no_task_is_left().await;
    checks::pipeline(&checks::ways(&world.network), &lock(&stand.log));
}

async fn all(tasks: &mut JoinSet<()>) {
    while let Some(result) = tasks.join_next().await {
        if let Err(error) = result {
            std::panic::resume_unwind(error.into_panic());
        }
    }
}

/// Sends what it has and goes; it is not gone before everything has arrived.
async fn sender(stand: Stand, sizes: Vec<usize>, tuning: Tuning, mut rng: Rng) {
    let socket = tuned!(PushSocket::builder(), tuning, sends).build().expect("valid options");
    let owner = stand.network.new_owner();
    dawdle(&mut rng, 80, 500).await;
    socket.connect(stand.address(owner).endpoint()).expect("connect");
    for (number, size) in (0..).zip(sizes) {
        let tag = Tag { sender: owner, number };
        send(socket.core(), &tag.message(None, size, &mut rng), &mut rng).await;
        lock(&stand.log).accepted.entry(owner).or_default().push(tag);
        dawdle(&mut rng, 20, 30).await;
    }
    let closed = socket.close().await.expect("closed");
    assert_eq!(closed.unsent, 0, "socket {owner}");
    let mut log = lock(&stand.log);
    log.closed.insert(owner, closed);
    log.sent.insert(owner, socket.stats().messages_sent);
}

/// The receivers behind the door, one after the other; the last one stays until all is over.
async fn door(stand: Stand, restarts: usize, tuning: Tuning, limits: Limits, mut rng: Rng) {
    let mut is_new = true;
    let mut socket = PullSocket::new();
    let mut guards = JoinSet::new();
    let mut owner = 0;
    for life in 0..=restarts {
        if is_new {
            socket = tuned!(PullSocket::builder(), tuning, receives).build().expect("valid options");
            owner = stand.network.new_owner();
            lock(&stand.log).receivers.insert(owner);
            guards.spawn(guard(socket.clone(), limits));
        }
        // Whoever was there before has left the address free when it said that it had gone.
        let endpoint = stand.address(owner).endpoint();
        let bound = socket.bind(endpoint.clone()).await;
        assert!(bound.is_ok(), "the address is free: {bound:?}");
        let receive = receive(&socket, owner, &stand, &mut rng);
        if life == restarts {
            tokio::select! {
                biased;
                () = receive => {}
                _ = stand.is_over.wait_for(|is_over| is_over) => {}
            }
            break;
        }
        let patience = Duration::from_millis(if life % 2 == 0 { 300 } else { 900 });
        let _ = timeout(patience, receive).await;
        is_new = rng.bool();
        if is_new {
            lock(&stand.log).killed.insert(owner);
            socket.close().await.expect("closed");
        } else {
            lock(&stand.log).unbound.insert(owner);
            socket.unbind(endpoint).await.expect("it is bound");
        }
        dawdle(&mut rng, 50, 300).await;
    }
    assert_eq!(socket.close().await.expect("closed").unread, 0);
    within_long("monitors end", all(&mut guards)).await;
}

async fn receive(socket: &PullSocket, owner: u16, stand: &Stand, rng: &mut Rng) {
    loop {
        let (message, peer) = socket.recv_from().await.expect("the socket is open");
        lock(&stand.log).received.entry((owner, peer.id)).or_default().push(Tag::check(&message));
        dawdle(rng, 10, 20).await;
    }
}

/// Says nothing, or nothing more after the handshake, and reads; goes when it likes.
async fn mute(stand: Stand, name: u16, mut rng: Rng) {
    for _ in 0..rng.u32(1..6) {
        dawdle(&mut rng, 80, 1_000).await;
        let is_known = rng.bool();
        let owner = name + if is_known { MUTE } else { HOSTILE };
        let Ok((mut stream, _)) = stand.network.dial(stand.address(owner), true).await else {
            continue;
        };
        let words = hostile::handshake("PUSH");
        let length = if is_known { words.len() } else { rng.usize(0..words.len()) };
        let stays = Duration::from_millis(magnitude(&mut rng, 30_000) as u64);
        let _ = timeout(stays, async {
            // Whoever is turned away writes in vain.
            let _ = stream.write_all(&words[..length]).await;
            let mut heard = [0; 500];
            while stream.read(&mut heard).await.is_ok_and(|count| count > 0) {}
        })
        .await;
    }
}

/// What the door promises.
#[derive(Debug, Clone, Copy)]
struct Limits {
    connections: usize,
    handshakes: usize,
    /// A peer that is silent for longer is given up.
    silence: Option<Duration>,
    /// An honest peer may be cut off, and so seem silent.
    is_stormy: bool,
}

/// Follows what happens at the door until it is closed.
async fn guard(socket: PullSocket, limits: Limits) {
    let mut monitor = socket.monitor();
    let (mut refused, mut failed) = (0, 0);
    let (mut pending, mut ready) = (BTreeMap::<PeerId, Instant>::new(), BTreeMap::<PeerId, Instant>::new());
    while let Some(event) = monitor.next().await {
        let now = Instant::now();
        match event {
            Event::Accepted(peer) => drop(pending.insert(peer.id, now)),
            Event::HandshakeSucceeded { peer, .. } => {
                assert!(pending.remove(&peer.id).is_some(), "{peer:?} was accepted before");
                ready.insert(peer.id, now);
            }
            Event::HandshakeFailed { peer, .. } => {
                assert!(pending.remove(&peer.id).is_some(), "{peer:?} was accepted before");
                failed += 1;
            }
            Event::Disconnected { peer, reason, .. } => {
                let since = ready.remove(&peer.id).expect("known before");
                let is_mute = owner_of(&peer.address) >= MUTE;
                let lasted = now.duration_since(since);
                if let Some(silence) = limits.silence.filter(|_| is_mute) {
                    assert!(lasted <= silence, "a mute peer was given up after {lasted:?}; allowed are {silence:?}");
                }
                if reason == DisconnectReason::Silent {
                    assert!(is_mute || limits.is_stormy, "{peer:?} had not been silent");
                }
            }
            Event::Refused { .. } => {
                refused += 1;
                let known = pending.len() + ready.len();
                assert_eq!(known, limits.connections, "somebody was refused although there was room");
            }
            Event::Missed(count) => panic!("{count} events were missed"),
            _ => {}
        }
        assert!(pending.len() <= limits.handshakes, "{} are in the handshake: {limits:?}", pending.len());
        assert!(pending.len() + ready.len() <= limits.connections, "{pending:?}, {ready:?}, {limits:?}");
    }
    let stats = socket.stats();
    assert_eq!((stats.connections_refused, stats.handshakes_failed), (refused, failed));
}
