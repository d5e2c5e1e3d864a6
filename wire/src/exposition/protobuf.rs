//! Length-delimited `io.prometheus.client.MetricFamily` messages.
//!
//! Classic histograms and summaries are taken apart into the series that the text format would
//! have; each series gets the text that the text format would give it.

mod write;

use std::borrow::Cow;

use stint_model::exemplar::Exemplar;
use stint_model::histogram::Histogram;
use stint_model::labels::{BUCKET_BOUND, QUANTILE, is_legacy_metric_name};
use stint_model::metadata::MetricType;
use stint_model::time::Timestamp;

use super::native;
use super::number::push_bound;
use super::write::{push_escaped, push_label};
pub use write::ProtobufWriter;

use super::{Entry, ExemplarRef, HistogramEntry, Options, ParseError, SeriesEntry};
use crate::proto::{DecodeError, Reader};

/// Reads metric families.
#[derive(Clone, Debug)]
pub(super) struct Protobuf<'a> {
    body: Reader<'a>,
    options: Options,
    /// Number of the present family, from 1.
    number: usize,
    family: Family<'a>,
    timestamp: Option<Timestamp>,
    points: Points<'a>,
    text: SeriesText,
    exemplar: String,
}

/// A family without its metrics.
#[derive(Clone, Debug)]
struct Family<'a> {
    name: &'a str,
    help: &'a str,
    unit: &'a str,
    kind: MetricType,
    untold: Untold,
    metrics: Reader<'a>,
}

/// What of the family's description is still to be given.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Untold {
    Help,
    Type,
    Unit,
    Nothing,
}

/// The samples of the present metric that are still to be given.
#[derive(Clone, Copy, Debug)]
struct Points<'a> {
    next: Next<'a>,
    started: Option<Timestamp>,
    count: f64,
    sum: f64,
    /// The summary or histogram, whose quantiles or buckets are walked.
    items: Reader<'a>,
}

#[derive(Clone, Copy, Debug)]
enum Next<'a> {
    Nothing,
    Value { value: f64, exemplar: Option<&'a [u8]> },
    Native { message: &'a [u8], classic_too: bool },
    Count,
    Sum,
    Quantiles,
    Buckets,
}

/// An entry that owns what it says, so that it does not keep the parser borrowed.
enum Step {
    Help,
    Type,
    Unit,
    Float { value: f64, exemplar: Option<(f64, Option<Timestamp>)> },
    Native { histogram: Box<Histogram>, exemplars: Vec<Exemplar> },
    End,
}

impl<'a> Protobuf<'a> {
    pub(super) fn new(body: &'a [u8], options: Options) -> Self {
        let empty = Reader::new(&[]);
        Self {
            body: Reader::new(body),
            options,
            number: 0,
            family: Family {
                name: "",
                help: "",
                unit: "",
                kind: MetricType::Unknown,
                untold: Untold::Nothing,
                metrics: empty,
            },
            timestamp: None,
            points: Points {
                next: Next::Nothing,
                started: None,
                count: 0.0,
                sum: 0.0,
                items: empty,
            },
            text: SeriesText::default(),
            exemplar: String::new(),
        }
    }

    pub(super) fn next(&mut self) -> Result<Option<Entry<'_>>, ParseError> {
        let step = self.step().map_err(|error| {
            let message = if self.family.name.is_empty() {
                error
            } else {
                format!("{error} in metric family {}", super::scan::excerpt(self.family.name))
            };
            ParseError { line: self.number.max(1), message }
        })?;
        let name = Cow::Borrowed(self.family.name);
        Ok(Some(match step {
            Step::End => return Ok(None),
            Step::Help => Entry::Help { name, text: Cow::Borrowed(self.family.help) },
            Step::Type => Entry::Type { name, kind: self.family.kind },
            Step::Unit => Entry::Unit { name, unit: Cow::Borrowed(self.family.unit) },
            Step::Float { value, exemplar } => Entry::Series(SeriesEntry {
                raw: &self.text.raw,
                value: if value.is_nan() { super::number::normal_nan() } else { value },
                timestamp: self.timestamp,
                exemplar: exemplar.map(|(value, timestamp)| ExemplarRef {
                    raw: &self.exemplar,
                    value,
                    timestamp,
                }),
                started: self.points.started,
                kind: self.family.kind,
                name_len: 0,
                is_expected: false,
            }),
            Step::Native { histogram, exemplars } => Entry::Histogram(Box::new(HistogramEntry {
                raw: &self.text.raw,
                histogram: *histogram,
                timestamp: self.timestamp,
                exemplars,
                started: self.points.started,
            })),
        }))
    }

    fn step(&mut self) -> Result<Step, String> {
        loop {
            let family = &mut self.family;
            match family.untold {
                Untold::Help => {
                    family.untold = Untold::Type;
                    if !family.help.is_empty() {
                        return Ok(Step::Help);
                    }
                }
                Untold::Type => {
                    family.untold = Untold::Unit;
                    return Ok(Step::Type);
                }
                Untold::Unit => {
                    family.untold = Untold::Nothing;
                    if !family.unit.is_empty() {
                        return Ok(Step::Unit);
                    }
                }
                Untold::Nothing => {}
            }
            if let Some(step) = self.point().map_err(text_of)? {
                return Ok(step);
            }
            if self.next_metric().map_err(text_of)? {
                continue;
            }
            if self.body.left() == 0 {
                return Ok(Step::End);
            }
            self.number += 1;
            let message = self.body.delimited().map_err(text_of)?;
            self.family = Family::decode(message)?;
        }
    }

    /// Goes to the next metric of the family, if there is one.
    fn next_metric(&mut self) -> Result<bool, DecodeError> {
        while let Some((number, field)) = self.family.metrics.next()? {
            if number == 4 {
                self.metric(field.bytes("MetricFamily", number)?)?;
                return Ok(true);
            }
        }
        Ok(false)
    }

    fn metric(&mut self, message: &'a [u8]) -> Result<(), DecodeError> {
        let wanted = match self.family.kind {
            MetricType::Gauge => 2,
            MetricType::Counter => 3,
            MetricType::Summary => 4,
            MetricType::Histogram | MetricType::GaugeHistogram => 7,
            _ => 5,
        };
        self.text.begin_metric();
        self.timestamp = None;
        let mut contents: &[u8] = &[];
        let mut reader = Reader::new(message);
        while let Some((number, field)) = reader.next()? {
            match number {
                1 => {
                    let (name, value) = decode_label(field.bytes("Metric", number)?)?;
                    self.text.label(name, value);
                }
                6 => {
                    let ms = field.varint("Metric", number)? as i64;
                    self.timestamp = (ms != 0).then_some(Timestamp(ms));
                }
                2..=5 | 7 => {
                    let bytes = field.bytes("Metric", number)?;
                    if number == wanted {
                        contents = bytes;
                    }
                }
                _ => {}
            }
        }
        self.points = match self.family.kind {
            MetricType::Summary => Points::summary(contents)?,
            MetricType::Histogram | MetricType::GaugeHistogram => {
                Points::histogram(contents, self.options)?
            }
            _ => Points::single(contents)?,
        };
        Ok(())
    }

    /// The next sample of the present metric.
    fn point(&mut self) -> Result<Option<Step>, DecodeError> {
        let name = self.family.name;
        let points = &mut self.points;
        let (suffix, bound, value, exemplar) = match points.next {
            Next::Nothing => return Ok(None),
            Next::Value { value, exemplar } => {
                points.next = Next::Nothing;
                ("", None, value, exemplar)
            }
            Next::Native { message, classic_too } => {
                points.next = if classic_too { Next::Count } else { Next::Nothing };
                let gauge = self.family.kind == MetricType::GaugeHistogram;
                let (histogram, exemplars) = native::decode(message, gauge)?;
                self.text.finish(name, "", None);
                return Ok(Some(Step::Native { histogram: Box::new(histogram), exemplars }));
            }
            Next::Count => {
                points.next = Next::Sum;
                ("_count", None, points.count, None)
            }
            Next::Sum => {
                let is_summary = self.family.kind == MetricType::Summary;
                points.next = if is_summary { Next::Quantiles } else { Next::Buckets };
                ("_sum", None, points.sum, None)
            }
            Next::Quantiles => match points.quantile()? {
                Some((bound, value)) => ("", Some((QUANTILE, bound)), value, None),
                None => return Ok(None),
            },
            Next::Buckets => {
                let (bound, value, exemplar) = points.bucket()?;
                ("_bucket", Some((BUCKET_BOUND, bound)), value, exemplar)
            }
        };
        self.text.finish(name, suffix, bound);
        let exemplar = match exemplar {
            Some(message) => Some(self.exemplar(message)?),
            None => None,
        };
        Ok(Some(Step::Float { value, exemplar }))
    }

    /// Writes the labels of an exemplar; returns its value and time.
    fn exemplar(&mut self, message: &[u8]) -> Result<(f64, Option<Timestamp>), DecodeError> {
        let exemplar = native::WireExemplar::decode(message)?;
        self.exemplar.clear();
        self.exemplar.push('{');
        for (at, (name, value)) in exemplar.labels.iter().enumerate() {
            if at > 0 {
                self.exemplar.push(',');
            }
            push_label(&mut self.exemplar, name, value);
        }
        self.exemplar.push('}');
        Ok((exemplar.value, exemplar.at))
    }
}

#[expect(clippy::needless_pass_by_value, reason = "the shape that map_err wants")]
fn text_of(error: DecodeError) -> String {
    error.to_string()
}

impl<'a> Family<'a> {
    fn decode(message: &'a [u8]) -> Result<Self, String> {
        let mut kind = 0;
        let mut family = Self {
            name: "",
            help: "",
            unit: "",
            kind: MetricType::Unknown,
            untold: Untold::Help,
            metrics: Reader::new(message),
        };
        let mut read = || -> Result<(), DecodeError> {
            let mut reader = Reader::new(message);
            while let Some((number, field)) = reader.next()? {
                match number {
                    1 => family.name = field.text("name of a metric family", number)?,
                    2 => family.help = field.text("help text of a metric family", number)?,
                    3 => kind = field.varint("MetricFamily", number)?,
                    5 => family.unit = field.text("unit of a metric family", number)?,
                    _ => {}
                }
            }
            Ok(())
        };
        read().map_err(text_of)?;
        if family.name.is_empty() {
            return Err("metric family without a name".to_owned());
        }
        family.kind = match kind {
            0 => MetricType::Counter,
            1 => MetricType::Gauge,
            2 => MetricType::Summary,
            3 => MetricType::Unknown,
            4 => MetricType::Histogram,
            5 => MetricType::GaugeHistogram,
            _ => return Err(format!("unknown metric type {kind} of {:?}", family.name)),
        };
        family.check_unit()?;
        Ok(family)
    }

    /// The name ends with the unit; that of a counter may have `_total` behind it.
    fn check_unit(&self) -> Result<(), String> {
        let is_counter = self.kind == MetricType::Counter;
        let total = self.name.strip_suffix("_total").filter(|_| is_counter);
        let base = total.unwrap_or(self.name).strip_suffix(self.unit);
        if self.unit.is_empty() || base.is_some_and(|base| base.ends_with('_')) {
            return Ok(());
        }
        let (unit, name) = (self.unit, self.name);
        Err(format!("unit {unit:?} is not a suffix of metric {name:?}"))
    }
}

pub(super) fn decode_label(message: &[u8]) -> Result<(&str, &str), DecodeError> {
    let (mut name, mut value) = ("", "");
    let mut reader = Reader::new(message);
    while let Some((number, field)) = reader.next()? {
        match number {
            1 => name = field.text("label name", number)?,
            2 => value = field.text("label value", number)?,
            _ => {}
        }
    }
    Ok((name, value))
}

impl<'a> Points<'a> {
    /// A gauge, counter or untyped value.
    fn single(message: &'a [u8]) -> Result<Self, DecodeError> {
        let (mut value, mut exemplar, mut started) = (0.0, None, None);
        let mut reader = Reader::new(message);
        while let Some((number, field)) = reader.next()? {
            match number {
                1 => value = field.double("value", number)?,
                2 => exemplar = Some(field.bytes("Counter", number)?),
                3 => started = Some(native::decode_time(field.bytes("Counter", number)?)?),
                _ => {}
            }
        }
        let items = Reader::new(&[]);
        Ok(Self { next: Next::Value { value, exemplar }, started, count: 0.0, sum: 0.0, items })
    }

    fn summary(message: &'a [u8]) -> Result<Self, DecodeError> {
        let (mut count, mut sum, mut started) = (0, 0.0, None);
        let mut reader = Reader::new(message);
        while let Some((number, field)) = reader.next()? {
            match number {
                1 => count = field.varint("Summary", number)?,
                2 => sum = field.double("Summary", number)?,
                4 => started = Some(native::decode_time(field.bytes("Summary", number)?)?),
                _ => {}
            }
        }
        let items = Reader::new(message);
        Ok(Self { next: Next::Count, started, count: count as f64, sum, items })
    }

    fn histogram(message: &'a [u8], options: Options) -> Result<Self, DecodeError> {
        let outline = native::Outline::decode(message)?;
        let next = if options.native_histograms && outline.is_native {
            let classic_too = options.classic_too && outline.has_buckets;
            Next::Native { message, classic_too }
        } else {
            Next::Count
        };
        Ok(Self {
            next,
            started: outline.started,
            count: outline.count,
            sum: outline.sum,
            items: Reader::new(message),
        })
    }

    /// The next quantile and its value.
    fn quantile(&mut self) -> Result<Option<(f64, f64)>, DecodeError> {
        while let Some((number, field)) = self.items.next()? {
            if number != 3 {
                continue;
            }
            let (mut quantile, mut value) = (0.0, 0.0);
            let mut reader = Reader::new(field.bytes("Summary", number)?);
            while let Some((number, field)) = reader.next()? {
                match number {
                    1 => quantile = field.double("Quantile", number)?,
                    2 => value = field.double("Quantile", number)?,
                    _ => {}
                }
            }
            return Ok(Some((quantile, value)));
        }
        self.next = Next::Nothing;
        Ok(None)
    }

    /// Bound, cumulative count and exemplar of the next bucket. The last one is always that of
    /// +Inf, made up from the count where the target leaves it out.
    fn bucket(&mut self) -> Result<(f64, f64, Option<&'a [u8]>), DecodeError> {
        while let Some((number, field)) = self.items.next()? {
            if number != 3 {
                continue;
            }
            let (mut count, mut count_float, mut bound, mut exemplar) = (0, 0.0, 0.0, None);
            let mut reader = Reader::new(field.bytes("Histogram", number)?);
            while let Some((number, field)) = reader.next()? {
                match number {
                    1 => count = field.varint("Bucket", number)?,
                    2 => bound = field.double("Bucket", number)?,
                    3 => exemplar = Some(field.bytes("Bucket", number)?),
                    4 => count_float = field.double("Bucket", number)?,
                    _ => {}
                }
            }
            if bound == f64::INFINITY {
                self.next = Next::Nothing;
            }
            let value = if count_float > 0.0 { count_float } else { count as f64 };
            return Ok((bound, value, exemplar));
        }
        self.next = Next::Nothing;
        Ok((f64::INFINITY, self.count, None))
    }
}

/// Writes the text of a metric's series. All series of a suffix share the text up to the bound,
/// which therefore comes last and is all that is written anew.
#[derive(Clone, Debug, Default)]
struct SeriesText {
    labels: String,
    raw: String,
    /// The suffix that `raw` was begun with, and how long its shared part is.
    begun: Option<(&'static str, usize)>,
}

impl SeriesText {
    fn begin_metric(&mut self) {
        self.labels.clear();
        self.begun = None;
    }

    fn label(&mut self, name: &str, value: &str) {
        if !self.labels.is_empty() {
            self.labels.push(',');
        }
        push_label(&mut self.labels, name, value);
    }

    fn finish(&mut self, name: &str, suffix: &'static str, bound: Option<(&str, f64)>) {
        match self.begun {
            Some((begun, length)) if begun == suffix => self.raw.truncate(length),
            _ => self.begin_series(name, suffix),
        }
        if let Some((label, value)) = bound {
            if !self.raw.ends_with('{') {
                self.raw.push(',');
            }
            self.raw.push_str(label);
            self.raw.push_str("=\"");
            push_bound(&mut self.raw, value);
            self.raw.push('"');
        } else if self.raw.ends_with('{') {
            self.raw.pop();
            return;
        }
        self.raw.push('}');
    }

    fn begin_series(&mut self, name: &str, suffix: &'static str) {
        self.raw.clear();
        if is_legacy_metric_name(name) {
            self.raw.push_str(name);
            self.raw.push_str(suffix);
            self.raw.push('{');
        } else {
            self.raw.push_str("{\"");
            push_escaped(&mut self.raw, name, true);
            self.raw.push_str(suffix);
            self.raw.push('"');
            if !self.labels.is_empty() {
                self.raw.push(',');
            }
        }
        self.raw.push_str(&self.labels);
        self.begun = Some((suffix, self.raw.len()));
    }
}

#[cfg(test)]
mod tests;
