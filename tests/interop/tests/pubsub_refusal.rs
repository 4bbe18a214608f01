//! Who may talk to a PUB, SUB, XPUB or XSUB: all others are refused with a reason, and a good peer never notices.

use interop::{
    Kind, Library, Libzmq, Place, Publisher, Role, Subscriber, Subscribing, Transport, event, handshake, within,
};
use sinew::{DisconnectReason, Event, Monitor, ProtocolError, PubSocket, SubSocket, XPubSocket, XSubSocket};
use zmq::SocketType::{self, DEALER, PAIR, PUB, PULL, PUSH, REP, REQ, ROUTER, SUB, XPUB, XSUB};

const ALL: [SocketType; 11] = [PAIR, PUB, SUB, REQ, REP, DEALER, ROUTER, PULL, PUSH, XPUB, XSUB];

/// Connects every type that does not fit to `endpoint`, and each is refused with its reason.
async fn wrong_types_are_refused(ours: &'static str, fits: [SocketType; 2], monitor: &mut Monitor, endpoint: &str) {
    for wrong in ALL.into_iter().filter(|wrong| !fits.contains(wrong)) {
        let bad = Libzmq::new(wrong);
        bad.set_linger(0).unwrap();
        bad.attach(Role::Connects, endpoint);
        let reason = event(monitor, "a peer is refused", |event| match event {
            Event::HandshakeFailed { reason, .. } => Some(reason.clone()),
            _ => None,
        })
        .await;
        let mismatch = ProtocolError::SocketTypeMismatch { ours, theirs: format!("{wrong:?}") };
        assert_eq!(reason, DisconnectReason::Protocol(mismatch));
    }
}

macro_rules! publishers {
    ($($name:ident: $ours:literal, $socket:ident as $variant:ident;)+) => {$(
        #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
        async fn $name() {
            for transport in [Transport::Tcp, Transport::Ipc] {
                let place = Place::new(transport);
                let socket = $socket::new();
                let mut monitor = socket.monitor();
                let endpoint = within("sinew binds", socket.bind(place.endpoint())).await.unwrap().to_string();
                let mut publisher = Publisher::$variant(socket);
                let mut good = [Kind::Plain, Kind::Extended].map(|kind| Subscriber::new(Library::Libzmq, kind));
                for subscriber in &mut good {
                    subscriber.subscribe("A").await;
                    subscriber.attach(Role::Connects, &endpoint).await;
                    handshake(&mut monitor).await;
                    subscriber.settle(&mut publisher).await;
                }
                wrong_types_are_refused($ours, [SUB, XSUB], &mut monitor, &endpoint).await;
                publisher.send(["A"]).await;
                for subscriber in &mut good {
                    assert_eq!(subscriber.recv().await, [b"A"]);
                }
            }
        }
    )+};
}

publishers! {
    a_pub_refuses_all_but_subscribers: "PUB", PubSocket as Plain;
    an_xpub_refuses_all_but_subscribers: "XPUB", XPubSocket as Extended;
}

macro_rules! subscribers {
    ($($name:ident: $ours:literal, $socket:ident as $variant:ident;)+) => {$(
        #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
        async fn $name() {
            for transport in [Transport::Tcp, Transport::Ipc] {
                let place = Place::new(transport);
                let socket = $socket::new();
                let mut monitor = socket.monitor();
                let endpoint = within("sinew binds", socket.bind(place.endpoint())).await.unwrap().to_string();
                let mut subscriber = Subscriber::from(Subscribing::$variant(socket.clone(), socket.monitor()));
                subscriber.subscribe("A").await;
                let mut good = [Kind::Plain, Kind::Extended].map(|kind| Publisher::new(Library::Libzmq, kind));
                for publisher in &mut good {
                    publisher.attach(Role::Connects, &endpoint).await;
                    handshake(&mut monitor).await;
                    subscriber.settle(publisher).await;
                }
                wrong_types_are_refused($ours, [PUB, XPUB], &mut monitor, &endpoint).await;
                for publisher in &mut good {
                    publisher.send(["A"]).await;
                    assert_eq!(subscriber.recv().await, [b"A"]);
                }
            }
        }
    )+};
}

subscribers! {
    a_sub_refuses_all_but_publishers: "SUB", SubSocket as Plain;
    an_xsub_refuses_all_but_publishers: "XSUB", XSubSocket as Extended;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_libzmq_that_breaks_a_limit_for_topics_is_sent_away_alone() {
    for transport in [Transport::Tcp, Transport::Ipc] {
        for kind in [Kind::Plain, Kind::Extended] {
            let limits: [(&str, ProtocolError); 3] = [
                ("a topic of more than 20 bytes", ProtocolError::TopicTooLong { size: 21, limit: 20 }),
                ("a, b, c, d, e", ProtocolError::TooManySubscriptions { limit: 4 }),
                ("16 bytes in all., 15 more bytes.., ..", ProtocolError::SubscriptionsTooLarge { limit: 32 }),
            ];
            for (topics, error) in limits {
                let place = Place::new(transport);
                let socket = PubSocket::builder()
                    .max_topic_length(20)
                    .max_subscriptions(4)
                    .max_subscription_bytes(32)
                    .build()
                    .unwrap();
                let mut monitor = socket.monitor();
                let endpoint = within("sinew binds", socket.bind(place.endpoint())).await.unwrap().to_string();
                let good = Libzmq::new(SUB);
                good.set_subscribe(b"A").unwrap();
                good.attach(Role::Connects, &endpoint);
                within("it has subscribed", socket.wait_subscribed("A", 1)).await.unwrap();

                let mut bad = Subscriber::new(Library::Libzmq, kind);
                bad.attach(Role::Connects, &endpoint).await;
                let topics = match error {
                    ProtocolError::TopicTooLong { .. } => vec!["more than twenty byte"],
                    _ => topics.split(", ").collect(),
                };
                for topic in topics {
                    bad.subscribe(topic).await;
                }
                let reason = event(&mut monitor, "a peer is sent away", |event| match event {
                    Event::Disconnected { reason, .. } => Some(reason.clone()),
                    _ => None,
                })
                .await;
                assert_eq!(reason, DisconnectReason::Protocol(error));
                socket.send("A").await.unwrap();
                assert_eq!(good.pull(), [b"A"]);
            }
        }
    }
}

/// Subscribing again to what one has is no more subscriptions; libzmq sends every call.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_libzmq_at_a_limit_for_topics_may_repeat_itself() {
    for kind in [Kind::Plain, Kind::Extended] {
        for builder in [PubSocket::builder().max_subscriptions(2), PubSocket::builder().max_subscription_bytes(2)] {
            let publisher = builder.build().unwrap();
            let mut monitor = publisher.monitor();
            let endpoint = within("sinew binds", publisher.bind("tcp://127.0.0.1:*")).await.unwrap().to_string();
            let mut subscriber = Subscriber::new(Library::Libzmq, kind);
            subscriber.attach(Role::Connects, &endpoint).await;
            handshake(&mut monitor).await;
            for topic in ["A", "B", "A", "B", "A"] {
                subscriber.subscribe(topic).await;
            }
            within("it has subscribed", publisher.wait_subscribed("B", 1)).await.unwrap();
            // One is cancelled, so there is room for another one: that one comes after the repetitions.
            for _ in 0..3 {
                subscriber.unsubscribe("A").await;
            }
            subscriber.subscribe("C").await;
            within("it has subscribed", publisher.wait_subscribed("C", 1)).await.unwrap();
            assert_eq!(publisher.peers()[0].subscriptions, 2);
            let event = futures::FutureExt::now_or_never(futures::StreamExt::next(&mut monitor)).flatten();
            assert_eq!(event, None, "nothing has happened to the connection");
        }
    }
}
