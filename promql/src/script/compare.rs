//! Whether what came out is what was expected.

use std::collections::HashMap;

use stint_model::histogram::FloatHistogram;
use stint_model::{Labels, Span, Timestamp, Value, is_stale};

use super::command::{Eval, Remarks, When};
use crate::annotations::Annotations;
use crate::parse::SequenceValue;
use crate::value::{InstantSample, QueryValue, RangeSeries, SampleValue};

/// The relative error that is forgiven.
const TOLERANCE: f64 = 1e-6;

/// Whether two floats are close enough; the stale marker only equals itself.
fn close(a: f64, b: f64) -> bool {
    if is_stale(a) || is_stale(b) {
        return is_stale(a) && is_stale(b);
    }
    if a == b || (a.is_nan() && b.is_nan()) {
        return true;
    }
    let (sum, difference) = (a.abs() + b.abs(), (a - b).abs());
    if a == 0.0 || b == 0.0 || sum < f64::MIN_POSITIVE {
        return difference < TOLERANCE * f64::MIN_POSITIVE;
    }
    difference / sum.min(f64::MAX) < TOLERANCE
}

fn close_histograms(expected: &FloatHistogram, actual: &FloatHistogram, hint: bool) -> bool {
    let (mut a, mut b) = (expected.clone(), actual.clone());
    a.compact();
    b.compact();
    let all =
        |a: &[f64], b: &[f64]| a.len() == b.len() && a.iter().zip(b).all(|(a, b)| close(*a, *b));
    a.schema == b.schema
        && close(a.count, b.count)
        && close(a.sum, b.sum)
        && close(a.zero_count, b.zero_count)
        && a.zero_threshold == b.zero_threshold
        && a.custom_bounds == b.custom_bounds
        && a.positive_spans == b.positive_spans
        && a.negative_spans == b.negative_spans
        && all(&a.positive_buckets, &b.positive_buckets)
        && all(&a.negative_buckets, &b.negative_buckets)
        && (!hint || a.reset_hint == b.reset_hint)
}

fn check_value(expected: &SequenceValue, actual: &SampleValue) -> Result<(), String> {
    let fits = match (&expected.value, actual) {
        (Some(Value::Float(a)), SampleValue::Float(b)) => close(*a, *b),
        (Some(Value::Stale), SampleValue::Float(b)) => is_stale(*b),
        (Some(Value::Histogram(a)), SampleValue::Histogram(b)) => {
            close_histograms(&a.to_float(), b, expected.hint_given)
        }
        _ => false,
    };
    if fits {
        Ok(())
    } else {
        Err(format!("expected {}, got {}", show(expected), show_value(actual)))
    }
}

fn show(expected: &SequenceValue) -> String {
    match &expected.value {
        None => "nothing".to_owned(),
        Some(Value::Float(value)) => value.to_string(),
        Some(Value::Stale) => "stale".to_owned(),
        Some(Value::Histogram(histogram)) => {
            let float = histogram.to_float();
            format!("{float} (schema {}, {:?})", float.schema, float.reset_hint)
        }
    }
}

fn show_value(actual: &SampleValue) -> String {
    match actual {
        SampleValue::Float(value) => value.to_string(),
        SampleValue::Histogram(histogram) => {
            format!("{histogram} (schema {}, {:?})", histogram.schema, histogram.reset_hint)
        }
    }
}

/// Checks a result.
pub(super) fn check_result(eval: &Eval, value: &QueryValue) -> Result<(), String> {
    if let Some(expected) = &eval.string {
        return match value {
            QueryValue::String { value, .. } if value == expected => Ok(()),
            other => Err(format!("expected string {expected:?}, got {other:?}")),
        };
    }
    match value {
        QueryValue::Scalar { value, .. } => match eval.scalar {
            Some(expected) if close(expected, *value) => Ok(()),
            Some(expected) => Err(format!("expected scalar {expected}, got {value}")),
            None => Err(format!("expected {} series, got scalar {value}", eval.expected.len())),
        },
        QueryValue::String { value, .. } => Err(format!("unexpected string {value:?}")),
        QueryValue::Vector(samples) => check_vector(eval, samples),
        QueryValue::Matrix(series) => {
            let (start, step) = match (eval.range_vector, eval.when) {
                (Some((start, _, step)), _) | (None, When::Range { start, step, .. }) => {
                    (start, step)
                }
                (None, When::Instant(_)) => {
                    return Err("unexpected range vector".to_owned());
                }
            };
            check_matrix(eval, series, start, step)
        }
    }
}

/// Checks an instant vector, without its order where none is asked for.
pub(super) fn check_vector(eval: &Eval, samples: &[InstantSample]) -> Result<(), String> {
    if let Some(scalar) = eval.scalar {
        return Err(format!("expected scalar {scalar}, got a vector"));
    }
    let expected: HashMap<&Labels, (usize, &Vec<SequenceValue>)> = eval
        .expected
        .iter()
        .enumerate()
        .map(|(at, (labels, values))| (labels, (at, values)))
        .collect();
    for (at, sample) in samples.iter().enumerate() {
        let Some((position, values)) = expected.get(&sample.labels) else {
            return Err(format!("unexpected {} {}", sample.labels, show_value(&sample.value)));
        };
        if eval.ordered && *position != at {
            return Err(format!("{} stands at {at}, expected at {position}", sample.labels));
        }
        let [value] = values.as_slice() else {
            return Err(format!("{} values expected of {}", values.len(), sample.labels));
        };
        check_value(value, &sample.value).map_err(|error| format!("{}: {error}", sample.labels))?;
    }
    if samples.len() != expected.len() {
        let missing = eval
            .expected
            .iter()
            .find(|(labels, _)| samples.iter().all(|sample| sample.labels != *labels));
        let missing = missing.map(|(labels, _)| labels.to_string()).unwrap_or_default();
        return Err(format!(
            "{} series, expected {}: missing {missing}",
            samples.len(),
            expected.len()
        ));
    }
    Ok(())
}

fn check_matrix(
    eval: &Eval,
    series: &[RangeSeries],
    start: Timestamp,
    step: Span,
) -> Result<(), String> {
    if !series.is_sorted_by(|a, b| a.labels <= b.labels) {
        return Err("the series are not in order of labels".to_owned());
    }
    let mut found = 0;
    for actual in series {
        let Some((_, values)) = eval.expected.iter().find(|(labels, _)| *labels == actual.labels)
        else {
            return Err(format!("unexpected {}", actual.labels));
        };
        found += 1;
        let floats = actual.floats.iter().map(|(time, v)| (*time, SampleValue::Float(*v)));
        let histograms =
            actual.histograms.iter().map(|(time, h)| (*time, SampleValue::Histogram(h.clone())));
        let mut points: HashMap<Timestamp, SampleValue> = floats.chain(histograms).collect();
        for (at, expected) in values.iter().enumerate() {
            let time = start.saturating_add(Span(step.0.saturating_mul(at as i64)));
            match points.remove(&time) {
                None if expected.value.is_none() => {}
                None => {
                    return Err(format!(
                        "{} at {time}: expected {}, got nothing",
                        actual.labels,
                        show(expected)
                    ));
                }
                Some(value) => check_value(expected, &value)
                    .map_err(|error| format!("{} at {time}: {error}", actual.labels))?,
            }
        }
        if let Some((time, value)) = points.into_iter().next() {
            return Err(format!("{} at {time}: unexpected {}", actual.labels, show_value(&value)));
        }
    }
    let with_values =
        eval.expected.iter().filter(|(_, values)| values.iter().any(|v| v.value.is_some())).count();
    if found < with_values {
        return Err(format!("{found} series, expected {with_values}"));
    }
    Ok(())
}

/// Checks warnings and infos.
pub(super) fn check_annotations(eval: &Eval, annotations: &Annotations) -> Result<(), String> {
    check_remarks("warning", &eval.warnings, &annotations.warnings)?;
    check_remarks("info", &eval.infos, &annotations.infos)
}

fn check_remarks(kind: &str, expected: &Remarks, actual: &[String]) -> Result<(), String> {
    if expected.forbidden && !actual.is_empty() {
        return Err(format!("expected no {kind}, got {actual:?}"));
    }
    if expected.wanted.is_empty() {
        return Ok(());
    }
    for wanted in &expected.wanted {
        if !actual.iter().any(|text| wanted.matches(text)) {
            return Err(format!("expected {kind} {wanted:?}, got {actual:?}"));
        }
    }
    match actual.iter().find(|text| !expected.wanted.iter().any(|wanted| wanted.matches(text))) {
        Some(text) => Err(format!("unexpected {kind} {text:?}")),
        None => Ok(()),
    }
}
