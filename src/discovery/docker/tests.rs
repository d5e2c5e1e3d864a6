//! Recorded in form, with data of our own.

use std::sync::Arc;

use super::super::testing::{Reply, Server, serve, shown_found};
use super::*;
use crate::config::SdConfig;
use crate::config::tests_support::sd_config;

const CONTAINERS: &str = r#"[
 {"Id": "c1", "Names": ["/web"], "Image": "web:1", "ImageID": "sha256:1", "Command": "/web",
  "Ports": [{"IP": "0.0.0.0", "PrivatePort": 80, "PublicPort": 8080, "Type": "tcp"},
            {"PrivatePort": 81, "Type": "tcp"}, {"PrivatePort": 53, "Type": "udp"}],
  "Labels": {"com.docker.compose.service": "web", "é": "x"},
  "HostConfig": {"NetworkMode": "back"},
  "NetworkSettings": {"Networks": {
    "front": {"NetworkID": "n2", "IPAddress": "10.2.0.2", "GlobalIPv6Address": ""},
    "back": {"NetworkID": "n1", "IPAddress": "10.1.0.2"}}}},
 {"Id": "c2", "Names": ["/side"], "Image": "side:1", "Ports": null, "Labels": null,
  "HostConfig": {"NetworkMode": "container:c1"}, "NetworkSettings": {"Networks": {}}},
 {"Id": "c3", "Names": ["/host"], "Ports": [],
  "HostConfig": {"NetworkMode": "host"},
  "NetworkSettings": {"Networks": {"host": {"NetworkID": "n3", "IPAddress": ""}}}},
 {"Id": "c4", "Names": ["/six"], "Ports": [],
  "HostConfig": {"NetworkMode": "six"},
  "NetworkSettings": {"Networks": {"six": {"IPAddress": "", "GlobalIPv6Address": "fd00::2"}}}},
 {"Id": "c5", "Names": [], "HostConfig": {"NetworkMode": "back"},
  "NetworkSettings": {"Networks": {"back": {"NetworkID": "n1", "IPAddress": "10.1.0.5"}}}},
 {"Id": "c6", "Names": ["/loop"], "HostConfig": {"NetworkMode": "container:c6"}}
]"#;

const NETWORKS: &str = r#"[
 {"Id": "n1", "Name": "back", "Scope": "local", "Internal": true, "Ingress": false,
  "Labels": {"a.b": "c"}},
 {"Id": "n2", "Name": "front", "Scope": "swarm", "Internal": false, "Ingress": true, "Labels": null},
 {"Id": "n3", "Name": "host", "Scope": "local", "Internal": false, "Ingress": false, "Labels": {}}
]"#;

fn docker(host: &str, keys: &str) -> Docker {
    let keys = format!("docker_sd_configs: [{{host: '{host}'{keys}}}]");
    let SdConfig::Docker(config) = sd_config(&keys) else { panic!("docker is expected") };
    Docker::new(&config).unwrap()
}

async fn daemon() -> Server {
    let answers =
        [("/containers/json", Reply::json(CONTAINERS)), ("/networks", Reply::json(NETWORKS))];
    Server::of(&answers).await
}

fn addresses(found: &Found) -> Vec<String> {
    let targets = &found.groups[0].targets;
    targets.iter().map(|target| target.get(ADDRESS).unwrap().to_owned()).collect()
}

#[tokio::test]
async fn containers_are_targets_by_network_and_port() {
    let server = daemon().await;
    let host = server.url().replace("http://", "tcp://");
    let found = docker(&host, "").refresh().await.unwrap();
    insta::assert_snapshot!(shown_found(&found));
    let every = docker(&host, ", match_first_network: false, port: 9, host_networking_host: h");
    let mut every = every;
    let found = every.refresh().await.unwrap();
    assert_eq!(
        addresses(&found),
        [
            "10.1.0.2:80",
            "10.1.0.2:81",
            "10.2.0.2:80",
            "10.2.0.2:81", // c1
            "10.1.0.2:9",
            "10.2.0.2:9", // c2
            "h",
            "[fd00::2]:9",
        ]
    );
}

#[tokio::test]
async fn filters_narrow_containers_and_not_networks() {
    let server = daemon().await;
    let filters = ", filters: [{name: label, values: [a=b, c]}, {name: status, values: [running]}]";
    docker(&server.url(), filters).refresh().await.unwrap_err();
    let asked = &server.targets()[0];
    let url = reqwest::Url::parse("http://x").unwrap().join(asked).unwrap();
    let (_, filters) = url.query_pairs().next().unwrap();
    assert_eq!(filters, r#"{"label":{"a=b":true,"c":true},"status":{"running":true}}"#);
    docker(&server.url(), "").refresh().await.unwrap();
    assert_eq!(server.targets()[1..], ["/containers/json", "/networks"]);
}

#[tokio::test]
async fn a_socket_file_is_spoken_to() {
    let path = std::env::temp_dir().join(format!("stint-docker-{}.sock", std::process::id()));
    let _ = std::fs::remove_file(&path);
    let listener = tokio::net::UnixListener::bind(&path).unwrap();
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            let answer = |request: &super::super::testing::Request| {
                Reply::json(if request.target == "/networks" { NETWORKS } else { CONTAINERS })
            };
            tokio::spawn(serve(stream, Arc::default(), Arc::new(answer)));
        }
    });
    let host = format!("unix://{}", path.display());
    let found = docker(&host, "").refresh().await.unwrap();
    assert_eq!(found.groups[0].targets.len(), 5);
    std::fs::remove_file(&path).unwrap();
    docker(&host, "").refresh().await.unwrap_err();
}

#[tokio::test]
async fn what_cannot_be_read_is_told() {
    for (reply, text) in [
        (Reply::Whole(500, vec![], br#"{"message":"no"}"#.to_vec()), "500"),
        (Reply::json("[{"), "is not usable"),
        (Reply::json(r#"[{"Names": 5}]"#), "is not usable"),
        (Reply::Half("[]".to_owned()), "error decoding"),
    ] {
        let server = Server::of(&[("/containers/json", reply)]).await;
        let error = docker(&server.url(), "").refresh().await.unwrap_err().to_string();
        assert!(error.contains(text), "{text} in {error}");
    }
}

fn swarm(server: &Server, keys: &str) -> Swarm {
    let keys = format!("dockerswarm_sd_configs: [{{host: '{}', {keys}}}]", server.url());
    let SdConfig::Swarm(config) = sd_config(&keys) else { panic!("swarm is expected") };
    Swarm::new(&config).unwrap()
}

const SERVICES: &str = r#"[
 {"ID": "s1", "Spec": {"Name": "web", "Labels": {"team.x": "a"}, "Mode": {"Replicated": {"Replicas": 2}},
   "TaskTemplate": {"ContainerSpec": {"Image": "web:1", "Hostname": "web-{{.Task.Slot}}"}}},
  "UpdateStatus": {"State": "completed"},
  "Endpoint": {"Ports": [
     {"Name": "m", "Protocol": "tcp", "TargetPort": 80, "PublishedPort": 8080, "PublishMode": "ingress"},
     {"Protocol": "udp", "TargetPort": 53, "PublishedPort": 53, "PublishMode": "host"}],
   "VirtualIPs": [{"NetworkID": "n2", "Addr": "10.2.0.9/24"}, {"NetworkID": "n1", "Addr": "fd00::9/64"}]}},
 {"ID": "s2", "Spec": {"Name": "agent", "Mode": {"Global": {}}, "TaskTemplate": {}},
  "Endpoint": {"VirtualIPs": [{"NetworkID": "n9", "Addr": "10.9.0.3/16"}]}},
 {"ID": "s3", "Spec": {"Name": "none"}, "Endpoint": {}}
]"#;

const NODES: &str = r#"[
 {"ID": "k1", "Spec": {"Role": "manager", "Availability": "active", "Labels": {"zone": "a"}},
  "Description": {"Hostname": "one", "Platform": {"Architecture": "x86_64", "OS": "linux"},
    "Engine": {"EngineVersion": "27.0", "Labels": {"e": "f"}}},
  "Status": {"State": "ready", "Addr": "192.0.2.1"},
  "ManagerStatus": {"Leader": true, "Reachability": "reachable", "Addr": "192.0.2.1:2377"}},
 {"ID": "k2", "Spec": {"Role": "worker", "Availability": "drain", "Labels": null},
  "Description": {"Hostname": "two", "Platform": {}, "Engine": {}},
  "Status": {"State": "down", "Addr": "192.0.2.2"}}
]"#;

const TASKS: &str = r#"[
 {"ID": "t1", "ServiceID": "s1", "NodeID": "k1", "Slot": 1, "DesiredState": "running",
  "Spec": {"ContainerSpec": {"Labels": {"c.l": "v"}}},
  "Status": {"State": "running", "ContainerStatus": {"ContainerID": "cc1", "PID": 4},
    "PortStatus": {"Ports": [{"Protocol": "tcp", "PublishedPort": 9100, "PublishMode": "host"},
                             {"Protocol": "udp", "PublishedPort": 9101, "PublishMode": "host"}]}},
  "NetworksAttachments": [{"Network": {"ID": "n1"}, "Addresses": ["10.1.0.7/24"]}]},
 {"ID": "t2", "ServiceID": "s2", "NodeID": "k2", "DesiredState": "shutdown",
  "Spec": {"ContainerSpec": {}}, "Status": {"State": "failed", "PortStatus": {}},
  "NetworksAttachments": [{"Network": {"ID": "n2"}, "Addresses": ["10.2.0.7/24", "10.2.0.8/24"]}]}
]"#;

async fn manager() -> Server {
    let answers = [
        ("/services", Reply::json(SERVICES)),
        ("/nodes", Reply::json(NODES)),
        ("/tasks", Reply::json(TASKS)),
        ("/networks", Reply::json(NETWORKS)),
    ];
    Server::of(&answers).await
}

#[tokio::test]
async fn a_swarm_is_listed_by_role() {
    let server = manager().await;
    for role in ["services", "nodes", "tasks"] {
        let found = swarm(&server, &format!("role: {role}, port: 90")).refresh().await.unwrap();
        insta::assert_snapshot!(format!("swarm_{role}"), shown_found(&found));
    }
}

#[tokio::test]
async fn an_address_that_is_none_fails_the_whole_look() {
    let services = SERVICES.replace("10.9.0.3/16", "10.9.0.3");
    let server =
        Server::of(&[("/services", Reply::json(services)), ("/networks", Reply::json(NETWORKS))])
            .await;
    let error = swarm(&server, "role: services").refresh().await.unwrap_err().to_string();
    assert!(error.contains("10.9.0.3"), "{error}");
}
