//! Targets that come and go and are known by a number: what arrives is checked sample by sample.

use std::collections::BTreeSet;

use stint_model::Selector;

use super::schedules::seeds;
use super::*;
use crate::config::IdentityRule;

const REPLICAS: usize = 4;

/// Tasks of one service. Each has a number of its own in all that it shows: `temp` is that number, and the
/// decimals of `jobs_total` are.
struct Service {
    /// Task of each replica, and since when it counts.
    tasks: [(u32, u32); REPLICAS],
    next: u32,
    /// All tasks there ever were.
    all: u32,
}

impl Service {
    fn new() -> Self {
        let tasks = std::array::from_fn(|n| (n as u32 + 1, 0));
        let next = REPLICAS as u32 + 1;
        Self { tasks, next, all: next - 1 }
    }

    fn labels(task: u32, name: &str) -> Labels {
        let instance = format!("10.0.0.{task}:80");
        Labels::from_pairs([("__name__", name), ("job", "web"), ("instance", &instance)])
    }

    fn series(task: u32, counted: u32, at: Timestamp) -> Vec<(Labels, Sample)> {
        let one = |name, value| (Self::labels(task, name), Sample::float(at, value));
        vec![
            one("up", 1.0),
            one("jobs_total", f64::from(counted) + f64::from(task) / 4096.0),
            one("temp", f64::from(task)),
        ]
    }

    fn ends(task: u32, at: Timestamp) -> Vec<(Labels, Sample)> {
        let names = ["temp", "up", "jobs_total"];
        names.map(|name| (Self::labels(task, name), Sample::stale(at))).into()
    }

    /// The samples of one scrape of all, in which `replaced` is replaced.
    fn scrape(&mut self, n: u32, at: Timestamp, replaced: Option<How>) -> Vec<(Labels, Sample)> {
        let mut samples = Vec::new();
        if let Some(How { replica, overlaps, is_silent, head_start }) = replaced {
            let (old, since) = self.tasks[replica];
            // A task that has run for a while is ahead of the one it follows.
            self.tasks[replica] = (self.next, n.saturating_sub(head_start));
            (self.next, self.all) = (self.next + 1, self.next);
            if overlaps {
                samples.extend(Self::series(old, n - since, at));
            } else if !is_silent {
                samples.extend(Self::ends(old, at));
            }
        }
        for (task, since) in self.tasks {
            samples.extend(Self::series(task, n - since, at));
        }
        samples
    }
}

/// How a task is replaced.
#[derive(Clone, Copy)]
struct How {
    replica: usize,
    /// The old one is there once more beside the new one.
    overlaps: bool,
    /// Nothing tells that it has ended.
    is_silent: bool,
    head_start: u32,
}

fn identified(series: u64) -> Budget {
    let rule = IdentityRule {
        selectors: vec![Selector::new(vec![stint_model::Matcher::equal("job", "web")])],
        replace: vec!["instance".into()],
        per: vec!["job".into()],
        info: Some("target_identity".into()),
    };
    Budget { identities: vec![rule], ..budget(series) }
}

impl World {
    fn append(&self, samples: &[(Labels, Sample)]) {
        self.log.lock().append(samples);
    }
}

/// What became of one series: the owners of its samples in order of time; whether each was parted from
/// the one before.
fn owners(samples: &[(i64, u64)], owner_of: impl Fn(f64) -> u32, seed: u64) -> Vec<u32> {
    let by_time: BTreeMap<i64, u64> = samples.iter().copied().collect();
    let mut owners: Vec<u32> = Vec::new();
    let mut parted_at = None;
    for (at, bits) in by_time {
        let value = f64::from_bits(bits);
        if bits == STALE_NAN_BITS || value == 0.0 {
            parted_at = Some(at);
            continue;
        }
        let owner = owner_of(value);
        if owners.last().is_some_and(|last| *last != owner) {
            let gap = parted_at.map(|parted| at - parted);
            assert!(gap.is_some(), "seed {seed}: {owners:?} → {owner} at {at} without a mark");
            assert!(!owners.contains(&owner), "seed {seed}: {owners:?} → {owner}");
        }
        if owners.last() != Some(&owner) {
            owners.push(owner);
        }
        parted_at = None;
    }
    owners
}

/// Checks that no series mixes tasks, that zeroes stand between them alone, and how many numbers there are.
fn assert_apart(stored: &BTreeMap<String, Vec<(i64, u64)>>, seed: u64) -> (usize, BTreeSet<u32>) {
    let (mut numbers, mut seen) = (0, BTreeSet::new());
    for (series, samples) in stored {
        if series.contains("temp") {
            numbers += 1;
            seen.extend(owners(samples, |value| value as u32, seed));
        } else if series.contains("jobs_total") {
            owners(samples, |value| (value.fract() * 4096.0).round() as u32, seed);
            let by_time: BTreeMap<i64, u64> = samples.iter().copied().collect();
            // A zero in the middle of one task's samples would be a reset that never was.
            let values: Vec<f64> = by_time
                .values()
                .filter(|bits| **bits != STALE_NAN_BITS)
                .map(|bits| f64::from_bits(*bits))
                .collect();
            for three in values.windows(3).filter(|three| three[1] == 0.0) {
                assert_ne!(three[0].fract(), three[2].fract(), "seed {seed}: {series} {three:?}");
            }
        }
        assert!(!series.contains("10.0.0.") || series.contains("target_identity"), "{series}");
    }
    (numbers, seen)
}

#[tokio::test(start_paused = true)]
async fn a_rolling_deploy_takes_one_number_more() {
    let mut world = World::new(identified(1000)).settled();
    let mut service = Service::new();
    world.start();
    pass(1).await;
    for n in 0..160u32 {
        let step = n / 8;
        let replica = step as usize % REPLICAS;
        let how = How { replica, overlaps: true, is_silent: false, head_start: 50 };
        let mut samples = service.scrape(n, world.clock.now(), (n % 8 == 4).then_some(how));
        if n % 8 == 5 {
            // The one that was replaced: the newest but those that are there.
            let gone = step + 1;
            samples.extend(Service::ends(gone, world.clock.now()));
        }
        world.append(&samples);
        pass(15).await;
    }
    pass(30).await;
    let stored = world.mimir.stored();
    let (numbers, seen) = assert_apart(&stored, 0);
    assert_eq!((service.all, seen.len()), (24, 24), "every task was seen there");
    assert_eq!(numbers, REPLICAS + 1);
    let told = stored.keys().filter(|series| series.contains("target_identity"));
    assert_eq!(told.count(), 24, "one series tells of each task");
    // Four series of each number and one of each task; without, three of each task.
    assert!(world.mimir.active_most() <= 3 * (REPLICAS + 1) + 24);
    let identities = world.status().identities.unwrap();
    assert_eq!((identities.numbers, identities.held, identities.takeovers), (5, 4, 19));
    // A counter that goes on higher is one that began anew.
    let jobs = stored.iter().filter(|(series, _)| series.contains("jobs_total"));
    let zeroes = jobs.flat_map(|(_, samples)| samples).filter(|(_, bits)| *bits == 0);
    assert_eq!(zeroes.count(), 19);
    assert_ordered(&stored);
    world.account();
}

#[tokio::test(start_paused = true)]
async fn what_a_target_showed_before_it_lost_its_number_stays_under_that() {
    let mut world = World::new(identified(1000)).settled();
    world.start();
    pass(1).await;
    world.append(&Service::series(1, 1, world.clock.now()));
    pass(60).await;
    world.stop().await;
    // All of this is read at once: the task shows more, ends, is followed by another, and comes back.
    for counted in 2..5 {
        world.append(&Service::series(1, counted, world.clock.now()));
        pass(60).await;
    }
    let ended = world.clock.now();
    world.append(&Service::ends(1, ended));
    for counted in 100..103 {
        pass(60).await;
        world.append(&Service::series(2, counted, world.clock.now()));
    }
    pass(60).await;
    world.append(&Service::series(1, 200, world.clock.now()));
    world.start();
    pass(60).await;
    let stored = world.mimir.stored();
    let (numbers, seen) = assert_apart(&stored, 0);
    assert_eq!((numbers, seen), (2, BTreeSet::from([1, 2])));
    for (series, samples) in stored.iter().filter(|(series, _)| series.contains("temp")) {
        let of = |task: f64| samples.iter().filter(move |(_, bits)| f64::from_bits(*bits) == task);
        let before = of(1.0).filter(|(at, _)| *at < ended.0).count();
        let is_first = of(2.0).count() > 0;
        assert_eq!(before, if is_first { 4 } else { 0 }, "{series}: {samples:?}");
    }
    world.account();
}

#[tokio::test(start_paused = true)]
async fn a_lost_file_parts_what_may_have_been_others() {
    let mut world = World::new(identified(1000)).settled();
    let mut service = Service::new();
    world.start();
    pass(1).await;
    for n in 0..8 {
        world.append(&service.scrape(n, world.clock.now(), None));
        pass(15).await;
    }
    world.stop().await;
    let file = directory(&world.config.name).join("identities");
    stint_storage::Disk::remove(&world.disk, &file).unwrap();
    world.start();
    // In another order, so that numbers change hands.
    service.tasks.reverse();
    for n in 8..16 {
        world.append(&service.scrape(n, world.clock.now(), None));
        pass(15).await;
    }
    pass(15).await;
    let stored = world.mimir.stored();
    assert_eq!(assert_apart(&stored, 0).0, REPLICAS);
    let temp = stored.iter().filter(|(series, _)| series.contains("temp"));
    let changed = temp.filter(|(_, samples)| owners(samples, |value| value as u32, 0).len() == 2);
    assert_eq!(changed.count(), REPLICAS, "all of them changed hands");
    world.account();
}

#[tokio::test(start_paused = true)]
async fn while_numbers_cannot_be_kept_new_targets_wait() {
    let mut world = World::new(identified(1000)).settled();
    let mut service = Service::new();
    world.start();
    pass(1).await;
    for n in 0..8 {
        world.append(&service.scrape(n, world.clock.now(), None));
        pass(15).await;
    }
    world.disk.set_capacity(0);
    let how = How { replica: 0, overlaps: false, is_silent: false, head_start: 0 };
    for n in 8..12 {
        world.append(&service.scrape(n, world.clock.now(), (n == 8).then_some(how)));
        pass(15).await;
    }
    let new = Service::labels(5, "temp");
    let is_there = |world: &World| {
        let value = f64::from(5).to_bits();
        world.mimir.stored().iter().any(|(series, samples)| {
            series.contains("temp") && samples.iter().any(|(_, bits)| *bits == value)
        })
    };
    assert!(!is_there(&world), "{new} would have no number after a crash");
    assert!(world.status().counters.withheld[&Reason::LedgerFailed] > 0);
    world.disk.set_capacity(u64::MAX);
    for n in 12..20 {
        world.append(&service.scrape(n, world.clock.now(), None));
        pass(15).await;
    }
    assert!(is_there(&world));
    world.account();
}

/// One schedule of deploys, kills, stops and outages.
async fn schedule(seed: u64) {
    let mut chance = Jitter::seeded(seed.wrapping_add(1 << 40));
    let mut draw = move |below: u64| chance.next_u64() % below;
    let mut world = World::new(identified(400)).settled();
    world.poll = Duration::from_secs(5);
    let mut service = Service::new();
    let mut ended = Vec::new();
    world.start();
    pass(1).await;
    for n in 0..240u32 {
        match draw(40) {
            0 => world.mimir.set_mood(Mood::Unreachable),
            1 => world.mimir.set_mood(Mood::Mute),
            2 => world.mimir.set_mood(Mood::Late),
            3 => world.mimir.set_mood(Mood::Answers(answer(503, "busy"))),
            4..=12 => world.mimir.set_mood(Mood::Well),
            13 | 14 => {
                world.kill().await;
                world.start();
            }
            15 => {
                world.stop().await;
                let secs = draw(1200);
                if draw(2) == 0 {
                    // The whole server was away, and not the forwarder alone.
                    pass(secs).await;
                }
                world.start();
            }
            _ => {}
        }
        let how = (draw(5) == 0).then(|| How {
            replica: draw(REPLICAS as u64) as usize,
            overlaps: draw(2) == 0,
            is_silent: draw(3) == 0,
            head_start: draw(200) as u32,
        });
        let at = world.clock.now();
        let mut samples = Vec::new();
        samples.extend(ended.drain(..).flat_map(|task| Service::ends(task, at)));
        if let Some(how) = how.filter(|how| how.overlaps && !how.is_silent) {
            ended.push(service.tasks[how.replica].0);
        }
        samples.extend(service.scrape(n, at, how));
        world.append(&samples);
        pass(15).await;
        world.account();
    }
    world.mimir.set_mood(Mood::Well);
    pass(700).await;
    let status = world.status();
    assert_eq!(status.counters.pending, 0, "seed {seed}");
    let stored = world.mimir.stored();
    let (numbers, _) = assert_apart(&stored, seed);
    assert!(service.all > 30, "seed {seed}: {} tasks", service.all);
    // Those that end in silence keep theirs for minutes.
    assert!(numbers <= 3 * REPLICAS, "seed {seed}: {numbers} numbers of {} tasks", service.all);
    assert!(world.mimir.active_most() <= 400, "seed {seed}");
    world.mimir.assert_in_order(|at, _| at as f64, seed);
    world.account();
    world.stop().await;
}

#[tokio::test(start_paused = true)]
async fn no_schedule_mixes_targets_in_one_series() {
    for seed in seeds() {
        schedule(seed).await;
    }
}
