//! Opening the store, and the options that the configuration and the flags give it.

use std::sync::Arc;

use anyhow::Context as _;
use stint_model::Span;
use stint_storage::{Db, Disk, OpenReport, Options, OsDisk};

use crate::cli::flags::Flags;
use crate::config::Config;

/// Opens the store with the retention that the configuration or the flags give.
pub(super) async fn open(
    flags: &Flags,
    config: &Config,
) -> anyhow::Result<(Db, Arc<dyn Disk>, OpenReport)> {
    let path = flags.storage_path.clone();
    let options = options(flags, config);
    let shown = path.display().to_string();
    let opened = tokio::task::spawn_blocking(move || {
        let disk = OsDisk::new(&path)
            .with_context(|| format!("cannot use the data directory {}", path.display()))?;
        let disk: Arc<dyn Disk> = Arc::new(disk);
        let (db, report) = Db::open(Arc::clone(&disk), options)
            .with_context(|| format!("cannot open the store in {}", path.display()))?;
        anyhow::Ok((db, disk, report))
    });
    let (db, disk, report) = opened.await.context("opening the store ended unexpectedly")??;
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
    Ok((db, disk, report))
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
