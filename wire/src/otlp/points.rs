//! Data points become rows: the frame around all kinds, and numbers and summaries.

use std::borrow::Cow;

use stint_model::labels::METRIC_NAME;
use stint_model::sample::{Sample, Value};
use stint_model::{Exemplar, Span, Timestamp};

use super::attributes::{self, Attribute};
use super::identity::{Bare, Identity};
use super::labels::{self, Collided, Pairs, ResourceLabels};
use super::{Options, Outcome, Row, Shape, Sink, TranslateError, Trouble, Warning};
use super::{exemplars, histograms};
use crate::proto::{DecodeError, Field, Reader};

/// `DataPointFlags`, `NO_RECORDED_VALUE`.
const NO_RECORDED_VALUE: u64 = 1;
/// Distance of the samples of `target_info`: half of what a query looks back.
const INFO_EVERY: Span = Span(150_000);
/// The most samples of `target_info` that the points of one resource give.
const INFO_SAMPLES_MAX: usize = 64;

/// What all data points of a metric share.
#[derive(Clone, Debug)]
pub(super) struct Family<'m> {
    pub(super) name: Cow<'m, str>,
    pub(super) shape: Shape,
    pub(super) is_delta: bool,
    /// Whether a start time means anything.
    pub(super) has_start: bool,
}

/// Where rows go, and what is counted on the way.
pub(super) struct Target<'t, S> {
    pub(super) sink: &'t mut S,
    pub(super) options: &'t Options,
    /// Data points so far.
    pub(super) points: &'t mut u32,
    /// Earliest and latest of the resource.
    pub(super) times: Option<(Timestamp, Timestamp)>,
    pub(super) identity: Identity,
}

/// One data point, its kind apart.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Point {
    pub(super) number: u32,
    pub(super) at: Timestamp,
    pub(super) started: Option<Timestamp>,
    pub(super) is_delta: bool,
    /// The series ended, rather than having a value.
    pub(super) is_gone: bool,
}

impl Point {
    pub(super) fn sample(&self, value: Value) -> Sample {
        let value = if self.is_gone { Value::Stale } else { value };
        Sample { at: self.at, started: self.started, value }
    }

    pub(super) fn float(&self, value: f64) -> Sample {
        self.sample(Value::from_wire(value))
    }
}

/// Hands on the rows of one data point.
pub(super) struct Rows<'t, 'p, S> {
    pub(super) sink: &'t mut S,
    pub(super) point: Point,
    /// Without the metric's name.
    pub(super) labels: &'p Pairs<'p>,
    /// Of the only series.
    pub(super) identity: Option<&'p [u8]>,
}

impl<S: Sink> Rows<'_, '_, S> {
    /// One row: the point's labels with a name and at most one label more.
    pub(super) fn push(
        &mut self,
        name: &str,
        more: Option<(&str, &str)>,
        sample: Sample,
        exemplars: Vec<Exemplar>,
    ) -> Result<(), S::Error> {
        let mut pairs: Vec<(&str, &str)> = Vec::with_capacity(self.labels.len() + 2);
        let own = self.labels.iter().map(|(name, value)| (&**name, &**value));
        let is_set = |name: &str| name == METRIC_NAME || more.is_some_and(|(more, _)| more == name);
        pairs.extend(own.filter(|(name, _)| !is_set(name)));
        for (name, value) in [Some((METRIC_NAME, name)), more].into_iter().flatten() {
            let at = pairs.partition_point(|(present, _)| *present < name);
            pairs.insert(at, (name, value));
        }
        self.sink.row(Row {
            point: Some(self.point.number),
            labels: &pairs,
            identity: self.identity,
            sample,
            is_delta: self.point.is_delta,
            exemplars,
        })
    }
}

/// Nanoseconds since 1970 as milliseconds; rounded down.
pub(super) fn time(nanoseconds: u64) -> Timestamp {
    Timestamp((nanoseconds / 1_000_000) as i64)
}

/// The bits of a fixed-size field.
pub(super) fn fixed64(
    field: Field<'_>,
    message: &'static str,
    number: u32,
) -> Result<u64, DecodeError> {
    Ok(field.double(message, number)?.to_bits())
}

/// An `oneof` of a double and a signed integer.
pub(super) fn number(
    field: Field<'_>,
    message: &'static str,
    at: u32,
    is_integer: bool,
) -> Result<f64, DecodeError> {
    let bits = fixed64(field, message, at)?;
    Ok(if is_integer { bits as i64 as f64 } else { f64::from_bits(bits) })
}

impl<S: Sink> Target<'_, S> {
    /// Translates one data point; tells the sink where that is not possible.
    pub(super) fn point<'a>(
        &mut self,
        message: &'a [u8],
        family: &Family<'_>,
        resource: &ResourceLabels<'a>,
        scope: &Pairs<'a>,
    ) -> Outcome<S> {
        let number = *self.points;
        *self.points += 1;
        let bare = self.identity.read(message, family, number);
        if let (Some(bare), Some(identity)) = (&bare, self.identity.bytes())
            && self.sink.recognises(identity)
        {
            return self.recognised(message, bare);
        }
        let mut pairs = Pairs::new();
        let mut is_told = bare.is_some();
        let read = frame(message, family, number).and_then(|(point, mut attributes)| {
            let collided =
                labels::of_point(&mut attributes, resource, scope, self.options, &mut pairs)?;
            if collided == Collided(true) {
                // Told each time, so it may not be recognised.
                is_told = false;
                self.sink.warning(Warning::LabelNameCollision);
            }
            Ok(point)
        });
        let point = match read {
            Ok(point) => point,
            Err(Trouble::Decode(error)) => return Err(error.into()),
            Err(Trouble::Skip(reason)) => {
                self.sink.refused(1, &format!("metric {:?}: {reason}", family.name));
                return Ok(());
            }
        };
        self.saw(point.at);
        let nhcb = self.options.convert_histograms_to_nhcb;
        let identity = self.identity.bytes().filter(|_| is_told);
        let mut rows = Rows { sink: &mut *self.sink, point, labels: &pairs, identity };
        let name = &*family.name;
        match family.shape {
            Shape::Gauge | Shape::Sum => number_point(message, name, &mut rows),
            Shape::Summary => summary_point(message, name, &mut rows),
            Shape::Histogram => histograms::explicit(message, name, nhcb, &mut rows),
            Shape::Exponential => histograms::exponential(message, name, &mut rows),
        }
    }

    fn saw(&mut self, at: Timestamp) {
        let (first, last) = self.times.unwrap_or((at, at));
        self.times = Some((first.min(at), last.max(at)));
    }

    /// Hands on a number whose series the sink has recognised.
    fn recognised(&mut self, message: &[u8], bare: &Bare) -> Outcome<S> {
        self.saw(bare.point.at);
        let exemplars = if bare.has_exemplars { exemplars_of(message)? } else { Vec::new() };
        let row = Row {
            point: Some(bare.point.number),
            labels: &[],
            identity: self.identity.bytes(),
            sample: bare.point.float(bare.value),
            is_delta: false,
            exemplars,
        };
        self.sink.row(row).map_err(TranslateError::Sink)
    }

    /// `target_info` from the earliest to the latest point, so close that a query finds it
    /// wherever it finds a point.
    pub(super) fn info(&mut self, labels: &Pairs<'_>) -> Result<(), S::Error> {
        let Some((first, last)) = self.times else { return Ok(()) };
        if labels.is_empty() {
            return Ok(());
        }
        let pairs: Vec<_> = labels
            .iter()
            .map(|(name, value)| (&**name, &**value))
            .filter(|(_, value)| !value.is_empty())
            .collect();
        let steps = (last.0.saturating_sub(first.0) / INFO_EVERY.0) as usize;
        let after_first = INFO_SAMPLES_MAX.min(steps);
        let mut times: Vec<i64> = (0..=after_first as i64)
            .map(|step| first.0 + (steps - after_first) as i64 * INFO_EVERY.0 + step * INFO_EVERY.0)
            .collect();
        times.push(last.0);
        times.dedup();
        for at in times {
            self.sink.row(Row {
                point: None,
                labels: &pairs,
                identity: None,
                sample: Sample::float(Timestamp(at), 1.0),
                is_delta: false,
                exemplars: Vec::new(),
            })?;
        }
        Ok(())
    }
}

/// What all kinds of points have.
fn frame<'a>(
    message: &'a [u8],
    family: &Family<'_>,
    number: u32,
) -> Result<(Point, Vec<Attribute<'a>>), Trouble> {
    let (mut start, mut at, mut flags) = (0, 0, 0);
    let mut attributes = Vec::new();
    let of_attributes = family.shape.attributes();
    let of_flags = match family.shape {
        Shape::Gauge | Shape::Sum | Shape::Summary => 8,
        Shape::Histogram | Shape::Exponential => 10,
    };
    let mut reader = Reader::new(message);
    while let Some((number, field)) = reader.next()? {
        match number {
            2 => start = fixed64(field, "DataPoint", number)?,
            3 => at = fixed64(field, "DataPoint", number)?,
            number if number == of_attributes => {
                attributes::read(field.bytes("DataPoint", number)?, &mut attributes)?;
            }
            number if number == of_flags => flags = field.varint("DataPoint", number)?,
            _ => {}
        }
    }
    let start = (start != 0).then(|| time(start));
    Ok((frame_of(family, number, start, time(at), flags), attributes))
}

/// The frame of a point with these fields.
pub(super) fn frame_of(
    family: &Family<'_>,
    number: u32,
    start: Option<Timestamp>,
    at: Timestamp,
    flags: u64,
) -> Point {
    Point {
        number,
        at,
        started: start.filter(|_| family.has_start),
        is_delta: family.is_delta,
        is_gone: flags & NO_RECORDED_VALUE != 0,
    }
}

/// A `NumberDataPoint`.
fn number_point<S: Sink>(message: &[u8], name: &str, rows: &mut Rows<'_, '_, S>) -> Outcome<S> {
    let mut value = 0.0;
    let mut reader = Reader::new(message);
    while let Some((field_number, field)) = reader.next()? {
        if matches!(field_number, 4 | 6) {
            value = number(field, "NumberDataPoint", field_number, field_number == 6)?;
        }
    }
    let found = exemplars_of(message)?;
    rows.push(name, None, rows.point.float(value), found).map_err(TranslateError::Sink)
}

/// The exemplars of a `NumberDataPoint`, in order of time.
fn exemplars_of(message: &[u8]) -> Result<Vec<Exemplar>, DecodeError> {
    let mut found = Vec::new();
    let mut reader = Reader::new(message);
    while let Some((number, field)) = reader.next()? {
        if number == 5 {
            exemplars::read(field.bytes("NumberDataPoint", number)?, &mut found)?;
        }
    }
    found.sort_by_key(|exemplar: &Exemplar| exemplar.at);
    Ok(found)
}

/// A `SummaryDataPoint`.
fn summary_point<S: Sink>(message: &[u8], name: &str, rows: &mut Rows<'_, '_, S>) -> Outcome<S> {
    let (mut count, mut sum) = (0, 0.0);
    let mut quantiles = Vec::new();
    let mut reader = Reader::new(message);
    while let Some((number, field)) = reader.next()? {
        match number {
            4 => count = fixed64(field, "SummaryDataPoint", number)?,
            5 => sum = field.double("SummaryDataPoint", number)?,
            6 => quantiles.push(quantile(field.bytes("SummaryDataPoint", number)?)?),
            _ => {}
        }
    }
    let point = rows.point;
    let mut push = |suffix, value| {
        rows.push(&format!("{name}{suffix}"), None, point.float(value), Vec::new())
            .map_err(TranslateError::Sink)
    };
    push("_sum", sum)?;
    push("_count", count as f64)?;
    for (quantile, value) in quantiles {
        let quantile = bound(quantile);
        rows.push(name, Some(("quantile", &quantile)), point.float(value), Vec::new())
            .map_err(TranslateError::Sink)?;
    }
    Ok(())
}

fn quantile(message: &[u8]) -> Result<(f64, f64), DecodeError> {
    let (mut quantile, mut value) = (0.0, 0.0);
    let mut reader = Reader::new(message);
    while let Some((number, field)) = reader.next()? {
        match number {
            1 => quantile = field.double("ValueAtQuantile", number)?,
            2 => value = field.double("ValueAtQuantile", number)?,
            _ => {}
        }
    }
    Ok((quantile, value))
}

/// A bound or quantile as the value of a label: the shortest digits, never with an exponent.
pub(super) fn bound(value: f64) -> String {
    if value == f64::INFINITY {
        "+Inf".into()
    } else if value == f64::NEG_INFINITY {
        "-Inf".into()
    } else {
        value.to_string()
    }
}
