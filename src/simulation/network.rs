//! The virtual network of a thread: who listens where, and all connections that were ever made.

use std::cell::RefCell;
use std::collections::{BTreeMap, VecDeque};

use std::io;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use fastrand::Rng;
use tokio::time::Instant;

use crate::endpoint::{Endpoint, Host, IpcEndpoint};
use crate::error::BindError;
use crate::simulation::hostile::HOSTILE;
use crate::simulation::stream::{Connection, End, Trouble};
use crate::simulation::trace::{Did, Trace};
use crate::sync::{Mutex, lock};
use crate::transport::{Connected, PeerAddress};

const PORT: u16 = 7_000;

thread_local! {
    static NETWORK: RefCell<Option<Network>> = const { RefCell::new(None) };
}

/// Where one socket listens, or what another one dials. Who dials or listens is a part of it, so that the network knows whose
/// connection it is: hosts are `10.owner.owner.place`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Address {
    pub(super) owner: u16,
    pub(super) place: u8,
    pub(super) is_ipc: bool,
}

impl Address {
    pub(super) fn endpoint(self) -> Endpoint {
        let Self { owner, place, is_ipc } = self;
        let [high, low] = owner.to_be_bytes();
        let text = if is_ipc {
            format!("ipc://@{high}.{low}.{place}")
        } else {
            format!("tcp://10.{high}.{low}.{place}:{PORT}")
        };
        text.parse().expect("an endpoint")
    }

    fn of(endpoint: &Endpoint) -> Option<Self> {
        match endpoint {
            Endpoint::Tcp(tcp) => match tcp.host() {
                Host::Ip(IpAddr::V4(ip)) if ip.octets()[0] == 10 => {
                    let [_, high, low, place] = ip.octets();
                    Some(Self { owner: u16::from_be_bytes([high, low]), place, is_ipc: false })
                }
                _ => None,
            },
            Endpoint::Ipc(IpcEndpoint::Abstract(name)) => {
                let mut parts = name.split('.').map_while(|part| part.parse().ok());
                let (high, low, place) = (parts.next()?, parts.next()?, parts.next()?);
                Some(Self { owner: u16::from_be_bytes([high, low]), place, is_ipc: true })
            }
            Endpoint::Ipc(_) => None,
        }
    }

    fn seen_by_peer(self, port: u16) -> PeerAddress {
        let [high, low] = self.owner.to_be_bytes();
        match self.is_ipc {
            true => PeerAddress::Ipc { uid: port.into(), gid: 0, pid: Some(self.owner.into()) },
            false => PeerAddress::Tcp(SocketAddr::new(Ipv4Addr::new(10, high, low, self.place).into(), port)),
        }
    }
}

/// Whose socket is at this address.
pub(super) fn owner_of(address: &PeerAddress) -> u16 {
    match address {
        PeerAddress::Tcp(address) => match address.ip() {
            IpAddr::V4(ip) => u16::from_be_bytes([ip.octets()[1], ip.octets()[2]]),
            IpAddr::V6(_) => 0,
        },
        PeerAddress::Ipc { pid, .. } => pid.and_then(|pid| u16::try_from(pid).ok()).unwrap_or(0),
    }
}

/// Which of the network's connections has this address at one of its ends: each has a port of its own.
pub(super) fn connection_of(address: &PeerAddress) -> usize {
    match address {
        PeerAddress::Tcp(address) => usize::from(address.port()) - 1,
        PeerAddress::Ipc { uid, .. } => usize::try_from(*uid).unwrap_or(0) - 1,
    }
}

/// What connections are like.
#[derive(Debug, Clone, Copy)]
pub(super) struct Weather {
    /// The most milliseconds one way, without jitter, which may be as much again.
    pub(super) latency: u64,
    /// How many bytes may be under way or unread, in each direction.
    pub(super) capacity: usize,
    /// Of 100 attempts so many are refused.
    pub(super) refused: u32,
}

#[derive(Debug)]
struct Place {
    owner: u16,
    arrivals: VecDeque<Connected>,
    acceptor: Option<Waker>,
}

#[derive(Debug)]
struct State {
    rng: Rng,
    weather: Weather,
    places: BTreeMap<u8, Place>,
    connections: Vec<Arc<Connection>>,
    trace: Trace,
    next_port: u16,
    next_owner: u16,
}

#[derive(Debug, Clone)]
pub(super) struct Network(Arc<Mutex<State>>);

/// Accepts at one place until it is dropped.
#[derive(Debug)]
pub(crate) struct Listener {
    network: Network,
    place: u8,
}

impl Network {
    /// Makes the network of this thread.
    pub(super) fn install(rng: Rng, weather: Weather) -> Self {
        let network = Self(Arc::new(Mutex::new(State {
            rng,
            weather,
            places: BTreeMap::new(),
            connections: Vec::new(),
            trace: Trace::new(),
            next_port: 1,
            next_owner: 1,
        })));
        NETWORK.set(Some(network.clone()));
        network
    }

    /// A name for a new socket.
    pub(super) fn new_owner(&self) -> u16 {
        let mut state = lock(&self.0);
        state.next_owner += 1;
        state.next_owner - 1
    }

    pub(super) fn connections(&self) -> Vec<Arc<Connection>> {
        lock(&self.0).connections.clone()
    }

    /// Does something to one of the living connections.
    pub(super) fn disturb(&self, rng: &mut Rng) {
        let living: Vec<_> = self
            .connections()
            .into_iter()
            .filter(|connection| connection.is_alive() && !connection.is_hostile)
            .collect();
        if let Some(connection) = rng.choice(living) {
            connection.disturb(match rng.u32(0..8) {
                0..3 => Trouble::Reset,
                3..6 => Trouble::HalfClose,
                6 => Trouble::Freeze(Duration::from_millis(rng.u64(1..3_000))),
                _ => Trouble::Swallow,
            });
        }
    }

    /// Connections are made at the first attempt from now on.
    pub(super) fn refuse_none(&self) {
        lock(&self.0).weather.refused = 0;
    }

    /// No more trouble from now on.
    pub(super) fn heal(&self) {
        self.refuse_none();
        self.connections().iter().for_each(Connection::heal);
    }

    /// All that was carried, and when, as a number.
    pub(super) fn digest(&self) -> u64 {
        lock(&self.0).trace.digest()
    }

    pub(super) fn listen(&self, address: Address) -> Option<Listener> {
        let mut state = lock(&self.0);
        if state.places.contains_key(&address.place) {
            return None;
        }
        let place = Place { owner: address.owner, arrivals: VecDeque::new(), acceptor: None };
        state.places.insert(address.place, place);
        Some(Listener { network: self.clone(), place: address.place })
    }

    /// Dials once.
    pub(super) async fn dial(&self, address: Address, is_hostile: bool) -> io::Result<(End, PeerAddress)> {
        let delay = {
            let mut state = lock(&self.0);
            let latency = state.weather.latency;
            Duration::from_millis(state.rng.u64(0..=3 * latency))
        };
        tokio::time::sleep_until(Instant::now() + delay).await;
        let mut state = lock(&self.0);
        let State { rng, weather, places, connections, trace, next_port, .. } = &mut *state;
        trace.note(connections.len(), 0, Did::Dial(address.owner, address.place));
        if rng.u32(0..100) < weather.refused {
            let kinds = [io::ErrorKind::ConnectionRefused, io::ErrorKind::TimedOut, io::ErrorKind::HostUnreachable];
            return Err(kinds[rng.usize(0..kinds.len())].into());
        }
        let place = places.get_mut(&address.place).ok_or(io::ErrorKind::ConnectionRefused)?;
        let is_hostile = is_hostile || place.owner >= HOSTILE;
        let named = (connections.len(), &*trace);
        let [dialled, accepted] = Connection::between(address, place.owner, is_hostile, weather, rng, named);
        connections.push(dialled.connection.clone());
        let at = Address { owner: place.owner, ..address };
        let port = *next_port;
        let connected = Connected { stream: Box::new(accepted), address: address.seen_by_peer(port) };
        *next_port += 1;
        // Accepted in any order.
        place.arrivals.insert(rng.usize(0..=place.arrivals.len()), connected);
        let waker = place.acceptor.take();
        drop(state);
        if let Some(waker) = waker {
            waker.wake();
        }
        Ok((dialled, at.seen_by_peer(port)))
    }
}

impl Listener {
    pub(crate) fn poll_accept(&self, cx: &mut Context<'_>) -> Poll<io::Result<Connected>> {
        let mut state = lock(&self.network.0);
        let Some(place) = state.places.get_mut(&self.place) else {
            return Poll::Ready(Err(io::ErrorKind::NotConnected.into()));
        };
        match place.arrivals.pop_front() {
            Some(connected) => Poll::Ready(Ok(connected)),
            None => {
                place.acceptor = Some(cx.waker().clone());
                Poll::Pending
            }
        }
    }
}

impl Drop for Listener {
    fn drop(&mut self) {
        // Connections that nobody has accepted end outside of the lock.
        let _place = lock(&self.network.0).places.remove(&self.place);
    }
}

/// Listens on the virtual network, if this thread has one.
pub(crate) fn bind(endpoint: &Endpoint) -> Option<Result<Listener, BindError>> {
    let network = NETWORK.with_borrow(Clone::clone)?;
    let listener = network.listen(Address::of(endpoint)?);
    Some(listener.ok_or_else(|| BindError::AddrInUse(endpoint.clone())))
}

/// Connects on the virtual network, if this thread has one.
pub(crate) async fn connect(endpoint: &Endpoint) -> Option<io::Result<Connected>> {
    let network = NETWORK.with_borrow(Clone::clone)?;
    let dialled = network.dial(Address::of(endpoint)?, false).await;
    Some(dialled.map(|(stream, address)| Connected { stream: Box::new(stream), address }))
}
