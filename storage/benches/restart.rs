//! What a restart costs: after `kill -9` and after a clean stop.
//!
//! `cargo bench -p stint-storage --bench restart -- SERIES [ROUNDS] [DAYS]`; one sample a round for each
//! series, 15 s apart, behind so many days with one each quarter of an hour. Blocks are cut and merged on
//! the way, checkpoints written when they are due. Prints one figure a line. Times are CPU
//! time of the one thread there is, so that a busy machine does not show; the disk is waited for
//! beside them.

use std::sync::Arc;

use stint_model::{Appender as _, Batch, Labels, Sample, SeriesRef, Timestamp};
use stint_storage::{Db, OpenReport, Options, OsDisk, SyncPolicy};

const BATCH: usize = 5000;
const START: i64 = 1_699_999_200_000;
/// How often the database is opened after a clean stop.
const OPENS: usize = 10;

fn labels(number: usize) -> Labels {
    Labels::from_pairs([
        ("__name__", format!("node_{}_seconds_total", number % 60)),
        ("instance", format!("host-{:05}.example.net:9100", number / 500)),
        ("job", "node".to_owned()),
        ("mode", format!("mode-{}", number % 500)),
    ])
}

fn value(number: usize, round: usize) -> f64 {
    let noise = (number * 7919 + round * 104_729) % 1000;
    match number % 4 {
        0 => number as f64,
        1 | 2 => (number * 1000 + round * 4000 + noise) as f64,
        _ => 0.5 + noise as f64 / 1000.0,
    }
}

fn open(disk: &Arc<OsDisk>) -> (Db, OpenReport, f64) {
    let options = Options { sync: SyncPolicy::Never, ..Options::default() };
    let begun = cpu_millis();
    let (db, report) = Db::open(Arc::clone(disk) as _, options).expect("it opens");
    (db, report, cpu_millis() - begun)
}

fn cpu_millis() -> f64 {
    let stat = std::fs::read_to_string("/proc/thread-self/schedstat").expect("Linux");
    stat.split(' ').next().and_then(|nanos| nanos.parse::<f64>().ok()).expect("a number") / 1e6
}

/// Appends a sample of each series at each of `times`. Tells how many checkpoints were written on the way,
/// and what they took.
fn fill(db: &Db, series: usize, times: &[i64]) -> (usize, f64) {
    let (mut checkpoints, mut millis) = (0, 0.0);
    let mut refs: Vec<SeriesRef> = Vec::new();
    for (round, at) in times.iter().enumerate() {
        let at = Timestamp(START + at);
        for first in (0..series).step_by(BATCH) {
            let mut batch = Batch::default();
            for number in first..series.min(first + BATCH) {
                let sample = Sample::float(at, value(number, round));
                match refs.get(number) {
                    Some(known) => batch.push_known(*known, sample),
                    None => batch.push(labels(number), sample),
                }
            }
            let appended = db.append(&batch).expect("appended");
            assert!(appended.rejected.is_empty());
            if round == 0 {
                refs.extend(appended.refs.into_iter().flatten());
            }
        }
        while let Some(job) = db.next_job(at) {
            let (is_checkpoint, begun) = (job.name() == "checkpoint", cpu_millis());
            job.run().expect("done");
            if is_checkpoint {
                checkpoints += 1;
                millis += cpu_millis() - begun;
            }
        }
    }
    (checkpoints, millis)
}

fn peak_bytes() -> usize {
    let status = std::fs::read_to_string("/proc/self/status").expect("Linux");
    let line = status.lines().find(|line| line.starts_with("VmHWM:")).expect("a peak");
    let kib = line.split_whitespace().nth(1).and_then(|kib| kib.parse::<usize>().ok());
    kib.expect("a number") * 1024
}

/// Lets the peak be what is in use now.
fn forget_peak() {
    std::fs::write("/proc/self/clear_refs", "5").expect("Linux");
}

#[expect(clippy::print_stdout, reason = "the figures are the outcome")]
fn report(what: &str, figure: f64, unit: &str) {
    println!("{what:<44} {figure:>10.2} {unit}");
}

fn main() {
    let mut numbers = std::env::args().filter_map(|argument| argument.parse::<usize>().ok());
    let series = numbers.next().unwrap_or(1000);
    let rounds = numbers.next().unwrap_or(50);
    let days = numbers.next().unwrap_or(0);
    let begin = days as i64 * 86_400_000;
    let old = (0..days as i64 * 96).map(|quarter| quarter * 900_000);
    let times: Vec<i64> =
        old.chain((0..rounds as i64).map(|round| begin + round * 15_000)).collect();
    let root = std::env::temp_dir().join(format!("stint-restart-{}", std::process::id()));
    let disk = Arc::new(OsDisk::new(&root).expect("a directory"));
    let (db, ..) = open(&disk);
    let (checkpoints, millis) = fill(&db, series, &times);
    report("samples", (series * times.len()) as f64, "");
    report("checkpoints while appending", checkpoints as f64, "");
    let saved = (series * checkpoints).max(1) as f64;
    report("checkpoint, per series", millis / saved * 1e6, "ns");
    report("peak memory while appending", peak_bytes() as f64 / 1e6, "MB");
    drop(db);
    forget_peak();
    let (db, found, millis) = open(&disk);
    let millions = found.samples as f64 / 1e6;
    report("replayed samples", millions, "million");
    report("open after kill -9", millis, "ms");
    report("replay per million samples", millis / millions, "ms");
    report("peak memory while replaying", peak_bytes() as f64 / 1e6, "MB");
    let begun = cpu_millis();
    let closed = db.close().expect("closed");
    assert_eq!(closed.replays, None);
    report("clean stop", cpu_millis() - begun, "ms");
    let bytes = |stats: stint_storage::Stats| {
        (stats.wal_bytes + stats.head_file_bytes + stats.block_bytes) as f64
    };
    report("bytes per sample then", bytes(db.stats()) / (series * times.len()) as f64, "");
    drop(db);
    let mut opens = Vec::new();
    for _ in 0..OPENS {
        let (db, found, millis) = open(&disk);
        assert_eq!((found.segments, found.series), (0, series as u64));
        opens.push(millis);
        if opens.len() == OPENS {
            report("blocks", db.stats().blocks as f64, "");
            report("bytes of blocks", db.stats().block_bytes as f64 / 1e6, "MB");
        }
    }
    opens.sort_by(f64::total_cmp);
    report(
        "open after a clean stop, median",
        opens.get(OPENS / 2).copied().unwrap_or_default(),
        "ms",
    );
    report("the longest", opens.last().copied().unwrap_or_default(), "ms");
    std::fs::remove_dir_all(&root).expect("removed");
}
