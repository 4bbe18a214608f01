//! libzmq's heartbeats are answered: an idle connection, or one that waits for its user, outlives the timeout.

use std::time::Duration;

use interop::{End, Library, Libzmq, Place, Puller, Pusher, Role, Transport, numbered, until, within};
use sinew::{PullSocket, Stats};
use zmq::SocketEvent::{DISCONNECTED, HANDSHAKE_SUCCEEDED};

/// In milliseconds.
const INTERVAL: i32 = 50;
/// libzmq gives up a peer that has not answered for so long: far longer than an answer takes on a busy machine.
const TIMEOUT: i32 = 3_000;
/// So many PINGs take longer than that.
const PINGS: u64 = 70;

/// On the wire: flags, size, name with its length, and the time to live.
const PING: u64 = 2 + 5 + 2;

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

async fn an_idle_connection_stays(pushes: Library, binder: End, transport: Transport) {
    let place = Place::new(transport);
    let (mut pusher, mut puller) = (Pusher::new(pushes), Puller::new(pushes.other()));
    match (&pusher, &puller) {
        (Pusher::Libzmq(libzmq), _) | (_, Puller::Libzmq(libzmq)) => beat(libzmq),
        _ => unreachable!("one of the two is libzmq's"),
    }
    interop::meet(&mut pusher, &mut puller, binder, &place).await;
    let message = numbered(1, 64);
    pusher.send(&message).await;
    assert_eq!(puller.recv().await, message);
    match (&pusher, &puller) {
        (Pusher::Sinew(socket, _), _) => outlive_the_timeout(|| socket.stats()).await,
        (_, Puller::Sinew(socket)) => outlive_the_timeout(|| socket.stats()).await,
        _ => unreachable!("one of the two is sinew's"),
    }
    let message = numbered(2, 64);
    pusher.send(&message).await;
    assert_eq!(puller.recv().await, message);
    match (&pusher, &puller) {
        (Pusher::Libzmq(libzmq), _) | (_, Puller::Libzmq(libzmq)) => assert_one_connection(libzmq),
        _ => unreachable!("one of the two is libzmq's"),
    }
}

macro_rules! matrix {
    ($($name:ident: $library:ident pushes, $binder:ident binds, $transport:ident;)+) => {$(
        #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
        async fn $name() {
            an_idle_connection_stays(Library::$library, End::$binder, Transport::$transport).await;
        }
    )+};
}

matrix! {
    a_bound_push_answers_over_tcp: Sinew pushes, Push binds, Tcp;
    a_connecting_push_answers_over_ipc: Sinew pushes, Pull binds, Ipc;
    a_bound_pull_answers_over_ipc: Libzmq pushes, Pull binds, Ipc;
    a_connecting_pull_answers_over_tcp: Libzmq pushes, Push binds, Tcp;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_pull_whose_queue_is_full_answers() {
    const MESSAGES: usize = 10;
    let pull = PullSocket::builder().receive_high_water_mark(1).build().unwrap();
    let endpoint = within("sinew binds", pull.bind("tcp://127.0.0.1:*")).await.unwrap().to_string();
    let push = Libzmq::new(zmq::PUSH);
    beat(&push);
    push.attach(Role::Connects, &endpoint);
    (0..MESSAGES).for_each(|n| push.push(&numbered(n, 64)));
    until("the messages have come", || pull.stats().messages_received == MESSAGES as u64).await;
    outlive_the_timeout(|| pull.stats()).await;
    for n in 0..MESSAGES {
        let message = within("sinew receives", pull.recv()).await.unwrap();
        assert_eq!(message[0], numbered(n, 64)[0], "message {n}");
    }
    assert_one_connection(&push);
    within("sinew closes", pull.close()).await.unwrap();
}

/// A large message takes its time; the heartbeats in between do not cut it.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn answers_do_not_get_into_messages() {
    const MESSAGES: usize = 300;
    const SIZE: usize = 1 << 20;
    let place = Place::new(Transport::Tcp);
    let mut pusher = Pusher::new(Library::Sinew);
    let pull = Libzmq::new(zmq::PULL);
    pull.set_heartbeat_ivl(1).unwrap();
    pull.set_heartbeat_timeout(i32::try_from(Duration::from_secs(60).as_millis()).unwrap()).unwrap();
    let endpoint = pull.attach(Role::Binds, &place.endpoint());
    pusher.attach(Role::Connects, &endpoint).await;
    let Pusher::Sinew(socket, _) = &pusher else { unreachable!("it is sinew's") };
    let socket = socket.clone();
    let sender = tokio::spawn(async move {
        for n in 0..MESSAGES {
            pusher.send(&[numbered(n, SIZE), numbered(n, 64)].concat()).await;
        }
        pusher
    });
    for n in 0..MESSAGES {
        let message = pull.pull();
        let sizes: Vec<_> = message.iter().map(Vec::len).collect();
        assert_eq!(sizes, [SIZE, 64], "the frames of message {n}");
        assert!(message.iter().all(|frame| frame[..8] == (n as u64).to_be_bytes()), "message {n} is damaged");
    }
    sender.await.unwrap();
    assert!(socket.stats().bytes_received > 10 * PING, "heartbeats have come meanwhile");
    assert_one_connection(&pull);
}
