//! The parts of a message's way that can be timed alone, through the public interface if they have one: `cargo bench`.
//! `cargo test --bench parts` runs each once, to see that it runs.

#![allow(missing_docs)] // the macros of criterion make functions without any

use std::hint::black_box;
use std::io::IoSlice;

use bytes::BytesMut;
use criterion::{BatchSize, Criterion, Throughput, criterion_group, criterion_main};
use futures::FutureExt;
use sinew::{Endpoint, Message, PushSocket};

// The protocol and the topics have no public interface. They need little from outside their folders, so they are compiled once
// more here.
macro_rules! compiled_again {
    ($($path:literal $name:ident),*) => {$(
        #[path = $path]
        #[allow(dead_code, unused_imports, unused_macros, unreachable_pub)] // a bench needs a part of it, and not its tests
        mod $name;
    )*};
}

compiled_again!(
    "../src/endpoint.rs" endpoint,
    "../src/error.rs" error,
    "../src/length.rs" length,
    "../src/message.rs" message,
    "../src/routing/mod.rs" routing,
    "../src/zmtp/mod.rs" zmtp
);

use routing::sieve::Sieve;
use routing::topics::{Change, Topics};
use zmtp::decoder::{COMMAND_MAXIMUM, Decoded, Decoder, Limits};
use zmtp::encoder::Batch;

const MESSAGES: usize = 1_000;

/// Message construction: what `send` does before it meets the queue.
fn construct(c: &mut Criterion) {
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

/// Encoding into a batch, which keeps its buffer.
fn encode(c: &mut Criterion) {
    let mut group = c.benchmark_group("encode");
    group.throughput(Throughput::Elements(MESSAGES as u64));
    for size in SIZES {
        let message = message::Message::from(vec![7_u8; size]);
        let mut batch = Batch::default();
        group.bench_function(format!("{size} B"), |b| {
            b.iter(|| {
                batch.clear();
                (0..MESSAGES).for_each(|_| batch.push(black_box(&message)));
                assert_eq!(batch.payload(), MESSAGES * size);
            });
        });
    }
    group.finish();
}

/// Decoding and unpacking what lies in one buffer, as a read has left it there.
fn decode(c: &mut Criterion) {
    let mut group = c.benchmark_group("decode");
    group.throughput(Throughput::Elements(MESSAGES as u64));
    for size in SIZES {
        let wire = wire(size);
        group.bench_function(format!("{size} B"), |b| {
            b.iter_batched(
                || BytesMut::from(&wire[..]),
                |mut input| {
                    let mut decoder = Decoder::new(LIMITS);
                    let mut slot = message::Message::default();
                    let mut messages = 0;
                    while let Decoded::Run(mut run) = decoder.decode(&mut input).expect("it is well formed") {
                        while run.next_into(&mut slot) {
                            messages += 1;
                        }
                    }
                    assert_eq!((messages, slot[0].len()), (MESSAGES, size));
                },
                BatchSize::LargeInput,
            );
        });
    }
    group.finish();
}

const SIZES: [usize; 5] = [16, 64, 256, 1_024, 8_192];

const LIMITS: Limits = Limits {
    message: usize::MAX,
    frame: usize::MAX,
    frames: usize::MAX,
    command: COMMAND_MAXIMUM,
    subscriptions: false,
};

/// Messages of this size, encoded.
fn wire(size: usize) -> Vec<u8> {
    let mut batch = Batch::default();
    let message = message::Message::from(vec![7_u8; size]);
    (0..MESSAGES).for_each(|_| batch.push(&message));
    let mut slices = vec![IoSlice::new(&[]); 2 * MESSAGES + 1];
    let used = batch.gather(Default::default(), batch.end(), &mut slices);
    slices[..used].iter().flat_map(|slice| slice.iter().copied()).collect()
}

/// `send` into the outbound queue of a socket without peers: encoding and queueing.
fn queue(c: &mut Criterion) {
    let mut group = c.benchmark_group("queue");
    group.throughput(Throughput::Elements(MESSAGES as u64));
    for size in SIZES {
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

/// Who gets a message, with one peer that has subscribed to so many topics: the sieve that `send` asks, and then the tree.
fn match_topics(c: &mut Criterion) {
    let mut group = c.benchmark_group("match");
    group.throughput(Throughput::Elements(1));
    for subscriptions in [1, 1_000, 100_000, 1_000_000] {
        let (mut topics, mut sieve) = (Topics::default(), Sieve::default());
        let name = |number: usize| format!("topic/{number:010}");
        for number in 0..subscriptions {
            if let Change::Sole(mark) = topics.subscribe(0, name(2 * number).as_bytes()) {
                if sieve.add(mark) {
                    sieve.renew(topics.words());
                }
            }
        }
        // In order, it is the walk that costs; at random, with many subscriptions, most of what it needs is in no cache.
        for (order, step) in [("in order", 1), ("at random", STRIDE)] {
            for (what, odd, matches) in [("one matches", 0, 1), ("none matches", 1, 0)] {
                let mut rounds = Rounds::new(|round| name(2 * (round * step % subscriptions) + odd));
                group.bench_function(format!("{subscriptions} subscriptions, {what}, {order}"), |b| {
                    b.iter(|| {
                        let mut found = 0;
                        let topic = black_box(rounds.next());
                        if sieve.lets_through(topic) {
                            topics.matching(topic, |_| found += 1);
                        }
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

fn parse_endpoint(c: &mut Criterion) {
    c.bench_function("endpoint, parse", |b| b.iter(|| black_box("tcp://127.0.0.1:5555").parse::<Endpoint>()));
}

criterion_group!(parts, construct, encode, decode, queue, match_topics, parse_endpoint);
criterion_main!(parts);
