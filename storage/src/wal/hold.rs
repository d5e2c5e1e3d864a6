//! Reading the log behind the writer: what the forwarder is built on.
//!
//! A hold keeps the segments it has not released. It is given back under the position that its
//! owner saved, so it survives restarts. Holding has a bound
//! ([`crate::Options::hold_bytes_max`]); what was removed beyond it is reported as lost.

use std::collections::BTreeMap;
use std::sync::Arc;

use crate::sync::Mutex;
use stint_model::{Exemplar, Labels, Metadata, Sample, SeriesRef};

use super::position::WalPosition;
use super::record::{self, Item};
use super::segment::{self, SegmentReader, Step};
use crate::db::Inner;
use crate::disk::DiskError;

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
    /// Accepted samples in order of the batch, without labels where the reader has them.
    pub rows: Vec<(SeriesRef, Option<Labels>, Sample)>,
    /// Metadata by family name, as far as it was new.
    pub metadata: Vec<(String, Metadata)>,
    /// Accepted exemplars.
    pub exemplars: Vec<(SeriesRef, Exemplar)>,
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
    /// The segment whose file was not there when last looked for.
    missing: Option<u64>,
    /// Rows of the last batch: so many are likely in the next one.
    rows: usize,
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
        Ok(Self { db, name: name.to_owned(), position, reader: None, missing: None, rows: 0 })
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

    /// The next batch, all samples with their labels. Records that hold nothing for a reader are
    /// passed over.
    pub fn next_event(&mut self) -> Result<CursorEvent, HoldError> {
        self.next_event_knowing(&|_| false)
    }

    /// As [`WalHold::next_event`], without the labels of series that the reader knows already: most
    /// samples are of such, and labels are made for each reading.
    pub fn next_event_knowing(
        &mut self,
        is_known: &dyn Fn(SeriesRef) -> bool,
    ) -> Result<CursorEvent, HoldError> {
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
            if let Some(event) = self.read(info.bytes, end, is_known)? {
                return Ok(event);
            }
        }
    }

    /// One step inside the segment at hand; `None` to look again.
    fn read(
        &mut self,
        bytes: u64,
        end: WalPosition,
        is_known: &dyn Fn(SeriesRef) -> bool,
    ) -> Result<Option<CursorEvent>, HoldError> {
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
            Err(error) if error.is_not_found() => {
                self.reader = None;
                // Removed between looking and reading: look again. If it is still listed then, somebody
                // else has removed it.
                if self.missing.replace(from.segment) != Some(from.segment) {
                    return Ok(None);
                }
                self.position = WalPosition { segment: from.segment + 1, offset: 0 };
                let reason = format!("the file is missing: {error}");
                return Ok(Some(CursorEvent::Lost { from, to: self.position, reason }));
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
                    let mut rows = Vec::with_capacity(self.rows);
                    let mut others = Vec::new();
                    let outcome = record::decode_apart(
                        payload,
                        |id, sample| rows.push((SeriesRef(id), None, sample)),
                        |item| others.push(item),
                    );
                    let to = WalPosition { segment: from.segment, offset: after };
                    self.position = to;
                    if let Err(reason) = outcome {
                        let reason = reason.to_owned();
                        return Ok(Some(CursorEvent::Lost { from, to, reason }));
                    }
                    self.rows = rows.len();
                    self.batch(rows, others, is_known).map(CursorEvent::Batch)
                }
            },
        };
        Ok(event)
    }

    fn batch(
        &self,
        rows: Vec<(SeriesRef, Option<Labels>, Sample)>,
        others: Vec<Item>,
        is_known: &dyn Fn(SeriesRef) -> bool,
    ) -> Option<CursorBatch> {
        let mut batch =
            CursorBatch { rows, position_after: self.position, ..CursorBatch::default() };
        let mut any = !batch.rows.is_empty();
        let orphans = &mut batch.orphans;
        // A batch is in the log before it is in the head: a series that is not known may be on its way.
        let mut arrived = false;
        let mut labels_of = |series: SeriesRef| {
            self.db.head.labels_of(series).or_else(|| {
                if !std::mem::replace(&mut arrived, true) {
                    drop(self.db.writer());
                }
                self.db.head.labels_of(series)
            })
        };
        batch.rows.retain_mut(|(series, labels, _)| {
            if is_known(*series) {
                return true;
            }
            // The head has a series as long as the log has a sample of it.
            *labels = labels_of(*series);
            *orphans += u64::from(labels.is_none());
            labels.is_some()
        });
        for item in others {
            match item {
                Item::Exemplar { id, exemplar } => {
                    any = true;
                    batch.exemplars.push((SeriesRef(id), exemplar));
                }
                Item::Metadata { family, metadata } => {
                    any = true;
                    batch.metadata.push((family, metadata));
                }
                Item::Series { .. }
                | Item::Sample { .. }
                | Item::FlushBegin { .. }
                | Item::FlushDone { .. }
                | Item::Deleted { .. }
                | Item::Checkpoint { .. }
                | Item::StatesAt { .. }
                | Item::State { .. } => {}
            }
        }
        any.then_some(batch)
    }
}
