//! `stint budget plan`: what a policy, a target or rules will cost before they are deployed.

mod series;
mod show;
mod used;

use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;

use anyhow::Context as _;
use clap::Args;
use stint_model::{Labels, Span};

use super::Format;
use crate::budget::ranking::Ranking;
use crate::budget::report::EndpointReport;
use crate::config::{self, Config, Files};
use crate::forward::plan::plan;

/// Tells which slots and points configurations, new targets and rules will take, before they are
/// deployed. Exit code 0: everything fits; 3: something would be withheld, or more points be sent
/// than are included; 1: it cannot be told; 2: wrong usage.
#[derive(Debug, Args)]
#[command(after_help = "\
The series that are stored already are those of --server or --storage.tsdb.path, if one is named; \
without, the plan is about the files alone. What changes is told against the same series without \
--scrape-file and --rule-file, under --base.retention.file where that is named. Where no classes are \
configured, what is used comes first, as with a running server: rules and dashboards of the configuration, \
--rule-file, --dashboard-file, and the queries that were asked of --server or are remembered in \
--storage.tsdb.path.")]
pub(super) struct PlanArgs {
    /// `prometheus.yml`, for its endpoints and external labels.
    #[arg(long = "config.file", value_name = "FILE", default_value = "prometheus.yml")]
    config_file: PathBuf,
    /// The `retention.toml` that is planned; without one, its defaults.
    #[arg(long = "retention.file", value_name = "FILE")]
    retention_file: Option<PathBuf>,
    /// The `retention.toml` that is in force, to compare with.
    #[arg(long = "base.retention.file", value_name = "FILE")]
    base_retention_file: Option<PathBuf>,
    /// Whether `${NAME}` is a variable of the environment in any value of these files.
    #[arg(long = "config.expand-env")]
    expand_env: bool,
    /// The running server whose series there are already.
    #[arg(long, value_name = "URL", conflicts_with = "storage_path")]
    server: Option<String>,
    /// The data folder of a stopped server whose series there are already. It is opened as at a start.
    #[arg(long = "storage.tsdb.path", value_name = "DIR")]
    storage_path: Option<PathBuf>,
    /// What a new target shows, in the text format; may be given more than once.
    #[arg(long, value_name = "FILE")]
    scrape_file: Vec<PathBuf>,
    /// How many such targets there will be.
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..=100_000))]
    replicas: u32,
    /// The job of the new targets; one of prometheus.yml lends its relabelling.
    #[arg(long, value_name = "NAME", default_value = "planned")]
    job: String,
    /// New rules; may be given more than once. They are evaluated over the series there are already.
    #[arg(long, value_name = "FILE")]
    rule_file: Vec<PathBuf>,
    /// A Grafana dashboard that will be used; may be given more than once. Those that retention.toml
    /// names are read without.
    #[arg(long, value_name = "FILE")]
    dashboard_file: Vec<PathBuf>,
    /// The endpoint to plan for; all without.
    #[arg(long, value_name = "NAME")]
    endpoint: Option<String>,
    /// How the plan is printed.
    #[arg(long, value_enum, default_value_t = Format::Text)]
    format: Format,
}

/// Exit code for a plan that does not fit.
const EXIT_OVER: u8 = 3;

/// The plan of one endpoint, beside what holds without the changes.
struct Planned {
    before: EndpointReport,
    after: EndpointReport,
}

/// Plans and prints.
pub(super) fn run(args: &PlanArgs) -> anyhow::Result<ExitCode> {
    let planned = plans(args)?;
    super::print(&match args.format {
        Format::Text => show::text(&planned),
        Format::Json => show::json(&planned)?,
    })?;
    let fits = planned.iter().all(Planned::fits);
    Ok(if fits { ExitCode::SUCCESS } else { ExitCode::from(EXIT_OVER) })
}

/// The plans of all endpoints that are asked for.
fn plans(args: &PlanArgs) -> anyhow::Result<Vec<Planned>> {
    let config = load(args, args.retention_file.as_ref())?;
    let base = match &args.base_retention_file {
        Some(file) => load(args, Some(file))?,
        None => config.clone(),
    };
    let chosen = |name: &str| args.endpoint.as_ref().is_none_or(|wanted| wanted == name);
    if !config.remote_write.iter().any(|endpoint| chosen(&endpoint.name)) {
        let wanted = args.endpoint.as_deref().unwrap_or("remote_write");
        anyhow::bail!("{} has no endpoint {wanted}", args.config_file.display());
    }
    let source = series::Source::open(args.server.as_deref(), args.storage_path.as_deref())?;
    let stored = source.series()?;
    let used = used::Used::read(args, &source)?;
    let (ranked, ranked_before) = (used.after(&config)?, used.before(&base)?);
    let mut all = stored.clone();
    for file in &args.scrape_file {
        all.extend(series::of_targets(file, &args.job, args.replicas, &config)?);
    }
    for file in &args.rule_file {
        all.extend(source.of_rules(file)?);
    }
    let scraped = scrape_interval(&config);
    let planned =
        config.remote_write.iter().filter(|endpoint| chosen(&endpoint.name)).map(|after| {
            let before = base.remote_write.iter().find(|it| it.name == after.name).unwrap_or(after);
            let report = |endpoint, config: &Config, series: &[Labels], ranked: &Arc<Ranking>| {
                let ranking = Some(Arc::clone(ranked));
                plan(series, endpoint, &config.global.external_labels, scraped, ranking)
            };
            Planned {
                before: report(before, &base, &stored, &ranked_before),
                after: report(after, &config, &all, &ranked),
            }
        });
    Ok(planned.collect())
}

fn load(args: &PlanArgs, retention: Option<&PathBuf>) -> anyhow::Result<Config> {
    let files = Files {
        prometheus: Some(&args.config_file),
        retention: retention.map(PathBuf::as_path),
        own_address: "localhost:9090",
        expand_env: args.expand_env,
    };
    config::load(files).context("the configuration is wrong")
}

/// The interval of the jobs where they agree, else the shortest: what is scraped more rarely has
/// fewer points than planned.
fn scrape_interval(config: &Config) -> Span {
    let jobs = config.scrape_configs.iter().map(|job| job.scrape_interval);
    jobs.min().unwrap_or(config.global.scrape_interval)
}

/// Why series are not sent that are not meant to be.
const CHOSEN: [&str; 4] = ["policy", "buckets", "aggregated", "targets"];

impl Planned {
    /// Series that find no room.
    fn left_out(report: &EndpointReport) -> u64 {
        let rows = report.withheld.iter().filter(|row| !CHOSEN.contains(&&*row.reason));
        rows.map(|row| row.series).sum()
    }

    fn points(report: &EndpointReport) -> f64 {
        // The sum of nothing is -0.0, which would be shown.
        report.jobs.iter().map(|job| job.points).sum::<f64>() + 0.0
    }

    fn fits(&self) -> bool {
        let most = self.after.points.per_minute;
        Self::left_out(&self.after) == 0
            && most.is_none_or(|most| Self::points(&self.after).round() <= most as f64)
    }
}

#[cfg(test)]
mod tests;
