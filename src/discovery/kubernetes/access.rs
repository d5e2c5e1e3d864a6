//! The way to the API server.

use std::path::Path;

use super::super::{DiscoveryError, host_port};
use super::Environment;
use super::watch::Api;
use crate::config::{
    Auth, Credential, HttpConfig, KubeAccess, KubeServer, KubernetesDiscovery, read_kubeconfig,
};
use crate::http::Client;
use crate::metrics::PROMETHEUS_VERSION;

/// Where the files of the service account lie in every pod.
pub(super) const ACCOUNT: &str = "/var/run/secrets/kubernetes.io/serviceaccount";

/// The longest file that is read, in bytes.
const FILE_BYTES_MAX: u64 = 1 << 20;

/// A way to the API server.
pub(super) struct Access {
    pub(super) api: Api,
    /// The namespace of the pod that this runs in, when it is asked for.
    pub(super) own_namespace: Option<String>,
}

/// The way that `config` names; `account` is the folder of the service account.
pub(super) async fn find(
    config: &KubernetesDiscovery,
    environment: &Environment,
    account: &Path,
) -> Result<Access, DiscoveryError> {
    let access = match &config.server {
        KubeServer::Url(url) => KubeAccess { url: url.clone(), http: config.http.clone() },
        KubeServer::File(path) => {
            let text = read(path).await?;
            read_kubeconfig(path, &text).map_err(|errors| DiscoveryError(errors.to_string()))?
        }
        KubeServer::InCluster => in_cluster(environment, account).await?,
    };
    let own_namespace = if config.own_namespace {
        let path = account.join("namespace");
        let namespace = read(&path).await?.trim().to_owned();
        if namespace.is_empty() {
            return Err(DiscoveryError(format!("{} names no namespace", path.display())));
        }
        Some(namespace)
    } else {
        None
    };
    // It reads certificates.
    let KubeAccess { url, http } = access;
    let made = tokio::task::spawn_blocking(move || {
        Client::new(&http, &format!("Prometheus/{PROMETHEUS_VERSION}"))
    });
    let client = match made.await {
        Ok(Ok(client)) => client,
        Ok(Err(error)) => return Err(DiscoveryError(error.to_string())),
        Err(error) => return Err(DiscoveryError(error.to_string())),
    };
    Ok(Access { api: Api::new(client, &url)?, own_namespace })
}

/// What a pod is told by its environment and its service account.
async fn in_cluster(
    environment: &Environment,
    account: &Path,
) -> Result<KubeAccess, DiscoveryError> {
    let variable = |name: &str| environment(name).filter(|value| !value.is_empty());
    let host = variable("KUBERNETES_SERVICE_HOST");
    let port = variable("KUBERNETES_SERVICE_PORT").and_then(|port| port.parse().ok());
    let (Some(host), Some(port)) = (host, port) else {
        return Err(DiscoveryError(
            "not in a cluster: KUBERNETES_SERVICE_HOST and KUBERNETES_SERVICE_PORT are not set; set \
             `api_server` or `kubeconfig_file`"
                .to_owned(),
        ));
    };
    let token = account.join("token");
    // Told now rather than at each request.
    read(&token).await?;
    let credentials = Credential::File(token);
    let mut http = HttpConfig {
        auth: Auth::Scheme { scheme: "Bearer".to_owned(), credentials },
        ..HttpConfig::default()
    };
    http.tls.ca = Some(Credential::File(account.join("ca.crt")));
    Ok(KubeAccess { url: format!("https://{}", host_port(&host, port)), http })
}

async fn read(path: &Path) -> Result<String, DiscoveryError> {
    let failed = |error: &dyn std::fmt::Display| {
        DiscoveryError(format!("cannot read {}: {error}", path.display()))
    };
    let size = tokio::fs::metadata(path).await.map_err(|error| failed(&error))?.len();
    if size > FILE_BYTES_MAX {
        return Err(failed(&format_args!("{size} bytes are too many")));
    }
    tokio::fs::read_to_string(path).await.map_err(|error| failed(&error))
}
