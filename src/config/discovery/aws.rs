//! `ec2_sd_configs`, and `aws_sd_configs` with the roles `ec2` and `ecs`.

use stint_model::Span;

use super::http::read_url;
use super::{Filter, filters, port, refresh_interval};
use crate::config::decode::Section;
use crate::config::http::{Auth, HttpConfig};
use crate::config::secret::Secret;

/// Machines of EC2.
#[derive(Clone, Debug, PartialEq)]
pub struct Ec2Discovery {
    /// Whom to ask, and as whom.
    pub aws: Aws,
    /// What the list is narrowed to.
    pub filters: Vec<Filter>,
}

/// Tasks of ECS.
#[derive(Clone, Debug, PartialEq)]
pub struct EcsDiscovery {
    /// Whom to ask, and as whom.
    pub aws: Aws,
    /// Names or ARNs of clusters; all when empty.
    pub clusters: Vec<String>,
    /// How many questions are asked at once.
    pub request_concurrency: usize,
}

/// Whom to ask at AWS, and as whom.
#[derive(Clone, Debug, PartialEq)]
pub struct Aws {
    /// The region; empty = the one of the environment or of the machine.
    pub region: String,
    /// Where the API is, instead of at AWS; empty for AWS.
    pub endpoint: String,
    /// Who asks; without keys, what the environment, the shared credentials file, the container
    /// or the machine offers.
    pub keys: Option<AwsKeys>,
    /// The profile of the shared credentials file; empty = `AWS_PROFILE`, or `default`.
    pub profile: String,
    /// A role that is taken on for asking; may be empty.
    pub role_arn: String,
    /// What the role's owner wants to be told; may be empty.
    pub external_id: String,
    /// The port of targets.
    pub port: u16,
    /// How often.
    pub refresh_interval: Span,
    /// How requests are made.
    pub http: HttpConfig,
}

/// A pair of keys written in the configuration.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AwsKeys {
    /// Public.
    pub access_key: String,
    /// Secret.
    pub secret_key: Secret,
}

pub(super) fn read_ec2(section: &mut Section<'_>) -> Vec<Ec2Discovery> {
    let mut found = Vec::new();
    for mut ec2 in section.sections("ec2_sd_configs") {
        let filters = filters(&mut ec2);
        check_filters(&ec2, &filters);
        found.push(Ec2Discovery { filters, aws: Aws::read(&mut ec2) });
        ec2.finish();
    }
    found
}

/// An entry of `aws_sd_configs`.
pub(super) enum AwsRole {
    Ec2(Ec2Discovery),
    Ecs(EcsDiscovery),
}

pub(super) fn read_aws(section: &mut Section<'_>) -> Vec<AwsRole> {
    let mut found = Vec::new();
    for mut entry in section.sections("aws_sd_configs") {
        let role = entry.text("role").unwrap_or_default();
        let aws = Aws::read(&mut entry);
        match role {
            "ec2" => {
                let filters = filters(&mut entry);
                check_filters(&entry, &filters);
                found.push(AwsRole::Ec2(Ec2Discovery { aws, filters }));
            }
            "ecs" => {
                let clusters = entry.strings("clusters");
                let concurrency = entry.usize_or("request_concurrency", 20).clamp(1, 100);
                let ecs = EcsDiscovery { aws, clusters, request_concurrency: concurrency };
                found.push(AwsRole::Ecs(ecs));
            }
            "lightsail" | "elasticache" | "mq" | "msk" | "rds" => {
                let name = entry.name_of("role");
                let hint = "use ec2 or ecs, or list the targets with file_sd_configs or \
                            http_sd_configs, for which a generator writes or serves them";
                entry.error("role", format!("`{name}: {role}` is not supported yet; {hint}"));
                continue;
            }
            "" => entry.error("role", "role missing (one of: ec2, ecs)"),
            _ => entry.error("role", format!("unknown AWS SD role {role:?}; use ec2 or ecs")),
        }
        entry.finish();
    }
    found
}

fn check_filters(section: &Section<'_>, filters: &[Filter]) {
    if filters.iter().any(|filter| filter.values.is_empty()) {
        section.error("filters", "EC2 SD configuration filter values cannot be empty");
    }
}

impl Aws {
    fn read(section: &mut Section<'_>) -> Self {
        let access_key = section.string_or("access_key", "");
        let secret_key = section.secret("secret_key").unwrap_or_default();
        if access_key.is_empty() != secret_key.reveal().is_empty() {
            section.error(
                if access_key.is_empty() { "secret_key" } else { "access_key" },
                "access_key and secret_key must be configured together",
            );
        }
        let keys = (!access_key.is_empty()).then_some(AwsKeys { access_key, secret_key });
        let external_id = section.string_or("external_id", "");
        let role_arn = section.string_or("role_arn", "");
        if !external_id.is_empty() && role_arn.is_empty() {
            section.error("external_id", "external_id needs role_arn");
        }
        let http = HttpConfig::read(section, true);
        if http.auth != Auth::None {
            // It would take the place of the signature.
            section.cx.error(section.at, "requests to AWS are signed; remove other credentials");
        }
        Self {
            region: section.string_or("region", ""),
            endpoint: section
                .parsed("endpoint", |text| {
                    let text = text.trim_end_matches('/');
                    let whole = text.is_empty() || text.contains("://");
                    read_url(&if whole { text.to_owned() } else { format!("https://{text}") })
                })
                .unwrap_or_default(),
            keys,
            profile: section.string_or("profile", ""),
            role_arn,
            external_id,
            port: port(section, 80),
            refresh_interval: refresh_interval(section, 60),
            http,
        }
    }
}
