//! What the test suites share: places to meet, time limits, numbered messages, and peers that speak bytes.
#![allow(dead_code)] // each suite uses its part

pub(crate) mod raw;
pub(crate) mod topics;

use std::future::Future;
use std::panic::Location;
use std::sync::{Mutex, OnceLock};
use std::time::{Duration, Instant};

use futures::StreamExt;
use sinew::{DisconnectReason, Endpoint, Event, Message, Monitor, PullBuilder, PullSocket, PushBuilder, PushSocket};
use socket2::{Domain, Socket, Type};

/// Makes tests of behaviours, `async fn(Place)`, over each transport.
#[allow(unused_macros)]
macro_rules! over_each_transport {
    ($($name:ident),+ $(,)?) => {
        mod tcp { $($crate::common::over_one_transport!($name, Tcp);)+ }
        mod ipc { $($crate::common::over_one_transport!($name, Ipc);)+ }
    };
}

#[allow(unused_macros)]
macro_rules! over_one_transport {
    ($name:ident, $transport:ident) => {
        #[tokio::test]
        async fn $name() {
            use $crate::common::{Place, Transport};
            super::$name(Place::new(Transport::$transport)).await;
        }
    };
}

#[allow(unused_imports)] // as above
pub(crate) use {over_each_transport, over_one_transport};

/// Whatever takes longer than this is taken to hang; far longer than anything takes on a busy machine.
pub(crate) const PATIENCE: Duration = Duration::from_secs(60);

/// How much later than due a timer may be seen to fire on a busy machine.
pub(crate) const TOLERANCE: Duration = Duration::from_secs(5);

/// Waits for a future, and fails where it was called if that takes too long.
#[track_caller]
pub(crate) fn within<F: Future>(future: F) -> impl Future<Output = F::Output> {
    let caller = Location::caller();
    async move {
        let Ok(output) = tokio::time::timeout(PATIENCE, future).await else {
            panic!("hangs: {caller}");
        };
        output
    }
}

/// Looks again and again until `condition` holds; for what no event tells.
#[track_caller]
pub(crate) fn eventually(condition: impl FnMut() -> bool) -> impl Future<Output = ()> {
    let (caller, mut condition) = (Location::caller(), condition);
    async move {
        let start = Instant::now();
        while !condition() {
            assert!(start.elapsed() < PATIENCE, "never came true: {caller}");
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    }
}

/// Waits until a number that is looked at again and again stays the same; for the end of a flow.
///
/// Who makes the number may have to wait for a processor as long as we do, so it is given many times as long as that.
pub(crate) async fn settled(mut number: impl FnMut() -> u64) -> u64 {
    const LOOKS: usize = 30;
    const PAUSE: Duration = Duration::from_millis(5);
    const TIMES: u32 = 20;
    const LONGEST: Duration = Duration::from_secs(5);
    let start = Instant::now();
    let (mut last, mut same, mut since, mut latest) = (number(), 0, start, Duration::ZERO);
    while same < LOOKS || since.elapsed() < (latest * TIMES).min(LONGEST) {
        assert!(start.elapsed() < PATIENCE, "never settles");
        let due = Instant::now() + PAUSE;
        tokio::time::sleep(PAUSE).await;
        latest = latest.max(due.elapsed());
        let now = number();
        if now == last {
            same += 1;
        } else {
            (last, same, since) = (now, 0, Instant::now());
        }
    }
    last
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Transport {
    Tcp,
    Ipc,
}

/// Where one test's sockets meet.
#[derive(Debug)]
pub(crate) struct Place {
    pub(crate) transport: Transport,
    folder: tempfile::TempDir,
    /// Bound without listening: nobody else is given these ports, and a socket of the test may still listen there.
    reserved: Mutex<Vec<Socket>>,
}

impl Place {
    pub(crate) fn new(transport: Transport) -> Self {
        raise_descriptor_limit();
        Self { transport, folder: tempfile::tempdir().unwrap(), reserved: Mutex::default() }
    }

    /// An endpoint with something left to choose.
    pub(crate) fn wildcard(&self) -> Endpoint {
        match self.transport {
            Transport::Tcp => "tcp://127.0.0.1:*".parse().unwrap(),
            Transport::Ipc => "ipc://*".parse().unwrap(),
        }
    }

    /// A definite endpoint of this test's own where nobody listens yet.
    pub(crate) fn fresh(&self) -> Endpoint {
        let mut reserved = self.reserved.lock().unwrap();
        let socket = Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
        socket.set_reuse_address(true).unwrap();
        socket.bind(&std::net::SocketAddr::from(([127, 0, 0, 1], 0)).into()).unwrap();
        let address = socket.local_addr().unwrap().as_socket().unwrap();
        reserved.push(socket);
        match self.transport {
            Transport::Tcp => format!("tcp://{address}").parse().unwrap(),
            Transport::Ipc => format!("ipc://{}/{}", self.folder.path().display(), address.port()).parse().unwrap(),
        }
    }
}

/// Lets this process have as many descriptors as it may: many systems start one with 1,024 at most, and tests run side by side.
/// Gives how many that are.
pub(crate) fn raise_descriptor_limit() -> u64 {
    use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
    static MOST: OnceLock<u64> = OnceLock::new();
    *MOST.get_or_init(|| {
        let limit = getrlimit(Resource::Nofile);
        setrlimit(Resource::Nofile, Rlimit { current: limit.maximum, ..limit }).unwrap();
        limit.maximum.unwrap_or(u64::MAX)
    })
}

/// Whether this process may have so many descriptors; says so if not.
pub(crate) fn may_open(descriptors: u64) -> bool {
    let most = raise_descriptor_limit();
    if most < descriptors {
        println!("skipped: {descriptors} descriptors are needed, {most} are allowed");
    }
    most >= descriptors
}

/// A PUSH that does not wait long before it connects again.
pub(crate) fn push_builder() -> PushBuilder {
    PushSocket::builder().reconnect_delay(Duration::from_millis(5), Duration::from_millis(50))
}

/// A PULL that does not wait long before it connects again.
pub(crate) fn pull_builder() -> PullBuilder {
    PullSocket::builder().reconnect_delay(Duration::from_millis(5), Duration::from_millis(50))
}

pub(crate) fn new_push() -> PushSocket {
    push_builder().build().unwrap()
}

pub(crate) fn new_pull() -> PullSocket {
    pull_builder().build().unwrap()
}

/// A bound PULL and a PUSH that is connected to it.
pub(crate) async fn pair(place: &Place) -> (PushSocket, PullSocket) {
    join(place, new_push(), new_pull()).await
}

/// Binds the PULL, connects the PUSH to it, and waits for both to know it.
pub(crate) async fn join(place: &Place, push: PushSocket, pull: PullSocket) -> (PushSocket, PullSocket) {
    push.connect(within(pull.bind(place.wildcard())).await.unwrap()).unwrap();
    within(push.wait_connected(1)).await.unwrap();
    within(pull.wait_connected(1)).await.unwrap();
    (push, pull)
}

/// Message number `number`.
pub(crate) fn numbered(number: u64) -> Message {
    number.to_string().into()
}

/// Message number `number`, padded to `length` bytes with a second frame.
pub(crate) fn padded(number: u64, length: usize) -> Message {
    let text = number.to_string().into_bytes();
    let padding = vec![b'.'; length.saturating_sub(text.len())];
    [text, padding].into_iter().collect()
}

/// Which number a message has.
pub(crate) fn number(message: &Message) -> u64 {
    std::str::from_utf8(&message[0]).unwrap().parse().unwrap()
}

/// Sends the messages with these numbers.
pub(crate) async fn send_numbers(push: &PushSocket, numbers: impl IntoIterator<Item = u64>) {
    for number in numbers {
        within(push.send(numbered(number))).await.unwrap();
    }
}

/// Receives so many messages; gives their numbers.
pub(crate) async fn recv_numbers(pull: &PullSocket, count: usize) -> Vec<u64> {
    let mut numbers = Vec::new();
    while numbers.len() < count {
        numbers.push(number(&within(pull.recv()).await.unwrap()));
    }
    numbers
}

/// The next event of a socket.
pub(crate) async fn next_event(monitor: &mut Monitor) -> Event {
    within(monitor.next()).await.expect("the socket is open")
}

/// Reads events until one is of interest.
pub(crate) async fn wait_for<T>(monitor: &mut Monitor, mut interest: impl FnMut(Event) -> Option<T>) -> T {
    const EVENTS: usize = 10_000;
    for _ in 0..EVENTS {
        if let Some(found) = interest(next_event(monitor).await) {
            return found;
        }
    }
    panic!("{EVENTS} events, and not the one that was waited for");
}

/// Waits for the end of a connection that had finished the handshake; gives how many messages it returned.
pub(crate) async fn wait_disconnected(monitor: &mut Monitor) -> usize {
    wait_for(monitor, |event| match event {
        Event::Disconnected { returned, .. } => Some(returned),
        _ => None,
    })
    .await
}

/// Waits for the end of a connection that had finished the handshake; gives why it ended.
pub(crate) async fn wait_reason(monitor: &mut Monitor) -> DisconnectReason {
    wait_for(monitor, |event| match event {
        Event::Disconnected { reason, .. } => Some(reason),
        _ => None,
    })
    .await
}
