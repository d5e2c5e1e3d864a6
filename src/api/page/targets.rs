//! The page of targets.

use std::fmt::Write as _;
use std::sync::Arc;

use axum::extract::State;
use axum::response::Response;
use stint_model::Timestamp;

use super::super::Api;
use super::super::extract::Ready;
use super::{Number, Text, ago, page};
use crate::scrape::{ActiveTarget, Health, Status};

/// Targets of a job that are shown.
const ROWS: usize = 500;

/// What is scraped, and how that went.
pub(in super::super) async fn targets(
    State(api): State<Arc<Api>>,
    Ready(parts): Ready,
) -> Response {
    let html = body(&parts.scrape.status(), api.clock.now());
    page("Targets", &api.options.link_prefix, true, &html)
}

/// The content; writing to a text cannot fail.
fn body(status: &Status, now: Timestamp) -> String {
    let mut out = String::from("<h1>Targets</h1>");
    if status.pools.is_empty() {
        out.push_str("<p>Nothing is scraped: prometheus.yml has no scrape_configs.</p>");
    }
    for pool in &status.pools {
        let targets: Vec<_> = status.active.iter().filter(|one| one.pool == *pool).collect();
        let up = targets.iter().filter(|one| one.health == Health::Up).count();
        let dropped = status.dropped_counts.get(pool).copied().unwrap_or_default();
        let _ = write!(out, "<section><h2>{} <span class=\"dim\">", Text(pool));
        let _ = write!(out, "{} of {} up", Number(up as u64), Number(targets.len() as u64));
        if dropped > 0 {
            let _ = write!(out, ", {} dropped by relabelling", Number(dropped));
        }
        out.push_str("</span></h2>");
        if !targets.is_empty() {
            table(&mut out, &targets, now);
        }
        out.push_str("</section>");
    }
    out
}

/// Those that are not up first.
fn table(out: &mut String, targets: &[&ActiveTarget], now: Timestamp) {
    out.push_str("<div class=\"scroll\"><table><thead><tr><th>target</th><th>state</th><th>labels</th><th class=\"n\">last scrape</th><th class=\"n\">took</th></tr></thead><tbody>");
    let mut targets = targets.to_vec();
    targets.sort_by_key(|one| one.health == Health::Up);
    for one in targets.iter().take(ROWS) {
        let bad = if one.health == Health::Down { " class=\"bad\"" } else { "" };
        let labels = one.labels.to_string();
        let last = one.last_scrape.map_or_else(|| "never".to_owned(), |at| ago(now, at));
        let took = one.last_duration.as_secs_f64() * 1e3;
        let _ = write!(out, "<tr><td><a href=\"{0}\">{0}</a>", Text(&one.url));
        if !one.last_error.is_empty() {
            let _ = write!(out, "<div class=\"bad\">{}</div>", Text(&one.last_error));
        }
        let _ = write!(
            out,
            "</td><td{bad}>{}</td><td>{}</td><td class=\"n\">{last}</td><td class=\"n\">{took:.1} ms</td></tr>",
            one.health.as_str(),
            Text(&labels)
        );
    }
    out.push_str("</tbody></table></div>");
    if targets.len() > ROWS {
        let _ = write!(out, "<p class=\"dim\">and {} more</p>", targets.len() - ROWS);
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;
    use std::time::Duration;

    use stint_model::{Labels, Span};

    use super::*;

    fn target(instance: &str, health: Health, last_error: &str) -> ActiveTarget {
        ActiveTarget {
            discovered: Labels::default(),
            labels: Labels::from_pairs([("instance", instance)]),
            pool: "node".into(),
            url: format!("http://{instance}/metrics"),
            last_error: last_error.into(),
            last_scrape: Some(Timestamp(0)),
            last_duration: Duration::from_micros(1500),
            health,
            interval: "15s".into(),
            timeout: "10s".into(),
        }
    }

    #[test]
    fn what_is_down_comes_first_and_says_why() {
        let status = Status {
            pools: vec!["node".into(), "none".into()],
            active: vec![target("a", Health::Up, ""), target("b", Health::Down, "refused <b>")],
            dropped: vec![],
            dropped_counts: BTreeMap::from([("node".into(), 3)]),
        };
        let html = body(&status, Timestamp(0) + Span::from_secs(12));
        assert!(html.contains("1 of 2 up, 3 dropped by relabelling"));
        assert!(
            html.contains("refused &lt;b&gt;")
                && html.contains("12s ago")
                && html.contains("1.5 ms")
        );
        assert!(html.find("http://b/").unwrap() < html.find("http://a/").unwrap());
        assert!(html.contains("0 of 0 up"));
    }
}
