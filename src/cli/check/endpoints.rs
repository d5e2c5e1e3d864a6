//! What becomes of an account when a server is started with a configuration: whether its series are new
//! ones, and whether a pair of replicas counts once.

use std::path::Path;
use std::sync::Arc;

use stint_model::Labels;
use stint_storage::{Disk, OsDisk};

use crate::config::Config;
use crate::forward::account::Account;
use crate::forward::names::changes;
use crate::forward::round::REPLICA;
use crate::forward::setup::own_labels;

/// The label by which the servers of a pair of replicas know each other.
const CLUSTER: &str = "cluster";

/// Who sends to an account, by the labels that all its series have.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Replica {
    endpoint: String,
    account: Account,
    labels: Labels,
}

/// What the endpoints of a configuration send as one of several replicas, and what is wrong with it.
pub(super) fn replicas(config: &Config) -> (Vec<Replica>, Vec<String>) {
    let (mut found, mut warnings) = (Vec::new(), Vec::new());
    for endpoint in &config.remote_write {
        let labels = own_labels(endpoint, &config.global.external_labels);
        if labels.get(REPLICA).is_none() {
            continue;
        }
        let name = endpoint.name.clone();
        if labels.get(CLUSTER).is_none() {
            warnings.push(format!(
                "endpoint `{name}`: `{REPLICA}` without `{CLUSTER}` tells no replicas apart: what each of \
                 them sends counts"
            ));
        }
        found.push(Replica { endpoint: name, account: Account::of(endpoint), labels });
    }
    (found, warnings)
}

/// What keeps `replica` from counting once with one of `others`, which are of other configurations.
pub(super) fn apart(replica: &Replica, others: &[Replica]) -> Option<String> {
    let cluster = replica.labels.get(CLUSTER);
    let of_all = |labels: &Labels| labels.retain(|label| label != REPLICA);
    let is_pair =
        |other: &&Replica| other.account == replica.account && other.labels.get(CLUSTER) == cluster;
    let own = of_all(&replica.labels);
    let other = others.iter().filter(is_pair).find(|other| of_all(&other.labels) != own)?;
    Some(format!(
        "endpoint `{}`: another replica of the cluster has other labels beside `{REPLICA}`, \
         {} instead of {own}: to the account each of its series is another one",
        replica.endpoint,
        of_all(&other.labels)
    ))
}

/// What a server that ran in the folder `data` sent under other labels than it will by now.
pub(super) fn renamed(config: &Config, data: &Path) -> Vec<String> {
    // Opening a disk makes its folder.
    if !data.join("forward").is_dir() {
        return Vec::new();
    }
    let disk = OsDisk::new(data).map(|disk| Arc::new(disk) as Arc<dyn Disk>);
    let told =
        disk.and_then(|disk| changes(&disk, &config.remote_write, &config.global.external_labels));
    match told {
        Ok(changes) => {
            changes.into_iter().map(|(name, text)| format!("endpoint `{name}`: {text}")).collect()
        }
        Err(error) => vec![format!("whether labels have changed is not known: {error}")],
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Files;

    /// What there is of replicas where one has these labels and sends to `url`.
    fn found(url: &str, labels: &[(&str, &str)]) -> (Vec<Replica>, Vec<String>) {
        let labels: Vec<String> = labels.iter().map(|(n, v)| format!("{n}: '{v}'")).collect();
        let labels = labels.join(", ");
        let yml = format!(
            "global: {{external_labels: {{{labels}}}}}\nremote_write: [{{url: '{url}', name: r}}]\n"
        );
        let name =
            format!("stint-replica-{:x}-{}", crc32c::crc32c(yml.as_bytes()), std::process::id());
        let path = std::env::temp_dir().join(name);
        std::fs::write(&path, yml).unwrap();
        let files = Files { prometheus: Some(&path), own_address: "a:1", ..Files::default() };
        let config = crate::config::load(files).unwrap();
        std::fs::remove_file(&path).unwrap();
        replicas(&config)
    }

    fn replica(url: &str, labels: &[(&str, &str)]) -> Replica {
        let (mut found, warnings) = found(url, labels);
        assert_eq!(warnings, Vec::<String>::new());
        found.remove(0)
    }

    #[test]
    fn a_replica_without_a_cluster_is_told() {
        let (found, warnings) = found("http://a/", &[(REPLICA, "1")]);
        assert_eq!((found.len(), warnings.len()), (1, 1));
        assert!(warnings[0].contains("`__replica__` without `cluster`"), "{warnings:?}");
    }

    #[test]
    fn replicas_differ_in_their_name_alone() {
        let of = |replica_name: &str, env: &str| {
            replica("http://a/", &[("cluster", "x"), (REPLICA, replica_name), ("env", env)])
        };
        assert_eq!(apart(&of("1", "prod"), &[of("2", "prod")]), None);
        let text = apart(&of("1", "prod"), &[of("2", "dev")]).unwrap();
        assert!(text.contains(r#"env="dev""#) && text.contains("instead of {"), "{text}");
        let elsewhere = replica("http://b/", &[("cluster", "x"), (REPLICA, "2")]);
        assert_eq!(apart(&of("1", "prod"), &[elsewhere]), None);
    }
}
