//! `ec2_sd_configs` and `aws_sd_configs`: machines and tasks of AWS.

use std::sync::Arc;
use std::time::Duration;

use reqwest::{Method, Url};
use serde::de::DeserializeOwned;
use serde_json::Value as Json;
use stint_model::Clock;

use super::DiscoveryError;
use super::answer::{self, Answer};
use crate::config::Aws;
use crate::http::{Client, ClientError};
use crate::metrics::PROMETHEUS_VERSION;
use credentials::Credentials;
use sign::Unsigned;
use xml::Element;

mod credentials;
mod ec2;
mod ecs;
mod keys;
mod sign;
mod xml;

pub(super) use credentials::Environment;
pub(super) use ec2::Ec2;
pub(super) use ecs::Ecs;

/// When a question is given up.
const TIMEOUT: Duration = Duration::from_secs(30);
/// The most pages of one list.
const PAGES_MAX: usize = 1000;
/// The version of EC2's interface.
const EC2_VERSION: &str = "2016-11-15";

fn user_agent() -> String {
    format!("Prometheus/{PROMETHEUS_VERSION}")
}

/// Where AWS serves `service` in `region`.
fn place(service: &str, region: &str) -> String {
    let domain = if region.starts_with("cn-") { "amazonaws.com.cn" } else { "amazonaws.com" };
    format!("https://{service}.{region}.{domain}/")
}

/// The fields of a form.
fn form(fields: &[(&str, &str)]) -> String {
    let url = Url::parse_with_params("http://x/", fields);
    url.as_ref().ok().and_then(Url::query).unwrap_or_default().to_owned()
}

async fn post(
    client: &Client,
    url: &Url,
    headers: Vec<(&'static str, String)>,
    body: String,
    timeout: Duration,
) -> Result<Answer, DiscoveryError> {
    let request = client.request(Method::POST, url.as_str()).await;
    let mut request = request.map_err(|error| DiscoveryError(error.to_string()))?;
    for (name, value) in headers {
        request = request.header(name, value);
    }
    answer::get(request.body(body), url.as_str(), timeout).await
}

/// What asks AWS.
struct Caller {
    client: Client,
    credentials: Credentials,
    clock: Arc<dyn Clock>,
    /// Instead of AWS' own places.
    endpoint: String,
}

/// A caller for one look: region and keys are known.
struct Session<'a> {
    caller: &'a Caller,
    region: String,
    keys: keys::Keys,
}

impl Caller {
    fn new(
        config: &Aws,
        clock: Arc<dyn Clock>,
        environment: Environment,
    ) -> Result<Self, ClientError> {
        Ok(Self {
            client: Client::posting(&config.http, &user_agent())?,
            credentials: Credentials::new(config, environment, Arc::clone(&clock))?,
            clock,
            endpoint: config.endpoint.clone(),
        })
    }

    async fn session(&mut self) -> Result<Session<'_>, DiscoveryError> {
        let region = self.credentials.region().await?;
        let keys = self.credentials.keys().await?;
        Ok(Session { caller: self, region, keys })
    }
}

impl Session<'_> {
    /// Asks EC2 for `action`, page after page, and hands each to `take`.
    async fn ec2(
        &self,
        action: &str,
        fields: &[(String, String)],
        mut take: impl FnMut(&Element) + Send,
    ) -> Result<(), DiscoveryError> {
        let mut next = None::<String>;
        for _ in 0..PAGES_MAX {
            let mut all = vec![("Action", action), ("Version", EC2_VERSION)];
            all.extend(fields.iter().map(|(key, value)| (key.as_str(), value.as_str())));
            if let Some(next) = &next {
                all.push(("NextToken", next));
            }
            let kind = "application/x-www-form-urlencoded; charset=utf-8".to_owned();
            let answer = self.ask("ec2", vec![("content-type", kind)], form(&all)).await?;
            if answer.status != reqwest::StatusCode::OK {
                let problem = answer.text().and_then(Element::read).ok();
                let part =
                    |name| problem.as_ref().and_then(|root| root.text(&["Errors", "Error", name]));
                return Err(match (part("Code"), part("Message")) {
                    (Some(code), Some(text)) => DiscoveryError(format!("{action}: {code}: {text}")),
                    _ => DiscoveryError(format!("{action}: HTTP status {}", answer.status)),
                });
            }
            let page = Element::read(answer.text()?)?;
            take(&page);
            next = page.text(&["nextToken"]).map(str::to_owned);
            if next.is_none() {
                return Ok(());
            }
        }
        Err(DiscoveryError(format!("{action}: more than {PAGES_MAX} pages")))
    }

    /// Asks ECS once.
    async fn ecs<T: DeserializeOwned>(
        &self,
        action: &str,
        question: &Json,
    ) -> Result<T, DiscoveryError> {
        let headers = vec![
            ("content-type", "application/x-amz-json-1.1".to_owned()),
            ("x-amz-target", format!("AmazonEC2ContainerServiceV20141113.{action}")),
        ];
        let answer = self.ask("ecs", headers, question.to_string()).await?;
        answer.json(action)
    }

    async fn ask(
        &self,
        service: &str,
        headers: Vec<(&'static str, String)>,
        body: String,
    ) -> Result<Answer, DiscoveryError> {
        let caller = self.caller;
        let place = match &*caller.endpoint {
            "" => place(service, &self.region),
            endpoint => endpoint.to_owned(),
        };
        let url = Url::parse(&place)
            .map_err(|error| DiscoveryError(format!("{place} is not a URL: {error}")))?;
        let bytes = body.as_bytes();
        let unsigned = Unsigned { url: &url, region: &self.region, service, headers, body: bytes };
        let headers = unsigned.sign(&self.keys, caller.clock.now().0)?;
        post(&caller.client, &url, headers, body, TIMEOUT).await
    }
}

#[cfg(test)]
mod tests;
