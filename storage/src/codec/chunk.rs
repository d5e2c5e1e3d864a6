//! Chunks: rows of one series as bytes.
//!
//! A chunk is `count varint | times | rows | crc32c u32`. Where times are stored elsewhere (a
//! block shares them between series) only the rows are used: [`put_rows`], [`take_rows`]. In
//! [`beside`], the times are those of another chunk.
//!
//! Rows are `flags | [start times] | [which rows are histograms] | [floats] | [histograms]`.

pub mod beside;

use std::ops::Range;
use std::sync::Arc;

use stint_model::{Columns, Histogram, Timestamp};

use super::crc;
use super::varint::{self, Reader};
use super::{Corruption, histogram, ints, times, values};

/// The most rows of one chunk.
pub const ROWS_MAX: usize = 1 << 14;

const FLOATS: u8 = 1;
const HISTOGRAMS: u8 = 2;
const STARTS: u8 = 4;
const RELATIVE: u8 = 8;

/// Rows of one series, borrowed from columns.
#[derive(Clone, Copy, Debug)]
pub struct Rows<'a> {
    /// When each sample was taken.
    pub times: &'a [Timestamp],
    /// The float of each sample; as long as `times`.
    pub values: &'a [f64],
    /// Row (counted from `first_row`) and histogram of the samples that are native histograms.
    pub histograms: &'a [(usize, Arc<Histogram>)],
    /// The number that the first of these rows has in `histograms`.
    pub first_row: usize,
    /// Start time of each sample, or [`Timestamp::MIN`]; empty when no sample has one.
    pub starts: &'a [Timestamp],
}

impl<'a> Rows<'a> {
    /// All rows of `columns`.
    pub fn of(columns: &'a Columns) -> Self {
        Self {
            times: &columns.times,
            values: &columns.values,
            histograms: &columns.histograms,
            first_row: 0,
            starts: &columns.starts,
        }
    }

    /// Only floats.
    pub fn floats(times: &'a [Timestamp], values: &'a [f64]) -> Self {
        Self { times, values, histograms: &[], first_row: 0, starts: &[] }
    }

    /// The rows at `range`, which must lie inside.
    #[must_use]
    pub fn slice(&self, range: Range<usize>) -> Self {
        let row_of = |row: usize| self.histograms.partition_point(|(at, _)| *at < row);
        let (first, end) = (self.first_row + range.start, self.first_row + range.end);
        Self {
            times: self.times.get(range.clone()).unwrap_or_default(),
            values: self.values.get(range.clone()).unwrap_or_default(),
            histograms: self.histograms.get(row_of(first)..row_of(end)).unwrap_or_default(),
            first_row: first,
            starts: self.starts.get(range).unwrap_or_default(),
        }
    }
}

/// The rows as a self-contained chunk with its checksum. At most [`ROWS_MAX`] rows.
pub fn encode(rows: &Rows<'_>) -> Vec<u8> {
    encode_with_head(rows).0
}

/// As [`encode`], and how many bytes of it are the number of rows and their times.
pub fn encode_with_head(rows: &Rows<'_>) -> (Vec<u8>, usize) {
    debug_assert!(rows.times.len() <= ROWS_MAX);
    let mut out = Vec::with_capacity(16 + rows.times.len());
    varint::put(&mut out, rows.times.len() as u64);
    times::put(rows.times, &mut out);
    let head = out.len();
    put_rows(rows, &mut out);
    let checksum = crc::checksum(&out);
    out.extend_from_slice(&checksum.to_le_bytes());
    (out, head)
}

/// Appends the samples of a self-contained chunk to `columns`.
///
/// # Errors
/// The bytes are not those that [`encode`] made. `columns` is then as it was before.
pub fn decode(bytes: &[u8], columns: &mut Columns) -> Result<(), Corruption> {
    decode_known(bytes, Check::Now, &mut times::Known::default(), 0, columns)
}

/// What becomes of the checksum of a chunk.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Check {
    /// It is compared.
    Now,
    /// It was compared when these bytes were read before.
    Done,
}

/// As [`decode`], with times that may be known: this is chunk number `place` of its series.
///
/// # Errors
/// As there.
pub fn decode_known(
    bytes: &[u8],
    check: Check,
    known: &mut times::Known,
    place: usize,
    columns: &mut Columns,
) -> Result<(), Corruption> {
    let mark = Mark::of(columns);
    let decoded = decode_into(bytes, check, known, place, columns);
    if decoded.is_err() {
        mark.restore(columns);
    }
    decoded
}

/// How much columns held at some moment.
#[derive(Clone, Copy, Debug, Default)]
pub struct Mark {
    rows: usize,
    histograms: usize,
    starts: usize,
}

impl Mark {
    /// What `columns` hold now.
    pub fn of(columns: &Columns) -> Self {
        Self {
            rows: columns.len(),
            histograms: columns.histograms.len(),
            starts: columns.starts.len(),
        }
    }

    /// How many rows there were.
    pub const fn rows(&self) -> usize {
        self.rows
    }

    /// How many histograms there were.
    pub const fn histograms(&self) -> usize {
        self.histograms
    }

    /// Removes everything added since.
    pub fn restore(&self, columns: &mut Columns) {
        columns.times.truncate(self.rows);
        columns.values.truncate(self.rows);
        columns.histograms.truncate(self.histograms);
        columns.starts.truncate(self.starts);
    }

    /// Removes the rows added since, except those of `keep`, counted from the first added.
    pub fn keep_rows(&self, keep: Range<usize>, columns: &mut Columns) {
        let dropped = self.rows..self.rows + keep.start;
        let end = self.rows + keep.end;
        columns.times.truncate(end);
        columns.values.truncate(end);
        columns.starts.truncate(end);
        columns.times.drain(dropped.clone());
        columns.values.drain(dropped.clone());
        if !columns.starts.is_empty() {
            columns.starts.drain(dropped.clone());
        }
        let row_of = |row: usize| columns.histograms.partition_point(|(at, _)| *at < row);
        let (first, last) = (row_of(dropped.end).max(self.histograms), row_of(end));
        columns.histograms.truncate(last);
        columns.histograms.drain(self.histograms..first.min(last));
        for (row, _) in columns.histograms.iter_mut().skip(self.histograms) {
            *row -= dropped.len();
        }
    }
}

fn decode_into(
    bytes: &[u8],
    check: Check,
    known: &mut times::Known,
    place: usize,
    columns: &mut Columns,
) -> Result<(), Corruption> {
    let Some((body, checksum)) = bytes.split_last_chunk::<4>() else {
        return Err(Corruption::new(bytes.len(), "too short for a chunk"));
    };
    if check == Check::Now && crc::checksum(body) != u32::from_le_bytes(*checksum) {
        return Err(Corruption::new(0, "a chunk's checksum does not match"));
    }
    let mut reader = Reader::new(body);
    let count = reader.varint_up_to(ROWS_MAX)?;
    known.take(place, &mut reader, count, &mut columns.times)?;
    take_rows(&mut reader, count, columns)?;
    if reader.is_empty() { Ok(()) } else { Err(reader.corrupt("bytes after the last row")) }
}

/// Appends everything of `rows` but their times.
pub fn put_rows(rows: &Rows<'_>, out: &mut Vec<u8>) {
    let count = rows.times.len();
    let has_starts = rows.starts.iter().any(|start| *start != Timestamp::MIN);
    let has_histograms = !rows.histograms.is_empty();
    let has_floats = rows.histograms.len() < count;
    let flag = |set: bool, flag: u8| if set { flag } else { 0 };
    out.push(
        flag(has_floats, FLOATS) | flag(has_histograms, HISTOGRAMS) | flag(has_starts, STARTS),
    );
    if has_starts {
        let starts: Vec<i64> = rows.starts.iter().map(|start| start.0).collect();
        ints::put(&starts, out);
    }
    if !has_histograms {
        values::put(rows.values, out);
        return;
    }
    if has_floats {
        let row_numbers: Vec<i64> =
            rows.histograms.iter().map(|(row, _)| (row - rows.first_row) as i64).collect();
        varint::put(out, row_numbers.len() as u64);
        ints::put(&row_numbers, out);
        let mut histogram_rows = row_numbers.iter().peekable();
        let mut floats = Vec::with_capacity(count - row_numbers.len());
        for (row, value) in rows.values.iter().enumerate() {
            if histogram_rows.next_if(|at| **at == row as i64).is_none() {
                floats.push(*value);
            }
        }
        values::put(&floats, out);
    }
    histogram::put(rows.histograms.iter().map(|(_, histogram)| &**histogram), out);
}

/// Begins rows that are told by what sets their floats apart from those of another chunk; what
/// [`values::relative`] writes follows.
pub fn begin_relative(out: &mut Vec<u8>) {
    out.push(FLOATS | RELATIVE);
}

/// Whether [`put_rows`] made rows that are nothing but floats, and these as [`values::put`] wrote
/// them.
pub fn floats_in(rows: &[u8]) -> Option<&[u8]> {
    match rows {
        [FLOATS, values @ ..] => Some(values),
        _ => None,
    }
}

/// Appends the rows at `keep` (their times are already there) of a chunk that was begun by
/// [`begin_relative`]; `base` are all floats of the other one.
pub fn take_relative(
    reader: &mut Reader<'_>,
    base: &[f64],
    keep: Range<usize>,
    columns: &mut Columns,
) -> Result<(), Corruption> {
    if reader.byte()? != FLOATS | RELATIVE {
        return Err(reader.corrupt("rows that do not belong beside others"));
    }
    take_starts(reader, false, columns.values.len(), keep.len(), columns)?;
    values::relative::take(reader, base, keep, &mut columns.values)
}

/// Appends to `columns` everything but the times of `count` rows, whose times are already there.
pub fn take_rows(
    reader: &mut Reader<'_>,
    count: usize,
    columns: &mut Columns,
) -> Result<(), Corruption> {
    let first = columns.values.len();
    let flags = reader.byte()?;
    if flags & !(FLOATS | HISTOGRAMS | STARTS) != 0 {
        return Err(reader.corrupt("an unknown kind of rows"));
    }
    take_starts(reader, flags & STARTS != 0, first, count, columns)?;
    if flags & HISTOGRAMS == 0 {
        return values::take(reader, count, &mut columns.values);
    }
    if flags & FLOATS == 0 {
        columns.values.resize(first + count, 0.0);
        let mut row = first;
        let histograms = &mut columns.histograms;
        return histogram::take(reader, count, |histogram| {
            histograms.push((row, histogram));
            row += 1;
        });
    }
    let histogram_count = reader.varint_up_to(count)?;
    let row_numbers = ints::take_vec(reader, histogram_count)?;
    let rising = row_numbers.windows(2).all(|pair| pair.first() < pair.get(1));
    let inside = |row: &i64| (0..count as i64).contains(row);
    if !rising || !row_numbers.iter().all(inside) {
        return Err(reader.corrupt("rows of histograms out of order"));
    }
    let mut floats = Vec::new();
    values::take(reader, count - histogram_count, &mut floats)?;
    let mut floats = floats.into_iter();
    let mut histogram_rows = row_numbers.iter().peekable();
    for row in 0..count {
        let is_histogram = histogram_rows.next_if(|at| **at == row as i64).is_some();
        columns.values.push(if is_histogram { 0.0 } else { floats.next().unwrap_or_default() });
    }
    let mut histogram_rows = row_numbers.iter();
    let histograms = &mut columns.histograms;
    histogram::take(reader, histogram_count, |histogram| {
        if let Some(row) = histogram_rows.next() {
            histograms.push((first + *row as usize, histogram));
        }
    })
}

/// Appends the rows at `keep` of `count` rows, whose times (and only theirs) are already there.
pub fn take_rows_part(
    reader: &mut Reader<'_>,
    count: usize,
    keep: Range<usize>,
    columns: &mut Columns,
) -> Result<(), Corruption> {
    let mut ahead = *reader;
    if ahead.byte()? == FLOATS && columns.starts.is_empty() {
        return values::take_part(&mut ahead, count, keep, &mut columns.values);
    }
    let mut all = Columns { times: vec![Timestamp::MIN; count], ..Columns::default() };
    take_rows(reader, count, &mut all)?;
    Mark::default().keep_rows(keep, &mut all);
    let first = columns.values.len();
    columns.values.append(&mut all.values);
    if !all.starts.is_empty() || !columns.starts.is_empty() {
        columns.starts.resize(first, Timestamp::MIN);
        columns.starts.append(&mut all.starts);
        columns.starts.resize(columns.values.len(), Timestamp::MIN);
    }
    let histograms = all.histograms.into_iter();
    columns.histograms.extend(histograms.map(|(row, histogram)| (first + row, histogram)));
    Ok(())
}

/// Start times: as many as rows, or none at all when no row has one.
fn take_starts(
    reader: &mut Reader<'_>,
    present: bool,
    first: usize,
    count: usize,
    columns: &mut Columns,
) -> Result<(), Corruption> {
    let starts = &mut columns.starts;
    if present {
        starts.resize(first, Timestamp::MIN);
        ints::take(reader, count, |block| starts.extend(block.iter().map(|at| Timestamp(*at))))?;
    } else if !starts.is_empty() {
        starts.resize(first + count, Timestamp::MIN);
    }
    Ok(())
}

#[cfg(test)]
pub(crate) mod tests;
