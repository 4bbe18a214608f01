//! The budget for messages that have not come whole, over all peers.
//!
//! ```text
//!  up to half of it     every peer is read
//!  up to all of it      a peer in the middle of a message waits in line; one, the lead, is read until its message is whole or
//!                       nothing more of it is there
//!  beyond               the lead stays until its message is whole; if it does not go on it is closed
//! ```
//!
//! So there is always a message that can be finished, memory is bounded, and who does not go on keeps nobody out.

use std::collections::VecDeque;
use std::time::Duration;

use tokio::time::Instant;

use crate::engine::pattern::Pattern;
use crate::engine::peer::Peer;
use crate::engine::state::Engine;
use crate::engine::vigil::Duty;
use crate::error::ProtocolError;
use crate::monitor::PeerId;

/// A peer that holds less of a message never waits, and is read only so much at a time when there is a line.
const LITTLE: usize = 4 * 1024;

/// While others wait and the budget is used up, the lead must bring so many bytes in this time, or finish.
const PACE: Duration = Duration::from_secs(1);
const PACE_BYTES: u64 = 64 * 1024;

#[derive(Debug)]
struct Lead {
    slot: usize,
    id: PeerId,
    /// When it is looked at whether it goes on; not while nobody waits.
    deadline: Option<Instant>,
    /// What had come of it at the last look, in bytes.
    since: u64,
    /// How many messages had come of it before.
    messages: u64,
}

impl Lead {
    fn new(slot: usize, peer: &Peer) -> Self {
        let (since, messages) = (peer.counts.bytes_received, peer.counts.received);
        Self { slot, id: peer.about.id, deadline: None, since, messages }
    }
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
    /// Whether peers must wait in line.
    #[inline]
    pub(super) fn is_tight(&self) -> bool {
        self.unfinished.bytes >= self.shared.options.max_unfinished_bytes / 2
    }

    /// Whether the budget is used up.
    fn is_used_up(&self) -> bool {
        self.unfinished.bytes >= self.shared.options.max_unfinished_bytes
    }

    /// How much of a peer may be read at once.
    #[inline]
    pub(super) fn readable_amount(&mut self, slot: usize) -> usize {
        if !self.is_tight() {
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
    /// turn comes. `was_tight` before: when there is no lead it becomes the lead, for it does go on.
    #[inline]
    pub(super) fn must_wait(&mut self, slot: usize, was_tight: bool) -> bool {
        self.is_tight() && self.is_to_wait(slot, was_tight)
    }

    fn is_to_wait(&mut self, slot: usize, was_tight: bool) -> bool {
        if !was_tight && self.unfinished.lead.is_none() {
            return false;
        }
        let Some(peer) = self.peers.get_mut(slot).filter(|peer| peer.unfinished >= LITTLE) else {
            return false;
        };
        let id = peer.about.id;
        let lead = self.unfinished.lead.get_or_insert(Lead::new(slot, peer));
        if lead.id == id {
            return false;
        }
        if !std::mem::replace(&mut peer.in_line, true) {
            self.unfinished.line.push_back((slot, id));
        }
        self.set_pace();
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
        let (id, messages) = (peer.about.id, peer.counts.received);
        self.unfinished.bytes = self.unfinished.bytes - before + now;
        self.shared.counters.unfinished_bytes.set(self.unfinished.bytes);
        let lead = self.unfinished.lead.as_ref().filter(|lead| lead.id == id);
        // Its message is whole, whether it has begun the next one or not.
        let has_led = lead.is_some_and(|lead| now < LITTLE || messages > lead.messages);
        if !self.is_tight() {
            self.unfinished.lead = None;
            while let Some(slot) = self.next_in_line() {
                self.make_readable(slot);
            }
        } else if has_led || self.unfinished.lead.is_none() {
            self.hand_over();
        }
    }

    /// Takes the first one out of the line.
    fn next_in_line(&mut self) -> Option<usize> {
        while let Some((slot, id)) = self.unfinished.line.pop_front() {
            if let Some(peer) = self.peers.get_mut(slot).filter(|peer| peer.about.id == id) {
                peer.in_line = false;
                return Some(slot);
            }
        }
        None
    }

    /// The first one in line is the lead from now on.
    fn hand_over(&mut self) {
        self.unfinished.lead = None;
        if let Some(slot) = self.next_in_line() {
            self.unfinished.lead = self.peers.get_mut(slot).map(|peer| Lead::new(slot, peer));
            if !self.unfinished.line.is_empty() {
                self.set_pace();
            }
            self.make_readable(slot);
        }
    }

    /// Somebody waits for the lead from now on.
    fn set_pace(&mut self) {
        if let Some(lead) = self.unfinished.lead.as_mut().filter(|lead| lead.deadline.is_none()) {
            lead.deadline = Instant::now().checked_add(PACE);
            self.duties.add(lead.deadline, lead.slot, lead.id, Duty::Finish);
        }
    }

    /// There is nothing to be read of a peer for now. If it is the lead and there is room for one more, somebody else is.
    pub(super) fn pass_lead(&mut self, slot: usize) {
        let leads = self.unfinished.lead.as_ref().is_some_and(|lead| lead.slot == slot);
        if leads && !self.is_used_up() {
            self.hand_over();
        }
    }

    /// Looks whether the lead goes on, if it is this one still; says when to look again.
    pub(super) fn look_at_lead(&mut self, slot: usize, now: Instant) -> Option<Instant> {
        let is_used_up = self.is_used_up();
        let lead = self.unfinished.lead.as_mut().filter(|lead| lead.slot == slot)?;
        if lead.deadline.is_some_and(|deadline| deadline > now) {
            return lead.deadline;
        }
        if self.unfinished.line.is_empty() {
            lead.deadline = None;
            return None;
        }
        let peer = self.peers.get_mut(slot)?;
        // That it is not read is our doing.
        let goes_on = peer.counts.bytes_received - lead.since >= PACE_BYTES || peer.vigil.is_paused;
        if goes_on || !is_used_up {
            lead.since = peer.counts.bytes_received;
            lead.deadline = now.checked_add(PACE);
            return lead.deadline;
        }
        self.refuse(slot, ProtocolError::UnfinishedMessage);
        None
    }
}
