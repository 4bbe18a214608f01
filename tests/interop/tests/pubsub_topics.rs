//! Who gets what: prefixes, and how subscriptions change, between either publisher and either subscriber.

use std::time::Duration;

use interop::{
    Frames, Kind, Library, Libzmq, Pair, Place, Publisher, Role, Subscriber, Transport, on_every_pair, until, within,
};
use sinew::{PubSocket, SubSocket};

/// A test for each library as the publisher, bound and connecting.
macro_rules! matrix {
    ($($scenario:ident: $a:ident $b:ident $c:ident $d:ident;)+) => {$(
        #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
        async fn $a() {
            on_every_pair(Library::Sinew, Role::Binds, $scenario).await;
        }

        #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
        async fn $b() {
            on_every_pair(Library::Sinew, Role::Connects, $scenario).await;
        }

        #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
        async fn $c() {
            on_every_pair(Library::Libzmq, Role::Binds, $scenario).await;
        }

        #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
        async fn $d() {
            on_every_pair(Library::Libzmq, Role::Connects, $scenario).await;
        }
    )+};
}

matrix! {
    prefixes_select:
        prefixes_select_from_a_bound_sinew
        prefixes_select_from_a_connecting_sinew
        prefixes_select_from_a_bound_libzmq
        prefixes_select_from_a_connecting_libzmq;
    the_first_frame_decides:
        the_first_frame_decides_from_a_bound_sinew
        the_first_frame_decides_from_a_connecting_sinew
        the_first_frame_decides_from_a_bound_libzmq
        the_first_frame_decides_from_a_connecting_libzmq;
    subscriptions_change:
        subscriptions_change_at_a_bound_sinew
        subscriptions_change_at_a_connecting_sinew
        subscriptions_change_at_a_bound_libzmq
        subscriptions_change_at_a_connecting_libzmq;
    long_topics:
        long_topics_at_a_bound_sinew
        long_topics_at_a_connecting_sinew
        long_topics_at_a_bound_libzmq
        long_topics_at_a_connecting_libzmq;
    messages_of_every_shape_arrive:
        messages_of_every_shape_arrive_from_a_bound_sinew
        messages_of_every_shape_arrive_from_a_connecting_sinew
        messages_of_every_shape_arrive_from_a_bound_libzmq
        messages_of_every_shape_arrive_from_a_connecting_libzmq;
}

async fn prefixes_select(pair: &mut Pair) {
    // Nothing was subscribed to, so nothing comes.
    pair.settle().await;
    pair.publish(["A"]).await;
    pair.publish([""]).await;
    pair.settle().await;

    for topic in [&b"A"[..], b"AB", b"BC", b"\x00\xff", b"\x01", b"same", b"same"] {
        pair.subscriber.subscribe(topic).await;
    }
    pair.settle().await;
    let published: [&[u8]; 20] = [
        b"A",
        b"A1",
        b"AB",
        b"ABC",
        b"B",
        b"BA",
        b"BC",
        b"BCD",
        b"bc",
        b"",
        b"\x00",
        b"\x00\xff",
        b"\x00\xff\x00",
        b"\x00A",
        b"\x01",
        b"\x01A",
        b"\xff\x00",
        b"same",
        b"sam",
        b"same again",
    ];
    for topic in published {
        pair.publish([topic]).await;
    }
    let wanted: [&[u8]; 12] = [
        b"A",
        b"A1",
        b"AB",
        b"ABC",
        b"BC",
        b"BCD",
        b"\x00\xff",
        b"\x00\xff\x00",
        b"\x01",
        b"\x01A",
        b"same",
        b"same again",
    ];
    for topic in wanted {
        pair.expect([topic]).await;
    }
    pair.settle().await;

    // The empty prefix is everything, and still each message comes once.
    pair.subscriber.subscribe("").await;
    pair.settle().await;
    for topic in published {
        pair.publish([topic]).await;
    }
    for topic in published {
        pair.expect([topic]).await;
    }
    pair.settle().await;
}

async fn the_first_frame_decides(pair: &mut Pair) {
    pair.subscriber.subscribe("A").await;
    pair.settle().await;
    pair.publish(["Z", "A"]).await;
    pair.publish(["", "A", "A"]).await;
    pair.publish(["A", "Z"]).await;
    pair.publish(["B", "A", "A", "A"]).await;
    pair.publish(["A", "", "", "Z"]).await;
    pair.publish(["AA", ""]).await;
    pair.expect(["A", "Z"]).await;
    pair.expect(["A", "", "", "Z"]).await;
    pair.expect(["AA", ""]).await;
    pair.settle().await;
}

async fn subscriptions_change(pair: &mut Pair) {
    /// Publishes one message for each letter from A to D; exactly those of `expected` come.
    async fn check(pair: &mut Pair, expected: &str) {
        pair.settle().await;
        for topic in ["A", "B", "C", "D"] {
            pair.publish([topic, "news"]).await;
        }
        for topic in expected.chars() {
            pair.expect([&topic.to_string(), "news"]).await;
        }
        pair.settle().await;
    }

    pair.subscriber.subscribe("A").await;
    check(pair, "A").await;
    pair.subscriber.subscribe("B").await;
    pair.subscriber.subscribe("D").await;
    check(pair, "ABD").await;
    pair.subscriber.unsubscribe("A").await;
    check(pair, "BD").await;

    // Two subscriptions to the same need two cancellations.
    pair.subscriber.subscribe("B").await;
    pair.subscriber.unsubscribe("B").await;
    check(pair, "BD").await;
    pair.subscriber.unsubscribe("B").await;
    check(pair, "D").await;

    // Cancelling what was not subscribed to changes nothing, and is no debt for later.
    for unknown in ["B", "C", "", "DD"] {
        pair.subscriber.unsubscribe(unknown).await;
    }
    check(pair, "D").await;
    pair.subscriber.subscribe("C").await;
    check(pair, "CD").await;

    // Everything and one of it are two subscriptions.
    pair.subscriber.subscribe("").await;
    check(pair, "ABCD").await;
    pair.subscriber.unsubscribe("D").await;
    check(pair, "ABCD").await;
    pair.subscriber.unsubscribe("").await;
    check(pair, "C").await;
    pair.subscriber.unsubscribe("C").await;
    check(pair, "").await;

    for _ in 0..50 {
        pair.subscriber.subscribe("A").await;
        pair.subscriber.unsubscribe("A").await;
    }
    pair.subscriber.subscribe("B").await;
    check(pair, "B").await;
}

/// Where lengths change their form: a SUBSCRIBE command has room for 245 bytes in a short frame, the message form for 254.
/// From 246 to 255 bytes libzmq 4.3.4 sends commands with a long length, but without the flag for it.
const LENGTHS: [usize; 8] = [1, 244, 245, 246, 254, 255, 256, 4_000];

/// A topic that is no prefix of another one.
fn topic(length: usize) -> Vec<u8> {
    let mut topic = format!("{length}-").into_bytes();
    topic.resize(length, b'.');
    topic
}

async fn long_topics(pair: &mut Pair) {
    for length in LENGTHS {
        pair.subscriber.subscribe(topic(length)).await;
    }
    pair.settle().await;
    for length in LENGTHS {
        let topic = topic(length);
        pair.publish([&topic[..topic.len() - 1], &topic]).await;
        pair.publish([&topic[..], b"exact"]).await;
        pair.publish([&[&topic[..], b"!"].concat()[..], b"longer"]).await;
        pair.expect([&topic[..], b"exact"]).await;
        pair.expect([&[&topic[..], b"!"].concat()[..], b"longer"]).await;
    }
    pair.settle().await;
    for length in LENGTHS {
        pair.subscriber.unsubscribe(topic(length)).await;
    }
    pair.settle().await;
    for length in LENGTHS {
        pair.publish([topic(length)]).await;
    }
    pair.settle().await;
}

async fn messages_of_every_shape_arrive(pair: &mut Pair) {
    /// A body that is different at every place and in every frame.
    fn body(size: usize, frame: usize) -> Vec<u8> {
        (0..size).map(|at| (at * 31 + at / 256 + frame * 7) as u8).collect()
    }

    pair.subscriber.subscribe("topic").await;
    pair.settle().await;
    let mut messages: Vec<Frames> = Vec::new();
    for size in [0, 1, 58, 59, 64, 255, 256, 8_192, 65_535] {
        messages.push(vec![[b"topic".to_vec(), body(size, 0)].concat()]);
        messages.push(vec![b"topic".to_vec(), body(size, 1)]);
        messages.push(vec![b"topic".to_vec(), vec![], body(size, 2), vec![]]);
        // One frame in ten has the size, the others are tiny and empty ones.
        let hundred = (0..100).map(|frame| body(if frame % 10 == 4 { size } else { frame % 3 }, frame));
        messages.push(std::iter::once(b"topic".to_vec()).chain(hundred).collect());
    }
    messages.push(vec![b"topic".to_vec(), body(4 << 20, 3)]);
    let sizes = |message: &Frames| message.iter().map(Vec::len).collect::<Vec<_>>();
    // Each on its own, and then all together: large and small share batches, buffers and reads.
    for message in &messages {
        pair.publish(message).await;
        let received = pair.subscriber.recv().await;
        assert_eq!(sizes(&received), sizes(message), "the sizes of the frames");
        assert!(received == *message, "damaged: {:?}", sizes(message));
    }
    for message in messages.iter().rev() {
        pair.publish(message).await;
        pair.publish(["other", "which nobody wants"]).await;
    }
    for message in messages.iter().rev() {
        let received = pair.subscriber.recv().await;
        assert_eq!(sizes(&received), sizes(message), "the sizes of the frames");
        assert!(received == *message, "damaged: {:?}", sizes(message));
    }
    pair.settle().await;
}

// --- many -----------------------------------------------------------------------------------------------------------

const MANY: usize = 3_000;

/// When a subscriber asks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum When {
    BeforeConnecting,
    RightAfterConnecting,
    WhileConnected,
}

/// More than any high-water mark: every single one has its effect, and then every single cancellation.
async fn thousands_of_subscriptions_are_all_effective(publishes: Library, kind: Kind, when: When) {
    let topic = |n: usize| format!("topic {n}.");
    let place = Place::new(Transport::Tcp);
    let mut publisher = Publisher::new(publishes, Kind::Plain);
    let mut subscriber = Subscriber::new(publishes.other(), kind);
    let endpoint = publisher.attach(Role::Binds, &place.endpoint()).await;
    if when == When::BeforeConnecting {
        for n in 0..MANY {
            subscriber.subscribe(topic(n)).await;
        }
    }
    subscriber.attach(Role::Connects, &endpoint).await;
    if when == When::WhileConnected {
        subscriber.settle(&mut publisher).await;
    }
    if when != When::BeforeConnecting {
        for n in 0..MANY {
            subscriber.subscribe(topic(n)).await;
        }
    }
    subscriber.settle(&mut publisher).await;
    for n in 0..MANY {
        publisher.send([topic(n), "news".into()]).await;
        publisher.send([format!("Topic {n}."), "news".into()]).await;
    }
    for n in 0..MANY {
        assert_eq!(subscriber.recv().await, [topic(n).into_bytes(), b"news".to_vec()]);
    }
    for n in (0..MANY).filter(|n| n % 3 != 0) {
        subscriber.unsubscribe(topic(n)).await;
    }
    subscriber.settle(&mut publisher).await;
    for n in 0..MANY {
        publisher.send([topic(n), "more".into()]).await;
    }
    for n in (0..MANY).filter(|n| n % 3 == 0) {
        assert_eq!(subscriber.recv().await, [topic(n).into_bytes(), b"more".to_vec()]);
    }
    subscriber.settle(&mut publisher).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn thousands_of_subscriptions_before_connecting_to_a_libzmq_pub() {
    for kind in [Kind::Plain, Kind::Extended] {
        thousands_of_subscriptions_are_all_effective(Library::Libzmq, kind, When::BeforeConnecting).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn thousands_of_subscriptions_right_after_connecting_to_a_libzmq_pub() {
    for kind in [Kind::Plain, Kind::Extended] {
        thousands_of_subscriptions_are_all_effective(Library::Libzmq, kind, When::RightAfterConnecting).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn thousands_of_subscriptions_while_connected_to_a_libzmq_pub() {
    for kind in [Kind::Plain, Kind::Extended] {
        thousands_of_subscriptions_are_all_effective(Library::Libzmq, kind, When::WhileConnected).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn thousands_of_subscriptions_of_a_libzmq_at_our_pub() {
    for kind in [Kind::Plain, Kind::Extended] {
        for when in [When::BeforeConnecting, When::WhileConnected] {
            thousands_of_subscriptions_are_all_effective(Library::Sinew, kind, when).await;
        }
    }
}

// --- knowing --------------------------------------------------------------------------------------------------------

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_first_message_reaches_every_libzmq_that_was_waited_for() {
    for transport in [Transport::Tcp, Transport::Ipc] {
        for subscribes in [zmq::SUB, zmq::XSUB] {
            let place = Place::new(transport);
            let publisher = PubSocket::new();
            let endpoint = within("sinew binds", publisher.bind(place.endpoint())).await.unwrap().to_string();
            let subscribers: Vec<_> = (0..8)
                .map(|n| {
                    let subscriber = Libzmq::new(subscribes);
                    let topic = if n < 4 { "A" } else { "AB" };
                    match subscribes {
                        zmq::SUB => subscriber.set_subscribe(topic.as_bytes()).unwrap(),
                        _ => subscriber.push(&vec![[b"\x01", topic.as_bytes()].concat()]),
                    }
                    subscriber.attach(Role::Connects, &endpoint);
                    subscriber
                })
                .collect();
            within("four want it", publisher.wait_subscribed("A", 4)).await.unwrap();
            within("eight want it", publisher.wait_subscribed("ABC", 8)).await.unwrap();
            publisher.send("ABC").await.unwrap();
            publisher.send("AC").await.unwrap();
            publisher.send("AB").await.unwrap();
            for (n, subscriber) in subscribers.iter().enumerate() {
                assert_eq!(subscriber.pull(), [b"ABC"]);
                if n < 4 {
                    assert_eq!(subscriber.pull(), [b"AC"]);
                }
                assert_eq!(subscriber.pull(), [b"AB"]);
            }
            let peers = publisher.peers();
            assert_eq!(peers.len(), 8);
            assert!(peers.iter().all(|peer| peer.subscriptions == 1), "{peers:?}");
            until("all is counted", || {
                let mut sent: Vec<_> = publisher.peers().iter().map(|peer| peer.messages_sent).collect();
                sent.sort_unstable();
                sent == [2, 2, 2, 2, 3, 3, 3, 3]
            })
            .await;

            // Those that go are no longer counted, so others can be waited for.
            tokio::task::block_in_place(|| drop(subscribers));
            until("all have gone", || publisher.peers().is_empty()).await;
            let late = Libzmq::new(zmq::SUB);
            late.attach(Role::Connects, &endpoint);
            within("it is there", publisher.wait_connected(1)).await.unwrap();
            let mut waiting = tokio::spawn({
                let publisher = publisher.clone();
                async move { publisher.wait_subscribed("ABC", 1).await }
            });
            let early = tokio::time::timeout(Duration::from_millis(50), &mut waiting).await;
            assert!(early.is_err(), "nobody has subscribed to it yet");
            late.set_subscribe(b"A").unwrap();
            within("one wants it", waiting).await.unwrap().unwrap();
            publisher.send("A again").await.unwrap();
            assert_eq!(late.pull(), [b"A again"]);
        }
    }
}

/// A libzmq PUB tells a subscriber nothing, but a connected XPUB's first message can be waited for by its requests.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_first_message_of_a_libzmq_xpub_that_has_seen_the_request_arrives() {
    for transport in [Transport::Tcp, Transport::Ipc] {
        let place = Place::new(transport);
        let publisher = Libzmq::new(zmq::XPUB);
        let endpoint = publisher.attach(Role::Binds, &place.endpoint());
        let subscriber = SubSocket::new();
        subscriber.subscribe("A");
        subscriber.connect(&endpoint).unwrap();
        assert_eq!(publisher.pull(), [b"\x01A"]);
        publisher.push(&vec![b"A1".to_vec()]);
        let message = within("sinew receives", subscriber.recv()).await.unwrap();
        assert_eq!(&message[0], b"A1");
    }
}
