//! An index as a Prometheus server writes it is read, and changed bytes are noticed.

use proptest::prelude::*;
use stint_model::{Labels, Timestamp};

use super::*;
use crate::tsdb::cursor::put;

/// Labels of a series, and of its chunks first and last time, file and offset.
type Series<'a> = (&'a [(&'a str, &'a str)], &'a [(i64, i64, u32, u32)]);

fn part(out: &mut Vec<u8>, body: &[u8]) -> u64 {
    let at = out.len() as u64;
    out.extend_from_slice(&(body.len() as u32).to_be_bytes());
    out.extend_from_slice(body);
    out.extend_from_slice(&crc32c::crc32c(body).to_be_bytes());
    at
}

fn list(out: &mut Vec<u8>, series: &[u32]) -> u64 {
    let mut body = (series.len() as u32).to_be_bytes().to_vec();
    for number in series {
        body.extend_from_slice(&number.to_be_bytes());
    }
    part(out, &body)
}

/// What a Prometheus server writes for `all`, which is in order.
fn written(all: &[Series<'_>]) -> Vec<u8> {
    let mut out = [&MAGIC.to_be_bytes()[..], &[2]].concat();
    let mut texts: Vec<&str> = vec![""];
    texts.extend(all.iter().flat_map(|(labels, _)| *labels).flat_map(|(n, v)| [*n, *v]));
    texts.sort_unstable();
    texts.dedup();
    let mut body = (texts.len() as u32).to_be_bytes().to_vec();
    for text in &texts {
        put::text(&mut body, text);
    }
    let symbols_at = part(&mut out, &body);
    let number = |text: &str| texts.binary_search(&text).unwrap() as u64;
    let mut numbers = Vec::new();
    let series_at = out.len() as u64;
    for (labels, chunks) in all {
        out.resize(out.len().next_multiple_of(16), 0);
        numbers.push((out.len() / 16) as u32);
        let mut body = Vec::new();
        put::uvarint(&mut body, labels.len() as u64);
        for (name, value) in *labels {
            put::uvarint(&mut body, number(name));
            put::uvarint(&mut body, number(value));
        }
        put::uvarint(&mut body, chunks.len() as u64);
        let (mut end, mut before) = (None, 0_i64);
        for (first, last, file, offset) in *chunks {
            let place = i64::from(*file - 1) << 32 | i64::from(*offset);
            match end {
                None => put::varint(&mut body, *first),
                Some(end) => put::uvarint(&mut body, (*first - end) as u64),
            }
            put::uvarint(&mut body, (last - first) as u64);
            match end {
                None => put::uvarint(&mut body, place as u64),
                Some(_) => put::varint(&mut body, place - before),
            }
            (end, before) = (Some(*last), place);
        }
        put::uvarint(&mut out, body.len() as u64);
        out.extend_from_slice(&body);
        out.extend_from_slice(&crc32c::crc32c(&body).to_be_bytes());
    }
    let postings_at = out.len() as u64;
    let mut table = vec![(String::new(), String::new(), list(&mut out, &numbers))];
    let mut pairs: Vec<(&str, &str)> = all.iter().flat_map(|(labels, _)| labels.to_vec()).collect();
    pairs.sort_unstable();
    pairs.dedup();
    for (name, value) in pairs {
        let has = |(labels, _): &Series<'_>| labels.contains(&(name, value));
        let with: Vec<u32> =
            all.iter().zip(&numbers).filter(|(s, _)| has(s)).map(|(_, number)| *number).collect();
        table.push((name.to_owned(), value.to_owned(), list(&mut out, &with)));
    }
    let mut body = (table.len() as u32).to_be_bytes().to_vec();
    for (name, value, at) in &table {
        body.push(2);
        put::text(&mut body, name);
        put::text(&mut body, value);
        put::uvarint(&mut body, *at);
    }
    let table_at = part(&mut out, &body);
    let mut toc = Vec::new();
    for at in [symbols_at, series_at, 0, 0, postings_at, table_at] {
        toc.extend_from_slice(&at.to_be_bytes());
    }
    out.extend_from_slice(&toc);
    out.extend_from_slice(&crc32c::crc32c(&toc).to_be_bytes());
    out
}

/// Everything that an index leads to.
fn read(bytes: &[u8]) -> Result<Vec<(Labels, Vec<ChunkRef>)>, Damage> {
    let index = Index::open(bytes)?;
    let mut numbers: Vec<u32> = index.series_without_metric()?;
    for metric in index.metrics() {
        numbers.extend(index.series_of(metric)?);
    }
    let mut entry = SeriesEntry::default();
    let mut all = Vec::new();
    for number in numbers {
        index.series(number, &mut entry)?;
        all.push((index.labels(&entry)?, entry.chunks.clone()));
    }
    Ok(all)
}

const SERIES: &[Series<'static>] = &[
    (
        &[("A", "1"), ("__name__", "up"), ("job", "ü")],
        &[(-5, 10, 1, 8), (12, 90, 1, 60), (91, 91, 3, 8)],
    ),
    (&[("__name__", "down")], &[(0, 1, 2, 20), (3, 3, 1, 7)]),
    (&[("__name__", "up")], &[]),
    (&[("job", "nameless")], &[(4, 5, 1, 1000)]),
];

#[test]
fn series_come_back_by_metric() {
    let bytes = written(SERIES);
    let mut want: Vec<(Labels, Vec<ChunkRef>)> = SERIES
        .iter()
        .map(|(labels, chunks)| {
            let chunk = |(first, last, file, offset): &(i64, i64, u32, u32)| ChunkRef {
                first: Timestamp(*first),
                last: Timestamp(*last),
                file: *file,
                offset: *offset,
            };
            (Labels::from_pairs(labels.iter().copied()), chunks.iter().map(chunk).collect())
        })
        .collect();
    want.swap(0, 3);
    want[1..].sort_by(|a, b| a.0.metric_name().cmp(&b.0.metric_name()));
    let found = read(&bytes).unwrap();
    assert_eq!(found.len(), want.len());
    assert!(want.iter().all(|series| found.contains(series)), "{found:?}");
    assert_eq!(found[0].0.to_string(), r#"{job="nameless"}"#);
    assert_eq!(found[1].0.to_string(), r#"{__name__="down"}"#);
    assert_eq!(read(&written(&[])).unwrap(), []);
}

#[test]
fn other_versions_are_named() {
    let mut bytes = written(SERIES);
    bytes[4] = 1;
    let refused = Index::open(&bytes).unwrap_err();
    assert_eq!(refused.to_string(), "byte 4: an index of a version of Prometheus before 2.1");
    bytes[4] = 9;
    assert!(Index::open(&bytes).unwrap_err().what.contains("later version"));
}

#[test]
fn changed_bytes_are_noticed() {
    let bytes = written(SERIES);
    let whole = read(&bytes).unwrap();
    for at in 0..bytes.len() {
        let mut damaged = bytes.clone();
        damaged[at] ^= 1;
        // Paddings, and lists of labels that nobody reads, may change.
        assert!(read(&damaged).is_err() || read(&damaged).unwrap() == whole, "byte {at}");
        assert!(read(&bytes[..at]).is_err(), "cut at {at}");
    }
}

proptest! {
    #[test]
    fn no_bytes_make_reading_panic(rest: Vec<u8>) {
        let mut bytes = [&MAGIC.to_be_bytes()[..], &[2], &rest].concat();
        let _ = read(&bytes);
        // A table of contents that holds, so that more is looked at.
        let at = (rest.len() as u64).to_be_bytes();
        let toc = [[0; 7].as_slice(), &[5], &[0; 32], &at].concat();
        bytes.extend_from_slice(&toc);
        bytes.extend_from_slice(&crc32c::crc32c(&toc).to_be_bytes());
        let _ = read(&bytes);
    }
}
