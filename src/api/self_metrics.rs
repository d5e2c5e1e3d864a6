//! `/api/v1/status/self_metrics`: the server's own metrics as JSON, in the shape that Protobuf's
//! mapping gives them.

use std::sync::Arc;

use axum::extract::State;
use prometheus::proto::{LabelPair, Metric, MetricFamily, MetricType};
use serde_json::{Map, Value as Json, json};

use super::Api;
use super::error::ApiError;
use super::extract::Gate;
use super::json::Reply;
use super::params::Params;
use super::web::refresh;

/// Families whose names match `metric_name_pattern` as a whole, all without it.
pub(super) async fn self_metrics(
    State(api): State<Arc<Api>>,
    _gate: Gate,
    params: Params,
) -> Result<Reply, ApiError> {
    let wanted = params
        .get("metric_name_pattern")
        .filter(|pattern| !pattern.is_empty())
        .map(stint_model::matcher::anchored_regex)
        .transpose()
        .map_err(|error| ApiError::invalid_parameter("metric_name_pattern", error))?;
    let gathered = tokio::task::spawn_blocking(move || {
        refresh(&api);
        let families = api.metrics.gather();
        let is_wanted =
            |family: &&MetricFamily| wanted.as_ref().is_none_or(|w| w.is_match(family.name()));
        Reply::json(&families.iter().filter(is_wanted).map(family).collect::<Vec<_>>())
    });
    gathered.await.map_err(|error| {
        ApiError::new(super::error::ErrorKind::Internal, format!("ended unexpectedly: {error}"))
    })
}

fn family(family: &MetricFamily) -> Json {
    let kind = match family.get_field_type() {
        MetricType::COUNTER => "COUNTER",
        MetricType::GAUGE => "GAUGE",
        MetricType::SUMMARY => "SUMMARY",
        MetricType::HISTOGRAM => "HISTOGRAM",
        MetricType::UNTYPED => "UNTYPED",
    };
    let metrics: Vec<Json> =
        family.get_metric().iter().map(|one| metric(one, family.get_field_type())).collect();
    json!({"name": family.name(), "help": family.help(), "type": kind, "metric": metrics})
}

fn metric(metric: &Metric, kind: MetricType) -> Json {
    let label = |pair: &LabelPair| json!({"name": pair.name(), "value": pair.value()});
    let mut shown = Map::new();
    if !metric.get_label().is_empty() {
        shown.insert("label".into(), metric.get_label().iter().map(label).collect());
    }
    let (key, value) = match kind {
        MetricType::COUNTER => {
            ("counter", json!({"value": number(metric.get_counter().get_value())}))
        }
        MetricType::GAUGE => ("gauge", json!({"value": number(metric.get_gauge().get_value())})),
        MetricType::UNTYPED => ("untyped", json!({})),
        MetricType::SUMMARY => {
            let summary = metric.get_summary();
            let quantiles = summary.get_quantile().iter();
            let quantiles: Vec<Json> = quantiles
                .map(|q| json!({"quantile": number(q.quantile()), "value": number(q.value())}))
                .collect();
            let count = summary.sample_count().to_string();
            let sum = number(summary.sample_sum());
            ("summary", json!({"sampleCount": count, "sampleSum": sum, "quantile": quantiles}))
        }
        MetricType::HISTOGRAM => {
            let histogram = metric.get_histogram();
            let buckets = histogram.get_bucket().iter();
            let buckets: Vec<Json> = buckets
                .map(|bucket| {
                    let count = bucket.cumulative_count().to_string();
                    json!({"cumulativeCount": count, "upperBound": number(bucket.upper_bound())})
                })
                .collect();
            let count = histogram.get_sample_count().to_string();
            let sum = number(histogram.get_sample_sum());
            ("histogram", json!({"sampleCount": count, "sampleSum": sum, "bucket": buckets}))
        }
    };
    shown.insert(key.into(), value);
    Json::Object(shown)
}

/// Numbers that JSON has not are texts.
fn number(value: f64) -> Json {
    match value {
        v if v.is_nan() => json!("NaN"),
        f64::INFINITY => json!("Infinity"),
        f64::NEG_INFINITY => json!("-Infinity"),
        v => json!(v),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::metrics::{Metrics, gauge, histogram_vec};

    #[test]
    fn families_have_the_shape_of_protobuf() {
        let metrics = Metrics::new();
        gauge(metrics.registry(), "test_g", "A gauge.").set(f64::NAN);
        let histogram = histogram_vec(metrics.registry(), "test_h", "It.", &["a"], &[1.0]);
        histogram.with_label_values(&["b"]).observe(0.5);
        let families = metrics.gather();
        let shown = |name: &str| family(families.iter().find(|one| one.name() == name).unwrap());
        assert_eq!(
            shown("test_g"),
            json!({"name": "test_g", "help": "A gauge.", "type": "GAUGE",
                   "metric": [{"gauge": {"value": "NaN"}}]})
        );
        let histogram = json!({
            "sampleCount": "1", "sampleSum": 0.5,
            "bucket": [{"cumulativeCount": "1", "upperBound": 1.0}]
        });
        assert_eq!(
            shown("test_h")["metric"],
            json!([{"label": [{"name": "a", "value": "b"}], "histogram": histogram}])
        );
    }
}
