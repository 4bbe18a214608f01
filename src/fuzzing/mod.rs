//! What the fuzz targets in `fuzz/` call: one function per target, which panics if an invariant does not hold.
//!
//! Compiled for fuzzing and for the tests alone, which replay the seeds and all that was ever found.

mod choices;
mod commands;
mod connection;
mod endpoint;
mod frames;
mod greeting;
mod messages;
mod outgoing;
mod roundtrip;
mod topics;

pub use commands::commands;
pub use connection::connection;
pub use endpoint::endpoint;
pub use frames::frames;
pub use greeting::greeting;
pub use outgoing::outgoing;
pub use roundtrip::roundtrip;
pub use topics::topics;

#[cfg(test)]
mod tests {
    use std::fs;
    use std::path::{Path, PathBuf};

    use super::*;

    /// Runs every seed and everything in `fuzz/regressions` through a target.
    fn replay(name: &str, target: fn(&[u8])) {
        let fuzz = Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz");
        let files = ["seeds", "regressions"].map(|kind| fuzz.join(kind).join(name)).map(fs::read_dir);
        let [seeds, regressions] = files.map(|folder| folder.into_iter().flatten().collect::<Vec<_>>());
        assert!(!seeds.is_empty(), "there are no seeds of {name}");
        let paths = seeds.into_iter().chain(regressions).map(|file| file.unwrap().path());
        let fails = |path: &PathBuf| {
            let data = fs::read(path).unwrap();
            std::panic::catch_unwind(|| target(&data)).is_err()
        };
        let failed: Vec<_> = paths.filter(fails).collect();
        assert!(failed.is_empty(), "these fail, see above: {failed:#?}");
    }

    macro_rules! replays {
        ($($target:ident),+ $(,)?) => {$(
            mod $target {
                #[test]
                fn holds_for_all_seeds_and_findings() {
                    super::replay(stringify!($target), super::$target);
                }
            }
        )+};
    }

    replays!(commands, connection, endpoint, frames, greeting, outgoing, roundtrip, topics);
}
