//! What has come for the user and found no room in the inbound queue.

use std::collections::VecDeque;
use std::sync::Arc;

use crate::monitor::Peer;
use crate::options::HighWaterMark;
use crate::queue::inbound::Inbound;
use crate::queue::release_if_empty;
use crate::zmtp::run::Run;

/// Reports that nobody takes are given up beyond so many bytes of memory: an application that does not receive must not
/// be made to hold them, nor its peers to wait.
const REPORTS_MAXIMUM: usize = 16 * 1024 * 1024;

/// What a run takes in memory beside its bytes: its place in a list, and an allocation of its own if it was read alone.
const RUN_OVERHEAD: usize = size_of::<Run>() + 32;

/// Messages of one peer, in order.
#[derive(Debug, Default)]
pub(crate) struct Waiting {
    runs: VecDeque<Run>,
    /// What their bytes take in memory.
    bytes: usize,
}

impl Waiting {
    /// Adds messages; says what they cost.
    pub(crate) fn push(&mut self, run: Run) -> usize {
        let bytes = run.memory();
        self.bytes += bytes;
        self.runs.push_back(run);
        bytes + RUN_OVERHEAD
    }

    /// What it all takes in memory, in bytes.
    pub(crate) fn cost(&self) -> usize {
        self.bytes + self.runs.len() * RUN_OVERHEAD
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.runs.is_empty()
    }

    /// The size of the next message, over all frames, in bytes.
    pub(crate) fn next_size(&self) -> Option<usize> {
        self.runs.front().map(Run::next_size)
    }

    /// Offers the messages to the queue, a share of them; says by how much the cost is less.
    pub(crate) fn offer(&mut self, inbound: &Inbound, lane: usize, from: &Arc<Peer>, share: HighWaterMark) -> usize {
        let before = self.cost();
        self.bytes -= inbound.offer(lane, from, &mut self.runs, share);
        release_if_empty(&mut self.runs);
        before - self.cost()
    }
}

/// The same of an entry of the history.
const ENTRY_OVERHEAD: usize = size_of::<Entry>() + 32;

/// What is told in the order in which it came, whoever it is of.
#[derive(Debug, Default)]
pub(crate) struct History {
    entries: VecDeque<Entry>,
    /// What is being offered of the first entry.
    offered: VecDeque<Run>,
    /// What the reports among them take in memory, in bytes.
    reports: usize,
}

#[derive(Debug)]
struct Entry {
    slot: usize,
    from: Arc<Peer>,
    /// `None` while it is offered.
    run: Option<Run>,
    /// What it takes in memory, in bytes.
    cost: usize,
    is_report: bool,
}

/// What has been admitted of a peer's messages.
#[derive(Debug)]
pub(crate) struct Admitted {
    pub(crate) slot: usize,
    pub(crate) from: Arc<Peer>,
    /// In bytes of memory.
    pub(crate) cost: usize,
}

impl History {
    /// Adds a report; `false` if there are too many already.
    pub(crate) fn report(&mut self, slot: usize, from: &Arc<Peer>, run: Run) -> bool {
        if self.reports + run.memory() + ENTRY_OVERHEAD > REPORTS_MAXIMUM {
            return false;
        }
        self.reports += self.push(slot, from, run, true);
        true
    }

    /// Adds messages; says what they cost.
    pub(crate) fn message(&mut self, slot: usize, from: &Arc<Peer>, run: Run) -> usize {
        self.push(slot, from, run, false)
    }

    fn push(&mut self, slot: usize, from: &Arc<Peer>, run: Run, is_report: bool) -> usize {
        let cost = run.memory() + ENTRY_OVERHEAD;
        self.entries.push_back(Entry { slot, from: from.clone(), run: Some(run), cost, is_report });
        cost
    }

    /// Offers the first entry to the queue. `None` if there is none, or no room for all of it.
    pub(crate) fn admit(&mut self, inbound: &Inbound, share: HighWaterMark) -> Option<Admitted> {
        let entry = self.entries.front_mut()?;
        self.offered.extend(entry.run.take());
        inbound.offer(0, &entry.from, &mut self.offered, share);
        if !self.offered.is_empty() {
            return None;
        }
        let Entry { slot, from, cost, is_report, .. } = self.entries.pop_front()?;
        release_if_empty(&mut self.entries);
        if is_report {
            self.reports -= cost;
        }
        Some(Admitted { slot, from, cost: if is_report { 0 } else { cost } })
    }

    /// The size of the next message, over all frames, in bytes.
    pub(crate) fn next_size(&self) -> Option<usize> {
        let first = self.entries.front().and_then(|entry| entry.run.as_ref());
        self.offered.front().or(first).map(Run::next_size)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ALL: HighWaterMark = HighWaterMark { messages: 0, bytes: 0 };

    #[test]
    fn tiny_runs_cost_what_they_take_and_leave_nothing_behind() {
        let inbound = Inbound::new(HighWaterMark { messages: 1, bytes: 0 }, false);
        let mut waiting = Waiting::default();
        let one = || Run::packed(bytes::Bytes::from_static(b"\0\x01x"), 1, 1);
        let costs: usize = (0..1_000).map(|_| waiting.push(one())).sum();
        assert_eq!(waiting.cost(), costs);
        assert!(costs >= 1_000 * (3 + size_of::<Run>()), "{costs}");
        let mut left = costs;
        while left > 0 {
            left -= waiting.offer(&inbound, 0, &Peer::for_tests(1), ALL);
            assert_eq!(waiting.cost(), left);
            inbound.pop_into(&mut crate::Message::default(), || ()).unwrap();
        }
        assert!(waiting.runs.capacity() <= 16);
    }

    #[test]
    fn the_cost_of_a_run_that_is_admitted_in_part_adds_up() {
        let inbound = Inbound::new(HighWaterMark { messages: 1, bytes: 0 }, false);
        let mut waiting = Waiting::default();
        let mut left = waiting.push(Run::packed(bytes::Bytes::from_static(b"\0\x01x\0\x02yz\0\x01x"), 3, 4));
        for _ in 0..3 {
            left -= waiting.offer(&inbound, 0, &Peer::for_tests(1), ALL);
            assert_eq!(waiting.cost(), left);
            inbound.pop_into(&mut crate::Message::default(), || ()).unwrap();
        }
        assert_eq!(left, 0);
    }

    #[test]
    fn a_history_keeps_the_order_over_all_peers_and_messages_cost_their_peer() {
        let inbound = Inbound::new(ALL, false);
        let mut history = History::default();
        assert!(history.report(3, &Peer::for_tests(1), Run::whole("a".into())));
        history.message(1, &Peer::for_tests(2), Run::whole("b".into()));
        assert!(history.report(3, &Peer::for_tests(1), Run::whole("c".into())));
        let costs: Vec<_> = std::iter::from_fn(|| history.admit(&inbound, ALL)).map(|admitted| admitted.cost).collect();
        assert_eq!((costs[0], costs[2]), (0, 0));
        assert!(costs[1] > 0);
        for expected in ["a", "b", "c"] {
            let mut slot = crate::Message::default();
            inbound.pop_into(&mut slot, || ()).unwrap();
            assert_eq!(slot, expected.into());
        }
        assert_eq!(history.reports, 0);
    }

    #[test]
    fn reports_that_nobody_takes_have_an_end() {
        let inbound = Inbound::new(HighWaterMark { messages: 1, bytes: 0 }, false);
        let mut history = History::default();
        let taken =
            (0..1_000_000).take_while(|_| history.report(0, &Peer::for_tests(1), Run::whole("topic".into()))).count();
        assert!((10_000..500_000).contains(&taken), "{taken}");
        assert!(history.admit(&inbound, ALL).is_some());
        assert!(history.admit(&inbound, ALL).is_none());
        assert!(history.report(0, &Peer::for_tests(1), Run::whole("topic".into())));
    }
}
