//! What has to be marked beside the ledger before it can be relied on: that it may not list everything.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use stint_storage::Disk;

use super::decide::TRY_AGAIN;
use crate::budget::beside::Beside;
use crate::budget::doubt::Doubt;
use crate::budget::ledger::unlisted;

/// The marker of a run without a budget, and when markers are tried again.
#[derive(Debug, Default)]
pub(super) struct Marks {
    /// Without a budget: where it is marked that the ledger is written at the end.
    unlisted: Option<(Arc<dyn Disk>, PathBuf)>,
    /// That is not there yet.
    is_due: bool,
    try_at: Duration,
}

impl Marks {
    /// For a run without a budget.
    pub(super) fn unlisted(disk: Arc<dyn Disk>, ledger: &Path) -> Self {
        let unlisted = Some((disk, ledger.to_path_buf()));
        Self { unlisted, is_due: true, try_at: Duration::ZERO }
    }

    fn mark(&self) -> Option<Beside> {
        let (disk, ledger) = self.unlisted.as_ref().filter(|_| self.is_due)?;
        Some(unlisted::mark(Arc::clone(disk), ledger))
    }

    /// Marks here and now; it is tried again where that fails.
    pub(super) fn write_now(&mut self, now: Duration) -> Result<(), String> {
        let marked = self.mark().map_or(Ok(()), |mark| mark.try_write());
        match marked {
            Ok(()) => self.became_durable(),
            Err(error) => return Err(self.failed(&error.to_string(), now)),
        }
        Ok(())
    }

    /// What is to be written first; it is not waited for where the ledger is written.
    pub(super) fn due(
        &self,
        doubt: Option<&Doubt>,
        is_ledger_written: bool,
        now: Duration,
    ) -> Vec<Beside> {
        if now < self.try_at && !is_ledger_written {
            return Vec::new();
        }
        doubt.and_then(Doubt::due).into_iter().chain(self.mark()).collect()
    }

    /// What was due is there.
    pub(super) fn became_durable(&mut self) {
        self.is_due = false;
    }

    /// All is about to be listed, so that a run without a budget needs no marker any more.
    pub(super) fn is_ending(&mut self) {
        self.is_due = false;
    }

    /// It is not; the text is for whoever looks at the endpoint.
    pub(super) fn failed(&mut self, error: &str, now: Duration) -> String {
        self.try_at = now + TRY_AGAIN;
        if self.is_due {
            format!("{error}; after a crash, what is sent now is not known")
        } else {
            format!("{error}; the ledger is not written before")
        }
    }

    /// The ledger lists everything that was sent without a budget.
    pub(super) fn end(&self) -> Option<Beside> {
        let (disk, ledger) = self.unlisted.as_ref()?;
        Some(unlisted::unmark(Arc::clone(disk), ledger))
    }
}
