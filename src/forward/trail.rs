//! What was sent of each series last, written down before it is sent.
//!
//! The cursor says how far an endpoint has got; it does not say what was chosen on the way. What is read
//! again after a crash could be chosen anew: other slots are free, points are scarcer, targets are seen
//! from the middle of their interval. A sample that was left out before would then come behind a later
//! one that has arrived already. So what was chosen is durable ([`file`]) before it goes out, and
//! what is read again is sent if it was chosen then and left out if it was not. Behind it, each
//! series goes on with the interval that it was in.

mod file;

use std::collections::HashMap;
use std::path::Path;
use std::sync::Arc;

use stint_model::{STALE_NAN_BITS, Sample, Span, Timestamp, Value};
use stint_storage::{Disk, DiskError};

use super::round::{Item, Payload, Round};
use super::source::Position;
use crate::budget::group::Key;
use file::{Group, Kind, Left, Record, TrailFile};

pub(super) use file::Origin;

/// Of a series that was not sent for so long, nothing needs to be known.
const KEPT: Span = Span(Span::HOUR.0);
const FORGET_EVERY: Span = Span(10 * Span::MINUTE.0);

/// A series, by half of its key: whoever shares it is thinned with another one's past, once.
type Short = u64;

fn short(key: Key) -> Short {
    key.0 as u64
}

/// What was sent of a series last.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Last {
    /// The hash of the target that it was of.
    pub(super) target: u64,
    /// The time around which that target's intervals lie.
    pub(super) anchor: Timestamp,
    /// Time of the sample.
    pub(super) at: Timestamp,
    /// Its value, where that matters; for a stale marker, its bits.
    pub(super) bits: u64,
}

#[derive(Clone, Copy, Debug)]
struct Held {
    last: Last,
    /// An earlier run sent it, and no series of this one has asked yet.
    is_past: bool,
}

/// What was decided on a sample that is read again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Said {
    /// Nothing: it was not read before.
    Nothing,
    /// It was sent, with this value where it was made here.
    Sent(Option<u64>),
    /// It was left out, or something else was sent for its time.
    Left,
    /// It was left out, and a stale marker was sent for its time: the series ended there.
    Ended,
}

/// What was sent, of one endpoint.
#[derive(Debug, Default)]
pub(super) struct Trail {
    /// Nothing where everything is sent, so that nothing is chosen.
    file: Option<TrailFile>,
    last: HashMap<Short, Held>,
    /// What earlier runs sent and may not have been dealt with.
    sent: HashMap<(Short, Timestamp), (Kind, u64)>,
    /// Everything stored before was decided on,
    until: Position,
    /// if its time is before that.
    newest: Timestamp,
    /// When it is next looked through for series that were not sent for long.
    forget_at: Timestamp,
    /// Stretches of the file that could not be read.
    damaged: u64,
}

impl Trail {
    /// What earlier runs left at `path` that is good for `origin`, where everything stored before `done`
    /// was dealt with.
    pub(super) fn open(disk: Arc<dyn Disk>, path: &Path, origin: Origin, done: Position) -> Self {
        let (file, Left { records, damaged }) = TrailFile::open(disk, path, origin, done);
        let (newest, damaged) = (Timestamp::MIN, damaged.len() as u64);
        let mut trail = Self { file: Some(file), newest, damaged, ..Self::default() };
        for record in records {
            trail.until = trail.until.max(record.until);
            trail.newest = trail.newest.max(record.newest);
            for group in &record.groups {
                for (series, bits) in &group.series {
                    let Group { target, anchor, at, .. } = *group;
                    let last = Last { target, anchor, at, bits: *bits };
                    trail.note_last(*series, last, true);
                    if record.is_round {
                        trail.sent.insert((*series, group.at), (group.kind, *bits));
                    }
                }
            }
        }
        trail
    }

    /// How many stretches of what earlier runs left could not be read.
    pub(super) fn damaged(&self) -> u64 {
        self.damaged
    }

    /// The times around which the intervals of each target lie.
    pub(super) fn anchors(&self) -> HashMap<u64, Timestamp> {
        let mut newest: HashMap<u64, Last> = HashMap::new();
        for Held { last, .. } in self.last.values() {
            let known = newest.entry(last.target).or_insert(*last);
            if last.at > known.at {
                *known = *last;
            }
        }
        newest.into_iter().map(|(target, last)| (target, last.anchor)).collect()
    }

    /// What an earlier run sent of a series last; told once.
    pub(super) fn claim(&mut self, key: Key) -> Option<Last> {
        let held = self.last.get_mut(&short(key))?;
        std::mem::take(&mut held.is_past).then_some(held.last)
    }

    /// Time and value of what was sent of a series last, where values are kept.
    pub(super) fn value(&self, key: Key) -> Option<(Timestamp, f64)> {
        let last = self.last.get(&short(key))?.last;
        let is_kept = last.bits != 0 && last.bits != STALE_NAN_BITS;
        is_kept.then(|| (last.at, f64::from_bits(last.bits)))
    }

    /// What was decided on a sample that is read from before `position`.
    pub(super) fn said(&self, key: Key, sample: &Sample, position: Position) -> Said {
        if self.sent.is_empty() || position > self.until {
            return Said::Nothing;
        }
        let is_stale = matches!(sample.value, Value::Stale);
        match self.sent.get(&(short(key), sample.at)) {
            Some((Kind::Stale, _)) if is_stale => Said::Sent(None),
            Some((Kind::Plain, _)) if !is_stale => Said::Sent(None),
            Some((Kind::Valued, bits)) if !is_stale => Said::Sent(Some(*bits)),
            Some((Kind::Stale, _)) => Said::Ended,
            Some(_) => Said::Left,
            None if sample.at < self.newest => Said::Left,
            None => Said::Nothing,
        }
    }

    /// Whether an earlier run sent something of a series for that time.
    pub(super) fn was_sent(&self, key: Key, at: Timestamp) -> bool {
        self.sent.contains_key(&(short(key), at))
    }

    /// Whether anything has to be written down before it is sent.
    pub(super) fn is_kept(&self) -> bool {
        self.file.is_some()
    }

    /// Makes durable what is in `round`, which goes up to `until`; `anchor` tells around which time the
    /// intervals of a target lie. Samples from times after `wall` say nothing of how far it goes.
    ///
    /// # Errors
    /// The disk failed.
    pub(super) fn note(
        &mut self,
        round: &Round,
        until: Position,
        wall: Timestamp,
        anchor: impl Fn(u64) -> Timestamp,
    ) -> Result<(), DiskError> {
        if self.file.is_none() {
            return Ok(());
        }
        let mut record =
            Record { until, newest: Timestamp::MIN, is_round: true, groups: Vec::new() };
        let mut entries = Vec::with_capacity(round.items);
        for item in round.shards.iter().flatten() {
            let Some((kind, bits)) = entry_of(item) else { continue };
            let (series, at, target) = (short(item.series.key), item.at(), item.series.target);
            record.newest = record.newest.max(at.min(wall));
            let anchor = anchor(target);
            self.note_last(series, Last { target, anchor, at, bits }, false);
            entries.push((target, anchor, at, kind, series, bits));
        }
        record.groups = file::grouped(entries);
        let Self { file: Some(file), last, .. } = self else { return Ok(()) };
        file.append(&record, || snapshot(last))
    }

    fn note_last(&mut self, series: Short, last: Last, is_past: bool) {
        let held = self.last.entry(series).or_insert(Held { last, is_past });
        if last.at >= held.last.at {
            *held = Held { last, is_past };
        }
    }

    /// Everything that was noted is dealt with, durably: what is no longer needed of it is forgotten
    /// once it is much.
    ///
    /// # Errors
    /// The disk failed.
    pub(super) fn shorten(&mut self, done: Position, now: Timestamp) -> Result<(), DiskError> {
        if done >= self.until && !self.sent.is_empty() {
            self.sent = HashMap::new();
        }
        let Self { file: Some(file), last, sent, .. } = self else { return Ok(()) };
        if !sent.is_empty() {
            return Ok(());
        }
        file.settle();
        let is_due = now >= self.forget_at || self.forget_at.since(now) > FORGET_EVERY;
        if is_due {
            self.forget_at = now + FORGET_EVERY;
            last.retain(|_, held| now.since(held.last.at) < KEPT);
            last.shrink_to(last.len() * 2);
        }
        if !file.is_long(last.len()) {
            return Ok(());
        }
        file.write(&snapshot(last))
    }
}

fn snapshot(last: &HashMap<Short, Held>) -> Record {
    let entries = last.iter().map(|(series, Held { last, .. })| {
        let kind = if last.bits == STALE_NAN_BITS { Kind::Stale } else { Kind::Valued };
        let kind = if last.bits == 0 { Kind::Plain } else { kind };
        (last.target, last.anchor, last.at, kind, *series, last.bits)
    });
    let groups = file::grouped(entries.collect());
    Record { until: Position::default(), newest: Timestamp::MIN, is_round: false, groups }
}

/// What is written of an item.
fn entry_of(item: &Item) -> Option<(Kind, u64)> {
    let value = match &item.payload {
        Payload::Sample(sample) | Payload::Made(sample) => &sample.value,
        Payload::Marker(_) => &Value::Stale,
        Payload::Exemplar(_) => return None,
    };
    Some(match value {
        Value::Stale => (Kind::Stale, STALE_NAN_BITS),
        Value::Float(value) if item.series.keeps_value => (Kind::Valued, value.to_bits()),
        Value::Float(_) | Value::Histogram(_) => (Kind::Plain, 0),
    })
}

#[cfg(test)]
mod tests;
