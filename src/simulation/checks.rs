//! What must hold: the invariants, each against what the network has seen.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use crate::monitor::PeerId;
use crate::simulation::network::Network;
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
}

/// One direction of a connection, in which messages went.
#[derive(Debug)]
pub(super) struct Way {
    pub(super) from: u16,
    pub(super) to: u16,
    pub(super) said: Said,
    pub(super) was_disturbed: bool,
}

/// All directions in which messages were sent, in the order of the connections.
pub(super) fn ways(network: &Network) -> Vec<Way> {
    let mut ways = Vec::new();
    for connection in network.connections().iter().filter(|connection| !connection.is_hostile) {
        for side in [0, 1] {
            let said = Said::read(&connection.tape(side));
            if !said.messages.is_empty() {
                ways.push(Way {
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
        let got = received.remove(&heard[0]).unwrap_or(&[]);
        let (from, to) = (way.from, way.to);
        if log.killed.contains(&to) {
            assert!(heard.starts_with(got), "{to} received from {from} {got:?}; on the wire was {heard:?}");
        } else {
            assert_eq!(got, heard, "{to} received from {from}; on the wire was, on the right");
        }
    }
    assert!(received.is_empty(), "received, and never read: {received:?}");
}

/// Only trouble loses what was handed to the network.
fn what_was_sent_was_read(ways: &[Way], log: &Log) {
    for way in ways {
        if !way.was_disturbed && !log.killed.contains(&way.to) {
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
        let mut rest = heard.iter();
        let is_part = got.iter().all(|tag| rest.any(|heard| heard == tag));
        assert!(is_part, "{} received {got:?}; on the wire was {heard:?}", way.to);
        if is_static && log.killed.contains(&way.to) {
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
