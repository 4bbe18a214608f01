//! Blocking TCP and Unix sockets behind one type.

use std::{
    io::{self, IoSlice, Read, Write},
    net::{SocketAddr, TcpListener, TcpStream},
    os::{
        fd::{AsFd, BorrowedFd},
        unix::net::{UnixListener, UnixStream},
    },
};

use anyhow::{Result, anyhow};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use socket2::{Domain, Socket, Type};

/// A connection.
pub(crate) enum Stream {
    Tcp(TcpStream),
    Ipc(UnixStream),
}

impl Stream {
    /// Connects to a `tcp://` (with a numeric address) or `ipc://` endpoint; `unpaced`: with a congestion control that does not pace.
    pub(crate) fn connect(endpoint: &str, unpaced: bool) -> Result<Self> {
        Ok(match split(endpoint)? {
            ("tcp", address) => {
                let address: SocketAddr = address.parse()?;
                let socket = Socket::new(Domain::for_address(address), Type::STREAM, None)?;
                if unpaced {
                    socket.set_tcp_congestion(b"reno")?;
                }
                socket.connect(&address.into())?;
                socket.set_tcp_nodelay(true)?;
                Self::Tcp(socket.into())
            }
            (_, path) => Self::Ipc(UnixStream::connect(path)?),
        })
    }

    /// Makes reads fail with `WouldBlock` instead of waiting.
    pub(crate) fn set_nonblocking(&self) -> io::Result<()> {
        match self {
            Self::Tcp(stream) => stream.set_nonblocking(true),
            Self::Ipc(stream) => stream.set_nonblocking(true),
        }
    }
}

impl Read for Stream {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        match self {
            Self::Tcp(stream) => stream.read(buffer),
            Self::Ipc(stream) => stream.read(buffer),
        }
    }
}

impl Write for Stream {
    fn write(&mut self, buffer: &[u8]) -> io::Result<usize> {
        match self {
            Self::Tcp(stream) => stream.write(buffer),
            Self::Ipc(stream) => stream.write(buffer),
        }
    }

    fn write_vectored(&mut self, slices: &[IoSlice<'_>]) -> io::Result<usize> {
        match self {
            Self::Tcp(stream) => stream.write_vectored(slices),
            Self::Ipc(stream) => stream.write_vectored(slices),
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl AsFd for Stream {
    fn as_fd(&self) -> BorrowedFd<'_> {
        match self {
            Self::Tcp(stream) => stream.as_fd(),
            Self::Ipc(stream) => stream.as_fd(),
        }
    }
}

/// A bound socket.
pub(crate) enum Listener {
    Tcp(TcpListener),
    Ipc(UnixListener),
}

impl Listener {
    /// Binds, and says where; `index` tells the paths of several sockets apart.
    pub(crate) fn bind(endpoint: &str, index: usize) -> Result<(Self, String)> {
        match split(endpoint)? {
            ("tcp", address) => {
                let listener = TcpListener::bind(address)?;
                let endpoint = format!("tcp://{}", listener.local_addr()?);
                Ok((Self::Tcp(listener), endpoint))
            }
            (_, path) => {
                let path = if index > 0 { format!("{path}-{index}") } else { path.to_owned() };
                Ok((Self::Ipc(UnixListener::bind(&path)?), format!("ipc://{path}")))
            }
        }
    }

    /// Waits for a connection.
    pub(crate) fn accept(&self) -> Result<Stream> {
        Ok(match self {
            Self::Tcp(listener) => {
                let (stream, _) = listener.accept()?;
                stream.set_nodelay(true)?;
                Stream::Tcp(stream)
            }
            Self::Ipc(listener) => Stream::Ipc(listener.accept()?.0),
        })
    }
}

/// Waits until at least one stream can be read, and says which can.
pub(crate) fn wait_readable<'a>(streams: impl Iterator<Item = &'a Stream>) -> Result<Vec<bool>> {
    let mut fds: Vec<_> = streams.map(|stream| PollFd::new(stream.as_fd(), PollFlags::POLLIN)).collect();
    poll(&mut fds, PollTimeout::NONE)?;
    Ok(fds.iter().map(|fd| fd.any().unwrap_or(false)).collect())
}

fn split(endpoint: &str) -> Result<(&str, &str)> {
    endpoint
        .split_once("://")
        .filter(|(transport, _)| matches!(*transport, "tcp" | "ipc"))
        .ok_or_else(|| anyhow!("not a tcp or ipc endpoint: {endpoint}"))
}
