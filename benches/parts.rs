//! The parts of a message's way that can be timed alone, through the public interface if they have one: `cargo bench`.

#![allow(missing_docs)] // the macros of criterion make functions without any

use std::hint::black_box;

use criterion::{BatchSize, Criterion, Throughput, criterion_group, criterion_main};
use futures::FutureExt;
use sinew::{Endpoint, Message, PushSocket};

// Topics have no public interface. They need nothing from outside their folder, so they are compiled once more here.
#[path = "../src/routing/mod.rs"]
#[allow(dead_code, unused_imports, unreachable_pub)] // a bench needs a part of it, and not its tests
mod routing;

use routing::topics::Topics;

const MESSAGES: u64 = 1_000;

/// Message construction: what `send` does before it meets the queue.
fn message(c: &mut Criterion) {
    let mut group = c.benchmark_group("message");
    for size in [16, 64, 256, 1_024] {
        let body = vec![7_u8; size];
        group.throughput(Throughput::Elements(1));
        group.bench_function(format!("from a slice of {size} B"), |b| b.iter(|| Message::from(black_box(&body[..]))));
        let message = Message::from(&body[..]);
        group.bench_function(format!("clone, {size} B"), |b| b.iter(|| black_box(&message).clone()));
    }
    group.finish();
}

/// `send` into the outbound queue of a socket without peers: encoding and queueing.
fn queue(c: &mut Criterion) {
    let mut group = c.benchmark_group("queue");
    group.throughput(Throughput::Elements(MESSAGES));
    for size in [16, 64, 256, 1_024, 8_192] {
        let message = Message::from(vec![7_u8; size]);
        group.bench_function(format!("send, {size} B"), |b| {
            b.iter_batched_ref(
                PushSocket::new,
                |push| {
                    for _ in 0..MESSAGES {
                        assert!(push.send(message.clone()).now_or_never().is_some());
                    }
                },
                BatchSize::LargeInput,
            );
        });
    }
    group.finish();
}

/// Who gets a message, with one peer that has subscribed to so many topics.
fn match_topics(c: &mut Criterion) {
    let mut group = c.benchmark_group("match");
    group.throughput(Throughput::Elements(1));
    for subscriptions in [1, 1_000, 100_000, 1_000_000] {
        let mut topics = Topics::default();
        let name = |number: usize| format!("topic/{number:010}");
        for number in 0..subscriptions {
            topics.subscribe(0, name(2 * number).as_bytes());
        }
        // In order, it is the walk that costs; at random, with many subscriptions, most of what it needs is in no cache.
        for (order, step) in [("in order", 1), ("at random", STRIDE)] {
            for (what, odd, matches) in [("one matches", 0, 1), ("none matches", 1, 0)] {
                let mut rounds = Rounds::new(|round| name(2 * (round * step % subscriptions) + odd));
                group.bench_function(format!("{subscriptions} subscriptions, {what}, {order}"), |b| {
                    b.iter(|| {
                        let mut found = 0;
                        topics.matching(black_box(rounds.next()), |_| found += 1);
                        assert_eq!(found, matches);
                    });
                });
            }
        }
    }
    group.finish();
}

/// Has no divisor in common with any number of subscriptions here.
const STRIDE: usize = 7_368_787;

/// Topics that come again and again.
struct Rounds {
    topics: Vec<String>,
    next: usize,
}

impl Rounds {
    const TOPICS: usize = 1 << 14;

    fn new(name: impl Fn(usize) -> String) -> Self {
        Self { topics: (0..Self::TOPICS).map(name).collect(), next: 0 }
    }

    fn next(&mut self) -> &[u8] {
        self.next = (self.next + 1) % Self::TOPICS;
        self.topics[self.next].as_bytes()
    }
}

fn endpoint(c: &mut Criterion) {
    c.bench_function("endpoint, parse", |b| b.iter(|| black_box("tcp://127.0.0.1:5555").parse::<Endpoint>()));
}

criterion_group!(parts, message, queue, match_topics, endpoint);
criterion_main!(parts);
