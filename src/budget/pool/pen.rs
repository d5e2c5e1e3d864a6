//! Who may write the files of a ledger.

use std::sync::Arc;

use parking_lot::Mutex;

/// The right to write an endpoint's ledger and what lies beside it. Whoever takes the place of another
/// withdraws the other's, which may still be writing: a forwarder that was given up waits for its disk.
#[derive(Clone, Debug, Default)]
pub struct Pen {
    /// Held while something is written; true when nothing must be any more.
    is_withdrawn: Arc<Mutex<bool>>,
}

impl Pen {
    /// Lets `write` wait for the disk, unless it was withdrawn.
    pub fn write<T>(&self, write: impl FnOnce() -> T) -> Option<T> {
        let is_withdrawn = self.is_withdrawn.lock();
        (!*is_withdrawn).then(write)
    }

    /// Waits for what is being written. Afterwards nothing is.
    pub fn withdraw(&self) {
        *self.is_withdrawn.lock() = true;
    }

    /// Whether it is the same one.
    pub fn is(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.is_withdrawn, &other.is_withdrawn)
    }
}
