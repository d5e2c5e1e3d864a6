//! Who may import whom inside `src/`: the table is the law, and the test reads every file.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

/// Module → the sibling modules it may import. `server` and `cli` wire everything and are not listed.
const ALLOWED: &[(&str, &[&str])] = &[
    (
        "api",
        &[
            "budget", "config", "forward", "ingest", "metrics", "notify", "receive", "rules",
            "scrape", "template", "usage",
        ],
    ),
    ("budget", &["config", "usage"]),
    ("config", &[]),
    ("discovery", &["config", "http", "metrics"]),
    ("forward", &["budget", "config", "http"]),
    ("http", &["config"]),
    ("import", &["http"]),
    ("ingest", &["config", "metrics"]),
    ("metrics", &[]),
    ("notify", &["config", "discovery", "http", "metrics", "rules"]),
    ("receive", &["ingest", "metrics"]),
    ("rules", &["config", "metrics", "template"]),
    ("scrape", &["config", "discovery", "http", "metrics"]),
    ("telemetry", &[]),
    ("template", &[]),
    ("usage", &["config"]),
];

/// Modules that wire the others together.
const WIRING: &[&str] = &["server", "cli", "main", "lib"];

/// The longest a file may be, tests apart: past it a second idea has usually moved in.
const LINES_MAX: usize = 800;

#[test]
fn modules_import_only_what_the_table_allows() {
    let allowed: BTreeMap<&str, &[&str]> = ALLOWED.iter().copied().collect();
    let mut violations = Vec::new();
    for file in sources(&root().join("src")) {
        let module = module_of(&file);
        if WIRING.contains(&module.as_str()) {
            continue;
        }
        let text = fs::read_to_string(&file).expect("readable");
        let Some(may) = allowed.get(module.as_str()) else {
            violations.push(format!("{}: module {module} is not in the table", file.display()));
            continue;
        };
        for imported in imports(&text) {
            if imported != module && !may.contains(&imported.as_str()) {
                violations.push(format!("{}: {module} imports {imported}", file.display()));
            }
        }
    }
    assert!(violations.is_empty(), "{}", violations.join("\n"));
}

#[test]
fn libraries_start_no_threads_and_know_no_runtime() {
    for library in ["model", "wire", "storage", "promql"] {
        for file in sources(&root().join(library).join("src")) {
            let text = fs::read_to_string(&file).expect("readable");
            for word in ["tokio::", "std::thread::spawn", "thread::spawn("] {
                assert!(!text.contains(word), "{} contains {word}", file.display());
            }
        }
    }
}

#[test]
fn files_hold_one_idea() {
    for folder in ["src", "model/src", "wire/src", "storage/src", "promql/src"] {
        for file in sources(&root().join(folder)) {
            let text = fs::read_to_string(&file).expect("readable");
            let code = text.split("#[cfg(test)]\nmod tests {").next().unwrap_or_default();
            let lines = code.lines().count();
            assert!(lines <= LINES_MAX, "{} has {lines} lines", file.display());
        }
    }
}

fn root() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR"))
}

fn sources(folder: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in fs::read_dir(folder).expect("a folder of ours") {
        let path = entry.expect("readable").path();
        if path.is_dir() {
            found.extend(sources(&path));
        } else if path.extension().is_some_and(|ending| ending == "rs") {
            found.push(path);
        }
    }
    found.sort();
    found
}

/// The first path component below `src/`, without its ending.
fn module_of(file: &Path) -> String {
    let below = file.strip_prefix(root().join("src")).expect("below src");
    let first = below.components().next().expect("a file").as_os_str().to_string_lossy();
    first.trim_end_matches(".rs").to_owned()
}

fn imports(text: &str) -> Vec<String> {
    text.match_indices("crate::")
        .map(|(at, word)| {
            let rest = &text[at + word.len()..];
            rest.chars().take_while(|c| c.is_ascii_lowercase() || *c == '_').collect::<String>()
        })
        .filter(|name| !name.is_empty())
        .collect()
}
