//! What a policy makes of the series: quotas, histograms, targets; and that it holds over restarts.

use stint_model::clock::SystemClock;
use stint_model::{Clock as _, Selector};

use super::*;
use crate::budget::feedback::Said;
use crate::budget::ranking::Ranking;
use crate::config::{Budget, Class, HistogramRule, Level, Quota};
use crate::usage::expression::uses;
use crate::usage::{Catalogue, Known, Source};

fn policy(budget: &Budget) -> Policy {
    Policy::of(budget)
}

fn rule(name: &str, level: Level, at_least: Level) -> Policy {
    let selectors = vec![Selector::metric(name)];
    let rule =
        HistogramRule { selectors, level, at_least, bounds: Vec::new(), resolution: Some(3) };
    policy(&Budget { histograms: vec![rule], ..Budget::default() })
}

const BOUNDS: [&str; 12] =
    ["0.005", "0.01", "0.025", "0.05", "0.1", "0.25", "0.5", "1", "2.5", "5", "10", "+Inf"];

/// Names and bounds of what may be sent of `series`.
fn sent(bench: &mut Bench, series: &[Labels]) -> Vec<String> {
    let places = bench.want(series);
    let keys: Vec<Key> = places.iter().map(|(_, key)| *key).collect();
    let is_sent = |at: &(GroupIndex, Key)| bench.admission.check(at.0, at.1).is_ok();
    let sent: Vec<bool> = places.iter().map(is_sent).collect();
    let sent_keys: Vec<Key> =
        keys.iter().zip(&sent).filter(|(_, sent)| **sent).map(|(key, _)| *key).collect();
    bench.admission.hand_over(&sent_keys, 1, bench.now);
    bench.admission.accepted(&sent_keys, bench.now);
    let show = |labels: &Labels| labels.get("le").or(labels.metric_name()).unwrap().to_owned();
    series.iter().zip(sent).filter(|(_, sent)| *sent).map(|(labels, _)| show(labels)).collect()
}

#[test]
fn a_thinned_histogram_keeps_every_second_bucket_and_the_last() {
    let mut bench = Bench::of(100, 0, rule("h", Level::Thin, Level::Thin));
    let expected = ["0.01", "0.05", "0.25", "1", "5", "+Inf", "h_sum", "h_count"];
    assert_eq!(sent(&mut bench, &histogram("h", &BOUNDS)), expected);
    assert_eq!(bench.admission.live(), 8, "fourteen become eight");
    let (index, key) = bench.want(&histogram("h", &BOUNDS))[0];
    assert_eq!(bench.admission.check(index, key), Err(Reason::Buckets));
    // Another instance with the same buckets keeps the same ones, in whatever order they come.
    let other: Vec<Labels> = histogram("h", &BOUNDS)
        .iter()
        .rev()
        .map(|labels| labels.to_builder().set("instance", "b").build())
        .collect();
    let mut kept = sent(&mut bench, &other);
    kept.reverse();
    assert_eq!(kept, expected);
    bench.pass(15);
    assert_eq!(sent(&mut bench, &histogram("other", &BOUNDS)).len(), 14, "no rule for that one");
}

#[test]
fn a_thinned_histogram_keeps_the_bounds_that_are_named() {
    let mut bench = Bench::of(100, 0, {
        let selectors = vec![Selector::metric("h_bucket")];
        let (level, at_least) = (Level::Thin, Level::Thin);
        let bounds = vec![0.1, 1.0];
        let rule = HistogramRule { selectors, level, at_least, bounds, resolution: None };
        policy(&Budget { histograms: vec![rule], ..Budget::default() })
    });
    // As Prometheus 3 writes them, too.
    let series = histogram("h", &["0.05", "0.1", "1.0", "+Inf"]);
    assert_eq!(sent(&mut bench, &series), ["0.1", "1.0", "+Inf", "h_sum", "h_count"]);
}

#[test]
fn of_a_histogram_the_totals_or_nothing_may_be_sent() {
    let mut bench = Bench::of(100, 0, rule("h", Level::Totals, Level::Totals));
    assert_eq!(sent(&mut bench, &histogram("h", &BOUNDS)), ["h_sum", "h_count"]);
    let mut bench = Bench::of(100, 0, rule("h", Level::Nothing, Level::Nothing));
    assert!(sent(&mut bench, &histogram("h", &BOUNDS)).is_empty());
    assert_eq!(bench.admission.live(), 0);
    assert_eq!(sent(&mut bench, &[gauge("h_count_of_something", 1)]).len(), 1);
}

#[test]
fn a_histogram_without_room_becomes_smaller_everywhere_and_larger_when_there_is_room() {
    let mut bench = Bench::of(100, 0, rule("h", Level::Full, Level::Totals));
    let of_instance = |instance: &str| -> Vec<Labels> {
        let series = histogram("h", &BOUNDS);
        series.iter().map(|l| l.to_builder().set("instance", instance).build()).collect()
    };
    let filler = gauges("a", 70);
    assert_eq!(bench.send(&filler), 70);
    assert_eq!(bench.send(&of_instance("1")), 14);
    assert_eq!(bench.send(&of_instance("2")), 14);
    // The third finds no room: all become smaller, the ended buckets still count.
    assert_eq!(bench.send(&of_instance("3")), 2);
    assert_eq!(bench.send(&of_instance("1")), 2);
    assert_eq!(bench.admission.live(), 100);
    for _ in 0..23 {
        bench.pass(60);
        bench.send(&filler);
        for instance in ["1", "2", "3"] {
            assert_eq!(bench.send(&of_instance(instance)), 2);
        }
    }
    assert_eq!(bench.admission.live(), 76);
    for _ in 0..60 {
        bench.pass(60);
        for instance in ["1", "2", "3"] {
            bench.send(&of_instance(instance));
        }
    }
    assert_eq!(bench.send(&of_instance("1")), 14, "the filler is gone");
    assert_eq!(bench.admission.live(), 42);
}

fn report(bench: &Bench) -> crate::budget::report::EndpointReport {
    let about = crate::budget::report::About {
        name: "a".into(),
        url: String::new(),
        interval: Span::MINUTE,
        sends_metadata: true,
        samples: crate::budget::report::Samples::default(),
        identities: None,
    };
    crate::budget::report::Look::at(&bench.admission, bench.now, Span::MINUTE).finish(
        about,
        &crate::budget::report::Overview::default(),
        Timestamp(0),
    )
}

fn in_env(name: &str, env: &str, count: u64) -> Vec<Labels> {
    gauges(name, count).iter().map(|l| l.to_builder().set("env", env).build()).collect()
}

#[test]
fn a_quota_per_label_holds_each_value_alone_and_over_a_restart() {
    let quota = Quota {
        name: "env".into(),
        selectors: Vec::new(),
        per: Some("env".into()),
        series: Some(10),
        guaranteed: 0,
    };
    let own = policy(&Budget { quotas: vec![quota], ..Budget::default() });
    let mut bench = Bench::of(100, 0, own.clone());
    let mut all = in_env("a", "prod", 8);
    all.extend(in_env("a", "dev", 11));
    all.extend(in_env("b", "prod", 2));
    all.extend(in_env("c", "prod", 1));
    assert_eq!(bench.send(&all), 10, "dev has too many, and so has prod with its last");
    let (index, key) = bench.want(&all)[18];
    assert_eq!(bench.admission.check(index, key), Err(Reason::Quota));
    let rows: Vec<_> = report(&bench)
        .quotas
        .into_iter()
        .map(|row| (row.value.unwrap(), row.slots, row.max, row.withheld))
        .collect();
    let expected = [("prod", 10, 1), ("dev", 0, 11)];
    assert_eq!(rows, expected.map(|(env, slots, kept)| (env.to_owned(), slots, Some(10), kept)));
    let disk = bench.disk.after_crash(Crash::KILL);
    bench.admission = open_with(&disk, limits(100, 0), own, true, bench.now);
    assert_eq!(bench.send(&all), 10);
}

#[test]
fn a_quota_counts_labels_as_long_as_any_series_is_sent_under_them() {
    let quota = Quota {
        name: "a".into(),
        selectors: vec![Selector::metric("a")],
        per: None,
        series: Some(4),
        guaranteed: 0,
    };
    let own = policy(&Budget { quotas: vec![quota], ..Budget::default() });
    let mut bench = Bench::of(100, 0, own);
    let all = gauges("a", 8);
    let of_one = bench.want(&all[..4]);
    assert_eq!(bench.send(&all[..4]), 4);
    for (index, key) in of_one {
        bench.admission.forget(index, key);
    }
    assert_eq!(bench.send(&all[4..]), 0, "the four are still sent");
}

#[test]
fn what_is_guaranteed_is_there_when_it_comes_late() {
    let quota = Quota {
        name: "checkout".into(),
        selectors: vec![Selector::metric("z")],
        per: None,
        series: None,
        guaranteed: 5,
    };
    let own = policy(&Budget { quotas: vec![quota], ..Budget::default() });
    let mut bench = Bench::of(20, 0, own);
    assert_eq!(bench.send(&gauges("a", 16)), 0);
    assert_eq!(bench.send(&gauges("b", 15)), 15);
    assert_eq!(bench.send(&gauges("z", 5)), 5);
}

fn of_target(name: &str, target: u64) -> Labels {
    Labels::from_pairs([("__name__", name), ("instance", &target.to_string()), ("job", "j")])
}

#[test]
fn of_a_class_with_few_targets_the_same_ones_are_sent_whatever_comes_first() {
    let class = Class {
        name: "replicas".into(),
        selectors: vec![Selector::metric("m"), Selector::metric("n")],
        send: true,
        series: None,
        interval: None,
        targets: Some(2),
    };
    let own = || policy(&Budget { classes: vec![class.clone()], ..Budget::default() });
    let series = |targets: &[u64]| -> Vec<Labels> {
        targets.iter().flat_map(|t| [of_target("m", *t), of_target("n", *t)]).collect()
    };
    let chosen = |bench: &mut Bench, targets: &[u64]| {
        let all = series(targets);
        let places = bench.want(&all);
        let is_sent = |at: &(GroupIndex, Key)| bench.admission.check(at.0, at.1).is_ok();
        let sent: Vec<bool> = places.iter().map(is_sent).collect();
        assert!(sent.chunks(2).all(|pair| pair[0] == pair[1]), "a target is sent whole");
        let mut chosen: Vec<u64> =
            targets.iter().zip(sent.chunks(2)).filter(|(_, s)| s[0]).map(|(t, _)| *t).collect();
        chosen.sort_unstable();
        chosen
    };
    let mut bench = Bench::of(100, 0, own());
    let first = chosen(&mut bench, &[1, 2, 3, 4, 5]);
    assert_eq!(first.len(), 2);
    let mut other = Bench::of(100, 0, own());
    for target in [5, 4, 3, 2, 1] {
        chosen(&mut other, &[target]);
    }
    assert_eq!(chosen(&mut other, &[5, 4, 3, 2, 1]), first);
    assert_eq!(bench.send(&gauges("x", 5)), 5, "other classes are not asked");
    // One of them goes: another one takes its place.
    let left: Vec<u64> = (1..6).filter(|target| *target != first[0]).collect();
    for _ in 0..6 {
        bench.pass(60);
        chosen(&mut bench, &left);
    }
    let second = chosen(&mut bench, &left);
    assert!(second.len() == 2 && second.contains(&first[1]), "{second:?}");
}

#[test]
fn what_was_taken_out_stays_out_over_a_restart() {
    let mut bench = Bench::new(10, 0);
    for _ in 0..23 {
        bench.send(&gauges("a", 5));
        bench.send(&gauges("b", 5));
        bench.pass(60);
    }
    assert_eq!(bench.send(&gauges("up", 3)), 0);
    assert_eq!(bench.send(&gauges("b", 5)), 0);
    bench.admission = open(&bench.disk.after_crash(Crash::KILL), limits(10, 0), true, bench.now);
    assert_eq!(bench.send(&gauges("b", 5)), 0, "it was evicted a moment ago");
    assert_eq!(bench.send(&gauges("a", 5)), 5);
    for _ in 0..23 {
        bench.pass(60);
        bench.send(&gauges("a", 5));
        bench.want(&gauges("b", 5));
    }
    assert_eq!(bench.send(&gauges("up", 3)), 3);
}

#[test]
fn room_is_made_for_what_fits_even_if_not_for_all() {
    let mut bench = Bench::new(10, 0);
    for _ in 0..23 {
        assert_eq!(bench.send(&gauges("a", 10)), 10);
        bench.pass(60);
    }
    let mut vital = gauges("scrape_samples", 11);
    vital.extend(gauges("up", 3));
    bench.send(&vital);
    for _ in 0..23 {
        bench.pass(60);
        bench.want(&gauges("a", 10));
        bench.want(&vital);
    }
    assert_eq!(bench.send(&vital), 3, "eleven never fit, three do");
}

#[test]
fn after_a_first_start_the_order_decides_and_not_who_comes_first() {
    let ramp = Limits { missing_ledger: MissingLedger::Ramp, ..limits(20, 2) };
    let mut bench = Bench::new(1, 0);
    bench.disk = SimDisk::new();
    bench.admission = open(&bench.disk, ramp, false, bench.now);
    assert_eq!(bench.send(&gauges("z", 8)), 0);
    assert_eq!(bench.send(&gauges("up", 1)), 1, "what is vital has its reserve");
    let (index, key) = bench.want(&gauges("z", 8))[0];
    assert_eq!(bench.admission.check(index, key), Err(Reason::FirstStart));
    bench.pass(30);
    assert_eq!(bench.send(&gauges("b", 6)), 0);
    bench.pass(30);
    let mut all = gauges("z", 8);
    all.extend(gauges("b", 6));
    assert_eq!(bench.send(&all), 6);
    assert_eq!(bench.send(&gauges("b", 6)), 6);
}

#[test]
fn what_is_new_between_two_looks_joins_its_metric() {
    let mut bench = Bench::new(10, 0);
    assert_eq!(bench.send(&gauges("m", 11)), 0, "it does not fit");
    // One more series of it does not begin to be sent alone.
    assert_eq!(bench.send(&[gauge("m", 99)]), 0);
    assert_eq!(bench.send(&gauges("n", 4)), 4, "what is smaller may");
}

/// `cargo test --release -- --ignored --nocapture planning_over`
#[test]
#[ignore = "a measurement"]
fn planning_over_many_withheld_series() {
    let clock = SystemClock::new();
    let mut bench = Bench::new(10_000, 500);
    for metric in 0..200 {
        bench.send(&gauges(&format!("m{metric}"), 50));
    }
    let many: Vec<Labels> = (0..40).flat_map(|n| gauges(&format!("n{n}"), 5000)).collect();
    let begun = clock.monotonic();
    bench.want(&many);
    println!("first: {:?} for {}", clock.monotonic().saturating_sub(begun), many.len());
    for look in ["quiet", "all"] {
        bench.pass(if look == "all" { 31 } else { 1 });
        bench.admission.advance(bench.now, WALL);
        let begun = clock.monotonic();
        bench.admission.plan(bench.now, WALL);
        println!("{look}: {:?}", clock.monotonic().saturating_sub(begun));
    }
}

fn ranking(rules: &[&str], queries: &[&str]) -> Arc<Ranking> {
    let known = |source, expr: &str| Known {
        last: (source == Source::Query).then_some(WALL),
        ..Known::new(source, "x".into(), expr, uses(expr))
    };
    let rules = rules.iter().map(|expr| known(Source::Rule, expr));
    let all = rules.chain(queries.iter().map(|expr| known(Source::Query, expr))).collect();
    Arc::new(Ranking::new(Catalogue::new(all, None), WALL))
}

#[test]
fn where_nothing_is_configured_what_is_used_comes_first() {
    let mut bench = Bench::of(10, 0, policy(&Budget::default()));
    bench.admission.rank(ranking(&["d > 1"], &["rate(c[5m])"]));
    let all = |count: u64| ["a", "b", "c", "d"].map(|name| gauges(name, count)).concat();
    assert_eq!(bench.send(&all(4)), 8);
    let sent: Vec<&str> = {
        let mut names: Vec<&str> = bench.admission.families().into_iter().collect();
        names.sort_unstable();
        names
    };
    assert_eq!(sent, ["c", "d"]);
    let classes = bench.admission.policy().classes().iter().map(|class| class.name.as_str());
    assert_eq!(classes.collect::<Vec<_>>(), [VITAL, "rules", "used", "rest"]);
}

#[test]
fn a_metric_that_a_new_rule_reads_takes_slots_from_what_nobody_reads() {
    let mut bench = Bench::of(10, 0, policy(&Budget::default()));
    bench.admission.rank(ranking(&[], &["a", "b"]));
    let all = ["a", "b", "c"].map(|name| gauges(name, 4)).concat();
    assert_eq!(bench.send(&all), 8);
    let used = |bench: &Bench| bench.admission.ledger.live_by_class().to_vec();
    assert_eq!(used(&bench), [0, 0, 8]);
    bench.admission.rank(ranking(&["c"], &["a"]));
    assert_eq!(used(&bench), [0, 0, 4, 4], "b is one of the rest now");
    for _ in 0..100 {
        bench.pass(30);
        bench.send(&all);
    }
    assert_eq!(used(&bench), [0, 4, 4, 0]);
}

#[test]
fn two_endpoints_of_an_account_share_by_need_and_give_back_what_the_other_needs() {
    let pool = Arc::<crate::budget::pool::Pool>::default();
    let open = |name: &str| {
        let disk = SimDisk::new();
        let now = Duration::from_secs(1000);
        let admission = Admission::open(Opening {
            limits: Some(limits(100, 0)),
            policy: Policy::default(),
            disk: Arc::new(disk.clone()),
            path: Path::new(PATH),
            ran_before: false,
            seat: Seat::new(Arc::clone(&pool), name, false),
            ranking: None,
            now,
        });
        Bench { disk, admission, now }
    };
    let (mut a, mut b) = (open("a"), open("b"));
    let metrics = |names: [&str; 9]| names.map(|name| gauges(name, 10)).concat();
    let of_a = metrics(["a1", "a2", "a3", "a4", "a5", "a6", "a7", "a8", "a9"]);
    let of_b = metrics(["b1", "b2", "b3", "b4", "b5", "b6", "b7", "b8", "b9"]);
    assert_eq!(a.send(&of_a), 90, "nobody else needs them");
    assert_eq!(b.send(&of_b[..10]), 10);
    let mut most = 0;
    for _ in 0..200 {
        a.pass(30);
        b.pass(30);
        a.send(&of_a);
        b.send(&of_b);
        most = most.max(a.admission.live() + b.admission.live());
    }
    assert!(most <= 100, "{most}");
    assert_eq!((a.admission.live(), b.admission.live()), (50, 50));
}

#[test]
fn what_the_account_says_ends_what_does_not_fit_least_important_first() {
    let mut bench = Bench::of(100, 0, policy(&Budget::default()));
    bench.admission.rank(ranking(&["a"], &["b"]));
    let all = ["a", "b", "c"].map(|name| gauges(name, 30)).concat();
    assert_eq!(bench.send(&all), 90);
    let said = |active| Said { active: Some(active), ..Said::default() };
    bench.admission.hear(said(90), bench.now, WALL);
    bench.pass(30);
    assert_eq!(bench.send(&all), 90, "all of it is ours");
    bench.admission.hear(said(110), bench.now, WALL);
    assert_eq!(bench.admission.limits().unwrap().target, 80);
    bench.pass(30);
    assert_eq!(bench.send(&all), 60);
    assert_eq!(bench.admission.families(), HashSet::from(["a", "b"]));
    bench.pass(23 * 60);
    assert_eq!(bench.send(&all), 60);
    assert_eq!(bench.admission.live(), 60, "their slots are free when they are forgotten");
}

#[test]
fn what_is_asked_for_most_for_its_series_comes_first_among_what_is_used() {
    let mut bench = Bench::of(10, 0, policy(&Budget::default()));
    let asked = |expr: &str, count| Known {
        last: Some(WALL),
        count,
        ..Known::new(Source::Query, "x".into(), expr, uses(expr))
    };
    let all = vec![asked("a", 3), asked("z", 16), asked("m", 17)];
    bench.admission.rank(Arc::new(Ranking::new(Catalogue::new(all, None), WALL)));
    let mut series = gauges("a", 8);
    series.extend(gauges("m", 5));
    series.extend(gauges("z", 5));
    assert_eq!(bench.send(&series), 10);
    let sent = bench.admission.families();
    assert_eq!(sent, HashSet::from(["m", "z"]), "a query more makes no difference between them");
    // Where classes are configured, names tell.
    let mut bench = Bench::of(10, 0, Policy::default());
    assert_eq!(bench.send(&series), 8);
    assert_eq!(bench.admission.families(), HashSet::from(["a"]));
}
