//! A connection to one target, kept from scrape to scrape and driven by whoever scrapes.
//!
//! Most targets are reached by plain HTTP and without a proxy. What a client for everything does for a
//! request (layers for redirects and retries, a pool, a task for each connection that has to be
//! woken) costs as much as reading the body does; here a scrape wakes nobody.

use std::future::{Future, poll_fn};
use std::pin::{Pin, pin};
use std::task::Context;
use std::time::Duration;

use http_body_util::{BodyExt as _, Empty};
use hyper::body::{Bytes, Incoming};
use hyper::client::conn::http1::{Connection, SendRequest, handshake};
use hyper::header::{HOST, HeaderValue};
use hyper::{Request, Response, Uri};
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::TokioIo;
use stint_model::Span;
use tokio::net::TcpStream;
use tower::ServiceExt as _;

use super::target::Target;

/// An idle connection is kept for so long: what lies between may have forgotten it later.
const IDLE_MAX: Span = Span(90_000);

/// Why there is no answer. It is told with its causes.
pub(super) type LineError = Box<dyn std::error::Error + Send + Sync>;

/// What the loop of one target keeps between its fetches.
#[derive(Debug, Default)]
pub struct Line {
    /// A connection that waits, without the memory that asking and answering takes.
    idle: Option<TcpStream>,
    /// The target has sent its scraper elsewhere: that is for a client that follows.
    pub(super) is_redirected: bool,
}

/// A connection that is used.
struct Open {
    sender: SendRequest<Empty<Bytes>>,
    work: Work,
}

/// The part of a connection that has to be driven.
struct Work {
    connection: Connection<TokioIo<TcpStream>, Empty<Bytes>>,
    has_ended: bool,
}

/// An answer whose body has not been read yet.
pub(super) struct Answer {
    pub(super) response: Response<Incoming>,
    open: Open,
}

impl Line {
    /// Sends `request`, which names what it is for by path alone, to the host of `url`.
    pub(super) async fn send(
        &mut self,
        connector: &HttpConnector,
        url: &reqwest::Url,
        mut request: Request<Empty<Bytes>>,
    ) -> Result<Answer, LineError> {
        if !request.headers().contains_key(HOST) {
            request.headers_mut().insert(HOST, host(url)?);
        }
        // What was kept may have been closed meanwhile, even as the request goes out.
        if let Some(stream) = self.idle.take().filter(is_quiet)
            && let Ok(answer) = Open::send(TokioIo::new(stream), request.clone()).await
        {
            return Ok(answer);
        }
        let stream = connector.clone().oneshot(url.as_str().parse::<Uri>()?).await?;
        Ok(Open::send(stream, request).await?)
    }

    /// Keeps the connection of an answer whose body was read to its end, if it can be used again and
    /// `target` is asked again soon.
    pub(super) async fn keep(&mut self, answer: Answer, target: &Target) {
        if target.interval <= IDLE_MAX {
            self.idle = answer.open.into_idle().await;
        }
    }
}

/// Whether nothing came that nobody asked for, the end of the connection included.
fn is_quiet(stream: &TcpStream) -> bool {
    let read = stream.try_read(&mut [0]);
    read.is_err_and(|error| error.kind() == std::io::ErrorKind::WouldBlock)
}

/// How requests name the host of `url`.
fn host(url: &reqwest::Url) -> Result<HeaderValue, LineError> {
    let host = url.host_str().unwrap_or_default();
    Ok(match url.port() {
        Some(port) => HeaderValue::try_from(format!("{host}:{port}"))?,
        None => HeaderValue::from_str(host)?,
    })
}

impl Open {
    async fn send(
        stream: TokioIo<TcpStream>,
        request: Request<Empty<Bytes>>,
    ) -> hyper::Result<Answer> {
        let (mut sender, connection) = handshake(stream).await?;
        let mut work = Work { connection, has_ended: false };
        let response = work.drive(sender.send_request(request)).await?;
        Ok(Answer { response, open: Self { sender, work } })
    }

    /// The connection, if it waits for another request now.
    async fn into_idle(self) -> Option<TcpStream> {
        let Self { sender, mut work } = self;
        work.drive(async {}).await;
        if work.has_ended || !sender.is_ready() {
            return None;
        }
        let parts = work.connection.into_parts();
        parts.read_buf.is_empty().then(|| parts.io.into_inner())
    }
}

impl Work {
    /// Waits for what comes of the work being done.
    async fn drive<T>(&mut self, outcome: impl Future<Output = T>) -> T {
        let mut outcome = pin!(outcome);
        let step = |context: &mut Context<'_>| {
            // How it ended is told by the outcome, too.
            self.has_ended =
                self.has_ended || Pin::new(&mut self.connection).poll(context).is_ready();
            outcome.as_mut().poll(context)
        };
        poll_fn(step).await
    }
}

impl Answer {
    /// The next part of the body; `None` at its end.
    pub(super) async fn chunk(&mut self) -> Result<Option<Bytes>, hyper::Error> {
        while let Some(frame) = self.open.work.drive(self.response.body_mut().frame()).await {
            // What is no data are trailers, which nobody asked for.
            if let Ok(data) = frame?.into_data() {
                return Ok(Some(data));
            }
        }
        Ok(None)
    }
}

/// Makes connections.
pub(super) fn connector() -> HttpConnector {
    let mut connector = HttpConnector::new();
    connector.set_nodelay(true);
    // As general clients do it, so that a host that went away is noticed.
    connector.set_keepalive(Some(Duration::from_secs(15)));
    connector.set_keepalive_interval(Some(Duration::from_secs(15)));
    connector.set_keepalive_retries(Some(3));
    connector
}

#[cfg(test)]
mod tests;
