//! Remembers the last value of every topic: a subscriber that comes late gets the current values first, then the updates.
//!
//! ```text
//! cargo run --release --example weather -- publish
//! cargo run --release --example last_value_cache -- --connect tcp://localhost:5556
//! cargo run --release --example weather -- subscribe --connect tcp://localhost:5557 10
//! ```
//!
//! ```text
//!   publisher ┐  PUB       SUB                    XPUB       SUB  ┌ subscriber
//!   publisher ┼────────────▶  last_value_cache  5557 ─────────────┼▶ subscriber
//!   publisher ┘               topic → last value                  └ late subscriber
//! ```
//!
//! Publishers and subscribers may be any ZeroMQ programs. The first frame of a message is its topic, the whole message
//! its value. Whoever subscribes to a prefix gets the value of each topic that begins with it, to itself alone, and then
//! every later message, in the publisher's order: none is left out in between, and none is older than one before it.
//!
//! How that comes about:
//!
//! * Subscriptions are applied by hand: a request to the XPUB only asks for something. The cache sends the values to that
//!   one subscriber, and only then lets the updates through to it.
//! * A subscriber's queue is limited, and may be too short for all the values. The rest waits here, until the subscriber
//!   has read what is queued; what is published in the meantime waits behind it. If that gets too much, the current values
//!   take its place: updates are left out then, but still none is older than one before it.
//! * The values take half of a subscriber's queue at most: there is room for the updates of what it has subscribed to.
//! * A subscriber that does not keep up is disconnected, where a plain publisher drops messages and lets it go on with
//!   values that are not the last ones. ZeroMQ sockets connect again by themselves, and then they get the current values.

use std::collections::{BTreeMap, BTreeSet, HashMap, VecDeque};
use std::error::Error;
use std::ops::Bound;
use std::process::ExitCode;
use std::time::Duration;

use bytes::Bytes;
use clap::Parser;
use indicatif::{HumanCount, ProgressBar, ProgressStyle};
use sinew::{Endpoint, Message, PeerId, SlowSubscriber, SubSocket, TrySendError, XPubEvent, XPubSocket};
use tokio::time::{Interval, MissedTickBehavior};

/// How often those are looked after who wait for room in their queues: there is no event for that.
const TICK: Duration = Duration::from_millis(10);

/// Disconnect a subscriber for which so many bytes are queued.
const QUEUED_BYTES: usize = 64 << 20;

/// How often the terminal is painted.
const PAINT: Duration = Duration::from_millis(100);

/// Keeps the last value of each topic for subscribers that come late.
#[derive(Debug, Parser)]
#[command(name = "last_value_cache")]
struct Arguments {
    /// Connect to this publisher; may be repeated.
    #[arg(long, value_name = "ENDPOINT", required_unless_present = "bind")]
    connect: Vec<Endpoint>,
    /// Listen here for publishers that connect; may be repeated.
    #[arg(long, value_name = "ENDPOINT")]
    bind: Vec<Endpoint>,
    /// Listen here for subscribers; may be repeated.
    #[arg(long, value_name = "ENDPOINT", default_value = "tcp://127.0.0.1:5557")]
    serve: Vec<Endpoint>,
    /// Keep only topics that begin with this; may be repeated. [default: all]
    #[arg(long, value_name = "PREFIX")]
    topic: Vec<String>,
    /// Keep the values of so many topics; messages of further ones pass without being kept.
    #[arg(long, value_name = "N", default_value_t = 100_000)]
    max_topics: usize,
    /// Disconnect a subscriber for which so many messages are queued.
    #[arg(long, value_name = "N", default_value_t = 10_000, value_parser = clap::value_parser!(u32).range(2..))]
    high_water_mark: u32,
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> ExitCode {
    match run(&Arguments::parse()).await {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("last_value_cache: {error}");
            ExitCode::FAILURE
        }
    }
}

async fn run(arguments: &Arguments) -> Result<(), Box<dyn Error>> {
    let mut cache = Cache::new(arguments)?;
    for endpoint in &arguments.serve {
        eprintln!("Subscribers connect to {}", cache.socket.bind(endpoint).await?);
    }
    let publishers = SubSocket::new();
    if arguments.topic.is_empty() {
        publishers.subscribe("");
    }
    for prefix in &arguments.topic {
        publishers.subscribe(prefix);
    }
    for endpoint in &arguments.bind {
        eprintln!("Publishers connect to {}", publishers.bind(endpoint).await?);
    }
    for endpoint in &arguments.connect {
        publishers.connect(endpoint)?;
    }

    tokio::select! {
        result = serve(&publishers, &mut cache) => result?,
        interrupted = tokio::signal::ctrl_c() => interrupted?,
    }
    publishers.close().await?;
    cache.socket.close().await?;
    cache.print();
    Ok(())
}

/// Runs until a socket is closed.
async fn serve(publishers: &SubSocket, cache: &mut Cache) -> Result<(), Box<dyn Error>> {
    let (mut tick, mut paint) = (every(TICK), every(PAINT));
    loop {
        // One after the other: nothing is published between the values that a subscriber gets and its subscription.
        tokio::select! {
            message = publishers.recv() => cache.publish(message?).await?,
            event = cache.socket.recv_event() => cache.hear(event?),
            _ = tick.tick(), if !cache.guests.is_empty() => cache.look_after_guests(),
            _ = paint.tick() => cache.paint(),
        }
    }
}

fn every(period: Duration) -> Interval {
    let mut interval = tokio::time::interval(period);
    interval.set_missed_tick_behavior(MissedTickBehavior::Delay);
    interval
}

/// The last value of each topic, and who gets it.
#[derive(Debug)]
struct Cache {
    values: Values,
    max_topics: usize,
    socket: XPubSocket,
    subscribers: HashMap<PeerId, Subscriber>,
    /// The subscribers that are being sent values, or have been a moment ago.
    guests: BTreeSet<PeerId>,
    /// How many values, to one subscriber, may be queued.
    allowance: usize,
    counts: Counts,
    /// Hidden if standard error is no terminal.
    bar: ProgressBar,
}

#[derive(Debug, Default)]
struct Subscriber {
    /// What has been applied: the socket sends it every update of these topics.
    subscribed: Prefixes,
    /// What will be applied once nothing waits.
    wanted: Prefixes,
    /// Values, and what has been published since, of the topics that it wants.
    waiting: VecDeque<Message>,
    /// How much of what was sent to it alone is still queued, at most.
    queued: usize,
    queued_bytes: usize,
}

#[derive(Debug, Default)]
struct Counts {
    updates: u64,
    values: u64,
    not_kept: u64,
}

impl Cache {
    fn new(arguments: &Arguments) -> Result<Self, Box<dyn Error>> {
        let high_water_mark = usize::try_from(arguments.high_water_mark)?;
        let socket = XPubSocket::builder()
            .manual(true)
            .slow_subscriber(SlowSubscriber::Disconnect)
            .send_high_water_mark(high_water_mark)
            .send_high_water_mark_bytes(QUEUED_BYTES)
            .build()?;
        let style =
            ProgressStyle::with_template("{spinner} {msg}").unwrap_or_else(|_| ProgressStyle::default_spinner());
        Ok(Self {
            values: Values::new(),
            max_topics: arguments.max_topics,
            socket,
            subscribers: HashMap::new(),
            guests: BTreeSet::new(),
            allowance: high_water_mark / 2,
            counts: Counts::default(),
            bar: ProgressBar::no_length().with_style(style),
        })
    }

    /// An update: to be kept, and to be passed on.
    async fn publish(&mut self, message: Message) -> Result<(), Box<dyn Error>> {
        self.counts.updates += 1;
        self.keep(&message);
        // So many may wait here: the values of all topics, and as many updates as may be queued elsewhere.
        let limit = self.values.len() + 2 * self.allowance;
        for peer in &self.guests {
            if let Some(subscriber) = self.subscribers.get_mut(peer) {
                subscriber.offer(&message);
                // Whoever reads too slowly must not make the cache grow.
                if subscriber.waiting.len() > limit {
                    subscriber.begin_anew(&self.values);
                }
            }
        }
        self.socket.send(message).await?;
        Ok(())
    }

    fn keep(&mut self, message: &Message) {
        if let Some(value) = self.values.get_mut(&message[0]) {
            *value = message.clone();
        } else if self.values.len() < self.max_topics {
            self.values.insert(Bytes::copy_from_slice(&message[0]), message.clone());
        } else {
            self.counts.not_kept += 1;
        }
    }

    fn hear(&mut self, event: XPubEvent) {
        match event {
            XPubEvent::Subscribed { peer, topic } => {
                self.subscribers.entry(peer.id).or_default().want(topic, &self.values);
                self.entertain(peer.id);
            }
            // Also for a subscriber that has gone: then for all that it had asked for.
            XPubEvent::Cancelled { peer, topic } => {
                self.socket.unsubscribe(peer.id, &topic);
                if let Some(subscriber) = self.subscribers.get_mut(&peer.id) {
                    subscriber.cancel(&topic, &self.values);
                }
                self.entertain(peer.id);
            }
            // Nobody is asked for anything else.
            _ => {}
        }
    }

    /// Sends a subscriber what waits for it, as far as there is room, and then lets the updates through to it.
    fn entertain(&mut self, peer: PeerId) {
        let Some(subscriber) = self.subscribers.get_mut(&peer) else {
            return;
        };
        while subscriber.queued < self.allowance && subscriber.queued_bytes < QUEUED_BYTES / 2 {
            let Some(message) = subscriber.waiting.pop_front() else {
                break;
            };
            let size = message.byte_len();
            match self.socket.send_to(peer, message) {
                Ok(()) => {
                    subscriber.queued += 1;
                    subscriber.queued_bytes += size;
                    self.counts.values += 1;
                }
                Err(TrySendError::Full(message)) => {
                    subscriber.waiting.push_front(message);
                    break;
                }
                // It has gone; its cancellations are under way.
                Err(_) => subscriber.waiting.clear(),
            }
        }
        if subscriber.waiting.is_empty() {
            for prefix in std::mem::take(&mut subscriber.wanted) {
                self.socket.subscribe(peer, &prefix);
                subscriber.subscribed.insert(prefix);
            }
        }
        if subscriber.queued > 0 || !subscriber.waiting.is_empty() {
            self.guests.insert(peer);
            return;
        }
        self.guests.remove(&peer);
        if subscriber.subscribed.is_empty() {
            self.subscribers.remove(&peer);
        }
    }

    /// Sees how much the guests have read, and goes on with them.
    fn look_after_guests(&mut self) {
        let peers: HashMap<_, _> = self.socket.peers().into_iter().map(|peer| (peer.peer.id, peer)).collect();
        for peer in self.guests.clone() {
            if let Some(subscriber) = self.subscribers.get_mut(&peer) {
                // Nothing is queued for one that has gone.
                let (queued, bytes) = peers.get(&peer).map_or((0, 0), |it| (it.queued_messages, it.queued_bytes));
                subscriber.queued = subscriber.queued.min(queued);
                subscriber.queued_bytes = subscriber.queued_bytes.min(bytes);
            }
            self.entertain(peer);
        }
    }

    fn summary(&self) -> String {
        let Counts { updates, values, not_kept } = self.counts;
        let (updates, values, topics) = (HumanCount(updates), HumanCount(values), HumanCount(self.values.len() as u64));
        let passed = if not_kept > 0 { format!(" ({} passed unkept)", HumanCount(not_kept)) } else { String::new() };
        format!("{topics} topics, {updates} updates{passed}, {values} values to late subscribers")
    }

    fn paint(&self) {
        self.bar.set_message(format!("{}, {} subscribers", self.summary(), self.socket.stats().peers));
    }

    fn print(&self) {
        self.bar.finish_and_clear();
        println!("{}", self.summary());
    }
}

impl Subscriber {
    /// It is to get the values of all topics with this prefix that it does not get yet.
    fn want(&mut self, prefix: Bytes, values: &Values) {
        let new = beginning_with(values, &prefix)
            .filter(|(topic, _)| !matches(&self.subscribed, topic) && !matches(&self.wanted, topic));
        self.waiting.extend(new.map(|(_, value)| value.clone()));
        if !self.subscribed.contains(&prefix) {
            self.wanted.insert(prefix);
        }
    }

    fn cancel(&mut self, prefix: &Bytes, values: &Values) {
        self.subscribed.remove(prefix);
        self.wanted.remove(prefix);
        // What it still wants may have come by the prefix that it no longer has.
        self.begin_anew(values);
    }

    /// An update waits behind the value.
    fn offer(&mut self, message: &Message) {
        if matches(&self.wanted, &message[0]) && !matches(&self.subscribed, &message[0]) {
            self.waiting.push_back(message.clone());
        }
    }

    /// What waits is replaced by the current values.
    fn begin_anew(&mut self, values: &Values) {
        self.waiting.clear();
        for prefix in std::mem::take(&mut self.wanted) {
            self.want(prefix, values);
        }
    }
}

type Values = BTreeMap<Bytes, Message>;
type Prefixes = BTreeSet<Bytes>;

fn beginning_with<'a>(values: &'a Values, prefix: &'a [u8]) -> impl Iterator<Item = (&'a Bytes, &'a Message)> {
    let from = values.range::<[u8], _>((Bound::Included(prefix), Bound::Unbounded));
    from.take_while(move |(topic, _)| topic.starts_with(prefix))
}

/// Whether a topic begins with one of the prefixes.
fn matches(prefixes: &Prefixes, topic: &[u8]) -> bool {
    !prefixes.is_empty() && (0..=topic.len()).any(|length| prefixes.contains(&topic[..length]))
}
