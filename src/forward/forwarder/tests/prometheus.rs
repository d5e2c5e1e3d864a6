//! Against an endpoint that behaves as a Prometheus: one sample out of order, and the whole request
//! is refused.

use super::*;
use crate::forward::retry::Response;

impl World {
    /// Without budget, against a Prometheus.
    fn prometheus() -> Self {
        let world = Self::new(Budget::default());
        world.mimir.behave_as_prometheus();
        world
    }

    /// Checks that the endpoint holds `times` of each of `series`.
    fn assert_complete(&self, series: &[Labels], times: &[i64]) {
        let stored = self.mimir.stored();
        for labels in series {
            let n = labels.get("n").unwrap();
            let (_, samples) = stored
                .iter()
                .find(|(key, _)| key.contains(&format!("n=\"{n}\"")))
                .unwrap_or_else(|| panic!("{labels} is missing"));
            let held: Vec<i64> = samples.iter().map(|(at, _)| *at).collect();
            let missing: Vec<&i64> = times.iter().filter(|at| !held.contains(at)).collect();
            assert!(missing.is_empty(), "{labels}: {missing:?} of {times:?}");
            assert_eq!(held, times, "{labels}");
        }
    }

    /// A scrape of `series`; returns its time.
    fn store(&self, series: &[Labels], value: f64) -> i64 {
        let at = self.clock.now();
        let samples: Vec<(Labels, Sample)> =
            series.iter().map(|labels| (labels.clone(), Sample::float(at, value))).collect();
        self.log.lock().append(&samples);
        at.as_ms()
    }
}

/// Requests that came while `work` ran.
async fn requests_of(world: &mut World, work: impl AsyncFnOnce(&mut World)) -> usize {
    let before = world.mimir.requests().len();
    work(world).await;
    world.mimir.requests().len() - before
}

#[tokio::test(start_paused = true)]
async fn what_was_received_before_a_kill_does_not_take_new_samples_with_it() {
    let mut world = World::prometheus();
    world.config.queue.batch_send_deadline = Span(50);
    world.poll = Duration::from_millis(10);
    let series = gauges("a", 0..40);
    world.start();
    pass(1).await;
    let mut times = Vec::new();
    for n in 0..28 {
        // More often than the cursor is saved: of the newest ones, it knows nothing.
        times.push(world.store(&series, f64::from(n)));
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    let sent = world.status().counters.sent;
    world.kill().await;
    for n in 28..31 {
        times.push(world.store(&series, f64::from(n)));
        pass(1).await;
    }
    world.start();
    pass(30).await;
    world.assert_complete(&series, &times);
    let counters = world.status().counters;
    assert!(sent + counters.read > 31 * 40, "{counters:?}: nothing was sent twice");
    assert!(counters.refused["http_400"] > 0, "{counters:?}");
    world.account();
}

#[tokio::test(start_paused = true)]
async fn series_that_a_killed_run_had_not_delivered_yet_are_found_among_those_it_had() {
    let mut world = World::prometheus();
    world.start();
    pass(1).await;
    world.stop().await;
    // Of three scrapes, the last run has delivered all to the endpoint, but for a few series.
    let series = gauges("a", 0..64);
    let mut times = Vec::new();
    for n in 0..3 {
        times.push(world.store(&series, f64::from(n)));
        pass(1).await;
    }
    let external = |n: usize| gauge("a", n).to_builder().set("cluster", "test").build();
    let delivered: Vec<Labels> = (0..64).filter(|n| n % 7 != 3).map(external).collect();
    world.mimir.hold(&delivered, &times);
    world.start();
    pass(60).await;
    world.assert_complete(&series, &times);
    world.account();
}

#[tokio::test(start_paused = true)]
async fn the_end_of_what_a_killed_run_delivered_is_found_behind_many_scrapes() {
    let mut world = World::prometheus();
    world.start();
    pass(1).await;
    world.stop().await;
    let series = gauges("a", 0..100);
    let mut times = Vec::new();
    for n in 0..18 {
        times.push(world.store(&series, f64::from(n)));
        pass(1).await;
    }
    // The last run got into the middle of a scrape.
    let external = |n: usize| gauge("a", n).to_builder().set("cluster", "test").build();
    let delivered: Vec<Labels> = (0..100).map(external).collect();
    world.mimir.hold(&delivered[..37], &times[..16]);
    world.mimir.hold(&delivered[37..], &times[..15]);
    let requests = requests_of(&mut world, async |world| {
        world.start();
        pass(60).await;
    })
    .await;
    world.assert_complete(&series, &times);
    assert!(requests < 700, "{requests}");
    world.account();
}

#[tokio::test(start_paused = true)]
async fn new_samples_of_one_time_are_refused_by_one_request() {
    let mut world = World::prometheus();
    world.start();
    pass(1).await;
    let series = gauges("a", 0..100);
    world.store(&series, 1.0);
    pass(10).await;
    // The clock was set back: nothing of this will ever be taken.
    world.clock.step(Span::from_secs(-60));
    let requests = requests_of(&mut world, async |world| {
        world.store(&series, 2.0);
        pass(10).await;
    })
    .await;
    assert_eq!(requests, 1);
    assert_eq!(world.status().counters.refused["http_400"], 100);
    world.account();
}

#[tokio::test(start_paused = true)]
async fn an_endpoint_that_refuses_everything_is_not_flooded() {
    let mut world = World::prometheus();
    world.start();
    pass(1).await;
    world.stop().await;
    // Long ago, of many times and series, so that everything could be taken apart for ever.
    for n in 0..200 {
        world.store(&gauges("a", 0..50), f64::from(n));
        pass(1).await;
    }
    world.mimir.set_mood(Mood::Answers(answer(400, "no")));
    let requests = requests_of(&mut world, async |world| {
        world.start();
        pass(300).await;
    })
    .await;
    let whole = 200 * 50 / QueueConfig::default().max_samples_per_send;
    assert!(requests <= 1010 + whole, "{requests}");
    assert_eq!(world.status().counters.refused["http_400"], 10_000);
    // The refusals are forgotten when something is taken.
    world.mimir.set_mood(Mood::Well);
    let at = world.store(&gauges("a", 0..50), 1.0);
    pass(10).await;
    world.assert_complete(&gauges("a", 0..50), &[at]);
    world.account();
}

#[tokio::test(start_paused = true)]
async fn an_answer_that_counts_what_was_written_is_believed() {
    let mut world = World::prometheus();
    let partial = Response { written: Some(7), ..answer(400, "out of order sample") };
    world.mimir.set_mood(Mood::Answers(partial));
    world.start();
    pass(1).await;
    world.store(&gauges("a", 0..10), 1.0);
    pass(10).await;
    let counters = world.status().counters;
    assert_eq!((counters.requests, counters.sent, counters.refused["http_400"]), (1, 7, 3));
    world.account();
}

/// Churn, outages, lost answers, kills and restarts, from a seed.
async fn schedule(seed: u64) {
    let mut chance = Jitter::seeded(seed);
    let mut draw = move |below: u64| chance.next_u64() % below;
    let mut world = World::prometheus();
    world.config.queue.max_samples_per_send = 10 + draw(200) as usize;
    world.config.queue.max_shards = 1 + draw(6) as usize;
    world.config.queue.batch_send_deadline = Span(100 + draw(5000) as i64);
    world.poll = Duration::from_millis(200);
    world.start();
    pass(1).await;
    let series = gauges("a", 0..10 + draw(60) as usize);
    let mut times = Vec::new();
    for n in 0..300u32 {
        match draw(40) {
            0 => world.mimir.set_mood(Mood::Unreachable),
            1 => world.mimir.set_mood(Mood::Mute),
            2 => world.mimir.set_mood(Mood::Answers(answer(503, "busy"))),
            3..=8 => world.mimir.set_mood(Mood::Well),
            9..=11 => {
                world.kill().await;
                tokio::time::sleep(Duration::from_millis(draw(3000))).await;
                world.start();
            }
            12 => {
                world.stop().await;
                world.start();
            }
            _ => {}
        }
        times.push(world.store(&series, f64::from(n)));
        tokio::time::sleep(Duration::from_millis(1 + draw(2000))).await;
        world.account();
    }
    world.mimir.set_mood(Mood::Well);
    pass(600).await;
    assert_eq!(world.status().counters.pending, 0, "seed {seed}");
    world.assert_complete(&series, &times);
    world.stop().await;
}

#[tokio::test(start_paused = true)]
async fn no_schedule_loses_a_sample_that_the_endpoint_would_take() {
    for seed in 0..3 {
        schedule(seed).await;
    }
}
