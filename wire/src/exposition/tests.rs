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
