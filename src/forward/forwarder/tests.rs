mod aggregate;
mod answers;
mod clock;
mod disk;
mod full;
mod identity;
mod points;
mod prometheus;
mod schedules;
mod supervise;
mod trail;
mod unbudgeted;
mod window;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use stint_model::{Clock, Labels, Metadata, MetricType, STALE_NAN_BITS, Sample, Span, Timestamp};
use stint_storage::SimDisk;
use stint_storage::disk::sim::Crash;
use tokio::sync::{Notify, watch};
use tokio::task::JoinHandle;

use super::super::account::{self, Pools};
use super::super::cursor::{Saved, directory};
use super::super::setup::{Begun, Setup};
use super::super::sim::{Log, LogSource, Mimir, Mood, TokioClock, answer, endpoint};
use super::super::status::Status;
use super::super::transport::Transport;
use super::*;
use crate::budget::policy::Reason;
use crate::budget::pool::Seat;
use crate::config::{Budget, RemoteWrite};

const WALL: Timestamp = Timestamp(1_700_000_000_000);

/// A server with one endpoint.
struct World {
    clock: Arc<TokioClock>,
    log: Arc<Mutex<Log>>,
    mimir: Arc<Mimir>,
    disk: SimDisk,
    config: RemoteWrite,
    running: Option<Running>,
    poll: Duration,
    /// Counters of runs that ended.
    past: Vec<Status>,
}

struct Running {
    handle: Handle,
    stop: watch::Sender<bool>,
    task: JoinHandle<()>,
}

fn config(budget: Budget) -> RemoteWrite {
    RemoteWrite { budget, ..endpoint("cloud", "https://mimir.example.org/api/v1/push") }
}

fn budget(series: u64) -> Budget {
    Budget { series: Some(series), interval: Some(Span::MINUTE), ..Budget::default() }
}

impl World {
    fn new(budget: Budget) -> Self {
        let clock = TokioClock::at(WALL);
        let mimir = Mimir::new(&clock, 1, 1_000_000);
        Self {
            clock,
            log: Arc::default(),
            mimir,
            disk: SimDisk::new(),
            config: config(budget),
            running: None,
            poll: Duration::from_millis(500),
            past: Vec::new(),
        }
    }

    /// Pretends that the endpoint ran before with an empty ledger, so that nothing is in doubt.
    fn settled(self) -> Self {
        let path = directory(&self.config.name).join("ledger");
        let disk: Arc<dyn stint_storage::Disk> = Arc::new(self.disk.clone());
        let hold = crate::budget::limits::HOLD;
        let (mut ledger, _) =
            crate::budget::ledger::Ledger::open(disk, &path, hold, Duration::ZERO);
        ledger.checkpoint(Duration::ZERO).unwrap();
        self
    }

    fn start(&mut self) {
        let (stop, stopped) = watch::channel(false);
        let forwarder = self.begin(&Arc::default()).unwrap();
        let handle = forwarder.handle();
        let task = tokio::spawn(async { forwarder.run(stopped).await.unwrap() });
        self.running = Some(Running { handle, stop, task });
    }

    /// A forwarder that goes on where the last one stopped.
    fn begin(&self, status: &Arc<Mutex<Status>>) -> Result<Forwarder, String> {
        let disk: Arc<dyn stint_storage::Disk> = Arc::new(self.disk.clone());
        let names = [self.config.name.clone()];
        let past =
            account::claim(&disk, &self.config, &names, &Pools::default(), Duration::ZERO).unwrap();
        let setup = Setup {
            config: Arc::new(self.config.clone()),
            external_labels: Labels::from_pairs([("cluster", "test")]),
            transport: Arc::clone(&self.mimir) as Arc<dyn Transport>,
            disk,
            clock: Arc::clone(&self.clock) as Arc<dyn Clock>,
            metadata: Vec::new(),
            wake: Arc::new(Notify::new()),
            poll: self.poll,
            seed: 7,
            status: Arc::clone(status),
            past,
            seat: Seat::alone(),
            ranking: None,
        };
        let open = |saved: &Saved| LogSource::open(&self.log, saved);
        Begun::new(setup).open(open).map_err(|error| error.to_string())
    }

    /// Ends the forwarder in order.
    async fn stop(&mut self) {
        let running = self.running.take().unwrap();
        running.stop.send(true).unwrap();
        running.task.await.unwrap();
        self.past.push(running.handle.status());
    }

    /// Ends the forwarder as `kill -9` does.
    async fn kill(&mut self) {
        let running = self.running.take().unwrap();
        running.task.abort();
        assert!(running.task.await.is_err());
        self.past.push(running.handle.status());
        self.disk = self.disk.after_crash(Crash::KILL);
    }

    fn status(&self) -> Status {
        self.running.as_ref().unwrap().handle.status()
    }

    /// One scrape of `series`, and the time until the next one.
    async fn scrape(&self, series: &[Labels], value: f64) {
        let at = self.clock.now();
        let samples: Vec<(Labels, Sample)> =
            series.iter().map(|labels| (labels.clone(), Sample::float(at, value))).collect();
        self.log.lock().append(&samples);
        pass(15).await;
    }

    /// Checks that every sample that was read is in exactly one counter.
    fn account(&self) {
        let counters = self.status().counters;
        assert_eq!(counters.read, counters.settled() + counters.pending, "{counters:?}");
    }
}

async fn pass(secs: u64) {
    tokio::time::sleep(Duration::from_secs(secs)).await;
}

fn gauge(name: &str, n: usize) -> Labels {
    Labels::from_pairs([
        ("__name__", name),
        ("n", &n.to_string()),
        ("job", "j"),
        ("instance", "i:1"),
    ])
}

/// The series as the endpoint shows it.
fn external(name: &str, n: usize) -> String {
    gauge(name, n).to_builder().set("cluster", "test").build().to_string()
}

fn gauges(name: &str, range: std::ops::Range<usize>) -> Vec<Labels> {
    range.map(|n| gauge(name, n)).collect()
}

fn assert_ordered(stored: &BTreeMap<String, Vec<(i64, u64)>>) {
    for (series, samples) in stored {
        // A repeated request repeats samples; new ones never go back.
        let mut newest = i64::MIN;
        let mut seen = std::collections::HashSet::new();
        for (at, _) in samples {
            if seen.insert(*at) {
                assert!(*at > newest, "{series} goes back");
                newest = *at;
            }
        }
    }
}

#[tokio::test(start_paused = true)]
async fn everything_arrives_with_external_labels_and_in_order() {
    let mut world = World::new(Budget::default());
    world.start();
    pass(1).await;
    for n in 0..20 {
        world.scrape(&gauges("a", 0..30), f64::from(n)).await;
    }
    pass(10).await;
    let stored = world.mimir.stored();
    assert_eq!(stored.len(), 30);
    assert!(stored.keys().all(|series| series.contains(r#"cluster="test""#)));
    assert!(stored.values().all(|samples| samples.len() == 20));
    assert_ordered(&stored);
    let status = world.status();
    assert_eq!((status.counters.sent, status.counters.pending), (600, 0));
    assert_eq!(status.lag(world.clock.now()), Span::ZERO);
    assert!(status.caught_up);
    world.account();
}

#[tokio::test(start_paused = true)]
async fn a_budgeted_endpoint_gets_one_scrape_per_minute_with_its_own_time() {
    let mut world = World::new(budget(1000)).settled();
    world.start();
    pass(1).await;
    for n in 0..40 {
        world.scrape(&gauges("a", 0..10), f64::from(n)).await;
    }
    pass(10).await;
    let stored = world.mimir.stored();
    assert!(stored.values().all(|samples| samples.len() == 11), "{}", stored.len());
    let times: Vec<Vec<i64>> =
        stored.values().map(|s| s.iter().map(|(at, _)| *at).collect()).collect();
    assert!(times.iter().all(|own| own == &times[0]), "a scrape is taken whole");
    assert!(times[0].iter().all(|at| (at - WALL.as_ms()) % 1000 < 100));
    assert_eq!(world.status().counters.withheld[&Reason::Interval], 290);
    world.account();
}

#[tokio::test(start_paused = true)]
async fn never_more_points_per_minute_than_included() {
    let mut world = World::new(Budget { points_per_minute: Some(100), ..budget(1000) }).settled();
    world.start();
    pass(1).await;
    let mut series = gauges("rest", 0..200);
    series.extend(gauges("up", 0..10));
    for n in 0..480 {
        world.scrape(&series, f64::from(n)).await;
    }
    let hour = world.mimir.arrived_most(Duration::from_hours(1));
    assert!((5000..=6500).contains(&hour), "{hour}");
    assert!(world.status().lateness < Span::from_secs(300));
    // The first class goes on as it comes, since it changes; the other one is thinned evenly.
    let stored = world.mimir.stored();
    for (series, samples) in &stored {
        let (late, interval) = (samples.len() / 2, if series.contains("up") { 15 } else { 255 });
        let gaps = samples[late..].windows(2).map(|pair| (pair[1].0 - pair[0].0 + 500) / 1000);
        let longest = gaps.max().unwrap();
        assert!(longest <= interval, "{series}: {longest}");
    }
    assert_eq!(stored.len(), 210);
    let counters = world.status().counters;
    assert!(counters.withheld[&Reason::Points] > 0 && counters.refused.is_empty());
    world.account();
}

#[tokio::test(start_paused = true)]
async fn what_an_outage_left_is_made_up_for_within_the_points_per_minute() {
    let mut world = World::new(Budget { points_per_minute: Some(100), ..budget(1000) }).settled();
    world.start();
    pass(1).await;
    for n in 0..720 {
        match n {
            120 => world.mimir.set_mood(Mood::Unreachable),
            240 => world.mimir.set_mood(Mood::Well),
            _ => {}
        }
        world.scrape(&gauges("a", 0..80), f64::from(n)).await;
    }
    // Nobody knows whether what was not answered arrived; it counts, and so what came is less.
    let most = world.mimir.arrived_most(Duration::from_mins(20));
    assert!(most <= (20 + 5) * 100, "{most}");
    let status = world.status();
    assert!(status.caught_up && status.counters.pending < 200, "{status:?}");
    let stored = world.mimir.stored();
    for (series, samples) in &stored {
        let gaps = samples.windows(2).map(|pair| (pair[1].0 - pair[0].0) / 1000);
        assert!(gaps.max().unwrap() <= 241, "{series}");
    }
    assert!(status.counters.too_old == 0 && status.counters.refused.is_empty());
    world.account();
}

#[tokio::test(start_paused = true)]
async fn never_more_series_than_the_target_under_churn() {
    let mut world = World::new(budget(100)).settled();
    world.mimir.set_limit(100);
    world.start();
    pass(1).await;
    for round in 0..240 {
        let shift = round / 4 * 5;
        let mut series = gauges("churn", shift..shift + 40);
        series.extend(gauges("calm", 0..40));
        world.scrape(&series, round as f64).await;
    }
    assert!(world.mimir.active_most() <= 100, "{}", world.mimir.active_most());
    let counters = world.status().counters;
    assert!(counters.refused.is_empty(), "{counters:?}");
    assert!(counters.withheld[&Reason::Budget] > 0);
    let calm = world.mimir.stored().keys().filter(|series| series.contains("calm")).count();
    assert_eq!(calm, 40);
    world.account();
}

#[tokio::test(start_paused = true)]
async fn an_outage_is_made_up_for_without_a_gap() {
    let mut world = World::new(Budget::default());
    world.start();
    pass(1).await;
    for n in 0..200 {
        match n {
            20 => world.mimir.set_mood(Mood::Unreachable),
            60 => world.mimir.set_mood(Mood::Answers(answer(503, "busy"))),
            100 => {
                let lag = world.status().lag(world.clock.now());
                assert!(lag >= Span::from_secs(79 * 15), "an outage is seen as one: {lag}");
                world.mimir.set_mood(Mood::Well);
            }
            _ => {}
        }
        world.scrape(&gauges("a", 0..50), f64::from(n)).await;
    }
    pass(60).await;
    let stored = world.mimir.stored();
    assert!(stored.values().all(|samples| samples.len() == 200));
    assert_ordered(&stored);
    let status = world.status();
    assert_eq!((status.counters.sent, status.counters.pending), (10_000, 0));
    assert!(status.counters.retried > 0 && status.last_error.is_some());
    world.account();
}

#[tokio::test(start_paused = true)]
async fn after_an_outage_what_is_there_comes_before_what_is_gone() {
    let mut world = World::new(budget(140)).settled();
    world.mimir.set_limit(140);
    world.start();
    pass(1).await;
    for n in 0..240 {
        match n {
            8 => world.mimir.set_mood(Mood::Unreachable),
            200 => world.mimir.set_mood(Mood::Well),
            _ => {}
        }
        let mut series = gauges("calm", 0..40);
        if (20..170).contains(&n) {
            // What lives for five minutes each.
            series.extend(gauges("gone", n / 20 * 40..n / 20 * 40 + 40));
        }
        if n >= 180 {
            series.extend(gauges("new", 0..30));
        }
        world.scrape(&series, n as f64).await;
    }
    let stored = world.mimir.stored();
    let new: Vec<_> = stored.iter().filter(|(series, _)| series.contains("new")).collect();
    assert_eq!(new.len(), 30);
    assert!(new.iter().all(|(_, samples)| samples.len() >= 14), "from their first minute on");
    let gone = stored.keys().filter(|series| series.contains("gone")).count();
    assert!(gone > 0 && gone <= 30, "what is left beside them: {gone}");
    assert!(world.mimir.active_most() <= 140);
    world.account();
}

#[tokio::test(start_paused = true)]
async fn a_restart_goes_on_where_the_last_run_stopped() {
    let mut world = World::new(Budget::default());
    world.start();
    pass(1).await;
    for n in 0..60 {
        match n {
            15 => world.stop().await,
            20 | 35 => world.start(),
            30 => world.kill().await,
            // Nothing was ever acknowledged by this run.
            40 => {
                world.mimir.set_mood(Mood::Unreachable);
                world.kill().await;
                world.start();
            }
            45 => {
                world.kill().await;
                world.mimir.set_mood(Mood::Well);
                world.start();
            }
            _ => {}
        }
        world.scrape(&gauges("a", 0..20), f64::from(n)).await;
    }
    pass(60).await;
    for (series, samples) in world.mimir.stored() {
        let distinct: std::collections::HashSet<i64> = samples.iter().map(|(at, _)| *at).collect();
        assert_eq!(distinct.len(), 60, "{series}");
    }
}

#[tokio::test(start_paused = true)]
async fn leases_outlive_a_restart() {
    let mut world = World::new(budget(50)).settled();
    world.start();
    pass(1).await;
    for n in 0..8 {
        world.scrape(&gauges("old", 0..50), f64::from(n)).await;
    }
    world.kill().await;
    world.start();
    for n in 0..100 {
        world.scrape(&gauges("new", 0..50), f64::from(n)).await;
    }
    assert!(world.mimir.active_most() <= 50, "{}", world.mimir.active_most());
    let new = world.mimir.stored().keys().filter(|series| series.contains("new")).count();
    assert_eq!(new, 50, "after the hold time the slots are free again");
    world.account();
}

#[tokio::test(start_paused = true)]
async fn a_renamed_endpoint_forgets_neither_leases_nor_samples() {
    let mut world = World::new(budget(50)).settled();
    world.start();
    pass(1).await;
    for n in 0..8 {
        world.scrape(&gauges("old", 0..50), f64::from(n)).await;
    }
    world.stop().await;
    // Stored while nobody forwards, when it is their turn.
    pass(60).await;
    world.scrape(&gauges("old", 0..10), 9.0).await;
    world.config.name = "renamed".into();
    world.start();
    for n in 0..100 {
        world.scrape(&gauges("new", 0..50), f64::from(n)).await;
    }
    assert!(world.mimir.active_most() <= 50, "{}", world.mimir.active_most());
    let stored = world.mimir.stored();
    let last = stored[&external("old", 3)].last().unwrap();
    assert_eq!(last.1, 9f64.to_bits());
    assert_eq!(stored.keys().filter(|series| series.contains("new")).count(), 50);
    world.account();
}

#[tokio::test(start_paused = true)]
async fn an_endpoint_for_another_account_begins_as_if_something_were_active_there() {
    let mut world = World::new(budget(50)).settled();
    world.start();
    pass(1).await;
    world.scrape(&gauges("old", 0..50), 1.0).await;
    world.stop().await;
    world.config.url = "https://mimir.example.org/other/push".into();
    let before = world.mimir.stored().len();
    world.start();
    for n in 0..8 {
        world.scrape(&gauges("new", 0..25), f64::from(n)).await;
        world.scrape(&gauges("more", 0..25), f64::from(n)).await;
    }
    assert_eq!(world.mimir.stored().len() - before, 25);
    world.account();
}

#[tokio::test(start_paused = true)]
async fn restarts_in_a_row_do_not_hold_the_slots_of_what_is_gone() {
    let mut world = World::new(budget(50)).settled();
    world.start();
    pass(1).await;
    world.scrape(&gauges("old", 0..40), 1.0).await;
    for n in 0..12 {
        world.kill().await;
        world.start();
        for _ in 0..20 {
            world.scrape(&gauges("new", 0..50), f64::from(n)).await;
        }
    }
    assert!(world.mimir.active_most() <= 50, "{}", world.mimir.active_most());
    let new = world.mimir.stored().keys().filter(|series| series.contains("new")).count();
    assert_eq!(new, 50);
    world.account();
}

#[tokio::test(start_paused = true)]
async fn restarts_in_a_row_do_not_hold_up_a_first_start() {
    let mut world = World::new(budget(50));
    world.start();
    pass(1).await;
    for n in 0..12 {
        for _ in 0..20 {
            world.scrape(&gauges("one", 0..25), f64::from(n)).await;
            world.scrape(&gauges("two", 0..25), f64::from(n)).await;
        }
        world.kill().await;
        world.start();
        let held = world.mimir.stored().len();
        assert!(n > 0 || held == 25, "{held}");
    }
    assert_eq!(world.mimir.stored().len(), 50);
}

#[tokio::test(start_paused = true)]
async fn a_request_that_is_too_large_is_halved() {
    let mut world = World::new(Budget::default());
    world.mimir.set_samples_max(7);
    world.start();
    pass(1).await;
    for n in 0..4 {
        world.scrape(&gauges("a", 0..50), f64::from(n)).await;
    }
    pass(10).await;
    let counters = world.status().counters;
    assert_eq!((counters.sent, counters.pending), (200, 0));
    assert_ordered(&world.mimir.stored());
    world.account();
}

#[tokio::test(start_paused = true)]
async fn what_the_endpoint_cannot_digest_is_isolated_and_given_up() {
    let mut world = World::new(Budget::default());
    world.mimir.set_poison("bad", answer(500, "cannot digest that"));
    world.start();
    pass(1).await;
    let mut series = gauges("good", 0..20);
    series.extend(gauges("bad", 0..1));
    for n in 0..40 {
        world.scrape(&series, f64::from(n)).await;
    }
    pass(1200).await;
    let counters = world.status().counters;
    assert_eq!((counters.sent, counters.failed, counters.pending), (800, 40, 0));
    assert_ordered(&world.mimir.stored());
    world.account();
}

#[tokio::test(start_paused = true)]
async fn what_a_gateway_never_lets_through_does_not_hold_up_the_rest() {
    for status in [502, 503, 504] {
        let mut world = World::new(Budget::default());
        world.mimir.set_poison("bad", answer(status, "upstream trouble"));
        world.start();
        pass(1).await;
        let mut series = gauges("good", 0..20);
        series.extend(gauges("bad", 0..1));
        for n in 0..40 {
            world.scrape(&series, f64::from(n)).await;
        }
        pass(3000).await;
        let counters = world.status().counters;
        assert_eq!((counters.sent, counters.failed, counters.pending), (800, 40, 0));
        assert_ordered(&world.mimir.stored());
        world.account();
    }
}

#[tokio::test(start_paused = true)]
async fn what_is_refused_is_not_sent_again() {
    let mut world = World::new(Budget::default());
    world.mimir.set_mood(Mood::Answers(answer(400, "(err-mimir-sample-out-of-order)")));
    world.start();
    pass(1).await;
    world.scrape(&gauges("a", 0..10), 1.0).await;
    pass(60).await;
    let counters = world.status().counters;
    assert_eq!((counters.requests, counters.pending), (1, 0));
    assert_eq!(counters.refused["sample-out-of-order"], 10);
    world.account();
}

#[tokio::test(start_paused = true)]
async fn the_server_is_asked_again_when_it_wants_to_be() {
    let mut world = World::new(Budget::default());
    let mut busy = answer(429, "(err-mimir-tenant-max-ingestion-rate)");
    busy.retry_after = Some("40".into());
    world.mimir.set_mood(Mood::Answers(busy));
    world.start();
    pass(1).await;
    world.scrape(&gauges("a", 0..10), 1.0).await;
    pass(200).await;
    let requests = world.mimir.requests();
    assert!(requests.len() >= 4 && requests.len() <= 6, "{requests:?}");
    for pair in requests.windows(2) {
        assert!(pair[1].0.saturating_sub(pair[0].0) >= Duration::from_secs(40));
        assert_eq!(pair[1].1, pair[0].1 + 1, "the attempt is counted");
    }
    world.mimir.set_mood(Mood::Well);
    pass(60).await;
    assert_eq!(world.status().counters.sent, 10);
}

#[tokio::test(start_paused = true)]
async fn what_got_too_old_is_counted() {
    let mut world = World::new(Budget::default());
    world.config.queue.sample_age_limit = Span::from_secs(600);
    world.mimir.set_mood(Mood::Unreachable);
    world.start();
    pass(1).await;
    for n in 0..80 {
        world.scrape(&gauges("a", 0..10), f64::from(n)).await;
    }
    world.mimir.set_mood(Mood::Well);
    pass(60).await;
    let counters = world.status().counters;
    assert!(counters.too_old > 300 && counters.sent > 300, "{counters:?}");
    assert_eq!(counters.sent + counters.too_old, 800);
    world.account();
}

#[tokio::test(start_paused = true)]
async fn the_end_of_a_series_is_sent_once_and_only_if_it_was_shown() {
    let mut world = World::new(budget(10)).settled();
    world.start();
    pass(1).await;
    world.scrape(&gauges("a", 0..10), 1.0).await;
    world.scrape(&gauges("never", 0..5), 1.0).await;
    let at = world.clock.now();
    let ends: Vec<(Labels, Sample)> = gauges("a", 0..10)
        .into_iter()
        .chain(gauges("never", 0..5))
        .map(|labels| (labels, Sample::stale(at)))
        .collect();
    world.log.lock().append(&ends);
    pass(20).await;
    let stored = world.mimir.stored();
    assert_eq!(stored.len(), 10);
    for samples in stored.values() {
        let markers = samples.iter().filter(|(_, bits)| *bits == STALE_NAN_BITS);
        assert_eq!(markers.count(), 1);
    }
    assert_eq!(world.status().counters.withheld[&Reason::StaleUnsent], 5);
    world.account();
}

#[tokio::test(start_paused = true)]
async fn metadata_of_what_is_forwarded_is_sent() {
    let mut world = World::new(Budget::default());
    world.start();
    pass(1).await;
    let counter = Metadata { kind: MetricType::Counter, help: "h".into(), unit: String::new() };
    world.log.lock().append_metadata("a_total", counter.clone());
    world.log.lock().append_metadata("other", Metadata::default());
    world.scrape(&gauges("a_total", 0..3), 1.0).await;
    pass(120).await;
    let metadata = world.mimir.metadata();
    assert_eq!(metadata.len(), 1);
    assert_eq!(metadata["a_total"], counter);
}

#[tokio::test(start_paused = true)]
async fn a_lost_stretch_is_counted_and_passed() {
    let mut world = World::new(Budget::default());
    world.start();
    pass(1).await;
    world.scrape(&gauges("a", 0..3), 1.0).await;
    world.log.lock().lose();
    world.scrape(&gauges("a", 0..3), 2.0).await;
    pass(10).await;
    let counters = world.status().counters;
    assert_eq!((counters.gaps, counters.sent), (1, 6));
}

#[tokio::test(start_paused = true)]
async fn a_backlog_is_worked_off_by_more_requests_at_once() {
    let mut world = World::new(Budget::default());
    world.config.queue.max_samples_per_send = 10;
    world.config.queue.max_shards = 8;
    world.mimir.set_mood(Mood::Unreachable);
    world.start();
    pass(1).await;
    for n in 0..40 {
        world.scrape(&gauges("a", 0..100), f64::from(n)).await;
    }
    world.mimir.set_mood(Mood::Well);
    pass(10).await;
    let status = world.status();
    assert_eq!(status.counters.sent, 4000);
    assert!(status.shards > 1, "{}", status.shards);
    assert_ordered(&world.mimir.stored());
    pass(600).await;
    world.account();
}

#[tokio::test(start_paused = true)]
async fn an_exemplar_makes_no_series_and_follows_its_own() {
    let selectors = vec![stint_model::Selector::metric("hist_bucket")];
    let level = crate::config::Level::Totals;
    let (at_least, bounds, resolution) = (level, Vec::new(), None);
    let rule = crate::config::HistogramRule { selectors, level, at_least, bounds, resolution };
    let mut world = World::new(Budget { histograms: vec![rule], ..budget(13) }).settled();
    world.config.send_exemplars = true;
    world.start();
    pass(1).await;
    let mut series = histogram(0);
    series.extend(gauges("sent", 0..11));
    series.extend(gauges("withheld", 0..11));
    for n in 0..8 {
        world.scrape(&series, f64::from(n)).await;
        let at = world.clock.now();
        for labels in &series {
            world.log.lock().append_exemplar(labels, at);
        }
    }
    pass(20).await;
    let stored = world.mimir.stored();
    assert_eq!(stored.len(), 13, "{:?}", stored.keys());
    assert!(stored.keys().all(|series| !series.contains("bucket")));
    let counters = world.status().counters;
    assert_eq!((counters.exemplars, counters.exemplars_withheld), (13 * 8, 14 * 8));
    assert!(world.mimir.active_most() <= 13);
}

fn histogram(n: usize) -> Vec<Labels> {
    let n = n.to_string();
    let part = |name: &str, le: &str| {
        Labels::from_pairs([
            ("__name__", name),
            ("le", le),
            ("h", n.as_str()),
            ("job", "j"),
            ("instance", "i:1"),
        ])
    };
    vec![
        part("hist_bucket", "1"),
        part("hist_bucket", "5"),
        part("hist_bucket", "+Inf"),
        part("hist_sum", ""),
        part("hist_count", ""),
    ]
}

/// All series of a histogram have the same times.
fn assert_whole(stored: &BTreeMap<String, Vec<(i64, u64)>>, seed: u64) {
    let mut groups: BTreeMap<String, Vec<std::collections::BTreeSet<i64>>> = BTreeMap::new();
    for (series, samples) in stored.iter().filter(|(series, _)| series.contains("hist")) {
        let h = series.split("h=\"").nth(1).unwrap().split('"').next().unwrap();
        let times = samples.iter().map(|(at, _)| *at).collect();
        groups.entry(h.to_owned()).or_default().push(times);
    }
    for (h, members) in groups {
        assert_eq!(members.len(), 5, "seed {seed}: histogram {h} is torn");
        assert!(members.iter().all(|times| *times == members[0]), "seed {seed}: histogram {h}");
    }
}
