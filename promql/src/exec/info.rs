//! `info`: labels of info metrics added to the series that describe the same target.

use hashbrown::HashMap;
use stint_model::labels::{INSTANCE, JOB, METRIC_NAME};
use stint_model::{Labels, MatchOp, Matcher, Selector};

use crate::column::{Column, Series};
use crate::error::QueryError;
use crate::exec::duration::Reference;
use crate::exec::selector::Take;
use crate::exec::{Evaluator, Sink};
use crate::parse::ast::{Call, Expr};

/// The info metric that is meant when none is named.
const DEFAULT_METRIC: &str = "target_info";

type Index = HashMap<Labels, Vec<usize>, foldhash::fast::FixedState>;

impl Evaluator<'_> {
    /// The series of `info`.
    pub(crate) fn info(&self, call: &Call, sink: &mut Sink<'_>) -> Result<(), QueryError> {
        let Some(base) = call.args.first() else {
            return Err(QueryError::execution("an argument is missing"));
        };
        let (names, data) = info_matchers(call)?;
        let matchers = names.iter().chain(&data).cloned().collect();
        let mut infos: Vec<Series> = Vec::new();
        let reference = self.base_reference(base)?.unwrap_or(Reference { at: None, offset: 0 });
        let set = self.select(&Selector::new(matchers), 0, "info")?;
        // The times of the samples decide between series of the same identity.
        self.take_all(&*set, reference, Take::FloatTime, &mut |series| {
            infos.push(series);
            Ok(())
        })?;
        let mut index = Index::default();
        for (at, info) in infos.iter().enumerate() {
            index.entry(identity(&info.labels)).or_default().push(at);
        }
        let mut outputs = Outputs { all: Vec::new(), index: HashMap::default() };
        self.stream(base, &mut |series| {
            let name = series.labels.metric_name().unwrap_or_default();
            if names.iter().all(|matcher| matcher.matches(name)) {
                outputs.all.push(series);
                return Ok(());
            }
            let candidates = index.get(&identity(&series.labels));
            for (at, point) in series.column.points() {
                let found = match candidates {
                    Some(candidates) => newest(&infos, candidates, at)?,
                    None => Vec::new(),
                };
                let labels = if found.is_empty() {
                    if data.iter().any(|matcher| !matcher.matches_empty()) {
                        continue;
                    }
                    series.labels.clone()
                } else {
                    enriched(&series.labels, &infos, &found, &data)?
                };
                outputs.set(labels, &series, self.steps.count, at, point.to_value());
            }
            self.shared.recycle(series.column);
            Ok(())
        })?;
        for info in infos {
            self.shared.recycle(info.column);
        }
        outputs.all.into_iter().try_for_each(|series| self.emit(series, sink))
    }

    /// Where the selectors of the base point to; info series are looked up at the same times.
    fn base_reference(&self, expr: &Expr) -> Result<Option<Reference>, QueryError> {
        match expr {
            Expr::VectorSelector(selector) => {
                self.reference(&selector.offset, selector.at).map(Some)
            }
            Expr::MatrixSelector(matrix) => {
                self.reference(&matrix.selector.offset, matrix.selector.at).map(Some)
            }
            Expr::Subquery(subquery) => {
                let outer = self.reference(&subquery.offset, subquery.at)?;
                let Some(inner) = self.base_reference(&subquery.expr)? else {
                    return Ok(Some(outer));
                };
                if inner.at.is_some() {
                    return Ok(Some(inner));
                }
                let offset = outer.offset.saturating_add(inner.offset);
                Ok(Some(Reference { at: outer.at, offset }))
            }
            _ => {
                for child in expr.children() {
                    if let Some(reference) = self.base_reference(child)? {
                        return Ok(Some(reference));
                    }
                }
                Ok(None)
            }
        }
    }
}

/// The matchers that choose info metrics by name, and those on their other labels.
fn info_matchers(call: &Call) -> Result<(Vec<Matcher>, Vec<Matcher>), QueryError> {
    let matchers = match call.args.get(1).map(Expr::unparenthesized) {
        Some(Expr::VectorSelector(selector)) => selector.matchers.as_slice(),
        Some(_) => return Err(QueryError::execution("info() takes label matchers only")),
        None => &[],
    };
    let (mut names, data): (Vec<_>, Vec<_>) =
        matchers.iter().cloned().partition(|matcher| matcher.name() == METRIC_NAME);
    if names.is_empty() {
        names.push(Matcher::equal(METRIC_NAME, DEFAULT_METRIC));
    } else if names.iter().all(|matcher| matcher.op().is_negative()) {
        let any = Matcher::new(MatchOp::Regex, METRIC_NAME, ".+_info");
        names.push(any.map_err(|error| QueryError::Execution(error.to_string()))?);
    }
    Ok((names, data))
}

/// The labels that say which target a series is about.
fn identity(labels: &Labels) -> Labels {
    labels.retain(|name| name == INSTANCE || name == JOB)
}

/// Of each info metric the series with the newest sample at a step.
fn newest(infos: &[Series], candidates: &[usize], at: usize) -> Result<Vec<usize>, QueryError> {
    let mut found: Vec<(&str, f64, usize)> = Vec::new();
    for candidate in candidates {
        let Some(info) = infos.get(*candidate) else { continue };
        if info.column.histogram(at).is_some() {
            return Err(QueryError::Execution(format!(
                "this should be an info metric, with float samples: {}",
                info.labels
            )));
        }
        let Some(time) = info.column.float(at) else { continue };
        let name = info.labels.metric_name().unwrap_or_default();
        match found.iter_mut().find(|(other, ..)| *other == name) {
            Some((_, other_time, other)) => {
                if *other_time == time {
                    let labels = identity(&info.labels);
                    return Err(QueryError::Execution(format!(
                        "found duplicate series for info metric {name}: identifying labels \
                         {labels} @ {}",
                        (time * 1000.0) as i64
                    )));
                }
                if *other_time < time {
                    (*other_time, *other) = (time, *candidate);
                }
            }
            None => found.push((name, time, *candidate)),
        }
    }
    Ok(found.into_iter().map(|(_, _, candidate)| candidate).collect())
}

/// The labels of a base series with those of the info series that it lacks.
fn enriched(
    base: &Labels,
    infos: &[Series],
    found: &[usize],
    data: &[Matcher],
) -> Result<Labels, QueryError> {
    let mut builder = base.to_builder();
    let mut added: Vec<(&str, &str)> = Vec::new();
    for info in found.iter().filter_map(|at| infos.get(*at)) {
        for (name, value) in &info.labels {
            let wanted = data.is_empty() || data.iter().any(|matcher| matcher.name() == name);
            let is_own = name == METRIC_NAME || name == INSTANCE || name == JOB;
            if !wanted || is_own || base.get(name).is_some() {
                continue;
            }
            match added.iter().find(|(other, _)| *other == name) {
                Some((_, other)) if *other != value => {
                    return Err(QueryError::Execution(format!("conflicting label: {name}")));
                }
                Some(_) => {}
                None => {
                    added.push((name, value));
                    builder.set(name, value);
                }
            }
        }
    }
    Ok(builder.build())
}

/// Series under construction, by labels.
struct Outputs {
    all: Vec<Series>,
    index: HashMap<Labels, usize, foldhash::fast::FixedState>,
}

impl Outputs {
    fn set(
        &mut self,
        labels: Labels,
        base: &Series,
        count: usize,
        at: usize,
        value: crate::value::SampleValue,
    ) {
        let all = &mut self.all;
        let slot = *self.index.entry(labels.clone()).or_insert_with(|| {
            all.push(Series { labels, drop_name: base.drop_name, column: Column::new(count) });
            all.len() - 1
        });
        if let Some(series) = all.get_mut(slot) {
            series.column.set(at, value);
        }
    }
}
