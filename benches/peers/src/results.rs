//! All runs of all cells.

use std::path::Path;

use anyhow::Result;

use crate::{cell::Cell, lineup::Peer, measure::Outcome};

/// What was measured, in the order of measuring.
#[derive(Debug, Default)]
pub(crate) struct Results {
    runs: Vec<(Cell, Peer, usize, Outcome)>,
    failures: Vec<(Cell, Peer, String)>,
}

impl Results {
    pub(crate) fn add(&mut self, cell: &Cell, peer: &Peer, run: usize, outcome: Outcome) {
        self.runs.push((*cell, *peer, run, outcome));
    }

    pub(crate) fn fail(&mut self, cell: &Cell, peer: &Peer, error: &anyhow::Error) {
        self.failures.push((*cell, *peer, format!("{error:#}")));
    }

    /// The cells, in order.
    pub(crate) fn cells(&self) -> Vec<Cell> {
        let mut cells = Vec::new();
        for (cell, ..) in &self.runs {
            if !cells.contains(cell) {
                cells.push(*cell);
            }
        }
        cells
    }

    /// A cell's runs, by peer, in order.
    pub(crate) fn of(&self, cell: &Cell) -> Vec<(Peer, Vec<Outcome>)> {
        let mut peers: Vec<(Peer, Vec<Outcome>)> = Vec::new();
        for (_, peer, _, outcome) in self.runs.iter().filter(|(of, ..)| of == cell) {
            match peers.iter_mut().find(|(known, _)| known == peer) {
                Some((_, outcomes)) => outcomes.push(*outcome),
                None => peers.push((*peer, vec![*outcome])),
            }
        }
        peers
    }

    /// A cell's failures.
    pub(crate) fn failures(&self, cell: &Cell) -> impl Iterator<Item = (Peer, &str)> {
        self.failures.iter().filter(move |(of, ..)| of == cell).map(|(_, peer, error)| (*peer, error.as_str()))
    }

    /// Writes one line per run.
    pub(crate) fn write_csv(&self, path: &Path) -> Result<()> {
        let mut csv = csv::WriterBuilder::new().has_headers(false).from_path(path)?;
        csv.write_record([
            "pattern",
            "transport",
            "size",
            "peer",
            "variant",
            "run",
            "messages",
            "seconds",
            "rate",
            "send_cpu_us",
            "receive_cpu_us",
            "send_peak_kib",
            "receive_peak_kib",
            "p50_us",
            "p99_us",
            "p999_us",
            "peer_kib",
            "idle_cpu_us_per_s",
            "arrived",
        ])?;
        for (cell, peer, run, outcome) in &self.runs {
            let place = (cell.pattern.to_string(), cell.transport.to_string(), cell.size);
            csv.serialize((place, peer.name, peer.variant, run, outcome))?;
        }
        Ok(csv.flush()?)
    }
}
