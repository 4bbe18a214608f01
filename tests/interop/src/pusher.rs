//! The end that pushes, of either library.

use std::time::Duration;

use sinew::{Message, Monitor, PushSocket};
use zmq::SocketEvent;

use crate::{Frames, Library, Libzmq, Role, disconnect, until, within};

/// A PUSH socket.
#[derive(Debug)]
pub enum Pusher {
    /// sinew's, with its monitor.
    Sinew(PushSocket, Monitor),
    /// libzmq's.
    Libzmq(Libzmq),
}

impl Pusher {
    /// A socket that finds its peer again quickly.
    #[must_use]
    pub fn new(library: Library) -> Self {
        match library {
            Library::Sinew => {
                let socket = PushSocket::builder()
                    .reconnect_delay(Duration::from_millis(10), Duration::from_millis(100))
                    .build()
                    .expect("options that make sense");
                let monitor = socket.monitor();
                Self::Sinew(socket, monitor)
            }
            Library::Libzmq => Self::Libzmq(Libzmq::new(zmq::PUSH)),
        }
    }

    /// Binds or connects; gives the endpoint with nothing left to choose.
    pub async fn attach(&mut self, role: Role, endpoint: &str) -> String {
        match (self, role) {
            (Self::Sinew(socket, _), Role::Binds) => {
                within("sinew binds", socket.bind(endpoint)).await.expect("an endpoint").to_string()
            }
            (Self::Sinew(socket, _), Role::Connects) => {
                socket.connect(endpoint).expect("an endpoint");
                endpoint.into()
            }
            (Self::Libzmq(socket), role) => socket.attach(role, endpoint),
        }
    }

    /// Sends a message.
    pub async fn send(&mut self, message: &Frames) {
        match self {
            Self::Sinew(socket, _) => {
                let message: Message = message.iter().map(|frame| &frame[..]).collect();
                within("sinew sends", socket.send(message)).await.expect("an open socket");
            }
            Self::Libzmq(socket) => socket.push(message),
        }
    }

    /// Waits until it knows that its only peer has gone: what is sent from then on is not for that peer.
    pub async fn notices_loss(&mut self, role: Role) {
        match self {
            Self::Sinew(_, monitor) => {
                disconnect(monitor).await;
            }
            Self::Libzmq(socket) => {
                socket.event(SocketEvent::DISCONNECTED);
                if role == Role::Binds {
                    until("libzmq has nobody to send to", || !socket.is_writable()).await;
                }
            }
        }
    }

    /// Whether messages can be sent while no peer is there.
    #[must_use]
    pub fn queues_without_peer(&self, role: Role) -> bool {
        matches!(self, Self::Sinew(..)) || role == Role::Connects
    }

    /// Closes the socket in order: what was sent is on its way to the peer, and the address is free again.
    pub async fn close(self) {
        match self {
            Self::Sinew(socket, _) => {
                let closed = within("sinew closes", socket.close()).await.expect("a closed socket");
                assert_eq!(closed.unsent, 0, "{closed:?}");
            }
            Self::Libzmq(socket) => tokio::task::block_in_place(|| drop(socket)),
        }
    }
}
