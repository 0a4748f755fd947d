//! The fuzz targets as functions; `src/main.rs` gives one of them to libFuzzer.

pub mod targets;
