//! What the interop tests share: both libraries' sockets under one face, and time limits for everything.

mod libzmq;
mod pair;
mod process;
mod publisher;
mod puller;
mod pusher;
mod subscriber;

use std::cell::RefCell;
use std::future::Future;
use std::time::{Duration, Instant};

use futures::StreamExt;
use sinew::{Event, Monitor};
use tempfile::TempDir;
use tokio::net::TcpSocket;

pub use libzmq::{Libzmq, Socket};
pub use pair::{Pair, on_every_pair};
pub use process::Process;
pub use publisher::Publisher;
pub use puller::Puller;
pub use pusher::Pusher;
pub use subscriber::{Subscriber, Subscribing};

/// How long anything may take that has to happen: generous, for a busy machine.
pub const LIMIT: Duration = Duration::from_secs(60);

/// A message as its frames.
pub type Frames = Vec<Vec<u8>>;

/// Whose implementation a socket is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Library {
    /// This project's.
    Sinew,
    /// The reference.
    Libzmq,
}

impl Library {
    /// The one at the other end.
    #[must_use]
    pub fn other(self) -> Self {
        match self {
            Self::Sinew => Self::Libzmq,
            Self::Libzmq => Self::Sinew,
        }
    }
}

/// One of the two ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum End {
    /// The one that pushes.
    Push,
    /// The one that pulls.
    Pull,
}

/// Which of the two types of socket at one end of publish and subscribe.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// PUB or SUB.
    Plain,
    /// XPUB or XSUB.
    Extended,
}

/// What an end does with an endpoint.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Role {
    /// It listens there.
    Binds,
    /// It dials there.
    Connects,
}

impl Role {
    /// What `end` does if `binder` is the end that binds.
    #[must_use]
    pub fn of(end: End, binder: End) -> Self {
        if end == binder { Self::Binds } else { Self::Connects }
    }

    /// What the other end does then.
    #[must_use]
    pub fn other(self) -> Self {
        match self {
            Self::Binds => Self::Connects,
            Self::Connects => Self::Binds,
        }
    }
}

/// How the ends are joined.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Transport {
    /// TCP over the loopback interface.
    Tcp,
    /// Unix-domain sockets.
    Ipc,
}

/// Where a test's sockets may be bound.
#[derive(Debug)]
pub struct Place {
    transport: Transport,
    folder: TempDir,
    /// Bound without listening: nobody else is given these ports, and a socket of the test may listen there again and again.
    reserved: RefCell<Vec<TcpSocket>>,
}

impl Place {
    /// A place of its own for one test.
    #[must_use]
    pub fn new(transport: Transport) -> Self {
        Self { transport, folder: tempfile::tempdir().expect("a folder for IPC sockets"), reserved: RefCell::default() }
    }

    /// An endpoint to bind that nobody else uses.
    pub fn endpoint(&self) -> String {
        let socket = TcpSocket::new_v4().expect("a socket");
        socket.set_reuseaddr(true).expect("a port that may be shared");
        socket.bind(([127, 0, 0, 1], 0).into()).expect("a port");
        let address = socket.local_addr().expect("a port");
        self.reserved.borrow_mut().push(socket);
        match self.transport {
            Transport::Tcp => format!("tcp://{address}"),
            Transport::Ipc => format!("ipc://{}/{}", self.folder.path().display(), address.port()),
        }
    }
}

/// Binds one end and connects the other; gives the endpoint.
pub async fn meet(pusher: &mut Pusher, puller: &mut Puller, binder: End, place: &Place) -> String {
    match binder {
        End::Push => {
            let endpoint = pusher.attach(Role::Binds, &place.endpoint()).await;
            puller.attach(Role::Connects, &endpoint).await
        }
        End::Pull => {
            let endpoint = puller.attach(Role::Binds, &place.endpoint()).await;
            pusher.attach(Role::Connects, &endpoint).await
        }
    }
}

/// The same for a publisher and a subscriber.
pub async fn join(
    publisher: &mut Publisher,
    subscriber: &mut Subscriber,
    publisher_role: Role,
    place: &Place,
) -> String {
    match publisher_role {
        Role::Binds => {
            let endpoint = publisher.attach(Role::Binds, &place.endpoint()).await;
            subscriber.attach(Role::Connects, &endpoint).await
        }
        Role::Connects => {
            let endpoint = subscriber.attach(Role::Binds, &place.endpoint()).await;
            publisher.attach(Role::Connects, &endpoint).await
        }
    }
}

/// Waits for what must happen, and fails with `what` did not.
pub async fn within<T>(what: &str, happens: impl Future<Output = T>) -> T {
    match tokio::time::timeout(LIMIT, happens).await {
        Ok(result) => result,
        Err(_) => panic!("not within {LIMIT:?}: {what}"),
    }
}

/// Reads a monitor up to the event that `pick` wants.
pub async fn event<T>(monitor: &mut Monitor, what: &str, pick: impl Fn(&Event) -> Option<T>) -> T {
    within(what, async {
        loop {
            let event = monitor.next().await.unwrap_or_else(|| panic!("the monitor ended before this: {what}"));
            if let Some(picked) = pick(&event) {
                return picked;
            }
        }
    })
    .await
}

/// Reads a monitor up to the next successful handshake.
pub async fn handshake(monitor: &mut Monitor) {
    event(monitor, "a handshake succeeds", |event| matches!(event, Event::HandshakeSucceeded { .. }).then_some(()))
        .await;
}

/// Reads a monitor up to the next loss of a peer; gives the number of messages that came back.
pub async fn disconnect(monitor: &mut Monitor) -> usize {
    event(monitor, "a peer is lost", |event| match event {
        Event::Disconnected { returned, .. } => Some(*returned),
        _ => None,
    })
    .await
}

/// Asks again and again until `condition` holds; only for what no event tells.
pub async fn until(what: &str, mut condition: impl FnMut() -> bool) {
    within(what, async {
        while !condition() {
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
    })
    .await;
}

/// Waits until a number that is looked at again and again stays the same: nothing moves any more.
///
/// Whoever moves it may have to wait for a processor as long as we do, so it is given many times as long as that.
pub async fn settled(what: &str, mut number: impl FnMut() -> u64) {
    const STILL: Duration = Duration::from_millis(300);
    const PAUSE: Duration = Duration::from_millis(5);
    const TIMES: u32 = 20;
    const LONGEST: Duration = Duration::from_secs(5);
    within(what, async {
        let (mut last, mut since, mut latest) = (number(), Instant::now(), Duration::ZERO);
        while since.elapsed() < (latest * TIMES).clamp(STILL, LONGEST) {
            let due = Instant::now() + PAUSE;
            tokio::time::sleep(PAUSE).await;
            latest = latest.max(due.elapsed());
            let now = number();
            if now != last {
                (last, since) = (now, Instant::now());
            }
        }
    })
    .await;
}

/// A message of one frame of `size` bytes, at least 8, that begins with its number.
#[must_use]
pub fn numbered(number: usize, size: usize) -> Frames {
    let mut body = vec![number as u8; size];
    body[..8].copy_from_slice(&(number as u64).to_be_bytes());
    vec![body]
}

/// The number of a message made by [`numbered`], which must be whole.
pub fn number(message: &Frames) -> usize {
    let [body] = &message[..] else {
        panic!("one frame was sent, {} have come", message.len());
    };
    let (number, rest) = body.split_first_chunk().expect("a message begins with its number");
    let number = u64::from_be_bytes(*number) as usize;
    assert!(rest.iter().all(|byte| *byte == number as u8), "message {number} has come damaged");
    number
}
