//! Ledgers that nobody works with: their leases count until the server has forgotten them, and so does
//! what they may not list.

use std::time::Duration;

use crate::budget::beside::Beside;
use crate::budget::doubt::{Doubt, Opened};
use crate::budget::ledger::{Found, Ledger, Write, Written};

use super::pen::Pen;

/// A ledger that nobody works with.
#[derive(Debug)]
pub(super) struct Left {
    pub(super) ledger: Ledger,
    doubt: Option<Doubt>,
    pub(super) found: Found,
    pub(super) pen: Pen,
}

/// What is to be written of a ledger that nobody works with.
#[derive(Debug)]
pub struct LeftWrite {
    name: String,
    /// Before the ledger.
    mark: Option<Beside>,
    write: Option<Write>,
    beside: Vec<Beside>,
    pen: Pen,
}

/// What came of it.
#[derive(Debug)]
pub struct LeftWritten {
    name: String,
    is_marked: bool,
    written: Option<Written>,
    pen: Pen,
}

impl LeftWrite {
    /// Writes, unless somebody works with the ledger by now. It waits for the disk.
    pub fn run(self) -> Option<LeftWritten> {
        let Self { name, mark, write, beside, pen } = self;
        let (is_marked, written) = pen.write(|| {
            let marked = mark.map_or(Ok(()), |mark| mark.try_write());
            let is_marked = marked.is_ok();
            let written = write.map(|write| match marked {
                Ok(()) => write.run(),
                Err(error) => write.fail(error),
            });
            beside.into_iter().for_each(Beside::write);
            (is_marked, written)
        })?;
        Some(LeftWritten { name, is_marked, written, pen })
    }
}

impl LeftWritten {
    /// Of whose ledger.
    pub(super) fn name(&self) -> &str {
        &self.name
    }
}

impl Left {
    pub(super) fn new(opened: Opened) -> Self {
        let Opened { ledger, found, doubt, .. } = opened;
        Self { ledger, doubt, found, pen: Pen::default() }
    }

    /// Whether the server may be counting what the ledger does not list.
    pub(super) fn is_in_doubt(&self, now: Duration) -> bool {
        self.doubt.as_ref().is_some_and(|doubt| doubt.is_open(now))
    }

    /// What is to be written of it at `now`, if there is anything.
    pub(super) fn write(&mut self, name: &str, now: Duration) -> Option<LeftWrite> {
        // Another endpoint may be at it.
        let (write, _) = self.ledger.promise(&[], [], u64::MAX, now);
        let mark = write.as_ref().and_then(|_| self.doubt.as_ref()?.due());
        let beside = Doubt::pass(&mut self.doubt, true, now);
        if write.is_none() && beside.is_empty() {
            return None;
        }
        let (name, pen) = (name.to_owned(), self.pen.clone());
        Some(LeftWrite { name, mark, write, beside, pen })
    }

    /// Brings back what was written.
    pub(super) fn settle(&mut self, written: LeftWritten, now: Duration) {
        let LeftWritten { is_marked, written, pen, .. } = written;
        // Somebody may have come and gone meanwhile.
        if !self.pen.is(&pen) {
            return;
        }
        let Some(written) = written else { return };
        if let Some(doubt) = self.doubt.as_mut().filter(|_| is_marked) {
            doubt.became_durable();
        }
        if let Err(error) = self.ledger.settle(written, now) {
            tracing::warn!("{error}");
        }
    }
}
