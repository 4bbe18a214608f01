//! Brokerless message sockets, wire-compatible with ZeroMQ (ZMTP 3.1), on tokio.
//!
//! A socket is bound or connected to any number of endpoints and exchanges whole messages with the peers it finds there,
//! with no server between them. Each socket owns an outbound queue, an inbound queue and one background I/O task that
//! accepts, connects, reconnects and moves bytes; a user's `send` and `recv` only meet the queues.
//!
//! # A tour
//!
//! * [`PushSocket`] and [`PullSocket`] are the socket types: a PUSH deals its messages out to its PULL peers, a PULL
//!   receives fairly from its PUSH peers. Both are `Clone + Send + Sync` with `&self` methods.
//! * A [`Message`] is one or more [`Frame`]s that travel together or not at all. Strings, byte slices, vectors, `Bytes`,
//!   and arrays of those convert into it.
//! * An [`Endpoint`] is text like `tcp://127.0.0.1:5555`, `tcp://*:5555` or `ipc:///run/feed`. Either side may bind,
//!   either side may come first.
//! * Options live on builders: high-water marks, linger, limits, delays. The defaults are safe.
//! * [`Monitor`] shows what happens to the connections and [`Stats`] counts what becomes of the messages. What a peer does
//!   wrong ends its connection and shows there; it never comes out of `send` or `recv`.
//!
//! # Example
//!
//! ```
//! # tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(async {
//! use sinew::{PullSocket, PushSocket};
//!
//! let pull = PullSocket::new();
//! let endpoint = pull.bind("tcp://127.0.0.1:*").await?; // the port that was chosen
//!
//! let push = PushSocket::new();
//! push.connect(&endpoint)?; // never blocks
//! push.send("Hello World!").await?;
//! push.send(["part one", "part two"]).await?;
//!
//! let message = pull.recv().await?;
//! assert_eq!(&message[0], b"Hello World!");
//! assert_eq!(pull.recv().await?.frame_count(), 2);
//!
//! let closed = push.close().await?; // flushes, for the linger time at most
//! assert_eq!(closed.unsent, 0);
//! # Ok::<(), Box<dyn std::error::Error>>(()) }).unwrap();
//! ```
//!
//! # Runtime
//!
//! The ambient tokio runtime is used, current-thread or multi-thread, with I/O and time enabled. A socket needs it from its
//! first `bind` or `connect` on; all else works anywhere. When the runtime ends, the socket ends.
//!
//! On a multi-thread runtime a loop that sends very many small messages belongs in a spawned task. The body of
//! `#[tokio::main]` runs outside of the runtime's threads, so that the socket's I/O task works on another thread than the
//! loop, and the two wait for each other: with 64 B over TCP about half as many messages per second.

pub(crate) mod endpoint;
pub(crate) mod engine;
pub(crate) mod error;
#[cfg(any(fuzzing, test))]
#[doc(hidden)]
pub mod fuzzing;
pub(crate) mod length;
pub(crate) mod message;
#[cfg(feature = "metrics")]
pub(crate) mod metrics;
pub(crate) mod monitor;
pub(crate) mod options;
pub(crate) mod queue;
pub(crate) mod routing;
#[cfg(test)]
mod simulation;
pub(crate) mod socket;
pub(crate) mod stats;
pub(crate) mod sync;
pub(crate) mod transport;
pub(crate) mod zmtp;

pub use endpoint::{Endpoint, EndpointError, Host, IpcEndpoint, TcpEndpoint};
pub use error::{
    BindError, BuildError, CloseError, ConnectError, DetachError, ProtocolError, RecvError, SendError, TryRecvError,
    TrySendError, WaitError,
};
pub use message::{Frame, Message};
pub use monitor::{DisconnectReason, Event, Monitor, Peer, PeerId, PeerStats};
pub use options::SlowSubscriber;
pub use socket::proxy::{Flow, Proxy, ProxyCounters, ProxyHandle, ProxySocket, proxy};
pub use socket::publish::{PubBuilder, PubSocket};
pub use socket::pull::{PullBuilder, PullSocket};
pub use socket::push::{PushBuilder, PushSocket};
pub use socket::receiving::{Messages, ReceiveMessage};
pub use socket::sending::{MessageSink, SendMessage};
pub use socket::subscribe::{SubBuilder, SubSocket};
pub use socket::xpublish::{XPubBuilder, XPubEvent, XPubSocket};
pub use socket::xsubscribe::{XSubBuilder, XSubSocket};
pub use stats::{Closed, Stats};
pub use transport::PeerAddress;
pub use zmtp::greeting::Version;
pub use zmtp::socket_type::SocketType;
