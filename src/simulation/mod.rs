//! A deterministic simulation: real sockets on a virtual network and a virtual clock, driven by seeds. For tests only.
//!
//! A seed chooses a scenario, its sizes, the network's moods, and all that goes wrong. `cargo test simulation` runs 200 of
//! them; `SINEW_SIM_SEEDS=10000` runs more (from `SINEW_SIM_FIRST` on), `SINEW_SIM_SEED=7` runs one alone.
//! What must hold is in `checks.rs`; it is held against what the network itself has seen (`wire.rs`).

mod checks;
mod churn;
mod hostile;
mod manual;
mod narrow;
pub(crate) mod network;
mod pipeline;
mod pubsub;
mod relay;
mod runner;
mod stream;
mod trace;
mod wire;
mod world;
