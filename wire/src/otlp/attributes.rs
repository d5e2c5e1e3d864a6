//! Attributes: names with values of any type, as text.

use std::borrow::Cow;
use std::fmt::Write as _;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Map, Value as Json};

use crate::proto::{DecodeError, Field, Reader};

/// How deep lists and maps in attributes may nest.
const DEPTH_MAX: usize = 32;
/// The most attributes that one resource, scope or data point may have: more than any store takes.
const ATTRIBUTES_MAX: usize = 512;

/// An attribute with its value as text.
pub(super) type Attribute<'a> = (&'a str, Cow<'a, str>);

/// Attributes that cannot be used; concerns only what they belong to.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(super) enum AttributeError {
    #[error("more than {ATTRIBUTES_MAX} attributes")]
    TooMany,
    #[error("the value of attribute {0:?} nests more than {DEPTH_MAX} deep")]
    TooDeep(String),
    #[error("an attribute is not valid UTF-8")]
    Utf8,
    /// Concerns the whole message.
    #[error(transparent)]
    Decode(DecodeError),
}

impl From<DecodeError> for AttributeError {
    fn from(error: DecodeError) -> Self {
        if error.is_local() { Self::Utf8 } else { Self::Decode(error) }
    }
}

/// Adds a `KeyValue` to `out`.
pub(super) fn read<'a>(
    message: &'a [u8],
    out: &mut Vec<Attribute<'a>>,
) -> Result<(), AttributeError> {
    if out.len() >= ATTRIBUTES_MAX {
        return Err(AttributeError::TooMany);
    }
    let (mut key, mut value) = ("", None);
    let mut reader = Reader::new(message);
    while let Some((number, field)) = reader.next()? {
        match number {
            1 => key = field.text("KeyValue", number)?,
            2 => value = Some(field.bytes("KeyValue", number)?),
            _ => {}
        }
    }
    let text = match value {
        Some(value) => text(value).map_err(|error| match error {
            AttributeError::TooDeep(_) => AttributeError::TooDeep(key.to_owned()),
            other => other,
        })?,
        None => Cow::Borrowed(""),
    };
    out.push((key, text));
    Ok(())
}

/// An `AnyValue` as the text of a label.
fn text(message: &[u8]) -> Result<Cow<'_, str>, AttributeError> {
    Ok(match last(message)? {
        None => Cow::Borrowed(""),
        Some((1, field)) => Cow::Borrowed(field.text("AnyValue", 1)?),
        Some((2, field)) => {
            Cow::Borrowed(if field.varint("AnyValue", 2)? == 0 { "false" } else { "true" })
        }
        Some((3, field)) => Cow::Owned((field.varint("AnyValue", 3)? as i64).to_string()),
        Some((4, field)) => Cow::Owned(double(field.double("AnyValue", 4)?)),
        Some((7, field)) => Cow::Owned(STANDARD.encode(field.bytes("AnyValue", 7)?)),
        Some(_) => Cow::Owned(json(message, 0)?.to_string()),
    })
}

/// The member of the `AnyValue` that counts: the last one.
fn last(message: &[u8]) -> Result<Option<(u32, Field<'_>)>, DecodeError> {
    let mut found = None;
    let mut reader = Reader::new(message);
    while let Some((number, field)) = reader.next()? {
        if (1..=7).contains(&number) {
            found = Some((number, field));
        }
    }
    Ok(found)
}

/// An `AnyValue` as part of a list or map.
fn json(message: &[u8], depth: usize) -> Result<Json, AttributeError> {
    if depth > DEPTH_MAX {
        return Err(AttributeError::TooDeep(String::new()));
    }
    Ok(match last(message)? {
        None => Json::Null,
        Some((1, field)) => Json::String(field.text("AnyValue", 1)?.to_owned()),
        Some((2, field)) => Json::Bool(field.varint("AnyValue", 2)? != 0),
        Some((3, field)) => Json::from(field.varint("AnyValue", 3)? as i64),
        Some((4, field)) => number(field.double("AnyValue", 4)?),
        Some((5, field)) => Json::Array(list(field.bytes("AnyValue", 5)?, depth)?),
        Some((6, field)) => Json::Object(map(field.bytes("AnyValue", 6)?, depth)?),
        Some((_, field)) => Json::String(STANDARD.encode(field.bytes("AnyValue", 7)?)),
    })
}

/// Whole numbers without a fraction; what JSON has no number for as text.
fn number(value: f64) -> Json {
    if value.fract() == 0.0 && value.abs() < 9e15 {
        return Json::from(value as i64);
    }
    serde_json::Number::from_f64(value).map_or_else(|| Json::String(double(value)), Json::Number)
}

fn list(message: &[u8], depth: usize) -> Result<Vec<Json>, AttributeError> {
    let mut items = Vec::new();
    let mut reader = Reader::new(message);
    while let Some((number, field)) = reader.next()? {
        if number == 1 {
            items.push(json(field.bytes("ArrayValue", number)?, depth + 1)?);
        }
    }
    Ok(items)
}

fn map(message: &[u8], depth: usize) -> Result<Map<String, Json>, AttributeError> {
    let mut entries = Map::new();
    let mut reader = Reader::new(message);
    while let Some((number, field)) = reader.next()? {
        if number != 1 {
            continue;
        }
        let (mut key, mut value) = ("", Json::Null);
        let mut inner = Reader::new(field.bytes("KeyValueList", number)?);
        while let Some((number, field)) = inner.next()? {
            match number {
                1 => key = field.text("KeyValue", number)?,
                2 => value = json(field.bytes("KeyValue", number)?, depth + 1)?,
                _ => {}
            }
        }
        entries.insert(key.to_owned(), value);
    }
    Ok(entries)
}

/// A float as the OpenTelemetry SDKs' reference implementation writes it: as in JSON.
fn double(value: f64) -> String {
    if value.is_nan() {
        return "json: unsupported value: NaN".into();
    }
    if value.is_infinite() {
        let sign = if value > 0.0 { '+' } else { '-' };
        return format!("json: unsupported value: {sign}Inf");
    }
    let size = value.abs();
    if size == 0.0 || (1e-6..1e21).contains(&size) {
        return value.to_string();
    }
    let text = format!("{value:e}");
    match text.split_once('e') {
        Some((digits, power)) if !power.starts_with('-') => format!("{digits}e+{power}"),
        _ => text,
    }
}

/// Lower-case hexadecimal digits, as trace and span ids are written.
pub(super) fn hex(bytes: &[u8]) -> String {
    bytes.iter().fold(String::with_capacity(2 * bytes.len()), |mut out, byte| {
        // Writing to a string cannot fail.
        let _ = write!(out, "{byte:02x}");
        out
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::proto::{put_bytes, put_double_always, put_uint_always};

    fn any(write: impl FnOnce(&mut Vec<u8>)) -> Vec<u8> {
        let mut out = Vec::new();
        write(&mut out);
        out
    }

    #[test]
    fn values_of_every_type_become_text() {
        let string = any(|out| put_bytes(out, 1, b"x"));
        let yes = any(|out| put_uint_always(out, 2, 1));
        let minus = any(|out| put_uint_always(out, 3, (-5_i64) as u64));
        let half = any(|out| put_double_always(out, 4, 0.5));
        let bytes = any(|out| put_bytes(out, 7, &[0, 255, 16, 1]));
        let list = any(|out| {
            put_bytes(
                out,
                5,
                &any(|out| {
                    for item in [&string, &yes, &minus, &half] {
                        put_bytes(out, 1, item);
                    }
                }),
            );
        });
        let map = any(|out| {
            put_bytes(
                out,
                6,
                &any(|out| {
                    for (key, value) in [("b", &list), ("a", &bytes)] {
                        put_bytes(
                            out,
                            1,
                            &any(|out| {
                                put_bytes(out, 1, key.as_bytes());
                                put_bytes(out, 2, value);
                            }),
                        );
                    }
                }),
            );
        });
        let shown = |message: &[u8]| text(message).unwrap().into_owned();
        assert_eq!(shown(&string), "x");
        assert_eq!(shown(&yes), "true");
        assert_eq!(shown(&minus), "-5");
        assert_eq!(shown(&half), "0.5");
        assert_eq!(shown(&bytes), "AP8QAQ==");
        assert_eq!(shown(&list), r#"["x",true,-5,0.5]"#);
        assert_eq!(shown(&map), r#"{"a":"AP8QAQ==","b":["x",true,-5,0.5]}"#);
        assert_eq!(shown(&[]), "");
    }

    #[test]
    fn floats_are_written_as_in_json() {
        let cases = [
            (1.0, "1"),
            (0.25, "0.25"),
            (-3.5e-7, "-3.5e-7"),
            (1e21, "1e+21"),
            (1e20, "100000000000000000000"),
        ];
        for (value, expected) in cases {
            assert_eq!(double(value), expected);
        }
        assert_eq!(double(f64::NEG_INFINITY), "json: unsupported value: -Inf");
    }

    #[test]
    fn nesting_and_number_are_bounded() {
        let mut value = any(|out| put_bytes(out, 1, b"x"));
        for _ in 0..100_000 {
            let list = any(|out| put_bytes(out, 1, &value));
            if list.len() > 1 << 14 {
                break;
            }
            value = any(|out| put_bytes(out, 5, &list));
        }
        assert_eq!(text(&value), Err(AttributeError::TooDeep(String::new())));
        let mut attributes = Vec::new();
        let outcome: Result<(), _> = (0..600).try_for_each(|_| read(&[], &mut attributes));
        assert_eq!((outcome, attributes.len()), (Err(AttributeError::TooMany), ATTRIBUTES_MAX));
    }
}
