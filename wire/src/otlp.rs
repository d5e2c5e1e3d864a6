//! OTLP metrics (`opentelemetry.proto.collector.metrics.v1`, version 1.x): data points become
//! samples of series, as Prometheus' own receiver translates them.
//!
//! A message is walked in place. What cannot be translated is told to the [`Sink`] and never takes
//! the rest with it; only bytes that are no such message fail as a whole. [`json`] turns the other
//! encoding into this one, [`answer`] writes what a sender is told.

use std::collections::HashMap;
use std::rc::Rc;

use stint_model::metadata::{Metadata, MetricType};
use stint_model::{Exemplar, Sample};

use self::attributes::{Attribute, AttributeError};
use self::identity::Identity;
use self::labels::{Pairs, ResourceLabels};
use self::names::{Kind, metric_name, unit_name};
use self::points::{Family, Target};
use crate::proto::{DecodeError, Field, Reader};

pub use names::Strategy;

pub mod answer;
mod attributes;
mod exemplars;
mod histograms;
mod identity;
pub mod json;
mod labels;
mod names;
mod points;

#[cfg(test)]
mod tests;

/// How metrics become series: the `otlp` section of Prometheus' configuration, and what the
/// operator adds to every resource.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Options {
    /// How names are made.
    pub strategy: Strategy,
    /// Which attributes of a resource become labels of its series.
    pub promotion: Promotion,
    /// Whether `service.*` stay labels of `target_info`.
    pub keep_identifying_resource_attributes: bool,
    /// Whether histograms with explicit bounds become native ones.
    pub convert_histograms_to_nhcb: bool,
    /// Whether name, version and attributes of a scope become labels.
    pub promote_scope_metadata: bool,
    /// Whether a label name that starts with an underscore is prefixed with `key`.
    pub label_name_underscore_sanitization: bool,
    /// Whether runs of underscores in label names stay.
    pub label_name_preserve_multiple_underscores: bool,
    /// Attributes that every resource gets, over its own of the same name.
    pub resource_attributes: Vec<(String, String)>,
}

/// Which attributes of a resource become labels of its series.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Promotion {
    /// These.
    Only(Vec<String>),
    /// All others.
    AllBut(Vec<String>),
}

impl Default for Options {
    fn default() -> Self {
        Self {
            strategy: Strategy::default(),
            promotion: Promotion::Only(Vec::new()),
            keep_identifying_resource_attributes: false,
            convert_histograms_to_nhcb: false,
            promote_scope_metadata: false,
            label_name_underscore_sanitization: true,
            label_name_preserve_multiple_underscores: true,
            resource_attributes: Vec::new(),
        }
    }
}

/// One sample of one series.
#[derive(Clone, Debug, PartialEq)]
pub struct Row<'r> {
    /// The data point it stems from, numbered through the message; `None` for `target_info`.
    pub point: Option<u32>,
    /// In order of names, the metric's name among them, none empty. Nothing at all when the sink has
    /// just recognised the series.
    pub labels: &'r [(&'r str, &'r str)],
    /// Bytes that tell the series from all others under the same [`Options`], where there are such.
    /// They are not the only ones that do.
    pub identity: Option<&'r [u8]>,
    /// The sample.
    pub sample: Sample,
    /// Whether the value counts from [`Sample::started`] on rather than from the beginning of the
    /// series: what arrived since the sample before.
    pub is_delta: bool,
    /// Exemplars of the series.
    pub exemplars: Vec<Exemplar>,
}

/// What an operator may want to know and a sender need not.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Warning {
    /// A metric without data points.
    EmptyDataPoints,
    /// Attributes whose names became the same label.
    LabelNameCollision,
    /// A histogram of no observations with a sum.
    HistogramZeroCountNonZeroSum,
}

impl Warning {
    /// Every kind, for counters.
    pub const ALL: [Self; 3] =
        [Self::EmptyDataPoints, Self::LabelNameCollision, Self::HistogramZeroCountNonZeroSum];

    /// The name that Prometheus counts it under.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::EmptyDataPoints => "empty_data_points",
            Self::LabelNameCollision => "label_name_collision",
            Self::HistogramZeroCountNonZeroSum => "histogram_zero_count_non_zero_sum",
        }
    }
}

/// Takes what a message becomes.
pub trait Sink {
    /// Why it takes no more.
    type Error;

    /// A metric family, before its first rows; the same one may come more than once.
    fn family(&mut self, name: &str, metadata: Metadata) -> Result<(), Self::Error>;

    /// Whether the series with this [`Row::identity`] is known. If so, its row comes next, and without
    /// labels.
    fn recognises(&mut self, identity: &[u8]) -> bool {
        let _ = identity;
        false
    }

    /// A sample.
    fn row(&mut self, row: Row<'_>) -> Result<(), Self::Error>;

    /// So many data points cannot be translated.
    fn refused(&mut self, points: u64, reason: &str);

    /// Something that is no error.
    fn warning(&mut self, warning: Warning);
}

/// Why a message was not translated to its end.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum TranslateError<E> {
    /// It is no `ExportMetricsServiceRequest`.
    #[error("the body is no OTLP metrics request: {0}")]
    Decode(DecodeError),
    /// The sink took no more.
    #[error("{0}")]
    Sink(E),
}

impl<E> From<DecodeError> for TranslateError<E> {
    fn from(error: DecodeError) -> Self {
        Self::Decode(error)
    }
}

type Outcome<S> = Result<(), TranslateError<<S as Sink>::Error>>;

/// Why something and all below it is left out, or the whole message fails.
enum Trouble {
    /// Told to the sink with the data points that it costs.
    Skip(String),
    Decode(DecodeError),
}

impl From<DecodeError> for Trouble {
    fn from(error: DecodeError) -> Self {
        if error.is_local() { Self::Skip(error.to_string()) } else { Self::Decode(error) }
    }
}

impl From<AttributeError> for Trouble {
    fn from(error: AttributeError) -> Self {
        match error {
            AttributeError::Decode(error) => Self::Decode(error),
            other => Self::Skip(other.to_string()),
        }
    }
}

impl From<names::EmptyName> for Trouble {
    fn from(error: names::EmptyName) -> Self {
        Self::Skip(error.to_string())
    }
}

/// Hands the data points of an `ExportMetricsServiceRequest` to `sink`.
///
/// # Errors
/// The bytes are no such message, or the sink takes no more; rows that were handed on before are
/// of no worth then.
pub fn translate<S: Sink>(body: &[u8], options: &Options, sink: &mut S) -> Outcome<S> {
    let mut progress = Progress::default();
    for resource in Messages::new(body, "ExportMetricsServiceRequest", 1) {
        translate_resource(resource?, options, sink, &mut progress)?;
    }
    Ok(())
}

/// What was seen of a message so far.
#[derive(Default)]
struct Progress<'a> {
    /// Data points.
    points: u32,
    /// Families that the sink was told of. Resources of one message mostly have the same ones.
    families: HashMap<Head<'a>, Rc<Family<'a>>, foldhash::fast::RandomState>,
}

/// Families of one message that are not translated again.
const FAMILIES_MAX: usize = 4096;

/// The messages under one field of another message.
struct Messages<'a> {
    reader: Reader<'a>,
    message: &'static str,
    wanted: u32,
}

impl<'a> Messages<'a> {
    fn new(bytes: &'a [u8], message: &'static str, wanted: u32) -> Self {
        Self { reader: Reader::new(bytes), message, wanted }
    }
}

impl<'a> Iterator for Messages<'a> {
    type Item = Result<&'a [u8], DecodeError>;

    fn next(&mut self) -> Option<Self::Item> {
        loop {
            match self.reader.next().transpose()? {
                Ok((number, field)) if number == self.wanted => {
                    return Some(field.bytes(self.message, number));
                }
                Ok(_) => {}
                Err(error) => return Some(Err(error)),
            }
        }
    }
}

fn translate_resource<'a, S: Sink>(
    message: &'a [u8],
    options: &'a Options,
    sink: &mut S,
    progress: &mut Progress<'a>,
) -> Outcome<S> {
    let labels = match resource_labels(message, options) {
        Ok(labels) => labels,
        Err(Trouble::Decode(error)) => return Err(error.into()),
        Err(Trouble::Skip(reason)) => {
            let mut lost = 0;
            for scope in Messages::new(message, "ResourceMetrics", 2) {
                for metric in Messages::new(scope?, "ScopeMetrics", 2) {
                    lost += count_points(metric?)?;
                }
            }
            sink.refused(lost, &reason);
            return Ok(());
        }
    };
    let identity = Identity::default();
    let mut target = Target { sink, options, progress, times: None, identity };
    for scope in Messages::new(message, "ResourceMetrics", 2) {
        translate_scope(scope?, &labels, &mut target)?;
    }
    target.info(&labels.info).map_err(TranslateError::Sink)
}

fn resource_labels<'a>(
    message: &'a [u8],
    options: &'a Options,
) -> Result<ResourceLabels<'a>, Trouble> {
    let mut attributes: Vec<Attribute<'_>> = Vec::new();
    if let Some(resource) = Messages::new(message, "ResourceMetrics", 1).last() {
        for attribute in Messages::new(resource?, "Resource", 1) {
            attributes::read(attribute?, &mut attributes)?;
        }
    }
    Ok(ResourceLabels::new(&mut attributes, options)?)
}

fn translate_scope<'a, S: Sink>(
    message: &'a [u8],
    resource: &ResourceLabels<'a>,
    target: &mut Target<'_, 'a, S>,
) -> Outcome<S> {
    let scope = match scope_labels(message, target.options) {
        Ok(scope) => scope,
        Err(Trouble::Decode(error)) => return Err(error.into()),
        Err(Trouble::Skip(reason)) => {
            let mut lost = 0;
            for metric in Messages::new(message, "ScopeMetrics", 2) {
                lost += count_points(metric?)?;
            }
            target.sink.refused(lost, &reason);
            return Ok(());
        }
    };
    for metric in Messages::new(message, "ScopeMetrics", 2) {
        translate_metric(metric?, resource, &scope, target)?;
    }
    Ok(())
}

fn scope_labels<'a>(message: &'a [u8], options: &Options) -> Result<Pairs<'a>, Trouble> {
    if !options.promote_scope_metadata {
        return Ok(Pairs::new());
    }
    let (mut name, mut version, mut schema_url) = ("", "", "");
    let mut attributes: Vec<Attribute<'_>> = Vec::new();
    let mut reader = Reader::new(message);
    while let Some((number, field)) = reader.next()? {
        match number {
            1 => {
                let mut inner = Reader::new(field.bytes("ScopeMetrics", number)?);
                while let Some((number, field)) = inner.next()? {
                    let message = "InstrumentationScope";
                    match number {
                        1 => name = field.text(message, number)?,
                        2 => version = field.text(message, number)?,
                        3 => attributes::read(field.bytes(message, number)?, &mut attributes)?,
                        _ => {}
                    }
                }
            }
            3 => schema_url = field.text("ScopeMetrics", number)?,
            _ => {}
        }
    }
    Ok(labels::of_scope(name, version, schema_url, &mut attributes, options)?)
}

/// What a `Metric` holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum Shape {
    Gauge,
    Sum,
    Histogram,
    Exponential,
    Summary,
}

impl Shape {
    /// The number of the attributes' field in a data point.
    const fn attributes(self) -> u32 {
        match self {
            Self::Gauge | Self::Sum | Self::Summary => 7,
            Self::Histogram => 9,
            Self::Exponential => 1,
        }
    }

    /// The number of the flags' field in a data point.
    const fn flags(self) -> u32 {
        match self {
            Self::Gauge | Self::Sum | Self::Summary => 8,
            Self::Histogram | Self::Exponential => 10,
        }
    }

    const fn is_number(self) -> bool {
        matches!(self, Self::Gauge | Self::Sum)
    }

    const fn has_temporality(self) -> bool {
        matches!(self, Self::Sum | Self::Histogram | Self::Exponential)
    }
}

/// A `Metric` up to its data points.
#[derive(Clone, Copy, Debug)]
struct Metric<'a> {
    name: &'a str,
    description: &'a str,
    unit: &'a str,
    data: Option<(Shape, &'a [u8])>,
}

impl<'a> Metric<'a> {
    fn read(message: &'a [u8]) -> Result<Self, DecodeError> {
        let mut metric = Self { name: "", description: "", unit: "", data: None };
        let mut reader = Reader::new(message);
        while let Some((number, field)) = reader.next()? {
            let shape = match number {
                1 => {
                    metric.name = field.text("Metric", number)?;
                    continue;
                }
                2 => {
                    metric.description = field.text("Metric", number)?;
                    continue;
                }
                3 => {
                    metric.unit = field.text("Metric", number)?;
                    continue;
                }
                5 => Shape::Gauge,
                7 => Shape::Sum,
                9 => Shape::Histogram,
                10 => Shape::Exponential,
                11 => Shape::Summary,
                _ => continue,
            };
            metric.data = Some((shape, field.bytes("Metric", number)?));
        }
        Ok(metric)
    }
}

/// What makes a `Metric`'s family.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
struct Head<'a> {
    name: &'a str,
    description: &'a str,
    unit: &'a str,
    shape: Shape,
    temporality: u64,
    is_monotonic: bool,
}

/// The data points of a `Metric`, whatever they are.
fn count_points(message: &[u8]) -> Result<u64, DecodeError> {
    let mut reader = Reader::new(message);
    let mut data = None;
    while let Some((number, field)) = reader.next()? {
        if matches!(number, 5 | 7 | 9 | 10 | 11) {
            data = Some(field.bytes("Metric", number)?);
        }
    }
    let mut count = 0;
    for point in Messages::new(data.unwrap_or_default(), "Metric", 1) {
        point?;
        count += 1;
    }
    Ok(count)
}

/// How the values of a metric count.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Temporality {
    Delta,
    Cumulative,
}

/// What stands in a metric's data beside its points.
fn properties(data: &[u8]) -> Result<(u64, bool), DecodeError> {
    let (mut temporality, mut is_monotonic) = (0, false);
    let mut reader = Reader::new(data);
    while let Some((number, field)) = reader.next()? {
        match (number, field) {
            (2, Field::Varint(value)) => temporality = value,
            (3, Field::Varint(value)) => is_monotonic = value != 0,
            _ => {}
        }
    }
    Ok((temporality, is_monotonic))
}

fn translate_metric<'a, S: Sink>(
    message: &'a [u8],
    resource: &ResourceLabels<'a>,
    scope: &Pairs<'a>,
    target: &mut Target<'_, 'a, S>,
) -> Outcome<S> {
    let metric = match Metric::read(message).map_err(Trouble::from) {
        Ok(metric) => metric,
        Err(Trouble::Decode(error)) => return Err(error.into()),
        Err(Trouble::Skip(reason)) => {
            target.sink.refused(count_points(message)?, &reason);
            return Ok(());
        }
    };
    let Some((shape, data)) = metric.data else {
        target.sink.warning(Warning::EmptyDataPoints);
        return Ok(());
    };
    let count = count_points(message)?;
    if count == 0 {
        target.sink.warning(Warning::EmptyDataPoints);
        return Ok(());
    }
    let (temporality, is_monotonic) = properties(data)?;
    let Metric { name, description, unit, .. } = metric;
    let head = Head { name, description, unit, shape, temporality, is_monotonic };
    let family = match known_family(&head, target) {
        Ok(family) => family,
        Err(Unknown::Refused(reason)) => {
            target.sink.refused(count, &reason);
            return Ok(());
        }
        Err(Unknown::Sink(error)) => return Err(TranslateError::Sink(error)),
    };
    target.identity.begin(&family, resource, scope);
    for point in Messages::new(data, "Metric", 1) {
        target.point(point?, &family, resource, scope)?;
    }
    Ok(())
}

/// Why there is no family.
enum Unknown<E> {
    Refused(String),
    Sink(E),
}

/// The family of a metric, which the sink was told of.
fn known_family<'a, S: Sink>(
    head: &Head<'a>,
    target: &mut Target<'_, 'a, S>,
) -> Result<Rc<Family<'a>>, Unknown<S::Error>> {
    if let Some(known) = target.progress.families.get(head) {
        return Ok(Rc::clone(known));
    }
    let strategy = target.options.strategy;
    let family = Rc::new(family(head, strategy).map_err(Unknown::Refused)?);
    let metadata = Metadata {
        kind: kind_of(head.shape, head.is_monotonic),
        help: head.description.to_owned(),
        unit: unit_name(head.unit, strategy),
    };
    target.sink.family(&family.name, metadata).map_err(Unknown::Sink)?;
    if target.progress.families.len() < FAMILIES_MAX {
        target.progress.families.insert(*head, Rc::clone(&family));
    }
    Ok(family)
}

fn family<'a>(head: &Head<'a>, strategy: Strategy) -> Result<Family<'a>, String> {
    let shape = head.shape;
    let temporality = match head.temporality {
        1 => Temporality::Delta,
        2 => Temporality::Cumulative,
        _ if !shape.has_temporality() => Temporality::Cumulative,
        _ => {
            let name = head.name;
            return Err(format!("invalid temporality and type combination for metric {name:?}"));
        }
    };
    let kind = match shape {
        Shape::Sum if head.is_monotonic => Kind::Counter,
        // Prometheus takes a sum that may fall for a gauge, in its name too.
        Shape::Gauge | Shape::Sum => Kind::Gauge,
        Shape::Histogram | Shape::Exponential | Shape::Summary => Kind::Other,
    };
    let name = metric_name(head.name, head.unit, kind, strategy)
        .map_err(|error| format!("metric: {error}"))?;
    Ok(Family {
        name,
        shape,
        is_delta: temporality == Temporality::Delta && shape.has_temporality(),
        has_start: shape != Shape::Gauge,
    })
}

const fn kind_of(shape: Shape, is_monotonic: bool) -> MetricType {
    match shape {
        Shape::Sum if is_monotonic => MetricType::Counter,
        Shape::Gauge | Shape::Sum => MetricType::Gauge,
        Shape::Histogram | Shape::Exponential => MetricType::Histogram,
        Shape::Summary => MetricType::Summary,
    }
}
