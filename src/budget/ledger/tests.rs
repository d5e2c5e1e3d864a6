use std::path::Path;

use proptest::prelude::*;
use stint_storage::SimDisk;
use stint_storage::disk::sim::{Crash, Fault, Plan};

use super::*;

const PATH: &str = "forward/cloud/ledger";

fn open(disk: &SimDisk, now: Duration) -> (Ledger, Found) {
    Ledger::open(Arc::new(disk.clone()), Path::new(PATH), HOLD, now)
}

const HOLD: Span = crate::budget::limits::HOLD;

fn secs(secs: u64) -> Duration {
    Duration::from_secs(secs)
}

fn keys(range: std::ops::Range<u128>) -> Vec<(Key, u16)> {
    range.map(|n| (Key(n), (n % 3) as u16)).collect()
}

fn plain(range: std::ops::Range<u128>) -> Vec<Key> {
    range.map(Key).collect()
}

/// All at once, for tests.
impl Ledger {
    /// Grants leases to all of `wanted`, or to none.
    pub(crate) fn grant(
        &mut self,
        wanted: &[(Key, u16)],
        slots: u64,
        now: Duration,
    ) -> Result<(), GrantError> {
        let (write, granted) = self.promise(wanted, [], slots, now);
        write.map_or(Ok(()), |write| self.settle(write.run(), now))?;
        granted.map(drop)
    }

    fn renew(&mut self, keys: Vec<Key>, now: Duration) -> Result<(), GrantError> {
        let (write, _) = self.promise(&[], keys, u64::MAX, now);
        write.map_or(Ok(()), |write| self.settle(write.run(), now))
    }

    fn pass(&mut self, now: Duration) -> Result<(), GrantError> {
        self.advance(now);
        self.renew(Vec::new(), now)
    }
}

#[test]
fn a_grant_is_all_or_nothing() {
    let mut ledger = Ledger::in_memory(HOLD);
    ledger.grant(&keys(0..4), 6, secs(0)).unwrap();
    let refused = ledger.grant(&keys(2..7), 6, secs(0));
    assert!(matches!(refused, Err(GrantError::NoRoom { wanted: 3, free: 2 })));
    assert_eq!(ledger.live(), 4);
    ledger.grant(&keys(2..6), 6, secs(0)).unwrap();
    assert_eq!(ledger.live_by_class(), [2, 2, 2]);
    ledger.answered(plain(0..3), secs(1), true);
    ledger.refused(plain(3..4));
    let counts = LeaseCounts { confirmed: 3, unconfirmed: 2, recovered: 0, refused: 1 };
    assert_eq!((ledger.granted(), ledger.counts()), (6, counts));
}

#[test]
fn a_slot_comes_back_only_after_the_hold_time_since_the_last_touch() {
    let mut ledger = Ledger::in_memory(HOLD);
    ledger.grant(&keys(0..1), 1, secs(0)).unwrap();
    ledger.hand_over(plain(0..1), secs(60));
    ledger.pass(secs(22 * 60 + 30)).unwrap();
    assert_eq!(ledger.live(), 1, "the request may still have arrived after a minute");
    ledger.answered(plain(0..1), secs(40), true);
    ledger.pass(secs(22 * 60 + 39)).unwrap();
    assert_eq!(ledger.live(), 1);
    ledger.pass(secs(22 * 60 + 45)).unwrap();
    assert_eq!(ledger.live(), 0);
}

#[test]
fn an_accepted_request_confirms_its_series() {
    let mut ledger = Ledger::in_memory(HOLD);
    ledger.grant(&keys(0..3), 3, secs(0)).unwrap();
    ledger.hand_over(plain(0..2), secs(1));
    ledger.answered(plain(0..1), secs(1), true);
    ledger.answered(plain(1..2), secs(1), false);
    assert_eq!(ledger.confirmed(), 1);
    assert_eq!(ledger.unconfirmed_of(plain(0..3)), plain(1..3));
}

#[test]
fn leases_survive_a_restart_and_are_held_in_full_again() {
    let disk = SimDisk::new();
    let (mut ledger, found) = open(&disk, secs(0));
    assert_eq!(found, Found::Missing);
    ledger.grant(&keys(0..100), 100, secs(0)).unwrap();
    ledger.grant(&keys(100..150), 150, secs(1)).unwrap();
    let (mut ledger, found) = open(&disk.after_crash(Crash::KILL), secs(1000));
    assert_eq!(found, Found::Leases(150));
    ledger.pass(secs(1000 + 22 * 60 - 1)).unwrap();
    assert_eq!(ledger.live(), 150);
    assert_eq!(ledger.confirmed(), 0);
    assert_eq!(ledger.live_by_class(), [50, 50, 50]);
}

#[test]
fn the_time_in_which_a_lease_is_not_used_adds_up_over_restarts() {
    let mut disk = SimDisk::new();
    let (mut ledger, _) = open(&disk, secs(0));
    ledger.grant(&keys(0..20), 100, secs(0)).unwrap();
    // Restarts every five minutes; ten series go on being sent, ten are gone.
    for _ in 0..5 {
        drop(ledger);
        disk = disk.after_crash(Crash::KILL);
        (ledger, _) = open(&disk, secs(0));
        assert!(ledger.is_dormant(Key(3)) && ledger.is_dormant(Key(13)));
        ledger.renew(plain(0..10), secs(0)).unwrap();
        assert!(!ledger.is_dormant(Key(3)) && ledger.is_dormant(Key(13)));
        for minute in 1..=5 {
            ledger.hand_over(plain(0..10), secs(minute * 60));
            ledger.pass(secs(minute * 60)).unwrap();
        }
    }
    assert_eq!(ledger.live(), 10);
    assert_eq!(open(&disk, secs(0)).0.live(), 10);
}

#[test]
fn what_was_used_again_before_a_crash_is_held_in_full() {
    let disk = SimDisk::new();
    let (mut ledger, _) = open(&disk, secs(0));
    ledger.grant(&keys(0..1), 1, secs(0)).unwrap();
    let (mut ledger, _) = open(&disk, secs(0));
    ledger.pass(secs(20 * 60)).unwrap();
    ledger.renew(plain(0..1), secs(20 * 60)).unwrap();
    let (mut ledger, found) = open(&disk.after_crash(Crash::KILL), secs(0));
    assert_eq!(found, Found::Leases(1));
    ledger.pass(secs(22 * 60 - 1)).unwrap();
    assert_eq!(ledger.live(), 1);
}

#[test]
fn what_cannot_be_renewed_stays_dormant() {
    let disk = SimDisk::new();
    open(&disk, secs(0)).0.grant(&keys(0..1), 1, secs(0)).unwrap();
    // The file says that the series was unused for ten minutes.
    open(&disk, secs(0)).0.pass(secs(600)).unwrap();
    let (mut ledger, _) = open(&disk, secs(600));
    disk.set_plan(Some(Plan { call: 0, fault: Fault::Full, repeated: true }));
    assert!(ledger.renew(plain(0..1), secs(600)).is_err());
    assert!(ledger.is_dormant(Key(0)));
    disk.set_plan(None);
    ledger.renew(plain(0..1), secs(600)).unwrap();
    assert!(!ledger.is_dormant(Key(0)));
}

#[test]
fn on_a_full_disk_what_was_sent_until_the_end_goes_on() {
    let disk = SimDisk::new();
    open(&disk, secs(0)).0.grant(&keys(0..2), 2, secs(0)).unwrap();
    let (mut ledger, _) = open(&disk, secs(0));
    disk.set_plan(Some(Plan { call: 0, fault: Fault::Full, repeated: true }));
    ledger.renew(plain(0..1), secs(0)).unwrap();
    // A checkpoint that fails leaves the file as it is.
    assert!(ledger.pass(secs(300)).is_err());
    ledger.renew(plain(1..2), secs(300)).unwrap();
    disk.set_plan(None);
    // However it ends, what was used is held for the whole hold time.
    let (mut ledger, found) = open(&disk.after_crash(Crash::KILL), secs(300));
    assert_eq!(found, Found::Leases(2));
    ledger.pass(secs(300 + 22 * 60 - 1)).unwrap();
    assert_eq!(ledger.live(), 2);
}

#[test]
fn a_checkpoint_forgets_what_ended() {
    let disk = SimDisk::new();
    let (mut ledger, _) = open(&disk, secs(0));
    ledger.grant(&keys(0..100), 200, secs(0)).unwrap();
    let later = secs(22 * 60);
    ledger.grant(&keys(100..110), 200, secs(22 * 60 - 1)).unwrap();
    ledger.pass(later).unwrap();
    let (ledger, found) = open(&disk, secs(0));
    assert_eq!(found, Found::Leases(10));
    assert!(ledger.is_live(Key(105)));
}

#[test]
fn a_damaged_ledger_is_recognised_and_what_is_readable_is_kept() {
    let disk = SimDisk::new();
    let (mut ledger, _) = open(&disk, secs(0));
    ledger.grant(&keys(0..10), 100, secs(0)).unwrap();
    ledger.grant(&keys(10..20), 100, secs(0)).unwrap();
    ledger.grant(&keys(20..30), 100, secs(0)).unwrap();
    let second_record = 8 + (12 + 10 * 20) + 20;
    disk.damage(Path::new(PATH), second_record, 0xff).unwrap();
    let (ledger, found) = open(&disk, secs(0));
    assert!(matches!(found, Found::Damaged(_)), "{found:?}");
    assert!(ledger.is_live(Key(25)) && ledger.is_live(Key(5)));
    let disk = SimDisk::new();
    let (mut ledger, _) = open(&disk, secs(0));
    ledger.grant(&keys(0..10), 100, secs(0)).unwrap();
    ledger.grant(&keys(10..20), 100, secs(0)).unwrap();
    disk.damage(Path::new(PATH), second_record, 0xff).unwrap();
    let found = open(&disk, secs(0)).1;
    assert!(matches!(found, Found::Damaged(_)), "the last record may have been used: {found:?}");
    disk.damage(Path::new(PATH), second_record, 0xff).unwrap();
    disk.damage(Path::new(PATH), 2, 0xff).unwrap();
    assert!(matches!(open(&disk, secs(0)).1, Found::Damaged(_)));
}

#[test]
fn what_is_promised_counts_and_is_not_used_before_it_is_written() {
    let disk = SimDisk::new();
    open(&disk, secs(0)).0.grant(&keys(0..2), 9, secs(0)).unwrap();
    // The file says that they were unused for ten minutes.
    open(&disk, secs(0)).0.pass(secs(600)).unwrap();
    let (mut ledger, _) = open(&disk, secs(600));
    let (write, count) = ledger.promise(&keys(1..4), plain(0..2), 4, secs(600));
    assert_eq!((count.unwrap(), ledger.live()), (2, 4));
    assert!((0..4).all(|n| ledger.is_live(Key(n)) && !ledger.is_fit(Key(n))));
    // Nobody else writes, and nobody takes the slots.
    let (second, refused) = ledger.promise(&keys(7..8), [], 9, secs(600));
    assert!(second.is_none() && matches!(refused, Err(GrantError::Busy)));
    // The server tells of one of them meanwhile.
    ledger.recover(&plain(3..5), 0, secs(600));
    let write = write.unwrap();
    disk.set_plan(Some(Plan { call: 0, fault: Fault::Full, repeated: true }));
    assert!(ledger.settle(write.run(), secs(601)).is_err());
    disk.set_plan(None);
    assert!(!ledger.is_live(Key(2)), "what was new is taken back");
    assert!(ledger.is_dormant(Key(0)) && ledger.is_dormant(Key(1)), "what there was stays");
    assert!(ledger.is_dormant(Key(3)) && ledger.is_dormant(Key(4)), "and what the server counts");
    let (write, count) = ledger.promise(&keys(2..3), plain(0..1), 9, secs(602));
    assert_eq!(count.unwrap(), 1);
    ledger.settle(write.unwrap().run(), secs(602)).unwrap();
    assert!(ledger.is_fit(Key(0)) && ledger.is_fit(Key(2)) && !ledger.is_fit(Key(1)));
    assert!(ledger.needs_writing(Key(1)) && !ledger.needs_writing(Key(0)));
    let (ledger, found) = open(&disk.after_crash(Crash::KILL), secs(602));
    assert_eq!(found, Found::Leases(5));
    assert!((0..5).all(|n| ledger.is_live(Key(n))));
}

#[test]
fn a_full_disk_grants_nothing_and_recovers() {
    let disk = SimDisk::new();
    let (mut ledger, _) = open(&disk, secs(0));
    ledger.grant(&keys(0..10), 100, secs(0)).unwrap();
    disk.set_plan(Some(Plan { call: 0, fault: Fault::Full, repeated: true }));
    let failed = ledger.grant(&keys(10..20), 100, secs(0));
    assert!(matches!(failed, Err(GrantError::Disk(_))));
    assert_eq!(ledger.live(), 10);
    disk.set_plan(None);
    ledger.grant(&keys(10..20), 100, secs(0)).unwrap();
    let (ledger, found) = open(&disk, secs(0));
    assert_eq!((found, ledger.live()), (Found::Leases(20), 20));
}

proptest! {
    #[test]
    fn what_was_granted_is_found_after_any_crash(
        grants in proptest::collection::vec(1u128..40, 1..6),
        call in 0u64..60,
        crash in 0usize..6,
    ) {
        let disk = SimDisk::new();
        disk.set_plan(Some(Plan { call, fault: Fault::Crash, repeated: true }));
        let (mut ledger, _) = open(&disk, secs(0));
        let mut granted = Vec::new();
        let mut next = 0;
        for count in grants {
            let wanted = keys(next..next + count);
            next += count;
            if ledger.grant(&wanted, 1_000, secs(0)).is_ok() {
                granted.extend(wanted);
            }
        }
        let (ledger, found) = open(&disk.after_crash(Crash::ALL[crash]), secs(0));
        // A machine that went down may leave a last record that looks as if it had been used.
        let lost_power = Crash::ALL[crash] != Crash::KILL;
        prop_assert!(lost_power || !matches!(found, Found::Damaged(_)), "{:?}", found);
        for (key, _) in granted {
            prop_assert!(ledger.is_live(key));
        }
    }
}

#[test]
fn a_lease_is_counted_under_the_class_that_its_series_has_now() {
    let disk = SimDisk::new();
    let (mut ledger, _) = open(&disk, secs(0));
    ledger.grant(&[(Key(1), 0), (Key(2), 2)], 10, secs(0)).unwrap();
    ledger.reclass(Key(1), 2);
    ledger.reclass(Key(3), 1);
    assert_eq!(ledger.live_by_class(), [0, 0, 2]);
    ledger.checkpoint(secs(0)).unwrap();
    assert_eq!(open(&disk, secs(0)).0.live_by_class(), [0, 0, 2]);
}

#[test]
fn what_does_not_count_leaves_a_lease_as_it_was() {
    let mut ledger = Ledger::in_memory(HOLD);
    ledger.grant(&keys(0..1), 10, secs(0)).unwrap();
    ledger.hand_over(plain(0..1), secs(30));
    ledger.answered(plain(0..1), secs(10), true);
    // Two samples of it in one request.
    ledger.hand_over([Key(0), Key(0)], secs(900));
    ledger.uncounted([Key(0), Key(0)]);
    ledger.advance(secs(10) + HOLD.to_std() + secs(1));
    assert_eq!(ledger.live(), 0);
}

#[test]
fn what_got_no_answer_may_arrive_after_the_answer_to_what_came_later() {
    let disk = SimDisk::new();
    let (mut ledger, _) = open(&disk, secs(0));
    ledger.grant(&keys(0..1), 10, secs(0)).unwrap();
    let key = Key(0);
    let hold = super::super::limits::HOLD.to_std();
    ledger.hand_over([key], secs(160));
    ledger.unanswered([key]);
    ledger.hand_over([key], secs(191));
    ledger.answered([key], secs(131), true);
    ledger.pass(secs(131) + hold + secs(10)).unwrap();
    assert!(ledger.is_live(key), "the first request may have arrived at 160");
    ledger.pass(secs(160) + hold + secs(5)).unwrap();
    assert!(!ledger.is_live(key));
}

mod simulations;
