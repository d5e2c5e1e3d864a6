//! `/api/v1/status/tsdb`: how many series there are, and of what.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use serde::Serialize;
use stint_model::{Hints, Labels, MatchOp, Matcher, Queryable, Selector, TimeRange, Timestamp};
use stint_promql::Cancel;
use stint_storage::Stats;

use super::error::{ApiError, ErrorKind};
use super::extract::Ready;
use super::json::Reply;
use super::params::Params;
use super::series::{PHASE, SERIES_BETWEEN_CHECKS, read_selectors};

/// Entries per list when the request does not say.
const LIMIT_DEFAULT: usize = 10;
/// Most entries per list.
const LIMIT_MAX: usize = 10_000;

#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct TsdbJson {
    head_stats: HeadJson,
    series_count_by_metric_name: Vec<Count>,
    label_value_count_by_label_name: Vec<Count>,
    memory_in_bytes_by_label_name: Vec<Count>,
    series_count_by_label_value_pair: Vec<Count>,
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct HeadJson {
    num_series: u64,
    num_label_pairs: usize,
    /// Of the head alone.
    #[serde(skip_serializing_if = "Option::is_none")]
    chunk_count: Option<u64>,
    min_time: i64,
    max_time: i64,
}

#[derive(Debug, PartialEq, Eq, Serialize)]
struct Count {
    name: String,
    value: u64,
}

/// Which series are counted.
pub(super) struct Counted {
    /// From when they are; nothing for the head.
    range: Option<TimeRange>,
    /// What selects them; all where there is nothing.
    selectors: Vec<Selector>,
}

impl Counted {
    /// All series of the head.
    #[cfg(test)]
    pub(super) const HEAD: Self = Self { range: None, selectors: Vec::new() };

    /// What `start`, `end` and `match[]` say.
    fn read(params: &Params) -> Result<Self, ApiError> {
        let is_past = params.get("start").is_some() || params.get("end").is_some();
        let start = params.time("start", Timestamp::MIN)?;
        let end = params.time("end", Timestamp::MAX)?;
        let range = is_past.then(|| TimeRange::closed(start, end));
        Ok(Self { range, selectors: read_selectors(params, "match[]")? })
    }
}

/// Counts of the head's series, or of those of any time that the store still has.
pub(super) async fn tsdb(Ready(parts): Ready, params: Params) -> Result<Reply, ApiError> {
    let limit = match params.get("limit").map(str::parse::<usize>) {
        None => LIMIT_DEFAULT,
        Some(Ok(limit)) if (1..=LIMIT_MAX).contains(&limit) => limit,
        Some(_) => {
            let cause = format!("limit must be a number between 1 and {LIMIT_MAX}");
            return Err(ApiError::invalid_parameter("limit", cause));
        }
    };
    let counted = Counted::read(&params)?;
    let (store, db) = (Arc::clone(&parts.store), parts.db.clone());
    let outcome = parts.run(None, move |cancel| {
        let stats = db.stats();
        let census = Census::take(store.as_ref(), &stats, &counted, cancel)?;
        Ok(Reply::json(&census.into_json(&stats, &counted, limit)))
    });
    Ok(outcome.await?.0)
}

#[derive(Debug, Serialize)]
struct BlocksJson {
    blocks: Vec<BlockJson>,
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct BlockJson {
    ulid: String,
    min_time: i64,
    max_time: i64,
    stats: BlockStatsJson,
    compaction: CompactionJson,
    version: u32,
}

#[derive(Debug, Serialize)]
struct BlockStatsJson {
    #[serde(rename = "numSamples")]
    samples: u64,
    #[serde(rename = "numSeries")]
    series: u64,
    #[serde(rename = "numChunks")]
    chunks: u64,
}

#[derive(Debug, Serialize)]
struct CompactionJson {
    level: u32,
    sources: Vec<String>,
}

/// The blocks on disk, as far as clients know such figures.
pub(super) async fn blocks(Ready(parts): Ready) -> Reply {
    let blocks = parts.db.blocks().into_iter().map(|meta| {
        let own = [meta.id];
        let sources = if meta.parents.is_empty() { &own[..] } else { &meta.parents };
        BlockJson {
            ulid: meta.id.to_string(),
            min_time: meta.range.start.0,
            max_time: meta.range.end.0,
            stats: BlockStatsJson {
                samples: meta.samples,
                series: meta.series,
                chunks: meta.chunks,
            },
            compaction: CompactionJson {
                level: meta.level,
                sources: sources.iter().map(ToString::to_string).collect(),
            },
            version: meta.version,
        }
    });
    Reply::json(&BlocksJson { blocks: blocks.collect() })
}

/// What series consist of.
#[derive(Default)]
pub(super) struct Census {
    series: u64,
    by_metric: HashMap<String, u64>,
    /// Series by value, by label name.
    by_label: HashMap<String, HashMap<String, u64>>,
}

impl Census {
    pub(super) fn take(
        store: &dyn Queryable,
        stats: &Stats,
        counted: &Counted,
        cancel: &Cancel,
    ) -> Result<Self, ApiError> {
        let mut census = Self::default();
        let head = || stats.head_bounds.map(|(first, last)| TimeRange::closed(first, last));
        let Some(range) = counted.range.or_else(head) else { return Ok(census) };
        let querier = store.querier(range)?;
        let named = Matcher::new(MatchOp::NotEqual, "__name__", "")
            .map_err(|error| ApiError::new(ErrorKind::Internal, error.to_string()))?;
        let all = [Selector::new(vec![named])];
        let selectors =
            if counted.selectors.is_empty() { &all[..] } else { &counted.selectors[..] };
        let hints = Hints { func: "series".into(), unordered: true, ..Hints::default() };
        let mut seen: HashSet<Labels> = HashSet::new();
        for selector in selectors {
            let set = querier.select(selector, &hints)?;
            for index in 0..set.len() {
                if index % SERIES_BETWEEN_CHECKS == 0 {
                    cancel.check(PHASE)?;
                }
                let labels = set.labels(index);
                // What one selector finds is there once.
                if selectors.len() == 1 || seen.insert(labels.clone()) {
                    census.add(&labels);
                }
            }
        }
        Ok(census)
    }

    fn add(&mut self, labels: &Labels) {
        self.series += 1;
        if let Some(metric) = labels.metric_name() {
            *count_of(&mut self.by_metric, metric) += 1;
        }
        for (name, value) in labels {
            if !self.by_label.contains_key(name) {
                self.by_label.insert(name.to_owned(), HashMap::new());
            }
            if let Some(values) = self.by_label.get_mut(name) {
                *count_of(values, value) += 1;
            }
        }
    }

    fn into_json(self, stats: &Stats, counted: &Counted, limit: usize) -> TsdbJson {
        let bytes = |values: &HashMap<String, u64>| values.keys().map(|v| v.len() as u64).sum();
        let label_counts =
            self.by_label.iter().map(|(name, values)| (name.clone(), values.len() as u64));
        let label_bytes = self.by_label.iter().map(|(name, values)| (name.clone(), bytes(values)));
        let pairs = self.by_label.iter().flat_map(|(name, values)| {
            values.iter().map(move |(value, count)| (format!("{name}={value}"), *count))
        });
        let (first, last) = match (counted.range, stats.head_bounds) {
            (Some(range), _) => (range.start.0, range.end.0),
            (None, Some((first, last))) => (first.0, last.0),
            // What Prometheus shows for an empty head.
            (None, None) => (i64::MAX, i64::MIN),
        };
        let is_head = counted.range.is_none() && counted.selectors.is_empty();
        TsdbJson {
            head_stats: HeadJson {
                num_series: if is_head { stats.series } else { self.series },
                num_label_pairs: self.by_label.values().map(HashMap::len).sum(),
                chunk_count: is_head.then_some(stats.chunks),
                min_time: first,
                max_time: last,
            },
            label_value_count_by_label_name: largest(label_counts, limit),
            memory_in_bytes_by_label_name: largest(label_bytes, limit),
            series_count_by_label_value_pair: largest(pairs, limit),
            series_count_by_metric_name: largest(self.by_metric.into_iter(), limit),
        }
    }
}

fn count_of<'m>(counts: &'m mut HashMap<String, u64>, key: &str) -> &'m mut u64 {
    counts.entry(key.to_owned()).or_default()
}

/// The entries with the largest values, equal ones in order of names.
fn largest(entries: impl Iterator<Item = (String, u64)>, limit: usize) -> Vec<Count> {
    let mut counts: Vec<Count> = entries.map(|(name, value)| Count { name, value }).collect();
    counts.sort_unstable_by(|a, b| b.value.cmp(&a.value).then_with(|| a.name.cmp(&b.name)));
    counts.truncate(limit);
    counts
}

#[derive(Serialize)]
struct ReplayJson {
    min: u64,
    max: u64,
    current: u64,
}

/// The log is replayed before the server is ready; there is no progress to tell afterwards.
pub(super) async fn wal_replay() -> Reply {
    Reply::json(&ReplayJson { min: 0, max: 0, current: 0 })
}

#[cfg(test)]
mod tests {
    use stint_model::{Appender as _, Batch, Sample, Span};
    use stint_storage::{Db, SimDisk};

    use super::*;

    #[test]
    fn the_largest_come_first() {
        let entries = [("b", 1), ("a", 1), ("c", 5)].map(|(name, value)| (name.to_owned(), value));
        let counts = largest(entries.into_iter(), 2);
        let names: Vec<&str> = counts.iter().map(|count| count.name.as_str()).collect();
        assert_eq!(names, ["c", "a"]);
    }

    #[test]
    fn what_was_there_on_a_past_day_can_be_counted() {
        let (db, _) =
            Db::open(Arc::new(SimDisk::new()), stint_storage::Options::default()).unwrap();
        for (metric, hour) in [("a", 1), ("a", 2), ("b", 2), ("c", 3)] {
            let mut batch = Batch::default();
            let labels = Labels::from_pairs([("__name__", metric), ("hour", &hour.to_string())]);
            batch.push(labels, Sample::float(Timestamp(hour * Span::HOUR.0), 1.0));
            db.append(&batch).unwrap();
        }
        let counted = |query: &str| {
            let counted = Counted::read(&Params::parse(b"", Some(query)).unwrap()).unwrap();
            let clock = stint_model::clock::SimClock::at(Timestamp(0));
            let (stats, cancel) = (db.stats(), Cancel::new(Arc::new(clock)));
            let census = Census::take(&db, &stats, &counted, &cancel).unwrap();
            let json = census.into_json(&stats, &counted, 10);
            let names = json.series_count_by_metric_name.into_iter().map(|it| it.name).collect();
            (json.head_stats.num_series, json.head_stats.chunk_count.is_some(), names)
        };
        let names = |names: &[&str]| names.iter().map(|it| (*it).to_owned()).collect::<Vec<_>>();
        assert_eq!(counted(""), (4, true, names(&["a", "b", "c"])));
        assert_eq!(counted("start=3601&end=7200"), (2, false, names(&["a", "b"])));
        assert_eq!(counted("match[]=a&match[]={hour='2'}"), (3, false, names(&["a", "b"])));
        assert_eq!(counted("start=99999"), (0, false, names(&[])));
    }

    #[test]
    fn series_are_counted_by_what_they_consist_of() {
        let mut census = Census::default();
        for instance in ["x", "y"] {
            census.add(&Labels::from_pairs([("__name__", "up"), ("instance", instance)]));
        }
        let json = census.into_json(&Stats::default(), &Counted::HEAD, 10);
        let count = |name: &str, value| Count { name: name.into(), value };
        assert_eq!(json.series_count_by_metric_name, [count("up", 2)]);
        assert_eq!(
            json.label_value_count_by_label_name,
            [count("instance", 2), count("__name__", 1)]
        );
        assert_eq!(json.series_count_by_label_value_pair[0], count("__name__=up", 2));
        assert_eq!(json.head_stats.num_label_pairs, 3);
    }
}
