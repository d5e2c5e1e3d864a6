//! What a decision of the budget has to wait for: it is written while the budget is not locked, so that
//! others look at it and send meanwhile.

use stint_storage::DiskError;

use crate::budget::beside::Beside;
use crate::budget::ledger::{GrantError, Write, Written};
use crate::budget::pool::{LeftWrite, LeftWritten, Pen};
use crate::budget::share::Plan;

/// What was decided over groups, if what it needs becomes durable.
#[derive(Debug)]
pub(super) struct Decided {
    pub(super) plan: Plan,
    /// All were looked at.
    pub(super) all: bool,
}

/// What is to be written.
#[must_use]
#[derive(Debug)]
pub struct Work {
    pub(super) pen: Pen,
    pub(super) decided: Option<Decided>,
    /// What has to be there before the ledger is written.
    pub(super) marks: Vec<Beside>,
    pub(super) ledger: Option<Write>,
    pub(super) granted: Result<u64, GrantError>,
    /// Afterwards the ledger lists what the server has told of.
    pub(super) lists_told: bool,
    /// Nothing is sent afterwards.
    pub(super) is_last: bool,
    pub(super) left: Vec<LeftWrite>,
    pub(super) beside: Vec<Beside>,
}

/// What came of it; to be brought back by [`Admission::settle`](super::Admission::settle).
#[must_use]
#[derive(Debug)]
pub struct Done {
    pub(super) decided: Option<Decided>,
    /// Nothing where nothing was to be marked.
    pub(super) marked: Option<Result<(), String>>,
    pub(super) ledger: Option<Written>,
    pub(super) granted: Result<u64, GrantError>,
    pub(super) lists_told: bool,
    pub(super) is_last: bool,
    pub(super) left: Vec<LeftWritten>,
}

impl Work {
    /// Writes. It waits for the disk: nobody who does holds the budget's lock.
    pub fn write(self) -> Done {
        let Self { pen, decided, marks, ledger, granted, lists_told, is_last, left, beside } = self;
        let mut ledger = ledger;
        let written = pen.write(|| {
            let written = written_behind(&marks, ledger.take());
            beside.into_iter().for_each(Beside::write);
            written
        });
        let (ledger, marked) = written.unwrap_or_else(|| (ledger.map(Write::give_up), None));
        let left = left.into_iter().filter_map(LeftWrite::run).collect();
        Done { decided, marked, ledger, granted, lists_told, is_last, left }
    }
}

/// What is to be written beside the ledger, which nothing waits for.
#[must_use]
#[derive(Debug)]
pub struct Besides {
    pub(super) pen: Pen,
    pub(super) all: Vec<Beside>,
}

impl Besides {
    /// Whether there is nothing.
    pub fn is_empty(&self) -> bool {
        self.all.is_empty()
    }

    /// Writes, unless another forwarder works for the endpoint by now. It waits for the disk.
    pub fn write(self) {
        let Self { pen, all } = self;
        // Then what it knows is not wanted any more.
        let _ = pen.write(|| all.into_iter().for_each(Beside::write));
    }
}

/// Writes `ledger` if `marks` could be written, and what came of either.
fn written_behind(
    marks: &[Beside],
    ledger: Option<Write>,
) -> (Option<Written>, Option<Result<(), String>>) {
    let marked: Result<(), DiskError> = marks.iter().try_for_each(Beside::try_write);
    let text = (!marks.is_empty()).then(|| marked.as_ref().copied().map_err(ToString::to_string));
    let ledger = ledger.map(|write| match marked {
        Ok(()) => write.run(),
        Err(error) => write.fail(error),
    });
    (ledger, text)
}
