//! A libzmq process is killed in the middle of a stream: the socket lives on, and only what had left it is lost.

use std::collections::HashSet;
use std::time::Duration;

use interop::{
    Libzmq, Place, Process, Role, Transport, disconnect, handshake, number, numbered, settled, until, within,
};
use sinew::{Monitor, PullSocket, PushSocket};

const PROGRAM: &str = env!("CARGO_BIN_EXE_libzmq-peer");

const SIZE: usize = 8 * 1024;
const MARK: usize = 100;
/// So many messages the process reads before it rests.
const READS: usize = 20;

fn push_socket() -> (PushSocket, Monitor) {
    let push = PushSocket::builder()
        .send_high_water_mark(MARK)
        .kernel_send_buffer(64 * 1024)
        .reconnect_delay(Duration::from_millis(10), Duration::from_millis(100))
        .build()
        .unwrap();
    let monitor = push.monitor();
    (push, monitor)
}

/// Has the process read the first messages, and then sends until the queue is full and the kernel takes no more; gives
/// the number of messages that were taken.
async fn fill_but_for_reads(push: &PushSocket, process: &mut Process) -> usize {
    let mut next = 0;
    while next < READS {
        within("sinew sends", push.send(numbered(next, SIZE))).await.unwrap();
        next += 1;
    }
    assert_eq!(process.read(READS).await, Vec::from_iter(0..READS));
    let mut is_still = false;
    loop {
        assert!(next < 1_000, "messages are taken although nobody reads");
        match push.try_send(numbered(next, SIZE)) {
            Ok(()) => (next, is_still) = (next + 1, false),
            Err(_) if is_still => return next,
            Err(_) => {
                settled("nothing leaves any more", || push.stats().messages_sent).await;
                is_still = true;
            }
        }
    }
}

async fn the_next_peer_gets_what_had_not_left(transport: Transport) {
    let place = Place::new(transport);
    let (push, mut monitor) = push_socket();
    let endpoint = within("sinew binds", push.bind(place.endpoint())).await.unwrap().to_string();
    let mut process = Process::pull(PROGRAM, Role::Connects, &endpoint).await;
    within("a peer", push.wait_connected(1)).await.unwrap();
    let taken = fill_but_for_reads(&push, &mut process).await;

    process.kill().await;
    let returned = disconnect(&mut monitor).await;
    let stats = push.stats();
    let left = usize::try_from(stats.messages_sent).unwrap();
    assert!(returned > 0, "some were on their way to the kernel");
    assert_eq!(left + stats.outbound_messages, taken, "every message has left or is still there");
    assert_eq!(stats.outbound_messages, MARK + returned, "what had not left is back in the queue");

    let next = Libzmq::new(zmq::PULL);
    next.attach(Role::Connects, &endpoint);
    for n in left..taken {
        assert_eq!(number(&next.pull()), n, "the number of the next message");
    }
    within("sinew sends", push.send(numbered(taken, SIZE))).await.unwrap();
    assert_eq!(number(&next.pull()), taken);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_next_peer_gets_what_had_not_left_over_tcp() {
    the_next_peer_gets_what_had_not_left(Transport::Tcp).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_next_peer_gets_what_had_not_left_over_ipc() {
    the_next_peer_gets_what_had_not_left(Transport::Ipc).await;
}

async fn a_killed_listener_that_comes_back_gets_the_rest(transport: Transport) {
    let place = Place::new(transport);
    let (push, mut monitor) = push_socket();
    let mut process = Process::pull(PROGRAM, Role::Binds, &place.endpoint()).await;
    let endpoint = process.endpoint.clone();
    push.connect(&endpoint).unwrap();
    handshake(&mut monitor).await;
    let taken = fill_but_for_reads(&push, &mut process).await;

    process.kill().await;
    disconnect(&mut monitor).await;
    let left = usize::try_from(push.stats().messages_sent).unwrap();

    let mut again = Process::pull(PROGRAM, Role::Binds, &endpoint).await;
    handshake(&mut monitor).await;
    assert_eq!(again.read(taken - left).await, Vec::from_iter(left..taken));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_killed_listener_that_comes_back_gets_the_rest_over_tcp() {
    a_killed_listener_that_comes_back_gets_the_rest(Transport::Tcp).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_killed_listener_that_comes_back_gets_the_rest_over_ipc() {
    a_killed_listener_that_comes_back_gets_the_rest(Transport::Ipc).await;
}

async fn the_other_peer_gets_its_share(transport: Transport) {
    const MESSAGES: usize = 2_000;
    let place = Place::new(transport);
    let (push, mut monitor) = push_socket();
    let endpoint = within("sinew binds", push.bind(place.endpoint())).await.unwrap().to_string();
    let mut process = Process::pull(PROGRAM, Role::Connects, &endpoint).await;
    let other = Libzmq::new(zmq::PULL);
    other.set_rcvhwm(10).unwrap();
    other.attach(Role::Connects, &endpoint);
    within("two peers", push.wait_connected(2)).await.unwrap();

    let sender = {
        let push = push.clone();
        tokio::spawn(async move {
            for n in 0..MESSAGES {
                push.send(numbered(n, SIZE)).await.unwrap();
            }
        })
    };
    let mut at_other: Vec<_> = (0..MESSAGES / 2).map(|_| number(&other.pull())).collect();
    let at_process = process.read(READS).await;
    assert!(!sender.is_finished(), "the stream is in its middle");
    process.kill().await;
    disconnect(&mut monitor).await;

    // The stream goes on to the other peer alone; its last message ends the test.
    let end = {
        let push = push.clone();
        tokio::spawn(async move {
            sender.await.unwrap();
            until("the queue is empty", || push.stats().outbound_messages == 0).await;
            push.send(numbered(MESSAGES, SIZE)).await.unwrap();
        })
    };
    loop {
        match number(&other.pull()) {
            MESSAGES => break,
            n => at_other.push(n),
        }
    }
    end.await.unwrap();

    let distinct: HashSet<_> = at_other.iter().chain(&at_process).collect();
    assert_eq!(distinct.len(), at_other.len() + at_process.len(), "nothing comes twice");
    let lost = MESSAGES - distinct.len();
    // The process's queue, the kernel's buffers, and one message or so in between; not what sinew still had.
    let room = 10 + (2 * 64 + 2 * 64 + 256) * 1024 / SIZE;
    assert!(lost <= room, "{lost} messages are lost, {room} could be with the process or in the kernel");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_other_peer_gets_its_share_over_tcp() {
    the_other_peer_gets_its_share(Transport::Tcp).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_other_peer_gets_its_share_over_ipc() {
    the_other_peer_gets_its_share(Transport::Ipc).await;
}

async fn what_a_killed_push_had_sent_stays_readable(transport: Transport) {
    /// Several reads each, so that the last one is cut somewhere.
    const LARGE: usize = 300_000;
    let place = Place::new(transport);
    let pull = PullSocket::builder().receive_high_water_mark(10).build().unwrap();
    let mut monitor = pull.monitor();
    let endpoint = within("sinew binds", pull.bind(place.endpoint())).await.unwrap().to_string();
    let process = Process::push(PROGRAM, Role::Connects, &endpoint, LARGE).await;
    for n in 0..50 {
        let message = within("sinew receives", pull.recv()).await.unwrap();
        assert_eq!((number(&vec![message[0].to_vec()]), message.byte_len()), (n, LARGE), "the next message");
    }
    process.kill().await;

    // Reading goes on through what has come whole, up to the end of the stream.
    let (mut next, mut gone) = (50, false);
    while !gone || next < pull.stats().messages_received {
        tokio::select! {
            _ = disconnect(&mut monitor), if !gone => gone = true,
            message = within("sinew receives", pull.recv()) => {
                let message = message.unwrap();
                let number = number(&vec![message[0].to_vec()]);
                assert_eq!((number as u64, message.byte_len()), (next, LARGE), "the next message");
                next += 1;
            }
        }
    }

    let other = Libzmq::new(zmq::PUSH);
    other.attach(Role::Connects, &endpoint);
    other.push(&vec![b"next".to_vec()]);
    let message = within("sinew receives", pull.recv()).await.unwrap();
    assert_eq!(&message[0], b"next", "a part of a message of the process that was killed");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_a_killed_push_had_sent_stays_readable_over_tcp() {
    what_a_killed_push_had_sent_stays_readable(Transport::Tcp).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_a_killed_push_had_sent_stays_readable_over_ipc() {
    what_a_killed_push_had_sent_stays_readable(Transport::Ipc).await;
}
