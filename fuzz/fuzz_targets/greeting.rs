//! Fuzzes `sinew::fuzzing::greeting`.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| sinew::fuzzing::greeting(data));
