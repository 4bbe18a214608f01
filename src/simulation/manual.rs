//! A manual XPUB: its application decides who gets what, sends to peers alone, and greets them. What each connection must
//! carry follows from what the application did, in its order.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use fastrand::Rng;
use tokio::task::JoinSet;
use tokio::time::timeout;

use crate::error::TrySendError;
use crate::monitor::PeerId;
use crate::options::SlowSubscriber;
use crate::simulation::checks::{self, Granted};
use crate::simulation::network::{Address, Network, connection_of, owner_of};
use crate::simulation::world::{Tag, Tuning, World, dawdle, magnitude, no_task_is_left, send, tuned, within_long};
use crate::socket::subscribe::SubSocket;
use crate::socket::xpublish::{XPubEvent, XPubSocket};
use crate::sync::{Mutex, lock};

/// Where the publisher listens.
const PLACE: u8 = 0;

/// Messages to one peer alone are numbered from here on.
const ALONE: u32 = 1_000_000;

/// The number of the message that greets each peer.
const WELCOME: u32 = 2_000_000;

/// No application does more than this.
const STEPS: usize = 400;

/// What subscribers have subscribed to and received.
#[derive(Debug, Default)]
struct Seen {
    /// By socket.
    wants: BTreeMap<u16, BTreeSet<Vec<u8>>>,
    /// By connection.
    received: BTreeMap<usize, Vec<Tag>>,
    killed: BTreeSet<u16>,
}

#[derive(Debug, Clone)]
struct Stand {
    network: Network,
    is_ipc: bool,
    seen: Arc<Mutex<Seen>>,
}

impl Stand {
    fn address(&self, owner: u16) -> Address {
        Address { owner, place: PLACE, is_ipc: self.is_ipc }
    }
}

/// Of few letters, so that many begin alike.
fn topic(rng: &mut Rng) -> Vec<u8> {
    (0..rng.usize(0..4)).map(|_| rng.u8(b'a'..=b'b')).collect()
}

pub(super) async fn run(mut world: World) {
    let stand = Stand { network: world.network.clone(), is_ipc: world.is_ipc, seen: Arc::default() };
    let policies = [
        SlowSubscriber::DropNewest,
        SlowSubscriber::DropOldest,
        SlowSubscriber::KeepLatest,
        SlowSubscriber::Disconnect,
    ];
    let policy = policies[world.rng.usize(0..policies.len())];
    let places = world.rng.u8(1..5);
    let sizes = world.sizes(100, places.into());
    let mut tuning = world.tuning();
    let drops_nothing = policy == SlowSubscriber::DropNewest && world.rng.bool();
    if drops_nothing {
        (tuning.send_mark, tuning.send_bytes) = (100_000, 64 << 20);
    }
    let mut application = Application::new(&stand, tuning, policy, world.rng.fork());
    application.socket.bind(stand.address(application.owner).endpoint()).await.expect("the place is free");
    let mut subscribers = JoinSet::new();
    for _ in 0..places {
        let restarts = if world.is_stormy { world.rng.usize(0..3) } else { 0 };
        subscribers.spawn(subscriber(stand.clone(), restarts, world.tuning(), world.rng.fork()));
    }
    let storm = tokio::spawn({
        let (network, mut rng, is_stormy) = (world.network.clone(), world.rng.fork(), world.is_stormy);
        async move {
            for _ in 0..(if is_stormy { rng.u32(1..12) } else { 0 }) {
                dawdle(&mut rng, 100, 400).await;
                network.disturb(&mut rng);
            }
            network.heal();
        }
    });
    application.work(sizes).await;
    storm.await.expect("a storm ends");

    within_long("everything is known", application.settle(usize::from(places), world.arrives)).await;
    application.all_is_known(&lock(&stand.seen));
    let Application { socket, granted, published, welcome, .. } = application;
    assert_eq!(socket.close().await.expect("closed").unsent, 0);
    tokio::time::sleep(world.arrives).await;
    subscribers.shutdown().await;
    no_task_is_left().await;

    let ways = checks::ways(&world.network);
    checks::manual(&ways, &granted, welcome, policy, drops_nothing);
    let seen = lock(&stand.seen);
    for way in &ways {
        let got = seen.received.get(&way.connection).map_or(&[][..], Vec::as_slice);
        let is_wanted = |tag: &&Tag| {
            let topic = published.get(*tag).expect("a message that was published");
            seen.wants[&way.to].iter().any(|prefix| topic.starts_with(prefix))
        };
        let wanted: Vec<Tag> = way.said.heard().iter().filter(is_wanted).copied().collect();
        if seen.killed.contains(&way.to) {
            assert!(wanted.starts_with(got), "{} received {got:?}; it wanted {wanted:?}", way.to);
        } else {
            assert_eq!(got, wanted, "{} received, and wanted of what it was sent, on the right", way.to);
        }
    }
}

/// Subscribers, one after the other; the last one receives until it is aborted.
async fn subscriber(stand: Stand, restarts: usize, tuning: Tuning, mut rng: Rng) {
    for life in 0..=restarts {
        let socket = tuned!(SubSocket::builder(), tuning, receives).build().expect("valid options");
        let owner = stand.network.new_owner();
        let wants: BTreeSet<_> = (0..rng.u32(1..4)).map(|_| topic(&mut rng)).collect();
        wants.iter().for_each(|prefix| socket.subscribe(prefix));
        lock(&stand.seen).wants.insert(owner, wants);
        dawdle(&mut rng, 50, 500).await;
        socket.connect(stand.address(owner).endpoint()).expect("connect");
        let receive = async {
            loop {
                let (message, peer) = socket.recv_from().await.expect("the socket is open");
                let connection = connection_of(&peer.address);
                lock(&stand.seen).received.entry(connection).or_default().push(Tag::check(&message));
                dawdle(&mut rng, 20, 30).await;
            }
        };
        if life == restarts {
            return receive.await;
        }
        let _ = timeout(Duration::from_millis(300 + 200 * life as u64), receive).await;
        lock(&stand.seen).killed.insert(owner);
        socket.close().await.expect("closed");
    }
}

/// The one that holds the publisher, and knows what it did.
struct Application {
    owner: u16,
    socket: XPubSocket,
    rng: Rng,
    /// By peer.
    granted: BTreeMap<PeerId, Granted>,
    /// The topics of all messages.
    published: BTreeMap<Tag, Vec<u8>>,
    welcome: Tag,
    policy: SlowSubscriber,
    next_alone: u32,
}

impl Application {
    fn new(stand: &Stand, tuning: Tuning, policy: SlowSubscriber, mut rng: Rng) -> Self {
        let owner = stand.network.new_owner();
        let (welcome, words) = (Tag { sender: owner, number: WELCOME }, topic(&mut rng));
        let socket = tuned!(XPubSocket::builder(), tuning, sends)
            .manual(true)
            .slow_subscriber(policy)
            .welcome_message(welcome.message(Some(&words), magnitude(&mut rng, 500), &mut rng))
            .build()
            .expect("valid options");
        let published = BTreeMap::from([(welcome, words)]);
        Self { owner, socket, rng, granted: BTreeMap::new(), published, welcome, policy, next_alone: ALONE }
    }

    async fn work(&mut self, sizes: Vec<usize>) {
        let mut sizes = (0..).zip(sizes);
        for _ in 0..STEPS {
            match self.rng.u32(0..8) {
                0..3 => match sizes.next() {
                    Some((number, size)) => self.publish(number, size).await,
                    None => return,
                },
                3..5 => {
                    let patience = Duration::from_millis(self.rng.u64(0..100));
                    if let Ok(event) = timeout(patience, self.socket.recv_event()).await {
                        self.hear(event.expect("the socket is open"));
                    }
                }
                5 => dawdle(&mut self.rng, 50, 50).await,
                choice => {
                    // Whoever it is, and whether it is still there or not.
                    let known: Vec<PeerId> = self.granted.keys().copied().collect();
                    if let Some(peer) = self.rng.choice(known) {
                        let prefix = topic(&mut self.rng);
                        match choice {
                            6 => self.change(peer, prefix),
                            _ => self.send_alone(peer),
                        }
                    }
                }
            }
        }
    }

    async fn publish(&mut self, number: u32, size: usize) {
        let (tag, topic) = (Tag { sender: self.owner, number }, topic(&mut self.rng));
        let message = tag.message(Some(&topic), size, &mut self.rng);
        // It is accepted in the moment in which this returns, and nobody is granted anything meanwhile.
        send(self.socket.core(), &message, &mut self.rng).await;
        for granted in self.granted.values_mut() {
            if granted.prefixes.iter().any(|prefix| topic.starts_with(prefix)) {
                granted.due.push(tag);
            }
        }
        self.published.insert(tag, topic);
    }

    fn hear(&mut self, event: XPubEvent) {
        let (peer, topic, subscribes) = match event {
            XPubEvent::Subscribed { peer, topic } => (peer, topic.to_vec(), true),
            XPubEvent::Cancelled { peer, topic } => (peer, topic.to_vec(), false),
            XPubEvent::Message { message, .. } => panic!("nobody sends this upstream: {message:?}"),
        };
        let granted = self.granted.entry(peer.id).or_insert_with(|| Granted::new(&peer));
        if subscribes {
            assert!(granted.requested.insert(topic.clone()), "a peer asks for everything once");
            if self.rng.bool() {
                // The recipe for a last value: what it is, and then all that follows, without a gap.
                self.send_alone(peer.id);
            }
            if self.rng.u32(0..4) > 0 {
                self.grant(peer.id, topic);
            }
        } else {
            assert!(granted.requested.remove(&topic), "a peer takes back what it has asked for");
        }
    }

    /// Grants a prefix, or takes it back.
    fn change(&mut self, peer: PeerId, prefix: Vec<u8>) {
        if self.rng.bool() {
            return self.grant(peer, prefix);
        }
        self.socket.unsubscribe(peer, &prefix);
        if let Some(granted) = self.granted.get_mut(&peer) {
            granted.prefixes.remove(&prefix);
        }
    }

    fn grant(&mut self, peer: PeerId, prefix: Vec<u8>) {
        self.socket.subscribe(peer, &prefix);
        if let Some(granted) = self.granted.get_mut(&peer) {
            granted.prefixes.insert(prefix);
        }
    }

    fn send_alone(&mut self, peer: PeerId) {
        let (tag, topic) = (Tag { sender: self.owner, number: self.next_alone }, topic(&mut self.rng));
        self.next_alone += 1;
        let size = magnitude(&mut self.rng, 2_000);
        let message = tag.message(Some(&topic), size, &mut self.rng);
        let is_here = || self.socket.peers().iter().any(|stats| stats.peer.id == peer);
        match self.socket.send_to(peer, message) {
            Ok(()) => {
                assert!(is_here(), "sent to a peer that has gone");
                if let Some(granted) = self.granted.get_mut(&peer) {
                    granted.due.push(tag);
                }
                self.published.insert(tag, topic);
            }
            Err(TrySendError::NoPeer(_)) => assert!(!is_here(), "the peer has not gone"),
            Err(TrySendError::Full(_)) => assert!(is_here(), "a peer that has gone has no queue"),
            Err(error) => panic!("{error}"),
        }
    }

    /// Hears all there is to hear, until everybody is connected and all is quiet.
    async fn settle(&mut self, places: usize, arrives: Duration) {
        loop {
            // Longer than it takes to come back.
            match timeout(arrives + Duration::from_secs(10), self.socket.recv_event()).await {
                Ok(event) => self.hear(event.expect("the socket is open")),
                Err(_quiet) if self.socket.peers().len() == places => return,
                Err(_quiet) => {}
            }
        }
    }

    /// What the application has heard is what the peers want, and what peers are granted is what was decided.
    fn all_is_known(&mut self, seen: &Seen) {
        let peers = self.socket.peers();
        for stats in &peers {
            let wants = &seen.wants[&owner_of(&stats.peer.address)];
            let granted = &self.granted[&stats.peer.id];
            assert_eq!(granted.requested, *wants, "what {:?} has asked for", stats.peer.id);
            assert_eq!(stats.subscriptions, granted.prefixes.len(), "what {:?} is granted", stats.peer.id);
            assert_eq!(stats.queued_messages, 0);
            if self.policy != SlowSubscriber::Disconnect {
                let due = granted.due.len() as u64 + 1;
                assert_eq!(stats.messages_sent + stats.messages_dropped, due, "messages for {:?}", stats.peer.id);
            }
        }
        for (id, granted) in &self.granted {
            let is_here = peers.iter().any(|stats| stats.peer.id == *id);
            assert!(is_here || granted.requested.is_empty(), "{id:?} has gone, and {:?} with it", granted.requested);
        }
    }
}
