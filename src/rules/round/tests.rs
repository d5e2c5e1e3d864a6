use std::sync::atomic::AtomicUsize;

use proptest::prelude::*;
use stint_model::{Sample, Value, stale_nan};
use stint_promql::script::MemoryStore;
use stint_promql::{Cancel, Engine, EngineOptions};

use super::*;
use crate::rules::testing::{World, group_spec};

const MINUTE: i64 = 60_000;

/// Counts what a store is asked.
#[derive(Clone, Default)]
struct Counting {
    store: MemoryStore,
    queriers: Arc<AtomicUsize>,
    selected: Arc<AtomicUsize>,
    read: Arc<AtomicUsize>,
}

struct CountingQuerier(Box<dyn Querier>, Counting);

struct CountingSet(Box<dyn SeriesSet>, Counting);

impl Counting {
    fn put(&mut self, series: &str, at: i64, value: f64) {
        let labels = stint_promql::parse::parse_metric(series).unwrap();
        let sample = Sample { at: Timestamp(at), started: None, value: Value::from_wire(value) };
        self.store.append(&labels, sample);
    }

    /// Queriers, selections and series read since the last call.
    fn take(&self) -> [usize; 3] {
        [&self.queriers, &self.selected, &self.read].map(|count| count.swap(0, Ordering::Relaxed))
    }
}

impl Queryable for Counting {
    fn querier(&self, range: TimeRange) -> Result<Box<dyn Querier>, QueryError> {
        self.queriers.fetch_add(1, Ordering::Relaxed);
        Ok(Box::new(CountingQuerier(self.store.querier(range)?, self.clone())))
    }
}

impl Querier for CountingQuerier {
    fn select(&self, selector: &Selector, hints: &Hints) -> Result<Box<dyn SeriesSet>, QueryError> {
        self.1.selected.fetch_add(1, Ordering::Relaxed);
        Ok(Box::new(CountingSet(self.0.select(selector, hints)?, self.1.clone())))
    }

    fn label_names(&self, selectors: &[Selector], limit: usize) -> Result<Vec<String>, QueryError> {
        self.0.label_names(selectors, limit)
    }

    fn label_values(
        &self,
        name: &str,
        selectors: &[Selector],
        limit: usize,
    ) -> Result<Vec<String>, QueryError> {
        self.0.label_values(name, selectors, limit)
    }
}

impl SeriesSet for CountingSet {
    fn len(&self) -> usize {
        self.0.len()
    }

    fn labels(&self, index: usize) -> Labels {
        self.0.labels(index)
    }

    fn read(&self, index: usize, range: TimeRange, out: &mut Columns) -> Result<(), QueryError> {
        self.1.read.fetch_add(1, Ordering::Relaxed);
        self.0.read(index, range, out)
    }
}

fn rules(exprs: &[&str]) -> Vec<RuleSpec> {
    let rules = exprs.iter().enumerate();
    let rules: Vec<String> =
        rules.map(|(at, expr)| format!("{{record: 'r{at}', expr: '{expr}'}}")).collect();
    group_spec(&format!("groups: [{{name: g, rules: [{}]}}]", rules.join(", "))).rules
}

/// What each rule finds at `at`, in order, or why it finds nothing.
fn evaluate(rules: &[RuleSpec], store: &dyn Queryable, at: i64) -> Vec<String> {
    let engine = Engine::new(EngineOptions::default());
    let cancel = Cancel::new(Arc::new(stint_model::clock::SimClock::at(Timestamp(at))));
    let answer = |rule: &RuleSpec| {
        let parsed = (rule.query.as_str(), &*rule.expr);
        let answer = engine.instant_parsed(store, parsed, Timestamp(at), &cancel);
        format!("{:?}", answer.map(|answer| answer.value))
    };
    rules.iter().map(answer).collect()
}

fn plan(rules: &[RuleSpec]) -> Arc<Plan> {
    let steps: Vec<Vec<usize>> = (0..rules.len()).map(|at| vec![at]).collect();
    Arc::new(Plan::new(rules, &steps))
}

fn round(plan: &Arc<Plan>, store: &Counting, room: usize, at: i64) -> Round {
    let store: Arc<dyn Queryable> = Arc::new(store.clone());
    Round::new(plan, &store, &Arc::new(Room::new(room)), Timestamp(at))
}

#[test]
fn what_several_rules_select_is_selected_and_decoded_once() {
    let mut store = Counting::default();
    for at in 0..40 {
        for number in 0..5 {
            store.put(&format!("up{{i=\"{number}\"}}"), at * MINUTE / 4, at as f64);
        }
    }
    let rules = rules(&[
        "sum(rate(up[1m]))",
        "max by (i) (up)",
        "count(up)",
        "sum(increase(up[2m]))",
        "sum(up{i=\"1\"})",
    ]);
    let (plan, alone) = (plan(&rules), evaluate(&rules, &store, 9 * MINUTE));
    store.take();
    // How far back the rules look is not known before they were evaluated.
    assert_eq!(evaluate(&rules, &round(&plan, &store, 1 << 20, 9 * MINUTE), 9 * MINUTE), alone);
    store.take();
    let now = round(&plan, &store, 1 << 20, 9 * MINUTE);
    assert_eq!(evaluate(&rules, &now, 9 * MINUTE), alone);
    // Five series of the one selector, and one of the other, which has a querier of its own.
    assert_eq!(store.take(), [2, 2, 6]);
}

#[test]
fn what_is_decoded_is_forgotten_and_its_room_free_when_the_last_rule_has_read_it() {
    let mut store = Counting::default();
    store.put("up", MINUTE, 1.0);
    let rules = rules(&["up + 1", "up + 2", "up + 3", "sum(other)"]);
    let plan = plan(&rules);
    let room = Arc::new(Room::new(1 << 20));
    let shared: Arc<dyn Queryable> = Arc::new(store.clone());
    let round = Round::new(&plan, &shared, &room, Timestamp(MINUTE));
    for (step, rule) in rules.iter().enumerate() {
        evaluate(std::slice::from_ref(rule), &round, MINUTE);
        round.step_done(step);
        assert_eq!(room.left() < 1 << 20, step < 2, "after rule {step}");
    }
    assert_eq!(store.take(), [2, 2, 1]);
}

#[test]
fn without_room_series_are_read_where_they_are() {
    let mut store = Counting::default();
    for number in 0..3 {
        store.put(&format!("up{{i=\"{number}\"}}"), MINUTE, 1.0);
    }
    let rules = rules(&["up + 1", "up + 2"]);
    let (plan, alone) = (plan(&rules), evaluate(&rules, &store, MINUTE));
    // For none of them, for places only, for one series, for all.
    for room in [0, 50, 70, 1 << 20] {
        let round = round(&plan, &store, room, MINUTE);
        assert_eq!(evaluate(&rules, &round, MINUTE), alone, "{room} bytes");
        let left = Arc::clone(&round.0.room);
        drop(round);
        assert_eq!(left.left(), room);
    }
}

#[test]
fn series_that_rules_of_the_group_write_are_read_anew() {
    let written = |exprs: &str| {
        let rules = group_spec(&format!("groups: [{{name: g, rules: [{exprs}]}}]")).rules;
        let plan = plan(&rules);
        let mut shared: Vec<String> = plan.selectors.keys().map(ToString::to_string).collect();
        shared.sort();
        shared.join(" ")
    };
    let record = |expr: &str| format!("{{record: 'a:b', expr: '{expr}'}}");
    for (expr, shared) in [
        ("up + up", "{__name__=\"up\"}"),
        ("a:b + a:b + up", ""),
        ("{__name__=~\"a.*\"} or {__name__=~\"a.*\"}", ""),
        ("{job=\"x\"} or {job=\"x\"}", ""),
        (
            "{__name__!=\"a:b\",job=\"x\"} or {__name__!=\"a:b\",job=\"x\"}",
            "{__name__!=\"a:b\",job=\"x\"}",
        ),
        ("ALERTS + ALERTS", "{__name__=\"ALERTS\"}"),
    ] {
        assert_eq!(written(&record(expr)), shared, "{expr}");
    }
    for expr in ["ALERTS + ALERTS", "ALERTS_FOR_STATE + ALERTS_FOR_STATE"] {
        assert_eq!(written(&format!("{{alert: A, expr: '{expr}'}}")), "", "{expr}");
    }
}

#[test]
fn a_rule_that_reads_something_alone_reads_everything_as_of_one_moment() {
    let mut store = Counting::default();
    store.put("up", MINUTE, 1.0);
    let rules = rules(&["up + 1", "up + 2", "up / other", "up + r0", "vector(1)"]);
    let round = round(&plan(&rules), &store, 1 << 20, MINUTE);
    let served: Vec<bool> = rules.iter().map(|rule| round.serves(&rule.expr)).collect();
    assert_eq!(served, [true, true, false, false, true]);
}

#[test]
fn what_is_pinned_is_let_go_with_the_last_rule_that_shares() {
    let mut store = Counting::default();
    store.put("up", MINUTE, 1.0);
    let rules = rules(&["up + 1", "up + 2", "sum(other)"]);
    let round = round(&plan(&rules), &store, 1 << 20, MINUTE);
    for (step, is_pinned) in [true, false, false].into_iter().enumerate() {
        evaluate(&rules[step..=step], &round, MINUTE);
        round.step_done(step);
        assert_eq!(round.0.state.lock().pinned.is_some(), is_pinned, "after rule {step}");
    }
}

#[test]
fn rules_see_what_those_before_them_wrote_and_share_what_they_did_not() {
    let world = World::new();
    let group = world.group(
        "groups: [{name: g, rules: [{record: a, expr: 'sum(up)'}, {record: b, expr: 'a + on() sum(up)'}, \
         {record: a2, expr: 'a + on() a'}, {record: late, expr: '{__name__=~\"a|b\"} + 1'}]}]",
    );
    for at in 0..3 {
        world.put("up", at * MINUTE, at as f64);
        world.eval(&group, at * MINUTE);
        let shown = |expr: &str| world.ask(expr, at * MINUTE);
        assert_eq!(shown("a"), [format!("{{__name__=\"a\"}} {at}")]);
        assert_eq!(shown("b"), [format!("{{__name__=\"b\"}} {}", 2 * at)]);
        assert_eq!(shown("a2"), [format!("{{__name__=\"a2\"}} {}", 2 * at)]);
    }
}

#[test]
fn what_looks_far_back_or_ahead_is_not_shared() {
    let mut store = Counting::default();
    store.put("up", 0, 1.0);
    store.put("up", MINUTE, 2.0);
    let rules =
        rules(&["sum_over_time(up[11m])", "up offset -1m", "up offset 10m", "up", "up * 2"]);
    let plan = plan(&rules);
    for at in [0, 5 * MINUTE, 10 * MINUTE] {
        let alone = evaluate(&rules, &store, at);
        store.take();
        let now = round(&plan, &store, 1 << 20, at);
        assert_eq!(evaluate(&rules, &now, at), alone);
        assert_eq!(store.take()[0], 4, "three of their own");
    }
}

fn sample() -> impl Strategy<Value = (i64, u8, Option<f64>)> {
    let value =
        prop_oneof![8 => (0.0..9.0).prop_map(Some), 1 => Just(Some(stale_nan())), 1 => Just(None)];
    (0..60_i64, 0..6_u8, value)
}

proptest! {
    /// Rules find the same as when each of them reads for itself, whatever series look like.
    #[test]
    fn sharing_shows_in_no_answer(
        samples in prop::collection::vec(sample(), 0..80),
        chosen in prop::collection::vec(0_usize..10, 2..7),
        room in prop_oneof![Just(0_usize), 0_usize..4000, Just(1 << 20)],
    ) {
        const EXPRS: [&str; 10] = [
            "up", "rate(up[1m])", "increase(up[7m])", "sum by (i) (up)", "up offset 2m",
            "absent(up{i=\"9\"})", "topk(2, up)", "up{i=\"1\"} / on(i) up", "timestamp(up) + 1",
            "max_over_time(up[3m:30s])",
        ];
        let mut store = Counting::default();
        for (at, series, value) in samples {
            let at = at * 15_000;
            if let Some(value) = value {
                store.put(&format!("up{{i=\"{series}\"}}"), at, value);
                continue;
            }
            let labels = Labels::from_pairs([("__name__", "up"), ("i", "h")]);
            let histogram = stint_model::histogram::FloatHistogram::default();
            let value = Value::Histogram(Arc::new(stint_model::Histogram::Float(histogram)));
            store.store.append(&labels, Sample { at: Timestamp(at), started: None, value });
        }
        let rules = rules(&chosen.iter().map(|at| EXPRS[*at]).collect::<Vec<_>>());
        let plan = plan(&rules);
        for at in [5 * MINUTE, 12 * MINUTE, 15 * MINUTE] {
            let now = round(&plan, &store, room, at);
            prop_assert_eq!(evaluate(&rules, &now, at), evaluate(&rules, &store, at));
        }
    }
}
