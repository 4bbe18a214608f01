//! Runs the peer benchmark: builds the peers, runs the cells with the peers in turn, two processes each, and writes
//! medians with ranges to the terminal, all runs to `results/results.csv` and charts to `results/*.svg`.

mod cell;
mod chart;
mod lineup;
mod machine;
mod measure;
mod process;
mod results;
mod summary;

use std::{
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context, Result, ensure};
use cell::Cell;
use clap::Parser;
use indicatif::{ProgressBar, ProgressStyle};
use lineup::Peer;
use measure::Bench;
use regex::Regex;
use results::Results;

#[derive(Debug, Parser)]
#[command(version, about = "Compares sinew with its rivals, cell by cell")]
struct Args {
    /// A few cells, three runs each.
    #[arg(long, conflicts_with = "full")]
    quick: bool,

    /// All cells and all variants.
    #[arg(long)]
    full: bool,

    /// Only these peers: a name (`omq`) or a name with a variant (`monocoque/flush64`).
    #[arg(long, value_delimiter = ',')]
    only: Vec<String>,

    /// Only cells whose name matches this regular expression.
    #[arg(long, default_value = "")]
    cells: Regex,

    /// Runs per cell and peer, instead of 5 (3 with --quick).
    #[arg(long)]
    runs: Option<usize>,

    /// Say which cells there are, and stop.
    #[arg(long)]
    list: bool,
}

/// How much to measure.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Extent {
    Quick,
    Normal,
    Full,
}

fn main() -> Result<()> {
    let args = Args::parse();
    let extent = match (args.quick, args.full) {
        (true, _) => Extent::Quick,
        (_, true) => Extent::Full,
        _ => Extent::Normal,
    };
    let cells: Vec<Cell> =
        cell::all(extent).into_iter().filter(|cell| args.cells.is_match(&cell.to_string())).collect();
    if args.list {
        cells.iter().for_each(|cell| println!("{cell}"));
        return Ok(());
    }
    let peers = lineup::choose(extent, &args.only)?;
    ensure!(!cells.is_empty(), "no cell has a name that matches {}", args.cells);
    let home = Path::new(env!("CARGO_MANIFEST_DIR"));
    let bench = Bench::new(build(home, &peers)?, extent)?;
    let runs = args.runs.unwrap_or(if extent == Extent::Quick { 3 } else { 5 });
    let machine = machine::describe(home)?;
    println!("{machine}\n");

    let results = run(&bench, &cells, &peers, runs)?;
    let target = home.join("results");
    std::fs::create_dir_all(&target)?;
    results.write_csv(&target.join("results.csv"))?;
    std::fs::write(target.join("machine.txt"), format!("{machine}\n"))?;
    chart::write_all(&target, &results)?;
    println!("\nAll runs and the charts are in {}", target.display());
    Ok(())
}

/// Builds the peers that are wanted, and nothing else; returns where their binaries are.
fn build(home: &Path, peers: &[Peer]) -> Result<PathBuf> {
    let mut cargo = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    cargo.args(["build", "--release", "--package", "peer-raw", "--manifest-path"]).arg(home.join("Cargo.toml"));
    for peer in peers {
        cargo.args(["--package", &format!("peer-{}", peer.name)]);
    }
    ensure!(cargo.status().context("starting cargo")?.success(), "the peers do not build; --only picks some");
    // The peers lie beside this program, whatever the target directory is, if it was built with --release.
    let here = std::env::current_exe()?;
    let profiles = here.parent().and_then(Path::parent).context("this program lies in no target directory")?;
    Ok(profiles.join("release"))
}

/// Runs all cells; a peer that fails in a cell is out of it, and the table says why.
fn run(bench: &Bench, cells: &[Cell], peers: &[Peer], runs: usize) -> Result<Results> {
    let plan: Vec<(&Cell, Vec<&Peer>)> =
        cells.iter().map(|cell| (cell, peers.iter().filter(|peer| peer.supports(cell)).collect())).collect();
    let steps: usize = plan.iter().map(|(_, peers)| peers.len() * (runs + 1)).sum();
    let bar = ProgressBar::new(steps as u64)
        .with_style(ProgressStyle::with_template("{bar:30} {pos}/{len} {elapsed_precise} (left {eta}) {msg}")?);
    let mut results = Results::default();
    for (cell, peers) in plan {
        let mut field = Vec::new();
        for peer in peers {
            bar.set_message(format!("{cell}: {} warms up", peer.label()));
            match bench.calibrate(cell, peer) {
                Ok(count) => field.push((peer, count)),
                Err(error) => results.fail(cell, peer, &error),
            }
            bar.inc(1);
        }
        for run in 0..runs {
            field.retain(|(peer, count)| {
                bar.set_message(format!("{cell}: {}", peer.label()));
                let outcome = bench.measure(cell, peer, *count);
                bar.inc(1);
                match outcome {
                    Ok(outcome) => results.add(cell, peer, run, outcome),
                    Err(error) => {
                        results.fail(cell, peer, &error);
                        return false;
                    }
                }
                true
            });
        }
        bar.suspend(|| println!("{}", summary::table(cell, &results)));
    }
    bar.finish_and_clear();
    Ok(results)
}
