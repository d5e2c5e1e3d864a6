//! `scrape_configs`: which targets are scraped, and how.

use std::path::PathBuf;

use stint_model::Span;
use stint_model::histogram::{COARSEST_SCHEMA, FINEST_SCHEMA};
use stint_model::labels::{NameScheme, Quoted};
use stint_model::relabel::Rule;
use stint_wire::exposition::{Escaping, Protocol};

use super::decode::{Section, read_bytes};
use super::discovery::{self, SdConfig, StaticGroup};
use super::global::Global;
use super::http::HttpConfig;
use super::relabel;

/// One scrape job.
#[derive(Clone, Debug, PartialEq)]
pub struct ScrapeConfig {
    /// The value of the `job` label, and the pool's name.
    pub job_name: String,
    /// How often.
    pub scrape_interval: Span,
    /// When a scrape is given up; at most the interval.
    pub scrape_timeout: Span,
    /// Formats asked for, best first, never empty; `None` = the default order, which asks for
    /// Protobuf where native histograms are wanted.
    pub scrape_protocols: Option<Vec<Protocol>>,
    /// What a body without a usable content type is taken for; `None` = the scrape fails.
    pub fallback_scrape_protocol: Option<Protocol>,
    /// Path of the URL.
    pub metrics_path: String,
    /// `http` or `https`.
    pub scheme: String,
    /// Query parameters, sorted by name.
    pub params: Vec<(String, Vec<String>)>,
    /// Whether exposed labels win over the target's.
    pub honor_labels: bool,
    /// Whether exposed timestamps count.
    pub honor_timestamps: bool,
    /// Whether series with exposed timestamps get staleness markers.
    pub track_timestamps_staleness: bool,
    /// Whether gzip is asked for.
    pub enable_compression: bool,
    /// What is too much.
    pub limits: Limits,
    /// Which names are accepted.
    pub name_scheme: NameScheme,
    /// How targets are asked to write names that the scheme does not allow.
    pub name_escaping: Escaping,
    /// Whether the `scrape_*` series about limits and sizes are written too.
    pub extra_scrape_metrics: bool,
    /// Whether native histograms are taken.
    pub scrape_native_histograms: bool,
    /// Whether the classic buckets of native histograms are taken too.
    pub always_scrape_classic_histograms: bool,
    /// Whether classic histograms become native ones with custom buckets.
    pub convert_classic_histograms_to_nhcb: bool,
    /// Most buckets of a native histogram, which loses resolution above that; 0 = any number.
    pub native_histogram_bucket_limit: u64,
    /// The finest resolution that native histograms are kept at.
    pub finest_schema: i32,
    /// Where failed scrapes are written down.
    pub scrape_failure_log_file: Option<PathBuf>,
    /// Run over each discovered target.
    pub relabel_configs: Vec<Rule>,
    /// Run over each scraped sample.
    pub metric_relabel_configs: Vec<Rule>,
    /// Targets written in the configuration.
    pub static_configs: Vec<StaticGroup>,
    /// What finds more while the server runs.
    pub sd_configs: Vec<SdConfig>,
    /// How to reach the targets.
    pub http: HttpConfig,
}

/// Limits of a scrape job; 0 = none.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Limits {
    /// Bytes of the uncompressed body.
    pub body_size: u64,
    /// Samples per scrape, after relabelling.
    pub samples: u64,
    /// Targets of the job, after relabelling.
    pub targets: u64,
    /// Labels of a sample, the metric name and the target's labels included.
    pub labels: u64,
    /// Bytes of a label name.
    pub label_name_length: u64,
    /// Bytes of a label value.
    pub label_value_length: u64,
    /// How many dropped targets are remembered for display.
    pub keep_dropped_targets: u64,
}

impl ScrapeConfig {
    /// The escaping scheme's name, as it stands in the `Accept` header.
    pub fn escaping_name(&self) -> &'static str {
        let found = ESCAPINGS.iter().find(|(_, escaping)| *escaping == self.name_escaping);
        found.map_or("allow-utf-8", |(name, _)| name)
    }

    pub(super) fn read(mut section: Section<'_>, global: &Global) -> Self {
        let job_name = section.string_or("job_name", "");
        if job_name.is_empty() {
            section.error("job_name", "job_name is empty");
        }
        let name_scheme = name_scheme(&mut section).unwrap_or(global.name_scheme);
        let name_escaping = name_escaping(&mut section, name_scheme)
            .or(global.name_escaping)
            .filter(|escaping| escaping_fits(*escaping, name_scheme))
            .unwrap_or(match name_scheme {
                NameScheme::Utf8 => Escaping::AllowUtf8,
                NameScheme::Legacy => Escaping::Underscores,
            });
        let (scrape_interval, scrape_timeout) = timing(&mut section, global, &job_name);
        let config = Self {
            scrape_interval,
            scrape_timeout,
            scrape_protocols: protocols(&mut section).or_else(|| global.scrape_protocols.clone()),
            fallback_scrape_protocol: section
                .parsed("fallback_scrape_protocol", |text| {
                    if text.is_empty() { Ok(None) } else { read_protocol(text).map(Some) }
                })
                .flatten(),
            metrics_path: section.string_or("metrics_path", "/metrics"),
            scheme: section
                .parsed("scheme", |text| match text.to_ascii_lowercase() {
                    scheme if scheme == "http" || scheme == "https" => Ok(scheme),
                    _ => Err(format!("{text} is neither http nor https")),
                })
                .unwrap_or_else(|| "http".to_owned()),
            params: params(&mut section),
            honor_labels: section.bool_or("honor_labels", false),
            honor_timestamps: section.bool_or("honor_timestamps", true),
            track_timestamps_staleness: section.bool_or("track_timestamps_staleness", false),
            enable_compression: section.bool_or("enable_compression", true),
            limits: Limits::read(&mut section, global.limits),
            name_scheme,
            name_escaping,
            extra_scrape_metrics: section
                .bool_or("extra_scrape_metrics", global.extra_scrape_metrics),
            scrape_native_histograms: section
                .bool_or("scrape_native_histograms", global.scrape_native_histograms),
            always_scrape_classic_histograms: section.bool_or(
                "always_scrape_classic_histograms",
                global.always_scrape_classic_histograms,
            ),
            convert_classic_histograms_to_nhcb: section.bool_or(
                "convert_classic_histograms_to_nhcb",
                global.convert_classic_histograms_to_nhcb,
            ),
            native_histogram_bucket_limit: section
                .u64("native_histogram_bucket_limit")
                .unwrap_or_default(),
            finest_schema: finest_schema(section.f64("native_histogram_min_bucket_factor")),
            scrape_failure_log_file: section
                .path("scrape_failure_log_file")
                .or_else(|| global.scrape_failure_log_file.clone()),
            relabel_configs: relabel::read(&mut section, "relabel_configs", name_scheme),
            metric_relabel_configs: relabel::read(
                &mut section,
                "metric_relabel_configs",
                name_scheme,
            ),
            static_configs: discovery::read_static(&mut section, name_scheme),
            sd_configs: discovery::read(&mut section),
            http: HttpConfig::read(&mut section, true),
            job_name,
        };
        section.finish();
        config
    }
}

/// The finest schema whose buckets each grow by `factor` at least.
fn finest_schema(factor: Option<f64>) -> i32 {
    match factor {
        Some(factor) if factor > 1.0 => {
            let schema = -factor.log2().log2();
            schema.floor().clamp(f64::from(COARSEST_SCHEMA), f64::from(FINEST_SCHEMA)) as i32
        }
        _ => FINEST_SCHEMA,
    }
}

/// Interval and timeout of a job.
fn timing(section: &mut Section<'_>, global: &Global, job: &str) -> (Span, Span) {
    let positive = |span: &Span| *span > Span::ZERO;
    let interval =
        section.span("scrape_interval").filter(positive).unwrap_or(global.scrape_interval);
    let timeout = section.span("scrape_timeout").filter(positive);
    if timeout.is_some_and(|timeout| timeout > interval) {
        let job = Quoted(job);
        section.error(
            "scrape_timeout",
            format!(
                "scrape timeout greater than scrape interval for scrape config with job name {job}"
            ),
        );
    }
    (interval, timeout.unwrap_or(global.scrape_timeout).min(interval))
}

fn params(section: &mut Section<'_>) -> Vec<(String, Vec<String>)> {
    let mut params: Vec<(String, Vec<String>)> = Vec::new();
    for (key, values) in section.lists("params") {
        params.push((key.text.clone(), values));
    }
    params.sort();
    params
}

/// `metric_name_validation_scheme`, when it is there.
pub(super) fn name_scheme(section: &mut Section<'_>) -> Option<NameScheme> {
    section
        .parsed("metric_name_validation_scheme", |text| match text {
            "utf8" => Ok(Some(NameScheme::Utf8)),
            "legacy" => Ok(Some(NameScheme::Legacy)),
            "" => Ok(None),
            _ => Err(format!("unknown name validation scheme {text}, supported: utf8, legacy")),
        })
        .flatten()
}

/// `metric_name_escaping_scheme`, when it is there.
pub(super) fn name_escaping(section: &mut Section<'_>, scheme: NameScheme) -> Option<Escaping> {
    section
        .parsed("metric_name_escaping_scheme", |text| {
            if text.is_empty() {
                return Ok(None);
            }
            let found = ESCAPINGS.iter().find(|(name, _)| *name == text);
            match found.map(|(_, escaping)| *escaping) {
                Some(escaping) if escaping_fits(escaping, scheme) => Ok(Some(escaping)),
                Some(_) => {
                    Err("allow-utf-8 needs `metric_name_validation_scheme: utf8`".to_owned())
                }
                None => Err(format!(
                    "unknown escaping scheme {text}, supported: allow-utf-8, underscores, dots, \
                     values"
                )),
            }
        })
        .flatten()
}

/// Escaping schemes by their names.
const ESCAPINGS: [(&str, Escaping); 4] = [
    ("allow-utf-8", Escaping::AllowUtf8),
    ("underscores", Escaping::Underscores),
    ("dots", Escaping::Dots),
    ("values", Escaping::Values),
];

fn escaping_fits(escaping: Escaping, scheme: NameScheme) -> bool {
    scheme == NameScheme::Utf8 || escaping != Escaping::AllowUtf8
}

/// `scrape_protocols`, when it is there.
pub(super) fn protocols(section: &mut Section<'_>) -> Option<Vec<Protocol>> {
    if !section.has("scrape_protocols") {
        return None;
    }
    let texts = section.texts("scrape_protocols");
    let mut protocols = Vec::new();
    for (at, text) in &texts {
        match read_protocol(text) {
            Ok(protocol) if protocols.contains(&protocol) => {
                section.cx.error(*at, format!("duplicated protocol in scrape_protocols: {text}"));
            }
            Ok(protocol) => protocols.push(protocol),
            Err(message) => section.cx.error(*at, message),
        }
    }
    if texts.is_empty() {
        section.error("scrape_protocols", "scrape_protocols cannot be empty");
    }
    (!protocols.is_empty()).then_some(protocols)
}

fn read_protocol(text: &str) -> Result<Protocol, String> {
    Protocol::from_name(text).ok_or_else(|| {
        let supported = Protocol::ALL.map(Protocol::as_str).join(", ");
        format!("unknown scrape protocol {text}, supported: {supported}")
    })
}

/// A size; a negative one lifts the limit, where 0 inherits it.
fn read_body_size(text: &str) -> Result<u64, String> {
    match text.strip_prefix('-') {
        Some(size) => read_bytes(size).map(|_| u64::MAX),
        None => read_bytes(text),
    }
}

impl Limits {
    /// The limits of `section`; what is absent or 0 is taken from `inherited`.
    pub(super) fn read(section: &mut Section<'_>, inherited: Self) -> Self {
        let or = |own: Option<u64>, inherited| own.filter(|own| *own > 0).unwrap_or(inherited);
        Self {
            body_size: or(section.parsed("body_size_limit", read_body_size), inherited.body_size),
            samples: or(section.u64("sample_limit"), inherited.samples),
            targets: or(section.u64("target_limit"), inherited.targets),
            labels: or(section.u64("label_limit"), inherited.labels),
            label_name_length: or(
                section.u64("label_name_length_limit"),
                inherited.label_name_length,
            ),
            label_value_length: or(
                section.u64("label_value_length_limit"),
                inherited.label_value_length,
            ),
            keep_dropped_targets: or(
                section.u64("keep_dropped_targets"),
                inherited.keep_dropped_targets,
            ),
        }
    }
}
