//! Getting a target's body: the seam that tests replace, and HTTP.

use std::future::Future;
use std::pin::Pin;

use reqwest::Method;
use reqwest::header::{ACCEPT, ACCEPT_ENCODING, CONTENT_TYPE};
use stint_wire::exposition::{Protocol, accept_header};

use super::target::Target;
use crate::config::ScrapeConfig;
use crate::http::{Client, ClientError, explain};
use crate::metrics::PROMETHEUS_VERSION;

/// What a target answered.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fetched {
    /// The `Content-Type` header; empty when there is none.
    pub content_type: String,
    /// The body, uncompressed.
    pub body: Vec<u8>,
}

/// Why there is no body.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum FetchError {
    /// The body is as long as the limit or longer.
    #[error("body size limit exceeded")]
    BodyTooLarge,
    /// The answer is not 200.
    #[error("server returned HTTP status {0}")]
    Status(String),
    /// The timeout passed.
    #[error("Get \"{0}\": context deadline exceeded")]
    Timeout(String),
    /// Anything else.
    #[error("{0}")]
    Failed(String),
}

/// A fetch under way.
pub type FetchFuture<'a> = Pin<Box<dyn Future<Output = Result<Fetched, FetchError>> + Send + 'a>>;

/// Gets bodies. The caller enforces the timeout by dropping the future.
pub trait Fetcher: Send + Sync {
    /// Asks `target` for its metrics. `size_hint` is the length of its previous body.
    fn fetch<'a>(&'a self, target: &'a Target, size_hint: usize) -> FetchFuture<'a>;
}

/// Fetches over HTTP as a job says.
#[derive(Debug)]
pub struct HttpFetcher {
    client: Client,
    accept: String,
    accept_native: String,
    compress: bool,
    body_size_limit: usize,
}

impl HttpFetcher {
    /// A fetcher for the targets of `config`.
    ///
    /// # Errors
    /// A certificate cannot be read or a proxy is not usable.
    pub fn new(config: &ScrapeConfig) -> Result<Self, ClientError> {
        let client = Client::new(&config.http, &format!("Prometheus/{PROMETHEUS_VERSION}"))?;
        let escaping = config.escaping_name();
        let accept = |protocols: &[Protocol]| {
            accept_header(protocols)
                .replace("escaping=allow-utf-8", &format!("escaping={escaping}"))
        };
        let chosen = config.scrape_protocols.clone();
        let plain = chosen.clone().unwrap_or_else(|| Protocol::DEFAULT.to_vec());
        let native = chosen.unwrap_or_else(|| Protocol::ALL.to_vec());
        Ok(Self {
            client,
            accept: accept(&plain),
            accept_native: accept(&native),
            compress: config.enable_compression,
            body_size_limit: usize::try_from(config.limits.body_size).unwrap_or(usize::MAX),
        })
    }

    async fn get(&self, target: &Target, size_hint: usize) -> Result<Fetched, FetchError> {
        let failed = |error: &dyn std::error::Error| {
            FetchError::Failed(format!("Get \"{}\": {}", target.url, explain(error)))
        };
        let request = self.client.request(Method::GET, &target.url).await;
        let accept = if target.native_histograms { &self.accept_native } else { &self.accept };
        let request = request
            .map_err(|error| failed(&error))?
            .header(ACCEPT, accept)
            .header(ACCEPT_ENCODING, if self.compress { "gzip" } else { "identity" })
            .header(
                "X-Prometheus-Scrape-Timeout-Seconds",
                target.timeout.as_secs_f64().to_string(),
            );
        let mut response = request.send().await.map_err(|error| failed(&error.without_url()))?;
        if response.status() != reqwest::StatusCode::OK {
            return Err(FetchError::Status(response.status().to_string()));
        }
        let header = response.headers().get(CONTENT_TYPE);
        let content_type =
            header.and_then(|value| value.to_str().ok()).unwrap_or_default().to_owned();
        let mut body = Vec::with_capacity(size_hint.min(64 << 20));
        while let Some(chunk) =
            response.chunk().await.map_err(|error| failed(&error.without_url()))?
        {
            body.extend_from_slice(&chunk);
            if self.body_size_limit > 0 && body.len() >= self.body_size_limit {
                return Err(FetchError::BodyTooLarge);
            }
        }
        Ok(Fetched { content_type, body })
    }
}

impl Fetcher for HttpFetcher {
    fn fetch<'a>(&'a self, target: &'a Target, size_hint: usize) -> FetchFuture<'a> {
        Box::pin(self.get(target, size_hint))
    }
}
