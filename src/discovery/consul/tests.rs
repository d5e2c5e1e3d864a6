//! A catalog that is followed, recorded in form, with data of our own.

use std::collections::HashMap;
use std::sync::Arc;

use parking_lot::Mutex;
use tokio::sync::watch;

use super::super::hub::Known;
use super::super::testing::{Reply, Request, Server, metrics, serve, shown, task};
use super::*;
use crate::config::SdConfig;
use crate::config::tests_support::sd_config;

/// What a fake agent knows: bodies by path, and the place of the newest change.
#[derive(Clone)]
struct Agent(Arc<Mutex<State>>);

struct State {
    bodies: HashMap<String, (u64, String)>,
    /// Paths that are not answered well.
    broken: Vec<String>,
}

const WEB: &str = r#"[
 {"Node": {"Node": "n1", "Address": "10.0.0.1", "Meta": {"a-b": "c"}, "TaggedAddresses": {"lan": "10.0.0.1", "wan": "192.0.2.1"}},
  "Service": {"ID": "web-1", "Service": "web", "Tags": ["x", "y"], "Address": "10.9.0.1", "Port": 80, "Meta": {"v": "1"}},
  "Checks": [{"CheckID": "serfHealth", "Status": "passing"}, {"CheckID": "service:web", "Status": "warning"}]},
 {"Node": {"Node": "n2", "Address": "10.0.0.2", "Meta": null, "TaggedAddresses": null},
  "Service": {"ID": "web-2", "Service": "web", "Tags": null, "Address": "", "Port": 81, "Namespace": "ns", "Partition": "p"},
  "Checks": [{"CheckID": "_service_maintenance:web-2", "Status": "critical"}]}
]"#;
const DB: &str = r#"[{"Node": {"Node": "n1", "Address": "fd00::1"},
  "Service": {"ID": "db", "Service": "db", "Port": 5432}, "Checks": []}]"#;

impl Agent {
    fn new() -> Self {
        let agent =
            Self(Arc::new(Mutex::new(State { bodies: HashMap::new(), broken: Vec::new() })));
        agent.tell("/v1/agent/self", 1, r#"{"Config": {"Datacenter": "dc1"}}"#);
        agent.tell("/v1/catalog/services", 5, r#"{"consul": [], "db": ["x"], "web": ["x", "y"]}"#);
        agent.tell("/v1/health/service/web", 6, WEB);
        agent.tell("/v1/health/service/db", 6, DB);
        agent.tell("/v1/health/service/consul", 6, "[]");
        agent
    }

    fn tell(&self, path: &str, index: u64, body: &str) {
        self.0.lock().bodies.insert(path.to_owned(), (index, body.to_owned()));
    }

    /// Like the real one, except that a question which would wait is never answered.
    fn answer(&self, request: &Request) -> Reply {
        let (path, query) = request.target.split_once('?').unwrap_or((&request.target, ""));
        let state = self.0.lock();
        if state.broken.iter().any(|broken| broken == path) {
            return Reply::status(500);
        }
        let Some((index, body)) = state.bodies.get(path) else { return Reply::status(404) };
        let waits = query.split('&').any(|pair| pair == format!("index={index}"));
        if waits {
            return Reply::Silence;
        }
        let headers = vec![("x-consul-index", index.to_string())];
        Reply::Whole(200, headers, body.clone().into_bytes())
    }
}

async fn follow(
    agent: &Agent,
    keys: &str,
) -> (Server, watch::Receiver<Known>, tokio::task::JoinHandle<()>) {
    let answering = agent.clone();
    let server = Server::start(move |request| answering.answer(request)).await;
    let keys = format!(
        "consul_sd_configs: [{{server: '{}', refresh_interval: 1ms{keys}}}]",
        server.address
    );
    let SdConfig::Consul(config) = sd_config(&keys) else { panic!("consul is expected") };
    let (_, metrics) = metrics();
    let (task, known) = task(&metrics);
    let consul = Consul::new(&config, &metrics).unwrap();
    (server, known, tokio::spawn(consul.run(task)))
}

async fn until(known: &mut watch::Receiver<Known>, addresses: &[&str]) {
    let wanted: Vec<String> = addresses.iter().map(ToString::to_string).collect();
    let found = |known: &Known| {
        let targets = known.groups.iter().flat_map(|group| &group.targets);
        let found: Vec<_> = targets.filter_map(|target| target.get(ADDRESS)).collect();
        known.has_looked && found == wanted
    };
    known.wait_for(found).await.unwrap();
}

#[tokio::test]
async fn all_services_are_followed_and_shown_at_once() {
    let agent = Agent::new();
    let (server, mut known, running) = follow(&agent, ", token: tok").await;
    known.changed().await.unwrap();
    insta::assert_snapshot!(shown(&known.borrow_and_update().groups));
    assert_eq!(server.requests.lock()[0].headers["x-consul-token"], "tok");
    running.abort();
    let asked = server.targets();
    assert!(asked.contains(&"/v1/catalog/services?stale=".to_owned()), "{asked:?}");
    assert!(asked.contains(&"/v1/health/service/web?stale=".to_owned()), "{asked:?}");
}

#[tokio::test]
async fn a_socket_file_is_spoken_to() {
    let path = std::env::temp_dir().join(format!("stint-consul-{}.sock", std::process::id()));
    let _ = std::fs::remove_file(&path);
    let listener = tokio::net::UnixListener::bind(&path).unwrap();
    let agent = Agent::new();
    agent.tell("/p/v1/catalog/services", 5, r#"{"db": []}"#);
    agent.tell("/p/v1/health/service/db", 6, DB);
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            let agent = agent.clone();
            let answer = move |request: &Request| agent.answer(request);
            tokio::spawn(serve(stream, Arc::default(), Arc::new(answer)));
        }
    });
    let keys = format!(
        "consul_sd_configs: [{{server: 'unix://{}', datacenter: d, path_prefix: p}}]",
        path.display()
    );
    let SdConfig::Consul(config) = sd_config(&keys) else { panic!("consul is expected") };
    let (_, metrics) = metrics();
    let (task, mut known) = task(&metrics);
    let running = tokio::spawn(Consul::new(&config, &metrics).unwrap().run(task));
    until(&mut known, &["[fd00::1]:5432"]).await;
    running.abort();
    std::fs::remove_file(&path).unwrap();
}

#[tokio::test]
async fn changes_are_asked_for_from_where_the_last_answer_was() {
    let agent = Agent::new();
    agent.tell("/v1/catalog/services", 5, r#"{"db": [], "web": []}"#);
    let (server, mut known, running) = follow(&agent, "").await;
    until(&mut known, &["[fd00::1]:5432", "10.9.0.1:80", "10.0.0.2:81"]).await;
    let waiting = |path: &str| format!("{path}?stale=&index=6&wait=120s");
    while !server.targets().contains(&waiting("/v1/health/service/web")) {
        tokio::task::yield_now().await;
    }
    running.abort();
}

#[tokio::test]
async fn services_come_and_go_and_errors_keep_what_is_known() {
    let agent = Agent::new();
    agent.tell("/v1/catalog/services", 0, r#"{"db": []}"#);
    agent.tell("/v1/health/service/db", 0, DB);
    let (_server, mut known, running) = follow(&agent, "").await;
    until(&mut known, &["[fd00::1]:5432"]).await;
    agent.tell("/v1/catalog/services", 0, r#"{"web": null}"#);
    until(&mut known, &["10.9.0.1:80", "10.0.0.2:81"]).await;
    agent.0.lock().broken.push("/v1/health/service/web".to_owned());
    agent.tell("/v1/catalog/services", 0, r#"{"db": [], "web": []}"#);
    until(&mut known, &["[fd00::1]:5432", "10.9.0.1:80", "10.0.0.2:81"]).await;
    running.abort();
}

#[tokio::test]
async fn what_is_not_wanted_is_not_followed() {
    let agent = Agent::new();
    for (keys, followed) in [
        (
            ", tags: [x]",
            vec!["/v1/health/service/db?stale=&tag=x", "/v1/health/service/web?stale=&tag=x"],
        ),
        (", tags: [x, y], services: [web, db]", vec!["/v1/health/service/web?stale=&tag=x&tag=y"]),
        (
            ", services: [db], allow_stale: false, datacenter: d, namespace: n, node_meta: {k: v}",
            vec!["/v1/health/service/db?dc=d&ns=n&node-meta=k%3Av"],
        ),
        (", filter: 'a == \"b\"', services: [consul]", vec!["/v1/health/service/consul?stale="]),
        (
            ", health_filter: 'Service.Meta.a == b', services: [db]",
            vec!["/v1/health/service/db?stale=&filter=Service.Meta.a+%3D%3D+b"],
        ),
        (", services: ['a/b?c']", vec!["/v1/health/service/a%2Fb%3Fc?stale="]),
    ] {
        let (server, mut known, running) = follow(&agent, keys).await;
        known.changed().await.unwrap();
        running.abort();
        let mut asked = server.targets();
        asked.retain(|target| target.starts_with("/v1/health/") && !target.contains("index="));
        asked.sort();
        asked.dedup();
        assert_eq!(asked, followed, "{keys}");
        if keys.starts_with(", filter") {
            let catalog = "/v1/catalog/services?stale=&filter=a+%3D%3D+%22b%22".to_owned();
            assert!(server.targets().contains(&catalog), "{:?}", server.targets());
        }
    }
}

#[test]
fn the_worst_check_tells_how_it_is() {
    let of = |checks: &[(&str, &str)]| {
        let check =
            |(id, status): &(&str, &str)| Check { id: (*id).into(), status: (*status).into() };
        health(&checks.iter().map(check).collect::<Vec<_>>())
    };
    assert_eq!(of(&[]), "passing");
    assert_eq!(of(&[("a", "passing"), ("b", "warning")]), "warning");
    assert_eq!(of(&[("a", "critical"), ("b", "warning")]), "critical");
    assert_eq!(of(&[("_node_maintenance", "critical")]), "maintenance");
    assert_eq!(of(&[("a", "odd")]), "");
}
