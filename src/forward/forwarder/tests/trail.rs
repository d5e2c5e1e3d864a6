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

/// Noted under its old labels, and not delivered, when the labels change.
async fn renamed(crash: bool, rename: impl FnOnce(&mut World)) -> World {
    let mut world = World::new(budget(100)).settled();
    world.start();
    pass(1).await;
    for n in 0..9u32 {
        world.scrape(&gauges("a", 0..10), f64::from(n)).await;
    }
    world.mimir.set_mood(Mood::Unreachable);
    for n in 9..21u32 {
        world.scrape(&gauges("a", 0..10), f64::from(n)).await;
    }
    if crash {
        world.kill().await;
    } else {
        world.stop().await;
    }
    rename(&mut world);
    world.mimir.set_mood(Mood::Well);
    world.start();
    for n in 21..29u32 {
        world.scrape(&gauges("a", 0..10), f64::from(n)).await;
    }
    pass(60).await;
    world
}

/// One sample a minute of each series from the outage on, under its new labels.
fn assert_goes_on(world: &World, is_new: impl Fn(&str) -> bool) {
    let stored = world.mimir.stored();
    let new: Vec<_> = stored.iter().filter(|(series, _)| is_new(series)).collect();
    assert!(!new.is_empty(), "{:?}", stored.keys());
    for (series, samples) in new {
        let times: std::collections::BTreeSet<i64> =
            samples.iter().map(|(at, _)| (at - WALL.as_ms()) / 1000).collect();
        let times: Vec<i64> = times.into_iter().collect();
        // An aggregate begins with the first interval of which all is there.
        assert!(times[0] <= 220, "{series} begins with the outage: {times:?}");
        let gaps = times.windows(2).map(|pair| pair[1] - pair[0]);
        assert!(gaps.clone().all(|gap| (15..=75).contains(&gap)), "{series}: {times:?}");
    }
    let counters = world.status().counters;
    assert_eq!(counters.pending, 0);
    world.account();
}

#[tokio::test(start_paused = true)]
async fn what_was_noted_and_not_delivered_is_sent_under_labels_that_have_changed() {
    for crash in [true, false] {
        let label = |world: &mut World| {
            world.config.labels = Labels::from_pairs([("env", "new")]);
        };
        assert_goes_on(&renamed(crash, label).await, |series| series.contains("env=\"new\""));
        let aggregate = |world: &mut World| {
            let selectors = vec![stint_model::Selector::metric("a")];
            let without = vec!["n".to_owned()];
            let fold = crate::config::Fold::Max;
            let rule = crate::config::Aggregate { selectors, without, fold };
            world.config.budget.aggregates = vec![rule];
        };
        assert_goes_on(&renamed(crash, aggregate).await, |series| !series.contains("n="));
        let identity = |world: &mut World| {
            let (selectors, info) = (vec![stint_model::Selector::metric("a")], None);
            let (replace, per) = (vec!["instance".to_owned()], vec!["job".to_owned()]);
            let rule = crate::config::IdentityRule { selectors, replace, per, info };
            world.config.budget.identities = vec![rule];
        };
        let is_numbered = |series: &str| !series.contains("instance=\"i:1\"");
        assert_goes_on(&renamed(crash, identity).await, is_numbered);
    }
}

#[tokio::test(start_paused = true)]
async fn under_the_same_labels_what_was_chosen_stands() {
    let world = renamed(true, |_| ()).await;
    assert_goes_on(&world, |_| true);
    for own in times(&world) {
        let gaps: Vec<i64> = own.windows(2).map(|pair| (pair[1] - pair[0] + 500) / 1000).collect();
        assert!(gaps.iter().skip(1).all(|gap| *gap == 60), "{gaps:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn an_end_that_was_on_its_way_at_a_crash_is_told_after_it() {
    let mut world = World::new(budget(100)).settled();
    world.start();
    pass(1).await;
    for n in 0..5u32 {
        world.scrape(&gauges("a", 0..10), f64::from(n)).await;
    }
    // From now on half of the series have to go, and nobody can be told.
    world.mimir.set_mood(Mood::Unreachable);
    let limits = crate::budget::feedback::Said { enforced: Some(5), ..Default::default() };
    world.running.as_ref().unwrap().handle.hear(limits);
    world.scrape(&gauges("a", 0..10), 5.0).await;
    pass(5).await;
    world.kill().await;
    world.mimir.set_mood(Mood::Well);
    world.start();
    pass(20).await;
    let ended = |samples: &&Vec<(i64, u64)>| samples.last().unwrap().1 == STALE_NAN_BITS;
    let stored = world.mimir.stored();
    assert_eq!(stored.values().filter(ended).count(), 10, "{stored:?}");
    let markers = stored.values().flatten().filter(|(_, bits)| *bits == STALE_NAN_BITS);
    assert_eq!(markers.count(), 10, "once each");
    world.account();
}

#[tokio::test(start_paused = true)]
async fn an_end_is_told_however_long_a_run_could_not_tell_it() {
    let mut world = World::new(budget(100)).settled();
    world.start();
    pass(1).await;
    for n in 0..5u32 {
        world.scrape(&gauges("a", 0..10), f64::from(n)).await;
    }
    world.mimir.set_mood(Mood::Unreachable);
    let limits = crate::budget::feedback::Said { enforced: Some(5), ..Default::default() };
    world.running.as_ref().unwrap().handle.hear(limits);
    world.scrape(&gauges("a", 0..10), 5.0).await;
    pass(5).await;
    world.kill().await;
    // A run in between wrote that the series were not sent, and could not tell their ends either.
    let path = directory(&world.config.name).join("ledger");
    let disk: Arc<dyn stint_storage::Disk> = Arc::new(world.disk.clone());
    let hold = crate::budget::limits::HOLD;
    let (mut ledger, _) = crate::budget::ledger::Ledger::open(disk, &path, hold, Duration::ZERO);
    ledger.checkpoint(Duration::from_secs(150)).unwrap();
    world.mimir.set_mood(Mood::Well);
    world.start();
    pass(20).await;
    let stored = world.mimir.stored();
    let ended = |samples: &&Vec<(i64, u64)>| samples.last().unwrap().1 == STALE_NAN_BITS;
    assert_eq!(stored.values().filter(ended).count(), 10, "{stored:?}");
    world.account();
}

#[tokio::test(start_paused = true)]
async fn a_clock_that_is_ahead_for_a_moment_makes_nothing_forgotten() {
    let mut world = World::new(budget(100)).settled();
    world.start();
    pass(1).await;
    for n in 0..4u32 {
        world.scrape(&gauges("a", 0..10), f64::from(n)).await;
    }
    world.stop().await;
    world.start();
    pass(2).await;
    world.clock.step(Span(3 * Span::HOUR.as_ms()));
    pass(3).await;
    world.clock.step(Span(-3 * Span::HOUR.as_ms()));
    for n in 4..20u32 {
        world.scrape(&gauges("a", 0..10), f64::from(n)).await;
    }
    for own in times(&world) {
        let gaps = own.windows(2).skip(1).map(|pair| pair[1] - pair[0]);
        assert!(gaps.clone().all(|gap| gap >= 60_000), "one a minute: {own:?}");
    }
    world.account();
}

#[tokio::test(start_paused = true)]
async fn a_disk_that_refuses_to_note_is_seen_and_holds_nothing_up() {
    let mut world = World::new(budget(100)).settled();
    world.start();
    pass(1).await;
    for n in 0..5u32 {
        world.scrape(&gauges("a", 0..10), f64::from(n)).await;
    }
    assert_eq!(world.status().trail, crate::forward::status::TrailStatus::default());
    world.disk.set_capacity(0);
    for n in 5..25u32 {
        world.scrape(&gauges("a", 0..10), f64::from(n)).await;
    }
    let status = world.status();
    assert!(status.trail.failing && status.trail.unwritten >= 4, "{:?}", status.trail);
    assert!(status.last_error.unwrap().message.contains("other samples may be chosen"));
    world.disk.set_capacity(u64::MAX);
    for n in 25..33u32 {
        world.scrape(&gauges("a", 0..10), f64::from(n)).await;
    }
    let after = world.status();
    assert!(!after.trail.failing && after.trail.unwritten == status.trail.unwritten);
    for own in times(&world) {
        assert_eq!(own.len(), 9, "one a minute all the time: {own:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn damage_to_the_trail_is_counted() {
    let mut world = World::new(budget(100)).settled();
    world.start();
    pass(1).await;
    for n in 0..12u32 {
        world.scrape(&gauges("a", 0..10), f64::from(n)).await;
    }
    world.kill().await;
    let path = directory(&world.config.name).join("trail");
    world.disk.damage(&path, 150, 0x01).unwrap();
    world.start();
    assert_eq!(world.status().trail.damaged, 1);
    for n in 12..20u32 {
        world.scrape(&gauges("a", 0..10), f64::from(n)).await;
    }
    assert_ordered(&world.mimir.stored());
    world.account();
}
