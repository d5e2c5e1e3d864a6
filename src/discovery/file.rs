//! Targets from JSON and YAML files, read again when they change.

use std::collections::BTreeMap;
use std::io;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use stint_model::Span;

use super::refresh::Task;
use super::{DiscoveryError, TargetGroup};
use crate::config::{FileDiscovery, StaticGroup, files_matching, read_target_file};

/// The label that names the file a target came from.
const FILE_PATH: &str = "__meta_filepath";

/// The longest file that is read, in bytes.
const FILE_BYTES_MAX: u64 = 64 << 20;

/// How often files are looked at.
const LOOK_EVERY: Duration = Duration::from_secs(1);

/// Looks at the files of `config` again and again.
pub(super) async fn run(config: FileDiscovery, task: Task) {
    let mut source = FileSource::new(config);
    loop {
        let now = task.clock.monotonic();
        let looked = tokio::task::spawn_blocking(move || {
            let polled = source.poll(now);
            (source, polled)
        });
        let polled;
        (source, polled) = match looked.await {
            Ok(looked) => looked,
            Err(error) => {
                // The runtime ends, or reading has a bug.
                tracing::error!(config = task.name, %error, "discovery ends, targets are kept");
                return std::future::pending().await;
            }
        };
        for problem in polled.problems {
            task.metrics.file_errors.inc();
            task.failed(&DiscoveryError(problem));
        }
        task.publish(source.groups());
        tokio::time::sleep(LOOK_EVERY).await;
    }
}

/// One `file_sd_configs` entry and what its files held when they were last read.
#[derive(Debug)]
pub struct FileSource {
    config: FileDiscovery,
    files: BTreeMap<PathBuf, Known>,
    /// When all files were last read, changed or not.
    read_at: Option<Duration>,
}

/// A file as it was last seen.
#[derive(Debug, Default)]
struct Known {
    stamp: Option<Stamp>,
    groups: Vec<StaticGroup>,
}

/// What tells that a file has changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Stamp {
    modified: Option<SystemTime>,
    size: u64,
}

/// What a look at the files found.
#[derive(Debug, Default, PartialEq)]
pub struct Polled {
    /// Whether the groups may have changed.
    pub changed: bool,
    /// Files that could not be read, whose targets stay as they were.
    pub problems: Vec<String>,
}

impl FileSource {
    /// A source that has not read anything yet.
    pub fn new(config: FileDiscovery) -> Self {
        Self { config, files: BTreeMap::new(), read_at: None }
    }

    /// Looks at the files; reads those that changed, and all of them when the refresh interval has
    /// passed. `now` is a monotonic time. A file that cannot be read or parsed keeps its previous
    /// targets; one that is gone loses them.
    pub fn poll(&mut self, now: Duration) -> Polled {
        let refresh = self.config.refresh_interval.max(Span::SECOND).to_std();
        let all = self.read_at.is_none_or(|read_at| now.saturating_sub(read_at) >= refresh);
        if all {
            self.read_at = Some(now);
        }
        let mut polled = Polled::default();
        let mut present = Vec::new();
        for pattern in &self.config.files {
            match files_matching(pattern) {
                Ok(files) => present.extend(files),
                Err(error) => {
                    let pattern = pattern.display();
                    polled.problems.push(format!("cannot list {pattern}: {error}"));
                    // What cannot be listed is not gone.
                    present.extend(self.files.keys().cloned());
                }
            }
        }
        for path in &present {
            match stamp(path) {
                Ok(None) => {}
                Ok(Some(stamp)) => self.read(path, stamp, all, &mut polled),
                Err(error) => {
                    polled.problems.push(format!("cannot read {}: {error}", path.display()));
                }
            }
        }
        let before = self.files.len();
        self.files.retain(|path, _| present.contains(path) && !matches!(stamp(path), Ok(None)));
        polled.changed |= self.files.len() != before;
        polled
    }

    fn read(&mut self, path: &Path, stamp: Stamp, again: bool, polled: &mut Polled) {
        let known = self.files.entry(path.to_path_buf()).or_default();
        if known.stamp == Some(stamp) && !again {
            return;
        }
        known.stamp = Some(stamp);
        if stamp.size > FILE_BYTES_MAX {
            let (path, limit) = (path.display(), FILE_BYTES_MAX >> 20);
            polled.problems.push(format!("{path} is longer than {limit} MiB"));
            return;
        }
        let text = match std::fs::read_to_string(path) {
            Ok(text) => text,
            Err(error) => {
                polled.problems.push(format!("cannot read {}: {error}", path.display()));
                return;
            }
        };
        match read_target_file(path, &text) {
            Ok(groups) => {
                polled.changed |= known.groups != groups;
                known.groups = groups;
            }
            Err(errors) => polled.problems.push(errors.to_string()),
        }
    }

    /// The targets of all files as they are known now.
    pub fn groups(&self) -> Vec<TargetGroup> {
        let mut groups = Vec::new();
        for (path, known) in &self.files {
            let path = path.display().to_string();
            for (at, group) in known.groups.iter().enumerate() {
                let mut group = TargetGroup::fixed(format!("{path}:{at}"), group);
                let mut labels = group.labels.to_builder();
                labels.set(FILE_PATH, &path);
                group.labels = labels.build();
                groups.push(group);
            }
        }
        groups
    }
}

/// The file's stamp, or `None` when there is no file.
fn stamp(path: &Path) -> io::Result<Option<Stamp>> {
    match std::fs::metadata(path) {
        Ok(metadata) => {
            Ok(Some(Stamp { modified: metadata.modified().ok(), size: metadata.len() }))
        }
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Directory(PathBuf);

    impl Directory {
        fn new(name: &str) -> Self {
            let path = std::env::temp_dir().join(format!("stint-{name}-{}", std::process::id()));
            std::fs::create_dir_all(&path).unwrap();
            Self(path)
        }

        fn write(&self, name: &str, text: &str) {
            std::fs::write(self.0.join(name), text).unwrap();
        }

        fn source(&self) -> FileSource {
            FileSource::new(FileDiscovery {
                files: vec![self.0.join("*.yml"), self.0.join("fixed.json")],
                refresh_interval: Span::MINUTE,
            })
        }
    }

    impl Drop for Directory {
        fn drop(&mut self) {
            let _ = std::fs::remove_dir_all(&self.0);
        }
    }

    fn addresses(source: &FileSource) -> Vec<String> {
        let groups = source.groups();
        let targets = groups.iter().flat_map(|group| &group.targets);
        targets.filter_map(|target| target.get(super::super::ADDRESS)).map(str::to_owned).collect()
    }

    fn at(seconds: u64) -> Duration {
        Duration::from_secs(seconds)
    }

    #[test]
    fn files_are_read_again_when_they_change_and_forgotten_when_they_go() {
        let directory = Directory::new("file-sd-change");
        let mut source = directory.source();
        directory.write("a.yml", "- targets: ['a:1', 'a:2']\n  labels: {zone: x}\n");
        directory.write("fixed.json", r#"[{"targets": ["j:1"], "labels": {"é": "ü\n"}}]"#);
        directory.write("ignored.txt", "- targets: ['i:1']\n");
        assert_eq!(source.poll(at(0)), Polled { changed: true, problems: vec![] });
        assert_eq!(addresses(&source), ["a:1", "a:2", "j:1"]);
        let group = &source.groups()[0];
        assert_eq!(group.labels.get("zone"), Some("x"));
        assert!(group.labels.get(FILE_PATH).unwrap().ends_with("a.yml"));

        assert_eq!(source.poll(at(5)), Polled::default());
        directory.write("a.yml", "- targets: ['a:3']\n");
        assert!(source.poll(at(10)).changed);
        assert_eq!(addresses(&source), ["a:3", "j:1"]);

        std::fs::remove_file(directory.0.join("a.yml")).unwrap();
        assert!(source.poll(at(15)).changed);
        std::fs::remove_file(directory.0.join("fixed.json")).unwrap();
        assert!(source.poll(at(20)).changed);
        assert_eq!(addresses(&source), Vec::<String>::new());
    }

    #[test]
    fn a_file_that_is_too_long_is_not_read() {
        let directory = Directory::new("file-sd-long");
        let mut source = directory.source();
        directory.write("a.yml", "- targets: ['a:1']\n");
        assert!(source.poll(at(0)).changed);
        let file = std::fs::File::options().write(true).open(directory.0.join("a.yml")).unwrap();
        file.set_len(FILE_BYTES_MAX + 1).unwrap();
        let polled = source.poll(at(1));
        let [problem] = &polled.problems[..] else { panic!("{polled:?}") };
        assert!(problem.ends_with("a.yml is longer than 64 MiB"), "{problem}");
        assert_eq!(addresses(&source), ["a:1"]);
    }

    #[test]
    fn a_broken_file_keeps_its_targets_and_is_told_of() {
        let directory = Directory::new("file-sd-broken");
        let mut source = directory.source();
        directory.write("a.yml", "- targets: ['a:1']\n");
        source.poll(at(0));
        directory.write("a.yml", "- targets: ['a:1'\n- nonsense: 1\n");
        let polled = source.poll(at(5));
        assert!(!polled.changed && polled.problems.len() == 1, "{polled:?}");
        assert_eq!(addresses(&source), ["a:1"]);
        directory.write("a.yml", "- targets: ['a:1']\n  label: {}\n");
        assert!(source.poll(at(10)).problems[0].contains("unknown key `label`"));
    }
}
