//! libzmq's heartbeats between publishers and subscribers: an idle connection, or one whose user rests, outlives them.

use std::time::Duration;

use interop::{
    Kind, Library, Libzmq, Place, Publisher, Role, Subscriber, Subscribing, Transport, numbered, until, within,
};
use sinew::{PubSocket, Stats, SubSocket};
use zmq::SocketEvent::{DISCONNECTED, HANDSHAKE_SUCCEEDED};

/// In milliseconds.
const INTERVAL: i32 = 50;
/// libzmq gives up a peer that has not answered for so long: far longer than an answer takes on a busy machine.
const TIMEOUT: i32 = 3_000;
/// So many PINGs take longer than that.
const PINGS: u64 = 70;

/// On the wire: flags, size, name with its length, and the time to live.
const PING: u64 = 2 + 5 + 2;
/// Without a context, as few bytes as an answer may have.
const PONG: u64 = 2 + 5;

fn beat(socket: &Libzmq) {
    socket.set_heartbeat_ivl(INTERVAL).unwrap();
    socket.set_heartbeat_timeout(TIMEOUT).unwrap();
    socket.set_heartbeat_ttl(TIMEOUT).unwrap();
}

/// Waits until so many PINGs have come that the connection would be closed if they had not been answered.
async fn outlive_the_timeout(stats: impl Fn() -> Stats) {
    let before = stats().bytes_received;
    until("the PINGs of several intervals", || stats().bytes_received >= before + PINGS * PING).await;
}

fn assert_one_connection(libzmq: &Libzmq) {
    let events = libzmq.past_events();
    let count = |wanted| events.iter().filter(|event| **event == wanted).count();
    assert_eq!((count(HANDSHAKE_SUCCEEDED), count(DISCONNECTED)), (1, 0), "{events:?}");
}

async fn an_idle_connection_keeps_its_subscriptions(publishes: Library, kind: Kind, role: Role, transport: Transport) {
    let place = Place::new(transport);
    let mut publisher = Publisher::new(publishes, kind);
    let mut subscriber = Subscriber::new(publishes.other(), kind);
    if let (Publisher::Libzmq(libzmq), _) | (_, Subscribing::Libzmq(libzmq)) = (&publisher, &subscriber.socket) {
        beat(libzmq);
    }
    interop::join(&mut publisher, &mut subscriber, role, &place).await;
    subscriber.subscribe("A").await;
    subscriber.settle(&mut publisher).await;
    match (&publisher, &subscriber.socket) {
        (Publisher::Plain(socket), _) => outlive_the_timeout(|| socket.stats()).await,
        (Publisher::Extended(socket), _) => outlive_the_timeout(|| socket.stats()).await,
        (_, Subscribing::Plain(socket, _)) => outlive_the_timeout(|| socket.stats()).await,
        (_, Subscribing::Extended(socket, _)) => outlive_the_timeout(|| socket.stats()).await,
        _ => unreachable!("one of the two is sinew's"),
    }
    publisher.send(["B"]).await;
    publisher.send(["A", "after a while"]).await;
    assert_eq!(subscriber.recv().await, [&b"A"[..], b"after a while"]);
    if let (Publisher::Libzmq(libzmq), _) | (_, Subscribing::Libzmq(libzmq)) = (&publisher, &subscriber.socket) {
        assert_one_connection(libzmq);
    }
}

macro_rules! matrix {
    ($($name:ident: $library:ident publishes, $kind:ident, $role:ident, $transport:ident;)+) => {$(
        #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
        async fn $name() {
            an_idle_connection_keeps_its_subscriptions(Library::$library, Kind::$kind, Role::$role, Transport::$transport).await;
        }
    )+};
}

matrix! {
    a_bound_pub_answers_over_tcp: Sinew publishes, Plain, Binds, Tcp;
    a_connecting_xpub_answers_over_ipc: Sinew publishes, Extended, Connects, Ipc;
    a_bound_sub_answers_over_ipc: Libzmq publishes, Plain, Connects, Ipc;
    a_connecting_xsub_answers_over_tcp: Libzmq publishes, Extended, Binds, Tcp;
}

/// The user reads nothing, the queue is full, and the publisher still gets its answers and its requests.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_sub_whose_queue_is_full_answers() {
    const MESSAGES: usize = 10;
    let publisher = Libzmq::new(zmq::XPUB);
    beat(&publisher);
    let sub = SubSocket::builder().receive_high_water_mark(1).build().unwrap();
    sub.connect(publisher.attach(Role::Binds, "tcp://127.0.0.1:*")).unwrap();
    sub.subscribe("");
    assert_eq!(publisher.pull(), [b"\x01"]);
    (0..MESSAGES).for_each(|n| publisher.push(&numbered(n, 64)));
    until("the messages have come", || sub.stats().messages_received == MESSAGES as u64).await;
    outlive_the_timeout(|| sub.stats()).await;
    sub.subscribe("later");
    assert_eq!(publisher.pull(), [b"\x01later"]);
    for n in 0..MESSAGES {
        let message = within("sinew receives", sub.recv()).await.unwrap();
        assert_eq!(message[0], numbered(n, 64)[0], "message {n}");
    }
    assert_one_connection(&publisher);
}

/// PINGs come in between the subscriptions and the answers in between the messages, and nothing is cut.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn heartbeats_do_not_get_into_messages_or_subscriptions() {
    const MESSAGES: usize = 50;
    const SIZE: usize = 1 << 20;
    for publishes in [Library::Sinew, Library::Libzmq] {
        let place = Place::new(Transport::Tcp);
        let mut publisher = Publisher::new(publishes, Kind::Plain);
        let mut subscriber = Subscriber::new(publishes.other(), Kind::Plain);
        if let (Publisher::Libzmq(libzmq), _) | (_, Subscribing::Libzmq(libzmq)) = (&publisher, &subscriber.socket) {
            libzmq.set_heartbeat_ivl(1).unwrap();
            libzmq.set_heartbeat_timeout(60_000).unwrap();
        }
        interop::join(&mut publisher, &mut subscriber, Role::Binds, &place).await;
        subscriber.subscribe("A").await;
        subscriber.settle(&mut publisher).await;
        let sending = tokio::spawn(async move {
            for n in 0..MESSAGES {
                publisher.send([b"A".to_vec(), vec![n as u8; SIZE], vec![n as u8]]).await;
            }
            publisher
        });
        for n in 0..MESSAGES {
            subscriber.subscribe(format!("A and not {n}")).await;
            let message = subscriber.recv().await;
            let sizes: Vec<_> = message.iter().map(Vec::len).collect();
            assert_eq!(sizes, [1, SIZE, 1], "the frames of message {n}");
            assert!(message[1..].concat().iter().all(|byte| *byte == n as u8), "message {n} is damaged");
        }
        let mut publisher = sending.await.expect("everything is sent");
        for n in 0..MESSAGES {
            subscriber.unsubscribe(format!("A and not {n}")).await;
        }
        subscriber.settle(&mut publisher).await;
        publisher.send(["A and not 7"]).await;
        assert_eq!(subscriber.recv().await, [b"A and not 7"]);
        subscriber.unsubscribe("A").await;
        subscriber.settle(&mut publisher).await;
        publisher.send(["A and not 7"]).await;
        subscriber.settle(&mut publisher).await;
        if let (Publisher::Libzmq(libzmq), _) | (_, Subscribing::Libzmq(libzmq)) = (&publisher, &subscriber.socket) {
            assert_one_connection(libzmq);
        }
    }
}

/// The limit on commands is one on their rate: a peer that stays below it may go on for ever.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn slow_heartbeats_are_no_flood_however_many() {
    const RATE: usize = 100;
    const SUBSCRIPTIONS: usize = 1;
    /// What may come at once, and half as much again.
    const MANY: u64 = (RATE + 2 * SUBSCRIPTIONS) as u64 * 3 / 2;
    let publisher =
        PubSocket::builder().max_commands_per_second(RATE).max_subscriptions(SUBSCRIPTIONS).build().unwrap();
    let endpoint = within("sinew binds", publisher.bind("tcp://127.0.0.1:*")).await.unwrap().to_string();
    let subscriber = Libzmq::new(zmq::SUB);
    // Fifty each second.
    subscriber.set_heartbeat_ivl(20).unwrap();
    subscriber.set_heartbeat_timeout(60_000).unwrap();
    subscriber.set_subscribe(b"A").unwrap();
    subscriber.attach(Role::Connects, &endpoint);
    within("it has subscribed", publisher.wait_subscribed("A", 1)).await.unwrap();
    let before = publisher.stats().bytes_received;
    until("many PINGs have come", || publisher.stats().bytes_received >= before + MANY * PING).await;
    assert_one_connection(&subscriber);
    publisher.send("A").await.unwrap();
    assert_eq!(subscriber.pull(), [b"A"]);
}

// --- ours -----------------------------------------------------------------------------------------------------------

const OURS: Duration = Duration::from_millis(50);
/// Far longer than an answer takes on a busy machine.
const PATIENCE: Duration = Duration::from_millis(1_500);

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_libzmq_that_rests_outlives_our_heartbeats() {
    const MESSAGES: usize = 300;
    let publisher = PubSocket::builder()
        .heartbeat_interval(OURS)
        .heartbeat_timeout(PATIENCE)
        .build()
        .expect("options that make sense");
    let endpoint = within("sinew binds", publisher.bind("tcp://127.0.0.1:*")).await.unwrap().to_string();
    let idle = Libzmq::new(zmq::SUB);
    idle.set_subscribe(b"end").unwrap();
    idle.attach(Role::Connects, &endpoint);
    let resting = Libzmq::new(zmq::SUB);
    // When its queue is full libzmq does not read on, and so answers nothing.
    resting.set_rcvhwm(10).unwrap();
    resting.set_subscribe(b"").unwrap();
    resting.attach(Role::Connects, &endpoint);
    within("both have subscribed", publisher.wait_subscribed("end", 2)).await.unwrap();
    for n in 0..MESSAGES {
        publisher.send([n.to_string().into_bytes(), vec![0; 1_000]]).await.unwrap();
    }
    // The idle one's answers tell the time: twice what a silent peer is given.
    let answers = u64::try_from(2 * PATIENCE.as_millis() / OURS.as_millis()).unwrap();
    let before = publisher.stats().bytes_received;
    until("many answers have come", || publisher.stats().bytes_received >= before + answers * PONG).await;
    publisher.send("end").await.unwrap();
    for n in 0..MESSAGES {
        assert_eq!(resting.pull()[0], n.to_string().into_bytes());
    }
    assert_eq!(resting.pull(), [b"end"]);
    assert_eq!(idle.pull(), [b"end"]);
    for libzmq in [&resting, &idle] {
        assert_one_connection(libzmq);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn libzmq_publishers_answer_our_heartbeats() {
    for kind in [zmq::PUB, zmq::XPUB] {
        let publisher = Libzmq::new(kind);
        let sub = SubSocket::builder()
            .heartbeat_interval(OURS)
            .heartbeat_timeout(PATIENCE)
            .heartbeat_ttl(PATIENCE)
            .build()
            .unwrap();
        sub.subscribe("A");
        sub.connect(publisher.attach(Role::Binds, "tcp://127.0.0.1:*")).unwrap();
        within("a publisher", sub.wait_connected(1)).await.unwrap();
        let answers = u64::try_from(2 * PATIENCE.as_millis() / OURS.as_millis()).unwrap();
        let before = sub.stats().bytes_received;
        until("many answers have come", || sub.stats().bytes_received >= before + answers * PONG).await;
        publisher.push(&vec![b"A".to_vec()]);
        assert_eq!(&within("sinew receives", sub.recv()).await.unwrap()[0], b"A");
        assert_one_connection(&publisher);
    }
}
