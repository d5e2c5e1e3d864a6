//! Alerts as JSON.

use bytes::Bytes;
use jiff::Timestamp as Moment;
use serde::Serialize;
use stint_model::{Labels, Timestamp};

use crate::rules::{Alert, Annotations};

/// A time as `2026-01-02T03:04:05.678Z`.
pub(super) fn time(at: Timestamp) -> String {
    let moment = Moment::from_millisecond(at.0).unwrap_or(Moment::UNIX_EPOCH);
    format!("{moment:.3}")
}

/// Labels as a map.
pub(super) struct Map<'a>(pub(super) &'a Labels);

impl Serialize for Map<'_> {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_map(self.0.iter())
    }
}

/// Annotations as a map.
pub(super) struct Texts<'a>(pub(super) &'a Annotations);

impl Serialize for Texts<'_> {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_map(self.0.iter().map(|(name, text)| (name, text)))
    }
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Postable<'a> {
    labels: Map<'a>,
    #[serde(skip_serializing_if = "Option::is_none")]
    annotations: Option<Texts<'a>>,
    starts_at: String,
    ends_at: String,
    #[serde(rename = "generatorURL")]
    generator_url: &'a str,
}

/// What `/api/v2/alerts` takes.
pub(super) fn alerts(alerts: &[Alert]) -> Bytes {
    let postable: Vec<_> = alerts
        .iter()
        .map(|alert| Postable {
            labels: Map(&alert.labels),
            annotations: Some(Texts(&alert.annotations)).filter(|texts| !texts.0.is_empty()),
            starts_at: time(alert.starts_at),
            ends_at: time(alert.ends_at),
            generator_url: &alert.generator_url,
        })
        .collect();
    serde_json::to_vec(&postable).expect("maps of texts have a JSON form").into()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::notify::testing::alert;

    #[test]
    fn alerts_are_written_as_prometheus_writes_them() {
        let mut fired = alert("Down", &[("job", "a\"b")]);
        fired.annotations = std::sync::Arc::from([("text".to_owned(), "é\n".to_owned())]);
        let text = String::from_utf8(alerts(&[fired]).to_vec()).unwrap();
        assert_eq!(
            text,
            r#"[{"labels":{"alertname":"Down","job":"a\"b"},"annotations":{"text":"é\n"},"startsAt":"2023-11-14T22:13:20.000Z","endsAt":"2023-11-14T22:17:20.000Z","generatorURL":"http://localhost:9090/graph?g0.expr=up&g0.tab=1"}]"#
        );
        let bare = String::from_utf8(alerts(&[alert("Down", &[])]).to_vec()).unwrap();
        assert!(bare.starts_with(r#"[{"labels":{"alertname":"Down"},"startsAt":"#), "{bare}");
        assert_eq!(time(Timestamp(1)), "1970-01-01T00:00:00.001Z");
    }
}
