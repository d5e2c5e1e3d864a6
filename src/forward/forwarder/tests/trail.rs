//! What was chosen before a crash is chosen after it.

use super::*;

/// Distinct times that are stored of each series, in order.
fn times(world: &World) -> Vec<Vec<i64>> {
    let times = |samples: Vec<(i64, u64)>| {
        let all: std::collections::BTreeSet<i64> = samples.into_iter().map(|(at, _)| at).collect();
        all.into_iter().collect()
    };
    world.mimir.stored().into_values().map(times).collect()
}

#[tokio::test(start_paused = true)]
async fn restarts_in_a_row_send_no_more_than_one_run_does() {
    let mut world = World::new(budget(100)).settled();
    world.start();
    pass(1).await;
    for n in 0..160u32 {
        if n % 3 == 2 {
            world.kill().await;
            world.start();
        }
        world.scrape(&gauges("a", 0..10), f64::from(n)).await;
    }
    pass(20).await;
    let times = times(&world);
    assert_eq!(times.len(), 10);
    for own in times {
        assert!((39..=42).contains(&own.len()), "{} in 40 minutes", own.len());
        let gaps: Vec<i64> = own.windows(2).map(|pair| (pair[1] - pair[0] + 500) / 1000).collect();
        // The first one leads into the rhythm.
        assert!(gaps.iter().skip(1).all(|gap| *gap == 60), "{gaps:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn what_was_delivered_without_an_answer_is_sent_again_as_it_was() {
    let mut world = World::new(budget(100)).settled();
    world.start();
    pass(1).await;
    for n in 0..60u32 {
        match n {
            9 => world.mimir.set_mood(Mood::Mute),
            14 | 19 | 26 => {
                world.kill().await;
                world.start();
            }
            30 => world.mimir.set_mood(Mood::Well),
            _ => {}
        }
        let mut series = gauges("a", 0..10);
        if n > 7 {
            series.extend(gauges("late", 0..10));
        }
        world.scrape(&series, f64::from(n)).await;
    }
    pass(60).await;
    assert_ordered(&world.mimir.stored());
    for own in times(&world) {
        let gaps: Vec<i64> = own.windows(2).map(|pair| (pair[1] - pair[0] + 500) / 1000).collect();
        assert!(gaps.iter().all(|gap| (15..=75).contains(gap)), "{gaps:?}");
        assert!(gaps.iter().filter(|gap| **gap < 45).count() <= 1, "as it came: {gaps:?}");
    }
    world.account();
}

#[tokio::test(start_paused = true)]
async fn a_series_that_ends_after_a_restart_ends_at_the_endpoint_too() {
    let mut world = World::new(budget(10)).settled();
    world.start();
    pass(1).await;
    world.scrape(&gauges("a", 0..10), 1.0).await;
    world.kill().await;
    world.start();
    let at = world.clock.now();
    let ends = gauges("a", 0..10).into_iter().map(|labels| (labels, Sample::stale(at)));
    world.log.lock().append(&ends.collect::<Vec<_>>());
    pass(20).await;
    let stored = world.mimir.stored();
    let ended = |samples: &Vec<(i64, u64)>| samples.last().unwrap().1 == STALE_NAN_BITS;
    assert!(stored.len() == 10 && stored.values().all(ended));
}

#[tokio::test(start_paused = true)]
async fn where_everything_is_sent_nothing_is_written_down() {
    let mut world = World::new(Budget::default());
    world.start();
    pass(1).await;
    world.scrape(&gauges("a", 0..10), 1.0).await;
    let path = directory(&world.config.name).join("trail");
    assert!(stint_storage::Disk::size(&world.disk, &path).unwrap_err().is_not_found());
}
