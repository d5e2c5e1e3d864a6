//! `/api/v1/status/*`: what this server is and does.

use std::sync::Arc;

use axum::extract::State;
use serde::Serialize;
use stint_model::Timestamp;

use super::Api;
use super::extract::{Gate, Ready};
use super::json::Reply;
use super::web::BuildInfo;

pub(super) async fn build_info(_gate: Gate) -> Reply {
    Reply::json(&BuildInfo::CURRENT)
}

#[derive(Serialize)]
struct ConfigJson {
    yaml: String,
}

/// The configuration in force, without its secrets.
pub(super) async fn config(Ready(parts): Ready) -> Reply {
    let config = Arc::clone(&parts.config.read());
    Reply::json(&ConfigJson { yaml: config.shown() })
}

pub(super) async fn flags(Ready(parts): Ready) -> Reply {
    Reply::json(&parts.flags)
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct RuntimeJson {
    start_time: String,
    #[serde(rename = "CWD")]
    cwd: String,
    hostname: String,
    server_time: String,
    reload_config_success: bool,
    last_config_time: String,
    corruption_count: u64,
    /// The keys of the Go runtime are always there in Prometheus, and some clients demand them.
    goroutine_count: usize,
    #[serde(rename = "GOMAXPROCS")]
    gomaxprocs: usize,
    #[serde(rename = "GOMEMLIMIT")]
    gomemlimit: i64,
    #[serde(rename = "GOGC")]
    gogc: String,
    #[serde(rename = "GODEBUG")]
    godebug: String,
    storage_retention: String,
}

pub(super) async fn runtime_info(State(api): State<Arc<Api>>, Ready(parts): Ready) -> Reply {
    let cwd = std::env::current_dir().map(|path| path.display().to_string());
    let hostname = std::fs::read_to_string("/proc/sys/kernel/hostname");
    let workers = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
    Reply::json(&RuntimeJson {
        start_time: rfc_3339(api.started_at),
        cwd: cwd.unwrap_or_default(),
        hostname: hostname.map(|name| name.trim().to_owned()).unwrap_or_default(),
        server_time: rfc_3339(api.clock.now()),
        reload_config_success: api.metrics.config_reload_successful.get() == 1,
        last_config_time: rfc_3339(*parts.config_loaded_at.read()),
        corruption_count: parts.corruptions,
        goroutine_count: tokio::runtime::Handle::current().metrics().num_alive_tasks(),
        gomaxprocs: workers,
        gomemlimit: i64::MAX,
        gogc: String::new(),
        godebug: String::new(),
        storage_retention: retention_text(&parts.db.options()),
    })
}

/// `1w or 512MiB`.
fn retention_text(options: &stint_storage::Options) -> String {
    let time = options.retention.map(|time| time.to_string());
    let size = options.retention_bytes.map(|bytes| format!("{}MiB", bytes >> 20));
    time.into_iter().chain(size).collect::<Vec<_>>().join(" or ")
}

/// As Go writes times; the beginning of its time for those outside the calendar.
pub(super) fn rfc_3339(at: Timestamp) -> String {
    jiff::Timestamp::from_millisecond(at.as_ms())
        .map_or_else(|_| "0001-01-01T00:00:00Z".to_owned(), |time| time.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_shown_as_go_does() {
        assert_eq!(rfc_3339(Timestamp(1_435_781_451_780)), "2015-07-01T20:10:51.78Z");
        assert_eq!(rfc_3339(Timestamp(1_435_781_451_000)), "2015-07-01T20:10:51Z");
        assert_eq!(rfc_3339(Timestamp::MIN), "0001-01-01T00:00:00Z");
    }
}
