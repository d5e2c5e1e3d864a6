//! Samples as text.

use std::io::{BufWriter, Write};
use std::path::PathBuf;

use anyhow::Context as _;
use clap::Args;
use stint_model::labels::{METRIC_NAME, is_legacy_label_name, is_legacy_metric_name};
use stint_model::{
    Columns, Hints, Labels, Queryable as _, Selector, TimeRange, Timestamp, is_stale,
};

use crate::api::number;

/// Which samples.
#[derive(Debug, Args)]
pub(super) struct DumpArgs {
    /// The data directory.
    #[arg(default_value = "data/")]
    path: PathBuf,
    /// The first time, in milliseconds.
    #[arg(long = "min-time", value_name = "MS", allow_negative_numbers = true,
          default_value_t = i64::MIN, hide_default_value = true)]
    min_time: i64,
    /// The last time, in milliseconds.
    #[arg(long = "max-time", value_name = "MS", allow_negative_numbers = true,
          default_value_t = i64::MAX, hide_default_value = true)]
    max_time: i64,
    /// Which series; may be repeated, all without.
    #[arg(long = "match", value_name = "SELECTOR", value_parser = super::selector)]
    selectors: Vec<Selector>,
}

/// How they are printed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Style {
    /// `{labels} value milliseconds`, as promtool does.
    Lines,
    /// In the exposition format.
    OpenMetrics,
}

/// Prints samples on standard output.
pub(super) fn run(args: &DumpArgs, style: Style) -> anyhow::Result<()> {
    let db = super::open(&args.path)?;
    let mut out = BufWriter::new(std::io::stdout().lock());
    let range = TimeRange::closed(Timestamp(args.min_time), Timestamp(args.max_time));
    let printed = print(&db, range, &args.selectors, style, &mut out);
    drop(out);
    db.close().context("cannot close the store")?;
    printed
}

fn print(
    db: &stint_storage::Db,
    range: TimeRange,
    selectors: &[Selector],
    style: Style,
    out: &mut dyn Write,
) -> anyhow::Result<()> {
    let querier = db.querier(range)?;
    let everything = [Selector::default()];
    let selectors = if selectors.is_empty() { &everything } else { selectors };
    let mut columns = Columns::default();
    for (number, selector) in selectors.iter().enumerate() {
        let set = querier.select(selector, &Hints::default())?;
        for index in 0..set.len() {
            let labels = set.labels(index);
            // One that an earlier selector has selected too was printed then.
            let earlier = selectors.get(..number).unwrap_or_default();
            if earlier.iter().any(|selector| selector.matches(&labels)) {
                continue;
            }
            columns.clear();
            set.read(index, range, &mut columns)?;
            print_series(&labels, &columns, style, out).context("cannot print samples")?;
        }
    }
    if style == Style::OpenMetrics {
        out.write_all(b"# EOF\n")?;
    }
    out.flush().context("cannot print samples")
}

fn print_series(
    labels: &Labels,
    columns: &Columns,
    style: Style,
    out: &mut dyn Write,
) -> std::io::Result<()> {
    let name = match style {
        Style::Lines => labels.to_string(),
        Style::OpenMetrics => exposed(labels),
    };
    let mut histograms = columns.histograms.iter().peekable();
    for (row, (at, value)) in columns.times.iter().zip(&columns.values).enumerate() {
        let histogram = histograms.next_if(|(of, _)| *of == row);
        match (style, histogram) {
            (Style::Lines, Some((_, histogram))) => {
                writeln!(out, "{name} {} {at}", histogram.to_float())?;
            }
            (Style::Lines, None) => writeln!(out, "{name} {} {at}", text(*value))?,
            // Neither histograms nor the end of a series can be said.
            (Style::OpenMetrics, Some(_)) => {}
            (Style::OpenMetrics, None) if is_stale(*value) => {}
            (Style::OpenMetrics, None) => {
                let seconds = at.0.div_euclid(1000);
                let thousandths = at.0.rem_euclid(1000);
                writeln!(out, "{name} {} {seconds}.{thousandths:03}", text(*value))?;
            }
        }
    }
    Ok(())
}

/// A series as an exposition has it.
fn exposed(labels: &Labels) -> String {
    let metric = labels.get(METRIC_NAME).unwrap_or_default();
    let is_plain = is_legacy_metric_name(metric);
    let mut pairs: Vec<String> = Vec::new();
    if !is_plain && !metric.is_empty() {
        pairs.push(quoted(metric));
    }
    for (name, value) in labels {
        if name != METRIC_NAME {
            let name = if is_legacy_label_name(name) { name.to_owned() } else { quoted(name) };
            pairs.push(format!("{name}={}", quoted(value)));
        }
    }
    let plain = if is_plain { metric } else { "" };
    if pairs.is_empty() { plain.to_owned() } else { format!("{plain}{{{}}}", pairs.join(",")) }
}

fn text(value: f64) -> String {
    let mut text = Vec::new();
    number::push_value(&mut text, value);
    String::from_utf8_lossy(&text).into_owned()
}

/// In quotes, with the escapes of the format.
fn quoted(text: &str) -> String {
    format!("\"{}\"", text.replace('\\', "\\\\").replace('"', "\\\"").replace('\n', "\\n"))
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use stint_model::{Appender as _, Batch, Sample};
    use stint_storage::{Db, Options, SimDisk};

    use super::*;

    #[test]
    fn samples_are_printed_in_both_styles() {
        let (db, _) = Db::open(Arc::new(SimDisk::new()), Options::default()).unwrap();
        let mut batch = Batch::default();
        let plain = Labels::from_pairs([("__name__", "up"), ("a", "x\"\n")]);
        let odd = Labels::from_pairs([("__name__", "a b"), ("c d", "1")]);
        batch.push(plain.clone(), Sample::float(Timestamp(1500), 0.5));
        batch.push(odd, Sample::float(Timestamp(2000), f64::INFINITY));
        batch.push(plain, Sample::stale(Timestamp(3000)));
        db.append(&batch).unwrap();
        let printed = |style, selectors: &[&str]| {
            let selectors: Vec<Selector> =
                selectors.iter().map(|text| crate::cli::tsdb::selector(text).unwrap()).collect();
            let mut out = Vec::new();
            print(&db, TimeRange::ALL, &selectors, style, &mut out).unwrap();
            String::from_utf8(out).unwrap()
        };
        assert_eq!(
            printed(Style::OpenMetrics, &[]),
            "{\"a b\",\"c d\"=\"1\"} +Inf 2.000\nup{a=\"x\\\"\\n\"} 0.5 1.500\n# EOF\n"
        );
        let lines = printed(Style::Lines, &["up", "{a!=\"\"}"]);
        assert_eq!(
            lines,
            "{__name__=\"up\", a=\"x\\\"\\n\"} 0.5 1500\n{__name__=\"up\", a=\"x\\\"\\n\"} NaN 3000\n"
        );
    }
}
