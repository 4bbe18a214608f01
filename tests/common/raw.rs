//! A peer that speaks bytes: to do what no proper peer does, and to see what is on the wire.

use std::io;
use std::net::SocketAddr;

use sinew::Endpoint;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::{TcpListener, TcpSocket, UnixListener, UnixStream};

use super::{Place, Transport, within};

pub(crate) const READY_PUSH: &[u8] = b"\x04\x1a\x05READY\x0bSocket-Type\0\0\0\x04PUSH";
pub(crate) const READY_PULL: &[u8] = b"\x04\x1a\x05READY\x0bSocket-Type\0\0\0\x04PULL";

pub(crate) const READY_PUB: &[u8] = b"\x04\x19\x05READY\x0bSocket-Type\0\0\0\x03PUB";
pub(crate) const READY_SUB: &[u8] = b"\x04\x19\x05READY\x0bSocket-Type\0\0\0\x03SUB";
pub(crate) const READY_XPUB: &[u8] = b"\x04\x1a\x05READY\x0bSocket-Type\0\0\0\x04XPUB";
pub(crate) const READY_XSUB: &[u8] = b"\x04\x1a\x05READY\x0bSocket-Type\0\0\0\x04XSUB";

/// The versions in which peers may greet.
pub(crate) const VERSIONS: [[u8; 2]; 2] = [[3, 0], [3, 1]];

pub(crate) const MORE: u8 = 1;
pub(crate) const LONG: u8 = 2;
pub(crate) const COMMAND: u8 = 4;

/// A frame that says to be larger than this is taken for the sign of a corrupt stream.
const SENSIBLE: u64 = 1 << 30;

/// Buffers of a peer that is to be full soon.
const SMALL: u32 = 4096;

/// A greeting with this version and mechanism.
pub(crate) fn greeting(version: [u8; 2], mechanism: &str) -> Vec<u8> {
    let mut greeting = vec![0xFF, 0, 0, 0, 0, 0, 0, 0, 1, 0x7F];
    greeting.extend(version);
    greeting.extend(mechanism.as_bytes());
    greeting.resize(64, 0);
    greeting
}

/// The greeting of a proper peer.
pub(crate) fn proper_greeting() -> Vec<u8> {
    greeting([3, 1], "NULL")
}

/// A frame in the short form if it fits, in the long form if not.
pub(crate) fn frame(flags: u8, body: &[u8]) -> Vec<u8> {
    match u8::try_from(body.len()) {
        Ok(length) => [&[flags, length], body].concat(),
        Err(_) => [&[flags | LONG], &(body.len() as u64).to_be_bytes()[..], body].concat(),
    }
}

/// The header of a frame in the long form, without a body.
pub(crate) fn long_header(flags: u8, size: u64) -> Vec<u8> {
    [&[flags | LONG][..], &size.to_be_bytes()].concat()
}

pub(crate) fn command(name: &str, data: &[u8]) -> Vec<u8> {
    let length = u8::try_from(name.len()).unwrap();
    frame(COMMAND, &[&[length], name.as_bytes(), data].concat())
}

pub(crate) fn ping(context: &[u8]) -> Vec<u8> {
    command("PING", &[&[0, 0], context].concat())
}

/// Subscribes as a peer of 3.1 does.
pub(crate) fn subscribe_command(topic: &[u8]) -> Vec<u8> {
    command("SUBSCRIBE", topic)
}

/// Cancels as a peer of 3.1 does.
pub(crate) fn cancel_command(topic: &[u8]) -> Vec<u8> {
    command("CANCEL", topic)
}

/// Subscribes as a peer of 3.0 does.
pub(crate) fn subscribe_message(topic: &[u8]) -> Vec<u8> {
    frame(0, &[b"\x01", topic].concat())
}

/// Cancels as a peer of 3.0 does.
pub(crate) fn cancel_message(topic: &[u8]) -> Vec<u8> {
    frame(0, &[b"\0", topic].concat())
}

/// Subscribes as a peer of this version does.
pub(crate) fn subscribe_as(version: [u8; 2], topic: &[u8]) -> Vec<u8> {
    if version == [3, 0] { subscribe_message(topic) } else { subscribe_command(topic) }
}

/// Cancels as a peer of this version does.
pub(crate) fn cancel_as(version: [u8; 2], topic: &[u8]) -> Vec<u8> {
    if version == [3, 0] { cancel_message(topic) } else { cancel_command(topic) }
}

/// A READY command with these properties.
pub(crate) fn ready(properties: &[(&str, &[u8])]) -> Vec<u8> {
    let mut metadata = Vec::new();
    for (name, value) in properties {
        metadata.push(u8::try_from(name.len()).unwrap());
        metadata.extend(name.as_bytes());
        metadata.extend(u32::try_from(value.len()).unwrap().to_be_bytes());
        metadata.extend(*value);
    }
    command("READY", &metadata)
}

/// A frame as it stood on the wire.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct WireFrame {
    pub(crate) flags: u8,
    pub(crate) body: Vec<u8>,
}

impl WireFrame {
    pub(crate) fn is_command(&self) -> bool {
        self.flags & COMMAND != 0
    }

    pub(crate) fn more(&self) -> bool {
        self.flags & MORE != 0
    }

    /// The topic that this subscribes (`true`) or cancels, as a peer of the version writes it.
    pub(crate) fn request(&self, version: [u8; 2]) -> (bool, &[u8]) {
        let names: [&[u8]; 2] = if version == [3, 0] { [b"\x01", b"\0"] } else { [b"\x09SUBSCRIBE", b"\x06CANCEL"] };
        assert_eq!(self.is_command(), version != [3, 0], "{self:?}");
        let topics = names.map(|name| self.body.strip_prefix(name));
        match topics {
            [Some(topic), _] => (true, topic),
            [_, Some(topic)] => (false, topic),
            _ => panic!("{self:?} is no request"),
        }
    }
}

trait Stream: AsyncRead + AsyncWrite + Send + Unpin {}
impl<T: AsyncRead + AsyncWrite + Send + Unpin> Stream for T {}

/// One connection of bytes.
pub(crate) struct Raw(Box<dyn Stream>);

impl Raw {
    /// Connects; says nothing.
    pub(crate) async fn dial(endpoint: &Endpoint) -> Self {
        match address(endpoint) {
            Address::Tcp(address) => {
                let socket = TcpSocket::new_v4().unwrap();
                socket.set_recv_buffer_size(SMALL).unwrap();
                let stream = within(socket.connect(address)).await.unwrap();
                stream.set_nodelay(true).unwrap();
                Self(Box::new(stream))
            }
            Address::Ipc(path) => Self(Box::new(within(UnixStream::connect(path)).await.unwrap())),
        }
    }

    /// Connects and finishes the handshake with this READY.
    pub(crate) async fn peer(endpoint: &Endpoint, ready: &[u8]) -> Self {
        let mut raw = Self::dial(endpoint).await;
        raw.shake_hands(ready).await;
        raw
    }

    /// Connects and finishes the handshake as a peer of this version.
    pub(crate) async fn peer_of(endpoint: &Endpoint, version: [u8; 2], ready: &[u8]) -> Self {
        let mut raw = Self::dial(endpoint).await;
        raw.shake_hands_as(version, ready).await;
        raw
    }

    /// Sends greeting and READY, and reads the other's.
    pub(crate) async fn shake_hands(&mut self, ready: &[u8]) {
        self.shake_hands_as([3, 1], ready).await;
    }

    /// Sends greeting and READY as a peer of this version, and reads the other's.
    pub(crate) async fn shake_hands_as(&mut self, version: [u8; 2], ready: &[u8]) {
        self.send(&[&greeting(version, "NULL")[..], ready].concat()).await;
        assert_eq!(self.read(64).await, proper_greeting());
        let theirs = self.frame().await.expect("a READY");
        assert!(theirs.flags == COMMAND && theirs.body.starts_with(b"\x05READY"), "{theirs:?}");
    }

    pub(crate) async fn send(&mut self, bytes: &[u8]) {
        within(self.0.write_all(bytes)).await.unwrap();
    }

    /// Sends, or fails because the other side has closed.
    pub(crate) async fn try_send(&mut self, bytes: &[u8]) -> io::Result<()> {
        within(self.0.write_all(bytes)).await
    }

    pub(crate) async fn read(&mut self, count: usize) -> Vec<u8> {
        let mut bytes = vec![0; count];
        within(self.0.read_exact(&mut bytes)).await.unwrap();
        bytes
    }

    /// The next frame; `None` once the other side has closed.
    pub(crate) async fn frame(&mut self) -> Option<WireFrame> {
        within(read_frame(&mut self.0)).await.ok()
    }

    /// Waits until the other side has closed; gives what it still said.
    pub(crate) async fn end(&mut self) -> Vec<u8> {
        let mut last = Vec::new();
        // A connection that is closed with bytes unread ends with a reset; either is an end.
        let _ = within(self.0.read_to_end(&mut last)).await;
        last
    }

    /// Receives the next message, answering nothing; commands are skipped.
    pub(crate) async fn message(&mut self) -> Option<Vec<Vec<u8>>> {
        let mut message = Vec::new();
        loop {
            let frame = self.frame().await?;
            if frame.is_command() {
                continue;
            }
            let more = frame.more();
            message.push(frame.body);
            if !more {
                return Some(message);
            }
        }
    }

    /// The two halves, to read and write at the same time.
    pub(crate) fn split(self) -> (impl AsyncRead + Unpin + Send, impl AsyncWrite + Unpin + Send) {
        tokio::io::split(self.0)
    }
}

pub(crate) async fn read_frame(stream: &mut (impl AsyncRead + Unpin)) -> io::Result<WireFrame> {
    let flags = stream.read_u8().await?;
    let size = if flags & LONG == 0 { u64::from(stream.read_u8().await?) } else { stream.read_u64().await? };
    if size > SENSIBLE {
        return Err(io::ErrorKind::InvalidData.into());
    }
    let mut body = vec![0; usize::try_from(size).unwrap()];
    stream.read_exact(&mut body).await?;
    Ok(WireFrame { flags, body })
}

enum Address {
    Tcp(SocketAddr),
    Ipc(String),
}

fn address(endpoint: &Endpoint) -> Address {
    let text = endpoint.to_string();
    match text.split_once("://") {
        Some(("tcp", address)) => Address::Tcp(address.parse().unwrap()),
        Some(("ipc", path)) => Address::Ipc(path.into()),
        _ => panic!("{text} is neither TCP nor IPC"),
    }
}

/// Listens for bytes.
pub(crate) enum RawListener {
    Tcp(TcpListener),
    Ipc(UnixListener),
}

impl RawListener {
    pub(crate) fn bind(place: &Place) -> (Self, Endpoint) {
        let endpoint = place.fresh();
        let listener = match (place.transport, address(&endpoint)) {
            (Transport::Tcp, Address::Tcp(address)) => {
                let socket = TcpSocket::new_v4().unwrap();
                socket.set_reuseaddr(true).unwrap();
                socket.set_recv_buffer_size(SMALL).unwrap();
                socket.bind(address).unwrap();
                Self::Tcp(socket.listen(16).unwrap())
            }
            (_, Address::Ipc(path)) => Self::Ipc(UnixListener::bind(path).unwrap()),
            _ => unreachable!("a place has one transport"),
        };
        (listener, endpoint)
    }

    pub(crate) async fn accept(&self) -> Raw {
        match self {
            Self::Tcp(listener) => Raw(Box::new(within(listener.accept()).await.unwrap().0)),
            Self::Ipc(listener) => Raw(Box::new(within(listener.accept()).await.unwrap().0)),
        }
    }
}
