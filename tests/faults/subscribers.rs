//! Publishers and subscribers in faults: one is killed, stopped or panics, and the others lose nothing.

use std::panic::resume_unwind;
use std::time::{Duration, Instant};

use futures::StreamExt;
use rustix::process::Signal;
use sinew::{DisconnectReason, Endpoint, Event, PubBuilder, PubSocket, SlowSubscriber, SubSocket};

use crate::common::*;
use crate::measure::measured;
use crate::parts::{Counter, KERNEL_BUFFER, LOST_WITH_A_PULL, PUB, Recorder, SUB, message, numbers};
use crate::process::{random, scale};
use crate::stop::stop;

const SUBSCRIBERS: usize = 3;

pub(crate) fn pub_builder() -> PubBuilder {
    PubSocket::builder()
        .reconnect_delay(Duration::from_millis(5), Duration::from_millis(50))
        .kernel_send_buffer(KERNEL_BUFFER)
}

pub(crate) fn new_sub() -> SubSocket {
    SubSocket::builder().reconnect_delay(Duration::from_millis(5), Duration::from_millis(50)).build().unwrap()
}

/// A bound PUB and processes that have subscribed to everything.
struct Stage {
    publisher: PubSocket,
    endpoint: Endpoint,
    folder: tempfile::TempDir,
    started: usize,
    /// How many messages have been published.
    sent: u64,
}

impl Stage {
    async fn new(place: &Place, publisher: PubSocket) -> (Self, Vec<Recorder>) {
        let endpoint = within(publisher.bind(place.wildcard())).await.unwrap();
        let mut stage = Self { publisher, endpoint, folder: tempfile::tempdir().unwrap(), started: 0, sent: 0 };
        let subscribers = (0..SUBSCRIBERS).map(|_| stage.start()).collect();
        within(stage.publisher.wait_subscribed("", SUBSCRIBERS)).await.unwrap();
        (stage, subscribers)
    }

    fn start(&mut self) -> Recorder {
        self.started += 1;
        Recorder::start(SUB, &self.endpoint, self.folder.path().join(self.started.to_string()))
    }

    async fn publish(&mut self, count: u64) {
        for _ in 0..count {
            within(self.publisher.send(message(0, self.sent))).await.unwrap();
            self.sent += 1;
        }
    }

    /// Publishes as much as every queue has room for, and waits until these have got it.
    async fn publish_in_step(&mut self, subscribers: &[Recorder]) {
        self.publish_some_in_step(500, subscribers).await;
    }

    async fn publish_some_in_step(&mut self, count: u64, subscribers: &[Recorder]) {
        self.publish(count).await;
        let sent = self.sent as usize;
        eventually(|| subscribers.iter().all(|subscriber| subscriber.recorded() == sent)).await;
    }

    /// Closes the PUB, and waits until each of these has all that came to it.
    async fn close(&self, subscribers: &mut [Recorder]) {
        assert_eq!(within(self.publisher.close()).await.unwrap().unsent, 0);
        self.closed(subscribers).await;
    }

    async fn closed(&self, subscribers: &mut [Recorder]) {
        for subscriber in subscribers {
            assert!(subscriber.process.ended().await.success(), "a SUB has not got all that was there for it");
        }
    }

    fn got_everything(&self, subscribers: &[Recorder]) {
        for subscriber in subscribers {
            assert!(subscriber.record().into_iter().eq(0..self.sent), "something is missing or came twice");
        }
    }
}

fn is_unbroken(record: &[u64]) -> bool {
    record.windows(2).all(|pair| pair[1] == pair[0] + 1)
}

#[tokio::test]
async fn beside_a_stopped_subscriber_the_others_lose_nothing_and_its_losses_are_counted() {
    for transport in [Transport::Tcp, Transport::Ipc] {
        let length = scale(Duration::from_millis(1_500), Duration::from_secs(30));
        stop_a_subscriber(Place::new(transport), SlowSubscriber::DropNewest, length).await;
    }
}

#[tokio::test]
async fn a_stopped_subscriber_that_loses_the_oldest_gets_the_newest() {
    stop_a_subscriber(Place::new(Transport::Tcp), SlowSubscriber::DropOldest, Duration::ZERO).await;
    stop_a_subscriber(Place::new(Transport::Tcp), SlowSubscriber::KeepLatest, Duration::ZERO).await;
}

/// Stops one of the subscribers for so long at least, until it loses messages.
pub(crate) async fn stop_a_subscriber(place: Place, policy: SlowSubscriber, length: Duration) {
    const BURSTS: usize = 5_000;
    let burst = if policy == SlowSubscriber::KeepLatest { 1 } else { 500 };
    let (mut stage, mut subscribers) = Stage::new(&place, pub_builder().slow_subscriber(policy).build().unwrap()).await;
    let mut monitor = stage.publisher.monitor();
    stage.publish_some_in_step(burst, &subscribers).await;

    stop(&subscribers[0].process).await;
    let begin = Instant::now();
    for bursts in 0.. {
        assert!(bursts < BURSTS || begin.elapsed() < length, "it loses nothing");
        stage.publish_some_in_step(burst, &subscribers[1..]).await;
        if stage.publisher.stats().messages_dropped > 0 && begin.elapsed() >= length {
            break;
        }
    }
    let stopped = subscribers[0].record();
    subscribers[0].process.signal(Signal::CONT);
    if policy != SlowSubscriber::KeepLatest {
        // It is told of when it has caught up.
        let mut began = None;
        let (peer, dropped) = loop {
            match next_event(&mut monitor).await {
                Event::LosingBegan { peer } => assert_eq!(began.replace(peer.id), None, "it is told of twice"),
                Event::LosingEnded { peer, dropped } => break (peer.id, dropped),
                // That nothing leaves for it is told of as well.
                Event::Congested { .. } | Event::Relieved { .. } => {}
                other => panic!("{other:?}"),
            }
        };
        assert_eq!((began, dropped), (Some(peer), stage.publisher.stats().messages_dropped));
        // From now on it loses nothing any more.
        stage.publish(400).await;
        assert_eq!(stage.publisher.stats().messages_dropped, dropped);
    }

    stage.close(&mut subscribers).await;
    stage.got_everything(&subscribers[1..]);
    let (record, dropped) = (subscribers[0].record(), stage.publisher.stats().messages_dropped);
    assert!(record.is_sorted_by(|first, second| first < second) && record.starts_with(&stopped), "out of order");
    assert_eq!(record.len() as u64 + dropped, stage.sent, "what was not dropped has come");
    assert_eq!(record.last(), Some(&(stage.sent - 1)));
    if policy == SlowSubscriber::KeepLatest {
        // All but the newest that had not yet left.
        let (newest, before) = record.split_last().unwrap();
        assert!(is_unbroken(before), "more than the newest came late");
        assert!(*newest > before.len() as u64, "nothing was left out");
    }
    measured!("{} messages beside a stopped SUB of {policy:?}, {dropped} dropped", stage.sent);
}

#[tokio::test]
async fn a_stopped_subscriber_that_is_waited_for_loses_nothing() {
    let (mut stage, mut subscribers) =
        Stage::new(&Place::new(Transport::Tcp), pub_builder().slow_subscriber(SlowSubscriber::Wait).build().unwrap())
            .await;
    stage.publish(1_000).await;
    stop(&subscribers[0].process).await;
    // Sends do wait in the end.
    const PAUSE: Duration = Duration::from_millis(300);
    let most = stage.sent + 10_000;
    while tokio::time::timeout(PAUSE, stage.publisher.send(message(0, stage.sent))).await.is_ok() {
        stage.sent += 1;
        assert!(stage.sent < most, "it is not waited for");
    }
    subscribers[0].process.signal(Signal::CONT);
    stage.publish(1_000).await;
    stage.close(&mut subscribers).await;
    stage.got_everything(&subscribers);
    assert_eq!(stage.publisher.stats().messages_dropped, 0);
}

#[tokio::test]
async fn a_stopped_subscriber_that_is_disconnected_costs_the_others_nothing() {
    const BURSTS: usize = 2_000;
    let policy = SlowSubscriber::Disconnect;
    let (mut stage, mut subscribers) =
        Stage::new(&Place::new(Transport::Tcp), pub_builder().slow_subscriber(policy).build().unwrap()).await;
    let mut monitor = stage.publisher.monitor();
    stop(&subscribers[0].process).await;
    let mut bursts = 0;
    while stage.publisher.stats().peers == SUBSCRIBERS {
        stage.publish_in_step(&subscribers[1..]).await;
        bursts += 1;
        assert!(bursts < BURSTS, "it is not too slow");
    }
    let reason = wait_for(&mut monitor, |event| match event {
        Event::Disconnected { reason, .. } => Some(reason),
        _ => None,
    });
    assert_eq!(reason.await, DisconnectReason::TooSlow);
    subscribers[0].process.signal(Signal::CONT);
    stage.publish_in_step(&subscribers[1..]).await;
    stage.close(&mut subscribers).await;
    stage.got_everything(&subscribers[1..]);
    let record = subscribers[0].record();
    assert!(is_unbroken(&record) && record.first() == Some(&0), "not an unbroken prefix");
}

#[tokio::test]
async fn a_killed_subscriber_costs_the_others_nothing() {
    kill_subscribers(Place::new(Transport::Tcp), scale(60_000, 2_000_000), scale(6, 100)).await;
    kill_subscribers(Place::new(Transport::Ipc), scale(30_000, 1_000_000), scale(3, 100)).await;
}

/// Publishes so many messages to three SUB processes; so many times one of two of them is killed on the way and replaced.
pub(crate) async fn kill_subscribers(place: Place, messages: u64, kills: usize) {
    const MARK: usize = 1_000;
    let mut random = random();
    let publisher = pub_builder().slow_subscriber(SlowSubscriber::Wait).send_high_water_mark(MARK).build().unwrap();
    let (mut stage, mut subscribers) = Stage::new(&place, publisher).await;
    let mut moments: Vec<_> = (0..kills).map(|_| random.u64(0..messages)).collect();
    moments.sort_unstable();
    let mut dead = Vec::new();
    for moment in moments {
        stage.publish(moment - stage.sent).await;
        let mut victim = subscribers.swap_remove(random.usize(1..SUBSCRIBERS));
        victim.process.kill().await;
        dead.push(victim);
        subscribers.push(stage.start());
    }
    stage.publish(messages - stage.sent).await;
    // Of one that was killed just now the loss may be found only while the PUB closes.
    let closed = within(stage.publisher.close()).await.unwrap();
    let dropped = stage.publisher.stats().messages_dropped;
    assert!(closed.unsent <= dropped && dropped <= (kills * MARK) as u64, "{closed:?}, {dropped} dropped");
    stage.closed(&mut subscribers).await;

    // One has lived through it all.
    stage.got_everything(&subscribers[..1]);
    for subscriber in &subscribers[1..] {
        let record = subscriber.record();
        assert!(is_unbroken(&record), "something is missing or came twice");
        assert!(record.last().is_none_or(|last| *last == messages - 1), "the end is missing");
    }
    for subscriber in &dead {
        assert!(is_unbroken(&subscriber.record()), "something is missing or came twice");
    }
    measured!("{messages} messages, {kills} SUBs killed: the others lost nothing");
}

#[tokio::test]
async fn of_a_killed_publisher_all_that_the_kernel_took_arrives() {
    kill_publishers(Place::new(Transport::Tcp), scale(60_000, 2_000_000), scale(4, 100)).await;
    kill_publishers(Place::new(Transport::Ipc), scale(30_000, 1_000_000), scale(2, 100)).await;
}

/// Receives so many messages from PUB processes; so many are killed on the way and replaced. Each begins when it knows that
/// it has a subscriber, so its first message is not lost either.
pub(crate) async fn kill_publishers(place: Place, messages: u64, kills: usize) {
    const PUBLISHERS: usize = 2;
    let mut random = random();
    let folder = tempfile::tempdir().unwrap();
    let sub = new_sub();
    // Nested: every connection is told of all of them, and a message that matches several comes once.
    for length in 0..=8 {
        sub.subscribe([0; 8].get(..length).unwrap());
    }
    let endpoint = within(sub.bind(place.wildcard())).await.unwrap();
    let start = |name: usize| Counter::start(PUB, &endpoint, name as u64, folder.path().join(name.to_string()));
    let mut living: Vec<_> = (0..PUBLISHERS).map(|name| (name, start(name))).collect();
    let mut dead = Vec::new();
    let mut prefixes = vec![0; PUBLISHERS + kills];
    let mut take = |message: &sinew::Message| {
        let (name, number) = numbers(message);
        assert_eq!(number, prefixes[name as usize], "PUB {name} skipped or repeated something");
        prefixes[name as usize] += 1;
    };
    let mut moments: Vec<_> = (0..kills).map(|_| random.u64(0..messages)).collect();
    moments.sort_unstable();
    let mut moments = moments.into_iter().peekable();
    let (mut received, mut batch) = (0, Vec::new());
    while received < messages {
        received += within(sub.recv_many(&mut batch, 100)).await.unwrap() as u64;
        batch.drain(..).for_each(|message| take(&message));
        while moments.next_if(|moment| *moment <= received).is_some() {
            let name = PUBLISHERS + dead.len();
            let (victim, mut publisher) = living.swap_remove(random.usize(0..PUBLISHERS));
            publisher.process.kill().await;
            dead.push((victim, publisher));
            living.push((name, start(name)));
        }
    }
    for (_, publisher) in &mut living {
        publisher.process.kill().await;
    }
    dead.append(&mut living);
    let begin = Instant::now();
    while received < sub.stats().messages_received || sub.stats().peers > 0 {
        assert!(begin.elapsed() < PATIENCE, "something has been received and does not come");
        if let Ok(message) = tokio::time::timeout(Duration::from_millis(10), sub.recv()).await {
            take(&message.unwrap());
            received += 1;
        }
    }
    for (name, publisher) in &dead {
        assert!(publisher.handed_over() <= prefixes[*name], "of PUB {name}, which was killed");
    }
    measured!("{received} messages, {} PUBs killed: each one's a whole prefix", dead.len());
}

/// A topic that cannot be had.
struct Faulty;

impl AsRef<[u8]> for Faulty {
    fn as_ref(&self) -> &[u8] {
        resume_unwind(Box::new("a fault in user code"))
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_panic_in_a_subscription_or_beside_it_disturbs_nobody() {
    panic_at_subscriptions(Place::new(Transport::Tcp)).await;
}

pub(crate) async fn panic_at_subscriptions(place: Place) {
    let (publisher, sub) = (pub_builder().build().unwrap(), new_sub());
    sub.connect(within(publisher.bind(place.wildcard())).await.unwrap()).unwrap();
    for round in 0..50 {
        let (socket, topic) = (sub.clone(), numbered(round));
        let panicked = tokio::spawn(async move {
            socket.subscribe(&topic[0]);
            let _stream = socket.stream();
            socket.subscribe(Faulty);
        });
        assert!(within(panicked).await.unwrap_err().is_panic());
        let socket = sub.clone();
        let panicked = tokio::spawn(async move { socket.unsubscribe(Faulty) });
        assert!(within(panicked).await.unwrap_err().is_panic());
        let socket = publisher.clone();
        let panicked = tokio::spawn(async move { within(socket.wait_subscribed(Faulty, 1)).await.unwrap() });
        assert!(within(panicked).await.unwrap_err().is_panic());
        // What was subscribed before it panicked stays so: it is the socket's.
        within(publisher.wait_subscribed(numbered(round)[0].to_vec(), 1)).await.unwrap();
        within(publisher.send(numbered(round))).await.unwrap();
        assert_eq!(within(sub.recv()).await.unwrap(), numbered(round));
    }
    within(publisher.close()).await.unwrap();
    within(sub.close()).await.unwrap();
}

#[tokio::test]
async fn a_subscriber_behind_a_mute_proxy_costs_the_others_nothing() {
    let place = Place::new(Transport::Tcp);
    let (mut stage, mut subscribers) = Stage::new(&place, pub_builder().build().unwrap()).await;
    let proxy = crate::silence::Proxy::start(&stage.endpoint).await;
    let mute = new_sub();
    mute.subscribe("");
    mute.connect(&proxy.endpoint).unwrap();
    within(stage.publisher.wait_subscribed("", SUBSCRIBERS + 1)).await.unwrap();
    proxy.mute(true);
    let mut monitor = stage.publisher.monitor();
    let mut losing = Box::pin(wait_for(&mut monitor, |event| matches!(event, Event::LosingBegan { .. }).then_some(())));
    while futures::poll!(&mut losing).is_pending() {
        assert!(stage.sent < 100 * LOST_WITH_A_PULL as u64, "it loses nothing");
        stage.publish_in_step(&subscribers).await;
    }
    stage.publish_in_step(&subscribers).await;
    let dropped = stage.publisher.stats().messages_dropped;
    proxy.mute(false);
    // All that was not dropped comes, in order.
    let received: Vec<_> =
        within(mute.stream().take((stage.sent - dropped) as usize).map(|message| numbers(&message).1).collect()).await;
    assert!(received.is_sorted_by(|first, second| first < second));
    stage.close(&mut subscribers).await;
    stage.got_everything(&subscribers);
}
