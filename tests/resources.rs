//! Resources: what hostile and short-lived peers leave behind, in memory and descriptors of this very process; and what wakes
//! a thread for nothing.
//!
//! Each test that counts has a process of its own: other tests, and the threads on which they start, would be counted with it.

mod common;

use std::time::Duration;

use common::raw::*;
use common::*;
use sinew::{DisconnectReason, Event, ProtocolError, PullSocket, PushSocket};
use tokio::runtime::{Builder, Runtime};

/// Runs a test in a process of its own; waits there if this is not the one.
fn alone(name: &str, runtime: fn() -> Runtime, test: impl Future<Output = ()>) {
    const ALONE: &str = "SINEW_RESOURCES_ALONE";
    if std::env::var(ALONE).is_ok_and(|alone| alone == name) {
        return runtime().block_on(test);
    }
    // The test is given up by its own limits.
    let mut child = std::process::Command::new(std::env::current_exe().unwrap());
    let output = child.args([name, "--exact", "--nocapture"]).env(ALONE, name).output().unwrap();
    let (said, complained) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success() && said.contains("1 passed"), "{}\n{said}\n{complained}", output.status);
}

fn one_thread() -> Runtime {
    Builder::new_current_thread().enable_all().build().unwrap()
}

fn several_threads() -> Runtime {
    Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap()
}

fn descriptors() -> usize {
    std::fs::read_dir("/proc/self/fd").unwrap().count()
}

/// A line of `/proc/self/status`, in bytes.
fn memory(line: &str) -> usize {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let value = status.lines().find_map(|text| text.strip_prefix(line)?.strip_prefix(':')).unwrap();
    value.trim().strip_suffix(" kB").unwrap().parse::<usize>().unwrap() * 1024
}

const TRANSPORTS: [Transport; 2] = [Transport::Tcp, Transport::Ipc];

#[test]
fn a_thousand_connections_that_come_and_go_leave_no_trace() {
    const CONNECTIONS: usize = 1_000;
    alone("a_thousand_connections_that_come_and_go_leave_no_trace", one_thread, async {
        for transport in TRANSPORTS {
            let place = Place::new(transport);
            let (push, pull) = (new_push(), new_pull());
            let endpoint = within(pull.bind(place.wildcard())).await.unwrap();
            push.connect(&endpoint).unwrap();
            within(pull.wait_connected(1)).await.unwrap();
            within(push.wait_connected(1)).await.unwrap();
            let baseline = descriptors();
            let greeted = [&proper_greeting()[..], READY_PUSH].concat();
            let beginnings = [0, 1, 64, greeted.len()];
            for number in 0..CONNECTIONS {
                let mut raw = Raw::dial(&endpoint).await;
                raw.send(&greeted[..beginnings[number % beginnings.len()]]).await;
            }
            eventually(|| descriptors() == baseline && pull.stats().peers == 1).await;
            within(push.send("still here")).await.unwrap();
            assert_eq!(within(pull.recv()).await.unwrap(), "still here".into());
        }
    });
}

#[test]
fn closed_sockets_leave_no_descriptors_even_while_handles_are_kept() {
    alone("closed_sockets_leave_no_descriptors_even_while_handles_are_kept", one_thread, open_and_close());
}

#[test]
fn closed_sockets_leave_no_descriptors_on_several_threads_either() {
    alone("closed_sockets_leave_no_descriptors_on_several_threads_either", several_threads, open_and_close());
}

async fn open_and_close() {
    const ROUNDS: usize = 200;
    for transport in TRANSPORTS {
        let place = Place::new(transport);
        let endpoints: Vec<_> = (0..2).map(|_| place.fresh()).collect();
        let baseline = descriptors();
        let mut kept = Vec::new();
        for round in 0..ROUNDS {
            let (push, pull) = (new_push(), new_pull());
            within(pull.bind(&endpoints[0])).await.unwrap();
            push.connect(&endpoints[0]).unwrap();
            push.connect(&endpoints[1]).unwrap();
            // Closes at a different moment each time: before, during and after the handshake.
            for _ in 0..round % 8 {
                tokio::task::yield_now().await;
            }
            within(push.close()).await.unwrap();
            within(pull.close()).await.unwrap();
            kept.push((push, pull));
        }
        eventually(|| descriptors() == baseline).await;
    }
}

#[test]
fn enormous_sizes_allocate_nothing() {
    const GROWTH: usize = 16 << 20;
    alone("enormous_sizes_allocate_nothing", one_thread, async {
        let place = Place::new(Transport::Tcp);
        let pull = new_pull();
        let endpoint = within(pull.bind(place.wildcard())).await.unwrap();
        let mut monitor = pull.monitor();
        let (resident, size) = (memory("VmRSS"), memory("VmSize"));
        for bytes in [(64 << 20) + 1, 1 << 33, 1 << 63, u64::MAX] {
            let mut raw = Raw::peer(&endpoint, READY_PUSH).await;
            raw.send(&long_header(0, bytes)).await;
            let reason = wait_for(&mut monitor, |event| match event {
                Event::Disconnected { reason, .. } => Some(reason),
                _ => None,
            });
            let expected = ProtocolError::MessageTooLarge { size: bytes, limit: 64 << 20 };
            assert_eq!(reason.await, DisconnectReason::Protocol(expected));
        }
        assert!(memory("VmRSS") < resident + GROWTH, "{} after {resident}", memory("VmRSS"));
        assert!(memory("VmSize") < size + GROWTH, "{} after {size}", memory("VmSize"));
    });
}

#[test]
fn sizes_within_the_limit_allocate_what_has_come_and_little_more() {
    const PEERS: usize = 50;
    // Of each peer's 64 MiB hardly anything comes: all together would be over 3 GiB.
    const GROWTH: usize = 32 << 20;
    const RESERVED: usize = 192 << 20;
    alone("sizes_within_the_limit_allocate_what_has_come_and_little_more", one_thread, async {
        let place = Place::new(Transport::Tcp);
        let pull = new_pull();
        let endpoint = within(pull.bind(place.wildcard())).await.unwrap();
        let (resident, size) = (memory("VmRSS"), memory("VmSize"));
        let mut peers = Vec::new();
        for _ in 0..PEERS {
            let mut raw = Raw::peer(&endpoint, READY_PUSH).await;
            raw.send(&[&long_header(MORE, (64 << 20) - 100)[..], &[1; 1_000]].concat()).await;
            raw.send(&[2; 1_000]).await;
            peers.push(raw);
        }
        let come = PEERS * (64 + READY_PUSH.len() + 2_009);
        eventually(|| pull.stats().bytes_received == come as u64).await;
        assert!(memory("VmRSS") < resident + GROWTH, "{} after {resident}", memory("VmRSS"));
        assert!(memory("VmSize") < size + RESERVED, "{} after {size}", memory("VmSize"));
    });
}

#[test]
fn a_flood_of_unread_pings_costs_little_memory() {
    const GROWTH: usize = 16 << 20;
    alone("a_flood_of_unread_pings_costs_little_memory", one_thread, async {
        let place = Place::new(Transport::Tcp);
        let pull = pull_builder().kernel_send_buffer(4_096).build().unwrap();
        let endpoint = within(pull.bind(place.wildcard())).await.unwrap();
        let resident = memory("VmRSS");
        let mut raw = Raw::peer(&endpoint, READY_PUSH).await;
        let flood = ping(&[7; 16]).repeat(1_000);
        let mut refused = false;
        for _ in 0..10_000 {
            refused = raw.try_send(&flood).await.is_err();
            if refused {
                break;
            }
        }
        assert!(refused, "answers without end");
        assert!(memory("VmRSS") < resident + GROWTH, "{} after {resident}", memory("VmRSS"));
    });
}

/// Sends a message of `first` bytes and then small ones; says how far the clock came. It stands still, but while nobody has
/// anything to do it jumps to when the next timer is due.
async fn converse(push: &PushSocket, pull: &PullSocket, first: usize) -> Duration {
    tokio::time::pause();
    let begin = tokio::time::Instant::now();
    for size in std::iter::once(first).chain([14; 100]) {
        push.send(vec![7; size]).await.unwrap();
        pull.recv().await.unwrap();
        // All sleep: nothing is left to be done before it is awaited.
        let (wake, woken) = tokio::sync::oneshot::channel();
        std::thread::spawn(move || {
            std::thread::sleep(Duration::from_millis(1));
            wake.send(())
        });
        woken.await.unwrap();
    }
    let passed = begin.elapsed();
    tokio::time::resume();
    passed
}

/// A timed sleep of the runtime's thread costs more than one without an end.
#[test]
fn a_conversation_of_small_messages_has_no_timer() {
    let (done, is_done) = std::sync::mpsc::channel();
    std::thread::spawn(move || {
        one_thread().block_on(async {
            for transport in TRANSPORTS {
                let place = Place::new(transport);
                let (push, pull) = (new_push(), new_pull());
                push.connect(within(pull.bind(place.wildcard())).await.unwrap()).unwrap();
                within(push.send("first")).await.unwrap();
                within(pull.recv()).await.unwrap();
                assert_eq!(converse(&push, &pull, 14).await, Duration::ZERO);
                let released = converse(&push, &pull, 1 << 20).await;
                assert!(
                    released >= Duration::from_secs(1),
                    "{released:?}: whether large buffers are of use is looked at"
                );
                assert_eq!(converse(&push, &pull, 14).await, Duration::ZERO, "they are not");
            }
        });
        done.send(()).unwrap();
    });
    is_done.recv_timeout(PATIENCE).unwrap();
}
