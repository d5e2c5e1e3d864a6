//! Reading what the log no longer holds from the store itself, oldest first.
//!
//! An endpoint that was away for longer than the log is kept finds a hole in it. What was in the hole
//! is in the head or in blocks, by series. So it is read from there, in windows of time that hold a
//! bounded number of samples, up to what is stored when this begins; the log goes on behind that.

use std::collections::{HashSet, VecDeque};

use stint_model::query::{Columns, Hints, SeriesSet};
use stint_model::{
    Labels, QueryError, Queryable as _, Sample, Selector, SeriesRef, Span, TimeRange, Timestamp,
    Value,
};
use stint_storage::{Db, WalPosition};

use super::source::StoredBatch;

/// What was appended last may carry times before that of the newest sample read: targets answer one
/// after the other. So far is read twice.
const OVERLAP: Span = Span(15 * Span::SECOND.0);
/// The first window.
const WINDOW: Span = Span(2 * Span::MINUTE.0);
/// Windows shrink and grow so that they hold about so many samples.
const ROWS: usize = 20_000;
/// Windows are never longer.
const WINDOW_MAX: Span = Span(Span::HOUR.0);

/// References of series that are read this way; the store gives out none so large.
const REFERENCES: u64 = 1 << 63;
const REFERENCES_SHIFT: u32 = 40;

type Row = (SeriesRef, Option<Labels>, Sample);

/// A hole that is being filled.
pub(super) struct CatchUp {
    set: Box<dyn SeriesSet>,
    first_reference: u64,
    /// Everything before is read.
    at: Timestamp,
    /// What is read twice ends here.
    overlap_until: Timestamp,
    until: Timestamp,
    window: Span,
    rows: VecDeque<Row>,
    columns: Columns,
    /// Where the log goes on.
    pub(super) end: WalPosition,
}

impl CatchUp {
    /// Begins with what is later than `newest`; `number` tells it from earlier ones.
    ///
    /// # Errors
    /// The store cannot be read.
    pub(super) fn begin(db: &Db, newest: Timestamp, number: u64) -> Result<Self, QueryError> {
        // What is appended from here on is read from the log.
        let end = db.wal_end();
        let until = db.stats().bounds.map_or(newest, |(_, last)| last);
        let at = Timestamp(newest.as_ms().saturating_sub(OVERLAP.as_ms()).saturating_add(1));
        let until = Timestamp(until.as_ms().saturating_add(1)).max(at);
        Ok(Self {
            set: all_series(db, TimeRange::new(at, until))?,
            first_reference: REFERENCES | number << REFERENCES_SHIFT,
            at,
            overlap_until: newest,
            until,
            window: WINDOW,
            rows: VecDeque::new(),
            columns: Columns::default(),
            end,
        })
    }

    /// The samples of the next moment at which there are any; nothing at the end.
    ///
    /// # Errors
    /// The store cannot be read.
    pub(super) fn next(&mut self) -> Result<Option<StoredBatch>, QueryError> {
        while self.rows.is_empty() {
            if self.at >= self.until {
                return Ok(None);
            }
            self.read_window()?;
        }
        let at = self.rows.front().map(|(_, _, sample)| sample.at);
        let mut batch = StoredBatch::default();
        while let Some(row) = self.rows.pop_front_if(|row| Some(row.2.at) == at) {
            batch.rows.push(row);
        }
        batch.maybe_sent = at.is_some_and(|at| at <= self.overlap_until);
        Ok(Some(batch))
    }

    fn read_window(&mut self) -> Result<(), QueryError> {
        let end = Timestamp(self.at.as_ms().saturating_add(self.window.as_ms())).min(self.until);
        let range = TimeRange::new(self.at, end);
        let mut rows: Vec<Row> = Vec::new();
        for index in 0..self.set.len() {
            self.columns.clear();
            self.set.read(index, range, &mut self.columns)?;
            if self.columns.is_empty() {
                continue;
            }
            let reference = SeriesRef(self.first_reference | index as u64);
            let labels = self.set.labels(index);
            let samples = samples_of(&self.columns);
            rows.extend(samples.map(|sample| (reference, Some(labels.clone()), sample)));
        }
        rows.sort_by_key(|(_, _, sample)| sample.at);
        self.at = end;
        if rows.len() > ROWS {
            self.window = Span((self.window.as_ms() / 2).max(1));
        } else if rows.len() < ROWS / 4 {
            self.window = Span(self.window.as_ms() * 2).min(WINDOW_MAX);
        }
        self.rows = rows.into();
        Ok(())
    }
}

fn all_series(db: &Db, range: TimeRange) -> Result<Box<dyn SeriesSet>, QueryError> {
    let hints = Hints { unordered: true, ..Hints::default() };
    db.querier(range)?.select(&Selector::default(), &hints)
}

/// Hashes of the series whose last sample in `range` does not end them.
///
/// # Errors
/// The store cannot be read.
pub(super) fn present(db: &Db, range: TimeRange) -> Result<HashSet<u64>, QueryError> {
    let set = all_series(db, range)?;
    let mut present = HashSet::new();
    let mut columns = Columns::default();
    for index in 0..set.len() {
        columns.clear();
        set.read(index, range, &mut columns)?;
        if samples_of(&columns).last().is_some_and(|last| !matches!(last.value, Value::Stale)) {
            present.insert(set.labels(index).stable_hash());
        }
    }
    Ok(present)
}

fn samples_of(columns: &Columns) -> impl Iterator<Item = Sample> + '_ {
    let mut histograms = columns.histograms.iter().peekable();
    columns.times.iter().zip(&columns.values).enumerate().map(move |(row, (at, value))| {
        let value = match histograms.next_if(|(at, _)| *at == row) {
            Some((_, histogram)) => Value::Histogram(histogram.clone()),
            None => Value::from_wire(*value),
        };
        let started = columns.starts.get(row).copied().filter(|start| *start != Timestamp::MIN);
        Sample { at: *at, started, value }
    })
}
