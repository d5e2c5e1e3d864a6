//! The message of a webhook: version 4 of what Alertmanagers post.

use bytes::Bytes;
use serde::Serialize;
use stint_model::{Labels, Timestamp};

use super::fingerprint::fingerprint;
use super::groups::Message;
use crate::config::Webhook;
use crate::notify::payload::{Map, Texts, time};
use crate::rules::{Alert, Annotations};

/// The end of what has none.
const NEVER: &str = "0001-01-01T00:00:00Z";

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Body<'a> {
    version: &'static str,
    group_key: String,
    truncated_alerts: usize,
    status: &'static str,
    receiver: &'a str,
    group_labels: Map<'a>,
    common_labels: Map<'a>,
    common_annotations: Texts<'a>,
    #[serde(rename = "externalURL")]
    external_url: &'a str,
    alerts: Vec<One<'a>>,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct One<'a> {
    status: &'static str,
    labels: Map<'a>,
    annotations: Texts<'a>,
    starts_at: String,
    ends_at: String,
    #[serde(rename = "generatorURL")]
    generator_url: &'a str,
    fingerprint: String,
}

const fn status(resolved: bool) -> &'static str {
    if resolved { "resolved" } else { "firing" }
}

/// What is posted.
pub(super) fn body(config: &Webhook, message: &Message, external_url: &str) -> Bytes {
    let most = if config.max_alerts == 0 { usize::MAX } else { config.max_alerts };
    let shown = message.alerts.get(..most).unwrap_or(&message.alerts);
    let all_resolved = message.alerts.iter().all(|alert| alert.is_resolved(message.at));
    let (labels, annotations) = common(&message.alerts);
    let body = Body {
        version: "4",
        group_key: format!("{{}}:{}", message.group),
        truncated_alerts: message.alerts.len() - shown.len(),
        status: status(all_resolved),
        receiver: &config.name,
        group_labels: Map(&message.group),
        common_labels: Map(&labels),
        common_annotations: Texts(&annotations),
        external_url,
        alerts: shown.iter().map(|alert| one(alert, message.at)).collect(),
    };
    serde_json::to_vec(&body).expect("maps of texts have a JSON form").into()
}

fn one(alert: &Alert, at: Timestamp) -> One<'_> {
    let resolved = alert.is_resolved(at);
    One {
        status: status(resolved),
        labels: Map(&alert.labels),
        annotations: Texts(&alert.annotations),
        starts_at: time(alert.starts_at),
        ends_at: if resolved { time(alert.ends_at) } else { NEVER.to_owned() },
        generator_url: &alert.generator_url,
        fingerprint: format!("{:016x}", fingerprint(&alert.labels)),
    }
}

/// Labels and annotations that all alerts have.
fn common(alerts: &[Alert]) -> (Labels, Annotations) {
    let Some((first, others)) = alerts.split_first() else {
        return (Labels::default(), Annotations::from([]));
    };
    let labels = first
        .labels
        .iter()
        .filter(|(name, value)| others.iter().all(|other| other.labels.get(name) == Some(value)));
    let annotations = first
        .annotations
        .iter()
        .filter(|annotation| others.iter().all(|other| other.annotations.contains(annotation)));
    (Labels::from_pairs(labels), annotations.cloned().collect())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::notify::testing::{START, alert};
    use crate::notify::webhook::groups::Groups;
    use crate::notify::webhook::testing::webhook;
    use stint_model::Span;

    #[test]
    fn the_message_is_the_one_of_an_alertmanager() {
        let config = webhook("max_alerts = 2\nmatch = ['{job=\"node\"}']");
        let mut groups = Groups::default();
        let mut ended = alert("Down", &[("job", "node"), ("n", "2")]);
        groups.receive(&config, ended.clone(), START);
        ended.ends_at = START + Span(10_000);
        groups.receive(&config, ended, START);
        for n in ["1", "3"] {
            let mut firing = alert("Down", &[("job", "node"), ("n", n)]);
            firing.annotations = [("text".to_owned(), "t".to_owned())].into();
            groups.receive(&config, firing, START);
        }
        let messages = groups.due(&config, START + Span(30_000), 1);
        let body = body(&config, &messages[0], "http://stint:9090");
        let json: serde_json::Value = serde_json::from_slice(&body).unwrap();
        insta::assert_json_snapshot!(json);
    }

    #[test]
    fn fingerprints_are_those_of_alertmanagers() {
        let labels = Labels::from_pairs([("alertname", "Down"), ("job", "node")]);
        assert_eq!(format!("{:016x}", fingerprint(&Labels::default())), "cbf29ce484222325");
        assert_eq!(format!("{:016x}", fingerprint(&labels)), "952a6219e8df7701");
    }
}
