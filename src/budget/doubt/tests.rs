use stint_storage::SimDisk;
use stint_storage::disk::write_atomically;

use super::*;
use crate::budget::group::Key;

const PATH: &str = "forward/a/ledger";
const NOW: Duration = Duration::from_secs(1000);

fn open_at(disk: &SimDisk, now: Duration) -> Opened {
    let (disk, path) = (Arc::new(disk.clone()), Path::new(PATH));
    open(Opening { disk, path, missing: None, others: 0, lists: true, now })
}

/// A disk with a ledger of so many leases.
fn listed(series: u128) -> SimDisk {
    let disk = SimDisk::new();
    let (mut ledger, _) = Ledger::open(Arc::new(disk.clone()), Path::new(PATH), HOLD, NOW);
    let wanted: Vec<(Key, u16)> = (0..series).map(|key| (Key(key), 0)).collect();
    ledger.grant(&wanted, 100, NOW).unwrap();
    disk
}

fn damage(disk: &SimDisk) {
    write_atomically(disk, Path::new(PATH), b"nonsense").unwrap();
}

fn mark(disk: &SimDisk) {
    unlisted::mark(Arc::new(disk.clone()), Path::new(PATH)).try_write().unwrap();
}

#[test]
fn a_ledger_that_can_be_trusted_is_not_in_doubt() {
    let opened = open_at(&listed(3), NOW);
    assert_eq!(opened.found, Found::Leases(3));
    assert!(opened.doubt.is_none() && opened.problem.is_none());
    let none = open_at(&SimDisk::new(), NOW);
    assert!(none.doubt.is_none() && none.found == Found::Missing, "nothing is assumed");
}

#[test]
fn a_damaged_ledger_makes_no_doubt_milder() {
    let disk = listed(3);
    mark(&disk);
    assert_eq!(open_at(&disk, NOW).doubt.unwrap().rule, MissingLedger::Unlisted);
    damage(&disk);
    let doubt = open_at(&disk, NOW).doubt.unwrap();
    assert_eq!((doubt.rule, doubt.recovered), (MissingLedger::Unlisted, 0));
}

#[test]
fn what_a_second_damage_hides_was_granted_beside_what_the_first_one_did() {
    let disk = listed(3);
    damage(&disk);
    assert_eq!(open_at(&disk, NOW).doubt.unwrap().rule, MissingLedger::Full);
    damage(&disk);
    assert_eq!(open_at(&disk, NOW).doubt.unwrap().rule, MissingLedger::Unlisted);
    // But for one that is over.
    let disk = listed(3);
    write_atomically(&disk, &marker_of(Path::new(PATH)), b"unlisted 3 1380\n").unwrap();
    damage(&disk);
    assert_eq!(open_at(&disk, NOW).doubt.unwrap().rule, MissingLedger::Full);
}

#[test]
fn a_doubt_takes_the_place_of_the_marker_and_goes_on_over_restarts() {
    let disk = listed(3);
    mark(&disk);
    let first = open_at(&disk, NOW);
    assert!(matches!(first.found, Found::Damaged(_)));
    assert!(!unlisted::is_marked(&disk, Path::new(PATH)));
    let mut doubt = first.doubt;
    let later = NOW + Duration::from_mins(12);
    Doubt::pass(&mut doubt, true, later).into_iter().for_each(Beside::write);
    let mut again = open_at(&disk, NOW).doubt;
    let open = |doubt: &Option<Doubt>, mins| {
        doubt.as_ref().is_some_and(|doubt| doubt.is_open(NOW + Duration::from_mins(mins)))
    };
    assert!(open(&again, 10) && !open(&again, 11));
    let end = Doubt::pass(&mut again, true, NOW + Duration::from_mins(11));
    end.into_iter().for_each(Beside::write);
    assert!(again.is_none() && open_at(&disk, NOW).doubt.is_none());
}
