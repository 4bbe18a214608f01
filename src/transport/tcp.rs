//! TCP: names and interfaces resolved, sockets set up, connections made and accepted.

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, SocketAddrV6};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use socket2::{Domain, Protocol, SockRef, Socket, TcpKeepalive, Type};
use tokio::net::{TcpListener, TcpSocket, TcpStream};
use tokio::runtime::Handle;

use crate::endpoint::{Endpoint, Host, TcpEndpoint};
use crate::error::BindError;
use crate::options::Options;
use crate::transport::{Connected, PeerAddress};

/// A listening TCP socket.
#[derive(Debug)]
pub(crate) struct Listener {
    listener: TcpListener,
    keepalive: Duration,
    user_timeout: Duration,
}

impl Listener {
    pub(crate) async fn bind(
        endpoint: &TcpEndpoint,
        options: &Options,
        runtime: &Handle,
    ) -> Result<(Self, SocketAddr), BindError> {
        let whole = || Endpoint::Tcp(endpoint.clone());
        let addresses =
            local_addresses(endpoint).await.map_err(|source| BindError::UnknownHost { endpoint: whole(), source })?;
        let mut failure = io::Error::new(io::ErrorKind::AddrNotAvailable, "the name has no address");
        for address in addresses {
            match listen(address, options, runtime) {
                Ok(listener) => match listener.local_addr() {
                    Ok(resolved) => {
                        let (keepalive, user_timeout) = (options.tcp_keepalive, options.tcp_user_timeout);
                        return Ok((Self { listener, keepalive, user_timeout }, resolved));
                    }
                    Err(error) => failure = error,
                },
                Err(error) => failure = error,
            }
            if failure.kind() == io::ErrorKind::AddrInUse {
                return Err(BindError::AddrInUse(whole()));
            }
        }
        Err(BindError::Io { endpoint: whole(), source: failure })
    }

    pub(crate) fn poll_accept(&self, cx: &mut Context<'_>) -> Poll<io::Result<Connected>> {
        let (stream, address) = ready!(self.listener.poll_accept(cx))?;
        Poll::Ready(Ok(connected(stream, address, self.keepalive, self.user_timeout)))
    }
}

/// Tries the addresses of the host in turn, each within the connect timeout.
pub(crate) async fn connect(endpoint: &TcpEndpoint, options: &Options) -> io::Result<Connected> {
    let mut failure = io::Error::new(io::ErrorKind::NotFound, "the name has no address");
    for address in remote_addresses(endpoint).await? {
        match tokio::time::timeout(options.connect_timeout, connect_to(address, options)).await {
            Ok(Ok(connected)) => return Ok(connected),
            Ok(Err(error)) => failure = error,
            Err(_) => failure = io::ErrorKind::TimedOut.into(),
        }
    }
    Err(failure)
}

async fn connect_to(address: SocketAddr, options: &Options) -> io::Result<Connected> {
    let stream = dialler(address, options)?.connect(address).await?;
    // With nobody listening on an ephemeral port, TCP's simultaneous open can connect a socket to itself.
    if stream.local_addr()? == address {
        return Err(io::ErrorKind::ConnectionRefused.into());
    }
    Ok(connected(stream, address, options.tcp_keepalive, options.tcp_user_timeout))
}

/// A socket that is not connected yet.
fn dialler(address: SocketAddr, options: &Options) -> io::Result<TcpSocket> {
    let socket = if address.is_ipv4() { TcpSocket::new_v4() } else { TcpSocket::new_v6() }?;
    if is_loopback(address) {
        leave_unpaced(&SockRef::from(&socket));
    }
    if let Some(bytes) = options.kernel_send_buffer {
        socket.set_send_buffer_size(saturating_u32(bytes))?;
    }
    if let Some(bytes) = options.kernel_receive_buffer {
        socket.set_recv_buffer_size(saturating_u32(bytes))?;
    }
    Ok(socket)
}

fn connected(stream: TcpStream, address: SocketAddr, keepalive: Duration, user_timeout: Duration) -> Connected {
    // This fails only for a connection that is gone already, which is for its reader to find: a peer must not be able to
    // make `accept` fail.
    let _ = set_up(&stream, address, keepalive, user_timeout);
    Connected { stream: Box::new(stream), address: PeerAddress::Tcp(address) }
}

fn set_up(stream: &TcpStream, peer: SocketAddr, keepalive: Duration, user_timeout: Duration) -> io::Result<()> {
    stream.set_nodelay(true)?;
    let socket = SockRef::from(stream);
    if is_within_host(stream.local_addr()?, peer) {
        leave_unpaced(&socket);
    }
    if !keepalive.is_zero() {
        const PROBES: u32 = 6;
        const SECOND: Duration = Duration::from_secs(1);
        let (time, interval) = (keepalive.max(SECOND), (keepalive / PROBES).max(SECOND));
        socket.set_tcp_keepalive(&TcpKeepalive::new().with_time(time).with_interval(interval).with_retries(PROBES))?;
    }
    #[cfg(any(target_os = "android", target_os = "fuchsia", target_os = "linux"))]
    if !user_timeout.is_zero() {
        socket.set_tcp_user_timeout(Some(user_timeout))?;
    }
    #[cfg(not(any(target_os = "android", target_os = "fuchsia", target_os = "linux")))]
    let _ = user_timeout;
    Ok(())
}

fn is_loopback(address: SocketAddr) -> bool {
    address.ip().to_canonical().is_loopback()
}

/// Whether both ends are this host.
fn is_within_host(local: SocketAddr, peer: SocketAddr) -> bool {
    is_loopback(peer) || peer.ip().to_canonical() == local.ip().to_canonical()
}

/// Chooses a congestion control that sends as soon as there is room. Within one host there is no path that could be
/// congested, and one that paces (`bbr`) costs a sender up to two fifths of its time. It is chosen before the connection is
/// made if its ends are known by then: later the kernel changes the pace, but does not give up pacing.
fn leave_unpaced(socket: &SockRef<'_>) {
    // Every Linux has it, and lets everybody use it unless the administrator says otherwise. Then nothing is lost but time.
    #[cfg(target_os = "linux")]
    let _ = socket.set_tcp_congestion(b"reno");
    #[cfg(not(target_os = "linux"))]
    let _ = socket;
}

fn listen(address: SocketAddr, options: &Options, runtime: &Handle) -> io::Result<TcpListener> {
    let socket = Socket::new(Domain::for_address(address), Type::STREAM, Some(Protocol::TCP))?;
    if address.is_ipv6() {
        // `*` is every interface of both families; a specific IPv6 address is not affected.
        socket.set_only_v6(false)?;
    }
    socket.set_nonblocking(true)?;
    socket.set_reuse_address(true)?;
    if is_loopback(address) {
        leave_unpaced(&SockRef::from(&socket));
    }
    if let Some(bytes) = options.kernel_send_buffer {
        socket.set_send_buffer_size(bytes)?;
    }
    if let Some(bytes) = options.kernel_receive_buffer {
        socket.set_recv_buffer_size(bytes)?;
    }
    socket.bind(&address.into())?;
    socket.listen(i32::try_from(options.backlog).unwrap_or(i32::MAX))?;
    let _runtime = runtime.enter();
    TcpListener::from_std(socket.into())
}

/// What to try to bind, in order.
async fn local_addresses(endpoint: &TcpEndpoint) -> io::Result<Vec<SocketAddr>> {
    let port = endpoint.port();
    let at = |ip: IpAddr| SocketAddr::new(ip, port);
    match endpoint.host() {
        // Dual stack where the system has IPv6, IPv4 alone where it has not.
        Host::Any => Ok(vec![at(Ipv6Addr::UNSPECIFIED.into()), at(Ipv4Addr::UNSPECIFIED.into())]),
        Host::Ip(ip) => Ok(vec![at(*ip)]),
        Host::ScopedV6(ip, zone) => Ok(vec![scoped(*ip, zone, port)?]),
        Host::Name(name) => {
            let mut addresses: Vec<_> = if_addrs::get_if_addrs()?
                .into_iter()
                .filter(|interface| interface.name == *name)
                .map(|interface| at(interface.ip()))
                .collect();
            if addresses.is_empty() {
                addresses = tokio::net::lookup_host((name.as_str(), port)).await?.collect();
            }
            // libzmq peers look for a name's IPv4 address unless told otherwise.
            addresses.sort_by_key(SocketAddr::is_ipv6);
            Ok(addresses)
        }
    }
}

/// What to try to connect to, in order.
async fn remote_addresses(endpoint: &TcpEndpoint) -> io::Result<Vec<SocketAddr>> {
    let port = endpoint.port();
    match endpoint.host() {
        Host::Ip(ip) => Ok(vec![SocketAddr::new(*ip, port)]),
        Host::ScopedV6(ip, zone) => Ok(vec![scoped(*ip, zone, port)?]),
        Host::Name(name) => Ok(tokio::net::lookup_host((name.as_str(), port)).await?.collect()),
        Host::Any => Err(io::ErrorKind::InvalidInput.into()),
    }
}

fn scoped(ip: Ipv6Addr, zone: &str, port: u16) -> io::Result<SocketAddr> {
    let index = match zone.parse() {
        Ok(index) => index,
        Err(_) => if_addrs::get_if_addrs()?
            .into_iter()
            .find(|interface| interface.name == zone)
            .and_then(|interface| interface.index)
            .ok_or_else(|| io::Error::new(io::ErrorKind::NotFound, format!("there is no interface {zone}")))?,
    };
    Ok(SocketAddrV6::new(ip, port, 0, index).into())
}

fn saturating_u32(bytes: usize) -> u32 {
    u32::try_from(bytes).unwrap_or(u32::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[cfg(target_os = "linux")]
    #[tokio::test]
    async fn connections_are_set_up_as_the_options_say() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let stream = TcpStream::connect(address).await.unwrap();
        set_up(&stream, address, Duration::from_secs(60), Duration::from_millis(700)).unwrap();
        let socket = SockRef::from(&stream);
        assert!(stream.nodelay().unwrap() && socket.keepalive().unwrap());
        assert_eq!(socket.tcp_keepalive_time().unwrap(), Duration::from_secs(60));
        assert_eq!(socket.tcp_keepalive_interval().unwrap(), Duration::from_secs(10));
        assert_eq!(socket.tcp_keepalive_retries().unwrap(), 6);
        assert_eq!(socket.tcp_user_timeout().unwrap(), Some(Duration::from_millis(700)));

        let plain = TcpStream::connect(address).await.unwrap();
        set_up(&plain, address, Duration::ZERO, Duration::ZERO).unwrap();
        assert!(!SockRef::from(&plain).keepalive().unwrap());
        assert_eq!(SockRef::from(&plain).tcp_user_timeout().unwrap(), None);
        set_up(&plain, address, Duration::from_millis(1), Duration::ZERO).unwrap();
        assert_eq!(SockRef::from(&plain).tcp_keepalive_time().unwrap(), Duration::from_secs(1), "the kernel's least");
    }

    #[cfg(target_os = "linux")]
    #[tokio::test]
    async fn within_the_host_reno_is_chosen_and_elsewhere_what_the_system_says() {
        let congestion_control = |socket: SockRef<'_>| {
            let name = socket.tcp_congestion().unwrap();
            String::from_utf8_lossy(&name).trim_end_matches('\0').to_owned()
        };
        let (options, here) = (Options::default(), Handle::current());
        let [local, any, remote] = ["127.0.0.1:0", "0.0.0.0:0", "192.0.2.1:1"].map(|text| text.parse().unwrap());
        let systems = congestion_control(SockRef::from(&TcpSocket::new_v4().unwrap()));
        for (address, expected) in [(local, "reno"), (any, &systems)] {
            assert_eq!(congestion_control(SockRef::from(&listen(address, &options, &here).unwrap())), expected);
        }
        for (address, expected) in [(local, "reno"), (remote, &systems)] {
            assert_eq!(congestion_control(SockRef::from(&dialler(address, &options).unwrap())), expected);
        }
        // With a listener on every interface only the peer's address tells.
        let listener = listen(any, &options, &here).unwrap();
        let address = SocketAddr::new(Ipv4Addr::LOCALHOST.into(), listener.local_addr().unwrap().port());
        let _peer = TcpStream::connect(address).await.unwrap();
        let (accepted, local) = listener.accept().await.unwrap();
        for (peer, expected) in [(remote, systems.as_str()), (local, "reno")] {
            set_up(&accepted, peer, Duration::ZERO, Duration::ZERO).unwrap();
            assert_eq!(congestion_control(SockRef::from(&accepted)), expected);
        }
    }

    #[test]
    fn addresses_tell_whether_a_connection_stays_within_the_host() {
        let is_within = |local: &str, peer: &str| is_within_host(local.parse().unwrap(), peer.parse().unwrap());
        assert!(is_within("127.0.0.1:1", "127.0.0.1:2") && is_within("[::1]:1", "[::1]:2"));
        assert!(is_within("127.0.0.1:1", "127.0.0.2:2") && is_within("[::ffff:127.0.0.1]:1", "127.0.0.1:2"));
        assert!(is_within("192.0.2.1:1", "192.0.2.1:2") && is_within("[::ffff:192.0.2.1]:1", "192.0.2.1:2"));
        assert!(!is_within("192.0.2.1:1", "192.0.2.2:1") && !is_within("[2001:db8::1]:1", "[2001:db8::2]:1"));
    }

    #[tokio::test]
    async fn a_name_is_bound_by_its_ipv4_address_first() {
        let endpoint = "tcp://localhost:*".parse().unwrap();
        let Endpoint::Tcp(tcp) = endpoint else {
            panic!("not tcp");
        };
        let (_listener, address) = Listener::bind(&tcp, &Options::default(), &Handle::current()).await.unwrap();
        assert!(address.is_ipv4(), "{address}");
    }
}
