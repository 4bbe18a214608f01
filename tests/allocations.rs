//! Allocations: small messages cost none each, idle peers few bytes, and all bytes are given back.

mod common;

use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use allocation_counter::measure;
use common::raw::*;
use common::{PATIENCE, within};
use sinew::{Endpoint, Message, PubSocket, PullSocket, PushSocket, SubSocket};
use tokio::runtime::Runtime;

const MESSAGES: u64 = 1_000;

/// Room for the growth of buffers and queues, which does not depend on the number of messages but on its logarithm.
const GROWTH: u64 = 40;

#[test]
fn a_message_of_up_to_64_bytes_is_made_and_cloned_without_an_allocation() {
    let body = [7; 64];
    let allocations = measure(|| {
        for length in 0..=64 {
            let message = Message::from(&body[..length]);
            assert_eq!(message.clone(), message);
        }
    });
    assert_eq!(allocations.count_total, 0);
    let larger = measure(|| drop(Message::from(&[7; 65])));
    assert_ne!(larger.count_total, 0, "the counter counts");
}

#[test]
fn small_messages_are_sent_and_received_without_an_allocation_each() {
    runtime().block_on(async {
        let (push, pull) = (PushSocket::new(), PullSocket::new());
        push.connect(pull.bind("tcp://127.0.0.1:*").await.unwrap()).unwrap();
        push.wait_connected(1).await.unwrap();
        let body = [7; 64];

        let sending = measure(|| {
            for _ in 0..MESSAGES {
                push.try_send(&body).unwrap();
            }
        });
        assert!(sending.count_total < GROWTH, "{sending:?} for {MESSAGES} messages sent");

        let first = pull.recv().await.unwrap();
        assert_eq!(&first[0], body);
        let (mut received, mut receiving) = (1, 0);
        while received < MESSAGES {
            let step = measure(|| {
                while let Ok(message) = pull.try_recv() {
                    assert_eq!(&message[0], body);
                    received += 1;
                }
            });
            receiving += step.count_total;
            // Until the rest has come.
            if received < MESSAGES {
                assert_eq!(&pull.recv().await.unwrap()[0], body);
                received += 1;
            }
        }
        assert!(receiving < GROWTH, "{receiving} allocations for {MESSAGES} messages received");
    });
}

/// So many peers that say nothing …
const PEERS: usize = 50;
/// … may cost so much memory each, in bytes, …
const IDLE: i64 = 3 << 10;
/// … and so much when they have once said something.
const IDLE_AGAIN: i64 = 4 << 10;
/// What a runtime keeps for itself.
const KEPT: i64 = 4 << 10;

fn runtime() -> Runtime {
    tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap()
}

/// What peers of bytes do; each is a number and a topic.
enum Step {
    /// The next one comes.
    Come,
    /// Each sends its number.
    Speak,
    /// Each receives its number.
    Listen,
}

/// Peers of bytes on a thread of their own, whose memory does not count here.
struct Crowd {
    steps: SyncSender<Step>,
    thread: JoinHandle<()>,
}

impl Crowd {
    fn new(endpoint: Endpoint, subscribe: bool) -> Self {
        let (steps, received) = sync_channel(1);
        Self { steps, thread: std::thread::spawn(move || runtime().block_on(play(endpoint, subscribe, received))) }
    }

    fn step(&self, step: Step) {
        self.steps.send(step).unwrap();
    }

    /// Lets them wait for the ends of their connections.
    fn leave(self) -> JoinHandle<()> {
        self.thread
    }
}

async fn play(endpoint: Endpoint, subscribe: bool, steps: Receiver<Step>) {
    let mut peers = Vec::new();
    // They need nothing between the steps.
    for step in steps {
        match step {
            Step::Come => {
                let mut peer = Raw::peer(&endpoint, if subscribe { READY_SUB } else { READY_PUSH }).await;
                if subscribe {
                    peer.send(&subscribe_command(topic(peers.len()).as_bytes())).await;
                }
                peers.push(peer);
            }
            Step::Speak => {
                for (number, peer) in peers.iter_mut().enumerate() {
                    peer.send(&frame(0, topic(number).as_bytes())).await;
                }
            }
            Step::Listen => {
                for (number, peer) in peers.iter_mut().enumerate() {
                    assert_eq!(peer.message().await, Some(vec![topic(number).into_bytes()]));
                }
            }
        }
    }
    for mut peer in peers {
        assert_eq!(peer.end().await, []);
    }
}

fn topic(number: usize) -> String {
    format!("{number:05}")
}

/// Drives the socket until a future is ready.
fn wait<F: Future>(runtime: &Runtime, future: F) -> F::Output {
    runtime.block_on(within(future))
}

#[test]
fn idle_peers_of_a_pull_cost_few_bytes_and_all_are_given_back() {
    let runtime = runtime();
    let all = measure(|| {
        let pull = PullSocket::new();
        let crowd = Crowd::new(wait(&runtime, pull.bind("tcp://127.0.0.1:*")).unwrap(), false);
        let come = measure(|| {
            for number in 0..PEERS {
                crowd.step(Step::Come);
                wait(&runtime, pull.wait_connected(number + 1)).unwrap();
            }
        });
        let held = settled(&runtime, come.bytes_current, IDLE);
        assert!(held <= IDLE, "{held} bytes for a PUSH that is idle");
        let speak = measure(|| {
            crowd.step(Step::Speak);
            for _ in 0..PEERS {
                wait(&runtime, pull.recv()).unwrap();
            }
        });
        let held = settled(&runtime, come.bytes_current + speak.bytes_current, IDLE_AGAIN);
        assert!(held <= IDLE_AGAIN, "{held} bytes for a PUSH that is idle again");
        let gone = crowd.leave();
        wait(&runtime, pull.close()).unwrap();
        gone.join().unwrap();
    });
    assert!(all.bytes_current <= KEPT, "not given back: {all:?}");
}

#[test]
fn idle_subscribers_of_a_pub_cost_few_bytes_and_all_are_given_back() {
    let runtime = runtime();
    let all = measure(|| {
        let publisher = PubSocket::new();
        let crowd = Crowd::new(wait(&runtime, publisher.bind("tcp://127.0.0.1:*")).unwrap(), true);
        let come = measure(|| {
            for number in 0..PEERS {
                crowd.step(Step::Come);
                wait(&runtime, publisher.wait_subscribed(topic(number), 1)).unwrap();
            }
        });
        let held = settled(&runtime, come.bytes_current, IDLE);
        assert!(held <= IDLE, "{held} bytes for a SUB that is idle");
        let publish = measure(|| {
            for number in 0..PEERS {
                wait(&runtime, publisher.send(topic(number))).unwrap();
            }
            crowd.step(Step::Listen);
        });
        let held = settled(&runtime, come.bytes_current + publish.bytes_current, IDLE_AGAIN);
        assert!(held <= IDLE_AGAIN, "{held} bytes for a SUB that is idle again");
        // Who was sent something is waited for: they look for the end meanwhile.
        let gone = crowd.leave();
        wait(&runtime, publisher.close()).unwrap();
        gone.join().unwrap();
    });
    assert!(all.bytes_current <= KEPT, "not given back: {all:?}");
}

/// What an idle socket and its peers may keep of a burst, in bytes.
const KEPT_OF_A_BURST: i64 = 64 << 10;
/// Sockets at the other end.
const SOCKETS: usize = 20;

/// Runs a burst, and `rest` for longer than buffers are kept that are not needed; says what is held then.
fn held_after(runtime: &Runtime, burst: impl AsyncFn(), rest: impl AsyncFn()) -> i64 {
    const REST: Duration = Duration::from_millis(2_500);
    let held = measure(|| {
        wait(runtime, async {
            burst().await;
            let begin = Instant::now();
            while begin.elapsed() < REST {
                rest().await;
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
        });
    });
    println!("measured: {} of {} bytes", held.bytes_current, held.bytes_max);
    assert!(held.bytes_max > 4 * KEPT_OF_A_BURST as u64, "no burst: {held:?}");
    held.bytes_current
}

#[test]
fn buffers_of_a_burst_are_given_back_by_a_conversation() {
    let runtime = runtime();
    let _entered = runtime.enter();
    let (push, pull) = (PushSocket::new(), PullSocket::new());
    push.connect(wait(&runtime, pull.bind("tcp://127.0.0.1:*")).unwrap()).unwrap();
    let exchange = async |size, count| {
        for _ in 0..count {
            push.send(vec![7; size]).await.unwrap();
        }
        for _ in 0..count {
            pull.recv().await.unwrap();
        }
    };
    wait(&runtime, exchange(10, 1));
    let held = held_after(&runtime, async || exchange(5_000, 500).await, async || exchange(10, 1).await);
    assert!(held <= KEPT_OF_A_BURST, "{held} bytes");
}

#[test]
fn buffers_of_a_burst_are_given_back_by_sockets_with_little_for_each_of_many_peers() {
    let runtime = runtime();
    let _entered = runtime.enter();
    let (push, publisher) = (PushSocket::new(), PubSocket::new());
    let endpoint = wait(&runtime, publisher.bind("tcp://127.0.0.1:*")).unwrap();
    let (pulls, subs): (Vec<_>, Vec<_>) = (0..SOCKETS).map(|_| (PullSocket::new(), SubSocket::new())).unzip();
    for (number, (pull, sub)) in pulls.iter().zip(&subs).enumerate() {
        push.connect(wait(&runtime, pull.bind("tcp://127.0.0.1:*")).unwrap()).unwrap();
        sub.subscribe(topic(number));
        sub.connect(&endpoint).unwrap();
        wait(&runtime, publisher.wait_subscribed(topic(number), 1)).unwrap();
    }
    wait(&runtime, push.wait_connected(SOCKETS)).unwrap();
    let exchange = async |rounds| {
        // Nobody else has a turn meanwhile: it all collects in the queues.
        for number in 0..rounds * SOCKETS {
            push.try_send(vec![7; 60]).unwrap();
            publisher.try_send([topic(number % SOCKETS), "x".repeat(60)]).unwrap();
        }
        for (pull, sub) in pulls.iter().zip(&subs) {
            for _ in 0..rounds {
                pull.recv().await.unwrap();
                sub.recv().await.unwrap();
            }
        }
    };
    wait(&runtime, exchange(1));
    let held = held_after(&runtime, async || exchange(20).await, async || ());
    assert!(held <= KEPT_OF_A_BURST, "{held} bytes");
}

/// The memory that each peer costs, `bytes` until now; waits until it is `most`, because buffers are given back some time
/// later.
fn settled(runtime: &Runtime, mut bytes: i64, most: i64) -> i64 {
    let begin = Instant::now();
    while bytes > PEERS as i64 * most && begin.elapsed() < PATIENCE {
        bytes += measure(|| wait(runtime, tokio::task::yield_now())).bytes_current;
    }
    println!("measured: {} bytes for each of {PEERS} peers", bytes / PEERS as i64);
    bytes / PEERS as i64
}
