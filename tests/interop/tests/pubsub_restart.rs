//! Either end goes and comes back at the same endpoint: what is subscribed to is known again, and nothing else.

use std::time::Duration;

use interop::{Kind, Library, Libzmq, Pair, Place, Publisher, Role, Subscriber, Transport, handshake, within};
use sinew::{SubSocket, XSubSocket};

const ROUNDS: usize = 3;

const ALL_KINDS: [[Kind; 2]; 4] = [
    [Kind::Plain, Kind::Plain],
    [Kind::Plain, Kind::Extended],
    [Kind::Extended, Kind::Plain],
    [Kind::Extended, Kind::Extended],
];

/// Publishes one message for each letter from A to E; exactly those of `expected` come.
async fn check(pair: &mut Pair, expected: &str) {
    pair.settle().await;
    for topic in ["A", "B", "C", "D", "E"] {
        pair.publish([topic, "news"]).await;
    }
    for topic in expected.chars() {
        pair.expect([&topic.to_string(), "news"]).await;
    }
    pair.settle().await;
}

async fn a_publisher_comes_back(publishes: Library, role: Role) {
    for transport in [Transport::Tcp, Transport::Ipc] {
        for kinds in ALL_KINDS {
            println!("{kinds:?} {transport:?}");
            let mut pair = Pair::new(publishes, kinds, role, transport).await;
            for topic in ["A", "B", "B", "E"] {
                pair.subscriber.subscribe(topic).await;
            }
            check(&mut pair, "ABE").await;
            let (endpoint, mut last) = (pair.endpoint.clone(), "E");
            for round in 0..ROUNDS {
                pair.publisher.close().await;
                pair.subscriber.notices_loss().await;
                // What changes meanwhile is remembered: one of the two subscriptions to B goes and comes, and another
                // topic takes the place of the last one.
                if round % 2 == 0 {
                    pair.subscriber.unsubscribe("B").await;
                } else {
                    pair.subscriber.subscribe("B").await;
                }
                pair.subscriber.unsubscribe(last).await;
                last = ["C", "D", "E"][round % 3];
                pair.subscriber.subscribe(last).await;
                pair.publisher = Publisher::new(publishes, kinds[0]);
                pair.publisher.attach(role, &endpoint).await;
                check(&mut pair, &format!("AB{last}")).await;
            }
            pair.close().await;
        }
    }
}

async fn a_subscriber_comes_back(publishes: Library, role: Role) {
    // A libzmq publisher that connects keeps the subscriptions of a peer that has gone, and messages for it, for the next
    // one. A SUB does not let them through; an XSUB would.
    let forgets = publishes == Library::Sinew || role == Role::Binds;
    for transport in [Transport::Tcp, Transport::Ipc] {
        for kinds in ALL_KINDS.into_iter().filter(|kinds| forgets || kinds[1] == Kind::Plain) {
            println!("{kinds:?} {transport:?}");
            let mut pair = Pair::new(publishes, kinds, role, transport).await;
            pair.subscriber.subscribe("A").await;
            check(&mut pair, "A").await;
            let endpoint = pair.endpoint.clone();
            for topic in ["B", "", "C"] {
                // It is another one, which wants something else.
                let next = Subscriber::new(publishes.other(), kinds[1]);
                std::mem::replace(&mut pair.subscriber, next).close().await;
                if forgets {
                    pair.publish(["A", "to nobody"]).await;
                }
                pair.subscriber.subscribe(topic).await;
                pair.subscriber.attach(role.other(), &endpoint).await;
                check(&mut pair, if topic.is_empty() { "ABCDE" } else { topic }).await;
            }
            pair.close().await;
        }
    }
}

macro_rules! matrix {
    ($($name:ident: $scenario:ident, $library:ident publishes, $role:ident;)+) => {$(
        #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
        async fn $name() {
            $scenario(Library::$library, Role::$role).await;
        }
    )+};
}

matrix! {
    a_bound_libzmq_publisher_comes_back: a_publisher_comes_back, Libzmq publishes, Binds;
    a_connecting_libzmq_publisher_comes_back: a_publisher_comes_back, Libzmq publishes, Connects;
    a_bound_sinew_publisher_comes_back: a_publisher_comes_back, Sinew publishes, Binds;
    a_connecting_sinew_publisher_comes_back: a_publisher_comes_back, Sinew publishes, Connects;
    a_connecting_sinew_subscriber_comes_back: a_subscriber_comes_back, Libzmq publishes, Binds;
    a_bound_sinew_subscriber_comes_back: a_subscriber_comes_back, Libzmq publishes, Connects;
    a_connecting_libzmq_subscriber_comes_back: a_subscriber_comes_back, Sinew publishes, Binds;
    a_bound_libzmq_subscriber_comes_back: a_subscriber_comes_back, Sinew publishes, Connects;
}

/// All subscriptions are sent anew, each once, however often it was made; a libzmq XPUB shows what has come.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn each_topic_is_sent_once_on_a_new_connection() {
    const MANY: usize = 3_000;

    fn xpub(endpoint: &str) -> (Libzmq, String) {
        let xpub = Libzmq::new(zmq::XPUB);
        // It would report a topic that comes twice.
        xpub.set_xpub_verbose(true).unwrap();
        let endpoint = xpub.attach(Role::Binds, endpoint);
        (xpub, endpoint)
    }
    fn requests(xpub: &Libzmq, count: usize) -> Vec<String> {
        let mut requests: Vec<_> =
            (0..count).map(|_| String::from_utf8(xpub.pull().concat()).expect("topics are text here")).collect();
        requests.sort_unstable();
        requests
    }

    for transport in [Transport::Tcp, Transport::Ipc] {
        let place = Place::new(transport);
        let (first, endpoint) = xpub(&place.endpoint());
        let delays = (Duration::from_millis(10), Duration::from_millis(100));
        let sub = SubSocket::builder().reconnect_delay(delays.0, delays.1).build().unwrap();
        let xsub = XSubSocket::builder().reconnect_delay(delays.0, delays.1).build().unwrap();
        let mut monitors = [sub.monitor(), xsub.monitor()];
        sub.connect(&endpoint).unwrap();
        xsub.connect(&endpoint).unwrap();
        for monitor in &mut monitors {
            handshake(monitor).await;
        }
        for n in 0..MANY {
            sub.subscribe(format!("sub {n}"));
            xsub.send(format!("\x01xsub {n}")).await.unwrap();
        }
        for _ in 0..3 {
            sub.subscribe("twice");
            xsub.subscribe("twice");
        }
        let expected = |count: usize| {
            let mut expected: Vec<_> =
                (0..MANY).flat_map(|n| [format!("\x01sub {n}"), format!("\x01xsub {n}")]).collect();
            expected.extend(std::iter::repeat_n("\x01twice".to_owned(), count));
            expected.sort_unstable();
            expected
        };
        // While it is connected every call goes out, as libzmq's do.
        assert_eq!(requests(&first, 2 * MANY + 6), expected(6));
        tokio::task::block_in_place(|| drop(first));
        for monitor in &mut monitors {
            interop::disconnect(monitor).await;
        }
        sub.unsubscribe("twice");
        let (second, _) = xpub(&endpoint);
        for monitor in &mut monitors {
            handshake(monitor).await;
        }
        assert_eq!(requests(&second, 2 * MANY + 2), expected(2));
        // Nothing else has come: these are the next ones.
        sub.subscribe("next");
        assert_eq!(second.pull(), [b"\x01next"]);
        xsub.subscribe("next but one");
        assert_eq!(second.pull(), [b"\x01next but one"]);
        within("sinew closes", sub.close()).await.unwrap();
    }
}
