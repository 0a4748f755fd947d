//! What `unix/threads` has, of the model checker: each of these is a point at which another thread
//! may take over.

pub use shuttle::sync::atomic::{AtomicI32, AtomicUsize, Ordering};
pub use shuttle::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
pub use shuttle::thread::{Builder, Thread, current, park_timeout, spawn};
