//! From what was discovered to an Alertmanager's URL.

use stint_model::Labels;
use stint_model::labels::LabelsBuilder;
use stint_model::relabel::{self, Verdict};

use crate::config::Alertmanager;
use crate::discovery::{ADDRESS, TargetGroup};

const SCHEME: &str = "__scheme__";
const PATH: &str = "__alerts_path__";
/// Below the prefix.
const API: &str = "/api/v2/alerts";

/// What became of what was discovered.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Targets {
    /// URLs that alerts are posted to, each once, in the order they were found.
    pub(super) active: Vec<String>,
    /// URLs of those that relabelling dropped.
    pub(super) dropped: Vec<String>,
    /// Why others cannot be reached.
    pub(super) problems: Vec<String>,
}

/// The Alertmanagers of `config` that discovery found in `groups`.
pub(super) fn build(config: &Alertmanager, groups: &[TargetGroup]) -> Targets {
    let mut targets = Targets::default();
    for group in groups {
        for found in &group.targets {
            let mut labels = LabelsBuilder::default();
            let path = format!("/{}{API}", config.path_prefix.trim_matches('/'));
            let path = path.replace("//", "/");
            let defaults = [(SCHEME, &*config.scheme), (PATH, &path)];
            for (name, value) in defaults.into_iter().chain(&group.labels).chain(found) {
                labels.set(name, value);
            }
            let discovered = labels.build();
            if relabel::apply(&config.relabel_configs, &mut labels) == Verdict::Drop {
                targets.dropped.push(url(&discovered));
                continue;
            }
            let labels = labels.build();
            let address = labels.get(ADDRESS).unwrap_or_default();
            let url = url(&labels);
            if address.is_empty() || address.contains('/') || reqwest::Url::parse(&url).is_err() {
                targets.problems.push(format!("{address:?} is not a valid hostname"));
            } else if !targets.active.contains(&url) {
                targets.active.push(url);
            }
        }
    }
    targets
}

fn url(labels: &Labels) -> String {
    let part = |name| labels.get(name).unwrap_or_default();
    let path = part(PATH);
    let slash = if path.starts_with('/') { "" } else { "/" };
    format!("{}://{}{slash}{path}", part(SCHEME), part(ADDRESS))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::notify::testing::alerting;

    fn targets(keys: &str) -> Targets {
        let config = alerting(keys).alertmanagers.remove(0);
        let group = |group| TargetGroup::fixed("static".to_owned(), group);
        let groups: Vec<_> = config.static_configs.iter().map(group).collect();
        build(&config, &groups)
    }

    #[test]
    fn urls_have_scheme_prefix_and_path() {
        let found = targets("static_configs: [{targets: ['a:9093', 'a:9093', 'b:1']}]");
        assert_eq!(found.active, ["http://a:9093/api/v2/alerts", "http://b:1/api/v2/alerts"]);
        let found =
            targets("scheme: https\npath_prefix: am/x/\nstatic_configs: [{targets: ['a:9093']}]");
        assert_eq!(found.active, ["https://a:9093/am/x/api/v2/alerts"]);
    }

    #[test]
    fn relabelling_chooses_and_changes() {
        let found = targets(
            "static_configs: [{targets: ['a:1'], labels: {zone: x}}, {targets: ['b:1', '']}]
relabel_configs:
- {source_labels: [__address__], regex: 'a.*', action: drop}
- {target_label: __alerts_path__, replacement: /push}",
        );
        assert_eq!(found.active, ["http://b:1/push"]);
        assert_eq!(found.dropped, ["http://a:1/api/v2/alerts"]);
        assert_eq!(found.problems, ["\"\" is not a valid hostname"]);
    }
}
