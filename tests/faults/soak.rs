//! The soak: all faults at random, several at a time, in one process whose memory, descriptors and tasks stay flat.

use std::time::{Duration, Instant};

use futures::FutureExt;
use futures::future::BoxFuture;
use sinew::SlowSubscriber;

use crate::common::*;
use crate::held::{self, Feed, Pipeline};
use crate::measure::{descriptors, measured, resident, tasks};
use crate::process::{alone, name_of, random, run_alone, short_soak, soak, this_program};
use crate::{descriptors as exhaustion, kill, panics, shutdown, silence, slowloris, stop, subscribers};

/// How many faults there are at one time.
const LANES: usize = 2;

/// So many descriptors two faults may need at one time.
const DESCRIPTORS: u64 = 2_000;

/// What the allocator may keep more after many rounds than after the first ones: less than any fault holds while it lasts.
const MEMORY: usize = 16 << 20;

/// The small scale of the case below, as part of every run.
#[test]
fn all_faults_at_random_for_a_short_time_leave_memory_flat() {
    if !may_open(DESCRIPTORS) {
        return;
    }
    alone(name_of(all_faults_at_random_for_a_short_time_leave_memory_flat), || faults_at_random(short_soak()));
}

#[test]
#[ignore = "ten minutes, or SINEW_SOAK seconds: cargo test --release --test faults soak -- --ignored --nocapture"]
fn all_faults_at_random_leave_memory_flat() {
    alone(name_of(all_faults_at_random_leave_memory_flat), || {
        faults_at_random(soak().unwrap_or(Duration::from_secs(600)))
    });
}

type Fault = (&'static str, fn(Transport) -> BoxFuture<'static, ()>);

/// Each takes a second or two, on a scale at which several may go on at the same time.
const FAULTS: [Fault; 15] = [
    ("PULLs are killed", |transport| kill::kill_pulls(Place::new(transport), 30_000, 3).boxed()),
    ("PUSHes are killed", |transport| kill::kill_pushes(Place::new(transport), 30_000, 3).boxed()),
    ("SUBs are killed", |transport| subscribers::kill_subscribers(Place::new(transport), 10_000, 3).boxed()),
    ("PUBs are killed", |transport| subscribers::kill_publishers(Place::new(transport), 10_000, 3).boxed()),
    // Short: what the others receive meanwhile is recorded, and a record of a million would hide what the library holds.
    ("a PULL is stopped", |transport| stop::stop_a_pull(Place::new(transport), Duration::from_millis(50)).boxed()),
    ("a SUB is stopped", |transport| {
        let policy = SlowSubscriber::DropOldest;
        subscribers::stop_a_subscriber(Place::new(transport), policy, Duration::from_millis(500)).boxed()
    }),
    ("connections greet slowly", |_| slowloris::flood(200, Duration::from_millis(100), Duration::from_secs(2)).boxed()),
    ("a peer is mute", |_| silence::mute_pull(Duration::from_secs(1)).boxed()),
    ("connections come and go", |transport| {
        async move { shutdown::Meeting::new(Place::new(transport)).await.come_and_go(0..200).await }.boxed()
    }),
    ("sockets come and go", |transport| {
        async move { shutdown::open_and_end(&Place::new(transport), 20).await }.boxed()
    }),
    ("a crowd is idle", |transport| held::come_and_stay::<Pipeline>(Place::new(transport), 300).boxed()),
    ("subscribers are idle", |transport| held::come_and_stay::<Feed>(Place::new(transport), 300).boxed()),
    ("tasks panic", |transport| {
        panics::receive_and_panic(Place::new(transport))
            .then(move |()| panics::make_and_panic(Place::new(transport)))
            .boxed()
    }),
    ("subscriptions panic", |transport| subscribers::panic_at_subscriptions(Place::new(transport)).boxed()),
    ("descriptors run out", |_| {
        let mut command = this_program();
        command.env_remove("SINEW_SOAK");
        run_alone(command, name_of(exhaustion::accepting_without_descriptors_waits_and_recovers)).boxed()
    }),
];

async fn faults_at_random(length: Duration) {
    let mut random = random();
    let begin = Instant::now();
    let (baseline, mut largest) = ((descriptors(), tasks()), Vec::new());
    let mut faults = Vec::new();
    while begin.elapsed() < length {
        // Each as often as the others.
        if faults.len() < LANES {
            let mut all = FAULTS;
            random.shuffle(&mut all);
            faults.splice(..0, all);
        }
        let now = faults.split_off(faults.len() - LANES);
        let names: Vec<_> = now.iter().map(|(name, _)| *name).collect();
        let transport = [Transport::Tcp, Transport::Ipc][random.usize(0..2)];
        println!("{:?}: {} over {transport:?}", begin.elapsed(), names.join(", "));
        let running = now.into_iter().map(|(_, fault)| tokio::spawn(fault(transport)));
        for done in futures::future::join_all(running).await {
            done.unwrap();
        }
        eventually(|| (descriptors(), tasks()) == baseline).await;
        largest.push(resident());
    }
    // The first third is for the allocator to grow to what the faults need; but for every fault once at least, or there is
    // nothing to compare with.
    let rounds = largest.len();
    let (warm_up, later) = largest.split_at(rounds.div_ceil(3).max(FAULTS.len().div_ceil(LANES)).min(rounds));
    let (before, after) = (warm_up.iter().max().unwrap(), later.iter().max().unwrap_or(&0));
    measured!("{rounds} rounds in {:?}; {before} bytes resident at first, {after} later", begin.elapsed());
    assert!(*after <= before + MEMORY, "{after} bytes resident, {before} at first");
}
