//! PUB to SUB, directly or through a proxy: subscriptions, slow subscribers and reconnects, whatever the policy.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use fastrand::Rng;
use tokio::task::JoinSet;
use tokio::time::timeout;

use crate::engine::watched::Watched;
use crate::monitor::PeerStats;
use crate::options::SlowSubscriber;
use crate::simulation::checks::{self, Log};
use crate::simulation::hostile::{HOSTILE, TRAP, besiege};
use crate::simulation::network::{Address, Network, owner_of};
use crate::simulation::world::{Tag, Tuning, World, dawdle, no_task_is_left, send, tuned, until, within_long};
use crate::socket::proxy::Proxy;
use crate::socket::publish::PubSocket;
use crate::socket::subscribe::SubSocket;
use crate::socket::xpublish::XPubSocket;
use crate::socket::xsubscribe::XSubSocket;
use crate::sync::{Mutex, lock};

/// Where the sides of the proxy listen.
const FRONTEND: u8 = 100;
const BACKEND: u8 = 101;

const PROBES: u32 = 5;

/// What a subscriber has subscribed to, and how often.
#[derive(Debug, Default)]
struct Wants {
    prefixes: BTreeMap<Vec<u8>, usize>,
    is_inverted: bool,
}

impl Wants {
    fn has(&self, topic: &[u8]) -> bool {
        self.prefixes.keys().any(|prefix| topic.starts_with(prefix)) != self.is_inverted
    }
}

/// A message and its topic.
type Published = (Tag, Vec<u8>);

/// A subscriber that lives.
#[derive(Debug)]
struct Live {
    owner: u16,
    socket: SubSocket,
    wants: Wants,
    /// It keeps only the newest of each publisher.
    conflates: bool,
}

#[derive(Debug, Clone)]
struct Stand {
    network: Network,
    log: Arc<Mutex<Log>>,
    /// By place.
    live: Arc<Mutex<BTreeMap<u8, Live>>>,
    published: Arc<Mutex<Vec<Published>>>,
    is_ipc: bool,
    is_stormy: bool,
    /// See [`World::arrives`].
    arrives: Duration,
    is_proxied: bool,
    is_besieged: bool,
    publishers_bind: bool,
    publishers: u8,
    subscribers: u8,
    policy: SlowSubscriber,
    is_inverted: bool,
    /// Subscriptions change under way.
    is_lively: bool,
    may_begin: Arc<Watched<bool>>,
    is_calm: Arc<Watched<bool>>,
}

impl Stand {
    fn address(&self, owner: u16, place: u8) -> Address {
        Address { owner, place, is_ipc: self.is_ipc }
    }
}

/// A short text of few letters, so that many begin alike; sometimes a long one.
fn topic(rng: &mut Rng) -> Vec<u8> {
    let length = if rng.u32(0..15) == 0 { rng.usize(200..400) } else { rng.usize(0..5) };
    (0..length).map(|_| if length > 5 { b'a' } else { rng.u8(b'a'..=b'c') }).collect()
}

macro_rules! bind {
    ($socket:expr, $address:expr) => {
        while $socket.bind($address.endpoint()).await.is_err() {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
}

pub(super) async fn run(mut world: World, is_proxied: bool, is_besieged: bool) {
    let policies = [
        SlowSubscriber::DropNewest,
        SlowSubscriber::DropOldest,
        SlowSubscriber::KeepLatest,
        SlowSubscriber::Wait,
        SlowSubscriber::Disconnect,
    ];
    let rng = &mut world.rng;
    let stand = Stand {
        network: world.network.clone(),
        log: Arc::default(),
        live: Arc::default(),
        published: Arc::default(),
        is_ipc: world.is_ipc,
        is_stormy: world.is_stormy,
        arrives: world.arrives,
        is_proxied,
        is_besieged,
        publishers_bind: rng.bool(),
        publishers: rng.u8(1..3),
        subscribers: rng.u8(1..5),
        policy: policies[rng.usize(0..policies.len())],
        is_inverted: !is_proxied && !is_besieged && rng.u32(0..6) == 0,
        is_lively: world.is_stormy && rng.bool(),
        may_begin: Arc::new(Watched::new(world.is_stormy)),
        is_calm: Arc::new(Watched::new(false)),
    };
    let (mut publishers, mut subscribers) = (JoinSet::new(), JoinSet::new());
    for place in 0..stand.publishers {
        let sizes = world.sizes(80, (stand.publishers * stand.subscribers).into());
        let restarts = if world.is_stormy { world.rng.usize(0..2) } else { 0 };
        let publisher = publisher(stand.clone(), place, sizes, restarts, world.tuning(), world.rng.fork());
        publishers.spawn(publisher);
    }
    let relay = if is_proxied { Some(relay(&stand, world.tuning()).await) } else { None };
    for place in 0..stand.subscribers {
        let restarts = if world.is_stormy { world.rng.usize(0..3) } else { 0 };
        subscribers.spawn(subscriber(stand.clone(), place, restarts, world.tuning(), world.rng.fork()));
    }
    if world.is_stormy {
        for _ in 0..world.rng.u32(1..12) {
            dawdle(&mut world.rng, 100, 400).await;
            world.network.disturb(&mut world.rng);
        }
        world.network.heal();
    } else {
        // Nothing is lost that is published from here on, but by the policy.
        while lock(&stand.live).len() < stand.subscribers.into() {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        while lock(&stand.log).accepted.len() < stand.publishers.into() {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        stand.may_begin.set(true);
    }
    let siege = is_besieged.then(|| {
        let (places, claims) = if stand.publishers_bind {
            (stand.publishers, ["SUB", "PUB"])
        } else {
            (stand.subscribers, ["PUB", "SUB"])
        };
        besiege(&stand.network, stand.is_ipc, places, claims, &mut world.rng)
    });
    let mut finished = Vec::new();
    while let Some(publisher) = within_long("publishers finish", publishers.join_next()).await {
        finished.push(publisher.unwrap_or_else(|error| std::panic::resume_unwind(error.into_panic())));
    }
    stand.is_calm.set(true);
    drop(siege);

    all_know_what_is_wanted(&stand, &finished, relay.as_ref()).await;
    tokio::time::sleep(world.arrives).await;
    if !world.is_stormy {
        nothing_is_lost_but_by_the_policy(&stand, &finished);
    }
    probe(&stand, &finished, &mut world.rng).await;

    for (socket, owner) in finished {
        let closed = socket.close().await.expect("closed");
        assert_eq!(closed.unsent, 0);
        lock(&stand.log).sent.insert(owner, socket.stats().messages_sent);
    }
    if let Some(Relay { frontend, backend, proxy, .. }) = relay {
        assert_eq!(proxy.stop().await.frontend_to_backend.undelivered, 0);
        frontend.close().await.expect("closed");
        backend.close().await.expect("closed");
    }
    tokio::time::sleep(world.arrives).await;
    for (_, live) in std::mem::take(&mut *lock(&stand.live)) {
        // A clone is with the task that receives, which ends with it.
        tokio::spawn(async move { assert_eq!(live.socket.close().await.expect("closed").unread, 0) });
    }
    while let Some(result) = within_long("subscribers close", subscribers.join_next()).await {
        result.unwrap_or_else(|error| std::panic::resume_unwind(error.into_panic()));
    }
    no_task_is_left().await;
    let is_direct = !is_proxied || !world.is_stormy;
    // Before its subscriptions have come, an inverted subscriber is sent what it does not want.
    let is_static = !stand.is_lively && !stand.is_inverted;
    checks::publishing(&checks::ways(&world.network), &lock(&stand.log), is_static, is_direct);
}

// --- who takes part ---------------------------------------------------------------------------------------------------

#[derive(Debug)]
struct Relay {
    owner: u16,
    frontend: XSubSocket,
    backend: XPubSocket,
    proxy: crate::socket::proxy::ProxyHandle,
}

async fn relay(stand: &Stand, tuning: Tuning) -> Relay {
    let owner = stand.network.new_owner();
    let backend = tuned!(XPubSocket::builder(), tuning, sends).slow_subscriber(stand.policy);
    let backend = backend.build().expect("valid options");
    bind!(backend, stand.address(owner, BACKEND));
    let frontend = tuned!(XSubSocket::builder(), tuning, receives).build().expect("valid options");
    if stand.publishers_bind {
        for place in 0..stand.publishers {
            frontend.connect(stand.address(owner, place).endpoint()).expect("connect");
        }
    } else {
        bind!(frontend, stand.address(owner, FRONTEND));
    }
    let proxy = Proxy::new(&frontend, &backend).start();
    Relay { owner, frontend, backend, proxy }
}

/// The publishers that live at one place, one after the other; gives the last one when it has published everything.
async fn publisher(
    stand: Stand,
    place: u8,
    sizes: Vec<usize>,
    restarts: usize,
    tuning: Tuning,
    mut rng: Rng,
) -> (PubSocket, u16) {
    let mut sizes = sizes.into_iter();
    for life in 0.. {
        let socket = tuned!(PubSocket::builder(), tuning, sends)
            .slow_subscriber(stand.policy)
            .invert_matching(stand.is_inverted)
            .build()
            .expect("valid options");
        let owner = stand.network.new_owner();
        match (stand.publishers_bind, stand.is_proxied) {
            (true, _) => bind!(socket, stand.address(owner, place)),
            (false, true) => socket.connect(stand.address(owner, FRONTEND).endpoint()).expect("connect"),
            (false, false) => {
                for place in (0..stand.subscribers).chain(stand.is_besieged.then_some(TRAP)) {
                    socket.connect(stand.address(owner, place).endpoint()).expect("connect");
                }
            }
        }
        lock(&stand.log).accepted.insert(owner, Vec::new());
        stand.may_begin.wait_for(|may_begin| may_begin).await;
        if !stand.is_stormy {
            all_are_here(&stand, &socket).await;
        }
        let count = if life == restarts { usize::MAX } else { rng.usize(0..30) };
        for (number, size) in (0..).zip(sizes.by_ref().take(count)) {
            publish(&stand, &socket, Tag { sender: owner, number }, size, &mut rng).await;
            dawdle(&mut rng, 30, 30).await;
        }
        if life == restarts {
            return (socket, owner);
        }
        // Dropped, it goes on delivering in the background.
        if rng.bool() {
            let _ = timeout(Duration::from_millis(rng.u64(0..300)), socket.close()).await;
        }
    }
    unreachable!("a publisher has one life more than restarts")
}

/// Waits until everybody has subscribed.
async fn all_are_here(stand: &Stand, socket: &PubSocket) {
    let count = if stand.is_proxied { 1 } else { stand.subscribers.into() };
    let _ = timeout(Duration::from_secs(100), socket.wait_connected(count)).await;
    tokio::time::sleep(stand.arrives).await;
}

/// Publishes one message, in one of the ways there are.
async fn publish(stand: &Stand, socket: &PubSocket, tag: Tag, size: usize, rng: &mut Rng) {
    let topic = topic(rng);
    let message = tag.message(Some(&topic), size, rng);
    send(socket.core(), &message, rng).await;
    lock(&stand.log).accepted.entry(tag.sender).or_default().push(tag);
    lock(&stand.published).push((tag, topic));
}

/// The subscribers that live at one place, one after the other.
async fn subscriber(stand: Stand, place: u8, restarts: usize, tuning: Tuning, mut rng: Rng) {
    for life in 0..=restarts {
        let builder = tuned!(SubSocket::builder(), tuning, receives).invert_matching(stand.is_inverted);
        let socket = builder.conflate(tuning.conflates).build().expect("valid options");
        let owner = stand.network.new_owner();
        let wants = Wants { is_inverted: stand.is_inverted, ..Wants::default() };
        lock(&stand.log).receivers.insert(owner);
        if tuning.conflates {
            lock(&stand.log).conflating.insert(owner);
        }
        lock(&stand.live).insert(place, Live { owner, socket: socket.clone(), wants, conflates: tuning.conflates });
        for _ in 0..rng.u32(0..8) {
            subscribe(&stand, place, topic(&mut rng));
        }
        match (stand.publishers_bind, stand.is_proxied) {
            (_, true) => socket.connect(stand.address(owner, BACKEND).endpoint()).expect("connect"),
            (true, false) => {
                for place in (0..stand.publishers).chain(stand.is_besieged.then_some(TRAP)) {
                    socket.connect(stand.address(owner, place).endpoint()).expect("connect");
                }
            }
            (false, false) => bind!(socket, stand.address(owner, place)),
        }
        let receive = receive(&stand, place, &socket, owner, &mut rng);
        if life == restarts {
            return receive.await;
        }
        let _ = timeout(Duration::from_millis(u64::from(place) * 100 + 300), receive).await;
        lock(&stand.log).killed.insert(owner);
        if life % 2 == 0 {
            socket.close().await.expect("closed");
        }
        lock(&stand.live).remove(&place);
    }
}

async fn receive(stand: &Stand, place: u8, socket: &SubSocket, owner: u16, rng: &mut Rng) {
    let slowness = rng.u32(0..60);
    loop {
        let is_calm = stand.is_calm.get();
        let received = match rng.u32(0..3) {
            0 if !is_calm => timeout(Duration::from_millis(rng.u64(0..100)), socket.recv_from()).await.ok(),
            _ => Some(socket.recv_from().await),
        };
        match received {
            Some(Ok((message, peer))) => {
                if let Some(live) = lock(&stand.live).get(&place) {
                    assert!(live.wants.has(&message[0]), "{owner} received {:?}, which it does not want", &message[0]);
                }
                if owner_of(&peer.address) < HOSTILE {
                    lock(&stand.log).received.entry((owner, peer.id)).or_default().push(Tag::check(&message));
                }
            }
            Some(Err(_closed)) => return,
            None => {}
        }
        if is_calm {
            continue;
        }
        dawdle(rng, slowness, 50).await;
        if stand.is_lively && !stand.is_calm.get() && rng.u32(0..4) == 0 {
            let known =
                lock(&stand.live).get(&place).map(|live| live.wants.prefixes.keys().cloned().collect::<Vec<_>>());
            match rng.choice(known.unwrap_or_default()) {
                Some(prefix) if rng.bool() => unsubscribe(stand, place, &prefix),
                Some(prefix) if rng.u32(0..4) == 0 => subscribe(stand, place, prefix),
                _ => subscribe(stand, place, topic(rng)),
            }
        }
    }
}

fn subscribe(stand: &Stand, place: u8, prefix: Vec<u8>) {
    if let Some(live) = lock(&stand.live).get_mut(&place) {
        live.socket.subscribe(&prefix);
        *live.wants.prefixes.entry(prefix).or_default() += 1;
    }
}

fn unsubscribe(stand: &Stand, place: u8, prefix: &[u8]) {
    if let Some(live) = lock(&stand.live).get_mut(&place) {
        live.socket.unsubscribe(prefix);
        if let Some(count) = live.wants.prefixes.get_mut(prefix) {
            *count -= 1;
        }
        live.wants.prefixes.retain(|_, count| *count > 0);
    }
}

// --- what must hold ---------------------------------------------------------------------------------------------------

/// What a publisher knows of its peers: who they are, and how much they have subscribed to.
fn view(peers: &[PeerStats]) -> BTreeMap<u16, usize> {
    peers.iter().map(|peer| (owner_of(&peer.peer.address), peer.subscriptions)).collect()
}

/// In the end every publisher knows exactly what is wanted.
async fn all_know_what_is_wanted(stand: &Stand, publishers: &[(PubSocket, u16)], relay: Option<&Relay>) {
    let wanted = || -> BTreeMap<u16, usize> {
        lock(&stand.live).values().map(|live| (live.owner, live.wants.prefixes.len())).collect()
    };
    let all = || -> BTreeSet<Vec<u8>> {
        lock(&stand.live).values().flat_map(|live| live.wants.prefixes.keys().cloned()).collect()
    };
    let is_known = || {
        if lock(&stand.live).len() < stand.subscribers.into() {
            return Err("somebody is being restarted".to_owned());
        }
        let of_publishers = match relay {
            Some(relay) => BTreeMap::from([(relay.owner, all().len())]),
            None => wanted(),
        };
        let views = publishers.iter().map(|(socket, _)| (socket.peers(), of_publishers.clone()));
        let views = views.chain(relay.map(|relay| (relay.backend.peers(), wanted())));
        for (peers, wanted) in views {
            let view = view(&peers);
            if view != wanted || peers.len() != wanted.len() {
                return Err(format!("a publisher knows {view:?}; wanted are {wanted:?}"));
            }
        }
        Ok(())
    };
    until("publishers know what is wanted", is_known).await;
}

/// Without a storm, each subscriber got what it wanted, or the drop is counted.
fn nothing_is_lost_but_by_the_policy(stand: &Stand, publishers: &[(PubSocket, u16)]) {
    let (live, published, log) = (lock(&stand.live), lock(&stand.published), lock(&stand.log));
    for live in live.values() {
        let wanted = |owner: u16| -> Vec<Tag> {
            let by = published.iter().filter(|(tag, _)| tag.sender == owner);
            by.filter(|(_, topic)| live.wants.has(topic)).map(|(tag, _)| *tag).collect()
        };
        let received: BTreeSet<Tag> =
            log.received.iter().filter(|((to, _), _)| *to == live.owner).flat_map(|(_, tags)| tags).copied().collect();
        let (mut all_missing, mut all_dropped) = (0, 0);
        for (socket, owner) in publishers {
            let wanted = wanted(*owner);
            let missing = wanted.iter().filter(|tag| !received.contains(tag)).count() as u64;
            if stand.policy == SlowSubscriber::Wait && !live.conflates {
                assert_eq!(missing, 0, "{} lacks messages of {owner}", live.owner);
            }
            // Before a proxy, the last for one subscriber may have made room for one that only others want.
            if stand.policy.drops_older() && !stand.is_proxied {
                let last = wanted.last().filter(|tag| !received.contains(tag));
                assert_eq!(last, None, "{:?}: the latest for {} always arrives", stand.policy, live.owner);
            }
            if stand.is_proxied || stand.policy == SlowSubscriber::Disconnect {
                continue;
            }
            let peers = socket.peers();
            let peer = peers.iter().find(|peer| owner_of(&peer.peer.address) == live.owner).expect("a peer");
            assert_eq!(peer.queued_messages, 0, "all has been sent to {}", live.owner);
            let dropped = peer.messages_dropped;
            assert_eq!(peer.messages_sent + dropped, wanted.len() as u64, "{} of {owner}", live.owner);
            if !live.conflates {
                assert_eq!(dropped, missing, "what {} lacks of {owner} is counted", live.owner);
            }
            (all_missing, all_dropped) = (all_missing + missing, all_dropped + dropped);
        }
        // What nobody publishes is replaced as well.
        if !stand.is_besieged && !stand.is_proxied && stand.policy != SlowSubscriber::Disconnect {
            let replaced = live.socket.stats().messages_dropped_replaced;
            assert_eq!(all_dropped + replaced, all_missing, "what {} lacks is counted", live.owner);
        }
    }
    for (socket, owner) in publishers.iter().filter(|_| !stand.is_proxied) {
        let (stats, peers) = (socket.stats(), socket.peers());
        let by = published.iter().filter(|(tag, _)| tag.sender == *owner);
        let unmatched = by.filter(|(_, topic)| !live.values().any(|live| live.wants.has(topic))).count();
        if stand.policy != SlowSubscriber::Disconnect {
            assert_eq!(stats.messages_unmatched, unmatched as u64);
            assert_eq!(stats.messages_dropped, peers.iter().map(|peer| peer.messages_dropped).sum::<u64>());
        }
    }
}

/// In calm weather each message reaches those who want it, and nobody else, whatever happened before.
async fn probe(stand: &Stand, publishers: &[(PubSocket, u16)], rng: &mut Rng) {
    for probe in 0..PROBES {
        for (socket, owner) in publishers {
            let tag = Tag { sender: *owner, number: 1_000_000 + probe };
            publish(stand, socket, tag, rng.usize(0..100), rng).await;
            tokio::time::sleep(stand.arrives).await;
            let topic = lock(&stand.published).last().map(|(_, topic)| topic.clone()).unwrap_or_default();
            for live in lock(&stand.live).values() {
                let log = lock(&stand.log);
                let mut received = log.received.iter().filter(|((to, _), _)| *to == live.owner);
                let has_come = received.any(|(_, tags)| tags.contains(&tag));
                assert_eq!(has_come, live.wants.has(&topic), "{tag:?} for {}, topic {topic:?}", live.owner);
            }
        }
    }
}
