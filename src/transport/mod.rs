//! Byte streams between peers: listening and connecting, one file per transport behind one small seam.

pub(crate) mod ipc;
pub(crate) mod tcp;

use std::fmt;
use std::io::{self, Read};
use std::net::{IpAddr, SocketAddr};
use std::task::{Context, Poll};

use socket2::SockRef;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpStream, UnixStream};
use tokio::runtime::Handle;

use crate::endpoint::Endpoint;
use crate::error::BindError;
use crate::options::Options;
#[cfg(test)]
use crate::simulation::network;

/// What the engine needs of a connection. Wrappers must forward vectored writes.
pub(crate) trait Stream: AsyncRead + AsyncWrite + Send + Unpin + fmt::Debug {
    /// Reads what is there at this moment without asking the runtime whether there is anything, for a reader that spins.
    fn read_now(&self, _buffer: &mut [u8]) -> io::Result<usize> {
        Err(io::ErrorKind::WouldBlock.into())
    }
}

impl Stream for TcpStream {
    fn read_now(&self, buffer: &mut [u8]) -> io::Result<usize> {
        (&*SockRef::from(self)).read(buffer)
    }
}

impl Stream for UnixStream {
    fn read_now(&self, buffer: &mut [u8]) -> io::Result<usize> {
        (&*SockRef::from(self)).read(buffer)
    }
}

/// Who is at the other end of a connection, as the system says.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum PeerAddress {
    /// The address of a TCP peer.
    Tcp(SocketAddr),
    /// The credentials of the process at the other end of an IPC connection.
    #[non_exhaustive]
    Ipc {
        /// Its effective user.
        uid: u32,
        /// Its effective group.
        gid: u32,
        /// Its process id, where the system tells.
        pid: Option<i32>,
    },
}

impl PeerAddress {
    /// The IP address, if it has one.
    pub(crate) fn ip(&self) -> Option<IpAddr> {
        match self {
            // An IPv4 address that came through an IPv6 socket is an IPv4 address.
            Self::Tcp(address) => Some(address.ip().to_canonical()),
            Self::Ipc { .. } => None,
        }
    }
}

impl fmt::Display for PeerAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Tcp(address) => address.fmt(f),
            Self::Ipc { uid, gid, pid: Some(pid) } => write!(f, "uid {uid}, gid {gid}, pid {pid}"),
            Self::Ipc { uid, gid, pid: None } => write!(f, "uid {uid}, gid {gid}"),
        }
    }
}

/// A connection that has just been made.
#[derive(Debug)]
pub(crate) struct Connected {
    pub(crate) stream: Box<dyn Stream>,
    pub(crate) address: PeerAddress,
}

/// Something that accepts connections until it is dropped.
#[derive(Debug)]
pub(crate) enum Listener {
    Tcp(tcp::Listener),
    Ipc(ipc::Listener),
    #[cfg(test)]
    Simulated(network::Listener),
}

impl Listener {
    /// Listens, in this runtime; gives the endpoint with nothing left to choose.
    pub(crate) async fn bind(
        endpoint: &Endpoint,
        options: &Options,
        runtime: &Handle,
    ) -> Result<(Self, Endpoint), BindError> {
        #[cfg(test)]
        if let Some(listener) = network::bind(endpoint) {
            return Ok((Self::Simulated(listener?), endpoint.clone()));
        }
        match endpoint {
            Endpoint::Tcp(tcp) => {
                let (listener, address) = tcp::Listener::bind(tcp, options, runtime).await?;
                Ok((Self::Tcp(listener), Endpoint::Tcp(address.into())))
            }
            Endpoint::Ipc(ipc) => {
                let (listener, resolved) = ipc::Listener::bind(ipc, options, runtime).await?;
                Ok((Self::Ipc(listener), Endpoint::Ipc(resolved)))
            }
        }
    }

    /// Polls for the next connection.
    pub(crate) fn poll_accept(&self, cx: &mut Context<'_>) -> Poll<io::Result<Connected>> {
        match self {
            Self::Tcp(listener) => listener.poll_accept(cx),
            Self::Ipc(listener) => listener.poll_accept(cx),
            #[cfg(test)]
            Self::Simulated(listener) => listener.poll_accept(cx),
        }
    }
}

/// Connects once; the addresses of a name are looked up anew and tried in turn.
pub(crate) async fn connect(endpoint: &Endpoint, options: &Options) -> io::Result<Connected> {
    #[cfg(test)]
    if let Some(connected) = network::connect(endpoint).await {
        return connected;
    }
    match endpoint {
        Endpoint::Tcp(tcp) => tcp::connect(tcp, options).await,
        Endpoint::Ipc(ipc) => ipc::connect(ipc, options).await,
    }
}
