use proptest::prelude::*;
use stint_model::Selector;

use super::*;

#[test]
fn what_nothing_belongs_to_any_more_is_forgotten_and_its_number_used_again() {
    let mut all = aggregator(Fold::Sum);
    let of = |path: &str| Labels::from_pairs([("__name__", "m"), ("pod", "p"), ("path", path)]);
    let (a, _) = all.join(&of("/a")).unwrap();
    let (b, _) = all.join(&of("/b")).unwrap();
    let ahead = Sample::float(Timestamp(Span::DAY.0), 1.0);
    all.due(Timestamp(0));
    assert!(all.feed(Key::of(&of("/b")), &ahead) && all.later.is_empty());
    all.forget_output(a);
    all.forget_output(a);
    assert_eq!(all.inputs.len(), 1);
    let (again, is_new) = all.join(&of("/a")).unwrap();
    assert!(is_new && again == a && again != b);
    assert_eq!((all.outputs.len(), all.vacant.len()), (2, 0));
    assert_eq!(all.labels(again).get("path"), Some("/a"));
}

fn aggregator(fold: Fold) -> Aggregator {
    let selectors = vec![Selector::metric("m")];
    let rule = Aggregate { selectors, without: vec!["pod".into()], fold };
    Aggregator::new(vec![rule], Span::MINUTE)
}

fn pod(name: &str) -> Labels {
    Labels::from_pairs([("__name__", "m"), ("pod", name), ("path", "/")])
}

/// Feeds `scrapes` (second, pod, value) in order; returns what is made, by second.
fn run(fold: Fold, scrapes: &[(i64, &str, f64)]) -> Vec<(i64, f64)> {
    let mut all = aggregator(fold);
    let mut made = Vec::new();
    for (second, name, value) in scrapes {
        let labels = pod(name);
        if !all.inputs.contains_key(&Key::of(&labels)) {
            all.join(&labels).unwrap();
        }
        let sample = Sample::float(Timestamp(second * 1000), *value);
        made.extend(all.due(sample.at));
        assert!(all.feed(Key::of(&labels), &sample));
    }
    let last = scrapes.last().unwrap().0 * 1000;
    made.extend(all.due(Timestamp(last + 65_000)));
    made.iter()
        .map(|(_, sample)| match sample.value {
            Value::Float(value) => (sample.at.as_ms() / 1000, value),
            _ => (sample.at.as_ms() / 1000, f64::NEG_INFINITY),
        })
        .collect()
}

fn every_15(
    seconds: i64,
    values: impl Fn(i64) -> Vec<(&'static str, f64)>,
) -> Vec<(i64, &'static str, f64)> {
    let at = |second| values(second).into_iter().map(move |(pod, value)| (second, pod, value));
    (0..=seconds).step_by(15).flat_map(at).collect()
}

#[test]
fn a_counter_sums_up_increases_over_resets_ends_and_beginnings() {
    let made = run(
        Fold::Counter,
        &every_15(600, |s| {
            let mut all = vec![("a", 100.0 + s as f64)];
            // One that ends in the middle, and one that begins anew.
            if s < 300 {
                all.push(("b", 5.0 * s as f64));
            }
            all.push(("c", (s % 200) as f64));
            all
        }),
    );
    assert!(made.windows(2).all(|pair| pair[0].1 <= pair[1].1), "it never falls: {made:?}");
    assert_eq!(made[0], (120, 120.0 + 600.0 + 120.0));
    // c: 195, then 10 (not seen between), 190 of the next run, and so on.
    let (at, last) = *made.last().unwrap();
    let of_c: i64 = (15..=at)
        .step_by(15)
        .map(|s| {
            let (now, before) = (s % 200, (s - 15) % 200);
            if now >= before { now - before } else { now }
        })
        .sum();
    assert_eq!(last, at as f64 + 5.0 * 285.0 + of_c as f64);
}

#[test]
fn gauges_are_made_of_what_is_there() {
    let scrapes = every_15(600, |s| match s {
        0..=299 => vec![("a", 1.0), ("b", 5.0)],
        _ => vec![("a", 2.0)],
    });
    let at = |made: &[(i64, f64)], second| made.iter().find(|it| it.0 == second).map(|it| it.1);
    for (fold, early, late) in
        [(Fold::Sum, 6.0, 2.0), (Fold::Avg, 3.0, 2.0), (Fold::Min, 1.0, 2.0), (Fold::Max, 5.0, 2.0)]
    {
        let made = run(fold, &scrapes);
        assert_eq!((at(&made, 240), at(&made, 360)), (Some(early), Some(late)), "{fold:?}");
    }
}

#[test]
fn what_ends_leaves_at_once_and_the_last_one_ends_the_aggregate() {
    let mut all = aggregator(Fold::Sum);
    for name in ["a", "b"] {
        all.join(&pod(name)).unwrap();
    }
    let mut made = Vec::new();
    for second in (0..600).step_by(15) {
        let at = Timestamp(second * 1000);
        made.extend(all.due(at));
        for (name, ends) in [("a", 225), ("b", 300)] {
            let sample = match second - ends {
                0 => Sample::stale(at),
                1.. => continue,
                _ => Sample::float(at, 1.0),
            };
            all.feed(Key::of(&pod(name)), &sample);
        }
    }
    let values: Vec<Option<f64>> = made
        .iter()
        .map(|(_, sample)| match sample.value {
            Value::Float(value) => Some(value),
            _ => None,
        })
        .collect();
    assert_eq!(values, [Some(2.0), Some(2.0), Some(1.0), None]);
    assert_eq!(made[0].1.at, Timestamp(120_000));
}

#[test]
fn a_counter_that_starts_later_counts_from_its_start() {
    let mut all = aggregator(Fold::Counter);
    all.join(&pod("a")).unwrap();
    all.join(&pod("b")).unwrap();
    let at = |second: i64| Timestamp(second * 1000);
    all.due(at(0));
    all.feed(Key::of(&pod("a")), &Sample::float(at(0), 7.0));
    let started = Sample { started: Some(at(20)), ..Sample::float(at(30), 3.0) };
    all.feed(Key::of(&pod("b")), &started);
    all.feed(Key::of(&pod("a")), &Sample::float(at(60), 9.0));
    let made = all.due(at(125));
    assert_eq!(made[0].1.value, Value::Float(5.0));
}

#[test]
fn a_counter_goes_on_from_what_was_sent_before_a_restart() {
    let mut all = aggregator(Fold::Counter);
    let (output, _) = all.join(&pod("a")).unwrap();
    all.join(&pod("b")).unwrap();
    all.resume(output, Timestamp(120_000), 500.0);
    all.due(Timestamp(90_000));
    // Read again from before the last boundary: what is later than it counts.
    for (second, a) in [(90, 7.0), (105, 8.0), (135, 10.0), (165, 11.0)] {
        assert!(all.feed(Key::of(&pod("a")), &Sample::float(Timestamp(second * 1000), a)));
    }
    // Not seen before it: nobody knows since when it has counted.
    assert!(all.feed(Key::of(&pod("b")), &Sample::float(Timestamp(150_000), 30.0)));
    let made = all.due(Timestamp(185_000));
    assert_eq!(made[0].1, Sample::float(Timestamp(180_000), 503.0));
    let mut least = aggregator(Fold::Min);
    let (output, _) = least.join(&pod("a")).unwrap();
    least.resume(output, Timestamp(0), 9.0);
    least.due(Timestamp(0));
    least.feed(Key::of(&pod("a")), &Sample::float(Timestamp(110_000), 4.0));
    assert_eq!(least.due(Timestamp(125_000))[0].1.value, Value::Float(4.0));
}

#[test]
fn quantiles_have_bounds_and_neither_sum_nor_mean() {
    let quantile = pod("a").to_builder().set("quantile", "0.9").build();
    for fold in [Fold::Counter, Fold::Sum, Fold::Avg] {
        let mut all = aggregator(fold);
        assert!(all.join(&quantile).is_none() && all.join(&pod("a")).is_some());
    }
    assert!(aggregator(Fold::Max).join(&quantile).is_some());
    // A later rule may know what to do with them.
    let rule = |fold| Aggregate { fold, ..aggregator(fold).rules[0].clone() };
    let mut both = Aggregator::new(vec![rule(Fold::Counter), rule(Fold::Max)], Span::MINUTE);
    let (sum, bound) = (both.join(&pod("a")).unwrap().0, both.join(&quantile).unwrap().0);
    assert_ne!(sum, bound);
}

#[test]
fn a_sample_from_behind_the_boundary_waits_for_the_next_one() {
    let scrapes =
        [(0, "a", 1.0), (60, "a", 1.0), (119, "a", 1.0), (121, "a", 9.0), (181, "a", 9.0)];
    assert_eq!(run(Fold::Sum, &scrapes), [(120, 1.0), (180, 9.0)]);
}

#[test]
fn native_histograms_are_summed_up_and_resets_recognised() {
    let histogram = |count: f64| {
        let zero_count = count;
        let all = FloatHistogram { count, zero_count, sum: count, ..FloatHistogram::default() };
        Value::Histogram(Arc::new(Histogram::Float(all)))
    };
    let mut all = aggregator(Fold::Counter);
    all.join(&pod("a")).unwrap();
    all.join(&pod("b")).unwrap();
    all.due(Timestamp(0));
    for (second, a, b) in [(0, 4.0, 10.0), (60, 6.0, 15.0), (110, 1.0, 20.0)] {
        for (name, value) in [("a", a), ("b", b)] {
            let at = Timestamp(second * 1000);
            let sample = Sample { at, started: None, value: histogram(value) };
            assert!(all.feed(Key::of(&pod(name)), &sample));
        }
    }
    let made = all.due(Timestamp(125_000));
    let Value::Histogram(sum) = &made[0].1.value else { panic!("{made:?}") };
    assert_eq!(sum.to_float().count, 2.0 + 5.0 + 1.0 + 5.0);
    let mut least = aggregator(Fold::Min);
    least.join(&pod("a")).unwrap();
    let sample = Sample { at: Timestamp(1), started: None, value: histogram(1.0) };
    assert!(!least.feed(Key::of(&pod("a")), &sample), "there is no least histogram");
}

proptest! {
    #[test]
    fn a_counter_never_falls_and_loses_no_increase(
        steps in proptest::collection::vec((0u8..4, 0u32..50, prop::bool::weighted(0.1)), 8..200),
    ) {
        let mut now = [0.0f64; 4];
        let mut known = [false; 4];
        let names = ["a", "b", "c", "d"];
        let (mut scrapes, mut sum, mut at) = (Vec::new(), 0.0, 0);
        for (pod, by, resets) in steps {
            let pod = usize::from(pod);
            at += 15;
            let before = now[pod];
            now[pod] = if resets { f64::from(by) } else { before + f64::from(by) };
            if known[pod] {
                sum += if now[pod] >= before { now[pod] - before } else { now[pod] };
            }
            known[pod] = true;
            scrapes.push((at, names[pod], now[pod]));
        }
        // The last state stays until it is shown.
        for _ in 0..10 {
            at += 15;
            scrapes.push((at, "a", now[0]));
            if !known[0] { known[0] = true; }
        }
        let made = run(Fold::Counter, &scrapes);
        let values: Vec<f64> = made.iter().map(|it| it.1).filter(|it| it.is_finite()).collect();
        prop_assert!(values.windows(2).all(|pair| pair[0] <= pair[1]));
        prop_assert_eq!(values.last().copied(), Some(sum));
    }
}
