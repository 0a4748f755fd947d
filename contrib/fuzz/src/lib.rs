//! The fuzz targets as functions; `src/bin/` gives them to libFuzzer.

pub mod targets;
