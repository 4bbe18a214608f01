//! Ten thousand peers that are connected and say nothing: they cost little memory and no time, and disturb nobody.

use std::hint::black_box;
use std::time::{Duration, Instant};

use sinew::{
    Closed, Endpoint, Message, PeerStats, PubSocket, PullSocket, PushSocket, SlowSubscriber, Stats, SubSocket,
};

use crate::common::*;
use crate::crowd::{Crowd, SENDERS, SUBSCRIBERS, word};
use crate::measure::{ProcessorTime, measured, resident, sleeps};
use crate::process::{alone, name_of, scale};
use crate::shutdown::Baseline;
use crate::subscribers::{new_sub, pub_builder};

/// So much memory an idle peer may cost, in bytes.
const PER_PEER: usize = 4 << 10;

/// Tables that grow by doubling, and what the kernel's count is wrong by, in bytes.
const TABLES: usize = 1 << 20;

/// What the allocator may keep of what was in use for a moment.
const KEPT: usize = 4 << 20;

/// So long the socket may wait for the others when it closes; it is not to come to that.
const LINGER: Duration = PATIENCE.saturating_mul(3);

/// While nothing is to be done hardly any processor time passes …
const IDLE_PARTS: u32 = 50;
/// … and threads are hardly ever woken, but to measure that.
const IDLE_WAKE_UPS: u64 = 30;

/// `stats()` costs the same with any number of peers; this is room for a disturbance.
const STATS: Duration = Duration::from_micros(10);
/// `peers()` looks at each.
const PEERS_EACH: Duration = Duration::from_micros(20);

/// What chance may do to the best of some rounds, on a machine that does other things as well …
const CHANCE: u32 = 8;
/// … which gives its processors to others for some time slices.
const SLICES: Duration = Duration::from_millis(20);

#[test]
fn a_pull_holds_ten_thousand_idle_peers_at_little_cost() {
    alone(name_of(a_pull_holds_ten_thousand_idle_peers_at_little_cost), || hold::<Pipeline>(scale(1_000, 10_000)));
}

#[test]
fn a_pub_holds_ten_thousand_idle_subscribers_at_little_cost() {
    alone(name_of(a_pub_holds_ten_thousand_idle_subscribers_at_little_cost), || hold::<Feed>(scale(1_000, 10_000)));
}

/// A socket that holds a crowd, and an honest peer of its own in this process; messages go from one to the other.
pub(crate) trait Busy {
    /// What the crowd consists of.
    const CROWD: &str;

    async fn meet(place: &Place) -> (Self, Endpoint)
    where
        Self: Sized;
    async fn send(&self, message: Message);
    async fn recv(&self) -> Message;
    fn stats(&self) -> Stats;
    fn peers(&self) -> Vec<PeerStats>;
    /// Waits until the socket has so many peers.
    async fn wait_connected(&self, count: usize);
    /// Waits until a crowd of this size can be served.
    async fn wait_ready(&self, crowd: usize);
    /// Has a word with each of the crowd.
    async fn serve(&self, crowd: &mut Crowd, size: usize);
    async fn close(&self) -> Closed;
    /// Closes the honest peer.
    async fn leave(self);
}

/// A PULL with a crowd of those who might send.
pub(crate) struct Pipeline(PushSocket, PullSocket);

impl Busy for Pipeline {
    const CROWD: &str = SENDERS;

    async fn meet(place: &Place) -> (Self, Endpoint) {
        let (push, pull) = (new_push(), pull_builder().linger(LINGER).build().unwrap());
        let endpoint = within(pull.bind(place.wildcard())).await.unwrap();
        push.connect(&endpoint).unwrap();
        within(pull.wait_connected(1)).await.unwrap();
        (Self(push, pull), endpoint)
    }

    async fn send(&self, message: Message) {
        within(self.0.send(message)).await.unwrap();
    }

    async fn recv(&self) -> Message {
        within(self.1.recv()).await.unwrap()
    }

    fn stats(&self) -> Stats {
        self.1.stats()
    }

    fn peers(&self) -> Vec<PeerStats> {
        self.1.peers()
    }

    async fn wait_connected(&self, count: usize) {
        within(self.1.wait_connected(count)).await.unwrap();
    }

    async fn wait_ready(&self, _crowd: usize) {}

    async fn serve(&self, crowd: &mut Crowd, size: usize) {
        crowd.go_ahead();
        let mut words = Vec::new();
        for _ in 0..size {
            words.push(self.recv().await);
        }
        words.sort_unstable_by(|one, other| one[0].cmp(&other[0]));
        assert!(words.into_iter().eq((0..size).map(|number| Message::from(word(number)))), "somebody was not heard");
    }

    async fn close(&self) -> Closed {
        within(self.1.close()).await.unwrap()
    }

    async fn leave(self) {
        assert_eq!(within(self.0.close()).await.unwrap().unsent, 0);
    }
}

/// A PUB with a crowd of those who have subscribed.
pub(crate) struct Feed(PubSocket, SubSocket);

const BUSY: &str = "busy";

impl Busy for Feed {
    const CROWD: &str = SUBSCRIBERS;

    async fn meet(place: &Place) -> (Self, Endpoint) {
        let publisher = pub_builder().slow_subscriber(SlowSubscriber::Wait).linger(LINGER).build().unwrap();
        let sub = new_sub();
        let endpoint = within(publisher.bind(place.wildcard())).await.unwrap();
        sub.subscribe(BUSY);
        sub.connect(&endpoint).unwrap();
        within(publisher.wait_subscribed(BUSY, 1)).await.unwrap();
        (Self(publisher, sub), endpoint)
    }

    async fn send(&self, message: Message) {
        within(self.0.send(message)).await.unwrap();
    }

    async fn recv(&self) -> Message {
        within(self.1.recv()).await.unwrap()
    }

    fn stats(&self) -> Stats {
        self.0.stats()
    }

    fn peers(&self) -> Vec<PeerStats> {
        self.0.peers()
    }

    async fn wait_connected(&self, count: usize) {
        within(self.0.wait_connected(count)).await.unwrap();
    }

    async fn wait_ready(&self, crowd: usize) {
        for number in 0..crowd {
            within(self.0.wait_subscribed(word(number), 1)).await.unwrap();
        }
        assert!(self.peers().iter().all(|peer| peer.subscriptions == 1));
    }

    async fn serve(&self, crowd: &mut Crowd, size: usize) {
        for number in 0..size {
            self.send(word(number).into()).await;
        }
        crowd.go_ahead();
    }

    async fn close(&self) -> Closed {
        within(self.0.close()).await.unwrap()
    }

    async fn leave(self) {
        within(self.1.close()).await.unwrap();
    }
}

/// Waits until a crowd has come.
async fn wait_crowd(busy: &impl Busy, size: usize) {
    // In steps, each of which must not take long.
    for peers in (0..size).step_by(100).chain([size]) {
        busy.wait_connected(1 + peers).await;
    }
    busy.wait_ready(size).await;
}

/// A crowd comes, is served and is left.
pub(crate) async fn come_and_stay<B: Busy>(place: Place, size: usize) {
    let (busy, endpoint) = B::meet(&place).await;
    let mut crowd = Crowd::start(B::CROWD, &endpoint, size);
    wait_crowd(&busy, size).await;
    busy.serve(&mut crowd, size).await;
    let closed = busy.close().await;
    assert_eq!((closed.unsent, closed.unread), (0, 0));
    crowd.gone().await;
    busy.leave().await;
}

/// How many of so many peers this user's limit permits in one process, with some descriptors for all else.
fn possible(size: usize) -> usize {
    const OTHERS: usize = 100;
    let limit = raise_descriptor_limit();
    let possible = size.min(usize::try_from(limit).unwrap_or(usize::MAX).saturating_sub(OTHERS)).max(1);
    if possible < size {
        println!("skipped: {size} peers, because a process may have {limit} descriptors only; {possible} instead");
    }
    possible
}

async fn hold<B: Busy>(wanted: usize) {
    let (place, size, before) = (Place::new(Transport::Tcp), possible(wanted), Baseline::now());
    let (busy, endpoint) = B::meet(&place).await;
    let (pace_before, stats_before) = (pace(&busy).await, median(1_000, || busy.stats()));
    let (memory, begin) = (resident(), Instant::now());

    let mut crowd = Crowd::start(B::CROWD, &endpoint, size);
    wait_crowd(&busy, size).await;
    let grown = resident().saturating_sub(memory);
    measured!("{size} {} in {:?}: {} bytes of memory each", B::CROWD, begin.elapsed(), grown / size);
    assert!(grown <= size * PER_PEER + TABLES, "{grown} bytes for {size} idle peers");

    let idle = idle().await;
    measured!("beside them {idle:?}");
    assert!(idle.used <= idle.passed / IDLE_PARTS && idle.wake_ups <= IDLE_WAKE_UPS, "{idle:?}");

    let (stats, peers) = (median(1_000, || busy.stats()), median(20, || busy.peers()));
    measured!("stats() takes {stats:?} ({stats_before:?} without them), peers() {peers:?}");
    assert_eq!((busy.stats().peers, busy.peers().len()), (1 + size, 1 + size));
    assert!(stats <= CHANCE * stats_before + STATS, "stats() takes {stats:?}, with one peer {stats_before:?}");
    assert!(peers <= PEERS_EACH * size as u32, "peers() takes {peers:?} for {size} peers");

    let pace = pace(&busy).await;
    measured!("a busy pair beside them {pace:?}, without them {pace_before:?}");
    assert!(pace.messages_per_second >= pace_before.messages_per_second / CHANCE, "{pace:?} after {pace_before:?}");
    assert!(pace.p99 <= CHANCE * pace_before.p99 + SLICES, "{pace:?} after {pace_before:?}");

    // They are still there.
    busy.serve(&mut crowd, size).await;
    let begin = Instant::now();
    let closed = busy.close().await;
    let elapsed = begin.elapsed();
    assert_eq!((closed.unsent, closed.unread), (0, 0));
    crowd.gone().await;
    busy.leave().await;
    before.is_reached_but_for_memory().await;
    // The allocator keeps some; `tests/allocations.rs` counts what it is given back.
    let left = resident().saturating_sub(memory);
    measured!("closed in {elapsed:?}; {left} bytes of memory more than before they came");
    assert!(left <= size * PER_PEER + KEPT, "{left} bytes are left of {size} peers");
}

/// How many messages go from one to the other in a second, and how long one of them takes in the worst one per cent.
#[derive(Debug)]
struct Pace {
    messages_per_second: u32,
    p99: Duration,
}

/// The best of some rounds: other programs disturb some of them, a crowd all.
async fn pace(busy: &impl Busy) -> Pace {
    const ROUNDS: usize = 20;
    const FLOW: Duration = Duration::from_millis(10);
    const TRIPS: Duration = Duration::from_millis(50);
    let mut best = Pace { messages_per_second: 0, p99: Duration::MAX };
    for _ in 0..ROUNDS {
        best.messages_per_second = best.messages_per_second.max(flow(busy, FLOW).await);
        best.p99 = best.p99.min(trips(busy, TRIPS).await);
    }
    best
}

/// Sends and receives at the same time, for so long; says how many messages in a second that were.
async fn flow(busy: &impl Busy, length: Duration) -> u32 {
    // As many as a queue has room for.
    const BATCH: u32 = 1_000;
    let (begin, mut count) = (Instant::now(), 0);
    while begin.elapsed() < length {
        let sending = async {
            for _ in 0..BATCH {
                busy.send(BUSY.into()).await;
            }
        };
        let receiving = async {
            for _ in 0..BATCH {
                busy.recv().await;
            }
        };
        tokio::join!(sending, receiving);
        count += BATCH;
    }
    (f64::from(count) / begin.elapsed().as_secs_f64()) as u32
}

/// Sends one message after the other, for so long; says how long the worst one per cent take.
async fn trips(busy: &impl Busy, length: Duration) -> Duration {
    let (begin, mut times) = (Instant::now(), Vec::new());
    while begin.elapsed() < length {
        let begin = Instant::now();
        busy.send(BUSY.into()).await;
        busy.recv().await;
        times.push(begin.elapsed());
    }
    times.sort_unstable();
    times[times.len() * 99 / 100]
}

/// What passes while nothing is to be done.
#[derive(Debug)]
struct Idle {
    passed: Duration,
    /// The processor time that was used.
    used: Duration,
    /// How often threads were woken.
    wake_ups: u64,
}

async fn idle() -> Idle {
    let time = ProcessorTime::new();
    let (begin, used, wake_ups) = (Instant::now(), time.used(), sleeps());
    // Not to wait for something, but to see that nothing happens.
    tokio::time::sleep(scale(Duration::from_secs(2), Duration::from_secs(10))).await;
    Idle { passed: begin.elapsed(), used: time.used() - used, wake_ups: sleeps() - wake_ups }
}

/// How long a call takes, in most cases.
fn median<T>(calls: usize, mut call: impl FnMut() -> T) -> Duration {
    let mut times: Vec<_> = (0..calls)
        .map(|_| {
            let begin = Instant::now();
            black_box(call());
            begin.elapsed()
        })
        .collect();
    times.sort_unstable();
    times[calls / 2]
}
