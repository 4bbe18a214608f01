//! No descriptors left: accepting and connecting wait without spinning, say so, and go on when there are some again.

use std::fs::File;
use std::io;
use std::time::{Duration, Instant};

use futures::StreamExt;
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use sinew::{BindError, Endpoint, Event, Monitor};
use socket2::{Domain, SockAddr, Socket, Type};

use crate::common::*;
use crate::measure::{ProcessorTime, descriptors, measured};
use crate::process::{alone, name_of, scale};

const TRANSPORTS: [Transport; 2] = [Transport::Tcp, Transport::Ipc];

/// Takes all descriptors there are, until it is dropped.
struct Exhausted(#[allow(dead_code)] Vec<File>);

impl Exhausted {
    fn new() -> Self {
        let few = Rlimit { current: Some(descriptors() as u64 + 32), maximum: getrlimit(Resource::Nofile).maximum };
        setrlimit(Resource::Nofile, few).unwrap();
        let mut files = Vec::new();
        while files.len() < 1_000 {
            match File::open("/dev/null") {
                Ok(file) => files.push(file),
                Err(error) if error.raw_os_error() == Some(EMFILE) => return Self(files),
                Err(error) => panic!("{error}"),
            }
        }
        panic!("the limit is not kept");
    }
}

/// One after the other: what ends in the background would free descriptors.
async fn over_each_transport<F: Future<Output = ()>>(case: impl Fn(Place) -> F) {
    for transport in TRANSPORTS {
        let before = descriptors();
        case(Place::new(transport)).await;
        eventually(|| descriptors() == before).await;
    }
}

const EMFILE: i32 = rustix::io::Errno::MFILE.raw_os_error();

/// What the system says when there are none.
fn none_left() -> String {
    io::Error::from_raw_os_error(EMFILE).to_string()
}

/// So many attempts at least are waited for.
const ATTEMPTS: usize = 3;

/// Counts the events of interest for a while, or until there are some, in which hardly any processor time may pass.
async fn watch(time: &ProcessorTime, monitor: &mut Monitor, mut interest: impl FnMut(Event) -> bool) -> usize {
    let length = Duration::from_secs(scale(2, 20));
    let (begin, before) = (Instant::now(), time.used());
    let mut count = 0;
    while begin.elapsed() < length || (count < ATTEMPTS && begin.elapsed() < length + PATIENCE) {
        let rest = length.checked_sub(begin.elapsed()).unwrap_or(PATIENCE);
        if let Ok(event) = tokio::time::timeout(rest, monitor.next()).await {
            count += usize::from(interest(event.expect("the socket is open")));
        }
    }
    let (used, passed) = (time.used() - before, begin.elapsed());
    measured!("{count} attempts and {used:?} of processor time in {passed:?} without descriptors");
    assert!(used < passed / 10, "{used:?} of processor time in {passed:?}");
    count
}

#[test]
pub(crate) fn accepting_without_descriptors_waits_and_recovers() {
    alone(name_of(accepting_without_descriptors_waits_and_recovers), || async {
        over_each_transport(accept).await;
    });
}

async fn accept(place: Place) {
    let time = ProcessorTime::new();
    let (push, pull) = pair(&place).await;
    let endpoint = within(pull.bind(place.wildcard())).await.unwrap();
    let mut monitor = pull.monitor();
    // It has its descriptor before they run out.
    let (client, address) = client(&endpoint);
    let exhausted = Exhausted::new();
    client.connect(&address).unwrap();

    let (mut delays, mut others) = (Vec::new(), Vec::new());
    watch(&time, &mut monitor, |event| match event {
        Event::AcceptFailed { endpoint: at, cause, delay } => {
            assert_eq!((at, cause), (endpoint.clone(), none_left()));
            delays.push(delay);
            true
        }
        other => {
            others.push(other);
            false
        }
    })
    .await;
    assert!(delays.len() >= ATTEMPTS, "{delays:?}");
    assert!(delays.is_sorted() && *delays.last().unwrap() <= Duration::from_secs(1), "{delays:?}");
    assert!(others.is_empty(), "{others:?}");
    // Those who are connected notice nothing.
    send_numbers(&push, 0..100).await;
    assert_eq!(recv_numbers(&pull, 100).await, (0..100).collect::<Vec<_>>());

    drop(exhausted);
    wait_for(&mut monitor, |event| matches!(event, Event::Accepted(peer) if peer.endpoint == endpoint).then_some(()))
        .await;
    drop(client);
    let another = new_push();
    another.connect(&endpoint).unwrap();
    send_numbers(&another, [7]).await;
    assert_eq!(recv_numbers(&pull, 1).await, [7]);
}

fn client(endpoint: &Endpoint) -> (Socket, SockAddr) {
    let text = endpoint.to_string();
    match text.split_once("://").unwrap() {
        ("tcp", address) => {
            let address: std::net::SocketAddr = address.parse().unwrap();
            (Socket::new(Domain::IPV4, Type::STREAM, None).unwrap(), address.into())
        }
        (_, path) => (Socket::new(Domain::UNIX, Type::STREAM, None).unwrap(), SockAddr::unix(path).unwrap()),
    }
}

#[test]
fn connecting_without_descriptors_waits_and_recovers() {
    alone(name_of(connecting_without_descriptors_waits_and_recovers), || async {
        over_each_transport(connect).await;
    });
}

async fn connect(place: Place) {
    let time = ProcessorTime::new();
    let (push, pull) = (new_push(), new_pull());
    let endpoint = within(pull.bind(place.wildcard())).await.unwrap();
    let mut monitor = push.monitor();
    let exhausted = Exhausted::new();
    push.connect(&endpoint).unwrap();
    // Messages wait for better times.
    send_numbers(&push, 0..100).await;
    let retries = watch(&time, &mut monitor, |event| match event {
        Event::ConnectRetried { endpoint: to, cause, .. } => {
            assert_eq!((to, cause), (endpoint.clone(), none_left()));
            true
        }
        other => panic!("{other:?}"),
    })
    .await;
    assert!(retries >= ATTEMPTS, "{retries}");
    drop(exhausted);
    assert_eq!(recv_numbers(&pull, 100).await, (0..100).collect::<Vec<_>>());
}

#[test]
fn binding_without_descriptors_is_an_error_and_leaves_nothing() {
    alone(name_of(binding_without_descriptors_is_an_error_and_leaves_nothing), || over_each_transport(bind));
}

async fn bind(place: Place) {
    let pull = new_pull();
    for endpoint in [place.fresh(), place.wildcard()] {
        let exhausted = Exhausted::new();
        let error = within(pull.bind(&endpoint)).await.unwrap_err();
        drop(exhausted);
        let text = error.to_string();
        assert!(text.contains(&endpoint.to_string()) && text.contains(&none_left()), "{text}");
        assert!(matches!(error, BindError::Io { endpoint: at, .. } if at == endpoint));
        assert_eq!(private_folders(), Vec::<String>::new(), "left behind by {endpoint}");
        // The same socket, when there are some again.
        within(pull.bind(&endpoint)).await.unwrap();
    }
}

/// The folders that this process has made for `ipc://*`.
fn private_folders() -> Vec<String> {
    let entries = std::fs::read_dir(std::env::temp_dir()).unwrap();
    let names = entries.filter_map(|entry| entry.ok()?.file_name().into_string().ok());
    names.filter(|name| name.starts_with(&format!("sinew-{:x}-", std::process::id()))).collect()
}
