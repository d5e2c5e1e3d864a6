//! The HTTP client options that scrape jobs and endpoints share.

use std::path::PathBuf;

use super::secret::Secret;

/// How to talk HTTP to somebody.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct HttpConfig {
    /// Who we say we are.
    pub auth: Auth,
    /// Whether redirects are followed; credentials never cross hosts.
    pub follow_redirects: bool,
    /// Whether HTTP/2 may be negotiated.
    pub enable_http2: bool,
    /// Certificates.
    pub tls: TlsConfig,
    /// The way out.
    pub proxy: ProxyConfig,
    /// More request headers.
    pub headers: Vec<HttpHeader>,
}

impl Default for HttpConfig {
    fn default() -> Self {
        Self {
            auth: Auth::None,
            follow_redirects: true,
            enable_http2: true,
            tls: TlsConfig::default(),
            proxy: ProxyConfig::default(),
            headers: Vec::new(),
        }
    }
}

/// The `Authorization` header.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub enum Auth {
    /// None is sent.
    #[default]
    None,
    /// User and password (`basic_auth`).
    Basic {
        /// The user.
        username: Credential,
        /// The password.
        password: Credential,
    },
    /// A scheme and credentials (`authorization`, `bearer_token`).
    Scheme {
        /// Usually `Bearer`.
        scheme: String,
        /// What follows the scheme.
        credentials: Credential,
    },
}

/// A secret written in the configuration, or a file that holds it.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Credential {
    /// Written in the configuration.
    Inline(Secret),
    /// Read at each use, surrounding white space removed, so that it can be rotated.
    File(PathBuf),
}

impl Default for Credential {
    fn default() -> Self {
        Self::Inline(Secret::default())
    }
}

/// Certificates and versions.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct TlsConfig {
    /// PEM of the authorities to trust instead of the system's.
    pub ca: Option<Credential>,
    /// PEM of the client's certificate and private key.
    pub identity: Option<(Credential, Credential)>,
    /// Accept any certificate.
    pub insecure_skip_verify: bool,
    /// Lowest version to speak.
    pub min_version: Option<TlsVersion>,
    /// Highest version to speak.
    pub max_version: Option<TlsVersion>,
}

/// A version of TLS.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum TlsVersion {
    /// 1.2
    Tls12,
    /// 1.3
    Tls13,
}

/// The way out.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct ProxyConfig {
    /// The proxy for everything.
    pub url: Option<String>,
    /// Comma-separated hosts, domains and networks that are reached directly.
    pub no_proxy: String,
    /// Whether `HTTP_PROXY`, `HTTPS_PROXY` and `NO_PROXY` count instead.
    pub from_environment: bool,
    /// Headers sent to the proxy in `CONNECT`, one entry per value.
    pub connect_headers: Vec<(String, Secret)>,
}

/// A request header with the values it is sent with.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct HttpHeader {
    /// Its name.
    pub name: String,
    /// Its values, in order of the file: plain ones, secret ones, ones from files.
    pub values: Vec<Credential>,
}
