//! The HTTP client options that scrape jobs and endpoints share.

use std::path::PathBuf;

use super::decode::{Section, is_off};
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
    /// A token from a server (`oauth2`).
    OAuth2(Box<OAuth2>),
}

/// How tokens are got (`oauth2`), with the client's own credentials.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct OAuth2 {
    /// Who asks.
    pub client_id: String,
    /// Proves it.
    pub client_secret: Credential,
    /// What the token shall be good for.
    pub scopes: Vec<String>,
    /// Who gives tokens.
    pub token_url: String,
    /// More fields of the question, sorted by name.
    pub endpoint_params: Vec<(String, String)>,
    /// Certificates for the way there.
    pub tls: TlsConfig,
    /// The way there.
    pub proxy: ProxyConfig,
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
    /// The name that the server's certificate must be for; without one, the URL's host.
    pub server_name: Option<String>,
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

impl HttpConfig {
    /// Every secret of a request's headers.
    pub fn credentials(&self) -> Vec<&Credential> {
        let mut credentials = match &self.auth {
            Auth::None => Vec::new(),
            Auth::Basic { username, password } => vec![username, password],
            Auth::Scheme { credentials, .. } => vec![credentials],
            Auth::OAuth2(oauth) => vec![&oauth.client_secret],
        };
        credentials.extend(self.headers.iter().flat_map(|header| &header.values));
        credentials
    }

    /// Reads the keys that stand inline in the sections of scrape jobs and endpoints.
    pub(super) fn read(section: &mut Section<'_>, http2: bool) -> Self {
        Self {
            auth: Auth::read(section),
            follow_redirects: section.bool_or("follow_redirects", true),
            enable_http2: section.bool_or("enable_http2", http2),
            tls: section.section("tls_config").map(TlsConfig::read).unwrap_or_default(),
            proxy: ProxyConfig::read(section),
            headers: read_headers(section),
        }
    }
}

/// Ways to authenticate to a cloud, which are not supported and yet exclude the others.
const CLOUD_AUTH: [&str; 3] = ["sigv4", "azuread", "google_iam"];

impl Auth {
    fn read(section: &mut Section<'_>) -> Self {
        let bearer = credential(section, "bearer_token", "bearer_token_file");
        let basic = section.section("basic_auth");
        let scheme = section.section("authorization");
        let oauth = section.section("oauth2");
        let clouds = CLOUD_AUTH.into_iter().filter(|key| section.has(key)).count();
        let given = [basic.is_some(), scheme.is_some(), oauth.is_some()];
        let given = given.into_iter().filter(|given| *given).count() + clouds;
        if given > 0 && bearer.is_some() {
            let key =
                if section.has("bearer_token") { "bearer_token" } else { "bearer_token_file" };
            section.error(
                key,
                "at most one of basic_auth, oauth2, bearer_token & bearer_token_file must be \
                 configured",
            );
        } else if given > 1 {
            let key = match (&basic, &scheme) {
                (Some(_), _) => "basic_auth",
                (None, Some(_)) => "authorization",
                (None, None) => "oauth2",
            };
            let message = if clouds > 0 {
                "at most one of basic_auth, authorization, oauth2, sigv4, azuread & google_iam \
                 must be configured"
            } else {
                "at most one of basic_auth, oauth2 & authorization must be configured"
            };
            section.error(key, message);
        }
        if let Some(oauth) = oauth {
            // When there is another one as well, the configuration is refused above.
            return Self::OAuth2(Box::new(OAuth2::read(oauth)));
        }
        match (basic, scheme, bearer) {
            (Some(mut basic), ..) => {
                let username = credential(&mut basic, "username", "username_file");
                let password = credential(&mut basic, "password", "password_file");
                basic.finish();
                Self::Basic {
                    username: username.unwrap_or_default(),
                    password: password.unwrap_or_default(),
                }
            }
            (None, Some(scheme), _) => Self::read_scheme(scheme),
            (None, None, Some(credentials)) => {
                Self::Scheme { scheme: "Bearer".to_owned(), credentials }
            }
            (None, None, None) => Self::None,
        }
    }

    fn read_scheme(mut section: Section<'_>) -> Self {
        let scheme = section.string_or("type", "Bearer");
        let scheme = scheme.trim().to_owned();
        if scheme.eq_ignore_ascii_case("basic") {
            section.error(
                "type",
                "authorization type cannot be set to \"basic\", use \"basic_auth\" instead",
            );
        }
        let credentials = credential(&mut section, "credentials", "credentials_file");
        section.finish();
        let scheme = if scheme.is_empty() { "Bearer".to_owned() } else { scheme };
        Self::Scheme { scheme, credentials: credentials.unwrap_or_default() }
    }
}

/// Grants that are not built, by the names they may have.
const OTHER_GRANTS: [&str; 1] = ["urn:ietf:params:oauth:grant-type:jwt-bearer"];

impl OAuth2 {
    fn read(mut section: Section<'_>) -> Self {
        section.parsed("grant_type", |text| match text {
            "" | "client_credentials" => Ok(()),
            other if OTHER_GRANTS.contains(&other) => {
                Err(format!("{other} is not supported yet; use client_credentials"))
            }
            other => Err(format!("unknown grant {other}; use client_credentials")),
        });
        let hint = "it belongs to a grant that is not supported; use client_credentials";
        for key in [
            "client_certificate_key",
            "client_certificate_key_file",
            "client_certificate_key_id",
            "signature_algorithm",
            "iss",
            "audience",
            "claims",
        ] {
            section.unsupported(key, is_off, hint);
        }
        let secret = credential(&mut section, "client_secret", "client_secret_file");
        let params = section.pairs("endpoint_params");
        let mut endpoint_params: Vec<_> =
            params.iter().map(|(key, value)| (key.text.clone(), (*value).to_owned())).collect();
        endpoint_params.sort();
        for key in ["client_id", "token_url"] {
            if section.text(key).unwrap_or_default().is_empty() {
                section.error(key, format!("oauth2 {key} must be configured"));
            }
        }
        let config = Self {
            client_id: section.string_or("client_id", ""),
            client_secret: secret.unwrap_or_default(),
            scopes: section.strings("scopes"),
            token_url: section
                .parsed("token_url", |text| {
                    if text.is_empty() { Ok(String::new()) } else { read_url(text) }
                })
                .unwrap_or_default(),
            endpoint_params,
            tls: section.section("tls_config").map(TlsConfig::read).unwrap_or_default(),
            proxy: ProxyConfig::read(&mut section),
        };
        section.finish();
        config
    }
}

/// The secret under `key`, or the file under `file_key` that holds it.
pub(super) fn credential(
    section: &mut Section<'_>,
    key: &'static str,
    file_key: &'static str,
) -> Option<Credential> {
    let inline = section.secret(key).filter(|secret| !secret.reveal().is_empty());
    let file = section.path(file_key);
    if inline.is_some() && file.is_some() {
        let parent = section.name().rsplit('.').next().unwrap_or_default().to_owned();
        let parent = if key.starts_with("bearer") { String::new() } else { format!("{parent} ") };
        section.error(
            file_key,
            format!("at most one of {parent}{key} & {file_key} must be configured"),
        );
    }
    inline.map(Credential::Inline).or(file.map(Credential::File))
}

impl TlsConfig {
    fn read(mut section: Section<'_>) -> Self {
        let certificate = credential(&mut section, "cert", "cert_file");
        let key = credential(&mut section, "key", "key_file");
        let identity = match (certificate, key) {
            (Some(certificate), Some(key)) => Some((certificate, key)),
            (Some(_), None) => {
                section.error(
                    "cert_file",
                    "exactly one of key or key_file must be configured when a client certificate \
                     is configured",
                );
                None
            }
            (None, Some(_)) => {
                section.error(
                    "key_file",
                    "exactly one of cert or cert_file must be configured when a client key is \
                     configured",
                );
                None
            }
            (None, None) => None,
        };
        let config = Self {
            ca: credential(&mut section, "ca", "ca_file"),
            identity,
            server_name: section
                .text("server_name")
                .filter(|name| !name.is_empty())
                .map(str::to_owned),
            insecure_skip_verify: section.bool_or("insecure_skip_verify", false),
            min_version: section.parsed("min_version", |text| version(text, true)).flatten(),
            max_version: section.parsed("max_version", |text| version(text, false)).flatten(),
        };
        if config.max_version.is_some_and(|max| config.min_version.is_some_and(|min| min > max)) {
            section.error(
                "max_version",
                "tls_config.max_version must be greater than or equal to tls_config.min_version if \
                 both are specified",
            );
        }
        section.finish();
        config
    }
}

fn version(text: &str, lowest: bool) -> Result<Option<TlsVersion>, String> {
    match text {
        "" => Ok(None),
        "TLS12" => Ok(Some(TlsVersion::Tls12)),
        "TLS13" => Ok(Some(TlsVersion::Tls13)),
        // Nothing older than 1.2 is spoken, so these lower bounds hold by themselves.
        "TLS10" | "TLS11" if lowest => Ok(None),
        "TLS10" | "TLS11" => Err(format!("{text} is not spoken, only TLS12 and TLS13")),
        _ => Err(format!("unknown TLS version: {text}")),
    }
}

impl ProxyConfig {
    fn read(section: &mut Section<'_>) -> Self {
        let url =
            section
                .parsed("proxy_url", |text| {
                    if text.is_empty() { Ok(None) } else { read_url(text).map(Some) }
                })
                .flatten();
        let from_environment = section.bool_or("proxy_from_environment", false);
        let no_proxy = section.string_or("no_proxy", "");
        let mut connect_headers = Vec::new();
        for (key, values) in section.lists("proxy_connect_header") {
            check_name(section, key.at, &key.text);
            let value = |value| (key.text.clone(), Secret::new(value));
            connect_headers.extend(values.into_iter().map(value));
        }
        if !connect_headers.is_empty() && url.is_none() && !from_environment {
            section.error(
                "proxy_connect_header",
                "if proxy_connect_header is configured, proxy_url or proxy_from_environment must \
                 also be configured",
            );
        }
        if from_environment && url.is_some() {
            section.error(
                "proxy_from_environment",
                "if proxy_from_environment is configured, proxy_url must not be configured",
            );
        }
        if from_environment && !no_proxy.is_empty() {
            section.error(
                "no_proxy",
                "if proxy_from_environment is configured, no_proxy must not be configured",
            );
        }
        if !no_proxy.is_empty() && url.is_none() && !from_environment {
            section
                .error("no_proxy", "if no_proxy is configured, proxy_url must also be configured");
        }
        Self { url, no_proxy, from_environment, connect_headers }
    }
}

/// Checks that `text` is an absolute URL with a host.
pub(super) fn read_url(text: &str) -> Result<String, String> {
    match reqwest::Url::parse(text) {
        Ok(url) if url.has_host() => Ok(text.to_owned()),
        Ok(_) => Err(format!("{text} has no host; write it as https://host/path")),
        Err(error) => Err(format!("{text} is not a URL: {error}")),
    }
}

fn check_name(section: &Section<'_>, at: super::node::Position, name: &str) {
    if reqwest::header::HeaderName::from_bytes(name.as_bytes()).is_err() {
        section.cx.error(at, format!("`{name}` is not a header name"));
    }
}

/// Headers that the client itself must set.
const RESERVED: [&str; 22] = [
    "accept-charset",
    "accept-encoding",
    "authorization",
    "connection",
    "content-encoding",
    "content-length",
    "content-type",
    "cookie",
    "date",
    "expect",
    "forwarded",
    "from",
    "host",
    "keep-alive",
    "max-forwards",
    "origin",
    "proxy-authenticate",
    "proxy-authorization",
    "transfer-encoding",
    "user-agent",
    "x-prometheus-scrape-timeout-seconds",
    "www-authenticate",
];

fn read_headers(section: &mut Section<'_>) -> Vec<HttpHeader> {
    let mut headers = Vec::new();
    for (key, mut header) in section.map_of_sections("http_headers") {
        check_name(section, key.at, &key.text);
        if RESERVED.contains(&key.text.to_ascii_lowercase().as_str()) {
            let message = format!("setting header {:?} is not allowed", key.text);
            section.cx.error(key.at, message);
        }
        let inline = header.strings("values").into_iter().chain(header.strings("secrets"));
        let mut values: Vec<_> =
            inline.map(|value| Credential::Inline(Secret::new(value))).collect();
        let files = header.strings("files");
        values.extend(files.iter().map(|file| Credential::File(section.cx.path(file))));
        header.finish();
        headers.push(HttpHeader { name: key.text.clone(), values });
    }
    headers
}
