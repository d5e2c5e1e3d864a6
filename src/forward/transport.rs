//! The way to an endpoint.

use bytes::Bytes;
use futures_util::future::BoxFuture;
use stint_wire::remote_write::{self, Version};

use super::retry::Response;

/// One request, ready to be posted.
#[derive(Clone, Debug)]
pub struct Request {
    /// The compressed message.
    pub body: Bytes,
    /// Which message it is.
    pub version: Version,
    /// Failed attempts before this one.
    pub attempt: u32,
}

impl Request {
    /// The headers that the protocol asks for.
    pub fn headers(&self) -> Vec<(&'static str, String)> {
        let mut headers = vec![
            ("Content-Type", self.version.content_type().to_owned()),
            ("Content-Encoding", remote_write::CONTENT_ENCODING.to_owned()),
            (remote_write::VERSION_HEADER, self.version.header().to_owned()),
        ];
        if self.attempt > 0 {
            headers.push((remote_write::RETRY_ATTEMPT_HEADER, self.attempt.to_string()));
        }
        headers
    }
}

/// Why there is no answer.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum TransportError {
    /// There was no connection, or not even a request: nothing left this machine.
    #[error("{0}")]
    NotSent(String),
    /// The request may have arrived nevertheless.
    #[error("{0}")]
    NoAnswer(String),
}

/// Posts requests to one endpoint.
pub trait Transport: Send + Sync {
    /// Posts `request` and waits for the answer, no longer than the endpoint's timeout.
    fn send(&self, request: Request) -> BoxFuture<'_, Result<Response, TransportError>>;
}
