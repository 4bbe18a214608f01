//! The end that publishes, of either library and of either kind.

use std::time::Duration;

use sinew::{Message, PubSocket, TryRecvError, XPubSocket};

use crate::{Frames, Kind, Library, Libzmq, Role, within};

/// A PUB or XPUB socket that drops nothing for want of room.
#[derive(Debug)]
pub enum Publisher {
    /// sinew's PUB.
    Plain(PubSocket),
    /// sinew's XPUB.
    Extended(XPubSocket),
    /// libzmq's, either of them.
    Libzmq(Libzmq),
}

impl Publisher {
    /// A socket that finds its peer again quickly.
    #[must_use]
    pub fn new(library: Library, kind: Kind) -> Self {
        let (first, longest) = (Duration::from_millis(10), Duration::from_millis(100));
        match (library, kind) {
            (Library::Sinew, Kind::Plain) => Self::Plain(
                PubSocket::builder()
                    .send_high_water_mark(0)
                    .send_high_water_mark_bytes(0)
                    .reconnect_delay(first, longest)
                    .build()
                    .expect("options that make sense"),
            ),
            (Library::Sinew, Kind::Extended) => Self::Extended(
                XPubSocket::builder()
                    .send_high_water_mark(0)
                    .send_high_water_mark_bytes(0)
                    .reconnect_delay(first, longest)
                    .build()
                    .expect("options that make sense"),
            ),
            (Library::Libzmq, kind) => {
                let socket = Libzmq::new(if kind == Kind::Plain { zmq::PUB } else { zmq::XPUB });
                socket.set_sndhwm(0).expect("no high-water mark");
                Self::Libzmq(socket)
            }
        }
    }

    /// Binds or connects; gives the endpoint with nothing left to choose.
    pub async fn attach(&mut self, role: Role, endpoint: &str) -> String {
        match (self, role) {
            (Self::Plain(socket), Role::Binds) => {
                within("sinew binds", socket.bind(endpoint)).await.expect("an endpoint").to_string()
            }
            (Self::Extended(socket), Role::Binds) => {
                within("sinew binds", socket.bind(endpoint)).await.expect("an endpoint").to_string()
            }
            (Self::Plain(socket), Role::Connects) => {
                socket.connect(endpoint).expect("an endpoint");
                endpoint.into()
            }
            (Self::Extended(socket), Role::Connects) => {
                socket.connect(endpoint).expect("an endpoint");
                endpoint.into()
            }
            (Self::Libzmq(socket), role) => socket.attach(role, endpoint),
        }
    }

    /// Publishes a message. An XPUB's requests are read meanwhile, and forgotten.
    pub async fn send<T: AsRef<[u8]>>(&mut self, message: impl IntoIterator<Item = T>) {
        let frames: Frames = message.into_iter().map(|frame| frame.as_ref().to_vec()).collect();
        match self {
            Self::Plain(socket) => {
                within("sinew publishes", socket.send(Message::from(frames))).await.expect("an open socket");
            }
            Self::Extended(socket) => {
                let empty = loop {
                    if let Err(error) = socket.try_recv() {
                        break error;
                    }
                };
                assert_eq!(empty, TryRecvError::Empty);
                within("sinew publishes", socket.send(Message::from(frames))).await.expect("an open socket");
            }
            Self::Libzmq(socket) => {
                while socket.get_socket_type() == Ok(zmq::XPUB) && socket.recv_multipart(zmq::DONTWAIT).is_ok() {}
                socket.push(&frames);
            }
        }
    }

    /// Closes the socket in order: what was sent is on its way to the peers, and the address is free again.
    pub async fn close(self) {
        let closed = match self {
            Self::Plain(socket) => within("sinew closes", socket.close()).await,
            Self::Extended(socket) => within("sinew closes", socket.close()).await,
            Self::Libzmq(socket) => return tokio::task::block_in_place(|| drop(socket)),
        };
        let closed = closed.expect("a closed socket");
        assert_eq!(closed.unsent, 0, "{closed:?}");
    }
}
