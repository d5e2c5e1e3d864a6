//! Random operations on the database and on a map of maps: both hold the same.

use std::collections::BTreeMap;

use proptest::prelude::*;
use stint_model::{
    Appender as _, Batch, Matcher, Querier, Queryable as _, RejectReason, Sample, Selector, Span,
    TimeRange, Timestamp,
};
use stint_storage::disk::sim::Crash;
use stint_storage::{Db, SimDisk};

use crate::support::{Content, content, content_of, long, open, series, verify};

#[derive(Clone, Debug)]
enum Op {
    /// Time goes on by so much, and these series get a sample.
    Append { step: i64, series: Vec<usize>, value: u8 },
    /// Samples so long before now, allowed within a window.
    Late { back: i64, series: Vec<usize>, value: u8, window: i64 },
    /// One job.
    Job,
    /// All jobs.
    Jobs,
    /// Closes and opens, or kills and opens.
    Reopen { kill: bool },
    /// Deletes of one series.
    Delete { series: usize, back: i64, length: i64 },
    /// Keeps a reader open and compares what it sees later.
    Pin,
}

fn ops() -> impl Strategy<Value = Vec<Op>> {
    let some = || prop::collection::vec(0..6_usize, 1..5);
    let op = prop_oneof![
        10 => (prop_oneof![3 => Just(100_i64), 1 => 0..700_i64], some(), any::<u8>())
            .prop_map(|(step, series, value)| Op::Append { step, series, value }),
        4 => (0..4000_i64, some(), any::<u8>(), prop_oneof![Just(0_i64), 0..5000_i64])
            .prop_map(|(back, series, value, window)| Op::Late { back, series, value, window }),
        2 => Just(Op::Job),
        1 => Just(Op::Jobs),
        1 => any::<bool>().prop_map(|kill| Op::Reopen { kill }),
        1 => (0..6_usize, 0..3000_i64, 0..1500_i64)
            .prop_map(|(series, back, length)| Op::Delete { series, back, length }),
        1 => Just(Op::Pin),
    ];
    prop::collection::vec(op, 1..if long() { 400 } else { 120 })
}

struct World {
    disk: SimDisk,
    db: Option<Db>,
    now: i64,
    want: Content,
    /// The same with the newest sample of each series, deleted or not.
    ever: Content,
    pins: Vec<(Box<dyn Querier>, Content)>,
}

impl World {
    fn db(&self) -> &Db {
        self.db.as_ref().expect("open between operations")
    }

    fn append(&mut self, at: i64, members: &[usize], value: u8, window: i64) {
        let mut batch = Batch { out_of_order_window: Span(window), ..Batch::default() };
        // The newest sample of a series still tells duplicates when it was deleted: not told here.
        let hidden = |n: &usize| {
            let newest = |rows: &BTreeMap<i64, u64>| rows.keys().last() == Some(&at);
            self.ever.get(&series(*n)).is_some_and(newest)
                && !self.want.get(&series(*n)).is_some_and(newest)
        };
        let rows: Vec<usize> = members.iter().copied().filter(|n| !hidden(n)).collect();
        for n in &rows {
            batch.push(series(*n), Sample::float(Timestamp(at), f64::from(value)));
        }
        let appended = self.db().append(&batch).unwrap();
        for (row, n) in rows.iter().enumerate() {
            let bits = f64::from(value).to_bits();
            let ever = self.ever.entry(series(*n)).or_default();
            let stored = ever.get(&at).copied();
            let newest = ever.keys().last().copied();
            match appended.rejected.iter().find(|rejected| rejected.row == row) {
                None => {
                    assert!(window > 0 || newest.is_none_or(|newest| newest <= at));
                    ever.entry(at).or_insert(bits);
                    self.want.entry(series(*n)).or_default().entry(at).or_insert(bits);
                }
                Some(rejected) => match rejected.reason {
                    RejectReason::DuplicateTimestamp => {
                        assert!(stored.is_some_and(|stored| stored != bits));
                    }
                    RejectReason::OutOfOrder => {
                        assert!(window == 0 && newest.is_none_or(|newest| at < newest));
                    }
                    RejectReason::OutOfBounds => assert!(window == 0),
                    RejectReason::TooOld => assert!(window > 0 && at < self.now - window),
                    other => panic!("{other:?}"),
                },
            }
        }
    }

    fn jobs(&self, most: usize) {
        for _ in 0..most {
            let Some(job) = self.db().next_job(Timestamp(self.now)) else { return };
            job.run().unwrap();
        }
    }

    fn reopen(&mut self, kill: bool) {
        self.pins.clear();
        let db = self.db.take().expect("open between operations");
        if kill {
            self.disk = self.disk.after_crash(Crash::KILL);
        } else {
            db.close().unwrap();
        }
        drop(db);
        let (db, report) = open(&self.disk).unwrap();
        assert!(report.damage.is_empty() && report.torn_tail.is_none(), "{report:?}");
        self.db = Some(db);
    }

    fn delete(&mut self, n: usize, back: i64, length: i64) {
        let start = self.now - back;
        let range =
            TimeRange::new(Timestamp(start), Timestamp(start + length).min(Timestamp(self.now)));
        let selector = Selector::new(vec![Matcher::equal("n", &n.to_string())]);
        self.db().delete_series(&[selector], range).unwrap();
        if let Some(rows) = self.ever.get_mut(&series(n)) {
            let newest = rows.keys().last().copied();
            rows.retain(|at, _| !range.contains(Timestamp(*at)) || Some(*at) == newest);
        }
        if let Some(rows) = self.want.get_mut(&series(n)) {
            rows.retain(|at, _| !range.contains(Timestamp(*at)));
            if rows.is_empty() {
                self.want.remove(&series(n));
            }
        }
    }

    fn apply(&mut self, op: Op) {
        match op {
            Op::Append { step, series, value } => {
                self.now += step;
                self.append(self.now, &series, value, 0);
            }
            Op::Late { back, series, value, window } => {
                self.append(self.now - back, &series, value, window);
            }
            Op::Job => self.jobs(1),
            Op::Jobs => self.jobs(50),
            Op::Reopen { kill } => self.reopen(kill),
            Op::Delete { series, back, length } => self.delete(series, back, length),
            Op::Pin => {
                let querier = self.db().querier(TimeRange::ALL).unwrap();
                self.pins.push((querier, self.want.clone()));
                if self.pins.len() > 2 {
                    self.pins.remove(0);
                }
            }
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig {
        cases: if long() { 3000 } else { 32 },
        failure_persistence: None,
        ..ProptestConfig::default()
    })]

    #[test]
    fn the_database_is_a_map_of_maps(ops in ops()) {
        let disk = SimDisk::new();
        let (db, _) = open(&disk).unwrap();
        let mut world = World {
            disk,
            db: Some(db),
            now: 10_000,
            want: Content::new(),
            ever: Content::new(),
            pins: Vec::new(),
        };
        for op in ops {
            let text = format!("{op:?}");
            world.apply(op);
            prop_assert_eq!(&content(world.db()), &world.want, "after {}", text);
            for (querier, seen) in &world.pins {
                prop_assert_eq!(&content_of(&**querier), seen, "a pinned reader, after {}", &text);
            }
        }
        verify(&world.disk);
        let values = world.db().querier(TimeRange::ALL).unwrap().label_values("n", &[], 0).unwrap();
        for labels in world.want.keys() {
            prop_assert!(values.iter().any(|value| labels.get("n") == Some(value)));
        }
    }
}
