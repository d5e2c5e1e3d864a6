//! `stint import`: what another server stored becomes history here.

use std::fmt::Write as _;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;

use anyhow::{Context as _, bail};
use clap::Args;
use serde::Serialize;
use stint_model::clock::SystemClock;
use stint_model::labels::METRIC_NAME;
use stint_model::{Clock, Selector, Span, TimeRange, Timestamp};
use stint_promql::parse::parse_selector;
use stint_storage::compact::CompactOptions;
use stint_storage::{Db, Disk, OpenError, Options, OsDisk};
use stint_wire::tsdb::meta::BlockMeta;

use super::Format;
use super::progress::Progress;
use crate::api::params::parse_time;
use crate::config::{self, Credential, HttpConfig, HttpHeader, Secret};
use crate::http::Client;
use crate::import::folder::{Folder, own_folder, samples_in};
use crate::import::remote::Remote;
use crate::import::state::State;
use crate::import::text::TextFile;
use crate::import::{self, Counts, ImportError, Target, Watcher};

/// Exit code of an import that had to leave something out for damage.
const EXIT_DAMAGED: u8 = 3;

/// Imports what another server stored: a Prometheus data folder (blocks, head chunks, log), a file
/// in the text format or in OpenMetrics whose samples have times, or a running server by remote
/// read.
///
/// No server may have the data directory open. An import that was interrupted goes on where it was
/// when it is started again; what is there already is not stored twice. What is imported is not
/// forwarded. Exemplars and metadata are not imported.
///
/// Exits with 0 when everything was imported, with 1 when it failed, and with 3 when something was
/// left out because it is damaged.
#[derive(Debug, Args)]
pub(super) struct ImportArgs {
    /// A Prometheus data folder (or a snapshot of one), a text file, or the URL of a server.
    source: String,
    /// The data directory.
    #[arg(long = "storage.tsdb.path", value_name = "DIRECTORY", default_value = "data/")]
    path: PathBuf,
    /// How long data is kept: older samples are left out. As the server, this reads the configuration
    /// without the flag.
    #[arg(long = "storage.tsdb.retention.time", value_name = "DURATION", value_parser = Span::parse)]
    retention: Option<Span>,
    /// `prometheus.yml`; without the flag the one in the working directory, where there is one.
    #[arg(long = "config.file", value_name = "FILE")]
    config_file: Option<PathBuf>,
    /// `retention.toml`; without the flag the one beside `prometheus.yml`, where there is one.
    #[arg(long = "retention.file", value_name = "FILE")]
    retention_file: Option<PathBuf>,
    /// Whether `${NAME}` is a variable of the environment in any value of both files.
    #[arg(long = "config.expand-env")]
    expand_env: bool,
    /// The first time, in seconds or as RFC 3339.
    #[arg(long, value_name = "TIME", value_parser = parse_time)]
    start: Option<Timestamp>,
    /// The time before which everything lies.
    #[arg(long, value_name = "TIME", value_parser = parse_time)]
    end: Option<Timestamp>,
    /// Only series that this selector selects; may be repeated.
    #[arg(long = "match", value_name = "SELECTOR", value_parser = selector)]
    selectors: Vec<Selector>,
    /// A label that every series gets; may be repeated.
    #[arg(long = "label", value_name = "NAME=VALUE", value_parser = label)]
    labels: Vec<(String, String)>,
    /// A header of requests to a server, such as `Authorization: Bearer …`; may be repeated.
    #[arg(long = "header", value_name = "NAME: VALUE", value_parser = header)]
    headers: Vec<HttpHeader>,
    /// Import what an earlier run finished once more.
    #[arg(long)]
    again: bool,
    /// Tell what would be imported, and import nothing.
    #[arg(long)]
    dry_run: bool,
    /// How the outcome is printed.
    #[arg(long, value_enum, default_value_t = Format::Text)]
    format: Format,
}

fn selector(text: &str) -> Result<Selector, String> {
    parse_selector(text).map(Selector::new).map_err(|error| error.to_string())
}

fn label(text: &str) -> Result<(String, String), String> {
    match text.split_once('=') {
        Some((METRIC_NAME, _)) => Err("the metric name cannot be changed".to_owned()),
        Some((name, value)) if !name.is_empty() => Ok((name.to_owned(), value.to_owned())),
        _ => Err("not of the form NAME=VALUE".to_owned()),
    }
}

fn header(text: &str) -> Result<HttpHeader, String> {
    let (name, value) = text.split_once(':').ok_or("not of the form NAME: VALUE")?;
    let value = Credential::Inline(Secret::new(value.trim().to_owned()));
    Ok(HttpHeader { name: name.trim().to_owned(), values: vec![value] })
}

/// Where samples come from.
enum Source {
    Folder(Folder),
    Text(TextFile),
    Remote(Remote),
}

/// What was imported.
#[derive(Debug, Serialize)]
struct Outcome {
    source: String,
    samples: u64,
    blocks: u64,
    done_before: u64,
    refused_histograms: u64,
    damaged: u64,
    damage: Vec<String>,
}

/// Imports, with what is going on told on standard error and the outcome on standard output.
pub(super) fn run(args: &ImportArgs) -> ExitCode {
    match import(args) {
        Ok(Some(outcome)) => {
            let text = match args.format {
                Format::Text => outcome.to_text(),
                Format::Json => serde_json::json!(outcome).to_string() + "\n",
            };
            // The exit code tells where the outcome cannot be printed.
            let _ = std::io::stdout().write_all(text.as_bytes());
            if outcome.damaged > 0 { ExitCode::from(EXIT_DAMAGED) } else { ExitCode::SUCCESS }
        }
        Ok(None) => ExitCode::SUCCESS,
        Err(error) => super::fail(1, &format!("{error:#}")),
    }
}

fn import(args: &ImportArgs) -> anyhow::Result<Option<Outcome>> {
    let clock: Arc<dyn Clock> = Arc::new(SystemClock::new());
    let now = clock.now();
    let retention = retention(args)?;
    let window = CompactOptions::of(Options::default().block_range, retention).longest();
    // A block is kept as long as any of it is.
    let kept = retention.map_or(Timestamp::MIN, |retention| floor(now - retention, window));
    let wanted =
        TimeRange::new(args.start.unwrap_or(Timestamp::MIN), args.end.unwrap_or(Timestamp::MAX));
    let mut range = TimeRange::new(wanted.start.max(kept), wanted.end);
    let source = Source::open(args)?;
    if matches!(source, Source::Remote(_)) {
        range.end = range.end.min(now);
        if range.start == Timestamp::MIN {
            bail!(
                "a server does not say what it has: give --start, since data is kept without end"
            );
        }
    }
    told(&source.description());
    for line in source.left_out(wanted, kept, retention) {
        told(&line);
    }
    if args.dry_run {
        return Ok(None);
    }
    let disk: Arc<dyn Disk> =
        Arc::new(OsDisk::new(own_folder(&args.path)).with_context(|| cannot_use(args))?);
    // The retention only says how long blocks may be: the server removes what is too old.
    let options = Options { retention, retention_bytes: None, ..Options::default() };
    let (db, _) = Db::open(Arc::clone(&disk), options).map_err(|error| opening(args, &error))?;
    let selectors = args.selectors.clone();
    let target = Target { db: &db, range, selectors, labels: args.labels.clone() };
    let key = source.key(args)?;
    let mut state = State::open(&*disk)?;
    if args.again {
        state.forget(&key);
    }
    let mut watcher = Shown(Progress::new(Arc::clone(&clock), "samples"));
    let imported = source.import(&target, &mut state, &key, &mut watcher);
    watcher.0.finish();
    let compacted = match &imported {
        Ok(_) => {
            told("merging blocks");
            import::compact(&db)
        }
        Err(_) => Ok(()),
    };
    let closed = db.close().context("cannot close the store");
    let counts = imported?;
    compacted.context("cannot merge blocks; the server will try again")?;
    closed?;
    Ok(Some(Outcome::new(args, counts)))
}

/// Says something on standard error.
fn told(line: &str) {
    // Where it is closed, nobody wants to know.
    let _ = writeln!(std::io::stderr(), "{line}");
}

fn floor(at: Timestamp, length: Span) -> Timestamp {
    Timestamp(at.0.div_euclid(length.0.max(1)).saturating_mul(length.0.max(1)))
}

fn cannot_use(args: &ImportArgs) -> String {
    format!("cannot use the data directory {}; see --storage.tsdb.path", args.path.display())
}

fn opening(args: &ImportArgs, error: &OpenError) -> anyhow::Error {
    let path = args.path.display();
    match error {
        OpenError::InUse => anyhow::anyhow!(
            "a server has {path} open; stop it while history is imported (what was imported before \
             stays, and the server needs no time to start)"
        ),
        error => anyhow::anyhow!("cannot open the store in {path}: {error}"),
    }
}

/// How long samples are kept, as the server would find out.
fn retention(args: &ImportArgs) -> anyhow::Result<Option<Span>> {
    let (prometheus, retention) = super::check::found(
        args.config_file.as_deref(),
        args.retention_file.as_deref(),
        Path::new(""),
    );
    let files = config::Files {
        prometheus: prometheus.as_deref(),
        retention: retention.as_deref(),
        own_address: "localhost:9090",
        expand_env: args.expand_env,
    };
    let config = config::load(files)?;
    let flag = args.retention.filter(|_| config.storage.retention.is_none());
    let kept = flag.unwrap_or(config.retention.time);
    Ok((kept > Span::ZERO).then_some(kept))
}

impl Source {
    fn open(args: &ImportArgs) -> anyhow::Result<Self> {
        if args.source.starts_with("http://") || args.source.starts_with("https://") {
            let config = HttpConfig { headers: args.headers.clone(), ..HttpConfig::default() };
            let client = Client::posting(&config, concat!("Stint/", env!("CARGO_PKG_VERSION")))?;
            return Ok(Self::Remote(Remote::new(client, &args.source)));
        }
        if !args.headers.is_empty() {
            bail!("--header is for servers, and {} is none", args.source);
        }
        let path = Path::new(&args.source);
        let found =
            std::fs::metadata(path).with_context(|| format!("cannot read {}", args.source))?;
        if found.is_dir() {
            return Ok(Self::Folder(Folder::open(path)?));
        }
        told(&format!("reading {}", args.source));
        Ok(Self::Text(TextFile::open(path)?))
    }

    /// What it is, and what was asked of it: the same for a run that goes on with another.
    fn key(&self, args: &ImportArgs) -> anyhow::Result<String> {
        let mut key = match self {
            Self::Remote(remote) => format!("remote {}", remote.place()),
            Self::Folder(_) | Self::Text(_) => {
                let path = std::fs::canonicalize(&args.source)?;
                format!("files {}", path.display())
            }
        };
        for (name, time) in [("start", args.start), ("end", args.end)] {
            if let Some(time) = time {
                write!(key, " {name}={}", time.0)?;
            }
        }
        for selector in &args.selectors {
            let matchers: Vec<String> = selector.matchers.iter().map(ToString::to_string).collect();
            write!(key, " match={{{}}}", matchers.join(","))?;
        }
        for (name, value) in &args.labels {
            write!(key, " label={name}={value}")?;
        }
        Ok(key)
    }

    fn description(&self) -> String {
        match self {
            Self::Remote(remote) => format!("asking {}", remote.place()),
            Self::Text(file) => match file.range() {
                None => "no samples".to_owned(),
                Some(range) => format!("{} samples, {}", file.samples(), shown_range(range)),
            },
            Self::Folder(folder) => {
                let blocks = folder.blocks();
                let samples: u64 = blocks.iter().map(|meta| meta.stats.num_samples).sum();
                let all = blocks.iter().map(BlockMeta::range);
                let all = all.reduce(|a, b| TimeRange::new(a.start.min(b.start), a.end.max(b.end)));
                let range =
                    all.map_or_else(String::new, |range| format!(", {}", shown_range(range)));
                let log = folder.head_bytes() as f64 / f64::from(1 << 20);
                format!("{} blocks of {samples} samples{range}; {log:.1} MiB of log", blocks.len())
            }
        }
    }

    /// What is left out since nobody would keep it.
    fn left_out(&self, wanted: TimeRange, kept: Timestamp, retention: Option<Span>) -> Vec<String> {
        let Some(retention) = retention.filter(|_| wanted.start < kept) else { return Vec::new() };
        let old = TimeRange::new(Timestamp::MIN, kept);
        let what = match self {
            Self::Remote(_) => Some("samples before".to_owned()),
            Self::Text(file) => {
                let some = file.range().is_some_and(|range| range.start < kept);
                some.then(|| "samples before".to_owned())
            }
            Self::Folder(folder) => {
                let samples: u64 = folder.blocks().iter().map(|meta| samples_in(meta, old)).sum();
                (samples > 0).then(|| format!("about {samples} samples before"))
            }
        };
        let told = |what: String| {
            format!(
                "data is kept for {retention}: {what} {} are left out; to import them too, keep data \
                 longer ([retention] time in retention.toml, or --storage.tsdb.retention.time here and \
                 for the server)",
                super::rules::shown(kept)
            )
        };
        what.map(told).into_iter().collect()
    }

    fn import(
        &self,
        target: &Target<'_>,
        state: &mut State<'_>,
        key: &str,
        watcher: &mut dyn Watcher,
    ) -> Result<Counts, ImportError> {
        match self {
            Self::Folder(folder) => folder.import(target, state, key, watcher),
            Self::Text(file) => file.import(target, state, key, watcher),
            Self::Remote(remote) => {
                let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
                let runtime = runtime.map_err(|error| ImportError::Source(error.to_string()))?;
                runtime.block_on(remote.import(target, state, key, watcher))
            }
        }
    }
}

fn shown_range(range: TimeRange) -> String {
    use super::rules::shown;
    format!("from {} to {}", shown(range.start), shown(range.end))
}

/// A watcher that shows progress.
struct Shown(Progress);

impl Watcher for Shown {
    fn at(&mut self, done: u64, total: u64, samples: u64) -> bool {
        self.0.at(done, total, samples);
        true
    }
}

impl Outcome {
    fn new(args: &ImportArgs, counts: Counts) -> Self {
        Self {
            source: args.source.clone(),
            samples: counts.samples,
            blocks: counts.blocks,
            done_before: counts.done_before,
            refused_histograms: counts.refused,
            damaged: counts.damaged,
            damage: counts.damage,
        }
    }

    fn to_text(&self) -> String {
        let mut lines: Vec<String> =
            self.damage.iter().map(|what| format!("damaged: {what}")).collect();
        if self.damaged > self.damage.len() as u64 {
            lines.push(format!("damaged: {} more", self.damaged - self.damage.len() as u64));
        }
        if self.refused_histograms > 0 {
            let refused = self.refused_histograms;
            lines.push(format!("{refused} histograms that contradict themselves left out"));
        }
        if self.done_before > 0 {
            let done = self.done_before;
            lines.push(format!("{done} parts were imported before (--again imports them anew)"));
        }
        lines.push(format!("{} samples imported", self.samples));
        lines.join("\n") + "\n"
    }
}
