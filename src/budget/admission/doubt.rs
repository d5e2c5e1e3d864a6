//! The time after a start without a trustworthy ledger, in which the server may count series that
//! nobody here knows of.
//!
//! A marker beside the ledger keeps the doubt over further restarts. It holds one word for the rule,
//! the number of leases that were readable, and for how many seconds the server has run since: what
//! is unknown was not sent in that time, so that it adds up.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use stint_storage::Disk;
use stint_storage::disk::{read_all, write_atomically};

use crate::budget::beside::Beside;
use crate::budget::limits::MissingLedger;

/// How often the marker is written.
const WRITE_EVERY: Duration = Duration::from_mins(1);

/// That the ledger may not list everything.
#[derive(Debug)]
pub(super) struct Doubt {
    /// What is assumed about the rest.
    pub(super) rule: MissingLedger,
    /// Leases that were found when the doubt began.
    pub(super) recovered: u64,
    /// How long it had lasted at the start.
    before: Duration,
    /// The part of it that is written.
    written: Duration,
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
        let create = ledger.parent().map_or(Ok(()), |dir| disk.create_dir(dir));
        let (before, written) = (Duration::ZERO, Duration::ZERO);
        let doubt = Self { rule, recovered, before, written, disk, marker };
        let write = || write_atomically(&*doubt.disk, &doubt.marker, doubt.text().as_bytes());
        let problem = create.and_then(|()| write()).err().map(|error| error.to_string());
        (doubt, problem)
    }

    /// The doubt that an earlier run left, if there is one.
    pub(super) fn read(disk: Arc<dyn Disk>, ledger: &Path) -> Option<Self> {
        let marker = marker_of(ledger);
        let (rule, recovered, before) = match read_all(&*disk, &marker) {
            Ok(bytes) => parse(&bytes),
            Err(error) if error.is_not_found() => return None,
            Err(_) => (MissingLedger::Full, 0, Duration::ZERO),
        };
        Some(Self { rule, recovered, before, written: before, disk, marker })
    }

    /// How long it has lasted when the server has run for `running`.
    pub(super) fn age(&self, running: Duration) -> Duration {
        self.before.saturating_add(running)
    }

    /// What is to be written now and then of how long it has lasted.
    pub(super) fn keep(&mut self, running: Duration) -> Option<Beside> {
        let age = self.age(running);
        if age < self.written + WRITE_EVERY {
            return None;
        }
        self.written = age;
        let (disk, path) = (Arc::clone(&self.disk), self.marker.clone());
        let loss = "a restart waits for longer than it has to";
        Some(Beside { disk, path, content: Some(self.text().into_bytes()), loss })
    }

    fn text(&self) -> String {
        format!("{} {} {}\n", name(self.rule), self.recovered, self.written.as_secs())
    }

    /// Ends it: what was unknown has been forgotten by the server. A marker that cannot be removed
    /// makes the next start careful and does no other harm.
    pub(super) fn end(self) -> Beside {
        let Self { disk, marker: path, .. } = self;
        Beside { disk, path, content: None, loss: "the next start is careful" }
    }
}

fn name(rule: MissingLedger) -> &'static str {
    match rule {
        MissingLedger::Ramp => "ramp",
        MissingLedger::Full => "full",
        MissingLedger::Unlisted => "unlisted",
        MissingLedger::Nothing => "nothing",
    }
}

fn parse(bytes: &[u8]) -> (MissingLedger, u64, Duration) {
    let text = std::str::from_utf8(bytes).unwrap_or_default().trim_end();
    let known = |rule| {
        let rest = text.strip_prefix(name(rule))?.strip_prefix(' ')?;
        let (recovered, secs) = rest.split_once(' ')?;
        Some((rule, recovered.parse().ok()?, Duration::from_secs(secs.parse().ok()?)))
    };
    let rules =
        [MissingLedger::Ramp, MissingLedger::Full, MissingLedger::Unlisted, MissingLedger::Nothing];
    rules.into_iter().find_map(known).unwrap_or((MissingLedger::Full, 0, Duration::ZERO))
}
