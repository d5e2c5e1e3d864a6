//! Mapping a file into memory: the one place in the project that needs `unsafe`.
#![allow(unsafe_code, reason = "mapping a file cannot be expressed safely")]

use std::fs::File;
use std::io;

use super::Mapped;

/// Maps the whole of `file`, which nobody changes any more.
#[cfg(not(miri))]
pub(super) fn map(file: &File) -> io::Result<Mapped> {
    // SAFETY: the bytes of a mapping must not change while they are borrowed. The engine maps
    // only published files, which it never writes to again; it removes their names but a removed
    // file lives on until unmapped. Another program that truncates a file in the data directory
    // can still end this process with SIGBUS; the directory lock keeps other instances out.
    let mapped = unsafe { memmap2::MmapOptions::new().map(file)? };
    Ok(Mapped::new(Holder(mapped)))
}

/// The same for an interpreter that cannot map files: a copy of the bytes, which live and die as those
/// of a mapping do. What borrows from them is checked alike.
#[cfg(miri)]
pub(super) fn map(file: &File) -> io::Result<Mapped> {
    use std::io::Read as _;

    let mut bytes = Vec::new();
    (&*file).read_to_end(&mut bytes)?;
    Ok(Mapped::new(Holder(bytes.into_boxed_slice())))
}

#[cfg(not(miri))]
struct Holder(memmap2::Mmap);

#[cfg(miri)]
struct Holder(Box<[u8]>);

impl AsRef<[u8]> for Holder {
    fn as_ref(&self) -> &[u8] {
        &self.0
    }
}

#[cfg(test)]
mod tests {
    use std::path::{Path, PathBuf};
    use std::thread;

    use super::*;

    fn file(bytes: &[u8], name: &str) -> (PathBuf, File) {
        let path = std::env::temp_dir().join(format!("stint-mmap-{}-{name}", std::process::id()));
        std::fs::write(&path, bytes).unwrap();
        let file = File::open(&path).unwrap();
        (path, file)
    }

    fn remove(path: &Path) {
        std::fs::remove_file(path).unwrap();
    }

    #[test]
    fn bytes_stay_readable_from_any_thread_after_file_and_name_are_gone() {
        let bytes: Vec<u8> = (0..10_000_u32).map(|at| at.wrapping_mul(31) as u8).collect();
        let (path, file) = file(&bytes, "whole");
        let mapped = map(&file).unwrap();
        drop(file);
        remove(&path);
        assert_eq!(*mapped, *bytes);
        let all: Vec<Mapped> = vec![mapped.clone(); 4];
        thread::scope(|scope| {
            for (part, mapped) in all.into_iter().enumerate() {
                let want = &bytes[part * 2500..][..2500];
                scope.spawn(move || assert_eq!(&mapped[part * 2500..][..2500], want));
            }
            // The last of them unmaps it.
            drop(mapped);
        });
    }

    #[test]
    fn a_clone_is_the_same_memory_and_holds_it() {
        let (path, file) = file(b"some bytes", "clone");
        let mapped = map(&file).unwrap();
        remove(&path);
        let clone = mapped.clone();
        assert_eq!(mapped.as_ptr(), clone.as_ptr());
        let part = clone.get(5..).unwrap();
        drop(mapped);
        assert_eq!(part, b"bytes");
    }

    #[test]
    fn an_empty_file_is_no_bytes() {
        let (path, file) = file(b"", "empty");
        assert_eq!(map(&file).unwrap().len(), 0);
        remove(&path);
    }
}
