//! How long an append takes while the head grows, and while somebody searches it.
//!
//! `cargo bench -p stint-storage --bench contention -- [SERIES]`, two million unless told otherwise, one
//! instance for each. Growing is measured in CPU time of the appending thread, which others on the
//! machine do not change: its longest batch tells what tables that grow cost at once. Beside searches
//! it is time as it passes, since waiting for a lock takes none of the CPU: compare with the
//! figures without searches.

use std::hint::black_box;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use rustix::time::{ClockId, clock_gettime};
use stint_model::{
    Appender as _, Batch, Hints, Labels, MatchOp, Matcher, Queryable as _, Sample, Selector,
    SeriesRef, TimeRange, Timestamp,
};
use stint_storage::{Db, Options, OsDisk};

const BATCH: usize = 1000;
const START: i64 = 1_700_000_000_000;
/// How long appends and searches go on side by side.
const BESIDE: Duration = Duration::from_secs(4);

fn labels(number: usize) -> Labels {
    let own = number % 500;
    Labels::from_pairs([
        ("__name__", format!("node_{}_seconds_total", own / 8)),
        ("cpu", (own % 8).to_string()),
        ("instance", format!("host-{number:07}.example.net:9100")),
        ("job", "node".to_owned()),
        ("mode", ["idle", "user", "system"][own % 3].to_owned()),
    ])
}

fn read(clock: ClockId) -> Duration {
    let now = clock_gettime(clock);
    Duration::new(now.tv_sec as u64, now.tv_nsec as u32)
}

fn cpu_time() -> Duration {
    read(ClockId::ThreadCPUTime)
}

fn time() -> Duration {
    read(ClockId::Monotonic)
}

#[expect(clippy::print_stdout, reason = "the figures are the outcome")]
fn report(what: &str, mut times: Vec<Duration>, more: &str) {
    times.sort_unstable();
    let at = |share: f64| times.get((times.len() as f64 * share) as usize).copied();
    let micros = |time: Option<Duration>| time.unwrap_or_default().as_secs_f64() * 1e6;
    println!(
        "{what:<44} p50 {:>8.0}  p99 {:>8.0}  p99.9 {:>8.0}  longest {:>8.0} µs {more}",
        micros(at(0.5)),
        micros(at(0.99)),
        micros(at(0.999)),
        micros(times.last().copied()),
    );
}

/// Appends all series once; how long each batch took the CPU.
fn grow(db: &Db, series: usize) -> (Vec<SeriesRef>, Vec<Duration>) {
    let (mut refs, mut times) = (Vec::with_capacity(series), Vec::new());
    let mut batch = Batch::default();
    for first in (0..series).step_by(BATCH) {
        batch.clear();
        for number in first..series.min(first + BATCH) {
            batch.push(labels(number), Sample::float(Timestamp(START), number as f64));
        }
        let start = cpu_time();
        let appended = db.append(&batch).expect("append");
        times.push(cpu_time().saturating_sub(start));
        refs.extend(appended.refs.iter().flatten());
    }
    (refs, times)
}

/// Appends to known series, with a few new ones, while `search` is done over and over beside it.
fn beside(
    db: &Db,
    refs: &[SeriesRef],
    at: &mut i64,
    what: &str,
    search: impl Fn(u64) + Send + Sync,
) {
    let (stop, searches) = (AtomicBool::new(false), AtomicU64::new(0));
    let times = std::thread::scope(|scope| {
        scope.spawn(|| {
            while !stop.load(Ordering::Relaxed) {
                search(searches.fetch_add(1, Ordering::Relaxed));
            }
        });
        let (mut times, mut batch, begin) = (Vec::new(), Batch::default(), time());
        while time().saturating_sub(begin) < BESIDE {
            *at += 1;
            batch.clear();
            let some = refs.iter().skip(*at as usize * BATCH % refs.len()).take(BATCH);
            for series in some {
                batch.push_known(*series, Sample::float(Timestamp(START + *at * 1000), 1.0));
            }
            for number in 0..5 {
                let number = refs.len() + *at as usize * 5 + number;
                batch.push(labels(number), Sample::float(Timestamp(START + *at * 1000), 1.0));
            }
            let start = time();
            db.append(&batch).expect("append");
            times.push(time().saturating_sub(start));
        }
        stop.store(true, Ordering::Relaxed);
        times
    });
    let more = format!("({} appends, {} searches)", times.len(), searches.into_inner());
    report(what, times, &more);
}

fn directory() -> PathBuf {
    std::env::temp_dir().join(format!("stint-bench-contention-{}", std::process::id()))
}

fn main() {
    let series = std::env::args().find_map(|arg| arg.parse().ok()).unwrap_or(2_000_000_usize);
    let dir = directory();
    let disk = Arc::new(OsDisk::new(&dir).expect("temporary directory"));
    let (db, _) = Db::open(disk, Options::default()).expect("a database");
    let (refs, times) = grow(&db, series);
    report(&format!("growing to {series}, {BATCH} new series, CPU"), times, "");
    let mut at = 0;
    let ask = |matchers: Vec<Matcher>, hints: &Hints| {
        let querier = db.querier(TimeRange::ALL).expect("open");
        black_box(querier.select(&Selector::new(matchers), hints).expect("select").len());
    };
    let regex = |value: String| Matcher::new(MatchOp::Regex, "instance", &value).expect("valid");
    let any_order = Hints { unordered: true, ..Hints::default() };
    beside(&db, &refs, &mut at, "appending alone", |_| {
        std::thread::sleep(Duration::from_millis(5));
    });
    beside(&db, &refs, &mut at, "beside one series", |n| {
        ask(vec![Matcher::equal("instance", &labels(n as usize).to_string())], &any_order);
    });
    beside(&db, &refs, &mut at, "beside an expression without a text", |n| {
        ask(vec![regex(format!("host-[0-9]+{}{}[13]7.+", n % 10, n / 10 % 10))], &any_order);
    });
    beside(&db, &refs, &mut at, "beside half of all series", |n| {
        ask(vec![regex(format!("host-.*[02468].+0|x{n}"))], &any_order);
    });
    beside(&db, &refs, &mut at, "beside all series in order", |_| {
        ask(Vec::new(), &Hints::default());
    });
    beside(&db, &refs, &mut at, "beside label values", |_| {
        let querier = db.querier(TimeRange::ALL).expect("open");
        black_box(querier.label_values("instance", &[], 0).expect("values").len());
    });
    drop(db);
    std::fs::remove_dir_all(&dir).expect("the directory was made by this bench");
}
