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

#[test]
fn late_samples_in_the_time_of_a_block_are_read_with_it_and_merged_into_it() {
    let disk = SimDisk::new();
    let (db, _) = open(&disk);
    let mut oracle = std::collections::BTreeMap::new();
    for at in (0..3000).step_by(100) {
        assert_eq!(append_one(&db, at, at as f64, 0), None);
        oracle.insert(at, at as f64);
    }
    run_jobs(&db, 3000);
    assert!(db.stats().blocks > 0);
    let check = |db: &Db, oracle: &std::collections::BTreeMap<i64, f64>, when: &str| {
        let rows: Vec<String> = oracle.iter().map(|(at, value)| format!("{at}={value}")).collect();
        assert_eq!(dump(db), [format!("{} {}", labels("m", 0), rows.join(" "))], "{when}");
    };
    // Every other one at a time that the block has, with another value: the first one stays.
    for at in (0..1000).step_by(50) {
        assert_eq!(append_one(&db, at, -1.0, 5000), None, "{at}");
        oracle.entry(at).or_insert(-1.0);
    }
    check(&db, &oracle, "block and head");
    let (again, _) = open(&disk.after_crash(crate::disk::sim::Crash::KILL));
    check(&again, &oracle, "after a kill");
    for at in (3000..6000).step_by(100) {
        assert_eq!(append_one(&db, at, 0.5, 0), None);
        oracle.insert(at, 0.5);
    }
    let jobs = run_jobs(&db, 6000);
    assert!(jobs.contains(&"flush") && jobs.contains(&"compact"), "{jobs:?}");
    check(&db, &oracle, "merged");
    assert_eq!(db.stats().late_samples, 0);
    db.close().unwrap();
    drop(db);
    check(&open(&disk).0, &oracle, "after a stop");
}
