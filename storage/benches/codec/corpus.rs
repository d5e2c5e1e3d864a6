//! Reads a recording of real targets.
//!
//! Little endian: `TSCORP01`, targets u32; per target: name (u16 length), scrapes u32, series
//! u32, i64 time of each scrape; per series: u16 length of labels, u8 class, u8 decimals, u8 full,
//! u32 samples, labels as `name{a="b",…}`, presence bitmap unless full, f64 values.

use std::path::Path;

use stint_model::{Columns, Labels, Timestamp};
use stint_storage::series_order;

/// One recorded second in this many is used: the increments of 15 s scrapes.
const STRIDE: usize = 15;

struct Bytes<'a>(&'a [u8]);

impl<'a> Bytes<'a> {
    fn take(&mut self, length: usize) -> &'a [u8] {
        let (taken, rest) = self.0.split_at(length);
        self.0 = rest;
        taken
    }

    fn number(&mut self, length: usize) -> usize {
        self.take(length).iter().rev().fold(0, |number, byte| number << 8 | usize::from(*byte))
    }
}

/// `rows` samples of each series, played back mirrored where the recording is shorter; times
/// every 15 s, up to 3 ms off, the same for all series of a target.
pub(crate) fn read(path: &Path, rows: usize) -> Vec<(Labels, Columns)> {
    let file = std::fs::read(path).expect("STINT_CORPUS names a readable file");
    let mut bytes = Bytes(&file);
    assert_eq!(bytes.take(8), b"TSCORP01", "not a recording");
    let mut all = Vec::new();
    for target in 0..bytes.number(4) {
        let length = bytes.number(2);
        let name = String::from_utf8_lossy(bytes.take(length)).into_owned();
        let scrapes = bytes.number(4);
        let series = bytes.number(4);
        bytes.take(scrapes * 8);
        for _ in 0..series {
            let labels_len = bytes.number(2);
            bytes.take(2);
            let full = bytes.number(1) == 1;
            let count = bytes.number(4);
            let text = String::from_utf8_lossy(bytes.take(labels_len)).into_owned();
            let bitmap = if full { &[][..] } else { bytes.take(scrapes.div_ceil(8)) };
            let values: Vec<f64> = bytes
                .take(count * 8)
                .chunks_exact(8)
                .map(|bytes| f64::from_le_bytes(bytes.try_into().expect("eight bytes")))
                .collect();
            let present = |scrape: usize| full || bitmap[scrape >> 3] >> (scrape & 7) & 1 == 1;
            let mut by_scrape = vec![None; scrapes];
            let mut values = values.into_iter();
            for (scrape, slot) in by_scrape.iter_mut().enumerate() {
                if present(scrape) {
                    *slot = values.next();
                }
            }
            all.push((labels(&text, &name), columns(&by_scrape, target, rows)));
        }
    }
    all.sort_by(|a, b| series_order(&a.0, &b.0));
    all.dedup_by(|a, b| a.0 == b.0);
    all
}

fn columns(by_scrape: &[Option<f64>], target: usize, rows: usize) -> Columns {
    let real = by_scrape.len() / STRIDE;
    let mut columns = Columns::default();
    for row in 0..rows {
        let at = row % (2 * real - 2);
        let at = if at < real { at } else { 2 * real - 2 - at };
        let hash = (row * 4 + target).wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 40;
        let off = (hash % 7) as i64 - 3;
        if let Some(value) = by_scrape[at * STRIDE] {
            let time =
                1_699_999_200_000 + row as i64 * 15_000 + 5_000 + target as i64 * 1_700 + off;
            columns.push_float(Timestamp(time), value);
        }
    }
    columns
}

fn labels(text: &str, target: &str) -> Labels {
    let (name, rest) = text.split_once('{').unwrap_or((text, ""));
    let mut pairs = vec![
        ("__name__".to_owned(), name.to_owned()),
        ("job".to_owned(), target.to_owned()),
        ("instance".to_owned(), format!("{target}:9100")),
    ];
    let mut rest = rest;
    while let Some((name, value)) = rest.split_once("=\"") {
        let mut text = String::new();
        let mut chars = value.char_indices();
        let mut end = value.len();
        while let Some((at, c)) = chars.next() {
            match c {
                '"' => {
                    end = at + 1;
                    break;
                }
                '\\' => text.extend(chars.next().map(|(_, c)| if c == 'n' { '\n' } else { c })),
                c => text.push(c),
            }
        }
        pairs.push((name.trim_start_matches(',').to_owned(), text));
        rest = &value[end..];
    }
    Labels::from_pairs(pairs)
}
