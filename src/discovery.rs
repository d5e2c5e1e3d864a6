//! Where targets come from: a discoverer hands over groups of targets, the scrape pools make
//! loops of them.

pub mod file;

use std::io;
use std::path::{Path, PathBuf};

use stint_model::Labels;

use crate::config::StaticGroup;

/// The label that holds a target's `host:port`.
pub const ADDRESS: &str = "__address__";

/// Targets that came from one place and change together.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TargetGroup {
    /// Names the place, for logs.
    pub source: String,
    /// The labels of each target; [`ADDRESS`] among them.
    pub targets: Vec<Labels>,
    /// Labels of all targets that do not have them themselves.
    pub labels: Labels,
}

impl TargetGroup {
    /// The group of addresses that a file or a configuration lists.
    pub fn fixed(source: String, group: &StaticGroup) -> Self {
        let address = |target: &String| Labels::from_pairs([(ADDRESS, target)]);
        let targets = group.targets.iter().map(address).collect();
        Self { source, targets, labels: group.labels.clone() }
    }
}

/// The files that `pattern` names, sorted; its last element may hold one `*`. A pattern without
/// a star names its file, whether it exists or not.
///
/// # Errors
/// The directory exists and cannot be listed.
pub fn files_matching(pattern: &Path) -> io::Result<Vec<PathBuf>> {
    let name = pattern.file_name().and_then(|name| name.to_str()).unwrap_or_default();
    let Some((prefix, suffix)) = name.split_once('*') else {
        return Ok(vec![pattern.to_path_buf()]);
    };
    let directory = match pattern.parent() {
        Some(parent) if parent != Path::new("") => parent,
        _ => Path::new("."),
    };
    let entries = match std::fs::read_dir(directory) {
        Ok(entries) => entries,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(error) => return Err(error),
    };
    let mut found = Vec::new();
    for entry in entries {
        let entry = entry?;
        let name = entry.file_name();
        let Some(name) = name.to_str() else { continue };
        let long_enough = name.len() >= prefix.len() + suffix.len();
        // As in a shell, a star does not find hidden files.
        let hidden = name.starts_with('.') && prefix.is_empty();
        if long_enough && !hidden && name.starts_with(prefix) && name.ends_with(suffix) {
            found.push(pattern.with_file_name(name));
        }
    }
    found.sort();
    Ok(found)
}
