//! Which names and values of labels a reader is told of.

use super::*;

/// Sixty series: even ones have samples early, odd ones late.
fn early_and_late() -> Db {
    let (db, _) = open(&SimDisk::new());
    for (at, rest) in [(10, 0), (900, 1)] {
        let mut batch = Batch::default();
        for n in (0..60).filter(|n| n % 2 == rest) {
            let labels = Labels::from_pairs([
                ("__name__", "m".to_owned()),
                ("n", n.to_string()),
                ("job", (n / 30).to_string()),
                (if rest == 0 { "early" } else { "late" }, "x".to_owned()),
            ]);
            batch.push(labels, Sample::float(Timestamp(at), 1.0));
        }
        db.append(&batch).unwrap();
    }
    db
}

#[test]
fn only_what_has_samples_in_the_range_is_told() {
    let db = early_and_late();
    let late = db.querier(TimeRange::new(Timestamp(500), Timestamp(1000))).unwrap();
    assert_eq!(late.label_names(&[], 0).unwrap(), ["__name__", "job", "late", "n"]);
    assert_eq!(late.label_names(&[], 2).unwrap(), ["__name__", "job"]);
    // The first series of either job is an early one.
    assert_eq!(late.label_values("job", &[], 0).unwrap(), ["0", "1"]);
    assert_eq!(late.label_values("job", &[], 1).unwrap(), ["0"]);
    assert_eq!(late.label_values("n", &[], 0).unwrap().len(), 30);
    assert!(late.label_values("early", &[], 0).unwrap().is_empty());
    assert!(late.label_values("absent", &[], 0).unwrap().is_empty());
    let never = db.querier(TimeRange::new(Timestamp(100), Timestamp(200))).unwrap();
    assert!(never.label_names(&[], 0).unwrap().is_empty());
    assert!(never.label_values("job", &[], 0).unwrap().is_empty());
}

#[test]
fn only_what_is_selected_is_told() {
    let db = early_and_late();
    let all = db.querier(TimeRange::ALL).unwrap();
    let selectors = [
        Selector::new(vec![Matcher::equal("job", "0"), Matcher::equal("early", "x")]),
        Selector::new(vec![Matcher::equal("n", "31")]),
    ];
    assert_eq!(all.label_values("job", &selectors, 0).unwrap(), ["0", "1"]);
    assert_eq!(all.label_values("n", &selectors, 0).unwrap().len(), 16);
    assert_eq!(all.label_values("late", &selectors, 0).unwrap(), ["x"]);
    assert_eq!(all.label_values("late", &selectors[..1], 0).unwrap(), Vec::<String>::new());
    assert_eq!(all.label_names(&selectors[..1], 0).unwrap(), ["__name__", "early", "job", "n"]);
}

#[test]
fn labels_of_selected_series_stay_when_the_series_leave_the_head() {
    let disk = SimDisk::new();
    let (db, _) = open(&disk);
    db.append(&batch(10, 0..3)).unwrap();
    // The log goes on in other segments.
    for at in 1..=30 {
        db.append(&batch(at * 100, 5..45)).unwrap();
    }
    while db.next_job(Timestamp(3000)).unwrap().run().unwrap().job != "flush" {}
    let head = &db.inner.head;
    let first_three = || Selector::new(vec![Matcher::new(MatchOp::Regex, "n", "[0-2]").unwrap()]);
    let querier = HeadQuerier::new(Arc::clone(head), Arc::new(head.pin()), TimeRange::ALL);
    let set = querier.select(&first_three(), &Hints::default()).unwrap();
    drop(querier);
    let all: Vec<Labels> = (0..set.len()).map(|index| set.labels(index)).collect();
    assert_eq!(all, (0..3).map(|n| labels("m", n)).collect::<Vec<_>>());
    run_jobs(&db, 3000);
    assert!(db.labels(SeriesRef(2)).is_none(), "it left the head");
    db.append(&batch(3100, 7..9)).unwrap();
    let still: Vec<Labels> = (0..set.len()).map(|index| set.labels(index)).collect();
    assert_eq!(still, all);
}
