//! The one way into a store: a [`Batch`] handed to an [`Appender`].

use std::fmt;

use crate::exemplar::Exemplar;
use crate::labels::{Labels, SeriesRef};
use crate::metadata::Metadata;
use crate::sample::Sample;
use crate::time::Span;

/// Which series a row belongs to.
#[derive(Clone, Debug, PartialEq)]
pub enum SeriesKey {
    /// A handle returned by an earlier append to the same store.
    Known(SeriesRef),
    /// The full label set, metric name included.
    Labels(Labels),
}

/// One sample of one series.
#[derive(Clone, Debug, PartialEq)]
pub struct Row {
    /// Whose sample it is.
    pub series: SeriesKey,
    /// The sample.
    pub sample: Sample,
}

/// Exemplars of one row's series.
#[derive(Clone, Debug, PartialEq)]
pub struct Exemplars {
    /// Index into [`Batch::rows`]; the row names the series.
    pub row: usize,
    /// In order of time.
    pub exemplars: Vec<Exemplar>,
}

/// What one source delivers at once: a scrape, a received request, the outcome of a rule group.
///
/// A batch is one transaction: readers see all of its accepted rows or none.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Batch {
    /// Samples. Rows of the same series must be in order of time.
    pub rows: Vec<Row>,
    /// Exemplars by row, in order of rows.
    pub exemplars: Vec<Exemplars>,
    /// Metadata by metric family name.
    pub metadata: Vec<(String, Metadata)>,
    /// How far behind a series' newest sample a row may lie. Zero for in-order sources.
    pub out_of_order_window: Span,
}

impl Batch {
    /// Adds a sample of a series given by its labels.
    pub fn push(&mut self, labels: Labels, sample: Sample) {
        self.rows.push(Row { series: SeriesKey::Labels(labels), sample });
    }

    /// Adds a sample of a series given by its handle.
    pub fn push_known(&mut self, series: SeriesRef, sample: Sample) {
        self.rows.push(Row { series: SeriesKey::Known(series), sample });
    }

    /// Empties the batch, keeping its memory and its out-of-order window.
    pub fn clear(&mut self) {
        self.rows.clear();
        self.exemplars.clear();
        self.metadata.clear();
    }
}

/// Why a row was not stored. Each protocol maps these to its own answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum RejectReason {
    /// The handle means nothing to this store (any more): send the labels.
    UnknownSeries,
    /// The label set is empty, has no valid metric name, or names a label twice.
    InvalidLabels,
    /// A sample with this time and another value is already stored.
    DuplicateTimestamp,
    /// Older than the series' newest sample, and the batch allows no out-of-order samples.
    OutOfOrder,
    /// Older than the out-of-order window reaches.
    TooOld,
    /// Below the range that the store still accepts.
    OutOfBounds,
    /// Too far in the future.
    TooFarInFuture,
    /// A native histogram that contradicts itself, or has more buckets than can be stored.
    InvalidHistogram,
    /// More labels, or longer ones, than the limits allow or can be stored.
    LabelLimit,
}

impl RejectReason {
    /// Every reason, for counters.
    pub const ALL: [Self; 9] = [
        Self::UnknownSeries,
        Self::InvalidLabels,
        Self::DuplicateTimestamp,
        Self::OutOfOrder,
        Self::TooOld,
        Self::OutOfBounds,
        Self::TooFarInFuture,
        Self::InvalidHistogram,
        Self::LabelLimit,
    ];

    /// A short name for metrics.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::UnknownSeries => "unknown_series",
            Self::InvalidLabels => "invalid_labels",
            Self::DuplicateTimestamp => "duplicate_timestamp",
            Self::OutOfOrder => "out_of_order",
            Self::TooOld => "too_old",
            Self::OutOfBounds => "out_of_bounds",
            Self::TooFarInFuture => "too_far_in_future",
            Self::InvalidHistogram => "invalid_histogram",
            Self::LabelLimit => "label_limit",
        }
    }
}

impl fmt::Display for RejectReason {
    /// The texts Prometheus' storage uses.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::UnknownSeries => "unknown series reference",
            Self::InvalidLabels => "invalid labels",
            Self::DuplicateTimestamp => "duplicate sample for timestamp",
            Self::OutOfOrder => "out of order sample",
            Self::TooOld => "too old sample",
            Self::OutOfBounds => "out of bounds",
            Self::TooFarInFuture => "sample too far in the future",
            Self::InvalidHistogram => "invalid histogram",
            Self::LabelLimit => "label limit exceeded",
        })
    }
}

/// A row that was not stored.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rejected {
    /// Index into [`Batch::rows`].
    pub row: usize,
    /// Why.
    pub reason: RejectReason,
}

/// What became of a batch.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Appended {
    /// The handle of each row's series, in order of rows; `None` for a row whose series does not
    /// exist (it was rejected before its series was created).
    pub refs: Vec<Option<SeriesRef>>,
    /// The rows that were not stored, in order of rows.
    pub rejected: Vec<Rejected>,
}

/// Why a whole batch was not stored. Nothing of it is visible then.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum AppendError {
    /// Writing failed; the text names file, operation and cause.
    #[error("{0}")]
    Io(String),
    /// There is no room on the disk; appends work again once there is.
    #[error("disk full: {0}")]
    DiskFull(String),
    /// An earlier failure made the store read-only until it is reopened.
    #[error("storage is read-only until restarted: {0}")]
    ReadOnly(String),
    /// More is in flight than the limits allow; try again shortly.
    #[error("too much in flight: {0}")]
    Busy(String),
    /// The store was closed.
    #[error("storage is closed")]
    Closed,
}

/// Takes batches. Implemented by the storage engine, by the ingest pipeline in front of it, and
/// by recorders in tests.
pub trait Appender: Send + Sync {
    /// Stores `batch` as one transaction: bad rows are rejected one by one and never fail good
    /// rows; an error fails the batch as a whole. When this returns `Ok`, accepted rows survive a
    /// kill of the process.
    fn append(&self, batch: &Batch) -> Result<Appended, AppendError>;
}
