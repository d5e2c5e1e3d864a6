//! `stint query`: asks a running server, or tells how a query would be evaluated.

mod remote;

use std::fmt::Write as _;
use std::io::Write as _;
use std::time::Duration;

use anyhow::Context as _;
use clap::Args;
use reqwest::Method;
use serde_json::Value as Json;
use stint_model::Labels;
use stint_model::histogram::Short;
use stint_model::labels::{METRIC_NAME, is_legacy_metric_name};
use stint_promql::{Engine, EngineOptions, parse};

use crate::config::HttpConfig;
use crate::http::client::Client;

/// Asks a query of a running server and prints the answer, or with `--explain` the plan by which
/// it would be evaluated, for which no server is needed.
#[derive(Debug, Args)]
#[command(args_conflicts_with_subcommands = true, subcommand_negates_reqs = true)]
pub(super) struct QueryArgs {
    #[command(subcommand)]
    what: Option<remote::QueryWhat>,
    /// The query.
    #[arg(value_name = "PROMQL", required = true)]
    expr: Option<String>,
    /// Print how the query would be evaluated, and do not evaluate it.
    #[arg(long)]
    explain: bool,
    /// The running server.
    #[arg(long, default_value = "http://127.0.0.1:9090", value_name = "URL")]
    server: String,
    /// The time of the query, in seconds or as RFC 3339; now without.
    #[arg(long, value_name = "TIME", conflicts_with_all = ["start", "end", "step"])]
    time: Option<String>,
    /// The first time of a query at many times.
    #[arg(long, value_name = "TIME", requires = "end", requires = "step")]
    start: Option<String>,
    /// The last time of a query at many times.
    #[arg(long, value_name = "TIME", requires = "start")]
    end: Option<String>,
    /// The distance of the times, such as 15s.
    #[arg(long, value_name = "DURATION", requires = "start")]
    step: Option<String>,
}

/// Longer than a server lets any query run by default.
const TIMEOUT: Duration = Duration::from_mins(3);

/// Prints the answer or the plan on standard output.
pub(super) fn run(args: &QueryArgs) -> anyhow::Result<()> {
    if let Some(what) = &args.what {
        return remote::run(what);
    }
    let expr = args.expr.as_deref().unwrap_or_default();
    let text = if args.explain {
        plan(expr, args)?
    } else {
        let path = if args.start.is_some() { "query_range" } else { "query" };
        let mut fields = vec![("query", expr)];
        let times = [
            ("time", &args.time),
            ("start", &args.start),
            ("end", &args.end),
            ("step", &args.step),
        ];
        fields.extend(times.iter().filter_map(|(name, time)| Some((*name, time.as_deref()?))));
        listing(&asked(&args.server, path, &fields)?)
    };
    std::io::stdout().write_all(text.as_bytes()).context("cannot print the answer")
}

fn plan(expr: &str, args: &QueryArgs) -> anyhow::Result<String> {
    let features = parse::Options::all();
    let engine = Engine::new(EngineOptions { features, ..EngineOptions::default() });
    Ok(engine.explain(expr, args.start.is_some())?)
}

/// The data that a server answers, with its remarks told on standard error.
fn asked(server: &str, path: &str, fields: &[(&str, &str)]) -> anyhow::Result<Json> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let answer = runtime.block_on(ask(server, path, fields))?;
    for remark in remarks(&answer) {
        // Where standard error is closed, there is nobody to be warned.
        let _ = writeln!(std::io::stderr(), "{remark}");
    }
    Ok(answer.get("data").cloned().unwrap_or(Json::Null))
}

pub(super) async fn ask(server: &str, path: &str, fields: &[(&str, &str)]) -> anyhow::Result<Json> {
    let url = format!("{}/api/v1/{path}", server.trim_end_matches('/'));
    let agent = concat!("Stint/", env!("CARGO_PKG_VERSION"));
    let client = Client::new(&HttpConfig::default(), agent)?;
    // Values of a label are told to GET alone.
    let method = if path.ends_with("/values") { Method::GET } else { Method::POST };
    let request = client.request(method.clone(), &url).await?.timeout(TIMEOUT);
    let hint = || format!("cannot ask {url}; is the server running there?");
    let request = if method == Method::GET { request.query(fields) } else { request.form(fields) };
    let response = request.send().await.with_context(hint)?;
    let status = response.status();
    let body = response.bytes().await.with_context(hint)?;
    let answer: Json = serde_json::from_slice(&body)
        .with_context(|| format!("{url} answered {status} and no JSON"))?;
    match answer.get("error").and_then(Json::as_str) {
        Some(error) => anyhow::bail!("{error}"),
        None => Ok(answer),
    }
}

/// Warnings and infos of an answer.
fn remarks(answer: &Json) -> Vec<&str> {
    let lists = ["warnings", "infos"].into_iter().filter_map(|name| answer.get(name)?.as_array());
    lists.flatten().filter_map(Json::as_str).collect()
}

/// One line for each series of one sample; for more samples, a line each below their series. As
/// promtool prints it, so that what reads its output reads this one.
fn listing(data: &Json) -> String {
    let mut text = String::new();
    let result = data.get("result").unwrap_or(&Json::Null);
    match data.get("resultType").and_then(Json::as_str) {
        Some("scalar") => {
            push_line(&mut text, "scalar: ", &value_text(result.get(1)), result);
            return text;
        }
        Some("string") => {
            text.push_str(result.get(1).and_then(Json::as_str).unwrap_or_default());
            text.push('\n');
            return text;
        }
        _ => {}
    }
    for series in result.as_array().into_iter().flatten() {
        let name = series_name(series.get("metric").unwrap_or(&Json::Null));
        let begun = format!("{name} => ");
        if let Some(sample) = series.get("value") {
            push_line(&mut text, &begun, &value_text(sample.get(1)), sample);
        }
        if let Some(sample) = series.get("histogram") {
            push_line(&mut text, &begun, &histogram_text(sample.get(1)), sample);
        }
        let many = |key| series.get(key).and_then(Json::as_array).into_iter().flatten();
        if many("values").chain(many("histograms")).next().is_some() {
            text.push_str(&name);
            text.push_str(" =>\n");
        }
        for sample in many("values") {
            push_line(&mut text, "", &value_text(sample.get(1)), sample);
        }
        for sample in many("histograms") {
            push_line(&mut text, "", &histogram_text(sample.get(1)), sample);
        }
    }
    text
}

fn push_line(text: &mut String, begun: &str, value: &str, sample: &Json) {
    let at = sample.get(0).unwrap_or(&Json::Null);
    // Writing to a string cannot fail.
    let _: std::fmt::Result = writeln!(text, "{begun}{value} @[{at}]");
}

/// A number in all its digits; what is none, as it came.
fn value_text(value: Option<&Json>) -> String {
    let Some(text) = value.and_then(Json::as_str) else {
        return value.map(Json::to_string).unwrap_or_default();
    };
    match text.parse::<f64>() {
        Ok(value) if value.is_finite() => value.to_string(),
        _ => text.to_owned(),
    }
}

/// Count, sum and buckets in a line.
fn histogram_text(histogram: Option<&Json>) -> String {
    let part = |key: &str| histogram.and_then(|histogram| histogram.get(key));
    let number = |value: Option<&Json>| -> f64 {
        value.and_then(Json::as_str).and_then(|text| text.parse().ok()).unwrap_or(f64::NAN)
    };
    let (count, sum) = (number(part("count")), number(part("sum")));
    let buckets = part("buckets").and_then(Json::as_array).into_iter().flatten().map(|bucket| {
        let ends = match bucket.get(0).and_then(Json::as_u64) {
            Some(0) => ["(", "]"],
            Some(1) => ["[", ")"],
            Some(2) => ["(", ")"],
            _ => ["[", "]"],
        };
        let bound = |at: usize| Short(number(bucket.get(at)));
        let count = value_text(bucket.get(3));
        format!("{}{},{}{}:{count}", ends[0], bound(1), bound(2), ends[1])
    });
    let buckets: Vec<String> = buckets.collect();
    format!("Count: {count:.6}, Sum: {sum:.6}, Buckets: [{}]", buckets.join(" "))
}

fn labels_of(metric: &Json) -> Labels {
    let labels = metric.as_object().into_iter().flatten();
    Labels::from_pairs(labels.filter_map(|(name, value)| Some((name, value.as_str()?))))
}

/// A series as it would be selected: its name, where it may stand there, before the other labels.
fn series_name(metric: &Json) -> String {
    let labels = labels_of(metric);
    let name = labels.get(METRIC_NAME).unwrap_or_default();
    if !is_legacy_metric_name(name) {
        return labels.to_string();
    }
    let others = Labels::from_pairs(labels.iter().filter(|(name, _)| *name != METRIC_NAME));
    if others.is_empty() { name.to_owned() } else { format!("{name}{others}") }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn answers_are_lines() {
        let vector = serde_json::json!({"resultType": "vector", "result": [
            {"metric": {"__name__": "up", "job": "a"}, "value": [1.5, "1e+21"]},
            {"metric": {"__name__": "up"}, "value": [1.5, "+Inf"]},
            {"metric": {"a.b": "c"}, "histogram": [2, {"count": "3", "sum": "NaN", "buckets": [
                [1, "-2", "-1", "1"], [0, "0.5", "1e+06", "2"]
            ]}]},
        ]});
        assert_eq!(
            listing(&vector),
            "up{job=\"a\"} => 1000000000000000000000 @[1.5]\nup => +Inf @[1.5]\n\
             {\"a.b\"=\"c\"} => Count: 3.000000, Sum: NaN, Buckets: [[-2,-1):1 (0.5,1e+06]:2] @[2]\n"
        );
        let matrix = serde_json::json!({"resultType": "matrix", "result": [
            {"metric": {"a": "b"}, "values": [[1, "1"], [2, "NaN"]]},
        ]});
        assert_eq!(listing(&matrix), "{a=\"b\"} =>\n1 @[1]\nNaN @[2]\n");
        let scalar = serde_json::json!({"resultType": "scalar", "result": [1, "7"]});
        assert_eq!(listing(&scalar), "scalar: 7 @[1]\n");
        let string = serde_json::json!({"resultType": "string", "result": [1, "a b"]});
        assert_eq!(listing(&string), "a b\n");
    }
}
