//! Who asks: keys of the configuration, the environment, a file, the container or the machine.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use reqwest::{Method, Url};
use stint_model::Clock;

use super::super::{DiscoveryError, answer};
use super::keys::{Keys, instant, offered, profile_keys};
use super::sign::Unsigned;
use super::xml::Element;
use crate::config::{Aws, HttpConfig, Secret};
use crate::http::{Client, ClientError};

/// Reads a variable of the environment.
pub(in super::super) type Environment = Arc<dyn Fn(&str) -> Option<String> + Send + Sync>;

/// Where a container of ECS asks.
const CONTAINER: &str = "http://169.254.170.2";
/// Where a machine of EC2 asks.
const MACHINE: &str = "http://169.254.169.254";
/// When the container or the machine is given up: it is near, or it is not there.
const NEAR_TIMEOUT: Duration = Duration::from_secs(2);
const STS_TIMEOUT: Duration = Duration::from_secs(30);
/// How long before their end keys count as over, in milliseconds.
const SPARE_MS: i64 = 5 * 60 * 1000;
/// The longest credentials file that is read, in bytes.
const FILE_MAX: u64 = 1 << 20;

/// Finds keys, and keeps them while they are good.
pub(super) struct Credentials {
    config: Aws,
    environment: Environment,
    clock: Arc<dyn Clock>,
    /// For container and machine, which are never behind a proxy.
    near: Client,
    /// For the security token service.
    far: Client,
    keys: Option<Keys>,
    region: Option<String>,
}

impl Credentials {
    pub(super) fn new(
        config: &Aws,
        environment: Environment,
        clock: Arc<dyn Clock>,
    ) -> Result<Self, ClientError> {
        let agent = super::user_agent();
        Ok(Self {
            near: Client::new(&HttpConfig::default(), &agent)?,
            far: Client::posting(&config.http, &agent)?,
            config: config.clone(),
            environment,
            clock,
            keys: None,
            region: None,
        })
    }

    fn variable(&self, name: &str) -> Option<String> {
        (self.environment)(name).filter(|value| !value.is_empty())
    }

    /// The region that is configured, or that of the environment or the machine.
    pub(super) async fn region(&mut self) -> Result<String, DiscoveryError> {
        let known = [&self.config.region, self.region.as_ref().unwrap_or(&self.config.region)];
        if let Some(region) = known.into_iter().find(|region| !region.is_empty()) {
            return Ok(region.clone());
        }
        let variable = self.variable("AWS_REGION").or_else(|| self.variable("AWS_DEFAULT_REGION"));
        let region = match variable {
            Some(region) => region,
            None => {
                self.ask_machine("latest/meta-data/placement/region").await.map_err(|error| {
                    DiscoveryError(format!(
                        "no region: set `region` or AWS_REGION; the machine was asked: {error}"
                    ))
                })?
            }
        };
        let region = region.trim().to_owned();
        self.region = Some(region.clone());
        Ok(region)
    }

    /// Keys that are good for some time.
    pub(super) async fn keys(&mut self) -> Result<Keys, DiscoveryError> {
        let now = self.clock.now().0;
        if let Some(keys) = &self.keys
            && keys.until.is_none_or(|until| now + SPARE_MS < until)
        {
            return Ok(keys.clone());
        }
        let mut keys = self.find().await?;
        if !self.config.role_arn.is_empty() {
            keys = self.assume(&keys).await?;
        }
        // What has no end may still be replaced in the environment's files: only what was asked
        // for over the network is kept.
        if keys.until.is_some() {
            self.keys = Some(keys.clone());
        }
        Ok(keys)
    }

    async fn find(&self) -> Result<Keys, DiscoveryError> {
        if let Some(keys) = &self.config.keys {
            let (access_key, secret_key) = (keys.access_key.clone(), keys.secret_key.clone());
            return Ok(Keys { access_key, secret_key, token: None, until: None });
        }
        let pair = (self.variable("AWS_ACCESS_KEY_ID"), self.variable("AWS_SECRET_ACCESS_KEY"));
        // A profile that is named wins.
        if self.config.profile.is_empty()
            && let (Some(access_key), Some(secret_key)) = pair
        {
            let token = self.variable("AWS_SESSION_TOKEN").map(Secret::new);
            return Ok(Keys {
                access_key,
                secret_key: Secret::new(secret_key),
                token,
                until: None,
            });
        }
        if let Some(keys) = self.file_keys().await? {
            return Ok(keys);
        }
        if let (Some(file), Some(role)) =
            (self.variable("AWS_WEB_IDENTITY_TOKEN_FILE"), self.variable("AWS_ROLE_ARN"))
        {
            return self.assume_with_identity(&file, &role).await;
        }
        if let Some(keys) = self.container_keys().await? {
            return Ok(keys);
        }
        self.machine_keys().await.map_err(|error| {
            DiscoveryError(format!(
                "no credentials: set access_key and secret_key, AWS_ACCESS_KEY_ID and \
                 AWS_SECRET_ACCESS_KEY, or a role of the task or the machine; the machine was \
                 asked: {error}"
            ))
        })
    }

    /// The keys of a profile in the shared credentials file.
    async fn file_keys(&self) -> Result<Option<Keys>, DiscoveryError> {
        let named = Some(&self.config.profile).filter(|profile| !profile.is_empty()).cloned();
        let named = named.or_else(|| self.variable("AWS_PROFILE"));
        let profile = named.clone().unwrap_or_else(|| "default".to_owned());
        let path = match self.variable("AWS_SHARED_CREDENTIALS_FILE") {
            Some(path) => Some(PathBuf::from(path)),
            None => self.variable("HOME").map(|home| PathBuf::from(home).join(".aws/credentials")),
        };
        let missing = |what: String| DiscoveryError(format!("the profile {profile:?} {what}"));
        let Some(path) = path else {
            return named.map_or(Ok(None), |_| Err(missing("has no credentials file".to_owned())));
        };
        let text = match read_bounded(&path).await {
            Ok(text) => text,
            Err(_) if named.is_none() => return Ok(None),
            Err(error) => {
                return Err(missing(format!("is looked for in {}: {error}", path.display())));
            }
        };
        match profile_keys(&text, &profile) {
            Some(keys) => Ok(Some(keys)),
            None if named.is_none() => Ok(None),
            None => Err(missing(format!("has no keys in {}", path.display()))),
        }
    }

    /// The keys that a task of ECS, or a pod of EKS, is given.
    async fn container_keys(&self) -> Result<Option<Keys>, DiscoveryError> {
        let relative = self.variable("AWS_CONTAINER_CREDENTIALS_RELATIVE_URI");
        let url = match relative {
            Some(path) => format!("{CONTAINER}{path}"),
            None => match self.variable("AWS_CONTAINER_CREDENTIALS_FULL_URI") {
                Some(url) => url,
                None => return Ok(None),
            },
        };
        let mut token = self.variable("AWS_CONTAINER_AUTHORIZATION_TOKEN");
        if let Some(file) = self.variable("AWS_CONTAINER_AUTHORIZATION_TOKEN_FILE") {
            let read = read_bounded(&file.clone().into()).await;
            let read = read.map_err(|error| DiscoveryError(format!("{file}: {error}")))?;
            token = Some(read.trim().to_owned());
        }
        let headers: Vec<_> = token.map(|token| ("authorization", token)).into_iter().collect();
        let text = self.ask(Method::GET, &url, &headers).await?;
        offered(&text, &url).map(Some)
    }

    async fn machine_keys(&self) -> Result<Keys, DiscoveryError> {
        let path = "latest/meta-data/iam/security-credentials/";
        let role = self.ask_machine(path).await?;
        let role = role.lines().next().unwrap_or_default().trim().to_owned();
        if role.is_empty() {
            return Err(DiscoveryError("the machine has no role".to_owned()));
        }
        let text = self.ask_machine(&format!("{path}{role}")).await?;
        offered(&text, "the machine")
    }

    async fn ask_machine(&self, path: &str) -> Result<String, DiscoveryError> {
        if self.variable("AWS_EC2_METADATA_DISABLED").is_some_and(|off| off == "true") {
            return Err(DiscoveryError("AWS_EC2_METADATA_DISABLED forbids it".to_owned()));
        }
        let base = self.variable("AWS_EC2_METADATA_SERVICE_ENDPOINT");
        let base = base.unwrap_or_else(|| MACHINE.to_owned());
        let base = base.trim_end_matches('/');
        let life = [("x-aws-ec2-metadata-token-ttl-seconds", "300".to_owned())];
        let token = self.ask(Method::PUT, &format!("{base}/latest/api/token"), &life).await?;
        let token = [("x-aws-ec2-metadata-token", token)];
        self.ask(Method::GET, &format!("{base}/{path}"), &token).await
    }

    async fn ask(
        &self,
        method: Method,
        url: &str,
        headers: &[(&str, String)],
    ) -> Result<String, DiscoveryError> {
        let request = self.near.request(method, url).await;
        let mut request = request.map_err(|error| DiscoveryError(error.to_string()))?;
        for (name, value) in headers {
            request = request.header(*name, value);
        }
        let answer = answer::get(request, url, NEAR_TIMEOUT).await?;
        answer.good(url)?;
        answer.text().map(str::to_owned)
    }

    /// The keys of the configured role, asked for with `keys`.
    async fn assume(&self, keys: &Keys) -> Result<Keys, DiscoveryError> {
        let mut form = vec![("Action", "AssumeRole"), ("RoleArn", &self.config.role_arn)];
        if !self.config.external_id.is_empty() {
            form.push(("ExternalId", &self.config.external_id));
        }
        self.ask_sts(form, Some(keys)).await
    }

    async fn assume_with_identity(&self, file: &str, role: &str) -> Result<Keys, DiscoveryError> {
        let token = read_bounded(&file.into()).await;
        let token = token.map_err(|error| DiscoveryError(format!("{file}: {error}")))?;
        let form = vec![
            ("Action", "AssumeRoleWithWebIdentity"),
            ("RoleArn", role),
            ("WebIdentityToken", token.trim()),
        ];
        self.ask_sts(form, None).await
    }

    async fn ask_sts(
        &self,
        mut form: Vec<(&str, &str)>,
        keys: Option<&Keys>,
    ) -> Result<Keys, DiscoveryError> {
        let name = self.variable("AWS_ROLE_SESSION_NAME").unwrap_or_else(|| "stint".to_owned());
        form.extend([("RoleSessionName", &*name), ("Version", "2011-06-15")]);
        let region = [Some(&self.config.region), self.region.as_ref()];
        let region = region.into_iter().flatten().find(|region| !region.is_empty());
        let region = region.cloned().unwrap_or_else(|| "us-east-1".to_owned());
        let place = self.variable("AWS_ENDPOINT_URL_STS");
        let place = place.unwrap_or_else(|| super::place("sts", &region));
        let url = Url::parse(&place)
            .map_err(|error| DiscoveryError(format!("{place} is not a URL: {error}")))?;
        let body = super::form(&form);
        let mut headers =
            vec![("content-type", "application/x-www-form-urlencoded; charset=utf-8".to_owned())];
        if let Some(keys) = keys {
            let body = body.as_bytes();
            let unsigned = Unsigned { url: &url, region: &region, service: "sts", headers, body };
            headers = unsigned.sign(keys, self.clock.now().0)?;
        }
        let answer = super::post(&self.far, &url, headers, body, STS_TIMEOUT).await?;
        answer.good("the security token service")?;
        let root = Element::read(answer.text()?)?;
        let found = ["AssumeRoleResult", "AssumeRoleWithWebIdentityResult"];
        let found = found.iter().find_map(|name| root.at(&[name, "Credentials"]));
        let keys = found.and_then(|found| {
            let text = |name| found.text(&[name]).map(str::to_owned);
            Some(Keys {
                access_key: text("AccessKeyId")?,
                secret_key: Secret::new(text("SecretAccessKey")?),
                token: text("SessionToken").map(Secret::new),
                until: Some(instant(&text("Expiration")?)?),
            })
        });
        keys.ok_or_else(|| {
            DiscoveryError("the security token service's answer holds no keys".to_owned())
        })
    }
}

async fn read_bounded(path: &PathBuf) -> Result<String, String> {
    let size = tokio::fs::metadata(path).await.map_err(|error| error.to_string())?.len();
    if size > FILE_MAX {
        return Err(format!("{size} bytes are too many"));
    }
    tokio::fs::read_to_string(path).await.map_err(|error| error.to_string())
}
