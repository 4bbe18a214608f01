//! What libzmq 4.3.5 is known for, from subscriptions that vanish to monitors that stall.

use std::pin::Pin;
use std::task::Poll;
use std::time::{Duration, Instant};

use futures::future::join_all;
use futures::{Sink, StreamExt};
use sinew::{
    BindError, BuildError, DisconnectReason, Event, Message, ProtocolError, PullSocket, PushSocket, SlowSubscriber,
    SubSocket, TryRecvError, TrySendError,
};

use super::stand::*;
use crate::common::raw::*;
use crate::common::*;

crate::common::over_each_transport! {
    more_than_a_thousand_subscriptions_all_reach_the_publisher,
    heartbeats_and_a_slow_consumer_lose_nothing,
    heartbeats_let_long_transfers_finish,
    a_ttl_above_65_5_seconds_does_not_wrap,
    an_endpoint_lives_on_after_a_protocol_error,
    a_peer_of_the_wrong_type_is_reported,
    running_out_of_descriptors_neither_aborts_nor_spins,
    a_subscriber_that_has_read_everything_loses_nothing,
    a_publisher_that_waits_is_ready_only_when_a_send_succeeds,
    an_unconnected_endpoint_swallows_nothing,
    a_dead_peers_messages_go_to_others_and_what_is_lost_is_known,
    messages_are_limited_by_default_and_over_all_their_frames,
    a_small_limit_breaks_no_handshake,
    threads_may_share_a_socket,
    a_subscribe_command_sent_to_a_pull_is_no_message,
    conflating_keeps_multipart_messages_whole,
    an_unread_monitor_stalls_nobody,
}

// libzmq §20.1 (#2258, #4064, #2942): subscriptions go through the queue with its mark of 1,000; those beyond it vanish, in
// whichever order one subscribes and connects, and again on every reconnect.
async fn more_than_a_thousand_subscriptions_all_reach_the_publisher(place: Place) {
    const TOPICS: usize = 3_000;
    let subscribe = |sub: &SubSocket| (0..TOPICS).for_each(|topic| sub.subscribe(format!("topic {topic}.")));
    let last = format!("topic {}.", TOPICS - 1);
    for order in ["before connecting", "right after connecting", "while connected"] {
        let endpoint = place.fresh();
        let (publisher, sub) = (new_pub(), new_sub());
        within(publisher.bind(&endpoint)).await.unwrap();
        if order == "before connecting" {
            subscribe(&sub);
        }
        sub.connect(&endpoint).unwrap();
        if order == "while connected" {
            within(sub.wait_connected(1)).await.unwrap();
        }
        if order != "before connecting" {
            subscribe(&sub);
        }
        let subscriptions =
            |publisher: &sinew::PubSocket| publisher.peers().first().map_or(0, |peer| peer.subscriptions);
        eventually(|| subscriptions(&publisher) == TOPICS).await;
        within(publisher.send(&*last)).await.unwrap();
        assert_eq!(within(sub.recv()).await.unwrap(), (&*last).into(), "{order}");

        // Another publisher in the same place is told all of them as well.
        within(publisher.unbind(&endpoint)).await.unwrap();
        let next = new_pub();
        within(next.bind(&endpoint)).await.unwrap();
        eventually(|| subscriptions(&next) == TOPICS).await;
        within(next.send(&*last)).await.unwrap();
        assert_eq!(within(sub.recv()).await.unwrap(), (&*last).into(), "{order}");
    }
}

// libzmq §20.2 (#4767): a receiver whose queue is full reads no PING and no PONG, is given up by its peer and gives it up, and what
// was queued is lost: 1,500 sent, 16 received.
async fn heartbeats_and_a_slow_consumer_lose_nothing(place: Place) {
    const MESSAGES: u64 = 1_500;
    const INTERVAL: Duration = Duration::from_millis(50);
    for timeout in TIMEOUTS {
        let push = push_builder().heartbeat_interval(INTERVAL).heartbeat_timeout(timeout).send_high_water_mark(2_000);
        let pull = pull_builder().heartbeat_interval(INTERVAL).heartbeat_timeout(timeout).receive_high_water_mark(10);
        let (push, pull) = join(&place, push.build().unwrap(), pull.build().unwrap()).await;
        let (mut at_push, mut at_pull) = (push.monitor(), pull.monitor());
        for number in 0..MESSAGES {
            within(push.send(padded(number, 1_000))).await.unwrap();
        }
        heartbeats_pass(&place, INTERVAL, timeout).await;
        tokio::select! {
            biased;
            () = wait_silent(&mut at_push) => continue,
            () = wait_silent(&mut at_pull) => continue,
            numbers = recv_numbers(&pull, MESSAGES as usize) => {
                assert_eq!(numbers, (0..MESSAGES).collect::<Vec<_>>());
                assert_eq!((ends_so_far(&mut at_push), ends_so_far(&mut at_pull)), (vec![], vec![]));
                return;
            }
        }
    }
    panic!("one of the two was given up, however long the timeout");
}

/// On a busy machine the peer may have to wait for the processor longer than a short timeout allows, and is silent indeed: then
/// it is tried again with longer ones. What is wrong fails with each of them.
const TIMEOUTS: [Duration; 3] = [Duration::from_millis(200), Duration::from_secs(1), Duration::from_secs(5)];

// libzmq §20.3 (#2709): only complete messages count as life, so a message that takes longer than the timeout never arrives.
async fn heartbeats_let_long_transfers_finish(place: Place) {
    const PIECES: usize = 80;
    const PIECE: usize = 20_000;
    const INTERVAL: Duration = Duration::from_millis(50);
    for timeout in TIMEOUTS {
        let pull = pull_builder().heartbeat_interval(INTERVAL).heartbeat_timeout(timeout).build().unwrap();
        let mut monitor = pull.monitor();
        let endpoint = within(pull.bind(place.wildcard())).await.unwrap();
        let mut slow = Raw::peer(&endpoint, READY_PUSH).await;
        let _silent = Raw::peer(&endpoint, READY_PUSH).await;
        slow.send(&long_header(0, (PIECES * PIECE) as u64)).await;
        // A slow line, for longer than it takes to give a silent peer up. PINGs cannot be answered meanwhile: the answer would
        // stand in the middle of the message.
        let pause = (INTERVAL + timeout) * 3 / 2 / PIECES as u32;
        let (mut before, mut longest) = (Instant::now(), Duration::ZERO);
        for piece in 0..PIECES {
            if piece == PIECES - 1 {
                wait_silent(&mut monitor).await;
            }
            // If it has been given up, the message does not come.
            let _ = slow.try_send(&[7; PIECE]).await;
            longest = longest.max(before.elapsed());
            before = Instant::now();
            tokio::time::sleep(pause).await;
        }
        if longest < timeout {
            assert_eq!(within(pull.recv()).await.unwrap().byte_len(), PIECES * PIECE);
            assert_eq!(ends_so_far(&mut monitor), []);
            return;
        }
    }
    panic!("the machine is too busy for a slow line");
}

// libzmq §20.4 (#4226): a time to live is reckoned in 16 bits of milliseconds, so that 65.6 seconds become 64 ms.
async fn a_ttl_above_65_5_seconds_does_not_wrap(place: Place) {
    let pull = new_pull();
    let mut monitor = pull.monitor();
    let endpoint = within(pull.bind(place.wildcard())).await.unwrap();
    let mut patient = Raw::peer(&endpoint, READY_PUSH).await;
    patient.send(&command("PING", &656_u16.to_be_bytes())).await;
    assert_eq!(patient.frame().await.unwrap().body, b"\x04PONG");
    let mut hasty = Raw::peer(&endpoint, READY_PUSH).await;
    hasty.send(&command("PING", &3_u16.to_be_bytes())).await;
    // 300 ms later:
    wait_silent(&mut monitor).await;
    patient.send(&frame(0, b"still here")).await;
    assert_eq!(within(pull.recv()).await.unwrap(), "still here".into());

    // And no libzmq peer is asked for what it would reckon wrongly.
    let error = PushSocket::builder().heartbeat_ttl(Duration::from_millis(65_600)).build().unwrap_err();
    assert!(matches!(error, BuildError::TooLarge { option: "heartbeat_ttl", .. }), "{error}");
    let longest = PushSocket::builder().heartbeat_ttl(Duration::from_millis(65_500));
    let push = longest.heartbeat_interval(Duration::from_millis(10)).build().unwrap();
    let mut asked = Raw::peer(&within(push.bind(place.wildcard())).await.unwrap(), READY_PULL).await;
    let ping = asked.frame().await.unwrap().body;
    assert_eq!(ping[..7], [b"\x04PING", &655_u16.to_be_bytes()[..]].concat());
}

// libzmq §20.5 (#1043, #990, #3519): after a protocol error or an ERROR command the dialling side never dials again.
async fn an_endpoint_lives_on_after_a_protocol_error(place: Place) {
    let (listener, endpoint) = RawListener::bind(&place);
    let push = new_push();
    let mut monitor = push.monitor();
    push.connect(&endpoint).unwrap();
    within(push.send("work")).await.unwrap();
    let error = command("ERROR", b"\x03300");
    let bad: [(&str, Vec<u8>); 5] = [
        ("not ZMTP", b"HTTP/1.1 400 Bad Request\r\n\r\n".to_vec()),
        ("another mechanism", greeting([3, 1], "CURVE")),
        ("the wrong socket type", [&proper_greeting()[..], READY_PUSH].concat()),
        ("an ERROR", [&proper_greeting()[..], &error].concat()),
        ("rubbish after the handshake", [&proper_greeting()[..], READY_PULL, &[0xFF; 20]].concat()),
    ];
    for (what, bytes) in bad {
        let mut raw = listener.accept().await;
        let _ = raw.try_send(&bytes).await;
        let reason = wait_for(&mut monitor, |event| match event {
            Event::HandshakeFailed { reason, .. } | Event::Disconnected { reason, .. } => Some(reason),
            _ => None,
        });
        let reason = reason.await;
        assert!(matches!(reason, DisconnectReason::Protocol(_)), "{what}: {reason:?}");
    }
    let mut good = listener.accept().await;
    good.shake_hands(READY_PULL).await;
    assert_eq!(good.message().await.unwrap(), [b"work"]);
}

// libzmq §20.6: a peer of the wrong type is closed without an event and without a word.
async fn a_peer_of_the_wrong_type_is_reported(place: Place) {
    let (bound, connected) = (new_pull(), new_pub());
    let (mut at_bound, mut at_connected) = (bound.monitor(), connected.monitor());
    connected.connect(within(bound.bind(place.wildcard())).await.unwrap()).unwrap();
    for monitor in [&mut at_bound, &mut at_connected] {
        let reason = wait_for(monitor, |event| match event {
            Event::HandshakeFailed { reason, .. } => Some(reason),
            _ => None,
        });
        let reason = reason.await;
        let is_told = matches!(reason, DisconnectReason::Protocol(ProtocolError::SocketTypeMismatch { .. }));
        assert!(is_told, "{reason:?}");
    }
}

// libzmq §20.7 (#1306, pyzmq #1591, #1642): without descriptors an IPC listener aborts the process, and a TCP listener spins.
//
// In a process of its own, whose limit can be lowered.
async fn running_out_of_descriptors_neither_aborts_nor_spins(place: Place) {
    if is_alone(&place, "libzmq", "running_out_of_descriptors_neither_aborts_nor_spins").await {
        run_out_of_descriptors(place).await;
    }
}

async fn run_out_of_descriptors(place: Place) {
    use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
    const SPARE: u64 = 30;
    const ATTEMPTS: usize = 6;
    let (pull, push) = (new_pull(), new_push());
    let endpoint = within(pull.bind(place.wildcard())).await.unwrap();
    let (mut at_pull, mut at_push) = (pull.monitor(), push.monitor());
    let mut usage = Usage::new();
    let used = std::fs::read_dir("/proc/self/fd").unwrap().count() as u64;
    let limit = getrlimit(Resource::Nofile);
    setrlimit(Resource::Nofile, Rlimit { current: Some(used + SPARE), ..limit }).unwrap();

    // This thread is the runtime's only one: nobody accepts meanwhile, and the connections wait in the backlog.
    let mut clients: Vec<Box<dyn std::any::Any>> = Vec::new();
    let text = endpoint.to_string();
    let error = loop {
        let client: std::io::Result<Box<dyn std::any::Any>> = match place.transport {
            Transport::Tcp => {
                let address = text.trim_start_matches("tcp://");
                std::net::TcpStream::connect(address).map(|stream| Box::new(stream) as _)
            }
            Transport::Ipc => {
                let path = text.trim_start_matches("ipc://");
                std::os::unix::net::UnixStream::connect(path).map(|stream| Box::new(stream) as _)
            }
        };
        match client {
            Ok(client) => clients.push(client),
            Err(error) => break error,
        }
        assert!(clients.len() <= 2 * SPARE as usize, "the limit is none");
    };
    assert_eq!(error.raw_os_error(), Some(rustix::io::Errno::MFILE.raw_os_error()), "{error}");

    let (start, before) = (Instant::now(), usage.ticks());
    push.connect(&endpoint).unwrap();
    let mut pauses = Vec::new();
    for _ in 0..ATTEMPTS {
        let pause = wait_for(&mut at_pull, |event| match event {
            Event::AcceptFailed { delay, .. } => Some(delay),
            _ => None,
        })
        .await;
        pauses.push(pause);
        wait_for(&mut at_push, |event| matches!(event, Event::ConnectRetried { .. }).then_some(())).await;
    }
    assert!(pauses.iter().sum::<Duration>() >= Duration::from_millis(500), "{pauses:?}");
    // The last one has only begun.
    let over: Duration = pauses[..ATTEMPTS - 1].iter().sum();
    assert!(start.elapsed() >= over, "{:?} for {pauses:?}", start.elapsed());
    let share = (usage.ticks() - before) as f64 / (start.elapsed().as_secs_f64() * 100.0);
    assert!(share < 0.3, "it used {share} of a core");

    drop(clients);
    within(push.send("as if nothing had been")).await.unwrap();
    assert_eq!(within(pull.recv()).await.unwrap(), "as if nothing had been".into());
}

/// The CPU time of this process.
struct Usage(std::fs::File);

impl Usage {
    fn new() -> Self {
        Self(std::fs::File::open("/proc/self/stat").unwrap())
    }

    /// In hundredths of a second.
    fn ticks(&mut self) -> u64 {
        use std::io::{Read, Seek};
        let mut stat = String::new();
        self.0.rewind().unwrap();
        self.0.read_to_string(&mut stat).unwrap();
        let fields: Vec<_> = stat.rsplit(')').next().unwrap().split_whitespace().collect();
        fields[11].parse::<u64>().unwrap() + fields[12].parse::<u64>().unwrap()
    }
}

// libzmq §20.8 (#2059, #3204): binding an IPC path that is in use takes it away from who listens there.
#[tokio::test]
async fn ipc_bind_does_not_steal() {
    let place = Place::new(Transport::Ipc);
    let (first, second) = (new_pull(), new_pull());
    let endpoint = within(first.bind(place.fresh())).await.unwrap();
    let error = within(second.bind(&endpoint)).await.unwrap_err();
    assert!(matches!(error, BindError::AddrInUse(_)), "{error}");
    // One that failed takes nothing away when it goes, either.
    within(second.close()).await.unwrap();
    let push = new_push();
    push.connect(&endpoint).unwrap();
    within(push.send("to the first")).await.unwrap();
    assert_eq!(within(first.recv()).await.unwrap(), "to the first".into());
}

// libzmq §20.9: ports are cut to 16 bits, so that 65,537 is 1 and 70,000 is 4,464.
#[tokio::test]
async fn ports_above_65535_are_refused() {
    let (push, pull) = (new_push(), new_pull());
    for port in ["65536", "65537", "70000", "4294967297", "18446744073709551617"] {
        let endpoint = format!("tcp://127.0.0.1:{port}");
        assert!(matches!(within(pull.bind(&*endpoint)).await, Err(BindError::Endpoint(_))), "{endpoint}");
        assert!(push.connect(&*endpoint).is_err(), "{endpoint}");
    }
}

// libzmq §20.10: room in a subscriber's queue is given back in lumps of half a queue, so a burst is cut short for a subscriber
// that has read everything: with a mark of 5, 3 of 10.
//
// A burst is more than the kernel takes at once, so that some of it waits in the queue.
async fn a_subscriber_that_has_read_everything_loses_nothing(place: Place) {
    const MARK: u64 = 5;
    const LENGTH: usize = 20_000;
    // When there is only one way to go, messages are not looked at one by one.
    for others in [&[][..], &[&b"another subscription"[..]]] {
        let builder = pub_builder().send_high_water_mark(MARK as usize).kernel_send_buffer(4_096);
        let publisher = builder.build().unwrap();
        let endpoint = within(publisher.bind(place.wildcard())).await.unwrap();
        let mut reader = raw_subscriber(&publisher, &endpoint, b"").await;
        for other in others {
            reader.send(&subscribe(other)).await;
        }
        eventually(|| publisher.peers()[0].subscriptions == 1 + others.len()).await;
        for burst in 0..20 {
            let numbers = burst * MARK..(burst + 1) * MARK;
            for number in numbers.clone() {
                publisher.try_send(triple(number, LENGTH)).unwrap();
            }
            assert!(burst > 0 || publisher.peers()[0].queued_messages > 0, "the kernel has taken everything");
            for number in numbers {
                assert_eq!(whole_number(&reader.message().await.unwrap(), LENGTH), number);
            }
        }
        assert_eq!(publisher.stats().messages_dropped, 0);
    }
}

// libzmq §20.11 (#1597): with NODROP a publisher that is full is said to be writable all the same, and who believes it spins.
async fn a_publisher_that_waits_is_ready_only_when_a_send_succeeds(place: Place) {
    let builder = pub_builder().slow_subscriber(SlowSubscriber::Wait).send_high_water_mark(2);
    let publisher = builder.kernel_send_buffer(4_096).build().unwrap();
    let endpoint = within(publisher.bind(place.wildcard())).await.unwrap();
    let mut slow = raw_subscriber(&publisher, &endpoint, b"").await;
    let message = Message::from(vec![b'x'; 10_000]);
    const ROUNDS: usize = 100;
    let mut is_full = false;
    for _ in 0..ROUNDS {
        while publisher.try_send(&message).is_ok() {}
        settled(|| publisher.stats().messages_sent).await;
        is_full = matches!(publisher.try_send(&message), Err(TrySendError::Full(_)));
        if is_full {
            break;
        }
    }
    assert!(is_full);
    let mut sink = publisher.sink();
    let mut ready = Box::pin(std::future::poll_fn(|cx| Pin::new(&mut sink).poll_ready(cx)));
    let (polled, wakes) = poll_once(ready.as_mut());
    assert!(polled.is_pending(), "ready, and yet full");
    assert_eq!(settled(|| wakes.count() as u64).await, 0, "woken for nothing");
    let reading = tokio::spawn(async move { while slow.message().await.is_some() {} });
    eventually(|| wakes.count() > 0).await;
    assert!(matches!(poll_once(ready.as_mut()).0, Poll::Ready(Ok(()))));
    publisher.try_send(&message).expect("ready means that there is room");
    reading.abort();
}

// libzmq §20.12: an endpoint that nobody listens to takes its share of a PUSH's messages, 3 of 12 here.
async fn an_unconnected_endpoint_swallows_nothing(place: Place) {
    let push = new_push();
    push.connect(place.fresh()).unwrap();
    let mut pulls = Vec::new();
    for _ in 0..3 {
        let pull = new_pull();
        push.connect(within(pull.bind(place.wildcard())).await.unwrap()).unwrap();
        pulls.push(pull);
    }
    within(push.wait_connected(3)).await.unwrap();
    send_numbers(&push, 0..12).await;
    for pull in &pulls {
        assert_eq!(recv_numbers(pull, 4).await.len(), 4);
    }
}

// libzmq §20.13 (#3392, #160): of a peer that dies, up to a queue of messages vanish, and nobody is told how many.
async fn a_dead_peers_messages_go_to_others_and_what_is_lost_is_known(place: Place) {
    const MESSAGES: u64 = 1_000;
    let push = push_builder().kernel_send_buffer(4_096).build().unwrap();
    let mut monitor = push.monitor();
    let endpoint = within(push.bind(place.wildcard())).await.unwrap();
    let dying = Raw::peer(&endpoint, READY_PULL).await;
    for number in 0..MESSAGES {
        within(push.send(padded(number, 1_000))).await.unwrap();
    }
    settled(|| push.stats().messages_sent).await;
    drop(dying);
    let returned = wait_disconnected(&mut monitor).await;
    assert!(returned > 0);
    // Lost is what the kernel had taken, and no more; it is counted.
    let lost = push.stats().messages_sent;
    assert!(lost < MESSAGES / 2, "{lost} were lost");
    let heir = new_pull();
    heir.connect(&endpoint).unwrap();
    let inherited = recv_numbers(&heir, (MESSAGES - lost) as usize).await;
    assert_eq!(inherited, (lost..MESSAGES).collect::<Vec<_>>());
}

// libzmq §20.14 (#2312, #2330, #2586, #3915, #2067): by default closing waits for ever for a peer that never comes.
#[tokio::test]
async fn closing_without_anybody_to_reach_ends_by_itself() {
    let places = [Place::new(Transport::Tcp), Place::new(Transport::Ipc)];
    let closing = places.map(|place| async move {
        let push = PushSocket::new();
        push.connect(place.fresh()).unwrap();
        within(push.send("to nobody")).await.unwrap();
        within(push.close()).await.unwrap().unsent
    });
    assert_eq!(join_all(closing).await, [1, 1]);
}

// libzmq §20.15: by default a message may be of any size; the limit counts frames one by one.
async fn messages_are_limited_by_default_and_over_all_their_frames(place: Place) {
    const LIMIT: u64 = 64 << 20;
    let pull = PullSocket::new();
    let mut monitor = pull.monitor();
    let endpoint = within(pull.bind(place.wildcard())).await.unwrap();
    let single = long_header(0, LIMIT + 1);
    let many = [&frame(MORE, &[0; 200])[..], &long_header(MORE, LIMIT - 100)].concat();
    for wire in [single, many] {
        let mut raw = Raw::peer(&endpoint, READY_PUSH).await;
        raw.send(&wire).await;
        let reason = wait_for(&mut monitor, |event| match event {
            Event::Disconnected { reason, .. } => Some(reason),
            _ => None,
        });
        let reason = reason.await;
        let expected = matches!(
            reason,
            DisconnectReason::Protocol(ProtocolError::MessageTooLarge { limit: LIMIT, size }) if size > LIMIT
        );
        assert!(expected, "{reason:?}");
        raw.end().await;
    }
}

// libzmq §20.15: the limit counts for the handshake's commands as well, and a small one breaks it.
async fn a_small_limit_breaks_no_handshake(place: Place) {
    let push = push_builder().max_message_size(1).build().unwrap();
    let pull = pull_builder().max_message_size(1).build().unwrap();
    let (push, pull) = join(&place, push, pull).await;
    within(push.send("x")).await.unwrap();
    assert_eq!(within(pull.recv()).await.unwrap(), "x".into());
}

// libzmq §20.16 (#3200): a socket that two threads use at once aborts the process.
async fn threads_may_share_a_socket(place: Place) {
    const THREADS: usize = 4;
    const EACH: u64 = 500;
    let (push, pull) = pair(&place).await;
    let runtime = tokio::runtime::Handle::current();
    let mut senders = Vec::new();
    let mut receivers = Vec::new();
    for thread in 0..THREADS as u64 {
        let (push, pull) = (push.clone(), pull.clone());
        let (sending, receiving) = (runtime.clone(), runtime.clone());
        senders.push(std::thread::spawn(move || {
            sending.block_on(send_numbers(&push, thread * EACH..(thread + 1) * EACH));
        }));
        receivers.push(std::thread::spawn(move || receiving.block_on(recv_numbers(&pull, EACH as usize))));
    }
    let all =
        || senders.iter().all(|thread| thread.is_finished()) && receivers.iter().all(|thread| thread.is_finished());
    eventually(all).await;
    let mut numbers: Vec<_> = receivers.into_iter().flat_map(|thread| thread.join().unwrap()).collect();
    numbers.sort_unstable();
    assert_eq!(numbers, (0..THREADS as u64 * EACH).collect::<Vec<_>>());
}

// libzmq §20.18: a SUBSCRIBE or CANCEL command that is sent to a PULL is received there as a message.
async fn a_subscribe_command_sent_to_a_pull_is_no_message(place: Place) {
    let pull = new_pull();
    let endpoint = within(pull.bind(place.wildcard())).await.unwrap();
    let mut raw = Raw::peer(&endpoint, READY_PUSH).await;
    raw.send(&[subscribe(b"topic"), cancel(b"topic"), frame(0, b"a message")].concat()).await;
    assert_eq!(within(pull.recv()).await.unwrap(), "a message".into());
    assert_eq!(pull.stats().messages_received, 1);
}

// libzmq §20.19: of a multipart message that is conflated only the last frame is left.
async fn conflating_keeps_multipart_messages_whole(place: Place) {
    const MESSAGES: u64 = 20;
    const LENGTH: usize = 100;
    let (push, pull) = join(&place, new_push(), pull_builder().conflate(true).build().unwrap()).await;
    for number in 0..MESSAGES {
        within(push.send(triple(number, LENGTH))).await.unwrap();
    }
    eventually(|| pull.stats().messages_received == MESSAGES).await;
    assert_eq!(whole_number(pull.try_recv().unwrap().frames(), LENGTH), MESSAGES - 1);
    assert_eq!(pull.try_recv(), Err(TryRecvError::Empty));

    let builder = pub_builder().slow_subscriber(SlowSubscriber::KeepLatest).kernel_send_buffer(4_096);
    let publisher = builder.build().unwrap();
    let endpoint = within(publisher.bind(place.wildcard())).await.unwrap();
    let sub = sub_builder().conflate(true).build().unwrap();
    sub.subscribe("");
    sub.connect(&endpoint).unwrap();
    within(publisher.wait_subscribed("", 1)).await.unwrap();
    let mut slow = Raw::peer(&endpoint, &ready_sub()).await;
    slow.send(&subscribe(b"")).await;
    within(publisher.wait_subscribed("", 2)).await.unwrap();
    const MANY: u64 = 500;
    const LONG: usize = 5_000;
    for number in 0..MANY {
        within(publisher.send(triple(number, LONG))).await.unwrap();
    }
    // One receives whenever it likes, the other reads late; both see whole messages, the last one in the end.
    let mut last = None;
    while last != Some(MANY - 1) {
        let number = whole_number(within(sub.recv()).await.unwrap().frames(), LONG);
        assert!(last < Some(number));
        last = Some(number);
    }
    let mut last = None;
    while last != Some(MANY - 1) {
        let number = whole_number(&slow.message().await.unwrap(), LONG);
        assert!(last < Some(number));
        last = Some(number);
    }
    assert!(publisher.stats().messages_dropped > 0);
}

// libzmq §20.20 (#2961, #3243): names are looked up in the I/O thread, and all its connections stand still meanwhile.
//
// Here the only thread for what blocks is busy, so that no name can be looked up for as long as that lasts.
#[test]
fn dns_blocks_nobody() {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().max_blocking_threads(1).build().unwrap();
    let (release, released) = std::sync::mpsc::channel::<()>();
    runtime.spawn_blocking(move || released.recv());
    runtime.block_on(async {
        let place = Place::new(Transport::Tcp);
        let (push, pull) = pair(&place).await;
        let named = new_pull();
        let endpoint = within(named.bind(place.wildcard())).await.unwrap();
        let name = endpoint.to_string().replace("127.0.0.1", "localhost");
        push.connect(&*name).unwrap();
        for number in 0..1_000 {
            within(push.send(numbered(number))).await.unwrap();
            assert_eq!(recv_numbers(&pull, 1).await, [number]);
        }
        assert_eq!((push.stats().peers, named.stats().peers), (1, 0), "looked up by some other thread");
        release.send(()).unwrap();
        within(named.wait_connected(1)).await.unwrap();
    });
}

// libzmq §20.21: a monitor without a reader blocks `bind`, and one that is not read stalls every socket of its I/O thread after
// 2,000 events, which anybody can bring about by connecting.
async fn an_unread_monitor_stalls_nobody(place: Place) {
    const CONNECTIONS: usize = 1_200;
    let pull = new_pull();
    let mut unread = pull.monitor();
    let endpoint = within(pull.bind(place.wildcard())).await.unwrap();
    let push = new_push();
    push.connect(&endpoint).unwrap();
    for connection in 0..CONNECTIONS {
        drop(Raw::dial(&endpoint).await);
        if connection % 100 == 0 {
            within(push.send("x")).await.unwrap();
            assert_eq!(within(pull.recv()).await.unwrap(), "x".into());
        }
    }
    eventually(|| pull.stats().peers == 1).await;
    within(push.send("last")).await.unwrap();
    assert_eq!(within(pull.recv()).await.unwrap(), "last".into());
    // It says what it did not keep.
    let first = within(unread.next()).await.unwrap();
    assert!(matches!(first, Event::Missed(count) if count > 0), "{first:?}");
}
