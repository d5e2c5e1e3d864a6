//! The machines of EC2.

use std::collections::BTreeMap;
use std::sync::Arc;

use stint_model::labels::LabelsBuilder;
use stint_model::{Clock, Labels};

use super::super::refresh::{Discoverer, Found};
use super::super::{ADDRESS, DiscoveryError, TargetGroup, host_port, sanitised};
use super::credentials::Environment;
use super::xml::Element;
use super::{Caller, Session};
use crate::config::Ec2Discovery;
use crate::http::ClientError;

const PREFIX: &str = "__meta_ec2_";
/// The most network interfaces whose place among the machine's is told.
const DEVICES_MAX: usize = 256;

/// The machines of a region.
pub(in super::super) struct Ec2 {
    caller: Caller,
    config: Ec2Discovery,
    /// The identifiers of availability zones, by name, once they are known.
    zones: Option<BTreeMap<String, String>>,
}

impl Ec2 {
    pub(in super::super) fn new(
        config: &Ec2Discovery,
        clock: Arc<dyn Clock>,
        environment: Environment,
    ) -> Result<Self, ClientError> {
        let caller = Caller::new(&config.aws, clock, environment)?;
        Ok(Self { caller, config: config.clone(), zones: None })
    }

    fn filters(&self) -> Vec<(String, String)> {
        let mut fields = Vec::new();
        for (at, filter) in (1..).zip(&self.config.filters) {
            fields.push((format!("Filter.{at}.Name"), filter.name.clone()));
            for (nth, value) in (1..).zip(&filter.values) {
                fields.push((format!("Filter.{at}.Value.{nth}"), value.clone()));
            }
        }
        fields
    }
}

/// Zones' identifiers by their names. They are worth a label only: without the right to ask,
/// machines are found all the same.
async fn zones(session: &Session<'_>) -> Option<BTreeMap<String, String>> {
    let mut zones = BTreeMap::new();
    let asked = session.ec2("DescribeAvailabilityZones", &[], |page| {
        for zone in page.items("availabilityZoneInfo") {
            if let (Some(name), Some(id)) = (zone.text(&["zoneName"]), zone.text(&["zoneId"])) {
                zones.insert(name.to_owned(), id.to_owned());
            }
        }
    });
    match asked.await {
        Ok(()) => Some(zones),
        Err(error) => {
            tracing::debug!(%error, "availability zones have no identifiers");
            None
        }
    }
}

impl Discoverer for Ec2 {
    async fn refresh(&mut self) -> Result<Found, DiscoveryError> {
        let fields = self.filters();
        let port = self.config.aws.port;
        let session = self.caller.session().await?;
        if self.zones.is_none() {
            self.zones = zones(&session).await;
        }
        let mut targets = Vec::new();
        let context = Context { region: &session.region, zones: self.zones.as_ref(), port };
        let pages = session.ec2("DescribeInstances", &fields, |page| {
            for reservation in page.items("reservationSet") {
                let owner = reservation.text(&["ownerId"]);
                let instances = reservation.items("instancesSet");
                targets.extend(instances.filter_map(|instance| context.target(instance, owner)));
            }
        });
        pages.await?;
        let source = session.region.clone();
        Ok(vec![TargetGroup { source, targets, labels: Labels::default() }].into())
    }
}

struct Context<'a> {
    region: &'a str,
    zones: Option<&'a BTreeMap<String, String>>,
    port: u16,
}

/// The IPv6 addresses of a machine.
#[derive(Default)]
struct Six {
    all: Vec<String>,
    /// By the place of their interface; some places may be empty.
    primary: Vec<String>,
}

impl Context<'_> {
    /// The target that `instance` is, unless it has no address.
    fn target(&self, instance: &Element, owner: Option<&str>) -> Option<Labels> {
        let six = Six::of(instance);
        let default = six.primary.iter().chain(&six.all).find(|address| !address.is_empty());
        let private = instance.text(&["privateIpAddress"]);
        let host = private.or(default.map(String::as_str))?;
        let mut labels = LabelsBuilder::default();
        labels.set(ADDRESS, &host_port(host, self.port));
        let mut set = |name: &str, value: &str| {
            labels.set(&format!("{PREFIX}{name}"), value);
        };
        set("region", self.region);
        set("owner_id", owner.unwrap_or_default());
        for (name, path) in [
            ("instance_id", &["instanceId"][..]),
            ("private_ip", &["privateIpAddress"]),
            ("private_dns_name", &["privateDnsName"]),
            ("platform", &["platform"]),
            ("ami", &["imageId"]),
            ("availability_zone", &["placement", "availabilityZone"]),
            ("instance_state", &["instanceState", "name"]),
            ("instance_type", &["instanceType"]),
            ("instance_lifecycle", &["instanceLifecycle"]),
            ("architecture", &["architecture"]),
        ] {
            set(name, instance.text(path).unwrap_or_default());
        }
        if let Some(public) = instance.text(&["ipAddress"]) {
            set("public_ip", public);
            set("public_dns_name", instance.text(&["dnsName"]).unwrap_or_default());
        }
        let zone = instance.text(&["placement", "availabilityZone"]);
        let zone = zone.and_then(|name| self.zones?.get(name));
        set("availability_zone_id", zone.map_or("", String::as_str));
        set("default_ipv6_address", default.map_or("", String::as_str));
        set("primary_ipv6_addresses", &listed(&six.primary));
        set("ipv6_addresses", &listed(&six.all));
        if let Some(vpc) = instance.text(&["vpcId"]) {
            set("vpc_id", vpc);
            set("primary_subnet_id", instance.text(&["subnetId"]).unwrap_or_default());
            let mut subnets: Vec<String> = Vec::new();
            for interface in instance.items("networkInterfaceSet") {
                let subnet = interface.text(&["subnetId"]);
                if let Some(subnet) = subnet.filter(|subnet| !subnets.iter().any(|s| s == subnet)) {
                    subnets.push(subnet.to_owned());
                }
            }
            // Without a subnet there are two separators, as there are around a list of nothing.
            let subnets = if subnets.is_empty() { ",,".to_owned() } else { listed(&subnets) };
            set("subnet_id", &subnets);
        }
        for tag in instance.items("tagSet") {
            if let Some(key) = tag.text(&["key"]) {
                let name = format!("tag_{}", sanitised(key));
                set(&name, tag.text(&["value"]).unwrap_or_default());
            }
        }
        Some(labels.build())
    }
}

impl Six {
    fn of(instance: &Element) -> Self {
        let mut found = Self::default();
        if instance.text(&["vpcId"]).is_none() {
            return found;
        }
        for interface in instance.items("networkInterfaceSet") {
            if interface.text(&["subnetId"]).is_none() {
                continue;
            }
            let device = interface.text(&["attachment", "deviceIndex"]);
            let device = device.and_then(|device| device.parse::<usize>().ok());
            for item in interface.items("ipv6AddressesSet") {
                let Some(address) = item.text(&["ipv6Address"]) else { continue };
                found.all.push(address.to_owned());
                let is_primary = item.text(&["isPrimaryIpv6"]) == Some("true");
                if let Some(device) = device.filter(|at| is_primary && *at < DEVICES_MAX) {
                    if found.primary.len() <= device {
                        found.primary.resize(device + 1, String::new());
                    }
                    if let Some(slot) = found.primary.get_mut(device) {
                        address.clone_into(slot);
                    }
                }
            }
        }
        found
    }
}

/// The items with separators between and around them; nothing for none.
fn listed(items: &[String]) -> String {
    if items.is_empty() { String::new() } else { format!(",{},", items.join(",")) }
}
