//! All runs of all cells: those of this session of the benchmark, and those of earlier ones that it has not repeated.

use std::{fs, path::Path};

use anyhow::{Context, Result, ensure};
use csv::StringRecord;

use crate::{
    cell::{self, Cell},
    lineup::{self, Peer},
    measure::Outcome,
};

/// The columns before the figures.
const PLACE: [&str; 9] = ["pattern", "transport", "size", "peer", "variant", "run", "started", "commit", "error"];

/// The figures: the fields of an [`Outcome`].
const FIGURES: [&str; 13] = [
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
];

/// One use of the benchmark: when it was started, and the version of sinew that it measured.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Session {
    /// Like `2026-11-25T04:41Z`.
    pub(crate) started: String,
    pub(crate) commit: String,
}

/// What a peer did in a cell: all of it in one session.
#[derive(Debug, Clone)]
pub(crate) struct Entry {
    pub(crate) cell: Cell,
    pub(crate) peer: Peer,
    pub(crate) session: Session,
    /// The runs that went well, in order.
    pub(crate) runs: Vec<Outcome>,
    /// Why there are no more.
    pub(crate) error: Option<String>,
}

impl Entry {
    pub(crate) fn new(cell: &Cell, peer: &Peer, session: &Session) -> Self {
        Self { cell: *cell, peer: *peer, session: session.clone(), runs: Vec::new(), error: None }
    }

    pub(crate) fn fail(&mut self, error: &anyhow::Error) {
        // One line, as it goes into a table.
        self.error = Some(format!("{error:#}").replace('\n', " "));
    }
}

/// What was measured: one entry for a peer in a cell, in the order of cells and peers.
#[derive(Debug, Default)]
pub(crate) struct Results {
    entries: Vec<Entry>,
}

impl Results {
    /// Reads what [`Results::write`] has written; nothing is there at first.
    pub(crate) fn read(path: &Path) -> Result<Self> {
        let mut results = Self::default();
        if !path.exists() {
            return Ok(results);
        }
        let mut csv = csv::Reader::from_path(path).with_context(|| format!("reading {}", path.display()))?;
        let head = csv.headers()?;
        ensure!(
            head.iter().eq(PLACE.into_iter().chain(FIGURES)),
            "{} has other columns than this version writes; --fresh begins anew",
            path.display()
        );
        let cells = cell::all(crate::Extent::Full);
        let mut forgotten = 0;
        for record in csv.records() {
            let record = record?;
            match entry(&record, &cells).with_context(|| format!("in {}: {record:?}", path.display()))? {
                Some(entry) => results.extend(entry),
                None => forgotten += 1,
            }
        }
        if forgotten > 0 {
            eprintln!("{forgotten} rows are left out: their cell or peer is no longer there.");
        }
        results.sort();
        Ok(results)
    }

    /// Takes what was measured, instead of what these peers did in these cells before.
    pub(crate) fn merge(&mut self, fresh: Vec<Entry>) {
        self.entries.retain(|old| !fresh.iter().any(|new| (new.cell, new.peer) == (old.cell, old.peer)));
        self.entries.extend(fresh);
        self.sort();
    }

    /// The cells, in order.
    pub(crate) fn cells(&self) -> Vec<Cell> {
        let mut cells: Vec<Cell> = self.entries.iter().map(|entry| entry.cell).collect();
        cells.dedup();
        cells
    }

    /// A cell's entries, in order.
    pub(crate) fn of<'a>(&'a self, cell: &'a Cell) -> impl Iterator<Item = &'a Entry> {
        self.entries.iter().filter(move |entry| entry.cell == *cell)
    }

    /// Everything's sessions, in order.
    pub(crate) fn sessions(&self) -> Vec<Session> {
        let mut sessions: Vec<Session> = self.entries.iter().map(|entry| entry.session.clone()).collect();
        sessions.sort();
        sessions.dedup();
        sessions
    }

    /// Writes one line per run, and one per failure; in one step, so that a reader never sees half of it.
    pub(crate) fn write(&self, path: &Path) -> Result<()> {
        let beside = path.with_extension("csv.new");
        let mut csv = csv::WriterBuilder::new().has_headers(false).from_path(&beside)?;
        csv.write_record(PLACE.into_iter().chain(FIGURES))?;
        for entry in &self.entries {
            let Entry { cell, peer, session, .. } = entry;
            let place = (cell.pattern.to_string(), cell.transport.to_string(), cell.size, peer.name, peer.variant);
            for (run, outcome) in entry.runs.iter().enumerate() {
                csv.serialize((&place, run, &session.started, &session.commit, "", outcome))?;
            }
            if let Some(error) = &entry.error {
                csv.serialize((&place, "", &session.started, &session.commit, error, [""; FIGURES.len()]))?;
            }
        }
        csv.flush()?;
        Ok(fs::rename(&beside, path)?)
    }

    /// Adds the row of one run to the rows before it.
    fn extend(&mut self, row: Entry) {
        match self.entries.iter_mut().find(|entry| (entry.cell, entry.peer) == (row.cell, row.peer)) {
            Some(entry) => {
                entry.runs.extend(row.runs);
                entry.error = row.error.or(entry.error.take());
            }
            None => self.entries.push(row),
        }
    }

    fn sort(&mut self) {
        let cells = cell::all(crate::Extent::Full);
        let place = |entry: &Entry| cells.iter().position(|cell| *cell == entry.cell);
        self.entries.sort_by_key(|entry| (place(entry), entry.peer.place()));
    }
}

/// The entry that a row is, or a part of; nothing if its cell or its peer is unknown.
fn entry(record: &StringRecord, cells: &[Cell]) -> Result<Option<Entry>> {
    let texts: Vec<&str> = record.iter().collect();
    let (place, figures) = texts.split_at(PLACE.len());
    let &[pattern, transport, size, peer, variant, _, started, commit, error] = place else {
        unreachable!("the place has as many columns as its head");
    };
    let cell = cells.iter().find(|cell| cell.is_named(pattern, transport, size));
    let (Some(cell), Some(peer)) = (cell, lineup::find(peer, variant)) else {
        return Ok(None);
    };
    let session = Session { started: started.to_owned(), commit: commit.to_owned() };
    let mut entry = Entry::new(cell, &peer, &session);
    if error.is_empty() {
        entry.runs.push(StringRecord::from(figures).deserialize(None)?);
    } else {
        entry.error = Some(error.to_owned());
    }
    Ok(Some(entry))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Extent;

    fn session(started: &str) -> Session {
        Session { started: started.to_owned(), commit: "0123abc".to_owned() }
    }

    fn measured(cell: &Cell, peer: (&str, &str), started: &str, rates: &[f64]) -> Entry {
        let peer = lineup::find(peer.0, peer.1).expect("a peer of the line-up");
        let runs = rates.iter().map(|&rate| Outcome { rate, p50_us: Some(2.5), ..Outcome::default() }).collect();
        Entry { runs, ..Entry::new(cell, &peer, &session(started)) }
    }

    fn rates(results: &Results, cell: &Cell) -> Vec<(String, Vec<f64>)> {
        results.of(cell).map(|entry| (entry.peer.label(), entry.runs.iter().map(|run| run.rate).collect())).collect()
    }

    #[test]
    fn what_is_measured_again_replaces_what_was_there_and_nothing_else() {
        let cells = cell::all(Extent::Full);
        let mut results = Results::default();
        results.merge(vec![
            measured(&cells[1], ("omq", "default"), "1", &[1.0, 2.0]),
            measured(&cells[1], ("sinew", "current"), "1", &[3.0]),
            measured(&cells[0], ("omq", "default"), "1", &[4.0]),
        ]);
        results.merge(vec![measured(&cells[1], ("omq", "default"), "2", &[5.0])]);
        assert_eq!(results.cells(), cells[..2]);
        assert_eq!(rates(&results, &cells[0]), [("omq".to_owned(), vec![4.0])]);
        assert_eq!(
            rates(&results, &cells[1]),
            [("sinew/current".to_owned(), vec![3.0]), ("omq".to_owned(), vec![5.0])]
        );
        assert_eq!(results.sessions(), [session("1"), session("2")]);
    }

    #[test]
    fn what_is_written_is_read_again() {
        let cells = cell::all(Extent::Full);
        let mut results = Results::default();
        let mut failed = measured(&cells[0], ("omq", "default"), "1", &[1.5]);
        failed.fail(&anyhow::anyhow!("it took too long, \"again\"\nand again"));
        results.merge(vec![failed, measured(&cells[0], ("sinew", "current"), "2", &[2.5, 3.5])]);
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("results.csv");
        results.write(&path).expect("writing");
        let read = Results::read(&path).expect("reading");
        assert_eq!(rates(&read, &cells[0]), rates(&results, &cells[0]));
        assert_eq!(read.sessions(), results.sessions());
        let errors: Vec<_> = read.of(&cells[0]).map(|entry| entry.error.as_deref()).collect();
        assert_eq!(errors, [None, Some("it took too long, \"again\" and again")]);
        let trips: Vec<_> = read.of(&cells[0]).flat_map(|entry| &entry.runs).map(|run| run.p50_us).collect();
        assert_eq!(trips, [Some(2.5); 3]);
    }
}
