use stint_model::Selector;

use super::*;
use crate::config::{Aggregate, Fold};

fn without_pod(metric: &str, fold: Fold) -> Aggregate {
    let selectors = vec![Selector::metric(metric)];
    Aggregate { selectors, without: vec!["pod".into(), "instance".into()], fold }
}

fn of_pod(metric: &str, pod: usize, path: usize) -> Labels {
    Labels::from_pairs([
        ("__name__", metric),
        ("pod", &format!("p{pod}")),
        ("instance", &format!("10.0.0.{pod}:80")),
        ("path", &path.to_string()),
        ("job", "api"),
    ])
}

#[tokio::test(start_paused = true)]
async fn pods_that_come_and_go_cost_the_slots_of_one() {
    let aggregates = vec![without_pod("requests_total", Fold::Counter)];
    let mut world = World::new(Budget { aggregates, ..budget(20) }).settled();
    world.mimir.set_limit(20);
    world.start();
    pass(1).await;
    let mut first = 0;
    for n in 0..240 {
        // Every four minutes a new pod takes the place of the oldest.
        if n % 16 == 15 {
            first += 1;
        }
        let at = world.clock.now();
        let pods = first..first + 4;
        let samples: Vec<(Labels, Sample)> = pods
            .flat_map(|pod| (0..10).map(move |path| of_pod("requests_total", pod, path)))
            .map(|labels| (labels, Sample::float(at, f64::from(n * 2))))
            .collect();
        world.log.lock().append(&samples);
        pass(15).await;
    }
    assert_eq!(world.mimir.active_most(), 10);
    let stored = world.mimir.stored();
    assert_eq!(stored.len(), 10);
    for (series, samples) in &stored {
        assert!(!series.contains("pod") && !series.contains("instance"), "{series}");
        assert!((56..=60).contains(&samples.len()), "one sample a minute: {}", samples.len());
        let values: Vec<f64> = samples.iter().map(|(_, bits)| f64::from_bits(*bits)).collect();
        assert!(values.windows(2).all(|pair| pair[0] <= pair[1]));
        // Four pods, each of them two more per scrape; one that joins is first seen.
        let (first, last) = (values[0], values[values.len() - 1]);
        let minutes = (samples.len() - 1) as f64;
        assert!(last - first >= minutes * 32.0 * 0.9 && last - first <= minutes * 32.0, "{last}");
    }
    assert_ordered(&stored);
    let counters = world.status().counters;
    assert_eq!(counters.withheld[&Reason::Aggregated], 240 * 40);
    assert!(counters.made_sent == counters.made && counters.sent == 0, "{counters:?}");
    world.account();
}

#[tokio::test(start_paused = true)]
async fn the_buckets_of_an_aggregated_histogram_fit_together() {
    let aggregates = vec![Aggregate {
        selectors: vec![
            Selector::metric("hist_bucket"),
            Selector::metric("hist_sum"),
            Selector::metric("hist_count"),
        ],
        ..without_pod("", Fold::Counter)
    }];
    let mut world = World::new(Budget { aggregates, ..budget(50) }).settled();
    world.start();
    pass(1).await;
    for n in 0..80i32 {
        // The pods are scraped at other times than each other.
        for pod in 0..3 {
            let at = world.clock.now();
            let samples: Vec<(Labels, Sample)> = histogram(0)
                .iter()
                .enumerate()
                .map(|(place, labels)| {
                    let labels = labels.to_builder().set("pod", &format!("p{pod}")).build();
                    let value = f64::from((n * 7 + pod * 3) % 40 + n * 10) * (place + 1) as f64;
                    (labels, Sample::float(at, value))
                })
                .collect();
            world.log.lock().append(&samples);
            pass(5).await;
        }
    }
    let stored = world.mimir.stored();
    assert_eq!(stored.len(), 5);
    let times: Vec<Vec<i64>> =
        stored.values().map(|all| all.iter().map(|(at, _)| *at).collect()).collect();
    assert!(times.iter().all(|own| *own == times[0] && own.iter().all(|at| at % 60_000 == 0)));
    // The value of each part is its place times that of the first.
    let value = |le: &str| -> Vec<f64> {
        let found = stored.iter().find(|(series, _)| series.contains(&format!("le=\"{le}\"")));
        found.unwrap().1.iter().map(|(_, bits)| f64::from_bits(*bits)).collect()
    };
    let (one, five, all) = (value("1"), value("5"), value("+Inf"));
    for (n, one) in one.iter().enumerate() {
        assert_eq!((five[n], all[n]), (one * 2.0, one * 3.0));
    }
    assert!(one.last().unwrap() > &0.0);
    world.account();
}

#[tokio::test(start_paused = true)]
async fn a_counter_does_not_fall_over_restarts() {
    let aggregates = vec![without_pod("requests_total", Fold::Counter)];
    let mut world = World::new(Budget { aggregates, ..budget(50) }).settled();
    world.start();
    pass(1).await;
    let pods: Vec<Labels> = (0..3).map(|pod| of_pod("requests_total", pod, 0)).collect();
    for n in 0..160 {
        world.scrape(&pods, f64::from(n)).await;
        match n {
            40 | 80 => {
                world.kill().await;
                world.start();
            }
            120 => {
                world.stop().await;
                world.start();
            }
            _ => {}
        }
    }
    let stored = world.mimir.stored();
    let (_, samples) = stored.iter().next().unwrap();
    let values: Vec<f64> = samples.iter().map(|(_, bits)| f64::from_bits(*bits)).collect();
    assert!(values.windows(2).all(|pair| pair[0] <= pair[1]), "{values:?}");
    // What waits for the next boundary when a run ends in order is not read again.
    let (first, last) = (samples[0], samples[samples.len() - 1]);
    let gained = 3.0 * ((last.0 - first.0) / 15_000) as f64;
    let counted = f64::from_bits(last.1) - f64::from_bits(first.1);
    assert!((gained - 30.0..=gained).contains(&counted), "{counted} of {gained}");
    world.account();
}

#[tokio::test(start_paused = true)]
async fn an_aggregate_without_a_slot_is_not_sent_and_a_restart_begins_anew() {
    let aggregates = vec![without_pod("requests_total", Fold::Counter)];
    let mut world = World::new(Budget { aggregates, ..budget(5) }).settled();
    world.start();
    pass(1).await;
    let many: Vec<Labels> = (0..10).map(|path| of_pod("requests_total", 1, path)).collect();
    for n in 0..40 {
        world.scrape(&many, f64::from(n)).await;
    }
    let counters = world.status().counters;
    assert!(world.mimir.stored().is_empty() && counters.made > 0 && counters.made_sent == 0);
    let few: Vec<Labels> = (0..3).map(|path| of_pod("requests_total", 1, path)).collect();
    world.kill().await;
    world.config.budget.aggregates[0].without = vec!["pod".into()];
    world.start();
    for n in 0..40 {
        world.scrape(&few, f64::from(n)).await;
    }
    world.kill().await;
    world.start();
    for n in 0..40 {
        world.scrape(&few, f64::from(n)).await;
    }
    let stored = world.mimir.stored();
    assert_eq!(stored.len(), 3);
    assert!(stored.values().all(|all| all.len() >= 16));
    assert_ordered(&stored);
    world.account();
}
