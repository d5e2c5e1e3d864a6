//! Answers that say that nothing was taken.

use super::*;

#[tokio::test(start_paused = true)]
async fn wrong_credentials_are_tried_rarely_and_lose_nothing() {
    let mut world = World::new(Budget::default());
    world.mimir.set_mood(Mood::Answers(answer(401, "invalid token")));
    world.start();
    pass(1).await;
    for n in 0..80 {
        world.scrape(&gauges("a", 0..10), f64::from(n)).await;
    }
    assert!(world.mimir.requests().len() < 15, "{}", world.mimir.requests().len());
    world.mimir.set_mood(Mood::Well);
    pass(400).await;
    assert_eq!(world.status().counters.sent, 800);
    world.account();
}

#[tokio::test(start_paused = true)]
async fn what_the_elected_replica_sends_is_not_held_for_longer_by_the_other() {
    assert_eq!(taken_over(true).await, 20, "25 minutes after what was counted last");
}

#[tokio::test(start_paused = true)]
async fn who_is_no_replica_is_not_deduplicated() {
    assert_eq!(taken_over(false).await, 0, "a gateway may say 202 and count them");
}

/// How many series get a slot that others were sent under for an hour, with 202 for an answer.
async fn taken_over(is_replica: bool) -> usize {
    let mut world = World::new(budget(20)).settled();
    if is_replica {
        world.config.labels = Labels::from_pairs([("__replica__", "1")]);
    }
    world.start();
    pass(1).await;
    world.scrape(&gauges("a", 0..20), 1.0).await;
    world.mimir.set_mood(Mood::Answers(answer(202, "deduplicated")));
    for n in 0..60 {
        world.scrape(&gauges("a", 0..20), f64::from(n)).await;
    }
    // The last sample that counted was sent a quarter of an hour ago, and all since for nothing.
    for n in 0..34 {
        world.scrape(&gauges("b", 0..20), f64::from(n)).await;
    }
    world.mimir.set_mood(Mood::Well);
    for n in 0..6 {
        world.scrape(&gauges("b", 0..20), f64::from(n)).await;
    }
    let stored = world.mimir.stored();
    world.account();
    stored.keys().filter(|series| series.contains("\"b\"")).count()
}

#[tokio::test(start_paused = true)]
async fn what_a_wrong_token_keeps_back_keeps_its_slots() {
    let mut world = World::new(budget(20)).settled();
    world.mimir.set_mood(Mood::Answers(answer(401, "invalid token")));
    world.start();
    pass(1).await;
    for n in 0..160 {
        world.scrape(&gauges("a", 0..20), f64::from(n)).await;
    }
    world.mimir.set_mood(Mood::Well);
    pass(900).await;
    let counters = world.status().counters;
    assert_eq!(counters.withheld.get(&Reason::Budget), None, "{counters:?}");
    assert_eq!(counters.sent, 20 * 41, "{counters:?}");
    world.account();
}
