//! The engine's only way to the file system, so that tests can replace it by one that loses and
//! tears what was not synced.
//!
//! A [`Disk`] is rooted at the data directory: every path is relative to it. The contract, which
//! [`os::OsDisk`] inherits from POSIX and [`sim::SimDisk`] enforces:
//!
//! - Appended bytes survive the end of the *process* as soon as [`DiskFile::append`] returns;
//!   they survive the end of the *machine* once [`DiskFile::sync`] has returned. Until then any
//!   part of them may be missing, the file's length included.
//! - A created, renamed, linked or removed *name* survives the machine once [`Disk::sync_dir`] of
//!   its directory has returned. Until then either state may come back.
//! - [`Disk::rename`] replaces an existing file in one step: a name is never half there.
//! - A mapped file is immutable: whoever maps one promises that nobody appends to it.
//! - Files are only ever appended to, or cut at the end. Nothing is overwritten in place.

pub mod mmap;
pub mod os;
pub mod sim;

use std::fmt;
use std::io;
use std::ops::Deref;
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// A failed call: what, where, why.
#[derive(Debug, thiserror::Error)]
#[error("{operation} {}: {source}", path.display())]
pub struct DiskError {
    /// The call, such as `append to`.
    pub operation: &'static str,
    /// The file or directory, relative to the root.
    pub path: PathBuf,
    /// The operating system's reason.
    pub source: io::Error,
}

impl DiskError {
    /// An error of `operation` on `path`.
    pub fn new(operation: &'static str, path: &Path, source: io::Error) -> Self {
        Self { operation, path: path.to_path_buf(), source }
    }

    /// Whether there is no room left (on the device or in the quota).
    pub fn is_full(&self) -> bool {
        matches!(
            self.source.kind(),
            io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded | io::ErrorKind::FileTooLarge
        )
    }

    /// Whether the file or directory does not exist.
    pub fn is_not_found(&self) -> bool {
        self.source.kind() == io::ErrorKind::NotFound
    }
}

/// Outcome of a call.
pub type DiskResult<T> = Result<T, DiskError>;

/// What a directory contains.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DirEntry {
    /// Name inside the directory.
    pub name: String,
    /// Whether it is a directory itself.
    pub is_dir: bool,
    /// Length in bytes of a file; 0 for a directory.
    pub size: u64,
}

/// The content of an immutable file. Cloning shares it; it stays readable after the file's name
/// is removed.
#[derive(Clone)]
pub struct Mapped(Arc<dyn AsRef<[u8]> + Send + Sync>);

impl Mapped {
    /// Shares `bytes`, which hold what the file holds.
    pub fn new(bytes: impl AsRef<[u8]> + Send + Sync + 'static) -> Self {
        Self(Arc::new(bytes))
    }
}

impl Deref for Mapped {
    type Target = [u8];
    fn deref(&self) -> &[u8] {
        self.0.as_ref().as_ref()
    }
}

impl fmt::Debug for Mapped {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Mapped({} bytes)", self.len())
    }
}

/// A file being written. Callers let only one thread append at a time; any thread may sync.
pub trait DiskFile: Send + Sync {
    /// Adds `bytes` at the end. After an error any prefix of them may have been added: cut the
    /// file to its old length before adding more.
    fn append(&self, bytes: &[u8]) -> DiskResult<()>;

    /// Makes everything appended so far survive the machine. After an error nothing is known
    /// about what was appended since the last success, and trying again proves nothing.
    fn sync(&self) -> DiskResult<()>;

    /// Cuts the file to `length` bytes, which is not more than it has.
    fn truncate(&self, length: u64) -> DiskResult<()>;
}

/// A lock on a file, held until dropped.
pub trait DiskLock: Send + Sync + fmt::Debug {}

/// A directory tree. See the module's documentation for what survives when.
pub trait Disk: Send + Sync + fmt::Debug {
    /// A new, empty file. An error when the name exists.
    fn create(&self, path: &Path) -> DiskResult<Box<dyn DiskFile>>;

    /// An existing file, to append to or to cut.
    fn open(&self, path: &Path) -> DiskResult<Box<dyn DiskFile>>;

    /// Up to `length` bytes from `offset`; fewer only where the file ends.
    fn read(&self, path: &Path, offset: u64, length: usize) -> DiskResult<Vec<u8>>;

    /// The whole content of a file that nobody appends to any more.
    fn map(&self, path: &Path) -> DiskResult<Mapped>;

    /// Length of a file in bytes.
    fn size(&self, path: &Path) -> DiskResult<u64>;

    /// What a directory contains, in order of names.
    fn list(&self, dir: &Path) -> DiskResult<Vec<DirEntry>>;

    /// Creates a directory and those above it; no error when it exists.
    fn create_dir(&self, dir: &Path) -> DiskResult<()>;

    /// Gives a file or directory another name, replacing a file of that name.
    fn rename(&self, from: &Path, to: &Path) -> DiskResult<()>;

    /// Gives a file a second name.
    fn link(&self, from: &Path, to: &Path) -> DiskResult<()>;

    /// Removes a file.
    fn remove(&self, path: &Path) -> DiskResult<()>;

    /// Removes a directory and everything in it.
    fn remove_dir(&self, dir: &Path) -> DiskResult<()>;

    /// Makes the names in `dir` survive the machine.
    fn sync_dir(&self, dir: &Path) -> DiskResult<()>;

    /// Takes the lock file at `path`, creating it. An error of kind `WouldBlock` when somebody
    /// else holds it.
    fn lock(&self, path: &Path) -> DiskResult<Box<dyn DiskLock>>;

    /// Bytes that may still be written.
    fn free_space(&self) -> DiskResult<u64>;
}

/// Reads a whole file into memory.
pub fn read_all(disk: &dyn Disk, path: &Path) -> DiskResult<Vec<u8>> {
    let size = disk.size(path)?;
    disk.read(path, 0, usize::try_from(size).unwrap_or(usize::MAX))
}

/// Writes `bytes` as the file `path` so that after a crash the old or the new content is there,
/// whole: temporary name, sync, rename, directory sync.
pub fn write_atomically(disk: &dyn Disk, path: &Path, bytes: &[u8]) -> DiskResult<()> {
    let mut temporary = path.as_os_str().to_owned();
    temporary.push(TEMPORARY_SUFFIX);
    let temporary = PathBuf::from(temporary);
    match disk.remove(&temporary) {
        Err(error) if !error.is_not_found() => return Err(error),
        _ => {}
    }
    let file = disk.create(&temporary)?;
    file.append(bytes)?;
    file.sync()?;
    disk.rename(&temporary, path)?;
    disk.sync_dir(path.parent().unwrap_or(Path::new("")))
}

/// Names that end so are leftovers of an interrupted step; they are removed on open.
pub const TEMPORARY_SUFFIX: &str = ".tmp";

#[cfg(test)]
mod tests;
