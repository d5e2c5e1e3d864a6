//! Answers of servers that list targets, read with bounds.

use std::time::Duration;

use reqwest::header::CONTENT_TYPE;
use reqwest::{RequestBuilder, StatusCode};
use serde::de::DeserializeOwned;

use super::DiscoveryError;
use crate::http::explain;

/// The longest answer that is read, in bytes.
pub(super) const BODY_MAX: usize = 64 << 20;

/// How many characters of a refusal are told.
const REASON_MAX: usize = 300;

/// What a server said.
#[derive(Debug)]
pub(super) struct Answer {
    pub(super) status: StatusCode,
    pub(super) headers: reqwest::header::HeaderMap,
    pub(super) body: Vec<u8>,
}

impl Answer {
    /// The `Content-Type`, empty when there is none.
    pub(super) fn content_type(&self) -> &str {
        let value = self.headers.get(CONTENT_TYPE);
        value.and_then(|value| value.to_str().ok()).unwrap_or_default()
    }

    /// What the body of a good answer of `place` says in JSON.
    pub(super) fn json<T: DeserializeOwned>(&self, place: &str) -> Result<T, DiscoveryError> {
        self.good(place)?;
        serde_json::from_slice(&self.body).map_err(|error| {
            DiscoveryError(format!("the answer of {place} is not usable: {error}"))
        })
    }

    /// Fails unless the server was content; what it says of the reason is told shortened.
    pub(super) fn good(&self, place: &str) -> Result<(), DiscoveryError> {
        if self.status == StatusCode::OK {
            return Ok(());
        }
        let text = String::from_utf8_lossy(&self.body);
        let text: String = text.trim().chars().take(REASON_MAX).collect();
        Err(DiscoveryError(format!("{place} answered with HTTP status {}: {text}", self.status)))
    }

    /// The body as text.
    pub(super) fn text(&self) -> Result<&str, DiscoveryError> {
        std::str::from_utf8(&self.body)
            .map_err(|error| DiscoveryError(format!("the answer is not UTF-8: {error}")))
    }
}

/// Sends `request` to what is called `place` and reads the whole answer within `timeout`.
pub(super) async fn get(
    request: RequestBuilder,
    place: &str,
    timeout: Duration,
) -> Result<Answer, DiscoveryError> {
    let failed = |error: reqwest::Error| {
        DiscoveryError(format!("asking {place}: {}", explain(&error.without_url())))
    };
    let all = async {
        let mut response = request.send().await.map_err(failed)?;
        let (status, headers) = (response.status(), response.headers().clone());
        let mut body = Vec::new();
        while let Some(chunk) = response.chunk().await.map_err(failed)? {
            if body.len() + chunk.len() > BODY_MAX {
                let limit = BODY_MAX >> 20;
                return Err(DiscoveryError(format!(
                    "the answer of {place} is longer than {limit} MiB"
                )));
            }
            body.extend_from_slice(&chunk);
        }
        Ok(Answer { status, headers, body })
    };
    let late = |_| {
        let seconds = timeout.as_secs_f64();
        Err(DiscoveryError(format!("{place} did not answer within {seconds} s")))
    };
    tokio::time::timeout(timeout, all).await.unwrap_or_else(late)
}
