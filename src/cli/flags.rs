//! The flags of the server: Prometheus' names, defaults and meanings.

use std::collections::BTreeMap;
use std::path::PathBuf;

use clap::{Args, Parser};
use stint_model::Span;

use crate::telemetry::{LogFormat, LogLevel};

/// What the server is started with. Prometheus' flag names, where there is one.
#[derive(Args, Clone, Debug)]
#[command(next_line_help = true)]
pub struct Flags {
    /// Scrape jobs and remote endpoints, in Prometheus' format. Without this flag
    /// `prometheus.yml` in the working directory if there is one, else a configuration that
    /// scrapes this server.
    #[arg(long = "config.file", value_name = "FILE")]
    pub config_file: Option<PathBuf>,

    /// Retention, budget and forwarding policy. Without this flag `retention.toml` beside the
    /// configuration file, if there is one.
    #[arg(long = "retention.file", value_name = "FILE")]
    pub retention_file: Option<PathBuf>,

    /// Replace `${NAME}`, and `${NAME:-TEXT}` where there may be no such variable, by the environment's
    /// in any value of both files; `$${` stands for `${`. Without this flag variables count in
    /// `external_labels`, required labels and resource attributes alone.
    #[arg(long = "config.expand-env")]
    pub config_expand_env: bool,

    /// Reload the configuration when its files change.
    #[arg(long = "config.auto-reload")]
    pub config_auto_reload: bool,

    /// How often to look for changes; at least 1s.
    #[arg(long = "config.auto-reload-interval", value_name = "DURATION", default_value = "30s",
          value_parser = Span::parse)]
    pub config_auto_reload_interval: Span,

    /// Where to listen; may be repeated.
    #[arg(long = "web.listen-address", value_name = "HOST:PORT",
          default_value = "0.0.0.0:9090", value_parser = parse_address)]
    pub web_listen_address: Vec<String>,

    /// TLS, users and headers of every port, in Prometheus' format. It is read again when it
    /// changes.
    #[arg(long = "web.config.file", value_name = "FILE", value_parser = parse_file)]
    pub web_config_file: Option<PathBuf>,

    /// How long a client may take to send a request, and how long a connection may be idle.
    #[arg(long = "web.read-timeout", value_name = "DURATION", default_value = "5m",
          value_parser = parse_positive)]
    pub web_read_timeout: Span,

    /// Most connections at the same time, over all listen addresses.
    #[arg(long = "web.max-connections", value_name = "COUNT", default_value_t = 512,
          value_parser = clap::value_parser!(u32).range(1..))]
    pub web_max_connections: u32,

    /// The URL under which others reach this server.
    #[arg(
        long = "web.external-url",
        value_name = "URL",
        default_value = "",
        hide_default_value = true
    )]
    pub web_external_url: String,

    /// The path under which everything is served; the path of the external URL by default.
    #[arg(long = "web.route-prefix", value_name = "PATH")]
    pub web_route_prefix: Option<String>,

    /// Allow reloading and stopping by HTTP request.
    #[arg(long = "web.enable-lifecycle")]
    pub web_enable_lifecycle: bool,

    /// Allow snapshots and deletions by HTTP request.
    #[arg(long = "web.enable-admin-api")]
    pub web_enable_admin_api: bool,

    /// Accept remote write on /api/v1/write.
    #[arg(long = "web.enable-remote-write-receiver")]
    pub web_enable_remote_write_receiver: bool,

    /// The messages that remote write may send, comma-separated; may be repeated.
    #[arg(long = "web.remote-write-receiver.accepted-protobuf-messages", value_name = "NAMES",
          value_delimiter = ',',
          default_value = "prometheus.WriteRequest,io.prometheus.write.v2.Request",
          value_parser = ["prometheus.WriteRequest", "io.prometheus.write.v2.Request"])]
    pub web_remote_write_accepted_messages: Vec<String>,

    /// Most clients that are told of notifications as they come.
    #[arg(long = "web.max-notifications-subscribers", value_name = "COUNT", default_value_t = 16)]
    pub web_max_notifications_subscribers: u32,

    /// Accept OTLP metrics on /api/v1/otlp/v1/metrics.
    #[arg(long = "web.enable-otlp-receiver")]
    pub web_enable_otlp_receiver: bool,

    /// Where to accept OTLP metrics over gRPC, such as 0.0.0.0:4317; may be repeated. Nowhere by
    /// default, but on the loopback address where no configuration file is given.
    #[arg(long = "otlp.grpc-listen-address", value_name = "HOST:PORT",
          value_parser = parse_address)]
    pub otlp_grpc_listen_address: Vec<String>,

    /// Where to accept OTLP metrics over HTTP, such as 0.0.0.0:4318; may be repeated. Nowhere by
    /// default, but on the loopback address where no configuration file is given.
    #[arg(long = "otlp.http-listen-address", value_name = "HOST:PORT",
          value_parser = parse_address)]
    pub otlp_http_listen_address: Vec<String>,

    /// Origins that browsers may send requests from, as an anchored regular expression.
    #[arg(long = "web.cors.origin", value_name = "REGEX", default_value = ".*")]
    pub web_cors_origin: String,

    /// Where data is stored.
    #[arg(long = "storage.tsdb.path", value_name = "DIRECTORY", default_value = "data/")]
    pub storage_path: PathBuf,

    /// How long data is kept; 7d when no file says otherwise.
    #[arg(long = "storage.tsdb.retention.time", value_name = "DURATION",
          value_parser = parse_positive)]
    pub storage_retention_time: Option<Span>,

    /// How many bytes are kept, such as 512MB (units to the power of 2); 0 for no limit.
    #[arg(long = "storage.tsdb.retention.size", value_name = "BYTES", value_parser = parse_bytes)]
    pub storage_retention_size: Option<u64>,

    /// How long stopping may wait for what is still to be forwarded.
    #[arg(long = "storage.remote.flush-deadline", value_name = "DURATION", default_value = "1m",
          value_parser = Span::parse)]
    pub storage_remote_flush_deadline: Span,

    /// How many samples a query of remote read may select, where the answer is made of samples; 0
    /// for no limit.
    #[arg(
        long = "storage.remote.read-sample-limit",
        value_name = "COUNT",
        default_value_t = 50_000_000
    )]
    pub storage_remote_read_sample_limit: u64,

    /// How many remote read requests are answered at the same time; 0 for no limit.
    #[arg(
        long = "storage.remote.read-concurrent-limit",
        value_name = "COUNT",
        default_value_t = 10
    )]
    pub storage_remote_read_concurrent_limit: u32,

    /// How many bytes a frame of streamed remote read has before it is sent.
    #[arg(long = "storage.remote.read-max-bytes-in-frame", value_name = "BYTES",
          default_value_t = 1 << 20, value_parser = clap::value_parser!(u64).range(1..))]
    pub storage_remote_read_max_bytes_in_frame: u64,

    /// How long ago an alert may have been seen last to go on, after a restart, where it was.
    #[arg(long = "rules.alert.for-outage-tolerance", value_name = "DURATION",
          default_value = "1h", value_parser = Span::parse)]
    pub rules_alert_for_outage_tolerance: Span,

    /// Alerts whose `for` is at least this long go on after a restart, and wait at least this long
    /// before they fire.
    #[arg(long = "rules.alert.for-grace-period", value_name = "DURATION", default_value = "10m",
          value_parser = Span::parse)]
    pub rules_alert_for_grace_period: Span,

    /// How long to wait before an alert that fires is sent again.
    #[arg(long = "rules.alert.resend-delay", value_name = "DURATION", default_value = "1m",
          value_parser = Span::parse)]
    pub rules_alert_resend_delay: Span,

    /// How many rules that do not depend on each other run at the same time beside the groups, with
    /// --enable-feature=concurrent-rule-eval.
    #[arg(long = "rules.max-concurrent-evals", value_name = "COUNT", default_value_t = 4,
          value_parser = clap::value_parser!(u32).range(1..))]
    pub rules_max_concurrent_evals: u32,

    /// How many alerts may wait for each Alertmanager.
    #[arg(long = "alertmanager.notification-queue-capacity", value_name = "COUNT",
          default_value_t = 10_000, value_parser = clap::value_parser!(u32).range(1..))]
    pub alertmanager_queue_capacity: u32,

    /// How many alerts one request to an Alertmanager may hold.
    #[arg(long = "alertmanager.notification-batch-size", value_name = "COUNT",
          default_value_t = 256, value_parser = clap::value_parser!(u32).range(1..))]
    pub alertmanager_batch_size: u32,

    /// Send the alerts that wait before stopping; the default.
    #[arg(
        long = "alertmanager.drain-notification-queue-on-shutdown",
        overrides_with = "alertmanager_no_drain"
    )]
    pub alertmanager_drain: bool,

    /// Drop the alerts that wait when stopping.
    #[arg(long = "no-alertmanager.drain-notification-queue-on-shutdown")]
    pub alertmanager_no_drain: bool,

    /// How far an instant selector looks back for a sample.
    #[arg(long = "query.lookback-delta", value_name = "DURATION", default_value = "5m",
          value_parser = parse_positive)]
    pub query_lookback_delta: Span,

    /// How long a query may take.
    #[arg(long = "query.timeout", value_name = "DURATION", default_value = "2m",
          value_parser = parse_positive)]
    pub query_timeout: Span,

    /// How many queries run at the same time; others wait.
    #[arg(long = "query.max-concurrency", value_name = "COUNT", default_value_t = 20,
          value_parser = clap::value_parser!(u32).range(1..))]
    pub query_max_concurrency: u32,

    /// How many samples one query may hold in memory.
    #[arg(long = "query.max-samples", value_name = "COUNT", default_value_t = 50_000_000,
          value_parser = clap::value_parser!(u64).range(1..))]
    pub query_max_samples: u64,

    /// Experimental features, comma-separated; may be repeated.
    #[arg(long = "enable-feature", value_name = "NAMES", value_delimiter = ',')]
    pub enable_feature: Vec<String>,

    /// Lowest level that is logged: debug, info, warn or error.
    #[arg(long = "log.level", value_name = "LEVEL", default_value = "info",
          value_parser = str::parse::<LogLevel>)]
    pub log_level: LogLevel,

    /// Format of log lines: logfmt or json.
    #[arg(long = "log.format", value_name = "FORMAT", default_value = "logfmt",
          value_parser = str::parse::<LogFormat>)]
    pub log_format: LogFormat,
}

/// The flags as a command line of their own.
#[derive(Debug, Parser)]
#[command(no_binary_name = true)]
struct Alone {
    #[command(flatten)]
    flags: Flags,
}

impl Flags {
    /// The flags that `arguments` (without the program's name) give, and defaults for the others.
    ///
    /// # Errors
    /// A flag that does not exist, or a value that it cannot have.
    pub fn from_arguments<S>(arguments: impl IntoIterator<Item = S>) -> Result<Self, clap::Error>
    where
        S: Into<std::ffi::OsString> + Clone,
    {
        Alone::try_parse_from(arguments).map(|alone| alone.flags)
    }

    /// Every flag's name and value, as `/api/v1/status/flags` shows them.
    pub fn to_map(&self) -> BTreeMap<&'static str, String> {
        let path = |path: &Option<PathBuf>| {
            path.as_ref().map_or_else(String::new, |path| path.display().to_string())
        };
        let retention = self.storage_retention_time.map_or_else(|| "0s".into(), |t| t.to_string());
        BTreeMap::from([
            ("config.file", path(&self.config_file)),
            ("retention.file", path(&self.retention_file)),
            ("config.expand-env", self.config_expand_env.to_string()),
            ("config.auto-reload", self.config_auto_reload.to_string()),
            ("config.auto-reload-interval", self.config_auto_reload_interval.to_string()),
            ("web.listen-address", self.web_listen_address.join(",")),
            ("web.config.file", path(&self.web_config_file)),
            ("web.read-timeout", self.web_read_timeout.to_string()),
            ("web.max-connections", self.web_max_connections.to_string()),
            ("web.external-url", self.web_external_url.clone()),
            ("web.route-prefix", self.web_route_prefix.clone().unwrap_or_else(|| "/".into())),
            ("web.enable-lifecycle", self.web_enable_lifecycle.to_string()),
            ("web.enable-admin-api", self.web_enable_admin_api.to_string()),
            ("web.enable-remote-write-receiver", self.web_enable_remote_write_receiver.to_string()),
            (
                "web.remote-write-receiver.accepted-protobuf-messages",
                self.web_remote_write_accepted_messages.join(","),
            ),
            (
                "web.max-notifications-subscribers",
                self.web_max_notifications_subscribers.to_string(),
            ),
            ("web.enable-otlp-receiver", self.web_enable_otlp_receiver.to_string()),
            ("otlp.grpc-listen-address", self.otlp_grpc_listen_address.join(",")),
            ("otlp.http-listen-address", self.otlp_http_listen_address.join(",")),
            ("web.cors.origin", self.web_cors_origin.clone()),
            ("storage.tsdb.path", self.storage_path.display().to_string()),
            ("storage.tsdb.retention.time", retention),
            (
                "storage.tsdb.retention.size",
                format!("{}B", self.storage_retention_size.unwrap_or(0)),
            ),
            ("storage.remote.flush-deadline", self.storage_remote_flush_deadline.to_string()),
            ("storage.remote.read-sample-limit", self.storage_remote_read_sample_limit.to_string()),
            (
                "storage.remote.read-concurrent-limit",
                self.storage_remote_read_concurrent_limit.to_string(),
            ),
            (
                "storage.remote.read-max-bytes-in-frame",
                self.storage_remote_read_max_bytes_in_frame.to_string(),
            ),
            ("rules.alert.for-outage-tolerance", self.rules_alert_for_outage_tolerance.to_string()),
            ("rules.alert.for-grace-period", self.rules_alert_for_grace_period.to_string()),
            ("rules.alert.resend-delay", self.rules_alert_resend_delay.to_string()),
            ("rules.max-concurrent-evals", self.rules_max_concurrent_evals.to_string()),
            (
                "alertmanager.notification-queue-capacity",
                self.alertmanager_queue_capacity.to_string(),
            ),
            ("alertmanager.notification-batch-size", self.alertmanager_batch_size.to_string()),
            (
                "alertmanager.drain-notification-queue-on-shutdown",
                (!self.alertmanager_no_drain).to_string(),
            ),
            ("query.lookback-delta", self.query_lookback_delta.to_string()),
            ("query.timeout", self.query_timeout.to_string()),
            ("query.max-concurrency", self.query_max_concurrency.to_string()),
            ("query.max-samples", self.query_max_samples.to_string()),
            ("enable-feature", self.enable_feature.join(",")),
            ("log.level", self.log_level.to_string()),
            ("log.format", self.log_format.to_string()),
        ])
    }
}

/// A path, or nothing at all for none, which is refused otherwise.
#[expect(clippy::unnecessary_wraps, reason = "the shape that parsers of values have")]
fn parse_file(text: &str) -> Result<PathBuf, std::convert::Infallible> {
    Ok(PathBuf::from(text))
}

fn parse_positive(text: &str) -> Result<Span, String> {
    let span = Span::parse(text).map_err(|error| error.to_string())?;
    if span > Span::ZERO { Ok(span) } else { Err("must be longer than 0s".into()) }
}

/// `host:port` with an empty host for all addresses, as Go accepts it.
fn parse_address(text: &str) -> Result<String, String> {
    let Some((host, port)) = text.rsplit_once(':') else {
        return Err("no port given; use HOST:PORT, such as 127.0.0.1:9090".into());
    };
    port.parse::<u16>().map_err(|_| format!("not a port number: {port}"))?;
    Ok(if host.is_empty() { format!("0.0.0.0:{port}") } else { text.to_owned() })
}

/// Units of byte sizes with their power of 1024.
const BYTE_UNITS: [(&str, u32); 13] = [
    ("KiB", 1),
    ("MiB", 2),
    ("GiB", 3),
    ("TiB", 4),
    ("PiB", 5),
    ("EiB", 6),
    ("KB", 1),
    ("MB", 2),
    ("GB", 3),
    ("TB", 4),
    ("PB", 5),
    ("EB", 6),
    ("B", 0),
];

/// A size with a unit, to the power of 2, such as `512MB` or `1.5GiB`; or `0`.
fn parse_bytes(text: &str) -> Result<u64, String> {
    if text == "0" {
        return Ok(0);
    }
    for (unit, power) in BYTE_UNITS {
        let Some(number) = text.strip_suffix(unit) else { continue };
        let bytes = number.trim_end().parse::<f64>().ok().map(|n| n * 1024_f64.powi(power as i32));
        return bytes
            .filter(|bytes| *bytes >= 0.0 && *bytes < u64::MAX as f64)
            .map(|bytes| bytes as u64)
            .ok_or_else(|| format!("not a size: {text}"));
    }
    Err(format!("no unit in {text}; use B, KB, MB, GB, TB, PB or EB"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_are_powers_of_two_and_need_a_unit() {
        assert_eq!(parse_bytes("512MB"), Ok(512 << 20));
        assert_eq!(parse_bytes("1.5KiB"), Ok(1536));
        assert_eq!(parse_bytes("7B"), Ok(7));
        assert_eq!(parse_bytes("0"), Ok(0));
        assert!(parse_bytes("512").unwrap_err().starts_with("no unit in 512"));
        assert_eq!(parse_bytes("-1MB"), Err("not a size: -1MB".into()));
        assert_eq!(parse_bytes("xMB"), Err("not a size: xMB".into()));
    }

    #[test]
    fn an_address_without_host_means_all_of_them() {
        assert_eq!(parse_address(":9090"), Ok("0.0.0.0:9090".into()));
        assert_eq!(parse_address("[::1]:80"), Ok("[::1]:80".into()));
        assert!(parse_address("localhost").is_err());
        assert!(parse_address("localhost:http").is_err());
    }

    #[test]
    fn durations_that_must_not_be_zero() {
        assert_eq!(parse_positive("5m"), Ok(Span(300_000)));
        assert_eq!(parse_positive("0"), Err("must be longer than 0s".into()));
    }
}
