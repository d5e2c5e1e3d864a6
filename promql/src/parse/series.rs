//! Series descriptions, in which tests write down data: labels and a sequence of values.
//!
//! `up{job="node"} 1 0x3 _ stale 5+10x2 {{schema:1 count:3 buckets:[1 2]}}`

mod histogram;
mod scan;

use std::sync::Arc;

use stint_model::labels::{LabelsBuilder, METRIC_NAME};
use stint_model::{Histogram, Labels, Span, Value};

use super::ast::PosRange;
use super::error::ParseErrors;
use super::grammar::{Parsed, Parser, Stop, is_metric_word};
use super::lexer::{Kind, Token};
use super::literal::unquote;
use super::{Options, check_length};
use scan::{Mistake, Scanner};

/// The most values that one description may stand for.
const VALUES_MAX: usize = 1_000_000;

/// A series and its values at equal distances.
#[derive(Clone, Debug, PartialEq)]
pub struct SeriesDescription {
    /// Which series.
    pub labels: Labels,
    /// Its values; one for each step.
    pub values: Vec<SequenceValue>,
}

/// What a description says about one point in time.
#[derive(Clone, Debug, PartialEq)]
pub struct SequenceValue {
    /// The value; `None` where there is no sample (`_`).
    pub value: Option<Value>,
    /// For histograms: whether the literal says something about counter resets.
    pub hint_given: bool,
}

impl SequenceValue {
    fn new(value: Option<Value>) -> Self {
        Self { value, hint_given: false }
    }
}

/// Reads a series description: a metric and, after a space, values.
///
/// # Errors
///
/// One mistake, with its place.
pub fn parse_series_description(text: &str) -> Result<SeriesDescription, ParseErrors> {
    let (labels, end) = metric(text)?;
    let mut scanner = Scanner::new(text, end);
    let mut values = Vec::new();
    sequence(&mut scanner, |scanner| item(scanner, &mut values))
        .map_err(|(pos, message)| ParseErrors::single(text, pos, &message))?;
    Ok(SeriesDescription { labels, values })
}

/// Reads the start times of a series: a metric with `@st` behind it and, after a space, lengths of
/// time relative to the samples (`-1m`, `-1m+10sx3`); `None` where there is none (`_`).
///
/// # Errors
///
/// One mistake, with its place.
pub fn parse_start_times(text: &str) -> Result<(Labels, Vec<Option<Span>>), ParseErrors> {
    let (labels, end) = metric(text)?;
    let mut scanner = Scanner::new(text, end);
    let mut starts = Vec::new();
    let result = if scanner.take("@st") {
        sequence(&mut scanner, |scanner| start_time(scanner, &mut starts))
    } else {
        Err(scanner.mistake("expected \"@st\" behind the metric"))
    };
    match result {
        Ok(()) => Ok((labels, starts)),
        Err((pos, message)) => Err(ParseErrors::single(text, pos, &message)),
    }
}

/// Reads a metric alone: `up{job="node"}`.
///
/// # Errors
///
/// All mistakes that could be told apart, at least one.
pub fn parse_metric(text: &str) -> Result<Labels, ParseErrors> {
    let (labels, end) = metric(text)?;
    let scanner = Scanner::new(text, end);
    if scanner.rest().trim().is_empty() {
        return Ok(labels);
    }
    let (pos, message) = scanner.mistake("unexpected text behind the metric");
    Err(ParseErrors::single(text, pos, &message))
}

/// The labels at the start of `text`, and where they end.
fn metric(text: &str) -> Result<(Labels, usize), ParseErrors> {
    let options = Options::default();
    check_length(text, &options)?;
    let mut parser = Parser::new(text, &options);
    let labels = metric_labels(&mut parser);
    let labels = parser.settle(labels);
    if let Some(errors) = parser.take_errors() {
        return Err(errors);
    }
    labels.ok_or_else(|| ParseErrors::single(text, PosRange::default(), "no metric found in input"))
}

fn metric_labels(parser: &mut Parser<'_>) -> Parsed<(Labels, usize)> {
    let mut labels = LabelsBuilder::default();
    let first = parser.peek_token();
    let mut end = first.start as usize;
    if is_metric_word(first.kind) {
        parser.bump();
        labels.set(METRIC_NAME, parser.token_text(first));
        end = first.end as usize;
        // Behind a space even a brace is a value.
        if parser.text.as_bytes().get(end) != Some(&b'{') {
            return Ok((labels.build(), end));
        }
    }
    if parser.peek() == Kind::LeftBrace {
        parser.bump();
        end = label_set(parser, &mut labels)? as usize;
    } else if end == first.start as usize {
        return Err(Stop::Unexpected);
    }
    Ok((labels.build(), end))
}

/// The inside of braces up to and with the right one, whose end is returned.
fn label_set(parser: &mut Parser<'_>, labels: &mut LabelsBuilder) -> Parsed<u32> {
    if parser.peek() == Kind::RightBrace {
        return Ok(parser.bump().end);
    }
    loop {
        if let Err(expected) = label(parser, labels) {
            parser.report("label set", expected);
            return Err(Stop::Abort);
        }
        match parser.peek() {
            Kind::RightBrace => return Ok(parser.bump().end),
            Kind::Comma => {
                parser.bump();
                if parser.peek() == Kind::RightBrace {
                    return Ok(parser.bump().end);
                }
            }
            _ => {
                parser.report("label set", "\",\" or \"}\"");
                return Err(Stop::Abort);
            }
        }
    }
}

fn label(parser: &mut Parser<'_>, labels: &mut LabelsBuilder) -> Result<(), &'static str> {
    let text = |parser: &Parser<'_>, token: Token| {
        String::from_utf8_lossy(&unquote(parser.token_text(token))).into_owned()
    };
    let name = parser.peek_token();
    let quoted = name.kind == Kind::String;
    if !quoted && name.kind != Kind::Identifier {
        return Err("identifier or \"}\"");
    }
    parser.bump();
    if parser.peek() != Kind::Equal {
        if quoted {
            labels.set(METRIC_NAME, &text(parser, name));
            return Ok(());
        }
        return Err("\"=\"");
    }
    parser.bump();
    let value = parser.peek_token();
    if value.kind != Kind::String {
        return Err("string");
    }
    parser.bump();
    let name = if quoted { text(parser, name) } else { parser.token_text(name).to_owned() };
    labels.set(&name, &text(parser, value));
    Ok(())
}

/// Items with spaces before them, up to the end.
fn sequence<'a>(
    scanner: &mut Scanner<'a>,
    mut item: impl FnMut(&mut Scanner<'a>) -> Result<(), Mistake>,
) -> Result<(), Mistake> {
    loop {
        let spaced = scanner.skip_space();
        if scanner.rest().is_empty() {
            return Ok(());
        }
        if !spaced {
            return Err(scanner.unexpected("series values", "a space"));
        }
        item(scanner)?;
    }
}

/// `x3` after an item: the number, if it is here.
fn repetition(scanner: &mut Scanner<'_>, already: usize) -> Result<Option<usize>, Mistake> {
    if !scanner.take("x") {
        return Ok(None);
    }
    let times = scanner.whole()?;
    match usize::try_from(times).ok().filter(|times| already.saturating_add(*times) < VALUES_MAX) {
        Some(times) => Ok(Some(times)),
        None => Err(scanner.mistake(&format!("a series has at most {VALUES_MAX} values"))),
    }
}

fn item(scanner: &mut Scanner<'_>, values: &mut Vec<SequenceValue>) -> Result<(), Mistake> {
    if scanner.take("_") {
        let times = repetition(scanner, values.len())?.unwrap_or(1);
        values.extend(std::iter::repeat_n(SequenceValue::new(None), times));
        return Ok(());
    }
    if scanner.rest().starts_with("{{") {
        return histograms(scanner, values);
    }
    if scanner.take("stale") {
        let times = repetition(scanner, values.len())?.unwrap_or(0);
        let value = SequenceValue::new(Some(Value::Stale));
        values.extend(std::iter::repeat_n(value, times + 1));
        return Ok(());
    }
    let mut value = scanner.number("series values", "number or \"stale\"")?;
    let step = match scanner.rest().as_bytes().first() {
        Some(b'+' | b'-') => Some(scanner.number("series values", "number")?),
        _ => None,
    };
    let times = repetition(scanner, values.len())?;
    if step.is_some() && times.is_none() {
        return Err(scanner.unexpected("series values", "\"x\" and how often to add"));
    }
    for _ in 0..=times.unwrap_or(0) {
        values.push(SequenceValue::new(Some(Value::Float(value))));
        value += step.unwrap_or(0.0);
    }
    Ok(())
}

fn histograms(scanner: &mut Scanner<'_>, values: &mut Vec<SequenceValue>) -> Result<(), Mistake> {
    let start = scanner.pos();
    let (base, hint_given) = histogram::literal(scanner)?;
    let negative = scanner.rest().starts_with("-{{");
    let step = if scanner.take("+") || scanner.take("-") {
        Some(histogram::literal(scanner)?.0)
    } else {
        None
    };
    let times = repetition(scanner, values.len())?;
    if step.is_some() && times.is_none() {
        return Err(scanner.unexpected("series values", "\"x\" and how often to add"));
    }
    let mut present = Arc::new(Histogram::Float(base));
    for at in 0..=times.unwrap_or(0) {
        if at > 0
            && let Some(step) = &step
        {
            let mut next = present.to_float();
            let failed = |cause: String| {
                let pos = PosRange::new(start, scanner.pos());
                (pos, format!("error combining histograms: {cause}"))
            };
            if next.schema > step.schema {
                let (to, from) = (next.schema, step.schema);
                return Err(failed(format!("cannot merge from schema {from} to {to}")));
            }
            let combined = if negative { next.sub(step) } else { next.add(step) };
            combined.map_err(|error| failed(error.to_string()))?;
            present = Arc::new(Histogram::Float(next));
        }
        let value = Some(Value::Histogram(Arc::clone(&present)));
        values.push(SequenceValue { value, hint_given });
    }
    Ok(())
}

fn start_time(scanner: &mut Scanner<'_>, starts: &mut Vec<Option<Span>>) -> Result<(), Mistake> {
    if scanner.take("_") {
        let times = repetition(scanner, starts.len())?.unwrap_or(1);
        starts.extend(std::iter::repeat_n(None, times));
        return Ok(());
    }
    let mut start = scanner.duration()?;
    let step = match scanner.rest().as_bytes().first() {
        Some(b'+' | b'-') => scanner.duration()?,
        _ => Span(0),
    };
    for _ in 0..=repetition(scanner, starts.len())?.unwrap_or(0) {
        starts.push(Some(start));
        start = Span(start.0.saturating_add(step.0));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use stint_model::histogram::{BucketSpan, FloatHistogram, ResetHint};

    use super::*;

    fn floats(text: &str) -> Vec<Option<f64>> {
        let described = parse_series_description(text).unwrap();
        let values = described.values.into_iter();
        values
            .map(|value| match value.value {
                None => None,
                Some(Value::Float(value)) => Some(value),
                Some(other) => panic!("{other:?}"),
            })
            .collect()
    }

    #[test]
    fn values_are_repeated_and_stepped() {
        let (a, none) = (Some, None);
        assert_eq!(floats("up 1 -2.5  1e3 Inf"), [a(1.0), a(-2.5), a(1e3), a(f64::INFINITY)]);
        assert_eq!(floats("up{} 1x2"), [a(1.0), a(1.0), a(1.0)]);
        assert_eq!(floats("up 1+2x2 1-2x1"), [a(1.0), a(3.0), a(5.0), a(1.0), a(-1.0)]);
        assert_eq!(floats("up _ _x2 0x1"), [none, none, none, a(0.0), a(0.0)]);
        assert_eq!(floats("up -1-1x1 5m"), [a(-1.0), a(-2.0), a(300.0)]);
        assert_eq!(floats("up"), []);
        assert!(floats("up NaN")[0].is_some_and(f64::is_nan));
    }

    #[test]
    fn stale_markers_are_values() {
        let described = parse_series_description("up stale").unwrap();
        assert_eq!(described.values, [SequenceValue::new(Some(Value::Stale))]);
    }

    #[test]
    fn labels_may_be_written_in_several_ways() {
        for text in
            [r#"up{job="node"} 1"#, r#"{__name__="up",job="node",} 1"#, r#"{"up","job"="node"} 1"#]
        {
            let described = parse_series_description(text).unwrap();
            assert_eq!(described.labels.to_string(), r#"{__name__="up", job="node"}"#);
        }
        assert_eq!(parse_metric("sum").unwrap().metric_name(), Some("sum"));
        assert!(parse_metric("up 1").is_err());
    }

    #[test]
    fn histograms_are_read_and_added_up() {
        let text = "h {{schema:1 count:3 sum:-5.5 buckets:[1 2] offset:-1 n_buckets:[4] \
                    n_offset:2 z_bucket:2 z_bucket_w:0.001 counter_reset_hint:gauge}}";
        let described = parse_series_description(text).unwrap();
        assert!(described.values[0].hint_given);
        let expected = FloatHistogram {
            reset_hint: ResetHint::Gauge,
            schema: 1,
            zero_threshold: 0.001,
            zero_count: 2.0,
            count: 3.0,
            sum: -5.5,
            positive_spans: vec![BucketSpan { offset: -1, length: 2 }],
            negative_spans: vec![BucketSpan { offset: 2, length: 1 }],
            positive_buckets: vec![1.0, 2.0],
            negative_buckets: vec![4.0],
            custom_bounds: vec![],
        };
        let value = Value::Histogram(Arc::new(Histogram::Float(expected)));
        assert_eq!(described.values[0].value, Some(value));

        let described =
            parse_series_description("h {{count:1 buckets:[1]}}+{{count:2 buckets:[2]}}x2 {{}}x1")
                .unwrap();
        let counts: Vec<f64> = described
            .values
            .iter()
            .map(|value| match &value.value {
                Some(Value::Histogram(histogram)) => histogram.to_float().count,
                other => panic!("{other:?}"),
            })
            .collect();
        assert_eq!(counts, [1.0, 3.0, 5.0, 0.0, 0.0]);
    }

    #[test]
    fn start_times_are_relative() {
        let (_, starts) = parse_start_times("x{a=\"b\"}@st _ -30s-1mx2 -1msx1 0ms").unwrap();
        let ms: Vec<_> = starts.into_iter().map(|start| start.map(Span::as_ms)).collect();
        assert_eq!(
            ms,
            [None, Some(-30_000), Some(-90_000), Some(-150_000), Some(-1), Some(-1), Some(0)]
        );
    }

    #[test]
    fn mistakes_are_found() {
        for (text, error) in [
            (
                "up 1 q",
                "1:6: parse error: unexpected \"q\" in series values, expected number or \"stale\"",
            ),
            ("up{a} 1", "1:5: parse error: unexpected \"}\" in label set, expected \"=\""),
            ("up 1x", "1:6: parse error: invalid repetition in series values: \"\""),
            ("up 1x9999999999", "1:16: parse error: a series has at most 1000000 values"),
            ("up {{foo:1}}", "1:6: parse error: bad histogram descriptor found: \"foo\""),
            ("up {{sum 1}}", "1:9: parse error: missing `:` for histogram descriptor"),
            ("up {{sum:1 sum:2}}", "1:16: parse error: duplicate key \"sum\" in histogram"),
            (
                "up {{sum:1",
                "1:11: parse error: histogram description incomplete unexpected: '\u{fffd}'",
            ),
            ("", "1:1: parse error: unexpected end of input"),
        ] {
            let found = parse_series_description(text).unwrap_err();
            assert_eq!(found.to_string(), error, "{text}");
        }
    }
}
