//! The budget for messages that have not come whole, over all peers.
//!
//! Within it every peer is read. Beyond it a peer in the middle of a message waits, and only one, the lead, is read on, so that
//! there is always a message that can be finished: what the others hold is at most what they held when the budget was reached.

use std::collections::VecDeque;
use std::time::Duration;

use tokio::time::Instant;

use crate::engine::pattern::Pattern;
use crate::engine::state::Engine;
use crate::engine::vigil::Duty;
use crate::error::ProtocolError;
use crate::monitor::PeerId;

/// A peer that holds less of a message never waits, and beyond the budget it is read only so much at a time.
const LITTLE: usize = 4 * 1024;

/// How long the lead may take to finish its message while others wait for that.
const PATIENCE: Duration = Duration::from_secs(10);

#[derive(Debug)]
struct Lead {
    slot: usize,
    id: PeerId,
    /// Until when it must have finished; there is none while nobody waits.
    deadline: Option<Instant>,
}

/// What all peers together hold of messages that are not whole.
#[derive(Debug, Default)]
pub(super) struct Unfinished {
    bytes: usize,
    lead: Option<Lead>,
    /// Peers that have something to be read, in the order in which they came to wait.
    line: VecDeque<(usize, PeerId)>,
}

impl<P: Pattern> Engine<P> {
    /// Whether the budget is used up.
    #[inline]
    pub(super) fn is_beyond_budget(&self) -> bool {
        self.unfinished.bytes >= self.shared.options.max_unfinished_bytes
    }

    /// How much of a peer may be read at once.
    #[inline]
    pub(super) fn readable_amount(&mut self, slot: usize) -> usize {
        if !self.is_beyond_budget() {
            return usize::MAX;
        }
        match (self.peers.get_mut(slot), &self.unfinished.lead) {
            (Some(peer), _) if peer.unfinished < LITTLE => LITTLE,
            // Whether there is anything, or the end.
            (Some(peer), Some(lead)) if lead.id != peer.about.id => 1,
            _ => usize::MAX,
        }
    }

    /// Whether a peer of which something has been read must wait with the rest of its message; it is made readable when its
    /// turn comes. `was_beyond` the budget: when there is no lead it becomes the lead, for it does go on.
    #[inline]
    pub(super) fn must_wait(&mut self, slot: usize, was_beyond: bool) -> bool {
        self.is_beyond_budget() && self.is_to_wait(slot, was_beyond)
    }

    fn is_to_wait(&mut self, slot: usize, was_beyond: bool) -> bool {
        if !was_beyond && self.unfinished.lead.is_none() {
            return false;
        }
        let Some(peer) = self.peers.get_mut(slot).filter(|peer| peer.unfinished >= LITTLE) else {
            return false;
        };
        let id = peer.about.id;
        let lead = self.unfinished.lead.get_or_insert(Lead { slot, id, deadline: None });
        if lead.id == id {
            return false;
        }
        if !std::mem::replace(&mut peer.in_line, true) {
            self.unfinished.line.push_back((slot, id));
        }
        if lead.deadline.is_none() {
            lead.deadline = Instant::now().checked_add(PATIENCE);
            self.duties.add(lead.deadline, lead.slot, lead.id, Duty::Finish);
        }
        true
    }

    /// Counts what a peer holds now that it has been read.
    #[inline]
    pub(super) fn note_unfinished(&mut self, slot: usize) {
        let Some(peer) = self.peers.get_mut(slot).filter(|peer| !peer.leaving) else {
            return;
        };
        let now = peer.held();
        if now == peer.unfinished && now < LITTLE {
            return;
        }
        self.change_unfinished(slot, now);
    }

    /// A peer goes, with all that it holds.
    pub(super) fn forget_unfinished(&mut self, slot: usize) {
        self.change_unfinished(slot, 0);
    }

    fn change_unfinished(&mut self, slot: usize, now: usize) {
        let Some(peer) = self.peers.get_mut(slot) else {
            return;
        };
        let before = std::mem::replace(&mut peer.unfinished, now);
        let id = peer.about.id;
        self.unfinished.bytes = self.unfinished.bytes - before + now;
        self.shared.counters.unfinished_bytes.set(self.unfinished.bytes);
        let is_within = !self.is_beyond_budget();
        if is_within || (now < LITTLE && self.unfinished.lead.as_ref().is_some_and(|lead| lead.id == id)) {
            self.unfinished.lead = None;
        }
        if is_within {
            while self.next_in_line() {}
        } else if self.unfinished.lead.is_none() {
            // Also when this one was the first in line, and there was nothing to be read of it.
            self.next_in_line();
        }
    }

    /// Lets the first one that waits go on; `false` if there is none.
    fn next_in_line(&mut self) -> bool {
        while let Some((slot, id)) = self.unfinished.line.pop_front() {
            if let Some(peer) = self.peers.get_mut(slot).filter(|peer| peer.about.id == id) {
                peer.in_line = false;
                self.make_readable(slot);
                return true;
            }
        }
        false
    }

    /// The lead's time is up, unless it is not the lead's any longer; says when to look again.
    pub(super) fn finish_due(&mut self, slot: usize, now: Instant) -> Option<Instant> {
        let lead = self.unfinished.lead.as_mut().filter(|lead| lead.slot == slot)?;
        if lead.deadline.is_some_and(|deadline| deadline > now) {
            return lead.deadline;
        }
        let is_paused = self.peers.get_mut(slot).is_some_and(|peer| peer.vigil.is_paused);
        if self.unfinished.line.is_empty() {
            lead.deadline = None;
            return None;
        }
        // It is us who do not read it.
        if is_paused {
            lead.deadline = now.checked_add(PATIENCE);
            return lead.deadline;
        }
        self.refuse(slot, ProtocolError::UnfinishedMessage);
        None
    }
}
