//! What a decision of the budget has to wait for: it is written while the budget is not locked, so that
//! others look at it and send meanwhile.

use crate::budget::beside::Beside;
use crate::budget::ledger::{GrantError, Write, Written};
use crate::budget::pool::{LeftWrite, LeftWritten};
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
    pub(super) decided: Option<Decided>,
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
    pub(super) ledger: Option<Written>,
    pub(super) granted: Result<u64, GrantError>,
    pub(super) lists_told: bool,
    pub(super) is_last: bool,
    pub(super) left: Vec<LeftWritten>,
}

impl Work {
    /// Writes. It waits for the disk: nobody who does holds the budget's lock.
    pub fn write(self) -> Done {
        let Self { decided, ledger, granted, lists_told, is_last, left, beside } = self;
        let ledger = ledger.map(Write::run);
        let left = left.into_iter().filter_map(LeftWrite::run).collect();
        beside.into_iter().for_each(Beside::write);
        Done { decided, ledger, granted, lists_told, is_last, left }
    }
}
