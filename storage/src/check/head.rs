//! Files with sealed chunks of the head, and what checkpoints say of them.

use std::collections::BTreeMap;
use std::path::Path;

use super::{CheckReport, or_nothing};
use crate::disk::{Disk, DiskResult, Mapped};
use crate::head::{arena, state};

/// Bytes of a file that are read at once.
const READ_BYTES: usize = 1 << 20;

/// The files that are there.
pub(super) struct Files {
    mapped: BTreeMap<u32, Mapped>,
    /// Place and length of the chunks that the checkpoint at hand refers to, by file.
    referred: BTreeMap<u32, Vec<(u32, u32)>>,
}

impl Files {
    /// Lists the files and verifies the checksum of each.
    pub(super) fn list(disk: &dyn Disk, report: &mut CheckReport) -> DiskResult<Self> {
        let dir = Path::new(arena::DIR);
        let mut files = Self { mapped: BTreeMap::new(), referred: BTreeMap::new() };
        for entry in or_nothing(disk.list(dir))? {
            let path = dir.join(&entry.name);
            if let Some(number) = arena::number_of(&entry.name) {
                report.head_files += 1;
                if !arena::is_whole(disk, &path, READ_BYTES)? {
                    report.found(&path, "checksum mismatch");
                }
                files.mapped.insert(number, disk.map(&path)?);
            } else if !arena::is_unfinished(&entry.name) {
                report.found(&path, "unknown file");
            }
        }
        Ok(files)
    }

    /// Begins anew with a checkpoint: each may refer to the same chunks.
    pub(super) fn begin(&mut self) {
        self.referred.clear();
    }

    /// Verifies the state of a series; how many samples it stands for.
    ///
    /// # Errors
    /// What does not hold.
    pub(super) fn check_state(&mut self, state: &[u8]) -> Result<u64, String> {
        let Self { mapped, referred } = self;
        state::verify(state, |place| {
            let Some(file) = mapped.get(&place.piece) else {
                return Err(format!("{} is missing", arena::path(place.piece).display()));
            };
            referred.entry(place.piece).or_default().push((place.start, place.length));
            arena::bytes_in(file, place)
                .ok_or_else(|| format!("a chunk beyond {}", arena::path(place.piece).display()))
        })
    }

    /// No two chunks that the checkpoint at hand refers to share bytes.
    pub(super) fn check_shared(&mut self, report: &mut CheckReport) {
        for (number, chunks) in &mut self.referred {
            chunks.sort_unstable();
            let shared = chunks.windows(2).find(|pair| match pair {
                [(start, length), (next, _)] => {
                    u64::from(*start) + u64::from(*length) > u64::from(*next)
                }
                _ => false,
            });
            if let Some([_, (at, _)]) = shared {
                let path = arena::path(*number);
                report.found(&path, format!("two series refer to the chunk at {at}"));
            }
        }
    }
}
