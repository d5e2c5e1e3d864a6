//! Where there is less room than series: a full account, and a budget that was lowered.

use super::*;

#[tokio::test(start_paused = true)]
async fn a_full_account_stops_new_series_and_blocks_nothing() {
    let mut world = World::new(budget(100)).settled();
    world.mimir.set_limit(60);
    world.start();
    pass(1).await;
    for n in 0..16 {
        world.scrape(&gauges("first", 0..50), f64::from(n)).await;
    }
    for n in 0..16 {
        let mut series = gauges("first", 0..50);
        series.extend(gauges("late", 0..30));
        world.scrape(&series, f64::from(n)).await;
    }
    let counters = world.status().counters;
    assert_eq!(counters.refused["max-active-series"], 20, "each is tried once: {counters:?}");
    assert_eq!(counters.markers, 0, "nothing ends that was never shown");
    assert!(counters.withheld[&Reason::ServerFull] > 0);
    let stored = world.mimir.stored();
    let first = stored.iter().filter(|(series, _)| series.contains("first"));
    assert!(first.clone().count() == 50 && first.clone().all(|(_, s)| s.len() >= 8));
    assert_eq!(counters.pending, 0);
    world.account();
}

#[tokio::test(start_paused = true)]
async fn a_full_account_after_a_restart_costs_only_what_is_new() {
    let mut world = World::new(budget(1000)).settled();
    world.mimir.set_limit(300);
    world.start();
    pass(1).await;
    for n in 0..8 {
        world.scrape(&gauges("first", 0..300), f64::from(n)).await;
    }
    world.kill().await;
    world.start();
    for n in 0..80 {
        let mut series = gauges("first", 0..300);
        series.extend(gauges("late", 0..5));
        world.scrape(&series, f64::from(n)).await;
    }
    let stored = world.mimir.stored();
    let first = stored.iter().filter(|(series, _)| series.contains("first"));
    assert!(first.clone().count() == 300 && first.clone().all(|(_, s)| s.len() >= 20));
    let counters = world.status().counters;
    assert_eq!(counters.refused["max-active-series"], 5, "{counters:?}");
    world.account();
}

#[tokio::test(start_paused = true)]
async fn many_new_series_at_a_full_account_after_a_restart_end_none_that_it_knows() {
    let mut world = World::new(budget(5000)).settled();
    world.mimir.set_limit(3000);
    world.start();
    pass(1).await;
    for n in 0..8 {
        world.scrape(&gauges("first", 0..3000), f64::from(n)).await;
    }
    world.kill().await;
    world.start();
    let before = world.mimir.stored();
    let late = |n: usize| n.is_multiple_of(20).then(|| gauge("late", n));
    let all: Vec<Labels> =
        (0..3000).flat_map(|n| [Some(gauge("first", n)), late(n)]).flatten().collect();
    for n in 0..80 {
        world.scrape(&all, f64::from(n)).await;
    }
    let stored = world.mimir.stored();
    let least = before.iter().map(|(series, all)| stored[series].len() - all.len()).min();
    assert!(least >= Some(18), "a sample per minute, for 20 minutes: {least:?}");
    let counters = world.status().counters;
    assert_eq!(counters.refused["max-active-series"], 150, "{counters:?}");
    world.account();
}

#[tokio::test(start_paused = true)]
async fn what_a_full_account_did_not_take_before_a_restart_is_found_after_it() {
    let mut world = World::new(budget(1000)).settled();
    world.mimir.set_limit(300);
    world.start();
    pass(1).await;
    let mut all = gauges("first", 0..300);
    world.scrape(&all, 0.0).await;
    pass(60).await;
    all.extend(gauges("late", 0..5));
    world.scrape(&all, 1.0).await;
    world.kill().await;
    // It ended before it could write that down.
    let evicted = directory(&world.config.name).join("ledger.evicted");
    stint_storage::Disk::remove(&world.disk, &evicted).unwrap();
    world.start();
    for n in 0..80 {
        world.scrape(&all, f64::from(n)).await;
    }
    let stored = world.mimir.stored();
    assert!(stored.len() == 300 && stored.values().all(|samples| samples.len() >= 20));
    let refused = world.status().counters.refused["max-active-series"];
    assert_eq!(refused, 5, "each once more");
    world.account();
}

#[tokio::test(start_paused = true)]
async fn what_a_full_account_did_not_take_is_not_asked_again_by_the_next_run() {
    let mut world = World::new(budget(1000)).settled();
    world.mimir.set_limit(300);
    world.start();
    pass(1).await;
    let mut all = gauges("first", 0..300);
    world.scrape(&all, 0.0).await;
    pass(60).await;
    all.extend(gauges("late", 0..5));
    world.scrape(&all, 1.0).await;
    world.kill().await;
    world.start();
    for n in 0..80 {
        world.scrape(&all, f64::from(n)).await;
    }
    assert!(world.status().counters.refused.is_empty());
    assert!(world.mimir.stored().values().all(|samples| samples.len() >= 20));
    world.account();
}

#[tokio::test(start_paused = true)]
async fn a_metric_that_found_room_in_part_goes_on_in_part() {
    let mut world = World::new(budget(100)).settled();
    world.start();
    pass(1).await;
    for n in 0..8 {
        world.scrape(&gauges("a", 0..60 + n * 10), n as f64).await;
    }
    world.kill().await;
    world.start();
    let before = world.mimir.stored();
    for n in 0..16 {
        world.scrape(&gauges("a", 0..130), f64::from(n)).await;
    }
    let grown = world.mimir.stored().iter().filter(|(s, all)| all.len() > before[*s].len()).count();
    assert!(grown >= 90, "{grown} series are still sent");
    world.account();
}

#[tokio::test(start_paused = true)]
async fn a_lowered_budget_is_kept_from_the_start_on() {
    let mut world = World::new(budget(300)).settled();
    let all: Vec<Labels> =
        ["a", "b", "c", "d", "e"].iter().flat_map(|name| gauges(name, 0..60)).collect();
    world.start();
    pass(1).await;
    world.scrape(&all, 1.0).await;
    pass(60).await;
    world.stop().await;
    world.config.budget = budget(100);
    world.start();
    for n in 0..120 {
        world.scrape(&all, f64::from(n)).await;
    }
    let before = world.mimir.stored();
    pass(60).await;
    world.scrape(&all, 1.0).await;
    pass(60).await;
    let grown = world.mimir.stored().iter().filter(|(s, all)| all.len() > before[*s].len()).count();
    assert_eq!(grown, 60, "one metric fits, and whole");
    world.account();
}
