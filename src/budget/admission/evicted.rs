//! Which groups are not sent any more for a while, over restarts: otherwise a restart, after which
//! what holds a lease goes on, would undo what was decided.
//!
//! A file beside the ledger, replaced as a whole, has one line per group: for how many seconds it is
//! still out, and its number in hexadecimal. Time in which the server does not run does not count.

use std::collections::HashMap;
use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use stint_storage::Disk;
use stint_storage::disk::read_all;

use super::EVICTED_FOR;
use crate::budget::beside::Beside;
use crate::budget::group::GroupId;

/// The times up to which groups are out.
#[derive(Debug)]
pub(super) struct Evictions {
    until: HashMap<GroupId, Duration>,
    has_news: bool,
    file: Option<(Arc<dyn Disk>, PathBuf)>,
}

impl Evictions {
    /// None, and none is written.
    pub(super) fn in_memory() -> Self {
        Self { until: HashMap::new(), has_news: false, file: None }
    }

    /// Those that an earlier run left beside `ledger`.
    pub(super) fn read(disk: Arc<dyn Disk>, ledger: &Path, now: Duration) -> Self {
        let path = ledger.with_extension("evicted");
        let until = match read_all(&*disk, &path) {
            Ok(bytes) => parse(&String::from_utf8_lossy(&bytes), now),
            Err(error) if error.is_not_found() => HashMap::new(),
            Err(error) => {
                tracing::warn!("{error}");
                HashMap::new()
            }
        };
        Self { until, has_news: false, file: Some((disk, path)) }
    }

    /// Up to when a group is out.
    pub(super) fn until(&self, group: GroupId) -> Option<Duration> {
        self.until.get(&group).copied()
    }

    pub(super) fn note(&mut self, group: GroupId, until: Duration) {
        if self.until.insert(group, until) != Some(until) {
            self.has_news = true;
        }
    }

    /// What is to be written if there are new ones.
    pub(super) fn keep(&mut self, now: Duration) -> Option<Beside> {
        if !std::mem::take(&mut self.has_news) {
            return None;
        }
        self.until.retain(|_, until| *until > now);
        let (disk, path) = self.file.clone()?;
        let mut text = String::new();
        for (group, until) in &self.until {
            let secs = until.saturating_sub(now).as_secs();
            // Writing to a string never fails.
            let _ = writeln!(text, "{secs} {:016x}", group.0);
        }
        let loss = "a restart may send what was taken out";
        Some(Beside { disk, path, content: Some(text.into_bytes()), loss })
    }
}

fn parse(text: &str, now: Duration) -> HashMap<GroupId, Duration> {
    let line = |line: &str| {
        let (secs, group) = line.split_once(' ')?;
        let left = Duration::from_secs(secs.parse().ok()?).min(EVICTED_FOR);
        Some((GroupId(u64::from_str_radix(group, 16).ok()?), now + left))
    };
    text.lines().filter_map(line).collect()
}
