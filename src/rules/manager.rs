//! All groups: read from files, run, changed by reloads, stopped.

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use parking_lot::Mutex;
use stint_model::{Span, Timestamp};
use stint_promql::parse;
use tokio::sync::watch;
use tokio::task::JoinHandle;

use super::env::Env;
use super::group::Group;
use super::run::{Command, Loop};
use super::spec::{self, GroupSpec, Reading};
use crate::config::{Config, files_matching};

/// Groups that were read from files and can be put in force.
#[derive(Clone, Debug, Default)]
pub struct Prepared {
    groups: Vec<GroupSpec>,
    external_labels: stint_model::Labels,
}

/// Runs all groups.
pub struct Manager {
    env: Arc<Env>,
    running: tokio::sync::Mutex<Vec<Running>>,
    /// The groups in force, in order of files; for those who only look.
    groups: Mutex<Vec<Arc<Group>>>,
    /// Whether groups were put in force before: what comes later is not restored.
    was_applied: AtomicBool,
    /// Told to removed groups that wait for their end.
    stopping: watch::Sender<bool>,
}

struct Running {
    group: Arc<Group>,
    command: watch::Sender<Command>,
    task: JoinHandle<()>,
}

impl Running {
    async fn stop(self) {
        self.command.send_replace(Command::Stop);
        if let Err(error) = self.task.await {
            tracing::error!(%error, group = self.group.spec.name, "a rule group ended unexpectedly");
        }
    }
}

impl Prepared {
    /// Reads the rule files of `config`, in order of the patterns, with expressions in the language
    /// of `features`. Reads files: not for async threads.
    ///
    /// # Errors
    /// Every mistake in them, and every file that cannot be read; one line each.
    pub fn read(config: &Config, features: parse::Options) -> Result<Self, Vec<String>> {
        let reading = Reading {
            features,
            name_scheme: config.global.name_scheme,
            interval: config.global.evaluation_interval,
            query_offset: config.global.rule_query_offset,
            ignore_unknown: false,
        };
        let (mut groups, mut errors) = (Vec::new(), Vec::new());
        for file in rule_files(config, &mut errors) {
            match read_file(&file, &reading) {
                Ok(read) => groups.extend(read),
                Err(found) => errors.extend(found),
            }
        }
        if errors.is_empty() {
            groups.sort_by(|a, b| (&a.file, &a.name).cmp(&(&b.file, &b.name)));
            Ok(Self { groups, external_labels: config.global.external_labels.clone() })
        } else {
            Err(errors)
        }
    }
}

impl Prepared {
    /// How many groups and rules there are.
    pub fn counts(&self) -> (usize, usize) {
        (self.groups.len(), self.groups.iter().map(|group| group.rules.len()).sum())
    }

    /// The groups, those of a file together.
    pub fn groups(&self) -> &[GroupSpec] {
        &self.groups
    }
}

fn rule_files(config: &Config, errors: &mut Vec<String>) -> Vec<PathBuf> {
    let mut files: Vec<PathBuf> = Vec::new();
    for pattern in &config.rule_files {
        match files_matching(pattern) {
            // A pattern that matches nothing is fine; so is a name that does not exist.
            Ok(found) => {
                for file in found.into_iter().filter(|file| file.exists()) {
                    if !files.contains(&file) {
                        files.push(file);
                    }
                }
            }
            Err(error) => errors.push(format!("cannot list {}: {error}", pattern.display())),
        }
    }
    files
}

fn read_file(file: &Path, reading: &Reading) -> Result<Vec<GroupSpec>, Vec<String>> {
    let text = std::fs::read_to_string(file)
        .map_err(|error| vec![format!("{}: cannot read the file: {error}", file.display())])?;
    let read = spec::read(file, &text, reading)?;
    for warning in &read.warnings {
        tracing::warn!("{warning}");
    }
    Ok(read.groups)
}

impl Manager {
    /// A manager without groups.
    pub fn new(env: Env) -> Self {
        Self {
            env: Arc::new(env),
            running: tokio::sync::Mutex::default(),
            groups: Mutex::default(),
            was_applied: AtomicBool::new(false),
            stopping: watch::channel(false).0,
        }
    }

    /// Puts groups in force. Those that are the same run on untouched; those that changed keep what
    /// is known of the rules that are the same.
    pub async fn apply(&self, prepared: Prepared) {
        *self.env.external_labels.write() = prepared.external_labels;
        let restores = !self.was_applied.swap(true, Ordering::AcqRel);
        let mut running = self.running.lock().await;
        let mut former: HashMap<String, Running> =
            running.drain(..).map(|group| (group.group.spec.key(), group)).collect();
        let mut now = Vec::with_capacity(prepared.groups.len());
        for spec in prepared.groups {
            let before = former.remove(&spec.key());
            match before {
                Some(before) if before.group.spec == spec && !before.task.is_finished() => {
                    now.push(before);
                }
                before => now.push(self.start(spec, before, restores).await),
            }
        }
        for (key, gone) in former {
            self.env.metrics.remove(&key);
            gone.command.send_replace(Command::Remove);
        }
        *self.groups.lock() = now.iter().map(|running| Arc::clone(&running.group)).collect();
        *running = now;
    }

    async fn start(&self, spec: GroupSpec, before: Option<Running>, restores: bool) -> Running {
        let group = Arc::new(Group::new(spec, restores, &self.env));
        if let Some(before) = before {
            let former = Arc::clone(&before.group);
            before.stop().await;
            group.adopt(&former);
        }
        let (command, commands) = watch::channel(Command::Run);
        let work = Loop {
            group: Arc::clone(&group),
            env: Arc::clone(&self.env),
            commands,
            stopping: self.stopping.subscribe(),
        };
        Running { group, command, task: tokio::spawn(work.run()) }
    }

    /// The groups in force, in order of files.
    pub fn groups(&self) -> Vec<Arc<Group>> {
        self.groups.lock().clone()
    }

    /// Stops after the evaluations that are running. Nothing is marked as ended: a later start goes
    /// on.
    pub async fn stop(&self) {
        self.stopping.send_replace(true);
        let running = std::mem::take(&mut *self.running.lock().await);
        for group in &running {
            group.command.send_replace(Command::Stop);
        }
        for group in running {
            group.stop().await;
        }
    }

    /// Gives up evaluations that are running.
    pub fn cancel(&self) {
        self.env.cancel.cancel();
    }
}

/// How long a removed group waits before it ends its series: a renamed rule may go on with them.
pub(super) fn patience(interval: Span) -> Span {
    Span(interval.0.saturating_mul(2))
}

/// For how long to sleep until `due`.
pub(super) fn until(due: Timestamp, now: Timestamp) -> std::time::Duration {
    due.since(now).to_std()
}

#[cfg(test)]
mod tests;
