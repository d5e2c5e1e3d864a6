//! What the operator wrote: `prometheus.yml`, as Prometheus reads it, and `retention.toml`, for
//! what Prometheus has no words for.
//!
//! [`load`] reads, checks and joins both. Everything in a [`Config`] is complete: defaults are
//! filled in, globals inherited, paths joined, expressions compiled. What is wrong is reported
//! with file, line and column, as much as possible at once; a key that is known to Prometheus and
//! not supported here is an error too, never ignored.

pub mod error;
pub mod global;
pub mod http;
pub mod remote_write;
pub mod retention;
pub mod scrape;
pub mod secret;
pub mod storage;

pub use error::{ConfigError, ConfigErrors};
pub use global::Global;
pub use http::{Auth, Credential, HttpConfig, HttpHeader, ProxyConfig, TlsConfig, TlsVersion};
pub use remote_write::{MetadataConfig, ProtobufMessage, QueueConfig, RemoteWrite};
pub use retention::{Budget, Class, Retention};
pub use scrape::{FileDiscovery, ScrapeConfig, ScrapeProtocol, StaticGroup};
pub use secret::Secret;
pub use storage::{Otlp, Storage, Translation};

/// Both files, checked and joined.
#[derive(Clone, Debug, PartialEq)]
pub struct Config {
    /// Defaults and external labels.
    pub global: Global,
    /// Scrape jobs in order of the file; names are unique.
    pub scrape_configs: Vec<ScrapeConfig>,
    /// Endpoints in order of the file; names are unique and never empty.
    pub remote_write: Vec<RemoteWrite>,
    /// Options of the store and of exemplars.
    pub storage: Storage,
    /// How OTLP metrics become series.
    pub otlp: Otlp,
    /// How long and how much is kept; budgets are joined into [`Config::remote_write`].
    pub retention: Retention,
    /// `prometheus.yml` as it was read (empty when there is none); may hold secrets.
    pub text: String,
}
