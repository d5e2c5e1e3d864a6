//! What is sent of what lies between two samples.

use stint_model::Selector;

use super::*;
use crate::config::{Fold, GaugeRule};

fn series(name: &str) -> Labels {
    Labels::from_pairs([("__name__", name), ("job", "j"), ("instance", "i:1")])
}

/// Forwards one value of each series every 15 seconds; what arrived of them.
async fn arrived(budget: Budget, values: &[(&str, &[f64])]) -> (Vec<Vec<f64>>, Status) {
    let mut world = World::new(budget).settled();
    world.start();
    pass(1).await;
    for n in 0..values[0].1.len() {
        let at = world.clock.now();
        let one = |(name, values): &(&str, &[f64])| (series(name), Sample::float(at, values[n]));
        let samples: Vec<(Labels, Sample)> = values.iter().map(one).collect();
        world.log.lock().append(&samples);
        pass(15).await;
    }
    pass(10).await;
    let stored = world.mimir.stored();
    assert_ordered(&stored);
    world.account();
    let of = |(name, _): &(&str, &[f64])| {
        let mine = stored.iter().find(|(series, _)| series.contains(*name));
        mine.unwrap().1.iter().map(|(_, bits)| f64::from_bits(*bits)).collect()
    };
    (values.iter().map(of).collect(), world.status())
}

#[tokio::test(start_paused = true)]
async fn with_a_guard_a_reset_between_two_samples_loses_nothing() {
    let counted: &[f64] = &[10.0, 20.0, 30.0, 35.0, 4.0, 5.0, 11.0, 12.0, 13.0];
    let values = [("jobs_total", counted), ("temp", counted)];
    let (plain, _) = arrived(budget(100), &values).await;
    assert_eq!(plain, [[10.0, 30.0, 11.0], [10.0, 30.0, 11.0]]);
    let (guarded, status) = arrived(Budget { reset_guard: true, ..budget(100) }, &values).await;
    assert_eq!(guarded, [&[10.0, 30.0, 35.0, 11.0][..], &[10.0, 30.0, 11.0]]);
    assert_eq!((status.counters.made, status.counters.made_sent), (1, 1));
}

#[tokio::test(start_paused = true)]
async fn of_a_gauge_the_largest_since_the_last_one_is_sent() {
    let rule = GaugeRule { selectors: vec![Selector::metric("temp")], fold: Fold::Max };
    let values: &[f64] = &[1.0, 9.0, 2.0, 3.0, 4.0, 5.0, 1.0, 2.0];
    let with = Budget { gauges: vec![rule], ..budget(100) };
    let (sent, status) = arrived(with, &[("temp", values), ("other", values)]).await;
    assert_eq!(sent, [[1.0, 9.0, 5.0], [1.0, 2.0, 1.0]]);
    assert_eq!(status.counters.made, 0);
}
