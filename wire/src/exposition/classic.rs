//! Classic histograms put together: `x_bucket`, `x_count` and `x_sum` become one native histogram
//! `x` with custom buckets.
//!
//! The series of one histogram stand together in a body, so that it is finished as soon as another
//! one begins. What the text of a series means is remembered between the scrapes of a target.

use std::collections::HashMap;
use std::sync::Arc;

use foldhash::fast::RandomState;
use stint_model::exemplar::Exemplar;
use stint_model::histogram::{
    BucketSpan, CUSTOM_BUCKETS_SCHEMA, FloatHistogram, Histogram, IntegerHistogram,
};
use stint_model::labels::{BUCKET_BOUND, METRIC_NAME};
use stint_model::metadata::MetricType;
use stint_model::time::Timestamp;

use super::number::parse_float;
use super::write::push_series;
use super::{HistogramEntry, Label, SeriesEntry};
use crate::layout::layout;

/// Up to here, floats hold every integer and sums of them do not overflow.
const INTEGER_MAX: f64 = 9_007_199_254_740_992.0;

/// Puts the classic histograms of one target's bodies together.
#[derive(Debug, Default)]
pub struct ClassicHistograms {
    family: String,
    kind: MetricType,
    parts: HashMap<Box<str>, Part, RandomState>,
    body: u64,
    open: Option<Open>,
    /// The labels of the native histogram that came last: its classic series are left alone.
    native: Option<Arc<Group>>,
}

/// What became of a series.
#[derive(Debug)]
pub struct Taken {
    /// A histogram to which the series does not belong, and which is therefore at its end.
    pub finished: Option<Finished>,
    /// Whether the series is a part of a histogram.
    pub is_part: bool,
    /// Bytes of its text, where it was not known yet.
    pub new_bytes: usize,
}

/// A histogram whose series have all come.
#[derive(Debug)]
pub enum Finished {
    /// It makes sense.
    Whole(Box<Converted>),
    /// Its series contradict each other: counts fall, or differ from the sum of the buckets.
    Broken,
}

/// A native histogram made of classic series.
#[derive(Clone, Debug)]
pub struct Converted {
    group: Arc<Group>,
    histogram: Histogram,
    timestamp: Option<Timestamp>,
    exemplars: Vec<Exemplar>,
    started: Option<Timestamp>,
}

/// The series of one histogram: its name and labels.
#[derive(Debug, PartialEq, Eq)]
struct Group {
    name: String,
    /// In the text format, labels sorted, without the bounds.
    text: String,
}

/// What a series is to its histogram.
#[derive(Clone, Debug)]
struct Part {
    group: Arc<Group>,
    role: Role,
    seen: u64,
}

#[derive(Clone, Copy, Debug, PartialEq)]
enum Role {
    /// Observations up to a bound.
    Bucket(f64),
    Count,
    Sum,
    /// It has the labels of the histogram, but is no part of it.
    None,
}

/// The histogram that is being read.
#[derive(Debug)]
struct Open {
    group: Arc<Group>,
    /// Bounds and cumulative counts, in order of bounds.
    buckets: Vec<(f64, f64)>,
    count: Option<f64>,
    sum: f64,
    is_broken: bool,
    timestamp: Option<Timestamp>,
    exemplars: Vec<Exemplar>,
    started: Option<Timestamp>,
}

impl Converted {
    /// As if the target had exposed it. Its exemplars are those that have a time of their own.
    pub fn into_entry(self, text: &mut String) -> HistogramEntry<'_> {
        text.clone_from(&self.group.text);
        HistogramEntry {
            raw: text,
            histogram: self.histogram,
            timestamp: self.timestamp,
            exemplars: self.exemplars,
            started: self.started,
        }
    }
}

impl ClassicHistograms {
    /// Begins a body.
    pub fn begin(&mut self) {
        self.family.clear();
        self.kind = MetricType::Unknown;
        (self.open, self.native) = (None, None);
        self.body += 1;
    }

    /// Ends a body. What the last two did not show is forgotten.
    pub fn end(&mut self) -> Option<Finished> {
        let finished = self.finish();
        let body = self.body;
        self.parts.retain(|_, part| part.seen + 1 >= body);
        finished
    }

    /// A family begins; gives the histogram that ends with that.
    pub fn family(&mut self, name: &str, kind: MetricType) -> Option<Finished> {
        let finished = self.finish();
        name.clone_into(&mut self.family);
        self.kind = kind;
        finished
    }

    /// A native histogram comes; gives the classic one that ends with that.
    pub fn native(&mut self, entry: &HistogramEntry<'_>) -> Option<Finished> {
        let finished = self.finish();
        let mut labels = Vec::new();
        entry.labels(&mut labels);
        self.native = Some(Arc::new(Group::of(&mut labels).0));
        finished
    }

    /// A series comes.
    pub fn series(&mut self, entry: &SeriesEntry<'_>) -> Taken {
        if self.kind != MetricType::Histogram {
            return Taken { finished: self.finish(), is_part: false, new_bytes: 0 };
        }
        let (group, role, new_bytes) = self.part(entry);
        let other = self.open.as_ref().is_some_and(|open| *open.group != *group);
        let finished = if other { self.finish() } else { None };
        let has_native = self.native.as_ref().is_some_and(|native| **native == *group);
        let is_part = role != Role::None && group.name == self.family && !has_native;
        if is_part {
            let open = self.open.get_or_insert_with(|| Open::new(group, entry.started));
            open.add(role, entry);
        }
        Taken { finished, is_part, new_bytes }
    }

    /// What the series is, and how many bytes its text has if that had to be found out.
    fn part(&mut self, entry: &SeriesEntry<'_>) -> (Arc<Group>, Role, usize) {
        if let Some(part) = self.parts.get_mut(entry.raw) {
            part.seen = self.body;
            return (Arc::clone(&part.group), part.role, 0);
        }
        let mut labels = Vec::new();
        entry.labels(&mut labels);
        let (group, role) = Group::of(&mut labels);
        let group = match &self.open {
            Some(open) if *open.group == group => Arc::clone(&open.group),
            _ => Arc::new(group),
        };
        let part = Part { group: Arc::clone(&group), role, seen: self.body };
        self.parts.insert(entry.raw.into(), part);
        (group, role, entry.raw.len())
    }

    fn finish(&mut self) -> Option<Finished> {
        let finished = self.open.take()?.finish().map(Box::new);
        Some(finished.map_or(Finished::Broken, Finished::Whole))
    }
}

impl Group {
    /// The histogram that a series with these labels may belong to.
    fn of(labels: &mut [Label<'_>]) -> (Self, Role) {
        labels.sort();
        let value = |wanted: &str| {
            let found = labels.iter().find(|(name, _)| name == wanted);
            found.map(|(_, value)| &**value).filter(|value| !value.is_empty())
        };
        let name = value(METRIC_NAME).unwrap_or_default();
        let bound = value(BUCKET_BOUND).and_then(parse_float).filter(|bound| !bound.is_nan());
        let (name, role) = if let Some(name) = name.strip_suffix("_bucket") {
            (name, bound.map_or(Role::None, Role::Bucket))
        } else if let Some(name) = name.strip_suffix("_count") {
            (name, Role::Count)
        } else if let Some(name) = name.strip_suffix("_sum") {
            (name, Role::Sum)
        } else {
            (name, Role::None)
        };
        let mut text = String::new();
        let others = labels.iter().filter(|(name, value)| {
            name != METRIC_NAME && name != BUCKET_BOUND && !value.is_empty()
        });
        push_series(&mut text, name, "", others.map(|(name, value)| (name, &**value)));
        (Self { name: name.to_owned(), text }, role)
    }
}

impl Open {
    fn new(group: Arc<Group>, started: Option<Timestamp>) -> Self {
        Self {
            group,
            buckets: Vec::new(),
            count: None,
            sum: 0.0,
            is_broken: false,
            timestamp: None,
            exemplars: Vec::new(),
            started,
        }
    }

    fn add(&mut self, role: Role, entry: &SeriesEntry<'_>) {
        self.timestamp = entry.timestamp;
        let exemplar = entry.exemplar.filter(|exemplar| exemplar.timestamp.is_some());
        self.exemplars.extend(exemplar.map(|exemplar| exemplar.decode(Timestamp(0))));
        // That of a sum below zero is a sum all the same.
        self.is_broken |= role != Role::Sum && (entry.value < 0.0 || entry.value.is_nan());
        match role {
            Role::Bucket(bound) => self.bucket(bound, entry.value),
            Role::Count => self.count = Some(entry.value),
            Role::Sum => self.sum = entry.value,
            Role::None => {}
        }
    }

    /// Of two buckets with one bound, the first counts.
    fn bucket(&mut self, bound: f64, count: f64) {
        let before = self.buckets.partition_point(|(other, _)| *other < bound);
        if self.buckets.get(before).is_none_or(|(other, _)| *other != bound) {
            self.buckets.insert(before, (bound, count));
        }
    }

    fn finish(mut self) -> Option<Converted> {
        let last = self.buckets.last().copied();
        let count = self.count.or(last.map(|(_, count)| count)).unwrap_or_default();
        if last.is_none_or(|(bound, _)| bound < f64::INFINITY) {
            self.buckets.push((f64::INFINITY, count));
        }
        let all_there = self.buckets.last().is_some_and(|(_, total)| *total == count);
        let rising = self.buckets.is_sorted_by(|(_, a), (_, b)| a <= b);
        let lowest = self.buckets.first().map(|(bound, _)| *bound);
        if self.is_broken || !all_there || !rising || lowest == Some(f64::NEG_INFINITY) {
            return None;
        }
        let histogram = self.histogram(count);
        self.exemplars.sort_by_key(|exemplar| exemplar.at);
        Some(Converted {
            group: self.group,
            histogram,
            timestamp: self.timestamp,
            exemplars: self.exemplars,
            started: self.started,
        })
    }

    fn histogram(&self, count: f64) -> Histogram {
        let own = self
            .buckets
            .iter()
            .scan(0.0, |before, (_, count)| Some(count - std::mem::replace(before, *count)));
        let mut custom_bounds: Vec<f64> = self.buckets.iter().map(|(bound, _)| *bound).collect();
        custom_bounds.pop();
        let is_integer = |count: f64| count.fract() == 0.0 && count <= INTEGER_MAX;
        if self.buckets.iter().all(|(_, count)| is_integer(*count)) {
            let own = own.enumerate().map(|(at, count)| (at as i64, count as u64));
            let (positive_spans, positive_deltas) = layout(own);
            return Histogram::Integer(IntegerHistogram {
                schema: CUSTOM_BUCKETS_SCHEMA,
                count: count as u64,
                sum: self.sum,
                positive_spans,
                positive_deltas,
                custom_bounds,
                ..IntegerHistogram::default()
            });
        }
        let mut spans: Vec<BucketSpan> = Vec::new();
        let mut positive_buckets = Vec::new();
        let mut next = 0;
        for (at, count) in own.enumerate().filter(|(_, count)| *count != 0.0) {
            match spans.last_mut() {
                Some(span) if at == next => span.length += 1,
                _ => spans.push(BucketSpan { offset: (at - next) as i32, length: 1 }),
            }
            positive_buckets.push(count);
            next = at + 1;
        }
        Histogram::Float(FloatHistogram {
            schema: CUSTOM_BUCKETS_SCHEMA,
            count,
            sum: self.sum,
            positive_spans: spans,
            positive_buckets,
            custom_bounds,
            ..FloatHistogram::default()
        })
    }
}

#[cfg(test)]
mod tests;
