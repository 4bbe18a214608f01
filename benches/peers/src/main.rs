//! Runs the peer benchmark: builds the peers, runs the cells with the peers in turn, two processes each, and writes
//! all runs to `results/results.csv`, which keeps what was measured before and not now, and from there medians with ranges to
//! the terminal and to `results/tables.txt`, and charts to `results/*.svg`.

mod cell;
mod chart;
mod lineup;
mod machine;
mod measure;
mod process;
mod results;
mod summary;

use std::{
    fs,
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

use anyhow::{Context, Result, anyhow, ensure};
use cell::Cell;
use clap::Parser;
use indicatif::{ProgressBar, ProgressStyle};
use lineup::Peer;
use measure::Bench;
use regex::Regex;
use results::{Entry, Results, Session};

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

    /// Seconds that a run takes, instead of 1 (0.5 with --quick).
    #[arg(long)]
    seconds: Option<f64>,

    /// Forget what was measured before. Otherwise a peer's old runs stay until the same cell is measured again.
    #[arg(long)]
    fresh: bool,

    /// Say which cells there are and who plays in them, and how long it takes; measure nothing.
    #[arg(long)]
    list: bool,

    /// Draw the tables and the charts of what was measured before; measure nothing.
    #[arg(long, conflicts_with_all = ["fresh", "list"])]
    draw: bool,
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
    ensure!(!cells.is_empty(), "no cell has a name that matches {}", args.cells);
    let home = Path::new(env!("CARGO_MANIFEST_DIR"));
    let target = home.join("results");
    if args.draw {
        let results = Results::read(&target.join("results.csv"))?;
        print!("{}", draw(&target, &results)?);
        return Ok(());
    }
    let mut peers = lineup::choose(extent, &args.only)?;
    let runs = args.runs.unwrap_or(if extent == Extent::Quick { 3 } else { 5 });
    let seconds = args.seconds.unwrap_or(if extent == Extent::Quick { 0.5 } else { 1.0 });
    ensure!(runs > 0 && seconds > 0.0, "one run at least, and some time for it");
    if args.list {
        for (cell, players) in plan(&cells, &peers) {
            let labels: Vec<String> = players.iter().map(|peer| peer.label()).collect();
            println!("{cell}: {}", labels.join(", "));
        }
        println!("\n{}", estimate(&cells, &peers, runs, seconds));
        return Ok(());
    }
    let bench = Bench::new(build(home, &mut peers)?, seconds)?;
    let session = machine::session(home);
    let machine = machine::describe(home)?;
    println!("{machine}\n{}\n", estimate(&cells, &peers, runs, seconds));

    fs::create_dir_all(&target)?;
    let file = target.join("results.csv");
    let mut results = if args.fresh { Results::default() } else { Results::read(&file)? };
    let known = fs::read_to_string(target.join("machine.txt")).unwrap_or_default();
    run(&bench, &plan(&cells, &peers), runs, &session, |cell, fresh| {
        results.merge(fresh);
        // What is there stays if the rest is not waited for.
        results.write(&file)?;
        fs::write(target.join("machine.txt"), machine::list(&known, &results.sessions(), &session, &machine))?;
        Ok(summary::table(cell, &results))
    })?;
    draw(&target, &results)?;
    println!("\nAll runs, tables and charts are in {}", target.display());
    Ok(())
}

/// Writes all tables and charts; returns the tables.
fn draw(target: &Path, results: &Results) -> Result<String> {
    let tables: String = results.cells().iter().map(|cell| format!("{}\n", summary::table(cell, results))).collect();
    let tables = tables.trim_start().to_owned();
    fs::write(target.join("tables.txt"), &tables)?;
    chart::write_all(target, results)?;
    Ok(tables)
}

/// A cell, and who plays in it.
type Game<'a> = (&'a Cell, Vec<&'a Peer>);

fn plan<'a>(cells: &'a [Cell], peers: &'a [Peer]) -> Vec<Game<'a>> {
    let players = |cell| peers.iter().filter(|peer| peer.supports(cell)).collect();
    cells.iter().map(|cell| (cell, players(cell))).filter(|(_, players): &Game| !players.is_empty()).collect()
}

/// How long it takes if nobody fails.
fn estimate(cells: &[Cell], peers: &[Peer], runs: usize, seconds: f64) -> String {
    let plan = plan(cells, peers);
    let games: usize = plan.iter().map(|(_, players)| players.len()).sum();
    let time: f64 =
        plan.iter().map(|(cell, players)| players.len() as f64 * measure::estimate(cell, runs, seconds)).sum();
    let minutes = (time / 60.0).ceil() as u64;
    let time = if minutes < 60 { format!("{minutes} min") } else { format!("{} h {} min", minutes / 60, minutes % 60) };
    format!("{} cells, {games} times a peer in a cell, {runs} runs of {seconds} s each: about {time}", plan.len())
}

/// Builds the peers that are wanted, and nothing else; returns where their binaries are. Optional ones that do not build are
/// left out.
fn build(home: &Path, peers: &mut Vec<Peer>) -> Result<PathBuf> {
    let mut needed = vec!["raw"];
    needed.extend(peers.iter().filter(|peer| !peer.is_optional()).map(|peer| peer.name));
    cargo_build(home, &needed).context("the peers do not build; --only picks some")?;
    peers.retain(|peer| {
        let built = if peer.is_optional() { build_optional(home, peer) } else { Ok(()) };
        if let Err(error) = &built {
            eprintln!("{} is left out: {error:#}", peer.label());
        }
        built.is_ok()
    });
    ensure!(!peers.is_empty(), "nobody is left to be measured");
    // The peers lie beside this program, whatever the target directory is, if it was built with --release.
    let here = std::env::current_exe()?;
    let profiles = here.parent().and_then(Path::parent).context("this program lies in no target directory")?;
    Ok(profiles.join("release"))
}

/// Builds a peer whose library is built with CMake.
fn build_optional(home: &Path, peer: &Peer) -> Result<()> {
    let cmake = Command::new("cmake").arg("--version").stdout(Stdio::null()).stderr(Stdio::null()).status();
    ensure!(
        cmake.is_ok_and(|status| status.success()),
        "its library is built with CMake, which is not here (for instance: apt-get install cmake)"
    );
    cargo_build(home, &[peer.name])
}

fn cargo_build(home: &Path, names: &[&str]) -> Result<()> {
    let mut cargo = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    cargo.args(["build", "--release", "--manifest-path"]).arg(home.join("Cargo.toml"));
    for name in names {
        cargo.args(["--package", &format!("peer-{name}")]);
    }
    let status = cargo.status().context("starting cargo")?;
    if status.success() { Ok(()) } else { Err(anyhow!("cargo build ended with {status}")) }
}

/// Runs all cells, and gives each to `keep`, which returns its table; a peer that fails in a cell is out of it.
fn run(
    bench: &Bench,
    plan: &[Game],
    runs: usize,
    session: &Session,
    mut keep: impl FnMut(&Cell, Vec<Entry>) -> Result<String>,
) -> Result<()> {
    let steps: usize = plan.iter().map(|(_, players)| players.len() * (runs + 1)).sum();
    let bar = ProgressBar::new(steps as u64)
        .with_style(ProgressStyle::with_template("{bar:30} {pos}/{len} {elapsed_precise} (left {eta}) {msg}")?);
    for (cell, players) in plan {
        let mut entries: Vec<Entry> = players.iter().map(|peer| Entry::new(cell, peer, session)).collect();
        let mut field = Vec::new();
        for entry in &mut entries {
            bar.set_message(format!("{cell}: {} warms up", entry.peer.label()));
            match bench.calibrate(cell, &entry.peer) {
                Ok(count) => field.push((entry, count)),
                Err(error) => {
                    entry.fail(&error);
                    bar.inc(runs as u64);
                }
            }
            bar.inc(1);
        }
        for run in 0..runs {
            field.retain_mut(|(entry, count)| {
                bar.set_message(format!("{cell}: {}", entry.peer.label()));
                let outcome = bench.measure(cell, &entry.peer, *count);
                bar.inc(1);
                match outcome {
                    Ok(outcome) => entry.runs.push(outcome),
                    Err(error) => {
                        entry.fail(&error);
                        bar.inc((runs - run - 1) as u64);
                        return false;
                    }
                }
                true
            });
        }
        let table = keep(cell, entries)?;
        bar.suspend(|| println!("{table}"));
    }
    bar.finish_and_clear();
    Ok(())
}
