//! Reading the log behind the writer: what the forwarder is built on.
//!
//! A hold keeps the segments it has not released. It is given back under the position that its
//! owner saved, so it survives restarts. Holding has a bound
//! ([`crate::Options::hold_bytes_max`]); what was removed beyond it is reported as lost.

use std::collections::BTreeMap;
use std::sync::Arc;

use crate::sync::Mutex;
use hashbrown::HashMap;
use stint_model::{Exemplar, Labels, Metadata, Sample, SeriesRef};

use super::position::WalPosition;
use super::record::{self, Item};
use super::segment::{self, SegmentReader, Step};
use crate::db::Inner;
use crate::disk::DiskError;

/// Label sets that a hold keeps at hand.
const CACHED_SERIES_MAX: usize = 1 << 16;

/// Why a hold could not be taken or read.
#[derive(Debug, thiserror::Error)]
pub enum HoldError {
    /// Somebody has it already.
    #[error("the log is already held as {0:?}; each name may be held once")]
    Taken(String),
    /// The disk failed.
    #[error(transparent)]
    Disk(#[from] DiskError),
}

/// Positions that must be kept, by name of the holder.
#[derive(Debug, Default)]
pub(crate) struct Holds(Mutex<BTreeMap<String, WalPosition>>);

impl Holds {
    /// The oldest position that somebody holds.
    pub(crate) fn oldest(&self) -> Option<WalPosition> {
        self.0.lock().values().min().copied()
    }
}

/// What was appended by one batch, as it was accepted.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct CursorBatch {
    /// Accepted samples in order of the batch.
    pub rows: Vec<(SeriesRef, Labels, Sample)>,
    /// Metadata by family name, as far as it was new.
    pub metadata: Vec<(String, Metadata)>,
    /// Accepted exemplars.
    pub exemplars: Vec<(SeriesRef, Labels, Exemplar)>,
    /// Samples whose series is not known any more; only after damage to the log.
    pub orphans: u64,
    /// Where reading goes on. Save it once the batch is dealt with.
    pub position_after: WalPosition,
}

/// What reading the log brings.
#[derive(Clone, Debug, PartialEq)]
pub enum CursorEvent {
    /// A batch.
    Batch(CursorBatch),
    /// This stretch cannot be read: it was removed because the hold fell back too far, or it is
    /// damaged. Reading goes on at `to`.
    Lost {
        /// Where reading stood.
        from: WalPosition,
        /// Where it goes on.
        to: WalPosition,
        /// Why.
        reason: String,
    },
    /// Nothing more for now.
    CaughtUp,
}

/// A reader of the log that keeps what it has not released.
pub struct WalHold {
    db: Arc<Inner>,
    name: String,
    position: WalPosition,
    reader: Option<(u64, SegmentReader)>,
    labels: HashMap<u64, Labels>,
}

impl std::fmt::Debug for WalHold {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "WalHold({:?} at {})", self.name, self.position)
    }
}

impl Drop for WalHold {
    fn drop(&mut self) {
        self.db.holds.0.lock().remove(&self.name);
    }
}

impl WalHold {
    pub(crate) fn new(
        db: Arc<Inner>,
        name: &str,
        from: Option<WalPosition>,
    ) -> Result<Self, HoldError> {
        let end = db.log.end();
        let position = from.map_or(end, |from| from.min(end));
        {
            let mut holds = db.holds.0.lock();
            if holds.contains_key(name) {
                return Err(HoldError::Taken(name.to_owned()));
            }
            holds.insert(name.to_owned(), position);
        }
        Ok(Self { db, name: name.to_owned(), position, reader: None, labels: HashMap::new() })
    }

    /// Where reading goes on.
    pub fn position(&self) -> WalPosition {
        self.position
    }

    /// Bytes of log between the reader and the end.
    pub fn lag_bytes(&self) -> u64 {
        let segments = self.db.log.segments();
        let behind: u64 = segments.range(self.position.segment..).map(|(_, info)| info.bytes).sum();
        behind.saturating_sub(self.position.offset)
    }

    /// Goes back (or forward) to a position from an earlier event, to read from there again.
    pub fn seek(&mut self, position: WalPosition) {
        self.position = position;
        self.reader = None;
    }

    /// What lies before `position` is not needed any more.
    pub fn release_until(&self, position: WalPosition) {
        if let Some(held) = self.db.holds.0.lock().get_mut(&self.name) {
            *held = (*held).max(position);
        }
    }

    /// The next batch. Records that hold nothing for a reader are passed over.
    pub fn next_event(&mut self) -> Result<CursorEvent, HoldError> {
        loop {
            // In this order: a segment that begins meanwhile is seen, rather than missed.
            let end = self.db.log.end();
            let segments = self.db.log.segments();
            let next = segments.range(self.position.segment..).next();
            // Nothing may be left at all: then what comes next begins at the end.
            let number = next.map_or(end.segment, |(number, _)| *number);
            if number > self.position.segment {
                let from = self.position;
                self.position = WalPosition { segment: number, offset: 0 };
                self.reader = None;
                let reason = "removed: the hold fell back too far".to_owned();
                return Ok(CursorEvent::Lost { from, to: self.position, reason });
            }
            let Some((_, info)) = next else { return Ok(CursorEvent::CaughtUp) };
            if let Some(event) = self.read(info.bytes, end)? {
                return Ok(event);
            }
        }
    }

    /// One step inside the segment at hand; `None` to look again.
    fn read(&mut self, bytes: u64, end: WalPosition) -> Result<Option<CursorEvent>, HoldError> {
        let from = self.position;
        let reader = match &mut self.reader {
            Some((number, reader)) if *number == from.segment => reader,
            slot => {
                let disk = Arc::clone(&self.db.disk);
                let path = segment::path(from.segment);
                let reader = SegmentReader::new(disk, path, from.offset, bytes);
                &mut slot.insert((from.segment, reader)).1
            }
        };
        reader.set_end(bytes);
        let event = match reader.step() {
            // Removed between looking and reading: look again.
            Err(error) if error.is_not_found() => {
                self.reader = None;
                return Ok(None);
            }
            step => match step? {
                Step::End if from.segment >= end.segment => Some(CursorEvent::CaughtUp),
                Step::End => {
                    self.position = WalPosition { segment: from.segment + 1, offset: 0 };
                    self.reader = None;
                    return Ok(None);
                }
                Step::Damaged { reason, .. } => {
                    let to = WalPosition { segment: from.segment, offset: reader.offset() };
                    self.position = to;
                    Some(CursorEvent::Lost { from, to, reason: reason.to_owned() })
                }
                Step::Record { payload, after } => {
                    let mut items = Vec::new();
                    let outcome = record::decode(payload, |item| items.push(item));
                    let to = WalPosition { segment: from.segment, offset: after };
                    self.position = to;
                    if let Err(reason) = outcome {
                        let reason = reason.to_owned();
                        return Ok(Some(CursorEvent::Lost { from, to, reason }));
                    }
                    self.batch(items).map(CursorEvent::Batch)
                }
            },
        };
        Ok(event)
    }

    fn batch(&mut self, items: Vec<Item>) -> Option<CursorBatch> {
        let mut batch = CursorBatch { position_after: self.position, ..CursorBatch::default() };
        let mut any = false;
        for item in items {
            match item {
                Item::Series { id, labels, .. } => self.remember(id, labels),
                Item::Sample { id, sample } => {
                    any = true;
                    match self.labels_of(id) {
                        Some(labels) => batch.rows.push((SeriesRef(id), labels, sample)),
                        None => batch.orphans += 1,
                    }
                }
                Item::Exemplar { id, exemplar } => {
                    any = true;
                    if let Some(labels) = self.labels_of(id) {
                        batch.exemplars.push((SeriesRef(id), labels, exemplar));
                    }
                }
                Item::Metadata { family, metadata } => {
                    any = true;
                    batch.metadata.push((family, metadata));
                }
                Item::FlushBegin { .. }
                | Item::FlushDone { .. }
                | Item::Deleted { .. }
                | Item::Checkpoint { .. }
                | Item::StatesAt { .. }
                | Item::State { .. } => {}
            }
        }
        any.then_some(batch)
    }

    fn remember(&mut self, id: u64, labels: Labels) {
        if self.labels.len() >= CACHED_SERIES_MAX {
            self.labels.clear();
        }
        self.labels.insert(id, labels);
    }

    fn labels_of(&mut self, id: u64) -> Option<Labels> {
        if let Some(labels) = self.labels.get(&id) {
            return Some(labels.clone());
        }
        let labels = self.db.head.labels_of(SeriesRef(id))?;
        self.remember(id, labels.clone());
        Some(labels)
    }
}
