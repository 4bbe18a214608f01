//! Sockets of all types at random: tasks that begin, give up and are aborted at any moment, and closing in the middle of it.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use fastrand::Rng;
use futures::{SinkExt, StreamExt};
use tokio::task::JoinSet;
use tokio::time::{Instant, timeout};

use crate::error::{RecvError, SendError, TryRecvError, TrySendError};
use crate::message::Message;
use crate::simulation::network::{Address, Network};
use crate::simulation::world::{ROW, Tag, Tuning, World, dawdle, magnitude, no_task_is_left, tuned, within_long};
use crate::socket::handle::Core;
use crate::socket::publish::PubSocket;
use crate::socket::pull::PullSocket;
use crate::socket::push::PushSocket;
use crate::socket::receiving::{self, Messages, ReceiveMessage};
use crate::socket::sending::{self, MessageSink, SendMessage};
use crate::socket::subscribe::SubSocket;
use crate::socket::xpublish::XPubSocket;
use crate::socket::xsubscribe::XSubSocket;
use crate::sync::{Mutex, lock};

const PLACES: u8 = 6;

/// No more than this is done by one task.
const STEPS: u32 = 60;

/// A socket of any type.
#[derive(Debug, Clone)]
enum Any {
    Push(PushSocket),
    Pull(PullSocket),
    Pub(PubSocket),
    Sub(SubSocket),
    XPub(XPubSocket),
    XSub(XSubSocket),
}

impl Any {
    fn new(kind: u32, tuning: Tuning) -> Self {
        match kind {
            0 => Self::Push(tuned!(PushSocket::builder(), tuning, sends).build().expect("valid options")),
            1 => Self::Pull(
                tuned!(PullSocket::builder(), tuning, receives)
                    .conflate(tuning.conflates)
                    .build()
                    .expect("valid options"),
            ),
            2 => Self::Pub(tuned!(PubSocket::builder(), tuning, sends).build().expect("valid options")),
            3 => Self::Sub(
                tuned!(SubSocket::builder(), tuning, receives)
                    .conflate(tuning.conflates)
                    .build()
                    .expect("valid options"),
            ),
            4 => {
                Self::XPub(tuned!(XPubSocket::builder(), tuning, sends).verboser(true).build().expect("valid options"))
            }
            _ => Self::XSub(tuned!(XSubSocket::builder(), tuning, receives).build().expect("valid options")),
        }
    }

    fn core(&self) -> &Arc<Core> {
        match self {
            Self::Push(socket) => socket.core(),
            Self::Pull(socket) => socket.core(),
            Self::Pub(socket) => socket.core(),
            Self::Sub(socket) => socket.core(),
            Self::XPub(socket) => socket.core(),
            Self::XSub(socket) => socket.core(),
        }
    }

    fn sends(&self) -> bool {
        !matches!(self, Self::Pull(_) | Self::Sub(_))
    }

    fn receives(&self) -> bool {
        !matches!(self, Self::Push(_) | Self::Pub(_))
    }

    fn subscribe(&self, prefix: &str) {
        match self {
            Self::Sub(socket) => socket.subscribe(prefix),
            Self::XSub(socket) => socket.subscribe(prefix),
            _ => {}
        }
    }

    fn unsubscribe(&self, prefix: &str) {
        match self {
            Self::Sub(socket) => socket.unsubscribe(prefix),
            Self::XSub(socket) => socket.unsubscribe(prefix),
            _ => {}
        }
    }
}

#[derive(Debug, Clone)]
struct Stand {
    network: Network,
    is_ipc: bool,
    /// Messages of PUSH sockets that have come: none comes twice.
    pushed: Arc<Mutex<BTreeSet<Tag>>>,
}

pub(super) async fn run(mut world: World) {
    let stand = Stand { network: world.network.clone(), is_ipc: world.is_ipc, pushed: Arc::default() };
    let mut lives = JoinSet::new();
    for place in 0..PLACES {
        for _ in 0..world.rng.u32(1..4) {
            let linger = Duration::from_millis(world.rng.u64(0..2_000));
            let mut tuning = Tuning { linger, ..world.tuning() };
            if world.rng.bool() {
                tuning.most_connections = world.rng.usize(1..4);
                tuning.most_handshakes = world.rng.usize(1..3);
            }
            lives.spawn(life(stand.clone(), place, tuning, world.rng.fork()));
        }
    }
    if world.is_stormy {
        for _ in 0..world.rng.u32(1..12) {
            dawdle(&mut world.rng, 100, 400).await;
            world.network.disturb(&mut world.rng);
        }
        world.network.heal();
    }
    while let Some(result) = within_long("sockets close", lives.join_next()).await {
        result.unwrap_or_else(|error| std::panic::resume_unwind(error.into_panic()));
    }
    no_task_is_left().await;
}

/// One socket, from its making to its end.
async fn life(stand: Stand, place: u8, tuning: Tuning, mut rng: Rng) {
    dawdle(&mut rng, 50, 1_000).await;
    let owner = stand.network.new_owner();
    let socket = Any::new(rng.u32(0..6), tuning);
    let address = |place| Address { owner, place, is_ipc: stand.is_ipc };
    let core = socket.core();
    // Read or not, it must not matter.
    let _monitor = if rng.bool() { Some(core.monitor()) } else { None };
    for _ in 0..rng.u32(0..4) {
        let endpoint = address(rng.u8(0..PLACES)).endpoint();
        // Somebody else may be there already.
        let _ = if rng.bool() { core.bind(endpoint).await.map(drop).is_ok() } else { core.connect(endpoint).is_ok() };
    }
    let mut tasks = JoinSet::new();
    for task in 0..rng.u32(1..4) {
        tasks.spawn(user(socket.clone(), stand.clone(), owner, task * ROW, rng.fork()));
    }
    dawdle(&mut rng, 100, 2_000).await;
    if rng.bool() {
        // What they are in the middle of is given up.
        tasks.abort_all();
    }
    if rng.bool() {
        let endpoint = address(place).endpoint();
        let _ = if rng.bool() { core.disconnect(endpoint).is_ok() } else { core.unbind(endpoint).is_ok() };
    }
    if rng.u32(0..3) == 0 {
        // The last handle closes it, in the background.
        drop(socket);
    } else {
        let since = Instant::now();
        let first = timeout(Duration::from_millis(rng.u64(0..500)), core.close()).await;
        let closed = core.close().await.expect("closed");
        assert!(first.is_err() || first == Ok(Ok(closed)), "{first:?}, and then {closed:?}");
        // Timers of tokio go by the millisecond, and round up.
        let longest = tuning.linger + Duration::from_millis(2);
        assert!(since.elapsed() <= longest, "{:?}; linger is {:?}", since.elapsed(), tuning.linger);
        assert!(matches!(sending::try_send(core, "late".into()), Err(TrySendError::Closed(_))));
        assert_eq!(receiving::try_recv(core), Err(TryRecvError::Closed));
    }
    while let Some(result) = tasks.join_next().await {
        match result {
            Err(error) if error.is_panic() => std::panic::resume_unwind(error.into_panic()),
            _ => {}
        }
    }
}

/// A task that uses a socket until it has had enough or the socket is closed.
async fn user(socket: Any, stand: Stand, owner: u16, first: u32, mut rng: Rng) {
    let core = socket.core();
    for step in 0..STEPS {
        dawdle(&mut rng, 30, 50).await;
        let patience = Duration::from_millis(if rng.bool() { rng.u64(0..30) } else { rng.u64(0..1_000) });
        let prefix = ["", "a", "ab", "b"][rng.usize(0..4)];
        let is_open = match rng.u32(0..10) {
            0 => {
                socket.subscribe(prefix);
                true
            }
            1 => {
                socket.unsubscribe(prefix);
                true
            }
            2..=5 if socket.sends() => {
                let size = magnitude(&mut rng, 20_000);
                let message =
                    Tag { sender: owner, number: first + step }.message(Some(prefix.as_bytes()), size, &mut rng);
                send(core, message, patience, &mut rng).await
            }
            _ if socket.receives() => receive(core, &socket, &stand, patience, &mut rng).await,
            _ => {
                let _ = timeout(patience, core.wait_connected(2)).await;
                true
            }
        };
        if !is_open {
            return;
        }
    }
}

/// Says whether the socket is open.
async fn send(core: &Core, message: Message, patience: Duration, rng: &mut Rng) -> bool {
    let sent = match rng.u32(0..3) {
        0 => timeout(patience, SendMessage::new(core, message)).await.unwrap_or(Ok(())),
        1 => match sending::try_send(core, message) {
            Ok(()) | Err(TrySendError::Full(_)) => Ok(()),
            Err(error) => Err(SendError::Closed(error.into_message())),
        },
        _ => timeout(patience, MessageSink::new(core).send(message)).await.unwrap_or(Ok(())),
    };
    assert!(!matches!(sent, Err(SendError::TooLarge(_))));
    sent.is_ok()
}

/// Says whether the socket is open.
async fn receive(core: &Core, socket: &Any, stand: &Stand, patience: Duration, rng: &mut Rng) -> bool {
    let mut messages = Vec::new();
    let is_open = match rng.u32(0..4) {
        0 => match timeout(patience, ReceiveMessage::new(core)).await {
            Ok(received) => received.map(|message| messages.push(message)) != Err(RecvError::Closed),
            Err(_given_up) => true,
        },
        1 => match receiving::try_recv(core) {
            Ok(message) => {
                messages.push(message);
                true
            }
            Err(error) => error == TryRecvError::Empty,
        },
        2 => {
            let most = rng.usize(0..100);
            timeout(patience, receiving::recv_many(core, &mut messages, most)).await != Ok(Err(RecvError::Closed))
        }
        _ => match timeout(patience, Messages::new(core).next()).await {
            Ok(message) => message.map(|message| messages.push(message)).is_some(),
            Err(_given_up) => true,
        },
    };
    for message in messages.iter().filter(|_| matches!(socket, Any::Pull(_))) {
        let tag = Tag::check(message);
        assert!(lock(&stand.pushed).insert(tag), "{tag:?} came twice");
    }
    is_open
}
