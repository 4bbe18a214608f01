//! Peers that do not fit are refused with a reason, and a good peer on the same socket never notices.

use std::time::Duration;

use interop::{Libzmq, Place, Role, Transport, disconnect, event, handshake, number, numbered, within};
use sinew::{DisconnectReason, Event, Monitor, ProtocolError, PullSocket, PushSocket};
use zmq::SocketType::{DEALER, PAIR, PUB, PULL, PUSH, REP, REQ, ROUTER, SUB, XPUB, XSUB};

const ALL: [zmq::SocketType; 11] = [PAIR, PUB, SUB, REQ, REP, DEALER, ROUTER, PULL, PUSH, XPUB, XSUB];

/// Waits until a peer is refused; gives the reason.
async fn refusal(monitor: &mut Monitor) -> DisconnectReason {
    event(monitor, "a peer is refused", |event| match event {
        Event::HandshakeFailed { reason, .. } => Some(reason.clone()),
        _ => None,
    })
    .await
}

fn mismatch(ours: &'static str, theirs: zmq::SocketType) -> DisconnectReason {
    DisconnectReason::Protocol(ProtocolError::SocketTypeMismatch { ours, theirs: format!("{theirs:?}") })
}

async fn a_push_refuses_all_but_pulls(transport: Transport) {
    let place = Place::new(transport);
    let push = PushSocket::new();
    let mut monitor = push.monitor();
    let endpoint = within("sinew binds", push.bind(place.endpoint())).await.unwrap().to_string();
    let good = Libzmq::new(PULL);
    good.attach(Role::Connects, &endpoint);
    handshake(&mut monitor).await;

    for (n, wrong) in ALL.into_iter().filter(|wrong| *wrong != PULL).enumerate() {
        let bad = Libzmq::new(wrong);
        bad.attach(Role::Connects, &endpoint);
        assert_eq!(refusal(&mut monitor).await, mismatch("PUSH", wrong));
        for m in 10 * n..10 * (n + 1) {
            within("sinew sends", push.send(numbered(m, 64))).await.unwrap();
            assert_eq!(number(&good.pull()), m, "the number of the next message");
        }
    }
    assert_eq!(push.stats().peers, 1);
    assert_eq!(good.past_events().into_iter().filter(|event| *event == zmq::SocketEvent::DISCONNECTED).count(), 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_push_refuses_all_but_pulls_over_tcp() {
    a_push_refuses_all_but_pulls(Transport::Tcp).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_push_refuses_all_but_pulls_over_ipc() {
    a_push_refuses_all_but_pulls(Transport::Ipc).await;
}

async fn a_pull_refuses_all_but_pushes(transport: Transport) {
    let place = Place::new(transport);
    let pull = PullSocket::new();
    let mut monitor = pull.monitor();
    let endpoint = within("sinew binds", pull.bind(place.endpoint())).await.unwrap().to_string();
    let good = Libzmq::new(PUSH);
    good.attach(Role::Connects, &endpoint);
    handshake(&mut monitor).await;

    for (n, wrong) in ALL.into_iter().filter(|wrong| *wrong != PUSH).enumerate() {
        let bad = Libzmq::new(wrong);
        if wrong == SUB {
            bad.set_subscribe(b"").unwrap();
        }
        bad.attach(Role::Connects, &endpoint);
        assert_eq!(refusal(&mut monitor).await, mismatch("PULL", wrong));
        for m in 10 * n..10 * (n + 1) {
            good.push(&numbered(m, 64));
            let message = within("sinew receives", pull.recv()).await.unwrap();
            assert_eq!(number(&vec![message[0].to_vec()]), m, "the number of the next message");
        }
    }
    assert_eq!(pull.stats().peers, 1);
    assert_eq!(good.past_events().into_iter().filter(|event| *event == zmq::SocketEvent::DISCONNECTED).count(), 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_pull_refuses_all_but_pushes_over_tcp() {
    a_pull_refuses_all_but_pushes(Transport::Tcp).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_pull_refuses_all_but_pushes_over_ipc() {
    a_pull_refuses_all_but_pushes(Transport::Ipc).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_listener_of_the_wrong_type_is_tried_again_slowly_and_takes_no_message() {
    const LONGEST: Duration = Duration::from_secs(3);
    for transport in [Transport::Tcp, Transport::Ipc] {
        let place = Place::new(transport);
        let (wrong, good) = (Libzmq::new(PUB), Libzmq::new(PULL));
        let push = PushSocket::builder().reconnect_delay(Duration::from_millis(10), LONGEST).build().unwrap();
        let mut monitor = push.monitor();
        push.connect(wrong.attach(Role::Binds, &place.endpoint())).unwrap();
        assert_eq!(refusal(&mut monitor).await, mismatch("PUSH", PUB));
        let delay = event(&mut monitor, "it will be tried again", |event| match event {
            Event::ConnectRetried { delay, .. } => Some(*delay),
            _ => None,
        })
        .await;
        assert!(delay > LONGEST / 2, "after {delay:?}");

        push.connect(good.attach(Role::Binds, &place.endpoint())).unwrap();
        for n in 0..100 {
            within("sinew sends", push.send(numbered(n, 64))).await.unwrap();
        }
        for n in 0..100 {
            assert_eq!(number(&good.pull()), n, "the number of the next message");
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_plain_client_is_refused_and_a_null_client_is_not() {
    for transport in [Transport::Tcp, Transport::Ipc] {
        let place = Place::new(transport);
        let push = PushSocket::new();
        let mut monitor = push.monitor();
        let endpoint = within("sinew binds", push.bind(place.endpoint())).await.unwrap().to_string();
        let plain = Libzmq::new(PULL);
        plain.set_plain_username(Some("me")).unwrap();
        plain.set_plain_password(Some("secret")).unwrap();
        plain.attach(Role::Connects, &endpoint);
        // libzmq that has seen our greeting closes before it has shown its own mechanism, and sometimes its signature.
        let refused = DisconnectReason::Protocol(ProtocolError::GreetingRefused { ours: "NULL" });
        let reason = refusal(&mut monitor).await;
        assert!(reason == refused || reason == DisconnectReason::PeerClosed, "{reason:?}");

        let good = Libzmq::new(PULL);
        good.attach(Role::Connects, &endpoint);
        for n in 0..100 {
            within("sinew sends", push.send(numbered(n, 64))).await.unwrap();
        }
        for n in 0..100 {
            assert_eq!(number(&good.pull()), n, "the number of the next message");
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_plain_server_refuses_us_and_the_monitor_says_so() {
    for transport in [Transport::Tcp, Transport::Ipc] {
        let place = Place::new(transport);
        let server = Libzmq::new(PUSH);
        server.set_plain_server(true).unwrap();
        let pull = PullSocket::new();
        let mut monitor = pull.monitor();
        pull.connect(server.attach(Role::Binds, &place.endpoint())).unwrap();
        let expected = ProtocolError::MechanismMismatch { ours: "NULL", theirs: "PLAIN".into() };
        // libzmq may close the connection before it has named its mechanism; another attempt can find it out.
        within("the monitor names the mechanism", async {
            while refusal(&mut monitor).await != DisconnectReason::Protocol(expected.clone()) {}
        })
        .await;
        assert_eq!(pull.stats().peers, 0);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_message_over_the_limit_of_libzmq_costs_the_connection_and_nothing_else() {
    const LIMIT: usize = 1_000;
    for transport in [Transport::Tcp, Transport::Ipc] {
        let place = Place::new(transport);
        let pull = Libzmq::new(PULL);
        pull.set_maxmsgsize(LIMIT as i64).unwrap();
        let push = PushSocket::builder()
            .reconnect_delay(Duration::from_millis(10), Duration::from_millis(100))
            .build()
            .unwrap();
        let mut monitor = push.monitor();
        push.connect(pull.attach(Role::Binds, &place.endpoint())).unwrap();
        handshake(&mut monitor).await;
        within("sinew sends", push.send(numbered(1, LIMIT))).await.unwrap();
        assert_eq!(number(&pull.pull()), 1);

        within("sinew sends", push.send(numbered(2, LIMIT + 1))).await.unwrap();
        disconnect(&mut monitor).await;
        handshake(&mut monitor).await;
        within("sinew sends", push.send(numbered(3, LIMIT))).await.unwrap();
        assert_eq!(number(&pull.pull()), 3, "the number of the next message");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_message_over_our_limit_costs_that_libzmq_its_connection_and_nothing_else() {
    const LIMIT: usize = 1_000;
    for transport in [Transport::Tcp, Transport::Ipc] {
        let place = Place::new(transport);
        let pull = PullSocket::builder().max_message_size(LIMIT).build().unwrap();
        let mut monitor = pull.monitor();
        let endpoint = within("sinew binds", pull.bind(place.endpoint())).await.unwrap().to_string();
        let (good, bad) = (Libzmq::new(PUSH), Libzmq::new(PUSH));
        for push in [&good, &bad] {
            push.attach(Role::Connects, &endpoint);
            handshake(&mut monitor).await;
        }
        let receive = async |expected: usize| {
            let message = within("sinew receives", pull.recv()).await.unwrap();
            assert_eq!(number(&vec![message[0].to_vec()]), expected, "the number of the next message");
        };
        bad.push(&numbered(1, LIMIT));
        receive(1).await;
        // Two frames that are too large only together.
        bad.push(&[numbered(2, LIMIT), numbered(2, 8)].concat());
        let reason = event(&mut monitor, "a peer is lost", |event| match event {
            Event::Disconnected { reason, .. } => Some(reason.clone()),
            _ => None,
        })
        .await;
        let expected = ProtocolError::MessageTooLarge { size: LIMIT as u64 + 8, limit: LIMIT as u64 };
        assert_eq!(reason, DisconnectReason::Protocol(expected));
        good.push(&numbered(3, LIMIT));
        receive(3).await;
        // libzmq comes back by itself.
        handshake(&mut monitor).await;
        bad.push(&numbered(4, LIMIT));
        receive(4).await;
    }
}
