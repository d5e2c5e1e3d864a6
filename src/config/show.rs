//! The configuration as it may be shown: everything of the file but its secrets and comments.

use std::fmt::Write as _;

use super::Config;
use super::node::{Kind, Node, yaml};

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
/// What is shown instead.
const HIDDEN: &str = "<secret>";

impl Config {
    /// `prometheus.yml` in block style, secrets replaced. Empty for an empty file.
    pub fn shown(&self) -> String {
        let mut out = String::new();
        // A configuration in force was parsed before.
        if let Ok(root) = yaml::parse(&self.text)
            && !root.is_null()
        {
            write_node(&mut out, &root, 0);
        }
        out
    }
}

impl Config {
    /// The part of `prometheus.yml` that is the scrape job of this name, in the same style.
    pub fn shown_job(&self, name: &str) -> Option<String> {
        job(&self.text, name)
    }
}

fn job(text: &str, name: &str) -> Option<String> {
    let root = yaml::parse(text).ok()?;
    let Kind::List(jobs) = &entry(&root, "scrape_configs")?.kind else { return None };
    let is_name = |job: &&Node| {
        let found = entry(job, "job_name").map(|node| &node.kind);
        matches!(found, Some(Kind::Scalar(text)) if text == name)
    };
    let mut out = String::new();
    write_node(&mut out, jobs.iter().find(is_name)?, 0);
    Some(out)
}

fn entry<'n>(node: &'n Node, key: &str) -> Option<&'n Node> {
    let Kind::Map(entries) = &node.kind else { return None };
    entries.iter().find(|(found, _)| found.text == key).map(|(_, value)| value)
}

/// Writes a value at the beginning of a line.
fn write_node(out: &mut String, node: &Node, indent: usize) {
    match &node.kind {
        Kind::Null => out.push_str("null\n"),
        Kind::Scalar(text) => write_line(out, &scalar(text)),
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
        Kind::Scalar(text) if key.ends_with("url") => {
            write_line(out, &format!(" {}", scalar(&without_password(text))));
        }
        Kind::Scalar(text) => write_line(out, &format!(" {}", scalar(text))),
        Kind::List(items) if items.is_empty() => out.push_str(" []\n"),
        Kind::Map(entries) if entries.is_empty() => out.push_str(" {}\n"),
        Kind::List(items) if is_secret => {
            out.push('\n');
            for _ in items {
                let _ = writeln!(out, "{:indent$}- {HIDDEN}", "");
            }
        }
        Kind::Map(_) if is_secret => write_line(out, &format!(" {HIDDEN}")),
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
    let starts_well = text.chars().next().is_some_and(|c| plain(c) && !"%@*<>".contains(c));
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
    use super::*;

    fn shown(text: &str) -> String {
        let mut out = String::new();
        write_node(&mut out, &yaml::parse(text).unwrap(), 0);
        out
    }

    #[test]
    fn a_job_is_shown_by_its_name() {
        let text = "scrape_configs:\n- job_name: a\n- {job_name: b, basic_auth: {password: p}}\n";
        let expected = "job_name: b\nbasic_auth:\n  password: <secret>\n";
        assert_eq!(job(text, "b").as_deref(), Some(expected));
        assert_eq!(job(text, "c"), None);
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
