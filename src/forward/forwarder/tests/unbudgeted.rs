//! What was sent without a budget counts when there is one.

use super::*;
use crate::forward::retry::Jitter;

/// A run without a budget that has sent `a`, ended by `end`; then one with a budget of 60.
async fn then_budgeted(end: impl AsyncFnOnce(&mut World)) -> World {
    let mut world = World::new(Budget::default()).settled();
    world.start();
    pass(1).await;
    for n in 0..8 {
        world.scrape(&gauges("a", 0..50), f64::from(n)).await;
    }
    end(&mut world).await;
    world.config.budget = budget(60);
    world.start();
    world
}

#[tokio::test(start_paused = true)]
async fn a_budget_that_is_set_later_knows_what_was_sent_before() {
    let mut world = then_budgeted(World::stop).await;
    let mut series = gauges("b", 0..30);
    series.extend(gauges("a", 0..50));
    for n in 8..40 {
        world.scrape(&series, f64::from(n)).await;
    }
    // Nothing is in doubt: what was sent goes on at once, and what is new gets the rest.
    let stored = world.mimir.stored();
    let newest = |name, n| stored[&external(name, n)].last().unwrap().1;
    assert!((0..50).all(|n| newest("a", n) >= 32f64.to_bits()));
    assert_eq!(stored.keys().filter(|series| series.contains("\"b\"")).count(), 0);
    world.scrape(&gauges("c", 0..10), 1.0).await;
    assert_eq!(world.mimir.stored().len(), 60);
    assert!(world.mimir.active_most() <= 60, "{}", world.mimir.active_most());
    world.account();
    world.stop().await;
}

#[tokio::test(start_paused = true)]
async fn after_a_kill_what_was_sent_without_a_budget_is_in_doubt() {
    let mut world = then_budgeted(World::kill).await;
    for n in 8..40 {
        world.scrape(&gauges("b", 0..30), f64::from(n)).await;
    }
    assert!(world.mimir.active_most() <= 60, "{}", world.mimir.active_most());
    world.account();
    world.stop().await;
}

#[tokio::test(start_paused = true)]
async fn the_ledger_from_before_a_time_without_a_budget_does_not_speak_for_it() {
    for killed in [false, true] {
        let mut world = World::new(budget(60)).settled();
        world.start();
        pass(1).await;
        world.scrape(&gauges("old", 0..5), 1.0).await;
        world.stop().await;
        world.config.budget = Budget::default();
        world.start();
        pass(1).await;
        for n in 0..8 {
            world.scrape(&gauges("a", 0..50), f64::from(n)).await;
        }
        if killed {
            world.kill().await;
        } else {
            world.stop().await;
        }
        world.config.budget = budget(60);
        world.start();
        for n in 0..100 {
            world.scrape(&gauges("b", 0..50), f64::from(n)).await;
        }
        assert!(world.mimir.active_most() <= 60, "{}", world.mimir.active_most());
        let new = world.mimir.stored().keys().filter(|it| it.contains("\"b\"")).count();
        assert_eq!(new, 50, "when the server has forgotten the others");
        world.account();
        world.stop().await;
    }
}

/// Runs with and without a budget take turns, while series come and go and the endpoint is not always
/// there; each ends in order or is killed.
async fn schedule(seed: u64) {
    let mut chance = Jitter::seeded(seed);
    let mut draw = move |below: u64| chance.next_u64() % below;
    let target = 30 + draw(60);
    let mut world = World::new(Budget::default()).settled();
    world.poll = Duration::from_secs(10);
    let (mut first, mut value) = (0, 0.0);
    for turn in 0..4 {
        let is_budgeted = turn % 2 == 1;
        world.config.budget = if is_budgeted { budget(target) } else { Budget::default() };
        let before = world.mimir.count_anew() as u64;
        world.start();
        pass(1).await;
        for _ in 0..20 + draw(120) {
            world.mimir.set_mood(match draw(20) {
                0 => Mood::Mute,
                1 => Mood::Unreachable,
                _ => Mood::Well,
            });
            first += draw(6) as usize;
            value += 1.0;
            world.scrape(&gauges("churn", first..first + 24), value).await;
            world.account();
        }
        // What holds a slot is there then, so that the next turn adds nothing by sending it.
        world.mimir.set_mood(Mood::Well);
        pass(120).await;
        if is_budgeted {
            let (most, allowed) = (world.mimir.active_most() as u64, target.max(before));
            assert!(
                most <= allowed,
                "seed {seed}, turn {turn}: {most} of {target}, {before} before"
            );
        }
        if draw(3) == 0 {
            world.kill().await;
        } else {
            world.stop().await;
        }
        pass(draw(600)).await;
    }
    world.mimir.set_mood(Mood::Well);
    world.config.budget = budget(target);
    world.start();
    for _ in 0..360 {
        value += 1.0;
        world.scrape(&gauges("last", 0..20), value).await;
    }
    let last = world.mimir.stored().keys().filter(|series| series.contains("last")).count();
    assert_eq!(last, 20, "seed {seed}: an hour and a half later everything has its slot");
    world.account();
    world.stop().await;
}

#[tokio::test(start_paused = true)]
async fn no_schedule_of_budgets_that_come_and_go_passes_one() {
    for seed in super::schedules::seeds() {
        schedule(seed).await;
    }
}
