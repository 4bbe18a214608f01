//! Bar charts: one file per pattern and transport, one panel per size, each panel on a scale of its own.

use std::path::Path;

use anyhow::Result;
use svg::{
    Document,
    node::element::{Line, Rectangle, Style, Text},
};

use crate::{
    cell::Cell,
    results::Results,
    summary::{Spread, score, short},
};

const PANEL_WIDTH: f64 = 340.0;
const LABEL_WIDTH: f64 = 130.0;
const VALUE_WIDTH: f64 = 60.0;
const BAR_HEIGHT: f64 = 14.0;
const ROW_HEIGHT: f64 = 20.0;
const TITLE_HEIGHT: f64 = 50.0;
const HEAD_HEIGHT: f64 = 34.0;
const PANELS_PER_ROW: usize = 3;

/// Readable on a light and on a dark page.
const STYLE: &str = "
text { font: 12px sans-serif; fill: #24292f }
.title { font-size: 16px; font-weight: bold }
.head { font-weight: bold }
.own { fill: #d9480f } .rival { fill: #4c6ef5 } .raw { fill: #adb5bd }
.range { stroke: #24292f; stroke-width: 1.5 }
.paper { fill: #ffffff }";

/// Writes all charts.
pub(crate) fn write_all(folder: &Path, results: &Results) -> Result<()> {
    let mut cells = results.cells();
    while let Some(first) = cells.first().copied() {
        let (group, rest): (Vec<Cell>, Vec<Cell>) =
            cells.iter().partition(|cell| cell.pattern == first.pattern && cell.transport == first.transport);
        let file = folder.join(format!("{}-{}.svg", first.pattern, first.transport));
        svg::save(file, &draw(&first, &group, results))?;
        cells = rest;
    }
    Ok(())
}

fn draw(first: &Cell, group: &[Cell], results: &Results) -> Document {
    let (unit, more_is_better, _) = score(first);
    let tallest = group.iter().map(|cell| results.of(cell).len()).max().unwrap_or(0);
    let panel_height = HEAD_HEIGHT + ROW_HEIGHT * tallest as f64;
    let columns = group.len().min(PANELS_PER_ROW);
    let lines = group.len().div_ceil(PANELS_PER_ROW);
    let width = PANEL_WIDTH * columns as f64 + 20.0;
    let height = TITLE_HEIGHT + panel_height * lines as f64 + 10.0;
    let better = if more_is_better { "longer is better" } else { "shorter is better" };
    let title = format!("{} over {}", first.pattern, first.transport);
    let mut document = Document::new()
        .set("viewBox", (0.0, 0.0, width, height))
        .set("width", width)
        .set("height", height)
        .add(Style::new(STYLE))
        .add(Rectangle::new().set("class", "paper").set("width", width).set("height", height))
        .add(text(&title, "title", 10.0, 22.0))
        .add(text(&format!("{unit}, {better}; medians, lines from the lowest to the highest run"), "", 10.0, 40.0));
    for (index, cell) in group.iter().enumerate() {
        let x = 10.0 + PANEL_WIDTH * (index % PANELS_PER_ROW) as f64;
        let y = TITLE_HEIGHT + panel_height * (index / PANELS_PER_ROW) as f64;
        document = draw_panel(document, cell, results, x, y);
    }
    document
}

fn draw_panel(mut document: Document, cell: &Cell, results: &Results, x: f64, y: f64) -> Document {
    let (_, _, value) = score(cell);
    let bars: Vec<_> = results
        .of(cell)
        .into_iter()
        .filter_map(|(peer, outcomes)| Some((peer, Spread::of(&outcomes, value)?)))
        .collect();
    let longest = bars.iter().map(|(_, spread)| spread.most).fold(f64::MIN_POSITIVE, f64::max);
    let scale = (PANEL_WIDTH - LABEL_WIDTH - VALUE_WIDTH) / longest;
    document = document.add(text(&size_label(cell.size), "head", x, y + 18.0));
    for (row, (peer, spread)) in bars.iter().enumerate() {
        let top = y + HEAD_HEIGHT + ROW_HEIGHT * row as f64 - 8.0;
        let left = x + LABEL_WIDTH;
        let class = match peer.name {
            "sinew" => "own",
            "raw" => "raw",
            _ => "rival",
        };
        let bar = Rectangle::new()
            .set("class", class)
            .set("x", left)
            .set("y", top)
            .set("width", round(spread.median * scale))
            .set("height", BAR_HEIGHT);
        let range = Line::new()
            .set("class", "range")
            .set("x1", round(left + spread.least * scale))
            .set("x2", round(left + spread.most * scale))
            .set("y1", top + BAR_HEIGHT / 2.0)
            .set("y2", top + BAR_HEIGHT / 2.0);
        document = document.add(text(&peer.label(), "", x, top + 11.0)).add(bar).add(range).add(text(
            &short(spread.median),
            "",
            round(left + spread.most * scale + 5.0),
            top + 11.0,
        ));
    }
    document
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
