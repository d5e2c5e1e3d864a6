//! The language evaluated step by step, as plainly as it can be said: every step looks at all samples
//! anew, nothing is shared, nothing is compensated. What it does not know, it says so.

use std::collections::BTreeMap;

use stint_model::{Labels, Matcher, Span, Value, is_stale};
use stint_promql::parse::DurationContext;
use stint_promql::parse::ast::{
    Aggregate, AggregateOp, At, Binary, BinaryOp, Call, Cardinality, Duration, Expr, VectorSelector,
};

use crate::Data;
use crate::naive_windows::{Window, range_function};

/// Why there is no answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Refusal {
    /// The query is wrong.
    Error,
    /// This evaluator does not know that.
    Unknown,
}

use Refusal::{Error, Unknown};

/// One sample of an instant vector.
pub(crate) type Element = (Labels, Value);
type Vector = Vec<Element>;
type Answer<T> = Result<T, Refusal>;

/// One query.
pub(crate) struct Naive<'a> {
    pub(crate) data: &'a Data,
    pub(crate) lookback: i64,
    /// First time, last time and step of the query.
    pub(crate) query: (i64, i64, i64),
}

impl Naive<'_> {
    /// The elements of a vector, or the number of a scalar without labels.
    pub(crate) fn eval(&self, expr: &Expr, time: i64) -> Answer<Vector> {
        match expr {
            Expr::Number(number) => Ok(vec![scalar(number.value)]),
            Expr::Paren(paren) => self.eval(&paren.expr, time),
            Expr::Unary(unary) => {
                let inner = self.eval(&unary.expr, time)?;
                if !unary.negative {
                    return Ok(inner);
                }
                unique(map(inner, |value| -value)?)
            }
            Expr::VectorSelector(selector) => self.instant(selector, time, |_, value| value),
            Expr::Call(call) => self.call(call, time),
            Expr::Aggregate(aggregate) => self.aggregate(aggregate, time),
            Expr::Binary(binary) => self.binary(binary, time),
            Expr::String(_) | Expr::MatrixSelector(_) | Expr::Subquery(_) => Err(Unknown),
        }
    }

    fn reference(&self, offset: &Duration, at: Option<At>, time: i64) -> i64 {
        let time = match at {
            Some(At::Time(at)) => at.0,
            Some(At::Start) => self.query.0,
            Some(At::End) => self.query.1,
            None => time,
        };
        let context =
            DurationContext { step: Span(self.query.2), range: Span(self.query.1 - self.query.0) };
        time - offset.resolve_signed(context).expect("durations are plain").0
    }

    fn matching<'s>(
        &'s self,
        matchers: &'s [Matcher],
    ) -> impl Iterator<Item = (&'s Labels, Vec<(i64, Value)>)> {
        self.data
            .iter()
            .filter(|(labels, _)| {
                matchers
                    .iter()
                    .all(|matcher| matcher.matches(labels.get(matcher.name()).unwrap_or("")))
            })
            .map(|(labels, samples)| {
                (labels, samples.iter().map(|s| (s.at.0, s.value.clone())).collect())
            })
    }

    fn instant(
        &self,
        selector: &VectorSelector,
        time: i64,
        take: impl Fn(i64, Value) -> Value,
    ) -> Answer<Vector> {
        if selector.smoothed || selector.anchored {
            return Err(Unknown);
        }
        let end = self.reference(&selector.offset, selector.at, time);
        let newest = self.matching(&selector.matchers).filter_map(|(labels, samples)| {
            let inside = |at: i64| at > end - self.lookback && at <= end;
            let (at, value) = samples.into_iter().rfind(|(at, _)| inside(*at))?;
            (!is_marker(&value)).then(|| (labels.clone(), take(at, value)))
        });
        Ok(newest.collect())
    }

    /// The windows of a range vector.
    fn windows(&self, expr: &Expr, time: i64) -> Answer<Vec<(Labels, Window)>> {
        let context =
            DurationContext { step: Span(self.query.2), range: Span(self.query.1 - self.query.0) };
        let (series, start, end) = match expr {
            Expr::Paren(paren) => return self.windows(&paren.expr, time),
            Expr::MatrixSelector(matrix) => {
                let selector = &matrix.selector;
                if selector.smoothed || selector.anchored {
                    return Err(Unknown);
                }
                let end = self.reference(&selector.offset, selector.at, time);
                let start =
                    end - matrix.range.resolve_positive(context).expect("durations are plain").0;
                let series = self.matching(&selector.matchers);
                (series.map(|(labels, samples)| (labels.clone(), samples)).collect(), start, end)
            }
            Expr::Subquery(subquery) => {
                let end = self.reference(&subquery.offset, subquery.at, time);
                let start =
                    end - subquery.range.resolve_positive(context).expect("durations are plain").0;
                let step = subquery.step.as_ref().ok_or(Unknown)?;
                let step = step.resolve_positive(context).expect("durations are plain").0;
                let mut series: BTreeMap<Labels, Vec<(i64, Value)>> = BTreeMap::new();
                for at in (start + 1..=end).filter(|at| at.rem_euclid(step) == 0) {
                    for (labels, value) in self.eval(&subquery.expr, at)? {
                        series.entry(labels).or_default().push((at, value));
                    }
                }
                (series.into_iter().collect::<Vec<_>>(), start, end)
            }
            _ => return Err(Unknown),
        };
        let mut windows = Vec::new();
        for (labels, mut samples) in series {
            samples.retain(|(at, value)| *at > start && *at <= end && !is_marker(value));
            windows.push((labels, Window::new(samples, start, end)));
        }
        Ok(windows)
    }

    fn call(&self, call: &Call, time: i64) -> Answer<Vector> {
        let name = call.function.name;
        let arg = |at: usize| call.args.get(at).ok_or(Unknown);
        match name {
            "time" => Ok(vec![scalar(time as f64 / 1000.0)]),
            "vector" => self.eval(arg(0)?, time),
            "scalar" => {
                let mut floats = self.eval(arg(0)?, time)?.into_iter().filter_map(|(_, value)| {
                    if let Value::Float(value) = value { Some(value) } else { None }
                });
                let first = floats.next();
                let only = if floats.next().is_none() { first } else { None };
                Ok(vec![scalar(only.unwrap_or(f64::NAN))])
            }
            "abs" => unique(map(floats(self.eval(arg(0)?, time)?), f64::abs)?),
            "sgn" => unique(map(floats(self.eval(arg(0)?, time)?), |value| {
                if value > 0.0 {
                    1.0
                } else if value < 0.0 {
                    -1.0
                } else {
                    value
                }
            })?),
            "clamp_max" => {
                let max = self.scalar(arg(1)?, time)?;
                unique(map(floats(self.eval(arg(0)?, time)?), |value| {
                    if value > max { max } else { value }
                })?)
            }
            "timestamp" => {
                let seconds = |ms: i64| Value::Float(ms as f64 / 1000.0);
                let times = match arg(0)?.unparenthesized() {
                    Expr::VectorSelector(selector) => {
                        self.instant(selector, time, |at, _| seconds(at))?
                    }
                    inner => {
                        let all = self.eval(inner, time)?.into_iter();
                        all.map(|(labels, _)| (labels, seconds(time))).collect()
                    }
                };
                unique(
                    times.into_iter().map(|(labels, value)| (nameless(&labels), value)).collect(),
                )
            }
            "histogram_count" => {
                let counts = self.eval(arg(0)?, time)?.into_iter().filter_map(|(labels, value)| {
                    let Value::Histogram(histogram) = value else { return None };
                    Some((nameless(&labels), Value::Float(histogram.to_float().count)))
                });
                unique(counts.collect())
            }
            "absent" | "absent_over_time" => {
                let inner = arg(0)?;
                let found = if name == "absent" {
                    !self.eval(inner, time)?.is_empty()
                } else {
                    self.windows(inner, time)?.iter().any(|(_, window)| window.len() > 0)
                };
                if found { Ok(Vec::new()) } else { Ok(vec![(absent_labels(inner), one())]) }
            }
            _ => self.over_windows(call, time),
        }
    }

    fn over_windows(&self, call: &Call, time: i64) -> Answer<Vector> {
        let [matrix] = call.args.as_slice() else { return Err(Unknown) };
        let name = call.function.name;
        let mut results = Vec::new();
        for (labels, window) in self.windows(matrix, time)? {
            if window.len() == 0 {
                continue;
            }
            let keeps_name = matches!(name, "last_over_time" | "first_over_time");
            let labels = if keeps_name { labels } else { nameless(&labels) };
            if let Some(value) = range_function(name, &window)? {
                results.push((labels, value));
            }
        }
        unique(results)
    }

    fn scalar(&self, expr: &Expr, time: i64) -> Answer<f64> {
        match self.eval(expr, time)?.as_slice() {
            [(_, Value::Float(value))] => Ok(*value),
            _ => Err(Unknown),
        }
    }

    fn aggregate(&self, aggregate: &Aggregate, time: i64) -> Answer<Vector> {
        let mut groups: BTreeMap<Labels, Vec<Value>> = BTreeMap::new();
        let named = |name: &str| aggregate.grouping.iter().any(|label| label == name);
        for (labels, value) in self.eval(&aggregate.expr, time)? {
            let mut labels = if aggregate.without {
                nameless(&labels.retain(|name| !named(name)))
            } else {
                labels.retain(named)
            };
            if aggregate.op == AggregateOp::CountValues {
                let Some(Expr::String(label)) = &aggregate.param else { return Err(Unknown) };
                let Value::Float(value) = value else { return Err(Unknown) };
                let text = if value.is_infinite() {
                    if value > 0.0 { "+Inf".to_owned() } else { "-Inf".to_owned() }
                } else {
                    value.to_string()
                };
                labels = labels.to_builder().set(&label.text(), &text).build();
            }
            groups.entry(labels).or_default().push(value);
        }
        let param = match (&aggregate.param, aggregate.op) {
            (Some(param), AggregateOp::Quantile) => self.scalar(param, time)?,
            _ => f64::NAN,
        };
        let mut results = Vec::new();
        for (labels, values) in groups {
            if let Some(value) = fold(aggregate.op, &values, param)? {
                results.push((labels, Value::Float(value)));
            }
        }
        Ok(results)
    }

    fn binary(&self, binary: &Binary, time: i64) -> Answer<Vector> {
        let (lhs, rhs) = (self.eval(&binary.lhs, time)?, self.eval(&binary.rhs, time)?);
        let is_scalar = |expr: &Expr| expr.value_type().as_str() == "scalar";
        match (is_scalar(&binary.lhs), is_scalar(&binary.rhs)) {
            (true, true) => {
                let (a, b) = (self.scalar(&binary.lhs, time)?, self.scalar(&binary.rhs, time)?);
                let value = operate(binary.op, a, b)?;
                Ok(vec![scalar(value)])
            }
            (false, true) => with_scalar(binary, lhs, self.scalar(&binary.rhs, time)?, false),
            (true, false) => with_scalar(binary, rhs, self.scalar(&binary.lhs, time)?, true),
            (false, false) if binary.op.is_set() => Ok(set_operation(binary, lhs, rhs)),
            (false, false) => join(binary, lhs, rhs),
        }
    }
}

fn scalar(value: f64) -> Element {
    (Labels::default(), Value::Float(value))
}

fn one() -> Value {
    Value::Float(1.0)
}

fn is_marker(value: &Value) -> bool {
    match value {
        Value::Stale => true,
        Value::Float(value) => is_stale(*value),
        Value::Histogram(histogram) => is_stale(histogram.to_float().sum),
    }
}

fn nameless(labels: &Labels) -> Labels {
    labels.without_metric_name()
}

fn floats(vector: Vector) -> Vector {
    vector.into_iter().filter(|(_, value)| matches!(value, Value::Float(_))).collect()
}

/// Applies a function to floats and drops the names.
fn map(vector: Vector, function: impl Fn(f64) -> f64) -> Answer<Vector> {
    let mapped = vector.into_iter().map(|(labels, value)| match value {
        Value::Float(value) => Ok((nameless(&labels), Value::Float(function(value)))),
        _ => Err(Unknown),
    });
    mapped.collect()
}

/// No labels may be there twice.
fn unique(vector: Vector) -> Answer<Vector> {
    let mut seen: Vec<&Labels> = vector.iter().map(|(labels, _)| labels).collect();
    seen.sort();
    if seen.windows(2).any(|pair| pair[0] == pair[1]) {
        return Err(Error);
    }
    Ok(vector)
}

/// What an absent series would be called, as far as the selector says.
fn absent_labels(expr: &Expr) -> Labels {
    let matchers = match expr.unparenthesized() {
        Expr::VectorSelector(selector) => &selector.matchers,
        Expr::MatrixSelector(matrix) => &matrix.selector.matchers,
        _ => return Labels::default(),
    };
    let equal = matchers.iter().filter(|matcher| {
        matcher.op() == stint_model::MatchOp::Equal && matcher.name() != "__name__"
    });
    Labels::from_pairs(equal.map(|matcher| (matcher.name(), matcher.value())))
}

fn fold(op: AggregateOp, values: &[Value], param: f64) -> Answer<Option<f64>> {
    let floats: Vec<f64> = values
        .iter()
        .filter_map(|value| if let Value::Float(value) = value { Some(*value) } else { None })
        .collect();
    let has_histograms = floats.len() < values.len();
    let count = floats.len() as f64;
    let counted = values.len() as f64;
    match op {
        AggregateOp::Count | AggregateOp::CountValues => return Ok(Some(counted)),
        AggregateOp::Group => return Ok(Some(1.0)),
        AggregateOp::Sum | AggregateOp::Avg if has_histograms => {
            // Nothing comes of a mix; of histograms alone something does that is not said here.
            return if floats.is_empty() { Err(Unknown) } else { Ok(None) };
        }
        AggregateOp::LimitRatio
        | AggregateOp::Limitk
        | AggregateOp::Topk
        | AggregateOp::Bottomk => return Err(Unknown),
        _ if floats.is_empty() => return Ok(None),
        _ => {}
    }
    let sum: f64 = floats.iter().sum();
    let best = |is_better: fn(f64, f64) -> bool| {
        let numbers = floats.iter().copied().filter(|value| !value.is_nan());
        numbers.reduce(|a, b| if is_better(b, a) { b } else { a }).unwrap_or(f64::NAN)
    };
    Ok(Some(match op {
        AggregateOp::Sum => sum,
        AggregateOp::Avg => sum / count,
        AggregateOp::Max => best(|a, b| a > b),
        AggregateOp::Min => best(|a, b| a < b),
        AggregateOp::Stddev => variance(&floats).sqrt(),
        AggregateOp::Stdvar => variance(&floats),
        AggregateOp::Quantile => quantile(param, &floats),
        _ => return Err(Unknown),
    }))
}

/// The population's variance.
pub(crate) fn variance(values: &[f64]) -> f64 {
    let count = values.len() as f64;
    let mean = values.iter().sum::<f64>() / count;
    values.iter().map(|value| (value - mean) * (value - mean)).sum::<f64>() / count
}

/// Between the two values nearest to the rank; no number is the smallest.
pub(crate) fn quantile(quantile: f64, values: &[f64]) -> f64 {
    let mut values = values.to_vec();
    values.sort_by(|a, b| {
        (!a.is_nan()).cmp(&!b.is_nan()).then(a.partial_cmp(b).unwrap_or(std::cmp::Ordering::Equal))
    });
    let rank = quantile * (values.len() - 1) as f64;
    let (below, above) = (rank.floor() as usize, (rank.floor() as usize + 1).min(values.len() - 1));
    let weight = rank - rank.floor();
    values[below] * (1.0 - weight) + values[above] * weight
}

fn operate(op: BinaryOp, a: f64, b: f64) -> Answer<f64> {
    let truth = |holds: bool| if holds { 1.0 } else { 0.0 };
    Ok(match op {
        BinaryOp::Add => a + b,
        BinaryOp::Sub => a - b,
        BinaryOp::Mul => a * b,
        BinaryOp::Div => a / b,
        BinaryOp::Mod => a % b,
        BinaryOp::Eq => truth(a == b),
        BinaryOp::Ne => truth(a != b),
        BinaryOp::Gt => truth(a > b),
        BinaryOp::Lt => truth(a < b),
        BinaryOp::Ge => truth(a >= b),
        BinaryOp::Le => truth(a <= b),
        _ => return Err(Unknown),
    })
}

/// The value of a pair: nothing where a comparison does not hold. `kept` is what a comparison keeps.
fn pair(binary: &Binary, a: f64, b: f64, kept: f64) -> Answer<Option<f64>> {
    let value = operate(binary.op, a, b)?;
    if !binary.op.is_comparison() || binary.return_bool {
        return Ok(Some(value));
    }
    Ok((value == 1.0).then_some(kept))
}

fn drops_name(binary: &Binary) -> bool {
    binary.return_bool || !binary.op.is_comparison()
}

fn with_scalar(binary: &Binary, vector: Vector, number: f64, swapped: bool) -> Answer<Vector> {
    let mut results = Vec::new();
    for (labels, value) in vector {
        let Value::Float(value) = value else { return Err(Unknown) };
        let (a, b) = if swapped { (number, value) } else { (value, number) };
        let labels = if drops_name(binary) { nameless(&labels) } else { labels };
        if let Some(value) = pair(binary, a, b, value)? {
            results.push((labels, Value::Float(value)));
        }
    }
    unique(results)
}

/// The labels by which an element is matched.
fn signature(binary: &Binary, labels: &Labels) -> Labels {
    let matching = binary.matching.as_ref();
    let named =
        |name: &str| matching.is_some_and(|matching| matching.labels.iter().any(|l| l == name));
    if matching.is_some_and(|matching| matching.on) {
        labels.retain(named)
    } else {
        nameless(&labels.retain(|name| !named(name)))
    }
}

fn set_operation(binary: &Binary, lhs: Vector, rhs: Vector) -> Vector {
    let signatures = |vector: &Vector| -> Vec<Labels> {
        vector.iter().map(|(labels, _)| signature(binary, labels)).collect()
    };
    let (of_lhs, of_rhs) = (signatures(&lhs), signatures(&rhs));
    let is_in = |(labels, _): &Element, all: &[Labels]| all.contains(&signature(binary, labels));
    match binary.op {
        BinaryOp::And => lhs.into_iter().filter(|element| is_in(element, &of_rhs)).collect(),
        BinaryOp::Unless => lhs.into_iter().filter(|element| !is_in(element, &of_rhs)).collect(),
        _ => {
            let others = rhs.into_iter().filter(|element| !is_in(element, &of_lhs));
            lhs.into_iter().chain(others).collect()
        }
    }
}

fn join(binary: &Binary, lhs: Vector, rhs: Vector) -> Answer<Vector> {
    let matching = binary.matching.as_ref().ok_or(Unknown)?;
    if matching.fill_lhs.is_some() || matching.fill_rhs.is_some() {
        return Err(Unknown);
    }
    if lhs.is_empty() || rhs.is_empty() {
        return Ok(Vec::new());
    }
    let swapped = matching.card == Cardinality::OneToMany;
    let (many, one) = if swapped { (rhs, lhs) } else { (lhs, rhs) };
    let mut ones: BTreeMap<Labels, Element> = BTreeMap::new();
    for element in one {
        if ones.insert(signature(binary, &element.0), element).is_some() {
            return Err(Error);
        }
    }
    let is_one_to_one = matching.card == Cardinality::OneToOne;
    let mut matched: Vec<Labels> = Vec::new();
    let mut results = Vec::new();
    for (labels, value) in many {
        let signature = signature(binary, &labels);
        let Some((other_labels, other)) = ones.get(&signature) else { continue };
        if is_one_to_one && matched.contains(&signature) {
            return Err(Error);
        }
        matched.push(signature);
        let (Value::Float(value), Value::Float(other)) = (value, other) else {
            return Err(Unknown);
        };
        let (a, b) = if swapped { (*other, value) } else { (value, *other) };
        let Some(value) = pair(binary, a, b, a)? else { continue };
        let labels = result_labels(binary, &labels, other_labels);
        results.push((labels, Value::Float(value)));
    }
    unique(results)
}

fn result_labels(binary: &Binary, many: &Labels, one: &Labels) -> Labels {
    let Some(matching) = &binary.matching else { return many.clone() };
    let named = |name: &str| matching.labels.iter().any(|label| label == name);
    let mut labels = if drops_name(binary) { nameless(many) } else { many.clone() };
    if matching.card == Cardinality::OneToOne {
        labels = labels.retain(|name| named(name) == matching.on);
    }
    let mut builder = labels.to_builder();
    for name in &matching.include {
        builder.set(name, one.get(name).unwrap_or(""));
    }
    builder.build()
}
