//! Target `topics`: the subscriptions of a publisher's peers, compared with a naive list.

use std::collections::BTreeSet;

use crate::fuzzing::choices::Choices;
use crate::routing::sieve::{Mark, Sieve};
use crate::routing::topics::{Change, Topics};

const SLOTS: usize = 8;

/// Steps: one byte chooses what is done and for which peer, the following ones the prefix or topic.
///
/// Invariants: who gets a message, what a subscription or cancellation changes, what a peer has and what it leaves behind
/// are the same as in a list of all subscriptions; a sieve that follows the changes lets everything through that somebody gets.
pub fn topics(data: &[u8]) {
    let mut choices = Choices::new(data);
    let (mut topics, mut list, mut sieve) = (Topics::default(), List::default(), Sieve::default());
    while !choices.is_empty() {
        let step = choices.byte();
        let slot = usize::from(step >> 3) % SLOTS;
        match step & 7 {
            0..=2 => {
                let prefix = prefix(&mut choices);
                let change = topics.subscribe(slot, &prefix);
                assert_eq!(change, list.subscribe(slot, prefix));
                if let Change::Sole(mark) = change {
                    if sieve.add(mark) {
                        sieve.renew(topics.words());
                    }
                }
            }
            3 => {
                let prefix = prefix(&mut choices);
                let change = topics.cancel(slot, &prefix);
                assert_eq!(change, list.cancel(slot, prefix));
                if let Change::Sole(mark) = change {
                    if sieve.remove(mark) {
                        sieve.renew(topics.words());
                    }
                }
            }
            4 => {
                let (mut cancelled, mut is_worn) = (BTreeSet::new(), false);
                topics.remove(slot, |prefix, change| {
                    assert_eq!(list.cancel(slot, prefix()), change);
                    cancelled.insert(prefix());
                    if let Change::Sole(mark) = change {
                        is_worn |= sieve.remove(mark);
                    }
                });
                if is_worn {
                    sieve.renew(topics.words());
                }
                assert_eq!(list.held_by(slot), (0, 0));
            }
            _ => {
                let topic = prefix(&mut choices);
                let mut slots = Vec::new();
                topics.matching(&topic, |slot| slots.push(slot));
                let expected = list.matching(&topic);
                assert!(expected.is_empty() || sieve.lets_through(&topic), "{topic:?} is held back");
                assert_eq!(slots.len(), expected.len(), "a slot comes twice, or not at all");
                assert!(slots.iter().all(|slot| expected.contains(slot)));
                assert!((0..SLOTS).all(|slot| topics.has_matched(slot) == expected.contains(&slot)));
            }
        }
        assert_eq!(topics.held_by(slot), list.held_by(slot));
        assert_eq!(topics.is_flat(), list.0.iter().all(|(prefix, _)| prefix.is_empty()));
    }
    assert_eq!(sieve.prefixes(), list.0.iter().map(|(prefix, _)| prefix).collect::<BTreeSet<_>>().len());
    for (prefix, _) in &list.0 {
        assert!(sieve.lets_through(prefix));
        let mut slots = BTreeSet::new();
        topics.matching(prefix, |slot| {
            slots.insert(slot);
        });
        assert_eq!(slots, list.matching(prefix));
    }
    for slot in 0..SLOTS {
        topics.remove(slot, |_, change| {
            if let Change::Sole(mark) = change {
                sieve.remove(mark);
            }
        });
    }
    assert!(topics.is_flat() && sieve.prefixes() == 0 && !sieve.lets_through(b""));
}

/// Bytes from the input, or many times the same one.
fn prefix(choices: &mut Choices<'_>) -> Vec<u8> {
    match choices.byte() {
        code @ ..0xF0 => (0..code % 9).map(|_| choices.byte()).collect(),
        code => vec![choices.byte(); usize::from(code & 15) * 3],
    }
}

/// Prefixes and who has subscribed to them.
#[derive(Debug, Default)]
struct List(BTreeSet<(Vec<u8>, usize)>);

impl List {
    fn is_shared(&self, prefix: &[u8]) -> Change {
        if self.0.iter().any(|(other, _)| other == prefix) { Change::Shared } else { Change::Sole(Mark::of(prefix)) }
    }

    fn subscribe(&mut self, slot: usize, prefix: Vec<u8>) -> Change {
        let change = self.is_shared(&prefix);
        if self.0.insert((prefix, slot)) { change } else { Change::None }
    }

    fn cancel(&mut self, slot: usize, prefix: Vec<u8>) -> Change {
        let had = self.0.remove(&(prefix.clone(), slot));
        if had { self.is_shared(&prefix) } else { Change::None }
    }

    fn matching(&self, topic: &[u8]) -> BTreeSet<usize> {
        self.0.iter().filter(|(prefix, _)| topic.starts_with(prefix)).map(|(_, slot)| *slot).collect()
    }

    fn held_by(&self, slot: usize) -> (usize, usize) {
        let own = self.0.iter().filter(|(_, other)| *other == slot);
        own.fold((0, 0), |(count, bytes), (prefix, _)| (count + 1, bytes + prefix.len()))
    }
}
