//! Runs seeds, each in a thread of its own, so that nothing is left of one in the next, and a failing one names itself.

use std::collections::BTreeMap;
use std::panic::{self, AssertUnwindSafe};
use std::process::Command;
use std::sync::{Mutex, mpsc};
use std::thread;
use std::time::Duration;

use crate::simulation::world::World;
use crate::simulation::{churn, hostile, manual, narrow, pipeline, pubsub, relay};

/// Seeds of an ordinary test run.
const SEEDS: u64 = 200;

/// A seed that takes so long, by the clock on the wall, spins.
const SPINS: Duration = Duration::from_secs(180);

/// Virtual time in which every scenario is done.
const HANGS: Duration = Duration::from_secs(100_000);

/// How many scenarios there are; one of them counts twice.
const SCENARIOS: u64 = 8;

async fn scenario(seed: u64, world: World) {
    match seed % SCENARIOS {
        0 | 5 => pipeline::run(world, false, false).await,
        1 => pubsub::run(world, false, false).await,
        2 => relay::run(world).await,
        3 => churn::run(world).await,
        4 => hostile::run(world).await,
        6 => manual::run(world).await,
        _ => narrow::run(world).await,
    }
}

/// Runs one seed; gives a digest of all that was said on the network, or what went wrong.
fn run(seed: u64) -> Result<u64, String> {
    let (done, is_done) = mpsc::channel();
    let body = move || {
        let runtime =
            tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build().expect("a runtime");
        runtime.block_on(async {
            let world = World::new(seed);
            let network = world.network.clone();
            if tokio::time::timeout(HANGS, scenario(seed, world)).await.is_err() {
                panic!("it hangs");
            }
            network.digest()
        })
    };
    let thread = thread::Builder::new().name(format!("seed {seed}")).spawn(move || {
        let result = panic::catch_unwind(AssertUnwindSafe(body));
        // Nobody listens any more if it took too long.
        let _ = done.send(result.map_err(|panic| words(panic.as_ref())));
    });
    let _running = thread.expect("a thread");
    match is_done.recv_timeout(SPINS) {
        Ok(result) => result,
        Err(_) => Err("it spins".into()),
    }
}

/// The first run of a seed in this process, whichever test needed it first.
fn first_run(seed: u64) -> Result<u64, String> {
    static RUNS: Mutex<BTreeMap<u64, Result<u64, String>>> = Mutex::new(BTreeMap::new());
    let known = RUNS.lock().expect("no panic").get(&seed).cloned();
    known.unwrap_or_else(|| {
        let result = run(seed);
        RUNS.lock().expect("no panic").entry(seed).or_insert(result).clone()
    })
}

fn words(panic: &(dyn std::any::Any + Send)) -> String {
    let text = panic.downcast_ref::<String>().map(String::as_str).or(panic.downcast_ref::<&str>().copied());
    text.unwrap_or("a panic without words").to_owned()
}

fn number(name: &str) -> Option<u64> {
    std::env::var(name).ok().map(|text| text.parse().expect("a number"))
}

#[test]
fn whatever_the_seed_every_promise_is_kept() {
    let only = number("SINEW_SIM_SEED");
    let first = only.or(number("SINEW_SIM_FIRST")).unwrap_or(0);
    let count = if only.is_some() { 1 } else { number("SINEW_SIM_SEEDS").unwrap_or(SEEDS) };
    let mut failures = Vec::new();
    for seed in first..first + count {
        if let Err(cause) = first_run(seed) {
            failures.push(format!("SINEW_SIM_SEED={seed} cargo test --lib simulation: {cause}"));
            if failures.len() == 100 {
                break;
            }
        }
    }
    assert!(failures.is_empty(), "{} of {count} seeds failed:\n{}", failures.len(), failures.join("\n"));
}

/// Seeds that are run again: of each scenario so many.
const REPLAYED: u64 = 24 * SCENARIOS;

/// Seeds that are run again in another process.
const REPLAYED_ELSEWHERE: u64 = 6 * SCENARIOS;

#[test]
fn every_scenario_replays_byte_for_byte() {
    let count = number("SINEW_SIM_REPLAYED").unwrap_or(REPLAYED);
    let differ: Vec<u64> = (0..count).rev().filter(|seed| first_run(*seed) != run(*seed)).collect();
    assert!(differ.is_empty(), "{} of {count} seeds had two ways to go: {differ:?}", differ.len());
}

/// What a process prints of its runs, for another one.
fn line(seed: u64) -> String {
    format!("seed {seed} gave {:?}", first_run(seed))
}

#[test]
#[ignore = "run by the test below"]
fn one_process_runs_some_seeds() {
    (0..REPLAYED_ELSEWHERE).for_each(|seed| println!("{}", line(seed)));
}

#[test]
fn a_seed_replays_byte_for_byte_in_another_process() {
    let this = std::env::current_exe().expect("a program");
    let name = format!("{}::one_process_runs_some_seeds", module_path!().split_once("::").expect("a crate").1);
    let other = Command::new(this).args([&name, "--exact", "--ignored", "--nocapture"]).output().expect("a process");
    let text = String::from_utf8_lossy(&other.stdout);
    let lines: Vec<&str> = text.lines().filter(|line| line.contains(" gave ")).collect();
    for seed in 0..REPLAYED_ELSEWHERE {
        let line = line(seed);
        assert!(lines.iter().any(|other| other.ends_with(&line)), "another process did not say that {line}");
    }
}
