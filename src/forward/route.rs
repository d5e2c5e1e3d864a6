//! From stored rows to what is sent: labels, downsampling, budget.

mod places;
mod targets;
mod window;

use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::time::Duration;

use parking_lot::{Mutex, MutexGuard};
use stint_model::{Exemplar, Labels, Sample, SeriesRef, Span, Timestamp, Value};
use stint_storage::DiskError;

use super::aggregate::{Aggregator, Output};
use super::downsample::{Phases, Thinner};
use super::encode::Families;
use super::identity::Identities;
use super::round::{Item, Outgoing, Payload, Round};
use super::rules::Rules;
use super::source::{Position, StoredBatch};
use super::status::Status;
use super::trail::{Said, Trail};
use crate::budget::admission::{Admission, Provenance, Standing};
use crate::budget::group::{Key, target_of};
use crate::budget::policy::Reason;
use places::{NOWHERE, Places};
use targets::{Numbered, Targets};
use window::Window;

/// Behind by more, an endpoint is to catch up.
const BEHIND: Span = Span(5 * Span::MINUTE.0);
/// Samples from further ahead say nothing of what time it is.
const AHEAD_MAX: Span = Span(5 * Span::MINUTE.0);
/// A series that was not seen this long is forgotten.
const FORGET_AFTER: Duration = Duration::from_hours(1);
const FORGET_EVERY: Duration = Duration::from_mins(10);

/// Where a sample was read.
#[derive(Clone, Copy)]
struct Read {
    /// Reading goes on there.
    position: Position,
    /// An earlier run may have sent it.
    maybe_sent: bool,
    /// The round that it goes to.
    round: u32,
    /// The minute in which it goes there.
    minute: u32,
}

struct Route {
    /// Where it goes, or why nowhere.
    to: Result<Arc<Outgoing>, Reason>,
    /// The number of its target, where that is known by one.
    numbered: Option<Box<Numbered>>,
    /// What is sent of it first has to be parted from what another target sent.
    takes_over: bool,
    /// What its samples come to between two that are sent, where anybody wants that.
    window: Option<Box<Window>>,
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
    /// Monotonic seconds when it was seen last.
    seen: u32,
    /// The hash of the labels that are stored.
    stored: u64,
    /// The number of the round that a sample of it went to last.
    round: u32,
    /// The minute in which an item last told that it is sent.
    noted: u32,
}

impl Route {
    /// The route of what goes nowhere yet.
    fn nowhere(thinner: Thinner, target: u64, seen: u32) -> Self {
        Self {
            to: Err(Reason::Relabel),
            numbered: None,
            takes_over: false,
            window: None,
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
            seen,
            stored: 0,
            round: 0,
            noted: u32::MAX,
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

/// The target of what is made of several targets' series.
const OF_MANY: u64 = 0;

/// Turns stored batches into rounds.
pub struct Router {
    rules: Rules,
    admission: Arc<Mutex<Admission>>,
    routes: Places<Route>,
    /// The place of the route of each row that is being routed.
    places: Vec<u32>,
    /// Routes that only rows before a certain one still go.
    replaced: Vec<u32>,
    phases: Phases,
    trail: Trail,
    aggregator: Aggregator,
    targets: Targets,
    /// Comes before what was just decided on.
    before: Option<Item>,
    /// The aggregates as they are sent.
    made: HashMap<Output, Route>,
    /// Behind by far: the series that there are by now, and slots for others beside them.
    present: Option<HashSet<u64>>,
    room_for_gone: u64,
    forget_at: Duration,
    /// When it was first asked to forget.
    started: Option<Duration>,
    /// The time by the wall clock when routing began.
    wall: Timestamp,
    /// Rounds so far.
    rounds: u32,
}

impl std::fmt::Debug for Router {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Router({} series)", self.routes.len())
    }
}

impl Router {
    /// A router that has seen nothing yet.
    pub(super) fn new(
        rules: Rules,
        identities: Identities,
        families: Arc<Mutex<Families>>,
        admission: Arc<Mutex<Admission>>,
        trail: Trail,
    ) -> Self {
        let aggregator = Aggregator::new(rules.aggregates.clone(), rules.interval);
        Self {
            rules,
            admission,
            routes: Places::default(),
            places: Vec::new(),
            replaced: Vec::new(),
            phases: Phases::known(trail.anchors()),
            trail,
            aggregator,
            targets: Targets::new(identities, families),
            before: None,
            made: HashMap::new(),
            present: None,
            room_for_gone: 0,
            forget_at: Duration::ZERO,
            started: None,
            wall: Timestamp(0),
            rounds: 0,
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
        status: &Mutex<Status>,
    ) {
        self.wall = wall;
        let admission = Arc::clone(&self.admission);
        let mut admission = admission.lock();
        admission.advance(now, wall);
        let there = self.present.as_ref().map_or(0, |present| present.len() as u64);
        self.room_for_gone = admission.room(now).saturating_sub(there);
        let mut places = std::mem::take(&mut self.places);
        places.clear();
        for batch in &batches {
            for (series, labels, sample) in &batch.rows {
                let place = self.place(*series, labels.as_ref(), sample.at, now, &mut admission);
                let place = self.touch(place, *series, sample, now, &mut admission);
                let from = (sample, batch.position_after);
                self.announce(place, from, now, &mut admission);
                places.push(place);
            }
        }
        self.plan(&mut admission, now, wall);
        round.ended.get_or_insert(admission.ended());
        let (rounds, minute) = (&mut self.rounds, (now.as_secs() / 60) as u32);
        let number = *round.number.get_or_insert_with(|| {
            *rounds = rounds.wrapping_add(1);
            *rounds
        });
        let status = &mut *status.lock();
        self.targets.count(now, status);
        self.plan_points(status, &mut admission);
        let mut rows = places.iter().copied();
        for batch in batches {
            status.counters.lost += batch.orphans;
            let position = batch.position_after;
            let maybe_sent = batch.maybe_sent || position <= self.rules.maybe_sent_until;
            let read = Read { position, maybe_sent, round: number, minute };
            for (_, _, sample) in batch.rows {
                let place = rows.next().unwrap_or(NOWHERE);
                status.counters.read += 1;
                status.newest_read = status.newest_read.max(Some(sample.at));
                // A clock that is wrong does not take everybody's boundaries along.
                if !self.made.is_empty() && sample.at.since(wall) < AHEAD_MAX {
                    self.make(sample.at, read, &mut admission, round, status);
                }
                let told = self.tell(place, &sample, read, &mut admission, status);
                let decision = self.decide(place, sample, read, &mut admission);
                if let Some(before) = self.before.take() {
                    status.counters.made += 1;
                    admission.extra_point();
                    round.push(before);
                }
                match decision {
                    Decision::Send(item) => {
                        status.counters.pending += 1;
                        if let Some(first) = self.part(place, &item, &mut admission, status) {
                            round.push(first);
                        }
                        round.push(item);
                    }
                    Decision::Withhold(reason, marker) => {
                        status.counters.withhold(reason, 1);
                        if let Some(marker) = marker {
                            round.push(marker);
                        }
                    }
                    Decision::Lost => status.counters.lost += 1,
                }
                if let Some(told) = told {
                    round.push(told);
                }
            }
            for (series, exemplar) in batch.exemplars {
                match self.exemplar(series, exemplar, &admission) {
                    Some(item) => round.push(Item { maybe_sent, ..item }),
                    None => status.counters.exemplars_withheld += 1,
                }
            }
        }
        self.places = places;
        self.forget_replaced(&mut admission);
    }

    /// Decides who is sent. Others look at the budget while the disk is at work.
    fn plan(&mut self, admission: &mut MutexGuard<'_, Admission>, now: Duration, wall: Timestamp) {
        let work = admission.decide(now);
        let done = MutexGuard::unlocked(admission, || {
            self.targets.keep(now);
            work.write()
        });
        admission.settle(done, now, wall);
        let beside = admission.beside(now);
        if !beside.is_empty() {
            MutexGuard::unlocked(admission, || beside.write());
        }
    }

    /// Whether the labels of a series need not be told again.
    pub(super) fn knows(&self, series: SeriesRef) -> bool {
        self.routes.place(series).is_some()
    }

    /// Whether what is sent has to be written down before.
    pub(super) fn notes(&self) -> bool {
        self.trail.is_kept()
    }

    /// Makes durable what is chosen in `round`, for which everything up to `until` was routed.
    ///
    /// # Errors
    /// The disk failed.
    pub(super) fn note(
        &mut self,
        round: &Round,
        until: Position,
        wall: Timestamp,
    ) -> Result<(), DiskError> {
        let Self { trail, phases, .. } = self;
        trail.note(round, until, wall, |target| phases.get(target).unwrap_or_default())
    }

    /// Says that everything up to `done` is durably dealt with.
    ///
    /// # Errors
    /// The disk failed.
    pub(super) fn done(&mut self, done: Position, now: Timestamp) -> Result<(), DiskError> {
        self.trail.shorten(done, now)
    }

    /// Thins the classes as far as points per minute are scarce.
    fn plan_points(&self, status: &Status, admission: &mut Admission) {
        let Some(newest) = status.newest_read else { return };
        let classes = 0..admission.policy().classes().len() as u16;
        let configured: Vec<Span> =
            classes.map(|class| self.rules.interval_of(admission, class)).collect();
        admission.plan_points(newest, status.lateness > BEHIND, &configured);
    }

    /// The place of the series' route, which is made where there is none; nowhere where nobody
    /// knows its labels.
    fn place(
        &mut self,
        series: SeriesRef,
        labels: Option<&Labels>,
        at: Timestamp,
        now: Duration,
        admission: &mut Admission,
    ) -> u32 {
        if let Some(place) = self.routes.place(series) {
            return place;
        }
        let Some(labels) = labels else { return NOWHERE };
        let route =
            Route { stored: labels.stable_hash(), ..self.new_route(labels, at, now, admission) };
        self.routes.insert(series, route)
    }

    /// Asks for slots where the series at `place` has none.
    fn announce(
        &mut self,
        place: u32,
        (sample, position): (&Sample, Position),
        now: Duration,
        admission: &mut Admission,
    ) {
        self.announce_identity(place, sample, now, admission);
        let Some(route) = self.routes.get_mut(place) else { return };
        route.seen = seconds(now);
        let stored = route.stored;
        // Who asks for slots is the aggregate.
        let route = match &route.part_of {
            Some(part) => self.made.get_mut(&part.0),
            None => Some(route),
        };
        let Some(route) = route else { return };
        route.seen = seconds(now);
        let is_settled = route.standing(admission).is_settled();
        let Ok(outgoing) = &route.to else { return };
        if route.is_sampled {
            admission.saw(outgoing.group, now);
        }
        let ends = matches!(sample.value, Value::Stale)
            // An earlier run has told the end, which may not have arrived.
            || self.trail.said(outgoing.key, sample, position) == Said::Ended;
        if ends {
            admission.end(outgoing.key);
        }
        // A stale marker alone never makes a series active at the endpoint.
        if !matches!(sample.value, Value::Stale) && self.rules.takes(&sample.value) && !is_settled {
            let is_gone = self.present.as_ref().is_some_and(|it| !it.contains(&stored));
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
        let mut route = Route::nowhere(thinner, target, seconds(now));
        let Some(stored) = self.rules.apply(labels) else { return route };
        let sent = match self.targets.identities.place(&stored, at) {
            Some(placed) => self.numbered(labels, placed, &mut route, at, admission),
            None => stored.clone(),
        };
        // Tasks that have one number after the other are inputs of their own.
        let input = Key::of(&stored);
        let Some((output, is_new)) = self.aggregator.join_as(&sent, input) else {
            let families = self.targets.families.lock();
            route.window = Window::of(&sent, &self.rules, &families);
            drop(families);
            let is_made = matches!(route.window.as_deref(), Some(Window::Gauge { .. }));
            return self.sent_as(&sent, route, is_made || passes_changes, admission);
        };
        if is_new {
            // Its samples stand at the boundaries of intervals, whatever its inputs' targets do.
            let made = Route::nowhere(Thinner::new(Timestamp(0), false), OF_MANY, seconds(now));
            let labels = self.aggregator.labels(output);
            if let Some((at, value)) = self.trail.value(Key::of(&labels)) {
                self.aggregator.resume(output, at, value);
            }
            let made = self.sent_as(&labels, made, true, admission);
            self.made.insert(output, made);
        }
        route.to = Err(Reason::Aggregated);
        route.part_of = Some(Box::new((output, input)));
        route
    }

    /// The route of what is sent under `labels`, which goes on where an earlier run stopped.
    fn sent_as(
        &mut self,
        labels: &Labels,
        mut route: Route,
        keeps_value: bool,
        admission: &mut Admission,
    ) -> Route {
        let key = Key::of(labels);
        let last = self.trail.claim(key);
        if let Some(last) = last.filter(|last| last.target == route.target) {
            route.thinner.resume(last.at, last.bits);
            route.takes_over = false;
        }
        let origin = Provenance { target: route.target, keeps_value };
        let place = admission.register(labels, key, origin);
        route.class = place.class;
        route.interval = self.rules.interval_of(admission, place.class);
        route.is_sampled = admission.samples_targets(place.class);
        route.resolution = place.resolution;
        route.to = Ok(place.series);
        route
    }

    fn decide(
        &mut self,
        place: u32,
        sample: Sample,
        read: Read,
        admission: &mut Admission,
    ) -> Decision {
        let Some(route) = self.routes.get_mut(place) else { return Decision::Lost };
        if let Some(part) = &route.part_of {
            let takes = self.rules.takes(&sample.value) && self.aggregator.feed(part.1, &sample);
            let reason = if takes { Reason::Aggregated } else { Reason::Histogram };
            return Decision::Withhold(reason, None);
        }
        route.thinner.settle(self.wall);
        if let Some(reason) = self.targets.keeps_back(route, &sample) {
            return Decision::Withhold(reason, None);
        }
        let Some(mut window) = route.window.take() else {
            return Self::decide_on((&self.rules, &self.trail), route, sample, read, admission);
        };
        let offered = window.offer(sample.clone());
        let known = (&self.rules, &self.trail);
        let decision = Self::decide_on(known, route, offered, read, admission);
        let goes_on = matches!(
            decision,
            Decision::Send(_) | Decision::Withhold(Reason::Interval | Reason::Points, None)
        );
        if let Some(before) = window.before_reset(&sample).filter(|_| goes_on)
            && let Ok(outgoing) = &route.to
        {
            let before = Payload::Made(coarse(before, route.resolution));
            self.before = Some(Item::new(outgoing, before, read.maybe_sent));
        }
        window.note(&sample, &decision);
        route.window = Some(window);
        decision
    }

    /// Adds what aggregates are due when the samples' time is `at`.
    fn make(
        &mut self,
        at: Timestamp,
        read: Read,
        admission: &mut Admission,
        round: &mut Round,
        status: &mut Status,
    ) {
        for (output, sample) in self.aggregator.due(at) {
            let Some(route) = self.made.get_mut(&output) else { continue };
            status.counters.made += 1;
            let known = (&self.rules, &self.trail);
            match Self::decide_on(known, route, sample, read, admission) {
                Decision::Send(Item {
                    payload: Payload::Sample(sample),
                    series,
                    maybe_sent,
                    ..
                }) => {
                    round.push(Item::new(&series, Payload::Made(sample), maybe_sent));
                }
                Decision::Send(item) | Decision::Withhold(_, Some(item)) => round.push(item),
                Decision::Withhold(_, None) | Decision::Lost => {}
            }
        }
    }

    fn decide_on(
        (rules, trail): (&Rules, &Trail),
        route: &mut Route,
        mut sample: Sample,
        read: Read,
        admission: &mut Admission,
    ) -> Decision {
        let maybe_sent = read.maybe_sent;
        let standing = route.standing(admission);
        let outgoing = match &route.to {
            Ok(outgoing) => outgoing,
            Err(reason) => return Decision::Withhold(*reason, None),
        };
        if !rules.takes(&sample.value) {
            return Decision::Withhold(Reason::Histogram, None);
        }
        let said = match trail.said(outgoing.key, &sample, read.position) {
            // What was made then is not known, and what is made now is something else.
            Said::Sent(None) if outgoing.keeps_value => Said::Left,
            said => said,
        };
        if let (Said::Sent(Some(bits)), Value::Float(value)) = (said, &mut sample.value) {
            *value = f64::from_bits(bits);
        }
        if said == Said::Ended {
            // The marker may not have arrived.
            let marker =
                standing.is_shown.then(|| Self::end(route, sample.at, maybe_sent, admission));
            let reason = standing.verdict.err().unwrap_or(Reason::Interval);
            return Decision::Withhold(reason, marker.flatten());
        }
        let was_sent = matches!(said, Said::Sent(_));
        let is_shown = standing.is_shown && (was_sent || route.thinner.is_shown(sample.at));
        if matches!(sample.value, Value::Stale) {
            if !is_shown {
                return Decision::Withhold(Reason::StaleUnsent, None);
            }
            admission.extra_point();
        } else if let Err(reason) = standing.verdict {
            // It was sent until now: say that it ends.
            let marker =
                (is_shown && !was_sent).then(|| Self::end(route, sample.at, maybe_sent, admission));
            return Decision::Withhold(reason, marker.flatten());
        } else {
            // What is used changes classes now and then.
            let class = standing.class.unwrap_or(route.class);
            admission.seen(class, &mut route.mark);
            let is_due = |interval| route.thinner.is_due(sample.at, interval);
            if said == Said::Left {
                return Decision::Withhold(Reason::Interval, None);
            }
            if !was_sent && !is_due(admission.interval(class, route.interval)) {
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
        let is_repeated = std::mem::replace(&mut route.round, read.round) == read.round;
        let is_noted = std::mem::replace(&mut route.noted, read.minute) != read.minute;
        Decision::Send(Item {
            is_repeated: is_repeated || outgoing.is_shared,
            is_noted,
            ..Item::new(outgoing, payload, maybe_sent)
        })
    }

    /// The stale marker of a series that is sent no more from `at` on.
    fn end(
        route: &mut Route,
        at: Timestamp,
        maybe_sent: bool,
        admission: &mut Admission,
    ) -> Option<Item> {
        let marker = Item::new(route.to.as_ref().ok()?, Payload::Marker(at), maybe_sent);
        route.thinner.taken(at, &Value::Stale);
        admission.extra_point();
        Some(marker)
    }

    fn exemplar(
        &self,
        series: SeriesRef,
        exemplar: Exemplar,
        admission: &Admission,
    ) -> Option<Item> {
        let place = self.routes.place(series)?;
        let outgoing = self.routes.get(place)?.to.as_ref().ok()?;
        // What the policy leaves out is settled as well, and holds no lease.
        let is_sent = admission.check(outgoing.group, outgoing.key).is_ok();
        let item = || Item::new(outgoing, Payload::Exemplar(exemplar), false);
        (self.rules.exemplars && is_sent).then(item)
    }

    /// Forgets series that were not seen for long. What was read and is not routed yet must be of none
    /// of them.
    pub(super) fn forget(&mut self, now: Duration) {
        if now < self.forget_at {
            return;
        }
        let admission = Arc::clone(&self.admission);
        let admission = &mut *admission.lock();
        self.forget_at = now + FORGET_EVERY;
        self.targets.forget(admission);
        let mut targets = HashSet::new();
        self.routes.retain(|route| {
            let keep = is_recent(route.seen, now);
            if !keep {
                targets::forget_told(route, admission);
            }
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
            let keep = is_recent(route.seen, now);
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
        // Targets that an earlier run knew may not have been seen yet.
        let known_for = *self.started.get_or_insert(now);
        if now.saturating_sub(known_for) >= FORGET_AFTER {
            self.phases.retain(|target| targets.contains(&target));
        }
    }
}

fn seconds(now: Duration) -> u32 {
    now.as_secs() as u32
}

/// Whether what was seen last in the second `seen` is to be known still.
fn is_recent(seen: u32, now: Duration) -> bool {
    u64::from(seconds(now).saturating_sub(seen)) < FORGET_AFTER.as_secs()
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
    /// Nobody knows what series it is of; only after damage to the log.
    Lost,
}
