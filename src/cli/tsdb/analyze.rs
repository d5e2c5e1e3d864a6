//! Which labels and metrics there is much of.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::fmt::Write as _;
use std::io::Write as _;
use std::path::PathBuf;

use anyhow::Context as _;
use clap::Args;
use serde::Serialize;
use stint_model::{Columns, Hints, Queryable as _, Selector, TimeRange};

use crate::cli::Format;

/// Counts series, labels and samples, and names those that there is most of.
#[derive(Debug, Args)]
pub(super) struct AnalyzeArgs {
    /// The data directory.
    #[arg(default_value = "data/")]
    path: PathBuf,
    /// How many of each are named.
    #[arg(long, default_value_t = 20, value_name = "COUNT")]
    limit: usize,
    /// Which series.
    #[arg(long = "match", value_name = "SELECTOR", value_parser = super::selector)]
    selector: Option<Selector>,
    /// How the report is printed.
    #[arg(long, value_enum, default_value_t = Format::Text)]
    format: Format,
}

/// A name and how much there is of it.
type Ranked = Vec<(String, u64)>;

#[derive(Debug, Default, PartialEq, Eq, Serialize)]
struct Report {
    series: u64,
    samples: u64,
    label_names: u64,
    label_pairs: u64,
    metrics: u64,
    series_by_metric: Ranked,
    samples_by_metric: Ranked,
    values_by_label: Ranked,
    series_by_pair: Ranked,
    /// Bytes of all values of a label, each once.
    bytes_by_label: Ranked,
}

/// Prints the report on standard output.
pub(super) fn run(args: &AnalyzeArgs) -> anyhow::Result<()> {
    let db = super::open(&args.path)?;
    let report = report(&db, &args.selector.clone().unwrap_or_default(), args.limit);
    db.close().context("cannot close the store")?;
    let report = report?;
    let text = match args.format {
        Format::Json => format!("{}\n", serde_json::to_string_pretty(&report)?),
        Format::Text => report.to_text(),
    };
    std::io::stdout().write_all(text.as_bytes()).context("cannot print the report")
}

fn report(db: &stint_storage::Db, selector: &Selector, limit: usize) -> anyhow::Result<Report> {
    let set = db.querier(TimeRange::ALL)?.select(selector, &Hints::default())?;
    let mut metrics: HashMap<String, (u64, u64)> = HashMap::new();
    let mut values: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
    let mut pairs: HashMap<String, u64> = HashMap::new();
    let mut columns = Columns::default();
    let mut report = Report { series: set.len() as u64, ..Report::default() };
    for index in 0..set.len() {
        let labels = set.labels(index);
        columns.clear();
        set.read(index, TimeRange::ALL, &mut columns)?;
        report.samples += columns.len() as u64;
        let metric = metrics.entry(labels.metric_name().unwrap_or_default().to_owned());
        let metric = metric.or_default();
        metric.0 += 1;
        metric.1 += columns.len() as u64;
        for (name, value) in &labels {
            *pairs.entry(format!("{name}={value}")).or_default() += 1;
            match values.get_mut(name) {
                Some(known) if known.contains(value) => {}
                Some(known) => drop(known.insert(value.to_owned())),
                None => drop(values.insert(name.to_owned(), BTreeSet::from([value.to_owned()]))),
            }
        }
    }
    report.metrics = metrics.len() as u64;
    report.label_names = values.len() as u64;
    report.label_pairs = pairs.len() as u64;
    let by_metric = |of: fn(&(u64, u64)) -> u64| {
        metrics.iter().map(move |(name, counts)| (name.clone(), of(counts)))
    };
    report.series_by_metric = highest(by_metric(|counts| counts.0), limit);
    report.samples_by_metric = highest(by_metric(|counts| counts.1), limit);
    let by_label = |of: fn(&BTreeSet<String>) -> u64| {
        values.iter().map(move |(name, values)| (name.clone(), of(values)))
    };
    report.values_by_label = highest(by_label(|values| values.len() as u64), limit);
    let bytes = by_label(|values| values.iter().map(|value| value.len() as u64).sum());
    report.bytes_by_label = highest(bytes, limit);
    report.series_by_pair = highest(pairs.into_iter(), limit);
    Ok(report)
}

/// Those with the highest counts; of equal ones the first by name.
fn highest(all: impl Iterator<Item = (String, u64)>, limit: usize) -> Ranked {
    let mut all: Ranked = all.collect();
    all.sort_by(|a, b| b.1.cmp(&a.1).then_with(|| a.0.cmp(&b.0)));
    all.truncate(limit);
    all
}

impl Report {
    fn to_text(&self) -> String {
        let mut text = format!(
            "{} series of {} metrics, {} samples\n{} label names, {} label pairs\n",
            self.series, self.metrics, self.samples, self.label_names, self.label_pairs
        );
        for (title, ranked) in [
            ("series by metric", &self.series_by_metric),
            ("samples by metric", &self.samples_by_metric),
            ("values by label", &self.values_by_label),
            ("series by label pair", &self.series_by_pair),
            ("bytes of values by label", &self.bytes_by_label),
        ] {
            // Writing to a string cannot fail.
            let _ = writeln!(text, "\n{title}");
            for (name, count) in ranked {
                let _ = writeln!(text, "{count:>12} {name}");
            }
        }
        text
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use stint_model::{Appender as _, Batch, Labels, Sample, Timestamp};
    use stint_storage::{Db, Options, SimDisk};

    use super::*;

    #[test]
    fn what_there_is_most_of_comes_first() {
        let (db, _) = Db::open(Arc::new(SimDisk::new()), Options::default()).unwrap();
        let mut batch = Batch::default();
        for (metric, target, samples) in [("a", "x", 1), ("a", "yy", 1), ("b", "x", 5)] {
            let labels = Labels::from_pairs([("__name__", metric), ("t", target)]);
            for at in 0..samples {
                batch.push(labels.clone(), Sample::float(Timestamp(at), 1.0));
            }
        }
        db.append(&batch).unwrap();
        let report = report(&db, &Selector::default(), 1).unwrap();
        let one = |name: &str, count| vec![(name.to_owned(), count)];
        let counts = (report.series, report.samples, report.metrics, report.label_names);
        assert_eq!((counts, report.label_pairs), ((3, 7, 2, 2), 4));
        assert_eq!(report.series_by_metric, one("a", 2));
        assert_eq!(report.samples_by_metric, one("b", 5));
        assert_eq!(report.values_by_label, one("__name__", 2));
        assert_eq!(report.series_by_pair, one("__name__=a", 2));
        assert_eq!(report.bytes_by_label, one("t", 3));
        assert!(report.to_text().starts_with("3 series of 2 metrics, 7 samples\n"));
    }
}
