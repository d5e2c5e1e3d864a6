//! Writes the Prometheus text format: the server's own metrics, and federation.

use std::borrow::Cow;
use std::fmt::Write as _;

use stint_model::histogram::FloatHistogram;
use stint_model::labels::{BUCKET_BOUND, METRIC_NAME, is_legacy_label_name, is_legacy_metric_name};
use stint_model::metadata::MetricType;
use stint_model::time::Timestamp;

use super::escape::Escaping;
use super::number::push_float;

/// Appends lines of the text format to a string that it owns.
///
/// The lines of one family belong together, its `HELP` and `TYPE` before its samples.
#[derive(Clone, Debug, Default)]
pub struct TextWriter {
    out: String,
    escaping: Escaping,
}

impl TextWriter {
    /// A writer of names in the given scheme.
    pub fn new(escaping: Escaping) -> Self {
        Self { out: String::new(), escaping }
    }

    /// The `HELP` line of a family.
    pub fn help(&mut self, family: &str, text: &str) {
        self.out.push_str("# HELP ");
        self.family(family);
        self.out.push(' ');
        push_escaped(&mut self.out, text, false);
        self.out.push('\n');
    }

    /// The `TYPE` line of a family. Kinds that the text format does not have are written as the
    /// nearest one it has.
    pub fn kind(&mut self, family: &str, kind: MetricType) {
        self.out.push_str("# TYPE ");
        self.family(family);
        self.out.push(' ');
        self.out.push_str(match kind {
            MetricType::Counter => "counter",
            MetricType::Gauge | MetricType::Info | MetricType::StateSet => "gauge",
            MetricType::Histogram | MetricType::GaugeHistogram => "histogram",
            MetricType::Summary => "summary",
            MetricType::Unknown => "untyped",
        });
        self.out.push('\n');
    }

    fn family(&mut self, family: &str) {
        let name = self.escaping.metric_name(family);
        if is_legacy_metric_name(&name) {
            self.out.push_str(&name);
        } else {
            push_quoted(&mut self.out, &name);
        }
    }

    /// A sample line. The metric name is the label `__name__`, wherever it stands; labels keep
    /// their order.
    pub fn sample<'l>(
        &mut self,
        labels: impl IntoIterator<Item = (&'l str, &'l str), IntoIter: Clone>,
        value: f64,
        at: Option<Timestamp>,
    ) {
        self.line(labels.into_iter(), ("", None), value, at);
    }

    /// The lines of a histogram with custom bounds, as a classic one; `false` for one with
    /// exponential buckets, for which the format has no room.
    pub fn histogram<'l>(
        &mut self,
        labels: impl IntoIterator<Item = (&'l str, &'l str), IntoIter: Clone>,
        histogram: &FloatHistogram,
        at: Option<Timestamp>,
    ) -> bool {
        let Some(buckets) = histogram.classic_buckets() else { return false };
        let labels = labels.into_iter();
        let mut bound_text = String::new();
        for (bound, count) in buckets.chain([(f64::INFINITY, histogram.count)]) {
            bound_text.clear();
            push_float(&mut bound_text, bound);
            let bound = Some((BUCKET_BOUND, bound_text.as_str()));
            self.line(labels.clone(), ("_bucket", bound), count, at);
        }
        self.line(labels.clone(), ("_sum", None), histogram.sum, at);
        self.line(labels, ("_count", None), histogram.count, at);
        true
    }

    /// A sample line with a suffix after the name and a label after the others.
    fn line<'l>(
        &mut self,
        labels: impl Iterator<Item = (&'l str, &'l str)> + Clone,
        (suffix, last): (&str, Option<(&str, &str)>),
        value: f64,
        at: Option<Timestamp>,
    ) {
        let metric = labels.clone().find(|(name, _)| *name == METRIC_NAME);
        let name = self.escaping.metric_name(metric.map_or("", |(_, name)| name));
        let own = labels.filter(|(name, _)| *name != METRIC_NAME);
        let all = own.map(|(name, value)| (self.escaping.label_name(name), value));
        let last = last.into_iter().map(|(name, value)| (Cow::Borrowed(name), value));
        push_series(&mut self.out, &name, suffix, all.chain(last));
        self.out.push(' ');
        push_float(&mut self.out, value);
        if let Some(at) = at {
            let written = write!(self.out, " {at}");
            debug_assert!(written.is_ok(), "a string takes every write");
        }
        self.out.push('\n');
    }

    /// The body so far.
    pub fn as_str(&self) -> &str {
        &self.out
    }

    /// The finished body.
    pub fn into_string(self) -> String {
        self.out
    }
}

/// Appends `name{labels}` with `suffix` after the name; names outside the classic character set
/// go into quotes, the metric's into the braces.
pub(super) fn push_series<'l, N: AsRef<str>>(
    out: &mut String,
    name: &str,
    suffix: &str,
    labels: impl Iterator<Item = (N, &'l str)>,
) {
    let is_legacy = is_legacy_metric_name(name);
    let mut separator = '{';
    if is_legacy {
        out.push_str(name);
        out.push_str(suffix);
    } else {
        out.push_str("{\"");
        push_escaped(out, name, true);
        out.push_str(suffix);
        out.push('"');
        separator = ',';
    }
    for (name, value) in labels {
        out.push(separator);
        separator = ',';
        push_label(out, name.as_ref(), value);
    }
    if separator == ',' {
        out.push('}');
    }
}

/// Appends `name="value"`.
pub(super) fn push_label(out: &mut String, name: &str, value: &str) {
    if is_legacy_label_name(name) {
        out.push_str(name);
    } else {
        push_quoted(out, name);
    }
    out.push('=');
    push_quoted(out, value);
}

fn push_quoted(out: &mut String, text: &str) {
    out.push('"');
    push_escaped(out, text, true);
    out.push('"');
}

/// Appends `text` with backslashes and newlines escaped, and double quotes if `quotes`.
pub(super) fn push_escaped(out: &mut String, text: &str, quotes: bool) {
    let mut rest = text;
    while let Some(at) = memchr::memchr3(b'\\', b'\n', b'"', rest.as_bytes()) {
        let (plain, special) = rest.split_at(at);
        out.push_str(plain);
        out.push_str(match special.as_bytes().first() {
            Some(b'\\') => "\\\\",
            Some(b'\n') => "\\n",
            _ if quotes => "\\\"",
            _ => "\"",
        });
        rest = special.get(1..).unwrap_or_default();
    }
    out.push_str(rest);
}

#[cfg(test)]
mod tests {
    use super::super::{Entry, Format, Parser};
    use super::*;
    use proptest::prelude::*;
    use stint_model::histogram::{BucketSpan, CUSTOM_BUCKETS_SCHEMA};
    use stint_model::labels::Labels;

    #[test]
    fn a_family_with_its_samples() {
        let mut writer = TextWriter::new(Escaping::AllowUtf8);
        writer.help("up", "Is it \"up\"?\\\nyes");
        writer.kind("up", MetricType::Gauge);
        let labels = Labels::from_pairs([("__name__", "up"), ("path", "a\"b\\\n"), ("x.y", "é")]);
        writer.sample(&labels, 1e6, Some(Timestamp(-5)));
        writer.sample(&Labels::from_pairs([("__name__", "up")]), f64::NEG_INFINITY, None);
        writer.sample(&Labels::from_pairs([("__name__", "u.p"), ("a", "b")]), 0.5, None);
        writer.kind("u.p", MetricType::Unknown);
        assert_eq!(
            writer.into_string(),
            "# HELP up Is it \"up\"?\\\\\\nyes\n# TYPE up gauge\n\
             up{path=\"a\\\"b\\\\\\n\",\"x.y\"=\"é\"} 1e+06 -5\nup -Inf\n{\"u.p\",a=\"b\"} 0.5\n\
             # TYPE \"u.p\" untyped\n"
        );
    }

    #[test]
    fn readers_of_classic_names_get_them() {
        let mut writer = TextWriter::new(Escaping::Underscores);
        writer.kind("u.p", MetricType::Info);
        writer.sample([("a.b", "c.d"), ("__name__", "u.p")], 2.0, None);
        assert_eq!(writer.as_str(), "# TYPE u_p gauge\nu_p{a_b=\"c.d\"} 2\n");
    }

    #[test]
    fn histograms_with_custom_bounds_are_classic_ones() {
        let custom = FloatHistogram {
            schema: CUSTOM_BUCKETS_SCHEMA,
            custom_bounds: vec![0.5, 1e6],
            positive_spans: vec![BucketSpan { offset: 0, length: 3 }],
            positive_buckets: vec![1.0, 2.0, 3.0],
            count: 6.0,
            sum: 7.5,
            ..FloatHistogram::default()
        };
        let mut writer = TextWriter::new(Escaping::AllowUtf8);
        writer.kind("h", MetricType::Histogram);
        assert!(writer.histogram([("__name__", "h"), ("a", "b")], &custom, Some(Timestamp(9))));
        assert!(!writer.histogram([("__name__", "h")], &FloatHistogram::default(), None));
        assert_eq!(
            writer.as_str(),
            "# TYPE h histogram\nh_bucket{a=\"b\",le=\"0.5\"} 1 9\nh_bucket{a=\"b\",le=\"1e+06\"} 3 9\n\
             h_bucket{a=\"b\",le=\"+Inf\"} 6 9\nh_sum{a=\"b\"} 7.5 9\nh_count{a=\"b\"} 6 9\n"
        );
    }

    proptest! {
        #[test]
        fn what_is_written_reads_back(
            pairs in proptest::collection::btree_map("[a-z._\"\\\\\n]{1,5}", ".{1,20}", 0..5),
            name in "[a-z\\\\\"\n. ]{1,8}",
            help in ".{0,20}",
            bits in any::<u64>(),
            at in 0..=i64::MAX,
        ) {
            let value = f64::from_bits(bits);
            let mut writer = TextWriter::new(Escaping::AllowUtf8);
            writer.help(&name, &help);
            let mut labels = pairs;
            labels.insert(METRIC_NAME.to_owned(), name.clone());
            let labels = Labels::from_pairs(&labels);
            writer.sample(&labels, value, Some(Timestamp(at)));
            let body = writer.into_string();

            let mut parser = Parser::new(Format::PrometheusText, body.as_bytes());
            match parser.next() {
                Ok(Some(Entry::Help { name: family, text })) => {
                    prop_assert_eq!((&*family, &*text), (name.as_str(), help.as_str()));
                }
                other => prop_assert!(false, "{:?} in {}", other, body),
            }
            match parser.next() {
                Ok(Some(Entry::Series(series))) => {
                    let mut decoded = Vec::new();
                    series.labels(&mut decoded);
                    prop_assert_eq!(Labels::from_pairs(decoded), labels);
                    prop_assert!(series.value == value || value.is_nan(), "{}", series.value);
                    prop_assert_eq!(series.timestamp, Some(Timestamp(at)));
                }
                other => prop_assert!(false, "{:?} in {}", other, body),
            }
            prop_assert_eq!(parser.next(), Ok(None));
        }
    }
}
