//! Late samples of one series: those that came after a later one.
//!
//! They are kept in order of time, in pages of limited length: putting one in the middle moves no
//! more than a page, however many there are.

use std::collections::BTreeMap;
use std::sync::Arc;

use stint_model::{Histogram, STALE_NAN_BITS, Sample, TimeRange, Timestamp, Value};

const PAGE: usize = 64;

/// A late sample, and the commit that brought it.
#[derive(Clone, Copy, Debug)]
pub(super) struct Late {
    pub(crate) at: Timestamp,
    pub(crate) commit: u64,
    bits: u64,
}

/// What few samples have.
#[derive(Clone, Debug)]
struct Extra {
    started: Option<Timestamp>,
    histogram: Option<Arc<Histogram>>,
}

/// See the module's documentation.
#[derive(Debug, Default)]
pub(super) struct LateSamples {
    /// None is empty. One time may be there twice: what was deleted may come again.
    pages: Vec<Vec<Late>>,
    /// By time and commit.
    extras: BTreeMap<(Timestamp, u64), Extra>,
}

impl LateSamples {
    pub(crate) fn len(&self) -> usize {
        self.pages.iter().map(Vec::len).sum()
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.pages.is_empty()
    }

    pub(crate) fn heap_bytes(&self) -> usize {
        let pages = self.pages.iter().map(|page| page.capacity() * size_of::<Late>());
        let extras = self.extras.len() * (size_of::<(Timestamp, u64)>() + size_of::<Extra>());
        pages.sum::<usize>() + self.pages.capacity() * size_of::<Vec<Late>>() + extras
    }

    /// First and last time.
    pub(crate) fn bounds(&self) -> Option<(Timestamp, Timestamp)> {
        self.pages.first()?.first().zip(self.pages.last()?.last()).map(|(a, b)| (a.at, b.at))
    }

    /// Adds a sample behind those of its time.
    pub(crate) fn push(&mut self, sample: &Sample, commit: u64) {
        let (bits, histogram) = match &sample.value {
            Value::Float(value) => (value.to_bits(), None),
            Value::Stale => (STALE_NAN_BITS, None),
            Value::Histogram(histogram) => (0, Some(Arc::clone(histogram))),
        };
        if histogram.is_some() || sample.started.is_some() {
            let extra = Extra { started: sample.started, histogram };
            self.extras.insert((sample.at, commit), extra);
        }
        let late = Late { at: sample.at, commit, bits };
        let ends_before = |page: &Vec<Late>| page.last().is_some_and(|last| last.at < late.at);
        // Of the pages that it could be put into, the first; else behind the last one.
        let mut at = self.pages.partition_point(ends_before);
        while self.begins(at + 1).is_some_and(|first| first <= late.at) {
            at += 1;
        }
        at = at.min(self.pages.len().saturating_sub(1));
        let Some(page) = self.pages.get_mut(at) else {
            self.pages.push(vec![late]);
            return;
        };
        let place = page.partition_point(|other| other.at <= late.at);
        if page.len() < PAGE {
            page.insert(place, late);
        } else if place == PAGE {
            // What comes in order fills pages.
            self.pages.insert(at + 1, vec![late]);
        } else {
            let mut upper = page.split_off(PAGE / 2);
            match place.checked_sub(PAGE / 2) {
                Some(place) => upper.insert(place, late),
                None => page.insert(place, late),
            }
            self.pages.insert(at + 1, upper);
        }
    }

    fn begins(&self, page: usize) -> Option<Timestamp> {
        Some(self.pages.get(page)?.first()?.at)
    }

    /// All in order of time.
    pub(crate) fn iter(&self) -> impl Iterator<Item = &Late> {
        self.pages.iter().flatten()
    }

    /// Those inside `range`, in order of time.
    pub(crate) fn inside(&self, range: TimeRange) -> impl Iterator<Item = &Late> {
        let before = |page: &Vec<Late>| page.last().is_some_and(|last| last.at < range.start);
        let first = self.pages.partition_point(before);
        let pages = self.pages.get(first..).unwrap_or_default();
        let late = pages.iter().flatten().skip_while(move |late| late.at < range.start);
        late.take_while(move |late| late.at < range.end)
    }

    /// The sample as it came.
    pub(crate) fn sample(&self, late: &Late) -> Sample {
        let value = Value::from_wire(f64::from_bits(late.bits));
        let mut sample = Sample { at: late.at, started: None, value };
        if let Some(extra) = self.extras.get(&(late.at, late.commit)) {
            sample.started = extra.started;
            if let Some(histogram) = &extra.histogram {
                sample.value = Value::Histogram(Arc::clone(histogram));
            }
        }
        sample
    }

    /// Drops those for which `keep` does not hold.
    pub(crate) fn retain(&mut self, keep: impl Fn(&Late) -> bool) {
        for page in &mut self.pages {
            page.retain(&keep);
            page.shrink_to_fit();
        }
        self.pages.retain(|page| !page.is_empty());
        self.pages.shrink_to_fit();
        let of_key = |(at, commit): (Timestamp, u64)| Late { at, commit, bits: 0 };
        self.extras.retain(|key, _| keep(&of_key(*key)));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use stint_model::histogram::IntegerHistogram;

    proptest! {
        #[test]
        fn samples_are_in_order_and_come_back(
            times in prop::collection::vec(0..500_i64, 1..600),
            sorted: bool,
            from in 0..500_i64,
            length in 0..200_i64,
        ) {
            let mut times = times;
            if sorted {
                times.sort_unstable();
            }
            let mut late = LateSamples::default();
            let mut want = BTreeMap::new();
            for (commit, at) in (0_u64..).zip(&times) {
                let started = (commit % 5 == 0).then_some(Timestamp(at - 7));
                let value = match commit % 7 {
                    0 => Value::Stale,
                    1 => Value::Histogram(Arc::new(Histogram::Integer(IntegerHistogram::default()))),
                    _ => Value::Float(commit as f64),
                };
                let sample = Sample { at: Timestamp(*at), started, value };
                late.push(&sample, commit);
                want.insert((*at, commit), sample);
            }
            let all = |late: &LateSamples| late.iter().map(|one| late.sample(one)).collect::<Vec<_>>();
            prop_assert_eq!(all(&late), want.values().cloned().collect::<Vec<_>>());
            prop_assert_eq!(late.len(), want.len());
            prop_assert!(late.pages.iter().all(|page| (1..=PAGE).contains(&page.len())));
            if sorted {
                prop_assert!(late.pages.len() <= times.len().div_ceil(PAGE));
            }
            let range = TimeRange::new(Timestamp(from), Timestamp(from + length));
            let inside: Vec<_> = late.inside(range).map(|one| one.at.0).collect();
            let wanted = want.keys().map(|(at, _)| *at).filter(|at| range.contains(Timestamp(*at)));
            prop_assert_eq!(inside, wanted.collect::<Vec<_>>());
            late.retain(|one| one.at.0 >= from && one.commit % 2 == 0);
            want.retain(|(at, commit), _| *at >= from && commit % 2 == 0);
            prop_assert_eq!(all(&late), want.values().cloned().collect::<Vec<_>>());
            let bounds = want.keys().next().zip(want.keys().last());
            prop_assert_eq!(late.bounds(), bounds.map(|(a, b)| (Timestamp(a.0), Timestamp(b.0))));
            prop_assert!(late.extras.len() <= want.len());
        }
    }
}
