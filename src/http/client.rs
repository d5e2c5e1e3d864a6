//! An HTTP client made from an `http_config`: credentials from files are read at each request,
//! certificates when they change.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::SystemTime;

use parking_lot::Mutex;
use reqwest::header::{AUTHORIZATION, HeaderMap, HeaderName, HeaderValue};
use reqwest::{Identity, IntoUrl, Method, NoProxy, Proxy, RequestBuilder, tls};

use super::oauth::Tokens;
use crate::config::{Auth, Credential, HttpConfig, TlsVersion};

/// Why there is no client, or no request. The text names the file or the key.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct ClientError(String);

impl ClientError {
    pub(super) const fn text(text: String) -> Self {
        Self(text)
    }

    fn new(what: &str, error: &dyn std::error::Error) -> Self {
        Self(format!("{what}: {}", explain(error)))
    }
}

/// `error` and its causes on one line, without repeating what a cause says again.
pub fn explain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        let cause_text = cause.to_string();
        if !text.contains(&cause_text) {
            text.push_str(": ");
            text.push_str(&cause_text);
        }
        source = cause.source();
    }
    text
}

/// A client for one job or endpoint. Making one reads certificates. Cheap to clone; connections are shared between clones.
#[derive(Clone, Debug)]
pub struct Client {
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    config: HttpConfig,
    user_agent: String,
    kind: Kind,
    /// With OAuth 2.
    tokens: Option<Tokens>,
    /// A socket file that everything goes through.
    socket: Option<PathBuf>,
    /// Swapped whole when a certificate file changes.
    built: Mutex<Built>,
}

#[derive(Debug)]
struct Built {
    client: reqwest::Client,
    stamps: Stamps,
}

/// When each certificate file was last changed.
type Stamps = Vec<Option<SystemTime>>;

impl Client {
    /// A client that follows `config` and calls itself `user_agent`.
    ///
    /// # Errors
    /// A certificate or key cannot be read or is none, or a proxy is not usable.
    pub fn new(config: &HttpConfig, user_agent: &str) -> Result<Self, ClientError> {
        Self::with(config, user_agent, Kind::GETTING, None)
    }

    /// The same without decompression: answers come as they are sent, with the header that says how.
    ///
    /// # Errors
    /// As [`Client::new`].
    pub fn as_sent(config: &HttpConfig, user_agent: &str) -> Result<Self, ClientError> {
        Self::with(config, user_agent, Kind { decompresses: false, ..Kind::GETTING }, None)
    }

    /// The same for a server that listens on a socket file, whatever the URLs say.
    ///
    /// # Errors
    /// As [`Client::new`].
    pub fn over_socket(
        config: &HttpConfig,
        user_agent: &str,
        socket: &Path,
    ) -> Result<Self, ClientError> {
        Self::with(config, user_agent, Kind::GETTING, Some(socket.to_owned()))
    }

    /// The same for requests with a body: only redirects that repeat the request are followed.
    /// The others would turn it into a GET, whose success says nothing about the body.
    ///
    /// # Errors
    /// As [`Client::new`].
    pub fn posting(config: &HttpConfig, user_agent: &str) -> Result<Self, ClientError> {
        let kind = Kind { redirects: Redirects::Repeating, ..Kind::GETTING };
        Self::with(config, user_agent, kind, None)
    }

    fn with(
        config: &HttpConfig,
        user_agent: &str,
        kind: Kind,
        socket: Option<PathBuf>,
    ) -> Result<Self, ClientError> {
        let stamps = stamps(config);
        let client = build(config, user_agent, kind, socket.as_deref())?;
        let (config, user_agent) = (config.clone(), user_agent.to_owned());
        let tokens = match &config.auth {
            Auth::OAuth2(oauth) => Some(Tokens::new(oauth, &user_agent)?),
            Auth::None | Auth::Basic { .. } | Auth::Scheme { .. } => None,
        };
        let built = Mutex::new(Built { client, stamps });
        let shared = Shared { config, user_agent, kind, tokens, socket, built };
        Ok(Self { shared: Arc::new(shared) })
    }

    /// Whether somebody else has this client, too.
    pub fn is_shared(&self) -> bool {
        Arc::strong_count(&self.shared) > 1
    }

    /// Whether nothing stands between this client and the host of `url`: no encryption and no proxy.
    pub fn is_direct(&self, url: &reqwest::Url) -> bool {
        let Shared { config, socket, .. } = &*self.shared;
        let proxy = &config.proxy;
        let has_proxy = proxy.url.is_some() || proxy.from_environment;
        url.scheme() == "http" && !has_proxy && socket.is_none()
    }

    /// Whether it goes where answers send it.
    pub fn follows_redirects(&self) -> bool {
        self.shared.config.follow_redirects
    }

    /// A request with credentials and configured headers set.
    ///
    /// # Errors
    /// A file with a secret or certificate cannot be read, or holds what no header can.
    pub async fn request(
        &self,
        method: Method,
        url: impl IntoUrl,
    ) -> Result<RequestBuilder, ClientError> {
        let client = self.current().await?;
        let mut request = client.request(method, url);
        let config = &self.shared.config;
        if let Some(tokens) = &self.shared.tokens {
            // Through a box, since tokens are got with a client of the same kind.
            let authorization = Box::pin(tokens.authorization()).await?;
            request = request.header(AUTHORIZATION, authorization);
        }
        match &config.auth {
            Auth::None | Auth::OAuth2(_) => {}
            Auth::Basic { username, password } => {
                let (username, password) = (read(username).await?, read(password).await?);
                request = request.basic_auth(username, Some(password));
            }
            Auth::Scheme { scheme, credentials } => {
                let value = format!("{scheme} {}", read(credentials).await?);
                request = request.header(AUTHORIZATION, header_value("authorization", &value)?);
            }
        }
        for header in &config.headers {
            for value in &header.values {
                let value = header_value(&header.name, &read(value).await?)?;
                request = request.header(&header.name, value);
            }
        }
        Ok(request)
    }

    /// The client, made anew when a certificate file has changed.
    async fn current(&self) -> Result<reqwest::Client, ClientError> {
        if certificate_files(&self.shared.config).next().is_none() {
            return Ok(self.shared.built.lock().client.clone());
        }
        let shared = Arc::clone(&self.shared);
        let looked = tokio::task::spawn_blocking(move || shared.look()).await;
        looked.unwrap_or_else(|error| Err(ClientError::new("looking at certificates", &error)))
    }
}

impl Shared {
    /// Looks at the certificate files; it waits for the disk.
    fn look(&self) -> Result<reqwest::Client, ClientError> {
        let stamps = stamps(&self.config);
        let mut built = self.built.lock();
        if built.stamps != stamps {
            let socket = self.socket.as_deref();
            built.client = build(&self.config, &self.user_agent, self.kind, socket)?;
            built.stamps = stamps;
        }
        Ok(built.client.clone())
    }
}

pub(super) fn header_value(name: &str, value: &str) -> Result<HeaderValue, ClientError> {
    let mut value = HeaderValue::from_str(value)
        .map_err(|error| ClientError::new(&format!("header {name}"), &error))?;
    value.set_sensitive(true);
    Ok(value)
}

pub(super) async fn read(credential: &Credential) -> Result<String, ClientError> {
    match credential {
        Credential::Inline(secret) => Ok(secret.reveal().to_owned()),
        Credential::File(path) => match tokio::fs::read_to_string(path).await {
            Ok(text) => Ok(text.trim().to_owned()),
            Err(error) => Err(unreadable(path, &error)),
        },
    }
}

fn unreadable(path: &Path, error: &std::io::Error) -> ClientError {
    ClientError(format!("cannot read {}: {error}", path.display()))
}

pub(super) fn pem(credential: &Credential) -> Result<Vec<u8>, ClientError> {
    match credential {
        Credential::Inline(secret) => Ok(secret.reveal().as_bytes().to_vec()),
        Credential::File(path) => std::fs::read(path).map_err(|error| unreadable(path, &error)),
    }
}

fn certificate_files(config: &HttpConfig) -> impl Iterator<Item = &PathBuf> {
    let tls = &config.tls;
    let identity = tls.identity.iter().flat_map(|(certificate, key)| [certificate, key]);
    tls.ca.iter().chain(identity).filter_map(|credential| match credential {
        Credential::File(path) => Some(path),
        Credential::Inline(_) => None,
    })
}

fn stamps(config: &HttpConfig) -> Stamps {
    let modified = |path: &PathBuf| std::fs::metadata(path).and_then(|file| file.modified()).ok();
    certificate_files(config).map(modified).collect()
}

/// Which redirects are followed where the configuration allows any.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Redirects {
    All,
    /// 307 and 308, which repeat method and body.
    Repeating,
}

/// How a client deals with answers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Kind {
    redirects: Redirects,
    decompresses: bool,
}

impl Kind {
    const GETTING: Self = Self { redirects: Redirects::All, decompresses: true };
}

/// The most redirects followed for one request.
const REDIRECTS_MAX: usize = 10;

fn redirect_policy(redirects: Redirects) -> reqwest::redirect::Policy {
    match redirects {
        Redirects::All => reqwest::redirect::Policy::limited(REDIRECTS_MAX),
        Redirects::Repeating => reqwest::redirect::Policy::custom(|attempt| {
            if attempt.previous().len() > REDIRECTS_MAX {
                attempt.error("too many redirects")
            } else if matches!(attempt.status().as_u16(), 307 | 308) {
                attempt.follow()
            } else {
                attempt.stop()
            }
        }),
    }
}

fn build(
    config: &HttpConfig,
    user_agent: &str,
    kind: Kind,
    socket: Option<&Path>,
) -> Result<reqwest::Client, ClientError> {
    let redirects = if config.follow_redirects {
        redirect_policy(kind.redirects)
    } else {
        reqwest::redirect::Policy::none()
    };
    let mut builder = reqwest::Client::builder().user_agent(user_agent).redirect(redirects);
    builder = builder.gzip(kind.decompresses);
    if !config.enable_http2 {
        builder = builder.http1_only();
    }
    if let Some(path) = socket {
        builder = builder.unix_socket(path);
    }
    builder = with_tls(builder, config)?;
    let proxy = &config.proxy;
    if !proxy.from_environment {
        builder = builder.no_proxy();
    }
    if let Some(url) = &proxy.url {
        let mut way = Proxy::all(url).map_err(|error| ClientError::new("proxy_url", &error))?;
        way = way.no_proxy(NoProxy::from_string(&proxy.no_proxy));
        let mut headers = HeaderMap::new();
        for (name, value) in &proxy.connect_headers {
            let name = HeaderName::from_bytes(name.as_bytes())
                .map_err(|error| ClientError::new("proxy_connect_header", &error))?;
            headers.append(name, header_value("proxy_connect_header", value.reveal())?);
        }
        builder = builder.proxy(way.headers(headers));
    }
    builder.build().map_err(|error| ClientError::new("cannot make an HTTP client", &error))
}

fn with_tls(
    mut builder: reqwest::ClientBuilder,
    config: &HttpConfig,
) -> Result<reqwest::ClientBuilder, ClientError> {
    let tls = &config.tls;
    if let Some(own) = super::tls::client_config(tls, config.enable_http2)? {
        return Ok(builder.use_preconfigured_tls(own));
    }
    if let Some((certificate, key)) = &tls.identity {
        let mut both = pem(certificate)?;
        both.push(b'\n');
        both.extend(pem(key)?);
        let identity = Identity::from_pem(&both)
            .map_err(|error| ClientError::new("tls_config: cert and key", &error))?;
        builder = builder.identity(identity);
    }
    builder = builder.danger_accept_invalid_certs(tls.insecure_skip_verify);
    if let Some(version) = tls.min_version {
        builder = builder.min_tls_version(tls_version(version));
    }
    if let Some(version) = tls.max_version {
        builder = builder.max_tls_version(tls_version(version));
    }
    Ok(builder)
}

const fn tls_version(version: TlsVersion) -> tls::Version {
    match version {
        TlsVersion::Tls12 => tls::Version::TLS_1_2,
        TlsVersion::Tls13 => tls::Version::TLS_1_3,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{HttpHeader, Secret, TlsConfig};

    fn inline(text: &str) -> Credential {
        Credential::Inline(Secret::new(text))
    }

    async fn headers(config: &HttpConfig) -> HeaderMap {
        let client = Client::new(config, "test/1").unwrap();
        let request = client.request(Method::GET, "http://localhost:1/").await.unwrap();
        request.build().unwrap().headers().clone()
    }

    #[tokio::test]
    async fn credentials_and_headers_are_set() {
        let basic = Auth::Basic { username: inline("u"), password: inline("p") };
        let own = HttpHeader { name: "X-Team".into(), values: vec![inline("a"), inline("b")] };
        let config = HttpConfig { auth: basic, headers: vec![own], ..HttpConfig::default() };
        let found = headers(&config).await;
        assert_eq!(found[AUTHORIZATION], "Basic dTpw");
        let team: Vec<_> = found.get_all("x-team").iter().collect();
        assert_eq!(team, ["a", "b"]);
    }

    #[tokio::test]
    async fn a_token_is_read_anew_at_each_request() {
        let path = std::env::temp_dir().join(format!("stint-token-{}", std::process::id()));
        std::fs::write(&path, " one\n").unwrap();
        let credentials = Credential::File(path.clone());
        let auth = Auth::Scheme { scheme: "Bearer".into(), credentials };
        let config = HttpConfig { auth, ..HttpConfig::default() };
        let client = Client::new(&config, "test/1").unwrap();
        for (token, expected) in [("one", "Bearer one"), ("two", "Bearer two")] {
            std::fs::write(&path, token).unwrap();
            let request = client.request(Method::GET, "http://localhost:1/").await.unwrap();
            assert_eq!(request.build().unwrap().headers()[AUTHORIZATION], expected);
        }
        std::fs::remove_file(&path).unwrap();
        let error = client.request(Method::GET, "http://localhost:1/").await.unwrap_err();
        assert!(error.to_string().contains("cannot read"), "{error}");
    }

    /// Answers one request at a time: `/old` with `status` and the way to `/new`, anything else
    /// with the method that was used.
    async fn redirecting(status: u16) -> std::net::SocketAddr {
        use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        tokio::spawn(async move {
            while let Ok((mut stream, _)) = listener.accept().await {
                let mut head = Vec::new();
                while !head.windows(4).any(|end| end == b"\r\n\r\n") {
                    let mut part = [0; 512];
                    let count = stream.read(&mut part).await.unwrap();
                    head.extend_from_slice(&part[..count]);
                }
                let head = String::from_utf8(head).unwrap();
                let method = head.split(' ').next().unwrap();
                let answer = if head.contains(" /old ") {
                    format!("HTTP/1.1 {status} Moved\r\nlocation: /new\r\ncontent-length: 0")
                } else {
                    format!("HTTP/1.1 200 OK\r\nx-method: {method}\r\ncontent-length: 0")
                };
                let answer = format!("{answer}\r\nconnection: close\r\n\r\n");
                stream.write_all(answer.as_bytes()).await.unwrap();
            }
        });
        address
    }

    async fn post(client: &Client, address: std::net::SocketAddr) -> (u16, Option<String>) {
        let url = format!("http://{address}/old");
        let request = client.request(Method::POST, &url).await.unwrap();
        let answer = request.send().await.unwrap();
        let method = answer.headers().get("x-method").map(|m| m.to_str().unwrap().to_owned());
        (answer.status().as_u16(), method)
    }

    #[tokio::test]
    async fn a_body_is_never_lost_on_a_redirect() {
        let posting = Client::posting(&HttpConfig::default(), "test/1").unwrap();
        let any = Client::new(&HttpConfig::default(), "test/1").unwrap();
        let (moved, kept) = (redirecting(302).await, redirecting(307).await);
        assert_eq!(post(&posting, moved).await, (302, None));
        assert_eq!(post(&posting, kept).await, (200, Some("POST".into())));
        assert_eq!(post(&any, moved).await, (200, Some("GET".into())));
    }

    #[test]
    fn what_is_no_certificate_is_refused() {
        let refuse = |tls: TlsConfig, text: &str| {
            let config = HttpConfig { tls, ..HttpConfig::default() };
            let error = Client::new(&config, "test/1").unwrap_err().to_string();
            assert!(error.contains(text), "{error}");
        };
        refuse(TlsConfig { ca: Some(inline("x")), ..TlsConfig::default() }, "ca");
        let identity = Some((inline("x"), inline("y")));
        refuse(TlsConfig { identity, ..TlsConfig::default() }, "cert and key");
        let missing = Some(Credential::File("/nowhere/ca.pem".into()));
        refuse(TlsConfig { ca: missing, ..TlsConfig::default() }, "/nowhere/ca.pem");
    }
}
