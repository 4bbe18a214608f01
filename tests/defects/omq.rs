//! What omq-tokio 0.33 is known for: costs that grow with the number of peers, silent drops, recursion over peers' data.

use std::time::Duration;

use futures::FutureExt;
use sinew::{Event, PubSocket, PullSocket, PushSocket, SubSocket, TryRecvError};

use super::stand::*;
use crate::common::raw::*;
use crate::common::*;

crate::common::over_each_transport! {
    a_burst_within_the_mark_is_dropped_nowhere,
    what_a_slow_subscriber_loses_is_counted_exactly,
    nothing_comes_after_unsubscribe,
    closing_delivers_what_is_queued_by_default,
    waiting_for_subscribers_is_woken_by_them_alone,
}

/// How much of this thread's time it takes to match many messages with the subscriptions of so many peers, none of which gets
/// any: the shortest of several times.
async fn matching_takes(place: &Place, peers: usize) -> Duration {
    const ROUNDS: usize = 5;
    const MESSAGES: u64 = 2_000;
    let publisher = pub_builder().send_high_water_mark(0).build().unwrap();
    let endpoint = within(publisher.bind(place.wildcard())).await.unwrap();
    let mut raws = Vec::new();
    for peer in 0..peers {
        let mut raw = Raw::peer(&endpoint, &ready_sub()).await;
        raw.send(&subscribe(format!("a topic that begins like all of them: {peer}").as_bytes())).await;
        raws.push(raw);
    }
    let all = || publisher.peers().iter().filter(|peer| peer.subscriptions == 1).count() == peers;
    eventually(all).await;
    let mut shortest = Duration::MAX;
    for round in 1..=ROUNDS as u64 {
        let start = time_of_this_thread();
        for _ in 0..MESSAGES {
            publisher.try_send("a topic that begins like all of them: none").unwrap();
        }
        // Ready once all that was sent before has been matched.
        within(publisher.wait_subscribed("", 0)).await.unwrap();
        shortest = shortest.min(time_of_this_thread() - start);
        assert_eq!(publisher.stats().messages_unmatched, round * MESSAGES);
    }
    shortest
}

/// What others do on a busy machine does not count.
fn time_of_this_thread() -> Duration {
    use rustix::time::{ClockId, clock_gettime};
    clock_gettime(ClockId::ThreadCPUTime).try_into().unwrap()
}

// omq: for every message the subscriptions of every peer are walked through.
//
// With 150 times as many peers that would take about 150 times as long.
#[tokio::test]
async fn matching_does_not_walk_every_peer() {
    if !may_open(1_000) {
        return;
    }
    let place = Place::new(Transport::Ipc);
    let few = matching_takes(&place, 2).await;
    let many = matching_takes(&place, 300).await;
    assert!(many < few * 15, "{few:?} with 2 peers, {many:?} with 300");
}

// omq: a PUB drops messages when a ring within it is full, before any subscriber is slow.
async fn a_burst_within_the_mark_is_dropped_nowhere(place: Place) {
    const BURST: u64 = 1_000;
    let publisher = PubSocket::new();
    let endpoint = within(publisher.bind(place.wildcard())).await.unwrap();
    let reader = subscriber(&publisher, &endpoint, "", 1).await;
    for burst in 0..5 {
        let numbers: Vec<_> = (burst * BURST..(burst + 1) * BURST).collect();
        // The runtime's only thread does nothing else meanwhile.
        for number in &numbers {
            publisher.try_send(numbered(*number)).unwrap();
        }
        assert_eq!(recv_subscribed(&reader, BURST as usize).await, numbers);
    }
    assert_eq!(publisher.stats().messages_dropped, 0);
}

// omq, libzmq (#2037, #4322): what is dropped is not counted, and no event tells of it.
async fn what_a_slow_subscriber_loses_is_counted_exactly(place: Place) {
    const MESSAGES: u64 = 5_000;
    let publisher = pub_builder().kernel_send_buffer(4_096).send_high_water_mark(10).build().unwrap();
    let endpoint = within(publisher.bind(place.wildcard())).await.unwrap();
    let mut monitor = publisher.monitor();
    let mut slow = raw_subscriber(&publisher, &endpoint, b"").await;
    for number in 0..MESSAGES {
        within(publisher.send(padded(number, 1_000))).await.unwrap();
    }
    // Ready once all that was sent before has been matched.
    within(publisher.wait_subscribed("", 1)).await.unwrap();
    wait_for(&mut monitor, |event| matches!(event, Event::LosingBegan { .. }).then_some(())).await;
    let dropped = publisher.stats().messages_dropped;
    assert!(dropped > 0);
    assert_eq!(publisher.peers()[0].messages_dropped, dropped);
    for _ in 0..MESSAGES - dropped {
        slow.message().await.expect("one that was not dropped");
    }
    // It may have caught up and fallen behind again.
    let mut told = 0;
    while told < dropped {
        told += wait_for(&mut monitor, |event| match event {
            Event::LosingEnded { dropped, .. } => Some(dropped),
            _ => None,
        })
        .await;
    }
    assert_eq!(told, dropped);
    // And nothing more: the answer to this is next.
    slow.send(&ping(b"")).await;
    assert_eq!(slow.frame().await.unwrap().body, b"\x04PONG");
}

// omq: a SUB does not look at what it receives, so what was on its way comes after `unsubscribe`.
async fn nothing_comes_after_unsubscribe(place: Place) {
    const MESSAGES: u64 = 100;
    let publisher = new_pub();
    let endpoint = within(publisher.bind(place.wildcard())).await.unwrap();
    let sub = subscriber(&publisher, &endpoint, "old", 1).await;
    sub.subscribe("new");
    within(publisher.wait_subscribed("new", 1)).await.unwrap();
    for _ in 0..MESSAGES {
        within(publisher.send("old")).await.unwrap();
    }
    eventually(|| sub.stats().messages_received == MESSAGES).await;
    assert_eq!(within(sub.recv()).await.unwrap(), "old".into());
    // Some are queued here, more are on their way.
    for _ in 0..MESSAGES {
        within(publisher.send("old")).await.unwrap();
    }
    sub.unsubscribe("old");
    assert_eq!(sub.try_recv(), Err(TryRecvError::Empty));
    within(publisher.send("new")).await.unwrap();
    assert_eq!(within(sub.recv()).await.unwrap(), "new".into());
}

// omq: by default a socket that is closed discards what it has not sent.
async fn closing_delivers_what_is_queued_by_default(place: Place) {
    const MESSAGES: u64 = 1_000;
    let pull = PullSocket::new();
    let endpoint = within(pull.bind(place.wildcard())).await.unwrap();
    for dropped in [false, true] {
        let push = PushSocket::new();
        push.connect(&endpoint).unwrap();
        for number in 0..MESSAGES {
            push.try_send(numbered(number)).unwrap();
        }
        // It is not even connected yet.
        if dropped {
            drop(push);
        } else {
            let (closed, numbers) = tokio::join!(within(push.close()), recv_numbers(&pull, MESSAGES as usize));
            assert_eq!((closed.unwrap().unsent, numbers.len()), (0, MESSAGES as usize));
            continue;
        }
        assert_eq!(recv_numbers(&pull, MESSAGES as usize).await, (0..MESSAGES).collect::<Vec<_>>());
    }
}

// omq (its trie, patricia_tree 0.10): a peer with 48,000 prefixes that are each nested in the next overflows the stack, and the
// process aborts. (100,000 of them: `routing::prefixes::tests::a_hundred_thousand_nested_prefixes_overflow_no_stack`.)
//
// As many as the default limits allow, on a stack that is smaller by far more than that.
#[test]
fn nested_prefixes_overflow_no_stack() {
    const DEEP: usize = 4_096;
    const STACK: usize = 256 << 10;
    let mut builder = tokio::runtime::Builder::new_multi_thread();
    let runtime = builder.worker_threads(1).thread_stack_size(STACK).enable_all().build().unwrap();
    let test = async {
        let place = Place::new(Transport::Tcp);
        let publisher = new_pub();
        let endpoint = within(publisher.bind(place.wildcard())).await.unwrap();
        let mut raw = Raw::peer(&endpoint, &ready_sub()).await;
        let topic = [b'a'; DEEP];
        for lengths in (1..=DEEP).collect::<Vec<_>>().chunks(64) {
            let requests: Vec<_> = lengths.iter().map(|length| subscribe(&topic[..*length])).collect();
            raw.send(&requests.concat()).await;
        }
        eventually(|| publisher.peers()[0].subscriptions == DEEP).await;
        within(publisher.send(&topic)).await.unwrap();
        assert_eq!(raw.message().await.unwrap(), [topic]);
        for lengths in (1..=DEEP).step_by(2).collect::<Vec<_>>().chunks(64) {
            let requests: Vec<_> = lengths.iter().map(|length| cancel(&topic[..*length])).collect();
            raw.send(&requests.concat()).await;
        }
        eventually(|| publisher.peers()[0].subscriptions == DEEP / 2).await;
        drop(raw);
        eventually(|| publisher.stats().peers == 0).await;
        within(publisher.send(&topic)).await.unwrap();
        within(publisher.close()).await.unwrap();
    };
    runtime.block_on(runtime.spawn(test)).unwrap();
}

// omq: `tcp://*` is IPv4 only.
#[tokio::test]
async fn tcp_star_is_dual_stack() {
    let pull = new_pull();
    let endpoint = within(pull.bind("tcp://*:*")).await.unwrap();
    let text = endpoint.to_string();
    let port = text.rsplit(':').next().unwrap();
    let mut hosts = vec!["127.0.0.1"];
    // Where the system has no IPv6 there is nothing to bind.
    if std::net::TcpListener::bind("[::1]:0").is_ok() {
        hosts.push("[::1]");
    }
    for host in hosts {
        let push = new_push();
        push.connect(&*format!("tcp://{host}:{port}")).unwrap();
        within(push.send(host)).await.unwrap();
        assert_eq!(within(pull.recv()).await.unwrap(), host.into());
    }
}

// omq: whoever waits for subscribers looks again every 5 milliseconds.
async fn waiting_for_subscribers_is_woken_by_them_alone(place: Place) {
    let publisher = new_pub();
    let endpoint = within(publisher.bind(place.wildcard())).await.unwrap();
    let mut waiting = Box::pin(publisher.wait_subscribed("topic", 1));
    let (polled, wakes) = poll_once(waiting.as_mut());
    assert!(polled.is_pending());
    // Much longer than that.
    assert_eq!(settled(|| wakes.count() as u64).await, 0);
    let sub = SubSocket::new();
    sub.subscribe("topic");
    sub.connect(&endpoint).unwrap();
    eventually(|| wakes.count() > 0).await;
    assert!(waiting.now_or_never().is_some());
}
