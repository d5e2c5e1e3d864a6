use proptest::prelude::*;
use stint_storage::SimDisk;

use super::*;
use crate::budget::group::Key;
use crate::budget::ledger::{Ledger, unlisted};
use crate::budget::limits::HOLD;

#[test]
fn parts_are_equal_but_for_what_is_not_needed() {
    assert_eq!(fair_parts(&[100, 100], 100), [50, 50]);
    assert_eq!(fair_parts(&[10, 100, u64::MAX], 100), [10, 45, 45]);
    assert_eq!(fair_parts(&[10, 20], 100), [10, 20]);
    assert!(fair_parts(&[], 5).is_empty());
}

proptest! {
    #[test]
    fn parts_are_the_fairest_there_are(asks in proptest::collection::vec(0u64..200, 1..8), total in 0u64..600) {
        let parts = fair_parts(&asks, total);
        let sum: u64 = parts.iter().sum();
        prop_assert!(sum <= total);
        let most = parts.iter().copied().max().unwrap();
        for (part, ask) in parts.iter().zip(&asks) {
            prop_assert!(part <= ask);
            // Nobody lacks something that somebody else has more of.
            prop_assert!(part == ask || part + 1 >= most, "{parts:?} of {asks:?}");
        }
        prop_assert!(sum == total.min(asks.iter().sum()));
    }
}

fn seats() -> (Arc<Pool>, Seat, Seat) {
    let pool = Arc::<Pool>::default();
    let seat = |name| Seat::new(Arc::clone(&pool), name, false);
    let (a, b) = (seat("a"), seat("b"));
    a.join(0, None);
    b.join(0, None);
    (pool, a, b)
}

#[test]
fn what_one_holds_the_other_cannot_have() {
    let (_, a, b) = seats();
    a.grant(|others| (70 - others, ()));
    assert_eq!((a.others(), b.others()), (0, 70));
    b.note_wants(60);
    assert_eq!((a.fair(100), b.fair(100)), (50, 50));
    b.note_wants(10);
    assert_eq!((a.fair(100), b.fair(100)), (90, 50));
    assert!(a.is_somebody_short() && !b.is_somebody_short());
}

#[test]
fn what_has_a_part_of_its_own_neither_takes_nor_gives() {
    let pool = Arc::<Pool>::default();
    let (a, own) = (Seat::new(Arc::clone(&pool), "a", false), Seat::new(pool, "own", true));
    a.join(5, None);
    own.join(7, None);
    assert_eq!((a.others(), own.others()), (0, 0));
    assert_eq!((a.fair(100), own.fair(100)), (100, 100));
}

#[test]
fn what_left_counts_until_the_server_has_forgotten_it() {
    let disk: Arc<dyn Disk> = Arc::new(SimDisk::new());
    let path = Path::new("forward/b/ledger");
    let (mut ledger, _) = Ledger::open(Arc::clone(&disk), path, HOLD, Duration::ZERO);
    ledger.grant(&[(Key(1), 0), (Key(2), 0)], 10, Duration::ZERO).unwrap();
    let (pool, a, b) = seats();
    b.note(2);
    pool.leave("b", Arc::clone(&disk), path, Duration::ZERO);
    assert_eq!((a.others(), a.fair(10)), (2, 8));
    let later = HOLD.to_std() + Duration::from_secs(61);
    a.advance(later);
    assert_eq!(a.others(), 0);
    // It comes back, and counts its own again.
    pool.leave("b", disk, path, later);
    b.join(1, None);
    assert_eq!(a.others(), 1);
}

#[test]
fn a_damaged_ledger_of_one_that_left_stops_all_until_it_does_not_matter_any_more() {
    let disk = SimDisk::new();
    let disk: Arc<dyn Disk> = Arc::new(disk);
    let path = Path::new("ledger");
    stint_storage::disk::write_atomically(&*disk, path, b"nonsense").unwrap();
    let (pool, a, _) = seats();
    pool.leave("gone", disk, path, Duration::ZERO);
    assert_eq!(a.ceiling(Duration::ZERO), Some(0));
    assert_eq!(a.ceiling(HOLD.to_std() + Duration::from_mins(1)), None);
}

/// The endpoint `b` of an account, of which the ledger lies on `disk`, has left.
fn left(disk: &SimDisk, now: Duration) -> (Arc<Pool>, Seat) {
    let (pool, a, _) = seats();
    pool.leave("b", Arc::new(disk.clone()), Path::new(LEDGER), now);
    (pool, a)
}

fn pass(seat: &Seat, now: Duration) {
    seat.advance(now);
    let written = seat.left_writes(now).into_iter().filter_map(LeftWrite::run).collect();
    seat.settle_left(written, now);
}

const LEDGER: &str = "forward/b/ledger";

fn put(disk: &SimDisk, file: &str, content: &str) {
    let path = Path::new("forward/b").join(file);
    disk.create_dir(Path::new("forward/b")).unwrap();
    stint_storage::disk::write_atomically(disk, &path, content.as_bytes()).unwrap();
}

fn listed() -> SimDisk {
    let disk = SimDisk::new();
    let path = Path::new(LEDGER);
    let (mut ledger, _) = Ledger::open(Arc::new(disk.clone()), path, HOLD, Duration::ZERO);
    ledger.grant(&[(Key(1), 0), (Key(2), 0)], 10, Duration::ZERO).unwrap();
    disk
}

#[test]
fn a_doubt_outlives_that_its_endpoint_leaves() {
    let disk = listed();
    put(&disk, "ledger.doubt", "full 2 600\n");
    let (_, a) = left(&disk, Duration::ZERO);
    assert_eq!(a.ceiling(Duration::from_mins(12)), Some(0));
    pass(&a, Duration::from_mins(7));
    // Restarts do not end it either, and it does not begin anew.
    let (_, a) = left(&disk, Duration::ZERO);
    assert_eq!(a.ceiling(Duration::from_mins(5)), Some(0));
    assert_eq!(a.ceiling(Duration::from_mins(6)), None);
    pass(&a, Duration::from_mins(6));
    assert_eq!(left(&disk, Duration::ZERO).1.ceiling(Duration::ZERO), None);
}

#[test]
fn a_damaged_ledger_of_one_that_left_is_in_doubt_after_a_restart_too() {
    let disk = listed();
    put(&disk, "ledger", "nonsense");
    let (_, a) = left(&disk, Duration::ZERO);
    for minute in 0..5 {
        pass(&a, Duration::from_mins(minute));
    }
    let (_, found) = Ledger::open(Arc::new(disk.clone()), Path::new(LEDGER), HOLD, Duration::ZERO);
    assert_eq!(found, Found::Leases(0), "it was written anew");
    let (_, a) = left(&disk, Duration::ZERO);
    assert_eq!(a.ceiling(Duration::from_mins(18)), Some(0));
    assert_eq!(a.ceiling(Duration::from_mins(19)), None);
}

#[test]
fn a_run_without_a_budget_that_is_not_there_any_more_closes_the_account_once() {
    let disk = listed();
    put(&disk, "ledger.unlisted", "unlisted\n");
    let (_, a) = left(&disk, Duration::ZERO);
    assert_eq!((a.others(), a.ceiling(Duration::from_mins(22))), (2, Some(0)));
    for minute in 0..=23 {
        pass(&a, Duration::from_mins(minute));
    }
    assert!(!unlisted::is_marked(&disk, Path::new(LEDGER)));
    assert_eq!(left(&disk, Duration::ZERO).1.ceiling(Duration::ZERO), None);
}

#[test]
fn the_ledger_of_one_that_left_is_not_written_before_its_doubt_is() {
    use stint_storage::disk::sim::{Fault, Plan};
    let disk = listed();
    put(&disk, "ledger", "nonsense");
    disk.set_plan(Some(Plan { call: 0, fault: Fault::Full, repeated: true }));
    let (_, a) = left(&disk, Duration::ZERO);
    assert_eq!(a.ceiling(Duration::ZERO), Some(0));
    disk.set_plan(None);
    pass(&a, Duration::from_mins(1));
    let (_, found) = Ledger::open(Arc::new(disk.clone()), Path::new(LEDGER), HOLD, Duration::ZERO);
    assert_eq!(found, Found::Leases(0));
    assert_eq!(left(&disk, Duration::ZERO).1.ceiling(Duration::ZERO), Some(0));
}
