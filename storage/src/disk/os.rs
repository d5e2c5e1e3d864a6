//! The real file system.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Write as _};
use std::os::unix::fs::FileExt as _;
use std::path::{Path, PathBuf};

use super::{DirEntry, Disk, DiskError, DiskFile, DiskLock, DiskResult, Mapped, mmap};

/// A directory of the operating system.
#[derive(Debug)]
pub struct OsDisk {
    root: PathBuf,
}

impl OsDisk {
    /// The disk rooted at `root`, which is created when it does not exist.
    pub fn new(root: impl Into<PathBuf>) -> DiskResult<Self> {
        let root = root.into();
        fs::create_dir_all(&root).map_err(|e| DiskError::new("create directory", &root, e))?;
        Ok(Self { root })
    }

    /// Where the disk is rooted.
    pub fn root(&self) -> &Path {
        &self.root
    }

    fn at(&self, path: &Path) -> PathBuf {
        self.root.join(path)
    }

    fn opened(&self, path: &Path, file: File) -> OsFile {
        OsFile { file, path: self.at(path) }
    }
}

impl Disk for OsDisk {
    fn create(&self, path: &Path) -> DiskResult<Box<dyn DiskFile>> {
        let file = OpenOptions::new()
            .append(true)
            .create_new(true)
            .open(self.at(path))
            .map_err(|e| DiskError::new("create", &self.at(path), e))?;
        Ok(Box::new(self.opened(path, file)))
    }

    fn open(&self, path: &Path) -> DiskResult<Box<dyn DiskFile>> {
        let file = OpenOptions::new()
            .append(true)
            .open(self.at(path))
            .map_err(|e| DiskError::new("open", &self.at(path), e))?;
        Ok(Box::new(self.opened(path, file)))
    }

    fn read(&self, path: &Path, offset: u64, length: usize) -> DiskResult<Vec<u8>> {
        let failed = |e| DiskError::new("read", &self.at(path), e);
        let file = File::open(self.at(path)).map_err(failed)?;
        let size = file.metadata().map_err(failed)?.len();
        let length = length.min(usize::try_from(size.saturating_sub(offset)).unwrap_or(usize::MAX));
        let mut bytes = vec![0; length];
        let mut done = 0;
        while let Some(rest) = bytes.get_mut(done..).filter(|rest| !rest.is_empty()) {
            match file.read_at(rest, offset + done as u64) {
                Ok(0) => break,
                Ok(count) => done += count,
                Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
                Err(e) => return Err(failed(e)),
            }
        }
        bytes.truncate(done);
        Ok(bytes)
    }

    fn map(&self, path: &Path) -> DiskResult<Mapped> {
        let failed = |e| DiskError::new("map", &self.at(path), e);
        mmap::map(&File::open(self.at(path)).map_err(failed)?).map_err(failed)
    }

    fn size(&self, path: &Path) -> DiskResult<u64> {
        let metadata = fs::metadata(self.at(path));
        Ok(metadata.map_err(|e| DiskError::new("look at", &self.at(path), e))?.len())
    }

    fn list(&self, dir: &Path) -> DiskResult<Vec<DirEntry>> {
        let failed = |e| DiskError::new("list", &self.at(dir), e);
        let mut entries = Vec::new();
        for entry in fs::read_dir(self.at(dir)).map_err(failed)? {
            let entry = entry.map_err(failed)?;
            let metadata = match entry.metadata() {
                Err(e) if e.kind() == io::ErrorKind::NotFound => continue,
                metadata => metadata.map_err(failed)?,
            };
            entries.push(DirEntry {
                name: entry.file_name().to_string_lossy().into_owned(),
                is_dir: metadata.is_dir(),
                size: if metadata.is_dir() { 0 } else { metadata.len() },
            });
        }
        entries.sort_by(|a, b| a.name.cmp(&b.name));
        Ok(entries)
    }

    fn create_dir(&self, dir: &Path) -> DiskResult<()> {
        fs::create_dir_all(self.at(dir))
            .map_err(|e| DiskError::new("create directory", &self.at(dir), e))
    }

    fn rename(&self, from: &Path, to: &Path) -> DiskResult<()> {
        fs::rename(self.at(from), self.at(to))
            .map_err(|e| DiskError::new("rename", &self.at(from), e))
    }

    fn link(&self, from: &Path, to: &Path) -> DiskResult<()> {
        fs::hard_link(self.at(from), self.at(to))
            .map_err(|e| DiskError::new("link", &self.at(from), e))
    }

    fn remove(&self, path: &Path) -> DiskResult<()> {
        fs::remove_file(self.at(path)).map_err(|e| DiskError::new("remove", &self.at(path), e))
    }

    fn remove_dir(&self, dir: &Path) -> DiskResult<()> {
        fs::remove_dir_all(self.at(dir))
            .map_err(|e| DiskError::new("remove directory", &self.at(dir), e))
    }

    fn sync_dir(&self, dir: &Path) -> DiskResult<()> {
        File::open(self.at(dir))
            .and_then(|dir| dir.sync_all())
            .map_err(|e| DiskError::new("sync directory", &self.at(dir), e))
    }

    fn lock(&self, path: &Path) -> DiskResult<Box<dyn DiskLock>> {
        let failed = |e| DiskError::new("lock", &self.at(path), e);
        let file = OpenOptions::new()
            .write(true)
            .create(true)
            .truncate(false)
            .open(self.at(path))
            .map_err(failed)?;
        rustix::fs::flock(&file, rustix::fs::FlockOperation::NonBlockingLockExclusive)
            .map_err(|e| failed(e.into()))?;
        Ok(Box::new(OsLock { _file: file }))
    }

    fn free_space(&self) -> DiskResult<u64> {
        let stat = rustix::fs::statvfs(&self.root)
            .map_err(|e| DiskError::new("look at", &self.root, e.into()))?;
        Ok(stat.f_bavail.saturating_mul(stat.f_frsize))
    }
}

struct OsFile {
    file: File,
    path: PathBuf,
}

impl DiskFile for OsFile {
    fn append(&self, bytes: &[u8]) -> DiskResult<()> {
        (&self.file).write_all(bytes).map_err(|e| DiskError::new("append to", &self.path, e))
    }

    fn sync(&self) -> DiskResult<()> {
        self.file.sync_data().map_err(|e| DiskError::new("sync", &self.path, e))
    }

    fn truncate(&self, length: u64) -> DiskResult<()> {
        self.file.set_len(length).map_err(|e| DiskError::new("truncate", &self.path, e))
    }
}

#[derive(Debug)]
struct OsLock {
    /// Closing the file frees the lock.
    _file: File,
}

impl DiskLock for OsLock {}
