//! A deterministic simulation: real sockets on a virtual network and a virtual clock, driven by seeds. For tests only.
//!
//! A seed chooses a scenario, its sizes, the network's moods, and all that goes wrong. `cargo test simulation` runs 200 of
//! them; `SINEW_SIM_SEEDS=10000` runs more (from `SINEW_SIM_FIRST` on), `SINEW_SIM_SEED=7` runs one alone, and prints with
//! `SINEW_SIM_TRACE=1` and `--nocapture` all that the network carries. What must hold is in `checks.rs`; it is held against what
//! the network itself has seen (`wire.rs`).
//!
//! A seed replays byte for byte (`trace.rs`). So nothing here, nor in the library, may depend on random hashes or on the order
//! in which tokio's `watch` wakes tasks: `watched.rs` has one that keeps their order.

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
