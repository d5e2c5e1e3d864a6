//! Variables of the environment in any value of both files, where the operator asks for it.
//!
//! `${NAME}` is the variable's value, `${NAME:-TEXT}` is TEXT where there is no such variable, and
//! `$${` is `${`. What begins with a digit (`${1}`) is left to relabelling. Keys are never changed,
//! and what a value becomes is one value whatever it holds: the files are taken apart before.

use super::decode::Context;
use super::global::Environment;
use super::node::{Kind, Node, Position};

/// Where `prometheus.yml` has variables by itself, with rules of its own.
pub(super) const OWN_OF_PROMETHEUS: &[&[&str]] = &[&["global", "external_labels"]];
/// The same of `retention.toml`; `*` is any key.
pub(super) const OWN_OF_RETENTION: &[&[&str]] =
    &[&["otlp", "resource_attributes"], &["labels", "required", "*", "value"]];

/// Replaces the variables in all values of `root` but those at the paths `own`.
pub(super) fn expand_all(
    cx: &Context,
    root: &mut Node,
    own: &[&[&str]],
    environment: Environment<'_>,
) {
    let at = root.at;
    match &mut root.kind {
        Kind::Null => {}
        Kind::Scalar(text) => {
            if let Some(expanded) = expand(cx, at, text, environment) {
                *text = expanded;
                // It is what the variable is, a number for instance.
                root.quoted = false;
            }
        }
        Kind::List(items) => {
            for item in items {
                expand_all(cx, item, &[], environment);
            }
        }
        Kind::Map(entries) => {
            for (key, value) in entries {
                let below = own.iter().filter_map(|path| {
                    let (first, rest) = path.split_first()?;
                    (*first == "*" || *first == key.text).then_some(rest)
                });
                let below: Vec<&[&str]> = below.collect();
                if !below.iter().any(|rest| rest.is_empty()) {
                    expand_all(cx, value, &below, environment);
                }
            }
        }
    }
}

/// `text` with its variables replaced; `None` when nothing in it changes.
fn expand(cx: &Context, at: Position, text: &str, environment: Environment<'_>) -> Option<String> {
    let mut out = String::new();
    let mut rest = text;
    let mut changed = false;
    while let Some((before, after)) = rest.split_once("${") {
        out.push_str(before);
        if let Some(shorter) = out.strip_suffix('$').map(str::len) {
            out.truncate(shorter);
            out.push_str("${");
            rest = after;
            changed = true;
            continue;
        }
        let Some((inner, tail)) = variable(after) else {
            out.push_str("${");
            rest = after;
            continue;
        };
        let (name, default) = inner;
        match (environment(name), default) {
            (Some(value), _) => out.push_str(&value),
            (None, Some(default)) => out.push_str(default),
            (None, None) => cx.error(
                at,
                format!(
                    "the environment variable `{name}` is not set; set it, or write \
                     `${{{name}:-TEXT}}` for TEXT without it"
                ),
            ),
        }
        changed = true;
        rest = tail;
    }
    out.push_str(rest);
    changed.then_some(out)
}

/// The variable whose name `text` begins with, what holds without it, and what comes behind its brace.
fn variable(text: &str) -> Option<((&str, Option<&str>), &str)> {
    let (inner, tail) = text.split_once('}')?;
    let (name, default) = match inner.split_once(":-") {
        Some((name, default)) => (name, Some(default)),
        None => (inner, None),
    };
    let word = |c: char| c.is_ascii_alphanumeric() || c == '_';
    let is_name = name.chars().all(word) && !name.starts_with(|c: char| c.is_ascii_digit());
    (is_name && !name.is_empty()).then_some(((name, default), tail))
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::super::{Config, Files, Texts, parse};

    fn read(yaml: &str, toml: &str, expand_env: bool) -> Result<Config, String> {
        let files = Files { prometheus: Some(Path::new("p.yml")), expand_env, ..Files::default() };
        let texts = Texts { prometheus: Some(yaml), retention: Some(toml) };
        let environment = |name: &str| match name {
            "HOST" => Some("db.example".to_owned()),
            "LIMIT" => Some("50".to_owned()),
            "TRICKY" => Some("a\nb: ${HOST} $HOST, c".to_owned()),
            "EMPTY" => Some(String::new()),
            _ => None,
        };
        parse(files, texts, &environment).map_err(|errors| errors.to_string())
    }

    const YAML: &str = "
global: {external_labels: {a: '${HOST}', b: '$HOST', c: '$$x'}}
scrape_configs:
- job_name: job of ${HOST}
  sample_limit: ${LIMIT}
  label_limit: '${LIMIT}'
  metrics_path: ${WHERE:-/m}${EMPTY}
  static_configs:
  - targets: ['${HOST}:80']
    labels: {x: '${TRICKY}', y: '$${HOST}', z: '$HOST', '${HOST}': k}
  relabel_configs:
  - {source_labels: [x], regex: '(.)(?P<n>.)', replacement: '${1}$${n}$2', target_label: t}
";

    #[test]
    fn any_value_may_hold_variables_where_that_is_asked_for() {
        let config = read(YAML, "[retention]\ntime = \"${DAYS:-3}d\"\n", true).unwrap();
        let labels: Vec<_> = config.global.external_labels.iter().map(|(_, value)| value).collect();
        assert_eq!(labels, ["db.example", "db.example", "$x"], "they have rules of their own");
        let job = &config.scrape_configs[0];
        assert_eq!((&*job.job_name, &*job.metrics_path), ("job of db.example", "/m"));
        assert_eq!((job.limits.samples, job.limits.labels), (50, 50));
        let group = &job.static_configs[0];
        assert_eq!(group.targets, ["db.example:80"]);
        let labels: Vec<_> = group.labels.iter().collect();
        let tricky = "a\nb: ${HOST} $HOST, c";
        assert_eq!(
            labels,
            [("${HOST}", "k"), ("x", tricky), ("y", "${HOST}"), ("z", "$HOST")],
            "a value stays one, keys stay as they are"
        );
        assert_eq!(job.relabel_configs[0].spec().replacement, "${1}${n}$2");
        assert_eq!(config.retention.time.to_string(), "3d");
        // It is shown as it is written, and found by the name that it has.
        let shown = config.shown_job("job of db.example").unwrap();
        assert!(shown.contains("${HOST}:80"), "{shown}");
    }

    #[test]
    fn without_being_asked_for_nothing_changes() {
        let yaml =
            YAML.replace("sample_limit: ${LIMIT}", "").replace("label_limit: '${LIMIT}'", "");
        let config = read(&yaml, "", false).unwrap();
        let job = &config.scrape_configs[0];
        assert_eq!(job.job_name, "job of ${HOST}");
        assert_eq!(job.static_configs[0].targets, ["${HOST}:80"]);
        assert_eq!(config.global.external_labels.get("a"), Some("db.example"));
    }

    #[test]
    fn what_is_not_set_is_told_with_its_place() {
        let yaml =
            "scrape_configs:\n- job_name: a\n  static_configs:\n  - targets: ['${NO}:1', '${NO']\n";
        assert_eq!(
            read(yaml, "[retention]\ntime = \"${NO}\"\n", true).unwrap_err().lines().next(),
            Some(
                "p.yml:4:15: the environment variable `NO` is not set; set it, or write \
                 `${NO:-TEXT}` for TEXT without it"
            )
        );
        let toml = "[labels.required.team]\nvalue = \"$$a\"\nallowed = [\"${HOST}\", \"$a\"]\n";
        let rules = read("", toml, true).unwrap().labels;
        let shown = format!("{rules:?}");
        assert!(shown.contains("$a") && shown.contains("db.example"), "{shown}");
    }
}
