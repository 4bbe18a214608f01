//! kill -9 of either end at random moments: what is lost is what the killed process and the kernel held for it.

use std::time::{Duration, Instant};

use sinew::{Endpoint, Event};

use crate::common::*;
use crate::measure::measured;
use crate::parts::{Counter, KERNEL_BUFFER, LOST_WITH_A_PULL, PULL, PUSH, Recorder, message, numbers};
use crate::process::{random, scale};

#[tokio::test]
async fn a_killed_pull_costs_what_the_kernel_held_for_it_over_tcp() {
    kill_pulls(Place::new(Transport::Tcp), scale(300_000, 10_000_000), scale(6, 100)).await;
}

#[tokio::test]
async fn a_killed_pull_costs_what_the_kernel_held_for_it_over_ipc() {
    kill_pulls(Place::new(Transport::Ipc), scale(100_000, 2_000_000), scale(3, 100)).await;
}

/// Sends so many messages to three PULL processes, so many of which are killed on the way and replaced.
pub(crate) async fn kill_pulls(place: Place, messages: u64, kills: usize) {
    const PULLS: usize = 3;
    let mut random = random();
    let folder = tempfile::tempdir().unwrap();
    let push = push_builder().kernel_send_buffer(KERNEL_BUFFER).build().unwrap();
    let mut monitor = push.monitor();
    let endpoint = within(push.bind(place.wildcard())).await.unwrap();
    let start = |number: usize| Recorder::start(PULL, &endpoint, folder.path().join(number.to_string()));
    let mut pulls: Vec<_> = (0..PULLS).map(start).collect();
    let mut dead: Vec<Recorder> = Vec::new();
    within(push.wait_connected(PULLS)).await.unwrap();

    let mut moments: Vec<_> = (0..kills).map(|_| random.u64(0..messages)).collect();
    moments.sort_unstable();
    let mut moments = moments.into_iter().peekable();
    for number in 0..messages {
        while moments.next_if_eq(&number).is_some() {
            let mut victim = pulls.swap_remove(random.usize(0..PULLS));
            victim.process.kill().await;
            dead.push(victim);
            pulls.push(start(PULLS + dead.len()));
        }
        within(push.send(message(0, number))).await.unwrap();
    }
    // Whoever was started last is there too: the messages need not have waited for it.
    within(push.wait_connected(PULLS)).await.unwrap();
    let closed = within(push.close()).await.unwrap();
    assert_eq!(closed.unsent, 0);
    for pull in &mut pulls {
        assert!(pull.process.ended().await.success(), "a PULL has not got all that was there for it");
    }

    let stats = push.stats();
    assert_eq!(stats.messages_sent, messages, "the kernel took each message once");
    let mut lost = vec![true; messages as usize];
    for pull in pulls.iter().chain(&dead) {
        let (mut highest, mut late) = (None, 0);
        for number in pull.record() {
            assert!(std::mem::take(&mut lost[number as usize]), "message {number} came twice");
            // In order, but for what another PULL has left behind.
            late += u64::from(highest > Some(number));
            highest = highest.max(Some(number));
        }
        assert!(late <= stats.messages_returned, "{late} out of order, {} returned", stats.messages_returned);
    }
    let lost = lost.into_iter().filter(|lost| *lost).count();
    measured!("{messages} messages, {kills} PULLs killed: {lost} lost, {} returned", stats.messages_returned);
    assert!(lost <= kills * LOST_WITH_A_PULL, "{lost} lost with {kills} PULLs");

    let mut ends = 0;
    while let Some(event) = within(futures::StreamExt::next(&mut monitor)).await {
        ends += usize::from(matches!(event, Event::Disconnected { .. } | Event::HandshakeFailed { .. }));
    }
    // Whether one was killed before it had connected is chance.
    assert!((PULLS..=PULLS + kills).contains(&ends), "{ends} connections ended");
}

#[tokio::test]
async fn of_a_killed_push_all_that_the_kernel_took_arrives_over_tcp() {
    kill_pushes(Place::new(Transport::Tcp), scale(100_000, 10_000_000), scale(6, 100)).await;
}

#[tokio::test]
async fn of_a_killed_push_all_that_the_kernel_took_arrives_over_ipc() {
    kill_pushes(Place::new(Transport::Ipc), scale(50_000, 2_000_000), scale(3, 100)).await;
}

/// Receives so many messages and more from three PUSH processes, so many of which are killed on the way and replaced.
pub(crate) async fn kill_pushes(place: Place, messages: u64, kills: usize) {
    const PUSHES: usize = 3;
    let mut random = random();
    let folder = tempfile::tempdir().unwrap();
    let pull = new_pull();
    let endpoint = within(pull.bind(place.wildcard())).await.unwrap();
    let start = |endpoint: &Endpoint, name: usize| {
        Counter::start(PUSH, endpoint, name as u64, folder.path().join(name.to_string()))
    };
    let mut living: Vec<_> = (0..PUSHES).map(|name| (name, start(&endpoint, name))).collect();
    let mut dead = Vec::new();
    // How many messages each has brought; in whole prefixes.
    let mut prefixes = vec![0; PUSHES + kills];
    let mut take = |message: &sinew::Message| {
        let (name, number) = numbers(message);
        assert_eq!(number, prefixes[name as usize], "PUSH {name} skipped or repeated something");
        prefixes[name as usize] += 1;
    };

    let mut moments: Vec<_> = (0..kills).map(|_| random.u64(0..messages)).collect();
    moments.sort_unstable();
    let mut moments = moments.into_iter().peekable();
    let (mut received, mut batch) = (0, Vec::new());
    while received < messages {
        received += within(pull.recv_many(&mut batch, 100)).await.unwrap() as u64;
        batch.iter().for_each(&mut take);
        batch.clear();
        while moments.next_if(|moment| *moment <= received).is_some() {
            let name = PUSHES + dead.len();
            let (victim, mut push) = living.swap_remove(random.usize(0..PUSHES));
            push.process.kill().await;
            dead.push((victim, push));
            living.push((name, start(&endpoint, name)));
        }
    }

    let ending = tokio::spawn(async move {
        for (_, push) in &mut living {
            assert!(push.process.end().await.success(), "a PUSH could not deliver everything");
        }
        living
    });
    let begin = Instant::now();
    while received < pull.stats().messages_received || pull.stats().peers > 0 || !ending.is_finished() {
        assert!(begin.elapsed() < 2 * PATIENCE, "something has been received and does not come");
        if let Ok(message) = tokio::time::timeout(Duration::from_millis(10), pull.recv()).await {
            take(&message.unwrap());
            received += 1;
        }
    }
    for (name, push) in within(ending).await.unwrap() {
        assert_eq!(push.handed_over(), prefixes[name], "of PUSH {name}, which was closed");
    }
    for (name, push) in &dead {
        assert!(push.handed_over() <= prefixes[*name], "of PUSH {name}, which was killed");
    }
    measured!("{received} messages, {kills} PUSHes killed: each one's a whole prefix");
}
