//! The series that a plan is about: those of a server or a data folder, of targets, of rules.

use std::collections::HashSet;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context as _;
use serde::Deserialize;
use stint_model::clock::SystemClock;
use stint_model::labels::{INSTANCE, JOB, METRIC_NAME};
use stint_model::relabel::{Verdict, apply};
use stint_model::{
    Columns, Hints, Labels, MatchOp, Matcher, Queryable as _, Selector, Span, TimeRange, Timestamp,
};
use stint_promql::{Cancel, Engine, EngineOptions, InstantQuery, QueryValue};
use stint_storage::{Db, Options, OsDisk};
use stint_wire::exposition::{Entry, Format, Parser};

use crate::config::{Config, RuleExpression, rule_expressions};
use crate::import::folder::own_folder;

/// How far back a series of a stopped server may end and still count.
const LOOKBACK: Span = Span(5 * Span::MINUTE.0);
/// How long a server may take to list its series.
const TIMEOUT: Duration = Duration::from_mins(3);
/// The largest list of series that is taken from a server.
const ANSWER_BYTES_MAX: u64 = 1 << 30;
/// The largest file of a target, or of rules.
const FILE_BYTES_MAX: u64 = 256 << 20;
/// What a scrape adds of its own.
const OF_SCRAPES: [&str; 5] = [
    "up",
    "scrape_duration_seconds",
    "scrape_samples_scraped",
    "scrape_samples_post_metric_relabeling",
    "scrape_series_added",
];

/// Where the series are that there are already.
pub(super) enum Source {
    Nowhere,
    Server(String),
    Folder(Box<Folder>),
}

/// A data folder, looked through.
pub(super) struct Folder {
    db: Db,
    /// The time of the newest sample.
    newest: Timestamp,
    /// The series of the five minutes before.
    series: Vec<Labels>,
}

/// How far before the end of the newest block its newest sample may be.
const BLOCK: Span = Span(2 * Span::HOUR.0);

impl Folder {
    /// The time of the newest sample.
    pub(super) fn newest(&self) -> Timestamp {
        self.newest
    }

    fn read(db: Db) -> anyhow::Result<Self> {
        let Some((_, end)) = db.stats().bounds else {
            return Ok(Self { db, newest: Timestamp(0), series: Vec::new() });
        };
        let range = TimeRange::closed(end - BLOCK - LOOKBACK, end);
        let named = Matcher::new(MatchOp::NotEqual, METRIC_NAME, "")?;
        let set = db.querier(range)?.select(&Selector::new(vec![named]), &Hints::default())?;
        let (mut ends, mut columns) = (Vec::new(), Columns::default());
        for at in 0..set.len() {
            columns.clear();
            set.read(at, range, &mut columns)?;
            ends.push(columns.times.last().copied());
        }
        let newest = ends.iter().flatten().max().copied().unwrap_or(end);
        let is_recent = |at: &usize| {
            ends.get(*at).copied().flatten().is_some_and(|last| last > newest - LOOKBACK)
        };
        let series = (0..set.len()).filter(is_recent).map(|at| set.labels(at)).collect();
        Ok(Self { db, newest, series })
    }
}

impl Source {
    pub(super) fn open(server: Option<&str>, folder: Option<&Path>) -> anyhow::Result<Self> {
        if let Some(server) = server {
            return Ok(Self::Server(server.trim_end_matches('/').to_owned()));
        }
        let Some(folder) = folder else { return Ok(Self::Nowhere) };
        anyhow::ensure!(folder.is_dir(), "{} is no folder", folder.display());
        let folder = &own_folder(folder);
        let disk = Arc::new(OsDisk::new(folder)?);
        // Nothing is to go for its age because somebody looks.
        let options = Options { retention: None, retention_bytes: None, ..Options::default() };
        let (db, _) = Db::open(disk, options)
            .with_context(|| format!("cannot open {}; is its server stopped?", folder.display()))?;
        Ok(Self::Folder(Box::new(Folder::read(db)?)))
    }

    /// All series of the last five minutes.
    pub(super) fn series(&self) -> anyhow::Result<Vec<Labels>> {
        match self {
            Self::Nowhere => Ok(Vec::new()),
            Self::Server(_) => self.evaluate("{__name__!=\"\"}"),
            Self::Folder(folder) => Ok(folder.series.clone()),
        }
    }

    /// The label sets of a result.
    fn evaluate(&self, expr: &str) -> anyhow::Result<Vec<Labels>> {
        match self {
            Self::Nowhere => anyhow::bail!(
                "rules are evaluated over the series there are: name --server or --storage.tsdb.path"
            ),
            Self::Server(server) => {
                let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
                runtime.block_on(ask(server, expr))
            }
            Self::Folder(folder) => {
                let engine = Engine::new(EngineOptions::default());
                let query = InstantQuery { expr, at: folder.newest, lookback: None };
                let answer = engine.instant(
                    &folder.db,
                    &query,
                    &Cancel::new(Arc::new(SystemClock::new())),
                )?;
                Ok(match answer.value {
                    QueryValue::Vector(samples) => {
                        samples.into_iter().map(|sample| sample.labels).collect()
                    }
                    _ => vec![Labels::default()],
                })
            }
        }
    }

    /// What the rules of a file make: what they record, and the alerts that would fire now.
    pub(super) fn of_rules(&self, file: &Path) -> anyhow::Result<Vec<Labels>> {
        let named = || file.display().to_string();
        let rules =
            rule_expressions(&read(file)?).map_err(anyhow::Error::msg).with_context(named)?;
        let mut made = Vec::new();
        for rule in rules {
            let found = self
                .evaluate(&rule.expr)
                .with_context(|| format!("{}: {} / {}", named(), rule.group, rule.name))?;
            made.extend(found.iter().flat_map(|labels| outputs(&rule, labels)));
        }
        Ok(made)
    }
}

/// The series that a rule makes of one of its results.
fn outputs(rule: &RuleExpression, labels: &Labels) -> Vec<Labels> {
    let mut builder = labels.to_builder();
    for (name, value) in &rule.labels {
        builder.set(name, value);
    }
    if !rule.is_alert {
        return vec![builder.set(METRIC_NAME, &rule.name).build()];
    }
    builder.set("alertname", &rule.name);
    let state = builder.set(METRIC_NAME, "ALERTS_FOR_STATE").build();
    vec![state, builder.set(METRIC_NAME, "ALERTS").set("alertstate", "firing").build()]
}

#[derive(Deserialize)]
struct Answer {
    data: Option<Data>,
    error: Option<String>,
}

#[derive(Deserialize)]
struct Data {
    #[serde(default)]
    result: serde_json::Value,
}

/// Asks a server, and reads its answer whatever it is.
pub(super) async fn fetch(
    method: reqwest::Method,
    url: &str,
    form: &[(&str, &str)],
) -> anyhow::Result<(reqwest::StatusCode, Vec<u8>)> {
    let hint = || format!("cannot ask {url}; is the server running there? see --server");
    let mut request = super::super::client()?.request(method, url).await?.timeout(TIMEOUT);
    if !form.is_empty() {
        request = request.form(form);
    }
    let mut response = request.send().await.with_context(hint)?;
    let status = response.status();
    let mut body = Vec::new();
    while let Some(piece) = response.chunk().await.with_context(hint)? {
        body.extend_from_slice(&piece);
        anyhow::ensure!(body.len() as u64 <= ANSWER_BYTES_MAX, "the answer of {url} is too large");
    }
    Ok((status, body))
}

async fn ask(server: &str, expr: &str) -> anyhow::Result<Vec<Labels>> {
    let url = format!("{server}/api/v1/query");
    let (status, body) = fetch(reqwest::Method::POST, &url, &[("query", expr)]).await?;
    let answer: Answer = serde_json::from_slice(&body)
        .with_context(|| format!("{url} answered {status} and no result"))?;
    if let Some(error) = answer.error {
        anyhow::bail!("{url} answered {status}: {error}");
    }
    let result = answer.data.map(|data| data.result).unwrap_or_default();
    let rows = result.as_array().into_iter().flatten();
    let labels = rows.map(|row| {
        // A scalar has no labels.
        let pairs = row.get("metric").and_then(serde_json::Value::as_object).into_iter().flatten();
        Labels::from_pairs(pairs.filter_map(|(name, value)| Some((name, value.as_str()?))))
    });
    Ok(labels.collect())
}

/// The series of `replicas` targets that each show what is in `file`.
pub(super) fn of_targets(
    file: &Path,
    job: &str,
    replicas: u32,
    config: &Config,
) -> anyhow::Result<Vec<Labels>> {
    let text = read(file)?;
    let format = if text.trim_end().ends_with("# EOF") {
        Format::OpenMetrics
    } else {
        Format::PrometheusText
    };
    let mut shown = HashSet::new();
    let mut parser = Parser::new(format, text.as_bytes());
    while let Some(entry) = parser.next().with_context(|| file.display().to_string())? {
        if let Entry::Series(series) = entry {
            let mut pairs = Vec::new();
            series.each_label(|name, value| pairs.push((name.to_owned(), value.to_owned())));
            shown.insert(Labels::from_pairs(pairs.iter().map(|(n, v)| (n.as_str(), v.as_str()))));
        }
    }
    let rules = config.scrape_configs.iter().find(|known| known.job_name == job);
    let rules = rules.map(|known| known.metric_relabel_configs.as_slice()).unwrap_or_default();
    let mut all = Vec::new();
    for replica in 1..=replicas {
        let target = [(JOB, job.to_owned()), (INSTANCE, format!("replica-{replica}"))];
        for labels in &shown {
            let mut builder = labels.to_builder();
            for (name, value) in &target {
                builder.set(name, value);
            }
            if apply(rules, &mut builder) == Verdict::Keep {
                all.push(builder.build());
            }
        }
        for name in OF_SCRAPES {
            let pairs = target.iter().map(|(name, value)| (*name, value.as_str()));
            all.push(Labels::from_pairs(pairs.chain([(METRIC_NAME, name)])));
        }
    }
    Ok(all)
}

pub(super) fn read(file: &Path) -> anyhow::Result<String> {
    let shown = || file.display().to_string();
    let size = std::fs::metadata(file).with_context(shown)?.len();
    anyhow::ensure!(size <= FILE_BYTES_MAX, "{} is larger than {FILE_BYTES_MAX} bytes", shown());
    std::fs::read_to_string(file).with_context(shown)
}
