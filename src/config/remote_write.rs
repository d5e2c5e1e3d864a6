//! `remote_write`: the endpoints that samples are forwarded to.

use stint_model::relabel::Rule;
use stint_model::{Labels, Span};

use super::http::HttpConfig;
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
            max_samples_per_send: 2000,
            batch_send_deadline: Span::from_secs(5),
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
