//! What tells which metrics and labels are used.

use std::path::PathBuf;

use super::decode::Section;
use super::files::is_pattern;

/// The section `usage` of `retention.toml`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Usage {
    /// Whether the queries that are asked here are remembered.
    pub queries: bool,
    /// Grafana dashboards, as patterns of files.
    pub dashboards: Vec<PathBuf>,
    /// Rule files, as patterns: those that are evaluated elsewhere, and those of `prometheus.yml`.
    pub rules: Vec<PathBuf>,
}

impl Default for Usage {
    fn default() -> Self {
        Self { queries: true, dashboards: Vec::new(), rules: Vec::new() }
    }
}

impl Usage {
    pub(super) fn read(mut section: Section<'_>) -> Self {
        let queries = section.bool_or("queries", true);
        let dashboards = patterns(&mut section, "dashboards");
        let rules = patterns(&mut section, "rules");
        section.finish();
        Self { queries, dashboards, rules }
    }
}

fn patterns(section: &mut Section<'_>, key: &'static str) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for (at, text) in section.texts(key) {
        if is_pattern(text) {
            found.push(section.cx.path(text));
        } else {
            section.cx.error(at, format!("`{text}`: nothing may follow a `*` but a file's name"));
        }
    }
    found
}
