//! `stint check`: reads both configuration files as the server would, and everything they point
//! to, without starting anything.

mod metrics;

use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;

use stint_promql::parse::Options;

use crate::config::{self, Budget, Config, Credential, Files, HttpConfig, ScrapeConfig, SdConfig};
use crate::discovery::TargetGroup;
use crate::discovery::file::FileSource;
use crate::http::Client;
use crate::rules;
use crate::scrape::target::{Built, Target};
use crate::server::web;

/// What to check.
#[derive(Debug, clap::Args)]
#[command(args_conflicts_with_subcommands = true)]
pub struct CheckArgs {
    #[command(subcommand)]
    what: Option<CheckWhat>,
    /// `prometheus.yml`; without the flag the one in the working directory, where there is one, else
    /// the built-in configuration.
    #[arg(long = "config.file", value_name = "FILE")]
    config_file: Option<PathBuf>,
    /// `retention.toml`; without the flag the one beside `prometheus.yml`, where there is one.
    #[arg(long = "retention.file", value_name = "FILE")]
    retention_file: Option<PathBuf>,
}

/// What can be checked by itself.
#[derive(Debug, clap::Subcommand)]
enum CheckWhat {
    /// Checks rule files.
    Rules(super::rules::CheckArgs),
    Metrics(metrics::MetricsArgs),
    /// Checks the configuration, as without a word: both files and what they point to.
    Config(ConfigArgs),
    /// Checks files for `--web.config.file`, and the certificates that they point to.
    WebConfig(WebConfigArgs),
}

/// Which web configurations to check.
#[derive(Debug, clap::Args)]
struct WebConfigArgs {
    /// The files.
    #[arg(required = true, value_name = "FILE")]
    files: Vec<PathBuf>,
}

/// The configuration to check.
#[derive(Debug, clap::Args)]
struct ConfigArgs {
    /// `prometheus.yml`.
    #[arg(value_name = "FILE")]
    config_file: PathBuf,
    /// `retention.toml`; without the flag the one beside `prometheus.yml`, where there is one.
    #[arg(long = "retention.file", value_name = "FILE")]
    retention_file: Option<PathBuf>,
}

/// Checks, and prints the report: to standard output when all is well, else to standard error.
pub(super) fn run(args: &CheckArgs) -> ExitCode {
    let given = match &args.what {
        Some(CheckWhat::Rules(args)) => return super::rules::check(args),
        Some(CheckWhat::Metrics(args)) => return metrics::run(args),
        Some(CheckWhat::WebConfig(args)) => return check_web(args),
        Some(CheckWhat::Config(args)) => {
            (Some(args.config_file.as_path()), args.retention_file.as_deref())
        }
        None => (args.config_file.as_deref(), args.retention_file.as_deref()),
    };
    let (prometheus, retention) = found(given.0, given.1, Path::new(""));
    let mut checked = check(prometheus.as_deref(), retention.as_deref());
    let mut files = String::new();
    for path in [prometheus, retention].into_iter().flatten() {
        line(&mut files, &format!("checking {}", path.display()));
    }
    checked.report.insert_str(0, &files);
    // Where the report cannot be written, the exit code still tells.
    let _ = if checked.is_valid {
        std::io::stdout().write_all(checked.report.as_bytes())
    } else {
        std::io::stderr().write_all(checked.report.as_bytes())
    };
    ExitCode::from(checked.exit_code())
}

/// Tells of each web configuration whether the server would start with it.
fn check_web(args: &WebConfigArgs) -> ExitCode {
    let mut is_valid = true;
    for file in &args.files {
        let (mut out, mut err) = (std::io::stdout(), std::io::stderr());
        // Where the report cannot be written, the exit code still tells.
        let _ = match web::check(file) {
            Ok(config) => {
                let warnings = config.warnings.iter();
                let warned = warnings.map(|warning| format!("warning: {warning}\n"));
                let report: String = warned.collect();
                writeln!(out, "{report}{} SUCCESS", file.display())
            }
            Err(errors) => {
                is_valid = false;
                writeln!(err, "{} FAILED:\n{errors}", file.display())
            }
        };
    }
    ExitCode::from(u8::from(!is_valid))
}

/// The files that the server would read that is given these, seen from `directory`.
pub(super) fn found(
    prometheus: Option<&Path>,
    retention: Option<&Path>,
    directory: &Path,
) -> (Option<PathBuf>, Option<PathBuf>) {
    let usual = |path: PathBuf| path.exists().then_some(path);
    let given = prometheus.map(Path::to_path_buf);
    let prometheus = given.or_else(|| usual(directory.join("prometheus.yml")));
    let beside = prometheus.as_deref().and_then(Path::parent).unwrap_or(directory);
    let given = retention.map(Path::to_path_buf);
    let retention = given.or_else(|| usual(beside.join("retention.toml")));
    (prometheus, retention)
}

/// What a check found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Checked {
    /// For people, ending with a line break.
    pub report: String,
    /// Whether the server would start and scrape everything it is told to.
    pub is_valid: bool,
}

impl Checked {
    /// The exit code: 0 when all is well, else 1.
    pub fn exit_code(&self) -> u8 {
        u8::from(!self.is_valid)
    }
}

/// Checks the files; `None` stands for the one that the server would do without.
pub fn check(prometheus: Option<&Path>, retention: Option<&Path>) -> Checked {
    let files = Files { prometheus, retention, own_address: "localhost:9090" };
    let config = match config::load(files) {
        Ok(config) => config,
        Err(errors) => {
            let number = errors.0.len();
            let report = format!("{errors}\n{}\n", mistakes(number));
            return Checked { report, is_valid: false };
        }
    };
    let mut report = String::new();
    let mut problems = Vec::new();
    for warning in &config.warnings {
        line(&mut report, &format!("warning: {warning}"));
    }
    describe(&config, &mut report, &mut problems);
    for problem in &problems {
        line(&mut report, &format!("error: {problem}"));
    }
    let is_valid = problems.is_empty();
    line(
        &mut report,
        &if is_valid { "the configuration is valid".to_owned() } else { mistakes(problems.len()) },
    );
    Checked { report, is_valid }
}

fn mistakes(number: usize) -> String {
    if number == 1 { "1 mistake".to_owned() } else { format!("{number} mistakes") }
}

fn line(report: &mut String, text: &str) {
    report.push_str(text);
    report.push('\n');
}

fn describe(config: &Config, report: &mut String, problems: &mut Vec<String>) {
    for job in &config.scrape_configs {
        let name = format!("scrape job `{}`", job.job_name);
        check_client(&job.http, &name, problems);
        let asked = check_discovery(&job.sd_configs, &name, problems);
        let (active, dropped) = count_targets(job, &name, problems);
        let every = job.scrape_interval;
        let fewer = match dropped {
            0 => String::new(),
            _ => format!(", {dropped} dropped by relabelling"),
        };
        line(report, &format!("{name}: {active} targets every {every}{fewer}{asked}"));
    }
    for (at, set) in config.alerting.alertmanagers.iter().enumerate() {
        let name = format!("alertmanagers[{at}]");
        check_client(&set.http, &name, problems);
        check_discovery(&set.sd_configs, &name, problems);
    }
    for remote in &config.remote_write {
        let name = format!("endpoint `{}`", remote.name);
        check_client(&remote.http, &name, problems);
        line(report, &format!("{name}: {} to {}", budget(&remote.budget), remote.url));
    }
    // With everything switched on: the flags of the server are not known here.
    match rules::Prepared::read(config, Options::all()) {
        Ok(_) if config.rule_files.is_empty() => {}
        Ok(groups) => {
            let (groups, rules) = groups.counts();
            line(report, &format!("rules: {rules} in {groups} groups"));
        }
        Err(errors) => problems.extend(errors),
    }
    let retention = config.retention;
    let time = match retention.time.0 {
        0 => "without end".to_owned(),
        _ => format!("for {}", retention.time),
    };
    let size = match retention.size_bytes {
        0 => String::new(),
        bytes => format!(", {bytes} bytes at most"),
    };
    line(report, &format!("samples are kept {time}{size}"));
}

fn budget(budget: &Budget) -> String {
    let mut parts = Vec::new();
    if let Some(series) = budget.series {
        parts.push(format!("at most {series} series"));
    }
    if let Some(points) = budget.points_per_minute {
        parts.push(format!("at most {points} samples a minute"));
    }
    if let Some(interval) = budget.interval {
        parts.push(format!("one scrape per {interval}"));
    }
    if parts.is_empty() { "everything".to_owned() } else { parts.join(", ") }
}

/// Makes the client as the server would, and looks at the files it will read later.
fn check_client(http: &HttpConfig, owner: &str, problems: &mut Vec<String>) {
    if let Err(error) = Client::new(http, "stint") {
        problems.push(format!("{owner}: {error}"));
    }
    for credential in http.credentials() {
        if let Credential::File(path) = credential
            && let Err(error) = std::fs::metadata(path)
        {
            problems.push(format!("{owner}: cannot read {}: {error}", path.display()));
        }
    }
}

/// Checks the clients of mechanisms that ask somebody; names them, for the end of a line.
fn check_discovery(configs: &[SdConfig], owner: &str, problems: &mut Vec<String>) -> String {
    let mut asked = Vec::new();
    for config in configs {
        let mechanism = config.mechanism();
        if let Some(http) = config.http() {
            check_client(http, &format!("{owner}: {mechanism} discovery"), problems);
        }
        if !matches!(config, SdConfig::File(_)) && !asked.contains(&mechanism) {
            asked.push(mechanism);
        }
    }
    if asked.is_empty() { String::new() } else { format!(", and what {} finds", asked.join(", ")) }
}

/// How many targets are known now, and how many of them relabelling drops.
fn count_targets(job: &ScrapeConfig, owner: &str, problems: &mut Vec<String>) -> (usize, usize) {
    let fixed = job.static_configs.iter();
    let mut groups: Vec<_> =
        fixed.map(|group| TargetGroup::fixed("static_configs".to_owned(), group)).collect();
    for config in &job.sd_configs {
        let SdConfig::File(config) = config else { continue };
        let mut source = FileSource::new(config.clone());
        let polled = source.poll(Duration::ZERO);
        problems.extend(polled.problems.into_iter().map(|problem| format!("{owner}: {problem}")));
        groups.extend(source.groups());
    }
    let (mut active, mut dropped) = (0, 0);
    for group in &groups {
        for found in &group.targets {
            match Target::build(job, group, found) {
                Built::Active(target) => {
                    active += 1;
                    problems
                        .extend(wrong_scheme(&target.url).map(|error| format!("{owner}: {error}")));
                }
                Built::Dropped(_) => dropped += 1,
                Built::Invalid(error) => {
                    let source = &group.source;
                    problems.push(format!("{owner}: target {found} of {source}: {error}"));
                }
            }
        }
    }
    (active, dropped)
}

/// A server scrapes such a target in vain, as Prometheus does: its `up` is 0.
fn wrong_scheme(url: &str) -> Option<String> {
    let scheme = url.split("://").next()?;
    let known = ["http", "https"].contains(&scheme);
    (!known).then(|| format!("the scheme of {url}, {scheme:?}, is neither http nor https"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn checked(name: &str, prometheus: &str, retention: &str) -> Checked {
        let directory =
            std::env::temp_dir().join(format!("stint-check-{name}-{}", std::process::id()));
        std::fs::create_dir_all(&directory).unwrap();
        let (yml, toml) = (directory.join("prometheus.yml"), directory.join("retention.toml"));
        std::fs::write(&yml, prometheus).unwrap();
        std::fs::write(&toml, retention).unwrap();
        std::fs::write(directory.join("t.yml"), "- targets: ['c:1', 'd:1']\n").unwrap();
        let mut checked = check(Some(&yml), Some(&toml));
        std::fs::remove_dir_all(&directory).unwrap();
        checked.report = checked.report.replace(&format!("{}/", directory.display()), "");
        checked
    }

    #[test]
    fn without_flags_the_files_are_those_of_the_server() {
        let directory = std::env::temp_dir().join(format!("stint-found-{}", std::process::id()));
        std::fs::create_dir_all(directory.join("other")).unwrap();
        let found = |config: Option<&str>| {
            let config = config.map(|name| directory.join(name));
            found(config.as_deref(), None, &directory)
        };
        assert_eq!(found(None), (None, None));
        for name in ["prometheus.yml", "retention.toml", "other/retention.toml"] {
            std::fs::write(directory.join(name), "").unwrap();
        }
        let both = |yml, toml| (Some(directory.join(yml)), Some(directory.join(toml)));
        assert_eq!(found(None), both("prometheus.yml", "retention.toml"));
        assert_eq!(found(Some("other/a.yml")), both("other/a.yml", "other/retention.toml"));
        std::fs::remove_dir_all(&directory).unwrap();
    }

    #[test]
    fn a_valid_configuration_is_described() {
        let found = checked(
            "valid",
            "scrape_configs:
- job_name: a
  static_configs: [{targets: ['a:1', 'b:1']}]
  file_sd_configs: [{files: ['t.yml']}]
  relabel_configs: [{source_labels: [__address__], regex: 'b.*', action: drop}]
remote_write: [{url: 'http://r/', name: r}]
",
            "retention.size = '1KB'\nbudget.series = 5\n",
        );
        assert_eq!(
            found.report,
            "scrape job `a`: 3 targets every 1m, 1 dropped by relabelling\n\
             endpoint `r`: at most 5 series, one scrape per 1m to http://r/\n\
             samples are kept for 1w, 1024 bytes at most\n\
             the configuration is valid\n"
        );
        assert_eq!(found.exit_code(), 0);
    }

    #[test]
    fn mistakes_of_both_files_are_listed() {
        let found = checked("both", "global: {scrape_intervall: 1s}\n", "[budget]\nserie = 1\n");
        assert_eq!(
            found.report,
            "prometheus.yml:1:10: unknown key `scrape_intervall` in `global`; did you mean \
             `scrape_interval`?\n\
             retention.toml:2:1: unknown key `serie` in `budget`; did you mean `series`?\n\
             2 mistakes\n"
        );
        assert_eq!(found.exit_code(), 1);
    }

    #[test]
    fn what_the_files_point_to_is_checked_too() {
        let found = checked(
            "beyond",
            "scrape_configs:
- job_name: a
  bearer_token_file: missing
  static_configs: [{targets: ['a:1']}]
  relabel_configs: [{target_label: __scheme__, replacement: ftp}]
",
            "",
        );
        assert_eq!(found.exit_code(), 1);
        for text in ["cannot read missing", "\"ftp\", is neither http nor https", "2 mistakes"] {
            assert!(found.report.contains(text), "{text}: {}", found.report);
        }
    }
}
