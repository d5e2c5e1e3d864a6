//! Where failed scrapes are written down: a line of JSON each.

use std::collections::BTreeMap;
use std::fs::{File, OpenOptions};
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use parking_lot::Mutex;
use stint_model::Timestamp;

/// One file; several jobs may write to it.
#[derive(Debug)]
pub(super) struct FailureLog {
    path: PathBuf,
    file: Mutex<Open>,
}

#[derive(Debug)]
struct Open {
    file: File,
    /// Whether the last line could not be written: that is told once.
    is_broken: bool,
}

/// The files of all jobs.
#[derive(Debug, Default)]
pub(super) struct FailureLogs(BTreeMap<PathBuf, Arc<FailureLog>>);

impl FailureLogs {
    /// Opens the files at `paths`, and anew those that are open: they may have been moved away.
    /// Others are let go.
    ///
    /// # Errors
    /// Those that cannot be opened. All are as they were then.
    pub(super) fn open<'p>(
        &mut self,
        paths: impl Iterator<Item = &'p Path>,
    ) -> Result<(), Vec<String>> {
        let mut opened = BTreeMap::new();
        let mut errors = Vec::new();
        for path in paths {
            if opened.contains_key(path) {
                continue;
            }
            match OpenOptions::new().create(true).append(true).open(path) {
                Ok(file) => drop(opened.insert(path.to_owned(), file)),
                Err(error) => {
                    errors.push(format!(
                        "cannot open the log of failed scrapes {}: {error}",
                        path.display()
                    ));
                }
            }
        }
        if !errors.is_empty() {
            return Err(errors);
        }
        let mut before = std::mem::take(&mut self.0);
        for (path, file) in opened {
            let open = Open { file, is_broken: false };
            let log = if let Some(log) = before.remove(&path) {
                *log.file.lock() = open;
                log
            } else {
                Arc::new(FailureLog { path: path.clone(), file: Mutex::new(open) })
            };
            self.0.insert(path, log);
        }
        Ok(())
    }

    /// The file at `path`, which is open.
    pub(super) fn get(&self, path: Option<&PathBuf>) -> Option<Arc<FailureLog>> {
        self.0.get(path?).cloned()
    }
}

impl FailureLog {
    /// Writes down that the scrape of `url` failed.
    pub(super) fn write(&self, at: Timestamp, job: &str, url: &str, error: &str) {
        // The clock never leaves the range of the calendar.
        let time = jiff::Timestamp::from_millisecond(at.as_ms()).unwrap_or_default();
        let mut line = serde_json::json!({
            "time": time.to_string(),
            "level": "ERROR",
            "msg": error,
            "job_name": job,
            "target": url,
        })
        .to_string();
        line.push('\n');
        let mut open = self.file.lock();
        let written = open.file.write_all(line.as_bytes());
        self.tell(&mut open, written);
    }

    fn tell(&self, open: &mut Open, written: io::Result<()>) {
        match written {
            Ok(()) => open.is_broken = false,
            Err(error) => {
                if !std::mem::replace(&mut open.is_broken, true) {
                    let path = self.path.display();
                    tracing::warn!(%path, %error, "failed scrapes cannot be written down");
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_are_appended_and_a_moved_file_is_made_anew() {
        let folder = std::env::temp_dir().join(format!("stint-failures-{}", std::process::id()));
        std::fs::create_dir_all(&folder).unwrap();
        let (path, moved) = (folder.join("fail.log"), folder.join("fail.1"));
        let mut logs = FailureLogs::default();
        logs.open([path.as_path(), path.as_path()].into_iter()).unwrap();
        let log = logs.get(Some(&path)).unwrap();
        log.write(Timestamp(1500), "j", "http://a/m", "it \"failed\"");
        let line = "{\"job_name\":\"j\",\"level\":\"ERROR\",\"msg\":\"it \\\"failed\\\"\",\
                    \"target\":\"http://a/m\",\"time\":\"1970-01-01T00:00:01.5Z\"}\n";
        assert_eq!(std::fs::read_to_string(&path).unwrap(), line);
        std::fs::rename(&path, &moved).unwrap();
        logs.open(std::iter::once(path.as_path())).unwrap();
        log.write(Timestamp(1500), "j", "http://a/m", "it \"failed\"");
        assert_eq!(std::fs::read_to_string(&path).unwrap(), line);
        assert_eq!(std::fs::read_to_string(&moved).unwrap(), line);
        let bad = folder.join("none/fail.log");
        assert!(
            logs.open(std::iter::once(bad.as_path())).unwrap_err()[0].contains("none/fail.log")
        );
        assert!(logs.get(Some(&path)).is_some() && logs.get(None).is_none());
        std::fs::remove_dir_all(&folder).unwrap();
    }
}
