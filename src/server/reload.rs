//! Noticing that the configuration files changed.

use std::hash::{DefaultHasher, Hash as _, Hasher as _};
use std::path::PathBuf;
use std::time::Duration;

use tokio::time::{Instant, Interval, MissedTickBehavior};

use super::Files;
use crate::config::files_matching;

/// The shortest interval between two looks, as in Prometheus.
const INTERVAL_MIN: Duration = Duration::from_secs(1);

/// Looks at the files regularly.
pub struct Watch {
    paths: Vec<PathBuf>,
    /// Of rule files; named by the configuration in force.
    patterns: Vec<PathBuf>,
    seen: u64,
    ticks: Interval,
}

impl Watch {
    /// Watches the files that exist now, with their present contents as known.
    pub fn new(files: &Files, every: Duration) -> Self {
        let paths: Vec<PathBuf> = files
            .prometheus
            .iter()
            .chain(&files.retention)
            .chain([&files.usual_retention])
            .cloned()
            .collect();
        let every = every.max(INTERVAL_MIN);
        let mut ticks = tokio::time::interval_at(Instant::now() + every, every);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        Self { seen: fingerprint(&paths, &[]), paths, patterns: Vec::new(), ticks }
    }

    /// Watches the rule files that match `patterns`, too, with their present contents as known.
    pub fn watch_rules(&mut self, patterns: &[PathBuf]) {
        if self.patterns != patterns {
            self.patterns = patterns.to_vec();
            self.seen = fingerprint(&self.paths, &self.patterns);
        }
    }

    /// Waits until the contents are others than at the last look. May be dropped while it waits.
    pub async fn changed(&mut self) {
        loop {
            self.ticks.tick().await;
            let (paths, patterns) = (self.paths.clone(), self.patterns.clone());
            let looked = tokio::task::spawn_blocking(move || fingerprint(&paths, &patterns)).await;
            let Ok(now) = looked else { continue };
            if now != self.seen {
                self.seen = now;
                return;
            }
        }
    }
}

/// Of all contents; a file that cannot be read counts as empty.
fn fingerprint(paths: &[PathBuf], patterns: &[PathBuf]) -> u64 {
    let mut hasher = DefaultHasher::new();
    let matching = patterns.iter().flat_map(|pattern| files_matching(pattern).unwrap_or_default());
    for path in paths.iter().cloned().chain(matching) {
        path.hash(&mut hasher);
        std::fs::read(path).unwrap_or_default().hash(&mut hasher);
    }
    hasher.finish()
}
