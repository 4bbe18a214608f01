//! The monitor: what happens to a socket's connections, as a bounded stream of events.

use std::collections::VecDeque;
use std::pin::Pin;
use std::sync::{Arc, PoisonError, Weak};
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use futures::Stream;

use crate::endpoint::Endpoint;
use crate::error::ProtocolError;
use crate::stats::Closed;
use crate::sync::{AtomicUsize, Mutex, Ordering};
use crate::transport::PeerAddress;
use crate::zmtp::greeting::Version;
use crate::zmtp::socket_type::SocketType;

/// So many events wait for a monitor that is not read; after that the oldest ones are given up.
const CAPACITY: usize = 1_024;

/// Names one connection of one socket; never used twice in a socket's life.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PeerId(pub(crate) u64);

impl std::fmt::Display for PeerId {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "peer {}", self.0)
    }
}

/// The connection that an [`Event`] is about. Two are equal if they are the same connection of a socket, whatever was known
/// of it at the time.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct Peer {
    /// Its number in this socket.
    pub id: PeerId,
    /// The endpoint of this socket that it belongs to: bound if it was accepted, connected if it was dialled.
    pub endpoint: Endpoint,
    /// Who is at the other end.
    pub address: PeerAddress,
    /// What kind of socket it is, once the handshake is finished.
    pub socket_type: Option<SocketType>,
}

#[cfg(test)]
impl Peer {
    /// A peer that there is not.
    pub(crate) fn for_tests(id: u64) -> Arc<Self> {
        let address = PeerAddress::Ipc { uid: 0, gid: 0, pid: None };
        Arc::new(Self { id: PeerId(id), endpoint: "ipc://x".parse().unwrap(), address, socket_type: None })
    }
}

impl PartialEq for Peer {
    fn eq(&self, other: &Self) -> bool {
        self.id == other.id && self.endpoint == other.endpoint && self.address == other.address
    }
}

impl Eq for Peer {}

/// A connected peer and its numbers at one moment; totals count from the beginning of the connection.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct PeerStats {
    /// The connection.
    pub peer: Arc<Peer>,
    /// What kind of socket the peer is.
    pub socket_type: SocketType,
    /// The version that is spoken.
    pub version: Version,
    /// Messages handed to the kernel whole.
    pub messages_sent: u64,
    /// Their bodies, in bytes.
    pub bytes_sent: u64,
    /// Messages that came from it whole.
    pub messages_received: u64,
    /// Bytes that came from it, including all of the protocol's.
    pub bytes_received: u64,
    /// Messages for it that were dropped because it was too slow.
    pub messages_dropped: u64,
    /// Messages on their way to it that the kernel has not taken whole.
    pub queued_messages: usize,
    /// Their bodies, in bytes.
    pub queued_bytes: usize,
    /// How many prefixes it has subscribed to.
    pub subscriptions: usize,
    /// It has not taken any bytes for a second, though there are some for it ([`Event::Congested`]). Only known while there is
    /// a monitor.
    pub is_congested: bool,
    /// Messages for it are being dropped because it is too slow ([`Event::LosingBegan`]).
    pub is_losing: bool,
}

/// Why a connection ended.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum DisconnectReason {
    /// The peer closed the connection.
    PeerClosed,
    /// The peer did what the protocol forbids.
    Protocol(ProtocolError),
    /// The system reported an error.
    Io(std::io::ErrorKind),
    /// This socket closed it: `unbind`, `disconnect`, `close`.
    Local,
    /// Nothing came from the peer for longer than a heartbeat's timeout, or than its own time to live.
    Silent,
    /// The peer did not take what it was sent: a subscriber of a publisher that disconnects those
    /// ([`SlowSubscriber::Disconnect`](crate::SlowSubscriber::Disconnect)), or a publisher that left 64 MiB of subscriptions
    /// unread.
    TooSlow,
}

impl std::fmt::Display for DisconnectReason {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::PeerClosed => f.write_str("the peer closed the connection"),
            Self::Protocol(error) => error.fmt(f),
            Self::Io(kind) => kind.fmt(f),
            Self::Local => f.write_str("closed by this socket"),
            Self::Silent => f.write_str("nothing came from the peer for too long"),
            Self::TooSlow => f.write_str("the peer was too slow"),
        }
    }
}

/// Something that happened to a socket's connections.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum Event {
    /// The socket listens.
    Listening {
        /// Where: nothing is left to choose in it.
        endpoint: Endpoint,
    },
    /// The socket no longer listens or no longer connects there.
    Detached {
        /// Where.
        endpoint: Endpoint,
    },
    /// Listening failed; whoever called `bind` knows as well.
    BindFailed {
        /// Where.
        endpoint: Endpoint,
        /// Why.
        cause: String,
    },
    /// Accepting a connection failed; it is tried again after `delay`.
    AcceptFailed {
        /// The listening endpoint.
        endpoint: Endpoint,
        /// The system's words.
        cause: String,
        /// The pause.
        delay: Duration,
    },
    /// A connection was accepted; the handshake begins.
    Accepted(Peer),
    /// A connection was closed at once because there are too many: `max_connections`, or
    /// `max_pending_handshakes_per_source`.
    Refused {
        /// The endpoint of this socket.
        endpoint: Endpoint,
        /// Who is at the other end.
        address: PeerAddress,
    },
    /// A connection was made; the handshake begins.
    Connected(Peer),
    /// Connecting failed or a connection ended; it is tried again after `delay`.
    ConnectRetried {
        /// The endpoint.
        endpoint: Endpoint,
        /// What ended the last attempt.
        cause: String,
        /// The pause before the next one.
        delay: Duration,
    },
    /// The handshake succeeded: messages can flow.
    HandshakeSucceeded {
        /// The connection.
        peer: Peer,
        /// The peer's socket type.
        socket_type: SocketType,
        /// The version both sides speak.
        version: Version,
    },
    /// The connection ended before the handshake was finished.
    HandshakeFailed {
        /// The connection.
        peer: Peer,
        /// Why.
        reason: DisconnectReason,
    },
    /// The connection ended after a successful handshake.
    Disconnected {
        /// The connection.
        peer: Peer,
        /// Why.
        reason: DisconnectReason,
        /// How many messages went back to the head of the outbound queue because they had not left.
        returned: usize,
        /// How many messages for this peer alone were dropped because they had not left.
        dropped: usize,
    },
    /// A peer has not taken any bytes for a second, though there are some for it.
    Congested {
        /// The connection.
        peer: Peer,
    },
    /// A congested peer takes bytes again.
    Relieved {
        /// The connection.
        peer: Peer,
    },
    /// A subscriber is too slow: messages for it are dropped from now on. Not reported where only the latest message is kept
    /// for each ([`SlowSubscriber::KeepLatest`](crate::SlowSubscriber::KeepLatest)): that is what it is for.
    LosingBegan {
        /// The subscriber.
        peer: Peer,
    },
    /// A subscriber has caught up: it gets all messages again.
    LosingEnded {
        /// The subscriber.
        peer: Peer,
        /// How many messages were dropped since it began.
        dropped: u64,
    },
    /// The socket is closed; the last event.
    Closed(Closed),
    /// The reader was too slow: so many events before this one are gone.
    Missed(u64),
}

#[derive(Debug, Default)]
struct Ring {
    events: VecDeque<Event>,
    missed: u64,
    closed: bool,
    waker: Option<Waker>,
}

/// The events of one socket from the moment of [`monitor`](crate::PushSocket::monitor) on; ends when the socket is
/// closed.
///
/// Bounded: whoever reads too slowly loses the oldest events and is told how many by [`Event::Missed`]. A monitor
/// never slows its socket down.
///
/// ```
/// # tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(async {
/// use futures::StreamExt;
/// use sinew::{Event, PullSocket};
///
/// let pull = PullSocket::new();
/// let mut monitor = pull.monitor();
/// let endpoint = pull.bind("tcp://127.0.0.1:*").await?;
/// assert_eq!(monitor.next().await, Some(Event::Listening { endpoint }));
/// # Ok::<(), sinew::BindError>(()) }).unwrap();
/// ```
#[derive(Debug)]
pub struct Monitor(Arc<Mutex<Ring>>);

impl Stream for Monitor {
    type Item = Event;

    fn poll_next(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Event>> {
        let mut ring = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if ring.missed > 0 {
            return Poll::Ready(Some(Event::Missed(std::mem::take(&mut ring.missed))));
        }
        match ring.events.pop_front() {
            Some(event) => Poll::Ready(Some(event)),
            None if ring.closed => Poll::Ready(None),
            None => {
                ring.waker = Some(cx.waker().clone());
                Poll::Pending
            }
        }
    }
}

/// Where a socket's parts report to.
#[derive(Debug, Default)]
pub(crate) struct Reporter {
    rings: Mutex<Vec<Weak<Mutex<Ring>>>>,
    /// How many rings there are, so that events nobody wants cost one load.
    readers: AtomicUsize,
}

impl Reporter {
    /// A new monitor; on a closed socket it has ended already.
    pub(crate) fn subscribe(&self, closed: bool) -> Monitor {
        let ring = Arc::new(Mutex::new(Ring { closed, ..Ring::default() }));
        let mut rings = self.rings.lock().unwrap_or_else(PoisonError::into_inner);
        // Those that have been dropped; otherwise they would stay until the next event.
        rings.retain(|ring| ring.strong_count() > 0);
        rings.push(Arc::downgrade(&ring));
        self.readers.store(rings.len(), Ordering::Relaxed);
        Monitor(ring)
    }

    /// Whether anybody reads.
    #[inline]
    pub(crate) fn has_readers(&self) -> bool {
        self.readers.load(Ordering::Relaxed) > 0
    }

    /// Reports an event, which is only made if somebody reads.
    pub(crate) fn report(&self, event: impl FnOnce() -> Event) {
        if !self.has_readers() {
            return;
        }
        let event = event();
        self.each_ring(|ring| {
            if ring.events.len() == CAPACITY {
                ring.events.pop_front();
                ring.missed += 1;
            }
            ring.events.push_back(event.clone());
        });
    }

    /// Ends every monitor once it has been read to the end.
    pub(crate) fn close(&self) {
        self.each_ring(|ring| ring.closed = true);
    }

    fn each_ring(&self, mut change: impl FnMut(&mut Ring)) {
        let mut rings = self.rings.lock().unwrap_or_else(PoisonError::into_inner);
        rings.retain(|ring| {
            let Some(ring) = ring.upgrade() else {
                return false;
            };
            let waker = {
                let mut ring = ring.lock().unwrap_or_else(PoisonError::into_inner);
                change(&mut ring);
                ring.waker.take()
            };
            if let Some(waker) = waker {
                waker.wake();
            }
            true
        });
        self.readers.store(rings.len(), Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use futures::{FutureExt, StreamExt};

    use super::*;

    fn event(number: usize) -> Event {
        Event::Listening { endpoint: format!("ipc://{number}").parse().unwrap() }
    }

    #[test]
    fn a_slow_reader_is_told_how_many_events_it_missed() {
        let reporter = Reporter::default();
        let mut monitor = reporter.subscribe(false);
        for number in 0..CAPACITY + 3 {
            reporter.report(|| event(number));
        }
        assert_eq!(monitor.next().now_or_never(), Some(Some(Event::Missed(3))));
        assert_eq!(monitor.next().now_or_never(), Some(Some(event(3))));
        assert_eq!(monitor.by_ref().take(CAPACITY - 1).count().now_or_never(), Some(CAPACITY - 1));
        assert_eq!(monitor.next().now_or_never(), None);
    }

    #[test]
    fn without_a_reader_no_event_is_made() {
        let reporter = Reporter::default();
        drop(reporter.subscribe(false));
        reporter.report(|| event(0));
        reporter.report(|| panic!("nobody reads"));
    }

    #[test]
    fn monitors_that_come_and_go_leave_nothing_behind() {
        let reporter = Reporter::default();
        let kept = reporter.subscribe(false);
        (0..1_000).for_each(|_| drop(reporter.subscribe(false)));
        assert!(reporter.rings.lock().unwrap().len() <= 2);
        reporter.report(|| event(0));
        assert_eq!(reporter.rings.lock().unwrap().len(), 1);
        drop(kept);
    }

    #[test]
    fn a_monitor_ends_with_its_socket() {
        let reporter = Reporter::default();
        let mut monitor = reporter.subscribe(false);
        reporter.report(|| event(0));
        reporter.close();
        assert_eq!(monitor.next().now_or_never(), Some(Some(event(0))));
        assert_eq!(monitor.next().now_or_never(), Some(None));
        assert_eq!(reporter.subscribe(true).next().now_or_never(), Some(None));
    }
}

/// Reports, readers and the end in every order in which they may meet. How to run: `sync.rs`.
#[cfg(all(test, sinew_loom))]
mod model {
    use futures::StreamExt;
    use loom::future::block_on;
    use loom::thread;

    use super::*;
    use crate::sync::checked::model;

    fn event(number: u64) -> Event {
        Event::Missed(number)
    }

    #[test]
    fn a_monitor_is_woken_by_every_report_and_by_the_end() {
        model(None, || {
            let reporter = Arc::new(Reporter::default());
            let monitor = reporter.subscribe(false);
            let socket = thread::spawn({
                let reporter = reporter.clone();
                move || {
                    reporter.report(|| event(1));
                    reporter.report(|| event(2));
                    reporter.close();
                }
            });
            assert_eq!(block_on(monitor.collect::<Vec<_>>()), [event(1), event(2)]);
            socket.join().unwrap();
        });
    }

    #[test]
    fn a_monitor_that_is_there_misses_no_report_while_others_come_and_go() {
        model(None, || {
            let reporter = Arc::new(Reporter::default());
            let other = reporter.subscribe(false);
            let leaver = thread::spawn({
                let reporter = reporter.clone();
                move || {
                    drop(other);
                    reporter.report(|| event(0));
                }
            });
            let monitor = reporter.subscribe(false);
            reporter.report(|| event(1));
            reporter.close();
            let seen = block_on(monitor.collect::<Vec<_>>());
            assert_eq!(seen.iter().filter(|seen| **seen == event(1)).count(), 1);
            leaver.join().unwrap();
        });
    }
}
