//! Medians with ranges, and the tables of them.

use crate::{
    cell::{Cell, Pattern},
    measure::Outcome,
    results::Results,
};

/// The middle, the smallest and the largest of some values.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Spread {
    pub(crate) median: f64,
    pub(crate) least: f64,
    pub(crate) most: f64,
}

impl Spread {
    pub(crate) fn of(outcomes: &[Outcome], value: impl Fn(&Outcome) -> Option<f64>) -> Option<Self> {
        let mut values: Vec<f64> = outcomes.iter().filter_map(value).collect();
        values.sort_unstable_by(f64::total_cmp);
        let (least, most) = (*values.first()?, *values.last()?);
        let middle = values.len() / 2;
        let median = if values.len() % 2 == 1 { values[middle] } else { (values[middle - 1] + values[middle]) / 2.0 };
        Some(Self { median, least, most })
    }
}

/// What is read off a run.
type Value = fn(&Outcome) -> Option<f64>;

/// What decides a cell, and whether more of it is better.
pub(crate) fn score(cell: &Cell) -> (&'static str, bool, Value) {
    match cell.pattern {
        Pattern::Pipeline { .. } | Pattern::Busy { .. } => ("messages/s", true, |outcome| Some(outcome.rate)),
        Pattern::PubSub { .. } => ("delivered/s", true, |outcome| Some(outcome.rate)),
        Pattern::Match { .. } => ("published/s", true, |outcome| Some(outcome.rate)),
        Pattern::PingPong { .. } => ("round trip p50, µs", false, |outcome| outcome.p50_us),
        Pattern::Idle { .. } => ("KiB/peer", false, |outcome| outcome.peer_kib),
    }
}

/// A column's head and what it shows.
type Column = (&'static str, Value);

const SEND_CPU: Column = ("CPU µs/msg send", |outcome| outcome.send_cpu_us);
const RECEIVE_CPU: Column = ("recv", |outcome| outcome.receive_cpu_us);
const SEND_PEAK: Column = ("peak MiB send", |outcome| outcome.send_peak_kib.map(|kib| kib as f64 / 1024.0));
const RECEIVE_PEAK: Column = ("recv", |outcome| outcome.receive_peak_kib.map(|kib| kib as f64 / 1024.0));
const ARRIVED: Column = ("% arrived", |outcome| outcome.arrived.map(|part| part * 100.0));

/// What else is told about a cell.
fn details(cell: &Cell) -> &'static [Column] {
    match cell.pattern {
        Pattern::Pipeline { .. } | Pattern::Busy { .. } => &[SEND_CPU, RECEIVE_CPU, SEND_PEAK, RECEIVE_PEAK],
        Pattern::PubSub { lossy: false, .. } => &[SEND_CPU, RECEIVE_CPU, SEND_PEAK, RECEIVE_PEAK],
        Pattern::PubSub { lossy: true, .. } => &[SEND_CPU, RECEIVE_CPU, SEND_PEAK, RECEIVE_PEAK, ARRIVED],
        Pattern::Match { .. } => {
            &[("ns/msg", |outcome| Some(1e9 / outcome.rate)), SEND_CPU, SEND_PEAK, RECEIVE_PEAK, ARRIVED]
        }
        Pattern::PingPong { .. } => &[
            ("p99", |outcome| outcome.p99_us),
            ("p99.9", |outcome| outcome.p999_us),
            ("CPU µs/trip ping", |outcome| outcome.send_cpu_us),
            ("pong", |outcome| outcome.receive_cpu_us),
        ],
        Pattern::Idle { .. } => &[
            ("connects/s", |outcome| Some(outcome.rate)),
            ("CPU µs/connect", |outcome| outcome.receive_cpu_us),
            ("idle CPU µs/s for all", |outcome| outcome.idle_cpu_us_per_s),
        ],
    }
}

/// A cell's table.
pub(crate) fn table(cell: &Cell, results: &Results) -> String {
    let (unit, _, value) = score(cell);
    let details = details(cell);
    let mut rows = vec![["peer", unit, "min–max"].map(str::to_owned).to_vec()];
    rows[0].extend(details.iter().map(|(head, _)| (*head).to_owned()));
    rows[0].extend(["measured", "version"].map(str::to_owned));
    for entry in results.of(cell) {
        let Some(spread) = Spread::of(&entry.runs, value) else {
            continue;
        };
        let range = format!("{}–{}", short(spread.least), short(spread.most));
        let mut row = vec![entry.peer.label(), short(spread.median), range];
        for (_, value) in details {
            row.push(Spread::of(&entry.runs, value).map_or_else(|| "–".to_owned(), |spread| short(spread.median)));
        }
        row.extend([entry.session.started.clone(), entry.session.commit.clone()]);
        rows.push(row);
    }
    let widths: Vec<usize> = (0..rows[0].len())
        .map(|column| rows.iter().map(|row| row[column].chars().count()).max().unwrap_or(0))
        .collect();
    let mut table = format!("\n{cell}\n");
    for row in &rows {
        table.push_str(&format!("  {:<width$}", row[0], width = widths[0]));
        for (text, width) in row.iter().zip(&widths).skip(1) {
            table.push_str(&format!("  {text:>width$}"));
        }
        table.push('\n');
    }
    for entry in results.of(cell) {
        if let Some(error) = &entry.error {
            table.push_str(&format!("  {}: {error}\n", entry.peer.label()));
        }
    }
    table.trim_end().to_owned()
}

/// Three digits and a unit.
pub(crate) fn short(value: f64) -> String {
    let (value, unit) = match value {
        value if value >= 1e6 => (value / 1e6, " M"),
        value if value >= 1e4 => (value / 1e3, " k"),
        value => (value, ""),
    };
    let decimals = match value {
        value if value >= 100.0 => 0,
        value if value >= 10.0 => 1,
        value if value >= 1.0 => 2,
        _ => 3,
    };
    format!("{value:.decimals$}{unit}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_spread_has_the_middle_and_both_ends() {
        let outcomes = [3.0, 1.0, 10.0, 2.0].map(|rate| Outcome { rate, ..Outcome::default() });
        let spread = Spread::of(&outcomes, |outcome| Some(outcome.rate)).map(|s| (s.least, s.median, s.most));
        assert_eq!(spread, Some((1.0, 2.5, 10.0)));
        assert!(Spread::of(&outcomes, |outcome| outcome.p50_us).is_none());
    }

    #[test]
    fn numbers_are_short() {
        assert_eq!(
            [0.1234, 5.0, 9_999.0, 12_345.0, 7_600_000.0].map(short),
            ["0.123", "5.00", "9999", "12.3 k", "7.60 M"]
        );
    }
}
