//! The time after a start without a trustworthy ledger, in which the server may count series that
//! nobody here knows of.
//!
//! A marker beside the ledger keeps the doubt over further restarts: each of them begins the hold
//! time anew. It holds one word for the rule and the number of leases that were readable.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use stint_storage::Disk;
use stint_storage::disk::{read_all, write_atomically};

use crate::budget::limits::MissingLedger;

/// That the ledger may not list everything.
#[derive(Debug)]
pub(super) struct Doubt {
    /// What is assumed about the rest.
    pub(super) rule: MissingLedger,
    /// Leases that were found when the doubt began.
    pub(super) recovered: u64,
    disk: Arc<dyn Disk>,
    marker: PathBuf,
}

fn marker_of(ledger: &Path) -> PathBuf {
    ledger.with_extension("doubt")
}

impl Doubt {
    /// Begins a doubt, durably; a problem with the marker is returned beside it.
    pub(super) fn begin(
        disk: Arc<dyn Disk>,
        ledger: &Path,
        rule: MissingLedger,
        recovered: u64,
    ) -> (Self, Option<String>) {
        let marker = marker_of(ledger);
        let text = format!("{} {recovered}\n", name(rule));
        let create = ledger.parent().map_or(Ok(()), |dir| disk.create_dir(dir));
        let written = create.and_then(|()| write_atomically(&*disk, &marker, text.as_bytes()));
        let problem = written.err().map(|error| error.to_string());
        (Self { rule, recovered, disk, marker }, problem)
    }

    /// The doubt that an earlier run left, if there is one.
    pub(super) fn read(disk: Arc<dyn Disk>, ledger: &Path) -> Option<Self> {
        let marker = marker_of(ledger);
        let (rule, recovered) = match read_all(&*disk, &marker) {
            Ok(bytes) => parse(&bytes),
            Err(error) if error.is_not_found() => return None,
            Err(_) => (MissingLedger::Full, 0),
        };
        Some(Self { rule, recovered, disk, marker })
    }

    /// Ends it: what was unknown has been forgotten by the server. A marker that cannot be removed
    /// makes the next start careful and does no other harm.
    pub(super) fn end(self) {
        if let Err(error) = self.disk.remove(&self.marker) {
            tracing::warn!("{error}");
        }
    }
}

fn name(rule: MissingLedger) -> &'static str {
    match rule {
        MissingLedger::Ramp => "ramp",
        MissingLedger::Full => "full",
        MissingLedger::Nothing => "nothing",
    }
}

fn parse(bytes: &[u8]) -> (MissingLedger, u64) {
    let text = std::str::from_utf8(bytes).unwrap_or_default().trim_end();
    let known = |rule| {
        let rest = text.strip_prefix(name(rule))?.strip_prefix(' ')?;
        Some((rule, rest.parse().ok()?))
    };
    let rules = [MissingLedger::Ramp, MissingLedger::Full, MissingLedger::Nothing];
    rules.into_iter().find_map(known).unwrap_or((MissingLedger::Full, 0))
}
