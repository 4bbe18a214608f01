//! Time: the step that looks at deadlines, and when the next one is.

use std::time::Duration;

use tokio::time::Instant;

use crate::engine::pattern::Pattern;
use crate::engine::slabs::Slabs;
use crate::engine::state::Engine;
use crate::error::ProtocolError;
use crate::monitor::DisconnectReason;

/// A socket that has not needed its large buffers for this long gives them back.
const RELEASE_AFTER: Duration = Duration::from_secs(1);

impl<P: Pattern> Engine<P> {
    /// Ends what has run out of time.
    pub(super) fn expire(&mut self) {
        self.plan_release();
        self.expire_due();
    }

    /// Large buffers are kept: whether they are of use is looked at later. A conversation of small messages needs none, and no
    /// timer: that would make each sleep and each waking of the runtime's thread dearer.
    pub(super) fn plan_release(&mut self) {
        if self.release_at.is_none() && (self.keeps_much || self.slabs.is_large()) {
            self.release_at = Some(Instant::now() + RELEASE_AFTER);
        }
    }

    /// Gives back what an idle socket should not hold.
    fn release(&mut self) {
        for slot in self.peers.slots() {
            // One that is not read now may hold a buffer that it was read into.
            if self.peers.get_mut(slot).is_some_and(|peer| peer.give_back_slab(&mut self.slabs)) {
                self.note_unfinished(slot);
            }
        }
        self.slabs = Slabs::default();
        self.shared.outbound.release();
        self.peers.release();
        self.keeps_much = false;
    }

    fn expire_due(&mut self) {
        let is_watching = self.duties.next().is_some();
        if self.handshakes.is_empty() && self.leaving.is_empty() && self.release_at.is_none() && !is_watching {
            return;
        }
        let now = Instant::now();
        self.do_duties(now);
        while let Some(&(deadline, slot, id)) = self.leaving.front() {
            let pending = self.peers.get_mut(slot).is_some_and(|peer| peer.about.id == id);
            if pending && deadline > now {
                break;
            }
            self.leaving.pop_front();
            if pending {
                self.end(slot, DisconnectReason::Local);
            }
        }
        while let Some(&(deadline, slot, id)) = self.handshakes.front() {
            let pending =
                self.peers.get_mut(slot).is_some_and(|peer| peer.about.id == id && !peer.connection.is_ready());
            if pending && deadline > now {
                break;
            }
            self.handshakes.pop_front();
            if pending {
                self.refuse(slot, ProtocolError::HandshakeTimeout);
            }
        }
        if self.release_at.is_some_and(|at| at <= now) {
            let needed = std::mem::take(&mut self.needs_much) | self.slabs.take_needed();
            self.release_at = needed.then_some(now + RELEASE_AFTER);
            if !needed {
                self.release();
            }
        }
    }

    /// When the next deadline is.
    pub(super) fn deadline(&self, is_closed: bool) -> Option<Instant> {
        let handshake = self.handshakes.front().map(|(deadline, ..)| *deadline);
        let linger = self.closing.and_then(|closing| closing.deadline).filter(|_| !is_closed);
        let leaving = self.leaving.front().map(|(deadline, ..)| *deadline);
        let duty = self.duties.next();
        handshake.into_iter().chain(leaving).chain(linger).chain(duty).chain(self.release_at).min()
    }
}
