//! The page of the series budget.

mod more;

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::sync::Arc;

use axum::extract::State;
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use stint_model::{Span, Timestamp};

use super::super::Api;
use super::super::budget::made;
use super::super::extract::Ready;
use super::{Number, Text, page};
use crate::budget::report::{Advice, EndpointReport, MetricUse, Report, Use};
use crate::scrape::{ActiveTarget, Health};

/// Rows of each table.
const ROWS: usize = 15;
/// Failing targets that are named.
const FAILING: usize = 20;

/// The budget of each endpoint, and how the targets are doing.
pub(in super::super) async fn budget(State(api): State<Arc<Api>>, Ready(parts): Ready) -> Response {
    let targets = parts.scrape.status().active;
    match made(&api, &parts).await {
        Some(report) => {
            let body = body(&report, &targets);
            page("Budget", &api.options.link_prefix, true, &body)
        }
        None => {
            (StatusCode::INTERNAL_SERVER_ERROR, "the report could not be made\n").into_response()
        }
    }
}

/// The content; writing to a text cannot fail.
fn body(report: &Report, targets: &[ActiveTarget]) -> String {
    let mut out = String::from("<h1>Series budget</h1>");
    if report.endpoints.is_empty() {
        out.push_str("<p>Nothing is forwarded: prometheus.yml has no remote_write.</p>");
    }
    for one in &report.endpoints {
        endpoint(&mut out, one);
    }
    health(&mut out, targets);
    usage(&mut out, report);
    out
}

fn endpoint(out: &mut String, report: &EndpointReport) {
    let _ = write!(
        out,
        "<section><h2>{} <span class=\"url\">{}</span></h2>",
        Text(&report.name),
        Text(&report.url)
    );
    match &report.series {
        Some(series) => {
            bar(out, "Series in use", report.live, series.target, "of the target");
            let _ = write!(
                out,
                "<p class=\"dim\">The account includes {}; {} may be in use right now, {} are reserved \
                 for the first class, {} belong to series that ended. The server is {}.</p>",
                Number(series.contract),
                Number(series.allowed),
                Number(series.reserve),
                Number(series.cooling),
                Text(&series.server)
            );
            more::account(out, series);
            if let Some(error) = &series.ledger_error {
                let _ = write!(out, "<p class=\"bad\" role=\"alert\">{}</p>", Text(error));
            }
        }
        None => {
            let _ = write!(out, "<p>{} series in use, no budget.</p>", Number(report.live));
        }
    }
    if let Some(most) = report.points.per_minute {
        let points = report.points.last_minute;
        bar(out, "Points in the last minute", points, most, "of those included");
    } else {
        let sent = Number(report.points.last_minute);
        let _ = write!(out, "<p>{sent} points in the last minute.</p>");
    }
    if let Some(month) = &report.points.month {
        let _ = write!(
            out,
            "<p>Billable in {}: <b>{}</b> so far (95th percentile of {} minutes of the larger of series and \
             points), <b>{}</b> if it goes on as in the last day.</p>",
            Text(&month.name),
            Number(month.so_far),
            Number(month.minutes),
            Number(month.projected)
        );
    }
    trend(out, report);
    samples(out, report);
    more::refusals(out, &report.samples);
    withheld(out, report);
    advice(out, &report.advice);
    metrics(out, &report.metrics);
    uses(out, "Jobs", &report.jobs);
    uses(out, "Environments", &report.environments);
    more::quotas(out, &report.quotas);
    labels(out, report);
    more::histograms(out, report);
    if !report.hints.is_empty() {
        out.push_str("<h3>Worth knowing</h3><ul>");
        for hint in &report.hints {
            let _ = write!(out, "<li>{}</li>", Text(hint));
        }
        out.push_str("</ul>");
    }
    out.push_str("</section>");
}

fn bar(out: &mut String, name: &str, used: u64, most: u64, of: &str) {
    let part = used as f64 * 100.0 / most.max(1) as f64;
    let class = match part {
        part if part > 100.0 => "over",
        part if part > 90.0 => "near",
        _ => "good",
    };
    let _ = write!(
        out,
        "<div class=\"bar {class}\">{name}: <b>{}</b> of {} ({part:.0} % {of})\
         <div class=\"track\" role=\"meter\" aria-label=\"{name}\" aria-valuemin=\"0\" \
         aria-valuemax=\"{most}\" aria-valuenow=\"{used}\"><div class=\"fill\" \
         style=\"width:{:.1}%\"></div></div></div>",
        Number(used),
        Number(most),
        part.min(100.0)
    );
}

fn trend(out: &mut String, report: &EndpointReport) {
    let Some(forecast) = &report.forecast else { return };
    let _ = write!(
        out,
        "<p>{:+.0} series and {:+.0} points per minute each hour",
        forecast.slots_per_hour, forecast.points_per_hour
    );
    let ends =
        [("series", forecast.exhausted_in_secs), ("points", forecast.points_exhausted_in_secs)];
    for (what, secs) in ends {
        if let Some(secs) = secs {
            let minutes = Span((secs / 60.0) as i64 * 60_000);
            let _ = write!(out, "; the {what} are used up in <b>{minutes}</b>");
        }
    }
    out.push_str(".</p>");
}

fn samples(out: &mut String, report: &EndpointReport) {
    let samples = &report.samples;
    let sum = |counts: &BTreeMap<String, u64>| Number(counts.values().sum());
    let _ = write!(
        out,
        "<p>Samples since the start: {} sent, {} withheld, {} refused, {} too old, {} failed, {} pending; \
         {:.0} s behind.</p>",
        Number(samples.sent),
        sum(&samples.withheld),
        sum(&samples.refused),
        Number(samples.too_old),
        Number(samples.failed),
        Number(samples.pending),
        samples.lag_secs
    );
    if let Some(identities) = &report.identities {
        let _ = write!(
            out,
            "<p>{} targets are known by a number; {} went on with that of another one, {} found none.</p>",
            Number(identities.held),
            Number(identities.takeovers),
            Number(identities.unnumbered)
        );
    }
    if !samples.running {
        out.push_str("<p class=\"bad\" role=\"alert\">Forwarding broke down and starts again.</p>");
    }
    if let Some(error) = &samples.last_error {
        let _ = write!(out, "<p class=\"bad\">Last error: {}</p>", Text(error));
    }
}

fn table(out: &mut String, caption: &str, columns: &[(&str, bool)]) {
    let _ = write!(out, "<div class=\"scroll\"><table><caption>{caption}</caption><thead><tr>");
    for (name, is_number) in columns {
        let class = if *is_number { " class=\"n\"" } else { "" };
        let _ = write!(out, "<th scope=\"col\"{class}>{name}</th>");
    }
    out.push_str("</tr></thead><tbody>");
}

fn end_table(out: &mut String, rows: usize) {
    out.push_str("</tbody></table></div>");
    if rows > ROWS {
        let more = rows - ROWS;
        let _ = write!(out, "<p class=\"dim\">and {more} more, in the report as JSON</p>");
    }
}

fn withheld(out: &mut String, report: &EndpointReport) {
    if report.withheld.is_empty() {
        out.push_str("<p>Nothing is withheld.</p>");
        return;
    }
    let columns = [
        ("Metric", false),
        ("Job", false),
        ("Class", false),
        ("Series", true),
        ("Why", false),
        ("Since", false),
    ];
    table(out, "Withheld: stored here, not sent", &columns);
    for row in report.withheld.iter().take(ROWS) {
        let _ = write!(
            out,
            "<tr><th scope=\"row\">{}</th><td>{}</td><td>{}</td><td class=\"n\">{}</td><td>{}</td><td>{}</td></tr>",
            Text(&row.metric),
            Text(&row.job),
            Text(&row.class),
            Number(row.series),
            Text(&row.reason),
            row.since.map_or_else(|| "–".to_owned(), time)
        );
    }
    end_table(out, report.withheld.len());
}

fn advice(out: &mut String, all: &[Advice]) {
    if all.is_empty() {
        return;
    }
    out.push_str("<h3>What would save slots</h3>");
    for one in all.iter().take(ROWS) {
        let _ = write!(
            out,
            "<details><summary>{} – <b>{}</b> slots fewer</summary><p>Add to {}:</p><pre>{}</pre>",
            Text(&one.text),
            Number(one.slots),
            Text(&one.file),
            Text(&one.snippet)
        );
        if one.breaks_count == 0 {
            out.push_str("<p>Nothing known would miss it.</p>");
        } else {
            let _ = write!(out, "<p>{} would miss it:</p><ul>", Number(one.breaks_count));
            for missed in &one.breaks {
                let _ = write!(out, "<li>{}</li>", Text(missed));
            }
            out.push_str("</ul>");
        }
        out.push_str("</details>");
    }
}

fn known(used: Option<bool>) -> &'static str {
    match used {
        None => "not known",
        Some(true) => "yes",
        Some(false) => "no",
    }
}

fn metrics(out: &mut String, rows: &[MetricUse]) {
    if rows.is_empty() {
        return;
    }
    let columns = [
        ("Metric", false),
        ("Slots", true),
        ("Points a minute", true),
        ("Withheld", true),
        ("Used", false),
    ];
    table(out, "Metrics", &columns);
    for row in rows.iter().take(ROWS) {
        let _ = write!(
            out,
            "<tr><th scope=\"row\">{}</th><td class=\"n\">{}</td><td class=\"n\">{:.0}</td><td class=\"n\">{}</td><td>{}</td></tr>",
            Text(&row.name),
            Number(row.slots),
            row.points,
            Number(row.withheld),
            known(row.used)
        );
    }
    end_table(out, rows.len());
}

fn uses(out: &mut String, caption: &str, rows: &[Use]) {
    if rows.is_empty() {
        return;
    }
    let columns = [
        ("Name", false),
        ("Slots", true),
        ("Cooling", true),
        ("Points a minute", true),
        ("Withheld", true),
    ];
    table(out, caption, &columns);
    for row in rows.iter().take(ROWS) {
        let name = if row.name.is_empty() { "–" } else { &row.name };
        let _ = write!(
            out,
            "<tr><th scope=\"row\">{}</th><td class=\"n\">{}</td><td class=\"n\">{}</td><td class=\"n\">{:.0}</td><td class=\"n\">{}</td></tr>",
            Text(name),
            Number(row.slots),
            Number(row.cooling),
            row.points,
            Number(row.withheld)
        );
    }
    end_table(out, rows.len());
}

fn labels(out: &mut String, report: &EndpointReport) {
    let rows = &report.metric_labels;
    if rows.is_empty() {
        return;
    }
    let columns = [
        ("Label", false),
        ("Metric", false),
        ("Values", true),
        ("Slots saved without it", true),
        ("Used", false),
    ];
    table(out, "Labels", &columns);
    for row in rows.iter().take(ROWS) {
        let _ = write!(
            out,
            "<tr><th scope=\"row\">{}</th><td>{}</td><td class=\"n\">{}</td><td class=\"n\">{}</td><td>{}</td></tr>",
            Text(&row.label),
            Text(&row.metric),
            Number(row.values),
            Number(row.saving),
            known(row.used)
        );
    }
    end_table(out, rows.len());
}

/// Targets by job, and what those that fail say.
fn health(out: &mut String, targets: &[ActiveTarget]) {
    out.push_str("<section><h2>Targets</h2>");
    if targets.is_empty() {
        out.push_str("<p>Nothing is scraped.</p></section>");
        return;
    }
    let mut jobs: BTreeMap<&str, [u64; 3]> = BTreeMap::new();
    for target in targets {
        let [up, down, unknown] = jobs.entry(&target.pool).or_default();
        match target.health {
            Health::Up => *up += 1,
            Health::Down => *down += 1,
            Health::Unknown => *unknown += 1,
        }
    }
    table(
        out,
        "Targets by job",
        &[("Job", false), ("Up", true), ("Down", true), ("Not scraped yet", true)],
    );
    for (job, [up, down, unknown]) in &jobs {
        let bad = if *down > 0 { " bad" } else { "" };
        let _ = write!(
            out,
            "<tr><th scope=\"row\">{}</th><td class=\"n\">{up}</td><td class=\"n{bad}\">{down}</td><td class=\"n\">{unknown}</td></tr>",
            Text(job)
        );
    }
    end_table(out, 0);
    let failing: Vec<_> = targets.iter().filter(|target| target.health == Health::Down).collect();
    if !failing.is_empty() {
        out.push_str("<ul>");
        for target in failing.iter().take(FAILING) {
            let (url, error) = (Text(&target.url), Text(&target.last_error));
            let _ = write!(out, "<li>{url}: <span class=\"bad\">{error}</span></li>");
        }
        out.push_str("</ul>");
    }
    out.push_str("</section>");
}

fn usage(out: &mut String, report: &Report) {
    let usage = &report.usage;
    let _ = write!(
        out,
        "<section><h2>What is used</h2><p>Known from {} queries, {} expressions of rules and {} of \
         dashboards.</p>",
        Number(usage.queries),
        Number(usage.rules),
        Number(usage.dashboards)
    );
    if !usage.conclusive {
        out.push_str(
            "<p>That is too little to call anything unused: name dashboards under [usage] in \
             retention.toml, or wait until queries of a day are known.</p>",
        );
    }
    if !usage.problems.is_empty() {
        out.push_str("<p>Unread:</p><ul>");
        for problem in usage.problems.iter().take(ROWS) {
            let _ = write!(out, "<li>{}</li>", Text(problem));
        }
        out.push_str("</ul>");
    }
    out.push_str("</section>");
}

/// UTC, to the minute.
fn time(secs: f64) -> String {
    let at = Timestamp(secs as i64 * 1000);
    let shown = jiff::Timestamp::from_millisecond(at.as_ms());
    shown.map_or_else(|_| "–".to_owned(), |at| at.strftime("%Y-%m-%d %H:%M UTC").to_string())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::budget::report::{
        AccountUse, Forecast, HistogramUse, MetricLabel, QuotaUse, Samples, SeriesBudget, Withheld,
    };

    const EVIL: &str = "<script>alert('\"&\u{7}')</script>";

    fn report() -> Report {
        let text = || EVIL.to_owned();
        let endpoint = EndpointReport {
            name: text(),
            url: text(),
            series: Some(SeriesBudget {
                contract: 12_345,
                target: 1000,
                server: text(),
                ledger_error: Some(text()),
                shared: 7,
                account: Some(AccountUse {
                    active: Some(2_000),
                    problem: Some(text()),
                    ..AccountUse::default()
                }),
                ..SeriesBudget::default()
            }),
            live: 950,
            jobs: vec![Use { name: text(), slots: 5, ..Use::default() }],
            metrics: vec![MetricUse { name: text(), slots: 950, ..MetricUse::default() }],
            metric_labels: vec![MetricLabel {
                metric: text(),
                label: text(),
                ..Default::default()
            }],
            withheld: vec![Withheld {
                metric: text(),
                reason: text(),
                since: Some(1_700_000_000.0),
                ..Withheld::default()
            }],
            samples: Samples {
                last_error: Some(text()),
                refused: [("http_400".to_owned(), 6)].into(),
                refusals: [("http_400".to_owned(), text())].into(),
                ..Samples::default()
            },
            quotas: vec![QuotaUse {
                name: text(),
                value: Some(text()),
                max: Some(10),
                ..QuotaUse::default()
            }],
            histograms: vec![HistogramUse { name: text(), slots: 14, ..HistogramUse::default() }],
            forecast: Some(Forecast { exhausted_in_secs: Some(7200.0), ..Forecast::default() }),
            advice: vec![Advice {
                text: text(),
                snippet: text(),
                breaks: vec![text()],
                breaks_count: 1,
                ..Advice::default()
            }],
            hints: vec![text()],
            ..EndpointReport::default()
        };
        let mut report = Report { endpoints: vec![endpoint], ..Report::default() };
        report.usage.problems.push(text());
        report
    }

    #[test]
    fn whatever_names_say_no_tag_comes_of_it() {
        let html = body(&report(), &[]);
        assert!(!html.contains("<script"), "{html}");
        assert_eq!(
            html.matches("&lt;script&gt;alert(&#39;&quot;&amp;\u{fffd}&#39;)&lt;").count(),
            21
        );
    }

    #[test]
    fn bars_and_tables_say_what_the_report_says() {
        let html = body(&report(), &[]);
        for part in [
            "class=\"bar near\">Series in use: <b>950</b> of 1\u{202f}000 (95 % of the target)",
            "aria-valuenow=\"950\"",
            "The account includes 12\u{202f}345",
            "used up in <b>2h</b>",
            "The account counts 2\u{202f}000 series",
            "http_400</th><td class=\"n\">6</td>",
            "<caption>Quotas</caption>",
            "<caption>Histograms</caption>",
            "2023-11-14 22:13 UTC",
            "too little to call anything unused",
        ] {
            assert!(html.contains(part), "{part} in {html}");
        }
        assert!(body(&Report::default(), &[]).contains("Nothing is forwarded"));
    }

    #[test]
    fn every_tag_that_opens_is_closed() {
        let html = body(&report(), &[]);
        for tag in ["section", "table", "tr", "td", "th", "ul", "li", "p", "div", "details", "pre"]
        {
            let opened = html.matches(&format!("<{tag}>")).count()
                + html.matches(&format!("<{tag} ")).count();
            assert_eq!(opened, html.matches(&format!("</{tag}>")).count(), "{tag}");
        }
    }
}
