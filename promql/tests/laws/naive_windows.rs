//! Functions over one window, as their definitions have them.

use stint_model::Value;

use crate::naive::{Refusal, quantile, variance};

/// The samples of one series in one window: after `start`, up to `end`.
pub(crate) struct Window {
    samples: Vec<(i64, Value)>,
    start: i64,
    end: i64,
}

impl Window {
    /// The window of these samples, which are in order.
    pub(crate) fn new(samples: Vec<(i64, Value)>, start: i64, end: i64) -> Self {
        Self { samples, start, end }
    }

    /// How many samples there are.
    pub(crate) fn len(&self) -> usize {
        self.samples.len()
    }

    fn floats(&self) -> Vec<(i64, f64)> {
        let floats = self.samples.iter().filter_map(|(at, value)| match value {
            Value::Float(value) => Some((*at, *value)),
            _ => None,
        });
        floats.collect()
    }
}

/// What the function makes of a window that is not empty.
pub(crate) fn range_function(name: &str, window: &Window) -> Result<Option<Value>, Refusal> {
    let floats = window.floats();
    let is_mixed = !floats.is_empty() && floats.len() < window.len();
    let only_histograms = floats.is_empty();
    let values: Vec<f64> = floats.iter().map(|(_, value)| *value).collect();
    let sum: f64 = values.iter().sum();
    let seconds = |at: i64| at as f64 / 1000.0;
    let value = match name {
        "count_over_time" => Some(window.len() as f64),
        "present_over_time" => Some(1.0),
        "last_over_time" => return Ok(window.samples.last().map(|(_, value)| value.clone())),
        "first_over_time" => return Ok(window.samples.first().map(|(_, value)| value.clone())),
        "changes" | "resets" if window.len() > values.len() => return Err(Refusal::Unknown),
        "changes" => {
            let differ = |a: f64, b: f64| a != b && !(a.is_nan() && b.is_nan());
            Some(values.windows(2).filter(|pair| differ(pair[0], pair[1])).count() as f64)
        }
        "resets" => Some(values.windows(2).filter(|pair| pair[1] < pair[0]).count() as f64),
        "rate" | "increase" | "delta" | "sum_over_time" | "avg_over_time" if is_mixed => None,
        "rate" | "increase" | "delta" | "sum_over_time" | "avg_over_time" | "irate" | "idelta"
            if window.len() > values.len() =>
        {
            return Err(Refusal::Unknown);
        }
        _ if only_histograms => None,
        "sum_over_time" => Some(sum),
        "avg_over_time" => Some(sum / values.len() as f64),
        "max_over_time" => Some(best(&values, |a, b| a > b)),
        "min_over_time" => Some(best(&values, |a, b| a < b)),
        "stdvar_over_time" => Some(variance(&values)),
        "stddev_over_time" => Some(variance(&values).sqrt()),
        "mad_over_time" if values.iter().any(|value| value.is_nan()) => Some(f64::NAN),
        "mad_over_time" => {
            let median = quantile(0.5, &values);
            let away: Vec<f64> = values.iter().map(|value| (value - median).abs()).collect();
            Some(quantile(0.5, &away))
        }
        "ts_of_max_over_time" => {
            let best = best(&values, |a, b| a > b);
            let same = |value: f64| value == best || (value.is_nan() && best.is_nan());
            floats.iter().rfind(|(_, value)| same(*value)).map(|(at, _)| seconds(*at))
        }
        "irate" | "idelta" => last_two(name, &floats),
        "rate" => extrapolated(window, &floats, true, true),
        "increase" => extrapolated(window, &floats, true, false),
        "delta" => extrapolated(window, &floats, false, false),
        "deriv" => slope(&floats),
        _ => return Err(Refusal::Unknown),
    };
    Ok(value.map(Value::Float))
}

fn best(values: &[f64], is_better: fn(f64, f64) -> bool) -> f64 {
    let numbers = values.iter().copied().filter(|value| !value.is_nan());
    numbers.reduce(|a, b| if is_better(b, a) { b } else { a }).unwrap_or(f64::NAN)
}

fn last_two(name: &str, floats: &[(i64, f64)]) -> Option<f64> {
    let [.., (time_a, a), (time_b, b)] = floats else { return None };
    if name == "idelta" {
        return Some(b - a);
    }
    let change = if b < a { *b } else { b - a };
    Some(change / ((time_b - time_a) as f64 / 1000.0))
}

fn extrapolated(
    window: &Window,
    floats: &[(i64, f64)],
    is_counter: bool,
    is_rate: bool,
) -> Option<f64> {
    let [(first_at, first), .., (last_at, last)] = floats else { return None };
    let mut increase = last - first;
    if is_counter {
        for pair in floats.windows(2) {
            if pair[1].1 < pair[0].1 {
                increase += pair[0].1;
            }
        }
    }
    let sampled = (last_at - first_at) as f64 / 1000.0;
    let between = sampled / (floats.len() - 1) as f64;
    let reach = |distance: f64| if distance >= between * 1.1 { between / 2.0 } else { distance };
    let mut before = reach((first_at - window.start) as f64 / 1000.0);
    let after = reach((window.end - last_at) as f64 / 1000.0);
    if is_counter && increase > 0.0 && *first >= 0.0 {
        before = before.min(sampled * (first / increase));
    }
    let whole = increase * ((sampled + before + after) / sampled);
    let seconds = (window.end - window.start) as f64 / 1000.0;
    Some(if is_rate { whole / seconds } else { whole })
}

/// The slope of the least-squares line, per second.
fn slope(floats: &[(i64, f64)]) -> Option<f64> {
    let [(origin, first), _, ..] = floats else { return None };
    if floats.iter().all(|(_, value)| value == first) {
        return Some(if first.is_infinite() { f64::NAN } else { 0.0 });
    }
    let points: Vec<(f64, f64)> =
        floats.iter().map(|(at, value)| ((at - origin) as f64 / 1000.0, *value)).collect();
    let count = points.len() as f64;
    let mean_x = points.iter().map(|(x, _)| x).sum::<f64>() / count;
    let mean_y = points.iter().map(|(_, y)| y).sum::<f64>() / count;
    let both: f64 = points.iter().map(|(x, y)| (x - mean_x) * (y - mean_y)).sum();
    let alone: f64 = points.iter().map(|(x, _)| (x - mean_x) * (x - mean_x)).sum();
    Some(both / alone)
}
