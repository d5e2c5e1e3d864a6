//! The value of an expression at one time, as a table. Links in alerts lead here.

use std::fmt::Write as _;
use std::sync::Arc;

use axum::extract::{RawQuery, State};
use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use jiff::civil::DateTime;
use jiff::tz::TimeZone;
use stint_model::histogram::FloatHistogram;
use stint_model::{Labels, Timestamp};
use stint_promql::{Answer, QueryValue, SampleValue};

use super::super::Api;
use super::super::extract::Ready;
use super::super::number::push_decimal;
use super::super::params::Params;
use super::super::query::{evaluate_at, is_written_at_once};
use super::super::work::{Finish, Spent};
use super::{Text, page};

/// Series that are shown.
const ROWS: usize = 1000;
/// Samples of one series that are shown.
const SAMPLES: usize = 100;
/// How a moment is written, in UTC.
const MOMENT: &str = "%Y-%m-%d %H:%M:%S";

/// The old address of the page, which alerts still tell.
pub(in super::super) async fn graph(
    State(api): State<Arc<Api>>,
    RawQuery(query): RawQuery,
) -> Response {
    let query = query.map(|query| format!("?{query}")).unwrap_or_default();
    let to = format!("{}/query{query}", api.options.link_prefix);
    // A URL may have bytes that no header can.
    match HeaderValue::try_from(to) {
        Ok(to) => (StatusCode::FOUND, [(header::LOCATION, to)]).into_response(),
        Err(_) => (StatusCode::BAD_REQUEST, "the query is no part of a URL\n").into_response(),
    }
}

/// The form, and the value of what was asked; the parameters are those of Prometheus' own page.
pub(in super::super) async fn query(
    State(api): State<Arc<Api>>,
    Ready(parts): Ready,
    params: Params,
) -> Response {
    let expr = params.get("g0.expr").unwrap_or_default().trim();
    let moment = params.get("g0.moment_input").unwrap_or_default().trim();
    let prefix = &api.options.link_prefix;
    let mut body = form(prefix, expr, moment);
    let mut status = StatusCode::OK;
    if !expr.is_empty() {
        let at = if moment.is_empty() { Ok(api.clock.now()) } else { read_moment(moment) };
        let outcome = match at {
            Ok(at) => {
                let shown = Showing { api: Arc::clone(&api) };
                let shown = evaluate_at(&api, &parts, expr.into(), at, (None, None), shown).await;
                shown.map_err(|error| (error.kind.status(), error.message))
            }
            Err(message) => Err((StatusCode::BAD_REQUEST, message)),
        };
        match outcome {
            Ok(shown) => body.push_str(&shown),
            Err((code, message)) => {
                status = code;
                let _ = write!(body, "<p class=\"bad\" role=\"alert\">{}</p>", Text(&message));
            }
        }
    }
    (status, page("Query", prefix, false, &body)).into_response()
}

/// Shows an answer as a table. What is large takes its time.
struct Showing {
    api: Arc<Api>,
}

impl Finish<Answer> for Showing {
    type Made = String;

    fn is_quick(&self, answer: &Answer) -> bool {
        is_written_at_once(&answer.value)
    }

    fn make(self, answer: Answer, _: Spent) -> String {
        self.api.metrics.query_samples.inc_by(answer.stats.samples_total as u64);
        let mut shown = String::new();
        push_answer(&mut shown, &answer);
        shown
    }
}

fn form(prefix: &str, expr: &str, moment: &str) -> String {
    let (prefix, expr, moment) = (Text(prefix), Text(expr), Text(moment));
    format!(
        "<h1>Query</h1><form action=\"{prefix}/query\" method=\"get\">\
         <label>Expression<textarea name=\"g0.expr\" rows=\"3\" spellcheck=\"false\" required autofocus>\
         {expr}</textarea></label>\
         <label>Time, UTC <input name=\"g0.moment_input\" value=\"{moment}\" \
         placeholder=\"now, or 2006-01-02 15:04:05\"></label> <button>Evaluate</button></form>"
    )
}

fn read_moment(text: &str) -> Result<Timestamp, String> {
    DateTime::strptime(MOMENT, text)
        .and_then(|moment| moment.to_zoned(TimeZone::UTC))
        .map(|moment| Timestamp(moment.timestamp().as_millisecond()))
        .map_err(|_| format!("{text:?} is no time: it is written as 2006-01-02 15:04:05, in UTC"))
}

/// Writing to a text cannot fail, here and below.
fn push_answer(out: &mut String, answer: &Answer) {
    for remark in answer.annotations.warnings.iter().chain(&answer.annotations.infos) {
        let _ = write!(out, "<p class=\"warn\" role=\"status\">{}</p>", Text(remark));
    }
    match &answer.value {
        QueryValue::Scalar { value, .. } => {
            let _ = write!(out, "<p><b>{}</b></p>", number(*value));
        }
        QueryValue::String { value, .. } => {
            let _ = write!(out, "<pre>{}</pre>", Text(value));
        }
        QueryValue::Vector(samples) => {
            let rows = samples.iter().map(|sample| {
                let value = match &sample.value {
                    SampleValue::Float(value) => number(*value),
                    SampleValue::Histogram(value) => summary(value),
                };
                (&sample.labels, value)
            });
            push_table(out, samples.len(), rows);
        }
        QueryValue::Matrix(series) => {
            let rows = series.iter().map(|one| {
                let floats = latest(&one.floats).map(|(at, value)| (*at, number(*value)));
                let histograms = latest(&one.histograms).map(|(at, value)| (*at, summary(value)));
                let mut all: Vec<_> = floats.chain(histograms).collect();
                all.sort_by_key(|(at, _)| *at);
                let count = one.floats.len() + one.histograms.len();
                let left_out = count.saturating_sub(SAMPLES);
                let mut value = String::new();
                for (at, text) in all.iter().skip(all.len().saturating_sub(SAMPLES)) {
                    let _ = write!(value, "{text} @{}<br>", at.as_secs_f64());
                }
                if left_out > 0 {
                    let _ = write!(value, "<span class=\"dim\">and {left_out} before</span>");
                }
                (&one.labels, value)
            });
            push_table(out, series.len(), rows);
        }
    }
}

/// Such samples of a kind as can be among the latest of both kinds.
fn latest<T>(samples: &[T]) -> impl Iterator<Item = &T> {
    samples.iter().skip(samples.len().saturating_sub(SAMPLES))
}

/// Series and their values, which are HTML already.
fn push_table<'a>(
    out: &mut String,
    count: usize,
    rows: impl Iterator<Item = (&'a Labels, String)>,
) {
    if count == 0 {
        out.push_str("<p>No series.</p>");
        return;
    }
    out.push_str("<div class=\"scroll\"><table><thead><tr><th>series</th><th class=\"n\">value</th></tr></thead><tbody>");
    for (labels, value) in rows.take(ROWS) {
        let series = labels.to_string();
        let _ = write!(out, "<tr><td>{}</td><td class=\"n\">{value}</td></tr>", Text(&series));
    }
    out.push_str("</tbody></table></div>");
    let shown = if count > ROWS { format!(", of which {ROWS} are shown") } else { String::new() };
    let series = if count == 1 { "1 series".to_owned() } else { format!("{count} series") };
    let _ = write!(out, "<p class=\"dim\">{series}{shown}.</p>");
}

fn number(value: f64) -> String {
    let mut text = Vec::new();
    push_decimal(&mut text, value);
    String::from_utf8_lossy(&text).into_owned()
}

fn summary(histogram: &FloatHistogram) -> String {
    format!("histogram, count {}, sum {}", number(histogram.count), number(histogram.sum))
}

#[cfg(test)]
mod tests {
    use stint_promql::{Annotations, InstantSample, RangeSeries, Stats};

    use super::*;

    fn shown(value: QueryValue) -> String {
        let annotations = Annotations { warnings: vec!["a < b".into()], ..Annotations::default() };
        let mut out = String::new();
        push_answer(&mut out, &Answer { value, annotations, stats: Stats::default() });
        out
    }

    #[test]
    fn what_labels_and_remarks_say_is_text() {
        let labels = Labels::from_pairs([("a", "<script>")]);
        let sample = InstantSample { labels, at: Timestamp(0), value: SampleValue::Float(0.5) };
        let html = shown(QueryValue::Vector(vec![sample; ROWS + 1]));
        assert!(html.contains("a &lt; b") && !html.contains("<script>"));
        assert!(html.contains("{a=&quot;&lt;script&gt;&quot;}</td><td class=\"n\">0.5</td>"));
        assert!(html.contains("1001 series, of which 1000 are shown."));
        assert!(shown(QueryValue::Vector(vec![])).contains("No series."));
    }

    #[test]
    fn ranges_show_their_latest_samples() {
        let floats = (0..=SAMPLES as i64).map(|at| (Timestamp(at * 1000), at as f64)).collect();
        let one = RangeSeries { labels: Labels::default(), floats, histograms: vec![] };
        let html = shown(QueryValue::Matrix(vec![one]));
        assert!(html.contains("100 @100<br>") && !html.contains("0 @0<br>"));
        assert!(html.contains("and 1 before"));
    }

    #[test]
    fn moments_are_in_utc() {
        assert_eq!(read_moment("2023-11-14 22:13:20"), Ok(Timestamp(1_700_000_000_000)));
        assert!(read_moment("tomorrow").unwrap_err().contains("\"tomorrow\" is no time"));
    }
}
