//! The way to a receiver.

use bytes::Bytes;
use futures_util::future::BoxFuture;
use reqwest::Method;
use reqwest::header::CONTENT_TYPE;
use stint_model::Span;

use crate::config::HttpConfig;
use crate::http::ClientError;
use crate::http::client::{Client, explain};

/// What is posted, and where.
#[derive(Clone, Debug)]
pub struct Post {
    /// Where.
    pub url: String,
    /// JSON.
    pub body: Bytes,
}

/// Posts messages. Tests put a simulation in its place.
pub trait Transport: Send + Sync {
    /// Posts and waits for the answer, no longer than the receiver's timeout: the status, or why there is none.
    fn post(&self, post: Post) -> BoxFuture<'_, Result<u16, String>>;
}

/// Posts over HTTP.
#[derive(Clone, Debug)]
pub struct HttpTransport {
    client: Client,
    timeout: Span,
}

/// Most bytes of an answer that are read, so that the connection can be used again.
const ANSWER_BYTES_MAX: usize = 64 << 10;

impl HttpTransport {
    /// A transport that follows `config`.
    ///
    /// # Errors
    /// There is no client to be made of it.
    pub fn new(config: &HttpConfig, timeout: Span) -> Result<Self, ClientError> {
        let agent = format!("Stint/{}", env!("CARGO_PKG_VERSION"));
        Ok(Self { client: Client::posting(config, &agent)?, timeout })
    }
}

impl Transport for HttpTransport {
    fn post(&self, post: Post) -> BoxFuture<'_, Result<u16, String>> {
        Box::pin(async move {
            let request = self.client.request(Method::POST, &post.url).await;
            let request = request.map_err(|error| error.to_string())?;
            let request = request
                .header(CONTENT_TYPE, "application/json")
                .timeout(self.timeout.to_std())
                .body(post.body);
            // A URL may hold a secret.
            let told = |error: reqwest::Error| explain(&error.without_url());
            let mut answer = request.send().await.map_err(told)?;
            let status = answer.status().as_u16();
            let mut read = 0;
            while read < ANSWER_BYTES_MAX {
                match answer.chunk().await {
                    Ok(Some(chunk)) => read += chunk.len(),
                    Ok(None) | Err(_) => break,
                }
            }
            Ok(status)
        })
    }
}
