//! Exemplars of data points.

use stint_model::exemplar::LABELS_CHARS_MAX;
use stint_model::{Exemplar, Labels};

use super::attributes::{self, AttributeError, hex};
use super::points::{fixed64, number, time};
use crate::proto::{DecodeError, Reader};

/// The most exemplars of one data point that are read; a store keeps few of each series.
const EXEMPLARS_MAX: usize = 256;

/// Adds an `Exemplar` to `out`, unless there are very many. Its attributes are left out where they are too long or make no
/// sense: the ids are what it is for.
pub(super) fn read(message: &[u8], out: &mut Vec<Exemplar>) -> Result<(), DecodeError> {
    const NAME: &str = "Exemplar";
    if out.len() >= EXEMPLARS_MAX {
        return Ok(());
    }
    let (mut value, mut at) = (0.0, 0);
    let (mut span, mut trace): (&[u8], &[u8]) = (&[], &[]);
    let mut filtered = Some(Vec::new());
    let mut reader = Reader::new(message);
    while let Some((field_number, field)) = reader.next()? {
        match field_number {
            2 => at = fixed64(field, NAME, field_number)?,
            3 | 6 => value = number(field, NAME, field_number, field_number == 6)?,
            4 => span = field.bytes(NAME, field_number)?,
            5 => trace = field.bytes(NAME, field_number)?,
            7 => {
                let bytes = field.bytes(NAME, field_number)?;
                if let Some(attributes) = &mut filtered {
                    match attributes::read(bytes, attributes) {
                        Ok(()) => {}
                        Err(AttributeError::Decode(error)) => return Err(error),
                        Err(_) => filtered = None,
                    }
                }
            }
            _ => {}
        }
    }
    let ids = [("trace_id", trace), ("span_id", span)];
    let mut pairs: Vec<(&str, String)> = ids
        .into_iter()
        .filter(|(_, id)| !id.is_empty() && id.len() <= LABELS_CHARS_MAX)
        .map(|(name, id)| (name, hex(id)))
        .collect();
    let chars = |name: &str, value: &str| name.chars().count() + value.chars().count();
    let mut used: usize = pairs.iter().map(|(name, value)| chars(name, value)).sum();
    let filtered = filtered.unwrap_or_default();
    used += filtered.iter().map(|(name, value)| chars(name, value)).sum::<usize>();
    let is_new = |name: &str| !name.is_empty() && !ids.iter().any(|(id, _)| *id == name);
    if used <= LABELS_CHARS_MAX {
        let own = filtered.into_iter().filter(|(name, _)| is_new(name));
        pairs.extend(own.map(|(name, value)| (name, value.into_owned())));
    }
    out.push(Exemplar { labels: Labels::from_pairs(pairs), value, at: time(at) });
    Ok(())
}
