//! What every scenario starts from: a network, dice, addresses, options, and messages that say what they are.

use std::fmt;
use std::future::Future;
use std::time::Duration;

use fastrand::Rng;
use tokio::runtime::Handle;
use tokio::time::{Instant, timeout};

use crate::error::TrySendError;
use crate::message::{Frame, Message};
use crate::simulation::network::{Network, Weather};
use crate::socket::handle::Core;
use crate::socket::sending::{self, SendMessage};

/// Longer than anything takes that is not stuck, in virtual time.
const LONG: Duration = Duration::from_secs(3_000);

/// The numbers of messages that are sent one after the other come from one row of so many.
pub(super) const ROW: u32 = 10_000;

/// Which message it is.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) struct Tag {
    pub(super) sender: u16,
    pub(super) number: u32,
}

impl fmt::Debug for Tag {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.sender, self.number)
    }
}

impl Tag {
    const LENGTH: usize = 6;

    /// As it is received by one of many.
    pub(super) fn at(self, receiver: u16) -> (Self, u16) {
        (self, receiver)
    }

    fn filling(self) -> u8 {
        self.number.to_be_bytes()[3]
    }

    /// From the end of a message's last frame.
    pub(super) fn of(body: &[u8]) -> Option<Self> {
        let (_, tag) = body.split_at_checked(body.len().checked_sub(Self::LENGTH)?)?;
        let (sender, number) = tag.split_at(2);
        Some(Self {
            sender: u16::from_be_bytes(sender.try_into().ok()?),
            number: u32::from_be_bytes(number.try_into().ok()?),
        })
    }

    /// The message with this tag and about so many bytes; a topic is a frame of its own.
    pub(super) fn message(self, topic: Option<&[u8]>, size: usize, rng: &mut Rng) -> Message {
        let mut body = vec![self.filling(); size];
        body.extend_from_slice(&self.sender.to_be_bytes());
        body.extend_from_slice(&self.number.to_be_bytes());
        let mut frames: Vec<Frame> = topic.map(|topic| topic.to_vec().into()).into_iter().collect();
        for _ in 0..(if rng.u8(0..4) == 0 { rng.usize(1..5) } else { 0 }) {
            let filling = vec![b'-'; if rng.bool() { 0 } else { rng.usize(0..300) }];
            frames.push(filling.into());
        }
        frames.push(body.into());
        Message::from(frames)
    }

    /// The tag of a message that has come; it must have come whole.
    pub(super) fn check(message: &Message) -> Self {
        let body = &message[message.frame_count() - 1];
        let tag = Self::of(body).unwrap_or_else(|| panic!("a message that nobody has sent: {message:?}"));
        let (filling, _) = body.split_at(body.len() - Self::LENGTH);
        assert!(filling.iter().all(|byte| *byte == tag.filling()), "message {tag:?} has come damaged");
        tag
    }
}

/// A number of any magnitude, from 1 to `most`.
pub(super) fn magnitude(rng: &mut Rng, most: usize) -> usize {
    let bits = rng.u32(0..=most.ilog2());
    rng.usize(1 << bits..2 << bits).min(most)
}

/// Options that differ from seed to seed.
#[derive(Debug, Clone, Copy)]
pub(super) struct Tuning {
    pub(super) send_mark: usize,
    pub(super) send_bytes: usize,
    pub(super) receive_mark: usize,
    pub(super) receive_bytes: usize,
    pub(super) first_delay: Duration,
    pub(super) longest_delay: Duration,
    pub(super) heartbeat: Duration,
    pub(super) time_to_live: Duration,
    pub(super) linger: Duration,
    /// Of PULL and SUB: only the newest of each peer is kept.
    pub(super) conflates: bool,
    pub(super) most_connections: usize,
    pub(super) most_handshakes: usize,
    pub(super) handshake: Duration,
    /// Bytes of messages that have not come whole.
    pub(super) unfinished: usize,
}

/// Gives a builder those options that all sockets have.
macro_rules! tuned {
    ($builder:expr, $tuning:expr) => {{
        let tuning = $tuning;
        $builder
            .linger(tuning.linger)
            .reconnect_delay(tuning.first_delay, tuning.longest_delay)
            .heartbeat_interval(tuning.heartbeat)
            .heartbeat_ttl(tuning.time_to_live)
            .max_connections(tuning.most_connections)
            .max_pending_handshakes(tuning.most_handshakes)
            .handshake_timeout(tuning.handshake)
            .max_unfinished_bytes(tuning.unfinished)
    }};
    ($builder:expr, $tuning:expr, sends) => {{
        let tuning = $tuning;
        tuned!($builder, tuning).send_high_water_mark(tuning.send_mark).send_high_water_mark_bytes(tuning.send_bytes)
    }};
    ($builder:expr, $tuning:expr, receives) => {{
        let tuning = $tuning;
        tuned!($builder, tuning)
            .receive_high_water_mark(tuning.receive_mark)
            .receive_high_water_mark_bytes(tuning.receive_bytes)
    }};
}

pub(super) use tuned;

/// One simulated world.
#[derive(Debug)]
pub(super) struct World {
    pub(super) rng: Rng,
    pub(super) network: Network,
    pub(super) is_ipc: bool,
    /// Whether connections are cut, sockets restarted, and so on.
    pub(super) is_stormy: bool,
    /// As in [`Weather`].
    pub(super) latency: u64,
    /// In that time all has arrived that was sent, if it is not much.
    pub(super) arrives: Duration,
    /// How many bytes of messages can be sent in reasonable time.
    pub(super) budget: usize,
    /// Sockets have small budgets for unfinished messages, and no heartbeats: a peer that waits for its turn may not see a PING
    /// for longer than these heartbeats are patient.
    is_tight: bool,
}

impl World {
    pub(super) fn new(seed: u64) -> Self {
        let mut rng = Rng::with_seed(seed);
        fastrand::seed(rng.u64(..));
        let latencies = [0, 0, 1, 5, 50];
        let is_stormy = rng.u32(0..3) > 0;
        let capacity = magnitude(&mut rng, 256 * 1024).max(16);
        let weather = Weather {
            latency: latencies[rng.usize(0..latencies.len())],
            capacity,
            refused: if is_stormy && rng.bool() { 30 } else { 0 },
        };
        Self {
            network: Network::install(rng.fork(), weather),
            is_ipc: rng.u32(0..4) == 0,
            is_stormy,
            latency: weather.latency,
            arrives: Duration::from_secs(3)
                + Duration::from_millis(4 * weather.latency) * u32::try_from(5_000 / capacity + 10).unwrap_or(u32::MAX),
            budget: (weather.capacity * 100).clamp(2 * 1024, 400 * 1024),
            // A message must go on in the time that others wait for it.
            is_tight: weather.latency <= 5 && rng.bool(),
            rng,
        }
    }

    /// No storm after all.
    pub(super) fn weather_clears(&mut self) {
        self.is_stormy = false;
        self.network.refuse_none();
    }

    pub(super) fn tuning(&mut self) -> Tuning {
        let rng = &mut self.rng;
        let first = rng.u64(1..100);
        // Several times as long as an answer takes.
        let least = 50 + 8 * self.latency;
        let beat = if !self.is_tight && rng.u32(0..3) == 0 { rng.u64(least..4 * least) } else { 0 };
        Tuning {
            send_mark: magnitude(rng, 1_000),
            send_bytes: if rng.bool() { 64 << 20 } else { magnitude(rng, 64 << 10) },
            receive_mark: magnitude(rng, 1_000),
            receive_bytes: if rng.bool() { 64 << 20 } else { magnitude(rng, 64 << 10) },
            first_delay: Duration::from_millis(first),
            longest_delay: Duration::from_millis(rng.u64(first..1_000)),
            heartbeat: Duration::from_millis(beat),
            // It goes out in tenths of a second, less what is left over.
            time_to_live: Duration::from_millis(if beat > 0 && rng.bool() { 3 * beat + 200 } else { 0 }),
            linger: LONG,
            conflates: rng.u32(0..5) == 0,
            most_connections: 1_000,
            most_handshakes: 1_000,
            handshake: Duration::from_secs(10),
            unfinished: if self.is_tight { magnitude(rng, 64 << 10) } else { 256 << 20 },
        }
    }

    /// Sizes of messages, many small and few large ones, within the budget.
    pub(super) fn sizes(&mut self, most: usize, share: usize) -> Vec<usize> {
        let mut left = self.budget / share.max(1);
        let mut sizes = Vec::new();
        for _ in 0..magnitude(&mut self.rng, most) {
            let largest = if self.rng.u32(0..20) == 0 { 200_000 } else { 2_000 };
            let size = magnitude(&mut self.rng, largest) - 1;
            if size > left {
                continue;
            }
            left -= size;
            sizes.push(size);
        }
        sizes
    }
}

/// A short pause, or none.
pub(super) async fn dawdle(rng: &mut Rng, odds: u32, most: u64) {
    if rng.u32(0..100) < odds {
        tokio::time::sleep(Duration::from_millis(rng.u64(0..=most))).await;
    }
}

/// Waits for what must come.
pub(super) async fn within_long<F: Future>(what: &str, future: F) -> F::Output {
    match timeout(LONG * 2, future).await {
        Ok(output) => output,
        Err(_) => panic!("it hangs: {what}"),
    }
}

/// Waits until something is so; there is no event for it.
pub(super) async fn until(what: &str, mut is_so: impl FnMut() -> Result<(), String>) {
    let end = Instant::now() + LONG;
    let mut pause = Duration::from_millis(1);
    loop {
        match is_so() {
            Ok(()) => return,
            Err(state) => assert!(Instant::now() < end, "never so: {what}: {state}"),
        }
        tokio::time::sleep(pause).await;
        pause = (pause * 2).min(Duration::from_secs(10));
    }
}

/// Nothing must be left behind by sockets that are closed.
pub(super) async fn no_task_is_left() {
    let tasks = || Handle::current().metrics().num_alive_tasks();
    until("all tasks have ended", || if tasks() == 0 { Ok(()) } else { Err(format!("{} are left", tasks())) }).await;
}

/// Sends a message in one of the ways there are; some change their mind half-way and send it again.
pub(super) async fn send(core: &Core, message: &Message, rng: &mut Rng) {
    for _attempt in 0..1_000_000 {
        match rng.u32(0..4) {
            0 => {
                if let Ok(sent) =
                    timeout(Duration::from_millis(rng.u64(0..20)), SendMessage::new(core, message.clone())).await
                {
                    return sent.expect("the socket is open");
                }
            }
            1 => match sending::try_send(core, message.clone()) {
                Ok(()) => return,
                Err(TrySendError::Full(_)) => tokio::time::sleep(Duration::from_millis(rng.u64(1..50))).await,
                Err(error) => panic!("{error}"),
            },
            _ => return SendMessage::new(core, message.clone()).await.expect("the socket is open"),
        }
    }
    panic!("a message finds no room");
}
