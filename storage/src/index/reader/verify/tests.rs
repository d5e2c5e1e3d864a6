//! Each test damages one thing so that all checksums hold.

use stint_model::Labels;

use super::super::Mapped;
use super::*;
use crate::codec::{crc, varint};
use crate::index::IndexBuilder;
use crate::index::groups::place;
use crate::index::writer::ChunkList;

fn series(pairs: &[&[(&str, &str)]]) -> Index {
    let mut builder = IndexBuilder::default();
    for labels in pairs {
        let labels = Labels::from_pairs(labels.iter().copied());
        builder.add(&labels, ChunkList { start: 8, bytes: &[0] });
    }
    open(builder.finish(&[], 0).unwrap())
}

fn open(bytes: Vec<u8>) -> Index {
    Index::open(Mapped::new(bytes), "index").unwrap()
}

/// Series 0 has `a=1, b=x`, series 1 has `a=2, b=y`, series 2 has `a=3, c=z`.
fn whole() -> Index {
    series(&[&[("a", "1"), ("b", "x")], &[("a", "2"), ("b", "y")], &[("a", "3"), ("c", "z")]])
}

/// The index with another first group in a section.
fn edited(index: &Index, section: Section, edit: impl FnOnce(&mut [u8])) -> Index {
    let mut bytes = index.bytes.to_vec();
    let start = section.base as usize;
    let table = start + section.data_len as usize;
    let end = u32::from_le_bytes(bytes[table + 4..table + 8].try_into().unwrap()) as usize;
    let body = &mut bytes[start..start + end - 4];
    edit(body);
    let checksum = crc::checksum_at(place(section.base, 0), body);
    bytes[start + end - 4..start + end].copy_from_slice(&checksum.to_le_bytes());
    open(bytes)
}

/// The index with another footer, and more bytes before it.
fn with_footer(mut index: Index, more: &[u8], edit: impl FnOnce(&mut Index)) -> Index {
    let bytes = index.bytes.to_vec();
    let (body, trailer) = bytes.split_last_chunk::<TRAILER_LEN>().unwrap();
    let footer_len = u32::from_le_bytes(trailer[..4].try_into().unwrap()) as usize;
    let mut bytes = body[..body.len() - footer_len].to_vec();
    bytes.extend_from_slice(more);
    edit(&mut index);
    let mut footer = Vec::new();
    varint::put(&mut footer, u64::from(index.series));
    varint::put(&mut footer, u64::from(index.names_len));
    index.names.put(&mut footer);
    index.infos.put(&mut footer);
    varint::put(&mut footer, u64::from(index.schemas_len));
    index.schemas.put(&mut footer);
    index.entries.put(&mut footer);
    varint::put(&mut footer, u64::from(index.columns_len));
    index.columns.put(&mut footer);
    let checksum = crc::checksum_at(bytes.len() as u64, &footer);
    bytes.extend_from_slice(&footer);
    bytes.extend_from_slice(&(footer.len() as u32).to_le_bytes());
    bytes.extend_from_slice(&checksum.to_le_bytes());
    bytes.extend_from_slice(&MAGIC);
    open(bytes)
}

fn finding(index: &Index) -> &'static str {
    index.verify().map_or_else(|corruption| corruption.what, |()| "nothing")
}

fn known(index: &Index, name: &str) -> (Section, Section) {
    let number = index.name_number(name).unwrap().unwrap();
    let known = index.known_name(number).unwrap();
    (known.values, known.lists)
}

#[test]
fn a_whole_index_has_no_finding() {
    assert_eq!(finding(&whole()), "nothing");
    assert_eq!(finding(&with_footer(whole(), &[], |_| {})), "nothing");
    assert_eq!(finding(&series(&[])), "nothing");
    let many: Vec<String> = (0..100).map(|n| format!("{n:03}")).collect();
    let many: Vec<[(&str, &str); 2]> = many.iter().map(|n| [("a", &**n), ("b", "x")]).collect();
    let many: Vec<&[(&str, &str)]> = many.iter().map(|pairs| &pairs[..]).collect();
    assert_eq!(finding(&series(&many)), "nothing");
}

#[test]
fn texts_rise_and_are_text() {
    let index = whole();
    // Each string shares nothing, has one byte, and is that byte.
    let values = known(&index, "a").0;
    let hurt = edited(&index, values, |group| group.copy_from_slice(b"\0\x012\0\x011\0\x013"));
    assert_eq!(finding(&hurt), "strings out of order");
    let hurt = edited(&index, values, |group| group.copy_from_slice(b"\0\x011\0\x011\0\x013"));
    assert_eq!(finding(&hurt), "strings out of order");
    let hurt = edited(&index, values, |group| group[8] = 0xff);
    assert_eq!(finding(&hurt), "a string that is not UTF-8");
    let hurt = edited(&index, index.names, |group| group.copy_from_slice(b"\0\x01b\0\x01a\0\x01c"));
    assert_eq!(finding(&hurt), "strings out of order");
}

#[test]
fn lists_have_the_series_that_have_the_value() {
    let index = whole();
    let lists = known(&index, "b").1;
    // Three lengths, then lists: one of one series each, and one of both.
    let hurt = edited(&index, lists, |group| group.swap(4, 6));
    assert_eq!(finding(&hurt), "a value's list has other series than have the value");
    let hurt = edited(&index, lists, |group| group[8] += 1);
    let what = finding(&hurt);
    assert_eq!(what, "the list of a label has other series than have the label");
    let lists = known(&index, "c").1;
    let hurt = edited(&index, lists, |group| group[3] = 0);
    assert_eq!(finding(&hurt), "a value's list has other series than have the value");
}

#[test]
fn series_are_what_lists_and_values_say() {
    let index = whole();
    // Place of the chunks; then of each series length, label set, two values, chunks.
    let item = |series: usize| 2 + series * 6;
    let entries = index.entries;
    let hurt = edited(&index, entries, |group| {
        (group[item(0) + 1], group[item(1) + 1]) = (group[item(1) + 1], group[item(0) + 1]);
    });
    assert_eq!(finding(&hurt), "series out of order");
    let hurt = edited(&index, entries, |group| group[item(0) + 2] = 1);
    assert_eq!(finding(&hurt), "a value that no series has");
    let hurt = edited(&index, entries, |group| group[item(2)] = 0);
    assert_eq!(finding(&hurt), "a label set that no series has");
    let hurt = with_footer(whole(), &[], |index| index.series = 2);
    assert_eq!(finding(&hurt), "bytes behind the series of a group");
}

#[test]
fn label_sets_are_distinct_and_in_order() {
    let index = whole();
    let hurt = edited(&index, index.schemas, |group| group.copy_from_slice(&[2, 1, 0, 2, 0, 2]));
    assert_eq!(finding(&hurt), "a label set whose names do not rise");
    let hurt = edited(&index, index.schemas, |group| group.copy_from_slice(&[2, 0, 1, 2, 0, 9]));
    assert_eq!(finding(&hurt), "a label set whose names do not rise");
    let hurt = edited(&index, index.schemas, |group| group.copy_from_slice(&[2, 0, 1, 2, 0, 1]));
    assert_eq!(finding(&hurt), "two equal label sets");
}

#[test]
fn sections_fill_the_file() {
    let hurt = with_footer(whole(), b"more", |_| {});
    assert_eq!(finding(&hurt), "bytes between sections and footer");
    let hurt = with_footer(whole(), &[], |index| index.schemas = index.names);
    assert_eq!(finding(&hurt), "sections that overlap or leave a gap");
    let many: Vec<String> = (10..40).map(|n| n.to_string()).collect();
    let many: Vec<[(&str, &str); 1]> = many.iter().map(|n| [("a", &**n)]).collect();
    let many: Vec<&[(&str, &str)]> = many.iter().map(|pairs| &pairs[..]).collect();
    let hurt = with_footer(series(&many), &[], |index| index.series = 10);
    assert_eq!(finding(&hurt), "a section with more groups than its items fill");
}
