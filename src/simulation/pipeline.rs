//! PUSH to PULL: several of each, restarted and cut off at random; where every message went is known exactly.

use std::sync::Arc;
use std::time::Duration;

use fastrand::Rng;
use tokio::task::JoinSet;
use tokio::time::{Instant, timeout};

use crate::engine::watched::Watched;
use crate::error::TryRecvError;
use crate::message::Message;
use crate::monitor::Peer;
use crate::simulation::checks::{self, Log};
use crate::simulation::hostile::{HOSTILE, TRAP, besiege};
use crate::simulation::network::{Address, Network, owner_of};
use crate::simulation::world::{ROW, Tag, Tuning, World, dawdle, no_task_is_left, send, tuned, within_long};
use crate::socket::proxy::{Proxy, ProxyHandle};
use crate::socket::pull::PullSocket;
use crate::socket::push::PushSocket;
use crate::sync::{Mutex, lock};

/// A socket that is closed under way goes on delivering for a while.
const SHORT_LINGER: u64 = 300;

/// In that time receivers take what has arrived.
const TAKES: Duration = Duration::from_secs(10);

/// Where the sides of the proxy listen.
const FRONTEND: u8 = 100;
const BACKEND: u8 = 101;

/// What all sockets of a run share.
#[derive(Debug, Clone)]
struct Stand {
    network: Network,
    log: Arc<Mutex<Log>>,
    is_ipc: bool,
    is_besieged: bool,
    push_binds: bool,
    pull_binds: bool,
    /// Where sockets bind or are dialled, of each kind.
    pushers: u8,
    pullers: u8,
    /// Whom sockets dial that do not bind.
    push_targets: Vec<u8>,
    pull_targets: Vec<u8>,
    /// The end of the storm: senders close, and go on delivering until all has arrived.
    is_calm: Arc<Watched<bool>>,
    /// All senders are closed: receivers take what is left.
    is_over: Arc<Watched<bool>>,
}

impl Stand {
    fn address(&self, owner: u16, place: u8) -> Address {
        Address { owner, place, is_ipc: self.is_ipc }
    }
}

/// Attaches a socket: it binds at its own place, or dials those of others.
macro_rules! attach {
    ($socket:expr, $stand:expr, $owner:expr, $binds:expr, $place:expr, $targets:expr) => {
        if $binds {
            // The one before may still be closing in the background.
            while $socket.bind($stand.address($owner, $place).endpoint()).await.is_err() {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        } else {
            for place in $targets {
                $socket.connect($stand.address($owner, *place).endpoint()).expect("connect");
            }
        }
    };
}

pub(super) async fn run(mut world: World, is_proxied: bool, is_besieged: bool) {
    let (push_binds, pushers, pullers) = (world.rng.bool(), world.rng.u8(1..4), world.rng.u8(1..4));
    let trap = is_besieged.then_some(TRAP);
    let stand = Stand {
        network: world.network.clone(),
        log: Arc::default(),
        is_ipc: world.is_ipc,
        is_besieged,
        push_binds,
        pull_binds: !push_binds && !is_proxied,
        pushers,
        pullers,
        push_targets: if is_proxied { vec![FRONTEND] } else { (0..pullers).chain(trap).collect() },
        pull_targets: if is_proxied { vec![BACKEND] } else { (0..pushers).chain(trap).collect() },
        is_calm: Arc::new(Watched::new(false)),
        is_over: Arc::new(Watched::new(false)),
    };
    let restarts = |rng: &mut Rng, is_stormy: bool| if is_stormy && rng.bool() { rng.usize(1..4) } else { 0 };

    let siege = is_besieged.then(|| {
        // A PUSH is told that another PUSH is there: one that could receive would be sent messages.
        let (places, claims) = if push_binds { (pushers, ["PUSH", "PUSH"]) } else { (pullers, ["PUSH", "PUSH"]) };
        besiege(&stand.network, stand.is_ipc, places, claims, &mut world.rng)
    });
    let relay = if is_proxied { Some(relay(&stand, world.tuning()).await) } else { None };
    let (mut senders, mut receivers) = (JoinSet::new(), JoinSet::new());
    for place in 0..stand.pushers {
        let sizes = world.sizes(150, stand.pushers.into());
        let restarts = restarts(&mut world.rng, world.is_stormy);
        senders.spawn(pusher(stand.clone(), place, sizes, restarts, world.tuning(), world.rng.fork()));
    }
    for place in 0..stand.pullers {
        let restarts = restarts(&mut world.rng, world.is_stormy);
        receivers.spawn(puller(stand.clone(), place, restarts, world.tuning(), world.rng.fork()));
    }
    if world.is_stormy {
        for _ in 0..world.rng.u32(1..12) {
            dawdle(&mut world.rng, 100, 400).await;
            world.network.disturb(&mut world.rng);
        }
    }
    if let Some(relay) = &relay {
        for _ in 0..world.rng.u32(0..10) {
            dawdle(&mut world.rng, 100, 200).await;
            relay.proxy.pause();
            dawdle(&mut world.rng, 100, 200).await;
            relay.proxy.resume();
        }
    }
    world.network.heal();
    stand.is_calm.set(true);
    within_long("senders close", all(&mut senders)).await;
    drop(siege);
    // What is under way arrives.
    tokio::time::sleep(world.arrives + TAKES).await;
    if let Some(relay) = relay {
        relay.close(&stand).await;
        tokio::time::sleep(world.arrives + TAKES).await;
    }
    stand.is_over.set(true);
    within_long("receivers close", all(&mut receivers)).await;
    no_task_is_left().await;

    let (ways, log) = (checks::ways(&world.network), lock(&stand.log));
    checks::pipeline(&ways, &log);
    if !world.is_stormy && log.left == 0 {
        for way in &ways {
            checks::in_order(&way.said.messages, "on the wire");
        }
        let most = usize::from(if is_proxied { pushers + pullers } else { pushers * pullers });
        let connections = world.network.connections().iter().filter(|connection| !connection.is_hostile).count();
        assert!(connections <= most, "nobody had a reason to reconnect");
    }
}

/// A PULL and a PUSH with a proxy between them.
#[derive(Debug)]
struct Relay {
    owner: u16,
    frontend: PullSocket,
    backend: PushSocket,
    proxy: ProxyHandle,
}

async fn relay(stand: &Stand, tuning: Tuning) -> Relay {
    let owner = stand.network.new_owner();
    let frontend = tuned!(PullSocket::builder(), tuning, receives).build().expect("valid options");
    let places: Vec<u8> = (0..stand.pushers).collect();
    attach!(frontend, stand, owner, !stand.push_binds, FRONTEND, &places);
    let backend = tuned!(PushSocket::builder(), tuning, sends).build().expect("valid options");
    attach!(backend, stand, owner, true, BACKEND, &[]);
    let proxy = Proxy::new(&frontend, &backend).start();
    Relay { owner, frontend, backend, proxy }
}

impl Relay {
    /// All that has come in goes out.
    async fn close(self, stand: &Stand) {
        let counters = self.proxy.stop().await.frontend_to_backend;
        assert_eq!(counters.undelivered, 0);
        assert_eq!(self.frontend.close().await.expect("closed").unread, 0);
        let closed = self.backend.close().await.expect("closed");
        let ways = checks::ways(&stand.network);
        let came = ways.iter().filter(|way| way.to == self.owner).flat_map(|way| way.said.heard());
        let came: Vec<_> = came.copied().collect();
        assert_eq!(counters.messages, came.len() as u64);
        let mut log = lock(&stand.log);
        log.accepted.insert(self.owner, came);
        log.closed.insert(self.owner, closed);
        log.sent.insert(self.owner, self.backend.stats().messages_sent);
    }
}

async fn all(tasks: &mut JoinSet<()>) {
    while let Some(result) = tasks.join_next().await {
        if let Err(error) = result {
            std::panic::resume_unwind(error.into_panic());
        }
    }
}

/// The sockets that live at one sender's place, one after the other.
async fn pusher(stand: Stand, place: u8, sizes: Vec<usize>, restarts: usize, tuning: Tuning, mut rng: Rng) {
    let mut sizes = sizes.into_iter();
    for life in 0..=restarts {
        let is_last = life == restarts;
        let linger = Duration::from_millis(rng.u64(0..SHORT_LINGER));
        let tuning = Tuning { linger: if is_last { tuning.linger } else { linger }, ..tuning };
        let socket = tuned!(PushSocket::builder(), tuning, sends).build().expect("valid options");
        let owner = stand.network.new_owner();
        attach!(socket, stand, owner, stand.push_binds, place, &stand.push_targets);
        lock(&stand.log).accepted.insert(owner, Vec::new());
        let count = if is_last { usize::MAX } else { rng.usize(0..60) };
        let sizes: Vec<_> = sizes.by_ref().take(count).collect();
        let mut tasks = JoinSet::new();
        let share = sizes.len().div_ceil(rng.usize(1..4)).max(1);
        for (row, sizes) in (0..).zip(sizes.chunks(share)) {
            tasks.spawn(send_row(socket.clone(), stand.clone(), owner, row * ROW, sizes.to_vec(), rng.fork()));
        }
        all(&mut tasks).await;
        if is_last {
            stand.is_calm.wait_for(|is_calm| is_calm).await;
        }
        let since = Instant::now();
        let closed = socket.close().await.expect("closed");
        assert!(since.elapsed() <= tuning.linger + Duration::from_secs(2), "linger is {:?}", tuning.linger);
        assert!(!is_last || closed.unsent == 0, "socket {owner}: {closed:?} after {:?}", since.elapsed());
        let mut log = lock(&stand.log);
        log.closed.insert(owner, closed);
        log.sent.insert(owner, socket.stats().messages_sent);
    }
}

/// Sends messages of these sizes, numbered in a row from `first` on.
async fn send_row(socket: PushSocket, stand: Stand, owner: u16, first: u32, sizes: Vec<usize>, mut rng: Rng) {
    for (number, size) in (first..).zip(sizes) {
        let tag = Tag { sender: owner, number };
        send(socket.core(), &tag.message(None, size, &mut rng), &mut rng).await;
        lock(&stand.log).accepted.entry(owner).or_default().push(tag);
        dawdle(&mut rng, 20, 30).await;
        if !stand.push_binds && rng.u32(0..100) == 0 {
            // Everything that was handed to this connection arrives all the same.
            let place = stand.push_targets[rng.usize(0..stand.push_targets.len())];
            let endpoint = stand.address(owner, place).endpoint();
            socket.disconnect(endpoint.clone()).expect("disconnect");
            socket.connect(endpoint).expect("connect");
            lock(&stand.log).left += 1;
        }
    }
}

/// The sockets that live at one receiver's place, one after the other.
async fn puller(stand: Stand, place: u8, restarts: usize, tuning: Tuning, mut rng: Rng) {
    for life in 0..=restarts {
        let is_last = life == restarts;
        let builder = tuned!(PullSocket::builder(), tuning, receives).conflate(tuning.conflates);
        let socket = builder.build().expect("valid options");
        let owner = stand.network.new_owner();
        lock(&stand.log).receivers.insert(owner);
        if tuning.conflates {
            lock(&stand.log).conflating.insert(owner);
        }
        attach!(socket, stand, owner, stand.pull_binds, place, &stand.pull_targets);
        if is_last && tuning.conflates && rng.bool() {
            // Senders have nobody to wait for, whether anybody receives or not.
            stand.is_over.wait_for(|is_over| is_over).await;
            while let Ok(received) = timeout(Duration::from_millis(1), socket.recv_from()).await {
                let (message, peer) = received.expect("the socket is open");
                keep(&stand, owner, &message, &peer);
            }
        }
        // Several tasks on one socket: each message goes to one of them.
        let mut tasks = JoinSet::new();
        for _ in 0..rng.u32(1..4) {
            tasks.spawn(receive(socket.clone(), owner, stand.clone(), rng.fork()));
        }
        if !is_last {
            // Cut off in the middle of whatever they do.
            tokio::time::sleep(Duration::from_millis(rng.u64(0..500))).await;
            tasks.shutdown().await;
            lock(&stand.log).killed.insert(owner);
            if life % 2 == 0 {
                socket.close().await.expect("closed");
            }
            continue;
        }
        tokio::select! {
            biased;
            () = all(&mut tasks) => {}
            _ = stand.is_over.wait_for(|is_over| is_over) => {}
        }
        tasks.shutdown().await;
        assert_eq!(socket.try_recv().map(|message| Tag::check(&message)), Err(TryRecvError::Empty), "late for {owner}");
        let closed = socket.close().await.expect("closed");
        assert_eq!(closed.unread, 0);
        if !stand.is_besieged {
            lock(&stand.log).replaced.insert(owner, socket.stats().messages_dropped_replaced);
        }
    }
}

fn keep(stand: &Stand, owner: u16, message: &Message, peer: &Peer) {
    if owner_of(&peer.address) < HOSTILE {
        lock(&stand.log).received.entry((owner, peer.id)).or_default().push(Tag::check(message));
    }
}

async fn receive(socket: PullSocket, owner: u16, stand: Stand, mut rng: Rng) {
    loop {
        let received = match rng.u32(0..4) {
            0 => timeout(Duration::from_millis(rng.u64(0..100)), socket.recv_from()).await.ok(),
            _ => Some(socket.recv_from().await),
        };
        if let Some(received) = received {
            let (message, peer) = received.expect("the socket is open");
            keep(&stand, owner, &message, &peer);
            dawdle(&mut rng, 10, 20).await;
        }
    }
}
