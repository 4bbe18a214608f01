//! Topics: which peer has subscribed to what, and who gets a message.

use std::collections::HashMap;
use std::hash::{BuildHasherDefault, DefaultHasher};

use crate::routing::prefixes::{NodeId, PrefixTree, Value};
use crate::routing::sieve::{Mark, Words};

/// Who has subscribed to one prefix.
#[derive(Debug, Default)]
struct Subscribers {
    slots: Vec<usize>,
    /// What a sieve knows of the prefix.
    mark: Mark,
}

impl Value for Subscribers {
    fn is_empty(&self) -> bool {
        self.slots.is_empty()
    }
}

/// The subscriptions of all peers of a publisher, by slot.
///
/// A message costs what its topic's length and the number of its matches cost; a peer that goes costs what it had
/// subscribed to.
#[derive(Debug, Default)]
pub(crate) struct Topics {
    tree: PrefixTree<Subscribers>,
    peers: Vec<Subscriptions>,
    /// Counts messages, so that a peer gets each of them once however many of its prefixes match.
    stamp: u64,
}

/// Nodes are numbered by us, so that no peer can choose what falls together; and a peer that goes cancels in the same order
/// each time.
type Places = HashMap<NodeId, usize, BuildHasherDefault<DefaultHasher>>;

/// What one peer has subscribed to.
#[derive(Debug, Default)]
struct Subscriptions {
    /// The prefixes, and the place of the peer among the subscribers of each.
    places: Places,
    /// The lengths of the prefixes, added up.
    bytes: usize,
    /// The last message that matched.
    stamp: u64,
}

/// What a subscription or a cancellation has changed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Change {
    /// It was there before, or was not there to be cancelled.
    None,
    /// Others have subscribed to the same.
    Shared,
    /// It was the first to this prefix, or the last.
    Sole(Mark),
}

impl Topics {
    /// A peer subscribes to a prefix.
    pub(crate) fn subscribe(&mut self, slot: usize, prefix: &[u8]) -> Change {
        if slot >= self.peers.len() {
            self.peers.resize_with(slot + 1, Subscriptions::default);
        }
        let id = self.tree.insert(prefix);
        let subscribers = self.tree.value_mut(id);
        let peer = &mut self.peers[slot];
        if peer.places.contains_key(&id) {
            return Change::None;
        }
        peer.places.insert(id, subscribers.slots.len());
        peer.bytes += prefix.len();
        subscribers.slots.push(slot);
        if subscribers.slots.len() > 1 {
            return Change::Shared;
        }
        subscribers.mark = Mark::of(prefix);
        Change::Sole(subscribers.mark)
    }

    /// New words for a sieve of all prefixes.
    pub(crate) fn words(&self) -> Words {
        Words::new(self.tree.node_count(), self.tree.iter().map(|id| self.tree.value(id).mark))
    }

    /// Whether a peer has subscribed to exactly this prefix.
    pub(crate) fn holds(&self, slot: usize, prefix: &[u8]) -> bool {
        let id = self.tree.find(prefix);
        id.is_some_and(|id| self.peers.get(slot).is_some_and(|peer| peer.places.contains_key(&id)))
    }

    /// A peer no longer subscribes to a prefix.
    pub(crate) fn cancel(&mut self, slot: usize, prefix: &[u8]) -> Change {
        let (Some(peer), Some(id)) = (self.peers.get_mut(slot), self.tree.find(prefix)) else {
            return Change::None;
        };
        let Some(place) = peer.places.remove(&id) else {
            return Change::None;
        };
        peer.bytes -= prefix.len();
        let change = self.vacate(id, place);
        self.tree.prune(id);
        change
    }

    /// A peer has gone: it no longer subscribes to anything. Calls `cancelled` with each prefix that it had, and what that
    /// changes.
    pub(crate) fn remove(&mut self, slot: usize, mut cancelled: impl FnMut(&dyn Fn() -> Vec<u8>, Change)) {
        let Some(peer) = self.peers.get_mut(slot) else {
            return;
        };
        for (id, place) in std::mem::take(peer).places {
            let change = self.vacate(id, place);
            cancelled(&|| self.tree.prefix(id), change);
            self.tree.prune(id);
        }
    }

    /// Takes a subscriber from its place; the last one moves there.
    fn vacate(&mut self, id: NodeId, place: usize) -> Change {
        let subscribers = self.tree.value_mut(id);
        subscribers.slots.swap_remove(place);
        if let Some(moved) = subscribers.slots.get(place) {
            self.peers[*moved].places.insert(id, place);
        }
        if !subscribers.slots.is_empty() {
            return Change::Shared;
        }
        Change::Sole(subscribers.mark)
    }

    /// Calls `visit` once with each slot that gets a message with this topic.
    #[inline]
    pub(crate) fn matching(&mut self, topic: &[u8], mut visit: impl FnMut(usize)) {
        self.stamp += 1;
        let (stamp, peers) = (self.stamp, &mut self.peers);
        self.tree.walk(topic, |subscribers| {
            for slot in &subscribers.slots {
                if std::mem::replace(&mut peers[*slot].stamp, stamp) != stamp {
                    visit(*slot);
                }
            }
        });
    }

    /// Whether the slot got the last message that was [matched](Self::matching).
    pub(crate) fn has_matched(&self, slot: usize) -> bool {
        self.peers.get(slot).is_some_and(|peer| peer.stamp == self.stamp)
    }

    /// Whether every message goes to the same slots: nobody has subscribed to anything but everything.
    #[inline]
    pub(crate) fn is_flat(&self) -> bool {
        self.tree.is_flat()
    }

    /// How many prefixes a peer has subscribed to, and their lengths added up.
    pub(crate) fn held_by(&self, slot: usize) -> (usize, usize) {
        self.peers.get(slot).map_or((0, 0), |peer| (peer.places.len(), peer.bytes))
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use proptest::collection::vec;
    use proptest::prelude::*;

    use super::*;

    fn matching(topics: &mut Topics, topic: &[u8]) -> BTreeSet<usize> {
        let mut slots = Vec::new();
        topics.matching(topic, |slot| slots.push(slot));
        let set: BTreeSet<_> = slots.iter().copied().collect();
        assert_eq!(set.len(), slots.len(), "a slot came twice");
        assert!(set.iter().all(|slot| topics.has_matched(*slot)));
        set
    }

    #[test]
    fn a_peer_with_several_matching_prefixes_gets_a_message_once() {
        let mut topics = Topics::default();
        for prefix in [&b""[..], b"a", b"ab"] {
            topics.subscribe(3, prefix);
        }
        assert_eq!(matching(&mut topics, b"abc"), [3].into());
    }

    #[test]
    fn a_publisher_keeps_a_set_per_peer() {
        let mut topics = Topics::default();
        let sole = Change::Sole(Mark::of(b"a"));
        assert_eq!(topics.subscribe(0, b"a"), sole);
        assert_eq!(topics.subscribe(0, b"a"), Change::None);
        assert_eq!(topics.subscribe(1, b"a"), Change::Shared);
        assert_eq!(topics.held_by(0), (1, 1));
        assert_eq!(topics.cancel(0, b"a"), Change::Shared);
        assert_eq!(topics.cancel(0, b"a"), Change::None);
        assert_eq!(topics.cancel(1, b"a"), sole);
        assert!(topics.is_flat());
    }

    #[derive(Debug, Clone)]
    enum Step {
        Subscribe(usize, Vec<u8>),
        Cancel(usize, Vec<u8>),
        Remove(usize),
        Match(Vec<u8>),
    }

    fn prefix() -> impl Strategy<Value = Vec<u8>> {
        vec(prop_oneof![4 => b'a'..b'd', 1 => any::<u8>()], 0..7)
    }

    fn step() -> impl Strategy<Value = Step> {
        prop_oneof![
            6 => (0_usize..5, prefix()).prop_map(|(slot, prefix)| Step::Subscribe(slot, prefix)),
            3 => (0_usize..5, prefix()).prop_map(|(slot, prefix)| Step::Cancel(slot, prefix)),
            1 => (0_usize..5).prop_map(Step::Remove),
            4 => prefix().prop_map(Step::Match),
        ]
    }

    proptest! {
        #[test]
        fn topics_agree_with_a_naive_list(steps in vec(step(), 1..300)) {
            let (mut topics, mut list) = (Topics::default(), BTreeSet::<(Vec<u8>, usize)>::new());
            let others = |list: &BTreeSet<(Vec<u8>, usize)>, prefix: &[u8]| {
                let shared = list.iter().any(|(other, _)| other == prefix);
                if shared { Change::Shared } else { Change::Sole(Mark::of(prefix)) }
            };
            for step in steps {
                match step {
                    Step::Subscribe(slot, prefix) => {
                        let change = others(&list, &prefix);
                        let new = list.insert((prefix.clone(), slot));
                        let expected = if new { change } else { Change::None };
                        prop_assert_eq!(topics.subscribe(slot, &prefix), expected);
                    }
                    Step::Cancel(slot, prefix) => {
                        let had = list.remove(&(prefix.clone(), slot));
                        let expected = if had { others(&list, &prefix) } else { Change::None };
                        prop_assert_eq!(topics.cancel(slot, &prefix), expected);
                    }
                    Step::Remove(slot) => {
                        let had: BTreeSet<_> = list.iter().filter(|(_, other)| *other == slot).cloned().collect();
                        list.retain(|(_, other)| *other != slot);
                        let mut cancelled = BTreeSet::new();
                        topics.remove(slot, |prefix, change| {
                            assert_eq!(change, others(&list, &prefix()));
                            cancelled.insert((prefix(), slot));
                        });
                        prop_assert_eq!(cancelled, had);
                    }
                    Step::Match(topic) => {
                        let expected = list.iter().filter(|(prefix, _)| topic.starts_with(prefix)).map(|(_, slot)| *slot);
                        prop_assert_eq!(matching(&mut topics, &topic), expected.collect());
                    }
                }
                for slot in 0..5 {
                    let own = list.iter().filter(|(_, other)| *other == slot);
                    let expected = own.fold((0, 0), |(count, bytes), (prefix, _)| (count + 1, bytes + prefix.len()));
                    prop_assert_eq!(topics.held_by(slot), expected);
                }
            }
        }
    }
}
