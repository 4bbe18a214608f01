//! Brokerless message sockets, wire-compatible with ZeroMQ.
#![cfg_attr(docsrs, feature(doc_cfg))]

pub(crate) mod endpoint;
pub(crate) mod engine;
pub(crate) mod error;
pub(crate) mod message;
pub(crate) mod monitor;
pub(crate) mod options;
pub(crate) mod queue;
pub(crate) mod routing;
pub(crate) mod socket;
pub(crate) mod stats;
pub(crate) mod transport;
pub(crate) mod zmtp;

pub use endpoint::{Endpoint, EndpointError, Host, IpcEndpoint, TcpEndpoint};
pub use error::{
    BindError, BuildError, CloseError, ConnectError, DetachError, ProtocolError, RecvError, SendError, TryRecvError,
    TrySendError, WaitError,
};
pub use message::{Frame, Message};
pub use monitor::{DisconnectReason, Event, Monitor, Peer, PeerId};
pub use socket::pull::{Messages, PullBuilder, PullSocket};
pub use socket::push::{MessageSink, PushBuilder, PushSocket, SendMessage};
pub use stats::{Closed, Stats};
pub use transport::PeerAddress;
pub use zmtp::greeting::Version;
pub use zmtp::socket_type::SocketType;
