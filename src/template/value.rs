//! What the expressions of a template can be, with the type names that Go would show.

use std::collections::BTreeMap;
use std::sync::Arc;

use stint_model::Labels;
use stint_model::histogram::FloatHistogram;

use super::number::float;
use super::time;

/// A sample that a query found.
#[derive(Debug)]
pub(super) struct Sample {
    /// With the metric's name.
    pub(super) labels: Labels,
    pub(super) value: f64,
}

/// A value.
#[derive(Clone, Debug)]
pub(super) enum Value {
    /// Nothing: `nil`, or what a map of anything does not have.
    Nil,
    Bool(bool),
    Int(i64),
    Float(f64),
    Text(Arc<str>),
    Labels(Labels),
    /// What `args` makes.
    Args(Arc<BTreeMap<String, Value>>),
    Sample(Arc<Sample>),
    /// What `query` finds.
    Vector(Arc<[Arc<Sample>]>),
    /// The data of the template itself: labels, external labels, external URL, value.
    Root(Arc<[Value; 4]>),
    /// Milliseconds since 1970.
    Time(i64),
    /// Nanoseconds.
    Duration(i64),
    /// A month or a day of the week.
    Named(&'static str, i64, &'static str),
    Histogram(Arc<FloatHistogram>),
}

impl Value {
    pub(super) fn text(text: impl AsRef<str>) -> Self {
        Self::Text(Arc::from(text.as_ref()))
    }

    /// The name of its type.
    pub(super) const fn type_name(&self) -> &'static str {
        match self {
            Self::Nil => "<nil>",
            Self::Bool(_) => "bool",
            Self::Int(_) => "int",
            Self::Float(_) => "float64",
            Self::Text(_) => "string",
            Self::Labels(_) => "map[string]string",
            Self::Args(_) => "map[string]interface {}",
            Self::Sample(_) => "*template.sample",
            Self::Vector(_) => "template.queryResult",
            Self::Root(_) => {
                "struct { Labels map[string]string; ExternalLabels map[string]string; \
                 ExternalURL string; Value interface {} }"
            }
            Self::Time(_) => "*time.Time",
            Self::Duration(_) => "*time.Duration",
            Self::Named(name, _, _) => name,
            Self::Histogram(_) => "*histogram.FloatHistogram",
        }
    }

    /// Whether it counts as true: anything but the empty value of its kind.
    pub(super) fn is_true(&self) -> bool {
        match self {
            Self::Nil => false,
            Self::Bool(value) => *value,
            Self::Int(value) | Self::Named(_, value, _) => *value != 0,
            Self::Float(value) => *value != 0.0,
            Self::Text(text) => !text.is_empty(),
            Self::Labels(labels) => !labels.is_empty(),
            Self::Args(args) => !args.is_empty(),
            Self::Vector(samples) => !samples.is_empty(),
            Self::Sample(_)
            | Self::Root(_)
            | Self::Time(_)
            | Self::Duration(_)
            | Self::Histogram(_) => true,
        }
    }

    /// The text of a value that has one of its own, whatever the verb.
    pub(super) fn own_text(&self) -> Option<String> {
        match self {
            Self::Time(at) => Some(time::show(*at)),
            Self::Duration(nanoseconds) => Some(time::show_duration(*nanoseconds)),
            Self::Named(_, _, name) => Some((*name).to_owned()),
            Self::Histogram(histogram) => Some(histogram.to_string()),
            _ => None,
        }
    }

    /// As `print` shows it.
    pub(super) fn show(&self) -> String {
        let mut out = String::new();
        self.push(&mut out);
        out
    }

    /// Appends what `print` shows.
    pub(super) fn push(&self, out: &mut String) {
        match self {
            Self::Nil => out.push_str("<nil>"),
            Self::Bool(value) => out.push_str(if *value { "true" } else { "false" }),
            Self::Int(value) => out.push_str(&value.to_string()),
            Self::Float(value) => out.push_str(&float(*value, 'g', None)),
            Self::Text(text) => out.push_str(text),
            Self::Labels(labels) => {
                push_map(out, labels.iter().map(|(name, value)| (name, Value::text(value))));
            }
            Self::Args(args) => {
                push_map(out, args.iter().map(|(name, value)| (name.as_str(), value.clone())));
            }
            Self::Sample(sample) => {
                out.push('{');
                Self::Labels(sample.labels.clone()).push(out);
                out.push(' ');
                Self::Float(sample.value).push(out);
                out.push('}');
            }
            Self::Vector(samples) => {
                out.push('[');
                for (at, sample) in samples.iter().enumerate() {
                    if at > 0 {
                        out.push(' ');
                    }
                    Self::Sample(Arc::clone(sample)).push(out);
                }
                out.push(']');
            }
            Self::Root(parts) => {
                out.push('{');
                for (at, part) in parts.iter().enumerate() {
                    if at > 0 {
                        out.push(' ');
                    }
                    part.push(out);
                }
                out.push('}');
            }
            Self::Time(_) | Self::Duration(_) | Self::Named(..) | Self::Histogram(_) => {
                out.push_str(&self.own_text().unwrap_or_default());
            }
        }
    }
}

fn push_map<'a>(out: &mut String, entries: impl Iterator<Item = (&'a str, Value)>) {
    out.push_str("map[");
    for (at, (name, value)) in entries.enumerate() {
        if at > 0 {
            out.push(' ');
        }
        out.push_str(name);
        out.push(':');
        value.push(out);
    }
    out.push(']');
}
