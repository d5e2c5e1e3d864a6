//! Where targets come from: a mechanism finds groups of targets, the scrape pools make loops of
//! them and the notifier senders.
//!
//! The [`Hub`] runs one task for each different `*_sd_configs` entry, however many jobs have it.
//! A job holds [`Sources`], which show the groups of all its entries as they are known now; the
//! task ends with the last of them. Since a reload takes the new sources before it gives back the
//! old ones, an entry that stays the same goes on undisturbed.

mod answer;
pub mod file;
mod http;
mod hub;
mod metrics;
mod refresh;
mod sources;
#[cfg(test)]
mod testing;

use stint_model::Labels;

use crate::config::StaticGroup;

pub use hub::Hub;
pub use metrics::DiscoveryMetrics;
pub use sources::Sources;

/// The label that holds a target's `host:port`.
pub const ADDRESS: &str = "__address__";

/// Targets that came from one place and change together.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TargetGroup {
    /// Names the place, for logs and for replacing the group later.
    pub source: String,
    /// The labels of each target; [`ADDRESS`] among them.
    pub targets: Vec<Labels>,
    /// Labels of all targets that do not have them themselves.
    pub labels: Labels,
}

impl TargetGroup {
    /// The group of addresses that a file or a configuration lists.
    pub fn fixed(source: String, group: &StaticGroup) -> Self {
        let address = |target: &String| Labels::from_pairs([(ADDRESS, target)]);
        let targets = group.targets.iter().map(address).collect();
        Self { source, targets, labels: group.labels.clone() }
    }

    /// The same with one more label.
    fn with_label(mut self, name: &str, value: &str) -> Self {
        let mut labels = self.labels.to_builder();
        labels.set(name, value);
        self.labels = labels.build();
        self
    }
}

/// Why nothing was found. The targets that were known stay.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct DiscoveryError(String);

impl DiscoveryError {
    fn new(text: impl Into<String>) -> Self {
        Self(text.into())
    }
}
