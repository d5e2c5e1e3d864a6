//! Whether the server would start with a configuration and do everything that it is told to.

use std::path::{Path, PathBuf};
use std::time::Duration;

use stint_promql::parse::Options;

use super::endpoints::{self, Replica};
use crate::config::{self, Budget, Config, Credential, Files, HttpConfig, ScrapeConfig, SdConfig};
use crate::discovery::TargetGroup;
use crate::discovery::file::FileSource;
use crate::http::Client;
use crate::rules;
use crate::scrape::target::{Built, Target};

/// The files that the server would read that is given these, seen from `directory`.
pub(in crate::cli) fn found(
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

/// How much is looked at.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Depth {
    /// Nothing that the two files point to.
    pub(super) files_only: bool,
    /// Also for what is allowed and yet looks wrong.
    pub(super) lints: bool,
    /// As with `--config.expand-env`.
    pub(super) expand_env: bool,
}

/// What a check found; each text is for people.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Checked {
    /// Whether both files could be read, so that mistakes are of what they point to.
    is_read: bool,
    /// What the configuration says.
    notes: Vec<String>,
    /// What is taken and does nothing, or is likely not meant.
    warnings: Vec<String>,
    /// Why the server would not start, or not do everything it is told to.
    errors: Vec<String>,
    /// What looks wrong in rule files.
    pub(super) lints: Vec<String>,
    /// What is sent as one of several replicas.
    pub(super) replicas: Vec<Replica>,
}

impl Checked {
    /// Whether the server would start and scrape everything it is told to.
    pub(super) fn is_valid(&self) -> bool {
        self.errors.is_empty()
    }

    /// For people, ending with a line break.
    pub(super) fn to_text(&self, files: &[String]) -> String {
        let mut lines: Vec<String> = files.iter().map(|file| format!("checking {file}")).collect();
        lines.extend(self.warnings.iter().map(|warning| format!("warning: {warning}")));
        lines.extend(self.notes.iter().cloned());
        lines.extend(self.lints.iter().cloned());
        let what = if self.is_read { "error: " } else { "" };
        lines.extend(self.errors.iter().map(|error| format!("{what}{error}")));
        lines.push(match self.errors.len() {
            0 => "the configuration is valid".to_owned(),
            1 => "1 mistake".to_owned(),
            number => format!("{number} mistakes"),
        });
        lines.join("\n") + "\n"
    }

    /// The same for programs.
    pub(super) fn to_json(&self, files: &[String]) -> serde_json::Value {
        serde_json::json!({
            "files": files,
            "valid": self.is_valid(),
            "notes": self.notes,
            "warnings": self.warnings,
            "lints": self.lints,
            "errors": self.errors,
        })
    }

    /// Adds what is wrong with replicas of which other configurations were checked before.
    pub(super) fn compare(&mut self, others: &[Replica]) {
        let apart = self.replicas.iter().filter_map(|replica| endpoints::apart(replica, others));
        self.warnings.extend(apart);
    }

    fn note(&mut self, text: String) {
        self.notes.push(text);
    }

    fn problem(&mut self, text: String) {
        self.errors.push(text);
    }
}

/// Checks the files; `None` stands for the one that the server would do without. `data` is the folder
/// in which the server ran, if it did.
pub(super) fn check(
    prometheus: Option<&Path>,
    retention: Option<&Path>,
    data: &Path,
    depth: Depth,
) -> Checked {
    let expand_env = depth.expand_env;
    let files = Files { prometheus, retention, own_address: "localhost:9090", expand_env };
    let mut checked = Checked::default();
    match config::load(files) {
        Ok(config) => {
            checked.is_read = true;
            checked.warnings = config.warnings.iter().map(ToString::to_string).collect();
            let (replicas, warnings) = endpoints::replicas(&config);
            checked.replicas = replicas;
            checked.warnings.extend(warnings);
            if !depth.files_only {
                checked.warnings.extend(endpoints::renamed(&config, data));
            }
            describe(&config, depth, &mut checked);
        }
        Err(errors) => checked.errors = errors.0.iter().map(ToString::to_string).collect(),
    }
    checked
}

fn describe(config: &Config, depth: Depth, checked: &mut Checked) {
    for job in &config.scrape_configs {
        let name = format!("scrape job `{}`", job.job_name);
        let mut asked = String::new();
        if !depth.files_only {
            check_client(&job.http, &name, checked);
            asked = check_discovery(&job.sd_configs, &name, checked);
        }
        let (active, dropped) = count_targets(job, &name, depth, checked);
        let every = job.scrape_interval;
        let fewer = match dropped {
            0 => String::new(),
            _ => format!(", {dropped} dropped by relabelling"),
        };
        checked.note(format!("{name}: {active} targets every {every}{fewer}{asked}"));
    }
    for (at, set) in config.alerting.alertmanagers.iter().enumerate().filter(|_| !depth.files_only)
    {
        let name = format!("alertmanagers[{at}]");
        check_client(&set.http, &name, checked);
        check_discovery(&set.sd_configs, &name, checked);
    }
    for remote in &config.remote_write {
        let name = format!("endpoint `{}`", remote.name);
        if !depth.files_only {
            check_client(&remote.http, &name, checked);
        }
        checked.note(format!("{name}: {} to {}", budget(&remote.budget), remote.url));
    }
    if !depth.files_only {
        check_rules(config, depth, checked);
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
    checked.note(format!("samples are kept {time}{size}"));
}

fn check_rules(config: &Config, depth: Depth, checked: &mut Checked) {
    // The server starts without them, as Prometheus does, and would evaluate nothing.
    for pattern in config.rule_files.iter().filter(|pattern| is_missing(pattern)) {
        checked.problem(format!("{} is no file that exists", pattern.display()));
    }
    // With everything switched on: the flags of the server are not known here.
    match rules::Prepared::read(config, Options::all()) {
        Ok(_) if config.rule_files.is_empty() => {}
        Ok(prepared) => {
            let (groups, rules) = prepared.counts();
            checked.note(format!("rules: {rules} in {groups} groups"));
            if depth.lints {
                checked.lints = super::super::rules::duplicates_by_file(prepared.groups());
            }
        }
        Err(errors) => checked.errors.extend(errors),
    }
}

/// Whether this is the name of one file, which is not there.
fn is_missing(pattern: &Path) -> bool {
    !pattern.to_string_lossy().contains(['*', '?', '[', '\\']) && !pattern.exists()
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
fn check_client(http: &HttpConfig, owner: &str, checked: &mut Checked) {
    if let Err(error) = Client::new(http, "stint") {
        checked.problem(format!("{owner}: {error}"));
    }
    for credential in http.credentials() {
        if let Credential::File(path) = credential
            && let Err(error) = std::fs::metadata(path)
        {
            checked.problem(format!("{owner}: cannot read {}: {error}", path.display()));
        }
    }
}

/// Checks the clients of mechanisms that ask somebody; names them, for the end of a line.
fn check_discovery(configs: &[SdConfig], owner: &str, checked: &mut Checked) -> String {
    let mut asked = Vec::new();
    for config in configs {
        let mechanism = config.mechanism();
        if let Some(http) = config.http() {
            check_client(http, &format!("{owner}: {mechanism} discovery"), checked);
        }
        if !matches!(config, SdConfig::File(_)) && !asked.contains(&mechanism) {
            asked.push(mechanism);
        }
    }
    if asked.is_empty() { String::new() } else { format!(", and what {} finds", asked.join(", ")) }
}

/// How many targets are known now, and how many of them relabelling drops.
fn count_targets(
    job: &ScrapeConfig,
    owner: &str,
    depth: Depth,
    checked: &mut Checked,
) -> (usize, usize) {
    let fixed = job.static_configs.iter();
    let mut groups: Vec<_> =
        fixed.map(|group| TargetGroup::fixed("static_configs".to_owned(), group)).collect();
    for config in job.sd_configs.iter().filter(|_| !depth.files_only) {
        let SdConfig::File(config) = config else { continue };
        for pattern in config.files.iter().filter(|pattern| is_missing(pattern)) {
            let file = pattern.display();
            checked.warnings.push(format!("{owner}: {file}, which lists targets, does not exist"));
        }
        let mut source = FileSource::new(config.clone());
        let polled = source.poll(Duration::ZERO);
        for problem in polled.problems {
            checked.problem(format!("{owner}: {problem}"));
        }
        groups.extend(source.groups());
    }
    let (mut active, mut dropped) = (0, 0);
    for group in &groups {
        for found in &group.targets {
            match Target::build(job, group, found) {
                Built::Active(target) => {
                    active += 1;
                    if let Some(error) = wrong_scheme(&target.url) {
                        checked.problem(format!("{owner}: {error}"));
                    }
                }
                Built::Dropped(_) => dropped += 1,
                Built::Invalid(error) => {
                    let source = &group.source;
                    checked.problem(format!("{owner}: target {found} of {source}: {error}"));
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

    const WHOLE: Depth = Depth { files_only: false, lints: true, expand_env: false };

    fn checked(name: &str, prometheus: &str, retention: &str, depth: Depth) -> (Checked, String) {
        let directory =
            std::env::temp_dir().join(format!("stint-check-{name}-{}", std::process::id()));
        std::fs::create_dir_all(&directory).unwrap();
        let (yml, toml) = (directory.join("prometheus.yml"), directory.join("retention.toml"));
        std::fs::write(&yml, prometheus).unwrap();
        std::fs::write(&toml, retention).unwrap();
        std::fs::write(directory.join("t.yml"), "- targets: ['c:1', 'd:1']\n").unwrap();
        let rule = "{record: a, expr: up}";
        let rules = format!("groups: [{{name: g, rules: [{rule}, {rule}]}}]\n");
        std::fs::write(directory.join("r.yml"), rules).unwrap();
        let checked = check(Some(&yml), Some(&toml), &directory.join("data"), depth);
        std::fs::remove_dir_all(&directory).unwrap();
        let report = checked.to_text(&[]).replace(&format!("{}/", directory.display()), "");
        (checked, report)
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
        let (found, report) = checked(
            "valid",
            "scrape_configs:
- job_name: a
  static_configs: [{targets: ['a:1', 'b:1']}]
  file_sd_configs: [{files: ['t.yml']}]
  relabel_configs: [{source_labels: [__address__], regex: 'b.*', action: drop}]
remote_write: [{url: 'http://r/', name: r}]
",
            "retention.size = '1KB'\nbudget.series = 5\n",
            WHOLE,
        );
        assert_eq!(
            report,
            "scrape job `a`: 3 targets every 1m, 1 dropped by relabelling\n\
             endpoint `r`: at most 5 series, one scrape per 1m to http://r/\n\
             samples are kept for 1w, 1024 bytes at most\n\
             the configuration is valid\n"
        );
        assert!(found.is_valid());
    }

    #[test]
    fn mistakes_of_both_files_are_listed() {
        let yml = "global: {scrape_intervall: 1s}\n";
        let (found, report) = checked("both", yml, "[budget]\nserie = 1\n", WHOLE);
        assert_eq!(
            report,
            "prometheus.yml:1:10: unknown key `scrape_intervall` in `global`; did you mean \
             `scrape_interval`?\n\
             retention.toml:2:1: unknown key `serie` in `budget`; did you mean `series`?\n\
             2 mistakes\n"
        );
        assert!(!found.is_valid());
    }

    #[test]
    fn what_the_files_point_to_is_checked_too_where_that_is_wanted() {
        let yml = "scrape_configs:
- job_name: a
  bearer_token_file: missing
  static_configs: [{targets: ['a:1']}]
  file_sd_configs: [{files: [later.json, 't*.yml']}]
  relabel_configs: [{target_label: __scheme__, replacement: ftp}]
rule_files: [r.yml, none.yml, 'none*.yml']
";
        let (found, report) = checked("beyond", yml, "", WHOLE);
        for text in [
            "warning: scrape job `a`: later.json, which lists targets, does not exist",
            "error: scrape job `a`: cannot read missing",
            "\"ftp\", is neither http nor https",
            "error: none.yml is no file that exists",
            "r.yml: lint error 1 duplicate rule(s) found.",
        ] {
            assert!(report.contains(text), "{text}: {report}");
        }
        assert_eq!((found.warnings.len(), found.lints.len()), (1, 1));
        let depth = Depth { files_only: true, lints: true, expand_env: false };
        let (found, report) = checked("syntax", yml, "", depth);
        let notes = "scrape job `a`: 1 targets every 1m\nsamples are kept for 1w\n";
        let error = "error: scrape job `a`: the scheme of ftp://a:1/metrics, \"ftp\", is neither http nor https\n";
        assert_eq!(report, format!("{notes}{error}1 mistake\n"));
        assert_eq!(found.to_json(&[])["errors"].as_array().map(Vec::len), Some(1));
    }
}
