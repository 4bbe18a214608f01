//! Only the newest message counts: conflating sockets of ours and libzmq's.

use std::time::Duration;

use interop::{
    Library, Libzmq, Place, Publisher, Role, Subscriber, Subscribing, Transport, number, numbered, until, within,
};
use sinew::{PubSocket, PullSocket, SlowSubscriber, SubSocket, TryRecvError};

const MESSAGES: usize = 100;

/// Two frames, so that half a message would be seen.
fn message(n: usize) -> Vec<Vec<u8>> {
    [numbered(n, 64), numbered(n, 1_000)].concat()
}

fn number_of(message: &sinew::Message) -> usize {
    let frames: Vec<_> = message.iter().map(|frame| frame.to_vec()).collect();
    assert_eq!(frames.len(), 2, "a message is whole");
    let [first, second] = [&frames[..1], &frames[1..]].map(|frame| number(&frame.to_vec()));
    assert_eq!(first, second, "a message is of one piece");
    first
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_conflating_sub_has_the_newest_message_of_each_libzmq() {
    for transport in [Transport::Tcp, Transport::Ipc] {
        let place = Place::new(transport);
        let sub = SubSocket::builder().conflate(true).build().unwrap();
        sub.subscribe("");
        // XPUBs tell when they can be heard.
        let publishers: Vec<_> = (0..2)
            .map(|_| {
                let publisher = Libzmq::new(zmq::XPUB);
                sub.connect(publisher.attach(Role::Binds, &place.endpoint())).unwrap();
                assert_eq!(publisher.pull(), [b"\x01"]);
                publisher
            })
            .collect();
        for n in 0..MESSAGES {
            for (peer, publisher) in publishers.iter().enumerate() {
                publisher.push(&message(10 * n + peer));
            }
        }
        until("all have come", || sub.stats().messages_received == 2 * MESSAGES as u64).await;
        let mut latest = Vec::new();
        for _ in 0..2 {
            latest.push(number_of(&within("sinew receives", sub.recv()).await.unwrap()));
        }
        latest.sort_unstable();
        assert_eq!(latest, [10 * MESSAGES - 10, 10 * MESSAGES - 9]);
        assert_eq!(sub.try_recv(), Err(TryRecvError::Empty));
        assert_eq!(sub.stats().messages_dropped, 2 * MESSAGES as u64 - 2, "what was replaced is counted");
        publishers[0].push(&message(5));
        assert_eq!(number_of(&within("sinew receives", sub.recv()).await.unwrap()), 5);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_conflating_pull_has_the_newest_message_of_a_libzmq() {
    for transport in [Transport::Tcp, Transport::Ipc] {
        let place = Place::new(transport);
        let pull = PullSocket::builder().conflate(true).build().unwrap();
        let endpoint = within("sinew binds", pull.bind(place.endpoint())).await.unwrap().to_string();
        let push = Libzmq::new(zmq::PUSH);
        push.attach(Role::Connects, &endpoint);
        for n in 0..MESSAGES {
            push.push(&message(n));
        }
        until("all have come", || pull.stats().messages_received == MESSAGES as u64).await;
        assert_eq!(number_of(&within("sinew receives", pull.recv()).await.unwrap()), MESSAGES - 1);
        assert_eq!(pull.try_recv(), Err(TryRecvError::Empty));
        assert_eq!(pull.stats().messages_dropped, MESSAGES as u64 - 1);
    }
}

/// libzmq's conflating sockets know single frames only, and skip what they like: the last message comes in any case. Between the
/// look of one into its empty pipe and its rest a message can slip in unnoticed; the next one brings it out.
async fn the_last_one_comes(publisher: &PubSocket, subscriber: &Libzmq) {
    let send = async |n| within("sinew sends", publisher.send(numbered(n, 64))).await.unwrap();
    for n in 0..MESSAGES {
        send(n).await;
    }
    let mut before = None;
    let last = async {
        while before != Some(MESSAGES - 1) {
            match subscriber.pull_soon(Duration::from_secs(1)) {
                Some(message) => {
                    let next = number(&message);
                    assert!(Some(next) > before, "{next} comes after {before:?}");
                    before = Some(next);
                }
                None => {
                    assert!(publisher.stats().messages_sent >= MESSAGES as u64, "we have sent them all");
                    send(MESSAGES - 1).await;
                }
            }
        }
    };
    within("the last message", last).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_conflating_libzmq_sub_gets_our_last_message() {
    for transport in [Transport::Tcp, Transport::Ipc] {
        for policy in [SlowSubscriber::DropNewest, SlowSubscriber::KeepLatest] {
            let place = Place::new(transport);
            let publisher = PubSocket::builder().slow_subscriber(policy).build().unwrap();
            let endpoint = within("sinew binds", publisher.bind(place.endpoint())).await.unwrap().to_string();
            let socket = Libzmq::new(zmq::SUB);
            socket.set_conflate(true).unwrap();
            socket.set_subscribe(b"").unwrap();
            socket.attach(Role::Connects, &endpoint);
            within("it has subscribed", publisher.wait_subscribed("", 1)).await.unwrap();
            the_last_one_comes(&publisher, &socket).await;
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn our_sub_gets_the_last_message_of_a_conflating_libzmq_pub() {
    for transport in [Transport::Tcp, Transport::Ipc] {
        let place = Place::new(transport);
        let socket = Libzmq::new(zmq::PUB);
        socket.set_conflate(true).unwrap();
        let endpoint = socket.attach(Role::Binds, &place.endpoint());
        let mut publisher = Publisher::Libzmq(socket);
        let mut subscriber = Subscriber::new(Library::Sinew, interop::Kind::Plain);
        subscriber.subscribe("").await;
        subscriber.attach(Role::Connects, &endpoint).await;
        // A conflating PUB leaves out what it likes, so the beginning is told by what comes at all.
        let first = within("it is heard", async {
            loop {
                publisher.send(["heard?"]).await;
                let Subscribing::Plain(socket, _) = &subscriber.socket else { unreachable!("it is ours") };
                if let Ok(message) = tokio::time::timeout(Duration::from_millis(5), socket.recv()).await {
                    break message.unwrap();
                }
            }
        })
        .await;
        assert_eq!(&first[0], b"heard?");
        for n in 0..=MESSAGES {
            publisher.send(numbered(n, 64)).await;
        }
        let mut before = None;
        let last = async {
            while before != Some(MESSAGES) {
                let Subscribing::Plain(socket, _) = &subscriber.socket else { unreachable!("it is ours") };
                match tokio::time::timeout(Duration::from_secs(1), socket.recv()).await {
                    Ok(message) => {
                        let message = message.unwrap().iter().map(|frame| frame.to_vec()).collect::<Vec<_>>();
                        if message[0] != b"heard?" {
                            let next = number(&message);
                            assert!(Some(next) > before, "{next} comes after {before:?}");
                            before = Some(next);
                        }
                    }
                    Err(_) => publisher.send(numbered(MESSAGES, 64)).await,
                }
            }
        };
        within("the last message", last).await;
    }
}
