//! `scrape_configs`: which targets are scraped, and how.

use std::path::PathBuf;

use stint_model::labels::NameScheme;
use stint_model::relabel::Rule;
use stint_model::{Labels, Span};

use super::http::HttpConfig;

/// One scrape job.
#[derive(Clone, Debug, PartialEq)]
pub struct ScrapeConfig {
    /// The value of the `job` label, and the pool's name.
    pub job_name: String,
    /// How often.
    pub scrape_interval: Span,
    /// When a scrape is given up; at most the interval.
    pub scrape_timeout: Span,
    /// Formats asked for, best first; never empty.
    pub scrape_protocols: Vec<ScrapeProtocol>,
    /// What a body without a usable content type is taken for; `None` = the scrape fails.
    pub fallback_scrape_protocol: Option<ScrapeProtocol>,
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
    /// Whether the `scrape_*` series about limits and sizes are written too.
    pub extra_scrape_metrics: bool,
    /// Run over each discovered target.
    pub relabel_configs: Vec<Rule>,
    /// Run over each scraped sample.
    pub metric_relabel_configs: Vec<Rule>,
    /// Targets written in the configuration.
    pub static_configs: Vec<StaticGroup>,
    /// Targets read from files.
    pub file_sd_configs: Vec<FileDiscovery>,
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

/// A format of exposed metrics.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum ScrapeProtocol {
    /// `OpenMetrics` text 1.0.0.
    OpenMetricsText1_0_0,
    /// `OpenMetrics` text 0.0.1.
    OpenMetricsText0_0_1,
    /// Prometheus text 1.0.0, with UTF-8 names.
    PrometheusText1_0_0,
    /// Prometheus text 0.0.4.
    PrometheusText0_0_4,
}

impl ScrapeProtocol {
    /// All of them, in the order in which they are preferred.
    pub const ALL: [Self; 4] = [
        Self::OpenMetricsText1_0_0,
        Self::OpenMetricsText0_0_1,
        Self::PrometheusText1_0_0,
        Self::PrometheusText0_0_4,
    ];

    /// The name used in configuration files.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::OpenMetricsText1_0_0 => "OpenMetricsText1.0.0",
            Self::OpenMetricsText0_0_1 => "OpenMetricsText0.0.1",
            Self::PrometheusText1_0_0 => "PrometheusText1.0.0",
            Self::PrometheusText0_0_4 => "PrometheusText0.0.4",
        }
    }
}

/// Targets written in the configuration, or in a discovery file.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct StaticGroup {
    /// `host:port` each.
    pub targets: Vec<String>,
    /// Labels of all of them.
    pub labels: Labels,
}

/// Targets read from files.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FileDiscovery {
    /// JSON or YAML files; the last element of a path may hold one `*`.
    pub files: Vec<PathBuf>,
    /// How often they are read again, changed or not.
    pub refresh_interval: Span,
}
