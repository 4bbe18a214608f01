//! Fuzzes `sinew::fuzzing::roundtrip`.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| sinew::fuzzing::roundtrip(data));
