//! PUB: who gets a message, waiting for subscribers, and what becomes of messages that nobody wants.

use std::pin::pin;
use std::time::Duration;

use futures::{SinkExt, poll, stream};
use sinew::{
    DisconnectReason, Event, Message, ProtocolError, SlowSubscriber, SocketType, SubSocket, Version, WaitError,
};

use crate::common::raw::*;
use crate::common::topics::*;
use crate::common::*;

crate::behaviours! {
    a_subscriber_gets_what_is_published,
    whoever_has_a_prefix_of_the_first_frame_gets_the_message,
    prefixes_come_and_go_in_any_order,
    only_the_first_frame_is_matched,
    a_message_comes_once_however_many_prefixes_match,
    multipart_messages_arrive_whole,
    what_nobody_wants_is_dropped_and_counted,
    sending_never_waits_for_a_subscriber,
    a_sink_lets_other_tasks_run_though_nobody_wants_what_it_sends,
    the_first_message_after_wait_subscribed_arrives,
    a_publisher_may_connect_and_a_subscriber_bind,
    wait_subscribed_counts_the_peers_that_would_get_the_topic,
    wait_subscribed_counts_again_after_a_peer_has_gone,
    wait_subscribed_ends_when_the_socket_closes,
    one_subscriber_hears_many_publishers,
    one_publisher_serves_all_its_endpoints,
    inverted_publishers_send_what_does_not_match,
    the_peers_of_a_publisher_are_listed_with_their_numbers,
    closing_a_publisher_delivers_what_was_sent,
    publishers_and_subscribers_refuse_other_types,
    a_publisher_that_connects_twice_sends_everything_once,
    several_tasks_may_publish,
}

async fn a_subscriber_gets_what_is_published(place: Place) {
    let (publisher, endpoint) = bound_pub(&place, pub_builder()).await;
    let subscriber = subscriber(&endpoint, &[""]);
    publisher.known("test", 1).await;
    publisher.say("test").await;
    assert_eq!(subscriber.next().await, "test".into());
    publisher.try_send("").unwrap();
    assert_eq!(subscriber.next().await, "".into());
}

const PREFIXES: [&[u8]; 14] = [
    b"",
    b"a",
    b"ab",
    b"abc",
    b"abd",
    b"abcdefghijklmnopqrstuvwxyz",
    b"b",
    b"\0",
    b"\0\0",
    b"\x01",
    b"\xff",
    b"\xff\xfe",
    b"a\0b",
    b"foobar",
];

const TOPICS: [&[u8]; 22] = [
    b"",
    b"a",
    b"ab",
    b"aba",
    b"abc",
    b"abcd",
    b"abd",
    b"ac",
    b"abcdefghijklmnopqrstuvwxy",
    b"abcdefghijklmnopqrstuvwxyz",
    b"abcdefghijklmnopqrstuvwxyz!",
    b"b",
    b"B",
    b"\0",
    b"\0\0\0",
    b"\0\x01",
    b"\x01",
    b"\xff",
    b"\xff\xff",
    b"\xff\xfe\xfd",
    b"a\0b",
    b"foobazfoobar",
];

async fn whoever_has_a_prefix_of_the_first_frame_gets_the_message(place: Place) {
    let (publisher, endpoint) = bound_pub(&place, pub_builder()).await;
    // Raw peers: nothing filters behind the publisher.
    let mut subscribers = Vec::new();
    for prefix in PREFIXES {
        subscribers.push(raw_subscriber(&endpoint, &[prefix, b"the end"]).await);
    }
    publisher.known("the end", PREFIXES.len()).await;
    for topic in TOPICS {
        publisher.say([topic, b"body"]).await;
    }
    publisher.say("the end").await;
    for (prefix, subscriber) in PREFIXES.iter().zip(&mut subscribers) {
        for topic in TOPICS.iter().filter(|topic| topic.starts_with(prefix)) {
            assert_eq!(subscriber.message().await.unwrap(), [topic, &b"body"[..]], "{prefix:?}");
        }
        assert_eq!(subscriber.message().await.unwrap(), [b"the end"], "{prefix:?}");
    }
}

async fn prefixes_come_and_go_in_any_order(place: Place) {
    let (publisher, endpoint) = bound_pub(&place, pub_builder()).await;
    let mut raw = Raw::peer(&endpoint, READY_SUB).await;
    let orders: [fn(usize) -> usize; 3] =
        [|index| index, |index| PREFIXES.len() - 1 - index, |index| (index * 5) % PREFIXES.len()];
    let (mut round, mut known) = (0, Vec::new());
    for (add, remove) in orders.iter().flat_map(|add| orders.iter().map(move |remove| (add, remove))) {
        let adds = (0..PREFIXES.len()).map(|index| (true, PREFIXES[add(index)]));
        let removes = (0..PREFIXES.len()).map(|index| (false, PREFIXES[remove(index)]));
        for (adds, prefix) in adds.chain(removes) {
            raw.send(&if adds { subscribe_command(prefix) } else { cancel_command(prefix) }).await;
            match adds {
                true => known.push(prefix),
                false => known.retain(|other| *other != prefix),
            }
            // Two topics more say that the publisher knows of the change: so many it has never had in between.
            round += 1;
            let marker = format!("round {round}");
            raw.send(&[subscribe_command(marker.as_bytes()), subscribe_command(b"so many")].concat()).await;
            eventually(|| publisher.subscriptions() == known.len() + 2).await;
            for topic in [&b"abcd"[..], b"ab", b"\xff\xfe\xfd", b"foobar"] {
                publisher.say(topic).await;
            }
            publisher.say(&marker).await;
            for topic in [&b"abcd"[..], b"ab", b"\xff\xfe\xfd", b"foobar"] {
                if known.iter().any(|prefix| topic.starts_with(prefix)) {
                    assert_eq!(raw.message().await.unwrap(), [topic], "{known:?}");
                }
            }
            assert_eq!(raw.message().await.unwrap(), [marker.as_bytes()], "{known:?}");
            raw.send(&[cancel_command(marker.as_bytes()), cancel_command(b"so many")].concat()).await;
            eventually(|| publisher.subscriptions() == known.len()).await;
        }
    }
}

async fn only_the_first_frame_is_matched(place: Place) {
    let (publisher, endpoint) = bound_pub(&place, pub_builder()).await;
    let mut raw = raw_subscriber(&endpoint, &[b"A", b"M"]).await;
    publisher.known("M", 1).await;
    publisher.say(["B", "A"]).await;
    publisher.say(["", "A"]).await;
    publisher.say(["A", "B"]).await;
    publisher.say("M").await;
    assert_eq!(raw.message().await.unwrap(), [b"A", b"B"]);
    assert_eq!(raw.message().await.unwrap(), [b"M"]);
}

async fn a_message_comes_once_however_many_prefixes_match(place: Place) {
    let (publisher, endpoint) = bound_pub(&place, pub_builder()).await;
    let mut raw = raw_subscriber(&endpoint, &[b"", b"a", b"ab", b"abc", b"abc", b"abcd"]).await;
    let subscriber = subscriber(&endpoint, &["", "a", "ab", "ab", "abc", "abcd"]);
    publisher.known("", 2).await;
    eventually(|| publisher.subscriptions() == 10).await;
    for text in ["abc", "abcde", "x"] {
        publisher.say(text).await;
    }
    for text in ["abc", "abcde", "x"] {
        assert_eq!(raw.message().await.unwrap(), [text.as_bytes()]);
        assert_eq!(subscriber.next().await, text.into());
    }
}

async fn multipart_messages_arrive_whole(place: Place) {
    let (publisher, endpoint) = bound_pub(&place, pub_builder()).await;
    let subscriber = subscriber(&endpoint, &["T"]);
    publisher.known("T", 1).await;
    let many: Message = std::iter::once(b"T".to_vec()).chain((0..999).map(|number| vec![b'x'; number % 300])).collect();
    let large: Message = [b"T".to_vec(), vec![b'l'; 1 << 20], Vec::new(), vec![b'm'; 70_000]].into();
    let messages =
        [Message::from(["T", ""]), ["T", "", "", "end"].into(), many, "T".into(), large, ["T1", "T2"].into()];
    for message in &messages {
        publisher.say(message).await;
    }
    for message in &messages {
        assert!(subscriber.next().await == *message);
    }
}

async fn what_nobody_wants_is_dropped_and_counted(place: Place) {
    let (publisher, endpoint) = bound_pub(&place, pub_builder()).await;
    publisher.say("A before anybody is there").await;
    eventually(|| publisher.stats().messages_unmatched == 1).await;
    let subscriber = new_sub();
    subscriber.connect(&endpoint).unwrap();
    within(publisher.wait_connected(1)).await.unwrap();
    publisher.say("A before anybody has subscribed").await;
    eventually(|| publisher.stats().messages_unmatched == 2).await;
    subscriber.subscribe("A");
    publisher.known("A", 1).await;
    publisher.say("B").await;
    publisher.say(["B", "A"]).await;
    publisher.say("A, and somebody has subscribed").await;
    assert_eq!(subscriber.next().await, "A, and somebody has subscribed".into());
    let stats = publisher.stats();
    assert_eq!((stats.messages_unmatched, stats.messages_dropped), (4, 0));
}

async fn sending_never_waits_for_a_subscriber(place: Place) {
    const MESSAGES: u64 = 10_000;
    let (publisher, endpoint) = bound_pub(&place, pub_builder().send_high_water_mark(10)).await;
    for number in 0..MESSAGES / 2 {
        publisher.say(numbered(number)).await;
    }
    // Somebody is there and never reads.
    let _stuck = raw_subscriber(&endpoint, &[b""]).await;
    publisher.known("", 1).await;
    for number in 0..MESSAGES / 2 {
        publisher.say(padded(number, 1_000)).await;
    }
    let total = || {
        let stats = publisher.stats();
        let queued = publisher.peers().iter().map(|peer| peer.queued_messages as u64).sum::<u64>();
        stats.messages_unmatched + stats.messages_dropped + stats.messages_sent + queued
    };
    eventually(|| total() == MESSAGES).await;
    assert_eq!(publisher.stats().messages_unmatched, MESSAGES / 2);
}

async fn a_sink_lets_other_tasks_run_though_nobody_wants_what_it_sends(place: Place) {
    const MESSAGES: u64 = 100_000;
    let (publisher, _) = bound_pub(&place, pub_builder()).await;
    let mut source = stream::iter((0..MESSAGES).map(|number| Ok(numbered(number))));
    let mut sink = publisher.sink();
    let mut sending = pin!(sink.send_all(&mut source));
    assert!(poll!(sending.as_mut()).is_pending(), "nobody else would get a turn");
    within(sending).await.unwrap();
    assert_eq!(publisher.stats().messages_unmatched, MESSAGES);
}

async fn the_first_message_after_wait_subscribed_arrives(place: Place) {
    for round in 0..20 {
        let (publisher, endpoint) = bound_pub(&place, pub_builder()).await;
        let topic = format!("weather {round}");
        let subscribers = [(); 3].map(|()| {
            let subscriber = new_sub();
            subscriber.connect(&endpoint).unwrap();
            subscriber.subscribe("weather");
            subscriber
        });
        within(publisher.wait_subscribed(&topic, 3)).await.unwrap();
        publisher.try_send(&topic).unwrap();
        for subscriber in subscribers {
            assert_eq!(subscriber.next().await, (&topic).into());
        }
    }
}

async fn a_publisher_may_connect_and_a_subscriber_bind(place: Place) {
    let endpoint = place.fresh();
    let publisher = new_pub();
    publisher.connect(&endpoint).unwrap();
    publisher.say("nobody is there").await;
    let subscriber = new_sub();
    subscriber.subscribe("");
    within(subscriber.bind(&endpoint)).await.unwrap();
    publisher.known("", 1).await;
    publisher.say("somebody is there").await;
    assert_eq!(subscriber.next().await, "somebody is there".into());
}

async fn wait_subscribed_counts_the_peers_that_would_get_the_topic(place: Place) {
    let (publisher, endpoint) = bound_pub(&place, pub_builder()).await;
    within(publisher.wait_subscribed("ab", 0)).await.unwrap();
    let mut waiting = Box::pin(publisher.wait_subscribed("ab", 3));
    assert!(poll!(&mut waiting).is_pending());
    // Two prefixes of one peer count once, a longer topic and another one do not count.
    let mut first = raw_subscriber(&endpoint, &[b"", b"ab"]).await;
    let _longer = raw_subscriber(&endpoint, &[b"abc", b"other"]).await;
    publisher.known("ab", 1).await;
    publisher.known("abc", 2).await;
    publisher.known("other", 2).await;
    let _second = raw_subscriber(&endpoint, &[b"a"]).await;
    publisher.known("ab", 2).await;
    assert!(poll!(&mut waiting).is_pending());
    first.send(&subscribe_command(b"a")).await;
    eventually(|| publisher.subscriptions() == 6).await;
    assert!(poll!(&mut waiting).is_pending());
    let _third = raw_subscriber(&endpoint, &[b"ab"]).await;
    within(waiting).await.unwrap();
}

async fn wait_subscribed_counts_again_after_a_peer_has_gone(place: Place) {
    let (publisher, endpoint) = bound_pub(&place, pub_builder()).await;
    let mut monitor = publisher.monitor();
    for _ in 0..5 {
        let subscriber = subscriber(&endpoint, &["A", "AB", ""]);
        publisher.known("ABC", 1).await;
        eventually(|| publisher.subscriptions() == 3).await;
        within(subscriber.close()).await.unwrap();
        wait_disconnected(&mut monitor).await;
        assert_eq!(publisher.subscriptions(), 0);
        let mut waiting = Box::pin(publisher.wait_subscribed("ABC", 1));
        assert!(poll!(&mut waiting).is_pending());
    }
}

async fn wait_subscribed_ends_when_the_socket_closes(place: Place) {
    let (publisher, _) = bound_pub(&place, pub_builder()).await;
    let mut waiting = Box::pin(publisher.wait_subscribed("", 1));
    assert!(poll!(&mut waiting).is_pending());
    within(publisher.close()).await.unwrap();
    assert_eq!(within(waiting).await, Err(WaitError::Closed));
    assert_eq!(within(publisher.wait_subscribed("", 0)).await, Err(WaitError::Closed));
}

async fn one_subscriber_hears_many_publishers(place: Place) {
    const MESSAGES: usize = 100;
    let subscriber = new_sub();
    subscriber.subscribe("");
    let endpoint = within(subscriber.bind(place.wildcard())).await.unwrap();
    let mut publishers = Vec::new();
    for _ in 0..3 {
        let publisher = new_pub();
        publisher.connect(&endpoint).unwrap();
        publishers.push(publisher);
    }
    let (bound, endpoint) = bound_pub(&place, pub_builder()).await;
    subscriber.connect(&endpoint).unwrap();
    publishers.push(bound);
    for (name, publisher) in publishers.iter().enumerate() {
        publisher.known("", 1).await;
        for number in 0..MESSAGES {
            publisher.say([name.to_string(), number.to_string()]).await;
        }
    }
    let mut next = vec![0; publishers.len()];
    for _ in 0..MESSAGES * publishers.len() {
        let message = subscriber.next().await;
        let number = &mut next[usize::from(message[0][0] - b'0')];
        assert_eq!(message[1], *number.to_string().as_bytes());
        *number += 1;
    }
    assert_eq!(next, vec![MESSAGES; publishers.len()]);
}

async fn one_publisher_serves_all_its_endpoints(place: Place) {
    let (publisher, first) = bound_pub(&place, pub_builder()).await;
    let second = within(publisher.bind(place.wildcard())).await.unwrap();
    let elsewhere = new_sub();
    elsewhere.subscribe("");
    publisher.connect(within(elsewhere.bind(place.wildcard())).await.unwrap()).unwrap();
    let subscribers = [subscriber(&first, &[""]), subscriber(&second, &[""]), elsewhere];
    publisher.known("", 3).await;
    publisher.say("one").await;
    for subscriber in &subscribers {
        assert_eq!(subscriber.next().await, "one".into());
    }
    within(publisher.unbind(&second)).await.unwrap();
    eventually(|| publisher.peers().len() == 2).await;
    publisher.say("two").await;
    for subscriber in [&subscribers[0], &subscribers[2]] {
        assert_eq!(subscriber.next().await, "two".into());
    }
}

async fn inverted_publishers_send_what_does_not_match(place: Place) {
    let (publisher, endpoint) = bound_pub(&place, pub_builder().invert_matching(true)).await;
    let inverted = |topic: &str| {
        let subscriber = sub_builder().invert_matching(true).build().unwrap();
        subscriber.subscribe(topic);
        subscriber.connect(&endpoint).unwrap();
        subscriber
    };
    let mut raw = raw_subscriber(&endpoint, &[b"prefix1"]).await;
    let (first, second) = (inverted("prefix1"), inverted("p2"));
    eventually(|| publisher.subscriptions() == 3).await;
    publisher.known("prefix1", 1).await;
    publisher.known("p2", 2).await;
    publisher.known("neither", 3).await;
    for text in ["prefix1", "p2", "prefix12", "p", "neither"] {
        publisher.say(text).await;
    }
    assert_eq!(texts_until(&first, "neither").await, ["p2", "p"]);
    assert_eq!(texts_until(&second, "neither").await, ["prefix1", "prefix12", "p"]);
    for text in ["p2", "p", "neither"] {
        assert_eq!(raw.message().await.unwrap(), [text.as_bytes()]);
    }
}

async fn the_peers_of_a_publisher_are_listed_with_their_numbers(place: Place) {
    let (publisher, endpoint) = bound_pub(&place, pub_builder()).await;
    assert!(publisher.peers().is_empty());
    let subscriber = subscriber(&endpoint, &["A", "B", "B"]);
    publisher.known("B", 1).await;
    let mut old = Raw::peer_of(&endpoint, [3, 0], READY_XSUB).await;
    old.send(&subscribe_message(b"B")).await;
    publisher.known("B", 2).await;
    for text in ["A", "B", "C"] {
        publisher.say(text).await;
    }
    assert_eq!(texts(&subscriber, 2).await, ["A", "B"]);
    assert_eq!(old.message().await.unwrap(), [b"B"]);
    let mut peers = publisher.peers();
    peers.sort_by_key(|peer| peer.peer.id);
    let shown = peers.iter().map(|peer| (peer.socket_type, peer.version, peer.subscriptions, peer.messages_sent));
    assert_eq!(
        shown.collect::<Vec<_>>(),
        [(SocketType::Sub, Version::V3_1, 2, 2), (SocketType::XSub, Version::V3_0, 1, 1)]
    );
    assert!(peers.iter().all(|peer| peer.peer.endpoint == endpoint));
    assert!(peers.iter().all(|peer| (peer.messages_dropped, peer.queued_messages, peer.queued_bytes) == (0, 0, 0)));
    let shown = subscriber.peers();
    assert_eq!((shown.len(), shown[0].socket_type), (1, SocketType::Pub));
    assert_eq!(shown[0].messages_received, 2);
    drop(old);
    eventually(|| publisher.peers().len() == 1).await;
}

async fn closing_a_publisher_delivers_what_was_sent(place: Place) {
    const MESSAGES: u64 = 500;
    let builder = pub_builder().linger(Duration::MAX);
    let (publisher, endpoint) = bound_pub(&place, builder).await;
    let subscriber = subscriber(&endpoint, &[""]);
    publisher.known("", 1).await;
    for number in 0..MESSAGES {
        publisher.say(padded(number, 5_000)).await;
    }
    let receiving = async {
        for expected in 0..MESSAGES {
            assert_eq!(number(&subscriber.next().await), expected);
        }
    };
    let (closed, ()) = tokio::join!(within(publisher.close()), receiving);
    assert_eq!(closed.unwrap().unsent, 0);
}

async fn publishers_and_subscribers_refuse_other_types(place: Place) {
    let types = ["PUB", "SUB", "XPUB", "XSUB", "PUSH", "PULL", "PAIR", "REQ", "DEALER", "sub", ""];
    let (publisher, publishes) = bound_pub(&place, pub_builder()).await;
    let (xpub, xpublishes) = bound_xpub(&place, xpub_builder()).await;
    let (subscriber, xsub) = (new_sub(), new_xsub());
    let subscribes = within(subscriber.bind(place.wildcard())).await.unwrap();
    let xsubscribes = within(xsub.bind(place.wildcard())).await.unwrap();
    let sockets = [
        (publisher.monitor(), publishes, ["SUB", "XSUB"]),
        (xpub.monitor(), xpublishes, ["SUB", "XSUB"]),
        (subscriber.monitor(), subscribes, ["PUB", "XPUB"]),
        (xsub.monitor(), xsubscribes, ["PUB", "XPUB"]),
    ];
    for (mut monitor, endpoint, accepted) in sockets {
        for name in types {
            let mut raw = Raw::dial(&endpoint).await;
            raw.send(&[proper_greeting(), ready(&[("Socket-Type", name.as_bytes())])].concat()).await;
            let outcome = wait_for(&mut monitor, |event| match event {
                Event::HandshakeSucceeded { .. } => Some(None),
                Event::HandshakeFailed { reason, .. } => Some(Some(reason)),
                _ => None,
            })
            .await;
            match outcome {
                None => assert!(accepted.contains(&name), "{name} is accepted at {endpoint}"),
                Some(DisconnectReason::Protocol(ProtocolError::SocketTypeMismatch { theirs, .. })) => {
                    assert!(theirs == name && !accepted.contains(&name), "{name} is refused at {endpoint}");
                }
                Some(reason) => assert!(!accepted.contains(&name), "{name} at {endpoint}: {reason}"),
            }
        }
    }
}

async fn a_publisher_that_connects_twice_sends_everything_once(place: Place) {
    let subscriber = new_sub();
    subscriber.subscribe("");
    let endpoint = within(subscriber.bind(place.wildcard())).await.unwrap();
    let publisher = new_pub();
    publisher.connect(&endpoint).unwrap();
    publisher.connect(&endpoint).unwrap();
    publisher.known("", 1).await;
    for text in ["one", "two", "three"] {
        publisher.say(text).await;
        assert_eq!(subscriber.next().await, text.into());
    }
    assert_eq!(subscriber.peers().len(), 1);
}

async fn several_tasks_may_publish(place: Place) {
    const TASKS: usize = 4;
    const MESSAGES: usize = 500;
    let (publisher, endpoint) = bound_pub(&place, pub_builder().slow_subscriber(SlowSubscriber::Wait)).await;
    let subscribers = [subscriber(&endpoint, &[""]), subscriber(&endpoint, &["1", "2"])];
    publisher.known("1", 2).await;
    publisher.known("2", 2).await;
    let mut tasks = tokio::task::JoinSet::new();
    for task in 0..TASKS {
        let publisher = publisher.clone();
        tasks.spawn(async move {
            for number in 0..MESSAGES {
                publisher.say([task.to_string(), number.to_string()]).await;
                if number % 50 == 0 {
                    tokio::task::yield_now().await;
                }
            }
        });
    }
    let receive = async |subscriber: &SubSocket, wanted: usize| {
        let mut next = [0; TASKS];
        for _ in 0..wanted * MESSAGES {
            let message = subscriber.next().await;
            let number = &mut next[usize::from(message[0][0] - b'0')];
            assert_eq!(message[1], *number.to_string().as_bytes());
            *number += 1;
        }
    };
    tokio::join!(receive(&subscribers[0], TASKS), receive(&subscribers[1], 2));
    while let Some(task) = within(tasks.join_next()).await {
        task.unwrap();
    }
}
