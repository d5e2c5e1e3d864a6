//! Pods: a target for each port of each container.

use stint_model::labels::LabelsBuilder;

use super::super::super::{ADDRESS, TargetGroup, host_port};
use super::super::objects::{Container, ContainerPort, Kind, Pod};
use super::{Make, group, set, set_meta};

impl Make<'_> {
    pub(super) fn pod(&self, pod: &Pod) -> TargetGroup {
        let mut labels = LabelsBuilder::default();
        let ip = &pod.status.pod_ip;
        // It is not there yet, or not any more.
        if ip.is_empty() {
            return group("pod", &pod.metadata, &labels, Vec::new());
        }
        self.set_pod(&mut labels, pod);
        set(&mut labels, "namespace", &pod.metadata.namespace);
        self.set_namespace(&mut labels, &pod.metadata.namespace);
        self.set_node(&mut labels, &pod.spec.node_name);
        let mut targets = Vec::new();
        for (is_init, container) in pod.spec.all_containers() {
            let status = &pod.status;
            let statuses =
                if is_init { &status.init_container_statuses } else { &status.container_statuses };
            let status = statuses.iter().find(|status| status.name == container.name);
            let id = status.map_or("", |status| status.id.as_str());
            let mut common = LabelsBuilder::default();
            set(&mut common, "pod_container_name", &container.name);
            set(&mut common, "pod_container_id", id);
            set(&mut common, "pod_container_image", &container.image);
            set(&mut common, "pod_container_init", &is_init.to_string());
            if container.ports.is_empty() {
                common.set(ADDRESS, ip);
                targets.push(common.build());
            }
            for port in &container.ports {
                let mut target = common.build().to_builder();
                target.set(ADDRESS, &host_port(ip, port.number));
                set_port(&mut target, port, &port.protocol);
                targets.push(target.build());
            }
        }
        group("pod", &pod.metadata, &labels, targets)
    }

    /// What is said of a pod wherever it stands.
    pub(super) fn set_pod(&self, labels: &mut LabelsBuilder, pod: &Pod) {
        let (meta, status) = (&pod.metadata, &pod.status);
        let ready = status.conditions.iter().find(|condition| condition.kind == "Ready");
        let ready = ready.map_or("unknown".to_owned(), |ready| ready.status.to_lowercase());
        for (name, value) in [
            ("pod_ip", &*status.pod_ip),
            ("pod_ready", &ready),
            ("pod_phase", &status.phase),
            ("pod_node_name", &pod.spec.node_name),
            ("pod_host_ip", &status.host_ip),
            ("pod_uid", &meta.uid),
        ] {
            set(labels, name, value);
        }
        set_meta(labels, "pod", meta);
        let Some(owner) = meta.controller() else { return };
        set(labels, "pod_controller_kind", &owner.kind);
        set(labels, "pod_controller_name", &owner.name);
        // The name of what stands behind the owner, when it is of that kind.
        let behind = |kind: Kind, wanted: &str| {
            let owner = self.store.meta(kind, &meta.namespace, &owner.name)?.controller()?;
            (owner.kind == wanted).then(|| owner.name.clone())
        };
        let mut named = |name: &str, value: Option<String>| {
            set(labels, name, &value.unwrap_or_default());
        };
        match owner.kind.as_str() {
            "ReplicaSet" if self.attach.deployment => {
                named("pod_deployment_name", behind(Kind::ReplicaSet, "Deployment"));
            }
            "Job" => {
                if self.attach.job {
                    named("pod_job_name", Some(owner.name.clone()));
                }
                if self.attach.cronjob {
                    named("pod_cronjob_name", behind(Kind::Job, "CronJob"));
                }
            }
            _ => {}
        }
    }

    /// What is said of a container's port where it stands behind a service.
    pub(super) fn set_container(
        labels: &mut LabelsBuilder,
        (is_init, container): (bool, &Container),
        port: &ContainerPort,
        protocol: &str,
    ) {
        set(labels, "pod_container_name", &container.name);
        set(labels, "pod_container_image", &container.image);
        set(labels, "pod_container_init", &is_init.to_string());
        set_port(labels, port, protocol);
    }
}

fn set_port(labels: &mut LabelsBuilder, port: &ContainerPort, protocol: &str) {
    set(labels, "pod_container_port_name", &port.name);
    set(labels, "pod_container_port_number", &port.number.to_string());
    set(labels, "pod_container_port_protocol", protocol);
}
