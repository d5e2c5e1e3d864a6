//! What an opened ledger is worth, and the time in which the server may count series that nobody here
//! knows of because it is worth less than it should be.
//!
//! A marker beside the ledger keeps the doubt over further restarts. It holds one word for the rule,
//! the number of leases that were readable, and for how many seconds the server has run since: what
//! is unknown was not sent in that time, so that it adds up. The marker is there before the ledger is
//! written for the first time, since the new file does not show what the old one lacked.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use stint_storage::Disk;
use stint_storage::disk::read_all;

use super::beside::Beside;
use super::ledger::{Found, Ledger, unlisted};
use super::limits::{HOLD, MissingLedger, ON_ITS_WAY};

/// How often the marker is written.
const WRITE_EVERY: Duration = Duration::from_mins(1);
/// What is wrong with a ledger that does not list what was sent without a budget.
const UNLISTED: &str =
    "it does not list what a run without a budget sent that did not end in order";

/// A ledger that is to be opened.
pub(super) struct Opening<'a> {
    pub(super) disk: Arc<dyn Disk>,
    pub(super) path: &'a Path,
    /// What is assumed where there is none; nothing where that says nothing.
    pub(super) missing: Option<MissingLedger>,
    /// Slots of the account that others hold: they are not unknown either.
    pub(super) others: u64,
    /// Whether everything that is sent from now on is listed.
    pub(super) lists: bool,
    /// Monotonic time.
    pub(super) now: Duration,
}

/// A ledger, and what it is worth.
pub(super) struct Opened {
    pub(super) ledger: Ledger,
    pub(super) found: Found,
    pub(super) doubt: Option<Doubt>,
    /// What could not be written.
    pub(super) problem: Option<String>,
}

/// Opens a ledger, and begins or goes on with the doubt that it needs.
pub(super) fn open(opening: Opening<'_>) -> Opened {
    let Opening { disk, path, missing, others, lists, now } = opening;
    let (mut ledger, found) = Ledger::open(Arc::clone(&disk), path, HOLD, now);
    let earlier = Doubt::read(Arc::clone(&disk), path, now);
    let was_unlisted = unlisted::is_marked(&*disk, path);
    let rule = match &found {
        _ if was_unlisted => Some(MissingLedger::Unlisted),
        Found::Leases(_) => None,
        Found::Missing => missing,
        Found::Damaged(_) => Some(MissingLedger::Full),
    };
    let found = match found {
        Found::Leases(_) | Found::Missing if was_unlisted => Found::Damaged(UNLISTED.to_owned()),
        found => found,
    };
    let Some(rule) = rule else {
        return Opened { ledger, found, doubt: earlier, problem: None };
    };
    let earlier = earlier.filter(|doubt| doubt.is_open(now));
    let recovered = ledger.live().saturating_add(others);
    let mut doubt = Doubt {
        rule: earlier.as_ref().map_or(rule, |earlier| stricter(rule, earlier.rule)),
        recovered: earlier.map_or(recovered, |earlier| recovered.min(earlier.recovered)),
        before: Duration::ZERO,
        written: Duration::ZERO,
        began: now,
        is_durable: false,
        disk: Arc::clone(&disk),
        ledger: path.to_path_buf(),
    };
    let marked = doubt.marker().try_write();
    doubt.is_durable = marked.is_ok();
    let problem = match marked {
        // From now on there is a ledger, even if nothing is ever granted.
        Ok(()) => ledger.checkpoint(now).err().map(|error| error.to_string()),
        Err(error) => {
            ledger.want_checkpoint();
            Some(error.to_string())
        }
    };
    if was_unlisted && lists && problem.is_none() {
        // It is in doubt instead.
        unlisted::unmark(disk, path).write();
    }
    Opened { ledger, found, doubt: Some(doubt), problem }
}

/// What holds when a ledger falls short while it is in doubt already.
fn stricter(rule: MissingLedger, earlier: MissingLedger) -> MissingLedger {
    let strictness = |rule: &MissingLedger| match rule {
        MissingLedger::Nothing => 0,
        MissingLedger::Ramp => 1,
        MissingLedger::Full => 2,
        MissingLedger::Unlisted => 3,
    };
    match (rule, earlier) {
        // What was granted beside the target is among what is unknown now.
        (MissingLedger::Full, MissingLedger::Full) => MissingLedger::Unlisted,
        _ => std::cmp::max_by_key(rule, earlier, strictness),
    }
}

/// That the ledger may not list everything.
#[derive(Debug)]
pub(super) struct Doubt {
    /// What is assumed about the rest.
    pub(super) rule: MissingLedger,
    /// Leases that were found when the doubt began.
    pub(super) recovered: u64,
    /// How long it had lasted when the ledger was opened.
    before: Duration,
    /// The part of it that is written.
    written: Duration,
    /// When the ledger was opened.
    began: Duration,
    /// Its marker is there.
    is_durable: bool,
    disk: Arc<dyn Disk>,
    ledger: PathBuf,
}

impl Doubt {
    /// The doubt that an earlier run left, if there is one.
    fn read(disk: Arc<dyn Disk>, ledger: &Path, now: Duration) -> Option<Self> {
        let (rule, recovered, before) = match read_all(&*disk, &marker_of(ledger)) {
            Ok(bytes) => parse(&bytes),
            Err(error) if error.is_not_found() => return None,
            Err(_) => (MissingLedger::Full, 0, Duration::ZERO),
        };
        let ledger = ledger.to_path_buf();
        let (written, is_durable) = (before, true);
        Some(Self { rule, recovered, before, written, began: now, is_durable, disk, ledger })
    }

    /// How long it has lasted.
    pub(super) fn age(&self, now: Duration) -> Duration {
        self.before.saturating_add(now.saturating_sub(self.began))
    }

    /// Whether the server may be counting what nobody here knows of.
    pub(super) fn is_open(&self, now: Duration) -> bool {
        self.rule != MissingLedger::Nothing && !self.is_over(now)
    }

    fn is_over(&self, now: Duration) -> bool {
        self.age(now) >= HOLD.to_std() + ON_ITS_WAY
    }

    /// What has to be written before the ledger is.
    pub(super) fn due(&self) -> Option<Beside> {
        (!self.is_durable).then(|| self.marker())
    }

    /// That was written.
    pub(super) fn became_durable(&mut self) {
        self.is_durable = true;
    }

    fn marker(&self) -> Beside {
        let (disk, path) = (Arc::clone(&self.disk), marker_of(&self.ledger));
        let text = format!("{} {} {}\n", name(self.rule), self.recovered, self.written.as_secs());
        let loss = "a restart waits for longer than it has to";
        Beside { disk, path, content: Some(text.into_bytes()), loss }
    }

    /// What is to be written now and then of how long it has lasted.
    fn keep(&mut self, now: Duration) -> Option<Beside> {
        let age = self.age(now);
        if !self.is_durable || age < self.written + WRITE_EVERY {
            return None;
        }
        self.written = age;
        Some(self.marker())
    }

    /// Lets time pass: what is to be written of how long it has lasted, or of its end.
    pub(super) fn pass(doubt: &mut Option<Self>, lists: bool, now: Duration) -> Vec<Beside> {
        match doubt.take() {
            Some(doubt) if doubt.is_over(now) => doubt.end(lists),
            Some(mut going_on) => {
                let kept = going_on.keep(now);
                *doubt = Some(going_on);
                kept.into_iter().collect()
            }
            None => Vec::new(),
        }
    }

    /// Ends it: what was unknown has been forgotten by the server, or is listed. Where the ledger `lists`
    /// what is sent, it is not incomplete for another reason either. A marker that cannot be removed makes
    /// the next start careful and does no other harm.
    pub(super) fn end(self, lists: bool) -> Vec<Beside> {
        let Self { disk, ledger, .. } = self;
        let unmark = lists.then(|| unlisted::unmark(Arc::clone(&disk), &ledger));
        let (path, loss) = (marker_of(&ledger), "the next start is careful");
        unmark.into_iter().chain([Beside { disk, path, content: None, loss }]).collect()
    }
}

fn marker_of(ledger: &Path) -> PathBuf {
    ledger.with_extension("doubt")
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

#[cfg(test)]
mod tests;
