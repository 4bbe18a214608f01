//! IPC: Unix-domain stream sockets, by path or in Linux's abstract namespace.

use std::ffi::OsStr;
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{DirBuilderExt, MetadataExt};
use std::os::unix::net::UnixStream as StdStream;
use std::path::{Path, PathBuf};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use socket2::{Domain, SockAddr, SockRef, Socket, Type};
use tokio::net::{UnixListener, UnixStream};
use tokio::runtime::Handle;

use crate::endpoint::{Endpoint, IpcEndpoint};
use crate::error::BindError;
use crate::options::Options;
use crate::transport::{Connected, PeerAddress};

/// The longest name in the abstract namespace, with the NUL in front.
const ABSTRACT_MAXIMUM: usize = 107;

/// How much the kernel may hold for a peer, in bytes, unless the options say otherwise. The system's own default, some 200
/// KiB, makes both ends sleep and wake again for every fifth of a large write.
const SEND_BUFFER: usize = 2 * 1024 * 1024;

/// The sizes of a connection's kernel buffers.
#[derive(Debug, Clone, Copy)]
struct KernelBuffers {
    send: Option<usize>,
    receive: Option<usize>,
}

impl KernelBuffers {
    fn new(options: &Options) -> Self {
        Self { send: options.kernel_send_buffer, receive: options.kernel_receive_buffer }
    }

    fn apply(self, stream: &UnixStream) -> io::Result<()> {
        let socket = SockRef::from(stream);
        match self.send {
            Some(bytes) => socket.set_send_buffer_size(bytes)?,
            None if socket.send_buffer_size()? >= SEND_BUFFER => {}
            // Nobody has asked for it, so it need not be had; Linux gives as much of it as it may.
            None => drop(socket.set_send_buffer_size(SEND_BUFFER)),
        }
        self.receive.map_or(Ok(()), |bytes| socket.set_recv_buffer_size(bytes))
    }
}

/// A listening Unix-domain socket; its file goes with it.
#[derive(Debug)]
pub(crate) struct Listener {
    listener: UnixListener,
    /// What it accepts has the system's, whatever it has itself.
    buffers: KernelBuffers,
    _file: Option<SocketFile>,
}

/// A socket's file, removed when the listener goes if it is still ours.
#[derive(Debug)]
struct SocketFile {
    path: PathBuf,
    /// Device and inode at the time of binding.
    identity: Option<(u64, u64)>,
    /// The folder that was made for the file.
    folder: Option<PathBuf>,
}

impl SocketFile {
    fn new(path: &Path, folder: Option<PathBuf>) -> Self {
        // The path may be relative, and the working directory another one by the time it is removed.
        let path = std::path::absolute(path).unwrap_or_else(|_| path.to_owned());
        Self { identity: identity(&path), path, folder }
    }
}

impl Drop for SocketFile {
    fn drop(&mut self) {
        if self.identity.is_some() && identity(&self.path) == self.identity {
            // Nobody could be told of a failure here; the next bind replaces a stale file.
            let _ = std::fs::remove_file(&self.path);
        }
        if let Some(folder) = &self.folder {
            let _ = std::fs::remove_dir(folder);
        }
    }
}

fn identity(path: &Path) -> Option<(u64, u64)> {
    std::fs::symlink_metadata(path).ok().map(|metadata| (metadata.dev(), metadata.ino()))
}

impl Listener {
    pub(crate) async fn bind(
        endpoint: &IpcEndpoint,
        options: &Options,
        runtime: &Handle,
    ) -> Result<(Self, IpcEndpoint), BindError> {
        let failed = |source: io::Error| {
            let endpoint = Endpoint::Ipc(endpoint.clone());
            match source.kind() {
                io::ErrorKind::AddrInUse => BindError::AddrInUse(endpoint),
                _ => BindError::Io { endpoint, source },
            }
        };
        let (resolved, folder) = match endpoint {
            IpcEndpoint::Any => {
                let folder = private_folder().map_err(failed)?;
                let path = IpcEndpoint::Path(folder.join("socket"));
                (path, Some(folder))
            }
            other => (other.clone(), None),
        };
        let address = address(&resolved).map_err(failed)?;
        let _lock = BindLock::take(&resolved).await;
        let listener = match listen(&address, options, runtime) {
            Err(error) if error.kind() == io::ErrorKind::AddrInUse && is_stale(&resolved, &address) => {
                if let IpcEndpoint::Path(path) = &resolved {
                    std::fs::remove_file(path).map_err(failed)?;
                }
                listen(&address, options, runtime)
            }
            other => other,
        };
        let listener = listener.map_err(|error| {
            if let Some(folder) = &folder {
                // What failed is told; an empty folder that stays is the lesser evil.
                let _ = std::fs::remove_dir(folder);
            }
            failed(error)
        })?;
        let file = match &resolved {
            IpcEndpoint::Path(path) => Some(SocketFile::new(path, folder)),
            _ => None,
        };
        Ok((Self { listener, buffers: KernelBuffers::new(options), _file: file }, resolved))
    }

    pub(crate) fn poll_accept(&self, cx: &mut Context<'_>) -> Poll<io::Result<Connected>> {
        let (stream, _) = ready!(self.listener.poll_accept(cx))?;
        Poll::Ready(connected(stream, self.buffers))
    }
}

pub(crate) async fn connect(endpoint: &IpcEndpoint, options: &Options) -> io::Result<Connected> {
    let socket = new_socket()?;
    // A local connect does not wait: it succeeds, is refused, or finds the backlog full (`WouldBlock`).
    socket.connect(&address(endpoint)?)?;
    connected(UnixStream::from_std(socket.into())?, KernelBuffers::new(options))
}

fn connected(stream: UnixStream, buffers: KernelBuffers) -> io::Result<Connected> {
    buffers.apply(&stream)?;
    let credentials = stream.peer_cred()?;
    Ok(Connected {
        address: PeerAddress::Ipc { uid: credentials.uid(), gid: credentials.gid(), pid: credentials.pid() },
        stream: Box::new(stream),
    })
}

fn listen(address: &SockAddr, options: &Options, runtime: &Handle) -> io::Result<UnixListener> {
    let socket = new_socket()?;
    socket.bind(address)?;
    socket.listen(i32::try_from(options.backlog).unwrap_or(i32::MAX))?;
    let _runtime = runtime.enter();
    UnixListener::from_std(socket.into())
}

fn new_socket() -> io::Result<Socket> {
    let socket = Socket::new(Domain::UNIX, Type::STREAM, None)?;
    socket.set_nonblocking(true)?;
    Ok(socket)
}

fn address(endpoint: &IpcEndpoint) -> io::Result<SockAddr> {
    match endpoint {
        IpcEndpoint::Path(path) => SockAddr::unix(path),
        // socket2 takes a leading NUL as the mark of the abstract namespace.
        IpcEndpoint::Abstract(name) => SockAddr::unix(format!("\0{name}")),
        IpcEndpoint::Any => Err(io::ErrorKind::InvalidInput.into()),
    }
}

/// Held while a path is bound. Looking at a file, removing it and binding in its place are three steps, and so are binding
/// and listening two: of two sockets that begin at the same time one could remove what the other has just bound.
///
/// It is a name in the abstract namespace, so that nothing stays behind whatever becomes of its holder. On systems without
/// one, and between network namespaces, nothing is locked.
#[derive(Debug)]
struct BindLock(#[allow(dead_code)] Socket);

impl BindLock {
    /// Nobody holds it for longer than a few system calls take; after so many attempts it is done without.
    const ATTEMPTS: usize = 100;
    const PAUSE: Duration = Duration::from_millis(1);

    async fn take(endpoint: &IpcEndpoint) -> Option<Self> {
        let IpcEndpoint::Path(path) = endpoint else {
            return None;
        };
        let path = std::path::absolute(path).ok()?;
        // Whatever way leads to the folder.
        let folder = std::fs::metadata(path.parent()?).ok()?;
        let name = format!("\0sinew-bind-{:x}-{:x}-", folder.dev(), folder.ino());
        let mut name = [name.as_bytes(), path.file_name()?.as_bytes()].concat();
        // Two that differ in the end only take turns without need.
        name.truncate(ABSTRACT_MAXIMUM);
        let address = SockAddr::unix(OsStr::from_bytes(&name)).ok()?;
        for _ in 0..Self::ATTEMPTS {
            let socket = Socket::new(Domain::UNIX, Type::STREAM, None).ok()?;
            match socket.bind(&address) {
                Ok(()) => return Some(Self(socket)),
                Err(error) if error.kind() == io::ErrorKind::AddrInUse => tokio::time::sleep(Self::PAUSE).await,
                Err(_) => return None,
            }
        }
        None
    }
}

/// Whether a socket file is there that nobody listens to any more.
fn is_stale(endpoint: &IpcEndpoint, address: &SockAddr) -> bool {
    use std::os::unix::fs::FileTypeExt;
    let IpcEndpoint::Path(path) = endpoint else {
        return false;
    };
    if !std::fs::symlink_metadata(path).is_ok_and(|metadata| metadata.file_type().is_socket()) {
        return false;
    }
    let probe = Socket::new(Domain::UNIX, Type::STREAM, None).and_then(|socket| {
        socket.set_nonblocking(true)?;
        socket.connect(address)?;
        Ok(StdStream::from(socket))
    });
    matches!(probe, Err(error) if error.kind() == io::ErrorKind::ConnectionRefused)
}

/// A new folder in the system's temporary folder that only this user can enter.
fn private_folder() -> io::Result<PathBuf> {
    const ATTEMPTS: usize = 16;
    let mut failure = io::Error::from(io::ErrorKind::AlreadyExists);
    for _ in 0..ATTEMPTS {
        let name = format!("sinew-{:x}-{:08x}", std::process::id(), fastrand::u32(..));
        let folder = std::env::temp_dir().join(name);
        match std::fs::DirBuilder::new().mode(0o700).create(&folder) {
            Ok(()) => return Ok(folder),
            Err(error) => failure = error,
        }
        if failure.kind() != io::ErrorKind::AlreadyExists {
            break;
        }
    }
    Err(failure)
}

#[cfg(test)]
mod tests {
    use std::pin::Pin;

    use tokio::io::{AsyncWrite, AsyncWriteExt};

    use super::*;

    fn path_in(folder: &tempfile::TempDir) -> IpcEndpoint {
        IpcEndpoint::Path(folder.path().join("s"))
    }

    async fn bind(endpoint: &IpcEndpoint) -> Result<(Listener, IpcEndpoint), BindError> {
        Listener::bind(endpoint, &Options::default(), &Handle::current()).await
    }

    #[tokio::test]
    async fn a_live_socket_is_in_use_and_a_stale_one_is_replaced() {
        let folder = tempfile::tempdir().unwrap();
        let endpoint = path_in(&folder);
        let (listener, _) = bind(&endpoint).await.unwrap();
        assert!(matches!(bind(&endpoint).await, Err(BindError::AddrInUse(_))));
        drop(listener);
        assert!(!folder.path().join("s").exists());
        drop(std::os::unix::net::UnixListener::bind(folder.path().join("s")).unwrap());
        assert!(folder.path().join("s").exists(), "std leaves the file behind");
        assert!(bind(&endpoint).await.is_ok());
    }

    #[test]
    fn of_many_that_replace_a_stale_file_at_once_one_listens_and_the_others_are_told() {
        use std::sync::Barrier;
        const ROUNDS: usize = 100;
        const BINDERS: usize = 4;
        let (before, after) = (Barrier::new(BINDERS), Barrier::new(BINDERS));
        let folder = tempfile::tempdir().unwrap();
        let race = || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
            let mut won = Vec::new();
            for round in 0..ROUNDS {
                let path = folder.path().join(round.to_string());
                // Stale: the file of a socket that was closed.
                drop(std::os::unix::net::UnixListener::bind(&path));
                before.wait();
                let bound = runtime.block_on(bind(&IpcEndpoint::Path(path)));
                won.push(match &bound {
                    Ok(_) => true,
                    Err(BindError::AddrInUse(_)) => false,
                    Err(error) => panic!("{error}"),
                });
                after.wait();
                drop(bound);
            }
            won
        };
        let won = std::thread::scope(|scope| {
            let binders: Vec<_> = (0..BINDERS).map(|_| scope.spawn(race)).collect();
            binders.into_iter().map(|binder| binder.join().unwrap()).collect::<Vec<_>>()
        });
        for round in 0..ROUNDS {
            assert_eq!(won.iter().filter(|won| won[round]).count(), 1, "in round {round}");
        }
    }

    /// How many bytes the kernel takes for each end of a connection while nobody reads.
    async fn taken_by_the_kernel(options: &Options) -> [usize; 2] {
        let folder = tempfile::tempdir().unwrap();
        let (listener, endpoint) = Listener::bind(&path_in(&folder), options, &Handle::current()).await.unwrap();
        let connecting = connect(&endpoint, options).await.unwrap();
        let accepted = std::future::poll_fn(|cx| listener.poll_accept(cx)).await.unwrap();
        let mut streams = [connecting.stream, accepted.stream];
        let mut taken = [0; 2];
        for (stream, taken) in streams.iter_mut().zip(&mut taken) {
            // The runtime knows whether it can write once it has been asked.
            stream.write_all(&[0]).await.unwrap();
            let mut cx = Context::from_waker(std::task::Waker::noop());
            while let Poll::Ready(count) = Pin::new(&mut *stream).poll_write(&mut cx, &[0; 16 * 1024]) {
                *taken += count.unwrap();
            }
        }
        taken
    }

    #[tokio::test]
    async fn both_ends_have_the_kernel_buffers_that_the_options_ask_for() {
        const SMALL: usize = 16 * 1024;
        let by_default = taken_by_the_kernel(&Options::default()).await;
        let allowed =
            std::fs::read_to_string("/proc/sys/net/core/wmem_max").ok().and_then(|text| text.trim().parse().ok());
        if allowed.is_some_and(|allowed: usize| allowed >= SEND_BUFFER) {
            assert!(by_default.iter().all(|taken| *taken > SEND_BUFFER / 2), "{by_default:?}");
        }
        let small = Options { kernel_send_buffer: Some(SMALL), ..Options::default() };
        for (small, by_default) in taken_by_the_kernel(&small).await.into_iter().zip(by_default) {
            assert!(small <= 4 * SMALL && by_default > 8 * SMALL, "{small} of {by_default}");
        }
    }

    #[tokio::test]
    async fn a_lock_that_is_not_given_back_keeps_nobody_from_binding() {
        let folder = tempfile::tempdir().unwrap();
        let _held = BindLock::take(&path_in(&folder)).await.unwrap();
        assert!(bind(&path_in(&folder)).await.is_ok());
    }

    #[tokio::test]
    async fn a_file_that_is_no_socket_is_left_alone() {
        let folder = tempfile::tempdir().unwrap();
        std::fs::write(folder.path().join("s"), "precious").unwrap();
        assert!(matches!(bind(&path_in(&folder)).await, Err(BindError::AddrInUse(_))));
        assert_eq!(std::fs::read(folder.path().join("s")).unwrap(), b"precious");
    }

    #[tokio::test]
    async fn a_file_that_is_not_ours_any_more_is_not_removed() {
        let folder = tempfile::tempdir().unwrap();
        let (listener, _) = bind(&path_in(&folder)).await.unwrap();
        std::fs::remove_file(folder.path().join("s")).unwrap();
        // Kept open, so that the file system cannot give the same inode to the new file.
        let _other = bind(&path_in(&folder)).await.unwrap();
        drop(listener);
        assert!(folder.path().join("s").exists());
    }

    #[tokio::test]
    async fn a_wildcard_is_a_private_path_that_goes_with_the_listener() {
        let (listener, resolved) = bind(&IpcEndpoint::Any).await.unwrap();
        let IpcEndpoint::Path(path) = &resolved else {
            panic!("{resolved} is no path");
        };
        let folder = path.parent().unwrap().to_owned();
        assert!(path.exists());
        drop(listener);
        assert!(!folder.exists());
    }

    #[tokio::test]
    async fn a_missing_folder_is_an_error_of_the_system() {
        let endpoint = IpcEndpoint::Path(PathBuf::from("/nonexistent-folder/s"));
        assert!(
            matches!(bind(&endpoint).await, Err(BindError::Io { source, .. }) if source.kind() == io::ErrorKind::NotFound)
        );
    }
}
