//! What our XPUB reports of libzmq's subscribers, and what it may send to them.

use std::collections::BTreeSet;

use interop::{Frames, Kind, Libzmq, Place, Role, Transport, until, within};
use sinew::{PeerId, PubSocket, XPubBuilder, XPubEvent, XPubSocket};

fn frames(message: &sinew::Message) -> Frames {
    message.iter().map(|frame| frame.to_vec()).collect()
}

async fn recv(xpub: &XPubSocket) -> Frames {
    frames(&within("sinew receives", xpub.recv()).await.unwrap())
}

/// A libzmq subscriber of either type.
struct Asker {
    socket: Libzmq,
    name: &'static str,
    fences: usize,
}

impl Asker {
    fn new(kind: Kind, name: &'static str, endpoint: &str) -> Self {
        let socket = Libzmq::new(if kind == Kind::Plain { zmq::SUB } else { zmq::XSUB });
        // Or it would lose all subscriptions but the first thousand.
        socket.set_sndhwm(0).unwrap();
        socket.attach(Role::Connects, endpoint);
        Self { socket, name, fences: 0 }
    }

    fn is_plain(&self) -> bool {
        self.socket.get_socket_type() == Ok(zmq::SUB)
    }

    fn subscribe(&self, topic: &str) {
        match self.is_plain() {
            true => self.socket.set_subscribe(topic.as_bytes()).unwrap(),
            false => self.socket.push(&vec![[b"\x01", topic.as_bytes()].concat()]),
        }
    }

    fn unsubscribe(&self, topic: &str) {
        match self.is_plain() {
            true => self.socket.set_unsubscribe(topic.as_bytes()).unwrap(),
            false => self.socket.push(&vec![[b"\x00", topic.as_bytes()].concat()]),
        }
    }

    /// What has been reported of everything that it has asked for up to now: whatever it asks next comes after that.
    async fn reported(&mut self, xpub: &XPubSocket) -> Vec<String> {
        self.fences += 1;
        let fence = format!("{} {}", self.name, self.fences);
        self.subscribe(&fence);
        let fence = format!("\x01{fence}");
        let mut requests = Vec::new();
        loop {
            let request = String::from_utf8(recv(xpub).await.concat()).unwrap();
            if request == fence {
                return requests;
            }
            requests.push(request);
        }
    }

    /// It goes; gives what is reported of that, but for the fences.
    async fn goes(self, xpub: &XPubSocket, topics: usize) -> Vec<String> {
        let (name, count) = (self.name, self.fences + topics);
        tokio::task::block_in_place(|| drop(self.socket));
        let mut requests = Vec::new();
        for _ in 0..count {
            let request = String::from_utf8(recv(xpub).await.concat()).unwrap();
            if !request[1..].starts_with(name) {
                requests.push(request);
            }
        }
        requests.sort_unstable();
        requests
    }
}

/// What an XPUB reports is the table of the ways to be verbose: the columns are default, verbose, verboser.
async fn reports(column: usize, builder: XPubBuilder) {
    const ASKED: &str = "\x01T";
    const CANCELLED: &str = "\x00T";
    for transport in [Transport::Tcp, Transport::Ipc] {
        for kind in [Kind::Plain, Kind::Extended] {
            let check = |what: &str, requests: Vec<String>, table: [&[&str]; 3]| {
                assert_eq!(requests, table[column], "{what}, {kind:?} over {transport:?}");
            };
            let place = Place::new(transport);
            let xpub = builder.clone().build().unwrap();
            let endpoint = within("sinew binds", xpub.bind(place.endpoint())).await.unwrap().to_string();
            let (mut a, mut b) = (Asker::new(kind, "a", &endpoint), Asker::new(kind, "b", &endpoint));
            assert_eq!((a.reported(&xpub).await.len(), b.reported(&xpub).await.len()), (0, 0));

            a.subscribe("T");
            check("a subscribes", a.reported(&xpub).await, [&[ASKED], &[ASKED], &[ASKED]]);
            a.subscribe("T");
            check("a subscribes again", a.reported(&xpub).await, [&[], &[ASKED], &[ASKED]]);
            b.subscribe("T");
            check("b subscribes", b.reported(&xpub).await, [&[], &[ASKED], &[ASKED]]);
            a.unsubscribe("T");
            check("a cancels one of its two", a.reported(&xpub).await, [&[], &[], &[]]);
            a.unsubscribe("T");
            check("a cancels the other one", a.reported(&xpub).await, [&[], &[], &[CANCELLED]]);
            check("b goes", b.goes(&xpub, 1).await, [&[CANCELLED], &[CANCELLED], &[CANCELLED]]);
            check("a goes", a.goes(&xpub, 0).await, [&[], &[], &[]]);
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_xpub_reports_what_is_new_at_libzmqs() {
    reports(0, XPubSocket::builder()).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_verbose_xpub_reports_all_subscriptions_of_libzmqs() {
    reports(1, XPubSocket::builder().verbose(true)).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_verboser_xpub_reports_all_cancellations_of_libzmqs_as_well() {
    reports(2, XPubSocket::builder().verboser(true)).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_libzmq_that_goes_cancels_each_of_its_topics() {
    const TOPICS: usize = 1_000;
    for kind in [Kind::Plain, Kind::Extended] {
        let xpub = XPubSocket::new();
        let endpoint = within("sinew binds", xpub.bind("tcp://127.0.0.1:*")).await.unwrap().to_string();
        let mut stays = Asker::new(kind, "stays", &endpoint);
        stays.subscribe("shared");
        assert_eq!(stays.reported(&xpub).await, ["\x01shared"]);
        let mut goes = Asker::new(kind, "goes", &endpoint);
        assert_eq!(goes.reported(&xpub).await.len(), 0);
        goes.subscribe("shared");
        for n in 0..TOPICS {
            goes.subscribe(&format!("topic {n}"));
        }
        let asked = goes.reported(&xpub).await;
        assert_eq!(asked, Vec::from_iter((0..TOPICS).map(|n| format!("\x01topic {n}"))));
        let cancelled: BTreeSet<_> = goes.goes(&xpub, TOPICS).await.into_iter().collect();
        assert_eq!(cancelled, (0..TOPICS).map(|n| format!("\x00topic {n}")).collect());
    }
}

/// The typed events name the peer, by the same number as its messages and numbers do.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn events_say_which_libzmq_has_asked() {
    async fn event(xpub: &XPubSocket) -> (&'static str, PeerId, Vec<u8>) {
        match within("an event", xpub.recv_event()).await.unwrap() {
            XPubEvent::Subscribed { peer, topic } => ("subscribed", peer.id, topic.to_vec()),
            XPubEvent::Cancelled { peer, topic } => ("cancelled", peer.id, topic.to_vec()),
            XPubEvent::Message { peer, message } => ("message", peer.id, frames(&message).concat()),
            other => panic!("a new kind of event: {other:?}"),
        }
    }

    for transport in [Transport::Tcp, Transport::Ipc] {
        let place = Place::new(transport);
        let xpub = XPubSocket::builder().verboser(true).build().unwrap();
        let endpoint = within("sinew binds", xpub.bind(place.endpoint())).await.unwrap().to_string();
        let a = Asker::new(Kind::Plain, "a", &endpoint);
        a.subscribe("T");
        let ("subscribed", first, topic) = event(&xpub).await else {
            panic!("a subscribes");
        };
        assert_eq!(topic, b"T");
        let b = Asker::new(Kind::Extended, "b", &endpoint);
        b.subscribe("T");
        let ("subscribed", second, topic) = event(&xpub).await else {
            panic!("b subscribes");
        };
        assert_eq!(topic, b"T");
        assert_ne!(first, second);
        b.socket.push(&vec![b"a word".to_vec()]);
        assert_eq!(event(&xpub).await, ("message", second, b"a word".to_vec()));
        a.unsubscribe("T");
        assert_eq!(event(&xpub).await, ("cancelled", first, b"T".to_vec()));
        tokio::task::block_in_place(|| drop(b));
        assert_eq!(event(&xpub).await, ("cancelled", second, b"T".to_vec()));
        let known: Vec<_> = xpub.peers().into_iter().map(|peer| peer.peer.id).collect();
        assert_eq!(known, [first]);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_a_libzmq_xsub_says_reaches_an_xpub_as_it_is() {
    for transport in [Transport::Tcp, Transport::Ipc] {
        let place = Place::new(transport);
        let xpub = XPubSocket::new();
        let endpoint = within("sinew binds", xpub.bind(place.endpoint())).await.unwrap().to_string();
        let xsub = Libzmq::new(zmq::XSUB);
        xsub.attach(Role::Connects, &endpoint);
        within("a peer", xpub.wait_connected(1)).await.unwrap();
        let words: [Frames; 7] = [
            vec![b"a word".to_vec()],
            vec![vec![]],
            vec![b"\x02".to_vec()],
            vec![b"several".to_vec(), vec![], b"frames".to_vec()],
            vec![vec![], b"after an empty one".to_vec()],
            vec![b"a word".to_vec(), b"\x01 and no topic".to_vec()],
            vec![vec![b'.'; 100_000]],
        ];
        for word in &words {
            xsub.push(word);
        }
        xsub.push(&vec![b"\x01topic".to_vec()]);
        for word in &words {
            assert!(recv(&xpub).await == *word, "{word:?}");
        }
        assert_eq!(recv(&xpub).await, [b"\x01topic"]);
        xpub.send("topic").await.unwrap();
        assert_eq!(xsub.pull(), [b"topic"]);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_libzmq_is_welcomed() {
    for transport in [Transport::Tcp, Transport::Ipc] {
        let place = Place::new(transport);
        let xpub = XPubSocket::builder().welcome_message(["hello", "you"]).build().unwrap();
        let endpoint = within("sinew binds", xpub.bind(place.endpoint())).await.unwrap().to_string();
        // A SUB has to want it; an XSUB takes what comes.
        let sub = Libzmq::new(zmq::SUB);
        sub.set_subscribe(b"hello").unwrap();
        sub.set_subscribe(b"A").unwrap();
        sub.attach(Role::Connects, &endpoint);
        assert_eq!(sub.pull(), [b"hello", &b"you"[..]]);
        let xsub = Libzmq::new(zmq::XSUB);
        xsub.attach(Role::Connects, &endpoint);
        assert_eq!(xsub.pull(), [b"hello", &b"you"[..]]);
        within("it has subscribed", xpub.wait_subscribed("A", 1)).await.unwrap();
        xpub.send("A").await.unwrap();
        assert_eq!(sub.pull(), [b"A"]);
    }
}

/// What a manual XPUB makes of the requests is up to it: here each topic is translated, and each newcomer is told alone.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_manual_xpub_decides_what_libzmqs_get() {
    async fn request(xpub: &XPubSocket, expected: &str) -> PeerId {
        let event = within("a request", xpub.recv_event()).await.unwrap();
        let (sign, peer, topic) = match event {
            XPubEvent::Subscribed { peer, topic } => ("+", peer, topic),
            XPubEvent::Cancelled { peer, topic } => ("-", peer, topic),
            other => panic!("{other:?}"),
        };
        assert_eq!(format!("{sign}{}", topic.escape_ascii()), expected);
        peer.id
    }

    for transport in [Transport::Tcp, Transport::Ipc] {
        let place = Place::new(transport);
        let xpub = XPubSocket::builder().manual(true).build().unwrap();
        let endpoint = within("sinew binds", xpub.bind(place.endpoint())).await.unwrap().to_string();
        let (a, b) = (Asker::new(Kind::Extended, "a", &endpoint), Asker::new(Kind::Extended, "b", &endpoint));
        a.subscribe("A");
        let a_id = request(&xpub, "+A").await;
        xpub.subscribe(a_id, "XA");
        b.subscribe("B");
        let b_id = request(&xpub, "+B").await;
        xpub.subscribe(b_id, "XB");
        for topic in ["A", "B", "XB", "XA"] {
            xpub.send(topic).await.unwrap();
        }
        assert_eq!(a.socket.pull(), [b"XA"]);
        assert_eq!(b.socket.pull(), [b"XB"]);
        xpub.send_to(a_id, ["only", "for a"]).unwrap();
        xpub.send_to(b_id, ["only", "for b"]).unwrap();
        assert_eq!(a.socket.pull(), [b"only", &b"for a"[..]]);
        assert_eq!(b.socket.pull(), [b"only", &b"for b"[..]]);

        a.unsubscribe("A");
        assert_eq!(request(&xpub, "-A").await, a_id);
        xpub.send("XA still").await.unwrap();
        xpub.unsubscribe(a_id, "XA");
        xpub.send("XA no more").await.unwrap();
        xpub.send_to(a_id, "end").unwrap();
        assert_eq!(a.socket.pull(), [b"XA still"]);
        assert_eq!(a.socket.pull(), [b"end"]);

        // What it had asked for is reported when it goes, not what it was given.
        tokio::task::block_in_place(|| drop(b));
        assert_eq!(request(&xpub, "-B").await, b_id);
        assert!(xpub.send_to(b_id, "too late").is_err());
        xpub.subscribe(b_id, "XB");
        xpub.send_to(a_id, "the end").unwrap();
        assert_eq!(a.socket.pull(), [b"the end"]);
    }
}

/// A libzmq XSUB checks nothing again, so it shows what a publisher that inverts sends.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_inverting_publisher_sends_libzmqs_what_they_did_not_ask_for() {
    let publisher = PubSocket::builder().invert_matching(true).build().unwrap();
    let endpoint = within("sinew binds", publisher.bind("tcp://127.0.0.1:*")).await.unwrap().to_string();
    let asker = Asker::new(Kind::Extended, "a", &endpoint);
    within("a peer", publisher.wait_connected(1)).await.unwrap();
    asker.subscribe("A");
    asker.subscribe("BC");
    until("it has subscribed", || publisher.peers()[0].subscriptions == 2).await;
    for topic in ["A", "AB", "B", "", "BC", "BCD", "C"] {
        publisher.send(topic).await.unwrap();
    }
    for topic in ["B", "", "C"] {
        assert_eq!(asker.socket.pull(), [topic.as_bytes()]);
    }
}
