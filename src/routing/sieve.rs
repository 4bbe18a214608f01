//! A sieve before the tree of prefixes: tells of most topics that begin with none of them, for the price of one look.
//!
//! A Bloom filter in which all bits of a prefix lie in one word, for prefixes of few different lengths: a topic is looked up
//! once per length. It may let through what the tree then finds to match nothing, and never holds back what does match.

use std::collections::BTreeMap;

/// So many lengths are tried; with more everything gets through, because the walk down the tree is cheaper.
const LENGTHS: usize = 8;

/// Of a longer prefix only this much is looked at: a topic must not cost what somebody else's prefixes are long.
const LONGEST: usize = 64;

/// So many prefixes share a word.
const PER_WORD: usize = 4;

/// What the sieve knows of a prefix.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Mark {
    hash: u64,
    length: usize,
}

impl Mark {
    pub(crate) fn of(prefix: &[u8]) -> Self {
        let head = &prefix[..prefix.len().min(LONGEST)];
        Self { hash: hash(head), length: head.len() }
    }
}

/// The words of a sieve: a power of two of them, or none as long as there is no prefix.
#[derive(Debug, Default)]
pub(crate) struct Words {
    words: Vec<u64>,
    /// Prefixes that have left their bits, those that have gone since included.
    marks: usize,
}

impl Words {
    /// The words of these prefixes. `visited` nodes have to be looked at to find them: there are so many words that this is not
    /// to be done again before an eighth as many prefixes have been added, or half of that have gone.
    pub(crate) fn new(visited: usize, marks: impl Iterator<Item = Mark> + Clone) -> Self {
        let prefixes = marks.clone().count();
        if prefixes == 0 {
            return Self::default();
        }
        let count = (2 * prefixes).max(visited / 4).div_ceil(PER_WORD).next_power_of_two();
        let mut words = Self { words: vec![0; count], marks: 0 };
        marks.for_each(|mark| words.add(mark));
        words
    }

    fn add(&mut self, mark: Mark) {
        if self.words.is_empty() {
            self.words.push(0);
        }
        let (word, bits) = self.bits(mark.hash);
        self.words[word] |= bits;
        self.marks += 1;
    }

    fn are_full(&self) -> bool {
        self.marks > self.words.len() * PER_WORD
    }

    /// The word of a prefix and its bits there.
    #[inline]
    fn bits(&self, hash: u64) -> (usize, u64) {
        #[allow(clippy::cast_possible_truncation)] // the upper half of the hash is enough for any number of prefixes
        let word = (hash >> 32) as usize & (self.words.len() - 1);
        (word, 1 << (hash & 63) | 1 << (hash >> 6 & 63) | 1 << (hash >> 12 & 63))
    }

    #[inline]
    fn may_have(&self, prefix: &[u8]) -> bool {
        let (word, bits) = self.bits(hash(prefix));
        self.words[word] & bits == bits
    }
}

/// The sieve. It gets new words from time to time: a prefix that has gone leaves its bits until then.
#[derive(Debug, Default)]
pub(crate) struct Sieve {
    words: Words,
    prefixes: usize,
    /// How many prefixes have which length.
    lengths: BTreeMap<usize, usize>,
    /// The lengths to be tried.
    tried: Vec<usize>,
    /// Nothing is tried, because all of it gets through.
    is_open: bool,
}

impl Sieve {
    /// Adds a prefix that was not there; `true` if new [words](Self::renew) are needed.
    pub(crate) fn add(&mut self, mark: Mark) -> bool {
        self.prefixes += 1;
        let count = self.lengths.entry(mark.length).or_default();
        *count += 1;
        if *count == 1 {
            self.choose_lengths();
        }
        self.words.add(mark);
        self.words.are_full()
    }

    /// Takes out a prefix that was there; `true` if new [words](Self::renew) are needed, because too many that have gone still
    /// have their bits.
    pub(crate) fn remove(&mut self, mark: Mark) -> bool {
        self.prefixes -= 1;
        if let Some(count) = self.lengths.get_mut(&mark.length) {
            *count -= 1;
            if *count == 0 {
                self.lengths.remove(&mark.length);
                self.choose_lengths();
            }
        }
        if self.prefixes == 0 {
            *self = Self::default();
            return false;
        }
        // No less than a sixteenth of the nodes that have to be looked at.
        self.words.marks - self.prefixes >= self.words.words.len()
    }

    fn choose_lengths(&mut self) {
        self.tried.clear();
        self.tried.extend(self.lengths.keys().take(LENGTHS));
        self.is_open = self.lengths.len() > LENGTHS || self.tried.first() == Some(&0);
    }

    /// How many prefixes there are.
    #[cfg(any(fuzzing, test))]
    pub(crate) fn prefixes(&self) -> usize {
        self.prefixes
    }

    /// Takes words that were made of all prefixes; gives the old ones back.
    pub(crate) fn renew(&mut self, words: Words) -> Words {
        std::mem::replace(&mut self.words, words)
    }

    /// `false` if the topic begins with none of the prefixes.
    #[inline]
    pub(crate) fn lets_through(&self, topic: &[u8]) -> bool {
        self.is_open
            || self.tried.iter().any(|length| topic.get(..*length).is_some_and(|prefix| self.words.may_have(prefix)))
    }
}

/// Mixes bytes, eight at a time. Who chooses prefixes that fall together only makes the sieve coarser.
#[inline]
fn hash(bytes: &[u8]) -> u64 {
    const FACTOR: u64 = 0x9E37_79B9_7F4A_7C15;
    let mix = |state: u64, word: [u8; 8]| {
        let product = u128::from(state ^ u64::from_le_bytes(word)) * u128::from(FACTOR);
        #[allow(clippy::cast_possible_truncation)] // both halves are used
        let folded = product as u64 ^ (product >> 64) as u64;
        folded
    };
    let state = bytes
        .chunks_exact(8)
        .fold(FACTOR ^ bytes.len() as u64, |state, word| mix(state, word.try_into().unwrap_or_default()));
    let last = bytes.last_chunk().copied().unwrap_or_else(|| {
        let mut few = [0; 8];
        few[..bytes.len()].copy_from_slice(bytes);
        few
    });
    // Once more than there are bytes, so that the last ones reach all bits as well.
    mix(mix(state, last), [0; 8])
}

#[cfg(test)]
mod tests {
    use proptest::collection::{btree_set, vec};
    use proptest::prelude::*;

    use super::*;

    fn sieve(prefixes: &[Vec<u8>]) -> Sieve {
        let mut sieve = Sieve::default();
        for (index, prefix) in prefixes.iter().enumerate() {
            if sieve.add(Mark::of(prefix)) {
                let marks = prefixes[..=index].iter().map(|prefix| Mark::of(prefix));
                sieve.renew(Words::new(index, marks));
            }
        }
        sieve
    }

    fn numbered(count: usize, word: &str) -> Vec<Vec<u8>> {
        (0..count).map(|number| format!("{word}/{number:010}").into_bytes()).collect()
    }

    fn share_let_through(sieve: &Sieve, topics: &[Vec<u8>]) -> f64 {
        let count = topics.iter().filter(|topic| sieve.lets_through(topic)).count();
        f64::from(u32::try_from(count).unwrap()) / f64::from(u32::try_from(topics.len()).unwrap())
    }

    proptest! {
        /// What begins with a prefix gets through, whatever was added and taken out before.
        #[test]
        fn nothing_that_matches_is_held_back(
            shortest in 0..=1_usize,
            prefixes in btree_set(vec(0_u8..4, 1..=LENGTHS), 1..300),
            steps in vec((any::<prop::sample::Index>(), any::<bool>()), 0..400),
            tail in vec(any::<u8>(), 0..20),
        ) {
            let (mut out, mut left): (Vec<_>, Vec<Vec<u8>>) = (prefixes.into_iter().collect(), Vec::new());
            if shortest == 0 {
                out.push(Vec::new());
            }
            let mut sieve = Sieve::default();
            for (index, adds) in steps {
                let from = if adds { &mut out } else { &mut left };
                if from.is_empty() {
                    continue;
                }
                let prefix = from.swap_remove(index.index(from.len()));
                let mark = Mark::of(&prefix);
                (if adds { &mut left } else { &mut out }).push(prefix);
                if if adds { sieve.add(mark) } else { sieve.remove(mark) } {
                    let words = Words::new(left.len(), left.iter().map(|prefix| Mark::of(prefix)));
                    sieve.renew(words);
                }
            }
            prop_assert_eq!(sieve.prefixes(), left.len());
            prop_assert!(sieve.lets_through(b"nothing like it") || !left.contains(&Vec::new()));
            for prefix in left {
                prop_assert!(sieve.lets_through(&[&prefix[..], &tail].concat()));
            }
        }
    }

    #[test]
    fn hardly_anything_else_gets_through() {
        for count in [1, 64, 1_000, 30_000] {
            let sieve = sieve(&numbered(count, "topic"));
            let share = share_let_through(&sieve, &numbered(20_000, "other"));
            assert!(share < 0.02, "{share} with {count} prefixes");
        }
    }

    #[test]
    fn many_lengths_are_left_to_the_tree() {
        let mut prefixes = numbered(1_000, "topic");
        prefixes.extend((1..=LENGTHS).map(|length| vec![0; length]));
        let mut many = sieve(&prefixes);
        assert!(many.lets_through(b"nothing like it"));
        many.remove(Mark::of(&[0]));
        assert!(!many.lets_through(b"nothing like it"), "the lengths are few again");
    }

    #[test]
    fn without_prefixes_nothing_gets_through_and_with_the_empty_one_everything() {
        let mut sieve = Sieve::default();
        assert!(!sieve.lets_through(b"") && !sieve.lets_through(b"topic"));
        sieve.add(Mark::of(b""));
        assert!(sieve.lets_through(b"") && sieve.lets_through(b"topic"));
        sieve.remove(Mark::of(b""));
        assert!(!sieve.lets_through(b"") && !sieve.lets_through(b"topic"));
    }

    #[test]
    fn long_prefixes_are_told_apart_by_their_beginnings() {
        let long = |number: usize| [format!("{number:010}").into_bytes(), vec![b'x'; 40 * number + LONGEST]].concat();
        let sieve = sieve(&(0..64).map(long).collect::<Vec<_>>());
        assert_eq!(sieve.tried, [LONGEST]);
        assert!((0..64).all(|number| sieve.lets_through(&long(number))));
        assert!(!sieve.lets_through(&long(64)));
    }

    #[test]
    fn prefixes_that_come_and_go_do_not_wear_it_out() {
        let mut sieve = sieve(&numbered(1_000, "topic"));
        let live: Vec<_> = numbered(1_000, "topic");
        let (mut fills, passing) = (0, numbered(50_000, "passing"));
        for prefix in &passing {
            let mark = Mark::of(prefix);
            if sieve.add(mark) {
                let marks = live.iter().map(|prefix| Mark::of(prefix)).chain([mark]);
                sieve.renew(Words::new(1_000, marks));
                fills += 1;
            }
            if sieve.remove(mark) {
                sieve.renew(Words::new(1_000, live.iter().map(|prefix| Mark::of(prefix))));
                fills += 1;
            }
        }
        assert!((5..120).contains(&fills), "{fills}");
        assert!(share_let_through(&sieve, &numbered(20_000, "other")) < 0.02);
    }

    #[test]
    fn the_last_prefix_takes_the_memory_with_it() {
        let prefixes = numbered(1_000, "topic");
        let mut sieve = sieve(&prefixes);
        for prefix in &prefixes {
            sieve.remove(Mark::of(prefix));
        }
        assert_eq!(sieve.words.words.capacity(), 0);
    }
}
