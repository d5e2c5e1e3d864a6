//! A file in the text format of Prometheus, or in `OpenMetrics`, each of whose samples has a time.

use std::path::{Path, PathBuf};

use hashbrown::HashMap;
use stint_model::{Labels, TimeRange, Timestamp};
use stint_storage::{Disk as _, Mapped, OsDisk};
use stint_wire::exposition::{Entry, Format, Parser};

use super::spool::{Number, Spool};
use super::state::State;
use super::{Counts, ImportError, Target, Watcher};

/// Bytes of samples in memory.
const SPOOL_BYTES: usize = 192 << 20;
/// Samples between two looks at the watcher.
const SAMPLES_BETWEEN: u64 = 1 << 16;
/// Texts of series whose numbers are remembered.
const KNOWN_MAX: usize = 1 << 18;

/// A file that was read once: all of it can be parsed, and each sample has a time.
#[derive(Debug)]
pub struct TextFile {
    path: PathBuf,
    bytes: Mapped,
    format: Format,
    samples: u64,
    range: Option<TimeRange>,
}

impl TextFile {
    /// Reads the file `path` from its beginning to its end.
    ///
    /// # Errors
    /// It cannot be read or parsed, or holds a sample without a time; the text says where.
    pub fn open(path: &Path) -> Result<Self, ImportError> {
        let fail = |why: String| ImportError::Source(format!("{}: {why}", path.display()));
        let (Some(name), Some(dir)) = (path.file_name(), path.parent()) else {
            return Err(fail("not a file".to_owned()));
        };
        let dir = if dir == Path::new("") { Path::new(".") } else { dir };
        let disk = OsDisk::new(dir).map_err(|error| fail(error.to_string()))?;
        let bytes = disk.map(Path::new(name)).map_err(|error| fail(error.to_string()))?;
        let format =
            if is_open_metrics(&bytes) { Format::OpenMetrics } else { Format::PrometheusText };
        let (mut samples, mut first, mut last) = (0, Timestamp::MAX, Timestamp::MIN);
        let mut parser = Parser::new(format, &bytes);
        while let Some(entry) = parser.next().map_err(|error| fail(error.to_string()))? {
            let Entry::Series(series) = entry else { continue };
            let Some(at) = series.timestamp else {
                return Err(fail(format!("sample {} ({}) has no time", samples + 1, series.raw)));
            };
            (first, last) = (first.min(at), last.max(at));
            samples += 1;
        }
        let range = (samples > 0).then(|| TimeRange::closed(first, last));
        Ok(Self { path: path.to_path_buf(), bytes, format, samples, range })
    }

    /// How many samples it has.
    pub fn samples(&self) -> u64 {
        self.samples
    }

    /// From when to when; `None` where there are none.
    pub fn range(&self) -> Option<TimeRange> {
        self.range
    }

    /// Imports everything that `target` takes.
    ///
    /// # Errors
    /// See [`ImportError`].
    pub fn import(
        &self,
        target: &Target<'_>,
        state: &mut State<'_>,
        source: &str,
        watcher: &mut dyn Watcher,
    ) -> Result<Counts, ImportError> {
        let mut counts = Counts::default();
        // A file that was written anew is another one.
        let unit = format!("{:016x}", xxhash_rust::xxh3::xxh3_64(&self.bytes));
        if state.is_done(source, &unit) {
            counts.done_before = 1;
            return Ok(counts);
        }
        let skipped = state.within(source, &unit);
        let mut spool = Spool::new(target, SPOOL_BYTES);
        let mut known: HashMap<String, Option<Number>> = HashMap::new();
        let mut seen = 0;
        let mut parser = Parser::new(self.format, &self.bytes);
        let fail = |why: String| ImportError::Source(format!("{}: {why}", self.path.display()));
        while let Some(entry) = parser.next().map_err(|error| fail(error.to_string()))? {
            let series = match entry {
                Entry::Series(series) => series,
                // How bounds of buckets are written depends on it.
                Entry::Type { .. } => {
                    known.clear();
                    continue;
                }
                Entry::Histogram(_) | Entry::Help { .. } | Entry::Unit { .. } => continue,
            };
            seen += 1;
            if seen <= skipped {
                continue;
            }
            let number = if let Some(number) = known.get(series.raw) {
                *number
            } else {
                let mut pairs = Vec::new();
                series.each_label(|name, value| pairs.push((name.to_owned(), value.to_owned())));
                let labels = target.stored(&Labels::from_pairs(pairs));
                let number = labels.map(|labels| spool.number(&labels));
                if known.len() >= KNOWN_MAX {
                    known.clear();
                }
                known.insert(series.raw.to_owned(), number);
                number
            };
            if let Some((number, at)) = number.zip(series.timestamp) {
                spool.float(number, at, series.value);
            }
            if spool.is_full() {
                spool.empty(&mut counts)?;
                known.clear();
                state.reached(source, &unit, seen)?;
            }
            if seen % SAMPLES_BETWEEN == 0 && !watcher.at(seen, self.samples, seen) {
                return Err(ImportError::Stopped);
            }
        }
        spool.empty(&mut counts)?;
        state.done(source, &unit)?;
        watcher.at(self.samples, self.samples, seen);
        Ok(counts)
    }
}

/// `OpenMetrics` ends with a line that says so.
fn is_open_metrics(bytes: &[u8]) -> bool {
    bytes.trim_ascii_end().ends_with(b"# EOF")
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use stint_model::{Columns, Hints, Queryable as _, Selector};
    use stint_storage::{Db, Disk, Options, SimDisk};

    use super::*;

    struct Any;

    impl Watcher for Any {
        fn at(&mut self, _: u64, _: u64, _: u64) -> bool {
            true
        }
    }

    fn written(name: &str, text: &str) -> PathBuf {
        let path = std::env::temp_dir().join(format!("stint-{}-{name}", std::process::id()));
        std::fs::write(&path, text).unwrap();
        path
    }

    fn imported(text: &str, name: &str, labels: &[(&str, &str)]) -> Vec<String> {
        let path = written(name, text);
        let disk: Arc<dyn Disk> = Arc::new(SimDisk::new());
        let options = Options { retention: None, ..Options::default() };
        let (db, _) = Db::open(Arc::clone(&disk), options).unwrap();
        let labels = labels.iter().map(|(n, v)| ((*n).to_owned(), (*v).to_owned())).collect();
        let target = Target { db: &db, range: TimeRange::ALL, selectors: Vec::new(), labels };
        let file = TextFile::open(&path).unwrap();
        let mut state = State::open(&*disk).unwrap();
        let counts = file.import(&target, &mut state, "f", &mut Any).unwrap();
        assert_eq!(counts.samples, file.samples());
        let again = file.import(&target, &mut state, "f", &mut Any).unwrap();
        assert_eq!((again.samples, again.done_before), (0, 1));
        std::fs::remove_file(&path).unwrap();
        let querier = db.querier(TimeRange::ALL).unwrap();
        let set = querier.select(&Selector::default(), &Hints::default()).unwrap();
        let shown = |index| {
            let mut columns = Columns::default();
            set.read(index, TimeRange::ALL, &mut columns).unwrap();
            let rows: Vec<String> = columns
                .times
                .iter()
                .zip(columns.values)
                .map(|(at, v)| format!("{v}@{at}"))
                .collect();
            format!("{} {}", set.labels(index), rows.join(" "))
        };
        (0..set.len()).map(shown).collect()
    }

    #[test]
    fn both_formats_are_read_in_any_order_of_time() {
        let text = "# TYPE a counter\na{x=\"1\"} 2 2000\na{x=\"1\"} 1 1000\n# TYPE h histogram\n\
                    h_bucket{le=\"1\"} 3 1700000000000\n";
        assert_eq!(
            imported(text, "text.prom", &[]),
            [
                r#"{__name__="a", x="1"} 1@1000 2@2000"#,
                r#"{__name__="h_bucket", le="1.0"} 3@1700000000000"#
            ]
        );
        let text = "# TYPE a counter\na_total{x=\"1\"} 2 2\na_total{x=\"1\"} NaN 3.5\n# EOF\n";
        assert_eq!(
            imported(text, "text.om", &[("x", "2"), ("y", "z")]),
            [r#"{__name__="a_total", x="2", y="z"} 2@2000 NaN@3500"#]
        );
        assert_eq!(imported("", "empty.prom", &[]), Vec::<String>::new());
    }

    #[test]
    fn what_has_no_time_or_no_sense_is_refused_before_anything_is_written() {
        let refused = |name, text| {
            let path = written(name, text);
            let error = TextFile::open(&path).unwrap_err().to_string();
            std::fs::remove_file(&path).unwrap();
            error
        };
        assert!(
            refused("none", "a 1 1000\nb{c=\"d\"} 2\n")
                .contains("sample 2 (b{c=\"d\"}) has no time")
        );
        assert!(refused("bad", "a 1 1000\nb{\n").contains("line 2"));
        assert!(TextFile::open(Path::new("/nowhere/f")).is_err());
    }
}
