//! Bar charts: one file per question, one panel per cell, each panel on a scale of its own.

use std::{fs, path::Path};

use anyhow::Result;
use svg::{
    Document,
    node::element::{Group, Line, Rectangle, Style, Text, Title},
};

use crate::{
    Extent,
    cell::{self, Cell, Pattern, Transport},
    results::{Entry, Results},
    summary::{Spread, score, short},
};

const MARGIN: f64 = 16.0;
const PANEL_WIDTH: f64 = 318.0;
const GAP: f64 = 14.0;
const LABEL_WIDTH: f64 = 132.0;
const VALUE_WIDTH: f64 = 52.0;
const BAR_HEIGHT: f64 = 11.0;
const ROW_HEIGHT: f64 = 17.0;
const TITLE_HEIGHT: f64 = 74.0;
const HEAD_HEIGHT: f64 = 34.0;
const FOOT_HEIGHT: f64 = 26.0;

/// A chart brings its own paper, so it can be read on any page; it follows the reader's wish for light or dark.
const STYLE: &str = "
text { font: 12px system-ui, 'Segoe UI', Helvetica, Arial, sans-serif; fill: #1f2328 }
.title { font-size: 17px; font-weight: 600 }
.head { font-size: 13px; font-weight: 600 }
.note { fill: #59636e }
.us { font-weight: 600 }
.paper { fill: #ffffff }
.own { fill: #e8590c } .rival { fill: #4c6ef5 } .asked { fill: #a5b4fc } .raw { fill: #adb5bd }
.range { stroke: #1f2328; stroke-width: 1.2 }
.axis { stroke: #d1d9e0; stroke-width: 1 }
@media (prefers-color-scheme: dark) {
text { fill: #e6edf3 }
.note { fill: #9198a1 }
.paper { fill: #0d1117 }
.own { fill: #fd7e14 } .rival { fill: #5c7cfa } .asked { fill: #364fc7 } .raw { fill: #6e7681 }
.range { stroke: #e6edf3 }
.axis { stroke: #3d444d }
}";

/// A question with its cells.
struct Chart {
    file: String,
    title: String,
    panels: Vec<(String, Cell)>,
    columns: usize,
}

/// What there may be, whether it was measured or not.
fn charts() -> Vec<Chart> {
    use Transport::{Ipc, Tcp};
    let cells = cell::all(Extent::Full);
    let chart = |file: &str, title: &str, columns, name: &dyn Fn(&Cell) -> Option<String>| Chart {
        file: file.to_owned(),
        title: title.to_owned(),
        panels: cells.iter().filter_map(|cell| Some((name(cell)?, *cell))).collect(),
        columns,
    };
    let mut charts = Vec::new();
    for transport in [Tcp, Ipc] {
        let upper = transport.to_string().to_uppercase();
        let mut over = |file: &str, title: &str, name: &dyn Fn(&Cell) -> Option<String>| {
            let name = |cell: &Cell| name(cell).filter(|_| cell.transport == transport);
            charts.push(chart(&format!("{file}-{transport}"), &format!("{title} over {upper}"), 3, &name));
        };
        over("push-pull", "PUSH → PULL", &|cell| match cell.pattern {
            Pattern::Pipeline { senders: 1, receivers: 1, shared: false } => Some(size_label(cell.size)),
            _ => None,
        });
        over("push-pull-shared", "PUSH → PULL, one payload shared by all messages,", &|cell| match cell.pattern {
            Pattern::Pipeline { shared: true, .. } => Some(size_label(cell.size)),
            _ => None,
        });
        over("fan", "Fan-out and fan-in", &|cell| match cell.pattern {
            Pattern::Pipeline { senders: 1, receivers: 1, .. } => None,
            Pattern::Pipeline { senders, receivers, .. } => {
                Some(format!("{senders} PUSH → {receivers} PULL, {}", size_label(cell.size)))
            }
            _ => None,
        });
        for (file, title, wanted) in
            [("pub-sub", "PUB → SUB, nothing lost,", false), ("pub-sub-lossy", "PUB → SUB, dropping allowed,", true)]
        {
            over(file, title, &|cell| match cell.pattern {
                Pattern::PubSub { subscribers, lossy } if lossy == wanted => {
                    Some(format!("{subscribers} SUB, {}", size_label(cell.size)))
                }
                _ => None,
            });
        }
    }
    charts.push(chart("match", "PUB of which almost nothing is wanted, over TCP", 3, &|cell| match cell.pattern {
        Pattern::Match { topics, subscriptions } => {
            Some(format!("{} topics, {}", thousands(topics), counted(subscriptions, "subscription")))
        }
        _ => None,
    }));
    charts.push(chart("latency", "Round trip of 64 B, median (p50)", 2, &|cell| match cell.pattern {
        Pattern::PingPong { cores } => {
            let cores = if cores == 1 { "both processes on one core" } else { "on two cores" };
            Some(format!("{}, {cores}", cell.transport.to_string().to_uppercase()))
        }
        _ => None,
    }));
    charts.push(chart("idle", "Memory of an idle connection", 2, &|cell| match cell.pattern {
        Pattern::Idle { peers } => Some(format!(
            "{} connections over {}",
            thousands(peers as usize),
            cell.transport.to_string().to_uppercase()
        )),
        _ => None,
    }));
    charts.push(chart("busy", "PUSH → PULL beside idle connections, over TCP, 64 B", 2, &|cell| match cell.pattern {
        Pattern::Busy { idle } => Some(format!("{} idle", counted(idle as usize, "connection"))),
        _ => None,
    }));
    charts
}

/// Writes the charts of everything that was measured.
pub(crate) fn write_all(folder: &Path, results: &Results) -> Result<()> {
    for mut chart in charts() {
        let file = folder.join(format!("{}.svg", chart.file));
        chart.panels.retain(|(_, cell)| !bars(cell, results).is_empty());
        if !chart.panels.is_empty() {
            svg::save(file, &draw(&chart, results))?;
        } else if file.exists() {
            fs::remove_file(file)?;
        }
    }
    Ok(())
}

/// What a bar is of.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    Raw,
    Own,
    Rival,
    /// A mode that sends a tail only when the program asks for it.
    Asked,
}

impl Kind {
    fn of(entry: &Entry) -> Self {
        match (entry.peer.name, entry.peer.variant) {
            ("raw", _) => Self::Raw,
            ("sinew", _) => Self::Own,
            ("monocoque", "coalesce" | "flush64") => Self::Asked,
            _ => Self::Rival,
        }
    }

    fn class(self) -> &'static str {
        match self {
            Self::Raw => "raw",
            Self::Own => "own",
            Self::Rival => "rival",
            Self::Asked => "asked",
        }
    }
}

/// A panel's bars: all variants of sinew and raw, and of each rival the one that does best in this cell.
fn bars<'a>(cell: &'a Cell, results: &'a Results) -> Vec<(Kind, &'a Entry, Spread)> {
    let (_, more_is_better, value) = score(cell);
    let mut bars: Vec<(Kind, &Entry, Spread)> = Vec::new();
    for entry in results.of(cell) {
        let Some(spread) = Spread::of(&entry.runs, value) else {
            continue;
        };
        let kind = Kind::of(entry);
        let rival = matches!(kind, Kind::Rival | Kind::Asked);
        let same = |(of, other, _): &&mut (Kind, &Entry, Spread)| *of == kind && other.peer.name == entry.peer.name;
        match bars.iter_mut().find(same).filter(|_| rival) {
            Some(best) if (spread.median > best.2.median) == more_is_better => *best = (kind, entry, spread),
            Some(_) => {}
            None => bars.push((kind, entry, spread)),
        }
    }
    bars
}

fn draw(chart: &Chart, results: &Results) -> Document {
    let drawn: Vec<(&str, Vec<_>)> =
        chart.panels.iter().map(|(name, cell)| (name.as_str(), bars(cell, results))).collect();
    let tallest = drawn.iter().map(|(_, bars)| bars.len()).max().unwrap_or(0);
    let panel_height = HEAD_HEIGHT + ROW_HEIGHT * tallest as f64;
    let columns = chart.columns.min(drawn.len()).max(2);
    let lines = drawn.len().div_ceil(columns);
    let width = (PANEL_WIDTH + GAP) * columns as f64 - GAP + 2.0 * MARGIN;
    let height = TITLE_HEIGHT + panel_height * lines as f64 + FOOT_HEIGHT;

    let first = &chart.panels[0].1;
    let (_, more_is_better, _) = score(first);
    let unit = unit(first);
    let better = if more_is_better { "longer is better" } else { "shorter is better" };
    let all = || drawn.iter().flat_map(|(_, bars)| bars);
    let explanation = format!("{unit}, {better}. {}", runs(all().map(|(_, entry, _)| entry.runs.len())));
    let mut document = Document::new()
        .set("viewBox", (0.0, 0.0, width, height))
        .set("width", width)
        .set("height", height)
        .set("role", "img")
        .add(Title::new(format!("{} – {unit}", chart.title)))
        .add(Style::new(STYLE))
        .add(Rectangle::new().set("class", "paper").set("width", width).set("height", height).set("rx", 6))
        .add(text(&chart.title, "title", MARGIN, 25.0))
        .add(text(&explanation, "note", MARGIN, 45.0))
        .add(legend(all().map(|(kind, ..)| *kind)));
    for (index, (name, bars)) in drawn.iter().enumerate() {
        let x = MARGIN + (PANEL_WIDTH + GAP) * (index % columns) as f64;
        let y = TITLE_HEIGHT + panel_height * (index / columns) as f64;
        document = document.add(draw_panel(name, bars, x, y));
    }
    document.add(text(&origin(all().map(|(_, entry, _)| *entry)), "note", MARGIN, height - 11.0))
}

/// What the numbers count.
fn unit(cell: &Cell) -> &'static str {
    match cell.pattern {
        Pattern::Pipeline { .. } | Pattern::Busy { .. } => "Messages per second (k: thousand, M: million)",
        Pattern::PubSub { .. } => "Messages per second that all subscribers together got (k: thousand, M: million)",
        Pattern::Match { .. } => "Messages published per second (k: thousand, M: million)",
        Pattern::PingPong { .. } => "Microseconds",
        Pattern::Idle { .. } => "KiB per connection",
    }
}

fn runs(numbers: impl Iterator<Item = usize> + Clone) -> String {
    let (least, most) = (numbers.clone().min().unwrap_or(0), numbers.max().unwrap_or(0));
    let numbers = if least == most { most.to_string() } else { format!("{least} to {most}") };
    format!("Bars: medians of {numbers} runs; lines: from the lowest to the highest run")
}

/// When, and which version of sinew.
fn origin<'a>(entries: impl Iterator<Item = &'a Entry>) -> String {
    let (mut days, mut commits) = (Vec::new(), Vec::new());
    for Entry { session, .. } in entries {
        let day = session.started.split('T').next().unwrap_or_default();
        days.extend((!days.contains(&day)).then_some(day));
        let commit = session.commit.as_str();
        commits.extend((!commits.contains(&commit)).then_some(commit));
    }
    days.sort_unstable();
    let day = match days.as_slice() {
        [first, .., last] => format!("{first} to {last}"),
        days => days.concat(),
    };
    format!("Measured {day}, sinew {}; machine.txt tells where, benches/peers/README.md how", commits.join(", "))
}

fn legend(kinds: impl Iterator<Item = Kind>) -> Group {
    let present: Vec<Kind> = kinds.collect();
    let mut legend = Group::new();
    let mut x = MARGIN;
    for (kind, label) in [
        (Kind::Own, "sinew"),
        (Kind::Rival, "others, each in its best variant"),
        (Kind::Asked, "needs flushing by the program (coalesce: never done)"),
        (Kind::Raw, "plain sockets, same frames"),
    ] {
        if present.contains(&kind) {
            let square = Rectangle::new().set("class", kind.class()).set("x", x).set("y", 55.0);
            legend = legend.add(square.set("width", 10.0).set("height", 10.0)).add(text(label, "", x + 15.0, 64.0));
            x += 15.0 + 6.2 * label.chars().count() as f64 + 16.0;
        }
    }
    legend
}

fn draw_panel(name: &str, bars: &[(Kind, &Entry, Spread)], x: f64, y: f64) -> Group {
    let longest = bars.iter().map(|(.., spread)| spread.most).fold(f64::MIN_POSITIVE, f64::max);
    let scale = (PANEL_WIDTH - LABEL_WIDTH - VALUE_WIDTH) / longest;
    let left = x + LABEL_WIDTH;
    let rows = y + HEAD_HEIGHT - 6.0;
    let axis = Line::new().set("class", "axis").set("x1", left).set("x2", left).set("y1", rows - 2.0);
    let mut panel =
        Group::new().add(text(name, "head", x, y + 18.0)).add(axis.set("y2", rows + ROW_HEIGHT * bars.len() as f64));
    for (row, (kind, entry, spread)) in bars.iter().enumerate() {
        let top = rows + ROW_HEIGHT * row as f64;
        let middle = top + BAR_HEIGHT / 2.0;
        let bar = Rectangle::new()
            .set("class", kind.class())
            .set("x", left)
            .set("y", top)
            .set("width", round(spread.median * scale))
            .set("height", BAR_HEIGHT);
        panel = panel.add(text(&label(entry), if *kind == Kind::Own { "us" } else { "" }, x, top + 10.0)).add(bar);
        let (from, to) = (left + spread.least * scale, left + spread.most * scale);
        for (x1, x2, reach) in [(from, to, 0.0), (from, from, 3.0), (to, to, 3.0)] {
            let line = Line::new().set("class", "range").set("x1", round(x1)).set("x2", round(x2));
            panel = panel.add(line.set("y1", middle - reach).set("y2", middle + reach));
        }
        panel = panel.add(text(&short(spread.median), "", round(to + 5.0), top + 10.0));
    }
    panel
}

/// A peer's name; sinew's default needs no word.
fn label(entry: &Entry) -> String {
    if (entry.peer.name, entry.peer.variant) == ("sinew", "current") { "sinew".to_owned() } else { entry.peer.label() }
}

fn text(content: &str, class: &str, x: f64, y: f64) -> Text {
    Text::new(content).set("class", class).set("x", x).set("y", y)
}

fn round(value: f64) -> f64 {
    (value * 10.0).round() / 10.0
}

fn size_label(size: usize) -> String {
    match size {
        size if size >= 1 << 20 => format!("{} MiB", size >> 20),
        size if size >= 1 << 10 => format!("{} KiB", size >> 10),
        size => format!("{size} B"),
    }
}

fn counted(number: usize, noun: &str) -> String {
    let plural = if number == 1 { "" } else { "s" };
    format!("{} {noun}{plural}", thousands(number))
}

fn thousands(number: usize) -> String {
    if number >= 1_000 { format!("{},{:03}", number / 1_000, number % 1_000) } else { number.to_string() }
}
