//! Writing the log: one write per record, rotation, group sync, and what happens when the disk
//! refuses.
//!
//! A failed or partial write is cut off again and the append fails; the next one tries anew, so a
//! full disk heals by itself. After a failed sync nobody knows what the disk holds: the log then
//! refuses everything until the database is reopened.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;

use crate::sync::Mutex;
use stint_model::AppendError;

use super::position::WalPosition;
use super::record::Encoder;
use super::segment::{self, HEADER_BYTES, PAYLOAD_BYTES_MAX, RECORD_HEADER_BYTES};
use crate::disk::{Disk, DiskError, DiskFile, DiskResult};
use crate::error::append_error;

/// What is known of a segment.
#[derive(Clone, Copy, Debug)]
pub(crate) struct SegmentInfo {
    /// Its length.
    pub(crate) bytes: u64,
}

struct State {
    segments: BTreeMap<u64, SegmentInfo>,
    /// The file of the last segment; none before the first append after opening.
    file: Option<Arc<dyn DiskFile>>,
    /// Whether a failed write could not be cut off that file again.
    ragged: bool,
    /// Number of the next segment to create.
    next: u64,
}

/// The log of an open database.
pub(crate) struct Log {
    disk: Arc<dyn Disk>,
    segment_bytes: u64,
    state: Mutex<State>,
    /// Everything before this is synced.
    synced: Mutex<WalPosition>,
    read_only: Mutex<Option<String>>,
}

impl Log {
    /// Goes on behind `segments`, of which none is written to again.
    pub(crate) fn new(
        disk: Arc<dyn Disk>,
        segment_bytes: u64,
        segments: BTreeMap<u64, SegmentInfo>,
        next: u64,
    ) -> Self {
        let state = State { segments, file: None, ragged: false, next };
        Self {
            disk,
            segment_bytes: segment_bytes.max(HEADER_BYTES + 1),
            state: Mutex::new(state),
            synced: Mutex::default(),
            read_only: Mutex::default(),
        }
    }

    /// Makes what an earlier run left in its last segment survive the machine: that run may have
    /// been killed before it synced, and nothing is written to that file again. Segments before it
    /// were synced when they were closed.
    pub(crate) fn sync_inherited(&self) -> DiskResult<()> {
        let last = self.state.lock().segments.last_key_value().map(|(number, _)| *number);
        if let Some(number) = last {
            self.disk.open(&segment::path(number))?.sync()?;
            self.disk.sync_dir(Path::new(super::DIR))?;
        }
        Ok(())
    }

    /// Fails when an earlier failure made the log read-only.
    pub(crate) fn check_writable(&self) -> Result<(), AppendError> {
        match &*self.read_only.lock() {
            Some(reason) => Err(AppendError::ReadOnly(reason.clone())),
            None => Ok(()),
        }
    }

    /// Writes the record in `encoder`, which was reset with [`RECORD_HEADER_BYTES`]. Returns
    /// where it ends.
    pub(crate) fn append(&self, encoder: &mut Encoder) -> Result<WalPosition, AppendError> {
        self.check_writable()?;
        let record = encoder.bytes_mut();
        if record.len() > PAYLOAD_BYTES_MAX {
            return Err(AppendError::Io("batch is longer than a log record may be".to_owned()));
        }
        segment::seal(record);
        let mut state = self.state.lock();
        let file = self.file_for(&mut state, record.len() as u64)?;
        let number = state.next - 1;
        let info = state.segments.entry(number).or_insert(EMPTY);
        match file.append(record) {
            Ok(()) => {
                info.bytes += record.len() as u64;
                Ok(WalPosition { segment: number, offset: info.bytes })
            }
            Err(error) => {
                // Readers skip what lies behind the last good record; a new segment takes what
                // comes next.
                state.ragged = file.truncate(info.bytes).is_err();
                Err(append_error(&error))
            }
        }
    }

    /// The file that takes the next `bytes`, after rotation where it is due.
    fn file_for(&self, state: &mut State, bytes: u64) -> Result<Arc<dyn DiskFile>, AppendError> {
        if let Some(file) = state.file.as_ref().filter(|_| !state.ragged) {
            let length = state.next.checked_sub(1).and_then(|n| state.segments.get(&n));
            let length = length.map_or(0, |info| info.bytes);
            if length <= HEADER_BYTES || length + bytes <= self.segment_bytes {
                return Ok(Arc::clone(file));
            }
        }
        self.begin_segment(state)
    }

    fn begin_segment(&self, state: &mut State) -> Result<Arc<dyn DiskFile>, AppendError> {
        if let Some(file) = &state.file {
            file.sync().map_err(|error| self.poison(&error))?;
        }
        let number = state.next;
        let file = self.create(number).map_err(|error| append_error(&error))?;
        self.disk.sync_dir(Path::new(super::DIR)).map_err(|error| self.poison(&error))?;
        let file: Arc<dyn DiskFile> = Arc::from(file);
        state.file = Some(Arc::clone(&file));
        state.ragged = false;
        state.segments.insert(number, EMPTY);
        state.next = number + 1;
        Ok(file)
    }

    fn create(&self, number: u64) -> DiskResult<Box<dyn DiskFile>> {
        let path = segment::path(number);
        let file = match self.disk.create(&path) {
            Err(error) if error.source.kind() == std::io::ErrorKind::AlreadyExists => {
                // Left by an attempt that did not get to the end of its header.
                self.disk.remove(&path)?;
                self.disk.create(&path)?
            }
            created => created?,
        };
        file.append(&segment::header(segment::VERSION))?;
        Ok(file)
    }

    /// Closes the current segment, so that what follows lies in a later one; returns the number
    /// of that one.
    pub(crate) fn rotate(&self) -> Result<u64, AppendError> {
        self.check_writable()?;
        let mut state = self.state.lock();
        if let Some(file) = state.file.take() {
            file.sync().map_err(|error| self.poison(&error))?;
        }
        Ok(state.next)
    }

    /// Makes everything appended so far survive the machine.
    pub(crate) fn sync(&self) -> Result<(), AppendError> {
        self.sync_to(self.end())
    }

    /// Makes everything before `position` survive the machine. Callers that arrive while another
    /// one syncs are served together by the next sync.
    pub(crate) fn sync_to(&self, position: WalPosition) -> Result<(), AppendError> {
        let mut synced = self.synced.lock();
        if *synced >= position {
            return Ok(());
        }
        self.check_writable()?;
        let (file, end) = {
            let state = self.state.lock();
            (state.file.clone(), end_of(&state))
        };
        if let Some(file) = file {
            file.sync().map_err(|error| self.poison(&error))?;
        }
        *synced = end;
        Ok(())
    }

    fn poison(&self, error: &DiskError) -> AppendError {
        let mut read_only = self.read_only.lock();
        let reason = read_only.get_or_insert_with(|| error.to_string());
        AppendError::ReadOnly(reason.clone())
    }

    /// Why the log is read-only, if it is.
    pub(crate) fn read_only_reason(&self) -> Option<String> {
        self.read_only.lock().clone()
    }

    /// Behind the last record.
    pub(crate) fn end(&self) -> WalPosition {
        end_of(&self.state.lock())
    }

    /// All segments, oldest first.
    pub(crate) fn segments(&self) -> BTreeMap<u64, SegmentInfo> {
        self.state.lock().segments.clone()
    }

    /// Removes the segments before number `first`, except the one being written.
    pub(crate) fn remove_before(&self, first: u64) -> DiskResult<()> {
        let old: Vec<u64> = {
            let state = self.state.lock();
            let first = first.min(if state.file.is_some() { state.next - 1 } else { state.next });
            state.segments.range(..first).map(|(number, _)| *number).collect()
        };
        for number in old {
            match self.disk.remove(&segment::path(number)) {
                Err(error) if !error.is_not_found() => return Err(error),
                _ => {}
            }
            self.state.lock().segments.remove(&number);
        }
        Ok(())
    }
}

const EMPTY: SegmentInfo = SegmentInfo { bytes: HEADER_BYTES };

fn end_of(state: &State) -> WalPosition {
    match state.segments.last_key_value() {
        Some((number, info)) => WalPosition { segment: *number, offset: info.bytes },
        None => WalPosition { segment: state.next, offset: 0 },
    }
}

/// An encoder ready for one record.
pub(crate) fn start_record(encoder: &mut Encoder) {
    encoder.reset(RECORD_HEADER_BYTES);
}

#[cfg(test)]
mod tests;
