//! By what threads meet, in the files whose safety hangs on the order of their steps: the standard
//! library's. tests/models puts those of a model checker in their place, and tries orders out.

pub use std::sync::atomic::{AtomicI32, AtomicUsize, Ordering};
pub use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
pub use std::thread::{Builder, Thread, current, park_timeout};
