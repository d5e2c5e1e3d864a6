//! Where targets come from: a mechanism finds groups of targets, the scrape pools make loops of
//! them and the notifier senders.
//!
//! The [`Hub`] runs one task for each different `*_sd_configs` entry, however many jobs have it.
//! A job holds [`Sources`], which show the groups of all its entries as they are known now; the
//! task ends with the last of them. Since a reload takes the new sources before it gives back the
//! old ones, an entry that stays the same goes on undisturbed.

mod answer;
mod aws;
mod consul;
mod dns;
mod docker;
pub mod file;
mod http;
mod hub;
mod kubernetes;
mod metrics;
mod refresh;
mod sources;
#[cfg(test)]
pub(crate) mod testing;

use std::net::IpAddr;

use serde::{Deserialize, Deserializer};
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

/// `host:port`, with brackets around an address that has colons itself.
fn host_port(host: &str, port: u16) -> String {
    if host.contains(':') { format!("[{host}]:{port}") } else { format!("{host}:{port}") }
}

/// The address in `address/bits`.
fn address_of_network(text: &str) -> Result<String, DiscoveryError> {
    let parsed = text.split_once('/').and_then(|(address, bits)| {
        let address: IpAddr = address.parse().ok()?;
        let most = if address.is_ipv4() { 32 } else { 128 };
        bits.parse::<u8>().is_ok_and(|bits| bits <= most).then_some(address)
    });
    let wrong = || DiscoveryError(format!("{text:?} is not an address with a network's length"));
    Ok(parsed.ok_or_else(wrong)?.to_string())
}

/// `text` as a part of a label's name: what no name can have becomes `_`.
fn sanitised(text: &str) -> String {
    let fits = |c: char| if c.is_ascii_alphanumeric() { c } else { '_' };
    text.chars().map(fits).collect()
}

/// What is null stands for nothing, as in Go.
fn or_default<'de, D, T>(from: D) -> Result<T, D::Error>
where
    D: Deserializer<'de>,
    T: Deserialize<'de> + Default,
{
    Option::deserialize(from).map(Option::unwrap_or_default)
}
