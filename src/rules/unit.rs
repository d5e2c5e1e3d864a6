//! Running unit tests of rules: series from a notation, rules over them in a time of their own, and
//! what comes out beside what was expected.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;

use parking_lot::{Mutex, RwLock};
use stint_model::clock::SimClock;
use stint_model::histogram::FloatHistogram;
use stint_model::labels::{NameScheme, Quoted};
use stint_model::{
    AppendError, Appended, Appender, Batch, Clock, Labels, Querier, QueryError, Queryable,
    RejectReason, Rejected, Sample, SeriesKey, Span, TimeRange, Timestamp, Value,
};
use stint_promql::parse::{self, parse_metric, parse_series_description};
use stint_promql::script::MemoryStore;
use stint_promql::{Cancel, Engine, EngineOptions, InstantQuery, QueryValue, SampleValue};

use super::NoSink;
use super::alerting::{ALERT_NAME, State};
use super::env::Env;
use super::group::Group;
use super::metrics::RuleMetrics;
use super::spec::{self, GroupSpec, Reading};
use crate::config::unit_test::{AlertTest, ExpectedSample, ExprTest, UnitTest, UnitTestFile};
use crate::metrics::Metrics;
use show::Shown;

mod show;

/// How tests are run.
#[derive(Clone, Copy)]
pub struct RunOptions<'a> {
    /// The language of the expressions.
    pub features: parse::Options,
    /// Which tests, by name.
    pub wanted: &'a dyn Fn(&str) -> bool,
    /// Whether fields of rule files that are not known are passed over.
    pub ignore_unknown: bool,
    /// Whether what was found is shown as the difference from what was expected.
    pub diff: bool,
    /// Whether all samples are shown after each test.
    pub dump: bool,
    /// Is told what is allowed in the file and hardly meant.
    pub warn: &'a dyn Fn(&str),
}

/// What became of one test.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct TestOutcome {
    /// As the file names it; empty for none.
    pub name: String,
    /// One text each; none when it passed.
    pub failures: Vec<String>,
    /// All samples that were there at the end, where that is wanted.
    pub dump: Option<String>,
}

/// Runs tests of a file.
///
/// # Errors
/// What is wrong with the file, one line each.
pub fn run(path: &Path, options: &RunOptions<'_>) -> Result<Vec<TestOutcome>, Vec<String>> {
    let text = std::fs::read_to_string(path)
        .map_err(|error| vec![format!("{}: cannot read the file: {error}", path.display())])?;
    let file = UnitTestFile::parse(path, &text)
        .map_err(|errors| errors.0.iter().map(ToString::to_string).collect::<Vec<_>>())?;
    file.warnings.iter().for_each(|warning| (options.warn)(warning));
    let wanted = file.tests.iter().filter(|test| (options.wanted)(&test.name));
    let outcome = |test: &UnitTest| match Running::new(&file, test, options) {
        Ok(running) => running.run(),
        Err(failures) => TestOutcome { name: test.name.clone(), failures, dump: None },
    };
    Ok(wanted.map(outcome).collect())
}

/// A store that samples are added to as time goes on.
#[derive(Clone, Default)]
struct Store(Arc<Mutex<Held>>);

#[derive(Default)]
struct Held {
    memory: MemoryStore,
    newest: BTreeMap<Labels, Sample>,
}

impl Store {
    /// Adds a sample as a store does that takes none out of order.
    fn put(&self, labels: &Labels, sample: &Sample) -> Result<(), RejectReason> {
        let mut held = self.0.lock();
        if let Some(newest) = held.newest.get(labels) {
            if newest.at > sample.at {
                return Err(RejectReason::OutOfOrder);
            }
            if newest.at == sample.at {
                let same = is_same(&newest.value, &sample.value);
                return if same { Ok(()) } else { Err(RejectReason::DuplicateTimestamp) };
            }
        }
        held.memory.append(labels, sample.clone());
        held.newest.insert(labels.clone(), sample.clone());
        Ok(())
    }
}

fn is_same(a: &Value, b: &Value) -> bool {
    match (a, b) {
        (Value::Float(a), Value::Float(b)) => a.to_bits() == b.to_bits(),
        (a, b) => a == b,
    }
}

impl Queryable for Store {
    fn querier(&self, range: TimeRange) -> Result<Box<dyn Querier>, QueryError> {
        self.0.lock().memory.querier(range)
    }
}

impl Appender for Store {
    fn append(&self, batch: &Batch) -> Result<Appended, AppendError> {
        let mut appended = Appended::default();
        for (row, content) in batch.rows.iter().enumerate() {
            appended.refs.push(None);
            // There are no handles here, so nobody can have one.
            let stored = match &content.series {
                SeriesKey::Labels(labels) => self.put(labels, &content.sample),
                SeriesKey::Known(_) => Err(RejectReason::UnknownSeries),
            };
            if let Err(reason) = stored {
                appended.rejected.push(Rejected { row, reason });
            }
        }
        Ok(appended)
    }
}

/// A test on its way.
struct Running<'a> {
    file: &'a UnitTestFile,
    test: &'a UnitTest,
    store: Store,
    env: Env,
    clock: Arc<SimClock>,
    groups: Vec<Group>,
    /// Samples still to come, the next one last.
    input: Vec<(Timestamp, Labels, Sample)>,
    diff: bool,
    dump: bool,
}

impl<'a> Running<'a> {
    fn new(
        file: &'a UnitTestFile,
        test: &'a UnitTest,
        options: &RunOptions<'_>,
    ) -> Result<Self, Vec<String>> {
        let input = input(test)?;
        let specs = groups(file, test, options)?;
        let &RunOptions { features, diff, dump, .. } = options;
        let clock = Arc::new(SimClock::at(test.start));
        let shared = Arc::clone(&clock) as Arc<dyn Clock>;
        let store = Store::default();
        let options = EngineOptions {
            features,
            subquery_step: file.evaluation_interval,
            ..EngineOptions::default()
        };
        let external_labels = test.external_labels.iter();
        let env = Env {
            store: Arc::new(store.clone()),
            engine: Arc::new(Engine::new(options)),
            appender: Arc::new(store.clone()),
            sink: Arc::new(NoSink),
            metrics: RuleMetrics::new(&Metrics::new(), &shared),
            cancel: Cancel::new(Arc::clone(&shared)),
            clock: shared,
            external_url: test.external_url.clone(),
            slots: None,
            room: Arc::default(),
            resend_delay: Span::ZERO,
            outage_tolerance: Span::ZERO,
            grace_period: Span::ZERO,
            external_labels: RwLock::new(Labels::from_pairs(external_labels.map(|(n, v)| (n, v)))),
        };
        let groups = specs.into_iter().map(|spec| Group::new(spec, false, &env)).collect();
        Ok(Self { file, test, store, env, clock, groups, input, diff, dump })
    }

    /// Evaluates everything.
    fn run(mut self) -> TestOutcome {
        let alert_times = self.test.alerts.iter().map(|test| test.eval_time);
        let expr_times = self.test.expressions.iter().map(|test| test.eval_time);
        let end = alert_times.chain(expr_times).max().unwrap_or_default();
        let failures = self.failures(end);
        let dump = self.dump.then(|| self.dumped(end));
        TestOutcome { name: self.test.name.clone(), failures, dump }
    }

    /// Evaluates up to `end` and answers with what failed.
    fn failures(&mut self, end: Span) -> Vec<String> {
        let mut failures = Vec::new();
        let interval = self.file.evaluation_interval;
        let mut since = Span::ZERO;
        while since <= end {
            let at = self.test.start + since;
            if let Err(errors) = self.eval(at, since) {
                failures.extend(errors);
                return failures;
            }
            let next = Span(since.0.saturating_add(interval.0));
            let mut due: Vec<&AlertTest> = self
                .test
                .alerts
                .iter()
                .filter(|test| (since..next).contains(&test.eval_time))
                .collect();
            due.sort_by_key(|test| test.eval_time);
            failures.extend(due.into_iter().filter_map(|test| self.check_alerts(test)));
            since = next;
        }
        failures.extend(self.test.expressions.iter().filter_map(|test| self.check_expr(test)));
        failures
    }

    /// All samples up to the second after `end`.
    fn dumped(&self, end: Span) -> String {
        let end = Span(end.0.saturating_add(1000) / 1000 * 1000);
        // Ranges are open on the left; the first samples are to be seen.
        let expr = format!("{{__name__=~\".+\"}}[{}]", Span(end.0.saturating_add(1)));
        let query = InstantQuery { expr: &expr, at: self.test.start + end, lookback: None };
        let head = format!("DEBUG: Dumping all data (input_series and rules) at {end}:");
        match self.env.engine.instant(&self.store, &query, &self.env.cancel) {
            Ok(answer) => format!("{head}\n{}", show::series(&answer.value)),
            Err(error) => format!("{head}\n{error}"),
        }
    }

    fn eval(&mut self, at: Timestamp, since: Span) -> Result<(), Vec<String>> {
        self.clock.step_to(at);
        let mut errors = Vec::new();
        while let Some((_, labels, sample)) = self.input.pop_if(|(time, _, _)| *time <= at) {
            if let Err(reason) = self.store.put(&labels, &sample) {
                errors.push(format!("    series: {labels}, time: {since}, err: {reason}"));
            }
        }
        for group in &self.groups {
            group.eval(at, 0, &self.env);
            for rule in group.rules() {
                if let Some(error) = rule.status().error {
                    let name = &rule.spec.name;
                    errors.push(format!("    rule: {name}, time: {since}, err: {error}"));
                }
            }
        }
        if errors.is_empty() { Ok(()) } else { Err(errors) }
    }

    fn check_alerts(&self, test: &AlertTest) -> Option<String> {
        let mut found: Vec<Shown> = Vec::new();
        for group in &self.groups {
            for rule in group.rules().iter().filter(|rule| rule.spec.name == test.alertname) {
                rule.with_alerts(|alerts| {
                    let firing = alerts.active().filter(|(_, alert)| alert.state == State::Firing);
                    found.extend(firing.map(|(labels, alert)| Shown {
                        labels: owned(labels.iter()),
                        annotations: alert.annotations.iter().cloned().collect(),
                    }));
                });
            }
        }
        let mut expected: Vec<Shown> = test
            .expected
            .iter()
            .map(|(labels, annotations)| {
                let mut labels: BTreeMap<_, _> = labels.iter().cloned().collect();
                labels.insert(ALERT_NAME.to_owned(), test.alertname.clone());
                Shown { labels, annotations: annotations.iter().cloned().collect() }
            })
            .collect();
        found.sort();
        expected.sort();
        if found == expected {
            return None;
        }
        let (name, time) = (&test.alertname, test.eval_time);
        let test = self.name();
        let (expected, found) = (show::list(&expected), show::list(&found));
        let told = if self.diff {
            show::difference(&expected, &found)
        } else {
            format!("exp:{expected}, \n        got:{found}")
        };
        Some(format!("{test}    alertname: {name}, time: {time}, \n        {told}"))
    }

    fn name(&self) -> String {
        match self.test.name.as_str() {
            "" => String::new(),
            name => format!("    name: {name},\n"),
        }
    }

    fn check_expr(&self, test: &ExprTest) -> Option<String> {
        let head = format!("    expr: {}, time: {},", Quoted(&test.expr), test.eval_time);
        let mut found = match self.ask(test) {
            Ok(found) => found,
            Err(error) => return Some(format!("{head} err: {error}")),
        };
        let mut expected = Vec::new();
        for sample in &test.expected {
            match expectation(sample) {
                Ok(sample) => expected.push(sample),
                Err(error) => {
                    let labels = Quoted(&sample.labels);
                    return Some(format!("{head} err: labels {labels}: {error}"));
                }
            }
        }
        found.sort_by(|a, b| a.0.cmp(&b.0));
        expected.sort_by(|a, b| a.0.cmp(&b.0));
        let fuzzy = self.file.fuzzy_compare;
        let same = found.len() == expected.len()
            && found.iter().zip(&expected).all(|(a, b)| a.0 == b.0 && a.1.is(&b.1, fuzzy));
        if same {
            return None;
        }
        let (expected, found) = (samples(&expected), samples(&found));
        Some(if self.diff {
            let lines = |samples: &str| samples.replace("}, {", "}\n{");
            format!("{head}\n        {}", show::difference(&lines(&expected), &lines(&found)))
        } else {
            format!("{head}\n        exp: {expected}\n        got: {found}")
        })
    }

    fn ask(&self, test: &ExprTest) -> Result<Vec<(Labels, Point)>, String> {
        let at = self.test.start + test.eval_time;
        let query = InstantQuery { expr: &test.expr, at, lookback: None };
        let answer = self.env.engine.instant(&self.store, &query, &self.env.cancel);
        match answer.map_err(|error| error.to_string())?.value {
            QueryValue::Vector(found) => Ok(found
                .into_iter()
                .map(|sample| {
                    let value = match sample.value {
                        SampleValue::Float(value) => Point::Float(value),
                        SampleValue::Histogram(histogram) => Point::histogram((*histogram).clone()),
                    };
                    (sample.labels, value)
                })
                .collect()),
            QueryValue::Scalar { value, .. } => Ok(vec![(Labels::default(), Point::Float(value))]),
            QueryValue::String { .. } | QueryValue::Matrix(_) => {
                Err("rule result is not a vector or scalar".to_owned())
            }
        }
    }
}

/// What the input series hold, the earliest last.
fn input(test: &UnitTest) -> Result<Vec<(Timestamp, Labels, Sample)>, Vec<String>> {
    let (mut input, mut errors) = (Vec::new(), Vec::new());
    for (series, values) in &test.input_series {
        let description = format!("{series} {values}");
        let read = match parse_series_description(&description) {
            Ok(read) => read,
            Err(error) => {
                errors.push(error.to_string());
                continue;
            }
        };
        for (number, value) in read.values.into_iter().enumerate() {
            let Some(value) = value.value else { continue };
            let at = test.start + Span(test.interval.0.saturating_mul(number as i64));
            input.push((at, read.labels.clone(), Sample { at, started: None, value }));
        }
    }
    // Stable, so that equal times keep their order when they are taken from the end.
    input.reverse();
    input.sort_by_key(|(at, _, _)| std::cmp::Reverse(*at));
    if errors.is_empty() { Ok(input) } else { Err(errors) }
}

fn groups(
    file: &UnitTestFile,
    test: &UnitTest,
    options: &RunOptions<'_>,
) -> Result<Vec<GroupSpec>, Vec<String>> {
    let reading = Reading {
        features: options.features,
        name_scheme: NameScheme::Utf8,
        interval: test.interval,
        query_offset: Span::ZERO,
        ignore_unknown: options.ignore_unknown,
    };
    let (mut groups, mut errors) = (Vec::new(), Vec::new());
    for path in &file.rule_files {
        let read = std::fs::read_to_string(path)
            .map_err(|error| vec![format!("{}: cannot read the file: {error}", path.display())])
            .and_then(|text| spec::read(path, &text, &reading));
        match read {
            Ok(read) => groups.extend(read.groups),
            Err(found) => errors.extend(found),
        }
    }
    let order = &file.group_eval_order;
    groups.sort_by_key(|group| order.iter().position(|name| *name == group.name).unwrap_or(0));
    if errors.is_empty() { Ok(groups) } else { Err(errors) }
}

/// A value that is compared.
#[derive(Clone, Debug, PartialEq)]
enum Point {
    Float(f64),
    Histogram(Box<FloatHistogram>),
}

impl Point {
    fn histogram(mut histogram: FloatHistogram) -> Self {
        histogram.compact();
        Self::Histogram(Box::new(histogram))
    }

    fn is(&self, other: &Self, fuzzy: bool) -> bool {
        match (self, other) {
            (Self::Float(a), Self::Float(b)) => {
                a == b || (fuzzy && (a.next_up() == *b || a.next_down() == *b))
            }
            (a, b) => a == b,
        }
    }
}

fn expectation(sample: &ExpectedSample) -> Result<(Labels, Point), String> {
    // Nothing at all stands for no labels.
    let labels = match sample.labels.trim() {
        "" => Labels::default(),
        text => parse_metric(text).map_err(|error| error.to_string())?,
    };
    if sample.histogram.is_empty() {
        return Ok((labels, Point::Float(sample.value)));
    }
    let read = parse_series_description(&format!("{{}} {}", sample.histogram))
        .map_err(|error| error.to_string())?;
    match &read.values[..] {
        [value] => match &value.value {
            Some(Value::Histogram(histogram)) => {
                Ok((labels, Point::histogram(histogram.to_float())))
            }
            _ => Err("expected histogram".to_owned()),
        },
        values => Err(format!("expected 1 value, got {}", values.len())),
    }
}

/// Samples on one line.
fn samples(samples: &[(Labels, Point)]) -> String {
    if samples.is_empty() {
        return "nil".to_owned();
    }
    let shown = samples.iter().map(|(labels, value)| match value {
        Point::Float(value) => format!("{labels} {}", exponent(*value)),
        Point::Histogram(histogram) => format!("{labels} {histogram}"),
    });
    shown.collect::<Vec<_>>().join(", ")
}

/// A float with an exponent of two digits, whatever its size.
fn exponent(value: f64) -> String {
    if value.is_nan() {
        return "NaN".to_owned();
    }
    if value.is_infinite() {
        return if value > 0.0 { "+Inf" } else { "-Inf" }.to_owned();
    }
    let text = format!("{value:E}");
    let (digits, exponent) = text.split_once('E').unwrap_or((&text, "0"));
    let (sign, exponent) = exponent.strip_prefix('-').map_or(('+', exponent), |rest| ('-', rest));
    format!("{digits}E{sign}{exponent:0>2}")
}

fn owned<'a>(pairs: impl Iterator<Item = (&'a str, &'a str)>) -> BTreeMap<String, String> {
    pairs.map(|(name, value)| (name.to_owned(), value.to_owned())).collect()
}

#[cfg(test)]
mod tests;
