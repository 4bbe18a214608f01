//! What must hold: the invariants, each against what the network has seen.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use crate::monitor::{Peer, PeerId};
use crate::options::SlowSubscriber;
use crate::queue::inbound::CONFLATED_GONE;
use crate::simulation::network::{Network, connection_of};
use crate::simulation::wire::Said;
use crate::simulation::world::{ROW, Tag};
use crate::stats::Closed;

/// What the applications have seen.
#[derive(Debug, Default)]
pub(super) struct Log {
    /// Messages that a socket has accepted, by socket, in order.
    pub(super) accepted: BTreeMap<u16, Vec<Tag>>,
    /// Messages that a socket has received, by socket and connection, in order.
    pub(super) received: BTreeMap<(u16, PeerId), Vec<Tag>>,
    /// Sockets that have been closed.
    pub(super) closed: BTreeMap<u16, Closed>,
    /// Sockets whose numbers say how many messages they have handed to the network.
    pub(super) sent: BTreeMap<u16, u64>,
    /// How often a sender has left a receiver for a moment.
    pub(super) left: usize,
    /// Sockets whose application receives; not those of a proxy.
    pub(super) receivers: BTreeSet<u16>,
    /// Receivers that were closed before they had received everything.
    pub(super) killed: BTreeSet<u16>,
    /// Receivers that have ended connections before they had read everything.
    pub(super) unbound: BTreeSet<u16>,
    /// Receivers that keep only the newest message of each peer.
    pub(super) conflating: BTreeSet<u16>,
    /// Receivers whose numbers say how many messages a newer one has replaced.
    pub(super) replaced: BTreeMap<u16, u64>,
}

/// One direction of a connection, in which messages went.
#[derive(Debug)]
pub(super) struct Way {
    /// Its place among the network's connections.
    pub(super) connection: usize,
    pub(super) from: u16,
    pub(super) to: u16,
    pub(super) said: Said,
    pub(super) was_disturbed: bool,
}

/// All directions in which messages were sent, in the order of the connections.
pub(super) fn ways(network: &Network) -> Vec<Way> {
    let mut ways = Vec::new();
    let connections = network.connections();
    for (index, connection) in connections.iter().enumerate().filter(|(_, connection)| !connection.is_hostile) {
        for side in [0, 1] {
            let said = Said::read(&connection.tape(side));
            if !said.messages.is_empty() {
                ways.push(Way {
                    connection: index,
                    from: connection.owners[side],
                    to: connection.owners[1 - side],
                    said,
                    was_disturbed: connection.was_disturbed(),
                });
            }
        }
    }
    ways
}

/// Each message goes to one peer, and none is lost but with a connection that was cut or a receiver that was killed.
pub(super) fn pipeline(ways: &[Way], log: &Log) {
    each_was_sent_once_and_whole(ways, log);
    what_was_read_was_received(ways, log);
    what_was_replaced_is_counted(ways, log);
    what_was_sent_was_read(ways, log);
}

/// What `send` accepted was handed to the network once, or is counted as unsent.
fn each_was_sent_once_and_whole(ways: &[Way], log: &Log) {
    let mut sent: HashMap<u16, BTreeSet<Tag>> = HashMap::new();
    for way in ways {
        let tags = sent.entry(way.from).or_default();
        for tag in &way.said.messages {
            assert!(tags.insert(*tag), "{tag:?} was sent twice");
        }
    }
    for (owner, accepted) in &log.accepted {
        let sent = sent.remove(owner).unwrap_or_default();
        let accepted: BTreeSet<Tag> = accepted.iter().copied().collect();
        assert!(sent.is_subset(&accepted), "socket {owner} sent what was never accepted");
        let unsent: Vec<_> = accepted.difference(&sent).collect();
        if let Some(closed) = log.closed.get(owner) {
            assert_eq!(closed.unsent, unsent.len() as u64, "socket {owner} says {closed:?}; not sent were {unsent:?}");
        }
        if let Some(count) = log.sent.get(owner) {
            assert_eq!(*count, sent.len() as u64, "Stats::messages_sent of socket {owner}");
        }
    }
}

/// What a receiver has read is received, all of it, in the order of the wire; one that was killed has received the
/// beginning.
fn what_was_read_was_received(ways: &[Way], log: &Log) {
    let mut received: HashMap<Tag, &[Tag]> = HashMap::new();
    for tags in log.received.values() {
        received.insert(tags[0], tags);
    }
    for way in ways.iter().filter(|way| way.said.heard > 0 && log.receivers.contains(&way.to)) {
        let heard = way.said.heard();
        let got = heard.iter().find_map(|tag| received.remove(tag)).unwrap_or(&[]);
        let (from, to) = (way.from, way.to);
        if log.conflating.contains(&to) {
            let count = ways.iter().filter(|other| other.to == to).count();
            the_newest(got, heard, way, log.killed.contains(&to) || count > CONFLATED_GONE);
        } else if log.killed.contains(&to) {
            assert!(heard.starts_with(got), "{to} received from {from} {got:?}; on the wire was {heard:?}");
        } else {
            assert_eq!(got, heard, "{to} received from {from}; on the wire was, on the right");
        }
    }
    assert!(received.is_empty(), "received, and never read: {received:?}");
}

/// A receiver that conflates has received some of what it has read, in order, and the last of it, unless it was killed or very
/// many peers have gone since.
fn the_newest(got: &[Tag], heard: &[Tag], way: &Way, may_lack_it: bool) {
    assert!(is_part(got, heard), "{} received {got:?}; on the wire was {heard:?}", way.to);
    if !may_lack_it {
        assert_eq!(got.last(), heard.last(), "the newest always comes, to {} from {}", way.to, way.from);
    }
}

/// Whether some of `all` are these, in order.
fn is_part(some: &[Tag], all: &[Tag]) -> bool {
    let mut rest = all.iter();
    some.iter().all(|tag| rest.any(|other| other == tag))
}

/// What a receiver has read and not received a newer one has replaced, and it is counted.
fn what_was_replaced_is_counted(ways: &[Way], log: &Log) {
    for (owner, replaced) in &log.replaced {
        let heard: usize = ways.iter().filter(|way| way.to == *owner).map(|way| way.said.heard).sum();
        let received: usize =
            log.received.iter().filter(|((to, _), _)| to == owner).map(|(_, received)| received.len()).sum();
        assert_eq!(*replaced, (heard - received) as u64, "Stats::messages_dropped_replaced of socket {owner}");
    }
}

/// Only trouble loses what was handed to the network.
fn what_was_sent_was_read(ways: &[Way], log: &Log) {
    for way in ways {
        if !way.was_disturbed && !log.killed.contains(&way.to) && !log.unbound.contains(&way.to) {
            let lost = &way.said.messages[way.said.heard..];
            assert!(lost.is_empty(), "lost between {} and {} without a cause: {lost:?}", way.from, way.to);
        }
    }
}

/// On a connection, messages come in the order in which they were sent.
pub(super) fn in_order(tags: &[Tag], what: &str) {
    let mut last: HashMap<(u16, u32), u32> = HashMap::new();
    for tag in tags {
        let before = last.insert((tag.sender, tag.number / ROW), tag.number);
        assert!(before.is_none_or(|before| before < tag.number), "{what}: {tag:?} came after {before:?} in {tags:?}");
    }
}

/// What a publisher hands to a subscriber's connection is some of what was published, in order; and the subscriber receives
/// all of it that it still wants.
pub(super) fn publishing(ways: &[Way], log: &Log, is_static: bool, is_direct: bool) {
    let accepted: BTreeSet<Tag> = log.accepted.values().flatten().copied().collect();
    let mut received: HashMap<(Tag, u16), &[Tag]> = HashMap::new();
    for ((owner, _), tags) in &log.received {
        if is_direct {
            in_order(tags, "received");
        }
        assert!(received.insert(tags[0].at(*owner), tags).is_none(), "{:?} came twice to {owner}", tags[0]);
    }
    for way in ways {
        if is_direct {
            in_order(&way.said.messages, "on the wire");
        }
        let unknown = way.said.messages.iter().find(|tag| !accepted.contains(tag));
        assert_eq!(unknown, None, "sent, and never accepted");
        if !log.receivers.contains(&way.to) {
            continue;
        }
        let heard = way.said.heard();
        let got = heard.iter().find_map(|tag| received.remove(&tag.at(way.to))).unwrap_or(&[]);
        assert!(is_part(got, heard), "{} received {got:?}; on the wire was {heard:?}", way.to);
        if log.conflating.contains(&way.to) {
            if is_static {
                the_newest(got, heard, way, log.killed.contains(&way.to));
            }
        } else if is_static && log.killed.contains(&way.to) {
            assert!(heard.starts_with(got), "{} received {got:?}; on the wire was {heard:?}", way.to);
        } else if is_static {
            assert_eq!(got, heard, "{} received, and on the wire was, on the right", way.to);
        }
    }
    assert!(received.is_empty(), "received, and never read: {received:?}");
    for (owner, count) in &log.sent {
        let sent: usize = ways.iter().filter(|way| way.from == *owner).map(|way| way.said.messages.len()).sum();
        assert_eq!(*count, sent as u64, "Stats::messages_sent of socket {owner}");
    }
}

/// What the application of a manual publisher knows of a peer, and has decided.
#[derive(Debug)]
pub(super) struct Granted {
    pub(super) connection: usize,
    pub(super) requested: BTreeSet<Vec<u8>>,
    pub(super) prefixes: BTreeSet<Vec<u8>>,
    /// What was published while it was granted to the peer, and what was sent to it alone, in order.
    pub(super) due: Vec<Tag>,
}

impl Granted {
    pub(super) fn new(peer: &Peer) -> Self {
        Self {
            connection: connection_of(&peer.address),
            requested: BTreeSet::new(),
            prefixes: BTreeSet::new(),
            due: Vec::new(),
        }
    }
}

/// Each connection of a manual publisher carries the welcome, and then what was due to its peer, less what was dropped.
pub(super) fn manual(
    ways: &[Way],
    granted: &BTreeMap<PeerId, Granted>,
    welcome: Tag,
    policy: SlowSubscriber,
    drops_nothing: bool,
) {
    for way in ways {
        let granted = granted.values().find(|granted| granted.connection == way.connection);
        let mut due = vec![welcome];
        due.extend(granted.iter().flat_map(|granted| &granted.due));
        let (said, to) = (&way.said.messages, way.to);
        assert!(is_part(said, &due), "{policy:?}: {to} was sent {said:?}; due was {due:?}");
        if !policy.drops_older() {
            assert_eq!(said[0], welcome, "{policy:?}: {to} was not greeted");
        }
        if drops_nothing {
            // A connection that was lost carries the beginning.
            assert!(due.starts_with(said), "{to} was sent {said:?}; due was {due:?}");
        }
    }
}
