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

/// Less than this, in bytes that are read or written at once, needs no large buffer.
const MUCH: usize = 2 * 1024;

impl<P: Pattern> Engine<P> {
    /// Ends what has run out of time.
    pub(super) fn expire(&mut self) {
        self.plan_release();
        self.expire_due();
    }

    /// So many bytes have been read or written at once.
    pub(super) fn note_moved(&mut self, bytes: usize) {
        self.moved_much |= bytes >= MUCH;
    }

    /// Large buffers are in use: whether they still are is looked at later. A conversation of small messages needs none, and no
    /// timer: that would make each sleep and each waking of the runtime's thread dearer.
    pub(super) fn plan_release(&mut self) {
        if self.release_at.is_none() && self.moved_much {
            self.release_at = Some(Instant::now() + RELEASE_AFTER);
        }
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
            self.release_at = None;
            if !self.moved_much {
                self.slabs = Slabs::default();
                self.shared.outbound.release();
                self.peers.release();
            } else {
                self.release_at = Some(now + RELEASE_AFTER);
            }
            self.moved_much = false;
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
