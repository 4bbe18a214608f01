//! Fuzzes `sinew::fuzzing::commands`.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| sinew::fuzzing::commands(data));
