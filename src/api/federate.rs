//! `GET /federate`: the newest sample of each series, as a target shows its own.

use std::collections::BTreeMap;
use std::sync::Arc;

use axum::extract::State;
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::{IntoResponse, Response};
use stint_model::labels::METRIC_NAME;
use stint_model::metadata::MetricType;
use stint_model::{
    Columns, Hints, Labels, Queryable, Selector, Span, TimeRange, Timestamp, sample::is_stale,
};
use stint_promql::Cancel;
use stint_promql::parse::parse_selector;
use stint_wire::exposition::{Escaping, TextWriter};

use super::Api;
use super::error::ApiError;
use super::extract::Ready;
use super::params::Params;
use super::series::{PHASE, SERIES_BETWEEN_CHECKS};

/// The label that a scraping server must not set over the one of the federated series.
const INSTANCE: &str = "instance";

/// What is asked for.
struct Question {
    selectors: Vec<Selector>,
    /// Samples count that are younger than this.
    since: Timestamp,
    now: Timestamp,
    external_labels: Labels,
    escaping: Escaping,
}

/// Shows the series that any `match[]` selects. Native histograms are left out: the text format
/// has no room for them.
pub(super) async fn federate(
    State(api): State<Arc<Api>>,
    Ready(parts): Ready,
    headers: HeaderMap,
    params: Params,
) -> Response {
    let selectors: Result<Vec<Selector>, String> = params
        .all("match[]")
        .map(|text| parse_selector(text).map(Selector::new).map_err(|error| error.to_string()))
        .collect();
    let selectors = match selectors {
        Ok(selectors) => selectors,
        Err(error) => return (StatusCode::BAD_REQUEST, format!("{error}\n")).into_response(),
    };
    let now = api.clock.now();
    parts.selected(&selectors, now);
    let accept = headers.get(header::ACCEPT).and_then(|accept| accept.to_str().ok());
    let question = Question {
        selectors,
        since: now - parts.engine.options().lookback,
        now,
        external_labels: parts.config.read().global.external_labels.clone(),
        escaping: Escaping::from_accept(accept.unwrap_or_default()),
    };
    let escaping = question.escaping;
    let store = Arc::clone(&parts.store);
    match parts.run(None, move |cancel| question.answer(store.as_ref(), cancel)).await {
        Ok((body, _)) => ([(header::CONTENT_TYPE, content_type(escaping))], body).into_response(),
        Err(error) => {
            api.metrics.federation_errors.inc();
            (error.kind.status(), format!("{}\n", error.message)).into_response()
        }
    }
}

const fn content_type(escaping: Escaping) -> &'static str {
    match escaping {
        Escaping::AllowUtf8 => "text/plain; version=0.0.4; charset=utf-8; escaping=allow-utf-8",
        Escaping::Underscores => "text/plain; version=0.0.4; charset=utf-8; escaping=underscores",
        Escaping::Dots => "text/plain; version=0.0.4; charset=utf-8; escaping=dots",
        Escaping::Values => "text/plain; version=0.0.4; charset=utf-8; escaping=values",
    }
}

/// The newest sample by name and labels of its series.
type Newest = BTreeMap<(String, Labels), (Timestamp, f64)>;

impl Question {
    fn answer(&self, store: &dyn Queryable, cancel: &Cancel) -> Result<String, ApiError> {
        let mut writer = TextWriter::new(self.escaping);
        let mut family = None;
        for ((name, labels), (at, value)) in &self.newest(store, cancel)? {
            if family != Some(name) {
                writer.kind(name, MetricType::Unknown);
                family = Some(name);
            }
            let mut pairs: Vec<(&str, &str)> =
                labels.iter().filter(|(_, value)| !value.is_empty()).collect();
            let absent = |name: &str| labels.get(name).is_none();
            pairs.extend(self.external_labels.iter().filter(|(name, _)| absent(name)));
            if absent(INSTANCE) && self.external_labels.get(INSTANCE).is_none() {
                pairs.push((INSTANCE, ""));
            }
            writer.sample(pairs, *value, Some(*at));
        }
        Ok(writer.into_string())
    }

    /// The newest sample of each series, by name, then labels.
    fn newest(&self, store: &dyn Queryable, cancel: &Cancel) -> Result<Newest, ApiError> {
        let range = TimeRange::closed(self.since + Span(1), self.now);
        let querier = store.querier(range)?;
        let mut columns = Columns::default();
        let mut found = BTreeMap::new();
        // A selector without any condition selects nothing here.
        for selector in self.selectors.iter().filter(|selector| !selector.matchers.is_empty()) {
            let set = querier.select(selector, &Hints::default())?;
            for index in 0..set.len() {
                if index % SERIES_BETWEEN_CHECKS == 0 {
                    cancel.check(PHASE)?;
                }
                columns.clear();
                set.read(index, range, &mut columns)?;
                let (Some(at), Some(value)) = (columns.times.last(), columns.values.last()) else {
                    continue;
                };
                let last = columns.times.len() - 1;
                let is_histogram = columns.histograms.last().is_some_and(|(row, _)| *row == last);
                if is_histogram || is_stale(*value) {
                    continue;
                }
                let labels = set.labels(index);
                let name = labels.get(METRIC_NAME).unwrap_or_default().to_owned();
                found.insert((name, labels), (*at, *value));
            }
        }
        Ok(found)
    }
}
