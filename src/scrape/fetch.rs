//! Getting a target's body: the seam that tests replace, and HTTP.

use std::collections::HashMap;
use std::future::Future;
use std::io::Read as _;
use std::pin::Pin;
use std::sync::Arc;

use parking_lot::Mutex;
use reqwest::Method;
use reqwest::header::{ACCEPT, ACCEPT_ENCODING, CONTENT_ENCODING, CONTENT_TYPE};
use stint_wire::exposition::{Protocol, accept_header};

use super::target::Target;
use crate::config::{HttpConfig, ScrapeConfig};
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

    /// Takes back the memory of a body that is not needed any more.
    fn keep(&self, _body: Vec<u8>) {}
}

/// Memory for bodies, of as many as are read at once.
#[derive(Debug, Default)]
pub struct SpareBodies(Mutex<Vec<Vec<u8>>>);

impl SpareBodies {
    /// Buffers that are kept.
    const KEPT_MAX: usize = 16;
    /// Bytes of the largest one that is kept.
    const BYTES_MAX: usize = 4 << 20;

    fn take(&self, bytes: usize) -> Vec<u8> {
        let mut body = self.0.lock().pop().unwrap_or_default();
        body.reserve(bytes);
        body
    }

    fn keep(&self, mut body: Vec<u8>) {
        body.clear();
        let mut kept = self.0.lock();
        if kept.len() < Self::KEPT_MAX && body.capacity() <= Self::BYTES_MAX {
            kept.push(body);
        }
    }
}

/// Clients by how they reach their targets. Jobs that do it alike share one: making a client reads
/// all certificates of the system, and keeps them.
#[derive(Debug, Default)]
pub struct Clients(Mutex<HashMap<HttpConfig, Client>>);

impl Clients {
    /// The client that follows `config`.
    ///
    /// # Errors
    /// A certificate cannot be read or a proxy is not usable.
    pub fn get(&self, config: &HttpConfig) -> Result<Client, ClientError> {
        let mut clients = self.0.lock();
        if let Some(client) = clients.get(config) {
            return Ok(client.clone());
        }
        clients.retain(|_, client| client.is_shared());
        let client = Client::as_sent(config, &format!("Prometheus/{PROMETHEUS_VERSION}"))?;
        clients.insert(config.clone(), client.clone());
        Ok(client)
    }
}

/// The longest body that is read where the configuration sets no limit: a few kilobytes can be
/// uncompressed to any length.
const BODY_BYTES_MAX: usize = 512 << 20;

/// The length at which a body is too long, under a configured limit; 0 sets none.
fn body_bytes_max(limit: u64) -> usize {
    let limit = usize::try_from(limit).unwrap_or(usize::MAX);
    if limit == 0 { BODY_BYTES_MAX } else { limit.min(BODY_BYTES_MAX) }
}

/// Fetches over HTTP as a job says.
#[derive(Debug)]
pub struct HttpFetcher {
    client: Client,
    accept: String,
    accept_native: String,
    compress: bool,
    body_size_limit: usize,
    spare: Arc<SpareBodies>,
}

impl HttpFetcher {
    /// A fetcher for the targets of `config`.
    pub fn new(config: &ScrapeConfig, client: Client, spare: Arc<SpareBodies>) -> Self {
        let escaping = config.escaping_name();
        let accept = |protocols: &[Protocol]| {
            accept_header(protocols)
                .replace("escaping=allow-utf-8", &format!("escaping={escaping}"))
        };
        let chosen = config.scrape_protocols.clone();
        let plain = chosen.clone().unwrap_or_else(|| Protocol::DEFAULT.to_vec());
        let native = chosen.unwrap_or_else(|| Protocol::ALL.to_vec());
        Self {
            spare,
            client,
            accept: accept(&plain),
            accept_native: accept(&native),
            compress: config.enable_compression,
            body_size_limit: body_bytes_max(config.limits.body_size),
        }
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
        let encoding =
            response.headers().get(CONTENT_ENCODING).map(reqwest::header::HeaderValue::as_bytes);
        let is_gzip = encoding.is_some_and(|value| {
            [&b"gzip"[..], b"x-gzip"].iter().any(|name| value.eq_ignore_ascii_case(name))
        });
        let mut body = self.spare.take(if is_gzip { 0 } else { size_hint.min(64 << 20) });
        while let Some(chunk) =
            response.chunk().await.map_err(|error| failed(&error.without_url()))?
        {
            body.extend_from_slice(&chunk);
            if body.len() >= self.body_size_limit {
                return Err(FetchError::BodyTooLarge);
            }
        }
        if is_gzip {
            let mut plain = self.spare.take(size_hint.min(64 << 20));
            let limit = self.body_size_limit;
            let inflated = inflate(&body, limit, &mut plain);
            self.spare.keep(std::mem::replace(&mut body, plain));
            inflated.map_err(|error| failed(&error))?;
            if body.len() >= limit {
                return Err(FetchError::BodyTooLarge);
            }
        }
        Ok(Fetched { content_type, body })
    }
}

/// Uncompresses a whole body at once, but no more than `limit` bytes of it.
fn inflate(body: &[u8], limit: usize, plain: &mut Vec<u8>) -> std::io::Result<()> {
    let decoder = flate2::bufread::MultiGzDecoder::new(body);
    decoder.take(limit as u64).read_to_end(plain).map(drop)
}

impl Fetcher for HttpFetcher {
    fn fetch<'a>(&'a self, target: &'a Target, size_hint: usize) -> FetchFuture<'a> {
        Box::pin(self.get(target, size_hint))
    }

    fn keep(&self, body: Vec<u8>) {
        self.spare.keep(body);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn jobs_that_reach_their_targets_alike_share_a_client() {
        let clients = Clients::default();
        let other = HttpConfig { follow_redirects: false, ..HttpConfig::default() };
        let (one, two) = (HttpConfig::default(), HttpConfig::default());
        let first = clients.get(&one).unwrap();
        let second = clients.get(&two).unwrap();
        assert_eq!(clients.0.lock().len(), 1);
        drop((first, second));
        // Nobody has the first one any more.
        let third = clients.get(&other).unwrap();
        assert!(third.is_shared());
        assert_eq!(clients.0.lock().keys().collect::<Vec<_>>(), [&other]);
    }

    #[test]
    fn no_body_is_endless() {
        assert_eq!(body_bytes_max(100), 100);
        for unlimited in [0, u64::MAX] {
            assert_eq!(body_bytes_max(unlimited), BODY_BYTES_MAX);
        }
    }

    #[test]
    fn compressed_bodies_are_uncompressed_up_to_the_limit() {
        use std::io::Write as _;
        let gzip = |text: &[u8]| {
            let mut encoder =
                flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
            encoder.write_all(text).unwrap();
            encoder.finish().unwrap()
        };
        let mut plain = Vec::new();
        // Of two members, as some servers send it.
        inflate(&[gzip(b"up 1\n"), gzip(b"down 0\n")].concat(), 100, &mut plain).unwrap();
        assert_eq!(plain, b"up 1\ndown 0\n");
        plain.clear();
        inflate(&gzip(&vec![0; 1 << 20]), 1000, &mut plain).unwrap();
        assert_eq!(plain.len(), 1000);
        plain.clear();
        let cut = gzip(b"up 1\n");
        assert!(inflate(&cut[..cut.len() - 5], 100, &mut plain).is_err());
        assert!(inflate(b"up 1\n", 100, &mut Vec::new()).is_err());
    }

    #[test]
    fn bodies_use_the_memory_of_earlier_ones() {
        let spare = SpareBodies::default();
        spare.keep(Vec::with_capacity(1 << 20));
        spare.keep(Vec::with_capacity(SpareBodies::BYTES_MAX + 1));
        assert_eq!(spare.0.lock().len(), 1);
        let body = spare.take(100);
        assert!(body.is_empty() && body.capacity() >= 1 << 20);
        assert!(spare.take(100).capacity() < 1 << 20);
    }
}
