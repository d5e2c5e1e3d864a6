//! `/api/v1/query` and `/api/v1/query_range`.

use std::sync::Arc;

use axum::extract::State;
use serde::Serialize;
use stint_model::{Span, Timestamp};
use stint_promql::{Answer, Cancel, InstantQuery, QueryError, QueryValue, RangeQuery, StepStats};

use super::error::{ApiError, ErrorKind};
use super::extract::Ready;
use super::json::{PackedReply, Reply};
use super::pack::Coding;
use super::params::Params;
use super::result::{push_open_data, size_hint, truncate};
use super::work::{Finish, Spent, distance};
use super::{Api, Parts};

/// Most steps of a range query; more would be more points than any screen has.
const STEPS_MAX: i64 = 11_000;
/// Bytes of an answer that are written at once between other requests.
const ENCODED_AT_ONCE_MAX: usize = 64 << 10;
/// The warning for results that were cut.
pub(super) const TRUNCATED: &str = "results truncated due to limit";

/// Evaluates an expression at one time.
pub(super) async fn instant(
    State(api): State<Arc<Api>>,
    Ready(parts): Ready,
    coding: Coding,
    params: Params,
) -> Result<PackedReply, ApiError> {
    let common = Common::read(&params)?;
    let at = params.time("time", api.clock.now())?;
    let expr: Arc<str> = params.get("query").unwrap_or_default().into();
    let (lookback, timeout) = (common.lookback, common.timeout);
    let written = Writing { api: Arc::clone(&api), common, coding };
    evaluate_at(&api, &parts, expr, at, (lookback, timeout), written).await
}

/// What `finish` makes of the value of an expression at one time.
pub(super) async fn evaluate_at<F: Finish<Answer>>(
    api: &Api,
    parts: &Parts,
    expr: Arc<str>,
    at: Timestamp,
    (lookback, timeout): (Option<Span>, Option<Span>),
    finish: F,
) -> Result<F::Made, ApiError> {
    let asked = Arc::clone(&expr);
    let (engine, store) = (Arc::clone(&parts.engine), Arc::clone(&parts.store));
    let question = ("instant", &*asked, lookback, distance(api.clock.now(), at));
    let work = move |cancel: &Cancel| {
        let query = InstantQuery { expr: &expr, at, lookback };
        engine.instant(store.as_ref(), &query, cancel).map_err(ApiError::from)
    };
    let made = parts.workers.run_finished(&question, timeout, work, finish).await?;
    parts.asked(&asked, api.clock.now());
    Ok(made)
}

/// Evaluates an expression at many times.
pub(super) async fn range(
    State(api): State<Arc<Api>>,
    Ready(parts): Ready,
    coding: Coding,
    params: Params,
) -> Result<PackedReply, ApiError> {
    let limit = params.limit("limit")?;
    let start = params.required_time("start")?;
    let end = params.required_time("end")?;
    if end < start {
        let cause = "end timestamp must not be before start time";
        return Err(ApiError::invalid_parameter("end", cause));
    }
    let step = params.required_duration("step")?;
    check_step(start, end, step)?;
    let common = Common { limit, ..Common::read(&params)? };
    let expr: Arc<str> = params.get("query").unwrap_or_default().into();
    let asked = Arc::clone(&expr);
    let (engine, store) = (Arc::clone(&parts.engine), Arc::clone(&parts.store));
    let (lookback, timeout) = (common.lookback, common.timeout);
    let far = distance(api.clock.now(), end);
    let question = ("range", &*asked, lookback, end.since(start), step, far);
    let work = move |cancel: &Cancel| {
        let query = RangeQuery { expr: &expr, start, end, step, lookback };
        engine.range(store.as_ref(), &query, cancel).map_err(ApiError::from)
    };
    let written = Writing { api: Arc::clone(&api), common, coding };
    let reply = parts.workers.run_finished(&question, timeout, work, written).await?;
    parts.asked(&asked, api.clock.now());
    Ok(reply)
}

/// Whether a value is so small that it is written out between other requests.
pub(super) fn is_written_at_once(value: &QueryValue) -> bool {
    size_hint(value) < ENCODED_AT_ONCE_MAX
}

/// Writes an answer as it is sent. What is large takes its time.
struct Writing {
    api: Arc<Api>,
    common: Common,
    coding: Coding,
}

impl Finish<Answer> for Writing {
    type Made = PackedReply;

    fn is_quick(&self, answer: &Answer) -> bool {
        is_written_at_once(&answer.value)
    }

    fn make(self, answer: Answer, spent: Spent) -> PackedReply {
        self.api.metrics.query_samples.inc_by(answer.stats.samples_total as u64);
        self.common.reply(answer, spent).packed(&self.api.packer, self.coding)
    }
}

/// How a query would be evaluated: one line for each part, those it is made of indented below it.
#[derive(Serialize)]
struct PlanJson {
    plan: String,
}

/// Tells how an expression would be evaluated, at many times or, with `type=instant`, at one.
pub(super) async fn explain(Ready(parts): Ready, params: Params) -> Result<Reply, ApiError> {
    let is_range = match params.get("type") {
        None | Some("range") => true,
        Some("instant") => false,
        Some(other) => {
            let cause = format!("{other:?} is neither \"range\" nor \"instant\"");
            return Err(ApiError::invalid_parameter("type", cause));
        }
    };
    let plan = parts.engine.explain(params.get("query").unwrap_or_default(), is_range)?;
    Ok(Reply::json(&PlanJson { plan }))
}

fn check_step(start: Timestamp, end: Timestamp, step: Span) -> Result<(), ApiError> {
    if step <= Span::ZERO {
        let cause = "zero or negative query resolution step widths are not accepted. Try a \
                     positive integer";
        return Err(ApiError::invalid_parameter("step", cause));
    }
    if end.since(start).0 / step.0 > STEPS_MAX {
        return Err(ApiError::bad_data(
            "exceeded maximum resolution of 11,000 points per timeseries. Try decreasing the \
             query resolution (?step=XX)",
        ));
    }
    Ok(())
}

/// Parameters of both kinds of query.
struct Common {
    limit: usize,
    timeout: Option<Span>,
    lookback: Option<Span>,
    stats: Option<String>,
}

impl Common {
    fn read(params: &Params) -> Result<Self, ApiError> {
        Ok(Self {
            limit: params.limit("limit")?,
            timeout: params.duration("timeout")?,
            lookback: params.lookback()?,
            stats: params.get("stats").map(str::to_owned),
        })
    }

    fn reply(&self, mut answer: Answer, spent: Spent) -> Reply {
        let truncated = truncate(&mut answer.value, self.limit);
        let mut body = Reply::open(size_hint(&answer.value));
        push_open_data(&mut body, &answer.value);
        if self.stats.is_some() {
            body.extend_from_slice(b",\"stats\":");
            let by_step = self.stats.as_deref() == Some("all");
            body.extend_from_slice(&stats(&answer, spent, by_step));
        }
        body.push(b'}');
        let mut reply =
            Reply::opened(body).annotate(answer.annotations.warnings, answer.annotations.infos);
        if truncated {
            reply = reply.warn(TRUNCATED);
        }
        match self.stats.as_deref() {
            None | Some("true" | "all") => reply,
            Some(other) => reply.warn(format!(
                "value \"{other}\" for parameter \"stats\" is deprecated and will be rejected in \
                 the next major release, use \"true\" or \"all\""
            )),
        }
    }
}

/// Seconds by phase, and samples.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct StatsJson {
    timings: TimingsJson,
    samples: SamplesJson,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
#[expect(clippy::struct_field_names, reason = "the names of the API")]
struct TimingsJson {
    eval_total_time: f64,
    result_sort_time: f64,
    query_preparation_time: f64,
    inner_eval_time: f64,
    exec_queue_time: f64,
    exec_total_time: f64,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct SamplesJson {
    #[serde(skip_serializing_if = "Vec::is_empty")]
    total_queryable_samples_per_step: Vec<(f64, usize)>,
    total_queryable_samples: usize,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    samples_read_per_step: Vec<(f64, usize)>,
    samples_read: usize,
    peak_samples: usize,
}

/// Preparing and sorting are part of the evaluation here and not measured apart.
fn stats(answer: &Answer, spent: Spent, by_step: bool) -> Vec<u8> {
    let steps = if by_step { answer.stats.steps.as_slice() } else { &[] };
    let list = |samples: fn(&StepStats) -> usize| {
        steps.iter().map(|step| (step.at.as_secs_f64(), samples(step))).collect()
    };
    let evaluating = spent.running.as_secs_f64();
    let queueing = spent.queueing.as_secs_f64();
    let stats = StatsJson {
        timings: TimingsJson {
            eval_total_time: evaluating,
            result_sort_time: 0.0,
            query_preparation_time: 0.0,
            inner_eval_time: evaluating,
            exec_queue_time: queueing,
            exec_total_time: queueing + evaluating,
        },
        samples: SamplesJson {
            total_queryable_samples_per_step: list(|step| step.samples_total),
            total_queryable_samples: answer.stats.samples_total,
            samples_read_per_step: list(|step| step.samples_read),
            samples_read: answer.stats.samples_read,
            peak_samples: answer.stats.samples_peak,
        },
    };
    Reply::data(&stats)
}

impl From<QueryError> for ApiError {
    fn from(error: QueryError) -> Self {
        let kind = match &error {
            QueryError::Parse(cause) => return Self::invalid_parameter("query", cause),
            QueryError::Execution(_)
            | QueryError::TooManySamples(_)
            | QueryError::Storage(stint_model::QueryError::Limit(_)) => ErrorKind::Execution,
            QueryError::Timeout(_) => ErrorKind::Timeout,
            QueryError::Canceled(_) => ErrorKind::Canceled,
            QueryError::Storage(_) => ErrorKind::Internal,
        };
        // Prometheus' words, and what to do.
        let hint = match &error {
            QueryError::TooManySamples(_) => {
                "; ask for fewer series or a shorter time, or raise --query.max-samples"
            }
            QueryError::Timeout(_) => {
                "; ask for less, or raise the parameter \"timeout\" and --query.timeout"
            }
            _ => "",
        };
        Self::new(kind, format!("{error}{hint}"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn errors_of_limits_name_the_flag_that_raises_them() {
        let check = |error: QueryError, flag: &str| {
            let words = error.to_string();
            let message = ApiError::from(error).message;
            assert!(message.starts_with(&words) && message.contains(flag), "{message}");
        };
        check(QueryError::TooManySamples("query execution"), "--query.max-samples");
        check(QueryError::Timeout("expression evaluation"), "--query.timeout");
    }
}
