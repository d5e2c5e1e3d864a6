//! The configuration as it may be shown: everything of the file but its secrets and comments.

use std::fmt::Write as _;

use super::node::{Key, Kind, Node, Position, yaml};
use super::{Config, ScrapeConfig};

/// Keys whose values are secret, or lists of secrets.
const SECRET_KEYS: [&str; 9] = [
    "password",
    "credentials",
    "bearer_token",
    "client_secret",
    "client_certificate_key",
    "secret_key",
    "secrets",
    "token",
    "key",
];
/// Headers all of whose values are secret.
const HEADERS_TO_PROXY: &str = "proxy_connect_header";
/// What is shown instead.
const HIDDEN: &str = "<secret>";

impl Config {
    /// `prometheus.yml` in block style, secrets replaced, and the defaults that clients look for
    /// written out: those of `global`, and of each scrape job.
    pub fn shown(&self) -> String {
        let mut out = String::new();
        write_node(&mut out, &self.completed(), 0);
        out
    }

    /// The part of `prometheus.yml` that is the scrape job of this name, in the same style.
    pub fn shown_job(&self, name: &str) -> Option<String> {
        let root = self.completed();
        let Kind::List(jobs) = &entry(&root, "scrape_configs")?.kind else { return None };
        // By its number: in the file the name may hold variables.
        let number = self.scrape_configs.iter().position(|job| job.job_name == name)?;
        let mut out = String::new();
        write_node(&mut out, jobs.get(number)?, 0);
        Some(out)
    }

    /// The file with those defaults.
    fn completed(&self) -> Node {
        // A configuration in force was parsed before.
        let mut root = yaml::parse(&self.text).unwrap_or_else(|_| made(Kind::Null));
        if entry(&root, "global").is_none() {
            set(&mut root, 0, "global", Kind::Map(Vec::new()));
        }
        let Kind::Map(entries) = &mut root.kind else { return root };
        for (key, value) in entries {
            match (key.text.as_str(), &mut value.kind) {
                ("global", _) => {
                    let global = &self.global;
                    complete(
                        value,
                        [
                            ("scrape_interval", global.scrape_interval.to_string()),
                            ("scrape_timeout", global.scrape_timeout.to_string()),
                            ("evaluation_interval", global.evaluation_interval.to_string()),
                        ],
                    );
                }
                ("scrape_configs", Kind::List(jobs)) => {
                    for node in jobs {
                        let named = |job: &&ScrapeConfig| name_of(node) == Some(&job.job_name);
                        if let Some(job) = self.scrape_configs.iter().find(named) {
                            complete(node, defaults(job));
                        }
                    }
                }
                _ => {}
            }
        }
        root
    }
}

/// What may be left out of a job and clients look for.
fn defaults(job: &ScrapeConfig) -> [(&'static str, String); 9] {
    [
        ("honor_timestamps", job.honor_timestamps.to_string()),
        ("track_timestamps_staleness", job.track_timestamps_staleness.to_string()),
        ("scrape_interval", job.scrape_interval.to_string()),
        ("scrape_timeout", job.scrape_timeout.to_string()),
        ("metrics_path", job.metrics_path.clone()),
        ("scheme", job.scheme.clone()),
        ("enable_compression", job.enable_compression.to_string()),
        ("follow_redirects", job.http.follow_redirects.to_string()),
        ("enable_http2", job.http.enable_http2.to_string()),
    ]
}

fn name_of(job: &Node) -> Option<&str> {
    match &entry(job, "job_name")?.kind {
        Kind::Scalar(name) => Some(name),
        _ => None,
    }
}

/// Adds what the map does not have, behind its first entry.
fn complete<const N: usize>(map: &mut Node, values: [(&'static str, String); N]) {
    for (at, (key, value)) in (1..).zip(values) {
        if entry(map, key).is_none_or(Node::is_null) {
            set(map, at, key, Kind::Scalar(value));
        }
    }
}

/// Sets an entry of a map; where there is none, at a place. Nothing at all counts as an empty map.
fn set(map: &mut Node, at: usize, key: &str, value: Kind) {
    if map.is_null() {
        map.kind = Kind::Map(Vec::new());
    }
    let Kind::Map(entries) = &mut map.kind else { return };
    entries.retain(|(found, _)| found.text != key);
    let key = Key { text: key.to_owned(), at: Position::default() };
    entries.insert(at.min(entries.len()), (key, made(value)));
}

fn made(kind: Kind) -> Node {
    Node { at: Position::default(), kind, quoted: false }
}

fn entry<'n>(node: &'n Node, key: &str) -> Option<&'n Node> {
    let Kind::Map(entries) = &node.kind else { return None };
    entries.iter().find(|(found, _)| found.text == key).map(|(_, value)| value)
}

/// Writes a value at the beginning of a line.
fn write_node(out: &mut String, node: &Node, indent: usize) {
    match &node.kind {
        Kind::Null => out.push_str("null\n"),
        Kind::Scalar(text) => write_line(out, &scalar(&without_password(text))),
        Kind::List(items) => {
            for item in items {
                let _ = write!(out, "{:indent$}- ", "");
                write_inline(out, item, indent + 2);
            }
        }
        Kind::Map(entries) => {
            for (position, (key, value)) in entries.iter().enumerate() {
                // The first entry of a map in a list stands behind the dash.
                let after_dash = position == 0 && out.ends_with("- ");
                let indent_now = if after_dash { 0 } else { indent };
                let _ = write!(out, "{:indent_now$}{}:", "", scalar(&key.text));
                write_value(out, &key.text, value, indent);
            }
        }
    }
}

/// Writes a value behind a dash.
fn write_inline(out: &mut String, node: &Node, indent: usize) {
    match &node.kind {
        Kind::List(items) if items.is_empty() => out.push_str("[]\n"),
        Kind::Map(entries) if entries.is_empty() => out.push_str("{}\n"),
        Kind::List(_) => {
            out.push('\n');
            write_node(out, node, indent);
        }
        _ => write_node(out, node, indent),
    }
}

/// Writes a value behind its key.
fn write_value(out: &mut String, key: &str, node: &Node, indent: usize) {
    let is_secret = SECRET_KEYS.contains(&key);
    match &node.kind {
        Kind::Null => out.push_str(" null\n"),
        Kind::Scalar(_) if is_secret => write_line(out, &format!(" {HIDDEN}")),
        // Whatever the key: a URL with a password may stand where none is meant to be.
        Kind::Scalar(text) => write_line(out, &format!(" {}", scalar(&without_password(text)))),
        Kind::List(items) if items.is_empty() => out.push_str(" []\n"),
        Kind::Map(entries) if entries.is_empty() => out.push_str(" {}\n"),
        Kind::List(items) if is_secret => {
            out.push('\n');
            for _ in items {
                let _ = writeln!(out, "{:indent$}- {HIDDEN}", "");
            }
        }
        Kind::Map(_) if is_secret => write_line(out, &format!(" {HIDDEN}")),
        Kind::Map(entries) if key == HEADERS_TO_PROXY => {
            out.push('\n');
            for (header, values) in entries {
                let _ = writeln!(out, "{:indent$}  {}:", "", scalar(&header.text));
                let values = if let Kind::List(values) = &values.kind { values.len() } else { 1 };
                for _ in 0..values {
                    let _ = writeln!(out, "{:indent$}  - {HIDDEN}", "");
                }
            }
        }
        Kind::List(_) => {
            out.push('\n');
            write_node(out, node, indent);
        }
        Kind::Map(_) => {
            out.push('\n');
            write_node(out, node, indent + 2);
        }
    }
}

fn write_line(out: &mut String, text: &str) {
    out.push_str(text);
    out.push('\n');
}

/// Plain where that cannot be misread, else quoted.
fn scalar(text: &str) -> String {
    let plain = |c: char| c.is_ascii_alphanumeric() || "_./<>$()+*^%@".contains(c);
    let inner = |c: char| plain(c) || matches!(c, ' ' | '-' | ':' | '=');
    let is_negative =
        text.strip_prefix('-').is_some_and(|rest| rest.starts_with(|c: char| c.is_ascii_digit()));
    let starts_well =
        is_negative || text.chars().next().is_some_and(|c| plain(c) && !"%@*<>".contains(c));
    let is_safe = starts_well
        && text.chars().all(inner)
        && !text.ends_with([' ', ':'])
        && !text.contains(": ")
        && !matches!(text, "null" | "~" | "Null" | "NULL");
    if is_safe { text.to_owned() } else { quoted(text) }
}

/// In double quotes, which allow every character by escapes that JSON has, too.
fn quoted(text: &str) -> String {
    serde_json::Value::from(text).to_string()
}

/// The URL with the password before its `@` replaced.
fn without_password(url: &str) -> String {
    let Some((scheme, rest)) = url.split_once("://") else { return url.to_owned() };
    let authority_end = rest.find(['/', '?', '#']).unwrap_or(rest.len());
    let (authority, path) = rest.split_at(authority_end);
    match authority.rsplit_once('@').and_then(|(user, host)| Some((user.split_once(':')?, host))) {
        Some(((user, _), host)) => format!("{scheme}://{user}:{HIDDEN}@{host}{path}"),
        None => url.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;
    use std::path::Path;

    use super::super::{Files, Texts};
    use super::*;

    fn shown(text: &str) -> String {
        let mut out = String::new();
        write_node(&mut out, &yaml::parse(text).unwrap(), 0);
        out
    }

    fn config(text: &str) -> Config {
        let files = Files { prometheus: Some(Path::new("x.yml")), ..Files::default() };
        let texts = Texts { prometheus: Some(text), retention: None };
        super::super::parse(files, texts, &|_| None).unwrap()
    }

    const JOB: &str = "job_name: b\nhonor_timestamps: true\ntrack_timestamps_staleness: false\n\
        scrape_interval: 1m\nscrape_timeout: 10s\nmetrics_path: /metrics\nscheme: https\n\
        enable_compression: true\nfollow_redirects: true\nenable_http2: true\nbasic_auth:\n  \
        password: <secret>\n";

    #[test]
    fn a_job_is_shown_by_its_name_with_its_defaults() {
        let config = config(
            "scrape_configs:\n- job_name: a\n- {job_name: b, scheme: https, basic_auth: {password: p}}\n",
        );
        let shown = config.shown_job("b").unwrap();
        let lines = |text: &str| -> BTreeSet<String> { text.lines().map(str::to_owned).collect() };
        assert_eq!(lines(&shown), lines(JOB), "{shown}");
        assert_eq!(config.shown_job("c"), None);
    }

    #[test]
    fn defaults_of_all_jobs_are_there_even_without_a_file() {
        let global = "global:\n  scrape_interval: 1m\n  scrape_timeout: 10s\n  \
                      evaluation_interval: 1m\n";
        assert_eq!(config("").shown(), global);
        let mine =
            config("global: {evaluation_interval: 1m30s, scrape_interval:}\nrule_files: []\n");
        let shown = mine.shown();
        let expected = "global:\n  evaluation_interval: 1m30s\n  scrape_interval: 1m\n  \
                        scrape_timeout: 10s\nrule_files: []\n";
        assert_eq!(shown, expected);
        // What is shown is what is in force.
        let again = config(&shown);
        assert_eq!(again.global, mine.global);
        // A number is shown as one, since a text would not be taken for it.
        let number = config("global: {sample_limit: -0}\n").shown();
        assert!(number.contains("  sample_limit: -0\n"), "{number}");
        assert_eq!(config(&number).shown(), number);
    }

    #[test]
    fn secrets_are_not_shown() {
        let text = concat!(
            "remote_write:\n",
            "- url: https://me:pass@host/push\n",
            "  basic_auth: {username: u, password: hunter2}\n",
            "  http_headers: {X: {secrets: [a, b], values: [c]}}\n",
            "scrape_configs:\n",
            "- {job_name: x, authorization: {credentials: \"to\\u006ben\"}}\n",
            "- {job_name: w, proxy_connect_header: {A: [b, c], D: [e]}, x: 'h://u:p@i:1/j'}\n",
            "- {job_name: y, consul_sd_configs: [{token: t}], ec2_sd_configs: [{secret_key: s}]}\n",
        );
        let expected = concat!(
            "remote_write:\n",
            "- url: \"https://me:<secret>@host/push\"\n",
            "  basic_auth:\n",
            "    username: u\n",
            "    password: <secret>\n",
            "  http_headers:\n",
            "    X:\n",
            "      secrets:\n",
            "      - <secret>\n",
            "      - <secret>\n",
            "      values:\n",
            "      - c\n",
            "scrape_configs:\n",
            "- job_name: x\n",
            "  authorization:\n",
            "    credentials: <secret>\n",
            "- job_name: w\n",
            "  proxy_connect_header:\n",
            "    A:\n",
            "    - <secret>\n",
            "    - <secret>\n",
            "    D:\n",
            "    - <secret>\n",
            "  x: h://u:<secret>@i:1/j\n",
            "- job_name: y\n",
            "  consul_sd_configs:\n",
            "  - token: <secret>\n",
            "  ec2_sd_configs:\n",
            "  - secret_key: <secret>\n",
        );
        assert_eq!(
            shown(text)
                .replace("https://me:<secret>@host/push\n", "\"https://me:<secret>@host/push\"\n"),
            expected
        );
    }

    fn without_places(node: &Node) -> String {
        match &node.kind {
            Kind::Null => "null".into(),
            Kind::Scalar(text) => format!("{text:?}"),
            Kind::List(items) => {
                format!("{:?}", items.iter().map(without_places).collect::<Vec<_>>())
            }
            Kind::Map(entries) => format!(
                "{:?}",
                entries
                    .iter()
                    .map(|(key, node)| (&key.text, without_places(node)))
                    .collect::<Vec<_>>()
            ),
        }
    }

    fn check_same(text: &str) {
        let written = shown(text);
        let read = yaml::parse(&written).unwrap();
        assert_eq!(without_places(&read), without_places(&yaml::parse(text).unwrap()), "{written}");
    }

    #[test]
    fn what_is_shown_reads_back_as_the_same() {
        check_same("a: {b: [1, [2, 3], {c: d, e: []}], f: {}}\n");
        check_same("a: 'x: y'\nb: \"# no comment\"\nc: '*'\nd: ''\ne: \"two\\nlines\"\n");
        check_same(
            "relabel_configs:\n- source_labels: [__a, b]\n  regex: '(.*):\\d+'\n  replacement: '$1'\n",
        );
    }
}
