//! What records of the log say.

use stint_model::histogram::{
    BucketSpan, CUSTOM_BUCKETS_SCHEMA, FloatHistogram, Histogram, IntegerHistogram, ResetHint,
};
use stint_model::{Labels, TimeRange, Timestamp};

use crate::tsdb::Damage;
use crate::tsdb::cursor::Cursor;

/// Something that a record says.
#[derive(Clone, Debug, PartialEq)]
pub enum Item {
    /// From here on `id` means the series with these labels.
    Series {
        /// What other records call it.
        id: u64,
        /// Its labels.
        labels: Labels,
    },
    /// A number; the stale marker is a special NaN.
    Float {
        /// Whose it is.
        id: u64,
        /// When.
        at: Timestamp,
        /// What.
        value: f64,
        /// When counting began; [`Timestamp::MIN`] when that is not known.
        start: Timestamp,
    },
    /// A native histogram; the stale marker stands in its sum.
    Histogram {
        /// Whose it is.
        id: u64,
        /// When.
        at: Timestamp,
        /// What. Nothing is told about resets but whether it is a gauge.
        histogram: Histogram,
        /// When counting began; [`Timestamp::MIN`] when that is not known.
        start: Timestamp,
    },
    /// Samples that were there before are deleted.
    Deleted {
        /// Whose they are.
        id: u64,
        /// Which.
        range: TimeRange,
    },
}

/// Whether a record is of a kind that is known.
pub fn is_known(record: &[u8]) -> bool {
    record.first().is_some_and(|kind| (1..=13).contains(kind))
}

/// Whether a record says which series there are, or what of them is deleted.
pub fn is_about_series(record: &[u8]) -> bool {
    matches!(record.first(), Some(1 | 3))
}

/// Hands everything that a record says about series, samples and deletions to `visit`. Exemplars,
/// metadata and marks of files are left out.
///
/// # Errors
/// It cannot be read to its end, or is of a kind that a later version of Prometheus writes.
pub fn decode(record: &[u8], mut visit: impl FnMut(Item)) -> Result<(), Damage> {
    let mut cursor = Cursor::new(record);
    match cursor.byte()? {
        1 => series(&mut cursor, &mut visit),
        2 => samples(&mut cursor, |cursor, id, at| {
            visit(Item::Float { id, at, value: cursor.be_f64()?, start: Timestamp::MIN });
            Ok(())
        }),
        3 => deletions(&mut cursor, &mut visit),
        // Exemplars, marks, metadata.
        4..=6 => Ok(()),
        // 9 and 10 may have custom bounds, as their schemas tell.
        7 | 9 => samples(&mut cursor, |cursor, id, at| {
            let histogram = Histogram::Integer(integers(cursor)?);
            visit(Item::Histogram { id, at, histogram, start: Timestamp::MIN });
            Ok(())
        }),
        8 | 10 => samples(&mut cursor, |cursor, id, at| {
            let histogram = Histogram::Float(floats(cursor)?);
            visit(Item::Histogram { id, at, histogram, start: Timestamp::MIN });
            Ok(())
        }),
        11 => started(&mut cursor, |cursor, id, at, start| {
            visit(Item::Float { id, at, value: cursor.be_f64()?, start });
            Ok(())
        }),
        12 => started(&mut cursor, |cursor, id, at, start| {
            let histogram = Histogram::Integer(integers(cursor)?);
            visit(Item::Histogram { id, at, histogram, start });
            Ok(())
        }),
        13 => started(&mut cursor, |cursor, id, at, start| {
            let histogram = Histogram::Float(floats(cursor)?);
            visit(Item::Histogram { id, at, histogram, start });
            Ok(())
        }),
        _ => Err(Damage::new(0, "a record of a later version of Prometheus")),
    }
}

fn series(cursor: &mut Cursor<'_>, visit: &mut impl FnMut(Item)) -> Result<(), Damage> {
    while !cursor.is_empty() {
        let id = cursor.be_u64()?;
        let count = cursor.count(2)?;
        let mut pairs = Vec::with_capacity(count);
        for _ in 0..count {
            pairs.push((cursor.text()?, cursor.text()?));
        }
        let sorted = Labels::from_sorted(pairs.iter().copied());
        let labels = sorted.unwrap_or_else(|| Labels::from_pairs(pairs));
        visit(Item::Series { id, labels });
    }
    Ok(())
}

/// Samples that follow a first series and time, by their distance from both.
fn samples(
    cursor: &mut Cursor<'_>,
    mut value: impl FnMut(&mut Cursor<'_>, u64, Timestamp) -> Result<(), Damage>,
) -> Result<(), Damage> {
    if cursor.is_empty() {
        return Ok(());
    }
    let (first, start) = (cursor.be_u64()?, cursor.be_u64()? as i64);
    while !cursor.is_empty() {
        let id = first.wrapping_add(cursor.varint()? as u64);
        let at = Timestamp(start.wrapping_add(cursor.varint()?));
        value(cursor, id, at)?;
    }
    Ok(())
}

/// Samples with start times: each series by its distance from the one before, times by their distance
/// from the first.
fn started(
    cursor: &mut Cursor<'_>,
    mut value: impl FnMut(&mut Cursor<'_>, u64, Timestamp, Timestamp) -> Result<(), Damage>,
) -> Result<(), Damage> {
    if cursor.is_empty() {
        return Ok(());
    }
    let known = |start: i64| if start == 0 { Timestamp::MIN } else { Timestamp(start) };
    let mut id = cursor.varint()? as u64;
    let (first, first_start) = (cursor.varint()?, cursor.varint()?);
    let mut start = first_start;
    value(cursor, id, Timestamp(first), known(start))?;
    while !cursor.is_empty() {
        id = id.wrapping_add(cursor.varint()? as u64);
        let at = first.wrapping_add(cursor.varint()?);
        let mark = *cursor;
        start = match cursor.byte()? {
            0 => 0,
            1 => start,
            2 => first_start.wrapping_add(cursor.varint()?),
            _ => return Err(mark.damage("a start time of an unknown kind")),
        };
        value(cursor, id, Timestamp(at), known(start))?;
    }
    Ok(())
}

fn deletions(cursor: &mut Cursor<'_>, visit: &mut impl FnMut(Item)) -> Result<(), Damage> {
    while !cursor.is_empty() {
        let id = cursor.be_u64()?;
        let (first, last) = (Timestamp(cursor.varint()?), Timestamp(cursor.varint()?));
        visit(Item::Deleted { id, range: TimeRange::closed(first, last) });
    }
    Ok(())
}

/// The hint of a gauge; of others nothing is told.
fn reset_hint(byte: u8) -> ResetHint {
    if byte == 3 { ResetHint::Gauge } else { ResetHint::Unknown }
}

fn schema(cursor: &mut Cursor<'_>) -> Result<i32, Damage> {
    let at = *cursor;
    i32::try_from(cursor.varint()?).map_err(|_| at.damage("a schema that there is not"))
}

fn spans(cursor: &mut Cursor<'_>) -> Result<Vec<BucketSpan>, Damage> {
    let count = cursor.count(2)?;
    let mut spans = Vec::with_capacity(count);
    for _ in 0..count {
        let at = *cursor;
        let (offset, length) = (cursor.varint()?, cursor.uvarint()?);
        match (i32::try_from(offset), u32::try_from(length)) {
            (Ok(offset), Ok(length)) => spans.push(BucketSpan { offset, length }),
            _ => return Err(at.damage("a span beyond all buckets")),
        }
    }
    Ok(spans)
}

fn list<'a, T>(
    cursor: &mut Cursor<'a>,
    bytes: usize,
    one: impl Fn(&mut Cursor<'a>) -> Result<T, Damage>,
) -> Result<Vec<T>, Damage> {
    let count = cursor.count(bytes)?;
    let mut all = Vec::with_capacity(count);
    for _ in 0..count {
        all.push(one(cursor)?);
    }
    Ok(all)
}

fn custom_bounds(schema: i32, cursor: &mut Cursor<'_>) -> Result<Vec<f64>, Damage> {
    if schema == CUSTOM_BUCKETS_SCHEMA { list(cursor, 8, Cursor::be_f64) } else { Ok(Vec::new()) }
}

fn integers(cursor: &mut Cursor<'_>) -> Result<IntegerHistogram, Damage> {
    let mut histogram = IntegerHistogram {
        reset_hint: reset_hint(cursor.byte()?),
        schema: schema(cursor)?,
        zero_threshold: cursor.be_f64()?,
        zero_count: cursor.uvarint()?,
        count: cursor.uvarint()?,
        sum: cursor.be_f64()?,
        positive_spans: spans(cursor)?,
        negative_spans: spans(cursor)?,
        positive_deltas: list(cursor, 1, Cursor::varint)?,
        negative_deltas: list(cursor, 1, Cursor::varint)?,
        custom_bounds: Vec::new(),
    };
    histogram.custom_bounds = custom_bounds(histogram.schema, cursor)?;
    Ok(histogram)
}

fn floats(cursor: &mut Cursor<'_>) -> Result<FloatHistogram, Damage> {
    let mut histogram = FloatHistogram {
        reset_hint: reset_hint(cursor.byte()?),
        schema: schema(cursor)?,
        zero_threshold: cursor.be_f64()?,
        zero_count: cursor.be_f64()?,
        count: cursor.be_f64()?,
        sum: cursor.be_f64()?,
        positive_spans: spans(cursor)?,
        negative_spans: spans(cursor)?,
        positive_buckets: list(cursor, 8, Cursor::be_f64)?,
        negative_buckets: list(cursor, 8, Cursor::be_f64)?,
        custom_bounds: Vec::new(),
    };
    histogram.custom_bounds = custom_bounds(histogram.schema, cursor)?;
    Ok(histogram)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tsdb::cursor::put;

    fn items(record: &[u8]) -> Result<Vec<Item>, Damage> {
        let mut items = Vec::new();
        decode(record, |item| items.push(item)).map(|()| items)
    }

    #[test]
    fn series_samples_and_deletions_are_read() {
        let mut record = vec![1];
        record.extend_from_slice(&7_u64.to_be_bytes());
        put::uvarint(&mut record, 2);
        for text in ["__name__", "up", "job", "a"] {
            put::text(&mut record, text);
        }
        let labels = Labels::from_pairs([("__name__", "up"), ("job", "a")]);
        assert_eq!(items(&record), Ok(vec![Item::Series { id: 7, labels }]));

        let mut record = vec![2];
        record.extend_from_slice(&7_u64.to_be_bytes());
        record.extend_from_slice(&1000_i64.to_be_bytes());
        for (id, at, value) in [(0, 0, 1.5_f64), (-2, 15, f64::INFINITY)] {
            put::varint(&mut record, id);
            put::varint(&mut record, at);
            record.extend_from_slice(&value.to_bits().to_be_bytes());
        }
        let float = |id, at, value| {
            let start = Timestamp::MIN;
            Item::Float { id, at: Timestamp(at), value, start }
        };
        assert_eq!(items(&record), Ok(vec![float(7, 1000, 1.5), float(5, 1015, f64::INFINITY)]));
        assert!(items(&record[..record.len() - 1]).is_err());

        let mut record = vec![3];
        record.extend_from_slice(&7_u64.to_be_bytes());
        put::varint(&mut record, -5);
        put::varint(&mut record, 5);
        let range = TimeRange::closed(Timestamp(-5), Timestamp(5));
        assert_eq!(items(&record), Ok(vec![Item::Deleted { id: 7, range }]));
        assert_eq!(items(&[4, 1, 2]), Ok(vec![]));
        assert!(items(&[14]).unwrap_err().what.contains("later version"));
        assert_eq!(
            [0, 1, 2, 3, 13, 14].map(|kind| is_known(&[kind])),
            [false, true, true, true, true, false]
        );
        assert_eq!([1, 2, 3].map(|kind| is_about_series(&[kind])), [true, false, true]);
        assert!(items(&[]).is_err());
    }

    #[test]
    fn start_times_are_read() {
        // Distances: of the series from the one before, of times from the first.
        let mut record = vec![11];
        let put_value = |record: &mut Vec<u8>| record.extend_from_slice(&2_f64.to_be_bytes());
        for number in [7, 1000, 900] {
            put::varint(&mut record, number);
        }
        put_value(&mut record);
        for (id, at, start) in [(1, 15, &[1][..]), (1, 15, &[0]), (-2, 30, &[1]), (5, 30, &[2, 9])]
        {
            put::varint(&mut record, id);
            put::varint(&mut record, at);
            record.extend_from_slice(start);
            put_value(&mut record);
        }
        let found: Vec<_> = items(&record)
            .unwrap()
            .into_iter()
            .map(|item| match item {
                Item::Float { id, at, value, start } => (id, at.0, value, start),
                other => panic!("{other:?}"),
            })
            .collect();
        let none = Timestamp::MIN;
        let want = [
            (7, 1000, 2.0, Timestamp(900)),
            (8, 1015, 2.0, Timestamp(900)),
            (9, 1015, 2.0, none),
            (7, 1030, 2.0, none),
            (12, 1030, 2.0, Timestamp(895)),
        ];
        assert_eq!(found, want);
        let mark = record.len() - 10;
        record[mark] = 3;
        assert!(items(&record).unwrap_err().what.contains("start time"));
    }

    #[test]
    fn histograms_are_read() {
        for (kind, custom) in [
            (7_u8, false),
            (9, true),
            (8, false),
            (10, true),
            (12, false),
            (12, true),
            (13, false),
            (13, true),
        ] {
            let schema = if custom { CUSTOM_BUCKETS_SCHEMA } else { 3 };
            let is_float = matches!(kind, 8 | 10 | 13);
            let mut record = vec![kind];
            let mut start = Timestamp::MIN;
            if kind > 11 {
                for number in [10, 499, 77] {
                    put::varint(&mut record, number);
                }
                start = Timestamp(77);
            } else {
                record.extend_from_slice(&9_u64.to_be_bytes());
                record.extend_from_slice(&500_i64.to_be_bytes());
                put::varint(&mut record, 1);
                put::varint(&mut record, -1);
            }
            record.push(3);
            put::varint(&mut record, i64::from(schema));
            let float = |record: &mut Vec<u8>, value: f64| {
                record.extend_from_slice(&value.to_bits().to_be_bytes());
            };
            float(&mut record, 0.25);
            for count in [2_u64, 9] {
                if is_float {
                    float(&mut record, count as f64);
                } else {
                    put::uvarint(&mut record, count);
                }
            }
            float(&mut record, 12.5);
            let spans = [BucketSpan { offset: -3, length: 2 }];
            put::uvarint(&mut record, 1);
            put::varint(&mut record, -3);
            put::uvarint(&mut record, 2);
            put::uvarint(&mut record, 0);
            put::uvarint(&mut record, 2);
            for bucket in [4_i64, -1] {
                if is_float {
                    float(&mut record, bucket as f64);
                } else {
                    put::varint(&mut record, bucket);
                }
            }
            put::uvarint(&mut record, 0);
            let bounds: &[f64] = if custom { &[0.5, 1.0] } else { &[] };
            if custom {
                put::uvarint(&mut record, 2);
                for bound in bounds {
                    float(&mut record, *bound);
                }
            }
            let histogram = if is_float {
                Histogram::Float(FloatHistogram {
                    reset_hint: ResetHint::Gauge,
                    schema,
                    zero_threshold: 0.25,
                    zero_count: 2.0,
                    count: 9.0,
                    sum: 12.5,
                    positive_spans: spans.to_vec(),
                    positive_buckets: vec![4.0, -1.0],
                    custom_bounds: bounds.to_vec(),
                    ..FloatHistogram::default()
                })
            } else {
                Histogram::Integer(IntegerHistogram {
                    reset_hint: ResetHint::Gauge,
                    schema,
                    zero_threshold: 0.25,
                    zero_count: 2,
                    count: 9,
                    sum: 12.5,
                    positive_spans: spans.to_vec(),
                    positive_deltas: vec![4, -1],
                    custom_bounds: bounds.to_vec(),
                    ..IntegerHistogram::default()
                })
            };
            let at = Timestamp(499);
            assert_eq!(items(&record), Ok(vec![Item::Histogram { id: 10, at, histogram, start }]));
            assert!(items(&record[..record.len() - 1]).is_err(), "kind {kind}");
        }
    }
}
