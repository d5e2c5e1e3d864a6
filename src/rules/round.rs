//! One evaluation of a group: what several of its rules select is selected and decoded once.
//!
//! Rules of a group are mostly about the same few metrics, at the same time. Series that rules of the
//! group write are read anew each time: a rule sees what those before it have written. A rule that
//! reads anything alone reads everything alone, since all of a query must be as of one moment.

use std::collections::HashMap;
use std::sync::atomic::{AtomicI64, Ordering};
use std::sync::{Arc, OnceLock};

use foldhash::fast::RandomState;
use parking_lot::Mutex;
use stint_model::labels::METRIC_NAME;
use stint_model::{
    Columns, Hints, Labels, Querier, QueryError, Queryable, Selector, SeriesSet, Span, TimeRange,
    Timestamp,
};
use stint_promql::parse::Expr;

use super::order::{ALERTS, ALERTS_FOR_STATE};
use super::spec::RuleSpec;

mod decoded;

pub use decoded::Room;
use decoded::{Decoded, Read};

/// Queries that look back further are not shared: what they decode is much.
const BACK_MAX: Span = Span(10 * 60_000);

/// What the rules of a group have in common.
#[derive(Debug, Default)]
pub(super) struct Plan {
    selectors: HashMap<Selector, Use, RandomState>,
    /// How far shared queries looked back so far, in milliseconds.
    back: AtomicI64,
}

/// A selector that several rules have.
#[derive(Debug, Default)]
struct Use {
    count: usize,
    /// The last step with a rule that has it.
    last_step: usize,
    /// How far samples were read back so far, in milliseconds.
    back: AtomicI64,
}

impl Plan {
    /// Of rules that are evaluated in these steps.
    #[expect(clippy::mutable_key_type, reason = "matchers are equal whatever they have compiled")]
    pub(super) fn new(rules: &[RuleSpec], steps: &[Vec<usize>]) -> Self {
        let written = Written::by(rules);
        let mut selectors: HashMap<Selector, Use, RandomState> = HashMap::default();
        for (step, numbers) in steps.iter().enumerate() {
            for rule in numbers.iter().filter_map(|number| rules.get(*number)) {
                visit_selectors(&rule.expr, &mut |selector| {
                    if !written.may_match(&selector) {
                        let known = selectors.entry(selector).or_default();
                        known.count += 1;
                        known.last_step = step;
                    }
                });
            }
        }
        selectors.retain(|_, known| known.count > 1);
        Self { selectors, back: AtomicI64::new(0) }
    }
}

fn visit_selectors(expr: &Expr, visit: &mut dyn FnMut(Selector)) {
    let selector = match expr {
        Expr::VectorSelector(selector) => Some(&**selector),
        Expr::MatrixSelector(matrix) => Some(&matrix.selector),
        _ => None,
    };
    if let Some(selector) = selector {
        visit(Selector::new(selector.matchers.clone()));
    }
    expr.children().for_each(|child| visit_selectors(child, visit));
}

/// The names of the series that rules write.
struct Written<'a>(Vec<&'a str>);

impl<'a> Written<'a> {
    fn by(rules: &'a [RuleSpec]) -> Self {
        let mut names = Vec::new();
        for rule in rules {
            match rule.alert() {
                Some(_) => names.extend([ALERTS, ALERTS_FOR_STATE]),
                None => names.push(rule.name.as_str()),
            }
        }
        names.sort_unstable();
        names.dedup();
        Self(names)
    }

    fn may_match(&self, selector: &Selector) -> bool {
        let on_name = || selector.matchers.iter().filter(|matcher| matcher.name() == METRIC_NAME);
        self.0.iter().any(|name| on_name().all(|matcher| matcher.matches(name)))
    }
}

/// A store as the rules of one evaluation see it.
pub(super) struct Round(Arc<Inner>);

struct Inner {
    plan: Arc<Plan>,
    store: Arc<dyn Queryable>,
    room: Arc<Room>,
    /// When queries are evaluated.
    at: Timestamp,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    /// Made when first needed, with the earliest time that it sees.
    pinned: Option<(Box<dyn Querier>, Timestamp)>,
    /// By selector, and whether any order will do.
    sets: HashMap<(Selector, bool), Arc<SharedSet>, RandomState>,
}

impl Round {
    /// For queries at `at`.
    pub(super) fn new(
        plan: &Arc<Plan>,
        store: &Arc<dyn Queryable>,
        room: &Arc<Room>,
        at: Timestamp,
    ) -> Self {
        Self(Arc::new(Inner {
            plan: Arc::clone(plan),
            store: Arc::clone(store),
            room: Arc::clone(room),
            at,
            state: Mutex::default(),
        }))
    }

    /// When queries are evaluated.
    pub(super) fn at(&self) -> Timestamp {
        self.0.at
    }

    /// Whether all that a rule reads is shared.
    pub(super) fn serves(&self, expr: &Expr) -> bool {
        let (selectors, mut all) = (&self.0.plan.selectors, true);
        visit_selectors(expr, &mut |selector| all &= selectors.contains_key(&selector));
        all
    }

    /// Forgets what no rule of a later step reads.
    #[expect(clippy::mutable_key_type, reason = "matchers are equal whatever they have compiled")]
    pub(super) fn step_done(&self, step: usize) {
        let selectors = &self.0.plan.selectors;
        let is_read_later =
            |selector: &Selector| selectors.get(selector).is_some_and(|u| u.last_step > step);
        let mut state = self.0.state.lock();
        state.sets.retain(|(selector, _), _| is_read_later(selector));
        // While it is there, the store remembers what comes in.
        if !selectors.values().any(|known| known.last_step > step) {
            state.pinned = None;
        }
    }
}

impl Queryable for Round {
    fn querier(&self, range: TimeRange) -> Result<Box<dyn Querier>, QueryError> {
        let inner = &self.0;
        let back = inner.at.since(range.start);
        let is_long = back > BACK_MAX || range.end > inner.at.saturating_add(Span(1));
        if inner.plan.selectors.is_empty() || is_long {
            return inner.store.querier(range);
        }
        inner.plan.back.fetch_max(back.0, Ordering::Relaxed);
        Ok(Box::new(RoundQuerier { inner: Arc::clone(inner), range, own: OnceLock::new() }))
    }
}

impl Inner {
    /// The series of a selector that rules have in common, if they can be shared with a query that
    /// sees `range`.
    fn set(
        &self,
        selector: &Selector,
        hints: &Hints,
        range: TimeRange,
    ) -> Result<Option<Arc<SharedSet>>, QueryError> {
        if hints.limit > 0 || !self.plan.selectors.contains_key(selector) {
            return Ok(None);
        }
        let mut state = self.state.lock();
        let State { pinned, sets } = &mut *state;
        let (querier, start) = if let Some(pinned) = pinned {
            pinned
        } else {
            let start = self.at - Span(self.plan.back.load(Ordering::Relaxed));
            let querier = self.store.querier(TimeRange::closed(start, self.at))?;
            pinned.insert((querier, start))
        };
        // Only as long as it is not known how far the rules look back.
        if range.start < *start {
            return Ok(None);
        }
        let key = (selector.clone(), hints.unordered);
        if let Some(known) = sets.get(&key) {
            return Ok(Some(Arc::clone(known)));
        }
        let series = querier.select(selector, hints)?;
        let set = Arc::new(SharedSet { series, decoded: OnceLock::new() });
        sets.insert(key, Arc::clone(&set));
        Ok(Some(set))
    }
}

/// A query of a rule.
struct RoundQuerier {
    inner: Arc<Inner>,
    range: TimeRange,
    /// For what is not shared.
    own: OnceLock<Result<Box<dyn Querier>, QueryError>>,
}

impl RoundQuerier {
    fn own(&self) -> Result<&dyn Querier, QueryError> {
        match self.own.get_or_init(|| self.inner.store.querier(self.range)) {
            Ok(querier) => Ok(&**querier),
            Err(error) => Err(error.clone()),
        }
    }
}

impl Querier for RoundQuerier {
    fn select(&self, selector: &Selector, hints: &Hints) -> Result<Box<dyn SeriesSet>, QueryError> {
        let Some(set) = self.inner.set(selector, hints, self.range)? else {
            return self.own()?.select(selector, hints);
        };
        let (inner, selector) = (Arc::clone(&self.inner), selector.clone());
        Ok(Box::new(View { inner, selector, set, range: self.range }))
    }

    fn label_names(&self, selectors: &[Selector], limit: usize) -> Result<Vec<String>, QueryError> {
        self.own()?.label_names(selectors, limit)
    }

    fn label_values(
        &self,
        name: &str,
        selectors: &[Selector],
        limit: usize,
    ) -> Result<Vec<String>, QueryError> {
        self.own()?.label_values(name, selectors, limit)
    }
}

/// Series that several queries read.
struct SharedSet {
    series: Box<dyn SeriesSet>,
    decoded: OnceLock<Decoded>,
}

/// The same series, as one query sees them. Some may have no samples in its range.
struct View {
    inner: Arc<Inner>,
    selector: Selector,
    set: Arc<SharedSet>,
    range: TimeRange,
}

impl View {
    /// The samples of all series, as far back as rules read them the last time.
    fn decoded(&self, range: TimeRange) -> &Decoded {
        let Inner { plan, at, room, .. } = &*self.inner;
        self.set.decoded.get_or_init(|| {
            let known = plan.selectors.get(&self.selector);
            let before = known.map_or(0, |known| known.back.load(Ordering::Relaxed));
            let start = range.start.min(*at - Span(before));
            Decoded::of(&*self.set.series, TimeRange::closed(start, *at), room)
        })
    }
}

impl SeriesSet for View {
    fn len(&self) -> usize {
        self.set.series.len()
    }

    fn labels(&self, index: usize) -> Labels {
        self.set.series.labels(index)
    }

    fn encode_labels(&self, index: usize, keep: &dyn Fn(&str) -> bool, text: &mut String) {
        self.set.series.encode_labels(index, keep, text);
    }

    fn read(
        &self,
        index: usize,
        range: TimeRange,
        columns: &mut Columns,
    ) -> Result<(), QueryError> {
        let (start, end) = (range.start.max(self.range.start), range.end.min(self.range.end));
        let range = TimeRange::new(start, end);
        if range.is_empty() {
            return Ok(());
        }
        match self.decoded(range).read(index, range, columns) {
            Read::Done => Ok(()),
            Read::Elsewhere => self.set.series.read(index, range, columns),
            Read::Earlier => {
                if let Some(known) = self.inner.plan.selectors.get(&self.selector) {
                    known.back.fetch_max(self.inner.at.since(start).0, Ordering::Relaxed);
                }
                self.set.series.read(index, range, columns)
            }
        }
    }
}

#[cfg(test)]
mod tests;
