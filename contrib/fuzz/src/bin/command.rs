#![no_main]

libfuzzer_sys::fuzz_target!(|input: &[u8]| posta_fuzz::targets::command(input));
