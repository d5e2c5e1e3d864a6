//! The page of labels that every series must carry.

use std::fmt::Write as _;
use std::sync::Arc;

use axum::extract::State;
use axum::response::Response;

use super::super::Api;
use super::super::extract::Ready;
use super::{Number, Text, page};
use crate::ingest::LabelReport;

/// Rows of the table.
const ROWS: usize = 200;

/// The rules, and what breaks them.
pub(in super::super) async fn labels(State(api): State<Arc<Api>>, Ready(parts): Ready) -> Response {
    page("Labels", &api.options.link_prefix, true, &body(&parts.labels.report()))
}

/// The content; writing to a text cannot fail.
fn body(report: &LabelReport) -> String {
    let mut out = String::from("<h1>Labels that every series must carry</h1>");
    if report.rules.is_empty() {
        out.push_str("<p>None: <code>[labels]</code> in retention.toml names them.</p>");
        return out;
    }
    out.push_str("<div class=\"scroll\"><table><thead><tr><th>label</th><th>given where missing</th><th>allowed</th></tr></thead><tbody>");
    for rule in &report.rules {
        let value = rule.value.as_deref().unwrap_or("–");
        let _ = write!(
            out,
            "<tr><td>{}</td><td>{}</td><td>{}</td></tr>",
            Text(&rule.label),
            Text(value),
            Text(&rule.allowed)
        );
    }
    out.push_str("</tbody></table></div>");
    let fate = if report.withhold { "stored, and not forwarded" } else { "stored and forwarded" };
    let _ = write!(out, "<h2>Series that break a rule</h2><p>They are {fate}.</p>");
    if report.violations.is_empty() {
        out.push_str("<p>No series does.</p>");
        return out;
    }
    out.push_str("<div class=\"scroll\"><table><thead><tr><th>label</th><th>found</th><th>job</th><th class=\"n\">series</th><th>for example</th></tr></thead><tbody>");
    for row in report.violations.iter().take(ROWS) {
        let found = if row.found.is_empty() { "(missing)" } else { &row.found };
        let _ = write!(
            out,
            "<tr><td>{}</td><td>{}</td><td>{}</td><td class=\"n\">{}</td><td>{}</td></tr>",
            Text(&row.label),
            Text(found),
            Text(&row.job),
            Number(row.series),
            Text(&row.example)
        );
    }
    out.push_str("</tbody></table></div>");
    let hidden: u64 = report.violations.iter().skip(ROWS).map(|row| row.series).sum();
    if hidden + report.left_out > 0 {
        let _ = write!(out, "<p>and {} series more.</p>", Number(hidden + report.left_out));
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ingest::{RuleReport, Violation};

    #[test]
    fn the_page_shows_rules_and_what_breaks_them() {
        let mut report = LabelReport {
            withhold: true,
            rules: vec![RuleReport {
                label: "environment".into(),
                value: None,
                allowed: "dev, <prod>".into(),
            }],
            violations: Vec::new(),
            left_out: 0,
        };
        let page = body(&report);
        assert!(page.contains("dev, &lt;prod&gt;") && page.contains("No series does"), "{page}");
        report.violations.push(Violation {
            label: "environment".into(),
            found: String::new(),
            job: "api".into(),
            series: 1234,
            example: "x{job=\"api\"}".into(),
            first_seen: 1,
            last_seen: 2,
        });
        report.left_out = 5;
        let page = body(&report);
        for text in ["(missing)", "not forwarded", "1\u{202f}234", "and 5 series more"] {
            assert!(page.contains(text), "{text} in {page}");
        }
        report.rules.clear();
        assert!(body(&report).contains("None: "));
    }
}
