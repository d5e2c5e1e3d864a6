//! Small files beside the ledger. What they shall hold is decided while the budget is locked; they are
//! written while it is not.

use std::path::PathBuf;
use std::sync::Arc;

use stint_storage::disk::write_atomically;
use stint_storage::{Disk, DiskError};

/// A file that is to be replaced or removed.
#[derive(Debug)]
pub struct Beside {
    pub(super) disk: Arc<dyn Disk>,
    pub(super) path: PathBuf,
    /// What it shall hold; nothing where it is to be removed.
    pub(super) content: Option<Vec<u8>>,
    /// What it means if that fails, for the log.
    pub(super) loss: &'static str,
}

impl Beside {
    /// Does it; it waits for the disk. A failure is logged: these files make a restart know better, and
    /// nothing depends on them.
    pub fn write(self) {
        if let Err(error) = self.try_write() {
            tracing::warn!("{error}; {}", self.loss);
        }
    }

    /// Does it, where something depends on it.
    pub(super) fn try_write(&self) -> Result<(), DiskError> {
        match &self.content {
            Some(content) => {
                self.path.parent().map_or(Ok(()), |dir| self.disk.create_dir(dir))?;
                write_atomically(&*self.disk, &self.path, content)
            }
            None => match self.disk.remove(&self.path) {
                Err(error) if error.is_not_found() => Ok(()),
                outcome => outcome,
            },
        }
    }
}
