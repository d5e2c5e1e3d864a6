//! `remote_write`: the endpoints that samples are forwarded to.

use stint_model::labels::NameScheme;
use stint_model::relabel::Rule;
use stint_model::{Labels, Span};

use super::decode::{Section, is_off};
use super::http::{self, HttpConfig};
use super::relabel;
use super::retention::Budget;

/// One endpoint.
#[derive(Clone, Debug, PartialEq)]
pub struct RemoteWrite {
    /// Names it in logs, metrics, cursors and `retention.toml`; when the file gives none, six hex
    /// digits made from the section's contents. Unique, never empty.
    pub name: String,
    /// Where to post.
    pub url: String,
    /// When a request is given up.
    pub remote_timeout: Span,
    /// Further request headers.
    pub headers: Vec<(String, String)>,
    /// Run over each series after the external labels are attached.
    pub write_relabel_configs: Vec<Rule>,
    /// Which message is sent.
    pub protobuf_message: ProtobufMessage,
    /// Whether exemplars are sent.
    pub send_exemplars: bool,
    /// Whether native histograms are sent; always, with the 2.0 message.
    pub send_native_histograms: bool,
    /// Batches and retries.
    pub queue: QueueConfig,
    /// Metadata, with the 1.0 message.
    pub metadata: MetadataConfig,
    /// How to reach it.
    pub http: HttpConfig,
    /// Set on what is sent here, over the external labels (from `retention.toml`).
    pub labels: Labels,
    /// What may be spent here (from `retention.toml`).
    pub budget: Budget,
}

/// A message of the remote write protocol.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum ProtobufMessage {
    /// `prometheus.WriteRequest`
    #[default]
    V1,
    /// `io.prometheus.write.v2.Request`
    V2,
}

impl ProtobufMessage {
    /// The name used in configuration files and content types.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::V1 => "prometheus.WriteRequest",
            Self::V2 => "io.prometheus.write.v2.Request",
        }
    }
}

/// `queue_config`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct QueueConfig {
    /// Samples held per shard.
    pub capacity: usize,
    /// Most requests in flight.
    pub max_shards: usize,
    /// Fewest requests in flight.
    pub min_shards: usize,
    /// Samples per request.
    pub max_samples_per_send: usize,
    /// How long a sample waits for its request to fill.
    pub batch_send_deadline: Span,
    /// First wait after a failure.
    pub min_backoff: Span,
    /// Longest wait after failures.
    pub max_backoff: Span,
    /// Whether 429 is retried.
    pub retry_on_http_429: bool,
    /// Samples older than this are not sent; zero = no limit.
    pub sample_age_limit: Span,
}

impl Default for QueueConfig {
    fn default() -> Self {
        Self {
            capacity: 10_000,
            max_shards: 50,
            min_shards: 1,
            max_samples_per_send: 10_000,
            batch_send_deadline: Span(750),
            min_backoff: Span(30),
            max_backoff: Span::from_secs(5),
            retry_on_http_429: false,
            sample_age_limit: Span::ZERO,
        }
    }
}

/// `metadata_config`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct MetadataConfig {
    /// Whether metadata is sent.
    pub send: bool,
    /// How often.
    pub send_interval: Span,
    /// Families per request.
    pub max_samples_per_send: usize,
}

impl Default for MetadataConfig {
    fn default() -> Self {
        Self { send: true, send_interval: Span::MINUTE, max_samples_per_send: 2000 }
    }
}

impl RemoteWrite {
    /// One endpoint; its name is empty when the file gives none, and labels and budget are those
    /// of an endpoint that `retention.toml` does not know.
    pub(super) fn read(mut section: Section<'_>, scheme: NameScheme) -> Self {
        if !section.has("url") {
            section.error("url", "url for remote_write is empty");
        }
        let config = Self {
            name: section.string_or("name", ""),
            url: section.parsed("url", http::read_url).unwrap_or_default(),
            remote_timeout: section
                .span("remote_timeout")
                .filter(|span| *span > Span::ZERO)
                .unwrap_or(Span::from_secs(30)),
            headers: read_headers(&mut section),
            write_relabel_configs: relabel::read(&mut section, "write_relabel_configs", scheme),
            protobuf_message: section
                .parsed("protobuf_message", ProtobufMessage::read)
                .unwrap_or_default(),
            send_exemplars: section.bool_or("send_exemplars", false),
            send_native_histograms: section.bool_or("send_native_histograms", false),
            queue: section.section("queue_config").map(QueueConfig::read).unwrap_or_default(),
            metadata: section
                .section("metadata_config")
                .map(MetadataConfig::read)
                .unwrap_or_default(),
            http: HttpConfig::read(&mut section, false),
            labels: Labels::default(),
            budget: Budget::default(),
        };
        let hint = "use basic_auth or authorization";
        section.unsupported("sigv4", is_off, hint);
        section.unsupported("azuread", is_off, hint);
        section.unsupported("google_iam", is_off, hint);
        section.unsupported("round_robin_dns", is_off, "remove it or set it to false");
        section.unsupported("failed_request_logging", is_off, "failed requests are always logged");
        section.finish();
        config
    }
}

/// Headers that the protocol itself needs.
const RESERVED: [&str; 17] = [
    "accept-encoding",
    "authorization",
    "connection",
    "content-encoding",
    "content-length",
    "content-type",
    "host",
    "keep-alive",
    "proxy-authenticate",
    "proxy-authorization",
    "user-agent",
    "www-authenticate",
    "x-amz-content-sha256",
    "x-amz-date",
    "x-amz-security-token",
    "x-prometheus-remote-read-version",
    "x-prometheus-remote-write-version",
];

fn read_headers(section: &mut Section<'_>) -> Vec<(String, String)> {
    let mut headers = Vec::new();
    for (key, value) in section.pairs("headers") {
        let name = key.text.to_ascii_lowercase();
        if name == "authorization" {
            let message = "authorization header must be changed via the basic_auth or \
                           authorization parameter";
            section.cx.error(key.at, message);
        } else if RESERVED.contains(&name.as_str()) {
            let message = format!("{} is a reserved header. It must not be changed", key.text);
            section.cx.error(key.at, message);
        } else if reqwest::header::HeaderName::from_bytes(key.text.as_bytes()).is_err()
            || reqwest::header::HeaderValue::from_str(value).is_err()
        {
            section.cx.error(key.at, format!("`{}` is not a valid header", key.text));
        }
        headers.push((key.text.clone(), value.to_owned()));
    }
    headers
}

impl ProtobufMessage {
    fn read(text: &str) -> Result<Self, String> {
        [Self::V1, Self::V2].into_iter().find(|message| message.as_str() == text).ok_or_else(|| {
            format!(
                "unknown type for remote write protobuf message {text}, supported: {}, {}",
                Self::V1.as_str(),
                Self::V2.as_str()
            )
        })
    }
}

impl QueueConfig {
    fn read(mut section: Section<'_>) -> Self {
        let default = Self::default();
        let config = Self {
            capacity: section.usize_or("capacity", default.capacity),
            max_shards: section.usize_or("max_shards", default.max_shards),
            min_shards: section.usize_or("min_shards", default.min_shards),
            max_samples_per_send: section
                .usize_or("max_samples_per_send", default.max_samples_per_send),
            batch_send_deadline: section
                .span("batch_send_deadline")
                .unwrap_or(default.batch_send_deadline),
            min_backoff: section.span("min_backoff").unwrap_or(default.min_backoff),
            max_backoff: section.span("max_backoff").unwrap_or(default.max_backoff),
            retry_on_http_429: section.bool_or("retry_on_http_429", default.retry_on_http_429),
            sample_age_limit: section.span("sample_age_limit").unwrap_or(default.sample_age_limit),
        };
        for (key, number) in [
            ("capacity", config.capacity),
            ("max_shards", config.max_shards),
            ("min_shards", config.min_shards),
            ("max_samples_per_send", config.max_samples_per_send),
        ] {
            if number == 0 {
                section.error(key, format!("`{}` must be at least 1", section.name_of(key)));
            }
        }
        if section.has("capacity") {
            let text =
                "`capacity` has no effect: the store is the queue, nothing is held in memory";
            section.cx.warn(section.position("capacity"), text);
        }
        if section.has("retry_on_http_429") && !config.retry_on_http_429 {
            let text =
                "`retry_on_http_429: false` has no effect: a rate limit only delays what is sent";
            section.cx.warn(section.position("retry_on_http_429"), text);
        }
        if config.min_shards > config.max_shards {
            section.error("min_shards", "min_shards is greater than max_shards");
        }
        if config.min_backoff > config.max_backoff {
            section.error("min_backoff", "min_backoff is greater than max_backoff");
        }
        section.finish();
        config
    }
}

impl MetadataConfig {
    fn read(mut section: Section<'_>) -> Self {
        let default = Self::default();
        let config = Self {
            send: section.bool_or("send", default.send),
            send_interval: section
                .span("send_interval")
                .filter(|span| *span > Span::ZERO)
                .unwrap_or(default.send_interval),
            max_samples_per_send: section
                .usize_or("max_samples_per_send", default.max_samples_per_send)
                .max(1),
        };
        section.finish();
        config
    }
}
