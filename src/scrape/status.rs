//! What the outside sees of scraping.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use stint_model::{Labels, Metadata, Timestamp};

use super::families::Families;
use super::target::Target;

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
    /// As discovery found it last; what relabelling drops of it may change while the target stays.
    discovered: Mutex<Labels>,
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
        let discovered = Mutex::new(target.discovered.clone());
        Self { target, discovered, last: Mutex::default(), families }
    }

    /// Notes how discovery found the target now.
    pub(super) fn found_as(&self, discovered: Labels) {
        *self.discovered.lock() = discovered;
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
            discovered: self.discovered.lock().clone(),
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
