//! How far imports are, in a file of the data folder: what was finished is not done again.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use serde::{Deserialize, Serialize};
use stint_storage::Disk;
use stint_storage::disk::{read_all, write_atomically};

use super::ImportError;

/// Name of the file in the data folder.
pub const FILE: &str = "import.json";
const VERSION: u32 = 1;
/// The most bytes of the file that are read.
const BYTES_MAX: u64 = 64 << 20;

/// What was imported so far.
pub struct State<'d> {
    disk: &'d dyn Disk,
    kept: Kept,
}

#[derive(Debug, Serialize, Deserialize)]
struct Kept {
    version: u32,
    /// By source: what it is, and what was asked for.
    sources: BTreeMap<String, Source>,
}

#[derive(Debug, Default, Serialize, Deserialize)]
struct Source {
    /// Units that are finished.
    done: BTreeSet<String>,
    /// How far the unit at hand is, where it can be gone on with in the middle.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    within: Option<(String, u64)>,
}

impl<'d> State<'d> {
    /// Reads the file; nothing was imported where there is none.
    ///
    /// # Errors
    /// It cannot be read, or another version wrote it.
    pub fn open(disk: &'d dyn Disk) -> Result<Self, ImportError> {
        let path = Path::new(FILE);
        let fail = |why: String| ImportError::State(format!("{FILE}: {why}"));
        let bytes = match disk.size(path) {
            Err(error) if error.is_not_found() => {
                let kept = Kept { version: VERSION, sources: BTreeMap::new() };
                return Ok(Self { disk, kept });
            }
            Ok(size) if size > BYTES_MAX => return Err(fail("too long; remove it".to_owned())),
            size => {
                size.and_then(|_| read_all(disk, path)).map_err(|error| fail(error.to_string()))?
            }
        };
        let kept: Kept = serde_json::from_slice(&bytes)
            .map_err(|error| fail(format!("{error}; remove it to import everything anew")))?;
        if kept.version != VERSION {
            return Err(fail(format!("version {}; {VERSION} is known", kept.version)));
        }
        Ok(Self { disk, kept })
    }

    /// Whether a unit of a source is finished.
    pub fn is_done(&self, source: &str, unit: &str) -> bool {
        self.kept.sources.get(source).is_some_and(|source| source.done.contains(unit))
    }

    /// How far a unit is that was interrupted; 0 for one that has to begin anew.
    pub fn within(&self, source: &str, unit: &str) -> u64 {
        let within = self.kept.sources.get(source).and_then(|source| source.within.as_ref());
        within.filter(|(of, _)| of == unit).map_or(0, |(_, at)| *at)
    }

    /// Notes that a unit is finished.
    ///
    /// # Errors
    /// The file cannot be written.
    pub fn done(&mut self, source: &str, unit: &str) -> Result<(), ImportError> {
        let entry = self.kept.sources.entry(source.to_owned()).or_default();
        entry.done.insert(unit.to_owned());
        entry.within = None;
        self.save()
    }

    /// Notes how far the unit at hand is.
    ///
    /// # Errors
    /// The file cannot be written.
    pub fn reached(&mut self, source: &str, unit: &str, at: u64) -> Result<(), ImportError> {
        let entry = self.kept.sources.entry(source.to_owned()).or_default();
        entry.within = Some((unit.to_owned(), at));
        self.save()
    }

    /// Forgets what is known about a source.
    pub fn forget(&mut self, source: &str) {
        self.kept.sources.remove(source);
    }

    fn save(&self) -> Result<(), ImportError> {
        let fail = |why: String| ImportError::State(format!("{FILE}: {why}"));
        let text =
            serde_json::to_vec_pretty(&self.kept).map_err(|error| fail(error.to_string()))?;
        write_atomically(self.disk, Path::new(FILE), &text).map_err(|error| fail(error.to_string()))
    }
}

#[cfg(test)]
mod tests {
    use stint_storage::SimDisk;

    use super::*;

    #[test]
    fn what_was_done_is_known_to_the_next_run() {
        let disk = SimDisk::new();
        let mut state = State::open(&disk).unwrap();
        assert!(!state.is_done("a", "1"));
        state.done("a", "1").unwrap();
        state.reached("a", "2", 700).unwrap();
        let mut state = State::open(&disk).unwrap();
        assert!(state.is_done("a", "1") && !state.is_done("a", "2") && !state.is_done("b", "1"));
        assert_eq!(
            (state.within("a", "2"), state.within("a", "1"), state.within("b", "2")),
            (700, 0, 0)
        );
        state.done("a", "2").unwrap();
        assert_eq!(State::open(&disk).unwrap().within("a", "2"), 0);
        state.forget("a");
        state.done("b", "1").unwrap();
        assert!(!State::open(&disk).unwrap().is_done("a", "1"));
    }

    #[test]
    fn a_file_that_makes_no_sense_is_told_with_what_to_do() {
        let disk = SimDisk::new();
        disk.create(Path::new(FILE)).unwrap().append(b"nonsense").unwrap();
        let refused = State::open(&disk).err().unwrap().to_string();
        assert!(refused.contains("import.json") && refused.contains("remove it"), "{refused}");
    }
}
