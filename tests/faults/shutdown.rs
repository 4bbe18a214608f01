//! Clean shutdown: after thousands of connections and hundreds of sockets there are as many descriptors, tasks and bytes as before.

use std::ops::Range;

use sinew::{Endpoint, Event, Monitor, PullSocket, PushSocket};

use crate::common::*;
use crate::measure::{descriptors, measured, resident, tasks};
use crate::process::{alone, name_of, scale};
use crate::subscribers::{new_sub, pub_builder};

const TRANSPORTS: [Transport; 2] = [Transport::Tcp, Transport::Ipc];

/// What the allocator may keep and the runtime's tables may have grown by: two kilobytes for each of a thousand connections,
/// four hundred bytes for each of ten thousand.
fn tolerated() -> usize {
    scale(2 << 20, 4 << 20)
}

/// What a process has to give back.
pub(crate) struct Baseline {
    descriptors: usize,
    tasks: usize,
    resident: usize,
}

impl Baseline {
    pub(crate) fn now() -> Self {
        Self { descriptors: descriptors(), tasks: tasks(), resident: resident() }
    }

    pub(crate) async fn is_reached_but_for_memory(&self) {
        eventually(|| descriptors() == self.descriptors && tasks() == self.tasks).await;
    }

    /// Waits until all is as it was.
    async fn is_reached(&self, after: &str) {
        self.is_reached_but_for_memory().await;
        let (before, now) = (self.resident, resident());
        measured!("{before} bytes resident before, {now} after {after}");
        assert!(now <= before + tolerated(), "{now} bytes resident after {after}, {before} before");
    }
}

#[test]
fn connections_that_come_and_go_leave_nothing() {
    alone(name_of(connections_that_come_and_go_leave_nothing), || async {
        let before = Baseline::now();
        for transport in TRANSPORTS {
            cycle(Place::new(transport), 200, scale(1_000, 10_000)).await;
            before.is_reached_but_for_memory().await;
            subscribe_and_go(Place::new(transport), 100, scale(300, 10_000)).await;
            before.is_reached_but_for_memory().await;
        }
    });
}

async fn cycle(place: Place, warm_up: u64, cycles: u64) {
    let transport = place.transport;
    let mut meeting = Meeting::new(place).await;
    let mut baseline = Baseline::now();
    // The PUSH's own, which comes with its first connection and stays.
    baseline.tasks += 1;
    meeting.come_and_go(0..warm_up).await;
    baseline.is_reached_but_for_memory().await;
    baseline.resident = resident();
    meeting.come_and_go(0..cycles).await;
    baseline.is_reached(&format!("{cycles} cycles over {transport:?}")).await;
    let (sent, received) = (meeting.push.stats().messages_sent, meeting.pull.stats().messages_received);
    assert_eq!((sent, received), (warm_up + cycles, warm_up + cycles));
}

/// A PUSH that comes to a PULL and leaves again.
pub(crate) struct Meeting {
    push: PushSocket,
    pull: PullSocket,
    endpoint: Endpoint,
    monitors: [Monitor; 2],
    _place: Place,
}

impl Meeting {
    pub(crate) async fn new(place: Place) -> Self {
        let (push, pull) = (new_push(), new_pull());
        let endpoint = within(pull.bind(place.wildcard())).await.unwrap();
        let monitors = [push.monitor(), pull.monitor()];
        Self { push, pull, endpoint, monitors, _place: place }
    }

    /// Connects and disconnects, once for each number, which it sends.
    pub(crate) async fn come_and_go(&mut self, numbers: Range<u64>) {
        for number in numbers {
            self.push.connect(&self.endpoint).unwrap();
            send_numbers(&self.push, [number]).await;
            assert_eq!(recv_numbers(&self.pull, 1).await, [number]);
            self.push.disconnect(&self.endpoint).unwrap();
            for monitor in &mut self.monitors {
                wait_disconnected(monitor).await;
            }
        }
    }
}

/// The same for a SUB with many subscriptions, which are to be told each time and forgotten.
async fn subscribe_and_go(place: Place, warm_up: u64, cycles: u64) {
    const PREFIXES: u64 = 200;
    let (publisher, sub) = (pub_builder().build().unwrap(), new_sub());
    let endpoint = within(publisher.bind(place.wildcard())).await.unwrap();
    for prefix in 0..PREFIXES {
        sub.subscribe(&numbered(prefix)[0]);
    }
    let mut monitors = [publisher.monitor(), sub.monitor()];
    let mut baseline = Baseline::now();
    // The SUB's own.
    baseline.tasks += 1;
    for number in 0..warm_up + cycles {
        if number == warm_up {
            baseline.is_reached_but_for_memory().await;
            baseline.resident = resident();
        }
        sub.connect(&endpoint).unwrap();
        within(publisher.wait_subscribed((PREFIXES - 1).to_string(), 1)).await.unwrap();
        let topic = numbered(number % PREFIXES);
        within(publisher.send(topic.clone())).await.unwrap();
        assert_eq!(within(sub.recv()).await.unwrap(), topic);
        sub.disconnect(&endpoint).unwrap();
        for monitor in &mut monitors {
            wait_disconnected(monitor).await;
        }
    }
    baseline.is_reached(&format!("{cycles} cycles with subscriptions over {:?}", place.transport)).await;
}

#[test]
fn sockets_that_are_closed_or_dropped_leave_nothing() {
    if !may_open(scale(1_000, 4_000)) {
        return;
    }
    alone(name_of(sockets_that_are_closed_or_dropped_leave_nothing), || async {
        for transport in TRANSPORTS {
            let place = Place::new(transport);
            let before = Baseline::now();
            // To warm up: the allocator and the runtime grow to what so many sockets need.
            for _ in 0..3 {
                open_and_end(&place, scale(100, 500)).await;
                before.is_reached_but_for_memory().await;
            }
            let warm = Baseline::now();
            let rounds = scale(3, 10);
            for _ in 0..rounds {
                open_and_end(&place, scale(100, 500)).await;
                before.is_reached_but_for_memory().await;
            }
            warm.is_reached(&format!("{rounds} times {} sockets over {transport:?}", 2 * scale(100, 500))).await;
        }
    });
}

/// Opens so many pairs of sockets, all at the same time, uses them, and closes or drops them.
pub(crate) async fn open_and_end(place: &Place, pairs: usize) {
    let mut open = Vec::new();
    for number in 0..pairs {
        let (push, pull) = pair(place).await;
        send_numbers(&push, 0..10).await;
        assert_eq!(recv_numbers(&pull, 10).await, (0..10).collect::<Vec<_>>());
        // Some have something left to send, and some something left to receive.
        let left = [0, 1, 100][number % 3];
        send_numbers(&push, 0..left).await;
        open.push((push, pull, left));
    }
    for (number, (push, pull, left)) in open.into_iter().enumerate() {
        match number % 4 {
            0 => {
                assert_eq!(within(push.close()).await.unwrap().unsent, 0);
                assert!(within(pull.close()).await.unwrap().unread <= left);
            }
            1 => {
                within(pull.close()).await.unwrap();
                drop(push);
            }
            2 => drop((pull, push)),
            // The PUSH is dropped and delivers in the background.
            _ => {
                drop(push);
                assert_eq!(recv_numbers(&pull, left as usize).await, (0..left).collect::<Vec<_>>());
            }
        }
    }
}

/// A socket that nobody closes ends when its last handle is dropped, and its monitor with it.
#[tokio::test]
async fn the_last_handle_ends_the_socket_while_its_monitor_is_read() {
    let place = Place::new(Transport::Tcp);
    let (push, pull) = pair(&place).await;
    let mut monitor: Monitor = pull.monitor();
    let other = pull.clone();
    drop(pull);
    send_numbers(&push, [1]).await;
    assert_eq!(recv_numbers(&other, 1).await, [1]);
    drop(other);
    let mut last = None;
    while let Some(event) = within(futures::StreamExt::next(&mut monitor)).await {
        last = Some(event);
    }
    assert!(matches!(last, Some(Event::Closed(_))), "{last:?}");
}
