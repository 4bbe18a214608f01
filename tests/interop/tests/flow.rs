//! Back-pressure and closing: a reader that is slow holds the sender up and loses nothing.

use std::time::Duration;

use interop::{
    End, LIMIT, Library, Libzmq, Place, Process, Puller, Pusher, Role, Transport, event, number, numbered, settled,
    within,
};
use sinew::{Event, PullSocket, PushSocket, TrySendError};

/// For so long nobody reads.
const REST: Duration = Duration::from_millis(300);

/// Sends until the socket says that it is full and stays so; gives the number of messages it has taken.
async fn fill(push: &PushSocket, size: usize, bound: usize) -> usize {
    let (mut taken, mut is_still) = (0, false);
    loop {
        assert!(taken <= bound, "{taken} messages are taken although nobody reads");
        match push.try_send(numbered(taken, size)) {
            Ok(()) => (taken, is_still) = (taken + 1, false),
            Err(TrySendError::Full(_)) if is_still => return taken,
            Err(TrySendError::Full(_)) => {
                settled("nothing leaves any more", || push.stats().messages_sent).await;
                is_still = true;
            }
            Err(error) => panic!("{error}"),
        }
    }
}

async fn a_reader_that_rests_fills_the_sender(push_binds: bool, transport: Transport) {
    const SIZE: usize = 4096;
    const MARK: usize = 100;
    const KERNEL: usize = 64 * 1024;
    // Both queues; the kernel's buffers, which Linux doubles (IPC has the sender's default one); what the sender's
    // engine and libzmq hold between queue and kernel.
    const BOUND: usize = 2 * MARK + (2 * KERNEL + 2 * KERNEL + 512 * 1024 + 512 * 1024) / SIZE;

    let place = Place::new(transport);
    let push = PushSocket::builder().send_high_water_mark(MARK).kernel_send_buffer(KERNEL).build().unwrap();
    let pull = Libzmq::new(zmq::PULL);
    pull.set_rcvhwm(MARK as i32).unwrap();
    pull.set_rcvbuf(KERNEL as i32).unwrap();
    if push_binds {
        let endpoint = within("sinew binds", push.bind(place.endpoint())).await.unwrap();
        pull.attach(Role::Connects, &endpoint.to_string());
    } else {
        push.connect(pull.attach(Role::Binds, &place.endpoint())).unwrap();
    }
    within("a peer", push.wait_connected(1)).await.unwrap();

    let taken = fill(&push, SIZE, BOUND).await;
    assert!(taken >= 2 * MARK, "only {taken} messages are taken before it is full");
    assert_eq!(push.stats().outbound_messages, MARK, "the queue is full to the mark");
    assert_eq!(push.stats().messages_returned, 0);

    // Half of it makes room again, and the sender is woken.
    let more = {
        let push = push.clone();
        tokio::spawn(async move { push.send(numbered(taken, SIZE)).await })
    };
    for n in 0..=taken {
        assert_eq!(number(&pull.pull()), n, "the number of the next message");
    }
    within("the sender goes on", more).await.unwrap().unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_reader_that_rests_fills_a_bound_push_over_tcp() {
    a_reader_that_rests_fills_the_sender(true, Transport::Tcp).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_reader_that_rests_fills_a_bound_push_over_ipc() {
    a_reader_that_rests_fills_the_sender(true, Transport::Ipc).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_reader_that_rests_fills_a_connecting_push_over_tcp() {
    a_reader_that_rests_fills_the_sender(false, Transport::Tcp).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_reader_that_rests_fills_a_connecting_push_over_ipc() {
    a_reader_that_rests_fills_the_sender(false, Transport::Ipc).await;
}

/// The other way round: a libzmq PUSH has to wait for a sinew PULL whose user rests.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_pull_that_rests_fills_a_libzmq_push() {
    const SIZE: usize = 4096;
    const MARK: usize = 100;
    const KERNEL: usize = 64 * 1024;
    const BOUND: usize = 2 * MARK + (2 * KERNEL + 2 * KERNEL + 512 * 1024 + 512 * 1024) / SIZE;

    for transport in [Transport::Tcp, Transport::Ipc] {
        let place = Place::new(transport);
        let pull = PullSocket::builder().receive_high_water_mark(MARK).kernel_receive_buffer(KERNEL).build().unwrap();
        let endpoint = within("sinew binds", pull.bind(place.endpoint())).await.unwrap();
        let push = Libzmq::new(zmq::PUSH);
        push.set_sndhwm(MARK as i32).unwrap();
        push.set_sndbuf(KERNEL as i32).unwrap();
        push.attach(Role::Connects, &endpoint.to_string());
        within("a peer", pull.wait_connected(1)).await.unwrap();
        let (mut taken, mut is_still) = (0, false);
        loop {
            assert!(taken <= BOUND, "{taken} messages are taken although nobody reads");
            if push.send_multipart(numbered(taken, SIZE), zmq::DONTWAIT).is_ok() {
                (taken, is_still) = (taken + 1, false);
            } else if is_still {
                break;
            } else {
                settled("nothing comes any more", || pull.stats().bytes_received).await;
                is_still = true;
            }
        }
        assert_eq!(pull.stats().inbound_messages, MARK, "the queue is full to the mark");
        for n in 0..taken {
            let message = within("sinew receives", pull.recv()).await.unwrap();
            assert_eq!(number(&vec![message[0].to_vec()]), n, "the number of the next message");
        }
    }
}

// --- closing --------------------------------------------------------------------------------------------------------

/// More than all queues and the kernel hold, with some large ones among them.
const MESSAGES: usize = 50_000;

fn size(n: usize) -> usize {
    if n % 5_000 == 0 { 1 << 20 } else { 64 }
}

/// Everything that was sent before `close` arrives, however slowly it is read, and close says so.
async fn close_delivers(binder: End, transport: Transport) {
    let place = Place::new(transport);
    let push = PushSocket::builder().send_high_water_mark(0).linger(LIMIT).build().unwrap();
    let mut monitor = push.monitor();
    let mut pull = Puller::new(Library::Libzmq);
    if binder == End::Push {
        let endpoint = within("sinew binds", push.bind(place.endpoint())).await.unwrap();
        pull.attach(Role::Connects, &endpoint.to_string()).await;
    } else {
        push.connect(pull.attach(Role::Binds, &place.endpoint()).await).unwrap();
    }
    interop::handshake(&mut monitor).await;
    for n in 0..MESSAGES {
        push.send(numbered(n, size(n))).await.unwrap();
    }
    let closing = tokio::spawn(async move { push.close().await });
    for n in 0..MESSAGES {
        assert_eq!(number(&pull.recv().await), n, "the number of the next message");
    }
    let closed = within("sinew closes", closing).await.unwrap().unwrap();
    assert_eq!(closed.unsent, 0, "{closed:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn close_delivers_from_a_bound_push_over_tcp() {
    close_delivers(End::Push, Transport::Tcp).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn close_delivers_from_a_bound_push_over_ipc() {
    close_delivers(End::Push, Transport::Ipc).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn close_delivers_from_a_connecting_push_over_tcp() {
    close_delivers(End::Pull, Transport::Tcp).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn close_delivers_from_a_connecting_push_over_ipc() {
    close_delivers(End::Pull, Transport::Ipc).await;
}

/// What the kernel has taken when the socket is closed arrives, although libzmq has stopped reading by then.
async fn close_delivers_to_a_reader_that_rests(transport: Transport) {
    const MESSAGES: usize = 1_000;
    let place = Place::new(transport);
    let push = PushSocket::builder().linger(LIMIT).build().unwrap();
    let pull = Libzmq::new(zmq::PULL);
    pull.set_rcvhwm(10).unwrap();
    push.connect(pull.attach(Role::Binds, &place.endpoint())).unwrap();
    within("a peer", push.wait_connected(1)).await.unwrap();
    for n in 0..MESSAGES {
        push.send(numbered(n, 64)).await.unwrap();
    }
    let mut closing = tokio::spawn(async move { push.close().await });
    // It may be over when the kernel has taken everything, or wait for the peer to have it.
    let early = tokio::time::timeout(REST, &mut closing).await.ok();
    for n in 0..MESSAGES {
        assert_eq!(number(&pull.pull()), n, "the number of the next message");
    }
    let closed = match early {
        Some(closed) => closed,
        None => within("sinew closes", closing).await,
    };
    let closed = closed.unwrap().unwrap();
    assert_eq!(closed.unsent, 0, "{closed:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn close_delivers_to_a_reader_that_rests_over_tcp() {
    close_delivers_to_a_reader_that_rests(Transport::Tcp).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn close_delivers_to_a_reader_that_rests_over_ipc() {
    close_delivers_to_a_reader_that_rests(Transport::Ipc).await;
}

/// The same with a peer whose PINGs come when the socket is being closed. It is a process of its own, because libzmq ends
/// the whole process if it finds its connection broken at the time of a heartbeat while its own queue is full.
async fn close_delivers_to_a_reader_with_heartbeats(transport: Transport) {
    const MESSAGES: usize = 1_000;
    const INTERVAL: Duration = Duration::from_millis(10);
    let place = Place::new(transport);
    let push = PushSocket::builder().linger(LIMIT).build().unwrap();
    let program = env!("CARGO_BIN_EXE_libzmq-peer");
    let mut pull = Process::pull_with_heartbeat(program, Role::Binds, &place.endpoint(), INTERVAL).await;
    push.connect(&pull.endpoint).unwrap();
    within("a peer", push.wait_connected(1)).await.unwrap();
    for n in 0..MESSAGES {
        push.send(numbered(n, 128)).await.unwrap();
    }
    let mut closing = tokio::spawn(async move { push.close().await });
    // Many heartbeats go by.
    let early = tokio::time::timeout(REST, &mut closing).await.ok();
    assert_eq!(pull.read(MESSAGES).await, Vec::from_iter(0..MESSAGES));
    let closed = match early {
        Some(closed) => closed,
        None => within("sinew closes", closing).await,
    };
    let closed = closed.unwrap().unwrap();
    assert_eq!(closed.unsent, 0, "{closed:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn close_delivers_to_a_reader_with_heartbeats_over_tcp() {
    close_delivers_to_a_reader_with_heartbeats(Transport::Tcp).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn close_delivers_to_a_reader_with_heartbeats_over_ipc() {
    close_delivers_to_a_reader_with_heartbeats(Transport::Ipc).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn dropping_the_last_handle_delivers_as_well() {
    for transport in [Transport::Tcp, Transport::Ipc] {
        let place = Place::new(transport);
        let mut pull = Puller::new(Library::Libzmq);
        let push = PushSocket::builder().send_high_water_mark(0).linger(LIMIT).build().unwrap();
        push.connect(pull.attach(Role::Binds, &place.endpoint()).await).unwrap();
        for n in 0..MESSAGES {
            push.send(numbered(n, 64)).await.unwrap();
        }
        drop(push);
        for n in 0..MESSAGES {
            assert_eq!(number(&pull.recv().await), n, "the number of the next message");
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn close_waits_for_a_peer_that_comes_later() {
    for transport in [Transport::Tcp, Transport::Ipc] {
        let place = Place::new(transport);
        let mut first = Puller::new(Library::Libzmq);
        let endpoint = first.attach(Role::Binds, &place.endpoint()).await;
        first.close().await;

        let push = PushSocket::builder()
            .linger(LIMIT)
            .reconnect_delay(Duration::from_millis(10), Duration::from_millis(50))
            .build()
            .unwrap();
        let mut monitor = push.monitor();
        push.connect(&endpoint).unwrap();
        for n in 0..100 {
            push.send(numbered(n, 64)).await.unwrap();
        }
        let closing = tokio::spawn(async move { push.close().await });
        let retried = |event: &Event| matches!(event, Event::ConnectRetried { .. }).then_some(());
        event(&mut monitor, "nobody is there yet", retried).await;
        event(&mut monitor, "nobody is there yet", retried).await;
        assert!(!closing.is_finished(), "it lingers");

        let mut late = Puller::new(Library::Libzmq);
        late.attach(Role::Binds, &endpoint).await;
        for n in 0..100 {
            assert_eq!(number(&late.recv().await), n, "the number of the next message");
        }
        let closed = within("sinew closes", closing).await.unwrap().unwrap();
        assert_eq!((closed.flushed, closed.unsent), (100, 0));
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_a_libzmq_push_leaves_behind_is_all_received() {
    for transport in [Transport::Tcp, Transport::Ipc] {
        let place = Place::new(transport);
        let mut pull = Puller::new(Library::Sinew);
        let mut push = Pusher::new(Library::Libzmq);
        let endpoint = pull.attach(Role::Binds, &place.endpoint()).await;
        push.attach(Role::Connects, &endpoint).await;
        let sender = tokio::spawn(async move {
            for n in 0..10_000 {
                push.send(&numbered(n, 64)).await;
            }
            push.close().await;
        });
        for n in 0..10_000 {
            assert_eq!(number(&pull.recv().await), n, "the number of the next message");
        }
        within("libzmq closes", sender).await.unwrap();
        pull.close().await;
    }
}
