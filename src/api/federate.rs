//! `GET /federate`: the newest sample of each series, as a target shows its own.

use std::collections::BTreeMap;
use std::sync::Arc;

use axum::extract::State;
use axum::http::{HeaderMap, StatusCode, Uri, header};
use axum::response::{IntoResponse, Response};
use stint_model::histogram::{FloatHistogram, ResetHint};
use stint_model::labels::METRIC_NAME;
use stint_model::metadata::MetricType;
use stint_model::{
    Columns, Hints, Labels, Queryable, Selector, Span, TimeRange, Timestamp, sample::is_stale,
};
use stint_promql::Cancel;
use stint_promql::parse::parse_selector;
use stint_wire::exposition::{Accepted, Format, ProtobufWriter, TextWriter};

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
    /// Labels that a series is given where it does not have them, in order.
    others: Vec<(String, String)>,
    accepted: Accepted,
}

/// Shows the series that any `match[]` selects. Native histograms with exponential buckets go to
/// readers of Protobuf only: the text format has no room for them.
pub(super) async fn federate(
    State(api): State<Arc<Api>>,
    Ready(parts): Ready,
    headers: HeaderMap,
    uri: Uri,
) -> Response {
    let params = match Params::parse(&[], uri.query()) {
        Ok(params) => params,
        Err(error) => return refused(&error.message),
    };
    let selectors: Result<Vec<Selector>, String> = params
        .all("match[]")
        .map(|text| parse_selector(text).map(Selector::new).map_err(|error| error.to_string()))
        .collect();
    let selectors = match selectors {
        Ok(selectors) => selectors,
        Err(error) => return refused(&error),
    };
    let now = api.clock.now();
    parts.selected(&selectors, now);
    let accept = headers.get(header::ACCEPT).and_then(|accept| accept.to_str().ok());
    let question = Question {
        selectors,
        since: now - parts.engine.options().lookback,
        now,
        others: others(&parts.config.read().global.external_labels),
        accepted: Accepted::from_header(accept.unwrap_or_default()),
    };
    let content_type = question.accepted.content_type();
    let store = Arc::clone(&parts.store);
    match parts.run(None, move |cancel| question.answer(store.as_ref(), cancel)).await {
        Ok((body, _)) => ([(header::CONTENT_TYPE, content_type)], body).into_response(),
        Err(error) => {
            api.metrics.federation_errors.inc();
            (error.kind.status(), format!("{}\n", error.message)).into_response()
        }
    }
}

/// What is wrong with a request, in a line.
fn refused(error: &str) -> Response {
    (StatusCode::BAD_REQUEST, format!("{error}\n")).into_response()
}

/// The external labels, and an empty instance where they have none.
fn others(external: &Labels) -> Vec<(String, String)> {
    let mut all: BTreeMap<&str, &str> = external.iter().collect();
    all.entry(INSTANCE).or_insert("");
    all.into_iter().map(|(name, value)| (name.to_owned(), value.to_owned())).collect()
}

/// What a series shows.
enum Shown {
    Float(f64),
    Histogram(Box<FloatHistogram>),
}

impl Shown {
    fn kind(&self) -> MetricType {
        match self {
            Self::Float(_) => MetricType::Unknown,
            Self::Histogram(histogram) if histogram.reset_hint == ResetHint::Gauge => {
                MetricType::GaugeHistogram
            }
            Self::Histogram(_) => MetricType::Histogram,
        }
    }
}

/// The newest sample by name and labels of its series.
type Newest = BTreeMap<(String, Labels), (Timestamp, Shown)>;

/// The body in the format that the reader prefers.
enum Body {
    Text(TextWriter),
    Protobuf(ProtobufWriter),
}

impl Body {
    fn new(accepted: Accepted) -> Self {
        match accepted.format {
            Format::Protobuf => Self::Protobuf(ProtobufWriter::new(accepted.escaping)),
            Format::PrometheusText | Format::OpenMetrics => {
                Self::Text(TextWriter::new(accepted.escaping))
            }
        }
    }

    /// Whether the format has room for it.
    fn has_room_for(&self, shown: &Shown) -> bool {
        match (self, shown) {
            (Self::Protobuf(_), _) | (Self::Text(_), Shown::Float(_)) => true,
            (Self::Text(_), Shown::Histogram(histogram)) => histogram.is_custom(),
        }
    }

    fn family(&mut self, name: &str, kind: MetricType) {
        match self {
            Self::Text(writer) => writer.kind(name, kind),
            Self::Protobuf(writer) => writer.family(name, kind),
        }
    }

    fn sample(&mut self, pairs: &[(&str, &str)], at: Timestamp, shown: &Shown) {
        let pairs = pairs.iter().copied();
        match (self, shown) {
            (Self::Text(writer), Shown::Float(value)) => writer.sample(pairs, *value, Some(at)),
            (Self::Text(writer), Shown::Histogram(histogram)) => {
                let written = writer.histogram(pairs, histogram, Some(at));
                debug_assert!(written, "only what there is room for comes here");
            }
            (Self::Protobuf(writer), Shown::Float(value)) => writer.untyped(pairs, *value, at),
            (Self::Protobuf(writer), Shown::Histogram(histogram)) => {
                writer.histogram(pairs, histogram, at);
            }
        }
    }

    fn into_bytes(self) -> Vec<u8> {
        match self {
            Self::Text(writer) => writer.into_string().into_bytes(),
            Self::Protobuf(writer) => writer.into_bytes(),
        }
    }
}

impl Question {
    fn answer(&self, store: &dyn Queryable, cancel: &Cancel) -> Result<Vec<u8>, ApiError> {
        let mut body = Body::new(self.accepted);
        // A name may come more than once: as numbers, as histograms, as gauges of histograms.
        let mut family = None;
        for ((name, labels), (at, shown)) in &self.newest(store, cancel)? {
            if name.is_empty() || !body.has_room_for(shown) {
                continue;
            }
            let own = (name, shown.kind());
            if family != Some(own) {
                body.family(name, own.1);
                family = Some(own);
            }
            let mut pairs: Vec<(&str, &str)> =
                labels.iter().filter(|(_, value)| !value.is_empty()).collect();
            let absent = |name: &str| labels.get(name).is_none();
            let others = self.others.iter().map(|(name, value)| (name.as_str(), value.as_str()));
            pairs.extend(others.filter(|(name, _)| absent(name)));
            body.sample(&pairs, *at, shown);
        }
        Ok(body.into_bytes())
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
                let histogram = columns.histograms.last().filter(|(row, _)| *row == last);
                let shown = match histogram {
                    Some((_, histogram)) => Shown::Histogram(Box::new(histogram.to_float())),
                    None => Shown::Float(*value),
                };
                let mark = match &shown {
                    Shown::Histogram(histogram) => histogram.sum,
                    Shown::Float(value) => *value,
                };
                if is_stale(mark) {
                    continue;
                }
                let labels = set.labels(index);
                let name = labels.get(METRIC_NAME).unwrap_or_default().to_owned();
                found.insert((name, labels), (*at, shown));
            }
        }
        Ok(found)
    }
}
