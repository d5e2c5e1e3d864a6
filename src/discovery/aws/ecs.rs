//! The tasks of ECS.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use futures_util::stream::{self, StreamExt as _, TryStreamExt as _};
use serde::Deserialize;
use serde_json::{Value as Json, json};
use stint_model::labels::LabelsBuilder;
use stint_model::{Clock, Labels};

use super::super::refresh::{Discoverer, Found};
use super::super::{ADDRESS, DiscoveryError, TargetGroup, host_port, or_default, sanitised};
use super::credentials::Environment;
use super::xml::Element;
use super::{Caller, PAGES_MAX, Session};
use crate::config::EcsDiscovery;
use crate::http::ClientError;

const PREFIX: &str = "__meta_ecs_";
/// How many things are described by one answer, by kind.
const CLUSTERS: usize = 100;
const SERVICES: usize = 10;
const TASKS: usize = 100;
const CONTAINER_INSTANCES: usize = 100;
/// How many machines or interfaces are asked for at once at EC2.
const MACHINES: usize = 200;

/// The tasks of clusters.
pub(in super::super) struct Ecs {
    caller: Caller,
    config: EcsDiscovery,
}

impl Ecs {
    pub(in super::super) fn new(
        config: &EcsDiscovery,
        clock: Arc<dyn Clock>,
        environment: Environment,
    ) -> Result<Self, ClientError> {
        Ok(Self { caller: Caller::new(&config.aws, clock, environment)?, config: config.clone() })
    }
}

impl Discoverer for Ecs {
    async fn refresh(&mut self) -> Result<Found, DiscoveryError> {
        let session = self.caller.session().await?;
        let look = Look {
            session: &session,
            at_once: self.config.request_concurrency,
            port: self.config.aws.port,
        };
        let clusters = if self.config.clusters.is_empty() {
            look.list("ListClusters", "clusterArns", &json!({})).await?
        } else {
            self.config.clusters.clone()
        };
        let with_tags = json!({"include": ["TAGS"]});
        let described = look.describe::<Cluster>(
            "DescribeClusters",
            ("clusters", "clusters"),
            &with_tags,
            &clusters,
            CLUSTERS,
        );
        let mut found = Found::default();
        for cluster in described.await? {
            let source = cluster.arn.clone();
            // What cannot be asked of one cluster does not cost the others their targets.
            match look.cluster(&cluster).await {
                Ok(targets) => {
                    let labels = Labels::default();
                    found.groups.push(TargetGroup { source, targets, labels });
                }
                Err(error) => found.unknown.push((source, error)),
            }
        }
        Ok(found)
    }
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Tag {
    #[serde(deserialize_with = "or_default")]
    key: String,
    #[serde(deserialize_with = "or_default")]
    value: String,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Cluster {
    #[serde(rename = "clusterArn")]
    arn: String,
    #[serde(rename = "clusterName", default, deserialize_with = "or_default")]
    name: String,
    #[serde(default, deserialize_with = "or_default")]
    tags: Vec<Tag>,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Service {
    #[serde(rename = "serviceName", default, deserialize_with = "or_default")]
    name: String,
    #[serde(rename = "serviceArn", default, deserialize_with = "or_default")]
    arn: String,
    #[serde(default, deserialize_with = "or_default")]
    status: String,
    #[serde(default, deserialize_with = "or_default")]
    tags: Vec<Tag>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct Task {
    #[serde(deserialize_with = "or_default")]
    group: String,
    #[serde(rename = "taskArn", deserialize_with = "or_default")]
    arn: String,
    #[serde(rename = "taskDefinitionArn", deserialize_with = "or_default")]
    definition: String,
    #[serde(deserialize_with = "or_default")]
    launch_type: String,
    #[serde(deserialize_with = "or_default")]
    availability_zone: String,
    #[serde(deserialize_with = "or_default")]
    desired_status: String,
    #[serde(deserialize_with = "or_default")]
    last_status: String,
    #[serde(deserialize_with = "or_default")]
    health_status: String,
    #[serde(deserialize_with = "or_default")]
    platform_family: String,
    #[serde(deserialize_with = "or_default")]
    platform_version: String,
    #[serde(deserialize_with = "or_default")]
    container_instance_arn: String,
    #[serde(deserialize_with = "or_default")]
    attachments: Vec<Attachment>,
    #[serde(deserialize_with = "or_default")]
    tags: Vec<Tag>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Attachment {
    #[serde(rename = "type", deserialize_with = "or_default")]
    kind: String,
    #[serde(deserialize_with = "or_default")]
    details: Vec<Detail>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Detail {
    #[serde(deserialize_with = "or_default")]
    name: String,
    #[serde(deserialize_with = "or_default")]
    value: String,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
struct ContainerInstance {
    container_instance_arn: String,
    #[serde(default, deserialize_with = "or_default")]
    ec2_instance_id: String,
}

impl Task {
    /// A property of the network interface that is the task's own, when it has one.
    fn interface(&self, name: &str) -> Option<&str> {
        let own = self.attachments.iter().find(|found| found.kind == "ElasticNetworkInterface")?;
        let detail = own.details.iter().find(|detail| detail.name == name);
        Some(detail.map_or("", |detail| &detail.value))
    }

    /// The name of the service that has started it; a task may be nobody's.
    fn service(&self) -> Option<&str> {
        self.group.strip_prefix("service:")
    }
}

/// A machine of EC2, as far as it concerns its tasks.
#[derive(Debug, Default)]
struct Machine {
    kind: String,
    private: String,
    public: String,
    subnet: String,
    tags: Vec<(String, String)>,
}

impl Machine {
    fn of(instance: &Element) -> Self {
        let text = |name| instance.text(&[name]).unwrap_or_default().to_owned();
        let tag = |tag: &Element| {
            let key = tag.text(&["key"])?.to_owned();
            Some((key, tag.text(&["value"]).unwrap_or_default().to_owned()))
        };
        Self {
            kind: text("instanceType"),
            private: text("privateIpAddress"),
            public: text("ipAddress"),
            subnet: text("subnetId"),
            tags: instance.items("tagSet").filter_map(tag).collect(),
        }
    }
}

/// What a cluster's tasks refer to.
struct Around<'a> {
    region: &'a str,
    port: u16,
    cluster: &'a Cluster,
    /// By name.
    services: BTreeMap<String, Service>,
    /// Machines' identifiers by container instance.
    hosts: BTreeMap<String, String>,
    machines: BTreeMap<String, Machine>,
    /// Public addresses by network interface.
    public: BTreeMap<String, String>,
}

struct Look<'a> {
    session: &'a Session<'a>,
    /// How many questions are asked at once.
    at_once: usize,
    port: u16,
}

impl Look<'_> {
    /// All names that `action` lists under `key`, page after page.
    async fn list(
        &self,
        action: &str,
        key: &str,
        question: &Json,
    ) -> Result<Vec<String>, DiscoveryError> {
        let mut names = Vec::new();
        let mut question = question.clone();
        for _ in 0..PAGES_MAX {
            let page: Json = self.session.ecs(action, &question).await?;
            let listed = page.get(key).and_then(Json::as_array);
            let listed = listed.into_iter().flatten().filter_map(Json::as_str);
            names.extend(listed.map(str::to_owned));
            match page.get("nextToken").and_then(Json::as_str) {
                Some(next) if !next.is_empty() => question["nextToken"] = json!(next),
                _ => return Ok(names),
            }
        }
        Err(DiscoveryError(format!("{action}: more than {PAGES_MAX} pages")))
    }

    /// What `action` tells of `names`, so many at a time; the keys are those of question and
    /// answer.
    async fn describe<T: serde::de::DeserializeOwned + Send>(
        &self,
        action: &str,
        (asked, told): (&str, &str),
        question: &Json,
        names: &[String],
        at_a_time: usize,
    ) -> Result<Vec<T>, DiscoveryError> {
        let questions: Vec<Json> = names
            .chunks(at_a_time)
            .map(|names| {
                let mut question = question.clone();
                question[asked] = json!(names);
                question
            })
            .collect();
        let answers = stream::iter(questions).map(async |question: Json| {
            let mut answer: Json = self.session.ecs(action, &question).await?;
            let told = answer.get_mut(told).map(Json::take).unwrap_or_default();
            Option::<Vec<T>>::deserialize(told)
                .map(Option::unwrap_or_default)
                .map_err(|error| DiscoveryError(format!("{action}: {error}")))
        });
        let all: Vec<Vec<T>> = answers.buffered(self.at_once).try_collect().await?;
        Ok(all.into_iter().flatten().collect())
    }

    /// The targets of one cluster.
    async fn cluster(&self, cluster: &Cluster) -> Result<Vec<Labels>, DiscoveryError> {
        let of = json!({"cluster": cluster.arn});
        let tasks = self.list("ListTasks", "taskArns", &of).await?;
        if tasks.is_empty() {
            return Ok(Vec::new());
        }
        let with_tags = json!({"cluster": cluster.arn, "include": ["TAGS"]});
        let keys = ("tasks", "tasks");
        let tasks: Vec<Task> =
            self.describe("DescribeTasks", keys, &with_tags, &tasks, TASKS).await?;
        let services = self.list("ListServices", "serviceArns", &of).await?;
        let keys = ("services", "services");
        let services: Vec<Service> =
            self.describe("DescribeServices", keys, &with_tags, &services, SERVICES).await?;
        let hosts = self.hosts(cluster, &tasks).await?;
        let ids: BTreeSet<String> = hosts.values().cloned().collect();
        let around = Around {
            region: &self.session.region,
            port: self.port,
            cluster,
            services: services.into_iter().map(|s| (s.name.clone(), s)).collect(),
            machines: self.machines(&ids.into_iter().collect::<Vec<_>>()).await?,
            hosts,
            public: self.public_addresses(&tasks).await?,
        };
        Ok(tasks.iter().filter_map(|task| around.target(task)).collect())
    }

    /// On which machine each container instance of `tasks` is.
    async fn hosts(
        &self,
        cluster: &Cluster,
        tasks: &[Task],
    ) -> Result<BTreeMap<String, String>, DiscoveryError> {
        let arns: BTreeSet<&String> =
            tasks.iter().map(|task| &task.container_instance_arn).collect();
        let arns: Vec<String> = arns.into_iter().filter(|arn| !arn.is_empty()).cloned().collect();
        let described: Vec<ContainerInstance> = self
            .describe(
                "DescribeContainerInstances",
                ("containerInstances", "containerInstances"),
                &json!({"cluster": cluster.arn}),
                &arns,
                CONTAINER_INSTANCES,
            )
            .await?;
        Ok(described
            .into_iter()
            .map(|found| (found.container_instance_arn, found.ec2_instance_id))
            .collect())
    }

    async fn machines(&self, ids: &[String]) -> Result<BTreeMap<String, Machine>, DiscoveryError> {
        let mut machines = BTreeMap::new();
        for ids in ids.chunks(MACHINES) {
            let fields = numbered("InstanceId", ids);
            let asked = self.session.ec2("DescribeInstances", &fields, |page| {
                let reservations = page.items("reservationSet");
                for instance in reservations.flat_map(|found| found.items("instancesSet")) {
                    if let Some(id) = instance.text(&["instanceId"]) {
                        machines.insert(id.to_owned(), Machine::of(instance));
                    }
                }
            });
            asked.await?;
        }
        Ok(machines)
    }

    async fn public_addresses(
        &self,
        tasks: &[Task],
    ) -> Result<BTreeMap<String, String>, DiscoveryError> {
        let ids = tasks.iter().filter_map(|task| task.interface("networkInterfaceId"));
        let ids: Vec<String> = ids.filter(|id| !id.is_empty()).map(str::to_owned).collect();
        let mut public = BTreeMap::new();
        for ids in ids.chunks(MACHINES) {
            let fields = numbered("NetworkInterfaceId", ids);
            let asked = self.session.ec2("DescribeNetworkInterfaces", &fields, |page| {
                for interface in page.items("networkInterfaceSet") {
                    let id = interface.text(&["networkInterfaceId"]);
                    let address = interface.text(&["association", "publicIp"]);
                    if let (Some(id), Some(address)) = (id, address) {
                        public.insert(id.to_owned(), address.to_owned());
                    }
                }
            });
            asked.await?;
        }
        Ok(public)
    }
}

fn numbered(name: &str, values: &[String]) -> Vec<(String, String)> {
    (1..).zip(values).map(|(at, value)| (format!("{name}.{at}"), value.clone())).collect()
}

impl Around<'_> {
    /// The target that `task` is, unless it has no address (yet).
    fn target(&self, task: &Task) -> Option<Labels> {
        let host = self.hosts.get(&task.container_instance_arn).map_or("", String::as_str);
        let none = Machine::default();
        let machine = self.machines.get(host).unwrap_or(&none);
        let own = task.interface("privateIPv4Address");
        let (mode, address, subnet, public) = match own {
            Some(address) => {
                let id = task.interface("networkInterfaceId").unwrap_or_default();
                let public = self.public.get(id).map_or("", String::as_str);
                ("awsvpc", address, task.interface("subnetId").unwrap_or_default(), public)
            }
            None => ("bridge", &*machine.private, &*machine.subnet, &*machine.public),
        };
        if address.is_empty() {
            return None;
        }
        let mut labels = LabelsBuilder::default();
        labels.set(ADDRESS, &host_port(address, self.port));
        for (name, value) in [
            ("cluster_arn", &*self.cluster.arn),
            ("cluster", &self.cluster.name),
            ("task_group", &task.group),
            ("task_arn", &task.arn),
            ("task_definition", &task.definition),
            ("ip_address", address),
            ("region", self.region),
            ("launch_type", &task.launch_type),
            ("availability_zone", &task.availability_zone),
            ("desired_status", &task.desired_status),
            ("last_status", &task.last_status),
            ("health_status", &task.health_status),
            ("network_mode", mode),
            ("subnet_id", subnet),
            ("container_instance_arn", &task.container_instance_arn),
            ("ec2_instance_id", host),
            ("ec2_instance_type", &machine.kind),
            ("ec2_instance_private_ip", &machine.private),
            ("ec2_instance_public_ip", &machine.public),
            ("public_ip", public),
            ("platform_family", &task.platform_family),
            ("platform_version", &task.platform_version),
        ] {
            labels.set(&format!("{PREFIX}{name}"), value);
        }
        set_tags(&mut labels, "cluster", &self.cluster.tags);
        if let Some(service) = task.service().and_then(|name| self.services.get(name)) {
            labels.set(&format!("{PREFIX}service"), &service.name);
            labels.set(&format!("{PREFIX}service_arn"), &service.arn);
            labels.set(&format!("{PREFIX}service_status"), &service.status);
            set_tags(&mut labels, "service", &service.tags);
        }
        set_tags(&mut labels, "task", &task.tags);
        for (key, value) in &machine.tags {
            labels.set(&format!("{PREFIX}tag_ec2_{}", sanitised(key)), value);
        }
        Some(labels.build())
    }
}

fn set_tags(labels: &mut LabelsBuilder, of: &str, tags: &[Tag]) {
    for tag in tags {
        labels.set(&format!("{PREFIX}tag_{of}_{}", sanitised(&tag.key)), &tag.value);
    }
}
