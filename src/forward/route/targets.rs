//! Targets that are known by a number: their series as they are sent, who owns each, and what parts one
//! owner from the next.
//!
//! A counter that goes on with a higher value would hide that it is another one's: a zero one
//! millisecond before its first sample tells that it began anew. Before anything else there is a stale
//! marker, as where a series ends.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use stint_model::histogram::{FloatHistogram, IntegerHistogram, ResetHint};
use stint_model::{Histogram, Labels, MetricType, Sample, SeriesRef, Timestamp, Value};

use super::super::encode::Families;
use super::super::identity::{Follows, Hold, Identities, Placed, Slot};
use super::super::status::Status;
use super::{Decision, Item, Payload, Read, Route, Router, seconds};
use crate::budget::admission::Admission;
use crate::budget::group::{Key, KeyHasher, family_of};
use crate::budget::policy::Reason;

/// How often numbers are counted for the report.
const COUNT_EVERY: Duration = Duration::from_secs(10);

/// What a route knows of its target's number.
pub(super) struct Numbered {
    slot: Slot,
    /// The labels that are stored: they are told once.
    stored: Labels,
    /// For `up`: the series that tells who has the number.
    told: Option<Box<Route>>,
}

/// The targets of one endpoint that are known by a number.
pub(super) struct Targets {
    pub(super) identities: Identities,
    pub(super) families: Arc<Mutex<Families>>,
    /// Of the series that are sent under a number, the target that they were last of in this run.
    owners: HashMap<Key, u128, KeyHasher>,
    count_at: Duration,
}

impl Targets {
    pub(super) fn new(identities: Identities, families: Arc<Mutex<Families>>) -> Self {
        Self { identities, families, owners: HashMap::default(), count_at: Duration::ZERO }
    }

    /// Sees to it that numbers are durable before anything is sent under them.
    pub(super) fn keep(&mut self, now: Duration) {
        if !self.identities.is_empty() {
            self.identities.keep(now);
        }
    }

    /// Counts them now and then for the report.
    pub(super) fn count(&mut self, now: Duration, status: &mut Status) {
        if !self.identities.is_empty() && now >= self.count_at {
            self.count_at = now + COUNT_EVERY;
            status.identities = Some(self.identities.counts());
        }
    }

    /// Why a sample is not sent although its series may be: the number is another target's by now, or
    /// a crash could still give it to one.
    pub(super) fn keeps_back(&self, route: &Route, sample: &Sample) -> Option<Reason> {
        let slot = route.numbered.as_deref()?.slot;
        match self.identities.stands(slot, sample.at) {
            Hold::Own | Hold::Past => None,
            Hold::Unsaved => Some(Reason::LedgerFailed),
            Hold::Lost if matches!(sample.value, Value::Stale) => Some(Reason::StaleUnsent),
            Hold::Lost => Some(Reason::Budget),
        }
    }

    /// Forgets who owned what, together with the slot at the endpoint.
    pub(super) fn forget(&mut self, admission: &Admission) {
        self.owners.retain(|key, _| admission.is_live(*key));
    }
}

/// Forgets the series that goes with one that is forgotten.
pub(super) fn forget_told(route: &Route, admission: &mut Admission) {
    let told = route.numbered.as_deref().and_then(|numbered| numbered.told.as_deref());
    if let Some(Ok(outgoing)) = told.map(|told| &told.to) {
        admission.forget(outgoing.group, outgoing.key);
    }
}

impl Router {
    /// Notes that a target is there, or that it has ended; the series of one that has lost its number
    /// gets another, and with it another place. What came before goes where it went.
    pub(super) fn touch(
        &mut self,
        place: u32,
        series: SeriesRef,
        sample: &Sample,
        now: Duration,
        admission: &mut Admission,
    ) -> u32 {
        if self.targets.identities.is_empty() {
            return place;
        }
        self.targets.identities.tick(sample.at, self.wall);
        let route = self.routes.get(place);
        let Some(numbered) = route.and_then(|route| route.numbered.as_deref()) else {
            return place;
        };
        let slot = numbered.slot;
        let is_stale = matches!(sample.value, Value::Stale);
        let ends = is_stale && slot.is_up;
        let hold = self.targets.identities.touch(slot, sample.at, is_stale, ends);
        if hold != Hold::Lost || is_stale {
            return place;
        }
        let stored = numbered.stored.clone();
        if let Some(part) = route.and_then(|route| route.part_of.as_ref()) {
            self.aggregator.forget(part.1);
        }
        self.replaced.push(place);
        let hash = stored.stable_hash();
        let new = self.new_route(&stored, sample.at, now, admission);
        self.routes.insert(series, Route { stored: hash, ..new })
    }

    /// Forgets the routes that have been replaced.
    pub(super) fn forget_replaced(&mut self, admission: &mut Admission) {
        for place in std::mem::take(&mut self.replaced) {
            let Some(route) = self.routes.take(place) else { continue };
            forget_told(&route, admission);
            if route.part_of.is_none()
                && let Ok(outgoing) = &route.to
            {
                admission.forget(outgoing.group, outgoing.key);
            }
        }
    }

    /// The labels of a series that is sent under its target's number.
    pub(super) fn numbered(
        &mut self,
        stored: &Labels,
        placed: Placed,
        route: &mut Route,
        at: Timestamp,
        admission: &mut Admission,
    ) -> Labels {
        let Placed { labels, slot, info } = placed;
        let key = Key::of(&labels);
        let is_past = self.targets.identities.stands(slot, at) == Hold::Past;
        let owner = self.targets.owners.get(&key).copied();
        if !is_past {
            self.targets.owners.insert(key, slot.target);
        }
        route.takes_over = match (self.targets.identities.follows(slot, at), owner) {
            (Follows::No, _) => false,
            (_, Some(owner)) => owner != slot.target,
            (Follows::Yes, None) => true,
            // Who owned it in an earlier run only the ledger may tell.
            (Follows::IfSent, None) => admission.is_live(key),
        };
        let told = info.map(|info| {
            let told = Route::nowhere(route.thinner, route.target, route.seen);
            Box::new(self.sent_as(&info, told, true, admission))
        });
        route.numbered = Some(Box::new(Numbered { slot, stored: stored.clone(), told }));
        labels
    }

    /// Asks for a slot for the series that tells who has which number.
    pub(super) fn announce_identity(
        &mut self,
        place: u32,
        sample: &Sample,
        now: Duration,
        admission: &mut Admission,
    ) {
        if self.targets.identities.is_empty() {
            return;
        }
        let numbered = self.routes.get_mut(place).and_then(|route| route.numbered.as_deref_mut());
        let Some(told) = numbered.and_then(|numbered| numbered.told.as_deref_mut()) else {
            return;
        };
        told.seen = seconds(now);
        let is_settled = told.standing(admission).is_settled();
        let Ok(outgoing) = &told.to else { return };
        if told.is_sampled {
            admission.saw(outgoing.group, now);
        }
        // While catching up, what is there by now comes first.
        let may_wait = self.present.is_some() && !admission.is_live(outgoing.key);
        if !is_settled && !may_wait && !matches!(sample.value, Value::Stale) {
            admission.want(outgoing.group, now);
        }
    }

    /// What tells who has the number, beside a sample of its `up`.
    pub(super) fn tell(
        &mut self,
        place: u32,
        sample: &Sample,
        read: Read,
        admission: &mut Admission,
        status: &mut Status,
    ) -> Option<Item> {
        if self.targets.identities.is_empty() {
            return None;
        }
        let numbered = self.routes.get_mut(place)?.numbered.as_deref_mut()?;
        let (slot, told) = (numbered.slot, numbered.told.as_deref_mut()?);
        if !matches!(self.targets.identities.stands(slot, sample.at), Hold::Own | Hold::Past) {
            return None;
        }
        let value = match &sample.value {
            Value::Stale => Value::Stale,
            Value::Float(_) | Value::Histogram(_) => Value::Float(1.0),
        };
        let made = Sample { at: sample.at, started: None, value };
        told.thinner.settle(self.wall);
        let known = (&self.rules, &self.trail);
        match Self::decide_on(known, told, made, read, admission) {
            Decision::Send(Item { series, payload: Payload::Sample(made), maybe_sent, .. }) => {
                status.counters.made += 1;
                Some(Item::new(&series, Payload::Made(made), maybe_sent))
            }
            Decision::Send(item) | Decision::Withhold(_, Some(item)) => Some(item),
            Decision::Withhold(_, None) | Decision::Lost => None,
        }
    }

    /// What stands between the last sample of a target that is gone and the first one of its
    /// successor.
    pub(super) fn part(
        &mut self,
        place: u32,
        item: &Item,
        admission: &mut Admission,
        status: &mut Status,
    ) -> Option<Item> {
        if self.targets.identities.is_empty() {
            return None;
        }
        let Payload::Sample(sample) = &item.payload else { return None };
        let route = self.routes.get_mut(place)?;
        let before = Timestamp(sample.at.as_ms() - 1);
        // What parted them then does so again.
        let was_parted = item.maybe_sent && self.trail.was_sent(item.series.key, before);
        if !std::mem::take(&mut route.takes_over) && !was_parted {
            return None;
        }
        let payload = parting(sample, &item.series.labels.labels(), &self.targets.families.lock())?;
        status.counters.made += u64::from(matches!(payload, Payload::Made(_)));
        admission.extra_point();
        Some(Item::new(&item.series, payload, item.maybe_sent))
    }
}

/// What comes before the first sample of another target's series.
fn parting(sample: &Sample, labels: &Labels, families: &Families) -> Option<Payload> {
    let at = Timestamp(sample.at.as_ms() - 1);
    let zero = |value| Payload::Made(Sample { at, started: None, value });
    Some(match &sample.value {
        Value::Stale => return None,
        Value::Float(_) if is_cumulative(labels, families) => zero(Value::Float(0.0)),
        Value::Histogram(histogram) if histogram.reset_hint() != ResetHint::Gauge => {
            zero(Value::Histogram(Arc::new(empty(histogram))))
        }
        Value::Float(_) | Value::Histogram(_) => Payload::Marker(at),
    })
}

/// Whether a series only grows: as its metadata says, or else as its name does.
pub(super) fn is_cumulative(labels: &Labels, families: &Families) -> bool {
    let name = labels.metric_name().unwrap_or_default();
    let kind = |family: &str| {
        let kind = families.get(family).map(|metadata| metadata.kind);
        kind.filter(|kind| *kind != MetricType::Unknown)
    };
    let total = name.strip_suffix("_total");
    if let Some(kind) = kind(name).or_else(|| kind(total?)) {
        // The quantiles of a summary are called as it is.
        return kind == MetricType::Counter;
    }
    let family = family_of(labels);
    match kind(family).filter(|_| family != name) {
        Some(MetricType::Histogram | MetricType::Summary) => !name.ends_with("_created"),
        Some(MetricType::GaugeHistogram) => false,
        _ => ["_total", "_bucket", "_count", "_sum"].iter().any(|end| name.ends_with(end)),
    }
}

/// The histogram without observations.
fn empty(histogram: &Histogram) -> Histogram {
    let reset_hint = ResetHint::Reset;
    match histogram {
        Histogram::Integer(IntegerHistogram { schema, zero_threshold, custom_bounds, .. }) => {
            Histogram::Integer(IntegerHistogram {
                reset_hint,
                schema: *schema,
                zero_threshold: *zero_threshold,
                custom_bounds: custom_bounds.clone(),
                ..IntegerHistogram::default()
            })
        }
        Histogram::Float(FloatHistogram { schema, zero_threshold, custom_bounds, .. }) => {
            Histogram::Float(FloatHistogram {
                reset_hint,
                schema: *schema,
                zero_threshold: *zero_threshold,
                custom_bounds: custom_bounds.clone(),
                ..FloatHistogram::default()
            })
        }
    }
}

#[cfg(test)]
mod tests {
    use stint_model::Metadata;

    use super::*;

    fn before(name: &str, value: Value, families: &Families) -> Payload {
        let sample = Sample { at: Timestamp(1_000), started: None, value };
        parting(&sample, &Labels::from_pairs([("__name__", name)]), families).unwrap()
    }

    #[test]
    fn counters_begin_anew_at_zero_and_gauges_behind_a_stale_marker() {
        let of = |kind| Metadata { kind, ..Metadata::default() };
        let families = Families::from([
            ("odd".to_owned(), of(MetricType::Counter)),
            ("queue_count".to_owned(), of(MetricType::Gauge)),
            ("open".to_owned(), of(MetricType::Counter)),
            ("h_seconds".to_owned(), of(MetricType::Histogram)),
            ("s_seconds".to_owned(), of(MetricType::Summary)),
            ("gh".to_owned(), of(MetricType::GaugeHistogram)),
        ]);
        let is_zero = |name: &str| match before(name, Value::Float(5.0), &families) {
            Payload::Made(sample) => {
                assert_eq!(sample, Sample::float(Timestamp(999), 0.0));
                true
            }
            Payload::Marker(at) => {
                assert_eq!(at, Timestamp(999));
                false
            }
            other => panic!("{other:?}"),
        };
        for name in ["a_total", "odd", "open_total", "h_seconds_bucket", "s_seconds_sum", "x_count"]
        {
            assert!(is_zero(name), "{name}");
        }
        for name in ["temperature", "queue_count", "s_seconds", "h_seconds_created", "gh_bucket"] {
            assert!(!is_zero(name), "{name}");
        }
    }

    #[test]
    fn a_native_histogram_begins_anew_without_observations() {
        let full = IntegerHistogram {
            schema: 3,
            count: 7,
            sum: 9.0,
            positive_deltas: vec![7],
            ..IntegerHistogram::default()
        };
        let value = |histogram| Value::Histogram(Arc::new(Histogram::Integer(histogram)));
        let Payload::Made(zero) = before("h", value(full.clone()), &Families::default()) else {
            panic!("a histogram is a counter");
        };
        let Value::Histogram(zero) = zero.value else { panic!("of the same kind") };
        assert_eq!((zero.schema(), zero.buckets_len()), (3, 0));
        assert!(matches!(&*zero, Histogram::Integer(it) if it.count == 0 && it.sum == 0.0));
        let gauge = IntegerHistogram { reset_hint: ResetHint::Gauge, ..full };
        let before = before("h", value(gauge), &Families::default());
        assert!(matches!(before, Payload::Marker(Timestamp(999))));
    }
}
