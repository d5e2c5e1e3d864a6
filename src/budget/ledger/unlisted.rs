//! That a run sends without a budget, and lists what it sent when it ends.
//!
//! Nobody waits for the disk before a series is sent then. So while such a run is at work, or when it
//! did not end in order, a marker beside the ledger says that more may be counted than it lists.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use stint_storage::Disk;

use crate::budget::beside::Beside;

fn marker_of(ledger: &Path) -> PathBuf {
    ledger.with_extension("unlisted")
}

/// Says so of `ledger`.
pub(in crate::budget) fn mark(disk: Arc<dyn Disk>, ledger: &Path) -> Beside {
    let loss = "after a crash, what is sent now is not known";
    Beside { disk, path: marker_of(ledger), content: Some(b"unlisted\n".to_vec()), loss }
}

/// Whether that is so. Where it cannot be seen, it is.
pub(in crate::budget) fn is_marked(disk: &dyn Disk, ledger: &Path) -> bool {
    match disk.open(&marker_of(ledger)) {
        Ok(_) => true,
        Err(error) => !error.is_not_found(),
    }
}

/// The ledger lists everything again.
pub(in crate::budget) fn unmark(disk: Arc<dyn Disk>, ledger: &Path) -> Beside {
    let loss = "the next start takes the ledger for incomplete";
    Beside { disk, path: marker_of(ledger), content: None, loss }
}
