//! The queries that were asked, remembered by what they touch.
//!
//! Queries that touch the same labels of the same metrics are one entry, so that a dashboard seen
//! for a hundred jobs is one as well. The number of entries is bounded; the one asked longest ago
//! goes first. What is kept is small, and survives a restart in a file (`docs/formats/usage.md`).

use std::collections::{BTreeSet, HashMap};
use std::hash::{BuildHasher, RandomState};
use std::path::PathBuf;
use std::sync::Arc;

use parking_lot::Mutex;
use serde::{Deserialize, Serialize};
use stint_model::labels::Quoted;
use stint_model::{Selector, Span, Timestamp};
use stint_storage::disk::{read_all, write_atomically};
use stint_storage::{Disk, DiskError};

use super::catalogue::{Known, Source};
use super::expression::{Name, Use, uses};
use super::needs::Needs;

/// Where the record is kept in the data folder.
pub const FILE: &str = "usage.json";
/// Entries at most.
const ENTRIES_MAX: usize = 2000;
/// Texts of which the entry is known at most; beyond, all are looked at anew.
const TEXTS_MAX: usize = 8192;
/// The longest expression that is remembered, in bytes.
const EXPR_BYTES_MAX: usize = 4096;
/// The largest file that is read.
const FILE_BYTES_MAX: u64 = 32 << 20;
/// What was not asked this long is forgotten.
const FORGOTTEN_AFTER: Span = Span(30 * Span::DAY.0);
const VERSION: u32 = 1;

/// The record of queries, shared by all who answer some.
#[derive(Debug)]
pub struct Queries {
    inner: Mutex<Inner>,
    hasher: RandomState,
    place: Option<(Arc<dyn Disk>, PathBuf)>,
}

#[derive(Debug)]
struct Inner {
    since: Timestamp,
    /// Of hashed texts, the entry; nothing where a text touches nothing.
    texts: HashMap<u64, Option<Arc<[Use]>>>,
    entries: HashMap<Arc<[Use]>, Entry>,
    is_dirty: bool,
}

#[derive(Clone, Debug)]
struct Entry {
    /// The latest expression of this kind.
    expr: Arc<str>,
    last: Timestamp,
    count: u64,
}

#[derive(Debug, Serialize, Deserialize)]
struct File {
    version: u32,
    since_ms: i64,
    queries: Vec<Row>,
}

#[derive(Debug, Serialize, Deserialize)]
struct Row {
    expr: String,
    last_ms: i64,
    count: u64,
}

impl Queries {
    /// A record in memory alone, begun at `now`.
    pub fn in_memory(now: Timestamp) -> Self {
        let (texts, entries) = (HashMap::new(), HashMap::new());
        let inner = Inner { since: now, texts, entries, is_dirty: false };
        Self { inner: Mutex::new(inner), hasher: RandomState::new(), place: None }
    }

    /// The record in the file at `path`, or a new one where there is none. The second part says why
    /// what an earlier run remembered is lost.
    pub fn open(disk: Arc<dyn Disk>, path: PathBuf, now: Timestamp) -> (Self, Option<String>) {
        let mut made = Self::in_memory(now);
        let read = match disk.size(&path) {
            Ok(bytes) if bytes > FILE_BYTES_MAX => Err("the file is too large".to_owned()),
            Ok(_) => read_all(&*disk, &path).map(Some).map_err(|error| error.to_string()),
            Err(error) if error.is_not_found() => Ok(None),
            Err(error) => Err(error.to_string()),
        };
        let problem = match read.and_then(|bytes| bytes.map_or(Ok(()), |it| made.load(&it, now))) {
            Ok(()) => None,
            Err(error) => Some(format!("{}: {error}", path.display())),
        };
        made.place = Some((disk, path));
        (made, problem)
    }

    fn load(&mut self, bytes: &[u8], now: Timestamp) -> Result<(), String> {
        let file: File = serde_json::from_slice(bytes).map_err(|error| error.to_string())?;
        if file.version != VERSION {
            return Err(format!("unknown version {}", file.version));
        }
        let inner = self.inner.get_mut();
        // A clock that was set back makes nothing younger than now.
        inner.since = Timestamp(file.since_ms).min(now);
        for row in file.queries.into_iter().take(ENTRIES_MAX) {
            // What cannot be read any more, after a change of the language, is forgotten.
            let Ok(touched) = uses(&row.expr) else { continue };
            let last = Timestamp(row.last_ms).min(now);
            inner.put(touched.into(), Entry { expr: row.expr.into(), last, count: row.count });
        }
        inner.is_dirty = false;
        Ok(())
    }

    /// Notes that an expression was asked at `now`.
    pub fn note(&self, expr: &str, now: Timestamp) {
        if expr.len() > EXPR_BYTES_MAX {
            return self.note_long(&uses(expr).unwrap_or_default(), now);
        }
        let hash = self.hasher.hash_one(expr);
        let known = self.inner.lock().texts.get(&hash).cloned();
        // Reading an expression takes too long to keep others waiting.
        let touched = known.unwrap_or_else(|| {
            let touched = uses(expr).unwrap_or_default();
            (!touched.is_empty()).then(|| touched.into())
        });
        let mut inner = self.inner.lock();
        if inner.texts.len() >= TEXTS_MAX {
            inner.texts.clear();
        }
        inner.texts.insert(hash, touched.clone());
        if let Some(touched) = touched {
            inner.touch(touched, expr, now);
        }
    }

    /// Notes that series were asked for by their labels at `now`, each with all of them.
    pub fn note_selector(&self, selector: &Selector, now: Timestamp) {
        let texts: Vec<String> = selector.matchers.iter().map(ToString::to_string).collect();
        self.note(&format!("{{{}}}", texts.join(",")), now);
    }

    /// Notes each metric of an expression that is too long to be kept.
    fn note_long(&self, touched: &[Use], now: Timestamp) {
        for used in touched {
            let expr = as_expression(used);
            if expr.len() <= EXPR_BYTES_MAX {
                self.inner.lock().touch([used.clone()].into(), &expr, now);
            }
        }
    }

    /// Since when queries are remembered, and what is known of them.
    pub fn known(&self) -> (Timestamp, Vec<Known>) {
        let inner = self.inner.lock();
        let one = |(touched, entry): (&Arc<[Use]>, &Entry)| Known {
            source: Source::Query,
            what: entry.expr.to_string(),
            expr: entry.expr.to_string(),
            uses: touched.to_vec(),
            unread: None,
            last: Some(entry.last),
            count: entry.count,
        };
        let mut known: Vec<Known> = inner.entries.iter().map(one).collect();
        known.sort_by(|a, b| b.last.cmp(&a.last).then_with(|| a.expr.cmp(&b.expr)));
        (inner.since, known)
    }

    /// Writes what changed since it was last written.
    ///
    /// # Errors
    /// The disk fails; the next attempt writes everything.
    pub fn save(&self, now: Timestamp) -> Result<(), DiskError> {
        let Some((disk, path)) = &self.place else { return Ok(()) };
        let file = {
            let mut inner = self.inner.lock();
            if !inner.is_dirty {
                return Ok(());
            }
            inner.forget(Timestamp(now.0.saturating_sub(FORGOTTEN_AFTER.0)));
            inner.is_dirty = false;
            inner.file()
        };
        let written = serde_json::to_vec(&file)
            .map_err(|error| DiskError::new("encode", path, error.into()))
            .and_then(|bytes| write_atomically(&**disk, path, &bytes));
        if written.is_err() {
            self.inner.lock().is_dirty = true;
        }
        written
    }
}

impl Inner {
    fn touch(&mut self, touched: Arc<[Use]>, expr: &str, now: Timestamp) {
        self.is_dirty = true;
        if let Some(entry) = self.entries.get_mut(&touched) {
            entry.last = entry.last.max(now);
            entry.count = entry.count.saturating_add(1);
            if &*entry.expr != expr {
                entry.expr = expr.into();
            }
            return;
        }
        self.put(touched, Entry { expr: expr.into(), last: now, count: 1 });
    }

    fn put(&mut self, touched: Arc<[Use]>, entry: Entry) {
        if touched.is_empty() {
            return;
        }
        if self.entries.len() >= ENTRIES_MAX {
            let oldest = self.entries.iter().min_by_key(|(_, entry)| entry.last);
            if let Some(oldest) = oldest.map(|(touched, _)| Arc::clone(touched)) {
                self.entries.remove(&oldest);
            }
        }
        self.entries.insert(touched, entry);
    }

    fn forget(&mut self, before: Timestamp) {
        self.entries.retain(|_, entry| entry.last >= before);
    }

    fn file(&self) -> File {
        let row = |entry: &Entry| Row {
            expr: entry.expr.to_string(),
            last_ms: entry.last.0,
            count: entry.count,
        };
        let mut queries: Vec<Row> = self.entries.values().map(row).collect();
        queries.sort_by(|a, b| b.last_ms.cmp(&a.last_ms).then_with(|| a.expr.cmp(&b.expr)));
        File { version: VERSION, since_ms: self.since.0, queries }
    }
}

/// An expression that touches just this.
fn as_expression(used: &Use) -> String {
    let selector = match &used.name {
        Name::Is(name) => format!("{{__name__={}}}", Quoted(name)),
        Name::Like(pattern) => format!("{{__name__=~{}}}", Quoted(pattern)),
        Name::Any => "{__name__=~\".+\"}".to_owned(),
    };
    let list = |labels: &BTreeSet<String>| {
        labels.iter().map(|label| Quoted(label).to_string()).collect::<Vec<_>>().join(", ")
    };
    match &used.needs {
        Needs::Only(labels) => format!("group by ({}) ({selector})", list(labels)),
        Needs::AllBut(labels) => format!("group without ({}) ({selector})", list(labels)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use stint_storage::SimDisk;

    fn open(disk: &SimDisk, now: i64) -> (Queries, Option<String>) {
        Queries::open(Arc::new(disk.clone()), PathBuf::from("usage.json"), Timestamp(now))
    }

    fn exprs(queries: &Queries) -> Vec<(String, i64, u64)> {
        let (_, known) = queries.known();
        known.into_iter().map(|k| (k.expr, k.last.unwrap().0, k.count)).collect()
    }

    #[test]
    fn queries_that_touch_the_same_are_one() {
        let queries = Queries::in_memory(Timestamp(0));
        queries.note("sum(m{job=\"a\"})", Timestamp(1));
        queries.note("sum(m{job=\"b\"})", Timestamp(2));
        queries.note("sum(m{job=\"a\"})", Timestamp(3));
        queries.note("1 + 1", Timestamp(3));
        queries.note("sum(", Timestamp(3));
        assert_eq!(exprs(&queries), [("sum(m{job=\"a\"})".to_owned(), 3, 3)]);
    }

    #[test]
    fn selectors_are_noted_with_all_labels() {
        let queries = Queries::in_memory(Timestamp(0));
        let selector = Selector::metric("m");
        queries.note_selector(&selector, Timestamp(1));
        let (_, known) = queries.known();
        assert_eq!(known[0].uses, uses("m").unwrap());
        queries.note_selector(&Selector::default(), Timestamp(1));
        assert_eq!(queries.known().1.len(), 1);
    }

    #[test]
    fn the_oldest_goes_when_there_are_too_many() {
        let queries = Queries::in_memory(Timestamp(0));
        for n in 0..ENTRIES_MAX + 3 {
            queries.note(&format!("sum(m{n})"), Timestamp(n as i64));
        }
        let known = exprs(&queries);
        assert_eq!(known.len(), ENTRIES_MAX);
        assert_eq!(known.last().unwrap().0, "sum(m3)");
    }

    #[test]
    fn what_was_asked_is_known_after_a_restart() {
        let disk = SimDisk::new();
        let (queries, problem) = open(&disk, 5);
        assert_eq!(problem, None);
        queries.note("sum(m)", Timestamp(6));
        let long = format!("sum(n{{a=\"{}\"}})", "x".repeat(EXPR_BYTES_MAX));
        queries.note(&long, Timestamp(7));
        queries.save(Timestamp(8)).unwrap();
        let (again, problem) = open(&disk, 100);
        assert_eq!(problem, None);
        assert_eq!(again.known().0, Timestamp(5));
        assert_eq!(exprs(&again), exprs(&queries));
        let (_, known) = again.known();
        assert_eq!(known[0].uses, uses(&long).unwrap());
        assert_eq!(again.known().1, queries.known().1);
    }

    #[test]
    fn what_was_not_asked_for_a_month_is_forgotten() {
        let disk = SimDisk::new();
        let (queries, _) = open(&disk, 0);
        queries.note("sum(m)", Timestamp(0));
        queries.note("sum(n)", Timestamp(1000));
        queries.save(Timestamp(FORGOTTEN_AFTER.0 + 1)).unwrap();
        assert_eq!(exprs(&open(&disk, 0).0).len(), 1);
    }

    #[test]
    fn a_file_that_cannot_be_read_is_reported_and_replaced() {
        let disk = SimDisk::new();
        write_atomically(&disk, &PathBuf::from("usage.json"), b"{\"version\": 9").unwrap();
        let (queries, problem) = open(&disk, 1);
        assert!(problem.unwrap().starts_with("usage.json: EOF"));
        queries.note("sum(m)", Timestamp(2));
        queries.save(Timestamp(2)).unwrap();
        let newer = b"{\"version\": 9, \"since_ms\": 0, \"queries\": []}";
        assert_eq!(open(&disk, 1).1, None);
        write_atomically(&disk, &PathBuf::from("usage.json"), newer).unwrap();
        assert_eq!(open(&disk, 1).1.unwrap(), "usage.json: unknown version 9");
    }
}
