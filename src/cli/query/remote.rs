//! `stint query instant|range|series|labels`: promtool's words for asking a server.

use std::io::Write as _;

use anyhow::Context as _;
use clap::{Args, Subcommand};
use serde_json::Value as Json;
use stint_model::clock::SystemClock;
use stint_model::{Clock as _, Span, Timestamp};

use super::{asked, labels_of, listing};
use crate::api::params::parse_time;
use crate::cli::Format;

/// What a server is asked.
#[derive(Debug, Subcommand)]
pub(in crate::cli) enum QueryWhat {
    /// Evaluates a query at one time.
    Instant(InstantArgs),
    /// Evaluates a query at many times.
    Range(RangeArgs),
    /// Lists series.
    Series(SeriesArgs),
    /// Lists the values of a label.
    Labels(LabelsArgs),
}

#[derive(Debug, Args)]
pub(in crate::cli) struct InstantArgs {
    /// The server.
    #[arg(value_name = "URL")]
    server: String,
    /// The query.
    #[arg(value_name = "PROMQL")]
    expr: String,
    /// The time, in seconds or as RFC 3339; now without.
    #[arg(long, value_name = "TIME")]
    time: Option<String>,
    /// How the answer is printed.
    #[arg(short = 'o', long, value_enum, default_value_t = Format::Text)]
    format: Format,
}

#[derive(Debug, Args)]
pub(in crate::cli) struct RangeArgs {
    /// The server.
    #[arg(value_name = "URL")]
    server: String,
    /// The query.
    #[arg(value_name = "PROMQL")]
    expr: String,
    /// The first time, in seconds or as RFC 3339; five minutes before the last without.
    #[arg(long, value_name = "TIME")]
    start: Option<String>,
    /// The last time; now without.
    #[arg(long, value_name = "TIME")]
    end: Option<String>,
    /// The distance of the times, such as 15s; without, so that there are 250, and a second at least.
    #[arg(long, value_name = "DURATION")]
    step: Option<String>,
    /// How the answer is printed.
    #[arg(short = 'o', long, value_enum, default_value_t = Format::Text)]
    format: Format,
}

#[derive(Debug, Args)]
pub(in crate::cli) struct SeriesArgs {
    /// The server.
    #[arg(value_name = "URL")]
    server: String,
    /// Which series; may be repeated.
    #[arg(long = "match", value_name = "SELECTOR", required = true)]
    selectors: Vec<String>,
    #[command(flatten)]
    rest: RestArgs,
}

#[derive(Debug, Args)]
pub(in crate::cli) struct LabelsArgs {
    /// The server.
    #[arg(value_name = "URL")]
    server: String,
    /// The label.
    name: String,
    /// Only of these series; may be repeated.
    #[arg(long = "match", value_name = "SELECTOR")]
    selectors: Vec<String>,
    #[command(flatten)]
    rest: RestArgs,
}

#[derive(Debug, Args)]
struct RestArgs {
    /// Only what has samples from here on, in seconds or as RFC 3339.
    #[arg(long, value_name = "TIME")]
    start: Option<String>,
    /// Only what has samples up to here.
    #[arg(long, value_name = "TIME")]
    end: Option<String>,
    /// How the answer is printed.
    #[arg(short = 'o', long, value_enum, default_value_t = Format::Text)]
    format: Format,
}

impl RestArgs {
    fn fields<'a>(&'a self, selectors: &'a [String]) -> Vec<(&'static str, &'a str)> {
        let mut fields: Vec<(&str, &str)> =
            selectors.iter().map(|selector| ("match[]", selector.as_str())).collect();
        fields.extend(self.start.as_deref().map(|start| ("start", start)));
        fields.extend(self.end.as_deref().map(|end| ("end", end)));
        fields
    }
}

/// How far back a query at many times begins that does not say where.
const RANGE: Span = Span(5 * Span::MINUTE.0);
/// How many steps such a query has that does not say how long they are.
const STEPS: i64 = 250;

impl RangeArgs {
    /// First and last time and their distance, in seconds.
    fn times(&self, now: Timestamp) -> anyhow::Result<[String; 3]> {
        let read = |name: &str, text: &str| {
            parse_time(text).map_err(|cause| anyhow::anyhow!("--{name}={text}: {cause}"))
        };
        let end = self.end.as_deref().map_or(Ok(now), |text| read("end", text))?;
        let start = self.start.as_deref().map_or(Ok(end - RANGE), |text| read("start", text))?;
        let seconds = |time: Timestamp| time.as_secs_f64().to_string();
        let step = self.step.clone().unwrap_or_else(|| {
            let whole = end.0.saturating_sub(start.0) / 1000 / STEPS;
            whole.max(1).to_string()
        });
        Ok([seconds(start), seconds(end), step])
    }
}

/// What promtool prints as JSON: the result alone.
fn json(data: &Json) -> String {
    format!("{}\n", data.get("result").unwrap_or(data))
}

/// Asks, and prints the answer on standard output.
pub(super) fn run(what: &QueryWhat) -> anyhow::Result<()> {
    let (data, format) = match what {
        QueryWhat::Instant(args) => {
            let mut fields = vec![("query", args.expr.as_str())];
            fields.extend(args.time.as_deref().map(|time| ("time", time)));
            (asked(&args.server, "query", &fields)?, args.format)
        }
        QueryWhat::Range(args) => {
            let [start, end, step] = args.times(SystemClock::new().now())?;
            let fields =
                [("query", args.expr.as_str()), ("start", &start), ("end", &end), ("step", &step)];
            (asked(&args.server, "query_range", &fields)?, args.format)
        }
        QueryWhat::Series(args) => {
            let fields = args.rest.fields(&args.selectors);
            (asked(&args.server, "series", &fields)?, args.rest.format)
        }
        QueryWhat::Labels(args) => {
            let fields = args.rest.fields(&args.selectors);
            let path = format!("label/{}/values", escaped(&args.name));
            (asked(&args.server, &path, &fields)?, args.rest.format)
        }
    };
    let text = match format {
        Format::Json => json(&data),
        Format::Text if data.is_array() => lines(&data),
        Format::Text => listing(&data),
    };
    std::io::stdout().write_all(text.as_bytes()).context("cannot print the answer")
}

/// A name as a part of a path.
fn escaped(name: &str) -> String {
    let escape = |byte: u8| match byte {
        b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'_' | b'-' | b'.' => {
            char::from(byte).to_string()
        }
        byte => format!("%{byte:02X}"),
    };
    name.bytes().map(escape).collect()
}

/// One line for each series or value.
fn lines(data: &Json) -> String {
    let mut text = String::new();
    for one in data.as_array().into_iter().flatten() {
        text.push_str(&one.as_str().map_or_else(|| labels_of(one).to_string(), str::to_owned));
        text.push('\n');
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lists_are_lines() {
        assert_eq!(lines(&serde_json::json!(["a", "b c"])), "a\nb c\n");
        let series = serde_json::json!([{"__name__": "up", "job": "a"}]);
        assert_eq!(lines(&series), "{__name__=\"up\", job=\"a\"}\n");
        assert_eq!(escaped("a/b é"), "a%2Fb%20%C3%A9");
        let vector = serde_json::json!({"resultType": "vector", "result": [{"value": [1, "2"]}]});
        assert_eq!(json(&vector), "[{\"value\":[1,\"2\"]}]\n");
        assert_eq!(json(&series), "[{\"__name__\":\"up\",\"job\":\"a\"}]\n");
    }

    #[test]
    fn times_that_are_not_said_are_those_of_promtool() {
        let args = |start: Option<&str>, end: Option<&str>, step: Option<&str>| {
            let [start, end, step] = [start, end, step].map(|text| text.map(str::to_owned));
            let (server, expr) = (String::new(), String::new());
            RangeArgs { server, expr, start, end, step, format: Format::Text }
        };
        let now = Timestamp(1_000_500);
        let times = |args: RangeArgs| args.times(now).map_err(|error| error.to_string());
        let expect = |times: [&str; 3]| Ok(times.map(str::to_owned));
        assert_eq!(times(args(None, None, None)), expect(["700.5", "1000.5", "1"]));
        let hour = args(Some("1970-01-01T00:00:00Z"), Some("3600"), None);
        assert_eq!(times(hour), expect(["0", "3600", "14"]));
        assert_eq!(times(args(None, Some("400"), Some("7s"))), expect(["100", "400", "7s"]));
        let wrong = times(args(Some("now"), None, None)).unwrap_err();
        assert!(wrong.starts_with("--start=now: "), "{wrong}");
    }
}
