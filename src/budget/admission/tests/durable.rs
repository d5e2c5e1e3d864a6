//! What is decided and what of it is written.

use std::sync::atomic::{AtomicU64, Ordering};

use super::*;
use crate::budget::pool::Pool;

const NOW: Duration = Duration::from_secs(1000);

/// An endpoint of an account that several share.
fn member(disk: &SimDisk, pool: &Arc<Pool>, name: &str, target: u64) -> Admission {
    Admission::open(Opening {
        limits: Some(limits(target, 0)),
        policy: Policy::default(),
        disk: Arc::new(disk.clone()),
        path: &path(name),
        ran_before: false,
        seat: Seat::new(Arc::clone(pool), name, false),
        ranking: None,
        now: NOW,
    })
}

fn path(name: &str) -> std::path::PathBuf {
    Path::new("forward").join(name).join("ledger")
}

/// Says that all of `series` have samples.
fn want(admission: &mut Admission, series: &[Labels], now: Duration) -> Vec<(GroupIndex, Key)> {
    admission.advance(now, WALL);
    let place = |labels: &Labels| {
        let key = Key::of(labels);
        let group = admission.register(labels, key, Provenance::default()).series.group;
        admission.want(group, now);
        (group, key)
    };
    series.iter().map(place).collect()
}

fn sent(admission: &Admission, places: &[(GroupIndex, Key)]) -> usize {
    places.iter().filter(|(group, key)| admission.check(*group, *key).is_ok()).count()
}

#[test]
fn nothing_is_sent_before_it_is_written_nor_when_that_fails() {
    let disk = SimDisk::new();
    let mut admission = member(&disk, &Arc::default(), "a", 100);
    let places = want(&mut admission, &gauges("a", 50), NOW);
    let work = admission.decide(NOW);
    assert_eq!((sent(&admission, &places), admission.live()), (0, 50), "the slots are taken");
    disk.set_plan(Some(Plan { call: 0, fault: Fault::Full, repeated: true }));
    admission.settle(work.write(), NOW, WALL);
    assert_eq!((sent(&admission, &places), admission.live()), (0, 0));
    assert_eq!(admission.check(places[0].0, places[0].1), Err(Reason::LedgerFailed));
    assert!(admission.ledger_error().is_some());
    disk.set_plan(None);
    let later = NOW + Duration::from_secs(5);
    admission.advance(later, WALL);
    let work = admission.decide(later);
    assert!(admission.ledger_error().is_some(), "until it is written");
    admission.settle(work.write(), later, WALL);
    assert_eq!((sent(&admission, &places), admission.live()), (50, 50));
    assert_eq!(admission.ledger_error(), None);
}

#[test]
fn what_one_endpoint_has_promised_the_other_cannot_have_before_the_promise_is_broken() {
    let disk = SimDisk::new();
    let pool = Arc::<Pool>::default();
    let mut a = member(&disk, &pool, "a", 100);
    let mut b = member(&disk, &pool, "b", 100);
    let of_a = want(&mut a, &gauges("a", 80), NOW);
    let work = a.decide(NOW);
    let of_b = want(&mut b, &gauges("b", 40), NOW);
    b.plan(NOW, WALL);
    assert_eq!(sent(&b, &of_b), 0, "there are twenty");
    let broken = disk.clone();
    broken.set_plan(Some(Plan { call: 0, fault: Fault::Io, repeated: true }));
    a.settle(work.write(), NOW, WALL);
    broken.set_plan(None);
    let later = NOW + Duration::from_mins(1);
    want(&mut b, &gauges("b", 40), later);
    b.plan(later, WALL);
    assert_eq!((sent(&a, &of_a), sent(&b, &of_b)), (0, 40));
    want(&mut a, &gauges("a", 80), later);
    a.plan(later, WALL);
    assert_eq!(sent(&a, &of_a), 0, "now it is the other way round");
    assert_eq!(a.live() + b.live(), 40);
}

#[test]
fn nobody_holds_the_account_while_anything_is_written() {
    let disk = SimDisk::new();
    let pool = Arc::<Pool>::default();
    let mut gone = member(&disk, &pool, "gone", 100);
    want(&mut gone, &gauges("gone", 10), NOW);
    gone.plan(NOW, WALL);
    drop(gone);
    pool.leave("gone", Arc::new(disk.clone()), &path("gone"), NOW);
    let mut admission = member(&disk, &pool, "a", 100);
    let seat = admission.seat.clone();
    let (calls, held) = (Arc::new(AtomicU64::new(0)), Arc::new(AtomicU64::new(0)));
    let (counted, found) = (Arc::clone(&calls), Arc::clone(&held));
    disk.watch(move |_| {
        counted.fetch_add(1, Ordering::Relaxed);
        found.fetch_add(u64::from(!seat.is_free()), Ordering::Relaxed);
    });
    for minute in 0..30 {
        let now = NOW + Duration::from_mins(minute);
        let few = gauges("a", 5 + minute);
        want(&mut admission, &few, now);
        admission.plan(now, Timestamp(WALL.as_ms() + minute as i64 * 60_000));
    }
    disk.unwatch();
    assert!(calls.load(Ordering::Relaxed) > 100, "{calls:?}");
    assert_eq!(held.load(Ordering::Relaxed), 0);
    assert_eq!(admission.seat.others(), 0, "what left was forgotten, and written so");
    let (_, found) = Ledger::open(Arc::new(disk), &path("gone"), HOLD, NOW);
    assert_eq!(found, Found::Leases(0));
}

#[test]
fn what_is_written_of_an_endpoint_that_left_does_not_come_behind_its_return() {
    let disk = SimDisk::new();
    let pool = Arc::<Pool>::default();
    let mut b = member(&disk, &pool, "b", 100);
    want(&mut b, &gauges("old", 10), NOW);
    b.plan(NOW, WALL);
    drop(b);
    pool.leave("b", Arc::new(disk.clone()), &path("b"), NOW);
    let mut a = member(&disk, &pool, "a", 100);
    let later = NOW + Duration::from_mins(2);
    a.advance(later, WALL);
    let late = a.decide(later);
    // It is back before that was written, and is granted more.
    let mut b = member(&disk, &pool, "b", 100);
    want(&mut b, &gauges("new", 20), NOW);
    b.plan(NOW, WALL);
    a.settle(late.write(), later, WALL);
    want(&mut b, &gauges("newer", 20), NOW);
    b.plan(NOW, WALL);
    assert_eq!((b.live(), a.seat.others()), (50, 50));
    let left = disk.after_crash(Crash::ALL[1]);
    let (_, found) = Ledger::open(Arc::new(left), &path("b"), HOLD, NOW);
    assert_eq!(found, Found::Leases(50));
}

#[test]
fn what_is_taken_out_while_it_is_written_stays_out() {
    let disk = SimDisk::new();
    let mut admission = member(&disk, &Arc::default(), "a", 100);
    let places = want(&mut admission, &histogram("h", &["1", "2"]), NOW);
    admission.plan(NOW, WALL);
    assert_eq!(sent(&admission, &places), 4);
    let later = NOW + Duration::from_mins(1);
    // It grows, and the account says that there is room for nothing.
    let places = want(&mut admission, &histogram("h", &["1", "2", "3"]), later);
    let work = admission.decide(later);
    let said = crate::budget::feedback::Said { enforced: Some(1), ..Default::default() };
    admission.hear(said, later, WALL);
    admission.settle(work.write(), later, WALL);
    assert_eq!(sent(&admission, &places), 0);
    assert_eq!(admission.live(), 5, "the server may be counting all of them");
}

fn damage(disk: &SimDisk, name: &str) {
    let path = path(name);
    disk.create_dir(path.parent().unwrap()).unwrap();
    path.ancestors().skip(2).for_each(|dir| disk.sync_dir(dir).unwrap());
    stint_storage::disk::write_atomically(disk, &path, b"nonsense").unwrap();
}

#[test]
fn a_ledger_is_not_written_before_its_doubt_is() {
    let mut most = 0;
    // Whichever call the disk begins to fail with.
    for call in 0..12 {
        let disk = SimDisk::new();
        damage(&disk, "a");
        disk.set_plan(Some(Plan { call, fault: Fault::Full, repeated: true }));
        let mut admission = member(&disk, &Arc::default(), "a", 100);
        assert!(admission.is_in_doubt(NOW), "call {call}");
        let few = gauges("a", 5);
        let places = want(&mut admission, &few, NOW);
        admission.plan(NOW, WALL);
        disk.set_plan(None);
        let later = NOW + Duration::from_secs(5);
        want(&mut admission, &few, later);
        admission.plan(later, WALL);
        assert_eq!(admission.ledger_error(), None, "call {call}");
        most = most.max(sent(&admission, &places));
        let left = disk.after_crash(Crash::ALL[1]);
        assert!(member(&left, &Arc::default(), "a", 100).is_in_doubt(NOW), "call {call}");
    }
    assert_eq!(most, 5, "what could be read says how much there is room for");
}

/// An endpoint without a budget.
fn unlimited(disk: &SimDisk, pool: &Arc<Pool>) -> Admission {
    Admission::open(Opening {
        limits: None,
        policy: Policy::default(),
        disk: Arc::new(disk.clone()),
        path: &path("a"),
        ran_before: false,
        seat: Seat::new(Arc::clone(pool), "a", false),
        ranking: None,
        now: NOW,
    })
}

#[test]
fn that_a_run_without_a_budget_is_not_marked_is_told_until_it_is() {
    let disk = SimDisk::new();
    disk.set_plan(Some(Plan { call: 0, fault: Fault::Full, repeated: true }));
    let mut admission = unlimited(&disk, &Arc::default());
    admission.plan(NOW, WALL);
    assert!(admission.ledger_error().is_some());
    disk.set_plan(None);
    let later = NOW + Duration::from_secs(5);
    admission.advance(later, WALL);
    admission.plan(later, WALL);
    assert_eq!(admission.ledger_error(), None);
    let left = disk.after_crash(Crash::KILL);
    assert!(matches!(member(&left, &Arc::default(), "a", 100).found(), Found::Damaged(_)));
}

#[test]
fn the_marker_of_a_run_without_a_budget_goes_with_the_doubt_whatever_failed() {
    for call in 0..60 {
        let disk = SimDisk::new();
        drop(unlimited(&disk, &Arc::default()));
        disk.set_plan(Some(Plan { call, fault: Fault::Io, repeated: false }));
        let mut admission = member(&disk, &Arc::default(), "a", 100);
        disk.set_plan(None);
        for minute in 0..=23 {
            let now = NOW + Duration::from_mins(minute);
            admission.advance(now, WALL);
            admission.plan(now, WALL);
        }
        drop(admission);
        let again = member(&disk, &Arc::default(), "a", 100);
        assert!(!again.is_in_doubt(NOW), "call {call}");
        assert!(matches!(again.found(), Found::Leases(0)), "call {call}");
    }
}

#[test]
fn what_is_in_doubt_at_one_endpoint_binds_the_others_from_the_start() {
    let disk = SimDisk::new();
    let pool = Arc::<Pool>::default();
    let a = member(&disk, &pool, "a", 100);
    assert_eq!(a.slots(NOW), 100);
    damage(&disk, "b");
    let b = member(&disk, &pool, "b", 100);
    assert_eq!((a.slots(NOW), b.slots(NOW)), (10, 10), "although it does not go on");
}

#[test]
fn what_a_forwarder_that_was_given_up_writes_does_not_come_behind_its_successor() {
    let disk = SimDisk::new();
    let pool = Arc::<Pool>::default();
    let mut old = member(&disk, &pool, "a", 100);
    want(&mut old, &gauges("old", 10), NOW);
    old.plan(NOW, WALL);
    let places = want(&mut old, &gauges("late", 10), NOW);
    let late = old.decide(NOW);
    let mut new = member(&disk, &pool, "a", 100);
    want(&mut new, &gauges("new", 20), NOW);
    new.plan(NOW, WALL);
    old.settle(late.write(), NOW, WALL);
    assert_eq!(sent(&old, &places), 0);
    old.advance(NOW, WALL);
    let done = old.close(NOW).write();
    old.settle(done, NOW, WALL);
    old.beside(NOW).write();
    let b = member(&disk, &pool, "b", 100);
    assert_eq!(b.seat.others(), 30, "what the new one holds");
    let left = disk.after_crash(Crash::ALL[1]);
    let (_, found) = Ledger::open(Arc::new(left), &path("a"), HOLD, NOW);
    assert_eq!(found, Found::Leases(30));
}
