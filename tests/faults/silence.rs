//! Peers that go silent without a word: behind a proxy that stops forwarding, and on a host whose route is gone.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use sinew::{DisconnectReason, Endpoint, Event, Monitor, ProtocolError, PullSocket, PushSocket};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{TcpListener, TcpSocket, TcpStream};
use tokio::process::Command;
use tokio::sync::watch;
use tokio::task::{JoinHandle, JoinSet};

use crate::common::raw::*;
use crate::common::*;
use crate::measure::measured;
use crate::parts::{Counter, KERNEL_BUFFER, LOST_WITH_A_PULL, PULL, PUSH, Recorder, STAY, SUB, message, numbers};
use crate::process::{Process, alone_by, may_run, may_unshare, name_of, run, this_program};
use crate::subscribers::pub_builder;

/// Forwards bytes, but not while it is mute: then it keeps its connections and does nothing.
pub(crate) struct Proxy {
    pub(crate) endpoint: Endpoint,
    mute: watch::Sender<bool>,
    task: JoinHandle<()>,
}

impl Proxy {
    pub(crate) async fn start(target: &Endpoint) -> Self {
        let target = target.to_string().strip_prefix("tcp://").unwrap().to_owned();
        let socket = TcpSocket::new_v4().unwrap();
        socket.set_recv_buffer_size(KERNEL_BUFFER as u32).unwrap();
        socket.bind("127.0.0.1:0".parse().unwrap()).unwrap();
        let listener = socket.listen(16).unwrap();
        let endpoint = format!("tcp://{}", listener.local_addr().unwrap()).parse().unwrap();
        let (mute, muted) = watch::channel(false);
        Self { endpoint, mute, task: tokio::spawn(accept(listener, target, muted)) }
    }

    pub(crate) fn mute(&self, mute: bool) {
        self.mute.send_replace(mute);
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.task.abort();
    }
}

async fn accept(listener: TcpListener, target: String, muted: watch::Receiver<bool>) {
    let mut connections = JoinSet::new();
    while let Ok((near, _)) = listener.accept().await {
        let (target, muted) = (target.clone(), muted.clone());
        connections.spawn(async move {
            let Ok(far) = TcpStream::connect(target).await else {
                return;
            };
            let ((near_in, near_out), (far_in, far_out)) = (near.into_split(), far.into_split());
            tokio::join!(forward(near_in, far_out, muted.clone()), forward(far_in, near_out, muted));
        });
    }
}

async fn forward(mut from: OwnedReadHalf, mut to: OwnedWriteHalf, mut muted: watch::Receiver<bool>) {
    let mut buffer = vec![0; 16 * 1024];
    // It ends with the proxy, or with either side.
    while muted.wait_for(|mute| !mute).await.is_ok() {
        match from.read(&mut buffer).await {
            Ok(count @ 1..) => {
                if muted.wait_for(|mute| !mute).await.is_err() || to.write_all(&buffer[..count]).await.is_err() {
                    return;
                }
            }
            _ => return,
        }
    }
}

/// The kernel counts the time of its timers in ticks of this length at most, and may be so much too early.
const KERNEL_TICK: Duration = Duration::from_millis(10);

fn is_timeout(reason: &DisconnectReason) -> bool {
    use std::io::ErrorKind::{HostUnreachable, NetworkUnreachable, TimedOut};
    matches!(reason, DisconnectReason::Io(TimedOut | HostUnreachable | NetworkUnreachable))
}

/// How the next connection ends that had finished the handshake.
async fn next_end(monitor: &mut Monitor) -> DisconnectReason {
    wait_for(monitor, |event| match event {
        Event::Disconnected { reason, .. } => Some(reason),
        _ => None,
    })
    .await
}

/// The numbers that a PULL receives in the background.
struct Collection {
    pull: PullSocket,
    task: JoinHandle<Vec<u64>>,
    count: Arc<AtomicU64>,
}

impl Collection {
    fn start(pull: PullSocket) -> Self {
        let count = Arc::new(AtomicU64::new(0));
        let (socket, counter) = (pull.clone(), count.clone());
        let task = tokio::spawn(async move {
            let mut received = Vec::new();
            while let Ok(message) = socket.recv().await {
                received.push(numbers(&message).1);
                counter.fetch_add(1, Ordering::SeqCst);
            }
            received
        });
        Self { pull, task, count }
    }

    /// Waits until the last peer has gone and all that it has sent is here, and closes the PULL.
    async fn end(self) -> Vec<u64> {
        let Self { pull, task, count } = self;
        eventually(|| pull.stats().peers == 0 && count.load(Ordering::SeqCst) == pull.stats().messages_received).await;
        within(pull.close()).await.unwrap();
        within(task).await.unwrap()
    }
}

#[tokio::test]
async fn a_push_finds_a_mute_peer_and_gives_its_messages_to_another() {
    mute_pull(Duration::from_millis(1_500)).await;
}

pub(crate) async fn mute_pull(user_timeout: Duration) {
    let place = Place::new(Transport::Tcp);
    let (mute, other) = (pull_builder().kernel_receive_buffer(KERNEL_BUFFER).build().unwrap(), new_pull());
    let proxy = Proxy::start(&within(mute.bind(place.wildcard())).await.unwrap()).await;
    let push = push_builder()
        .tcp_user_timeout(user_timeout)
        .kernel_send_buffer(KERNEL_BUFFER)
        .handshake_timeout(Duration::from_millis(300))
        .build()
        .unwrap();
    push.connect(within(other.bind(place.wildcard())).await.unwrap()).unwrap();
    push.connect(&proxy.endpoint).unwrap();
    within(push.wait_connected(2)).await.unwrap();
    let received = [mute, other].map(Collection::start);
    let mut monitor = push.monitor();

    // Until it is found, the other one gets whatever this one does not take.
    let begin = Instant::now();
    proxy.mute(true);
    let mut number = 0;
    let reason = {
        let mut end = std::pin::pin!(next_end(&mut monitor));
        loop {
            within(push.send(message(0, number))).await.unwrap();
            number += 1;
            tokio::select! { biased; reason = &mut end => break reason, () = tokio::task::yield_now() => () }
            assert!(begin.elapsed() < user_timeout + PATIENCE, "a mute peer is not found");
        }
    };
    let found = begin.elapsed();
    assert!(is_timeout(&reason), "{reason}");
    assert!(found + KERNEL_TICK >= user_timeout, "{found:?}");
    assert_eq!(push.stats().peers, 1);

    // The proxy still answers to TCP: the new connection is given up at the handshake deadline.
    let failed = wait_for(&mut monitor, |event| match event {
        Event::HandshakeFailed { peer, reason } => Some((peer.endpoint, reason)),
        _ => None,
    });
    let expected = DisconnectReason::Protocol(ProtocolError::HandshakeTimeout);
    assert_eq!(failed.await, (proxy.endpoint.clone(), expected));
    proxy.mute(false);
    within(push.wait_connected(2)).await.unwrap();
    for _ in 0..1_000 {
        within(push.send(message(0, number))).await.unwrap();
        number += 1;
    }
    assert_eq!(within(push.close()).await.unwrap().unsent, 0);
    let mut all = Vec::new();
    for received in received {
        all.extend(received.end().await);
    }
    let came = all.len();
    all.sort_unstable();
    all.dedup();
    assert_eq!(all.len(), came, "something came twice");
    let lost = number as usize - came;
    measured!("a mute peer found after {found:?}; of {number} messages {lost} lost with it");
    assert!(lost <= LOST_WITH_A_PULL, "{lost} of {number} messages lost");
}

#[tokio::test]
async fn a_mute_push_does_not_hold_up_another_and_loses_nothing_when_it_speaks_again() {
    const MESSAGES: u64 = 20_000;
    let place = Place::new(Transport::Tcp);
    let (pull, mute, other) = (new_pull(), new_push(), new_push());
    let endpoint = within(pull.bind(place.wildcard())).await.unwrap();
    let proxy = Proxy::start(&endpoint).await;
    mute.connect(&proxy.endpoint).unwrap();
    other.connect(&endpoint).unwrap();
    within(pull.wait_connected(2)).await.unwrap();
    within(mute.wait_connected(1)).await.unwrap();
    let send = |push: PushSocket, name| {
        tokio::spawn(async move {
            for number in 0..MESSAGES {
                within(push.send(message(name, number))).await.unwrap();
            }
        })
    };
    let mut counts = [0; 2];
    let mut take = async || {
        let (name, number) = numbers(&within(pull.recv()).await.unwrap());
        assert_eq!(number, counts[name as usize], "PUSH {name} skipped or repeated something");
        counts[name as usize] += 1;
        counts
    };

    let sending = send(mute.clone(), 0);
    while take().await[0] < 100 {}
    proxy.mute(true);
    let others = send(other, 1);
    while take().await[1] < MESSAGES {}
    within(others).await.unwrap();
    proxy.mute(false);
    while take().await[0] < MESSAGES {}
    within(sending).await.unwrap();
}

#[tokio::test]
async fn a_peer_that_is_mute_from_the_first_is_given_up_and_found_later() {
    let place = Place::new(Transport::Tcp);
    let pull = new_pull();
    let proxy = Proxy::start(&within(pull.bind(place.wildcard())).await.unwrap()).await;
    proxy.mute(true);
    let push = push_builder().handshake_timeout(Duration::from_millis(200)).build().unwrap();
    let mut monitor = push.monitor();
    push.connect(&proxy.endpoint).unwrap();
    for _ in 0..2 {
        let reason = wait_for(&mut monitor, |event| match event {
            Event::HandshakeFailed { reason, .. } => Some(reason),
            _ => None,
        });
        assert_eq!(reason.await, DisconnectReason::Protocol(ProtocolError::HandshakeTimeout));
    }
    proxy.mute(false);
    send_numbers(&push, 0..100).await;
    assert_eq!(recv_numbers(&pull, 100).await, (0..100).collect::<Vec<_>>());
}

/// How often a PING is sent, and how long the answer may take.
const HEARTBEAT: Duration = Duration::from_millis(400);
const ANSWER: Duration = Duration::from_millis(600);

/// How long it takes from now on until heartbeats find that a peer is silent.
async fn found_by_heartbeats(monitor: &mut Monitor) -> Duration {
    let begin = Instant::now();
    assert_eq!(next_end(monitor).await, DisconnectReason::Silent);
    let found = begin.elapsed();
    assert!(found <= HEARTBEAT + ANSWER + TOLERANCE, "{found:?}");
    found
}

#[tokio::test]
async fn both_ends_of_a_mute_connection_are_found_within_interval_and_timeout() {
    let place = Place::new(Transport::Tcp);
    let pull = pull_builder().heartbeat_interval(HEARTBEAT).heartbeat_timeout(ANSWER).build().unwrap();
    let push = push_builder().heartbeat_interval(HEARTBEAT).heartbeat_timeout(ANSWER).build().unwrap();
    let proxy = Proxy::start(&within(pull.bind(place.wildcard())).await.unwrap()).await;
    push.connect(&proxy.endpoint).unwrap();
    // Not so many that the PULL may be taken for slow.
    send_numbers(&push, 0..10).await;
    assert_eq!(recv_numbers(&pull, 10).await, (0..10).collect::<Vec<_>>());
    let (mut of_pull, mut of_push) = (pull.monitor(), push.monitor());
    proxy.mute(true);
    let (by_pull, by_push) = tokio::join!(found_by_heartbeats(&mut of_pull), found_by_heartbeats(&mut of_push));
    measured!(
        "heartbeats {HEARTBEAT:?} apart, with {ANSWER:?} for an answer: a PULL found a mute PUSH after {by_pull:?}, the PUSH the PULL after {by_push:?}"
    );
    // They meet again when bytes pass.
    proxy.mute(false);
    send_numbers(&push, 10..20).await;
    assert_eq!(recv_numbers(&pull, 10).await, (10..20).collect::<Vec<_>>());
}

/// A peer with more messages for a PULL than this reads, until the PULL shows that it lives all the same; then all of them
/// are received.
async fn paused_and_read_again(pull: &PullSocket, place: &Place) -> Raw {
    const MESSAGES: usize = 500;
    let endpoint = within(pull.bind(place.wildcard())).await.unwrap();
    let mut raw = Raw::peer(&endpoint, READY_PUSH).await;
    let pong = b"\x04PONG".to_vec();
    // Only to a peer that has asked is anything said.
    raw.send(&ping(&[])).await;
    while within(raw.frame()).await.expect("the answer").body != pong {}
    raw.send(&frame(0, &[7; 1_000]).repeat(MESSAGES)).await;
    while within(raw.frame()).await.expect("a PONG").body != pong {}
    for _ in 0..MESSAGES {
        within(pull.recv()).await.unwrap();
    }
    raw
}

#[tokio::test]
async fn a_pull_that_reads_again_shows_its_life_no_more() {
    /// Signs of life come once a second.
    const QUIET: Duration = Duration::from_millis(2_500);
    let pull = pull_builder().receive_high_water_mark(10).build().unwrap();
    let mut raw = paused_and_read_again(&pull, &Place::new(Transport::Tcp)).await;
    // What was on its way, and one that was due. Kept up, they would keep TCP from asking whether the peer is still there.
    let (begin, mut said) = (Instant::now(), 0);
    while let Ok(frame) = tokio::time::timeout(QUIET, raw.frame()).await {
        assert!(frame.is_some(), "the connection has ended");
        said += 1;
        assert!(begin.elapsed() < 8 * QUIET, "{said} frames so far for a peer that nothing is expected of");
    }
}

#[tokio::test]
async fn a_peer_that_was_not_read_for_a_while_is_found_when_it_falls_silent() {
    let pull =
        pull_builder().receive_high_water_mark(10).heartbeat_interval(Duration::from_millis(200)).build().unwrap();
    let mut monitor = pull.monitor();
    // It answers no PING.
    let _silent = paused_and_read_again(&pull, &Place::new(Transport::Tcp)).await;
    assert_eq!(next_end(&mut monitor).await, DisconnectReason::Silent);
}

#[test]
fn a_host_whose_route_is_gone_is_found_by_keepalive_by_user_timeout_and_by_heartbeats() {
    if !may_unshare("--net") || !may_run("ip", &["-Version"]) || !may_run("nsenter", &["--version"]) {
        return;
    }
    // A container may allow the namespace and lack the cable.
    let cable = ["--map-root-user", "--net", "ip", "link", "add", "here", "type", "veth", "peer", "name", "there"];
    if !may_run("unshare", &cable) {
        return;
    }
    let mut command = Command::new("unshare");
    command.args(["--map-root-user", "--net"]).arg(std::env::current_exe().unwrap());
    alone_by(
        command,
        name_of(a_host_whose_route_is_gone_is_found_by_keepalive_by_user_timeout_and_by_heartbeats),
        vanish,
    );
}

/// Another network namespace at the other end of a cable.
struct Host(Process);

impl Host {
    const HERE: &str = "10.83.0.1";
    const THERE: &str = "10.83.0.2";

    async fn connect() -> Self {
        let mut command = Command::new("unshare");
        command.arg("--net").arg(std::env::current_exe().unwrap());
        let host = Self(Process::start_by(command, STAY, &[]));
        let own = std::fs::read_link("/proc/self/ns/net").unwrap();
        let path = format!("/proc/{}/ns/net", host.0.id());
        eventually(|| std::fs::read_link(&path).is_ok_and(|theirs| theirs != own)).await;
        let id = host.0.id().to_string();
        run("ip", "link add here type veth peer name there netns", &[&id]);
        run("ip", "addr add dev here", &[&format!("{}/24", Self::HERE)]);
        run("ip", "link set here up", &[]);
        host.ip("addr add dev there", &[&format!("{}/24", Self::THERE)]);
        host.ip("link set there up", &[]);
        host
    }

    fn ip(&self, command: &str, more: &[&str]) {
        run("nsenter", &format!("--target {} --net ip {command}", self.0.id()), more);
    }

    /// The command that runs this program there.
    fn program(&self) -> Command {
        let mut command = Command::new("nsenter");
        command.args(["--target", &self.0.id().to_string(), "--net"]).arg(this_program().as_std().get_program());
        command
    }

    /// Nothing comes from there any more, not even a FIN.
    fn vanish(&self) {
        self.ip("route add blackhole", &[Self::HERE]);
    }

    fn come_back(&self) {
        self.ip("route del blackhole", &[Self::HERE]);
    }
}

async fn vanish() {
    const KEEPALIVE: Duration = Duration::from_secs(1);
    /// It asks after this time, and then six times more, a second apart at least.
    const KEPT_ALIVE: Duration = Duration::from_secs(1 + 6);
    const USER_TIMEOUT: Duration = Duration::from_secs(1);
    let host = Host::connect().await;
    let folder = tempfile::tempdir().unwrap();
    let here = format!("tcp://{}:*", Host::HERE);
    let pull = pull_builder().tcp_keepalive(KEEPALIVE).build().unwrap();
    let push = push_builder().tcp_user_timeout(USER_TIMEOUT).kernel_send_buffer(KERNEL_BUFFER).build().unwrap();
    // These have nothing to say: only heartbeats can find that the other has gone.
    let quiet_push = push_builder().tcp_keepalive(Duration::ZERO).heartbeat_interval(HEARTBEAT);
    let quiet_push = quiet_push.heartbeat_timeout(ANSWER).build().unwrap();
    let quiet_pub = pub_builder().tcp_keepalive(Duration::ZERO).heartbeat_interval(HEARTBEAT);
    let quiet_pub = quiet_pub.heartbeat_timeout(ANSWER).build().unwrap();
    let (to_pull, to_push) =
        (within(pull.bind(here.as_str())).await.unwrap(), within(push.bind(here.as_str())).await.unwrap());
    let (to_quiet_push, to_quiet_pub) =
        (within(quiet_push.bind(here.as_str())).await.unwrap(), within(quiet_pub.bind(here.as_str())).await.unwrap());
    let mut monitors = (pull.monitor(), push.monitor());
    let mut quiet_monitors = (quiet_push.monitor(), quiet_pub.monitor());
    let sender = Counter::start_by(host.program(), PUSH, &to_pull, 0, folder.path().join("sent"));
    let receiver = Recorder::start_by(host.program(), PULL, &to_push, folder.path().join("received"));
    let quiet = [
        Recorder::start_by(host.program(), PULL, &to_quiet_push, folder.path().join("quiet pull")),
        Recorder::start_by(host.program(), SUB, &to_quiet_pub, folder.path().join("quiet sub")),
    ];
    within(pull.wait_connected(1)).await.unwrap();
    within(push.wait_connected(1)).await.unwrap();
    within(quiet_push.wait_connected(1)).await.unwrap();
    within(quiet_pub.wait_subscribed("", 1)).await.unwrap();
    let received = Collection::start(pull.clone());
    eventually(|| sender.handed_over() > 1_000).await;

    host.vanish();
    let begin = Instant::now();
    let kept_alive = async {
        let reason = next_end(&mut monitors.0).await;
        (reason, begin.elapsed())
    };
    let timed_out = async {
        // Only what was sent can be missed.
        within(push.send(message(0, 0))).await.unwrap();
        let reason = next_end(&mut monitors.1).await;
        let elapsed = begin.elapsed();
        // What comes now waits for the next one.
        within(push.send(message(0, 1))).await.unwrap();
        (reason, elapsed)
    };
    let ((by_keepalive, kept), (by_timeout, timed), by_push, by_pub) = tokio::join!(
        kept_alive,
        timed_out,
        found_by_heartbeats(&mut quiet_monitors.0),
        found_by_heartbeats(&mut quiet_monitors.1)
    );
    measured!("by heartbeats {HEARTBEAT:?} apart, with {ANSWER:?} for an answer, after {by_push:?} and {by_pub:?}");
    measured!("a host that vanished was found by keepalive after {kept:?}, by user timeout after {timed:?}");
    assert!(is_timeout(&by_keepalive) && is_timeout(&by_timeout), "{by_keepalive}, {by_timeout}");
    assert!((KEEPALIVE - KERNEL_TICK..KEPT_ALIVE + TOLERANCE).contains(&kept), "{kept:?}");
    assert!((USER_TIMEOUT - KERNEL_TICK..USER_TIMEOUT + TOLERANCE).contains(&timed), "{timed:?}");
    assert_eq!((pull.stats().peers, push.stats().peers), (0, 0));
    let received = received.end().await;
    assert!(received.iter().copied().eq(0..received.len() as u64), "not an unbroken prefix");

    host.come_back();
    let mut second = Recorder::start_by(host.program(), PULL, &to_push, folder.path().join("second"));
    within(push.wait_connected(1)).await.unwrap();
    assert_eq!(within(push.close()).await.unwrap().unsent, 0);
    assert!(within(second.process.ended()).await.success());
    assert_eq!(second.record(), [1]);
    drop((sender, receiver, quiet));
}
