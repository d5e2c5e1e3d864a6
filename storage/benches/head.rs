//! What a series and a sample cost in the head, at scale: memory, time to append, time to select.
//!
//! `cargo bench -p stint-storage --bench head -- SERIES [ROUNDS [PER_TARGET]]`; one sample a round
//! for each series, 15 s apart; with one series per target each has a label value of its own. Prints one figure a line. Memory is what the kernel says is resident, CPU
//! time that of the one thread.

use std::hint::black_box;
use std::sync::Arc;

use stint_model::{
    Appender as _, Batch, Hints, Labels, MatchOp, Matcher, Queryable as _, Sample, Selector,
    SeriesRef, TimeRange, Timestamp,
};
use stint_storage::{Db, Options, OsDisk};

const BATCH: usize = 5000;
const START: i64 = 1_700_000_000_000;

fn labels(number: usize, per_target: usize) -> Labels {
    let (target, own) = (number / per_target, number % 500);
    Labels::from_pairs([
        ("__name__", format!("node_{}_seconds_total", own / 8)),
        ("cpu", (own % 8).to_string()),
        ("environment", ["production", "staging"][target % 2].to_owned()),
        ("instance", format!("host-{target:07}.example.net:9100")),
        ("job", "node".to_owned()),
        ("mode", ["idle", "user", "system"][own % 3].to_owned()),
        ("project", format!("project-{:02}", target % 12)),
    ])
}

/// A fifth constant, two fifths counters, the others with decimals.
fn value(number: usize, round: usize) -> f64 {
    let noise = (number * 7919 + round * 104_729) % 1000;
    match number % 5 {
        0 => number as f64,
        1 | 2 => (number * 1000 + round * 4000 + noise) as f64,
        3 => (number * 100 + round * 150 + noise % 7) as f64 / 100.0,
        _ => 0.5 + noise as f64 / 1000.0,
    }
}

fn resident_bytes() -> usize {
    let statm = std::fs::read_to_string("/proc/self/statm").expect("Linux");
    let pages = statm.split(' ').nth(1).and_then(|pages| pages.parse::<usize>().ok());
    pages.expect("a number") * 4096
}

fn cpu_nanos() -> u64 {
    let stat = std::fs::read_to_string("/proc/thread-self/schedstat").expect("Linux");
    stat.split(' ').next().and_then(|nanos| nanos.parse().ok()).expect("a number")
}

#[expect(clippy::print_stdout, reason = "the figures are the outcome")]
fn report(what: &str, figure: f64, unit: &str) {
    println!("{what:<44} {figure:>10.2} {unit}");
}

struct Bench {
    db: Db,
    series: usize,
    per_target: usize,
    refs: Vec<SeriesRef>,
    before: usize,
}

impl Bench {
    fn memory(&self, when: &str) {
        let grown = resident_bytes().saturating_sub(self.before) as f64;
        report(&format!("resident, {when}"), grown / self.series as f64, "B/series");
    }

    fn births(&mut self) {
        let start = cpu_nanos();
        let mut batch = Batch::default();
        let mut making = 0;
        for first in (0..self.series).step_by(BATCH) {
            batch.clear();
            let made = cpu_nanos();
            for number in first..self.series.min(first + BATCH) {
                batch.push(
                    labels(number, self.per_target),
                    Sample::float(Timestamp(START), value(number, 0)),
                );
            }
            making += cpu_nanos() - made;
            let appended = self.db.append(&batch).expect("append");
            self.refs.extend(appended.refs.into_iter().flatten());
        }
        assert_eq!(self.refs.len(), self.series);
        // The handles belong to whoever appends.
        self.before += self.series * size_of::<SeriesRef>();
        let nanos = (cpu_nanos() - start - making) as f64;
        report("append, new series", nanos / self.series as f64, "ns/series");
    }

    fn round(&self, round: usize, batch: &mut Batch) -> u64 {
        let mut nanos = 0;
        let at = Timestamp(START + round as i64 * 15_000);
        for first in (0..self.series).step_by(BATCH) {
            batch.clear();
            let numbers = first..self.series.min(first + BATCH);
            for (number, id) in numbers.zip(self.refs.iter().skip(first)) {
                batch.push_known(*id, Sample::float(at, value(number, round)));
            }
            let start = cpu_nanos();
            let appended = self.db.append(batch).expect("append");
            nanos += cpu_nanos() - start;
            assert!(appended.rejected.is_empty());
        }
        nanos
    }

    fn select(&self, what: &str, matchers: Vec<Matcher>) {
        let selector = Selector::new(matchers);
        let querier = self.db.querier(TimeRange::ALL).expect("open");
        let start = cpu_nanos();
        let (mut found, mut times) = (0, 0_u32);
        // The kernel's figure moves in steps of milliseconds.
        while times < 5 || cpu_nanos() - start < 100_000_000 {
            let set = querier.select(&selector, &Hints::default()).expect("select");
            found = black_box(set).len();
            times += 1;
        }
        let nanos = (cpu_nanos() - start) as f64 / f64::from(times);
        report(&format!("select {what}, {found} found"), nanos / 1e6, "ms");
    }
}

fn main() {
    let numbers: Vec<usize> = std::env::args().filter_map(|arg| arg.parse().ok()).collect();
    let series = numbers.first().copied().unwrap_or(200_000);
    let rounds = numbers.get(1).copied().unwrap_or(40);
    let dir = std::env::temp_dir().join(format!("stint-bench-head-{}", std::process::id()));
    let disk = Arc::new(OsDisk::new(&dir).expect("temporary directory"));
    let (db, _) = Db::open(disk, Options::default()).expect("new database");
    let refs = Vec::with_capacity(series);
    let per_target = numbers.get(2).copied().unwrap_or(500).max(1);
    let mut bench = Bench { db, series, per_target, refs, before: resident_bytes() };
    bench.births();
    bench.memory("after the first sample");
    let mut batch = Batch::default();
    let (mut nanos, mut samples) = (0, 0);
    for round in 1..rounds {
        nanos += bench.round(round, &mut batch);
        samples += series;
        if [5, 20, 39, 119, 239, 479].contains(&round) {
            bench.memory(&format!("after {} samples", round + 1));
        }
    }
    report("append, known series", nanos as f64 / samples.max(1) as f64, "ns/sample");
    let matcher = |op, name: &str, value: &str| Matcher::new(op, name, value).expect("valid");
    let instance = |value: &str| matcher(MatchOp::Equal, "instance", value);
    let regex = |name: &str, value: &str| matcher(MatchOp::Regex, name, value);
    let name = Matcher::equal("__name__", "node_7_seconds_total");
    let host = instance("host-0000007.example.net:9100");
    bench.select("one series", vec![name.clone(), host.clone(), Matcher::equal("cpu", "3")]);
    bench.select("one target", vec![host]);
    bench.select("regex, prefix", vec![name.clone(), regex("instance", "host-000000[0-4].*")]);
    bench.select("regex, no prefix", vec![name.clone(), regex("instance", ".*-000000[0-4].ex.+")]);
    bench.select("one metric", vec![name]);
    bench.select("nothing", vec![regex("instance", ".*nowhere.*")]);
    drop(bench);
    std::fs::remove_dir_all(&dir).expect("the directory was made by this bench");
}
