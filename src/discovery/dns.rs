//! `dns_sd_configs`: names are looked up, and each record is a target.

use std::path::PathBuf;

use futures_util::stream::{self, StreamExt as _};
use prometheus::IntCounter;
use stint_model::Labels;

use super::metrics::DiscoveryMetrics;
use super::refresh::{Discoverer, Found};
use super::{ADDRESS, DiscoveryError, TargetGroup, host_port};
use crate::config::{DnsDiscovery, RecordKind};
use resolve::{Record, Resolver};

mod resolve;

/// Where the system says whom to ask.
const RESOLV_CONF: &str = "/etc/resolv.conf";
/// How many names are looked up at once.
const LOOKUPS_MAX: usize = 16;

const NAME: &str = "__meta_dns_name";
const SRV_TARGET: &str = "__meta_dns_srv_record_target";
const SRV_PORT: &str = "__meta_dns_srv_record_port";
const MX_TARGET: &str = "__meta_dns_mx_record_target";
const NS_TARGET: &str = "__meta_dns_ns_record_target";

/// Names that are looked up from time to time.
pub(super) struct DnsNames {
    config: DnsDiscovery,
    /// Read at each look, since networks come and go.
    resolv_conf: PathBuf,
    lookups: IntCounter,
    failures: IntCounter,
}

impl DnsNames {
    pub(super) fn new(config: &DnsDiscovery, metrics: &DiscoveryMetrics) -> Self {
        Self {
            config: config.clone(),
            resolv_conf: RESOLV_CONF.into(),
            lookups: metrics.dns_lookups.clone(),
            failures: metrics.dns_failures.clone(),
        }
    }

    /// The group of `name`.
    async fn look_up(
        &self,
        resolver: &Resolver,
        name: &str,
    ) -> Result<TargetGroup, DiscoveryError> {
        self.lookups.inc();
        let records = resolver.look_up(name, self.config.kind).await;
        let records = records.inspect_err(|_| self.failures.inc())?;
        let targets = records.iter().map(|record| self.target(name, record)).collect();
        Ok(TargetGroup { source: name.to_owned(), targets, labels: Labels::default() })
    }

    fn target(&self, name: &str, record: &Record) -> Labels {
        let port = self.config.port;
        let rooted = |name: &String| format!("{name}.");
        match record {
            Record::Address(address) => Labels::from_pairs([
                (ADDRESS, host_port(&address.to_string(), port)),
                (NAME, name.to_owned()),
            ]),
            Record::Service { target, port } => Labels::from_pairs([
                (ADDRESS, host_port(target, *port)),
                (NAME, name.to_owned()),
                (SRV_TARGET, rooted(target)),
                (SRV_PORT, port.to_string()),
            ]),
            Record::Host(target) => Labels::from_pairs([
                (ADDRESS, host_port(target, port)),
                (NAME, name.to_owned()),
                (
                    if self.config.kind == RecordKind::Mx { MX_TARGET } else { NS_TARGET },
                    rooted(target),
                ),
            ]),
        }
    }
}

impl Discoverer for DnsNames {
    async fn refresh(&mut self) -> Result<Found, DiscoveryError> {
        let path = &self.resolv_conf;
        let text = tokio::fs::read_to_string(path).await;
        let text = text
            .map_err(|error| DiscoveryError(format!("cannot read {}: {error}", path.display())))?;
        let (this, resolver) = (&*self, &Resolver::of(&text));
        let lookups = stream::iter(this.config.names.clone()).map(move |name| async move {
            let group = this.look_up(resolver, &name).await;
            (name, group)
        });
        let groups: Vec<_> = lookups.buffered(LOOKUPS_MAX).collect().await;
        let mut found = Found::default();
        for (name, group) in groups {
            match group {
                Ok(group) => found.groups.push(group),
                Err(error) => found.unknown.push((name, error)),
            }
        }
        Ok(found)
    }
}

#[cfg(test)]
mod tests;
