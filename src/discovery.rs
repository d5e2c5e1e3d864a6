//! Where targets come from: a discoverer hands over groups of targets, the scrape pools make
//! loops of them.

pub mod file;

use stint_model::Labels;

use crate::config::StaticGroup;

/// The label that holds a target's `host:port`.
pub const ADDRESS: &str = "__address__";

/// Targets that came from one place and change together.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TargetGroup {
    /// Names the place, for logs.
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
}
