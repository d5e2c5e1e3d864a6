//! Samples in whatever order they come, gathered in limited memory and written as blocks.
//!
//! Each series keeps its samples as sealed chunks; a sample that is not newer than the one before it
//! begins another. When there is no more room, everything is written: a block for each window. What
//! belongs to the same window in the next round makes a block beside it, and compaction merges both.

use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;

use stint_model::{Columns, Histogram, Labels, TimeRange, Timestamp, is_stale};
use stint_storage::codec::chunk::{self, Rows};
use stint_storage::{series_order, storable};

use super::rows;
use super::{Counts, ImportError, Target};

/// Rows of a sealed chunk.
const CHUNK_ROWS: usize = 240;
/// Bytes of a series beside its labels and samples, about.
const SERIES_BYTES: usize = 300;
/// Bytes of a row of numbers.
const ROW_BYTES: usize = 16;

/// See the module's documentation.
pub struct Spool<'a> {
    target: &'a Target<'a>,
    series: Vec<Gathered>,
    numbers: HashMap<Labels, usize>,
    bytes: usize,
    bytes_max: usize,
    /// How long the windows of blocks are.
    window: i64,
    /// Windows that have samples, by their start.
    windows: BTreeSet<i64>,
    samples: u64,
    /// Of them, those that were there when it was emptied last.
    emptied: u64,
    refused: u64,
}

struct Gathered {
    labels: Labels,
    sealed: Vec<Sealed>,
    open: Columns,
}

struct Sealed {
    first: Timestamp,
    last: Timestamp,
    bytes: Box<[u8]>,
}

/// The number of a series in a spool, until it is emptied.
pub type Number = usize;

impl<'a> Spool<'a> {
    /// A spool of at most about `bytes_max` bytes.
    pub fn new(target: &'a Target<'a>, bytes_max: usize) -> Self {
        Self {
            target,
            series: Vec::new(),
            numbers: HashMap::new(),
            bytes: 0,
            bytes_max,
            window: target.db.import_windows().0.max(1),
            windows: BTreeSet::new(),
            samples: 0,
            emptied: 0,
            refused: 0,
        }
    }

    /// The number of a series, which is new when it was not known. Its labels are those that it is
    /// stored under.
    pub fn number(&mut self, labels: &Labels) -> Number {
        if let Some(number) = self.numbers.get(labels) {
            return *number;
        }
        let number = self.series.len();
        self.bytes += SERIES_BYTES + labels.size_bytes();
        self.numbers.insert(labels.clone(), number);
        self.series.push(Gathered {
            labels: labels.clone(),
            sealed: Vec::new(),
            open: Columns::default(),
        });
        number
    }

    /// Adds a number; the stale marker is a special NaN.
    pub fn float(&mut self, number: Number, at: Timestamp, value: f64) {
        self.push(number, at, ROW_BYTES, |open| open.push_float(at, value));
    }

    /// Adds a native histogram. One whose sum is the stale marker ends the series.
    pub fn histogram(&mut self, number: Number, at: Timestamp, histogram: Arc<Histogram>) {
        let sum = match &*histogram {
            Histogram::Integer(histogram) => histogram.sum,
            Histogram::Float(histogram) => histogram.sum,
        };
        if is_stale(sum) {
            return self.float(number, at, sum);
        }
        let Some(histogram) = storable(histogram) else {
            self.refused += 1;
            return;
        };
        let bytes = ROW_BYTES + histogram_bytes(&histogram);
        self.push(number, at, bytes, |open| open.push_histogram(at, histogram));
    }

    /// Adds the rows of `columns`.
    pub fn columns(&mut self, number: Number, columns: &Columns) {
        let mut histograms = columns.histograms.iter().peekable();
        for (row, (at, value)) in columns.times.iter().zip(&columns.values).enumerate() {
            match histograms.next_if(|(of, _)| *of == row) {
                Some((_, histogram)) => self.histogram(number, *at, Arc::clone(histogram)),
                None => self.float(number, *at, *value),
            }
            if let Some(start) = columns.starts.get(row) {
                self.start(number, *at, *start);
            }
        }
    }

    /// Says when counting began of what was just added to the series `number` at `at`, if it was taken;
    /// [`Timestamp::MIN`] says nothing.
    pub fn start(&mut self, number: Number, at: Timestamp, start: Timestamp) {
        if start != Timestamp::MIN
            && let Some(series) = self.series.get_mut(number)
            && series.open.times.last() == Some(&at)
        {
            series.open.set_last_start(start);
        }
    }

    fn push(
        &mut self,
        number: Number,
        at: Timestamp,
        bytes: usize,
        add: impl FnOnce(&mut Columns),
    ) {
        let range = self.target.range;
        let Some(series) = self.series.get_mut(number).filter(|_| range.contains(at)) else {
            return;
        };
        let is_newer = series.open.times.last().is_none_or(|last| *last < at);
        if !is_newer || series.open.len() >= CHUNK_ROWS {
            let freed = open_bytes(&series.open);
            let sealed = seal(&mut series.open);
            self.bytes =
                self.bytes.saturating_sub(freed) + sealed.bytes.len() + size_of::<Sealed>();
            series.sealed.push(sealed);
        }
        add(&mut series.open);
        self.bytes += bytes;
        self.samples += 1;
        let start = at.0.div_euclid(self.window).saturating_mul(self.window);
        if self.windows.last() != Some(&start) {
            self.windows.insert(start);
        }
    }

    /// Samples that were taken, all rounds together.
    pub fn samples(&self) -> u64 {
        self.samples
    }

    /// Samples that were taken since it was emptied.
    pub fn waiting(&self) -> u64 {
        self.samples - self.emptied
    }

    /// Whether it has to be emptied before more comes.
    pub fn is_full(&self) -> bool {
        self.bytes >= self.bytes_max
    }

    /// Writes everything as blocks, and forgets all series: their numbers mean nothing any more.
    ///
    /// # Errors
    /// The store cannot be written.
    pub fn empty(&mut self, counts: &mut Counts) -> Result<(), ImportError> {
        self.numbers = HashMap::new();
        let mut series = std::mem::take(&mut self.series);
        series.sort_by(|a, b| series_order(&a.labels, &b.labels));
        for one in &mut series {
            if !one.open.is_empty() {
                let sealed = seal(&mut one.open);
                one.sealed.push(sealed);
            }
        }
        for start in std::mem::take(&mut self.windows) {
            let end = Timestamp(start.saturating_add(self.window));
            self.write(TimeRange::new(Timestamp(start), end), &series, counts)?;
        }
        counts.refused += std::mem::take(&mut self.refused);
        self.bytes = 0;
        self.emptied = self.samples;
        Ok(())
    }

    fn write(
        &self,
        window: TimeRange,
        series: &[Gathered],
        counts: &mut Counts,
    ) -> Result<(), ImportError> {
        let mut import = self.target.db.import(window)?;
        let mut columns = Columns::default();
        for series in series {
            columns.clear();
            for sealed in &series.sealed {
                if sealed.first < window.end && sealed.last >= window.start {
                    chunk::decode(&sealed.bytes, &mut columns)
                        .map_err(|error| ImportError::Source(format!("memory: {error}")))?;
                }
            }
            rows::order(&mut columns);
            rows::clip(&mut columns, window);
            if !columns.is_empty() {
                import.add_series(&series.labels, &mut columns)?;
            }
        }
        counts.add(&import.finish()?);
        Ok(())
    }
}

fn open_bytes(open: &Columns) -> usize {
    let histograms = open.histograms.iter().map(|(_, histogram)| histogram_bytes(histogram));
    open.len() * ROW_BYTES + histograms.sum::<usize>()
}

fn histogram_bytes(histogram: &Histogram) -> usize {
    let parts = match histogram {
        Histogram::Integer(h) => {
            let layout = h.positive_spans.len() + h.negative_spans.len() + h.custom_bounds.len();
            layout + h.positive_deltas.len() + h.negative_deltas.len()
        }
        Histogram::Float(h) => {
            let layout = h.positive_spans.len() + h.negative_spans.len() + h.custom_bounds.len();
            layout + h.positive_buckets.len() + h.negative_buckets.len()
        }
    };
    size_of::<Histogram>() + 8 * parts
}

/// Makes a chunk of the rows, which rise, and empties them.
fn seal(open: &mut Columns) -> Sealed {
    let first = open.times.first().copied().unwrap_or_default();
    let last = open.times.last().copied().unwrap_or_default();
    let bytes = chunk::encode(&Rows::of(open)).into_boxed_slice();
    open.clear();
    Sealed { first, last, bytes }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use proptest::prelude::*;
    use stint_model::histogram::IntegerHistogram;
    use stint_model::{Hints, Queryable as _, Selector, Span};
    use stint_storage::{Db, Options, SimDisk};

    use super::*;

    fn target(db: &Db, range: TimeRange) -> Target<'_> {
        Target { db, range, selectors: Vec::new(), labels: Vec::new() }
    }

    fn stored(db: &Db) -> BTreeMap<String, Vec<(i64, f64)>> {
        let querier = db.querier(TimeRange::ALL).unwrap();
        let set = querier.select(&Selector::default(), &Hints::default()).unwrap();
        let read = |index| {
            let mut columns = Columns::default();
            set.read(index, TimeRange::ALL, &mut columns).unwrap();
            columns.times.iter().map(|at| at.0).zip(columns.values).collect()
        };
        (0..set.len()).map(|index| (set.labels(index).to_string(), read(index))).collect()
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(24))]

        #[test]
        fn any_order_of_samples_is_stored_in_order(
            samples in prop::collection::vec((0..3_u8, 0..40_i64), 0..400),
            bytes_max in prop_oneof![Just(2_000_usize), Just(1 << 20)],
        ) {
            let retention = Some(Span::DAY);
            let options = Options { retention, ..Options::default() };
            let (db, _) = Db::open(Arc::new(SimDisk::new()), options).unwrap();
            let range = TimeRange::new(Timestamp(2 * MINUTES), Timestamp(35 * MINUTES));
            let target = target(&db, range);
            let (mut spool, mut counts) = (Spool::new(&target, bytes_max), Counts::default());
            let mut want: BTreeMap<String, BTreeMap<i64, f64>> = BTreeMap::new();
            for (row, (series, at)) in samples.iter().enumerate() {
                let labels = Labels::from_pairs([("__name__", format!("m{series}"))]);
                let number = spool.number(&labels);
                let at = at * MINUTES;
                spool.float(number, Timestamp(at), row as f64);
                if range.contains(Timestamp(at)) {
                    want.entry(labels.to_string()).or_default().entry(at).or_insert(row as f64);
                }
                if spool.is_full() {
                    spool.empty(&mut counts).unwrap();
                }
            }
            spool.empty(&mut counts).unwrap();
            let want: BTreeMap<String, Vec<(i64, f64)>> =
                want.into_iter().map(|(labels, rows)| (labels, rows.into_iter().collect())).collect();
            prop_assert_eq!(stored(&db), want.clone());
            super::super::compact(&db).unwrap();
            prop_assert_eq!(stored(&db), want);
        }
    }

    const MINUTES: i64 = 20 * Span::MINUTE.0;

    #[test]
    fn start_times_are_kept() {
        let (db, _) = Db::open(Arc::new(SimDisk::new()), Options::default()).unwrap();
        let target = target(&db, TimeRange::new(Timestamp(2), Timestamp(100)));
        let (mut spool, mut counts) = (Spool::new(&target, 1 << 20), Counts::default());
        let number = spool.number(&Labels::from_pairs([("__name__", "c")]));
        let mut columns = Columns::default();
        for at in 1..5 {
            columns.push_float(Timestamp(at), 1.0);
            if at != 3 {
                columns.set_last_start(Timestamp(at - 10));
            }
        }
        spool.columns(number, &columns);
        spool.float(number, Timestamp(7), 1.0);
        // What is outside of the range has no start that another sample could get.
        spool.float(number, Timestamp(200), 1.0);
        spool.start(number, Timestamp(200), Timestamp(5));
        spool.empty(&mut counts).unwrap();
        let querier = db.querier(TimeRange::ALL).unwrap();
        let set = querier.select(&Selector::default(), &Hints::default()).unwrap();
        let mut back = Columns::default();
        set.read(0, TimeRange::ALL, &mut back).unwrap();
        assert_eq!(back.times, [2, 3, 4, 7].map(Timestamp));
        let none = Timestamp::MIN;
        assert_eq!(back.starts, [Timestamp(-8), none, Timestamp(-6), none]);
    }

    #[test]
    fn histograms_end_and_bad_ones_are_counted() {
        let (db, _) = Db::open(Arc::new(SimDisk::new()), Options::default()).unwrap();
        let target = target(&db, TimeRange::ALL);
        let (mut spool, mut counts) = (Spool::new(&target, 1 << 20), Counts::default());
        let number = spool.number(&Labels::from_pairs([("__name__", "h")]));
        let histogram = |count: u64, sum: f64| {
            let zero_count = if count == 9 { 1 } else { count };
            Arc::new(Histogram::Integer(IntegerHistogram {
                count,
                zero_count,
                sum,
                ..Default::default()
            }))
        };
        spool.histogram(number, Timestamp(1), histogram(3, 0.5));
        spool.histogram(number, Timestamp(2), histogram(9, 0.5));
        spool.histogram(number, Timestamp(3), histogram(0, stint_model::sample::stale_nan()));
        spool.empty(&mut counts).unwrap();
        assert_eq!((counts.samples, counts.refused, counts.blocks), (2, 1, 1));
        let all = stored(&db);
        let rows = all.values().next().unwrap();
        assert!(rows[0].0 == 1 && rows[1].0 == 3 && is_stale(rows[1].1), "{rows:?}");
    }
}
