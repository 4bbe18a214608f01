//! A libzmq subscriber that rests: what each policy does with what it does not take, and that the books balance.

use std::time::Duration;

use interop::{Libzmq, Place, Role, Transport, event, number, numbered, until, within};
use sinew::{DisconnectReason, Event, Monitor, PeerStats, PubBuilder, PubSocket, SlowSubscriber, XPubSocket};

/// More than everything between the two ends holds, several times.
const MESSAGES: usize = 2_000;
const SIZE: usize = 4_096;
const MARK: usize = 50;
const KERNEL: usize = 64 * 1024;

/// The number of the message that ends a test.
const END: usize = usize::MAX;

/// When nothing has moved for so long, nothing will.
const STILL: Duration = Duration::from_millis(300);

fn builder() -> PubBuilder {
    PubSocket::builder().send_high_water_mark(MARK).kernel_send_buffer(KERNEL)
}

/// A libzmq SUB whose queue is short, subscribed to everything.
fn short_subscriber(endpoint: &str) -> Libzmq {
    let subscriber = Libzmq::new(zmq::SUB);
    subscriber.set_rcvhwm(10).unwrap();
    subscriber.set_rcvbuf(KERNEL as i32).unwrap();
    subscriber.set_subscribe(b"").unwrap();
    subscriber.attach(Role::Connects, endpoint);
    subscriber
}

/// Has a subscriber read up to the last message; gives the numbers of the others.
fn read_to_the_end(subscriber: Libzmq) -> tokio::task::JoinHandle<(Vec<usize>, Libzmq)> {
    tokio::spawn(async move {
        let mut numbers = Vec::new();
        loop {
            match number(&subscriber.pull()) {
                END => return (numbers, subscriber),
                n => numbers.push(n),
            }
        }
    })
}

/// The numbers of the only peer.
fn peer(publisher: &PubSocket) -> PeerStats {
    let peers = publisher.peers();
    let [peer] = &peers[..] else {
        panic!("one peer is connected: {peers:?}");
    };
    peer.clone()
}

fn settled(peer: &PeerStats) -> u64 {
    peer.messages_sent + peer.messages_dropped
}

/// Publishes to a subscriber that rests, and has it read when everything has been sent, waits, or is dropped. Gives what
/// it got, and how many were dropped.
async fn what_a_resting_subscriber_gets(publisher: &PubSocket, transport: Transport) -> (Vec<usize>, usize) {
    let place = Place::new(transport);
    let endpoint = within("sinew binds", publisher.bind(place.endpoint())).await.unwrap().to_string();
    let subscriber = short_subscriber(&endpoint);
    within("it has subscribed", publisher.wait_subscribed("", 1)).await.unwrap();
    for n in 0..MESSAGES {
        within("sinew publishes", publisher.send(numbered(n, SIZE))).await.unwrap();
    }
    until("each message is sent, waits or is dropped", || {
        let peer = peer(publisher);
        settled(&peer) + peer.queued_messages as u64 == MESSAGES as u64
    })
    .await;
    assert!(peer(publisher).messages_dropped > MESSAGES as u64 / 2, "{:?}", peer(publisher));

    let reading = read_to_the_end(subscriber);
    until("nothing waits", || settled(&peer(publisher)) == MESSAGES as u64).await;
    publisher.send(numbered(END, SIZE)).await.unwrap();
    let (received, _subscriber) = within("the end", reading).await.unwrap();
    assert!(received.is_sorted_by(|a, b| a < b), "out of order, or twice: {received:?}");
    until("the end is counted", || settled(&peer(publisher)) == MESSAGES as u64 + 1).await;
    let peer = peer(publisher);
    assert_eq!(publisher.stats().messages_dropped, peer.messages_dropped, "the only peer's are the socket's");
    assert_eq!(received.len() as u64 + 1, peer.messages_sent, "what was sent to it has come");
    let dropped = usize::try_from(peer.messages_dropped).unwrap();
    assert_eq!(received.len() + dropped, MESSAGES);
    (received, dropped)
}

/// Adds up what the events say, until it is as much as was dropped.
async fn the_events_tell_of(monitor: &mut Monitor, dropped: usize) {
    let mut told = 0;
    while told < dropped {
        event(monitor, "it begins to lose", |event| matches!(event, Event::LosingBegan { .. }).then_some(())).await;
        told += event(monitor, "it loses no more", |event| match event {
            Event::LosingEnded { dropped, .. } => Some(usize::try_from(*dropped).unwrap()),
            _ => None,
        })
        .await;
    }
    assert_eq!(told, dropped);
}

async fn the_newest_are_dropped_by_default(transport: Transport) {
    let publisher = builder().build().unwrap();
    let mut monitor = publisher.monitor();
    let (received, dropped) = what_a_resting_subscriber_gets(&publisher, transport).await;
    assert_eq!(received[..MARK], Vec::from_iter(0..MARK), "the first ones have come");
    the_events_tell_of(&mut monitor, dropped).await;
}

async fn the_oldest_are_dropped_on_request(transport: Transport) {
    let publisher = builder().slow_subscriber(SlowSubscriber::DropOldest).build().unwrap();
    let mut monitor = publisher.monitor();
    let (received, dropped) = what_a_resting_subscriber_gets(&publisher, transport).await;
    // One that was begun has its place in the queue until it has left.
    let last = &received[received.len() - (MARK - 1)..];
    assert_eq!(last, Vec::from_iter(MESSAGES - (MARK - 1)..MESSAGES), "the last ones have come");
    the_events_tell_of(&mut monitor, dropped).await;
}

async fn only_the_latest_is_kept_on_request(transport: Transport) {
    let publisher = builder().slow_subscriber(SlowSubscriber::KeepLatest).build().unwrap();
    let (received, _) = what_a_resting_subscriber_gets(&publisher, transport).await;
    assert_eq!(received.last(), Some(&(MESSAGES - 1)), "the latest one has come");
}

async fn nothing_is_dropped_when_the_publisher_waits(transport: Transport) {
    let publisher = builder().slow_subscriber(SlowSubscriber::Wait).build().unwrap();
    let place = Place::new(transport);
    let endpoint = within("sinew binds", publisher.bind(place.endpoint())).await.unwrap().to_string();
    let subscriber = short_subscriber(&endpoint);
    within("it has subscribed", publisher.wait_subscribed("", 1)).await.unwrap();
    let mut sent = 0;
    while tokio::time::timeout(STILL, publisher.send(numbered(sent, SIZE))).await.is_ok() {
        sent += 1;
        assert!(sent < MESSAGES, "messages are taken although nobody reads");
    }
    let sending = tokio::spawn({
        let publisher = publisher.clone();
        async move {
            for n in (sent..MESSAGES).chain([END]) {
                publisher.send(numbered(n, SIZE)).await.unwrap();
            }
        }
    });
    let (received, _) = within("the end", read_to_the_end(subscriber)).await.unwrap();
    assert_eq!(received, Vec::from_iter(0..MESSAGES));
    within("everything is sent", sending).await.unwrap();
    assert_eq!(publisher.stats().messages_dropped, 0);
}

async fn a_slow_one_is_sent_away_on_request(transport: Transport) {
    let publisher = builder().slow_subscriber(SlowSubscriber::Disconnect).build().unwrap();
    let mut monitor = publisher.monitor();
    let place = Place::new(transport);
    let endpoint = within("sinew binds", publisher.bind(place.endpoint())).await.unwrap().to_string();
    let subscriber = short_subscriber(&endpoint);
    within("it has subscribed", publisher.wait_subscribed("", 1)).await.unwrap();
    for n in 0..MESSAGES {
        within("sinew publishes", publisher.send(numbered(n, SIZE))).await.unwrap();
    }
    let reason = event(&mut monitor, "a peer is lost", |event| match event {
        Event::Disconnected { reason, .. } => Some(reason.clone()),
        _ => None,
    })
    .await;
    assert_eq!(reason, DisconnectReason::TooSlow);
    // libzmq comes back by itself, and with it its subscription.
    let reading = read_to_the_end(subscriber);
    within("it has subscribed again", publisher.wait_subscribed("", 1)).await.unwrap();
    publisher.send(numbered(END, SIZE)).await.unwrap();
    let (received, _subscriber) = within("the end", reading).await.unwrap();
    assert_eq!(received, Vec::from_iter(0..received.len()), "what had left before");
    assert!(received.len() < MESSAGES);
}

/// One that rests harms nobody else: the others get everything, and the publisher does not wait.
async fn one_that_rests_harms_no_other(policy: SlowSubscriber, transport: Transport) {
    let publisher = builder().slow_subscriber(policy).build().unwrap();
    let place = Place::new(transport);
    let endpoint = within("sinew binds", publisher.bind(place.endpoint())).await.unwrap().to_string();
    let resting = short_subscriber(&endpoint);
    within("it has subscribed", publisher.wait_subscribed("", 1)).await.unwrap();
    let [resting_peer] = &publisher.peers()[..] else {
        panic!("one peer is connected");
    };
    let resting_peer = resting_peer.peer.id;
    let quick: Vec<_> = (0..2).map(|_| short_subscriber(&endpoint)).collect();
    within("all have subscribed", publisher.wait_subscribed("", 3)).await.unwrap();
    // Whoever has read everything has room for as much as the mark.
    let burst = if policy == SlowSubscriber::KeepLatest { 1 } else { MARK };
    for first in (0..MESSAGES).step_by(burst) {
        for n in first..first + burst {
            within("sinew publishes", publisher.send(numbered(n, SIZE))).await.unwrap();
        }
        for subscriber in &quick {
            for n in first..first + burst {
                assert_eq!(number(&subscriber.pull()), n, "the number of the next message");
            }
        }
    }
    let dropped: Vec<_> =
        publisher.peers().into_iter().map(|peer| (peer.peer.id == resting_peer, peer.messages_dropped > 0)).collect();
    assert!(dropped.iter().all(|(rests, loses)| rests == loses), "(rests, loses): {dropped:?}");

    let reading = read_to_the_end(resting);
    let rested = || publisher.peers().into_iter().find(|peer| peer.peer.id == resting_peer).expect("it is there");
    until("nothing waits", || settled(&rested()) == MESSAGES as u64).await;
    publisher.send(numbered(END, SIZE)).await.unwrap();
    let (received, _subscriber) = within("the end", reading).await.unwrap();
    assert!(received.is_sorted_by(|a, b| a < b), "out of order, or twice: {received:?}");
    assert_eq!(received.len() as u64 + rested().messages_dropped, MESSAGES as u64);
}

/// An XPUB's policy is a PUB's; what other peers do not want is no loss of theirs.
async fn an_xpub_counts_by_what_was_wanted(transport: Transport) {
    let publisher = XPubSocket::builder().send_high_water_mark(MARK).kernel_send_buffer(KERNEL).build().unwrap();
    let place = Place::new(transport);
    let endpoint = within("sinew binds", publisher.bind(place.endpoint())).await.unwrap().to_string();
    let subscriber = short_subscriber(&endpoint);
    let other = Libzmq::new(zmq::SUB);
    other.set_subscribe(b"other").unwrap();
    other.attach(Role::Connects, &endpoint);
    within("it has subscribed", publisher.wait_subscribed("", 1)).await.unwrap();
    within("both have subscribed", publisher.wait_subscribed("other", 2)).await.unwrap();
    for n in 0..MESSAGES {
        within("sinew publishes", publisher.send(numbered(n, SIZE))).await.unwrap();
    }
    let total = || publisher.peers().iter().map(settled).sum::<u64>();
    let reading = read_to_the_end(subscriber);
    until("nothing waits", || total() == MESSAGES as u64).await;
    publisher.send(numbered(END, SIZE)).await.unwrap();
    let (received, _subscriber) = within("the end", reading).await.unwrap();
    assert!(received.is_sorted_by(|a, b| a < b), "out of order, or twice: {received:?}");
    assert_eq!(received.len() as u64 + publisher.stats().messages_dropped, MESSAGES as u64);
    publisher.send("other").await.unwrap();
    assert_eq!(other.pull(), [b"other"]);
}

macro_rules! over_both {
    ($($scenario:ident($($policy:ident)?): $tcp:ident $ipc:ident;)+) => {$(
        #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
        async fn $tcp() {
            $scenario($(SlowSubscriber::$policy,)? Transport::Tcp).await;
        }

        #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
        async fn $ipc() {
            $scenario($(SlowSubscriber::$policy,)? Transport::Ipc).await;
        }
    )+};
}

over_both! {
    the_newest_are_dropped_by_default():
        the_newest_are_dropped_by_default_over_tcp
        the_newest_are_dropped_by_default_over_ipc;
    the_oldest_are_dropped_on_request():
        the_oldest_are_dropped_on_request_over_tcp
        the_oldest_are_dropped_on_request_over_ipc;
    only_the_latest_is_kept_on_request():
        only_the_latest_is_kept_on_request_over_tcp
        only_the_latest_is_kept_on_request_over_ipc;
    nothing_is_dropped_when_the_publisher_waits():
        nothing_is_dropped_when_the_publisher_waits_over_tcp
        nothing_is_dropped_when_the_publisher_waits_over_ipc;
    a_slow_one_is_sent_away_on_request():
        a_slow_one_is_sent_away_on_request_over_tcp
        a_slow_one_is_sent_away_on_request_over_ipc;
    one_that_rests_harms_no_other(DropNewest):
        one_that_loses_the_newest_harms_no_other_over_tcp
        one_that_loses_the_newest_harms_no_other_over_ipc;
    one_that_rests_harms_no_other(DropOldest):
        one_that_loses_the_oldest_harms_no_other_over_tcp
        one_that_loses_the_oldest_harms_no_other_over_ipc;
    one_that_rests_harms_no_other(KeepLatest):
        one_that_gets_the_latest_harms_no_other_over_tcp
        one_that_gets_the_latest_harms_no_other_over_ipc;
    an_xpub_counts_by_what_was_wanted():
        an_xpub_counts_by_what_was_wanted_over_tcp
        an_xpub_counts_by_what_was_wanted_over_ipc;
}
