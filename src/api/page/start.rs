//! The start page.

use std::sync::Arc;

use axum::extract::State;
use axum::response::Response;

use super::super::Api;
use super::{Text, page};

const LINKS: [(&str, &str); 13] = [
    ("/budget", "The series budget: what is sent, what is withheld, what would save slots"),
    ("/query", "The value of an expression"),
    ("/alerts", "Alerts: which fire, and which may"),
    ("/rules", "Rules: what is evaluated, and how that went"),
    ("/targets", "Targets: what is scraped, and how that went"),
    ("/labels", "Labels that every series must carry, and series that do not"),
    ("/api/v1/status/budget", "The budget report as JSON"),
    ("/api/v1/status/config", "Configuration"),
    ("/api/v1/status/flags", "Flags"),
    ("/api/v1/status/tsdb", "The store"),
    ("/metrics", "Metrics of this server"),
    ("/-/healthy", "Whether it lives"),
    ("/-/ready", "Whether it answers queries"),
];

/// A page that says what is here.
pub(in super::super) async fn index(State(api): State<Arc<Api>>) -> Response {
    let prefix = &api.options.link_prefix;
    let link = |(path, text): (&str, &str)| {
        let prefix = Text(prefix);
        format!("<li><a href=\"{prefix}{path}\">{path}</a> <span class=\"dim\">{text}</span></li>")
    };
    let body = format!(
        "<h1>Stint {}</h1><p>Add this address to Grafana as a Prometheus data source.</p><ul>{}</ul>",
        env!("CARGO_PKG_VERSION"),
        LINKS.map(link).concat()
    );
    page("Start", prefix, false, &body)
}
