//! What our SUB and XSUB tell a libzmq XPUB, and what a publisher makes of what it does not want to hear.

use std::collections::BTreeSet;

use interop::{Frames, Kind, Library, Libzmq, Pair, Place, Role, Transport, handshake, within};
use sinew::{SubSocket, XSubSocket};

fn frames(message: &sinew::Message) -> Frames {
    message.iter().map(|frame| frame.to_vec()).collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_libzmq_xpub_is_told_what_a_sub_wants() {
    for transport in [Transport::Tcp, Transport::Ipc] {
        for is_verbose in [false, true] {
            let place = Place::new(transport);
            let xpub = Libzmq::new(zmq::XPUB);
            xpub.set_xpub_verbose(is_verbose).unwrap();
            let endpoint = xpub.attach(Role::Binds, &place.endpoint());
            let sub = SubSocket::new();
            let mut monitor = sub.monitor();
            sub.connect(&endpoint).unwrap();
            handshake(&mut monitor).await;
            sub.subscribe("A");
            assert_eq!(xpub.pull(), [b"\x01A"]);
            // Every subscription is sent, and the last cancellation only.
            sub.subscribe("A");
            if is_verbose {
                assert_eq!(xpub.pull(), [b"\x01A"]);
            }
            sub.unsubscribe("A");
            sub.unsubscribe("unknown");
            sub.subscribe("");
            assert_eq!(xpub.pull(), [b"\x01"]);
            sub.unsubscribe("A");
            assert_eq!(xpub.pull(), [b"\x00A"]);
            sub.unsubscribe("A");
            sub.subscribe(b"\x00\x01");
            assert_eq!(xpub.pull(), [b"\x01\x00\x01"]);
            within("sinew closes", sub.close()).await.unwrap();
            let cancelled = BTreeSet::from([xpub.pull().concat(), xpub.pull().concat()]);
            assert_eq!(cancelled, [b"\x00".to_vec(), b"\x00\x00\x01".to_vec()].into());
        }
    }
}

/// As with libzmq itself: for publishers and subscribers a second connection would bring everything twice.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn connecting_to_a_libzmq_twice_brings_nothing_twice() {
    for transport in [Transport::Tcp, Transport::Ipc] {
        let place = Place::new(transport);
        let xpub = Libzmq::new(zmq::XPUB);
        xpub.set_xpub_verbose(true).unwrap();
        let endpoint = xpub.attach(Role::Binds, &place.endpoint());
        let sub = SubSocket::new();
        sub.subscribe("A");
        sub.connect(&endpoint).unwrap();
        sub.connect(&endpoint).unwrap();
        assert_eq!(xpub.pull(), [b"\x01A"]);
        sub.subscribe("B");
        assert_eq!(xpub.pull(), [b"\x01B"]);
        for topic in ["A", "B"] {
            xpub.push(&vec![topic.into()]);
            assert_eq!(&within("sinew receives", sub.recv()).await.unwrap()[0], topic.as_bytes());
        }
        assert_eq!(sub.peers().len(), 1);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_libzmq_xpub_hears_what_an_xsub_says() {
    for transport in [Transport::Tcp, Transport::Ipc] {
        for is_verbose in [false, true] {
            let place = Place::new(transport);
            let xpub = Libzmq::new(zmq::XPUB);
            let endpoint = xpub.attach(Role::Binds, &place.endpoint());
            let xsub = XSubSocket::builder().verbose_unsubscribe(is_verbose).build().unwrap();
            xsub.send("\x01before").await.unwrap();
            xsub.connect(&endpoint).unwrap();
            assert_eq!(xpub.pull(), [b"\x01before"]);
            xsub.send("\x01A").await.unwrap();
            xsub.send("\x01B").await.unwrap();
            xsub.send("a word").await.unwrap();
            xsub.send(["several", "", "frames"]).await.unwrap();
            xsub.send("").await.unwrap();
            xsub.send("\x02").await.unwrap();
            xsub.send(vec![b'.'; 100_000]).await.unwrap();
            xsub.send("\x00A").await.unwrap();
            xsub.send("\x00B").await.unwrap();
            xsub.send("\x01").await.unwrap();
            assert_eq!(xpub.pull(), [b"\x01A"]);
            assert_eq!(xpub.pull(), [b"\x01B"]);
            assert_eq!(xpub.pull(), [b"a word"]);
            assert_eq!(xpub.pull(), [&b"several"[..], b"", b"frames"]);
            assert_eq!(xpub.pull(), [b""]);
            assert_eq!(xpub.pull(), [b"\x02"]);
            assert_eq!(xpub.pull(), [vec![b'.'; 100_000]]);
            assert_eq!(xpub.pull(), [b"\x00A"]);
            assert_eq!(xpub.pull(), [b"\x00B"]);
            assert_eq!(xpub.pull(), [b"\x01"]);
            // Of two references the last one counts, or the first one if all cancellations are to be sent.
            xsub.send("\x01twice").await.unwrap();
            xsub.send("\x01twice").await.unwrap();
            xsub.send("\x00twice").await.unwrap();
            xsub.send("between").await.unwrap();
            xsub.send("\x00twice").await.unwrap();
            xsub.send("after").await.unwrap();
            // libzmq reports every cancellation that finds nothing.
            let expected: &[&str] = match is_verbose {
                true => &["\x01twice", "\x00twice", "between", "\x00twice", "after"],
                false => &["\x01twice", "between", "\x00twice", "after"],
            };
            for request in expected {
                assert_eq!(xpub.pull(), [request.as_bytes()]);
            }
            xpub.push(&vec![b"anything".to_vec()]);
            let message = within("sinew receives", xsub.recv()).await.unwrap();
            assert_eq!(frames(&message), [b"anything"]);
        }
    }
}

/// What is called and what is sent are two ways to the same subscriptions, and take effect in the order of the calls.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_libzmq_xpub_hears_what_an_xsub_says_and_calls_in_order() {
    const TOPICS: usize = 500;
    let xpub = Libzmq::new(zmq::XPUB);
    let endpoint = xpub.attach(Role::Binds, "tcp://127.0.0.1:*");
    let xsub = XSubSocket::new();
    xsub.connect(&endpoint).unwrap();
    within("a publisher", xsub.wait_connected(1)).await.unwrap();
    for n in 0..TOPICS {
        xsub.send(format!("\x01{n}")).await.unwrap();
        xsub.unsubscribe(n.to_string());
    }
    xsub.send("end").await.unwrap();
    for n in 0..TOPICS {
        assert_eq!(xpub.pull(), [format!("\x01{n}").into_bytes()]);
        assert_eq!(xpub.pull(), [format!("\x00{n}").into_bytes()]);
    }
    assert_eq!(xpub.pull(), [b"end"]);
}

/// Upstream messages go to every publisher of either type.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_xsub_speaks_to_all_its_publishers() {
    let place = Place::new(Transport::Tcp);
    let xsub = XSubSocket::new();
    let bound = within("sinew binds", xsub.bind(place.endpoint())).await.unwrap().to_string();
    let publishers: Vec<_> = (0..3).map(|_| Libzmq::new(zmq::XPUB)).collect();
    publishers[0].attach(Role::Connects, &bound);
    for publisher in &publishers[1..] {
        xsub.connect(publisher.attach(Role::Binds, &place.endpoint())).unwrap();
    }
    let silent = Libzmq::new(zmq::PUB);
    xsub.connect(silent.attach(Role::Binds, &place.endpoint())).unwrap();
    within("four publishers", xsub.wait_connected(4)).await.unwrap();
    xsub.send("\x01A").await.unwrap();
    for n in 0..500 {
        xsub.send([format!("word {n}"), "more".into()]).await.unwrap();
    }
    for publisher in &publishers {
        assert_eq!(publisher.pull(), [b"\x01A"]);
        for n in 0..500 {
            assert_eq!(publisher.pull(), [format!("word {n}").into_bytes(), b"more".to_vec()]);
        }
        publisher.push(&vec![b"A".to_vec()]);
        let message = within("sinew receives", xsub.recv()).await.unwrap();
        assert_eq!(frames(&message), [b"A"]);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_libzmq_xpub_welcomes_us() {
    for transport in [Transport::Tcp, Transport::Ipc] {
        let place = Place::new(transport);
        let xpub = Libzmq::new(zmq::XPUB);
        xpub.set_xpub_welcome_msg(Some("hello")).unwrap();
        let endpoint = xpub.attach(Role::Binds, &place.endpoint());
        let sub = SubSocket::new();
        sub.subscribe("hello");
        sub.connect(&endpoint).unwrap();
        assert_eq!(xpub.pull(), [b"\x01hello"]);
        let message = within("sinew receives", sub.recv()).await.unwrap();
        assert_eq!(frames(&message), [b"hello"]);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_an_xsub_says_harms_no_pub() {
    for publishes in [Library::Sinew, Library::Libzmq] {
        for transport in [Transport::Tcp, Transport::Ipc] {
            let kinds = [Kind::Plain, Kind::Extended];
            let mut pair = Pair::new(publishes, kinds, Role::Binds, transport).await;
            pair.subscriber.subscribe("A").await;
            pair.settle().await;
            for n in 0..100 {
                pair.subscriber.send(["a word".to_owned(), n.to_string()]).await;
            }
            pair.subscriber.send([""]).await;
            pair.subscriber.subscribe("B").await;
            pair.settle().await;
            pair.publish(["B"]).await;
            pair.publish(["a word"]).await;
            pair.publish(["A"]).await;
            pair.expect(["B"]).await;
            pair.expect(["A"]).await;
            pair.settle().await;
            pair.close().await;
        }
    }
}
