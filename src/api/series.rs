//! `/api/v1/series`, `/api/v1/labels` and `/api/v1/label/<name>/values`.

use std::collections::BTreeSet;
use std::sync::Arc;

use axum::extract::rejection::PathRejection;
use axum::extract::{Path, State};
use axum::http::Uri;
use stint_model::{Hints, Labels, QueryError, Queryable, Selector, TimeRange, Timestamp};
use stint_promql::Cancel;
use stint_promql::parse::parse_selector;

use super::Api;
use super::error::ApiError;
use super::extract::Ready;
use super::json::{PackedReply, Reply, push_labels, push_strings};
use super::pack::Coding;
use super::params::Params;
use super::query::TRUNCATED;
use super::work::distance;

/// Where a request was that ended early.
pub(super) const PHASE: &str = "looking up series";
/// Series that are looked at before it is asked again whether the client still waits.
pub(super) const SERIES_BETWEEN_CHECKS: usize = 256;

/// What the three endpoints are asked.
struct Question {
    range: TimeRange,
    selectors: Vec<Selector>,
    limit: usize,
}

impl Question {
    fn read(params: &Params) -> Result<Self, ApiError> {
        let limit = params.limit("limit")?;
        let start = params.time("start", Timestamp::MIN)?;
        let end = params.time("end", Timestamp::MAX)?;
        Ok(Self {
            range: TimeRange::closed(start, end),
            selectors: read_selectors(params, "match[]")?,
            limit,
        })
    }

    /// What tells it from questions that cost something else.
    fn asked(&self, now: Timestamp) -> (Vec<Selector>, usize, [i32; 2]) {
        let far = [self.range.start, self.range.end].map(|at| distance(now, at));
        (self.selectors.clone(), self.limit, far)
    }

    /// One more than the limit, to see whether there would be more.
    fn limit_and_one(&self) -> usize {
        if self.limit == 0 { 0 } else { self.limit.saturating_add(1) }
    }

    fn reply_strings(&self, mut texts: Vec<String>) -> Reply {
        let truncated = self.limit > 0 && texts.len() > self.limit;
        if truncated {
            texts.truncate(self.limit);
        }
        let mut data = Reply::open(texts.iter().map(|text| text.len() + 3).sum());
        push_strings(&mut data, texts.iter().map(String::as_str));
        let reply = Reply::opened(data);
        if truncated { reply.warn(TRUNCATED) } else { reply }
    }
}

/// The selectors in every parameter `name`. Each must rule out the series without any labels.
///
/// # Errors
/// A selector that cannot be read, or that would match everything.
pub(super) fn read_selectors(params: &Params, name: &str) -> Result<Vec<Selector>, ApiError> {
    params
        .all(name)
        .map(|text| {
            let matchers =
                parse_selector(text).map_err(|error| ApiError::invalid_parameter(name, error))?;
            if matchers.iter().all(stint_model::Matcher::matches_empty) {
                let cause = "match[] must contain at least one non-empty matcher";
                return Err(ApiError::invalid_parameter(name, cause));
            }
            Ok(Selector::new(matchers))
        })
        .collect()
}

/// The label sets of the series that match any selector.
pub(super) async fn series(
    State(api): State<Arc<Api>>,
    Ready(parts): Ready,
    coding: Coding,
    params: Params,
) -> Result<PackedReply, ApiError> {
    if params.all("match[]").next().is_none() {
        return Err(ApiError::bad_data("no match[] parameter provided"));
    }
    let question = Question::read(&params)?;
    let store = Arc::clone(&parts.store);
    let asked = ("series", question.asked(api.clock.now()));
    let packing = Arc::clone(&api);
    let outcome = parts.run_known(&asked, None, move |cancel| {
        let found = find_series(store.as_ref(), &question, cancel)?;
        let shown = if question.limit == 0 { found.len() } else { question.limit };
        let mut data = Reply::open(found.len().min(shown) * 128 + 2);
        data.push(b'[');
        for (position, labels) in found.iter().take(shown).enumerate() {
            if position % SERIES_BETWEEN_CHECKS == 0 {
                cancel.check(PHASE)?;
            }
            if position > 0 {
                data.push(b',');
            }
            push_labels(&mut data, labels);
        }
        data.push(b']');
        let reply = Reply::opened(data);
        let reply = if found.len() > shown { reply.warn(TRUNCATED) } else { reply };
        Ok(reply.packed(&packing.packer, coding))
    });
    outcome.await
}

fn find_series(
    store: &dyn Queryable,
    question: &Question,
    cancel: &Cancel,
) -> Result<Vec<Labels>, ApiError> {
    let querier = store.querier(question.range)?;
    let hints =
        Hints { func: "series".into(), limit: question.limit_and_one(), ..Hints::default() };
    let mut found = Vec::new();
    for selector in &question.selectors {
        cancel.check(PHASE)?;
        let set = querier.select(selector, &hints)?;
        let wanted = if question.limit == 0 { set.len() } else { question.limit_and_one() };
        for index in 0..set.len().min(wanted) {
            if index % SERIES_BETWEEN_CHECKS == 0 {
                cancel.check(PHASE)?;
            }
            found.push(set.labels(index));
        }
    }
    // What one selector finds is in order already.
    if question.selectors.len() > 1 {
        found.sort_unstable();
        found.dedup();
    }
    Ok(found)
}

/// What `find` finds for any selector, sorted: one selector at a time, as long as the client waits.
fn find_strings(
    selectors: &[Selector],
    cancel: &Cancel,
    find: impl Fn(&[Selector]) -> Result<Vec<String>, QueryError>,
) -> Result<Vec<String>, ApiError> {
    cancel.check(PHASE)?;
    if selectors.len() < 2 {
        return Ok(find(selectors)?);
    }
    let mut found = BTreeSet::new();
    for selector in selectors {
        cancel.check(PHASE)?;
        found.extend(find(std::slice::from_ref(selector))?);
    }
    Ok(found.into_iter().collect())
}

/// The names of all labels.
pub(super) async fn labels(
    State(api): State<Arc<Api>>,
    Ready(parts): Ready,
    params: Params,
) -> Result<Reply, ApiError> {
    let question = Question::read(&params)?;
    let store = Arc::clone(&parts.store);
    let asked = ("labels", question.asked(api.clock.now()));
    let outcome = parts.run_known(&asked, None, move |cancel| {
        let querier = store.querier(question.range)?;
        let names = find_strings(&question.selectors, cancel, |selectors| {
            querier.label_names(selectors, question.limit_and_one())
        })?;
        Ok(question.reply_strings(names))
    });
    outcome.await
}

/// The values of one label.
pub(super) async fn label_values(
    State(api): State<Arc<Api>>,
    Ready(parts): Ready,
    name: Result<Path<String>, PathRejection>,
    uri: Uri,
    params: Params,
) -> Result<Reply, ApiError> {
    // What is no UTF-8 is shown as it was sent.
    let Ok(Path(name)) = name else {
        let sent = uri.path().trim_end_matches("/values").rsplit('/').next().unwrap_or_default();
        return Err(ApiError::bad_data(format!("invalid label name: \"{sent}\"")));
    };
    let name = unescape_name(&name)
        .filter(|name| !name.is_empty())
        .ok_or_else(|| ApiError::bad_data(format!("invalid label name: {name:?}")))?;
    let question = Question::read(&params)?;
    let store = Arc::clone(&parts.store);
    let asked = ("values", name.clone(), question.asked(api.clock.now()));
    let outcome = parts.run_known(&asked, None, move |cancel| {
        let querier = store.querier(question.range)?;
        let values = find_strings(&question.selectors, cancel, |selectors| {
            querier.label_values(&name, selectors, question.limit_and_one())
        })?;
        Ok(question.reply_strings(values))
    });
    outcome.await
}

/// Undoes the escaping of names that begin with `U__`: `__` is an underscore, `_hex_` a character.
/// A name that is not properly escaped stands for itself, as in Prometheus; `None` for a code that
/// is no character.
fn unescape_name(name: &str) -> Option<String> {
    let Some(escaped) = name.strip_prefix("U__") else { return Some(name.to_owned()) };
    let mut plain = String::with_capacity(escaped.len());
    let mut rest = escaped;
    while let Some(at) = rest.find('_') {
        let (before, code) = rest.split_at(at);
        plain.push_str(before);
        let code = code.get(1..).unwrap_or_default();
        let Some(end) = code.find('_') else { return Some(name.to_owned()) };
        let (digits, tail) = code.split_at(end);
        rest = tail.get(1..).unwrap_or_default();
        if digits.is_empty() {
            plain.push('_');
            continue;
        }
        let Ok(number) = u32::from_str_radix(digits, 16) else { return Some(name.to_owned()) };
        plain.push(char::from_u32(number)?);
    }
    plain.push_str(rest);
    Some(plain)
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};

    use stint_model::clock::SimClock;
    use stint_model::{Columns, Querier, SeriesSet};

    use super::*;
    use crate::api::error::ErrorKind;

    /// A store of very many series, whose client goes away while the tenth is read.
    struct Abandoned {
        cancel: Cancel,
        read: Arc<AtomicUsize>,
    }

    impl Queryable for Abandoned {
        fn querier(&self, _range: TimeRange) -> Result<Box<dyn Querier>, QueryError> {
            let (cancel, read) = (self.cancel.clone(), Arc::clone(&self.read));
            Ok(Box::new(Self { cancel, read }))
        }
    }

    impl Querier for Abandoned {
        fn select(&self, _: &Selector, _: &Hints) -> Result<Box<dyn SeriesSet>, QueryError> {
            let (cancel, read) = (self.cancel.clone(), Arc::clone(&self.read));
            Ok(Box::new(Self { cancel, read }))
        }

        fn label_names(&self, _: &[Selector], _: usize) -> Result<Vec<String>, QueryError> {
            self.cancel.cancel();
            self.read.fetch_add(1, Ordering::Relaxed);
            Ok(vec!["a".into()])
        }

        fn label_values(
            &self,
            _: &str,
            _: &[Selector],
            _: usize,
        ) -> Result<Vec<String>, QueryError> {
            Ok(Vec::new())
        }
    }

    impl SeriesSet for Abandoned {
        fn len(&self) -> usize {
            1_000_000
        }

        fn labels(&self, index: usize) -> Labels {
            if index == 10 {
                self.cancel.cancel();
            }
            self.read.fetch_add(1, Ordering::Relaxed);
            Labels::from_pairs([("__name__", format!("m{index}"))])
        }

        fn read(&self, _: usize, _: TimeRange, _: &mut Columns) -> Result<(), QueryError> {
            Ok(())
        }
    }

    fn abandoned() -> Abandoned {
        let cancel = Cancel::new(Arc::new(SimClock::at(Timestamp(0))));
        Abandoned { cancel, read: Arc::default() }
    }

    #[test]
    fn looking_up_ends_when_the_client_is_gone() {
        let store = abandoned();
        let selectors = vec![Selector::new(parse_selector("m").unwrap()); 2];
        let question = Question { range: TimeRange::ALL, selectors, limit: 0 };
        let error = find_series(&store, &question, &store.cancel).unwrap_err();
        assert_eq!(error.kind, ErrorKind::Canceled);
        assert!(store.read.load(Ordering::Relaxed) <= SERIES_BETWEEN_CHECKS, "{error}");

        let store = abandoned();
        let names = find_strings(&question.selectors, &store.cancel, |selectors| {
            store.label_names(selectors, 0)
        });
        assert_eq!(names.unwrap_err().kind, ErrorKind::Canceled);
        assert_eq!(store.read.load(Ordering::Relaxed), 1);
    }

    #[test]
    fn the_counts_of_the_store_end_too() {
        let store = abandoned();
        let stats = stint_storage::Stats {
            head_bounds: Some((Timestamp(0), Timestamp(1))),
            ..stint_storage::Stats::default()
        };
        let error = super::super::tsdb::Census::take(
            &store,
            &stats,
            &super::super::tsdb::Counted::HEAD,
            &store.cancel,
        )
        .err()
        .unwrap();
        assert_eq!(error.kind, ErrorKind::Canceled);
        assert!(store.read.load(Ordering::Relaxed) <= SERIES_BETWEEN_CHECKS);
    }

    fn check(escaped: &str, plain: Option<&str>) {
        assert_eq!(unescape_name(escaped).as_deref(), plain, "{escaped}");
    }

    #[test]
    fn escaped_names_are_read() {
        check("job", Some("job"));
        check("U__service_2e_name", Some("service.name"));
        check("U__a__b", Some("a_b"));
        check("U___4f60_", Some("你"));
        check("U__no_2e", Some("U__no_2e"));
        check("U__no_zz_", Some("U__no_zz_"));
        check("U___d800_", None);
    }
}
