//! Gives the target that the environment's TARGET names to libFuzzer.
#![no_main]

use std::sync::OnceLock;

use posta_fuzz::targets::{Target, find};

static CHOSEN: OnceLock<Target> = OnceLock::new();

libfuzzer_sys::fuzz_target!(|input: &[u8]| {
    let chosen = CHOSEN.get_or_init(|| {
        let name = std::env::var("TARGET").unwrap_or_default();
        find(&name).unwrap_or_else(|| panic!("TARGET: there is no target \"{name}\""))
    });
    chosen(input);
});
