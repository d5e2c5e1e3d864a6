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
    // A series that comes twice has two places.
    assert_eq!(text(&["a", "a", "new"]), [true, false, true]);
    assert_eq!(text(&["a", "a", "new"]), [true; 3]);
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
    assert_eq!(cache.find("x", None, false).map(|entry| entry.handle), None);
    cache.insert("x", Handle::Pending(0), None, true);
    cache.abandon();
    assert_eq!(scrape(&mut cache, Format::PrometheusText, &["a", "b"]), [true, true]);
    assert_eq!(cache.entries().count(), 2, "x is forgotten");
}

#[test]
fn slots_are_used_again() {
    let mut cache = Cache::default();
    for round in 0..100 {
        let (a, b) = (format!("a{round}"), format!("b{round}"));
        scrape(&mut cache, Format::PrometheusText, &[&a, "x", &b]);
    }
    assert!(cache.slots.len() <= 5, "{}", cache.slots.len());
    assert_eq!(cache.index.len(), 3);
}

#[test]
fn texts_lie_in_the_order_of_the_body_and_leave_no_rubbish() {
    let mut cache = Cache::default();
    let mut text = |body: &[&str]| {
        scrape(&mut cache, Format::PrometheusText, body);
        cache.texts.all.clone()
    };
    assert_eq!(text(&["a", "b", "c"]), "abc");
    assert_eq!(text(&["c", "new", "a", "a"]), "cnewa");
    for round in 0..100 {
        let name = format!("name{round}");
        assert_eq!(text(&[&name, "a"]), format!("{name}a"));
    }
    // Scrapes that fail show ever new series, too.
    for round in 0..100 {
        cache.begin();
        cache.begin_body(Format::PrometheusText);
        cache.insert(&format!("failed{round}"), Handle::Pending(0), None, true);
        cache.finish(Ended::Failed, &[]);
        assert!(cache.texts.all.len() < 40, "{}", cache.texts.all);
    }
    let known = cache.find("a", None, false).map(|entry| entry.handle);
    assert_eq!(known, Some(Handle::Known(SeriesRef(97))));
}
