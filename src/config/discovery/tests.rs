//! Mechanisms as they are read, and what is wrong with them.

use super::*;
use crate::config::tests_support::{config, mistakes, sd_config};

#[test]
fn every_mechanism_is_read_with_its_defaults() {
    let SdConfig::Http(http) = sd_config("http_sd_configs: [{url: 'https://h/x?y'}]") else {
        panic!("http is expected");
    };
    assert_eq!((&*http.url, http.refresh_interval), ("https://h/x?y", Span::MINUTE));
    let SdConfig::Dns(dns) = sd_config("dns_sd_configs: [{names: [a, b]}]") else {
        panic!("dns is expected");
    };
    assert_eq!((dns.kind, dns.port, dns.refresh_interval.0), (RecordKind::Srv, 0, 30_000));
    let SdConfig::Docker(docker) = sd_config("docker_sd_configs: [{host: 'unix:///a.sock'}]")
    else {
        panic!("docker is expected");
    };
    assert_eq!(docker.daemon.host, DockerHost::Unix("/a.sock".into()));
    assert_eq!((docker.port, &*docker.host_networking_host), (80, "localhost"));
    assert!(docker.match_first_network && docker.daemon.filters.is_empty());
    let SdConfig::Swarm(swarm) =
        sd_config("dockerswarm_sd_configs: [{host: 'tcp://a:1/', role: nodes, tls_config: {}}]")
    else {
        panic!("swarm is expected");
    };
    assert_eq!(swarm.daemon.host, DockerHost::Http("https://a:1".to_owned()));
    assert_eq!((swarm.role, swarm.port), (SwarmRole::Nodes, 80));
    let SdConfig::Consul(consul) = sd_config("consul_sd_configs: [{path_prefix: /p/, token: t}]")
    else {
        panic!("consul is expected");
    };
    assert_eq!(consul.url, "http://localhost:8500/p");
    assert!(consul.allow_stale && consul.services.is_empty());
    assert_eq!((&*consul.tag_separator, &*consul.http.headers[0].name), (",", "X-Consul-Token"));
    assert_eq!(consul.socket, None);
    let SdConfig::Kubernetes(kubernetes) = sd_config("kubernetes_sd_configs: [{role: pod}]") else {
        panic!("kubernetes is expected");
    };
    assert_eq!((kubernetes.role, kubernetes.server), (KubeRole::Pod, KubeServer::InCluster));
    assert!(kubernetes.namespaces.is_empty() && !kubernetes.own_namespace);
    let keys =
        "kubernetes_sd_configs: [{role: node, api_server: 'https://h/', tls_config: {ca_file: c}}]";
    let SdConfig::Kubernetes(kubernetes) = sd_config(keys) else {
        panic!("kubernetes is expected");
    };
    assert_eq!(kubernetes.server, KubeServer::Url("https://h".to_owned()));
    let SdConfig::Ec2(ec2) = sd_config("aws_sd_configs: [{role: ec2, endpoint: h:1}]") else {
        panic!("ec2 is expected");
    };
    assert_eq!((&*ec2.aws.endpoint, ec2.aws.port, ec2.aws.keys), ("https://h:1", 80, None));
    let SdConfig::Ecs(ecs) = sd_config("aws_sd_configs: [{role: ecs, clusters: [c]}]") else {
        panic!("ecs is expected");
    };
    assert_eq!((&*ecs.clusters[0], ecs.request_concurrency), ("c", 20));
}

#[test]
fn a_server_of_consul_may_be_a_url() {
    for (keys, url, socket) in [
        ("server: 'http://c:1'", "http://c:1", None),
        ("server: 'http://c:1', scheme: https", "https://c:1", None),
        ("server: 'https://c:1/a/b/'", "https://c:1/a/b", None),
        ("server: 'http://c:1/', path_prefix: p", "http://c:1/p", None),
        ("server: 'http://c:1/a', path_prefix: p", "http://c:1/a", None),
        ("server: '[::1]:1'", "http://[::1]:1", None),
        ("server: 'unix:///run/c.sock', path_prefix: p", "http://consul/p", Some("/run/c.sock")),
    ] {
        let SdConfig::Consul(consul) = sd_config(&format!("consul_sd_configs: [{{{keys}}}]"))
        else {
            panic!("consul is expected");
        };
        assert_eq!(consul.url, url, "{keys}");
        assert_eq!(consul.socket, socket.map(std::path::PathBuf::from), "{keys}");
    }
    for (server, told) in [
        ("ftp://c", "ftp:// is not supported; use http, https or unix"),
        ("unix://c.sock", "unix://c.sock is not host:port, a URL or unix:///PATH"),
        ("http://:1", "http://:1 is not host:port, a URL or unix:///PATH"),
    ] {
        let yaml = format!(
            "scrape_configs: [{{job_name: j, consul_sd_configs: [{{server: '{server}'}}]}}]"
        );
        let mistakes = mistakes(&yaml);
        assert!(mistakes.ends_with(told), "{mistakes}");
    }
}

#[test]
fn alertmanagers_take_the_same_mechanisms() {
    let keys = "http_sd_configs: [{url: 'http://h/'}], dns_sd_configs: [{names: [a]}]";
    let alerting = config(&format!("alerting: {{alertmanagers: [{{{keys}}}]}}")).alerting;
    let found: Vec<_> =
        alerting.alertmanagers[0].sd_configs.iter().map(SdConfig::mechanism).collect();
    assert_eq!(found, ["http", "dns"]);
}

#[test]
fn mistakes_are_told_with_their_place() {
    insta::assert_snapshot!(mistakes(
        "scrape_configs:
- job_name: j
  http_sd_configs:
  - refresh_interval: 5s
  - url: ftp://h/
  - url: /x
  - url: http:///x
  - {url: 'http://h/', basic_auth: {username: a}, bearer_token: x}
  dns_sd_configs:
  - type: SRV
  - {names: [a], type: TXT}
  - {names: [a], type: A}
  - {names: [a], type: A, port: 70000}
  docker_sd_configs:
  - port: 5
  - host: '::'
  dockerswarm_sd_configs:
  - host: tcp://a:1
  - {host: 'tcp://a:1', role: stacks}
  consul_sd_configs:
  - {server: '', scheme: ftp}
  - {username: a, basic_auth: {username: b}}
  - {token: t, authorization: {credentials: c}}
  ec2_sd_configs:
  - {access_key: a}
  - {filters: [{name: a}], external_id: x}
  - {bearer_token: x}
  aws_sd_configs:
  - region: r
  - role: rds
  - {role: s3, port: 1}
  - {role: ecs, filters: []}
  kubernetes_sd_configs:
  - {}
  - {role: cluster}
  - {role: pod, api_server: 'http://h', kubeconfig_file: k}
  - {role: pod, kubeconfig_file: k, bearer_token: x}
  - {role: pod, basic_auth: {username: u}}
  - {role: pod, api_server: 'http://h', namespaces: {own_namespace: true}}
  - {role: pod, kubeconfig_file: k, namespaces: {own_namespace: true}}
  - {role: pod, api_server: h}
  - role: pod
    selectors: [{role: pod}, {role: pod}, {role: service}, {label: a}, {role: node, label: 'a b'}, {role: x, field: y}]
  - {role: node, attach_metadata: {pod: true}}
  nomad_sd_configs: [{}]
  azure_sd_configs: []
"
    ));
}
