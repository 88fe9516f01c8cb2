//! The parser.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| np_fuzz::parse::check(data));
