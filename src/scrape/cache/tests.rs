use super::*;

/// Shows `body` to the cache as a whole scrape; returns which of its series came as expected.
fn scrape(cache: &mut Cache, format: Format, body: &[&str]) -> Vec<bool> {
    cache.begin();
    cache.begin_body(format);
    let mut refs = Vec::new();
    let mut as_expected = Vec::new();
    for raw in body {
        as_expected.push(cache.expected() == *raw);
        let scrape = cache.scrape();
        if let Some(entry) = cache.find(raw, None, false) {
            entry.seen = scrape;
        } else {
            cache.insert(raw, Handle::Pending(refs.len()), None, true);
            refs.push(Some(SeriesRef(raw.bytes().map(u64::from).sum())));
        }
    }
    cache.finish(Ended::Whole, &refs);
    as_expected
}

#[test]
fn series_are_expected_where_they_were() {
    let mut cache = Cache::default();
    let mut text = |body: &[&str]| scrape(&mut cache, Format::PrometheusText, body);
    assert_eq!(text(&["a", "b", "c", "d"]), [false; 4]);
    assert_eq!(text(&["a", "b", "c", "d"]), [true; 4]);
    // What follows a gap or something new is where it is expected again.
    assert_eq!(text(&["a", "c", "d"]), [true, false, true]);
    assert_eq!(text(&["a", "new", "c", "d"]), [true, false, true, true]);
    assert_eq!(text(&["a", "new", "c", "d"]), [true; 4]);
    // One that comes twice has the place where it came first.
    assert_eq!(text(&["a", "a", "new"]), [true, false, true]);
    assert_eq!(text(&["a", "a", "new"]), [true, false, true]);
    // Another order is the one that is expected next.
    assert_eq!(text(&["new", "x", "a"]), [false, false, false]);
    assert_eq!(text(&["new", "x", "a"]), [true; 3]);
    assert_eq!(text(&[]), Vec::<bool>::new());
    assert_eq!(text(&["a"]), [false]);
}

#[test]
fn nothing_is_expected_of_another_format() {
    let mut cache = Cache::default();
    assert_eq!(scrape(&mut cache, Format::PrometheusText, &["a", "b"]), [false, false]);
    assert_eq!(scrape(&mut cache, Format::OpenMetrics, &["a", "b"]), [false, false]);
    assert_eq!(scrape(&mut cache, Format::OpenMetrics, &["a", "b"]), [true, true]);
}

#[test]
fn a_scrape_that_was_not_stored_changes_no_expectation() {
    let mut cache = Cache::default();
    scrape(&mut cache, Format::PrometheusText, &["a", "b"]);
    cache.begin();
    cache.begin_body(Format::PrometheusText);
    assert_eq!(cache.find("x", None, false).map(|entry| entry.handle()), None);
    cache.insert("x", Handle::Pending(0), None, true);
    cache.abandon();
    assert_eq!(scrape(&mut cache, Format::PrometheusText, &["a", "b"]), [true, true]);
    assert_eq!(cache.len(), 2, "x is forgotten");
}

#[test]
fn what_is_over_takes_no_room() {
    let mut cache = Cache::default();
    for round in 0..100 {
        let (a, b) = (format!("a{round}"), format!("b{round}"));
        scrape(&mut cache, Format::PrometheusText, &[&a, "x", &b]);
        assert_eq!((cache.entries.capacity(), cache.index.capacity()), (3, 0));
    }
    // Scrapes that fail show ever new series, too.
    let before = cache.texts.heap_bytes();
    for round in 0..100 {
        cache.begin();
        cache.begin_body(Format::PrometheusText);
        cache.insert(&format!("failed{round}"), Handle::Pending(0), None, true);
        cache.insert(&format!("dropped{round}"), Handle::Dropped, None, true);
        cache.finish(Ended::Failed, &[]);
        assert_eq!((cache.len(), cache.texts.heap_bytes()), (3, before));
    }
    let known = cache.find("x", None, false).map(|entry| entry.handle());
    assert_eq!(known, Some(Handle::Known(SeriesRef(120))));
}

#[test]
fn what_failing_scrapes_showed_and_whole_ones_too_outlives_them() {
    let mut cache = Cache::default();
    let fail = |cache: &mut Cache| {
        cache.begin();
        cache.finish(Ended::Failed, &[]);
    };
    cache.begin();
    cache.begin_body(Format::PrometheusText);
    cache.insert("a", Handle::Dropped, None, false);
    cache.finish(Ended::Whole, &[]);
    fail(&mut cache);
    assert_eq!(cache.find("a", None, false).map(|entry| entry.handle()), Some(Handle::Dropped));
}

#[test]
fn a_series_costs_few_bytes() {
    let body: Vec<String> = (0..1000)
        .map(|number| format!("node_cpu_seconds_total{{cpu=\"{}\",mode=\"{number}\"}}", number / 8))
        .collect();
    let mut cache = Cache::default();
    let texts: Vec<&str> = body.iter().map(String::as_str).collect();
    scrape(&mut cache, Format::PrometheusText, &texts);
    let bytes = cache.entries.capacity() * size_of::<Entry>() + cache.texts.heap_bytes();
    assert!(bytes < 1000 * 40, "{bytes}");
}

mod model {
    use std::collections::HashMap;

    use proptest::prelude::*;

    use super::*;

    proptest! {
        /// Whatever bodies come in whatever order, with scrapes that fail between them: each text has
        /// the handle that it got when it came first since it was last there.
        #[test]
        fn texts_keep_their_handles(
            bodies in proptest::collection::vec(
                (proptest::collection::vec(0u8..24, 0..30), 0u8..6),
                1..20,
            ),
        ) {
            let mut cache = Cache::default();
            let mut known: HashMap<u8, u64> = HashMap::new();
            let mut next = 0;
            for (body, fate) in bodies {
                cache.begin();
                cache.begin_body(Format::PrometheusText);
                let mut refs = Vec::new();
                let mut shown = known.clone();
                for number in &body {
                    let raw = format!("metric{{n=\"{number}\"}}");
                    let is_expected = cache.expected() == raw;
                    let scrape = cache.scrape();
                    if let Some(entry) = cache.find(&raw, None, is_expected) {
                        entry.seen = scrape;
                        let handle = entry.handle();
                        let is_right = match handle {
                            Handle::Known(series) => known.get(number) == Some(&series.0),
                            Handle::Pending(row) => shown.get(number).map(|series| SeriesRef(*series)) == refs[row],
                            _ => false,
                        };
                        prop_assert!(is_right, "{number} is {handle:?}");
                    } else {
                        prop_assert!(!shown.contains_key(number), "{number} was known");
                        cache.insert(&raw, Handle::Pending(refs.len()), None, true);
                        next += 1;
                        refs.push(Some(SeriesRef(next)));
                        shown.insert(*number, next);
                    }
                }
                match fate {
                    0 => cache.finish(Ended::Failed, &refs),
                    1 => cache.abandon(),
                    _ => {
                        cache.finish(Ended::Whole, &refs);
                        known = shown;
                        known.retain(|number, _| body.contains(number));
                        // The same body comes as expected.
                        let mut first: Vec<u8> = Vec::new();
                        for number in body {
                            if !first.contains(&number) {
                                first.push(number);
                            }
                        }
                        let mut text = String::new();
                        prop_assert_eq!(cache.len(), first.len());
                        for (place, number) in first.iter().enumerate() {
                            cache.texts.step(place, &mut text);
                            prop_assert_eq!(&text, &format!("metric{{n=\"{number}\"}}"));
                        }
                    }
                }
            }
        }
    }
}
