//! Bytes per sample of everything on the disk, and what it takes to read them.
//!
//! `cargo bench -p stint-storage --bench size -- [TARGETS [ROUNDS]]` fills a database with scrapes
//! of made-up targets (`size/fleet.rs`), 376 series each, and prints its files as they are while it
//! is open, after a clean stop, after the next start, and as a snapshot; then what a sample of the
//! snapshot takes to decode. With `STINT_CORPUS` naming an unpacked recording (layout in
//! `codec/corpus.rs`), a block of it as well.

#[path = "codec/corpus.rs"]
mod corpus;
#[path = "size/fleet.rs"]
mod fleet;

use std::collections::BTreeMap;
use std::hint::black_box;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use stint_model::{Appender as _, Columns, TimeRange, Timestamp};
use stint_storage::block::{Block, BlockId, BlockMeta, BlockWriter};
use stint_storage::codec::values;
use stint_storage::codec::varint::Reader;
use stint_storage::{Db, Disk, Options, OsDisk, SimDisk, SyncPolicy};

use fleet::Target;

/// Rows of the recording's series.
const ROWS: usize = 480;

/// Chunks that are timed at once.
const AT_ONCE: usize = 50;

/// Each part is timed so often; the least counts, as the machine does other things.
const TRIES: usize = 15;

#[expect(clippy::print_stdout, reason = "the figures are the outcome")]
fn say(text: &str) {
    println!("{text}");
}

/// Bytes by directory and kind of file.
fn files(disk: &dyn Disk, dir: &Path, found: &mut BTreeMap<String, u64>) {
    for entry in disk.list(dir).expect("a directory") {
        let path = dir.join(&entry.name);
        if entry.is_dir {
            files(disk, &path, found);
            continue;
        }
        let text = path.display().to_string();
        let kind = if text.contains("checkpoint") {
            "wal/checkpoint".to_owned()
        } else if text.starts_with("wal/0") {
            "wal/segments".to_owned()
        } else if text.starts_with("head/") {
            "head".to_owned()
        } else if text.contains("blocks/") {
            format!("block {}", entry.name)
        } else {
            entry.name
        };
        *found.entry(kind).or_default() += entry.size;
    }
}

fn report(what: &str, disk: &dyn Disk, dir: &str, samples: u64) {
    let mut found = BTreeMap::new();
    files(disk, Path::new(dir), &mut found);
    say(&format!("{what}:"));
    for (kind, bytes) in &found {
        say(&format!("  {kind:<16} {bytes:>12} {:>8.4}", *bytes as f64 / samples as f64));
    }
    let total: u64 = found.values().sum();
    say(&format!("  {:<16} {total:>12} {:>8.4} B/sample", "all", total as f64 / samples as f64));
}

#[expect(clippy::disallowed_methods, reason = "a bench measures time")]
fn now() -> Instant {
    Instant::now()
}

/// The least time that each of `parts` took, added up.
fn least(parts: usize, mut work: impl FnMut(usize)) -> Duration {
    let mut total = Duration::ZERO;
    for part in 0..parts {
        let time = || {
            let begun = now();
            work(part);
            begun.elapsed()
        };
        total += std::iter::repeat_with(time).take(TRIES).min().unwrap_or_default();
    }
    total
}

/// Prints what decoding takes: reading series of the block, and their values by form.
fn decode(block: &Block) {
    let samples = block.meta().samples;
    let nanos = |time: Duration, samples: u64| time.as_nanos() as f64 / samples.max(1) as f64;
    let mut columns = Columns::default();
    let parts = (block.series_len() as usize).div_ceil(AT_ONCE);
    let read = least(parts, |part| {
        for series in (part * AT_ONCE..).take(AT_ONCE) {
            columns.clear();
            if (series as u32) < block.series_len() {
                block.read(series as u32, TimeRange::ALL, &mut columns).expect("intact");
            }
        }
    });
    say(&format!("  read, times and lookup included  {:>6.2} ns/sample", nanos(read, samples)));
    let mut forms: BTreeMap<&str, Vec<(Vec<u8>, usize)>> = BTreeMap::new();
    for series in 0..block.series_len() {
        columns.clear();
        block.read(series, TimeRange::ALL, &mut columns).expect("intact");
        for rows in columns.values.chunks(2048) {
            let mut bytes = Vec::new();
            values::put(rows, &mut bytes);
            let form = match bytes.first() {
                Some(0 | 1) => "constant",
                Some(2) if bytes.get(1) == Some(&0) => "integers",
                Some(2) => "decimals",
                Some(3) => "decimals with drift",
                Some(4) => "ordered bits",
                _ => "differing bits",
            };
            forms.entry(form).or_default().push((bytes, rows.len()));
        }
    }
    let (mut all, mut all_samples) = (Duration::ZERO, 0);
    let mut out = Vec::new();
    for (form, chunks) in &forms {
        let time = least(chunks.len().div_ceil(AT_ONCE), |part| {
            for (bytes, count) in chunks.iter().skip(part * AT_ONCE).take(AT_ONCE) {
                out.clear();
                values::take(&mut Reader::new(bytes), *count, &mut out).expect("intact");
                black_box(&out);
            }
        });
        let held: u64 = chunks.iter().map(|(_, count)| *count as u64).sum();
        let bytes: usize = chunks.iter().map(|(bytes, _)| bytes.len()).sum();
        all += time;
        all_samples += held;
        say(&format!(
            "  {form:<20} {:>5.1} % of samples {:>7.4} B {:>6.2} ns/sample",
            held as f64 / samples as f64 * 100.0,
            bytes as f64 / held as f64,
            nanos(time, held)
        ));
    }
    say(&format!("  all values                       {:>6.2} ns/sample", nanos(all, all_samples)));
}

fn recording(path: &Path) {
    let series = corpus::read(path, ROWS);
    let disk = SimDisk::new();
    let meta = BlockMeta::new(BlockId(1), TimeRange::ALL);
    let mut writer = BlockWriter::new(&disk, Path::new("blocks"), meta).expect("a directory");
    for (labels, columns) in &series {
        writer.add_series(labels, columns).expect("series are in order");
    }
    let meta = writer.finish().expect("written");
    report("a block of the recording", &disk, "blocks", meta.samples);
    let block = Block::open(&disk, &meta.dir(Path::new("blocks"))).expect("just written");
    block.verify().expect("intact");
    decode(&block);
}

fn open(disk: &Arc<OsDisk>) -> Db {
    let options = Options { sync: SyncPolicy::Never, ..Options::default() };
    Db::open(Arc::clone(disk) as _, options).expect("it opens").0
}

fn main() {
    let mut numbers = std::env::args().filter_map(|argument| argument.parse::<usize>().ok());
    let targets = numbers.next().unwrap_or(10);
    let rounds = numbers.next().unwrap_or(ROWS) as i64;
    if let Some(path) = std::env::var_os("STINT_CORPUS") {
        recording(Path::new(&path));
    }
    let root = std::env::temp_dir().join(format!("stint-size-{}", std::process::id()));
    let disk = Arc::new(OsDisk::new(&root).expect("a directory"));
    let db = open(&disk);
    let mut fleet: Vec<Target> = (0..targets).map(Target::new).collect();
    let mut samples = 0;
    for round in 0..rounds {
        for target in &mut fleet {
            let batch = target.scrape(round);
            let appended = db.append(&batch).expect("appended");
            assert!(appended.rejected.is_empty(), "{:?}", appended.rejected);
            samples += appended.refs.len() as u64;
            if round == 0 {
                target.refs = appended.refs.into_iter().flatten().collect();
            }
        }
        while let Some(job) = db.next_job(Timestamp(1_700_006_400_000 + round * 15_000)) {
            job.run().expect("done");
        }
    }
    say(&format!("{targets} targets, {samples} samples"));
    report("open", &*disk, "", samples);
    db.snapshot(Path::new("snapshot"), true).expect("taken");
    db.close().expect("closed");
    drop(db);
    report("snapshot", &*disk, "snapshot", samples);
    let blocks = disk.list(Path::new("snapshot/blocks")).expect("a directory");
    for entry in blocks {
        let dir = Path::new("snapshot/blocks").join(&entry.name);
        let block = Block::open(&*disk, &dir).expect("just written");
        block.verify().expect("intact");
        decode(&block);
    }
    disk.remove_dir(Path::new("snapshot")).expect("removed");
    report("stopped", &*disk, "", samples);
    let db = open(&disk);
    while let Some(job) = db.next_job(Timestamp(1_700_006_400_000 + rounds * 15_000)) {
        job.run().expect("done");
    }
    report("started again", &*disk, "", samples);
    drop(db);
    std::fs::remove_dir_all(&root).expect("removed");
}
