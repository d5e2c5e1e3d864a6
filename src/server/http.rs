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
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
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

/// Sockets that are listened on and not served yet.
pub struct Listeners {
    listeners: Vec<TcpListener>,
    addresses: Vec<SocketAddr>,
}

impl Listeners {
    /// Listens on all `addresses` (`host:port`, port 0 for any).
    ///
    /// # Errors
    /// Names the address that cannot be listened on.
    pub async fn bind(addresses: &[String]) -> anyhow::Result<Self> {
        let mut bound = Self { listeners: Vec::new(), addresses: Vec::new() };
        for address in addresses {
            let listener = TcpListener::bind(address.as_str()).await.map_err(|error| {
                let hint = match error.kind() {
                    ErrorKind::AddrInUse => "stop the server that runs there, or",
                    _ => "mend the cause, or",
                };
                anyhow::anyhow!(
                    "cannot listen on {address}: {error}; {hint} choose another address with \
                     --web.listen-address"
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
    pub fn serve(self, options: HttpOptions, router: &Router) -> HttpServer {
        let slots = Arc::new(Semaphore::new(options.connections_max as usize));
        let (stopping, stopped) = watch::channel(false);
        for listener in self.listeners {
            let acceptor = Acceptor {
                slots: Arc::clone(&slots),
                read_timeout: options.read_timeout,
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
        let mut stopped = self.stopped.clone();
        tokio::spawn(async move {
            if let Err(error) = stream.set_nodelay(true) {
                tracing::debug!(%error, "cannot switch off delays on a connection");
            }
            let service = service_fn(move |request| answer(router.clone(), request));
            let mut builder = http1::Builder::new();
            builder.timer(TokioTimer::new()).header_read_timeout(read_timeout);
            let connection = builder.serve_connection(TokioIo::new(stream), service);
            let mut connection = std::pin::pin!(connection);
            let outcome = tokio::select! {
                outcome = connection.as_mut() => outcome,
                () = raised(&mut stopped) => {
                    connection.as_mut().graceful_shutdown();
                    connection.await
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
