//! What the outside sees of scraping.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::time::Duration;

use foldhash::fast::RandomState;
use parking_lot::Mutex;
use stint_model::{Labels, Metadata, MetricType, Timestamp};

use super::target::Target;

/// How many scrapes metadata is remembered after its family was last exposed.
const METADATA_KEPT_SCRAPES: u64 = 10;

/// How a target did at its last scrape.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Health {
    /// Not scraped yet.
    #[default]
    Unknown,
    /// Scraped.
    Up,
    /// Failed.
    Down,
}

impl Health {
    /// The name used in the API.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Unknown => "unknown",
            Self::Up => "up",
            Self::Down => "down",
        }
    }
}

/// A target that is scraped.
#[derive(Clone, Debug, PartialEq)]
pub struct ActiveTarget {
    /// As discovered, before relabelling.
    pub discovered: Labels,
    /// What its samples get.
    pub labels: Labels,
    /// Its job.
    pub pool: String,
    /// Where its metrics are.
    pub url: String,
    /// Why the last scrape failed; empty when it did not.
    pub last_error: String,
    /// When the last scrape began.
    pub last_scrape: Option<Timestamp>,
    /// How long it took.
    pub last_duration: Duration,
    /// How it went.
    pub health: Health,
    /// How often it is scraped, as it is written.
    pub interval: String,
    /// When a scrape is given up, as it is written.
    pub timeout: String,
}

/// A target that relabelling dropped.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DroppedTarget {
    /// As discovered.
    pub discovered: Labels,
    /// Its job.
    pub pool: String,
}

/// All targets at one moment.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Status {
    /// Names of the jobs, sorted.
    pub pools: Vec<String>,
    /// By job, then by URL and labels.
    pub active: Vec<ActiveTarget>,
    /// By job; no more of each than the job's `keep_dropped_targets`.
    pub dropped: Vec<DroppedTarget>,
    /// How many each job dropped.
    pub dropped_counts: BTreeMap<String, u64>,
}

/// What a target says about one of its metric families.
#[derive(Clone, Debug, PartialEq)]
pub struct TargetMetadata {
    /// The target's labels.
    pub target: Labels,
    /// The family.
    pub family: String,
    /// Type, help and unit.
    pub metadata: Metadata,
}

/// One target's state, written by its loop.
#[derive(Debug)]
pub(super) struct TargetState {
    pub(super) target: Arc<Target>,
    last: Mutex<Last>,
    pub(super) families: Arc<Families>,
}

#[derive(Clone, Debug, Default)]
pub(super) struct Last {
    pub(super) error: String,
    pub(super) at: Option<Timestamp>,
    pub(super) duration: Duration,
    pub(super) health: Health,
}

impl TargetState {
    pub(super) fn new(target: Arc<Target>, families: Arc<Families>) -> Self {
        Self { target, last: Mutex::default(), families }
    }

    pub(super) fn set_last(&self, last: Last) {
        *self.last.lock() = last;
    }

    /// Carries over what another state of the same target knows.
    pub(super) fn inherit(&self, other: &Self) {
        let last = other.last.lock().clone();
        self.set_last(last);
    }

    pub(super) fn show(&self, pool: &str) -> ActiveTarget {
        let last = self.last.lock().clone();
        let (interval, timeout) = self.target.shown_timing();
        ActiveTarget {
            discovered: self.target.discovered.clone(),
            labels: self.target.labels.clone(),
            pool: pool.to_owned(),
            url: self.target.url.clone(),
            last_error: last.error,
            last_scrape: last.at,
            last_duration: last.duration,
            health: last.health,
            interval: interval.to_owned(),
            timeout: timeout.to_owned(),
        }
    }
}

/// Metadata of one target's families.
#[derive(Debug, Default)]
pub(super) struct Families {
    /// Locked for the whole of one body.
    known: Mutex<FamilyMap>,
}

/// The families by name.
#[derive(Debug, Default)]
pub(super) struct FamilyMap {
    families: HashMap<String, Family, RandomState>,
    changed: Vec<String>,
    scrape: u64,
}

#[derive(Debug, Default)]
struct Family {
    metadata: Metadata,
    /// The scrapes that saw it first and last.
    born: u64,
    seen: u64,
}

impl Families {
    pub(super) fn lock(&self) -> parking_lot::MutexGuard<'_, FamilyMap> {
        self.known.lock()
    }

    /// A copy, sorted by name.
    pub(super) fn list(&self) -> Vec<(String, Metadata)> {
        let known = self.known.lock();
        let copy = |(name, family): (&String, &Family)| (name.clone(), family.metadata.clone());
        let mut list: Vec<_> = known.families.iter().map(copy).collect();
        list.sort_by(|a, b| a.0.cmp(&b.0));
        list
    }
}

impl FamilyMap {
    /// How many families are known.
    pub(super) fn len(&self) -> usize {
        self.families.len()
    }

    pub(super) fn set_kind(&mut self, family: &str, kind: MetricType) {
        self.change(family, |metadata| {
            let differs = metadata.kind != kind;
            metadata.kind = kind;
            differs
        });
    }

    pub(super) fn set_help(&mut self, family: &str, help: &str) {
        self.change(family, |metadata| set(&mut metadata.help, help));
    }

    pub(super) fn set_unit(&mut self, family: &str, unit: &str) {
        self.change(family, |metadata| set(&mut metadata.unit, unit));
    }

    fn change(&mut self, name: &str, change: impl FnOnce(&mut Metadata) -> bool) {
        let scrape = self.scrape;
        let (family, new) = if let Some(family) = self.families.get_mut(name) {
            (family, false)
        } else {
            let family = Family { born: scrape, ..Family::default() };
            (self.families.entry(name.to_owned()).or_insert(family), true)
        };
        family.seen = scrape;
        if (change(&mut family.metadata) || new)
            && self.changed.last().is_none_or(|last| last != name)
        {
            self.changed.push(name.to_owned());
        }
    }

    /// Ends a scrape that failed: what only it has shown is forgotten, since failing scrapes may show
    /// ever new families; what it changed is told with the next good one.
    pub(super) fn fail(&mut self) {
        let scrape = self.scrape;
        self.families.retain(|_, family| family.born < scrape);
        self.changed.retain(|name| self.families.contains_key(name));
        self.changed.sort_unstable();
        self.changed.dedup();
    }

    /// Takes back what [`Self::finish`] returned: it could not be stored.
    pub(super) fn untold(&mut self, metadata: &[(String, Metadata)]) {
        self.changed.extend(metadata.iter().map(|(name, _)| name.clone()));
        self.changed.sort_unstable();
        self.changed.dedup();
    }

    /// Ends a scrape: forgets what has not been seen for long, and returns what is new.
    pub(super) fn finish(&mut self) -> Vec<(String, Metadata)> {
        let oldest = self.scrape.saturating_sub(METADATA_KEPT_SCRAPES);
        self.families.retain(|_, family| family.seen >= oldest);
        self.scrape += 1;
        let changed = std::mem::take(&mut self.changed);
        let with_metadata = |name: String| {
            let metadata = self.families.get(&name)?.metadata.clone();
            Some((name, metadata))
        };
        changed.into_iter().filter_map(with_metadata).collect()
    }
}

fn set(slot: &mut String, text: &str) -> bool {
    if slot == text {
        return false;
    }
    text.clone_into(slot);
    true
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn metadata_outlives_its_family_by_ten_scrapes() {
        let families = Families::default();
        families.lock().set_kind("a", MetricType::Counter);
        families.lock().set_help("a", "help");
        let changed = families.lock().finish();
        assert_eq!(changed.len(), 1);
        assert_eq!((changed[0].1.kind, &*changed[0].1.help), (MetricType::Counter, "help"));
        for _ in 0..METADATA_KEPT_SCRAPES {
            assert!(families.lock().finish().is_empty());
            assert_eq!(families.list().len(), 1);
        }
        families.lock().finish();
        assert!(families.list().is_empty());
    }

    #[test]
    fn only_changes_are_handed_on() {
        let families = Families::default();
        families.lock().set_help("a", "x");
        assert_eq!(families.lock().finish().len(), 1);
        families.lock().set_help("a", "x");
        assert!(families.lock().finish().is_empty());
        families.lock().set_help("a", "y");
        families.lock().set_unit("a", "bytes");
        assert_eq!(families.lock().finish().len(), 1);
    }

    #[test]
    fn what_could_not_be_stored_is_handed_on_again() {
        let families = Families::default();
        families.lock().set_help("a", "x");
        let told = families.lock().finish();
        families.lock().untold(&told);
        assert_eq!(families.lock().finish(), told);
    }

    #[test]
    fn families_that_only_failing_scrapes_show_do_not_pile_up() {
        let families = Families::default();
        families.lock().set_help("a", "x");
        families.lock().finish();
        for n in 0..100 {
            families.lock().set_help(&format!("new_{n}"), "x");
            families.lock().set_help("a", "y");
            families.lock().fail();
        }
        assert_eq!(families.list().len(), 1);
        assert_eq!(families.lock().finish().len(), 1, "the change of `a` is told once");
    }
}
