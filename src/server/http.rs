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
use rustls::ServerConfig;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Semaphore, watch};
use tower::ServiceExt as _;

use super::web::{Offered, Web};

type TlsStream = tokio_rustls::server::TlsStream<TcpStream>;

/// How long to wait before accepting again after an error such as too many open files.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// Limits of the transport, and who may use it.
#[derive(Clone)]
pub struct HttpOptions {
    /// Most connections at once, over all addresses.
    pub connections_max: u32,
    /// How long the head of a request may take, and a connection may be idle.
    pub read_timeout: Duration,
    /// TLS and users, where they are wanted.
    pub web: Option<Arc<Web>>,
}

/// What is spoken on a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Protocol {
    /// HTTP/1.1 and 1.0.
    Http1,
    /// HTTP/2 from the first byte on, as gRPC speaks it.
    Http2,
}

impl Protocol {
    /// What a client may choose from over TLS.
    const fn offered(self) -> Offered {
        match self {
            Self::Http1 => Offered::Http,
            Self::Http2 => Offered::Http2Only,
        }
    }
}

/// How long the handshake of TLS may take.
const HANDSHAKE_WITHIN: Duration = Duration::from_secs(30);

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
    pub fn serve(self, options: &HttpOptions, protocol: Protocol, router: &Router) -> HttpServer {
        let slots = Arc::new(Semaphore::new(options.connections_max as usize));
        let (stopping, stopped) = watch::channel(false);
        for listener in self.listeners {
            let acceptor = Acceptor {
                slots: Arc::clone(&slots),
                served: Served {
                    read_timeout: options.read_timeout,
                    web: options.web.clone(),
                    protocol,
                    router: router.clone(),
                    stopped: stopped.clone(),
                },
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
    served: Served,
}

impl Acceptor {
    async fn run(mut self, listener: TcpListener) {
        loop {
            // A slot first: beyond the limit, connections wait in the listener's queue.
            let Ok(slot) = Arc::clone(&self.slots).acquire_owned().await else { return };
            let accepted = tokio::select! {
                accepted = listener.accept() => accepted,
                () = raised(&mut self.served.stopped) => return,
            };
            match accepted {
                Ok((stream, _)) => {
                    let served = self.served.clone();
                    tokio::spawn(async move {
                        served.connection(stream).await;
                        drop(slot);
                    });
                }
                Err(error) => {
                    tracing::warn!(%error, "cannot accept a connection");
                    tokio::time::sleep(ACCEPT_PAUSE).await;
                }
            }
        }
    }
}

/// What becomes of a connection.
#[derive(Clone)]
struct Served {
    read_timeout: Duration,
    web: Option<Arc<Web>>,
    protocol: Protocol,
    router: Router,
    stopped: watch::Receiver<bool>,
}

impl Served {
    async fn connection(self, stream: TcpStream) {
        if let Err(error) = stream.set_nodelay(true) {
            tracing::debug!(%error, "cannot switch off delays on a connection");
        }
        let tls = match &self.web {
            None => None,
            Some(web) => web.rules().await.tls(self.protocol.offered()),
        };
        let protocol = self.protocol;
        let outcome = match tls {
            None => self.speak(TokioIo::new(stream), protocol).await,
            Some(tls) => {
                let mut stopped = self.stopped.clone();
                let patience = self.read_timeout.min(HANDSHAKE_WITHIN);
                let stream = tokio::select! {
                    stream = tokio::time::timeout(patience, shake_hands(stream, tls)) => stream,
                    () = raised(&mut stopped) => return,
                };
                let Ok(Some(stream)) = stream else { return };
                let protocol = match stream.get_ref().1.alpn_protocol() {
                    Some(b"h2") => Protocol::Http2,
                    _ => protocol,
                };
                self.speak(TokioIo::new(stream), protocol).await
            }
        };
        if let Err(error) = outcome {
            // Clients that go away are everyday life.
            tracing::debug!(%error, "a connection ended early");
        }
    }

    /// Answers requests until the connection ends or the server stops.
    async fn speak<I>(self, stream: I, protocol: Protocol) -> hyper::Result<()>
    where
        I: hyper::rt::Read + hyper::rt::Write + Send + Unpin + 'static,
    {
        let Self { read_timeout, web, router, mut stopped, .. } = self;
        let service = service_fn(move |request| answer(web.clone(), router.clone(), request));
        match protocol {
            Protocol::Http1 => {
                let mut builder = http1::Builder::new();
                builder.timer(TokioTimer::new()).header_read_timeout(read_timeout);
                let connection = builder.serve_connection(stream, service);
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
                let mut builder = http2::Builder::new(TokioExecutor::new());
                builder
                    .timer(TokioTimer::new())
                    .max_concurrent_streams(STREAMS_MAX)
                    .keep_alive_interval(read_timeout)
                    .keep_alive_timeout(PING_WITHIN);
                let connection = builder.serve_connection(stream, service);
                let mut connection = std::pin::pin!(connection);
                tokio::select! {
                    outcome = connection.as_mut() => outcome,
                    () = raised(&mut stopped) => {
                        connection.as_mut().graceful_shutdown();
                        connection.await
                    }
                }
            }
        }
    }
}

/// The first byte of every TLS connection.
const TLS_HANDSHAKE: u8 = 22;
/// What a client is told that speaks HTTP where TLS is spoken.
const NO_TLS: &[u8] = b"HTTP/1.0 400 Bad Request\r\nConnection: close\r\n\r\n\
    Client sent an HTTP request to an HTTPS server.\n";

/// How often is read from such a client.
const PLAIN_READS_MAX: usize = 16;

/// The connection under TLS; `None` when the client does not get that far.
async fn shake_hands(mut stream: TcpStream, tls: Arc<ServerConfig>) -> Option<TlsStream> {
    let mut first = [0];
    match stream.peek(&mut first).await {
        Ok(1) if first == [TLS_HANDSHAKE] => {}
        Ok(1) if first[0].is_ascii_uppercase() => {
            if let Err(error) = refuse_plain(&mut stream).await {
                tracing::debug!(%error, "a client without TLS could not be told so");
            }
            return None;
        }
        _ => return None,
    }
    match tokio_rustls::TlsAcceptor::from(tls).accept(stream).await {
        Ok(stream) => Some(stream),
        Err(error) => {
            tracing::debug!(%error, "a TLS handshake failed");
            None
        }
    }
}

/// Tells a client that it should speak TLS, and reads what it says meanwhile: closing before that
/// would throw the answer away.
async fn refuse_plain(stream: &mut TcpStream) -> std::io::Result<()> {
    stream.write_all(NO_TLS).await?;
    stream.shutdown().await?;
    let mut said = [0; 4096];
    for _ in 0..PLAIN_READS_MAX {
        if stream.read(&mut said).await? == 0 {
            break;
        }
    }
    Ok(())
}

/// Waits until the server stops.
async fn raised(stopped: &mut watch::Receiver<bool>) {
    // An error means that the sender is gone, and with it the server.
    drop(stopped.wait_for(|stopped| *stopped).await);
}

async fn answer(
    web: Option<Arc<Web>>,
    router: Router,
    request: Request<Incoming>,
) -> Result<Response<Body>, Infallible> {
    let Some(web) = web else { return router.oneshot(request.map(Body::new)).await };
    let rules = web.rules().await;
    let mut answer = match rules.refuse(request.headers()).await {
        Some(refusal) => refusal,
        None => router.oneshot(request.map(Body::new)).await?,
    };
    rules.dress(&mut answer);
    Ok(answer)
}
