//! From stored rows to what is sent: labels, downsampling, budget.

use std::collections::{HashMap, HashSet, VecDeque};
use std::sync::Arc;
use std::sync::atomic::AtomicU32;
use std::time::Duration;

use parking_lot::Mutex;
use stint_model::labels::LabelsBuilder;
use stint_model::relabel::{self, Rule, Verdict};
use stint_model::{Exemplar, Histogram, Labels, Sample, SeriesRef, Span, Timestamp, Value};
use stint_wire::remote_write::Version;
use stint_wire::remote_write::v1::encode_labels;

use super::aggregate::{Aggregator, Output};
use super::downsample::{Phases, Thinner};
use super::source::{Position, StoredBatch};
use super::status::Status;
use crate::budget::admission::{Admission, GroupIndex, Standing};
use crate::budget::group::{Key, KeyHasher, shard_of, target_of};
use crate::budget::policy::Reason;
use crate::config::Aggregate;

/// A series as it is sent.
#[derive(Debug)]
pub struct Outgoing {
    /// Its identity at the endpoint.
    pub key: Key,
    /// Its group in the budget.
    pub group: GroupIndex,
    /// The final labels.
    pub labels: Labels,
    /// The labels as the 1.0 message has them; empty with 2.0.
    pub label_bytes: Vec<u8>,
    /// Without a budget: the minute in which it was last noted that it is sent.
    pub noted: AtomicU32,
}

/// What is sent of a series.
#[derive(Clone, Debug)]
pub enum Payload {
    /// A sample.
    Sample(Sample),
    /// A stale marker for a series that is forwarded no more; not a stored sample.
    Marker(Timestamp),
    /// A sample of an aggregate; not a stored sample.
    Made(Sample),
    /// An exemplar.
    Exemplar(Exemplar),
}

/// One thing to send.
#[derive(Clone, Debug)]
pub struct Item {
    /// Whose it is.
    pub series: Arc<Outgoing>,
    /// What it is.
    pub payload: Payload,
    /// An earlier run may have delivered it.
    pub maybe_sent: bool,
}

impl Item {
    /// Whether it is a stored sample, of which every one is counted.
    pub fn is_sample(&self) -> bool {
        matches!(self.payload, Payload::Sample(_))
    }

    /// The time it is about.
    pub fn at(&self) -> Timestamp {
        match &self.payload {
            Payload::Sample(sample) | Payload::Made(sample) => sample.at,
            Payload::Marker(at) => *at,
            Payload::Exemplar(exemplar) => exemplar.at,
        }
    }
}

/// What is sent at once: the items of each shard in order.
#[derive(Debug, Default)]
pub struct Round {
    /// By shard.
    pub shards: Vec<VecDeque<Item>>,
    /// How many items there are.
    pub items: usize,
    /// How many leases had ended when the first of them was added; each held its own then.
    pub ended: Option<u64>,
}

impl Round {
    /// An empty round for `shards` requests in flight.
    pub fn new(shards: usize) -> Self {
        Self { shards: vec![VecDeque::new(); shards.max(1)], items: 0, ended: None }
    }

    fn push(&mut self, item: Item) {
        let shard = shard_of(item.series.key, self.shards.len());
        if let Some(queue) = self.shards.get_mut(shard) {
            queue.push_back(item);
            self.items += 1;
        }
    }
}

/// What an endpoint wants of the samples.
#[derive(Clone, Debug)]
pub struct Rules {
    /// Attached where the series has none of that name.
    pub external_labels: Labels,
    /// Run over each series afterwards.
    pub relabel: Vec<Rule>,
    /// Distance between forwarded samples; zero for all.
    pub interval: Span,
    /// Which message is sent.
    pub version: Version,
    /// Whether native histograms are sent.
    pub histograms: bool,
    /// Whether exemplars are sent.
    pub exemplars: bool,
    /// Whether label values are shortened here, so that the endpoint does not do it.
    pub shorten: bool,
    /// Labels that are not sent.
    pub aggregates: Vec<Aggregate>,
    /// What is stored before it may have been sent by an earlier run.
    pub maybe_sent_until: Position,
}

/// Label values that Grafana Cloud does not shorten have at most this many bytes.
const VALUE_BYTES_MAX: usize = 2048;
/// Behind by more, an endpoint is to catch up.
const BEHIND: Span = Span(5 * Span::MINUTE.0);
/// Samples from further ahead say nothing of what time it is.
const AHEAD_MAX: Span = Span(5 * Span::MINUTE.0);
/// A series that was not seen this long is forgotten.
const FORGET_AFTER: Duration = Duration::from_hours(1);
const FORGET_EVERY: Duration = Duration::from_mins(10);

struct Route {
    /// Where it goes, or why nowhere.
    to: Result<Arc<Outgoing>, Reason>,
    /// It goes into this aggregate, under this key.
    part_of: Option<Box<(Output, Key)>>,
    /// How it stands in the budget, as of so many changes there.
    standing: Standing,
    changes: u64,
    thinner: Thinner,
    /// Of its class, before points are scarce.
    interval: Span,
    class: u16,
    /// For [`Points::seen`](crate::budget::points::Points::seen).
    mark: u32,
    target: u64,
    /// Only some targets of its class are sent.
    is_sampled: bool,
    /// The finest resolution of its native histograms.
    resolution: Option<i32>,
    seen: Duration,
}

impl Route {
    /// The route of what goes nowhere yet.
    fn nowhere(thinner: Thinner, target: u64, now: Duration) -> Self {
        Self {
            to: Err(Reason::Relabel),
            part_of: None,
            standing: Standing { verdict: Err(Reason::Relabel), is_shown: false, class: None },
            changes: u64::MAX,
            thinner,
            interval: Span::ZERO,
            class: 0,
            mark: 0,
            target,
            is_sampled: false,
            resolution: None,
            seen: now,
        }
    }
}

impl Route {
    /// How the series stands in the budget now. Most of the time nothing has changed there.
    fn standing(&mut self, admission: &Admission) -> Standing {
        let changes = admission.changes();
        if self.changes != changes
            && let Ok(outgoing) = &self.to
        {
            self.standing = admission.standing(outgoing.group, outgoing.key);
            self.changes = changes;
        }
        self.standing
    }
}

/// Turns stored batches into rounds.
pub struct Router {
    rules: Rules,
    admission: Arc<Mutex<Admission>>,
    routes: HashMap<SeriesRef, Route, KeyHasher>,
    phases: Phases,
    aggregator: Aggregator,
    /// The aggregates as they are sent.
    made: HashMap<Output, Route>,
    /// Behind by far: the series that there are by now, and slots for others beside them.
    present: Option<HashSet<u64>>,
    room_for_gone: u64,
    forget_at: Duration,
    /// The time by the wall clock when routing began.
    wall: Timestamp,
}

impl std::fmt::Debug for Router {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Router({} series)", self.routes.len())
    }
}

impl Router {
    /// A router that has seen nothing yet.
    pub fn new(rules: Rules, admission: Arc<Mutex<Admission>>) -> Self {
        let aggregator = Aggregator::new(rules.aggregates.clone(), rules.interval);
        Self {
            rules,
            admission,
            routes: HashMap::default(),
            phases: Phases::default(),
            aggregator,
            made: HashMap::new(),
            present: None,
            room_for_gone: 0,
            forget_at: Duration::ZERO,
            wall: Timestamp(0),
        }
    }

    /// Says which series there are by now, by hash, while what is routed lies far behind. They come
    /// first: what is new and gone already gets what is left beside them.
    pub(super) fn set_present(&mut self, present: Option<HashSet<u64>>) {
        self.present = present;
    }

    /// Adds what is to be sent of `batches` to `round`; what is not is counted in `status`. What is
    /// added holds its lease, durably.
    pub fn route(
        &mut self,
        batches: Vec<StoredBatch>,
        now: Duration,
        wall: Timestamp,
        round: &mut Round,
        status: &mut Status,
    ) {
        self.wall = wall;
        let admission = Arc::clone(&self.admission);
        let mut admission = admission.lock();
        admission.advance(now, wall);
        let there = self.present.as_ref().map_or(0, |present| present.len() as u64);
        self.room_for_gone = admission.room(now).saturating_sub(there);
        for batch in &batches {
            for (series, labels, sample) in &batch.rows {
                self.announce(*series, labels, sample, now, &mut admission);
            }
        }
        admission.plan(now, wall);
        round.ended.get_or_insert(admission.ended());
        self.plan_points(status, &mut admission);
        for batch in batches {
            status.counters.lost += batch.orphans;
            let maybe_sent =
                batch.maybe_sent || batch.position_after <= self.rules.maybe_sent_until;
            for (series, _, sample) in batch.rows {
                status.counters.read += 1;
                status.newest_read = status.newest_read.max(Some(sample.at));
                // A clock that is wrong does not take everybody's boundaries along.
                if !self.made.is_empty() && sample.at.since(wall) < AHEAD_MAX {
                    self.make(sample.at, maybe_sent, &mut admission, round, status);
                }
                match self.decide(series, sample, maybe_sent, &mut admission) {
                    Decision::Send(item) => {
                        status.counters.pending += 1;
                        round.push(item);
                    }
                    Decision::Withhold(reason, marker) => {
                        status.counters.withhold(reason, 1);
                        if let Some(marker) = marker {
                            round.push(marker);
                        }
                    }
                }
            }
            for (series, _, exemplar) in batch.exemplars {
                match self.exemplar(series, exemplar, &admission) {
                    Some(item) => round.push(Item { maybe_sent, ..item }),
                    None => status.counters.exemplars_withheld += 1,
                }
            }
        }
        self.forget(now, &mut admission);
    }

    /// Thins the classes as far as points per minute are scarce.
    fn plan_points(&self, status: &Status, admission: &mut Admission) {
        let Some(newest) = status.newest_read else { return };
        let classes = 0..admission.policy().classes().len() as u16;
        let configured: Vec<Span> =
            classes.map(|class| self.rules.interval_of(admission, class)).collect();
        admission.plan_points(newest, status.lateness > BEHIND, &configured);
    }

    /// Makes the series known and asks for slots where it has none.
    fn announce(
        &mut self,
        series: SeriesRef,
        labels: &Labels,
        sample: &Sample,
        now: Duration,
        admission: &mut Admission,
    ) {
        if !self.routes.contains_key(&series) {
            let route = self.new_route(labels, sample.at, now, admission);
            self.routes.insert(series, route);
        }
        let Some(route) = self.routes.get_mut(&series) else { return };
        route.seen = now;
        // Who asks for slots is the aggregate.
        let route = match &route.part_of {
            Some(part) => self.made.get_mut(&part.0),
            None => Some(route),
        };
        let Some(route) = route else { return };
        route.seen = now;
        let is_settled = route.standing(admission).is_settled();
        let Ok(outgoing) = &route.to else { return };
        if route.is_sampled {
            admission.saw(outgoing.group, now);
        }
        // A stale marker alone never makes a series active at the endpoint.
        if !matches!(sample.value, Value::Stale) && self.rules.takes(&sample.value) && !is_settled {
            let is_gone =
                self.present.as_ref().is_some_and(|it| !it.contains(&labels.stable_hash()));
            if is_gone && !admission.is_live(outgoing.key) {
                if self.room_for_gone == 0 {
                    return;
                }
                self.room_for_gone -= 1;
            }
            admission.want(outgoing.group, now);
        }
    }

    fn new_route(
        &mut self,
        labels: &Labels,
        at: Timestamp,
        now: Duration,
        admission: &mut Admission,
    ) -> Route {
        let target = target_of(labels);
        let anchor = self.phases.anchor(target, at);
        let passes_changes = labels.metric_name() == Some("up");
        let thinner = Thinner::new(anchor, passes_changes);
        let mut route = Route::nowhere(thinner, target, now);
        let Some(labels) = self.rules.apply(labels) else { return route };
        let Some((output, is_new)) = self.aggregator.join(&labels) else {
            return self.sent_as(&labels, route, admission);
        };
        if is_new {
            // Its samples stand at the boundaries of intervals, whatever its inputs' targets do.
            let made = Route::nowhere(Thinner::new(Timestamp(0), false), target, now);
            let made = self.sent_as(&self.aggregator.labels(output), made, admission);
            self.made.insert(output, made);
        }
        route.to = Err(Reason::Aggregated);
        route.part_of = Some(Box::new((output, Key::of(&labels))));
        route
    }

    fn sent_as(&self, labels: &Labels, mut route: Route, admission: &mut Admission) -> Route {
        let key = Key::of(labels);
        let place = admission.register(labels, key);
        let label_bytes = match self.rules.version {
            Version::V1 => encode_labels(labels),
            Version::V2 => Vec::new(),
        };
        let labels = labels.clone();
        route.class = place.class;
        route.interval = self.rules.interval_of(admission, place.class);
        route.is_sampled = admission.samples_targets(place.class);
        route.resolution = place.resolution;
        let (group, noted) = (place.group, AtomicU32::new(u32::MAX));
        route.to = Ok(Arc::new(Outgoing { key, group, labels, label_bytes, noted }));
        route
    }

    fn decide(
        &mut self,
        series: SeriesRef,
        sample: Sample,
        maybe_sent: bool,
        admission: &mut Admission,
    ) -> Decision {
        let Some(route) = self.routes.get_mut(&series) else {
            return Decision::Withhold(Reason::Relabel, None);
        };
        if let Some(part) = &route.part_of {
            let takes = self.rules.takes(&sample.value) && self.aggregator.feed(part.1, &sample);
            let reason = if takes { Reason::Aggregated } else { Reason::Histogram };
            return Decision::Withhold(reason, None);
        }
        route.thinner.settle(self.wall);
        Self::decide_on(&self.rules, route, sample, maybe_sent, admission)
    }

    /// Adds what aggregates are due when the samples' time is `at`.
    fn make(
        &mut self,
        at: Timestamp,
        maybe_sent: bool,
        admission: &mut Admission,
        round: &mut Round,
        status: &mut Status,
    ) {
        for (output, sample) in self.aggregator.due(at) {
            let Some(route) = self.made.get_mut(&output) else { continue };
            status.counters.made += 1;
            match Self::decide_on(&self.rules, route, sample, maybe_sent, admission) {
                Decision::Send(Item { series, payload: Payload::Sample(sample), maybe_sent }) => {
                    round.push(Item { series, payload: Payload::Made(sample), maybe_sent });
                }
                Decision::Send(item) | Decision::Withhold(_, Some(item)) => round.push(item),
                Decision::Withhold(_, None) => {}
            }
        }
    }

    fn decide_on(
        rules: &Rules,
        route: &mut Route,
        sample: Sample,
        maybe_sent: bool,
        admission: &mut Admission,
    ) -> Decision {
        let standing = route.standing(admission);
        let outgoing = match &route.to {
            Ok(outgoing) => outgoing,
            Err(reason) => return Decision::Withhold(*reason, None),
        };
        if !rules.takes(&sample.value) {
            return Decision::Withhold(Reason::Histogram, None);
        }
        let is_shown = standing.is_shown && route.thinner.is_shown(sample.at);
        if matches!(sample.value, Value::Stale) {
            if !is_shown {
                return Decision::Withhold(Reason::StaleUnsent, None);
            }
            admission.extra_point();
        } else if let Err(reason) = standing.verdict {
            // It was sent until now: say that it ends.
            let marker = is_shown.then(|| {
                route.thinner.taken(sample.at, &Value::Stale);
                admission.extra_point();
                let payload = Payload::Marker(sample.at);
                Item { series: Arc::clone(outgoing), payload, maybe_sent }
            });
            return Decision::Withhold(reason, marker);
        } else {
            // What is used changes classes now and then.
            let class = standing.class.unwrap_or(route.class);
            admission.seen(class, &mut route.mark);
            let is_due = |interval| route.thinner.is_due(sample.at, interval);
            if !is_due(admission.interval(class, route.interval)) {
                if !route.thinner.passes(sample.at, &sample.value) {
                    let as_configured = !is_due(route.interval);
                    let reason = if as_configured { Reason::Interval } else { Reason::Points };
                    return Decision::Withhold(reason, None);
                }
                admission.extra_point();
            }
        }
        route.thinner.taken(sample.at, &sample.value);
        let payload = Payload::Sample(coarse(sample, route.resolution));
        Decision::Send(Item { series: Arc::clone(outgoing), payload, maybe_sent })
    }

    fn exemplar(
        &self,
        series: SeriesRef,
        exemplar: Exemplar,
        admission: &Admission,
    ) -> Option<Item> {
        let outgoing = self.routes.get(&series)?.to.as_ref().ok()?;
        let is_sent = admission.is_settled(outgoing.group, outgoing.key);
        (self.rules.exemplars && is_sent).then(|| Item {
            series: Arc::clone(outgoing),
            payload: Payload::Exemplar(exemplar),
            maybe_sent: false,
        })
    }

    fn forget(&mut self, now: Duration, admission: &mut Admission) {
        if now < self.forget_at {
            return;
        }
        self.forget_at = now + FORGET_EVERY;
        let mut targets = HashSet::new();
        self.routes.retain(|_, route| {
            let keep = now.saturating_sub(route.seen) < FORGET_AFTER;
            if keep {
                targets.insert(route.target);
            } else if let Ok(outgoing) = &route.to {
                admission.forget(outgoing.group, outgoing.key);
            } else if let Some(part) = &route.part_of {
                self.aggregator.forget(part.1);
            }
            keep
        });
        let aggregator = &mut self.aggregator;
        self.made.retain(|output, route| {
            let keep = now.saturating_sub(route.seen) < FORGET_AFTER;
            if keep {
                targets.insert(route.target);
            } else {
                if let Ok(outgoing) = &route.to {
                    admission.forget(outgoing.group, outgoing.key);
                }
                aggregator.forget_output(*output);
            }
            keep
        });
        self.phases.retain(|target| targets.contains(&target));
    }
}

/// The sample with its native histogram at `resolution` at most.
fn coarse(mut sample: Sample, resolution: Option<i32>) -> Sample {
    if let (Value::Histogram(histogram), Some(resolution)) = (&mut sample.value, resolution)
        && histogram.schema() > resolution
    {
        Arc::make_mut(histogram).reduce_resolution(resolution);
    }
    sample
}

enum Decision {
    Send(Item),
    Withhold(Reason, Option<Item>),
}

impl Rules {
    /// The configured distance between samples of a class.
    fn interval_of(&self, admission: &Admission, class: u16) -> Span {
        let own = admission.policy().class(class).and_then(|class| class.interval);
        own.unwrap_or(self.interval)
    }

    /// The labels that are sent for a series, or nothing when a rule drops it.
    pub(super) fn apply(&self, labels: &Labels) -> Option<Labels> {
        let is_there = |(name, _): (&str, &str)| labels.get(name).is_some();
        let is_long = |(_, value): (&str, &str)| self.shorten && value.len() > VALUE_BYTES_MAX;
        let stays = self.relabel.is_empty()
            && self.external_labels.iter().all(is_there)
            && !labels.iter().any(is_long);
        if stays {
            // They share the memory of those in the store.
            return (!labels.is_empty()).then(|| labels.clone());
        }
        let mut builder = labels.to_builder();
        for (name, value) in &self.external_labels {
            if builder.get(name).is_none() {
                builder.set(name, value);
            }
        }
        if relabel::apply(&self.relabel, &mut builder) == Verdict::Drop {
            return None;
        }
        if self.shorten {
            shorten(&mut builder);
        }
        let labels = builder.build();
        (!labels.is_empty()).then_some(labels)
    }

    /// Whether the endpoint is sent values of this kind. The 1.0 message has no custom buckets.
    fn takes(&self, value: &Value) -> bool {
        let Value::Histogram(histogram) = value else { return true };
        let schema = match &**histogram {
            Histogram::Integer(histogram) => histogram.schema,
            Histogram::Float(histogram) => histogram.schema,
        };
        let custom = schema == stint_model::histogram::CUSTOM_BUCKETS_SCHEMA;
        self.histograms && !(custom && self.version == Version::V1)
    }
}

/// Replaces the end of values that are too long by a hash, as the server would, so that the series
/// counted here is the series counted there.
fn shorten(builder: &mut LabelsBuilder) {
    let too_long: Vec<(String, String)> = builder
        .iter()
        .filter(|(_, value)| value.len() > VALUE_BYTES_MAX)
        .map(|(name, value)| {
            let hash = Labels::from_pairs([("v", value)]).stable_hash();
            let mut kept = value.to_owned();
            kept.truncate(kept.floor_char_boundary(VALUE_BYTES_MAX - 17));
            (name.to_owned(), format!("{kept}-{hash:016x}"))
        })
        .collect();
    for (name, value) in too_long {
        builder.set(&name, &value);
    }
}
