//! What forwarding costs of the points per minute.

use super::*;

/// 20 targets of 500 series, each scraped every 15 s at an offset of its own.
fn targets() -> Vec<Vec<Labels>> {
    let series = |target: usize, n: usize| {
        // Metrics of their own, since one that is sent already gains slots step by step.
        let metric = format!("m{target}_{}", n / 50);
        let instance = format!("host-{target}:9100");
        Labels::from_pairs([
            ("__name__", metric.as_str()),
            ("n", &n.to_string()),
            ("job", "node"),
            ("instance", &instance),
        ])
    };
    (0..20).map(|target| (0..500).map(|n| series(target, n)).collect()).collect()
}

#[tokio::test(start_paused = true)]
async fn ten_thousand_series_scraped_every_15_s_cost_ten_thousand_points_a_minute() {
    let mut world = World::new(budget(12_000)).settled();
    world.start();
    pass(1).await;
    let targets = targets();
    let start = tokio::time::Instant::now();
    for round in 0..28_u64 {
        for (number, target) in targets.iter().enumerate() {
            let offset = Duration::from_millis(round * 15_000 + number as u64 * 750);
            tokio::time::sleep_until(start + offset).await;
            let at = world.clock.now();
            let sample = Sample::float(at, round as f64);
            let samples: Vec<_> =
                target.iter().map(|labels| (labels.clone(), sample.clone())).collect();
            world.log.lock().append(&samples);
        }
    }
    pass(10).await;
    let stored = world.mimir.stored();
    assert_eq!(stored.len(), 10_000);
    let times = |samples: &Vec<(i64, u64)>| -> Vec<i64> {
        samples.iter().map(|(at, _)| at - WALL.as_ms()).collect()
    };
    // Whatever minute is looked at, once everything has been there.
    for begin in (60..300).step_by(15) {
        let minute = begin * 1000..(begin + 60) * 1000;
        let points = stored
            .values()
            .flatten()
            .filter(|(at, _)| minute.contains(&(at - WALL.as_ms() - 1000)));
        let first = stored.values().map(times).max_by_key(Vec::len);
        assert_eq!(points.count(), 10_000, "from second {begin} on: {first:?}");
    }
    let counters = world.status().counters;
    assert_eq!(counters.read, 28 * 10_000);
    assert_eq!(counters.sent, stored.values().map(|samples| samples.len() as u64).sum::<u64>());
    world.account();
}

#[tokio::test(start_paused = true)]
async fn a_request_is_filled_with_whole_scrapes() {
    let mut world = World::new(Budget::default());
    world.config.queue.batch_send_deadline = Span::from_secs(5);
    world.start();
    pass(1).await;
    let series = gauges("a", 0..505);
    for n in 0..24 {
        let sample = Sample::float(world.clock.now(), f64::from(n));
        let samples: Vec<_> =
            series.iter().map(|labels| (labels.clone(), sample.clone())).collect();
        world.log.lock().append(&samples);
        tokio::time::sleep(Duration::from_millis(250)).await;
    }
    pass(10).await;
    let counters = world.status().counters;
    assert_eq!(counters.sent, 24 * 505);
    // Three scrapes each: with a fourth one there would be 20 samples too many.
    assert!(counters.requests <= 9, "{}", counters.requests);
}

#[tokio::test(start_paused = true)]
async fn what_never_left_costs_no_points_and_what_may_have_left_does() {
    for (mood, costs) in [(Mood::Unreachable, false), (Mood::Mute, true)] {
        let mut world =
            World::new(Budget { points_per_minute: Some(600), ..budget(1000) }).settled();
        world.start();
        pass(1).await;
        for n in 0..4 {
            world.scrape(&gauges("a", 0..10), f64::from(n)).await;
        }
        let before = world.status().counters;
        world.mimir.set_mood(mood);
        let mut most = 0;
        for n in 4..24 {
            world.scrape(&gauges("a", 0..10), f64::from(n)).await;
        }
        assert!(world.mimir.requests().len() > 10, "it is tried again and again");
        world.mimir.set_mood(Mood::Well);
        for n in 24..36 {
            world.scrape(&gauges("a", 0..10), f64::from(n)).await;
            let look = |admission: &crate::budget::admission::Admission| {
                crate::budget::figures::Figures::of(admission, Duration::ZERO, Span::MINUTE)
            };
            let figures = world.running.as_ref().unwrap().handle.with_budget(look);
            most = most.max(figures.points_last_minute);
        }
        let counters = world.status().counters;
        // Ten a minute, and those of five minutes at once when the endpoint is back.
        assert_eq!(most > 60, costs, "{most} points in a minute");
        let attempted = counters.attempted - before.attempted;
        assert_eq!(attempted > counters.sent - before.sent, costs, "{counters:?}");
        let bytes = counters.bytes as f64 / counters.requests as f64;
        assert!(bytes < 2000.0, "{counters:?}");
        world.account();
    }
}
