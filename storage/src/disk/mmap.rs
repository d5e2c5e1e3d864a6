//! Mapping a file into memory: the one place in the project that needs `unsafe`.
#![allow(unsafe_code, reason = "mapping a file cannot be expressed safely")]

use std::fs::File;
use std::io;

use memmap2::{Mmap, MmapOptions};

use super::Mapped;

/// Maps the whole of `file`, which nobody changes any more.
pub(super) fn map(file: &File) -> io::Result<Mapped> {
    // SAFETY: the bytes of a mapping must not change while they are borrowed. The engine maps
    // only published files, which it never writes to again; it removes their names but a removed
    // file lives on until unmapped. Another program that truncates a file in the data directory
    // can still end this process with SIGBUS; the directory lock keeps other instances out.
    let mapped = unsafe { MmapOptions::new().map(file)? };
    Ok(Mapped::new(Holder(mapped)))
}

struct Holder(Mmap);

impl AsRef<[u8]> for Holder {
    fn as_ref(&self) -> &[u8] {
        &self.0
    }
}
