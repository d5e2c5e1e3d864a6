//! The HTTP server's transport: listening, connection limit, timeouts, and stopping without
//! cutting off answers.

use std::convert::Infallible;
use std::io::ErrorKind;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context as _;
use axum::Router;
use axum::body::Body;
use axum::http::{Request, Response};
use hyper::body::Incoming;
use hyper::server::conn::{http1, http2};
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, watch};
use tower::ServiceExt as _;

/// How long to wait before accepting again after an error such as too many open files.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// Limits of the transport.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct HttpOptions {
    /// Most connections at once, over all addresses.
    pub connections_max: u32,
    /// How long the head of a request may take, and a connection may be idle.
    pub read_timeout: Duration,
}

/// What is spoken on a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Protocol {
    /// HTTP/1.1 and 1.0.
    Http1,
    /// HTTP/2 without TLS and from the first byte on, as gRPC speaks it.
    Http2,
}

/// Requests at the same time on one connection of HTTP/2.
const STREAMS_MAX: u32 = 32;
/// How long the other side of a silent connection of HTTP/2 may take to show that it is there.
const PING_WITHIN: Duration = Duration::from_secs(20);

/// Sockets that are listened on and not served yet.
pub struct Listeners {
    listeners: Vec<TcpListener>,
    addresses: Vec<SocketAddr>,
}

impl Listeners {
    /// Listens on all `addresses` (`host:port`, port 0 for any), which the flag `flag` gives.
    ///
    /// # Errors
    /// Names the address that cannot be listened on.
    pub async fn bind(addresses: &[String], flag: &str) -> anyhow::Result<Self> {
        let mut bound = Self { listeners: Vec::new(), addresses: Vec::new() };
        for address in addresses {
            let listener = TcpListener::bind(address.as_str()).await.map_err(|error| {
                let hint = match error.kind() {
                    ErrorKind::AddrInUse => "stop the server that runs there, or",
                    _ => "mend the cause, or",
                };
                anyhow::anyhow!(
                    "cannot listen on {address}: {error}; {hint} choose another address with \
                     --{flag}"
                )
            })?;
            let address = listener.local_addr().context("cannot read the address listened on")?;
            bound.addresses.push(address);
            bound.listeners.push(listener);
        }
        Ok(bound)
    }

    /// The addresses, in order of the flags.
    pub fn addresses(&self) -> &[SocketAddr] {
        &self.addresses
    }

    /// Serves `router` on all of them.
    pub fn serve(self, options: HttpOptions, protocol: Protocol, router: &Router) -> HttpServer {
        let slots = Arc::new(Semaphore::new(options.connections_max as usize));
        let (stopping, stopped) = watch::channel(false);
        for listener in self.listeners {
            let acceptor = Acceptor {
                slots: Arc::clone(&slots),
                read_timeout: options.read_timeout,
                protocol,
                router: router.clone(),
                stopped: stopped.clone(),
            };
            tokio::spawn(acceptor.run(listener));
        }
        let slots_total = options.connections_max;
        HttpServer { addresses: self.addresses, slots, slots_total, stopping }
    }
}

/// A running HTTP server.
pub struct HttpServer {
    addresses: Vec<SocketAddr>,
    slots: Arc<Semaphore>,
    slots_total: u32,
    stopping: watch::Sender<bool>,
}

impl HttpServer {
    /// The addresses that are listened on, in order of the flags.
    pub fn addresses(&self) -> &[SocketAddr] {
        &self.addresses
    }

    /// Stops listening, lets running requests finish for at most `patience`, and returns whether
    /// all of them did.
    pub async fn stop(self, patience: Duration) -> bool {
        self.stopping.send_replace(true);
        let all = self.slots.acquire_many(self.slots_total);
        tokio::time::timeout(patience, all).await.is_ok()
    }
}

/// Accepts connections of one listener.
struct Acceptor {
    slots: Arc<Semaphore>,
    read_timeout: Duration,
    protocol: Protocol,
    router: Router,
    stopped: watch::Receiver<bool>,
}

impl Acceptor {
    async fn run(mut self, listener: TcpListener) {
        loop {
            // A slot first: beyond the limit, connections wait in the listener's queue.
            let Ok(slot) = Arc::clone(&self.slots).acquire_owned().await else { return };
            let accepted = tokio::select! {
                accepted = listener.accept() => accepted,
                () = raised(&mut self.stopped) => return,
            };
            match accepted {
                Ok((stream, _)) => self.spawn(stream, slot),
                Err(error) => {
                    tracing::warn!(%error, "cannot accept a connection");
                    tokio::time::sleep(ACCEPT_PAUSE).await;
                }
            }
        }
    }

    fn spawn(&self, stream: TcpStream, slot: OwnedSemaphorePermit) {
        let router = self.router.clone();
        let read_timeout = self.read_timeout;
        let protocol = self.protocol;
        let mut stopped = self.stopped.clone();
        tokio::spawn(async move {
            if let Err(error) = stream.set_nodelay(true) {
                tracing::debug!(%error, "cannot switch off delays on a connection");
            }
            let service = service_fn(move |request| answer(router.clone(), request));
            let outcome = match protocol {
                Protocol::Http1 => {
                    let mut builder = http1::Builder::new();
                    builder.timer(TokioTimer::new()).header_read_timeout(read_timeout);
                    let connection = builder.serve_connection(TokioIo::new(stream), service);
                    let mut connection = std::pin::pin!(connection);
                    tokio::select! {
                        outcome = connection.as_mut() => outcome,
                        () = raised(&mut stopped) => {
                            connection.as_mut().graceful_shutdown();
                            connection.await
                        }
                    }
                }
                Protocol::Http2 => {
                    // One that says nothing at all takes no place for long.
                    let speaks = tokio::time::timeout(read_timeout, stream.readable()).await;
                    if !matches!(speaks, Ok(Ok(()))) {
                        return;
                    }
                    let mut builder = http2::Builder::new(TokioExecutor::new());
                    builder
                        .timer(TokioTimer::new())
                        .max_concurrent_streams(STREAMS_MAX)
                        .keep_alive_interval(read_timeout)
                        .keep_alive_timeout(PING_WITHIN);
                    let connection = builder.serve_connection(TokioIo::new(stream), service);
                    let mut connection = std::pin::pin!(connection);
                    tokio::select! {
                        outcome = connection.as_mut() => outcome,
                        () = raised(&mut stopped) => {
                            connection.as_mut().graceful_shutdown();
                            connection.await
                        }
                    }
                }
            };
            if let Err(error) = outcome {
                // Clients that go away are everyday life.
                tracing::debug!(%error, "a connection ended early");
            }
            drop(slot);
        });
    }
}

/// Waits until the server stops.
async fn raised(stopped: &mut watch::Receiver<bool>) {
    // An error means that the sender is gone, and with it the server.
    drop(stopped.wait_for(|stopped| *stopped).await);
}

async fn answer(router: Router, request: Request<Incoming>) -> Result<Response<Body>, Infallible> {
    router.oneshot(request.map(Body::new)).await
}
