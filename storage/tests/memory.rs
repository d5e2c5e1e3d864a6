//! A start takes no more memory than the database had before, however long the log is that it reads.
//!
//! A program of its own, because all of what it allocates is counted.

use std::path::Path;
use std::sync::Arc;

use peak_alloc::PeakAlloc;
use stint_model::{Appender as _, Batch, Labels, Sample, SeriesRef, Timestamp};
use stint_storage::{Db, Options, OsDisk, SyncPolicy};

#[global_allocator]
static MEMORY: PeakAlloc = PeakAlloc;

const SERIES: usize = 5000;
const START: i64 = 1_699_999_200_000;

fn labels(number: usize) -> Labels {
    Labels::from_pairs([
        ("__name__", format!("node_{}_seconds_total", number % 60)),
        ("instance", format!("host-{:05}.example.net:9100", number / 500)),
        ("mode", format!("mode-{number}")),
    ])
}

fn open(dir: &Path) -> Db {
    let options = Options {
        sync: SyncPolicy::Never,
        // The whole log is read.
        checkpoint_bytes: u64::MAX,
        head_file_bytes: 1 << 18,
        ..Options::default()
    };
    let disk = Arc::new(OsDisk::new(dir).expect("a directory"));
    let (db, report) = Db::open(disk, options).expect("it opens");
    assert!(report.damage.is_empty(), "{report:?}");
    db
}

/// Appends `rounds` samples to each series.
fn fill(db: &Db, rounds: usize) {
    let mut refs: Vec<SeriesRef> = Vec::new();
    for round in 0..rounds {
        let at = Timestamp(START + round as i64 * 15_000);
        let mut batch = Batch::default();
        for number in 0..SERIES {
            // Some stay the same, some count, some are noise.
            let value = match number % 3 {
                0 => number as f64,
                1 => (round * 10 + number) as f64,
                _ => ((round * 7919 + number * 104_729) % 10_007) as f64 / 7.0,
            };
            match refs.get(number) {
                Some(known) => batch.push_known(*known, Sample::float(at, value)),
                None => batch.push(labels(number), Sample::float(at, value)),
            }
        }
        let appended = db.append(&batch).expect("appended");
        assert!(appended.rejected.is_empty());
        if round == 0 {
            refs.extend(appended.refs.into_iter().flatten());
        }
        while let Some(job) = db.next_job(at) {
            job.run().expect("done");
        }
    }
}

/// Bytes at most while `work` was done, beyond those in use before.
fn peak(work: impl FnOnce() -> Db) -> (usize, Db) {
    let before = MEMORY.current_usage();
    MEMORY.reset_peak_usage();
    let db = work();
    (MEMORY.peak_usage() - before, db)
}

#[test]
fn reading_the_log_takes_no_more_memory_than_writing_it_did() {
    let mut replayed = Vec::new();
    for rounds in [200, 400] {
        let dir =
            std::env::temp_dir().join(format!("stint-memory-{}-{rounds}", std::process::id()));
        let (while_appending, db) = peak(|| {
            let db = open(&dir);
            fill(&db, rounds);
            db
        });
        let logged = db.stats().wal_bytes;
        // As a kill leaves it.
        drop(db);
        let (while_reading, db) = peak(|| open(&dir));
        assert_eq!(db.stats().series, SERIES as u64);
        drop(db);
        std::fs::remove_dir_all(&dir).expect("the directory was made by this test");
        assert!(
            while_reading <= while_appending,
            "{while_reading} bytes to read {logged} of log, {while_appending} to write them"
        );
        replayed.push(while_reading);
    }
    // Twice the log is no more than what the series themselves have more.
    assert!(replayed[1] < replayed[0] + replayed[0] / 4, "{replayed:?}");
}
