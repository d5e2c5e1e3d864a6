//! Exposition formats: what a scraped target answers.
//!
//! [`Parser`] pulls one [`Entry`] after the other out of a body. A series comes as the exact text
//! of its name and labels, which is the key of a scrape's cache; the labels are decoded only when
//! asked for, so a series that is already known costs no label work at all.

mod classic;
mod created;
mod escape;
mod native;
mod negotiation;
mod number;
mod openmetrics;
mod protobuf;
mod scan;
mod text;
mod write;

use std::borrow::Cow;

use stint_model::exemplar::Exemplar;
use stint_model::histogram::Histogram;
use stint_model::labels::Labels;
use stint_model::metadata::MetricType;
use stint_model::time::Timestamp;

pub use classic::{ClassicHistograms, Converted, Finished, Taken};
pub use escape::Escaping;
pub use negotiation::{Accepted, ContentTypeError, Format, Protocol, accept_header};
pub use protobuf::ProtobufWriter;
pub use write::TextWriter;

use openmetrics::OpenMetrics;
use protobuf::Protobuf;
use text::Text;

/// Name and value of one label, borrowed where the body holds them unescaped.
pub type Label<'a> = (Cow<'a, str>, Cow<'a, str>);

/// What a body consists of.
#[derive(Clone, Debug, PartialEq)]
pub enum Entry<'a> {
    /// A float sample.
    Series(SeriesEntry<'a>),
    /// A native histogram sample (Protobuf only); boxed, so that the many entries that are none
    /// stay small.
    Histogram(Box<HistogramEntry<'a>>),
    /// The kind of a metric family.
    Type {
        /// The family.
        name: Cow<'a, str>,
        /// Its kind; `untyped` is [`MetricType::Unknown`].
        kind: MetricType,
    },
    /// The help text of a metric family.
    Help {
        /// The family.
        name: Cow<'a, str>,
        /// The text, unescaped.
        text: Cow<'a, str>,
    },
    /// The unit of a metric family.
    Unit {
        /// The family.
        name: Cow<'a, str>,
        /// The unit, a suffix of the name; may be empty.
        unit: Cow<'a, str>,
    },
}

/// One float sample of one series.
#[derive(Clone, Debug, PartialEq)]
pub struct SeriesEntry<'a> {
    /// The bytes of `name{labels}` as the target wrote them (for Protobuf: written in the text
    /// format). Equal text means equal labels as long as the family's type stays the same.
    pub raw: &'a str,
    /// The value. NaN is always the ordinary NaN: the stale marker cannot be exposed.
    pub value: f64,
    /// The target's own timestamp.
    pub timestamp: Option<Timestamp>,
    /// An exemplar of this sample.
    pub exemplar: Option<ExemplarRef<'a>>,
    /// When the counter, histogram or summary started, where the format says so.
    pub started: Option<Timestamp>,
    /// The kind given by the last `TYPE`, by which bucket bounds are written in one way.
    kind: MetricType,
    /// How long the name before the braces is, where the parser has seen; else 0.
    name_len: usize,
    /// Whether `raw` was compared with the text that was expected, and is the same.
    is_expected: bool,
}

impl<'a> SeriesEntry<'a> {
    /// Replaces the contents of `out` by the labels, the metric name among them, in the order
    /// of the body. Empty values and names that occur twice are passed on as they are.
    ///
    /// The bounds of classic histograms (`le`) and summaries (`quantile`) are written as
    /// `OpenMetrics` wants them (`1` becomes `1.0`), whatever the format.
    pub fn labels(&self, out: &mut Vec<Label<'a>>) {
        out.clear();
        scan::decode_labels(self.raw, self.name_len, self.kind, |name, value| {
            out.push((name, value));
        });
    }

    /// Hands each label to `visit`, the metric name among them; see [`SeriesEntry::labels`].
    pub fn each_label(&self, mut visit: impl FnMut(&str, &str)) {
        scan::decode_labels(self.raw, self.name_len, self.kind, |name, value| visit(&name, &value));
    }

    /// Whether this is known to be the series that was expected; see [`Parser::next_expecting`].
    pub fn is_expected(&self) -> bool {
        self.is_expected
    }

    /// The kind given by the last `TYPE` line before this series.
    pub fn kind(&self) -> MetricType {
        self.kind
    }
}

/// One native histogram sample of one series.
#[derive(Clone, Debug, PartialEq)]
pub struct HistogramEntry<'a> {
    /// `name{labels}` in the text format; see [`SeriesEntry::raw`].
    pub raw: &'a str,
    /// The histogram.
    pub histogram: Histogram,
    /// The target's own timestamp.
    pub timestamp: Option<Timestamp>,
    /// Exemplars of this histogram, in order of time.
    pub exemplars: Vec<Exemplar>,
    /// When the histogram started, where the target says so.
    pub started: Option<Timestamp>,
}

impl<'a> HistogramEntry<'a> {
    /// Replaces the contents of `out` by the labels; see [`SeriesEntry::labels`].
    pub fn labels(&self, out: &mut Vec<Label<'a>>) {
        out.clear();
        scan::decode_labels(self.raw, 0, MetricType::Histogram, |name, value| {
            out.push((name, value));
        });
    }
}

/// An exemplar whose labels are decoded on demand.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct ExemplarRef<'a> {
    /// The labels as written, braces included.
    pub raw: &'a str,
    /// The observed value.
    pub value: f64,
    /// When it was observed.
    pub timestamp: Option<Timestamp>,
}

impl ExemplarRef<'_> {
    /// The exemplar with its labels; `at` stands in where the target gives no time.
    pub fn decode(&self, at: Timestamp) -> Exemplar {
        let mut labels = Vec::new();
        scan::decode_labels(self.raw, 0, MetricType::Unknown, |name, value| {
            labels.push((name, value));
        });
        Exemplar {
            labels: Labels::from_pairs(labels),
            value: self.value,
            at: self.timestamp.unwrap_or(at),
        }
    }
}

/// Why a body cannot be read. One fault condemns the whole body.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("line {line}: {message}")]
pub struct ParseError {
    /// The line, from 1; for Protobuf the number of the metric family, from 1.
    pub line: usize,
    /// What is wrong, with the offending text shortened.
    pub message: String,
}

/// What is known of a line that tells of a metric family.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FamilyLine {
    /// Nothing: it has to be taken apart.
    New,
    /// Everything it says. If it tells a kind, then this one.
    Known(Option<MetricType>),
}

/// What to do where the formats leave a choice. The default is what Prometheus does unless told
/// otherwise.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Options {
    /// Keep the native histograms of a Protobuf body; otherwise their classic buckets are used.
    pub native_histograms: bool,
    /// Take the `_created` lines of `OpenMetrics` as start times, not as series of their own.
    pub created_as_start: bool,
    /// Also give the classic buckets of a histogram that has native ones.
    pub classic_too: bool,
}

/// Reads a body entry by entry.
///
/// ```
/// use stint_wire::exposition::{Entry, Format, ParseError, Parser};
///
/// let body = b"# TYPE up gauge\nup{job=\"node\"} 1\n";
/// let mut parser = Parser::new(Format::PrometheusText, body);
/// while let Some(entry) = parser.next()? {
///     if let Entry::Series(series) = entry {
///         assert_eq!((series.raw, series.value), (r#"up{job="node"}"#, 1.0));
///         let mut labels = Vec::new();
///         series.labels(&mut labels);
///         assert_eq!(labels, [("__name__".into(), "up".into()), ("job".into(), "node".into())]);
///     }
/// }
/// # Ok::<(), ParseError>(())
/// ```
#[derive(Clone, Debug)]
pub struct Parser<'a> {
    source: Source<'a>,
}

#[derive(Clone, Debug)]
enum Source<'a> {
    Text(Text<'a>),
    OpenMetrics(OpenMetrics<'a>),
    Protobuf(Box<Protobuf<'a>>),
    /// The body is not text at all; said at the first call.
    Failed(ParseError),
}

impl<'a> Parser<'a> {
    /// A parser at the start of `body`.
    pub fn new(format: Format, body: &'a [u8]) -> Self {
        Self::with_options(format, body, Options::default())
    }

    /// A parser at the start of `body` that follows `options`.
    pub fn with_options(format: Format, body: &'a [u8], options: Options) -> Self {
        let text = |parser: fn(&'a str) -> Source<'a>| match scan::utf8(body) {
            Ok(body) => parser(body),
            Err(error) => Source::Failed(error),
        };
        let source = match format {
            Format::PrometheusText => text(|body| Source::Text(Text::new(body))),
            Format::OpenMetrics if options.created_as_start => {
                text(|body| Source::OpenMetrics(OpenMetrics::with_starts(body)))
            }
            Format::OpenMetrics => text(|body| Source::OpenMetrics(OpenMetrics::new(body))),
            Format::Protobuf => Source::Protobuf(Box::new(Protobuf::new(body, options))),
        };
        Self { source }
    }

    /// Passes over lines that tell of a metric family, as long as they are known: `known` says which are
    /// the same as in an earlier body in the same format.
    pub fn pass_over(&mut self, known: impl FnMut(&str) -> FamilyLine) {
        match &mut self.source {
            Source::Text(text) => text.pass_over(known),
            Source::OpenMetrics(text) => text.pass_over(known),
            Source::Protobuf(_) | Source::Failed(_) => {}
        }
    }

    /// The next entry; `None` at the end of the body. After an error the body is not to be used
    /// any further, not even what came before.
    #[expect(clippy::should_implement_trait, reason = "entries may borrow from the parser")]
    pub fn next(&mut self) -> Result<Option<Entry<'_>>, ParseError> {
        self.next_expecting("")
    }

    /// The same as [`Parser::next`], only faster where the next series is the one that `expected`
    /// names: its text is compared, not taken apart.
    ///
    /// `expected` must be the `raw` text of a series from an earlier body in the same format, for
    /// instance of the one that came at this place in the scrape before. Whether it does come is
    /// seen from the entry's `raw`.
    pub fn next_expecting(&mut self, expected: &str) -> Result<Option<Entry<'_>>, ParseError> {
        match &mut self.source {
            Source::Text(text) => text.next(expected).map_err(|fault| fault.in_body(text.body())),
            Source::OpenMetrics(text) => {
                text.next(expected).map_err(|fault| fault.in_body(text.body()))
            }
            Source::Protobuf(families) => families.next(),
            Source::Failed(error) => Err(error.clone()),
        }
    }
}

#[cfg(test)]
mod tests;
