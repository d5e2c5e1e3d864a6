//! The locks of the engine: those of `parking_lot`, or ones under whose calls a test chooses what runs
//! next. See `tests/interleavings.rs`.

#[cfg(not(shuttle))]
pub(crate) use parking_lot::{Mutex, MutexGuard, RwLock};
#[cfg(shuttle)]
pub(crate) use shuttle_parking_lot::{Mutex, MutexGuard, RwLock};
