//! Which of several samples of one time counts.

use super::*;

#[test]
fn the_sample_that_was_in_a_block_first_stays_however_blocks_are_rewritten() {
    let disk = SimDisk::new();
    let (db, _) = open(&disk);
    db.append(&batch(10, 0..2)).unwrap();
    assert_eq!(append_one(&db, 3000, 0.0, 0), None);
    run_jobs(&db, 3000);
    // The block is not looked at, as in Prometheus: the sample is taken, and does not count.
    let first = format!("{} 10=10 ", labels("m", 0));
    let check = |db: &Db, when: &str| assert!(dump(db)[0].starts_with(&first), "{when}");
    assert_eq!(append_one(&db, 10, 2.0, 5000), None);
    check(&db, "in the head");
    assert_eq!(append_one(&db, 6000, 0.0, 0), None);
    while db.next_job(Timestamp(6000)).unwrap().run().unwrap().job != "flush" {}
    let overlapping = || db.stats().blocks;
    assert_eq!(overlapping(), 3);
    check(&db, "in a later block");
    let other = Selector::new(vec![Matcher::equal("n", "1")]);
    db.delete_series(&[other], TimeRange::ALL).unwrap();
    db.clean_tombstones().unwrap();
    assert_eq!(overlapping(), 3);
    check(&db, "with the first block rewritten");
    drop(db);
    let (db, _) = open(&disk);
    check(&db, "after a restart");
    run_jobs(&db, 6000);
    check(&db, "merged");
}
