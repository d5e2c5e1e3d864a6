//! The samples of selected series, decoded once and read by many.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use foldhash::fast::RandomState;
use std::collections::HashMap;
use stint_model::{Columns, SeriesSet, TimeRange, Timestamp};

/// Bytes that all groups may take at the same time.
const BYTES_MAX: usize = 64 << 20;

/// Bytes that decoded samples may take.
#[derive(Debug)]
pub struct Room(AtomicUsize);

impl Default for Room {
    fn default() -> Self {
        Self::new(BYTES_MAX)
    }
}

impl Room {
    /// This many bytes.
    pub(super) fn new(bytes: usize) -> Self {
        Self(AtomicUsize::new(bytes))
    }

    /// Bytes that are free.
    #[cfg(test)]
    pub(super) fn left(&self) -> usize {
        self.0.load(Ordering::Relaxed)
    }
}

/// What is taken of the room, until it is dropped.
#[derive(Debug)]
struct Taken {
    room: Arc<Room>,
    bytes: usize,
}

impl Taken {
    /// Takes more, if there is as much.
    fn grow(&mut self, bytes: usize) -> bool {
        let left = &self.room.0;
        let taken = left
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, |left| left.checked_sub(bytes))
            .is_ok();
        if taken {
            self.bytes += bytes;
        }
        taken
    }
}

impl Drop for Taken {
    fn drop(&mut self) {
        self.room.0.fetch_add(self.bytes, Ordering::Relaxed);
    }
}

/// What became of reading.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Read {
    /// The samples were added.
    Done,
    /// The series is not decoded: it has to be read where it is stored.
    Elsewhere,
    /// The same, because the range begins before what was decoded.
    Earlier,
}

/// Samples of series, floats without start times only.
#[derive(Debug)]
pub(super) struct Decoded {
    range: TimeRange,
    /// Times at which series were sampled; mostly few, as series of a target share them.
    timelines: Vec<Box<[Timestamp]>>,
    /// Of each series for which there was room.
    places: Vec<Place>,
    values: Vec<f64>,
    /// The room of all this, given back with it.
    taken: Taken,
}

/// Where the samples of a series are.
#[derive(Clone, Copy, Debug)]
struct Place {
    /// `None`: not decoded.
    timeline: Option<u32>,
    first: usize,
}

/// After so many series that are not kept here, the others are not looked at.
const ELSEWHERE_FIRST_MAX: usize = 64;

impl Place {
    const ELSEWHERE: Self = Self { timeline: None, first: 0 };
}

impl Decoded {
    /// The samples of all series inside `range`, as far as there is room.
    pub(super) fn of(series: &dyn SeriesSet, range: TimeRange, room: &Arc<Room>) -> Self {
        let mut decoded = Self {
            range,
            timelines: Vec::new(),
            places: Vec::new(),
            values: Vec::new(),
            taken: Taken { room: Arc::clone(room), bytes: 0 },
        };
        let mut known = Known::default();
        let mut columns = Columns::default();
        if !decoded.taken.grow(series.len() * size_of::<Place>()) {
            return decoded;
        }
        decoded.places.reserve_exact(series.len());
        for index in 0..series.len() {
            columns.clear();
            // An error is told to whoever reads the series.
            let is_read = series.read(index, range, &mut columns).is_ok();
            let is_plain = columns.histograms.is_empty() && columns.starts.is_empty();
            if !is_read || !is_plain {
                decoded.places.push(Place::ELSEWHERE);
                // A metric of histograms would be read for nothing to its end.
                if decoded.timelines.is_empty() && index + 1 == ELSEWHERE_FIRST_MAX {
                    break;
                }
                continue;
            }
            let Some(place) = decoded.add(&columns, &mut known) else { break };
            decoded.places.push(place);
        }
        decoded.values.shrink_to_fit();
        decoded
    }

    /// The place of a series, unless there is no room for it.
    fn add(&mut self, columns: &Columns, known: &mut Known) -> Option<Place> {
        if !self.taken.grow(size_of_val(columns.values.as_slice())) {
            return None;
        }
        let timeline = if let Some(known) = known.find(&columns.times, &self.timelines) {
            known
        } else {
            if !self.taken.grow(size_of_val(columns.times.as_slice())) {
                return None;
            }
            let number = u32::try_from(self.timelines.len()).ok()?;
            known.add(&columns.times, number);
            self.timelines.push(columns.times.as_slice().into());
            number
        };
        let first = self.values.len();
        self.values.extend_from_slice(&columns.values);
        Some(Place { timeline: Some(timeline), first })
    }

    /// Adds the samples of a series inside `range` to columns.
    pub(super) fn read(&self, index: usize, range: TimeRange, columns: &mut Columns) -> Read {
        if range.start < self.range.start {
            return Read::Earlier;
        }
        let found = self
            .places
            .get(index)
            .and_then(|place| Some((self.timelines.get(place.timeline? as usize)?, place.first)));
        let Some((times, first)) = found else { return Read::Elsewhere };
        let from = times.partition_point(|at| *at < range.start);
        let to = times.partition_point(|at| *at < range.end).max(from);
        let times = times.get(from..to).unwrap_or_default();
        let values = self.values.get(first + from..first + to).unwrap_or_default();
        columns.times.extend_from_slice(times);
        columns.values.extend_from_slice(values);
        if !columns.starts.is_empty() {
            columns.starts.resize(columns.times.len(), Timestamp::MIN);
        }
        Read::Done
    }
}

/// Timelines by what is seen at once.
#[derive(Default)]
struct Known {
    last: u32,
    by_key: HashMap<(usize, Option<Timestamp>, Option<Timestamp>), u32, RandomState>,
}

impl Known {
    fn key(times: &[Timestamp]) -> (usize, Option<Timestamp>, Option<Timestamp>) {
        (times.len(), times.first().copied(), times.last().copied())
    }

    fn find(&mut self, times: &[Timestamp], timelines: &[Box<[Timestamp]>]) -> Option<u32> {
        let is_same = |number: u32| timelines.get(number as usize).is_some_and(|t| **t == *times);
        if !is_same(self.last) {
            let found = self.by_key.get(&Self::key(times)).copied();
            self.last = found.filter(|number| is_same(*number))?;
        }
        Some(self.last)
    }

    fn add(&mut self, times: &[Timestamp], number: u32) {
        self.by_key.insert(Self::key(times), number);
        self.last = number;
    }
}
