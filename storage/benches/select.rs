//! What finding series costs, in the head and in a block of the same series: CPU time of one
//! thread per question.
//!
//! `cargo bench -p stint-storage --bench select -- [SERIES] [WORD]`, a million unless told otherwise,
//! and only the questions with the word.
//! `targets` are 500 series per instance; `values` is one series per instance, so that the label
//! has as many values as there are series. Every question is asked with changing text; where it
//! says `again`, with the same.

use std::hint::black_box;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use stint_model::{
    Appender as _, Batch, Hints, Labels, MatchOp, Matcher, Querier, Queryable as _, Sample,
    Selector, TimeRange, Timestamp,
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

fn cpu_nanos() -> u64 {
    let stat = std::fs::read_to_string("/proc/thread-self/schedstat").expect("Linux");
    stat.split(' ').next().and_then(|nanos| nanos.parse().ok()).expect("a number")
}

#[expect(clippy::print_stdout, reason = "the figures are the outcome")]
fn report(what: &str, figure: f64, unit: &str) {
    println!("{what:<56} {figure:>10.3} {unit}");
}

/// Appends every series by its labels.
fn append(db: &Db, series: usize, per_target: usize, at: i64, what: &str) {
    let mut batch = Batch::default();
    let mut nanos = 0;
    for first in (0..series).step_by(BATCH) {
        batch.clear();
        for number in first..series.min(first + BATCH) {
            batch.push(labels(number, per_target), Sample::float(Timestamp(at), number as f64));
        }
        let start = cpu_nanos();
        let appended = db.append(&batch).expect("append");
        nanos += cpu_nanos() - start;
        assert!(appended.rejected.is_empty());
    }
    report(what, nanos as f64 / series as f64, "ns/series");
}

/// Repeats `ask` with rising numbers; it says how much it found.
fn measure(what: &str, mut ask: impl FnMut(usize) -> usize) {
    let is_word = |arg: &String| !arg.starts_with('-') && arg.parse::<usize>().is_err();
    if std::env::args().skip(1).find(is_word).is_some_and(|word| !what.contains(&word)) {
        return;
    }
    ask(0);
    let start = cpu_nanos();
    let (mut found, mut times) = (0, 0);
    // The kernel's figure moves in steps of milliseconds.
    while times < 5 || cpu_nanos() - start < 100_000_000 {
        times += 1;
        found = black_box(ask(times));
    }
    let millis = (cpu_nanos() - start) as f64 / times as f64 / 1e6;
    report(&format!("{what}, {found} found"), millis, "ms");
}

fn matcher(op: MatchOp, name: &str, value: &str) -> Matcher {
    Matcher::new(op, name, value).expect("valid")
}

struct Asker<'a> {
    querier: Box<dyn Querier>,
    place: &'a str,
}

impl Asker<'_> {
    fn select(&self, what: &str, hints: &Hints, matchers: impl Fn(usize) -> Vec<Matcher>) {
        measure(&format!("{}, {what}", self.place), |number| {
            let selector = Selector::new(matchers(number));
            let set = self.querier.select(&selector, hints).expect("select");
            set.len()
        });
    }

    /// A regular expression and nothing else.
    fn regex(&self, what: &str, name: &str, value: impl Fn(usize) -> String) {
        self.select(&format!("regex {what}"), &Hints::default(), |number| {
            vec![matcher(MatchOp::Regex, name, &value(number))]
        });
    }

    fn series(&self, what: &str, matchers: impl Fn(usize) -> Vec<Matcher>) {
        measure(&format!("{}, {what}, with labels", self.place), |number| {
            let selector = Selector::new(matchers(number));
            let set = self.querier.select(&selector, &Hints::default()).expect("select");
            (0..set.len()).map(|index| set.labels(index).size_bytes()).sum::<usize>().min(set.len())
        });
    }

    fn labels(&self, what: &str, selectors: impl Fn(usize) -> Vec<Selector>) {
        measure(&format!("{}, label names {what}", self.place), |number| {
            self.querier.label_names(&selectors(number), 0).expect("names").len()
        });
        for name in ["__name__", "instance"] {
            measure(&format!("{}, values of {name} {what}", self.place), |number| {
                self.querier.label_values(name, &selectors(number), 0).expect("values").len()
            });
        }
    }
}

fn metric(number: usize) -> Matcher {
    Matcher::equal("__name__", &format!("node_{}_seconds_total", number % 60))
}

fn ask_targets(db: &Db, place: &str) {
    let querier = db.querier(TimeRange::ALL).expect("open");
    let asker = Asker { querier, place };
    let all = Hints::default();
    let any_order = Hints { unordered: true, ..Hints::default() };
    let host = |number: usize| {
        Matcher::equal("instance", &format!("host-{:07}.example.net:9100", number % 100))
    };
    asker.select("one series", &all, |n| vec![metric(n), host(n), Matcher::equal("cpu", "3")]);
    asker.select("one target", &all, |n| vec![host(n)]);
    asker.select("one metric", &all, |n| vec![metric(n)]);
    asker.select("one metric, any order", &any_order, |n| vec![metric(n)]);
    asker.series("one metric", |n| vec![metric(n)]);
    let some = |n: usize| matcher(MatchOp::Regex, "instance", &format!(".*-00000{n:02}.ex.+"));
    asker.select("metric and regex", &all, |n| vec![metric(n), some(n % 90)]);
    asker.labels("", |_| Vec::new());
    asker.labels("of one metric", |n| vec![Selector::new(vec![metric(n)])]);
}

fn ask_values(db: &Db, place: &str) {
    let querier = db.querier(TimeRange::ALL).expect("open");
    let asker = Asker { querier, place };
    let any_order = Hints { unordered: true, ..Hints::default() };
    asker.select("equality", &Hints::default(), |n| {
        vec![Matcher::equal("instance", &format!("host-{n:07}.example.net:9100"))]
    });
    asker.regex("prefix", "instance", |n| format!("host-00{:03}.*", n % 1000));
    asker.regex("contains", "instance", |n| format!(".*-00{:03}1.*", n % 1000));
    asker.regex("classes", "instance", |n| format!("host-[0-9]+{}{}[13]7.+", n % 10, n / 10 % 10));
    asker.regex("alternatives", "instance", |n| {
        format!("host-(0[0-4]|05){:02}.*7.example.net:9100", n % 100)
    });
    asker.regex("suffix", "instance", |n| format!(".+{:04}.example.net:9100", n % 10_000));
    asker.regex("nothing", "instance", |n| format!(".*nowhere{n}.*"));
    asker.regex("classes, again", "instance", |_| "host-[0-9]+13[13]7.+".to_owned());
    asker.select("regex half of all, any order", &any_order, |n| {
        vec![matcher(MatchOp::Regex, "instance", &format!("host-.*[02468].example.+0|x{n}"))]
    });
    asker.select("regex all but tried, any order", &any_order, |n| {
        vec![matcher(MatchOp::Regex, "instance", &format!("host-.*[02468].+0|x{n}"))]
    });
    // A condition that all meet, so that nothing is known from before.
    asker.select("regex all, any order", &any_order, |n| {
        vec![matcher(MatchOp::Regex, "instance", ".+"), Matcher::equal(&format!("none{n}"), "")]
    });
    asker.select("regex all, in order", &Hints::default(), |n| {
        vec![matcher(MatchOp::Regex, "instance", ".+"), Matcher::equal(&format!("none{n}"), "")]
    });
    asker.series("regex all", |n| {
        vec![matcher(MatchOp::Regex, "instance", ".+"), Matcher::equal(&format!("none{n}"), "")]
    });
    asker.select("not a regex, with metric", &any_order, |n| {
        vec![metric(n), matcher(MatchOp::NotRegex, "instance", &format!(".*{n}1.example.*"))]
    });
    asker.labels("", |_| Vec::new());
}

fn directory(name: &str) -> PathBuf {
    std::env::temp_dir().join(format!("stint-bench-select-{}-{name}", std::process::id()))
}

fn open(dir: &Path) -> Db {
    let disk = Arc::new(OsDisk::new(dir).expect("temporary directory"));
    Db::open(disk, Options::default()).expect("a database").0
}

fn run(name: &str, series: usize, per_target: usize, ask: fn(&Db, &str)) {
    let dir = directory(name);
    let db = open(&dir);
    append(&db, series, per_target, START, &format!("{name}, append new series"));
    append(&db, series, per_target, START + 15_000, &format!("{name}, append by known labels"));
    ask(&db, &format!("{name}, head"));
    // A snapshot has the head as a block.
    db.snapshot(Path::new("snapshot"), true).expect("snapshot");
    drop(db);
    let db = open(&dir.join("snapshot"));
    assert_eq!((db.stats().series, db.stats().blocks), (0, 1));
    ask(&db, &format!("{name}, block"));
    drop(db);
    std::fs::remove_dir_all(&dir).expect("the directory was made by this bench");
}

fn main() {
    let series = std::env::args().find_map(|arg| arg.parse().ok()).unwrap_or(1_000_000_usize);
    run("targets", series, 500, ask_targets);
    run("values", series, 1, ask_values);
}
