//! What receivers may expect of alerts, evaluation by evaluation: which states come in which order, what is sent when,
//! and that neither reloads nor restarts change it.

use std::fmt::Write as _;

use stint_model::Timestamp;

use super::*;
use crate::rules::Alert;
use crate::rules::alerting::State;
use crate::rules::testing::{World, group_spec};

/// Distance between evaluations.
const STEP: i64 = 30_000;
const MINUTE: i64 = 60_000;

fn rule(keys: &str) -> String {
    format!("groups: [{{name: g, interval: 30s, rules: [{{alert: A, expr: 'x > 0', {keys}}}]}}]")
}

/// An alert over time: `shown` has a digit for each evaluation, the value of `x`, and a dot where there is none.
struct Story {
    world: World,
    group: Group,
    /// By evaluation.
    sent: Vec<Vec<Alert>>,
    states: String,
}

impl Story {
    fn new(yaml: &str) -> Self {
        let world = World::new();
        let group = world.group(yaml);
        Self { world, group, sent: Vec::new(), states: String::new() }
    }

    fn of(keys: &str, shown: &str) -> Self {
        let mut story = Self::new(&rule(keys));
        shown.chars().for_each(|value| story.step(value));
        story
    }

    fn step(&mut self, value: char) {
        let at = self.sent.len() as i64 * STEP;
        let value = value.to_digit(10).map_or_else(stint_model::stale_nan, f64::from);
        self.world.put("x{i=\"1\"}", at, value);
        self.world.eval(&self.group, at);
        self.sent.push(std::mem::take(&mut *self.world.sent.0.lock()));
        self.states.push(match self.group.rules()[0].with_alerts(Alerts::state) {
            State::Inactive => '-',
            State::Pending => 'p',
            State::Firing => 'f',
        });
        self.series_agree(at);
    }

    /// `ALERTS` and `ALERTS_FOR_STATE` tell what the rule knows, and nothing else.
    fn series_agree(&self, at: i64) {
        let state = self.group.rules()[0].with_alerts(Alerts::state);
        let told = self.world.ask("ALERTS", at);
        if state == State::Inactive {
            assert_eq!(told, Vec::<String>::new());
        } else {
            let label = format!("alertstate=\"{}\"", state.as_str());
            assert!(told.len() == 1 && told[0].contains(&label), "{told:?}");
        }
        let since = self.world.ask("ALERTS_FOR_STATE", at);
        assert_eq!(since.len(), told.len(), "{since:?}");
    }

    /// For each evaluation: `.` for nothing, `!` for an alert that fires, `r` for one that ended.
    fn posts(&self) -> String {
        let mut posts = String::new();
        for (step, alerts) in self.sent.iter().enumerate() {
            let now = Timestamp(step as i64 * STEP);
            match alerts.as_slice() {
                [] => posts.push('.'),
                [one] => posts.push(if one.is_resolved(now) { 'r' } else { '!' }),
                several => drop(write!(posts, "({})", several.len())),
            }
        }
        posts
    }
}

#[test]
fn it_is_pending_then_fires_then_ends() {
    let story = Story::of("for: 90s", "0111111000000");
    assert_eq!(story.states, "-pppfff------");
    // Sent when it fires, again when more than a minute has passed, and at once when it has ended.
    assert_eq!(story.posts(), "....!..r..r..");
    let (fired, ended) = (&story.sent[4][0], &story.sent[7][0]);
    assert_eq!(fired.starts_at, Timestamp(4 * STEP), "when it fired, not when it was first seen");
    assert_eq!(fired.ends_at, Timestamp(4 * STEP + 4 * MINUTE), "four times the longer delay");
    assert_eq!((ended.starts_at, ended.ends_at), (fired.starts_at, Timestamp(7 * STEP)));
    assert_eq!(story.sent[10][0], *ended, "what ended is told again as it was");
}

#[test]
fn what_never_fired_is_never_sent() {
    let story = Story::of("for: 2m", "0111101111000");
    assert_eq!(story.states, "-pppp-pppp---");
    assert_eq!(story.posts(), ".............");
}

#[test]
fn without_a_wait_it_is_never_pending() {
    for keys in ["for: 0s", "annotations: {}"] {
        let story = Story::of(keys, "010110");
        assert_eq!(story.states, "-f-ff-");
        assert_eq!(story.posts(), ".!r!.r");
        let pending = "count_over_time(ALERTS{alertstate=\"pending\"}[10m])";
        assert_eq!(story.world.ask(pending, 5 * STEP), Vec::<String>::new());
    }
}

#[test]
fn a_wait_shorter_than_the_interval_takes_one_evaluation() {
    let story = Story::of("for: 1s", "01110");
    assert_eq!(story.states, "-pff-");
    assert_eq!(story.posts(), "..!.r");
}

#[test]
fn it_is_sent_again_while_it_fires_and_for_a_quarter_of_an_hour_after() {
    let story = Story::of("for: 0s", &format!("{}{}", "1".repeat(10), "0".repeat(40)));
    assert_eq!(&story.posts()[..10], "!..!..!..!");
    // 15 minutes are 30 evaluations; then it is forgotten.
    let after = &story.posts()[10..];
    assert_eq!(after, format!("{}{}", "r..".repeat(10), "r........."));
    let until: Vec<_> = [0, 3, 6].map(|step| story.sent[step][0].ends_at).to_vec();
    assert_eq!(until, [0, 3, 6].map(|step| Timestamp(step * STEP + 4 * MINUTE)), "ever later");
    assert!(story.sent[..10].iter().flatten().all(|alert| alert.starts_at == Timestamp(0)));
}

#[test]
fn one_that_comes_back_is_a_new_one() {
    let story = Story::of("for: 30s", "110110");
    assert_eq!(story.states, "pf-pf-");
    assert_eq!(story.posts(), ".!r.!r");
    assert_eq!(story.sent[4][0].starts_at, Timestamp(4 * STEP));
}

#[test]
fn what_is_kept_fires_with_what_was_last_seen() {
    let keys = "for: 30s, keep_firing_for: 1m, annotations: {v: '{{ $value }}'}";
    let story = Story::of(keys, "1250007300000");
    // Missing for a minute it has ended; back before that it goes on.
    assert_eq!(story.states, "pffff-pfff---");
    let texts = |step: usize| -> Vec<&str> {
        story.sent[step].iter().map(|alert| &*alert.annotations[0].1).collect()
    };
    assert_eq!((texts(1), texts(4), texts(5)), (vec!["2"], vec!["5"], vec!["5"]));
    assert_eq!(story.sent[5][0].ends_at, Timestamp(5 * STEP));
    // Pending is not kept.
    assert_eq!(Story::of(keys, "1000").states, "p---");
}

#[test]
fn annotations_follow_the_value_and_labels_make_another_alert() {
    let story = Story::of("annotations: {v: '{{ $value }}'}", "1239");
    let text = |step: usize| story.sent[step][0].annotations[0].1.clone();
    assert_eq!((text(0), text(3)), ("1".to_owned(), "9".to_owned()));
    // A value in a label ends one alert and begins another.
    let mut story = Story::new(&rule("labels: {v: '{{ $value }}', empty: '', i: ''}"));
    "112".chars().for_each(|value| story.step(value));
    let [one, two] = &story.sent[2][..] else { panic!("{:?}", story.sent[2]) };
    let now = Timestamp(2 * STEP);
    assert_eq!(one.labels.to_string(), "{alertname=\"A\", v=\"1\"}");
    assert!(one.is_resolved(now) && !two.is_resolved(now));
    assert_eq!(two.labels.get("v"), Some("2"));
}

#[test]
fn rules_see_the_alerts_of_those_before_them_at_once() {
    let world = World::new();
    let group = world.group(
        "groups: [{name: g, interval: 30s, rules: [{alert: A, expr: 'x > 0'}, {record: n, expr: 'count(ALERTS{alertname=\"A\", \
         alertstate=\"firing\"})'}, {alert: B, expr: 'n > 0', for: 30s}, {alert: C, expr: 'ALERTS{alertname=\"B\", alertstate=\"firing\"}'}]}]",
    );
    let mut order = Vec::new();
    for step in 0..3 {
        world.put("x", step * STEP, 1.0);
        world.eval(&group, step * STEP);
        let sent = std::mem::take(&mut *world.sent.0.lock());
        order.extend(
            sent.iter().map(|alert| (step, alert.labels.get("alertname").unwrap().to_owned())),
        );
    }
    let expected = [(0, "A"), (1, "B"), (1, "C")];
    assert_eq!(order, expected.map(|(step, name)| (step, name.to_owned())));
}

/// A story whose group is replaced by one that adopts it before the evaluation `reload`.
fn reloaded(keys: &str, shown: &str, reload: usize) -> Story {
    let mut story = Story::new(&rule(keys));
    for (step, value) in shown.chars().enumerate() {
        if step == reload {
            // Another rule beside it changes the group, and not the alert.
            let yaml = rule(keys).replace("]}]", ", {record: r, expr: x}]}]");
            let next = story.world.group(&yaml);
            next.adopt(&story.group);
            story.group = next;
        }
        story.step(value);
    }
    story
}

#[test]
fn a_reload_at_any_moment_changes_nothing() {
    for keys in ["for: 90s", "for: 0s", "for: 60s, keep_firing_for: 90s", "keep_firing_for: 1m"] {
        for shown in ["0111111000000", "1101110100111", "1111000011110"] {
            let plain = Story::of(keys, shown);
            for reload in 0..shown.len() {
                let story = reloaded(keys, shown, reload);
                assert_eq!(story.states, plain.states, "{keys} {shown} {reload}");
                assert_eq!(story.sent, plain.sent, "{keys} {shown} {reload}");
            }
        }
    }
}

/// The states of an alert that waits for 20 minutes and is there all the time, by minutes; down from minute `down` up to
/// minute `up`. It is restored after the second evaluation.
fn over_a_restart(keys: &str, down: i64, up: i64, minutes: i64) -> String {
    let yaml = rule(keys).replace("30s", "1m");
    let mut world = World::new();
    let mut group = world.group(&yaml);
    let mut states = String::new();
    for minute in 0..minutes {
        let at = minute * MINUTE;
        world.put("x", at, 1.0);
        if minute == up {
            world = World::with(world.store.clone(), None);
            group = Group::new(group_spec(&yaml), true, &world.env);
        }
        if (down..up).contains(&minute) {
            states.push('.');
            continue;
        }
        world.eval(&group, at);
        if minute == up + 1 && group.restores() {
            group.restore(Timestamp(at), &world.env);
        }
        states.push(match group.rules()[0].with_alerts(Alerts::state) {
            State::Inactive => '-',
            State::Pending => 'p',
            State::Firing => 'f',
        });
    }
    states
}

#[test]
fn a_restart_at_any_moment_makes_it_neither_early_nor_forgotten() {
    for keys in ["for: 20m", "for: 20m, keep_firing_for: 5m"] {
        for down in 1..40 {
            for outage in [1, 3, 10] {
                let up = down + outage;
                let states = over_a_restart(keys, down, up, 90);
                let fires = states.find('f').unwrap_or(usize::MAX) as i64;
                let again = states[up as usize..].find('f').unwrap() as i64 + up;
                let told = format!("{keys}: {down} to {up}: {states}");
                assert!(fires >= 20, "too early: {told}");
                if down > 20 {
                    assert_eq!(again, up + 2, "it fired before: {told}");
                } else {
                    // What was waited counts, the outage does not, and ten minutes are left to everybody.
                    let left = 20 - (down - 1);
                    let earliest = up + 1 + left.clamp(10, 20) - 1;
                    assert!((earliest..=up + 21).contains(&again), "{earliest}: {told}");
                }
                assert!(!states[again as usize..].contains('p'), "it stays: {told}");
            }
        }
    }
}
