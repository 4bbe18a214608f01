//! Watching over peers: heartbeats, the peer's time to live, and signs of life of our own (RFC 37, "Heartbeating").
//!
//! Every byte that comes is a sign of life, not only a whole message: a long transfer is none the less alive. And only
//! a peer that could have answered is judged: not one that we do not read, nor one that has much to read.

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::time::Duration;

use tokio::time::Instant;

use crate::engine::pattern::Pattern;
use crate::engine::peer::Peer;
use crate::engine::peers::Peers;
use crate::engine::state::Engine;
use crate::monitor::{DisconnectReason, Event, PeerId};

/// A peer that has been sent so many messages, or bytes of them, since the last PING that it has answered may be busy with
/// them: its queue may be full, and then it need not read the PING behind them.
const MUCH_MESSAGES: u64 = 100;
const MUCH_BYTES: usize = 32 * 1024;

/// While we do not read a peer, because there is no room for its messages, it is told so often that we live, if it has ever
/// asked: its PINGs are behind what we do not read. One that has not asked may have gone meanwhile, leaving what it has sent
/// to its kernel, which throws that away when something comes for a socket that is closed.
const LIFE_INTERVAL: Duration = Duration::from_secs(1);

/// A peer that may be busy is judged all the same when it has been silent for so many timeouts, and for so long.
const PATIENCE_TIMEOUTS: u32 = 10;
const PATIENCE: Duration = Duration::from_secs(60);

/// More often than this no PING is sent.
const SHORTEST_INTERVAL: Duration = Duration::from_millis(1);

/// A peer that takes no bytes for so long is congested.
const CONGESTED_AFTER: Duration = Duration::from_secs(1);

/// What is due.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Duty {
    /// We send a PING.
    Ping,
    /// The peer has had the time to answer one.
    Answer,
    /// The peer's time to live is over.
    TimeToLive,
    /// We show that we live.
    Life,
    /// We look whether the peer has taken anything.
    Congestion,
    /// The peer has had the time to go on with a message that others wait for.
    Finish,
}

/// What is due for which peer, and when.
#[derive(Debug, Default)]
pub(super) struct Duties(BinaryHeap<Reverse<(Instant, usize, PeerId, Duty)>>);

impl Duties {
    pub(super) fn next(&self) -> Option<Instant> {
        self.0.peek().map(|Reverse((at, ..))| *at)
    }

    /// Throws out what is due for peers that have gone, when that may be most of it.
    fn tidy(&mut self, peers: &mut Peers) {
        if self.0.len() > 64 + 8 * peers.len() {
            self.0.retain(|Reverse((_, slot, id, _))| peers.get_mut(*slot).is_some_and(|peer| peer.about.id == *id));
        }
    }

    pub(super) fn add(&mut self, at: Option<Instant>, slot: usize, id: PeerId, duty: Duty) {
        // What is due later than time is counted is never due.
        if let Some(at) = at {
            self.0.push(Reverse((at, slot, id, duty)));
        }
    }
}

/// What is known of a peer's life.
#[derive(Debug, Default)]
pub(crate) struct Vigil {
    /// When the last byte came; only looked at for peers that are watched.
    heard: Option<Instant>,
    /// The PING whose answer is waited for: the first one that was sent since the one before it was answered.
    asked: Option<Asked>,
    /// How many PINGs have been sent. They are numbered from zero.
    asked_count: u32,
    /// The first PING that may be answered yet: those before have been, or were passed over.
    answerable_from: u32,
    /// An answer is waited for.
    awaits_answer: bool,
    /// What had been sent before the last PING that was answered, and so has been read.
    read: Sent,
    /// What the peer wants: to be given up after so much silence. A shorter time counts from the next look on.
    time_to_live: Option<Duration>,
    watches_time_to_live: bool,
    /// It has sent a PING.
    asks: bool,
    /// We are showing that we live.
    shows_life: bool,
    /// There is no room for its messages, so it is not read.
    pub(super) is_paused: bool,
    /// When it last took no more bytes; only known while somebody reads the monitor.
    blocked_since: Option<Instant>,
    /// It is looked after.
    watches_congestion: bool,
    /// It has been reported that it takes nothing.
    pub(super) is_congested: bool,
}

#[derive(Debug)]
struct Asked {
    number: u32,
    queued: Instant,
    /// When it was written: before, it cannot be answered.
    left: Option<Instant>,
    sent: Sent,
}

/// What a peer has been sent.
#[derive(Debug, Clone, Copy, Default)]
struct Sent {
    messages: u64,
    bytes: usize,
}

impl Vigil {
    /// Everything that waited to be sent between messages has been written, a PING perhaps.
    #[inline]
    pub(super) fn control_left(&mut self) {
        if let Some(asked) = self.asked.as_mut().filter(|asked| asked.left.is_none()) {
            asked.left = Some(Instant::now());
        }
    }

    /// The peer has answered a PING; `false` if that one, or a later one, has an answer already, or if it was never sent. A peer
    /// that was held up answers several at once, each in its turn: it may send as many answers as it was sent PINGs.
    pub(super) fn answered(&mut self, number: u32) -> bool {
        let unanswered = self.asked_count.wrapping_sub(self.answerable_from);
        if number.wrapping_sub(self.answerable_from) >= unanswered {
            return false;
        }
        self.answerable_from = number.wrapping_add(1);
        if let Some(asked) = self.asked.take_if(|asked| number.wrapping_sub(asked.number) < unanswered) {
            self.read = asked.sent;
        }
        true
    }
}

impl<P: Pattern> Engine<P> {
    /// A peer has finished the handshake: heartbeats begin.
    pub(super) fn watch(&mut self, slot: usize) {
        let interval = self.shared.options.heartbeat_interval;
        self.duties.tidy(&mut self.peers);
        if let Some(peer) = self.peers.get_mut(slot).filter(|peer| !interval.is_zero() && peer.connection.is_current())
        {
            self.duties.add(Instant::now().checked_add(interval), slot, peer.about.id, Duty::Ping);
        }
    }

    /// Something has come from a peer.
    #[inline]
    pub(super) fn heard(&mut self, slot: usize) {
        let sends = !self.shared.options.heartbeat_interval.is_zero();
        let Some(peer) = self.peers.get_mut(slot) else {
            return;
        };
        peer.vigil.is_paused = false;
        if sends || peer.vigil.time_to_live.is_some() {
            peer.vigil.heard = Some(Instant::now());
        }
    }

    /// A PING has come that wants us to give the peer up after so much silence; zero: it does not.
    pub(super) fn heard_ping(&mut self, slot: usize, time_to_live: Duration) {
        self.duties.tidy(&mut self.peers);
        let Some(peer) = self.peers.get_mut(slot) else {
            return;
        };
        peer.vigil.asks = true;
        peer.vigil.time_to_live = Some(time_to_live).filter(|time| !time.is_zero());
        if !peer.vigil.watches_time_to_live && peer.vigil.time_to_live.is_some() {
            let now = Instant::now();
            peer.vigil.heard = Some(now);
            peer.vigil.watches_time_to_live = true;
            self.duties.add(now.checked_add(time_to_live), slot, peer.about.id, Duty::TimeToLive);
        }
    }

    /// A peer is not read because there is no room for its messages.
    pub(super) fn paused(&mut self, slot: usize) {
        let Some(peer) = self.peers.get_mut(slot) else {
            return;
        };
        peer.vigil.is_paused = true;
        if !peer.vigil.shows_life && peer.vigil.asks {
            peer.vigil.shows_life = true;
            self.duties.add(Instant::now().checked_add(LIFE_INTERVAL), slot, peer.about.id, Duty::Life);
        }
    }

    /// A peer is read again, whether there is something to read or not: its silence counts from now on.
    pub(super) fn resumed(&mut self, slot: usize) {
        if let Some(peer) = self.peers.get_mut(slot).filter(|peer| peer.vigil.is_paused) {
            peer.vigil.is_paused = false;
            peer.vigil.heard = Some(Instant::now());
        }
    }

    /// A peer has been written to: it may have taken bytes, or take no more.
    pub(super) fn note_congestion(&mut self, slot: usize, progress: bool) {
        let Some(peer) = self.peers.get_mut(slot) else {
            return;
        };
        if progress && std::mem::take(&mut peer.vigil.is_congested) {
            self.shared.reporter.report(|| Event::Relieved { peer: peer.about.as_ref().clone() });
        }
        if !peer.is_blocked() {
            peer.vigil.blocked_since = None;
        } else if self.shared.reporter.has_readers() && (progress || peer.vigil.blocked_since.is_none()) {
            let now = Instant::now();
            peer.vigil.blocked_since = Some(now);
            if !std::mem::replace(&mut peer.vigil.watches_congestion, true) {
                self.duties.add(now.checked_add(CONGESTED_AFTER), slot, peer.about.id, Duty::Congestion);
            }
        }
    }

    /// Somebody has begun to read a monitor: peers that take no more are to be watched from now on.
    pub(super) fn watch_congestion(&mut self) {
        for slot in self.peers.slots() {
            self.note_congestion(slot, false);
        }
    }

    /// Does what is due.
    pub(super) fn do_duties(&mut self, now: Instant) {
        while let Some(Reverse((at, slot, id, duty))) = self.duties.0.peek().copied() {
            if at > now {
                return;
            }
            self.duties.0.pop();
            let known = |peer: &&mut Peer| peer.about.id == id && !peer.leaving;
            let Some(peer) = self.peers.get_mut(slot).filter(known) else {
                continue;
            };
            let options = &self.shared.options;
            let next = match duty {
                Duty::Ping => {
                    let vigil = &mut peer.vigil;
                    if peer.connection.ping(options.heartbeat_ttl, vigil.asked_count) {
                        let sent = Sent { messages: peer.counts.sent, bytes: peer.counts.bytes_sent };
                        vigil.asked.get_or_insert(Asked { number: vigil.asked_count, queued: now, left: None, sent });
                        vigil.asked_count = vigil.asked_count.wrapping_add(1);
                    }
                    if !std::mem::replace(&mut vigil.awaits_answer, true) {
                        self.duties.add(now.checked_add(options.heartbeat_timeout()), slot, id, Duty::Answer);
                    }
                    now.checked_add(options.heartbeat_interval.max(SHORTEST_INTERVAL))
                }
                Duty::Answer => match peer.vigil.asked.as_ref() {
                    None => {
                        peer.vigil.awaits_answer = false;
                        None
                    }
                    Some(asked) => {
                        let timeout = options.heartbeat_timeout().max(SHORTEST_INTERVAL);
                        let since = peer.vigil.heard.unwrap_or(asked.queued).max(asked.left.unwrap_or(asked.queued));
                        let silent_for = now.duration_since(since);
                        let out_of_patience = silent_for >= PATIENCE.max(timeout.saturating_mul(PATIENCE_TIMEOUTS));
                        let could_answer = asked.left.is_some() && !may_be_busy(peer);
                        let is_judged = could_answer || (out_of_patience && !peer.vigil.is_paused);
                        if silent_for >= timeout && is_judged && !self.look_at(slot) {
                            self.end(slot, DisconnectReason::Silent);
                            continue;
                        }
                        since.checked_add(timeout).filter(|due| *due > now).or_else(|| now.checked_add(timeout))
                    }
                },
                Duty::TimeToLive => match peer.vigil.time_to_live {
                    None => {
                        peer.vigil.watches_time_to_live = false;
                        None
                    }
                    Some(time_to_live) => {
                        let due = peer.vigil.heard.and_then(|heard| heard.checked_add(time_to_live));
                        let is_judged = !peer.vigil.is_paused;
                        if due.is_some_and(|due| due <= now) && is_judged && !self.look_at(slot) {
                            self.end(slot, DisconnectReason::Silent);
                            continue;
                        }
                        due.filter(|due| *due > now).or_else(|| now.checked_add(time_to_live))
                    }
                },
                Duty::Life if peer.vigil.is_paused => {
                    peer.connection.show_life();
                    now.checked_add(LIFE_INTERVAL)
                }
                Duty::Life => {
                    peer.vigil.shows_life = false;
                    None
                }
                Duty::Finish => self.look_at_lead(slot, now),
                Duty::Congestion => {
                    let due = peer.vigil.blocked_since.and_then(|since| since.checked_add(CONGESTED_AFTER));
                    if due.is_some_and(|due| due <= now) {
                        peer.vigil.is_congested = true;
                        tracing::debug!(parent: &peer.span, "the peer takes nothing");
                        self.shared.reporter.report(|| Event::Congested { peer: peer.about.as_ref().clone() });
                    }
                    let next = due.filter(|due| *due > now);
                    peer.vigil.watches_congestion = next.is_some();
                    next
                }
            };
            if self.peers.get_mut(slot).is_some_and(|peer| peer.about.id == id) {
                self.duties.add(next, slot, id, duty);
            }
            self.peers.give(slot, |_, _| ());
            self.write_peer(slot);
        }
    }
}

/// Whether a peer that has not answered may be slow rather than gone.
fn may_be_busy(peer: &Peer) -> bool {
    peer.vigil.is_paused
        || peer.is_blocked()
        || peer.counts.sent - peer.vigil.read.messages >= MUCH_MESSAGES
        || peer.counts.bytes_sent - peer.vigil.read.bytes >= MUCH_BYTES
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_ping_has_one_answer() {
        let mut vigil = Vigil { asked_count: 5, ..Vigil::default() };
        assert!(!vigil.answered(5), "has not been sent");
        assert!(vigil.answered(0) && vigil.answered(1));
        assert!(!vigil.answered(1), "has been answered");
        assert!(vigil.answered(4));
        assert!(!vigil.answered(3), "is older than one that has been answered");
        assert!(!vigil.answered(u32::MAX));
    }

    #[test]
    fn a_late_answer_says_nothing_of_a_later_ping() {
        let asked = |number| {
            let sent = Sent { messages: 7, bytes: 70 };
            Some(Asked { number, queued: Instant::now(), left: None, sent })
        };
        let mut vigil = Vigil { asked_count: 3, answerable_from: 1, asked: asked(2), ..Vigil::default() };
        assert!(vigil.answered(1));
        assert!(vigil.asked.is_some() && vigil.read.messages == 0);
        assert!(vigil.answered(2));
        assert!(vigil.asked.is_none() && vigil.read.messages == 7);
    }

    #[test]
    fn numbers_begin_again_after_the_last() {
        let mut vigil = Vigil { asked_count: 1, answerable_from: u32::MAX, ..Vigil::default() };
        assert!(vigil.answered(u32::MAX) && vigil.answered(0) && !vigil.answered(1));
    }
}
