//! A libzmq socket with a context of its own: every wait has a limit, and dropping it leaves nothing behind.

use std::fmt;
use std::ops::Deref;
use std::sync::Once;
use std::time::Duration;

use tokio::task::block_in_place;
use zmq::{PAIR, POLLIN, POLLOUT, SocketEvent, SocketType};

use crate::{Frames, LIMIT, Role};

pub use zmq::Socket;

const EVENTS: &str = "inproc://events";

/// For how long a dropped socket may go on delivering, in milliseconds.
const LINGER: i32 = 30_000;

/// A libzmq socket. It may be used from any task: whatever blocks lets the runtime go on.
///
/// Dropping it ends its context, which waits until all that was sent has left and every address is free again.
pub struct Libzmq {
    socket: Socket,
    events: Socket,
}

impl fmt::Debug for Libzmq {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Libzmq").field("type", &self.socket.get_socket_type()).finish()
    }
}

impl Deref for Libzmq {
    type Target = Socket;

    fn deref(&self) -> &Socket {
        &self.socket
    }
}

/// Lets this process have as many descriptors as it may: each context takes several, many systems start a process with 1,024 at
/// most, and libzmq ends the process that has none left.
fn raise_descriptor_limit() {
    use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        let limit = getrlimit(Resource::Nofile);
        setrlimit(Resource::Nofile, Rlimit { current: limit.maximum, ..limit }).expect("it may go up to the maximum");
    });
}

impl Libzmq {
    /// A socket that is attached to nothing yet: this is the time to set options.
    ///
    /// # Panics
    ///
    /// If the library is not libzmq 4.3: no other one is what these tests are about.
    #[must_use]
    pub fn new(socket_type: SocketType) -> Self {
        raise_descriptor_limit();
        let (major, minor, _) = zmq::version();
        assert_eq!((major, minor), (4, 3), "the version of libzmq");
        let context = zmq::Context::new();
        let limit = i32::try_from(LIMIT.as_millis()).expect("a limit in milliseconds");
        let socket = context.socket(socket_type).expect("a socket");
        // Subscriptions are nothing to wait for.
        let subscribes = matches!(socket_type, SocketType::SUB | SocketType::XSUB);
        socket.set_linger(if subscribes { 0 } else { LINGER }).expect("linger");
        socket.set_sndtimeo(limit).expect("a limit for sending");
        socket.set_rcvtimeo(limit).expect("a limit for receiving");
        socket.set_reconnect_ivl(10).expect("a short way back");
        socket.monitor(EVENTS, i32::from(SocketEvent::ALL.to_raw())).expect("a monitor");
        let events = context.socket(PAIR).expect("a socket for events");
        events.set_linger(0).expect("linger");
        events.set_rcvtimeo(limit).expect("a limit for events");
        events.connect(EVENTS).expect("the monitor's other end");
        Self { socket, events }
    }

    /// Binds or connects; gives the endpoint with nothing left to choose.
    pub fn attach(&self, role: Role, endpoint: &str) -> String {
        let result = match role {
            Role::Binds => self.socket.bind(endpoint),
            Role::Connects => self.socket.connect(endpoint),
        };
        result.unwrap_or_else(|error| panic!("libzmq, {role:?} {endpoint}: {error}"));
        match role {
            Role::Binds => self.socket.get_last_endpoint().expect("an endpoint").expect("an endpoint as text"),
            Role::Connects => endpoint.into(),
        }
    }

    /// Sends a message.
    pub fn push(&self, message: &Frames) {
        block_in_place(|| self.socket.send_multipart(message, 0)).expect("libzmq sends a message in time");
    }

    /// Waits for a message.
    pub fn pull(&self) -> Frames {
        block_in_place(|| self.socket.recv_multipart(0)).expect("libzmq receives a message in time")
    }

    /// Waits for a message for so long.
    pub fn pull_soon(&self, patience: Duration) -> Option<Frames> {
        let patience = i64::try_from(patience.as_millis()).expect("milliseconds");
        let readable = block_in_place(|| self.socket.poll(POLLIN, patience)).expect("libzmq says what can be done");
        (readable > 0).then(|| self.pull())
    }

    /// Waits for an event of this kind; those before it are skipped.
    pub fn event(&self, wanted: SocketEvent) {
        block_in_place(|| while self.next_event(0).expect("a libzmq event in time") != wanted {});
    }

    /// The events that have happened and have not been read.
    pub fn past_events(&self) -> Vec<SocketEvent> {
        std::iter::from_fn(|| self.next_event(zmq::DONTWAIT)).collect()
    }

    fn next_event(&self, flags: i32) -> Option<SocketEvent> {
        let event = self.events.recv_multipart(flags).ok()?;
        let (kind, _value) = event[0].split_first_chunk().expect("a kind of event");
        Some(SocketEvent::from_raw(u16::from_ne_bytes(*kind)))
    }

    /// Whether a message could be sent now.
    pub fn is_writable(&self) -> bool {
        self.socket.poll(POLLOUT, 0).expect("libzmq says what can be done") > 0
    }
}
