//! Fuzzes `sinew::fuzzing::connection`.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| sinew::fuzzing::connection(data));
