//! Literals of native histograms: `{{schema:1 count:3 sum:5 buckets:[1 2]}}`.

use stint_model::histogram::{BucketSpan, FloatHistogram, ResetHint};

use super::scan::{Mistake, Scanner};
use crate::parse::literal::{quote, quote_char};

/// A histogram and whether it says something about counter resets.
pub(super) fn literal(scanner: &mut Scanner<'_>) -> Result<(FloatHistogram, bool), Mistake> {
    let mut histogram = FloatHistogram::default();
    let mut seen: Vec<&str> = Vec::new();
    let (mut offset, mut negative_offset) = (0, 0);
    if !scanner.take("{{") {
        return Err(scanner.unexpected("series values", "\"{{\""));
    }
    loop {
        scanner.skip_space();
        if scanner.take("}}") {
            break;
        }
        let before = scanner.clone();
        let key = scanner.take_while(|byte| byte.is_ascii_alphabetic() || byte == b'_');
        if key.is_empty() {
            let shown = quote_char(scanner.rest().chars().next());
            let message = format!("histogram description incomplete unexpected: {shown}");
            return Err(scanner.mistake(&message));
        }
        if !is_key(key) {
            let message = format!("bad histogram descriptor found: {}", quote(key));
            return Err(before.mistake(&message));
        }
        if !scanner.take(":") {
            return Err(scanner.mistake("missing `:` for histogram descriptor"));
        }
        if seen.contains(&key) {
            let message = format!("duplicate key {} in histogram", quote(key));
            return Err(scanner.mistake(&message));
        }
        seen.push(key);
        match key {
            "schema" => histogram.schema = int(scanner)?,
            "sum" => histogram.sum = number(scanner)?,
            "count" => histogram.count = number(scanner)?,
            "z_bucket" => histogram.zero_count = number(scanner)?,
            "z_bucket_w" => histogram.zero_threshold = number(scanner)?,
            "custom_values" => histogram.custom_bounds = numbers(scanner)?,
            "buckets" => histogram.positive_buckets = numbers(scanner)?,
            "n_buckets" => histogram.negative_buckets = numbers(scanner)?,
            "offset" => offset = int(scanner)?,
            "n_offset" => negative_offset = int(scanner)?,
            _ => histogram.reset_hint = hint(scanner)?,
        }
    }
    histogram.positive_spans = spans(offset, histogram.positive_buckets.len());
    histogram.negative_spans = spans(negative_offset, histogram.negative_buckets.len());
    Ok((histogram, seen.contains(&"counter_reset_hint")))
}

fn is_key(word: &str) -> bool {
    matches!(
        word,
        "schema"
            | "sum"
            | "count"
            | "z_bucket"
            | "z_bucket_w"
            | "custom_values"
            | "buckets"
            | "n_buckets"
            | "offset"
            | "n_offset"
            | "counter_reset_hint"
    )
}

/// One run of buckets, none when there are no buckets.
fn spans(offset: i32, buckets: usize) -> Vec<BucketSpan> {
    match u32::try_from(buckets) {
        Ok(length @ 1..) => vec![BucketSpan { offset, length }],
        _ => Vec::new(),
    }
}

fn number(scanner: &mut Scanner<'_>) -> Result<f64, Mistake> {
    scanner.number("histogram description", "number")
}

fn int(scanner: &mut Scanner<'_>) -> Result<i32, Mistake> {
    let before = scanner.clone();
    let negative = scanner.take("-");
    let value = i64::try_from(scanner.whole()?).unwrap_or(i64::MAX);
    i32::try_from(if negative { -value } else { value })
        .map_err(|_| before.mistake("number in histogram description is out of range"))
}

fn numbers(scanner: &mut Scanner<'_>) -> Result<Vec<f64>, Mistake> {
    let mut numbers = Vec::new();
    if !scanner.take("[") {
        return Err(scanner.unexpected("histogram description", "\"[\""));
    }
    loop {
        scanner.skip_space();
        if scanner.take("]") {
            return Ok(numbers);
        }
        numbers.push(number(scanner)?);
    }
}

fn hint(scanner: &mut Scanner<'_>) -> Result<ResetHint, Mistake> {
    let before = scanner.clone();
    match scanner.take_while(|byte| byte.is_ascii_alphabetic() || byte == b'_') {
        "unknown" => Ok(ResetHint::Unknown),
        "reset" => Ok(ResetHint::Reset),
        "not_reset" => Ok(ResetHint::NotReset),
        "gauge" => Ok(ResetHint::Gauge),
        _ => Err(before.unexpected("histogram description", "counter reset hint")),
    }
}
