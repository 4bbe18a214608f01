//! The parts of a message's way that can be timed alone, through the public interface: `cargo bench`.

#![allow(missing_docs)] // the macros of criterion make functions without any

use std::hint::black_box;

use criterion::{BatchSize, Criterion, Throughput, criterion_group, criterion_main};
use futures::FutureExt;
use sinew::{Endpoint, Message, PushSocket};

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

fn endpoint(c: &mut Criterion) {
    c.bench_function("endpoint, parse", |b| b.iter(|| black_box("tcp://127.0.0.1:5555").parse::<Endpoint>()));
}

criterion_group!(parts, message, queue, endpoint);
criterion_main!(parts);
