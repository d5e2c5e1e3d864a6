use stint_model::clock::SimClock;
use stint_model::{Appender as _, Batch, Sample, Timestamp};
use stint_storage::{Options, SimDisk};

use super::*;
use crate::budget::admission::{Admission, Provenance};
use crate::budget::group::Key;
use crate::budget::limits::HOLD;
use crate::config::{Files, load};
use crate::forward::sim::endpoint;

const WALL: Timestamp = Timestamp(1_700_000_000_000);

fn manager(db: &Db, disk: &SimDisk) -> Manager {
    manager_at(db, disk, Arc::new(SimClock::at(WALL)))
}

fn manager_at(db: &Db, disk: &SimDisk, clock: Arc<SimClock>) -> Manager {
    Manager::new(Sources {
        db: db.clone(),
        disk: Arc::new(disk.clone()),
        clock,
        wake: Arc::new(Notify::new()),
        flush_deadline: Duration::from_millis(10),
    })
}

/// Endpoints at which nobody listens.
fn config(names: &[&str]) -> Config {
    let mut config = load(Files::default()).unwrap();
    let unreachable = |name: &&str| endpoint(name, &format!("http://127.0.0.1:1/{name}"));
    config.remote_write = names.iter().map(unreachable).collect();
    config
}

fn append(db: &Db, times: std::ops::Range<i64>) {
    for n in times {
        let mut batch = Batch::default();
        let at = Timestamp(WALL.as_ms() + n * 10_000);
        batch.push(Labels::from_pairs([("__name__", "a")]), Sample::float(at, n as f64));
        db.append(&batch).unwrap();
    }
}

fn status(manager: &Manager) -> Status {
    manager.handles().first().unwrap().status()
}

/// Lets time pass until something is so.
async fn until(is_so: impl Fn() -> bool) {
    for _ in 0..10_000 {
        if is_so() {
            return;
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    panic!("it never became so");
}

#[tokio::test(start_paused = true)]
async fn the_log_of_an_endpoint_that_cannot_start_is_kept_until_it_can() {
    let disk = SimDisk::new();
    let options = Options { segment_bytes: 1 << 14, ..Options::default() };
    let db = Db::open(Arc::new(disk.clone()), options).unwrap().0;
    let manager = manager(&db, &disk);
    // Somebody is in the way of its reader.
    let obstacle = db.hold("read:a", None).unwrap();
    let prepared = manager.prepare(&config(&["a"])).await.unwrap();
    manager.apply(prepared).await;
    until(|| status(&manager).restarts > 0).await;
    assert!(!status(&manager).running);
    assert!(status(&manager).last_error.unwrap().message.contains("already held"));
    append(&db, 0..4000);
    while let Some(job) = db.next_job(Timestamp(WALL.as_ms() + 40_000_000)) {
        job.run().unwrap();
    }
    drop(obstacle);
    until(|| status(&manager).counters.read >= 1000).await;
    assert!(status(&manager).running && status(&manager).counters.gaps == 0);
    manager.stop().await;
}

#[tokio::test(start_paused = true)]
async fn a_renamed_endpoint_reads_what_the_old_one_had_not_delivered() {
    let disk = SimDisk::new();
    let db = Db::open(Arc::new(disk.clone()), Options::default()).unwrap().0;
    let manager = manager(&db, &disk);
    let renamed = |name: &str| {
        let mut config = config(&[name]);
        config.remote_write[0].url = "http://127.0.0.1:1/write".into();
        config
    };
    let prepared = manager.prepare(&renamed("a")).await.unwrap();
    manager.apply(prepared).await;
    append(&db, 0..30);
    until(|| status(&manager).counters.read == 30).await;
    let prepared = manager.prepare(&renamed("b")).await.unwrap();
    manager.apply(prepared).await;
    assert_eq!(&*manager.handles()[0].name, "b");
    until(|| status(&manager).counters.read == 30).await;
    manager.stop().await;
}

#[tokio::test(start_paused = true)]
async fn endpoints_that_stay_the_same_go_on_undisturbed() {
    let disk = SimDisk::new();
    let db = Db::open(Arc::new(disk.clone()), Options::default()).unwrap().0;
    let manager = manager(&db, &disk);
    let prepared = manager.prepare(&config(&["a"])).await.unwrap();
    manager.apply(prepared).await;
    append(&db, 0..5);
    until(|| status(&manager).counters.read == 5).await;
    let prepared = manager.prepare(&config(&["a", "b"])).await.unwrap();
    manager.apply(prepared).await;
    let names: Vec<String> = manager.handles().iter().map(|h| h.name.to_string()).collect();
    assert_eq!(names, ["a", "b"]);
    assert_eq!((status(&manager).counters.read, status(&manager).restarts), (5, 0));
    manager.stop().await;
    assert!(manager.handles().is_empty());
}

#[tokio::test(start_paused = true)]
async fn endpoints_for_one_account_never_hold_more_than_it_has() {
    let disk = SimDisk::new();
    let db = Db::open(Arc::new(disk.clone()), Options::default()).unwrap().0;
    let clock = Arc::new(SimClock::at(WALL));
    let manager = manager_at(&db, &disk, Arc::clone(&clock));
    let budgeted = |names: &[&str]| {
        let mut config = config(names);
        for endpoint in &mut config.remote_write {
            endpoint.url = "http://127.0.0.1:1/write".into();
            endpoint.budget.series = Some(100);
        }
        config
    };
    let allowed = |manager: &Manager| -> Vec<u64> {
        let of = |handle: &Handle| handle.with_budget(Admission::slots_at_start);
        manager.handles().iter().map(of).collect()
    };
    let prepared = manager.prepare(&budgeted(&["a"])).await.unwrap();
    manager.apply(prepared).await;
    assert_eq!(allowed(&manager), [50], "a first start");
    let prepared = manager.prepare(&budgeted(&["a", "b"])).await.unwrap();
    manager.apply(prepared).await;
    let series = |manager: &Manager| -> Vec<u64> {
        let of = |handle: &Handle| handle.with_budget(|it| it.limits().unwrap().target);
        manager.handles().iter().map(of).collect()
    };
    assert_eq!(series(&manager), [100, 100]);
    assert_eq!(allowed(&manager), [50, 50], "of what the first start leaves, either may take all");
    let gauges = |name: &str, count: usize| -> Vec<Labels> {
        let one = |n: usize| Labels::from_pairs([("__name__", name), ("n", &n.to_string())]);
        (0..count).map(one).collect()
    };
    let want = |place: usize, series: &[Labels], now: Duration| {
        let handle = manager.handles().remove(place);
        let mut admission = handle.admission.lock();
        admission.advance(now, WALL);
        for labels in series {
            let place = admission.register(labels, Key::of(labels), Provenance::default());
            admission.want(place.series.group, now);
        }
        admission.plan(now, WALL);
        admission.live()
    };
    clock.advance(HOLD);
    let now = clock.monotonic();
    assert_eq!(want(0, &gauges("a", 70), now), 70);
    assert_eq!(want(1, &gauges("b", 40), now), 0, "there are thirty");
    assert_eq!(want(1, &gauges("c", 20), now), 20);
    // What sends no more still counts, until the server has forgotten it.
    let prepared = manager.prepare(&budgeted(&["b"])).await.unwrap();
    manager.apply(prepared).await;
    assert_eq!(want(0, &gauges("d", 20), now), 20, "there are ten");
    let later = now + HOLD.to_std() + Duration::from_secs(70);
    assert_eq!(want(0, &gauges("e", 70), later), 70);
    manager.stop().await;
}

#[tokio::test(start_paused = true)]
async fn what_a_renamed_endpoint_holds_counts_once_and_nothing_of_it_stays_behind() {
    let disk = SimDisk::new();
    let db = Db::open(Arc::new(disk.clone()), Options::default()).unwrap().0;
    let clock = Arc::new(SimClock::at(WALL));
    let manager = manager_at(&db, &disk, Arc::clone(&clock));
    let budgeted = |names: [&str; 2]| {
        let mut config = config(&names);
        for endpoint in &mut config.remote_write {
            endpoint.url = "http://127.0.0.1:1/write".into();
            endpoint.budget.series = Some(100);
        }
        config
    };
    let prepared = manager.prepare(&budgeted(["a", "z"])).await.unwrap();
    manager.apply(prepared).await;
    clock.advance(HOLD);
    append(&db, 0..30);
    until(|| status(&manager).counters.read == 30).await;
    // Lets the endpoint at `place` work a while; beside what is stored it wants so many series.
    let work = |place: usize, count: usize| {
        let handle = manager.handles().remove(place);
        let now = clock.monotonic();
        let mut admission = handle.admission.lock();
        admission.advance(now, WALL);
        for n in 0..count {
            let labels = Labels::from_pairs([("__name__", "b"), ("n", &n.to_string())]);
            let place = admission.register(&labels, Key::of(&labels), Provenance::default());
            admission.want(place.series.group, now);
        }
        admission.plan(now, WALL);
        admission.live()
    };
    let free = |place: usize| {
        let handle = manager.handles().remove(place);
        let now = clock.monotonic();
        handle.with_budget(|admission| admission.slots(now))
    };
    let held = work(0, 60);
    assert!(held >= 60);
    assert_eq!(free(1), 100 - held);
    for (from, to) in [("a", "b"), ("b", "a")] {
        let prepared = manager.prepare(&budgeted([to, "z"])).await.unwrap();
        manager.apply(prepared).await;
        assert_eq!((&*manager.handles()[0].name, free(1)), (to, 100 - held), "once");
        until(|| status(&manager).counters.read == 30).await;
        for _ in 0..3 {
            clock.advance(stint_model::Span::MINUTE);
            work(1, 0);
        }
        let left = disk.list(&crate::forward::cursor::directory(from));
        assert!(left.is_err(), "nothing of {from} is written any more: {left:?}");
    }
    manager.stop().await;
}
