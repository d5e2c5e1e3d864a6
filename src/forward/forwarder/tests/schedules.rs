//! Schedules of everything that can happen, made from seeds: scrapes, churn, rolling deploys, outages,
//! answers that are lost, restarts with and without a ledger, clocks that jump, policies that change,
//! other senders, full accounts, rate limits, late data.
//!
//! `STINT_SCHEDULES=5000 cargo test --release -p stint --lib schedules` runs so many of each kind;
//! `STINT_SEED=17` runs one.

use stint_model::Selector;
use stint_storage::Disk;

use super::*;
use crate::config::{Aggregate, Class, Fold, IdentityRule, Quota};

/// Seeds to run: a few dozen, or as many as are asked for.
pub(super) fn seeds() -> std::ops::Range<u64> {
    let number = |name: &str| std::env::var(name).ok().and_then(|text| text.parse::<u64>().ok());
    match number("STINT_SEED") {
        Some(seed) => seed..seed + 1,
        None => 0..number("STINT_SCHEDULES").unwrap_or(25),
    }
}

/// What the endpoint is like.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Server {
    /// It takes everything, and only counts.
    Open,
    /// It has limits of all kinds, and others use it too.
    Limited,
}

struct Schedule {
    seed: u64,
    chance: Jitter,
    world: World,
    server: Server,
    target: u64,
    /// The first of the series that there are.
    first: usize,
    /// Instances of the job that is deployed one by one.
    versions: [usize; 4],
}

const SERIES: usize = 24;

impl Schedule {
    fn new(seed: u64, server: Server) -> Self {
        let mut chance = Jitter::seeded(seed);
        let target = 40 + chance.next_u64() % 40;
        let mut world = World::new(budget(target)).settled();
        world.poll = Duration::from_secs(10);
        let quiet = server == Server::Limited;
        if quiet {
            world.mimir.set_partitions(4, 30 + chance.next_u64() % 80);
            world.mimir.set_window(Span::from_secs(7200));
            world.config.queue.sample_age_limit = Span::from_secs(6900);
        }
        world.start();
        Self { seed, chance, world, server, target, first: 0, versions: [0; 4] }
    }

    fn draw(&mut self, below: u64) -> u64 {
        self.chance.next_u64() % below
    }

    /// All series that are there now.
    fn series(&self) -> Vec<Labels> {
        let mut series = gauges("churn", self.first..self.first + SERIES);
        for h in 0..3 {
            series.extend(histogram(h + self.first / 40));
        }
        for (replica, version) in self.versions.iter().enumerate() {
            let instance = format!("10.0.{replica}.{version}:80");
            series.extend(gauges("deployed", 0..3).iter().map(|labels| {
                labels.to_builder().set("instance", &instance).set("job", "web").build()
            }));
        }
        series
    }

    async fn happen(&mut self) {
        let mimir = Arc::clone(&self.world.mimir);
        match self.draw(64) {
            0 => mimir.set_mood(Mood::Unreachable),
            1 => mimir.set_mood(Mood::Mute),
            2 => mimir.set_mood(Mood::Answers(answer(503, "busy"))),
            3 => {
                let busy = answer(429, "(err-mimir-tenant-max-ingestion-rate)");
                mimir.set_mood(Mood::Answers(busy));
            }
            4..=10 => mimir.set_mood(Mood::Well),
            11 => {
                self.world.kill().await;
                self.world.start();
            }
            12 => {
                self.world.stop().await;
                let secs = self.draw(1800);
                pass(secs).await;
                self.world.start();
            }
            13 => {
                let by = self.draw(7200) as i64 - 3600;
                self.world.clock.step(Span::from_secs(by));
            }
            14 => self.reload().await,
            15 => self.lose_ledger().await,
            16..=18 => {
                let replica = self.draw(4) as usize;
                self.versions[replica] += 1;
            }
            19 => self.versions.iter_mut().for_each(|version| *version += 1),
            20..=28 => self.first += self.draw(12) as usize,
            29 => {
                let secs = self.draw(3000);
                pass(secs).await;
            }
            31 => mimir.set_mood(Mood::Late),
            30 if self.server == Server::Limited => {
                let others = self.draw(40);
                mimir.set_others(others);
            }
            _ => {}
        }
    }

    /// The policy changes, and with it who gets slots.
    async fn reload(&mut self) {
        self.world.stop().await;
        let selectors = |name: &str| vec![Selector::metric(name)];
        let class = |name: &str, metric: &str| Class {
            name: name.into(),
            selectors: selectors(metric),
            send: true,
            series: None,
            interval: None,
            targets: None,
        };
        let budget = &mut self.world.config.budget;
        match self.chance.next_u64() % 6 {
            0 => budget.classes = vec![class("web", "deployed"), class("churn", "churn")],
            1 => {
                let few = Class { targets: Some(2), ..class("web", "deployed") };
                budget.classes = vec![Class { series: Some(9), ..class("churn", "churn") }, few];
            }
            2 => {
                let (per, series) = (Some("job".to_owned()), Some(self.target / 2));
                let name = "job".to_owned();
                budget.quotas =
                    vec![Quota { name, selectors: Vec::new(), per, series, guaranteed: 0 }];
            }
            3 => {
                let without = vec!["instance".to_owned()];
                let selectors = selectors("deployed");
                budget.aggregates = vec![Aggregate { selectors, without, fold: Fold::Max }];
            }
            4 => {
                let (replace, per) = (vec!["instance".to_owned()], vec!["job".to_owned()]);
                let selectors = selectors("deployed");
                budget.identities = vec![IdentityRule { selectors, replace, per, info: None }];
            }
            _ => {
                (budget.classes, budget.quotas) = (Vec::new(), Vec::new());
                (budget.aggregates, budget.identities) = (Vec::new(), Vec::new());
            }
        }
        self.world.start();
    }

    /// The machine is replaced: what was sent is known to the server alone. The cursor is there, so that
    /// it is known that there was an earlier run.
    async fn lose_ledger(&mut self) {
        self.world.kill().await;
        let dir = directory(&self.world.config.name);
        for name in ["ledger", "ledger.evicted"] {
            match self.world.disk.remove(&dir.join(name)) {
                Err(error) if !error.is_not_found() => panic!("{error}"),
                _ => {}
            }
        }
        self.world.start();
    }

    async fn run(mut self) {
        let seed = self.seed;
        pass(1).await;
        for n in 0..160u32 {
            self.happen().await;
            self.world.scrape(&self.series(), f64::from(n)).await;
            self.world.account();
        }
        self.world.mimir.set_mood(Mood::Well);
        self.world.mimir.set_others(0);
        pass(700).await;
        let most = self.world.mimir.active_most() as u64;
        assert!(most <= self.target, "seed {seed}: {most} of {}", self.target);
        let status = self.world.status();
        assert_eq!(status.counters.pending, 0, "seed {seed}");
        let lag = status.lag(self.world.clock.now());
        assert!(status.caught_up && lag == Span::ZERO, "seed {seed}: {lag}");
        self.world.account();
        let stored = self.world.mimir.stored();
        // The wall clock jumps here, so times themselves say nothing.
        self.world.mimir.assert_in_order(|_, bits| f64::from_bits(bits), seed);
        if self.server == Server::Open {
            assert_whole(&stored, seed);
            assert!(status.counters.refused.is_empty(), "seed {seed}");
            self.nothing_is_sent_for_ever_too_late(seed).await;
        }
        self.world.stop().await;
    }

    /// What fits is sent again in the end: a policy that nobody needs keeps nobody out.
    async fn nothing_is_sent_for_ever_too_late(&mut self, seed: u64) {
        let few = gauges("last", 0..5);
        for n in 0..360 {
            self.world.scrape(&few, f64::from(n)).await;
        }
        let stored = self.world.mimir.stored();
        let last = stored.keys().filter(|series| series.contains("last")).count();
        assert_eq!(last, 5, "seed {seed}: an hour and a half later everything has its slot");
    }
}

#[tokio::test(start_paused = true)]
async fn no_schedule_breaks_the_promises() {
    for seed in seeds() {
        Schedule::new(seed, Server::Open).run().await;
    }
}

#[tokio::test(start_paused = true)]
async fn no_schedule_breaks_them_where_the_server_has_limits_and_others_use_it() {
    for seed in seeds() {
        Schedule::new(seed, Server::Limited).run().await;
    }
}
