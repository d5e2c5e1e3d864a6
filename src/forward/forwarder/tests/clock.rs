//! A wall clock that is set.

use super::*;

#[tokio::test(start_paused = true)]
async fn a_clock_that_is_wrong_for_a_moment_gives_nothing_up() {
    let mut world = World::new(Budget::default());
    world.config.queue.sample_age_limit = Span::from_secs(6900);
    world.start();
    pass(1).await;
    world.scrape(&gauges("a", 0..5), 0.0).await;
    world.mimir.set_mood(Mood::Unreachable);
    for n in 1..40 {
        world.scrape(&gauges("a", 0..5), f64::from(n)).await;
    }
    world.clock.step(Span::from_secs(3 * 3600));
    world.mimir.set_mood(Mood::Well);
    pass(60).await;
    assert_eq!(world.status().counters.too_old, 0);
    world.clock.step(Span::from_secs(-3 * 3600));
    pass(120).await;
    let stored = world.mimir.stored();
    assert!(stored.values().all(|samples| samples.len() == 40), "nothing is missing");
    assert_ordered(&stored);
    world.account();
    // One that stays is right.
    world.mimir.set_mood(Mood::Unreachable);
    world.scrape(&gauges("a", 0..5), 40.0).await;
    world.clock.step(Span::from_secs(3 * 3600));
    world.mimir.set_mood(Mood::Well);
    pass(180).await;
    let counters = world.status().counters;
    assert_eq!((counters.too_old, counters.pending), (5, 0));
    world.account();
}
