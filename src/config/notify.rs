//! `[[notify.webhook]]` in `retention.toml`: who is told of alerts without an Alertmanager.

use stint_model::{Selector, Span};

use super::decode::Section;
use super::http::{self, HttpConfig};
use super::secret::Secret;

/// One webhook.
#[derive(Clone, Debug, PartialEq)]
pub struct Webhook {
    /// Names it in logs, metrics and messages. Unique, never empty.
    pub name: String,
    /// Where to post; often a secret itself.
    pub url: Secret,
    /// Alerts that one of these selects are sent; without any, all are.
    pub selectors: Vec<Selector>,
    /// Alerts that have the same values of these labels are one message; `...` stands for all labels.
    pub group_by: Vec<String>,
    /// How long a new group waits for more alerts.
    pub group_wait: Span,
    /// How long a group that was told of waits before it is told of anew because it changed.
    pub group_interval: Span,
    /// When a group that did not change is told of again.
    pub repeat_interval: Span,
    /// Whether ends of alerts are told.
    pub send_resolved: bool,
    /// Most alerts in one message; 0 = all.
    pub max_alerts: usize,
    /// When a request is given up.
    pub timeout: Span,
    /// How to reach it.
    pub http: HttpConfig,
}

/// The webhooks of the section `notify`.
pub(super) fn read(mut section: Section<'_>) -> Vec<Webhook> {
    let mut webhooks: Vec<Webhook> = Vec::new();
    for webhook in section.sections("webhook") {
        webhooks.push(Webhook::read(webhook, &webhooks));
    }
    section.finish();
    webhooks
}

impl Webhook {
    fn read(mut section: Section<'_>, others: &[Self]) -> Self {
        let name = section.string_or("name", "");
        if name.is_empty() {
            section.error("name", "a webhook needs a `name`");
        } else if others.iter().any(|other| other.name == name) {
            section.error("name", format!("another webhook is named `{name}`"));
        }
        if !section.has("url") {
            section.error("url", "a webhook needs a `url`");
        }
        let mut selectors = Vec::new();
        for (at, text) in section.texts("match") {
            match super::selector::read(text) {
                Ok(selector) => selectors.push(selector),
                Err(message) => section.cx.error(at, message),
            }
        }
        let positive = |span: Option<Span>, default: Span| {
            span.filter(|span| *span > Span::ZERO).unwrap_or(default)
        };
        let group_by = if section.has("group_by") {
            section.strings("group_by")
        } else {
            vec!["alertname".to_owned()]
        };
        let webhook = Self {
            name,
            url: Secret::new(section.parsed("url", http::read_url).unwrap_or_default()),
            selectors,
            group_by,
            group_wait: section.span("group_wait").unwrap_or(Span::from_secs(30)),
            group_interval: positive(section.span("group_interval"), Span(5 * Span::MINUTE.0)),
            repeat_interval: positive(section.span("repeat_interval"), Span(4 * Span::HOUR.0)),
            send_resolved: section.bool_or("send_resolved", true),
            max_alerts: section.usize_or("max_alerts", 0),
            timeout: positive(section.span("timeout"), Span::from_secs(10)),
            http: HttpConfig::read(&mut section, true),
        };
        if webhook.repeat_interval < webhook.group_interval {
            section.warn(
                "repeat_interval",
                "`repeat_interval` is shorter than `group_interval`, which holds instead",
            );
        }
        section.finish();
        webhook
    }
}
