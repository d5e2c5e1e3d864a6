use std::sync::Arc;
use std::time::Duration;

use stint_model::Clock;
use stint_model::clock::SimClock;

use super::*;
use crate::rules::testing::{World, group_spec};

/// A group that records `name` every 10 seconds.
fn recording(group: &str, name: &str, expr: &str) -> GroupSpec {
    group_spec(&format!(
        "groups: [{{name: {group}, interval: 10s, rules: [{{record: {name}, expr: {expr:?}}}]}}]"
    ))
}

fn prepared(groups: &[GroupSpec]) -> Prepared {
    Prepared { groups: groups.to_vec(), external_labels: stint_model::Labels::default() }
}

/// The manager's env has to be its own; the world keeps the store, the clock and the metrics.
fn manager(world: World) -> (Manager, crate::rules::testing::Store, Arc<SimClock>) {
    let (store, clock) = (world.store.clone(), Arc::clone(&world.clock));
    let Ok(env) = Arc::try_unwrap(world.env) else { panic!("the env is shared") };
    (Manager::new(env), store, clock)
}

/// Lets `seconds` pass, one after the other, and all that is due happen.
async fn pass(clock: &SimClock, seconds: i64) {
    for _ in 0..seconds {
        clock.advance(Span(1000));
        tokio::time::advance(Duration::from_secs(1)).await;
        // Evaluations run on other threads, whose end no clock tells.
        for _ in 0..20 {
            tokio::task::yield_now().await;
            std::thread::yield_now();
        }
    }
}

/// Waits, in real time, until `done` holds.
async fn eventually(what: &str, done: impl Fn() -> bool) {
    for _ in 0..2_000_000 {
        if done() {
            return;
        }
        tokio::task::yield_now().await;
    }
    panic!("never: {what}");
}

fn evaluated_at(manager: &Manager, group: usize) -> Option<Timestamp> {
    manager.groups().get(group).and_then(|group| group.status().evaluated_at)
}

#[tokio::test(start_paused = true)]
async fn groups_run_at_their_points_and_reloads_leave_the_same_alone() {
    let (manager, _store, clock) = manager(World::new());
    let (a, b) = (recording("a", "x", "vector(1)"), recording("b", "y", "vector(1)"));
    manager.apply(prepared(&[a.clone(), b.clone()])).await;
    assert_eq!(evaluated_at(&manager, 0), None, "not before the first point");
    pass(&clock, 11).await;
    eventually("both were evaluated", || {
        evaluated_at(&manager, 0).is_some() && evaluated_at(&manager, 1).is_some()
    })
    .await;
    let groups = manager.groups();
    let changed = recording("b", "y", "vector(2)");
    manager.apply(prepared(&[a, changed])).await;
    let now = manager.groups();
    assert!(Arc::ptr_eq(&groups[0], &now[0]), "the same group runs on");
    assert!(!Arc::ptr_eq(&groups[1], &now[1]));
    assert_eq!(now[1].status(), groups[1].status(), "what is known of it stays");
    assert!(groups[0].restores() && !now[1].restores(), "only a start restores");
    manager.stop().await;
    let before = clock.now();
    pass(&clock, 30).await;
    assert!(evaluated_at(&manager, 0).is_none_or(|at| at <= before), "nothing runs any more");
}

#[tokio::test(start_paused = true)]
async fn a_removed_group_ends_after_two_intervals() {
    let (manager, store, clock) = manager(World::new());
    manager.apply(prepared(&[recording("a", "x", "vector(1)")])).await;
    pass(&clock, 11).await;
    eventually("it was stored", || store.batches() > 0).await;
    let stored = store.batches();
    manager.apply(prepared(&[])).await;
    assert!(manager.groups().is_empty());
    pass(&clock, 15).await;
    assert_eq!(store.batches(), stored, "it may have been renamed");
    pass(&clock, 10).await;
    eventually("its series was ended", || store.batches() == stored + 1).await;
}

#[tokio::test(start_paused = true)]
async fn a_clock_that_is_set_back_stops_nothing() {
    let (manager, _store, clock) = manager(World::new());
    clock.advance(Span(3_600_000));
    manager.apply(prepared(&[recording("a", "x", "vector(1)")])).await;
    pass(&clock, 21).await;
    eventually("it was evaluated", || evaluated_at(&manager, 0).is_some()).await;
    clock.step_to(Timestamp(60_000));
    pass(&clock, 21).await;
    let set_back = || evaluated_at(&manager, 0).is_some_and(|at| at < Timestamp(100_000));
    eventually("it was evaluated by the new time", set_back).await;
    manager.stop().await;
}
