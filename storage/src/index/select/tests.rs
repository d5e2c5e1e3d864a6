use super::super::writer::{ChunkList, IndexBuilder};
use super::super::{Index, series_order};
use super::*;
use crate::disk::Mapped;
use proptest::prelude::*;
use stint_model::Labels;

fn build(series: &[Labels]) -> Vec<u8> {
    let mut builder = IndexBuilder::default();
    for (number, labels) in series.iter().enumerate() {
        assert!(builder.accepts(labels));
        builder.add(labels, ChunkList { start: number as u64 * 10, bytes: &[number as u8] });
    }
    builder.finish(&[], 0).unwrap()
}

fn labels() -> impl Strategy<Value = Labels> {
    let value = prop_oneof![Just(""), Just("a"), Just("b"), Just("ab"), Just("ba"), Just("c\n")];
    proptest::collection::vec(value, 4).prop_map(|values| {
        Labels::from_pairs(["__name__", "job", "le", "x"].into_iter().zip(values))
    })
}

fn series() -> impl Strategy<Value = Vec<Labels>> {
    proptest::collection::vec(labels(), 0..80).prop_map(|mut series| {
        series.sort_by(series_order);
        series.dedup();
        series
    })
}

fn selector() -> impl Strategy<Value = Selector> {
    let names = prop::sample::select(vec!["__name__", "job", "le", "x", "none"]);
    let ops = prop::sample::select(vec![
        MatchOp::Equal,
        MatchOp::NotEqual,
        MatchOp::Regex,
        MatchOp::NotRegex,
    ]);
    let patterns = prop::sample::select(vec![
        "", "a", "b", "a|b", "a.*", ".*", ".+", "a?", ".*b", "(a|)", "[^a]", "c.", "zz",
    ]);
    let matcher = (names, ops, patterns)
        .prop_map(|(name, op, pattern)| Matcher::new(op, name, pattern).unwrap());
    proptest::collection::vec(matcher, 0..4).prop_map(Selector::new)
}

proptest! {
    #[test]
    fn it_selects_as_testing_every_series_does(
        series in series(),
        selectors in proptest::collection::vec(selector(), 0..3),
    ) {
        let index = Index::open(Mapped::new(build(&series)), "index").unwrap();
        index.verify().unwrap();
        for (number, labels) in series.iter().enumerate() {
            prop_assert_eq!(&index.labels(number as u32).unwrap(), labels);
            let one = index.label_table([number as u32]).unwrap();
            prop_assert_eq!(&one.labels(0), labels);
            prop_assert_eq!(one.labels_bytes(), labels.size_bytes());
            let (chunk_start, chunks) = index.chunks(number as u32).unwrap();
            prop_assert_eq!(chunk_start, number as u64 * 10);
            prop_assert_eq!(chunks.rest(), &[number as u8]);
        }
        let some: RoaringBitmap = (0..series.len() as u32).filter(|number| number % 3 < 2).collect();
        let mut rising: Vec<&Labels> = some.iter().map(|number| &series[number as usize]).collect();
        index.check_labels().unwrap();
        let table = index.label_table(&some).unwrap();
        for (at, labels) in rising.iter().enumerate() {
            prop_assert_eq!(&table.labels(at), *labels);
            let (mut text, mut want) = (String::new(), String::new());
            table.encode(at, &|name| name != "job", &mut text);
            labels.encode_retained(|name| name != "job", &mut want);
            prop_assert_eq!(text, want);
        }
        let order = index.order_of_labels(&some).unwrap();
        let ordered: Vec<&Labels> = order.iter().map(|at| rising[*at as usize]).collect();
        rising.sort();
        prop_assert_eq!(ordered, rising);
        for selector in &selectors {
            let expected: RoaringBitmap = (0..series.len() as u32)
                .filter(|number| selector.matches(&series[*number as usize]))
                .collect();
            prop_assert_eq!(select(&index, selector).unwrap(), expected, "{}", selector);
        }
        let any = |labels: &&Labels| {
            selectors.is_empty() || selectors.iter().any(|selector| selector.matches(labels))
        };
        let names: BTreeSet<&str> =
            series.iter().filter(any).flat_map(|l| l.iter().map(|(name, _)| name)).collect();
        prop_assert_eq!(label_names(&index, &selectors).unwrap(), names.into_iter().collect::<Vec<_>>());
        for name in ["job", "x", "none"] {
            let values: BTreeSet<&str> =
                series.iter().filter(any).filter_map(|labels| labels.get(name)).collect();
            prop_assert_eq!(
                label_values(&index, name, &selectors).unwrap(),
                values.into_iter().collect::<Vec<_>>()
            );
        }
    }
}

#[test]
fn few_series_are_tested_one_by_one() {
    let mut series: Vec<Labels> = (0..2000)
        .map(|i| {
            let metric = if i % 1000 == 7 { "rare" } else { "common" };
            Labels::from_pairs([
                ("__name__", metric.to_owned()),
                ("id", format!("{i:04}")),
                ("all", "same".to_owned()),
            ])
        })
        .collect();
    series.sort_by(series_order);
    let index = Index::open(Mapped::new(build(&series)), "index").unwrap();
    let check = |op, pattern, expected: &[&str]| {
        let selector = Selector::new(vec![
            Matcher::equal("__name__", "rare"),
            Matcher::new(op, "id", pattern).unwrap(),
        ]);
        assert_eq!(label_values(&index, "id", &[selector]).unwrap(), expected);
    };
    check(MatchOp::Regex, ".*7", &["0007", "1007"]);
    check(MatchOp::Regex, "1.*7", &["1007"]);
    check(MatchOp::NotRegex, "1.*7", &["0007"]);
    let equal = |op, value, expected: &[&str]| {
        let rare = Matcher::equal("__name__", "rare");
        let selector = Selector::new(vec![rare, Matcher::new(op, "all", value).unwrap()]);
        assert_eq!(label_values(&index, "id", &[selector]).unwrap(), expected, "{op:?} {value}");
    };
    equal(MatchOp::Equal, "same", &["0007", "1007"]);
    equal(MatchOp::NotEqual, "same", &[]);
    equal(MatchOp::Equal, "other", &[]);
    equal(MatchOp::NotEqual, "other", &["0007", "1007"]);
}

#[test]
fn every_flipped_bit_is_found_or_harmless() {
    let mut series: Vec<Labels> = (0..40)
        .map(|i| {
            let metric = format!("m{}", i % 3);
            Labels::from_pairs([("__name__", metric), ("id", format!("{i}"))])
        })
        .collect();
    series.sort_by(series_order);
    let file = build(&series);
    let matcher = Matcher::new(MatchOp::Regex, "id", "1.*").unwrap();
    let expected = select(
        &Index::open(Mapped::new(file.clone()), "").unwrap(),
        &Selector::new(vec![matcher.clone()]),
    )
    .unwrap();
    for at in 0..file.len() {
        for bit in [1, 128] {
            let mut damaged = file.clone();
            damaged[at] ^= bit;
            let Ok(index) = Index::open(Mapped::new(damaged), "") else { continue };
            if let Ok(found) = select(&index, &Selector::new(vec![matcher.clone()])) {
                assert_eq!(found, expected, "byte {at}");
            }
            let all = 0..series.len() as u32;
            if let Ok(read) = index.label_table(all) {
                let read: Vec<Labels> = (0..series.len()).map(|at| read.labels(at)).collect();
                assert_eq!(read, series, "byte {at}");
            }
            if index.check_labels().is_ok() {
                assert!(index.label_table(0..series.len() as u32).is_ok(), "byte {at}");
            }
            for (number, labels) in series.iter().enumerate() {
                if let Ok(read) = index.labels(number as u32) {
                    assert_eq!(read, *labels, "byte {at}");
                }
            }
            assert!(index.verify().is_err(), "byte {at}");
        }
    }
}
