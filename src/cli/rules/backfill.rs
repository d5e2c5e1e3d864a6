//! `stint rules backfill`: what recording rules would have written, computed from stored history.

use std::collections::HashMap;
use std::io::Write as _;
use std::path::PathBuf;
use std::sync::Arc;

use anyhow::{Context as _, bail};
use clap::Args;
use stint_model::clock::SystemClock;
use stint_model::labels::METRIC_NAME;
use stint_model::{
    Appender, Batch, Clock, Histogram, Labels, Queryable, Sample, Span, Timestamp, Value,
};
use stint_promql::{Cancel, Engine, EngineOptions, QueryValue, RangeQuery, RangeSeries};
use stint_storage::{Db, Disk, Options, OsDisk};

use crate::api::params::parse_time;
use crate::import::folder::own_folder;
use crate::rules::lattice::Lattice;
use crate::rules::spec::{self, GroupSpec, RuleKind, RuleSpec};

/// How much time is computed and written before the next part.
const PART: Span = Span(2 * Span::HOUR.0);
/// How many samples are written at once.
const ROWS_MAX: usize = 50_000;

/// Computes the recording rules of files over stored history, and stores what they give, at the
/// times at which the server would have evaluated them. Groups and rules are taken in order, so that
/// rules may build on each other. No server may have the directory open.
#[derive(Debug, Args)]
pub(super) struct BackfillArgs {
    /// Rule files, named as the configuration names them: the times of a group depend on it.
    #[arg(required = true)]
    files: Vec<PathBuf>,
    /// From when, in seconds or as RFC 3339.
    #[arg(long, value_name = "TIME", value_parser = parse_time)]
    start: Timestamp,
    /// Until when; now without.
    #[arg(long, value_name = "TIME", value_parser = parse_time)]
    end: Option<Timestamp>,
    /// Distance between evaluations of groups that say nothing.
    #[arg(long = "eval-interval", value_name = "DURATION", default_value = "1m",
          value_parser = Span::parse)]
    eval_interval: Span,
    /// The data directory.
    #[arg(long = "storage.tsdb.path", value_name = "DIRECTORY", default_value = "data/")]
    path: PathBuf,
    /// Experimental features, comma-separated; may be repeated.
    #[arg(long = "enable-feature", value_name = "NAMES", value_delimiter = ',')]
    enable_feature: Vec<String>,
}

/// Computes and stores, with a line on standard error for each part.
pub(super) fn run(args: &BackfillArgs) -> anyhow::Result<()> {
    let reading =
        spec::Reading { interval: args.eval_interval, ..super::reading(&args.enable_feature) };
    let mut groups = Vec::new();
    for file in &args.files {
        let text = std::fs::read_to_string(file)
            .with_context(|| format!("{}: cannot read the file", file.display()))?;
        match spec::read(file, &text, &reading) {
            Ok(read) => groups.extend(read.groups),
            Err(errors) => bail!("{}", errors.join("\n")),
        }
    }
    let clock: Arc<dyn Clock> = Arc::new(SystemClock::new());
    let end = args.end.unwrap_or_else(|| clock.now()).min(clock.now());
    if args.start >= end {
        bail!("the start has to be before the end");
    }
    let disk: Arc<dyn Disk> = Arc::new(OsDisk::new(own_folder(&args.path))?);
    // What is too old is removed by the server, which knows how long things are kept.
    let options = Options { retention: None, retention_bytes: None, ..Options::default() };
    let (db, _) = Db::open(disk, options).context("cannot open the store")?;
    let engine = EngineOptions {
        features: reading.features,
        subquery_step: args.eval_interval,
        ..EngineOptions::default()
    };
    let mut work = Backfill::new(&db, &db, Engine::new(engine), Arc::clone(&clock), end);
    let outcome = work.all(&groups, args.start, &mut |part, written| {
        while let Some(job) = db.next_job(clock.now()) {
            job.run()?;
        }
        // Where standard error is closed, nobody wants to know.
        let _ =
            writeln!(std::io::stderr(), "{}: {written} samples", crate::cli::rules::shown(part));
        Ok(())
    });
    let closed = db.close().context("cannot close the store");
    outcome?;
    closed?;
    let Counts { written, refused } = work.counts;
    let text = format!("{written} samples written, {refused} were there already or refused\n");
    std::io::stdout().write_all(text.as_bytes()).context("cannot print the outcome")
}

/// What became of the samples.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Counts {
    written: usize,
    refused: usize,
}

/// A computation on its way.
struct Backfill<'a> {
    store: &'a dyn Queryable,
    appender: &'a dyn Appender,
    engine: Engine,
    cancel: Cancel,
    end: Timestamp,
    window: Span,
    /// The last sample of each series that has not ended, by rule.
    last: HashMap<(usize, usize), HashMap<Labels, Timestamp>>,
    counts: Counts,
}

impl<'a> Backfill<'a> {
    fn new(
        store: &'a dyn Queryable,
        appender: &'a dyn Appender,
        engine: Engine,
        clock: Arc<dyn Clock>,
        end: Timestamp,
    ) -> Self {
        let counts = Counts::default();
        let (cancel, last) = (Cancel::new(clock), HashMap::new());
        Self { store, appender, engine, cancel, end, window: Span(i64::MAX), last, counts }
    }

    /// Everything from `start` on, part by part; after each, `done` is told its end and what was
    /// written so far.
    fn all(
        &mut self,
        groups: &[GroupSpec],
        start: Timestamp,
        done: &mut dyn FnMut(Timestamp, usize) -> anyhow::Result<()>,
    ) -> anyhow::Result<()> {
        let mut from = start;
        while from < self.end {
            let to = (from + PART).min(self.end);
            // Far enough back for all of it, and no overflow on the way.
            self.window = Span(self.end.since(start).0.saturating_mul(2).saturating_add(PART.0));
            for (number, group) in groups.iter().enumerate() {
                self.group(number, group, from, to)?;
            }
            done(to, self.counts.written)?;
            from = to;
        }
        Ok(())
    }

    /// The points of a group in `from..to`.
    fn group(
        &mut self,
        number: usize,
        group: &GroupSpec,
        from: Timestamp,
        to: Timestamp,
    ) -> anyhow::Result<()> {
        let lattice = Lattice::new(&group.file, &group.name, group.interval);
        let mut first = lattice.last_before(from);
        if first.at() < from {
            first = lattice.next(first);
        }
        // Points lie between milliseconds; what counts is the one that they are rounded to.
        let last = match lattice.last_before(to) {
            last if last.at() < to => last,
            _ => lattice.last_before(to - Span(1)),
        };
        if last < first {
            return Ok(());
        }
        let (start, end) = (first.at() - group.query_offset, last.at() - group.query_offset);
        for (at, rule) in group.rules.iter().enumerate() {
            if rule.kind != RuleKind::Recording {
                continue;
            }
            let query =
                RangeQuery { expr: &rule.query, start, end, step: group.interval, lookback: None };
            let answer = self
                .engine
                .range(self.store, &query, &self.cancel)
                .with_context(|| format!("rule {}", rule.name))?;
            let QueryValue::Matrix(series) = answer.value else { continue };
            let limit = group.limit;
            if limit > 0 && series.len() > limit {
                bail!("rule {}: exceeded limit of {limit} with {} series", rule.name, series.len());
            }
            self.write((number, at), rule, series, (start, end, group.interval))?;
        }
        Ok(())
    }

    fn write(
        &mut self,
        key: (usize, usize),
        rule: &RuleSpec,
        series: Vec<RangeSeries>,
        (start, end, step): (Timestamp, Timestamp, Span),
    ) -> anyhow::Result<()> {
        let mut before = self.last.remove(&key).unwrap_or_default();
        let mut now: HashMap<Labels, Timestamp> = HashMap::new();
        let mut batch = Batch { out_of_order_window: self.window, ..Batch::default() };
        for one in series {
            let labels = renamed(rule, &one.labels);
            if now.contains_key(&labels) {
                let text =
                    "vector contains metrics with the same labelset after applying rule labels";
                bail!("rule {}: {text}", rule.name);
            }
            let mut last = before.remove(&labels);
            for sample in samples(one) {
                // A gap ends the series, as it would have when it was evaluated.
                if let Some(last) = last.filter(|last| sample.at > *last + step) {
                    batch.push(labels.clone(), Sample::stale(last + step));
                }
                last = Some(sample.at);
                batch.push(labels.clone(), sample);
            }
            match last {
                Some(last) if last < end => {
                    batch.push(labels.clone(), Sample::stale(last + step));
                    now.insert(labels, Timestamp::MAX);
                }
                Some(last) => drop(now.insert(labels, last)),
                None => {}
            }
            if batch.rows.len() >= ROWS_MAX {
                self.append(&mut batch)?;
            }
        }
        for labels in before.into_keys() {
            batch.push(labels, Sample::stale(start));
        }
        self.append(&mut batch)?;
        now.retain(|_, last| *last != Timestamp::MAX);
        self.last.insert(key, now);
        Ok(())
    }

    fn append(&mut self, batch: &mut Batch) -> anyhow::Result<()> {
        if batch.rows.is_empty() {
            return Ok(());
        }
        let appended = self.appender.append(batch).context("cannot write to the store")?;
        self.counts.refused += appended.rejected.len();
        self.counts.written += batch.rows.len() - appended.rejected.len();
        batch.clear();
        Ok(())
    }
}

/// The samples of a series in order of time.
fn samples(series: RangeSeries) -> Vec<Sample> {
    let floats = series.floats.into_iter();
    let floats = floats.map(|(at, value)| Sample { at, started: None, value: Value::Float(value) });
    let histograms = series.histograms.into_iter().map(|(at, histogram)| {
        let value = Value::Histogram(Arc::new(Histogram::Float((*histogram).clone())));
        Sample { at, started: None, value }
    });
    let mut all: Vec<Sample> = floats.chain(histograms).collect();
    all.sort_by_key(|sample| sample.at);
    all
}

fn renamed(rule: &RuleSpec, labels: &Labels) -> Labels {
    let mut made = labels.to_builder();
    made.set(METRIC_NAME, &rule.name);
    for (name, value) in &rule.labels {
        made.set(name, value.raw());
    }
    made.build()
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use stint_model::clock::SimClock;
    use stint_model::{Columns, Hints, Selector, TimeRange, is_stale};
    use stint_storage::SimDisk;

    use super::*;

    const MINUTE: i64 = 60_000;

    #[test]
    fn history_is_what_evaluation_would_have_written() {
        let (db, _) = Db::open(Arc::new(SimDisk::new()), Options::default()).unwrap();
        let up = Labels::from_pairs([("__name__", "up"), ("job", "a")]);
        let mut batch = Batch::default();
        for minute in 0..240 {
            // It was away for half an hour.
            let value = if (100..130).contains(&minute) { 0.0 } else { minute as f64 };
            batch.push(up.clone(), Sample::float(Timestamp(minute * MINUTE), value));
        }
        db.append(&batch).unwrap();
        let yaml = "groups: [{name: g, rules: [{record: a, expr: up > 0, labels: {x: y}}, {record: b, expr: a * 2}]}]";
        let groups =
            spec::read(Path::new("r.yml"), yaml, &super::super::reading(&[])).unwrap().groups;
        let (start, end) = (Timestamp(10 * MINUTE), Timestamp(235 * MINUTE));
        let clock: Arc<dyn Clock> = Arc::new(SimClock::at(end));
        let engine = Engine::new(EngineOptions::default());
        let mut work = Backfill::new(&db, &db, engine.clone(), Arc::clone(&clock), end);
        let mut parts = Vec::new();
        work.all(&groups, start, &mut |to, _| {
            parts.push(to.0 / MINUTE);
            Ok(())
        })
        .unwrap();
        assert_eq!(parts, [130, 235]);
        let read = |name: &str| {
            let querier = db.querier(TimeRange::ALL).unwrap();
            let set = querier.select(&Selector::metric(name), &Hints::default()).unwrap();
            assert_eq!(set.len(), 1, "{name}");
            let mut columns = Columns::default();
            set.read(0, TimeRange::ALL, &mut columns).unwrap();
            columns
        };
        let (a, b) = (read("a"), read("b"));
        let lattice = Lattice::new("r.yml", "g", Span::MINUTE);
        let first = lattice.next(lattice.last_before(a.times[0]));
        assert_eq!(first.at(), a.times[0], "at the times of the group");
        assert_eq!(a.times.len(), 225 - 30 + 1, "with one marker");
        assert_eq!(a.values.iter().filter(|value| is_stale(**value)).count(), 1);
        assert_eq!(a.times, b.times);
        assert!(a.values.iter().zip(&b.values).all(|(a, b)| is_stale(*a) || a * 2.0 == *b));
        // A second time there is nothing new.
        let mut again = Backfill::new(&db, &db, engine, clock, end);
        again.all(&groups, start, &mut |_, _| Ok(())).unwrap();
        assert_eq!(again.counts.refused, 0, "the same values are no conflict");
        let bits = |columns: &Columns| -> Vec<u64> {
            columns.values.iter().map(|value| value.to_bits()).collect()
        };
        assert_eq!((read("a").times.clone(), bits(&read("a"))), (a.times.clone(), bits(&a)));
    }
}
