//! Dashboards and rule files that the configuration names, read again when they change.

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::SystemTime;

use parking_lot::Mutex;

use super::catalogue::Known;
use super::{dashboards, rules};
use crate::config::{Usage, files_matching};

/// Files that are read at most.
const FILES_MAX: usize = 2000;
/// The largest file that is read.
const FILE_BYTES_MAX: u64 = 32 << 20;

/// The files read so far.
#[derive(Debug, Default)]
pub struct Imports {
    files: Mutex<HashMap<PathBuf, Imported>>,
}

#[derive(Debug)]
struct Imported {
    stamp: Stamp,
    content: Arc<Content>,
}

/// By which a file is taken for unchanged.
type Stamp = (u64, Option<SystemTime>);
/// What a file holds, or what is wrong with it.
type Content = Result<Vec<Known>, String>;

/// Reads the text of a file.
type Reader = fn(&str) -> Content;

/// What the files hold.
#[derive(Debug, Default)]
pub struct Found {
    /// All expressions.
    pub known: Vec<Known>,
    /// Files that were read.
    pub files: u64,
    /// Files that could not be read, each with the reason.
    pub problems: Vec<String>,
}

impl Imports {
    /// Reads what `usage` names, and what of it changed since the last time.
    pub fn read(&self, usage: &Usage) -> Found {
        let mut found = Found::default();
        let mut seen = HashMap::new();
        let kinds: [(&Vec<PathBuf>, Reader); 2] =
            [(&usage.dashboards, dashboards::read), (&usage.rules, rules::read)];
        for (patterns, read) in kinds {
            for path in paths(patterns, &mut found.problems) {
                if seen.len() == FILES_MAX {
                    found.problems.push(format!("more than {FILES_MAX} files; the rest is unread"));
                    break;
                }
                let imported = self.file(&path, read);
                match &*imported.content {
                    Ok(known) => {
                        found.files += 1;
                        found.known.extend(known.iter().cloned());
                    }
                    Err(error) => found.problems.push(format!("{}: {error}", path.display())),
                }
                seen.insert(path, imported);
            }
        }
        // What is not named any more is forgotten.
        *self.files.lock() = seen;
        found
    }

    fn file(&self, path: &Path, read: Reader) -> Imported {
        let stamp = match std::fs::metadata(path) {
            Ok(meta) => (meta.len(), meta.modified().ok()),
            Err(error) => return Imported::failed((0, None), error.to_string()),
        };
        if let Some(known) = self.files.lock().get(path)
            && known.stamp == stamp
        {
            return Imported { stamp, content: Arc::clone(&known.content) };
        }
        if stamp.0 > FILE_BYTES_MAX {
            return Imported::failed(stamp, format!("larger than {FILE_BYTES_MAX} bytes"));
        }
        match std::fs::read_to_string(path) {
            Ok(text) => Imported { stamp, content: Arc::new(read(&text)) },
            Err(error) => Imported::failed(stamp, error.to_string()),
        }
    }
}

impl Imported {
    fn failed(stamp: Stamp, error: String) -> Self {
        Self { stamp, content: Arc::new(Err(error)) }
    }
}

fn paths(patterns: &[PathBuf], problems: &mut Vec<String>) -> Vec<PathBuf> {
    let mut all = Vec::new();
    for pattern in patterns {
        match files_matching(pattern) {
            Ok(paths) if paths.is_empty() => {
                problems.push(format!("{}: no file matches", pattern.display()));
            }
            Ok(paths) => all.extend(paths),
            Err(error) => problems.push(format!("{}: {error}", pattern.display())),
        }
    }
    all.sort();
    all.dedup();
    all
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn files_are_read_and_read_again_when_they_change() {
        let dir = std::env::temp_dir().join(format!("stint-imports-{}", std::process::id()));
        std::fs::create_dir_all(&dir).unwrap();
        let dashboard = |expr: &str| format!("{{\"panels\": [{{\"expr\": \"{expr}\"}}]}}");
        std::fs::write(dir.join("a.json"), dashboard("sum(m)")).unwrap();
        std::fs::write(dir.join("b.json"), "nonsense").unwrap();
        std::fs::write(dir.join("r.yml"), "groups: [{name: g, rules: [{expr: n}]}]").unwrap();
        let usage = Usage {
            dashboards: vec![dir.join("*.json")],
            rules: vec![dir.join("r.yml"), dir.join("none.yml"), dir.join("*.yaml")],
            ..Usage::default()
        };
        let imports = Imports::default();
        let found = imports.read(&usage);
        assert_eq!((found.files, found.known.len(), found.problems.len()), (2, 2, 3), "{found:?}");
        std::fs::write(dir.join("a.json"), dashboard("sum(longer)")).unwrap();
        let again = imports.read(&usage);
        assert_eq!(again.known[0].expr, "sum(longer)");
        std::fs::remove_dir_all(&dir).unwrap();
    }
}
