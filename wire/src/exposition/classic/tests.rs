use std::fmt::Write as _;

use proptest::prelude::*;

use super::super::{Entry, Format, Options, Parser};
use super::*;

/// What a body becomes: the texts of series that are left, and histograms in between.
fn convert(histograms: &mut ClassicHistograms, format: Format, body: &str) -> Vec<String> {
    let mut out = Vec::new();
    let mut say = |finished: Option<Finished>| match finished {
        Some(Finished::Whole(converted)) => {
            let mut text = String::new();
            let entry = converted.into_entry(&mut text);
            let float = entry.histogram.to_float();
            let integer = matches!(entry.histogram, Histogram::Integer(_));
            out.push(format!(
                "{} {:?} {:?} count {} sum {}{}{}",
                entry.raw,
                float.custom_bounds,
                float.positive_indexed(),
                float.count,
                float.sum,
                if integer { "" } else { " float" },
                entry.timestamp.map(|at| format!(" @{at}")).unwrap_or_default(),
            ));
        }
        Some(Finished::Broken) => out.push("broken".into()),
        None => {}
    };
    let options = Options { native_histograms: true, classic_too: true, ..Options::default() };
    let mut parser = Parser::with_options(format, body.as_bytes(), options);
    histograms.begin();
    let mut left = Vec::new();
    while let Some(entry) = parser.next().unwrap() {
        match entry {
            Entry::Type { name, kind } => say(histograms.family(&name, kind)),
            Entry::Series(entry) => {
                let taken = histograms.series(&entry);
                say(taken.finished);
                if !taken.is_part {
                    left.push(entry.raw.to_owned());
                }
            }
            Entry::Histogram(entry) => say(histograms.native(&entry)),
            Entry::Help { .. } | Entry::Unit { .. } => {}
        }
    }
    say(histograms.end());
    out.extend(left.into_iter().map(|raw| format!("left {raw}")));
    out
}

fn text(body: &str) -> Vec<String> {
    let mut histograms = ClassicHistograms::default();
    let body = format!("# TYPE h histogram\n{body}");
    let first = convert(&mut histograms, Format::PrometheusText, &body);
    // What is remembered is the same.
    assert_eq!(convert(&mut histograms, Format::PrometheusText, &body), first);
    first
}

#[test]
fn a_histogram_is_put_together() {
    let body = "h_bucket{le=\"0.5\"} 1\nh_bucket{le=\"1\"} 3\nh_bucket{le=\"+Inf\"} 4\nh_sum 5\nh_count 4\n";
    assert_eq!(text(body), ["h [0.5, 1.0] [(0, 1.0), (1, 2.0), (2, 1.0)] count 4 sum 5"]);
    let empty =
        "h_bucket{le=\"1\"} 0\nh_bucket{le=\"2\"} 0\nh_bucket{le=\"+Inf\"} 0\nh_count 0\nh_sum 0\n";
    assert_eq!(text(empty), ["h [1.0, 2.0] [] count 0 sum 0"]);
    let floats =
        "h_bucket{le=\"1\"} 1.5\nh_bucket{le=\"2\"} 1.5\nh_bucket{le=\"+Inf\"} 2.5\nh_count 2.5\n";
    assert_eq!(text(floats), ["h [1.0, 2.0] [(0, 1.5), (2, 1.0)] count 2.5 sum 0 float"]);
}

#[test]
fn what_is_missing_is_understood() {
    let all = "h [1.0] [(0, 3.0), (1, 1.0)] count 4 sum 5";
    assert_eq!(text("h_bucket{le=\"1\"} 3\nh_sum 5\nh_count 4\n"), [all]);
    assert_eq!(text("h_bucket{le=\"+Inf\"} 4\nh_bucket{le=\"1\"} 3\nh_sum 5\n"), [all]);
    assert_eq!(text("h_sum 5\nh_count 4\n"), ["h [] [(0, 4.0)] count 4 sum 5"]);
}

#[test]
fn labels_and_families_tell_histograms_apart() {
    let one = |a: &str| {
        format!("h_bucket{{le=\"1\",b=\"{a}\",a=\"x\"}} 1\nh_count{{a=\"x\",b=\"{a}\"}} 1 7\n")
    };
    let whole = |a: &str| format!("h{{a=\"x\",b=\"{a}\"}} [1.0] [(0, 1.0)] count 1 sum 0 @7");
    assert_eq!(text(&(one("x") + &one("y"))), [whole("x"), whole("y")]);
    let other = "h_count 1\nother_count 3\nh_count 2\n# TYPE g gauge\nh_count 3\n";
    assert_eq!(
        text(other),
        [
            "h [] [(0, 1.0)] count 1 sum 0",
            "h [] [(0, 2.0)] count 2 sum 0",
            "left other_count",
            "left h_count",
        ]
    );
    let within = "h_count 1\nh 5\nh_bucket{le=\"x\"} 2\nh_bucket{a=\"b\"} 1\nh_sum 3\n";
    assert_eq!(
        text(within),
        [
            "h [] [(0, 1.0)] count 1 sum 0",
            "h [] [] count 0 sum 3",
            "left h",
            "left h_bucket{le=\"x\"}",
            "left h_bucket{a=\"b\"}",
        ]
    );
}

#[test]
fn contradictions_cost_that_histogram_alone() {
    for broken in [
        "h_bucket{le=\"1\"} 3\nh_bucket{le=\"2\"} 1\nh_bucket{le=\"+Inf\"} 4\nh_count 4\n",
        "h_bucket{le=\"1\"} 3\nh_bucket{le=\"+Inf\"} 4\nh_count 9\n",
        "h_bucket{le=\"1\"} -3\nh_bucket{le=\"+Inf\"} 4\nh_count 4\n",
        "h_bucket{le=\"1\"} NaN\nh_bucket{le=\"+Inf\"} 4\nh_count 4\n",
        "h_bucket{le=\"-Inf\"} 0\nh_bucket{le=\"+Inf\"} 4\nh_count 4\n",
        "h_bucket{le=\"2\"} 4\nh_count 3\n",
    ] {
        let found = text(&format!("{broken}# TYPE k histogram\nk_count 1\n"));
        assert_eq!(found, ["broken", "k [] [(0, 1.0)] count 1 sum 0"], "{broken}");
    }
}

#[test]
fn a_native_histogram_is_not_made_again() {
    let mut histograms = ClassicHistograms::default();
    histograms.begin();
    histograms.family("h", MetricType::Histogram);
    let native = HistogramEntry {
        raw: "h{b=\"2\",a=\"1\"}",
        histogram: Histogram::Integer(IntegerHistogram::default()),
        timestamp: None,
        exemplars: Vec::new(),
        started: None,
    };
    assert!(histograms.native(&native).is_none());
    let mut parser = Parser::new(
        Format::PrometheusText,
        b"# TYPE h histogram\nh_count{a=\"1\",b=\"2\"} 1\nh_count{a=\"1\",b=\"3\"} 1\n",
    );
    let mut parts = Vec::new();
    while let Some(entry) = parser.next().unwrap() {
        if let Entry::Series(entry) = entry {
            parts.push(histograms.series(&entry).is_part);
        }
    }
    assert_eq!(parts, [false, true]);
}

#[test]
fn what_is_not_shown_any_more_is_forgotten() {
    let mut histograms = ClassicHistograms::default();
    let body = |name: usize| format!("# TYPE h histogram\nh_count{{a=\"{name}\"}} 1\n");
    for name in 0..9 {
        convert(&mut histograms, Format::PrometheusText, &body(name));
        assert!(histograms.parts.len() <= 2);
    }
}

proptest! {
    /// Cumulative counts and the sum of what comes back are those that went in.
    #[test]
    fn no_observation_is_lost(own in prop::collection::vec(0..9_u32, 1..12), half in any::<bool>()) {
        let scale = if half { 0.5 } else { 1.0 };
        let mut body = String::from("# TYPE h histogram\n");
        let mut below = 0.0;
        for (at, count) in own.iter().enumerate() {
            below += f64::from(*count) * scale;
            let bound = if at + 1 == own.len() { "+Inf".to_owned() } else { at.to_string() };
            writeln!(body, "h_bucket{{le=\"{bound}\"}} {below}").unwrap();
        }
        writeln!(body, "h_count {below}").unwrap();
        let mut histograms = ClassicHistograms::default();
        histograms.begin();
        let mut parser = Parser::new(Format::PrometheusText, body.as_bytes());
        while let Some(entry) = parser.next().unwrap() {
            match entry {
                Entry::Type { name, kind } => drop(histograms.family(&name, kind)),
                Entry::Series(entry) => prop_assert!(histograms.series(&entry).is_part),
                _ => {}
            }
        }
        let Some(Finished::Whole(converted)) = histograms.end() else {
            return Err(TestCaseError::fail("not whole"));
        };
        let histogram = converted.histogram.to_float();
        prop_assert_eq!(histogram.custom_bounds.len() + 1, own.len());
        let mut counts = vec![0.0; own.len()];
        for (at, count) in histogram.positive_indexed() {
            counts[at as usize] = count;
        }
        let expected: Vec<f64> = own.iter().map(|count| f64::from(*count) * scale).collect();
        prop_assert_eq!(counts, expected);
        prop_assert_eq!(histogram.count, below);
    }
}
