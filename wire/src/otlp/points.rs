//! Data points become rows: the frame around all kinds, and numbers and summaries.

use std::borrow::Cow;

use stint_model::labels::METRIC_NAME;
use stint_model::sample::{Sample, Value};
use stint_model::{Exemplar, Span, Timestamp};

use super::attributes::{self, Attribute};
use super::identity::{Bare, Identity};
use super::labels::{self, Collided, Pairs, ResourceLabels};
use super::{Options, Outcome, Progress, Row, Shape, Sink, TranslateError, Trouble, Warning};
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
pub(super) struct Target<'t, 'a, S> {
    pub(super) sink: &'t mut S,
    pub(super) options: &'t Options,
    pub(super) progress: &'t mut Progress<'a>,
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

/// Which of the series of a data point.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Member {
    /// What the name ends in.
    pub(super) suffix: &'static str,
    /// A label of its own.
    pub(super) bound: Option<(&'static str, f64)>,
}

impl Member {
    /// The series of the metric's name and the point's labels.
    pub(super) const ITSELF: Self = Self::suffixed("");

    pub(super) const fn suffixed(suffix: &'static str) -> Self {
        Self { suffix, bound: None }
    }

    /// Bytes that no other series of a point of the same kind has.
    pub(super) fn code(self) -> [u8; 9] {
        let mut code = [0; 9];
        let (kind, bits) = code.split_at_mut(1);
        // No two suffixes are equally long.
        kind.fill(2 * self.suffix.len() as u8 + u8::from(self.bound.is_some()));
        bits.copy_from_slice(&self.bound.map_or(0, |(_, bound)| bound.to_bits()).to_le_bytes());
        code
    }
}

/// What the labels of a point's series are made of.
struct Source<'p, 'a> {
    message: &'a [u8],
    family: &'p Family<'p>,
    resource: &'p ResourceLabels<'a>,
    scope: &'p Pairs<'a>,
    options: &'p Options,
    number: u32,
}

/// Labels, without the metric's name.
enum Made<'a> {
    /// Nobody has asked for them.
    NotYet,
    /// What was told about them is told each time when they may not be recognised.
    Labels { pairs: Pairs<'a>, is_recognisable: bool },
    /// Nothing of the point can be stored.
    Refused(String),
}

impl<'a> Source<'_, 'a> {
    /// The frame of the point, and labels.
    fn make<S: Sink>(&self, sink: &mut S) -> Result<(Option<Point>, Made<'a>), DecodeError> {
        let mut pairs = Pairs::new();
        let made = frame(self.message, self.family, self.number).and_then(|(point, attributes)| {
            let mut attributes = attributes;
            let (resource, scope) = (self.resource, self.scope);
            let collided =
                labels::of_point(&mut attributes, resource, scope, self.options, &mut pairs)?;
            Ok((point, collided == Collided(true)))
        });
        match made {
            Ok((point, has_collided)) => {
                if has_collided {
                    sink.warning(Warning::LabelNameCollision);
                }
                Ok((Some(point), Made::Labels { pairs, is_recognisable: !has_collided }))
            }
            Err(Trouble::Decode(error)) => Err(error),
            Err(Trouble::Skip(reason)) => Ok((None, Made::Refused(reason))),
        }
    }
}

/// Hands on the rows of one data point.
pub(super) struct Rows<'t, 'p, 'a, S> {
    pub(super) sink: &'t mut S,
    pub(super) point: Point,
    identity: &'t mut Identity,
    source: Source<'p, 'a>,
    made: Made<'a>,
}

impl<S: Sink> Rows<'_, '_, '_, S> {
    /// One row, with labels only if the sink does not recognise the series.
    pub(super) fn push(
        &mut self,
        member: Member,
        sample: Sample,
        exemplars: Vec<Exemplar>,
    ) -> Outcome<S> {
        let is_recognisable = match &self.made {
            Made::NotYet => true,
            Made::Labels { is_recognisable, .. } => *is_recognisable,
            Made::Refused(_) => return Ok(()),
        };
        let row = Row {
            point: Some(self.point.number),
            labels: &[],
            identity: self.identity.of(member).filter(|_| is_recognisable),
            sample,
            is_delta: self.point.is_delta,
            exemplars,
        };
        if row.identity.is_some_and(|identity| self.sink.recognises(identity)) {
            return self.sink.row(row).map_err(TranslateError::Sink);
        }
        if matches!(self.made, Made::NotYet) {
            self.made = self.source.make(self.sink)?.1;
        }
        let Made::Labels { pairs, is_recognisable } = &self.made else { return Ok(()) };
        let name = &self.source.family.name;
        let full_name: Cow<'_, str> = match member.suffix {
            "" => (&**name).into(),
            suffix => format!("{name}{suffix}").into(),
        };
        let more = member.bound.map(|(name, value)| (name, bound(value)));
        let more = more.as_ref().map(|(name, value)| (*name, value.as_str()));
        let labels = with_name(pairs, &full_name, more);
        let identity = row.identity.filter(|_| *is_recognisable);
        self.sink.row(Row { labels: &labels, identity, ..row }).map_err(TranslateError::Sink)
    }
}

/// A point's labels with a name and at most one label more.
fn with_name<'p>(
    pairs: &'p Pairs<'_>,
    name: &'p str,
    more: Option<(&'p str, &'p str)>,
) -> Vec<(&'p str, &'p str)> {
    let mut all = Vec::with_capacity(pairs.len() + 2);
    let own = pairs.iter().map(|(name, value)| (&**name, &**value));
    let is_set = |name: &str| name == METRIC_NAME || more.is_some_and(|(more, _)| more == name);
    all.extend(own.filter(|(name, _)| !is_set(name)));
    for (name, value) in [Some((METRIC_NAME, name)), more].into_iter().flatten() {
        let at = all.partition_point(|(present, _)| *present < name);
        all.insert(at, (name, value));
    }
    all
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

impl<'a, S: Sink> Target<'_, 'a, S> {
    /// Translates one data point; tells the sink where that is not possible.
    pub(super) fn point(
        &mut self,
        message: &'a [u8],
        family: &Family<'_>,
        resource: &ResourceLabels<'a>,
        scope: &Pairs<'a>,
    ) -> Outcome<S> {
        let number = self.progress.points;
        self.progress.points += 1;
        let source = Source { message, family, resource, scope, options: self.options, number };
        let bare = self.identity.read(message, family, number);
        let (point, made) = match &bare {
            Some(bare) => (Some(bare.point), Made::NotYet),
            None => source.make(self.sink)?,
        };
        let identity = &mut self.identity;
        let made = match point {
            Some(point) => {
                let mut rows = Rows { sink: &mut *self.sink, point, identity, source, made };
                let nhcb = self.options.convert_histograms_to_nhcb;
                match family.shape {
                    Shape::Gauge | Shape::Sum => number_point(message, bare, &mut rows),
                    Shape::Summary => summary_point(message, &mut rows),
                    Shape::Histogram => {
                        histograms::explicit(message, &family.name, nhcb, &mut rows)
                    }
                    Shape::Exponential => histograms::exponential(message, &family.name, &mut rows),
                }?;
                rows.made
            }
            None => made,
        };
        match (point, made) {
            (_, Made::Refused(reason)) => {
                self.sink.refused(1, &format!("metric {:?}: {reason}", family.name));
            }
            (Some(point), _) => self.saw(point.at),
            (None, _) => {}
        }
        Ok(())
    }

    fn saw(&mut self, at: Timestamp) {
        let (first, last) = self.times.unwrap_or((at, at));
        self.times = Some((first.min(at), last.max(at)));
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
    let of_flags = family.shape.flags();
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

/// A `NumberDataPoint`, which may have been read but for its exemplars.
fn number_point<S: Sink>(
    message: &[u8],
    bare: Option<Bare>,
    rows: &mut Rows<'_, '_, '_, S>,
) -> Outcome<S> {
    if let Some(bare) = bare {
        let found = if bare.has_exemplars { exemplars_of(message)? } else { Vec::new() };
        return rows.push(Member::ITSELF, rows.point.float(bare.value), found);
    }
    let mut value = 0.0;
    let mut reader = Reader::new(message);
    while let Some((field_number, field)) = reader.next()? {
        if matches!(field_number, 4 | 6) {
            value = number(field, "NumberDataPoint", field_number, field_number == 6)?;
        }
    }
    rows.push(Member::ITSELF, rows.point.float(value), exemplars_of(message)?)
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
fn summary_point<S: Sink>(message: &[u8], rows: &mut Rows<'_, '_, '_, S>) -> Outcome<S> {
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
    rows.push(Member::suffixed("_sum"), point.float(sum), Vec::new())?;
    rows.push(Member::suffixed("_count"), point.float(count as f64), Vec::new())?;
    for (quantile, value) in quantiles {
        let member = Member { suffix: "", bound: Some(("quantile", quantile)) };
        rows.push(member, point.float(value), Vec::new())?;
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
