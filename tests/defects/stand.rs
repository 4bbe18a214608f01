//! The test stand: publishers and subscribers, subscribers that speak bytes, and futures that are polled by hand.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::{Context, Poll, Wake, Waker};
use std::time::Duration;

use futures::{FutureExt, StreamExt};
use sinew::{DisconnectReason, Endpoint, Event, Monitor, PubBuilder, PubSocket, SubBuilder, SubSocket};

use crate::common::raw::{READY_PUSH, Raw, command, ready};
use crate::common::*;

/// A PUB that does not wait long before it connects again.
pub(crate) fn pub_builder() -> PubBuilder {
    PubSocket::builder().reconnect_delay(Duration::from_millis(5), Duration::from_millis(50))
}

/// A SUB that does not wait long before it connects again.
pub(crate) fn sub_builder() -> SubBuilder {
    SubSocket::builder().reconnect_delay(Duration::from_millis(5), Duration::from_millis(50))
}

pub(crate) fn new_pub() -> PubSocket {
    pub_builder().build().unwrap()
}

pub(crate) fn new_sub() -> SubSocket {
    sub_builder().build().unwrap()
}

/// A SUB that the publisher knows to have subscribed to one prefix, as one of `count` peers that get such messages.
pub(crate) async fn subscriber(publisher: &PubSocket, endpoint: &Endpoint, prefix: &str, count: usize) -> SubSocket {
    let subscriber = new_sub();
    subscriber.subscribe(prefix);
    subscriber.connect(endpoint).unwrap();
    within(publisher.wait_subscribed(prefix, count)).await.unwrap();
    subscriber
}

pub(crate) fn subscribe(prefix: &[u8]) -> Vec<u8> {
    command("SUBSCRIBE", prefix)
}

pub(crate) fn cancel(prefix: &[u8]) -> Vec<u8> {
    command("CANCEL", prefix)
}

pub(crate) fn ready_sub() -> Vec<u8> {
    ready(&[("Socket-Type", b"SUB")])
}

/// A subscriber that speaks bytes and reads nothing by itself; the publisher knows its subscription, as the first one.
pub(crate) async fn raw_subscriber(publisher: &PubSocket, endpoint: &Endpoint, prefix: &[u8]) -> Raw {
    let mut raw = Raw::peer(endpoint, &ready_sub()).await;
    raw.send(&subscribe(prefix)).await;
    within(publisher.wait_subscribed(prefix, 1)).await.unwrap();
    raw
}

pub(crate) async fn recv_subscribed(subscriber: &SubSocket, count: usize) -> Vec<u64> {
    let mut numbers = Vec::new();
    while numbers.len() < count {
        numbers.push(number(&within(subscriber.recv()).await.unwrap()));
    }
    numbers
}

/// A message of three frames that all tell its number.
pub(crate) fn triple(number: u64, length: usize) -> sinew::Message {
    let frame = || {
        let mut frame = number.to_string().into_bytes();
        frame.resize(length, b'.');
        frame
    };
    [frame(), frame(), frame()].into()
}

/// Which number a message of three frames has that must be whole.
pub(crate) fn whole_number<F: AsRef<[u8]>>(frames: &[F], length: usize) -> u64 {
    assert_eq!(frames.len(), 3, "a message that is not whole");
    for frame in frames {
        assert_eq!(frame.as_ref().len(), length);
        assert!(frame.as_ref() == frames[0].as_ref(), "frames of different messages");
    }
    let text = std::str::from_utf8(frames[0].as_ref()).unwrap();
    text.trim_end_matches('.').parse().unwrap()
}

/// The connections that have ended as far as the monitor tells now.
pub(crate) fn ends_so_far(monitor: &mut Monitor) -> Vec<Event> {
    let mut ends = Vec::new();
    while let Some(Some(event)) = monitor.next().now_or_never() {
        if matches!(event, Event::Disconnected { .. } | Event::HandshakeFailed { .. } | Event::Missed(_)) {
            ends.push(event);
        }
    }
    ends
}

/// Waits until a connection is given up because it was silent.
pub(crate) async fn wait_silent(monitor: &mut Monitor) {
    wait_for(monitor, |event| match event {
        Event::Disconnected { reason: DisconnectReason::Silent, .. } => Some(()),
        _ => None,
    })
    .await;
}

/// Waits for so long that these heartbeats give up several silent peers, one after the other.
pub(crate) async fn heartbeats_pass(place: &Place, interval: Duration, timeout: Duration) {
    const SILENT: usize = 3;
    let pull = pull_builder().heartbeat_interval(interval).heartbeat_timeout(timeout).build().unwrap();
    let mut monitor = pull.monitor();
    let endpoint = within(pull.bind(place.wildcard())).await.unwrap();
    for _ in 0..SILENT {
        let _silent = Raw::peer(&endpoint, READY_PUSH).await;
        wait_silent(&mut monitor).await;
    }
}

/// A waker that counts.
#[derive(Default)]
pub(crate) struct Wakes(AtomicUsize);

impl Wake for Wakes {
    fn wake(self: Arc<Self>) {
        self.0.fetch_add(1, Ordering::SeqCst);
    }
}

impl Wakes {
    pub(crate) fn count(&self) -> usize {
        self.0.load(Ordering::SeqCst)
    }
}

/// Polls once, by hand, and counts from then on how often the future is woken.
pub(crate) fn poll_once<F: Future + ?Sized>(future: Pin<&mut F>) -> (Poll<F::Output>, Arc<Wakes>) {
    let wakes = Arc::new(Wakes::default());
    let waker = Waker::from(wakes.clone());
    (future.poll(&mut Context::from_waker(&waker)), wakes)
}

/// Whether this process has been started for this test alone. If not, it starts one that is, and waits until the test has passed
/// there: what is measured of a process, or changed for it, is this test's own then.
pub(crate) async fn is_alone(place: &Place, module: &str, test: &str) -> bool {
    const ALONE: &str = "SINEW_DEFECTS_ALONE";
    let transport = if place.transport == Transport::Tcp { "tcp" } else { "ipc" };
    let name = format!("{module}::{transport}::{test}");
    if std::env::var(ALONE).is_ok_and(|alone| alone == name) {
        return true;
    }
    let mut child = tokio::process::Command::new(std::env::current_exe().unwrap());
    child.args([&name, "--exact", "--nocapture"]).env(ALONE, &name).kill_on_drop(true);
    // The test is given up by its own limits, one for each of its steps, not by this one.
    let Ok(output) = tokio::time::timeout(10 * PATIENCE, child.output()).await else {
        panic!("{name} hangs");
    };
    let output = output.unwrap();
    let (said, complained) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success() && said.contains("1 passed"), "{}\n{said}\n{complained}", output.status);
    false
}
