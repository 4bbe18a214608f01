//! Slowloris: a thousand connections that greet a byte at a time. The honest are served as ever, the slow ones closed in time.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use futures::StreamExt;
use sinew::{DisconnectReason, Endpoint, Event, Monitor, ProtocolError, PullSocket, PushSocket};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::task::JoinSet;
use tokio::time::MissedTickBehavior;

use crate::common::raw::proper_greeting;
use crate::common::*;
use crate::measure::measured;
use crate::process::{alone, name_of, scale};

/// What the worst one per cent of honest round trips may take: so many times what it is without the slow ones, …
const TIMES: u32 = 4;
/// … and some time slices that the system gives to others. On the small scale it is only told whether the honest wait for the
/// slow ones, which would be until the deadline: the machine may do much else.
const SLICES: Duration = Duration::from_millis(50);

/// How many messages a newcomer must get through beside the slow ones at least.
const FLOWED: usize = 100;

#[test]
fn a_thousand_slow_greetings_do_no_harm_and_end_at_the_deadline() {
    // Both ends of each.
    if !may_open(2_500) {
        return;
    }
    alone(name_of(a_thousand_slow_greetings_do_no_harm_and_end_at_the_deadline), || {
        // The large scale is one byte a second for the default time; the small one is four times as fast.
        let second = Duration::from_secs(1);
        flood(1_000, scale(second / 4, second), scale(4 * second, 10 * second))
    });
}

/// Floods two sockets with so many slow connections, with a byte from each every `pause`.
pub(crate) async fn flood(connections: usize, pause: Duration, deadline: Duration) {
    let place = Place::new(Transport::Tcp);
    // The sockets under attack: what the PULL gets, the PUSH sends back.
    let pull = pull_builder().handshake_timeout(deadline).build().unwrap();
    let push = push_builder().handshake_timeout(deadline).build().unwrap();
    let endpoints =
        [within(pull.bind(place.wildcard())).await.unwrap(), within(push.bind(place.wildcard())).await.unwrap()];
    let counting = [count_timeouts(pull.monitor()), count_timeouts(push.monitor())].map(tokio::spawn);
    let echo = tokio::spawn(echo(pull.clone(), push.clone()));
    // The honest ones.
    let (there, back) = (new_push(), new_pull());
    there.connect(&endpoints[0]).unwrap();
    back.connect(&endpoints[1]).unwrap();
    within(there.wait_connected(1)).await.unwrap();
    within(back.wait_connected(1)).await.unwrap();

    let alone = Trips::measure(&there, &back, pause, deadline / 2, || true).await;

    let (connected, ended) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(0)));
    let mut slow = JoinSet::new();
    for number in 0..connections {
        slow.spawn(greet_slowly(address(&endpoints[number % 2]), pause, connected.clone(), ended.clone()));
    }
    let begin = Instant::now();
    eventually(|| connected.load(Ordering::Relaxed) == connections).await;

    // The first half of the time for round trips.
    let beside = Trips::measure(&there, &back, pause, deadline / 2, || ended.load(Ordering::Relaxed) == 0).await;
    // Then somebody new, who sends as fast as it goes until the last slow one has ended.
    let newcomer = new_push();
    newcomer.connect(&endpoints[0]).unwrap();
    within(newcomer.wait_connected(1)).await.unwrap();
    let (flow, mut flowed) = (Instant::now(), 0);
    while flowed < FLOWED || ended.load(Ordering::Relaxed) < connections {
        assert!(begin.elapsed() < deadline + 2 * PATIENCE, "slow connections are kept");
        let sending = send_numbers(&newcomer, 0..FLOWED as u64);
        let receiving = recv_numbers(&back, FLOWED);
        flowed += tokio::join!(sending, receiving).1.len();
    }
    let flow = flow.elapsed();

    // That it is over is noticed by a thousand tasks, one after the other, on a machine that may be busy.
    for time in slow.join_all().await {
        assert!((deadline..deadline + PATIENCE).contains(&time), "one was closed after {time:?}");
    }
    measured!("beside {connections} slow connections {beside:?}, without them {alone:?}");
    measured!("{flowed} messages in {flow:?}");
    assert!(beside.p99 <= TIMES * alone.p99 + scale(deadline, SLICES), "{beside:?}, without the slow ones {alone:?}");
    assert!(flowed >= scale(FLOWED, 1_000), "{flowed} messages in {flow:?}");

    // They are told of one by one, and the honest ones have not been disturbed.
    assert_eq!((pull.stats().peers, push.stats().peers), (2, 1));
    within(pull.close()).await.unwrap();
    within(push.close()).await.unwrap();
    within(echo).await.unwrap();
    for counted in counting {
        assert_eq!(within(counted).await.unwrap(), connections / 2);
    }
}

/// How long honest round trips take.
#[derive(Debug)]
#[allow(dead_code)] // all of it is shown
struct Trips {
    count: usize,
    median: Duration,
    /// In the middle one of the parts of the time: other programs disturb some of them, slow connections all.
    p99: Duration,
}

impl Trips {
    /// Measures for so long at most, while this is `wanted`; each part of the time has to do with each slow connection.
    async fn measure(
        there: &PushSocket,
        back: &PullSocket,
        part: Duration,
        length: Duration,
        wanted: impl Fn() -> bool,
    ) -> Self {
        let (begin, mut all, mut p99s) = (Instant::now(), Vec::new(), Vec::new());
        while all.is_empty() || (begin.elapsed() < length && wanted()) {
            let (begin, first) = (Instant::now(), all.len());
            while begin.elapsed() < part {
                let start = Instant::now();
                within(there.send(numbered(0))).await.unwrap();
                within(back.recv()).await.unwrap();
                all.push(start.elapsed());
            }
            all[first..].sort_unstable();
            p99s.push(all[first + (all.len() - first) * 99 / 100]);
        }
        all.sort_unstable();
        p99s.sort_unstable();
        Self { count: all.len(), median: all[all.len() / 2], p99: p99s[p99s.len() / 2] }
    }
}

fn address(endpoint: &Endpoint) -> String {
    endpoint.to_string().strip_prefix("tcp://").unwrap().to_owned()
}

/// Greets byte by byte until the other side has had enough; gives how long that took.
async fn greet_slowly(
    address: String,
    pause: Duration,
    connected: Arc<AtomicUsize>,
    ended: Arc<AtomicUsize>,
) -> Duration {
    // Before it is connected, and so before the other side's time begins.
    let begin = Instant::now();
    let mut stream = within(TcpStream::connect(address)).await.unwrap();
    connected.fetch_add(1, Ordering::Relaxed);
    let mut ticks = tokio::time::interval(pause);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let (greeting, mut sent, mut answer) = (proper_greeting(), 0, [0; 128]);
    loop {
        tokio::select! {
            _ = ticks.tick(), if sent < greeting.len() => {
                // If it is closed already, reading says so.
                let _ = stream.write_all(&greeting[sent..=sent]).await;
                sent += 1;
            }
            read = stream.read(&mut answer) => if !matches!(read, Ok(1..)) {
                break;
            }
        }
    }
    ended.fetch_add(1, Ordering::Relaxed);
    begin.elapsed()
}

async fn echo(pull: PullSocket, push: PushSocket) {
    while let Ok(message) = pull.recv().await {
        // It may be closed first.
        let _ = push.send(message).await;
    }
}

/// How many connections have run out of time, when the socket is closed.
async fn count_timeouts(mut monitor: Monitor) -> usize {
    let mut count = 0;
    while let Some(event) = monitor.next().await {
        match event {
            Event::HandshakeFailed { reason, .. } => {
                assert_eq!(reason, DisconnectReason::Protocol(ProtocolError::HandshakeTimeout));
                count += 1;
            }
            Event::Missed(missed) => panic!("{missed} events are missed"),
            _ => {}
        }
    }
    count
}
