//! A Prometheus data folder.
//!
//! Blocks are imported window by window, each into one block of ours, from all blocks that reach
//! into it; what they hold is read metric by metric, so that memory holds the series of one metric
//! at a time. What is not yet in blocks (the head) comes last.

mod block;
mod head;

use std::fs::{self, File, TryLockError};
use std::io::ErrorKind;
use std::path::{Path, PathBuf};

use stint_model::{TimeRange, Timestamp};
use stint_storage::{Disk, DiskError, OsDisk};
use stint_wire::tsdb::meta::{BlockMeta, living};

use super::state::State;
use super::{Counts, ImportError, Target, Watcher};

/// The most bytes of a `meta.json`.
const META_BYTES_MAX: usize = 1 << 20;

/// A folder that no Prometheus server has open.
#[derive(Debug)]
pub struct Folder {
    disk: OsDisk,
    blocks: Vec<BlockMeta>,
    unreadable: Vec<String>,
    head: head::Files,
    /// Keeps a server from starting meanwhile.
    _lock: Option<File>,
}

impl Folder {
    /// Looks at the folder `path`. Nothing in it is changed.
    ///
    /// # Errors
    /// It is no such folder, cannot be read, or a server has it open.
    pub fn open(path: &Path) -> Result<Self, ImportError> {
        if !is_prometheus(path) {
            let shown = path.display();
            return Err(ImportError::Source(if is_ours(path) {
                format!(
                    "{shown} is a data folder of Stint, not of Prometheus; a server started with \
                     --storage.tsdb.path={shown} serves it as it is"
                )
            } else {
                format!("{shown} is no Prometheus data folder: it holds neither blocks nor a log")
            }));
        }
        let lock = locked(path)?;
        let disk = OsDisk::new(path).map_err(|error| unread(&error))?;
        let (mut metas, mut unreadable) = (Vec::new(), Vec::new());
        for entry in disk.list(Path::new("")).map_err(|error| unread(&error))? {
            if !entry.is_dir || !is_ulid(&entry.name) {
                continue;
            }
            let file = Path::new(&entry.name).join("meta.json");
            let meta = disk
                .read(&file, 0, META_BYTES_MAX)
                .map_err(|error| error.to_string())
                .and_then(|json| BlockMeta::parse(&json).map_err(|error| error.to_string()));
            match meta {
                Ok(meta) if meta.ulid == entry.name => metas.push(meta),
                Ok(meta) => unreadable.push(format!("{}: names itself {}", entry.name, meta.ulid)),
                Err(error) => unreadable.push(format!("{}: {error}", entry.name)),
            }
        }
        let head = head::Files::list(&disk).map_err(|error| unread(&error))?;
        Ok(Self { disk, blocks: living(metas), unreadable, head, _lock: lock })
    }

    /// Its blocks, without those that others replace.
    pub fn blocks(&self) -> &[BlockMeta] {
        &self.blocks
    }

    /// Bytes of what is not yet in blocks.
    pub fn head_bytes(&self) -> u64 {
        self.head.bytes()
    }

    /// Imports everything that `target` takes.
    ///
    /// # Errors
    /// See [`ImportError`]. What cannot be read for damage is no error: it is left out and counted.
    pub fn import(
        &self,
        target: &Target<'_>,
        state: &mut State<'_>,
        source: &str,
        watcher: &mut dyn Watcher,
    ) -> Result<Counts, ImportError> {
        let mut counts = Counts::default();
        for what in &self.unreadable {
            counts.damaged(|| what.clone());
        }
        let mut work = Work::new(self, target);
        for window in work.windows.clone() {
            let unit = self.unit(window);
            if state.is_done(source, &unit) {
                counts.done_before += 1;
            } else {
                block::import(self, target, window, &mut work, &mut counts, watcher)?;
                state.done(source, &unit)?;
            }
            work.finish(window);
        }
        let unit = self.head.unit();
        if self.head.bytes() == 0 {
            return Ok(counts);
        }
        if state.is_done(source, &unit) {
            counts.done_before += 1;
        } else {
            head::import(self, target, &mut counts, &mut work, watcher)?;
            state.done(source, &unit)?;
        }
        Ok(counts)
    }

    /// Everything before this is in blocks, unless it came late.
    fn in_blocks_before(&self) -> Timestamp {
        let in_order = self.blocks.iter().filter(|meta| !meta.is_late());
        in_order.map(|meta| meta.range().end).max().unwrap_or(Timestamp::MIN)
    }

    fn reaching_into(&self, window: TimeRange) -> impl Iterator<Item = &BlockMeta> {
        self.blocks.iter().filter(move |meta| meta.range().overlaps(window))
    }

    /// What a window is made of: it is done again when blocks come or go.
    fn unit(&self, window: TimeRange) -> String {
        let names: Vec<&str> = self.reaching_into(window).map(|meta| &*meta.ulid).collect();
        format!("{}..{} {}", window.start, window.end, names.join(" "))
    }
}

/// How much there is to do, in about samples, and how much is done.
struct Work {
    windows: Vec<TimeRange>,
    /// By window.
    shares: Vec<u64>,
    head: u64,
    done: u64,
}

impl Work {
    fn new(folder: &Folder, target: &Target<'_>) -> Self {
        let bounds = folder.blocks.iter().map(BlockMeta::range);
        let all = bounds.reduce(|a, b| TimeRange::new(a.start.min(b.start), a.end.max(b.end)));
        let mut windows = all.map(|range| target.windows(range)).unwrap_or_default();
        windows.retain(|window| folder.reaching_into(*window).next().is_some());
        let share = |window: &TimeRange| -> u64 {
            folder.reaching_into(*window).map(|meta| samples_in(meta, *window)).sum()
        };
        let shares = windows.iter().map(share).collect();
        // A sample of the log takes about four bytes, and longer than one of a block.
        Self { windows, shares, head: folder.head_bytes(), done: 0 }
    }

    fn total(&self) -> u64 {
        self.shares.iter().sum::<u64>() + self.head
    }

    fn share(&self, window: TimeRange) -> u64 {
        let place = self.windows.iter().position(|one| *one == window);
        place.and_then(|place| self.shares.get(place)).copied().unwrap_or(0)
    }

    fn finish(&mut self, window: TimeRange) {
        self.done += self.share(window);
    }
}

/// About how many samples of a block lie inside `window`.
pub fn samples_in(meta: &BlockMeta, window: TimeRange) -> u64 {
    let range = meta.range();
    let length = range.end.since(range.start).0.max(1);
    let inside = range.end.min(window.end).since(range.start.max(window.start)).0.clamp(0, length);
    (meta.stats.num_samples as f64 * (inside as f64 / length as f64)) as u64
}

/// Whether the folder `path` is one of a Prometheus server.
pub fn is_prometheus(path: &Path) -> bool {
    if is_ours(path) {
        return false;
    }
    let has_log = path.join("chunks_head").is_dir()
        || path.join("wal").join("00000000").is_file()
        || path.join("queries.active").is_file();
    let entries = fs::read_dir(path).into_iter().flatten().flatten();
    has_log
        || entries.into_iter().any(|entry| {
            is_ulid(&entry.file_name().to_string_lossy())
                && entry.path().join("meta.json").is_file()
        })
}

/// Where the data lies that is ours, for a data folder that may be one of a Prometheus server: below
/// it then, so that what is there stays as it is and can be gone back to.
pub fn own_folder(path: &Path) -> PathBuf {
    let below = path.join(OWN);
    if is_prometheus(path) || is_ours(&below) { below } else { path.to_owned() }
}

/// The folder inside the one of a Prometheus server, which passes over it.
const OWN: &str = "stint";

/// Whether the folder `path` is one of ours.
fn is_ours(path: &Path) -> bool {
    path.join("blocks").is_dir() && path.join("wal").is_dir()
}

/// Crockford's base 32, 26 digits.
fn is_ulid(name: &str) -> bool {
    name.len() == 26
        && name.bytes().all(|byte| {
            byte.is_ascii_digit() || byte.is_ascii_uppercase() && !b"ILOU".contains(&byte)
        })
}

/// Takes the lock that a server of the folder would hold. A folder without one was copied.
fn locked(path: &Path) -> Result<Option<File>, ImportError> {
    let file = path.join("lock");
    let fail = |error: std::io::Error| {
        ImportError::Source(format!("cannot lock {}: {error}", file.display()))
    };
    let lock = match File::open(&file) {
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(None),
        lock => lock.map_err(fail)?,
    };
    match lock.try_lock() {
        Ok(()) => Ok(Some(lock)),
        Err(TryLockError::WouldBlock) => Err(ImportError::Source(format!(
            "a Prometheus server has {} open and writes to it; stop it, or import a snapshot of it \
             (POST /api/v1/admin/tsdb/snapshot), or its answers to remote read (stint import URL)",
            path.display()
        ))),
        Err(TryLockError::Error(error)) => Err(fail(error)),
    }
}

fn unread(error: &DiskError) -> ImportError {
    ImportError::Source(error.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_ours_lies_below_what_is_not() {
        let dir = std::env::temp_dir().join(format!("stint-own-{}", std::process::id()));
        let make = |path: &str| fs::create_dir_all(dir.join(path)).unwrap();
        make("");
        assert_eq!(own_folder(&dir), dir);
        make("chunks_head");
        assert_eq!(own_folder(&dir), dir.join("stint"));
        make("stint/blocks");
        make("stint/wal");
        // What the other server stored is gone, and ours is where it was.
        fs::remove_dir(dir.join("chunks_head")).unwrap();
        assert_eq!(own_folder(&dir), dir.join("stint"));
        assert_eq!(own_folder(&dir.join("stint")), dir.join("stint"));
        fs::remove_dir_all(&dir).unwrap();
        assert_eq!(own_folder(&dir), dir);
    }

    #[test]
    fn names_of_blocks_are_known() {
        assert!(is_ulid("01KB03MT3JDWSMZ7NWTCN9A5QX"));
        for name in
            ["01KB03MT3JDWSMZ7NWTCN9A5Q", "01KB03MT3JDWSMZ7NWTCN9A5QU", "wal", "chunks_head"]
        {
            assert!(!is_ulid(name), "{name}");
        }
    }
}
