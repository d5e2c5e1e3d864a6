//! `dns_sd_configs`.

use stint_model::Span;

use super::{port, refresh_interval};
use crate::config::decode::Section;

/// Targets that DNS knows.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DnsDiscovery {
    /// Names to look up; one without a final dot is tried with the system's search domains.
    pub names: Vec<String>,
    /// What is looked up of them.
    pub kind: RecordKind,
    /// The port of targets, for records that do not hold one.
    pub port: u16,
    /// How often.
    pub refresh_interval: Span,
}

/// A kind of DNS records that lists targets.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[expect(missing_docs, reason = "the names are those of DNS")]
pub enum RecordKind {
    A,
    Aaaa,
    Mx,
    Ns,
    Srv,
}

pub(super) fn read(section: &mut Section<'_>) -> Vec<DnsDiscovery> {
    let mut found = Vec::new();
    for mut dns in section.sections("dns_sd_configs") {
        let names = dns.strings("names");
        if names.is_empty() {
            let message = "DNS-SD config must contain at least one SRV record name";
            dns.error("names", message);
        }
        let kind = dns.parsed("type", |text| match text.to_ascii_uppercase().as_str() {
            "A" => Ok(RecordKind::A),
            "AAAA" => Ok(RecordKind::Aaaa),
            "MX" => Ok(RecordKind::Mx),
            "NS" => Ok(RecordKind::Ns),
            "SRV" | "" => Ok(RecordKind::Srv),
            _ => Err(format!("invalid DNS-SD records type {text}, use A, AAAA, MX, NS or SRV")),
        });
        let kind = kind.unwrap_or(RecordKind::Srv);
        let port = port(&mut dns, 0);
        if port == 0 && kind != RecordKind::Srv {
            let message = "a port is required in DNS-SD configs for all record types except SRV";
            dns.error("port", message);
        }
        let refresh_interval = refresh_interval(&mut dns, 30);
        found.push(DnsDiscovery { names, kind, port, refresh_interval });
        dns.finish();
    }
    found
}
