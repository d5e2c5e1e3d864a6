use std::fmt::Write as _;

use super::*;

/// The entries of a body, one line each, or the error.
fn read(format: Format, body: &str) -> String {
    let mut parser = Parser::new(format, body.as_bytes());
    let mut out = String::new();
    loop {
        let mut labels = Vec::new();
        let line = match parser.next() {
            Ok(None) => return out,
            Err(error) => return format!("{out}error: {error}\n"),
            Ok(Some(Entry::Series(series))) => {
                series.labels(&mut labels);
                let mut line = format!("{} ->", series.raw);
                for (name, value) in &labels {
                    write!(line, " {name}={value:?}").unwrap();
                }
                write!(line, " {:?}", series.value).unwrap();
                if let Some(at) = series.timestamp {
                    write!(line, " @{at}").unwrap();
                }
                if let Some(exemplar) = series.exemplar {
                    write!(line, " {:?}", exemplar.decode(Timestamp(0))).unwrap();
                }
                line
            }
            Ok(Some(other)) => format!("{other:?}"),
        };
        out += &line;
        out.push('\n');
    }
}

#[test]
fn a_text_body() {
    let body = "# HELP a_total Some \\\\ help\\n text\n# TYPE a_total counter\n# a comment\n\n\
                a_total{code=\"200\",path=\"a\\\"b\\\\c\\nd\\x\",} 1027 1395066363000\n\
                \t a_total { code = \"500\" } +Inf\nbare 1.5e3\n{\"ütf 8\", \"l l\"=\"v\"} NaN\n\
                # TYPE h histogram\nh_bucket{le=\"1\"} 5\nh_bucket{le=\"1000000\"} 5";
    let expected = r#"Help { name: "a_total", text: "Some \\ help\n text" }
Type { name: "a_total", kind: Counter }
a_total{code="200",path="a\"b\\c\nd\x",} -> __name__="a_total" code="200" path="a\"b\\c\nd\\x" 1027.0 @1395066363000
a_total { code = "500" } -> __name__="a_total" code="500" inf
bare -> __name__="bare" 1500.0
{"ütf 8", "l l"="v"} -> __name__="ütf 8" l l="v" NaN
Type { name: "h", kind: Histogram }
h_bucket{le="1"} -> __name__="h_bucket" le="1.0" 5.0
h_bucket{le="1000000"} -> __name__="h_bucket" le="1e+06" 5.0
"#;
    assert_eq!(read(Format::PrometheusText, body), expected);
}

#[test]
fn an_openmetrics_body() {
    let body = "# TYPE a counter\n# UNIT a_seconds seconds\n# HELP a x\\\"y\n\
                a_total{l=\"v\"} 1 1.5204 # {trace_id=\"t\"} 0.5 2\na_created 17\n# EOF\n";
    let expected = r#"Type { name: "a", kind: Counter }
Unit { name: "a_seconds", unit: "seconds" }
Help { name: "a", text: "x\"y" }
a_total{l="v"} -> __name__="a_total" l="v" 1.0 @1520 Exemplar { labels: {trace_id="t"}, value: 0.5, at: Timestamp(2000) }
a_created -> __name__="a_created" 17.0
"#;
    assert_eq!(read(Format::OpenMetrics, body), expected);
}

#[test]
fn start_times_are_series_unless_wanted_as_such() {
    let body = "# TYPE c counter\nc_total{a=\"1\",b=\"2\"} 5\nc_created{b=\"2\",a=\"1\"} 17.5\n\
                c_total{a=\"2\"} 6\n# TYPE h histogram\nh_created 2\nh_bucket{le=\"1\"} 1\nh_sum 3\n\
                # TYPE g gauge\ng_created 4\n# EOF";
    let starts = |created_as_start| {
        let options = Options { created_as_start, ..Options::default() };
        let mut parser = Parser::with_options(Format::OpenMetrics, body.as_bytes(), options);
        let mut found = Vec::new();
        while let Some(entry) = parser.next().unwrap() {
            if let Entry::Series(series) = entry {
                found.push((series.raw.to_owned(), series.started.map(Timestamp::as_ms)));
            }
        }
        found
    };
    let found = starts(true);
    let found: Vec<_> = found.iter().map(|(raw, started)| (raw.as_str(), *started)).collect();
    assert_eq!(
        found,
        [
            ("c_total{a=\"1\",b=\"2\"}", Some(17_500)),
            ("c_total{a=\"2\"}", None),
            ("h_bucket{le=\"1\"}", Some(2000)),
            ("h_sum", Some(2000)),
            ("g_created", None),
        ]
    );
    assert_eq!(starts(false).len(), 7);
    assert!(starts(false).iter().all(|(_, started)| started.is_none()));
}

fn check_error(format: Format, body: &str, expected: &str) {
    let mut parser = Parser::new(format, body.as_bytes());
    let error = loop {
        match parser.next() {
            Ok(Some(_)) => {}
            Ok(None) => panic!("{body:?} should be refused"),
            Err(error) => break error,
        }
    };
    assert_eq!(error.to_string(), expected, "{body:?}");
}

#[test]
fn faults_of_the_text_format_say_line_and_cause() {
    let check = |body, expected| check_error(Format::PrometheusText, body, expected);
    check("a", "line 1: expected value after metric: \"a\"");
    check("a\n", "line 1: expected value after metric: \"a\"");
    check("ok 1\n\na{b='c'} 1\n", "line 3: expected label value in quotes: \"a{b='c'} 1\"");
    check("a{b=\"c\" 1\n", "line 1: expected label name: \"a{b=\\\"c\\\" 1\"");
    check("a{b=\"c} 1\n", "line 1: label value is not closed: \"a{b=\\\"c} 1\"");
    check("a{b\"c\"} 1\n", "line 1: expected equal after label name: \"a{b\\\"c\\\"} 1\"");
    check("a{,} 1\n", "line 1: expected label name: \"a{,} 1\"");
    check("a{b=\"c\",,} 1\n", "line 1: expected label name: \"a{b=\\\"c\\\",,} 1\"");
    check("a{1=\"c\"} 1\n", "line 1: expected label name: \"a{1=\\\"c\\\"} 1\"");
    check("a{b:=\"c\"} 1\n", "line 1: expected equal after label name: \"a{b:=\\\"c\\\"} 1\"");
    check("a{\"b\"} 1\n", "line 1: metric name already set: \"a{\\\"b\\\"} 1\"");
    check("{a=\"b\"} 1\n", "line 1: metric name not set: \"{a=\\\"b\\\"} 1\"");
    check("{} 1\n", "line 1: metric name not set: \"{} 1\"");
    check("1a 1\n", "line 1: expected metric name: \"1a 1\"");
    check("a 1_000\n", "line 1: invalid value \"1_000\": \"a 1_000\"");
    check("a 0x1p-2\n", "line 1: invalid value \"0x1p-2\": \"a 0x1p-2\"");
    check("a 1e400\n", "line 1: invalid value \"1e400\": \"a 1e400\"");
    check("a 1 -1\n", "line 1: expected timestamp in milliseconds, got \"-1\": \"a 1 -1\"");
    check("a 1 1.5\n", "line 1: expected timestamp in milliseconds, got \"1.5\": \"a 1 1.5\"");
    check("a 1 2 3\n", "line 1: expected next line after timestamp: \"a 1 2 3\"");
    check(
        "a 1 # {b=\"c\"} 1\n",
        "line 1: expected timestamp in milliseconds, got \"#\": \"a 1 # {b=\\\"c\\\"} 1\"",
    );
    check("# TYPE a info\n", "line 1: invalid metric type \"info\": \"# TYPE a info\"");
    check("# TYPE a counter \n", "line 1: invalid metric type \"counter \": \"# TYPE a counter \"");
    check("# TYPE a\n", "line 1: invalid metric type \"\": \"# TYPE a\"");
    check("# HELP \n", "line 1: expected metric name: \"# HELP \"");
    check("# HELP 1 x\n", "line 1: expected metric name: \"# HELP 1 x\"");
}

#[test]
fn the_text_format_is_lenient_where_prometheus_is() {
    let check = |body: &str, expected: &str| {
        assert_eq!(read(Format::PrometheusText, body), expected, "{body:?}");
    };
    check("", "");
    check("\n \t\n# anything # goes\n#TYPE a nonsense\n# TYPE\n# HELP\n", "");
    check("a{}1", "a{} -> __name__=\"a\" 1.0\n");
    check(
        "a{b=\"c\" d=\"e\"}  +1\t 5 \n",
        "a{b=\"c\" d=\"e\"} -> __name__=\"a\" b=\"c\" d=\"e\" 1.0 @5\n",
    );
    check("{b=\"c\",\"a\"} 1", "{b=\"c\",\"a\"} -> b=\"c\" __name__=\"a\" 1.0\n");
    check("a{b=\"c\nd\"} 1", "a{b=\"c\nd\"} -> __name__=\"a\" b=\"c\\nd\" 1.0\n");
    check(":a:b 1e-3", ":a:b -> __name__=\":a:b\" 0.001\n");
    check("# HELP a\n", "Help { name: \"a\", text: \"\" }\n");
    check("# HELP \"a b\" c \\\" d\n", "Help { name: \"a b\", text: \"c \\\\\\\" d\" }\n");
    check(
        "# TYPE s summary\ns{quantile=\"1\"} 1\nt{le=\"1\"} 1\n",
        "Type { name: \"s\", kind: Summary }\ns{quantile=\"1\"} -> __name__=\"s\" quantile=\"1.0\" 1.0\n\
         t{le=\"1\"} -> __name__=\"t\" le=\"1\" 1.0\n",
    );
}

#[test]
fn faults_of_openmetrics_say_line_and_cause() {
    let check = |body, expected| check_error(Format::OpenMetrics, body, expected);
    check("", "line 1: data does not end with # EOF: \"\"");
    check("a 1\n", "line 2: data does not end with # EOF: \"\"");
    check("a 1", "line 1: data does not end with # EOF: \"a 1\"");
    check("a 1\n# EOF\n\n", "line 2: unexpected data after # EOF: \"# EOF\"");
    check("a 1\n# EOFx", "line 2: unexpected data after # EOF: \"# EOFx\"");
    check("\na 1\n# EOF\n", "line 1: expected metric name: \"\"");
    check(
        "# a comment\n# EOF\n",
        "line 1: expected # TYPE, # HELP, # UNIT or # EOF: \"# a comment\"",
    );
    check(
        "#TYPE a gauge\n# EOF\n",
        "line 1: expected # TYPE, # HELP, # UNIT or # EOF: \"#TYPE a gauge\"",
    );
    check(
        "# TYPE a untyped\n# EOF\n",
        "line 1: invalid metric type \"untyped\": \"# TYPE a untyped\"",
    );
    check(
        "# TYPE a\n# EOF\n",
        "line 1: expected one space and text after metric name: \"# TYPE a\"",
    );
    check("# TYPE a gauge", "line 1: data does not end with # EOF: \"# TYPE a gauge\"");
    check(
        "# UNIT a_x seconds\n",
        "line 1: unit \"seconds\" is not a suffix of metric \"a_x\": \"# UNIT a_x seconds\"",
    );
    check(
        "# UNIT seconds seconds\n",
        "line 1: unit \"seconds\" is not a suffix of metric \"seconds\": \"# UNIT seconds seconds\"",
    );
    check("a  1\n", "line 1: invalid value \"\": \"a  1\"");
    check("a\t1\n", "line 1: expected one space and then the value: \"a\\t1\"");
    check("a {b=\"c\"} 1\n", "line 1: invalid value \"{b=\\\"c\\\"}\": \"a {b=\\\"c\\\"} 1\"");
    check("a{b=\"c\"}1\n", "line 1: expected one space and then the value: \"a{b=\\\"c\\\"}1\"");
    check("a{b=\"c\" } 1\n", "line 1: expected comma or brace after label: \"a{b=\\\"c\\\" } 1\"");
    check("a{b=\"c\nd\"} 1\n", "line 1: label value is not closed: \"a{b=\\\"c\"");
    check("a 1 \n", "line 1: invalid timestamp \"\": \"a 1 \"");
    check("a 1 NaN\n", "line 1: invalid timestamp NaN: \"a 1 NaN\"");
    check("a 1 2 3\n", "line 1: expected timestamp, exemplar or next line: \"a 1 2 3\"");
    check(
        "a 1 # {b=\"c\"}\n",
        "line 1: expected one space and then the exemplar value: \"a 1 # {b=\\\"c\\\"}\"",
    );
    check(
        "a 1 # {b=\"c\"} 1 +Inf\n",
        "line 1: invalid timestamp inf: \"a 1 # {b=\\\"c\\\"} 1 +Inf\"",
    );
    check(
        "a 1 # {b=\"c\"} 1 1 1\n",
        "line 1: expected timestamp, exemplar or next line: \"a 1 # {b=\\\"c\\\"} 1 1 1\"",
    );
    check("a 1 # {} 1 # {} 1\n", "line 1: invalid timestamp \"#\": \"a 1 # {} 1 # {} 1\"");
}

#[test]
fn openmetrics_in_its_less_usual_forms() {
    let check = |body: &str, expected: &str| {
        assert_eq!(read(Format::OpenMetrics, body), expected, "{body:?}");
    };
    check("# EOF", "");
    check(
        "a{b=\"c\",} -1.5 -1.0005\n# EOF\n",
        "a{b=\"c\",} -> __name__=\"a\" b=\"c\" -1.5 @-1000\n",
    );
    check("{\"a b\",c=\"d\"} nan\n# EOF", "{\"a b\",c=\"d\"} -> __name__=\"a b\" c=\"d\" NaN\n");
    check(
        "a 1 # {} 2\n# EOF\n",
        "a -> __name__=\"a\" 1.0 Exemplar { labels: {}, value: 2.0, at: Timestamp(0) }\n",
    );
    check("# UNIT a \n# EOF\n", "Unit { name: \"a\", unit: \"\" }\n");
    check("# TYPE a gaugehistogram\n# EOF\n", "Type { name: \"a\", kind: GaugeHistogram }\n");
}

#[test]
fn text_that_is_not_utf8_is_refused_with_its_line() {
    for format in [Format::PrometheusText, Format::OpenMetrics] {
        let error = Parser::new(format, b"a 1\nb{c=\"\xff\"} 1\n").next().unwrap_err();
        assert_eq!(error.to_string(), "line 2: invalid UTF-8 after \"b{c=\\\"\"");
    }
}

#[test]
fn the_stale_marker_cannot_be_exposed() {
    let mut parser = Parser::new(Format::PrometheusText, b"a NaN\n");
    let Ok(Some(Entry::Series(series))) = parser.next() else { panic!("expected a series") };
    assert!(!stint_model::sample::is_stale(series.value));
    assert_eq!(series.value.to_bits(), 0x7ff8_0000_0000_0001);
}

#[test]
fn errors_show_only_the_beginning_of_long_lines() {
    let body = format!("{}é 1\n", "x".repeat(1000));
    let error = Parser::new(Format::PrometheusText, body.as_bytes()).next().unwrap_err();
    assert!(error.to_string().len() < 200, "{error}");
}

mod laws {
    use super::*;
    use proptest::prelude::*;

    /// Text that the independent parser reads rightly: no escapes, separators or braces.
    fn plain_line() -> impl Strategy<Value = String> {
        let labels =
            proptest::collection::btree_map("[a-z_][a-z0-9_]{0,6}", "[a-z0-9 /.+-]{1,12}", 0..4);
        let value = prop_oneof![
            any::<f64>().prop_map(|value| format!("{value}")),
            any::<f64>().prop_map(|value| format!("{value:e}")),
            any::<i32>().prop_map(|value| value.to_string()),
            Just("+Inf".to_owned()),
            Just("NaN".to_owned()),
        ];
        ("[a-z_]{1,8}", labels, value, proptest::option::of(0_u32..)).prop_map(
            |(name, labels, value, at)| {
                let pairs: Vec<_> =
                    labels.iter().map(|(name, value)| format!("{name}=\"{value}\"")).collect();
                let block = if pairs.is_empty() {
                    String::new()
                } else {
                    format!("{{{}}}", pairs.join(","))
                };
                let at = at.map(|at| format!(" {at}")).unwrap_or_default();
                format!("{name}{block} {value}{at}")
            },
        )
    }

    fn described(entry: Result<Option<Entry<'_>>, ParseError>) -> String {
        match entry {
            Ok(Some(Entry::Series(series))) => {
                let mut labels = Vec::new();
                series.labels(&mut labels);
                format!("{} {labels:?} {}", series.raw, series.value)
            }
            other => format!("{other:?}"),
        }
    }

    fn entries(format: Format, body: &[u8]) -> Result<usize, ParseError> {
        let mut parser = Parser::new(format, body);
        let mut entries = 0;
        while let Some(entry) = parser.next()? {
            entries += 1;
            if let Entry::Series(series) = entry {
                let mut labels = Vec::new();
                series.labels(&mut labels);
                assert!(labels.iter().any(|(name, _)| name == "__name__"), "{}", series.raw);
                if let Some(exemplar) = series.exemplar {
                    exemplar.decode(Timestamp(0));
                }
            }
        }
        Ok(entries)
    }

    proptest! {
        #[test]
        fn the_independent_parser_reads_the_same(lines in proptest::collection::vec(plain_line(), 0..6)) {
            let body = lines.join("\n");
            let oracle = prometheus_parse::Scrape::parse(lines.iter().map(|line| Ok(line.clone())));
            let oracle = oracle.unwrap().samples;
            let mut parser = Parser::new(Format::PrometheusText, body.as_bytes());
            let mut rest = oracle.iter();
            while let Some(entry) = parser.next().unwrap() {
                let Entry::Series(series) = entry else { panic!("unexpected {entry:?}") };
                let sample = rest.next().unwrap();
                let prometheus_parse::Value::Untyped(value) = sample.value else { panic!() };
                prop_assert!(value == series.value || (value.is_nan() && series.value.is_nan()));
                if let Some(at) = series.timestamp {
                    prop_assert_eq!(at.as_ms(), sample.timestamp.timestamp_millis());
                }
                let mut labels = std::collections::HashMap::new();
                series.each_label(|name, value| {
                    labels.insert(name.to_owned(), value.to_owned());
                });
                prop_assert_eq!(labels.remove("__name__"), Some(sample.metric.clone()));
                prop_assert_eq!(&labels, &*sample.labels);
            }
            prop_assert!(rest.next().is_none());
        }

        #[test]
        fn expecting_a_series_changes_nothing(
            lines in proptest::collection::vec("a(b?(\\{(b=\"c\",?)?\\})?| \\{\\}) 1", 1..6),
            expected in proptest::collection::vec("a(b?(\\{(b=\"c\",?)?\\})?| \\{\\})", 6),
        ) {
            for (format, end) in [(Format::PrometheusText, ""), (Format::OpenMetrics, "\n# EOF")] {
                let body = lines.join("\n") + end;
                // Only what the format allows has ever been a series of it.
                let is_series = |raw: &str| {
                    let body = format!("{raw} 1\n# EOF");
                    Parser::new(format, body.as_bytes()).next().is_ok()
                };
                let mut plain = Parser::new(format, body.as_bytes());
                let mut hinted = plain.clone();
                for expected in expected.iter().filter(|raw| is_series(raw)) {
                    let (found, hinted) = (plain.next(), hinted.next_expecting(expected));
                    // What the hint spared is not compared.
                    prop_assert_eq!(described(found), described(hinted));
                }
            }
        }

        #[test]
        fn anything_at_all_is_read_or_refused(
            body in "([a-c{}=\",#\\\\ \t\n0-9.e+é-]|# TYPE a |# HELP a |# UNIT a|# EOF| # \\{|histogram\n){0,60}",
        ) {
            for format in [Format::PrometheusText, Format::OpenMetrics, Format::Protobuf] {
                if let Ok(entries) = entries(format, body.as_bytes()) {
                    prop_assert!(entries <= body.len());
                }
            }
        }

        #[test]
        fn what_openmetrics_takes_prometheus_text_takes_too(
            body in "(a(\\{b=\"[c\\\\\"n]{0,3}\"(,d=\"\")?,?\\})? [0-9]{1,3}(\\.[0-9])?\n){0,5}# EOF\n",
        ) {
            if let Ok(found) = entries(Format::OpenMetrics, body.as_bytes()) {
                prop_assert_eq!(entries(Format::PrometheusText, body.as_bytes()), Ok(found));
            }
        }
    }
}

/// The entries of a body, with those lines passed over that `known` tells.
fn passing_over(format: Format, body: &str, known: &[(&str, FamilyLine)]) -> Vec<String> {
    let mut parser = Parser::new(format, body.as_bytes());
    let mut entries = Vec::new();
    loop {
        parser.pass_over(|line| {
            let found = known.iter().find(|(text, _)| *text == line);
            found.map_or(FamilyLine::New, |(_, known)| *known)
        });
        match parser.next().unwrap() {
            None => return entries,
            Some(Entry::Series(series)) => {
                entries.push(format!("{} {} {:?}", series.raw, series.value, series.kind()));
            }
            Some(Entry::Type { name, .. }) => entries.push(format!("type {name}")),
            Some(Entry::Help { name, text }) => entries.push(format!("help {name} {text}")),
            Some(_) => entries.push("other".to_owned()),
        }
    }
}

#[test]
fn known_lines_are_passed_over_and_keep_their_meaning() {
    let body = "# HELP a x\n# TYPE a counter\na 1\n# HELP \"b\nc\" y\n# TYPE d gauge\nd 2\n";
    let known = [
        ("# HELP a x", FamilyLine::Known(None)),
        ("# TYPE a counter", FamilyLine::Known(Some(MetricType::Counter))),
        // A line that only begins with a name in quotes is not all that is said.
        ("# HELP \"b", FamilyLine::Known(None)),
    ];
    let text = Format::PrometheusText;
    let expected = ["a 1 Counter", "help b\nc y", "type d", "d 2 Gauge"];
    assert_eq!(passing_over(text, body, &known), expected);
    let all = ["help a x", "type a", "a 1 Counter", "help b\nc y", "type d", "d 2 Gauge"];
    assert_eq!(passing_over(text, body, &[]), all);
    let body = "# TYPE a gauge\na 1\n# EOF\n";
    let known = [
        ("# TYPE a gauge", FamilyLine::Known(Some(MetricType::Gauge))),
        ("# EOF", FamilyLine::Known(None)),
    ];
    assert_eq!(passing_over(Format::OpenMetrics, body, &known), ["a 1 Gauge"]);
}
