//! The reference of both configuration files, `docs/reference/configuration.md`, made of what their
//! readers ask for.

use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;
use std::path::Path;

use super::decode::Context;
use super::node::{self, Key, Position};
use super::retention::RetentionFile;
use super::{Config, Files, Texts, read_prometheus};

mod texts;

use texts::TEXTS;

/// What is known of a key.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Noted {
    kind: &'static str,
    defaults: BTreeSet<String>,
}

/// Writes down the keys that are asked for, and opens every section but some.
#[derive(Debug, Default)]
pub(super) struct Recorder {
    noted: RefCell<BTreeMap<String, Noted>>,
    closed: &'static [&'static str],
    /// Whether every key seems to be there.
    pub(super) has_all: bool,
}

impl Recorder {
    pub(super) fn note(&self, path: &str, kind: &'static str, default: Option<&str>) {
        let mut all = self.noted.borrow_mut();
        let noted = all.entry(path.replace("[0]", "[]")).or_default();
        // What is asked for as a text or list is so inside of what knows better.
        if !kind.is_empty() && ["", "text", "list"].contains(&noted.kind) {
            noted.kind = kind;
        }
        noted.defaults.extend(default.filter(|default| !default.is_empty()).map(str::to_owned));
    }

    pub(super) fn opens(&self, key: &str) -> bool {
        !self.closed.contains(&key)
    }
}

/// A key that stands for any.
pub(super) fn any_key() -> &'static Key {
    Box::leak(Box::new(Key { text: "NAME".to_owned(), at: Position { line: 1, column: 1 } }))
}

/// Sections that are read only where others are absent: each pass leaves some out.
const PASSES: [&[&str]; 3] = [&[], &["oauth2"], &["oauth2", "basic_auth"]];

fn recorded(file: &str, read: impl Fn(&Context)) -> BTreeMap<String, Noted> {
    let mut all: BTreeMap<String, Noted> = BTreeMap::new();
    for (closed, has_all) in PASSES.iter().flat_map(|closed| [(*closed, false), (*closed, true)]) {
        let mut cx = Context::new(Path::new("x"));
        cx.recorder = Some(Recorder { closed, has_all, ..Recorder::default() });
        read(&cx);
        for (path, noted) in cx.recorder.take().unwrap().noted.into_inner() {
            let known = all.entry(place(file, &path)).or_default();
            if !noted.kind.is_empty() && known.kind != "refused" {
                known.kind = noted.kind;
            }
            known.defaults.extend(noted.defaults);
        }
    }
    all
}

/// Sections that stand in many places.
const BLOCKS: [&str; 4] = ["tls_config", "basic_auth", "authorization", "oauth2"];

/// Under which name a key is described.
fn place(file: &str, path: &str) -> String {
    for block in BLOCKS {
        let inside = format!("{block}.");
        let found = path.rfind(&inside).filter(|at| *at == 0 || path[..*at].ends_with('.'));
        if let Some(at) = found {
            return format!("B:{}", &path[at..]);
        }
    }
    let (within, key) = path.rsplit_once("[].").unwrap_or(("", path));
    let list = within.rsplit('.').next().unwrap_or_default();
    if list.ends_with("relabel_configs") {
        return format!("B:relabel_config.{key}");
    }
    let is_http = |key: &str| TEXTS.iter().any(|(path, ..)| path.strip_prefix("H:") == Some(key));
    let from_headers = path.find("http_headers").map(|at| &path[at..]);
    let last = path.rsplit('.').next().unwrap_or_default();
    if let Some(key) = from_headers.or(Some(last)).filter(|key| is_http(key)) {
        return format!("H:{key}");
    }
    if let Some(at) = path.find("_sd_configs[].") {
        let start = path[..at].rfind('.').map_or(0, |dot| dot + 1);
        return format!("B:{}", path[start..].replacen("[]", "", 1));
    }
    format!("{file}:{path}")
}

fn all() -> BTreeMap<String, Noted> {
    let mut all = recorded("P", |cx| {
        let root = node::yaml::parse("").unwrap();
        let mut config = super::empty("");
        read_prometheus(cx, &root, &|_| None, &mut config, &mut Vec::new());
    });
    let retention = recorded("R", |cx| {
        let root = node::toml::parse("").unwrap();
        drop(RetentionFile::read(cx, &root, &|_| None));
    });
    for (path, noted) in retention {
        let known = all.entry(path).or_default();
        known.kind = noted.kind;
        known.defaults.extend(noted.defaults);
    }
    all
}

/// Whether the key is a mechanism of discovery that there is not.
fn is_other_discovery(path: &str, noted: &Noted) -> bool {
    path.ends_with("_sd_configs") && noted.kind == "refused"
}

const HEAD: &str = "# Configuration

Made from the code by `UPDATE=1 cargo test -p stint --lib reference`; a test fails where this page says something else,
where a key is missing, or where another default holds.

`prometheus.yml` is that of Prometheus. `retention.toml`, beside it or where `--retention.file` says, holds what Prometheus has no
words for. Unknown keys are errors, and so is setting a key that is refused. `stint check` reads both.

Durations are written `1h30m`, sizes `512MB`. In lists, `[]` stands for each entry; `NAME` is any name. Paths are seen from the
file's own folder.
";

fn page() -> String {
    let all = all();
    let mut page = HEAD.to_owned();
    for (file, title) in [
        ("P", "prometheus.yml"),
        ("H", "Where HTTP is spoken"),
        ("B", "Sections that stand in many places"),
        ("R", "retention.toml"),
    ] {
        // Writing to a string cannot fail.
        let _ = write!(page, "\n## {title}\n");
        let mut group = "";
        for (path, default, text) in TEXTS {
            let Some(path) = path.strip_prefix(file).and_then(|path| path.strip_prefix(':')) else {
                continue;
            };
            let first = path.split(['.', '[']).next().unwrap_or_default();
            if file == "H" && group.is_empty() || file != "H" && group != first {
                group = first;
                if file != "H" {
                    let _ = write!(page, "\n### {group}\n");
                }
                page.push_str("\n| key | what it is | without it | |\n|---|---|---|---|\n");
            }
            let Some(noted) = all.get(&format!("{file}:{path}")) else { continue };
            let shown =
                if file == "B" { path.split_once('.').map_or(path, |(_, key)| key) } else { path };
            let mut defaults: Vec<&str> = noted.defaults.iter().map(String::as_str).collect();
            defaults.extend((!default.is_empty()).then_some(*default));
            let defaults: Vec<String> =
                defaults.iter().map(|default| format!("`{default}`")).collect();
            let text =
                if noted.kind == "refused" && text.is_empty() { "Not supported." } else { text };
            let _ = writeln!(
                page,
                "| `{shown}` | {} | {} | {} |",
                noted.kind,
                defaults.join(" or "),
                text.replace('|', "\\|")
            );
        }
        if file == "P" {
            let others = all.iter().filter(|(path, noted)| is_other_discovery(path, noted));
            let others: BTreeSet<&str> =
                others.filter_map(|(path, _)| path.rsplit('.').next()).collect();
            let others: Vec<_> = others.iter().map(|name| format!("`{name}`")).collect();
            let _ = write!(
                page,
                "\nOther mechanisms of discovery are refused: {}.\n",
                others.join(", ")
            );
        }
    }
    page
}

#[test]
fn every_key_is_described_and_no_other() {
    let all = all();
    let described: BTreeSet<&str> = TEXTS.iter().map(|(path, ..)| *path).collect();
    assert_eq!(described.len(), TEXTS.len(), "a key is described twice");
    let missing: Vec<_> = all
        .iter()
        .filter(|(path, noted)| !is_other_discovery(path, noted))
        .filter(|(path, _)| !described.contains(path.as_str()))
        .collect();
    assert!(missing.is_empty(), "not described: {missing:#?}");
    let unknown: Vec<_> = described.iter().filter(|path| !all.contains_key(**path)).collect();
    assert!(unknown.is_empty(), "described, and nobody asks for them: {unknown:#?}");
    for (path, _, text) in TEXTS {
        let noted = &all[*path];
        assert!(!noted.kind.is_empty(), "{path} is asked for as nothing");
        assert_eq!(text.is_empty(), noted.kind == "refused", "{path} {}", noted.kind);
    }
}

/// A file in which `path` has the value, or is left out; what else has to be there is.
fn document(path: &str, value: Option<&str>, is_toml: bool) -> String {
    const NEEDED: [(&str, &str); 3] = [
        ("scrape_configs", "job_name: x"),
        ("remote_write", "url: 'http://x'"),
        ("webhook", "name = 'x', url = 'http://x'"),
    ];
    let (key, rest) = path.split_once('.').map_or((path, None), |(key, rest)| (key, Some(rest)));
    let (key, in_list) = key.strip_suffix("[]").map_or((key, false), |key| (key, true));
    let equals = if is_toml { " = " } else { ": " };
    let Some(rest) = rest else {
        let is_plain = |text: &str| text.parse::<f64>().is_ok() || !is_toml;
        return match value {
            Some(value) if is_plain(value) => format!("{key}{equals}{value}"),
            Some(value) => format!("{key}{equals}'{value}'"),
            None => String::new(),
        };
    };
    let needed = NEEDED.iter().find(|(section, _)| *section == key).map(|(_, needed)| *needed);
    let inner = document(rest, value, is_toml);
    let parts: Vec<&str> =
        needed.into_iter().chain([inner.as_str()]).filter(|part| !part.is_empty()).collect();
    let map = format!("{{{}}}", parts.join(", "));
    if in_list { format!("{key}{equals}[{map}]") } else { format!("{key}{equals}{map}") }
}

fn read(text: &str, is_toml: bool) -> Config {
    let files = Files { prometheus: Some(Path::new("/x/p.yml")), ..Files::default() };
    let texts = if is_toml {
        Texts { prometheus: Some(""), retention: Some(text) }
    } else {
        Texts { prometheus: Some(text), retention: None }
    };
    let config = super::parse(files, texts, &|_| None);
    Config { text: String::new(), ..config.unwrap_or_else(|error| panic!("{text}: {error}")) }
}

#[test]
fn what_is_said_to_hold_without_a_key_does() {
    let mut tried = 0;
    for (path, default, _) in TEXTS.iter().filter(|(_, default, _)| !default.is_empty()) {
        let (is_toml, path) = match path.split_once(':') {
            Some(("P", path)) => (false, path),
            Some(("R", path)) => (true, path),
            _ => panic!("{path}: only of keys that have one place a default is said"),
        };
        let with = read(&document(path, Some(default), is_toml), is_toml);
        let without = read(&document(path, None, is_toml), is_toml);
        assert!(with == without, "{path}: {default} is not what holds without it");
        tried += 1;
    }
    assert!(tried > 20, "{tried}");
}

#[test]
fn the_reference_is_that_of_the_code() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/reference/configuration.md");
    let made = page();
    if std::env::var_os("UPDATE").is_some() {
        std::fs::write(&path, &made).unwrap();
    }
    let found = std::fs::read_to_string(&path).unwrap_or_default();
    let differing = made.lines().zip(found.lines()).find(|(made, found)| made != found);
    let told = "run UPDATE=1 cargo test -p stint --lib reference";
    assert_eq!(differing, None, "{}: {told}", path.display());
    assert_eq!(made.lines().count(), found.lines().count(), "{}: {told}", path.display());
}
