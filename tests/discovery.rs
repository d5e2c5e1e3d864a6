//! A real Prometheus and the server ask the same fake servers, and find the same targets with the same labels.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::process::Command;
use std::time::Duration;

use axum::Router;
use axum::extract::Form;
use axum::http::header::CONTENT_TYPE;
use axum::response::IntoResponse;
use axum::routing::{any, get};
use serde_json::Value as Json;

use crate::peers::prometheus_3;
use crate::process::{Running, free_address};
use crate::support::TestDir;

const LIST: &str = r#"[{"targets": ["a:1", "b:2"], "labels": {"zone": "x", "__meta_k": "v"}}, {"targets": ["c:3"]}]"#;

const CONTAINERS: &str = r#"[
 {"Id": "c1", "Names": ["/web"],
  "Ports": [{"IP": "0.0.0.0", "PrivatePort": 80, "PublicPort": 8080, "Type": "tcp"},
            {"PrivatePort": 81, "Type": "tcp"}, {"PrivatePort": 53, "Type": "udp"}],
  "Labels": {"com.docker.compose.service": "web"}, "HostConfig": {"NetworkMode": "back"},
  "NetworkSettings": {"Networks": {"front": {"NetworkID": "n2", "IPAddress": "10.2.0.2"},
                                   "back": {"NetworkID": "n1", "IPAddress": "10.1.0.2"}}}},
 {"Id": "c2", "Names": ["/side"], "HostConfig": {"NetworkMode": "container:c1"}, "NetworkSettings": {"Networks": {}}},
 {"Id": "c3", "Names": ["/host"], "HostConfig": {"NetworkMode": "host"},
  "NetworkSettings": {"Networks": {"host": {"NetworkID": "n3", "IPAddress": ""}}}}
]"#;

const NETWORKS: &str = r#"[
 {"Id": "n1", "Name": "back", "Scope": "local", "Internal": true, "Labels": {"a.b": "c"}},
 {"Id": "n2", "Name": "front", "Scope": "swarm", "Ingress": true}, {"Id": "n3", "Name": "host", "Scope": "local"}
]"#;

const SERVICES: &str = r#"[{"ID": "s1", "Spec": {"Name": "web", "Labels": {"team.x": "a"}, "Mode": {"Replicated": {"Replicas": 2}},
   "TaskTemplate": {"ContainerSpec": {"Image": "web:1", "Hostname": "h"}}}, "UpdateStatus": {"State": "completed"},
  "Endpoint": {"Ports": [{"Name": "m", "Protocol": "tcp", "TargetPort": 80, "PublishedPort": 8080, "PublishMode": "ingress"}],
   "VirtualIPs": [{"NetworkID": "n2", "Addr": "10.2.0.9/24"}]}}]"#;

const NODES: &str = r#"[{"ID": "k1", "Spec": {"Role": "manager", "Availability": "active", "Labels": {"zone": "a"}},
  "Description": {"Hostname": "one", "Platform": {"Architecture": "x86_64", "OS": "linux"}, "Engine": {"EngineVersion": "27.0"}},
  "Status": {"State": "ready", "Addr": "192.0.2.1"}, "ManagerStatus": {"Leader": true, "Reachability": "reachable", "Addr": "192.0.2.1:2377"}}]"#;

const TASKS: &str = r#"[{"ID": "t1", "ServiceID": "s1", "NodeID": "k1", "Slot": 1, "DesiredState": "running",
  "Spec": {"ContainerSpec": {"Labels": {"c.l": "v"}}},
  "Status": {"State": "running", "ContainerStatus": {"ContainerID": "cc1"},
    "PortStatus": {"Ports": [{"Protocol": "tcp", "PublishedPort": 9100, "PublishMode": "host"}]}},
  "NetworksAttachments": [{"Network": {"ID": "n1"}, "Addresses": ["10.1.0.7/24"]}]}]"#;

const MACHINES: &str = r"<R><reservationSet><item><ownerId>1</ownerId><instancesSet><item><instanceId>i-1</instanceId>
 <imageId>ami-1</imageId><instanceState><code>16</code><name>running</name></instanceState><privateDnsName>p</privateDnsName>
 <dnsName>d</dnsName><instanceType>t4g.small</instanceType><placement><availabilityZone>xx-1a</availabilityZone></placement>
 <privateIpAddress>10.0.0.1</privateIpAddress><ipAddress>192.0.2.1</ipAddress><architecture>arm64</architecture>
 <vpcId>vpc-1</vpcId><subnetId>subnet-a</subnetId><tagSet><item><key>team:x</key><value>a &amp; b</value></item></tagSet>
 <networkInterfaceSet><item><subnetId>subnet-b</subnetId></item><item><subnetId>subnet-a</subnetId></item></networkInterfaceSet>
</item></instancesSet></item></reservationSet></R>";

const ZONES: &str = "<R><availabilityZoneInfo><item><zoneName>xx-1a</zoneName><zoneId>xx-az3</zoneId></item></availabilityZoneInfo></R>";

/// Lists of a Kubernetes API server.
const OBJECTS: [(&str, &str); 7] = [
    ("/api/v1/nodes", include_str!("kubernetes/nodes.json")),
    ("/api/v1/pods", include_str!("kubernetes/pods.json")),
    ("/api/v1/services", include_str!("kubernetes/services.json")),
    ("/api/v1/endpoints", include_str!("kubernetes/endpoints.json")),
    ("/api/v1/namespaces", include_str!("kubernetes/namespaces.json")),
    ("/apis/discovery.k8s.io/v1/endpointslices", include_str!("kubernetes/endpointslices.json")),
    ("/apis/networking.k8s.io/v1/ingresses", include_str!("kubernetes/ingresses.json")),
];

/// What Prometheus 3.14 says of nodes and the reference does not yet.
const NEW_OF_NODES: &str = "__meta_kubernetes_node_condition_";

fn json(text: &'static str) -> impl IntoResponse + Clone {
    ([(CONTENT_TYPE, "application/json")], text)
}

/// A list, a Docker daemon that manages a swarm, and EC2.
async fn fake() -> SocketAddr {
    let xml = |text: &'static str| ([(CONTENT_TYPE, "text/xml")], text);
    let ec2 = async move |Form(form): Form<BTreeMap<String, String>>| match form["Action"].as_str()
    {
        "DescribeInstances" => xml(MACHINES),
        _ => xml(ZONES),
    };
    let router = Router::new()
        .route("/_ping", any(|| async { ([("api-version", "1.41")], "OK") }))
        .route("/list", get(|| async { json(LIST) }))
        .route("/", axum::routing::post(ec2));
    let daemon = |prefix: &str, router: Router| {
        [
            ("containers/json", CONTAINERS),
            ("networks", NETWORKS),
            ("services", SERVICES),
            ("nodes", NODES),
            ("tasks", TASKS),
        ]
        .into_iter()
        .fold(router, |router, (path, body)| {
            router.route(&format!("{prefix}/{path}"), get(move || async move { json(body) }))
        })
    };
    let router = daemon("/{version}", daemon("", router));
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move { axum::serve(listener, router).await });
    address
}

/// A Kubernetes API server in which nothing happens.
async fn fake_cluster() -> SocketAddr {
    use axum::body::{Body, Bytes};
    let list = async |text: &'static str, query: &str| {
        if !query.contains("watch=") {
            return json(text).into_response();
        }
        if query.contains("sendInitialEvents=") {
            // As a server that is too old for it.
            let status = r#"{"kind": "Status", "apiVersion": "v1", "status": "Failure", "reason": "Invalid", "code": 422}"#;
            return (axum::http::StatusCode::UNPROCESSABLE_ENTITY, json(status)).into_response();
        }
        let nothing = futures_util::stream::pending::<Result<Bytes, std::io::Error>>();
        ([(CONTENT_TYPE, "application/json")], Body::from_stream(nothing)).into_response()
    };
    let router = OBJECTS.into_iter().fold(Router::new(), |router, (path, text)| {
        let answer = move |query: axum::extract::RawQuery| async move {
            list(text, &query.0.unwrap_or_default()).await
        };
        router.route(path, get(answer))
    });
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move { axum::serve(listener, router).await });
    address
}

/// By job the targets, each with its address and what discovery says of it.
async fn targets(address: &str) -> BTreeMap<String, Vec<String>> {
    let url = format!("http://{address}/api/v1/targets?state=active");
    let Ok(answer) = reqwest::get(url).await else { return BTreeMap::new() };
    let answer: Json = serde_json::from_str(&answer.text().await.unwrap()).unwrap_or_default();
    let mut found: BTreeMap<String, Vec<String>> = BTreeMap::new();
    for target in answer["data"]["activeTargets"].as_array().into_iter().flatten() {
        let labels: BTreeMap<&String, &Json> =
            target["discoveredLabels"].as_object().unwrap().iter().collect();
        let told =
            |name: &str| name.starts_with("__meta_") || name == "__address__" || name == "zone";
        // Newer than the reference.
        let new = |name: &str| {
            name.starts_with("__meta_docker_container_image") || name.starts_with(NEW_OF_NODES)
        };
        let labels: BTreeMap<_, _> =
            labels.into_iter().filter(|(name, _)| told(name) && !new(name)).collect();
        let job = target["scrapePool"].as_str().unwrap().to_owned();
        found.entry(job).or_default().push(serde_json::to_string(&labels).unwrap());
    }
    for targets in found.values_mut() {
        targets.sort();
    }
    found
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_real_prometheus_finds_the_same_targets() {
    let Some(prometheus) = prometheus_3() else {
        eprintln!("skipped: prometheus 3 is not installed");
        return;
    };
    let folder = TestDir::new();
    let server = fake().await;
    let swarm = |role: &str| {
        format!(
            "- job_name: {role}\n  dockerswarm_sd_configs: [{{host: 'tcp://{server}', role: {role}, port: 90}}]\n"
        )
    };
    let config = format!(
        "scrape_configs:\n\
         - job_name: http\n  http_sd_configs: [{{url: 'http://{server}/list'}}]\n\
         - job_name: docker\n  docker_sd_configs: [{{host: 'tcp://{server}', port: 9}}]\n\
         - job_name: all\n  docker_sd_configs: [{{host: 'http://{server}', match_first_network: false, port: 9}}]\n\
         - job_name: ec2\n  ec2_sd_configs: [{{region: xx-1, endpoint: 'http://{server}', access_key: a, secret_key: b}}]\n\
         {}{}{}",
        swarm("services"),
        swarm("nodes"),
        swarm("tasks"),
    );
    let file = folder.path().join("prometheus.yml");
    std::fs::write(&file, config).unwrap();
    find_the_same(&prometheus, &folder, &file, 7).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_real_prometheus_finds_the_same_objects_of_kubernetes() {
    let Some(prometheus) = prometheus_3() else {
        eprintln!("skipped: prometheus 3 is not installed");
        return;
    };
    let folder = TestDir::new();
    let server = fake_cluster().await;
    let mut config = "scrape_configs:\n".to_owned();
    let mut jobs = 0;
    for role in ["node", "pod", "service", "endpoints", "endpointslice", "ingress"] {
        for attach in ["{}", "{node: true}"] {
            let job = format!(
                "- job_name: '{role} {attach}'\n  kubernetes_sd_configs: [{{role: {role}, api_server: 'http://{server}', attach_metadata: {attach}}}]\n"
            );
            config.push_str(&job);
            jobs += 1;
        }
    }
    let file = folder.path().join("prometheus.yml");
    std::fs::write(&file, config).unwrap();
    find_the_same(&prometheus, &folder, &file, jobs).await;
}

/// Both find the same targets of so many jobs, as `file` says.
async fn find_the_same(
    prometheus: &std::path::Path,
    folder: &TestDir,
    file: &std::path::Path,
    jobs: usize,
) {
    let start = |binary: &std::path::Path, name: &str| {
        let address = free_address();
        let running = Running::start(
            Command::new(binary)
                .arg(format!("--config.file={}", file.display()))
                .arg(format!("--storage.tsdb.path={}", folder.path().join(name).display()))
                .arg(format!("--web.listen-address={address}")),
        );
        (address, running)
    };
    let (theirs_at, _theirs) = start(prometheus, "theirs");
    let (ours_at, _ours) = start(std::path::Path::new(env!("CARGO_BIN_EXE_stint")), "ours");
    let (mut theirs, mut ours) = (BTreeMap::new(), BTreeMap::new());
    for _ in 0..300 {
        (theirs, ours) = (targets(&theirs_at).await, targets(&ours_at).await);
        if theirs.len() == jobs && theirs == ours {
            break;
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    assert_eq!(theirs.len(), jobs, "{theirs:#?}");
    assert_eq!(ours, theirs);
}
