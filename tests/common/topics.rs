//! Publishers and subscribers: how tests make them, bring them together, and read what arrives.

use std::future::Future;
use std::time::Duration;

use sinew::{
    Endpoint, Message, PeerStats, PubBuilder, PubSocket, PullSocket, Stats, SubBuilder, SubSocket, XPubBuilder,
    XPubSocket, XSubBuilder, XSubSocket,
};

use super::raw::{READY_SUB, Raw, subscribe_command};
use super::{Place, within};

const FIRST_DELAY: Duration = Duration::from_millis(5);
const LONGEST_DELAY: Duration = Duration::from_millis(50);

pub(crate) fn pub_builder() -> PubBuilder {
    PubSocket::builder().reconnect_delay(FIRST_DELAY, LONGEST_DELAY)
}

pub(crate) fn sub_builder() -> SubBuilder {
    SubSocket::builder().reconnect_delay(FIRST_DELAY, LONGEST_DELAY)
}

pub(crate) fn xpub_builder() -> XPubBuilder {
    XPubSocket::builder().reconnect_delay(FIRST_DELAY, LONGEST_DELAY)
}

pub(crate) fn xsub_builder() -> XSubBuilder {
    XSubSocket::builder().reconnect_delay(FIRST_DELAY, LONGEST_DELAY)
}

pub(crate) fn new_pub() -> PubSocket {
    pub_builder().build().unwrap()
}

pub(crate) fn new_sub() -> SubSocket {
    sub_builder().build().unwrap()
}

pub(crate) fn new_xpub() -> XPubSocket {
    xpub_builder().build().unwrap()
}

pub(crate) fn new_xsub() -> XSubSocket {
    xsub_builder().build().unwrap()
}

/// A PUB and the endpoint where it listens.
pub(crate) async fn bound_pub(place: &Place, builder: PubBuilder) -> (PubSocket, Endpoint) {
    let publisher = builder.build().unwrap();
    let endpoint = within(publisher.bind(place.wildcard())).await.unwrap();
    (publisher, endpoint)
}

/// An XPUB and the endpoint where it listens.
pub(crate) async fn bound_xpub(place: &Place, builder: XPubBuilder) -> (XPubSocket, Endpoint) {
    let publisher = builder.build().unwrap();
    let endpoint = within(publisher.bind(place.wildcard())).await.unwrap();
    (publisher, endpoint)
}

/// A SUB that has subscribed to these topics and connects.
pub(crate) fn subscriber(endpoint: &Endpoint, topics: &[&str]) -> SubSocket {
    let subscriber = new_sub();
    topics.iter().for_each(|topic| subscriber.subscribe(topic));
    subscriber.connect(endpoint).unwrap();
    subscriber
}

/// A raw peer of 3.1 that has asked for these topics.
pub(crate) async fn raw_subscriber(endpoint: &Endpoint, topics: &[&[u8]]) -> Raw {
    let mut raw = Raw::peer(endpoint, READY_SUB).await;
    for topic in topics {
        raw.send(&subscribe_command(topic)).await;
    }
    raw
}

/// What the tests do with PUB and XPUB alike.
pub(crate) trait Publisher {
    /// Sends.
    fn say(&self, message: impl Into<Message>) -> impl Future<Output = ()>;

    /// Waits until so many subscribers would get a message with this topic.
    fn known(&self, topic: impl AsRef<[u8]>, count: usize) -> impl Future<Output = ()>;

    fn audience(&self) -> Vec<PeerStats>;

    fn numbers(&self) -> Stats;

    /// How many subscriptions all subscribers have.
    fn subscriptions(&self) -> usize {
        self.audience().iter().map(|peer| peer.subscriptions).sum()
    }
}

macro_rules! publishers {
    ($($socket:ty),+) => {$(
        impl Publisher for $socket {
            #[track_caller]
            fn say(&self, message: impl Into<Message>) -> impl Future<Output = ()> {
                let sending = within(self.send(message));
                async { sending.await.unwrap() }
            }

            #[track_caller]
            fn known(&self, topic: impl AsRef<[u8]>, count: usize) -> impl Future<Output = ()> {
                let waiting = within(self.wait_subscribed(topic, count));
                async { waiting.await.unwrap() }
            }

            fn audience(&self) -> Vec<PeerStats> {
                self.peers()
            }

            fn numbers(&self) -> Stats {
                self.stats()
            }
        }
    )+};
}

publishers!(PubSocket, XPubSocket);

/// What the tests do with all receiving sockets alike.
pub(crate) trait Receiver {
    /// Receives a message.
    fn next(&self) -> impl Future<Output = Message>;
}

macro_rules! receivers {
    ($($socket:ty),+) => {$(
        impl Receiver for $socket {
            #[track_caller]
            fn next(&self) -> impl Future<Output = Message> {
                let receiving = within(self.recv());
                async { receiving.await.unwrap() }
            }
        }
    )+};
}

receivers!(PullSocket, SubSocket, XPubSocket, XSubSocket);

/// A message's first frame, as text.
pub(crate) fn text(message: &Message) -> String {
    String::from_utf8(message[0].to_vec()).unwrap()
}

/// Receives so many messages; gives their first frames.
pub(crate) async fn texts(receiver: &impl Receiver, count: usize) -> Vec<String> {
    let mut texts = Vec::new();
    while texts.len() < count {
        texts.push(text(&receiver.next().await));
    }
    texts
}

/// Receives until a message begins with `marker`; gives the first frames of those before it.
pub(crate) async fn texts_until(receiver: &impl Receiver, marker: &str) -> Vec<String> {
    const MOST: usize = 1_000_000;
    let mut texts = Vec::new();
    while texts.len() < MOST {
        match text(&receiver.next().await) {
            text if text == marker => return texts,
            text => texts.push(text),
        }
    }
    panic!("{MOST} messages, and {marker:?} is not among them");
}

/// Subscription requests as an XPUB receives them: `+topic` and `-topic`; other messages as they are.
pub(crate) fn request(message: &Message) -> String {
    let topic = |sign, topic: &[u8]| format!("{sign}{}", String::from_utf8_lossy(topic));
    match &message[0] {
        [1, rest @ ..] => topic('+', rest),
        [0, rest @ ..] => topic('-', rest),
        other => String::from_utf8_lossy(other).into_owned(),
    }
}

/// Receives so many requests.
pub(crate) async fn requests(xpub: &XPubSocket, count: usize) -> Vec<String> {
    let mut requests = Vec::new();
    while requests.len() < count {
        requests.push(request(&xpub.next().await));
    }
    requests
}

/// Receives requests until `marker`; gives those before it.
pub(crate) async fn requests_until(xpub: &XPubSocket, marker: &str) -> Vec<String> {
    const MOST: usize = 1_000_000;
    let mut requests = Vec::new();
    while requests.len() < MOST {
        match request(&xpub.next().await) {
            request if request == marker => return requests,
            request => requests.push(request),
        }
    }
    panic!("{MOST} requests, and {marker:?} is not among them");
}
