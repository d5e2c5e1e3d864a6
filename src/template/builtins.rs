//! The functions of Go's template language itself.

use std::sync::Arc;

use super::BYTES_MAX;
use super::functions::{arg, text};
use super::number::is_printable;
use super::print;
use super::value::Value;

type Outcome = Result<Value, String>;

/// A text that is not too long.
pub(super) fn bounded(text: String) -> Outcome {
    if text.len() > BYTES_MAX {
        return Err(format!("the text is longer than {BYTES_MAX} bytes"));
    }
    Ok(Value::Text(Arc::from(text)))
}

pub(super) fn printf(of: &[Value]) -> Outcome {
    let values = of.get(1..).unwrap_or_default();
    bounded(print::printf(&text(arg(of, 0)), values, BYTES_MAX)?)
}

/// Arguments as one text.
pub(super) fn joined(of: &[Value]) -> String {
    print::print(of)
}

pub(super) fn negated(value: &Value) -> Value {
    Value::Bool(!value.is_true())
}

/// Whether the first argument equals one of the others.
pub(super) fn equal(of: &[Value]) -> Outcome {
    let Some((first, others)) = of.split_first().filter(|(_, others)| !others.is_empty()) else {
        return Err("missing argument for comparison".to_owned());
    };
    for other in others {
        let same = match (first, other) {
            (Value::Bool(a), Value::Bool(b)) => a == b,
            (Value::Float(a), Value::Float(b)) => a == b,
            (Value::Text(a), Value::Text(b)) => a == b,
            (a, b) if whole(a).is_some() && whole(b).is_some() => whole(a) == whole(b),
            (Value::Nil, b) => matches!(b, Value::Nil),
            (_, Value::Nil) => false,
            (Value::Sample(a), Value::Sample(b)) => Arc::ptr_eq(a, b),
            (Value::Time(a), Value::Time(b)) => a == b,
            (a, b) if is_basic(a) || is_basic(b) => return Err(incompatible(a, b)),
            (a, b) => {
                let (shown, name) = (a.show(), a.type_name());
                if name == b.type_name() {
                    return Err(format!("non-comparable type {shown}: {name}"));
                }
                let other = b.type_name();
                let text = format!("non-comparable types {shown}: {name}, {other}: {}", b.show());
                return Err(text);
            }
        };
        if same {
            return Ok(Value::Bool(true));
        }
    }
    Ok(Value::Bool(false))
}

fn whole(value: &Value) -> Option<i64> {
    match value {
        Value::Int(number) | Value::Named(_, number, _) => Some(*number),
        _ => None,
    }
}

fn is_basic(value: &Value) -> bool {
    matches!(
        value,
        Value::Bool(_) | Value::Int(_) | Value::Float(_) | Value::Text(_) | Value::Named(..)
    )
}

fn incompatible(a: &Value, b: &Value) -> String {
    format!("incompatible types for comparison: {} and {}", a.type_name(), b.type_name())
}

pub(super) fn less(of: &[Value]) -> Result<bool, String> {
    match (arg(of, 0), arg(of, 1)) {
        (Value::Float(a), Value::Float(b)) => Ok(a < b),
        (Value::Text(a), Value::Text(b)) => Ok(a < b),
        (Value::Bool(_), Value::Bool(_)) => Err("invalid type for comparison".to_owned()),
        (a, b) => match (whole(a), whole(b)) {
            (Some(a), Some(b)) => Ok(a < b),
            _ if is_basic(a) && is_basic(b) => Err(incompatible(a, b)),
            _ => Err("invalid type for comparison".to_owned()),
        },
    }
}

pub(super) fn at_most(of: &[Value]) -> Result<bool, String> {
    Ok(less(of)? || equal(of)?.is_true())
}

pub(super) fn length(of: &[Value]) -> Outcome {
    let length = match arg(of, 0) {
        Value::Text(text) => text.len(),
        Value::Labels(labels) => labels.len(),
        Value::Args(args) => args.len(),
        Value::Vector(samples) => samples.len(),
        Value::Nil => return Err("reflect: call of reflect.Value.Type on zero Value".to_owned()),
        Value::Sample(_) => return Err("len of type template.sample".to_owned()),
        other => return Err(format!("len of type {}", other.type_name())),
    };
    Ok(Value::Int(length as i64))
}

/// A place in a list of this length, its end included.
fn place(index: &Value, length: usize) -> Result<usize, String> {
    let index = match index {
        Value::Nil => return Err("cannot index slice/array with nil".to_owned()),
        other => whole(other)
            .ok_or_else(|| format!("cannot index slice/array with type {}", other.type_name()))?,
    };
    let inside = usize::try_from(index).ok().filter(|place| *place <= length);
    inside.ok_or_else(|| format!("index out of range: {index}"))
}

pub(super) fn index(of: &[Value]) -> Outcome {
    let Some((item, indexes)) = of.split_first() else { return Ok(Value::Nil) };
    let mut item = item.clone();
    if matches!(item, Value::Nil) {
        return Err("index of untyped nil".to_owned());
    }
    for index in indexes {
        item = match (&item, index) {
            (Value::Text(text), index) => {
                let byte = text.as_bytes().get(place(index, text.len())?);
                let byte = byte.ok_or("reflect: string index out of range")?;
                Value::Int(i64::from(*byte))
            }
            (Value::Vector(samples), index) => {
                let sample = samples.get(place(index, samples.len())?);
                Value::Sample(Arc::clone(sample.ok_or("reflect: slice index out of range")?))
            }
            (Value::Labels(labels), Value::Text(name)) => {
                Value::text(labels.get(name).unwrap_or_default())
            }
            (Value::Args(args), Value::Text(name)) => {
                args.get(&**name).cloned().unwrap_or(Value::Nil)
            }
            (Value::Labels(_) | Value::Args(_), Value::Nil) => {
                return Err("value is nil; should be of type string".to_owned());
            }
            (Value::Labels(_) | Value::Args(_), other) => {
                let name = other.type_name();
                return Err(format!("value has type {name}; should be string"));
            }
            (Value::Nil, _) => return Err("index of nil pointer".to_owned()),
            (other, _) => {
                let name = other.type_name().trim_start_matches('*');
                return Err(format!("can't index item of type {name}"));
            }
        };
    }
    Ok(item)
}

pub(super) fn slice(of: &[Value]) -> Outcome {
    let Some((item, indexes)) = of.split_first() else { return Ok(Value::Nil) };
    let length = match item {
        Value::Nil => return Err("slice of untyped nil".to_owned()),
        Value::Text(text) => text.len(),
        Value::Vector(samples) => samples.len(),
        other => return Err(format!("can't slice item of type {}", other.type_name())),
    };
    if indexes.len() > 3 {
        return Err(format!("too many slice indexes: {}", indexes.len()));
    }
    if indexes.len() == 3 && matches!(item, Value::Text(_)) {
        return Err("cannot 3-index slice a string".to_owned());
    }
    let places: Result<Vec<usize>, String> =
        indexes.iter().map(|index| place(index, length)).collect();
    let places = places?;
    let begin = places.first().copied().unwrap_or(0);
    let end = places.get(1).copied().unwrap_or(length);
    let most = places.get(2).copied().unwrap_or(length);
    for (low, high) in [(begin, end), (end, most)] {
        if low > high {
            return Err(format!("invalid slice index: {low} > {high}"));
        }
    }
    Ok(match item {
        Value::Text(text) => {
            let bytes = text.as_bytes().get(begin..end).unwrap_or_default();
            Value::text(String::from_utf8_lossy(bytes))
        }
        Value::Vector(samples) => Value::Vector(samples.get(begin..end).unwrap_or_default().into()),
        _ => Value::Nil,
    })
}

/// No value is a function.
pub(super) fn call(of: &[Value]) -> Outcome {
    match arg(of, 0) {
        Value::Nil => Err("call of nil".to_owned()),
        other => Err(format!("non-function of type {}", other.type_name())),
    }
}

pub(super) fn html(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '\0' => out.push(char::REPLACEMENT_CHARACTER),
            '"' => out.push_str("&#34;"),
            '\'' => out.push_str("&#39;"),
            '&' => out.push_str("&amp;"),
            '<' => out.push_str("&lt;"),
            '>' => out.push_str("&gt;"),
            c => out.push(c),
        }
    }
    out
}

/// `\u003C` for `<`.
fn push_unicode(out: &mut String, c: char) {
    use std::fmt::Write as _;
    // Writing to a text cannot fail.
    let _ = write!(out, "\\u{:04X}", c as u32);
}

/// `%3C` for `<`.
fn push_percent(out: &mut String, byte: u8) {
    use std::fmt::Write as _;
    // Writing to a text cannot fail.
    let _ = write!(out, "%{byte:02X}");
}

pub(super) fn js(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '\\' => out.push_str("\\\\"),
            '\'' => out.push_str("\\'"),
            '"' => out.push_str("\\\""),
            '<' | '>' | '&' | '=' => push_unicode(&mut out, c),
            c if is_printable(c) => out.push(c),
            c => push_unicode(&mut out, c),
        }
    }
    out
}

/// A part of a URL's query; a blank becomes `+`.
pub(super) fn query_escape(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for byte in text.bytes() {
        match byte {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'_' | b'.' | b'~' => {
                out.push(char::from(byte));
            }
            b' ' => out.push('+'),
            byte => push_percent(&mut out, byte),
        }
    }
    out
}
