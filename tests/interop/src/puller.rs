//! The end that pulls, of either library.

use std::time::Duration;

use sinew::PullSocket;

use crate::{Frames, Library, Libzmq, Role, within};

/// A PULL socket.
#[derive(Debug)]
pub enum Puller {
    /// sinew's.
    Sinew(PullSocket),
    /// libzmq's.
    Libzmq(Libzmq),
}

impl Puller {
    /// A socket that finds its peer again quickly.
    #[must_use]
    pub fn new(library: Library) -> Self {
        match library {
            Library::Sinew => Self::Sinew(
                PullSocket::builder()
                    .reconnect_delay(Duration::from_millis(10), Duration::from_millis(100))
                    .build()
                    .expect("options that make sense"),
            ),
            Library::Libzmq => Self::Libzmq(Libzmq::new(zmq::PULL)),
        }
    }

    /// Binds or connects; gives the endpoint with nothing left to choose.
    pub async fn attach(&mut self, role: Role, endpoint: &str) -> String {
        match (self, role) {
            (Self::Sinew(socket), Role::Binds) => {
                within("sinew binds", socket.bind(endpoint)).await.expect("an endpoint").to_string()
            }
            (Self::Sinew(socket), Role::Connects) => {
                socket.connect(endpoint).expect("an endpoint");
                endpoint.into()
            }
            (Self::Libzmq(socket), role) => socket.attach(role, endpoint),
        }
    }

    /// Waits for a message.
    pub async fn recv(&mut self) -> Frames {
        match self {
            Self::Sinew(socket) => {
                let message = within("sinew receives", socket.recv()).await.expect("an open socket");
                message.iter().map(|frame| frame.to_vec()).collect()
            }
            Self::Libzmq(socket) => socket.pull(),
        }
    }

    /// Closes the socket, which must have received everything; its address is free again.
    pub async fn close(self) {
        match self {
            Self::Sinew(socket) => {
                let closed = within("sinew closes", socket.close()).await.expect("a closed socket");
                assert_eq!(closed.unread, 0, "{closed:?}");
            }
            Self::Libzmq(socket) => tokio::task::block_in_place(|| drop(socket)),
        }
    }
}
