//! The one way out of a store: [`Queryable`] → [`Querier`] → [`SeriesSet`], whose samples are
//! filled into [`Columns`] owned by the caller.

use std::sync::Arc;

use crate::histogram::Histogram;
use crate::labels::Labels;
use crate::matcher::Selector;
use crate::time::{Span, TimeRange, Timestamp};

/// Samples of one series as columns, in order of time.
///
/// Stale markers stand in `values` as the NaN of [`crate::STALE_NAN_BITS`]. A native histogram
/// has an entry in `histograms` and an unspecified float in `values`.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Columns {
    /// When each sample was taken.
    pub times: Vec<Timestamp>,
    /// The float of each sample; as long as `times`.
    pub values: Vec<f64>,
    /// Row and histogram of the samples that are native histograms, in order of rows.
    pub histograms: Vec<(usize, Arc<Histogram>)>,
    /// Start time of each sample, or [`Timestamp::MIN`] for none; empty when no sample has one,
    /// else as long as `times`.
    pub starts: Vec<Timestamp>,
}

impl Columns {
    /// How many samples there are.
    pub fn len(&self) -> usize {
        self.times.len()
    }

    /// Whether there are no samples.
    pub fn is_empty(&self) -> bool {
        self.times.is_empty()
    }

    /// Empties the columns, keeping their memory.
    pub fn clear(&mut self) {
        self.times.clear();
        self.values.clear();
        self.histograms.clear();
        self.starts.clear();
    }

    /// Adds a float.
    pub fn push_float(&mut self, at: Timestamp, value: f64) {
        self.times.push(at);
        self.values.push(value);
        if !self.starts.is_empty() {
            self.starts.push(Timestamp::MIN);
        }
    }

    /// Adds a native histogram.
    pub fn push_histogram(&mut self, at: Timestamp, histogram: Arc<Histogram>) {
        self.histograms.push((self.times.len(), histogram));
        self.push_float(at, 0.0);
    }

    /// Sets the start time of the sample added last.
    pub fn set_last_start(&mut self, started: Timestamp) {
        self.starts.resize(self.times.len(), Timestamp::MIN);
        if let Some(last) = self.starts.last_mut() {
            *last = started;
        }
    }
}

/// What the caller will do with the samples. A store may ignore all of it: results never differ, but
/// in the order of series where none is wanted.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Hints {
    /// Distance between evaluation steps; zero for an instant query.
    pub step: Span,
    /// Length of the window looked at per step; zero for an instant selector.
    pub range: Span,
    /// Name of the function or aggregation around the selector.
    pub func: String,
    /// At most this many series are wanted; 0 = all.
    pub limit: usize,
    /// Any order of the series will do. With a limit they are those first in order all the same.
    pub unordered: bool,
}

/// Why a query could not be answered.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum QueryError {
    /// Stored data could not be read; the text names file, place and cause.
    #[error("{0}")]
    Storage(String),
    /// A limit was passed; the text says which and how to raise it.
    #[error("{0}")]
    Limit(String),
    /// The store was closed.
    #[error("storage is closed")]
    Closed,
}

/// Can be asked.
pub trait Queryable: Send + Sync {
    /// A reader pinned to what is visible now. Its answers never change afterwards.
    fn querier(&self, range: TimeRange) -> Result<Box<dyn Querier>, QueryError>;
}

/// A pinned reader over one range of time.
pub trait Querier: Send + Sync {
    /// The series that match, in order of labels unless the hints want none. The set stays valid after the querier is gone.
    fn select(&self, selector: &Selector, hints: &Hints) -> Result<Box<dyn SeriesSet>, QueryError>;

    /// Sorted names of the labels of the series that match any of `selectors` (of all series,
    /// when there are none). `limit` 0 = all.
    fn label_names(&self, selectors: &[Selector], limit: usize) -> Result<Vec<String>, QueryError>;

    /// Sorted values that label `name` has in the series that match any of `selectors` (in all
    /// series, when there are none). `limit` 0 = all.
    fn label_values(
        &self,
        name: &str,
        selectors: &[Selector],
        limit: usize,
    ) -> Result<Vec<String>, QueryError>;
}

/// Selected series, addressed by number, so that several workers can read different ones at once
/// and labels are materialised only where they are wanted.
pub trait SeriesSet: Send + Sync {
    /// How many series there are.
    fn len(&self) -> usize;

    /// Whether there are none.
    fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The labels of series `index`, which must be below [`SeriesSet::len`].
    fn labels(&self, index: usize) -> Labels;

    /// Appends to `text` what [`Labels::encode_retained`] of the labels of series `index` appends.
    /// A store that has to make labels need not make those that are not kept.
    fn encode_labels(&self, index: usize, keep: &dyn Fn(&str) -> bool, text: &mut String) {
        self.labels(index).encode_retained(keep, text);
    }

    /// Appends the samples of series `index` inside `range` (and inside the querier's range) to
    /// `columns`, in order of time, one per time.
    fn read(&self, index: usize, range: TimeRange, columns: &mut Columns)
    -> Result<(), QueryError>;
}
