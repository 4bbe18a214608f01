//! SIGSTOP of one process among others: the others go on, and when it goes on too nothing is missing.

use std::time::{Duration, Instant};

use rustix::process::Signal;

use crate::common::*;
use crate::measure::{is_stopped, measured};
use crate::parts::{Counter, KERNEL_BUFFER, LOST_WITH_A_PULL, PULL, PUSH, Recorder, message, numbers};
use crate::process::{Process, scale};

/// How long a process stands still.
const STOPPED: Duration = Duration::from_secs(2);
const STOPPED_LONG: Duration = Duration::from_secs(30);

pub(crate) async fn stop(process: &Process) {
    process.signal(Signal::STOP);
    // The signal is delivered to each thread when that is next scheduled; one may be in the middle of a write.
    eventually(|| is_stopped(process.id())).await;
}

#[tokio::test]
async fn beside_a_stopped_pull_the_others_go_on_and_nothing_is_lost_over_tcp() {
    stop_a_pull(Place::new(Transport::Tcp), scale(STOPPED, STOPPED_LONG)).await;
}

#[tokio::test]
async fn beside_a_stopped_pull_the_others_go_on_and_nothing_is_lost_over_ipc() {
    stop_a_pull(Place::new(Transport::Ipc), scale(STOPPED, STOPPED_LONG)).await;
}

pub(crate) async fn stop_a_pull(place: Place, time: Duration) {
    const PULLS: usize = 3;
    const BEFORE_AND_AFTER: u64 = 3_000;
    const SEND_MARK: usize = 1_000;
    let folder = tempfile::tempdir().unwrap();
    let push = push_builder().send_high_water_mark(SEND_MARK).kernel_send_buffer(KERNEL_BUFFER).build().unwrap();
    let endpoint = within(push.bind(place.wildcard())).await.unwrap();
    let start = |number: usize| Recorder::start(PULL, &endpoint, folder.path().join(number.to_string()));
    let mut pulls: Vec<_> = (0..PULLS).map(start).collect();
    within(push.wait_connected(PULLS)).await.unwrap();
    let mut number = 0;
    while number < BEFORE_AND_AFTER {
        within(push.send(message(0, number))).await.unwrap();
        number += 1;
    }

    stop(&pulls[0].process).await;
    let before: Vec<_> = pulls.iter().map(Recorder::recorded).collect();
    let (begin, first) = (Instant::now(), number);
    // Enough to say that the others go on: more than can be on the way.
    let on_the_way = PULLS * LOST_WITH_A_PULL + SEND_MARK;
    while begin.elapsed() < time || number - first < 2 * on_the_way as u64 {
        within(push.send(message(0, number))).await.unwrap();
        number += 1;
    }
    let meanwhile = (number - first) as usize;
    assert_eq!(pulls[0].recorded(), before[0], "it does not stand still");
    let received = |pulls: &[Recorder]| pulls[1..].iter().map(Recorder::recorded).sum::<usize>();
    let expected = before[1] + before[2] + meanwhile - on_the_way;
    eventually(|| received(&pulls) >= expected).await;
    pulls[0].process.signal(Signal::CONT);

    for _ in 0..BEFORE_AND_AFTER {
        within(push.send(message(0, number))).await.unwrap();
        number += 1;
    }
    assert_eq!(within(push.close()).await.unwrap().unsent, 0);
    let mut all = Vec::new();
    for pull in &mut pulls {
        assert!(pull.process.ended().await.success(), "a PULL has not got all that was there for it");
        let record = pull.record();
        assert!(record.is_sorted(), "out of order");
        all.extend(record);
    }
    all.sort_unstable();
    assert!(all.into_iter().eq(0..number), "something is missing or came twice");
    assert_eq!(push.stats().messages_returned, 0, "no connection was lost");
    measured!("{meanwhile} messages in {time:?} beside a stopped PULL, none lost");
}

#[tokio::test]
async fn beside_a_stopped_push_the_others_go_on_and_nothing_is_lost() {
    let (place, time) = (Place::new(Transport::Tcp), scale(Duration::from_millis(500), STOPPED_LONG));
    let folder = tempfile::tempdir().unwrap();
    let pull = new_pull();
    let endpoint = within(pull.bind(place.wildcard())).await.unwrap();
    let start = |name: u64| Counter::start(PUSH, &endpoint, name, folder.path().join(name.to_string()));
    let mut pushes = [start(0), start(1)];
    let mut counts = [0; 2];
    let mut take = async || {
        let (name, number) = numbers(&within(pull.recv()).await.unwrap());
        assert_eq!(number, counts[name as usize], "PUSH {name} skipped or repeated something");
        counts[name as usize] += 1;
        counts
    };
    while take().await.contains(&0) {}

    stop(&pushes[0].process).await;
    let begin = Instant::now();
    let before = take().await;
    let mut now = before;
    while begin.elapsed() < time || now[1] - before[1] < 1_000 {
        now = take().await;
    }
    let beside = now;
    pushes[0].process.signal(Signal::CONT);
    // More than what may have been under way before it was stopped.
    while take().await[0] < beside[0] + 2 * LOST_WITH_A_PULL as u64 {}
    for push in &mut pushes {
        push.process.kill().await;
    }
}
