//! Under which labels an endpoint's series are sent, so that it is noticed when they change: to the
//! server all of them are new ones then, and it counts the others for a while beside them.
//!
//! A file in the endpoint's directory holds a hash of what decides the labels: those that all series
//! have, and the rules that write labels.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use stint_model::Labels;
use stint_model::relabel::{Action, Rule};
use stint_storage::disk::{read_all, write_atomically};
use stint_storage::{Disk, DiskError};

use super::account::{folder_of, ledger_in, shared_out};
use super::setup::own_labels;
use crate::budget::ledger::Ledger;
use crate::budget::limits::{HOLD, Limits};
use crate::config::RemoteWrite;

const FILE: &str = "labels";

/// What decides the labels of what is sent, as a hash.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Names(u128);

/// Whether a rule changes labels; others say which series are sent.
fn writes(rule: &Rule) -> bool {
    let leaves = [Action::Keep, Action::Drop, Action::KeepEqual, Action::DropEqual];
    !leaves.contains(&rule.spec().action)
}

impl Names {
    /// Those of an endpoint.
    pub(super) fn of(config: &RemoteWrite, external_labels: &Labels) -> Self {
        let own = own_labels(config, external_labels).to_string();
        let mut parts = vec![("own".to_owned(), own)];
        for (number, rule) in
            config.write_relabel_configs.iter().filter(|rule| writes(rule)).enumerate()
        {
            let spec = rule.spec();
            let mut add = |key: &str, text: String| parts.push((format!("{number}.{key}"), text));
            for (at, source) in spec.source_labels.iter().enumerate() {
                add(&format!("source.{at}"), source.clone());
            }
            add("separator", spec.separator.clone());
            add("regex", spec.regex.clone());
            add("modulus", spec.modulus.to_string());
            add("target", spec.target_label.clone());
            add("replacement", spec.replacement.clone());
            add("action", spec.action.as_str().to_owned());
        }
        let parts = parts.iter().map(|(name, value)| (name.as_str(), value.as_str()));
        Self(Labels::from_pairs(parts).stable_hash_128())
    }

    /// Those under which an earlier run sent; nothing where it is not known.
    pub(super) fn read(disk: &dyn Disk, dir: &Path) -> Option<Self> {
        let bytes = read_all(disk, &dir.join(FILE)).ok()?;
        let text = String::from_utf8(bytes).ok()?;
        u128::from_str_radix(text.trim_end(), 16).ok().map(Self)
    }

    /// Writes them down; says whether they are known to have changed.
    ///
    /// # Errors
    /// The disk failed.
    pub(super) fn note(self, disk: &dyn Disk, dir: &Path) -> Result<bool, DiskError> {
        let before = Self::read(disk, dir);
        if before == Some(self) {
            return Ok(false);
        }
        disk.create_dir(dir)?;
        write_atomically(disk, &dir.join(FILE), format!("{:032x}\n", self.0).as_bytes())?;
        Ok(before.is_some())
    }
}

/// What it takes that all series of an endpoint have other labels from now on.
pub(super) fn renamed(series: u64, free: u64) -> String {
    format!(
        "the labels of what is sent have changed: to the server all series are new ones, and it \
         goes on counting {series} others until 22 minutes after the change; {free} slots are free \
         until then"
    )
}

/// What a server that is started with this configuration would say of endpoints whose labels have
/// changed since one ran on `disk`; with the endpoint's name.
///
/// # Errors
/// The disk failed.
pub fn changes(
    disk: &Arc<dyn Disk>,
    endpoints: &[RemoteWrite],
    external_labels: &Labels,
) -> Result<Vec<(String, String)>, DiskError> {
    let names: Vec<String> = endpoints.iter().map(|endpoint| endpoint.name.clone()).collect();
    let mut changes = Vec::new();
    for endpoint in &shared_out(endpoints) {
        let Some(limits) = Limits::resolve(&endpoint.url, &endpoint.budget) else { continue };
        let Some(folder) = folder_of(&**disk, endpoint, &names)? else { continue };
        let now = Names::of(endpoint, external_labels);
        if Names::read(&**disk, &folder).is_none_or(|before| before == now) {
            continue;
        }
        let ledger = ledger_in(&folder);
        let (ledger, _) = Ledger::open(Arc::clone(disk), &ledger, HOLD, Duration::ZERO);
        let free = limits.target.saturating_sub(ledger.live());
        if ledger.live() > 0 {
            changes.push((endpoint.name.clone(), renamed(ledger.live(), free)));
        }
    }
    Ok(changes)
}

#[cfg(test)]
mod tests {
    use stint_model::labels::NameScheme;
    use stint_model::relabel::RuleSpec;
    use stint_storage::SimDisk;

    use super::*;
    use crate::budget::group::Key;
    use crate::config::Budget;
    use crate::forward::account::{Pools, claim};
    use crate::forward::cursor::directory;
    use crate::forward::sim::endpoint;

    fn with(spec: RuleSpec) -> RemoteWrite {
        let rule = Rule::new(spec, NameScheme::Legacy).unwrap();
        RemoteWrite { write_relabel_configs: vec![rule], ..endpoint("a", "http://a") }
    }

    #[test]
    fn what_is_sent_under_other_labels_is_noticed() {
        let config = endpoint("a", "http://a");
        let labels = Labels::from_pairs([("cluster", "x")]);
        let more = RemoteWrite { labels: Labels::from_pairs([("env", "dev")]), ..config.clone() };
        let same = RemoteWrite { labels: labels.clone(), ..config.clone() };
        let names = Names::of(&config, &labels);
        assert_eq!(names, Names::of(&same, &Labels::default()), "it is the same label");
        assert_ne!(names, Names::of(&more, &labels));
        assert_ne!(names, Names::of(&config, &Labels::default()));
        let target = RuleSpec { target_label: "env".into(), ..RuleSpec::default() };
        assert_ne!(names, Names::of(&with(target), &labels));
        let drop = RuleSpec {
            source_labels: vec!["a".into()],
            action: Action::Drop,
            ..RuleSpec::default()
        };
        assert_eq!(names, Names::of(&with(drop), &labels), "it renames nothing");
    }

    #[test]
    fn what_a_change_takes_is_known_before_it_is_made() {
        let disk: Arc<dyn Disk> = Arc::new(SimDisk::new());
        let budget = Budget { series: Some(10), ..Budget::default() };
        let config = RemoteWrite { budget, ..endpoint("a", "http://a") };
        let (none, labels) = (Labels::default(), Labels::from_pairs([("cluster", "x")]));
        let told = |labels| changes(&disk, std::slice::from_ref(&config), labels).unwrap();
        assert_eq!(told(&labels), [], "nothing ran");
        claim(&disk, &config, &["a".to_owned()], &Pools::default(), Duration::ZERO).unwrap();
        let dir = directory("a");
        Names::of(&config, &none).note(&*disk, &dir).unwrap();
        let path = ledger_in(&dir);
        let (mut ledger, _) = Ledger::open(Arc::clone(&disk), &path, HOLD, Duration::ZERO);
        let wanted: Vec<(Key, u16)> = (0..7).map(|key| (Key(key), 0)).collect();
        ledger.grant(&wanted, 10, Duration::ZERO).unwrap();
        assert_eq!(told(&none), []);
        assert_eq!(told(&labels), [("a".to_owned(), renamed(7, 3))]);
        let other = RemoteWrite { name: "b".into(), ..config.clone() };
        assert_eq!(changes(&disk, &[other], &labels).unwrap().len(), 1, "it goes on with that");
    }

    #[test]
    fn a_change_is_told_once() {
        let (disk, dir) = (SimDisk::new(), Path::new("forward/a"));
        let note = |names: u128| Names(names).note(&disk, dir).unwrap();
        assert!(!note(1), "nothing was sent before");
        assert!(!note(1));
        assert!(note(2));
        assert!(!note(2));
    }
}
