//! Forwarders: ours between libzmq's publishers and subscribers, libzmq's between ours.

use std::thread::JoinHandle;

use interop::{Kind, Library, Libzmq, Place, Publisher, Role, Subscriber, Transport, number, numbered, within};
use sinew::{Proxy, PullSocket, PushSocket, SubSocket, XPubSocket, XSubSocket};

const EACH: usize = 2_000;

/// A forwarder of either library, from where publishers connect to where subscribers do.
enum Forwarder {
    Sinew { proxy: sinew::ProxyHandle, sockets: (XSubSocket, XPubSocket) },
    Libzmq { control: zmq::Socket, thread: JoinHandle<()> },
}

impl Forwarder {
    async fn new(library: Library, place: &Place) -> (Self, [String; 2]) {
        match library {
            Library::Sinew => Self::sinew(place).await,
            Library::Libzmq => Self::libzmq(place),
        }
    }

    async fn sinew(place: &Place) -> (Self, [String; 2]) {
        let frontend = XSubSocket::builder().receive_high_water_mark(0).build().unwrap();
        let backend = XPubSocket::builder().send_high_water_mark(0).build().unwrap();
        let endpoints = [
            within("sinew binds", frontend.bind(place.endpoint())).await.unwrap().to_string(),
            within("sinew binds", backend.bind(place.endpoint())).await.unwrap().to_string(),
        ];
        let proxy = Proxy::new(&frontend, &backend).start();
        (Self::Sinew { proxy, sockets: (frontend, backend) }, endpoints)
    }

    fn libzmq(place: &Place) -> (Self, [String; 2]) {
        let context = zmq::Context::new();
        let [mut frontend, mut backend, mut steered, control] =
            [zmq::XSUB, zmq::XPUB, zmq::PAIR, zmq::PAIR].map(|kind| {
                let socket = context.socket(kind).unwrap();
                socket.set_linger(0).unwrap();
                socket.set_sndhwm(0).unwrap();
                socket.set_rcvhwm(0).unwrap();
                socket
            });
        steered.bind("inproc://control").unwrap();
        control.connect("inproc://control").unwrap();
        let endpoints = [&frontend, &backend].map(|socket| {
            socket.bind(&place.endpoint()).unwrap();
            socket.get_last_endpoint().unwrap().unwrap()
        });
        let thread = std::thread::spawn(move || {
            zmq::proxy_steerable(&mut frontend, &mut backend, &mut steered).expect("it is told to end");
        });
        (Self::Libzmq { control, thread }, endpoints)
    }

    async fn stop(self) {
        match self {
            Self::Sinew { proxy, sockets: (frontend, backend) } => {
                within("the proxy stops", proxy.stop()).await;
                within("sinew closes", frontend.close()).await.unwrap();
                within("sinew closes", backend.close()).await.unwrap();
            }
            Self::Libzmq { control, thread } => tokio::task::block_in_place(|| {
                control.send("TERMINATE", 0).unwrap();
                thread.join().unwrap();
            }),
        }
    }
}

/// Two publishers and two subscribers of the other library, all of which connect.
async fn a_forwarder_joins_many(forwards: Library, transport: Transport, kinds: [Kind; 2]) {
    let place = Place::new(transport);
    let (forwarder, [frontend, backend]) = Forwarder::new(forwards, &place).await;
    let mut publishers = [(); 2].map(|()| Publisher::new(forwards.other(), kinds[0]));
    let mut subscribers = [(); 2].map(|()| Subscriber::new(forwards.other(), kinds[1]));
    for publisher in &mut publishers {
        publisher.attach(Role::Connects, &frontend).await;
    }
    for subscriber in &mut subscribers {
        subscriber.attach(Role::Connects, &backend).await;
    }
    // What they want goes back to the publishers: the first one wants the evens of both, the second one all of one.
    let [first, second] = &mut subscribers;
    for topic in ["0 even", "1 even", "both"] {
        first.subscribe(topic).await;
    }
    for topic in ["1", "both"] {
        second.subscribe(topic).await;
    }
    for subscriber in &mut subscribers {
        for publisher in &mut publishers {
            subscriber.settle(publisher).await;
        }
    }
    for n in 0..EACH {
        for (number, publisher) in publishers.iter_mut().enumerate() {
            let parity = if n % 2 == 0 { "even" } else { "odd" };
            let mut message = vec![format!("{number} {parity}").into_bytes()];
            message.extend(numbered(n, 64));
            publisher.send(message).await;
        }
    }
    for publisher in &mut publishers {
        publisher.send(["both", "end"]).await;
    }
    let [first, second] = &mut subscribers;
    let (mut next, mut ends) = ([0; 2], 0);
    while ends < 2 {
        let message = first.recv().await;
        match &message[0][..] {
            b"both" => ends += 1,
            topic => {
                let publisher = usize::from(topic[0] - b'0');
                assert_eq!(topic[1..], *b" even");
                assert_eq!(number(&message[1..].to_vec()), next[publisher], "the next message of {publisher}");
                next[publisher] += 2;
            }
        }
    }
    assert_eq!(next, [EACH; 2]);
    let (mut next, mut ends) = (0, 0);
    while ends < 2 {
        let message = second.recv().await;
        match &message[0][..] {
            b"both" => ends += 1,
            topic => {
                assert_eq!(topic, if next % 2 == 0 { &b"1 even"[..] } else { b"1 odd" });
                assert_eq!(number(&message[1..].to_vec()), next, "the next message");
                next += 1;
            }
        }
    }
    assert_eq!(next, EACH);

    // A cancellation goes all the way as well, but only when nobody wants the topic any more.
    first.unsubscribe("both").await;
    second.unsubscribe("1").await;
    for subscriber in &mut subscribers {
        for publisher in &mut publishers {
            subscriber.settle(publisher).await;
        }
    }
    for publisher in &mut publishers {
        for topic in ["0 even", "1 even", "1 odd", "both"] {
            publisher.send([topic]).await;
        }
    }
    let [first, second] = &mut subscribers;
    let mut evens = Vec::new();
    for _ in 0..4 {
        evens.extend(first.recv().await);
    }
    evens.sort_unstable();
    assert_eq!(evens, [&b"0 even"[..], b"0 even", b"1 even", b"1 even"]);
    for _ in 0..2 {
        assert_eq!(second.recv().await, [b"both"]);
    }
    for subscriber in &mut subscribers {
        for publisher in &mut publishers {
            subscriber.settle(publisher).await;
        }
    }
    for publisher in publishers {
        publisher.close().await;
    }
    for subscriber in subscribers {
        subscriber.close().await;
    }
    forwarder.stop().await;
}

macro_rules! matrix {
    ($($name:ident: $library:ident forwards over $transport:ident;)+) => {$(
        #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
        async fn $name() {
            for publishers in [Kind::Plain, Kind::Extended] {
                a_forwarder_joins_many(Library::$library, Transport::$transport, [publishers, Kind::Plain]).await;
            }
        }
    )+};
}

matrix! {
    our_proxy_joins_libzmqs_over_tcp: Sinew forwards over Tcp;
    our_proxy_joins_libzmqs_over_ipc: Sinew forwards over Ipc;
    libzmqs_proxy_joins_ours_over_tcp: Libzmq forwards over Tcp;
    libzmqs_proxy_joins_ours_over_ipc: Libzmq forwards over Ipc;
}

/// Requests and words of a libzmq XSUB behind our proxy reach a libzmq XPUB before it.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn our_proxy_hands_upstream_messages_on() {
    let place = Place::new(Transport::Ipc);
    let (forwarder, [frontend, backend]) = Forwarder::new(Library::Sinew, &place).await;
    let xpub = Libzmq::new(zmq::XPUB);
    xpub.attach(Role::Connects, &frontend);
    let xsub = Libzmq::new(zmq::XSUB);
    xsub.attach(Role::Connects, &backend);
    let Forwarder::Sinew { sockets, .. } = &forwarder else { unreachable!("it is ours") };
    within("a publisher", sockets.0.wait_connected(1)).await.unwrap();
    xsub.push(&vec![b"\x01A".to_vec()]);
    assert_eq!(xpub.pull(), [b"\x01A"]);
    xsub.push(&vec![b"a word".to_vec(), b"more".to_vec()]);
    assert_eq!(xpub.pull(), [&b"a word"[..], b"more"]);
    xpub.push(&vec![b"A".to_vec(), vec![b'.'; 1 << 20]]);
    assert_eq!(xsub.pull(), [b"A".to_vec(), vec![b'.'; 1 << 20]]);
    xsub.push(&vec![b"\x00A".to_vec()]);
    assert_eq!(xpub.pull(), [b"\x00A"]);
    // A publisher that comes late is told what is wanted.
    xsub.push(&vec![b"\x01B".to_vec()]);
    assert_eq!(xpub.pull(), [b"\x01B"]);
    let late = Libzmq::new(zmq::XPUB);
    late.attach(Role::Connects, &frontend);
    assert_eq!(late.pull(), [b"\x01B"]);
    tokio::task::block_in_place(|| drop(xsub));
    assert_eq!(xpub.pull(), [b"\x00B"]);
    assert_eq!(late.pull(), [b"\x00B"]);
    forwarder.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn our_proxy_streams_between_libzmqs_and_captures() {
    let place = Place::new(Transport::Tcp);
    let (frontend, backend, capture) = (PullSocket::new(), PushSocket::new(), PushSocket::new());
    let from = within("sinew binds", frontend.bind(place.endpoint())).await.unwrap().to_string();
    let to = within("sinew binds", backend.bind(place.endpoint())).await.unwrap().to_string();
    let seen = within("sinew binds", capture.bind(place.endpoint())).await.unwrap().to_string();
    let proxy = Proxy::new(&frontend, &backend).capture(&capture).start();
    let [pull, observer] = [&to, &seen].map(|endpoint| {
        let socket = Libzmq::new(zmq::PULL);
        socket.attach(Role::Connects, endpoint);
        socket
    });
    let push = Libzmq::new(zmq::PUSH);
    push.attach(Role::Connects, &from);
    let sending = tokio::spawn(async move {
        for n in 0..EACH {
            push.push(&[numbered(n, 64), vec![vec![1]]].concat());
        }
        push
    });
    for n in 0..EACH {
        for socket in [&pull, &observer] {
            let message = socket.pull();
            assert_eq!((number(&message[..1].to_vec()), &message[1..]), (n, &[vec![1]][..]), "the next message");
        }
    }
    let _push = within("everything is sent", sending).await.unwrap();
    let counters = within("the proxy stops", proxy.stop()).await;
    assert_eq!(counters.frontend_to_backend.messages, EACH as u64);
    assert_eq!(counters.frontend_to_backend.bytes, (EACH * 65) as u64);
    assert_eq!(counters.backend_to_frontend.messages, 0);
}

/// Nothing is counted twice or forgotten: what libzmqs have sent through it, and asked for.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn our_proxy_counts_what_libzmqs_have_sent() {
    let place = Place::new(Transport::Tcp);
    let (forwarder, [frontend, backend]) = Forwarder::new(Library::Sinew, &place).await;
    let Forwarder::Sinew { proxy, sockets } = forwarder else { unreachable!("it is ours") };
    let xpub = Libzmq::new(zmq::XPUB);
    xpub.set_sndhwm(0).unwrap();
    xpub.attach(Role::Connects, &frontend);
    within("a publisher", sockets.0.wait_connected(1)).await.unwrap();
    let sub = SubSocket::new();
    sub.subscribe("A");
    sub.subscribe("BB");
    sub.connect(&backend).unwrap();
    let mut asked = [xpub.pull(), xpub.pull()];
    asked.sort_unstable();
    assert_eq!(asked, [[b"\x01A".to_vec()], [b"\x01BB".to_vec()]]);
    for n in 0..EACH {
        xpub.push(&vec![b"A".to_vec(), vec![0; n % 10]]);
        xpub.push(&vec![b"Z".to_vec()]);
    }
    for _ in 0..EACH {
        within("sinew receives", sub.recv()).await.unwrap();
    }
    let counters = within("the proxy stops", proxy.stop()).await;
    assert_eq!(counters.frontend_to_backend.messages, EACH as u64);
    assert_eq!(counters.frontend_to_backend.bytes, (EACH + EACH / 10 * 45) as u64);
    assert_eq!((counters.backend_to_frontend.messages, counters.backend_to_frontend.bytes), (2, 5));
}
