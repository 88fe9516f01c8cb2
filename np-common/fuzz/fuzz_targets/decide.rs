//! The verdict.
#![no_main]

libfuzzer_sys::fuzz_target!(|scenario: np_fuzz::scenario::Scenario| {
    np_fuzz::decide::check(&scenario);
});
