use stint_model::{Span, stale_nan};

use super::*;
use crate::rules::env::Slots;
use crate::rules::testing::{World, group_spec};

const MINUTE: i64 = 60_000;

const RECORD: &str = "groups: [{name: g, rules: [{record: 'job:up', expr: 'sum by (job) (up)', labels: {team: a}}]}]";

#[test]
fn what_is_recorded_gets_its_name_and_labels_and_ends_when_it_vanishes() {
    let world = World::new();
    let group = world.group(RECORD);
    world.put("up{job=\"x\"}", 0, 1.0);
    world.put("up{job=\"y\"}", 0, 2.0);
    world.eval(&group, 0);
    let both = [
        "{__name__=\"job:up\", job=\"x\", team=\"a\"} 1",
        "{__name__=\"job:up\", job=\"y\", team=\"a\"} 2",
    ];
    let shown = |at| world.ask("{__name__=\"job:up\"}", at);
    assert_eq!(shown(0).len(), both.len());
    assert!(shown(0)[0].ends_with(" 1") && shown(0)[1].ends_with(" 2"), "{:?}", shown(0));
    world.put("up{job=\"y\"}", MINUTE, stale_nan());
    world.eval(&group, MINUTE);
    assert_eq!(shown(MINUTE).len(), 1, "{:?}", shown(MINUTE));
    // Both were stored in one batch each time.
    assert_eq!(world.store.batches(), 2);
    // It may come back.
    world.put("up{job=\"y\"}", 2 * MINUTE, 5.0);
    world.eval(&group, 2 * MINUTE);
    assert!(shown(2 * MINUTE)[1].ends_with(" 5"));
}

#[test]
fn later_rules_see_what_earlier_ones_recorded() {
    let world = World::new();
    let group = world.group(
        "groups: [{name: g, rules: [{record: a, expr: 'vector(2)'}, {record: b, expr: 'a * 3'}, \
         {record: c, expr: '7'}]}]",
    );
    world.eval(&group, 0);
    assert_eq!(world.ask("b", 0), ["b 6"].map(|_| world.ask("b", 0)[0].clone()));
    assert!(world.ask("b", 0)[0].ends_with(" 6"));
    assert!(world.ask("c", 0)[0].ends_with(" 7"), "a scalar is a series without labels");
}

#[test]
fn an_offset_moves_question_and_answer() {
    let world = World::new();
    let group = world.group(
        "groups: [{name: g, query_offset: 1m, rules: [{record: r, expr: 'timestamp(up)'}]}]",
    );
    world.put("up", 0, 1.0);
    world.put("up", MINUTE, 1.0);
    world.eval(&group, MINUTE);
    assert!(world.ask("r", 0)[0].ends_with(" 0"));
    assert!(world.ask("timestamp(r)", MINUTE)[0].ends_with(" 0"));
}

#[test]
fn a_failure_is_told_and_keeps_what_was_written() {
    let world = World::new();
    let group = world.group(
        "groups: [{name: g, limit: 1, rules: [{record: r, expr: up, labels: {job: ''}}, {record: s, expr: 'vector(1)'}]}]",
    );
    let error = |rule: usize| group.rules()[rule].status().error.unwrap_or_default();
    world.put("up{job=\"x\"}", 0, 1.0);
    world.eval(&group, 0);
    assert_eq!(error(0), "");
    // Without the label they are the same.
    world.put("up{job=\"y\"}", MINUTE, 1.0);
    world.eval(&group, MINUTE);
    assert_eq!(
        error(0),
        "vector contains metrics with the same labelset after applying rule labels"
    );
    world.put("up{job=\"y\", i=\"1\"}", MINUTE, stale_nan());
    assert_eq!(world.ask("r", MINUTE).len(), 1, "not ended");
    world.put("up{job=\"y\"}", 2 * MINUTE, stale_nan());
    world.put("up{job=\"x\", i=\"1\"}", 2 * MINUTE, 1.0);
    world.eval(&group, 2 * MINUTE);
    assert_eq!(error(0), "exceeded limit of 1 with 2 series");
    assert_eq!(error(1), "", "the others go on");
    let text = world.metrics.render();
    for line in [
        "prometheus_rule_evaluations_total{rule_group=\"r.yml;g\"} 6\n",
        "prometheus_rule_evaluation_failures_total{rule_group=\"r.yml;g\"} 2\n",
        "prometheus_rule_group_iterations_total{rule_group=\"r.yml;g\"} 3\n",
        "prometheus_rule_group_iterations_missed_total{rule_group=\"r.yml;g\"} 0\n",
        "prometheus_rule_group_rules{rule_group=\"r.yml;g\"} 2\n",
        "prometheus_rule_group_interval_seconds{rule_group=\"r.yml;g\"} 60\n",
        "prometheus_rule_group_last_evaluation_samples{rule_group=\"r.yml;g\"} 1\n",
        "prometheus_rule_group_last_evaluation_timestamp_seconds{rule_group=\"r.yml;g\"} 120\n",
        "prometheus_rule_evaluation_duration_seconds_count 6\n",
        "prometheus_rule_group_duration_seconds_count 3\n",
    ] {
        assert!(text.contains(line), "{line} in {text}");
    }
}

#[test]
fn what_cannot_be_stored_is_told_and_ends_later() {
    let world = World::new();
    let group = world.group(RECORD);
    world.put("up{job=\"x\"}", 0, 1.0);
    world.eval(&group, 0);
    world.store.set_failing(true);
    world.put("up{job=\"x\"}", MINUTE, stale_nan());
    world.eval(&group, MINUTE);
    assert_eq!(group.rules()[0].status().error.as_deref(), Some("no disk"));
    world.store.set_failing(false);
    world.eval(&group, 2 * MINUTE);
    assert_eq!(world.ask("{__name__=\"job:up\"}", 2 * MINUTE), Vec::<String>::new());
    assert_eq!(group.rules()[0].status().error, None);
}

#[test]
fn samples_that_are_refused_are_told() {
    let world = World::new();
    let group = world.group(RECORD);
    world.put("up{job=\"x\"}", 0, 1.0);
    world.eval(&group, MINUTE);
    world.eval(&group, 0);
    assert_eq!(group.rules()[0].status().error.as_deref(), Some("out of order sample"));
}

#[test]
fn handles_that_the_store_forgot_are_replaced() {
    let world = World::new();
    let group = world.group(RECORD);
    world.put("up{job=\"x\"}", 0, 1.0);
    world.eval(&group, 0);
    world.store.forget_handles();
    world.put("up{job=\"x\"}", MINUTE, 4.0);
    world.eval(&group, MINUTE);
    assert_eq!(group.rules()[0].status().error, None);
    assert!(world.ask("{__name__=\"job:up\"}", MINUTE)[0].ends_with(" 4"));
}

const ALERT: &str = "groups: [{name: g, rules: [{alert: Down, expr: 'up == 0', for: 2m, keep_firing_for: 1m, \
     labels: {severity: page, what: 'job {{ $labels.job }}'}, annotations: {text: '{{ $labels.job }} is down'}}]}]";

#[test]
fn an_alert_is_told_in_series_and_sent() {
    let world = World::new();
    let group = world.group(ALERT);
    world.put("up{job=\"x\"}", 0, 0.0);
    let state = |at| {
        let found = world.ask("count by (alertstate) (ALERTS)", at);
        found
            .iter()
            .map(|text| text.split('"').nth(1).unwrap_or_default().to_owned())
            .collect::<Vec<_>>()
    };
    for (minute, told) in [(0, "pending"), (1, "pending"), (2, "firing")] {
        world.eval(&group, minute * MINUTE);
        assert_eq!(state(minute * MINUTE), [told], "only one state at a time");
        assert!(world.ask("ALERTS_FOR_STATE", minute * MINUTE)[0].ends_with(" 0"));
    }
    let sent = std::mem::take(&mut *world.sent.0.lock());
    assert_eq!(sent.len(), 1);
    assert_eq!(
        sent[0].labels.to_string(),
        "{alertname=\"Down\", job=\"x\", severity=\"page\", what=\"job x\"}"
    );
    assert_eq!(*sent[0].annotations, [("text".to_owned(), "x is down".to_owned())]);
    assert_eq!(sent[0].starts_at, Timestamp(2 * MINUTE));
    assert_eq!(sent[0].ends_at, Timestamp(6 * MINUTE));
    assert_eq!(&*sent[0].generator_url, "http://localhost:9090/graph?g0.expr=up+%3D%3D+0&g0.tab=1");
    world.put("up{job=\"x\"}", 3 * MINUTE, 1.0);
    world.eval(&group, 3 * MINUTE);
    assert_eq!(state(3 * MINUTE), ["firing"], "kept");
    world.eval(&group, 4 * MINUTE);
    assert_eq!(state(4 * MINUTE), Vec::<String>::new());
    let sent = std::mem::take(&mut *world.sent.0.lock());
    assert_eq!(sent.last().map(|alert| alert.ends_at), Some(Timestamp(4 * MINUTE)));
}

#[test]
fn equal_alerts_are_an_error() {
    let world = World::new();
    let group =
        world.group("groups: [{name: g, rules: [{alert: A, expr: up, labels: {job: same}}]}]");
    world.put("up{job=\"x\"}", 0, 1.0);
    world.put("up{job=\"y\"}", 0, 1.0);
    world.eval(&group, 0);
    assert_eq!(
        group.rules()[0].status().error.as_deref(),
        Some("vector contains metrics with the same labelset after applying alert labels")
    );
}

#[test]
fn a_changed_group_goes_on_with_what_is_known() {
    let world = World::new();
    let group = world.group(ALERT);
    world.put("up{job=\"x\"}", 0, 0.0);
    world.eval(&group, 0);
    // The alert waits longer, and there is a second rule.
    let more =
        ALERT.replace("for: 2m", "for: 3m").replace("rules: [", "rules: [{record: r, expr: up}, ");
    let changed = world.group(&more);
    changed.adopt(&group);
    let state =
        |group: &Group, rule: usize| group.rules()[rule].with_alerts(Alerts::state).as_str();
    assert_eq!(state(&changed, 1), "pending");
    world.eval(&changed, 2 * MINUTE);
    assert_eq!(state(&changed, 1), "pending");
    world.eval(&changed, 3 * MINUTE);
    assert_eq!(state(&changed, 1), "firing", "since the first time that it was seen");
    // Without the rule its series end with the next evaluation.
    let without = world.group("groups: [{name: g, rules: [{record: r, expr: up}]}]");
    without.adopt(&changed);
    assert_eq!(world.ask("ALERTS", 3 * MINUTE).len(), 1);
    world.eval(&without, 4 * MINUTE);
    assert_eq!(world.ask("ALERTS", 4 * MINUTE), Vec::<String>::new());
    assert_eq!(world.ask("r", 4 * MINUTE).len(), 1);
}

#[test]
fn a_removed_group_ends_its_series() {
    let world = World::new();
    let group = world.group(RECORD);
    world.put("up{job=\"x\"}", 0, 1.0);
    world.eval(&group, 0);
    group.end(Timestamp(MINUTE), &world.env);
    assert_eq!(world.ask("{__name__=\"job:up\"}", MINUTE - 1).len(), 1);
    assert_eq!(world.ask("{__name__=\"job:up\"}", MINUTE), Vec::<String>::new());
}

#[test]
fn a_series_that_moved_to_another_group_goes_on() {
    let world = World::new();
    let group = world.group(RECORD);
    let other = world.group(&RECORD.replace("name: g", "name: h"));
    world.put("up{job=\"x\"}", 0, 1.0);
    world.eval(&group, 0);
    world.eval(&other, 2 * MINUTE);
    // The group was removed at one minute, and its series are ended when the other one runs.
    group.end(Timestamp(MINUTE), &world.env);
    assert_eq!(world.ask("{__name__=\"job:up\"}", 2 * MINUTE).len(), 1);
}

/// The states in each minute of an alert that waits for 20 minutes and is there all the time, when
/// the server is down from minute `down` up to minute `up`; `.` while it is down.
fn over_a_restart(down: i64, up: i64, ends_before: bool) -> String {
    let yaml = ALERT.replace("for: 2m, keep_firing_for: 1m", "for: 20m");
    let world = World::new();
    world.put("up{job=\"x\"}", 0, 0.0);
    let mut states = String::new();
    let mut group = world.group(&yaml);
    let mut evaluations = 0;
    let mut env = Arc::clone(&world.env);
    for minute in 0..60 {
        let at = minute * MINUTE;
        world.put("up{job=\"x\"}", at, if ends_before && minute == down - 1 { 1.0 } else { 0.0 });
        if minute == down {
            let after = World::with(world.store.clone(), None);
            group = Group::new(group_spec(&yaml), true, &after.env);
            (env, evaluations) = (after.env, 0);
        }
        if (down..up).contains(&minute) {
            states.push('.');
            continue;
        }
        group.eval(Timestamp(at), 0, &env);
        evaluations += 1;
        if evaluations == 2 && group.restores() {
            group.restore(Timestamp(at), &env);
        }
        states.push(match group.rules()[0].with_alerts(Alerts::state) {
            crate::rules::alerting::State::Inactive => 'i',
            crate::rules::alerting::State::Pending => 'p',
            crate::rules::alerting::State::Firing => 'f',
        });
    }
    states
}

fn firing_from(states: &str) -> usize {
    states.rfind(['p', 'i', '.']).map_or(0, |at| at + 1)
}

#[test]
fn restarts_at_every_phase_of_an_alert() {
    // Without a restart.
    assert_eq!(firing_from(&over_a_restart(70, 70, false)), 20);
    // 5 minutes waited (last seen in minute 4), down for 5, restored in minute 11: the outage does not
    // count, so it fires 16 minutes later.
    assert_eq!(firing_from(&over_a_restart(5, 10, false)), 27);
    // 15 minutes waited: what is left is less than the grace period of 10, counted from minute 21.
    assert_eq!(firing_from(&over_a_restart(15, 20, false)), 31);
    // It fired: it goes on at the evaluation after restoring.
    assert_eq!(firing_from(&over_a_restart(25, 30, false)), 32);
    // It had ended: it begins anew.
    assert_eq!(firing_from(&over_a_restart(15, 20, true)), 40);
}

#[test]
fn nothing_is_written_about_alerts_before_they_are_restored() {
    let world = World::new();
    let group = Group::new(group_spec(ALERT), true, &world.env);
    world.put("up{job=\"x\"}", 0, 0.0);
    world.eval(&group, 0);
    world.eval(&group, MINUTE);
    assert_eq!(world.ask("ALERTS", MINUTE), Vec::<String>::new());
    group.restore(Timestamp(MINUTE), &world.env);
    assert!(!group.restores());
    world.eval(&group, 2 * MINUTE);
    assert_eq!(world.ask("ALERTS{alertstate=\"firing\"}", 2 * MINUTE).len(), 1);
}

#[test]
fn rules_may_run_at_the_same_time() {
    let world = World::with(crate::rules::testing::Store::default(), Some(Slots::new(3)));
    let rules: Vec<String> =
        (0..8).map(|at| format!("{{record: a{at}, expr: 'vector({at})'}}")).collect();
    let group = world.group(&format!(
        "groups: [{{name: g, rules: [{}, {{record: b, expr: 'a3 + a4'}}, {{record: c, expr: 'b + 1'}}]}}]",
        rules.join(", ")
    ));
    assert_eq!(group.steps, [(0..8).collect::<Vec<_>>(), vec![8], vec![9]]);
    world.eval(&group, 0);
    assert!(world.ask("c", 0)[0].ends_with(" 8"));
    // Where it cannot be told what a rule reads, they keep their order.
    let group = world.group(
        "groups: [{name: g, rules: [{record: a, expr: '{x=\"y\"}'}, {record: b, expr: up}]}]",
    );
    assert_eq!(group.steps, [[0], [1]]);
}

#[test]
fn native_histograms_are_recorded() {
    use stint_model::histogram::FloatHistogram;
    let world = World::new();
    let group = world.group("groups: [{name: g, rules: [{record: r, expr: h}]}]");
    let histogram =
        FloatHistogram { count: 3.0, zero_count: 3.0, sum: 0.0, ..FloatHistogram::default() };
    world.store.append_histogram("h", Timestamp(0), histogram);
    world.eval(&group, 0);
    assert!(world.ask("r", 0)[0].ends_with("histogram of 3"), "{:?}", world.ask("r", 0));
    assert_eq!(Span::ZERO, group.spec.query_offset);
}
