//! The pages of rules and of alerts.

use std::fmt::Write as _;
use std::sync::Arc;

use axum::extract::State;
use axum::response::Response;
use stint_model::Timestamp;

use super::super::Api;
use super::super::extract::Ready;
use super::{Text, ago, page};
use crate::rules::Group;
use crate::rules::alerting::{Alerts, State as AlertState};
use crate::rules::group::Rule;
use crate::template::table_link;

/// Alerts of a rule that are shown.
const ROWS: usize = 100;

/// Every group, and how its rules went.
pub(in super::super) async fn rules(State(api): State<Arc<Api>>, Ready(parts): Ready) -> Response {
    let now = api.clock.now();
    let mut out = String::from("<h1>Rules</h1>");
    let groups = parts.rules.groups();
    if groups.is_empty() {
        out.push_str("<p>None: rule_files in prometheus.yml names files of them.</p>");
    }
    for group in &groups {
        push_group(&mut out, &api.options.link_prefix, group, now);
    }
    page("Rules", &api.options.link_prefix, true, &out)
}

/// Writing to a text cannot fail, here and below.
fn push_group(out: &mut String, prefix: &str, group: &Group, now: Timestamp) {
    let status = group.status();
    let _ = write!(
        out,
        "<section><h2>{} <span class=\"dim\">{}, every {}</span></h2>",
        Text(&group.spec.name),
        Text(&group.spec.file),
        group.spec.interval
    );
    if let Some(at) = status.evaluated_at {
        let took = status.took.as_secs_f64() * 1e3;
        let _ = write!(out, "<p class=\"dim\">Evaluated {} in {took:.1} ms.</p>", ago(now, at));
    }
    out.push_str("<div class=\"scroll\"><table><thead><tr><th>rule</th><th>expression</th><th>state</th></tr></thead><tbody>");
    for rule in group.rules() {
        let status = rule.status();
        let state = match (&status.error, status.evaluated_at, rule.spec.alert()) {
            (Some(error), ..) => format!("<span class=\"bad\">{}</span>", Text(error)),
            (None, None, _) => "not evaluated yet".to_owned(),
            (None, Some(_), None) => "ok".to_owned(),
            (None, Some(_), Some(_)) => {
                rule.with_alerts(|alerts| alerts.state().as_str().to_owned())
            }
        };
        let _ = write!(
            out,
            "<tr><td>{}</td><td>{}</td><td>{state}</td></tr>",
            Text(&rule.spec.name),
            link(prefix, &rule.spec.query)
        );
    }
    out.push_str("</tbody></table></div></section>");
}

/// An expression that leads to its value.
fn link(prefix: &str, expr: &str) -> String {
    let to = table_link(expr);
    format!("<a href=\"{}{}\"><code>{}</code></a>", Text(prefix), Text(&to), Text(expr))
}

/// Every rule that alerts: what fires first, then what may.
pub(in super::super) async fn alerts(State(api): State<Arc<Api>>, Ready(parts): Ready) -> Response {
    let now = api.clock.now();
    let groups = parts.rules.groups();
    let mut rules: Vec<(AlertState, &Group, &Rule)> = Vec::new();
    for group in &groups {
        let alerting = group.rules().iter().filter(|rule| rule.spec.alert().is_some());
        rules.extend(alerting.map(|rule| (rule.with_alerts(Alerts::state), &**group, rule)));
    }
    let count = |wanted| rules.iter().filter(|(state, ..)| *state == wanted).count();
    let mut out = String::from("<h1>Alerts</h1>");
    if rules.is_empty() {
        out.push_str("<p>No rule alerts.</p>");
    } else {
        let (firing, pending) = (count(AlertState::Firing), count(AlertState::Pending));
        let quiet = rules.len() - firing - pending;
        let _ = write!(out, "<p>{firing} firing, {pending} pending, {quiet} quiet.</p>");
    }
    rules.sort_by_key(|(state, ..)| match state {
        AlertState::Firing => 0,
        AlertState::Pending => 1,
        AlertState::Inactive => 2,
    });
    for (state, group, rule) in &rules {
        push_alerts(&mut out, &api.options.link_prefix, *state, group, rule, now);
    }
    page("Alerts", &api.options.link_prefix, true, &out)
}

fn push_alerts(
    out: &mut String,
    prefix: &str,
    state: AlertState,
    group: &Group,
    rule: &Rule,
    now: Timestamp,
) {
    let (open, bad) = match state {
        AlertState::Firing => (" open", " class=\"bad\""),
        AlertState::Pending => (" open", ""),
        AlertState::Inactive => ("", ""),
    };
    let _ = write!(
        out,
        "<details{open}><summary><b{bad}>{}</b> {} <span class=\"dim\">{}</span></summary><p>{}</p>",
        Text(&rule.spec.name),
        state.as_str(),
        Text(&group.spec.name),
        link(prefix, &rule.spec.query)
    );
    rule.with_alerts(|alerts| {
        let mut active = alerts.active().peekable();
        if active.peek().is_none() {
            return;
        }
        out.push_str("<div class=\"scroll\"><table><thead><tr><th>labels</th><th>state</th><th class=\"n\">since</th><th class=\"n\">value</th></tr></thead><tbody>");
        for (labels, alert) in active.by_ref().take(ROWS) {
            let _ = write!(out, "<tr><td>{}", Text(&labels.to_string()));
            for (name, text) in alert.annotations.iter() {
                let _ = write!(out, "<div class=\"dim\">{}: {}</div>", Text(name), Text(text));
            }
            let (state, since) = (alert.state.as_str(), ago(now, alert.active_at));
            let value = alert.value;
            let _ = write!(
                out,
                "</td><td>{state}</td><td class=\"n\">{since}</td><td class=\"n\">{value}</td></tr>"
            );
        }
        out.push_str("</tbody></table></div>");
        let more = active.count();
        if more > 0 {
            let _ = write!(out, "<p class=\"dim\">and {more} more</p>");
        }
    });
    out.push_str("</details>");
}
