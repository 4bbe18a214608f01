//! Round robin over the peers that have room.

use std::collections::VecDeque;

/// Slots that take turns. One without room is taken out, and joins again at the end.
#[derive(Debug, Default)]
pub(crate) struct RoundRobin {
    turns: VecDeque<usize>,
}

impl RoundRobin {
    /// Adds a slot at the end, unless it is there.
    pub(crate) fn join(&mut self, slot: usize) {
        if !self.turns.contains(&slot) {
            self.turns.push_back(slot);
        }
    }

    /// Takes a slot out.
    pub(crate) fn leave(&mut self, slot: usize) {
        self.turns.retain(|other| *other != slot);
    }

    /// Who has the turn after so many others.
    #[inline]
    pub(crate) fn after(&self, turns: usize) -> Option<usize> {
        self.turns.get(turns).copied()
    }

    /// So many slots have had their turns.
    pub(crate) fn advance(&mut self, turns: usize) {
        if !self.turns.is_empty() {
            self.turns.rotate_left(turns % self.turns.len());
        }
    }

    /// The only slot, if there is just one.
    #[inline]
    pub(crate) fn only(&self) -> Option<usize> {
        if self.turns.len() == 1 { self.after(0) } else { None }
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.turns.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn deal(ring: &mut RoundRobin, count: usize) -> Vec<usize> {
        let mut order = Vec::new();
        for _ in 0..count {
            order.extend(ring.after(0));
            ring.advance(1);
        }
        order
    }

    #[test]
    fn slots_take_turns_in_the_order_in_which_they_joined() {
        let mut ring = RoundRobin::default();
        [4, 2, 9, 2].into_iter().for_each(|slot| ring.join(slot));
        assert_eq!(deal(&mut ring, 7), [4, 2, 9, 4, 2, 9, 4]);
    }

    #[test]
    fn a_slot_that_left_is_skipped_and_joins_again_at_the_end() {
        let mut ring = RoundRobin::default();
        (0..3).for_each(|slot| ring.join(slot));
        deal(&mut ring, 1);
        ring.leave(1);
        assert_eq!(deal(&mut ring, 3), [2, 0, 2]);
        ring.join(1);
        assert_eq!(deal(&mut ring, 3), [0, 2, 1]);
    }

    #[test]
    fn nobody_has_a_turn_when_all_have_left() {
        let mut ring = RoundRobin::default();
        ring.join(1);
        assert_eq!(ring.only(), Some(1));
        ring.leave(1);
        ring.advance(1);
        assert_eq!((ring.after(0), ring.only(), ring.is_empty()), (None, None, true));
    }
}
