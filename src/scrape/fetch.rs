//! Getting a target's body: the seam that tests replace, and HTTP.

use std::collections::HashMap;
use std::future::Future;
use std::io::Read as _;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use http_body_util::Empty;
use hyper::body::Bytes;
use hyper_util::client::legacy::connect::HttpConnector;
use parking_lot::Mutex;
use reqwest::header::{
    ACCEPT, ACCEPT_ENCODING, CONTENT_ENCODING, CONTENT_TYPE, HeaderMap, HeaderName, HeaderValue,
    LOCATION, USER_AGENT,
};
use reqwest::{Method, StatusCode};
use stint_wire::exposition::{Protocol, accept_header};

use super::inflate::Inflater;
use super::line::{self, Line};
use super::target::Target;
use crate::config::{HttpConfig, ScrapeConfig};
use crate::http::{Client, ClientError, explain};
use crate::metrics::PROMETHEUS_VERSION;

/// What a target answered.
#[derive(Debug)]
pub struct Fetched {
    /// The `Content-Type` header; empty when there is none.
    pub content_type: String,
    /// The body, uncompressed.
    pub body: Vec<u8>,
    /// What the body takes of the memory for all of them.
    pub room: Room,
}

/// Why there is no body.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum FetchError {
    /// The body is as long as the limit or longer.
    #[error("body size limit exceeded")]
    BodyTooLarge,
    /// There is no memory for it beside the bodies of other targets.
    #[error(
        "the bodies of all targets take more than {} MiB at once; set body_size_limit",
        BODIES_BYTES_MAX >> 20
    )]
    NoRoom,
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
    /// Asks `target` for its metrics, over the line that is kept for it. `size_hint` is the length of its
    /// previous body.
    fn fetch<'a>(
        &'a self,
        target: &'a Target,
        line: &'a mut Line,
        size_hint: usize,
    ) -> FetchFuture<'a>;

    /// Takes back the memory of a body that is not needed any more.
    fn keep(&self, _body: Vec<u8>) {}
}

/// How long the server waits for an answer.
static TIMEOUT: HeaderName = HeaderName::from_static("x-prometheus-scrape-timeout-seconds");

/// The most memory for all bodies that are read or stored at the same time, without the first
/// [`SMALL_BYTES`] of each: however large some are, the usual ones always fit.
const BODIES_BYTES_MAX: usize = 512 << 20;
/// Up to this length a body is not counted. Longer ones are in steps of as much.
const SMALL_BYTES: usize = 1 << 20;

/// Memory for bodies, of as many as are read at once.
#[derive(Debug, Default)]
pub struct SpareBodies {
    kept: Mutex<Vec<Vec<u8>>>,
    /// The same for bodies as they come, compressed: those take less.
    packed: Mutex<Vec<Vec<u8>>>,
    /// What bodies take now.
    taken: Arc<AtomicUsize>,
    inflater: Arc<Inflater>,
}

/// What one body takes of the memory for all of them, given back when it is dropped.
#[derive(Debug, Default)]
pub struct Room {
    of: Arc<AtomicUsize>,
    bytes: usize,
}

impl Room {
    /// Takes as much as a body of `bytes` needs.
    fn hold(&mut self, bytes: usize) -> Result<(), FetchError> {
        let wanted = bytes.saturating_sub(SMALL_BYTES).next_multiple_of(SMALL_BYTES);
        let Some(more) = wanted.checked_sub(self.bytes).filter(|more| *more > 0) else {
            return Ok(());
        };
        let grown = |taken: usize| Some(taken + more).filter(|taken| *taken <= BODIES_BYTES_MAX);
        let grown = self.of.fetch_update(Ordering::Relaxed, Ordering::Relaxed, grown);
        grown.map_err(|_| FetchError::NoRoom)?;
        self.bytes += more;
        Ok(())
    }
}

impl Drop for Room {
    fn drop(&mut self) {
        self.of.fetch_sub(self.bytes, Ordering::Relaxed);
    }
}

impl SpareBodies {
    /// Buffers that are kept.
    const KEPT_MAX: usize = 16;
    /// Bytes of the largest one that is kept.
    const BYTES_MAX: usize = 4 << 20;

    /// Memory for `bytes`.
    fn take(&self, bytes: usize) -> Vec<u8> {
        let mut body = self.any();
        body.clear();
        body.reserve(bytes);
        body
    }

    fn room(&self) -> Room {
        Room { of: Arc::clone(&self.taken), bytes: 0 }
    }

    /// Memory with whatever was in it.
    fn any(&self) -> Vec<u8> {
        self.kept.lock().pop().unwrap_or_default()
    }

    fn keep(&self, body: Vec<u8>) {
        Self::keep_in(&self.kept, body);
    }

    fn take_packed(&self) -> Vec<u8> {
        let mut body = self.packed.lock().pop().unwrap_or_default();
        body.clear();
        body
    }

    fn keep_packed(&self, body: Vec<u8>) {
        Self::keep_in(&self.packed, body);
    }

    fn keep_in(kept: &Mutex<Vec<Vec<u8>>>, body: Vec<u8>) {
        let mut kept = kept.lock();
        if kept.len() < Self::KEPT_MAX && body.capacity() <= Self::BYTES_MAX {
            kept.push(body);
        }
    }
}

/// What scrapers call themselves.
fn user_agent() -> String {
    format!("Prometheus/{PROMETHEUS_VERSION}")
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
        let client = Client::as_sent(config, &user_agent())?;
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
    /// Makes the connections that are used without the client.
    connector: HttpConnector,
    user_agent: HeaderValue,
    accept: HeaderValue,
    accept_native: HeaderValue,
    encoding: HeaderValue,
    body_size_limit: usize,
    spare: Arc<SpareBodies>,
}

type AnyError = Box<dyn std::error::Error + Send + Sync>;

/// An answer whose body has not been read yet.
enum Answer {
    Direct(Box<line::Answer>),
    Any(reqwest::Response),
}

impl Answer {
    fn status(&self) -> StatusCode {
        match self {
            Self::Direct(answer) => answer.response.status(),
            Self::Any(response) => response.status(),
        }
    }

    fn headers(&self) -> &HeaderMap {
        match self {
            Self::Direct(answer) => answer.response.headers(),
            Self::Any(response) => response.headers(),
        }
    }

    /// The next part of the body; `None` at its end.
    async fn chunk(&mut self) -> Result<Option<Bytes>, AnyError> {
        match self {
            Self::Direct(answer) => Ok(answer.chunk().await?),
            Self::Any(response) => {
                Ok(response.chunk().await.map_err(reqwest::Error::without_url)?)
            }
        }
    }
}

/// Whether the answer sends whoever asked elsewhere.
fn is_redirect<T>(response: &hyper::Response<T>) -> bool {
    matches!(response.status().as_u16(), 301 | 302 | 303 | 307 | 308)
        && response.headers().contains_key(LOCATION)
}

impl HttpFetcher {
    /// A fetcher for the targets of `config`.
    pub fn new(config: &ScrapeConfig, client: Client, spare: Arc<SpareBodies>) -> Self {
        let escaping = config.escaping_name();
        let accept = |protocols: &[Protocol]| {
            let accepted = accept_header(protocols)
                .replace("escaping=allow-utf-8", &format!("escaping={escaping}"));
            HeaderValue::try_from(accepted).expect("what is accepted is told in plain letters")
        };
        let chosen = config.scrape_protocols.clone();
        let plain = chosen.clone().unwrap_or_else(|| Protocol::DEFAULT.to_vec());
        let native = chosen.unwrap_or_else(|| Protocol::ALL.to_vec());
        Self {
            spare,
            client,
            connector: line::connector(),
            user_agent: HeaderValue::try_from(user_agent()).expect("a name in plain letters"),
            accept: accept(&plain),
            accept_native: accept(&native),
            encoding: HeaderValue::from_static(if config.enable_compression {
                "gzip"
            } else {
                "identity"
            }),
            body_size_limit: body_bytes_max(config.limits.body_size),
        }
    }

    /// The answer of `target`, of which no more than the headers was read.
    async fn ask(&self, target: &Target, line: &mut Line) -> Result<Answer, AnyError> {
        let request = match &target.location {
            Some(location) => self.client.request(Method::GET, location.clone()).await?,
            None => self.client.request(Method::GET, target.url.as_str()).await?,
        };
        let accept = if target.native_histograms { &self.accept_native } else { &self.accept };
        let request = request
            .header(ACCEPT, accept)
            .header(ACCEPT_ENCODING, &self.encoding)
            .header(&TIMEOUT, target.timeout.as_secs_f64().to_string());
        let (client, request) = request.build_split();
        let request = request.map_err(reqwest::Error::without_url)?;
        let url = request.url();
        if self.client.is_direct(url) && !line.is_redirected {
            let path = match url.query() {
                Some(query) => format!("{}?{query}", url.path()),
                None => url.path().to_owned(),
            };
            let mut direct = hyper::Request::get(path).body(Empty::<Bytes>::new())?;
            let headers = direct.headers_mut();
            request.headers().clone_into(headers);
            headers.entry(USER_AGENT).or_insert_with(|| self.user_agent.clone());
            let answer = line.send(&self.connector, url, direct).await?;
            if !(self.client.follows_redirects() && is_redirect(&answer.response)) {
                return Ok(Answer::Direct(Box::new(answer)));
            }
            line.is_redirected = true;
        }
        let answer = client.execute(request).await.map_err(reqwest::Error::without_url)?;
        Ok(Answer::Any(answer))
    }

    async fn get(
        &self,
        target: &Target,
        line: &mut Line,
        size_hint: usize,
    ) -> Result<Fetched, FetchError> {
        let failed = |error: &dyn std::error::Error| {
            FetchError::Failed(format!("Get \"{}\": {}", target.url, explain(error)))
        };
        let mut response = self.ask(target, line).await.map_err(|error| failed(error.as_ref()))?;
        if response.status() != StatusCode::OK {
            return Err(FetchError::Status(response.status().to_string()));
        }
        let header = response.headers().get(CONTENT_TYPE);
        let content_type =
            header.and_then(|value| value.to_str().ok()).unwrap_or_default().to_owned();
        let encoding = response.headers().get(CONTENT_ENCODING).map(HeaderValue::as_bytes);
        let is_gzip = encoding.is_some_and(|value| {
            [&b"gzip"[..], b"x-gzip"].iter().any(|name| value.eq_ignore_ascii_case(name))
        });
        let mut room = self.spare.room();
        let mut body = if is_gzip {
            self.spare.take_packed()
        } else {
            self.spare.take(size_hint.min(64 << 20))
        };
        while let Some(chunk) = response.chunk().await.map_err(|error| failed(error.as_ref()))? {
            body.extend_from_slice(&chunk);
            if body.len() >= self.body_size_limit {
                return Err(FetchError::BodyTooLarge);
            }
            room.hold(body.len())?;
        }
        if let Answer::Direct(answer) = response {
            line.keep(*answer, target).await;
        }
        if is_gzip {
            let (limit, packed) = (self.body_size_limit, body);
            let mut plain = self.spare.any();
            let inflater = Arc::clone(&self.spare.inflater);
            // What is small needs no room.
            let is_done = packed.len() <= INFLATED_HERE_MAX
                && inflater.inflate(&packed, limit.min(SMALL_BYTES), &mut plain);
            let work = move || {
                if is_done || inflater.inflate(&packed, limit.min(SMALL_BYTES), &mut plain) {
                    return (packed, plain, room, Ok(()));
                }
                plain.clear();
                plain.reserve(size_hint.min(64 << 20));
                let inflated = inflate(&packed, limit, &mut plain, &mut room);
                (packed, plain, room, inflated)
            };
            // A small body may become a very large one; that nobody else waits for.
            let done = if is_done { Ok(work()) } else { tokio::task::spawn_blocking(work).await };
            let (packed, plain, held, inflated) = done.map_err(|error| failed(&error))?;
            self.spare.keep_packed(packed);
            (body, room) = (plain, held);
            match inflated {
                Ok(()) => {}
                Err(InflateError::Room(error)) => return Err(error),
                Err(InflateError::Damaged(error)) => return Err(failed(&error)),
            }
            if body.len() >= limit {
                return Err(FetchError::BodyTooLarge);
            }
        }
        Ok(Fetched { content_type, body, room })
    }
}

/// Bytes of a compressed body that is uncompressed where it was read.
const INFLATED_HERE_MAX: usize = 64 << 10;

/// Why a body is not uncompressed.
enum InflateError {
    Damaged(std::io::Error),
    Room(FetchError),
}

/// Uncompresses a whole body, but no more than `limit` bytes of it, a megabyte at a time.
fn inflate(
    body: &[u8],
    limit: usize,
    plain: &mut Vec<u8>,
    room: &mut Room,
) -> Result<(), InflateError> {
    let mut decoder = flate2::bufread::MultiGzDecoder::new(body);
    loop {
        let piece = SMALL_BYTES.min(limit.saturating_sub(plain.len()));
        let read = decoder.by_ref().take(piece as u64).read_to_end(plain);
        if read.map_err(InflateError::Damaged)? < piece || piece == 0 {
            return Ok(());
        }
        room.hold(body.len() + plain.len()).map_err(InflateError::Room)?;
    }
}

impl Fetcher for HttpFetcher {
    fn fetch<'a>(
        &'a self,
        target: &'a Target,
        line: &'a mut Line,
        size_hint: usize,
    ) -> FetchFuture<'a> {
        Box::pin(self.get(target, line, size_hint))
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
        let inflate = |body: &[u8], limit, plain: &mut Vec<u8>| {
            plain.clear();
            super::inflate(body, limit, plain, &mut Room::default()).is_ok()
        };
        assert!(inflate(&[gzip(b"up 1\n"), gzip(b"down 0\n")].concat(), 100, &mut plain));
        assert_eq!(plain, b"up 1\ndown 0\n");
        assert!(inflate(&gzip(&vec![0; 1 << 20]), 1000, &mut plain));
        assert_eq!(plain.len(), 1000);
        for bytes in [SMALL_BYTES, 3 * SMALL_BYTES + 5] {
            assert!(inflate(&gzip(&vec![7; bytes]), usize::MAX, &mut plain));
            assert_eq!(plain, vec![7; bytes]);
        }
        let cut = gzip(b"up 1\n");
        assert!(!inflate(&cut[..cut.len() - 5], 100, &mut plain));
        assert!(!inflate(b"up 1\n", 100, &mut plain));
    }

    #[test]
    fn large_bodies_share_a_bounded_memory_and_small_ones_need_none() {
        let spare = SpareBodies::default();
        let (mut one, mut two, mut small) = (spare.room(), spare.room(), spare.room());
        one.hold(BODIES_BYTES_MAX).unwrap();
        one.hold(1000).unwrap();
        assert_eq!(two.hold(3 * SMALL_BYTES), Err(FetchError::NoRoom));
        two.hold(2 * SMALL_BYTES).unwrap();
        assert_eq!(two.hold(2 * SMALL_BYTES + 1), Err(FetchError::NoRoom));
        small.hold(SMALL_BYTES).unwrap();
        drop(one);
        two.hold(BODIES_BYTES_MAX + SMALL_BYTES).unwrap();
        drop((two, small));
        assert_eq!(spare.taken.load(Ordering::Relaxed), 0);
    }

    /// Answers each request with a body of `bytes` zeros, compressed.
    async fn packed(bytes: usize) -> String {
        use std::io::Write as _;
        use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
        let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
        encoder.write_all(&vec![b'\n'; bytes]).unwrap();
        let body = encoder.finish().unwrap();
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap().to_string();
        tokio::spawn(async move {
            while let Ok((mut stream, _)) = listener.accept().await {
                let _ = stream.read(&mut [0; 4096]).await.unwrap();
                let head = format!(
                    "HTTP/1.1 200 OK\r\ncontent-encoding: gzip\r\ncontent-length: {}\r\n\
                     connection: close\r\n\r\n",
                    body.len()
                );
                stream.write_all(&[head.as_bytes(), &body].concat()).await.unwrap();
            }
        });
        address
    }

    #[tokio::test]
    async fn a_body_is_held_until_it_is_stored_and_has_its_limits() {
        let address = packed(30 << 20).await;
        let spare = Arc::new(SpareBodies::default());
        let ask = async |limit: &str| {
            let keys = format!("body_size_limit: {limit}\nstatic_configs: [{{targets: [a]}}]");
            let job = crate::config::tests_support::job(&keys);
            let client = Clients::default().get(&job.http).unwrap();
            let fetcher = HttpFetcher::new(&job, client, Arc::clone(&spare));
            let group = crate::discovery::TargetGroup {
                source: String::new(),
                targets: Vec::new(),
                labels: stint_model::Labels::default(),
            };
            let labels =
                stint_model::Labels::from_pairs([(crate::discovery::ADDRESS, address.as_str())]);
            match Target::build(&job, &group, &labels) {
                super::super::target::Built::Active(target) => {
                    fetcher.fetch(&target, &mut Line::default(), 0).await
                }
                other => panic!("{other:?}"),
            }
        };
        let fetched = ask("0").await.unwrap();
        assert_eq!(fetched.body.len(), 30 << 20);
        let taken = spare.taken.load(Ordering::Relaxed);
        assert!((29 << 20..=31 << 20).contains(&taken), "{taken}");
        drop(fetched);
        assert_eq!(spare.taken.load(Ordering::Relaxed), 0);
        assert_eq!(ask("20MB").await.unwrap_err(), FetchError::BodyTooLarge);
        let mut others = spare.room();
        others.hold(BODIES_BYTES_MAX - (10 << 20)).unwrap();
        assert_eq!(ask("0").await.unwrap_err(), FetchError::NoRoom);
        drop(others);
        assert_eq!(spare.taken.load(Ordering::Relaxed), 0);
    }

    #[test]
    fn bodies_use_the_memory_of_earlier_ones() {
        let spare = SpareBodies::default();
        spare.keep(Vec::with_capacity(1 << 20));
        spare.keep(Vec::with_capacity(SpareBodies::BYTES_MAX + 1));
        assert_eq!(spare.kept.lock().len(), 1);
        let body = spare.take(100);
        assert!(body.is_empty() && body.capacity() >= 1 << 20);
        assert!(spare.take(100).capacity() < 1 << 20);
    }
}
