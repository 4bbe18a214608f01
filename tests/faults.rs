//! Faults: real processes are killed and stopped, real sockets are starved, silenced and flooded; what was promised holds.
//!
//! ```text
//! cargo test --test faults                                    everything, on a small scale: less than a minute
//! SINEW_SOAK=60 cargo test --release --test faults            each case on its large scale: ten million messages past
//!                                                             kill -9, 10,000 cycles, 10,000 held connections, 1,000
//!                                                             sockets, a minute of soak
//! SINEW_SHORT_SOAK=60 cargo test --test faults                the small scale, but a minute of soak: what .ci/run does
//! SINEW_SOAK=600 cargo test --release --test faults soak -- --ignored --nocapture
//!                                                             all faults at random for ten minutes, with flat memory
//! SINEW_SEED=<number>                                         the same choices again
//! ```
//!
//! The tests start processes of their own: this very program again, with one test and a part to play in it. What changes
//! or measures the whole process (limits, descriptors, memory) runs alone in such a process too. A process ends when the
//! one that started it has gone.
#![cfg(target_os = "linux")] // signals, /proc, network namespaces
#![allow(clippy::cast_possible_truncation)] // the numbers of messages are small

mod common;

#[path = "faults/crowd.rs"]
mod crowd;
#[path = "faults/descriptors.rs"]
mod descriptors;
#[path = "faults/held.rs"]
mod held;
#[path = "faults/ipc.rs"]
mod ipc;
#[path = "faults/kill.rs"]
mod kill;
#[path = "faults/measure.rs"]
mod measure;
#[path = "faults/names.rs"]
mod names;
#[path = "faults/panics.rs"]
mod panics;
#[path = "faults/parts.rs"]
mod parts;
#[path = "faults/process.rs"]
mod process;
#[path = "faults/shutdown.rs"]
mod shutdown;
#[path = "faults/silence.rs"]
mod silence;
#[path = "faults/slowloris.rs"]
mod slowloris;
#[path = "faults/soak.rs"]
mod soak;
#[path = "faults/stop.rs"]
mod stop;
#[path = "faults/subscribers.rs"]
mod subscribers;
