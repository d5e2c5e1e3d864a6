//! Checkpoints: what earlier segments said, series by series.
//!
//! `wal/checkpoint.00000007` stands for all segments before number 7, which may be kept for slow
//! readers but are not replayed any more.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::DIR;
use super::record::{Encoder, Packer};
use super::segment::{self, RECORD_HEADER_BYTES};
use crate::disk::{Disk, DiskFile, DiskResult, TEMPORARY_SUFFIX};

const PREFIX: &str = "checkpoint.";
/// A record is packed when it has this many bytes: damage costs a record.
const RECORD_BYTES: usize = 1 << 18;

/// Where the checkpoint that stands for the segments before `number` lies.
pub(crate) fn path(number: u64) -> PathBuf {
    Path::new(DIR).join(format!("{PREFIX}{number:08}"))
}

/// The number in a file's name, if it is a checkpoint.
pub(crate) fn number_of(name: &str) -> Option<u64> {
    name.strip_prefix(PREFIX)?.parse().ok()
}

/// Writes a checkpoint item by item; it exists once [`Writer::publish`] has returned. Dropped before,
/// it leaves nothing.
pub(crate) struct Writer {
    disk: Arc<dyn Disk>,
    temporary: PathBuf,
    number: u64,
    file: Box<dyn DiskFile>,
    encoder: Encoder,
    packer: Packer,
    published: bool,
}

impl Writer {
    pub(crate) fn new(disk: Arc<dyn Disk>, number: u64) -> DiskResult<Self> {
        let mut temporary = path(number).into_os_string();
        temporary.push(TEMPORARY_SUFFIX);
        let temporary = PathBuf::from(temporary);
        match disk.remove(&temporary) {
            Err(error) if !error.is_not_found() => return Err(error),
            _ => {}
        }
        let file = disk.create(&temporary)?;
        let mut encoder = Encoder::default();
        encoder.reset(RECORD_HEADER_BYTES);
        let packer = Packer::default();
        let writer = Self { disk, temporary, number, file, encoder, packer, published: false };
        writer.file.append(&segment::header(segment::CHECKPOINT_VERSION))?;
        Ok(writer)
    }

    /// Adds one item.
    pub(crate) fn add(&mut self, item: impl FnOnce(&mut Encoder)) -> DiskResult<()> {
        item(&mut self.encoder);
        if self.encoder.bytes_mut().len() >= RECORD_BYTES { self.flush() } else { Ok(()) }
    }

    /// Ends the record, so that damage to what follows does not touch what was added.
    pub(crate) fn flush(&mut self) -> DiskResult<()> {
        let record = self.encoder.bytes_mut();
        if record.len() > RECORD_HEADER_BYTES {
            let record = self.packer.pack(record, RECORD_HEADER_BYTES).unwrap_or(record);
            segment::seal(record);
            self.file.append(record)?;
        }
        self.encoder.reset(RECORD_HEADER_BYTES);
        Ok(())
    }

    /// Makes the checkpoint durable under its name.
    pub(crate) fn publish(mut self) -> DiskResult<()> {
        self.flush()?;
        self.file.sync()?;
        self.disk.rename(&self.temporary, &path(self.number))?;
        self.published = true;
        self.disk.sync_dir(Path::new(DIR))
    }
}

impl Drop for Writer {
    fn drop(&mut self) {
        if !self.published {
            // On a full disk others need the room at once. Whoever dropped it knows why; what
            // cannot be removed now goes with the next start.
            let _ = self.disk.remove(&self.temporary);
        }
    }
}
