//! Opening the store, and the options that the configuration and the flags give it.

use std::io::ErrorKind;
use std::path::Path;
use std::sync::Arc;

use anyhow::Context as _;
use stint_model::{Clock, Span};
use stint_storage::{Db, Disk, OpenError, OpenReport, Options, OsDisk};

use crate::cli::flags::Flags;
use crate::config::Config;
use crate::import::folder::{is_prometheus, own_folder};
use crate::metrics::{Metrics, gauge, int_gauge};

/// Makes the data folder where there is none.
///
/// # Errors
/// It cannot be made, with what to do about it.
pub(super) async fn folder(flags: &Flags) -> anyhow::Result<Arc<dyn Disk>> {
    let path = flags.storage_path.clone();
    let made = tokio::task::spawn_blocking(move || {
        let given = path.clone();
        let path = own_folder(&given);
        if is_prometheus(&given) {
            let (given, path) = (given.display(), path.display());
            tracing::warn!(
                "{given} holds what a Prometheus server stored, which is left as it is: new data goes \
                 to {path}; while the server is stopped, stint import {given} \
                 --storage.tsdb.path={given} brings the history over"
            );
        }
        OsDisk::new(&path).map_err(|error| {
            let hint = hint(error.source.kind(), &path);
            // The error tells its cause itself.
            anyhow::anyhow!("cannot use the data folder {}: {error}; {hint}", path.display())
        })
    });
    let disk = made.await.context("making the data folder ended unexpectedly")??;
    Ok(Arc::new(disk) as Arc<dyn Disk>)
}

/// What helps against a failure of the data folder.
fn hint(kind: ErrorKind, path: &Path) -> String {
    let hint = match kind {
        ErrorKind::PermissionDenied => {
            let user = rustix::process::geteuid().as_raw();
            return format!(
                "the server runs as user {user}, which has to be able to write there: chown -R {user} \
                 {} (in a container, of its volume), or choose another folder with \
                 --storage.tsdb.path",
                path.display()
            );
        }
        ErrorKind::AlreadyExists | ErrorKind::NotADirectory => {
            "it has to be a folder; choose another one with --storage.tsdb.path"
        }
        ErrorKind::StorageFull | ErrorKind::QuotaExceeded => {
            "free some space, or choose another folder with --storage.tsdb.path"
        }
        ErrorKind::ReadOnlyFilesystem => {
            "mount it writable, or choose another folder with --storage.tsdb.path"
        }
        _ => "mend the cause, or choose another folder with --storage.tsdb.path",
    };
    hint.to_owned()
}

/// Opens the store, and tells how that went under the names that dashboards know.
///
/// # Errors
/// See [`open`].
pub(super) async fn open_timed(
    flags: &Flags,
    config: &Config,
    disk: &Arc<dyn Disk>,
    clock: &Arc<dyn Clock>,
    metrics: &Metrics,
) -> anyhow::Result<(Db, OpenReport)> {
    let started = clock.monotonic();
    let (db, report) = open(flags, config, disk).await?;
    let took = clock.monotonic().saturating_sub(started);
    let registry = metrics.registry();
    let replay = gauge(
        registry,
        "prometheus_tsdb_data_replay_duration_seconds",
        "Time that opening the store took, the log included.",
    );
    replay.set(took.as_secs_f64());
    let clean = int_gauge(
        registry,
        "prometheus_tsdb_clean_start",
        "1 when the server before had stopped in order, so that nothing of the log was replayed, \
         else 0.",
    );
    clean.set(i64::from(report.samples == 0 && report.torn_tail.is_none()));
    Ok((db, report))
}

/// Opens the store with the retention that the configuration or the flags give.
///
/// # Errors
/// It cannot be opened, with what to do about it.
async fn open(
    flags: &Flags,
    config: &Config,
    disk: &Arc<dyn Disk>,
) -> anyhow::Result<(Db, OpenReport)> {
    let options = options(flags, config);
    let shown = own_folder(&flags.storage_path).display().to_string();
    let disk = Arc::clone(disk);
    let opened = tokio::task::spawn_blocking(move || Db::open(disk, options)).await;
    let (db, report) =
        opened.context("opening the store ended unexpectedly")?.map_err(|error| {
            let hint = match &error {
                OpenError::Disk(error) => hint(error.source.kind(), Path::new(&shown)),
                OpenError::InUse => {
                    "each server needs a data folder of its own (--storage.tsdb.path)".to_owned()
                }
                OpenError::NewerFormat { .. } | OpenError::Option(_) => {
                    "nothing was changed".to_owned()
                }
            };
            anyhow::anyhow!("cannot open the store in the data folder {shown}: {error}; {hint}")
        })?;
    if let Some(tail) = &report.torn_tail {
        tracing::info!(
            file = %tail.path.display(), bytes = tail.bytes,
            "the end of the log was cut short by a crash and is repaired"
        );
    }
    for damage in &report.damage {
        tracing::error!(
            file = %damage.path.display(), offset = damage.offset, bytes = damage.bytes,
            reason = damage.reason, "a part of the log is damaged and was left out"
        );
    }
    for block in &report.quarantined {
        tracing::error!(
            block = %block.path.display(), reason = block.reason,
            "a damaged block was set aside"
        );
    }
    tracing::info!(path = shown, series = report.series, samples = report.samples, "store opened");
    Ok((db, report))
}

/// The configuration file over the flags over `retention.toml`.
pub(super) fn options(flags: &Flags, config: &Config) -> Options {
    let mut retention = config.retention;
    if config.storage.retention.is_none() {
        retention.time = flags.storage_retention_time.unwrap_or(retention.time);
        retention.size_bytes = flags.storage_retention_size.unwrap_or(retention.size_bytes);
    }
    Options {
        retention: (retention.time > Span::ZERO).then_some(retention.time),
        retention_bytes: (retention.size_bytes > 0).then_some(retention.size_bytes),
        exemplars_max: usize::try_from(config.storage.max_exemplars).unwrap_or(usize::MAX),
        ..Options::default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_helps_depends_on_the_cause() {
        let hint = |kind| hint(kind, Path::new("d"));
        assert!(hint(ErrorKind::StorageFull).starts_with("free some space"));
        let user = rustix::process::geteuid().as_raw();
        assert!(hint(ErrorKind::PermissionDenied).contains(&format!("chown -R {user} d (in")));
        assert!(hint(ErrorKind::ReadOnlyFilesystem).contains("writable"));
    }
}
