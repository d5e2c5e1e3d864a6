//! Against an API server that answers from files, and whose lists change as a test wants.

use std::collections::{BTreeMap, VecDeque};
use std::path::Path;
use std::sync::Arc;

use parking_lot::Mutex;
use proptest::prelude::*;
use serde_json::{Value as Json, json};
use tokio::sync::watch::Receiver;
use tokio::task::JoinHandle;

use super::objects::Object;
use super::watch::Change;
use super::*;
use crate::config::SdConfig;
use crate::config::tests_support::sd_config;
use crate::discovery::ADDRESS;
use crate::discovery::hub::Known;
use crate::discovery::testing::{Reply, Request, Server, metrics, shown, task};
use crate::metrics::Metrics;

const LISTS: [(&str, &str); 9] = [
    ("/api/v1/nodes", include_str!("../../../tests/kubernetes/nodes.json")),
    ("/api/v1/pods", include_str!("../../../tests/kubernetes/pods.json")),
    ("/api/v1/services", include_str!("../../../tests/kubernetes/services.json")),
    ("/api/v1/endpoints", include_str!("../../../tests/kubernetes/endpoints.json")),
    (
        "/apis/discovery.k8s.io/v1/endpointslices",
        include_str!("../../../tests/kubernetes/endpointslices.json"),
    ),
    (
        "/apis/networking.k8s.io/v1/ingresses",
        include_str!("../../../tests/kubernetes/ingresses.json"),
    ),
    ("/api/v1/namespaces", include_str!("../../../tests/kubernetes/namespaces.json")),
    ("/apis/apps/v1/replicasets", include_str!("../../../tests/kubernetes/replicasets.json")),
    ("/apis/batch/v1/jobs", include_str!("../../../tests/kubernetes/jobs.json")),
];

/// An API server that says for each path and kind of question what it is told to, in turn, and then goes on with
/// what its files say, or waits.
#[derive(Clone, Default)]
struct Cluster(Arc<Mutex<BTreeMap<String, VecDeque<Reply>>>>);

impl Cluster {
    /// The next answers to lists of `path`, or to `watch=` and `path`.
    fn tell(&self, place: &str, replies: impl IntoIterator<Item = Reply>) {
        self.0.lock().entry(place.to_owned()).or_default().extend(replies);
    }

    fn answer(&self, request: &Request) -> Reply {
        let (path, query) = request.target.split_once('?').unwrap_or((&request.target, ""));
        let is_watch = query.split('&').any(|pair| pair == "watch=true");
        let place = if is_watch { format!("watch={path}") } else { path.to_owned() };
        if let Some(reply) = self.0.lock().get_mut(&place).and_then(VecDeque::pop_front) {
            return reply;
        }
        if is_watch {
            return Reply::Open(String::new());
        }
        let list = LISTS.iter().find(|(list, _)| *list == path);
        list.map_or_else(|| Reply::status(404), |(_, text)| Reply::json(*text))
    }
}

struct Following {
    server: Server,
    known: Receiver<Known>,
    registry: Metrics,
    running: JoinHandle<()>,
}

impl Drop for Following {
    fn drop(&mut self) {
        self.running.abort();
    }
}

impl Following {
    async fn start(cluster: &Cluster, keys: &str) -> Self {
        let cluster = cluster.clone();
        let server = Server::start(move |request| cluster.answer(request)).await;
        let url = server.url();
        let keys = format!("kubernetes_sd_configs: [{{api_server: '{url}', {keys}}}]");
        Self::with(server, &keys, Arc::new(|_| None), access::ACCOUNT.as_ref())
    }

    fn with(server: Server, keys: &str, environment: Environment, account: &Path) -> Self {
        let SdConfig::Kubernetes(config) = sd_config(keys) else {
            panic!("kubernetes is expected")
        };
        let (registry, metrics) = metrics();
        let (task, known) = task(&metrics);
        let mut kubernetes = Kubernetes::new(&config, environment, &metrics);
        account.clone_into(&mut kubernetes.account);
        let running = tokio::spawn(kubernetes.run(task));
        Self { server, known, registry, running }
    }

    /// Waits until the targets have these addresses.
    async fn until(&mut self, addresses: &[&str]) {
        let found = |known: &Known| {
            let targets = known.groups.iter().flat_map(|group| &group.targets);
            let found: Vec<_> = targets.filter_map(|target| target.get(ADDRESS)).collect();
            known.has_looked && found == addresses
        };
        self.known.wait_for(found).await.unwrap();
    }

    /// Waits until somebody asked for `part`.
    async fn asked(&self, part: &str) {
        while !self.server.targets().iter().any(|target| target.contains(part)) {
            tokio::task::yield_now().await;
        }
    }

    async fn shown(&mut self) -> String {
        self.known.wait_for(|known| !known.groups.is_empty()).await.unwrap();
        shown(&self.known.borrow().groups)
    }
}

const ATTACH: &str =
    "attach_metadata: {node: true, namespace: true, deployment: true, job: true, cronjob: true}";

#[tokio::test]
async fn targets_of_each_role_have_their_labels() {
    for (role, attach) in [
        ("node", ""),
        ("pod", ""),
        ("pod", ATTACH),
        ("service", ATTACH),
        ("endpoints", ATTACH),
        ("endpointslice", ATTACH),
        ("ingress", ATTACH),
    ] {
        let mut following =
            Following::start(&Cluster::default(), &format!("role: {role}, {attach}")).await;
        let name = if attach.is_empty() { role.to_owned() } else { format!("{role}_attached") };
        insta::assert_snapshot!(name, following.shown().await);
    }
}

#[tokio::test]
async fn slices_of_the_second_family_have_no_targets() {
    let cluster = Cluster::default();
    let service = |families: Json| {
        let spec = json!({"ipFamilyPolicy": "PreferDualStack", "ipFamilies": families});
        let item = json!({"metadata": {"name": "web", "namespace": "shop"}, "spec": spec});
        Reply::json(json!({"metadata": {"resourceVersion": "1"}, "items": [item]}).to_string())
    };
    cluster.tell("/api/v1/services", [service(json!(["IPv6", "IPv4"]))]);
    Following::start(&cluster, "role: endpointslice").await.until(&["a.example.org"]).await;
    cluster.tell("/api/v1/services", [service(json!(["IPv4", "IPv6"]))]);
    let mut following = Following::start(&cluster, "role: endpointslice").await;
    let web = ["10.1.0.1:8080", "10.0.0.1:8080", "10.1.0.1:9090", "10.1.0.1:15000"];
    following.until(&[&["a.example.org"], &web[..]].concat()).await;
}

fn pod(name: &str, address: &str, version: u64) -> Json {
    json!({
        "metadata": {"name": name, "namespace": "n", "resourceVersion": version.to_string()},
        "spec": {"containers": [{"name": "c"}]},
        "status": {"podIP": address},
    })
}

fn pods(version: u64, next: &str, pods: &[Json]) -> Reply {
    let metadata = json!({"resourceVersion": version.to_string(), "continue": next});
    Reply::json(json!({"metadata": metadata, "items": pods}).to_string())
}

fn changes(changes: &[(&str, Json)]) -> String {
    let line =
        |(kind, object): &(&str, Json)| format!("{}\n", json!({"type": kind, "object": object}));
    changes.iter().map(line).collect()
}

const PODS: &str = "/api/v1/pods";
const WATCHED: &str = "watch=/api/v1/pods";

#[tokio::test]
async fn changes_are_followed_from_where_the_list_and_the_last_change_were() {
    let cluster = Cluster::default();
    cluster.tell(PODS, [pods(5, "", &[pod("a", "1.1.1.1", 1), pod("b", "1.1.1.2", 2)])]);
    let bookmark = json!({"metadata": {"resourceVersion": "9"}});
    let told = changes(&[
        ("ADDED", pod("c", "1.1.1.3", 6)),
        ("MODIFIED", pod("a", "1.1.1.4", 7)),
        ("DELETED", pod("b", "1.1.1.2", 8)),
        ("BOOKMARK", bookmark),
    ]);
    cluster
        .tell(WATCHED, [Reply::json(told), Reply::Open(changes(&[("DELETED", pod("c", "", 10))]))]);
    let mut following = Following::start(&cluster, "role: pod").await;
    following.until(&["1.1.1.4"]).await;
    following
        .asked("watch=true&allowWatchBookmarks=true&resourceVersion=5&timeoutSeconds=120")
        .await;
    following.asked("resourceVersion=9&").await;
    let text = following.registry.render();
    for (event, count) in [("add", 3), ("update", 1), ("delete", 2)] {
        let series = format!(
            "prometheus_sd_kubernetes_events_total{{event=\"{event}\",role=\"pod\"}} {count}\n"
        );
        assert!(text.contains(&series), "{series}{text}");
    }
    assert!(text.contains("prometheus_sd_kubernetes_failures_total 0\n"), "{text}");
}

#[tokio::test]
async fn what_the_server_has_forgotten_is_listed_again() {
    let gone = json!({"kind": "Status", "metadata": {}, "status": "Failure", "reason": "Expired",
        "message": "too old resource version", "code": 410});
    for forgotten in [Reply::status(410), Reply::json(changes(&[("ERROR", gone)]))] {
        let cluster = Cluster::default();
        cluster.tell(
            PODS,
            [
                pods(5, "", &[pod("a", "1.1.1.1", 1), pod("b", "1.1.1.2", 2)]),
                pods(20, "", &[pod("b", "1.1.1.9", 19)]),
            ],
        );
        cluster.tell(WATCHED, [forgotten]);
        let mut following = Following::start(&cluster, "role: pod").await;
        following.until(&["1.1.1.1", "1.1.1.2"]).await;
        following.until(&["1.1.1.9"]).await;
        following.asked("resourceVersion=20&").await;
        let text = following.registry.render();
        assert!(text.contains("prometheus_sd_kubernetes_failures_total 0\n"), "{text}");
    }
}

#[tokio::test]
async fn failures_are_told_and_keep_what_is_known() {
    let error = json!({"message": "etcd is gone", "code": 500});
    let cluster = Cluster::default();
    cluster.tell(PODS, [Reply::status(403), pods(5, "", &[pod("a", "1.1.1.1", 1)])]);
    cluster.tell(
        WATCHED,
        [
            Reply::status(500),
            Reply::json("no JSON\n"),
            Reply::json(changes(&[("ERROR", error)])),
            Reply::Open(changes(&[("ADDED", pod("b", "1.1.1.2", 6))])),
        ],
    );
    tokio::time::pause();
    let mut following = Following::start(&cluster, "role: pod").await;
    following.known.wait_for(|known| known.has_looked).await.unwrap();
    assert!(following.known.borrow().groups.is_empty());
    following.until(&["1.1.1.1"]).await;
    following.until(&["1.1.1.1", "1.1.1.2"]).await;
    let text = following.registry.render();
    assert!(text.contains("prometheus_sd_kubernetes_failures_total 4\n"), "{text}");
    let failures = "prometheus_sd_refresh_failures_total{config=\"job\",mechanism=\"test\"} 4\n";
    assert!(text.contains(failures), "{text}");
}

#[tokio::test]
async fn long_lists_are_asked_for_page_by_page() {
    let cluster = Cluster::default();
    let (a, b, c) = (pod("a", "1.1.1.1", 1), pod("b", "1.1.1.2", 2), pod("c", "1.1.1.3", 3));
    cluster.tell(
        PODS,
        [pods(5, "x y", std::slice::from_ref(&a)), pods(5, "", std::slice::from_ref(&b))],
    );
    let mut following = Following::start(
        &cluster,
        "role: pod, selectors: [{role: pod, label: 'a in (b)', field: c=d}]",
    )
    .await;
    following.until(&["1.1.1.1", "1.1.1.2"]).await;
    let query = "labelSelector=a+in+%28b%29&fieldSelector=c%3Dd";
    assert_eq!(
        following.server.targets()[..2],
        [format!("{PODS}?{query}&limit=500"), format!("{PODS}?{query}&limit=500&continue=x+y")]
    );
    following.asked(&format!("?{query}&watch=true&")).await;
    // The second page comes too late: everything at once.
    let all = pods(6, "", &[a.clone(), b, c]);
    cluster.tell(PODS, [pods(5, "x", &[a]), Reply::status(410), all]);
    let mut following = Following::start(&cluster, "role: pod").await;
    following.until(&["1.1.1.1", "1.1.1.2", "1.1.1.3"]).await;
    assert_eq!(following.server.targets()[2], PODS);
}

#[tokio::test]
async fn only_the_namespaces_that_are_wanted_are_asked_for() {
    let cluster = Cluster::default();
    let path = |namespace: &str| format!("/api/v1/namespaces/{namespace}/pods");
    cluster.tell(&path("x"), [pods(1, "", &[pod("a", "1.1.1.1", 1)])]);
    cluster.tell(&path("y"), [pods(2, "", &[])]);
    let keys = "role: pod, namespaces: {names: [y, x, y]}, attach_metadata: {namespace: true}";
    let mut following = Following::start(&cluster, keys).await;
    following.until(&["1.1.1.1"]).await;
    let mut lists = following.server.targets();
    lists.retain(|target| !target.contains("watch"));
    lists.sort();
    assert_eq!(
        lists,
        ["/api/v1/namespaces/x/pods", "/api/v1/namespaces/y/pods", "/api/v1/namespaces"]
            .map(|path| format!("{path}?limit=500"))
    );
    let requests = following.server.requests.lock();
    let bare = requests.iter().find(|request| request.target.starts_with("/api/v1/namespaces?"));
    assert!(bare.unwrap().headers["accept"].contains("as=PartialObjectMetadataList;"));
}

#[tokio::test]
async fn a_file_tells_where_the_server_is_and_who_asks() {
    let folder = std::env::temp_dir().join(format!("stint-kubeconfig-{}", std::process::id()));
    std::fs::create_dir_all(&folder).unwrap();
    let file = folder.join("config");
    let cluster = Cluster::default();
    let server = Server::start(move |request| cluster.answer(request)).await;
    let text = format!(
        "current-context: c\ncontexts: [{{name: c, context: {{cluster: c, user: u}}}}]\n\
         clusters: [{{name: c, cluster: {{server: '{}/k8s/', proxy-url: ''}}}}]\n\
         users: [{{name: u, user: {{token: tok}}}}]\n",
        server.url()
    );
    std::fs::write(&file, text).unwrap();
    let keys =
        format!("kubernetes_sd_configs: [{{role: node, kubeconfig_file: {}}}]", file.display());
    let following = Following::with(server, &keys, Arc::new(|_| None), access::ACCOUNT.as_ref());
    following.asked("/k8s/api/v1/nodes?limit=500").await;
    let request = following.server.requests.lock()[0].clone();
    assert_eq!(request.headers["authorization"], "Bearer tok");
    std::fs::remove_dir_all(&folder).unwrap();
}

#[tokio::test]
async fn a_pod_knows_the_server_by_its_environment() {
    let folder = std::env::temp_dir().join(format!("stint-account-{}", std::process::id()));
    std::fs::create_dir_all(&folder).unwrap();
    let environment: Environment = Arc::new(|name| match name {
        "KUBERNETES_SERVICE_HOST" => Some("fd00::1".to_owned()),
        "KUBERNETES_SERVICE_PORT" => Some("443".to_owned()),
        _ => None,
    });
    let keys = "kubernetes_sd_configs: [{role: pod, namespaces: {own_namespace: true}}]";
    let SdConfig::Kubernetes(config) = sd_config(keys) else { panic!("kubernetes is expected") };
    let find = async |environment: &Environment| {
        let found = access::find(&config, environment, &folder).await;
        found.map_err(|error| error.to_string())
    };
    let nobody: Environment = Arc::new(|_| None);
    assert!(find(&nobody).await.err().unwrap().starts_with("not in a cluster"));
    assert!(find(&environment).await.err().unwrap().contains("/token: No such file"));
    std::fs::write(folder.join("token"), "secret").unwrap();
    std::fs::write(folder.join("namespace"), "mine\n").unwrap();
    assert!(find(&environment).await.err().unwrap().contains("/ca.crt"));
    let ca = include_str!("../../../tests/certificates/ca.crt");
    std::fs::write(folder.join("ca.crt"), ca).unwrap();
    let access = find(&environment).await.unwrap();
    assert_eq!(access.own_namespace.as_deref(), Some("mine"));
    let (_, metrics) = metrics();
    let resources = Kubernetes::new(&config, environment.clone(), &metrics).resources(&access);
    assert_eq!((resources.len(), &*resources[0].namespace), (1, "mine"));
    std::fs::remove_dir_all(&folder).unwrap();
}

#[tokio::test]
async fn a_password_in_the_address_is_not_told() {
    let SdConfig::Kubernetes(config) = sd_config(
        "kubernetes_sd_configs: [{role: pod, api_server: 'http://me:hunter2@127.0.0.1:1/'}]",
    ) else {
        panic!("kubernetes is expected");
    };
    let (_, metrics) = metrics();
    let (task, mut known) = task(&metrics);
    let running = tokio::spawn(Kubernetes::new(&config, Arc::new(|_| None), &metrics).run(task));
    known.wait_for(|known| known.has_looked).await.unwrap();
    running.abort();
    let access =
        access::find(&config, &(Arc::new(|_: &str| None) as Environment), Path::new("/")).await;
    let (sender, mut news) = mpsc::channel(1);
    let api = access.unwrap().api;
    let resource = Resource {
        kind: Kind::Pod,
        namespace: String::new(),
        label: String::new(),
        field: String::new(),
    };
    let told = tokio::select! {
        told = news.recv() => told,
        () = watch::follow(&api, resource, 0, sender) => None,
    };
    let Some((0, News::Failed(error))) = told else { panic!("a failure is expected") };
    let error = error.to_string();
    assert!(error.contains("127.0.0.1:1/api/v1/pods") && !error.contains("hunter2"), "{error}");
}

proptest! {
    /// Following changes and asking again come to the same, whatever happens in between.
    #[test]
    fn changes_and_lists_agree(
        steps in proptest::collection::vec(("[a-c]", "[x-z]", proptest::option::of(0..3_u8)), 0..24),
    ) {
        let read = |name: &str, namespace: &str, address: u8| {
            let mut object = pod(name, &format!("1.1.1.{address}"), 1);
            object["metadata"]["namespace"] = json!(namespace);
            Kind::Pod.read_change(json!({"object": object}).to_string().as_bytes()).unwrap()
        };
        let (_, metrics) = metrics();
        let resource = |namespace: &str| Resource {
            kind: Kind::Pod,
            namespace: namespace.to_owned(),
            label: String::new(),
            field: String::new(),
        };
        let resources: Vec<_> = ["x", "y", "z"].iter().map(|name| resource(name)).collect();
        let mut followed = Store::new(resources.clone(), metrics.kubernetes_events.clone());
        let mut model: BTreeMap<(String, String), Object> = BTreeMap::new();
        for (name, namespace, address) in steps {
            let at = resources.iter().position(|resource| resource.namespace == namespace).unwrap();
            let key = (namespace.clone(), name.clone());
            let before = model.get(&key).cloned();
            let change = if let Some(address) = address {
                let object = read(&name, &namespace, address);
                model.insert(key.clone(), object.clone());
                Change::There(object)
            } else {
                model.remove(&key);
                Change::Gone(read(&name, &namespace, 0))
            };
            let is_new = followed.change(at, vec![change]);
            prop_assert_eq!(is_new, before.as_ref() != model.get(&key));
        }
        let mut listed = Store::new(resources.clone(), metrics.kubernetes_events.clone());
        for (at, resource) in resources.iter().enumerate() {
            let own = model.iter().filter(|((namespace, _), _)| *namespace == resource.namespace);
            let own: Vec<Object> = own.map(|(_, object)| object.clone()).collect();
            // A list after the changes says nothing new, except that there is one.
            followed.list(at, own.clone());
            prop_assert!(!followed.list(at, own.clone()));
            listed.list(at, own);
        }
        prop_assert!(listed.is_complete());
        let SdConfig::Kubernetes(config) = sd_config("kubernetes_sd_configs: [{role: pod}]") else {
            panic!("kubernetes is expected");
        };
        let groups = targets::groups(&followed, &config);
        prop_assert_eq!(groups.len(), model.len());
        prop_assert_eq!(groups, targets::groups(&listed, &config));
    }
}
