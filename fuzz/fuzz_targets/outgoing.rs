//! Fuzzes `sinew::fuzzing::outgoing`.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| sinew::fuzzing::outgoing(data));
