//! `--web.config.file`: who may talk to the server, and how, in the format of Prometheus.

use std::path::{Path, PathBuf};

use super::decode::{Context, Section};
use super::error::{ConfigError, ConfigErrors};
use super::http::{Credential, TlsVersion, credential};
use super::node;
use super::secret::Secret;

/// What the file says. The default is what holds without one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct WebConfig {
    /// Certificates; `None` for HTTP without TLS.
    pub tls: Option<ServerTls>,
    /// Whether HTTP/2 is offered, which is done over TLS only.
    pub http2: bool,
    /// Headers of every answer.
    pub headers: Vec<(&'static str, String)>,
    /// Who may enter, with the bcrypt hashes of their passwords; nobody is asked when empty.
    pub users: Vec<(String, Secret)>,
    /// What is allowed and yet looks wrong.
    pub warnings: Vec<ConfigError>,
}

impl Default for WebConfig {
    fn default() -> Self {
        Self {
            tls: None,
            http2: true,
            headers: Vec::new(),
            users: Vec::new(),
            warnings: Vec::new(),
        }
    }
}

/// How the server proves who it is, and what it demands from clients.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ServerTls {
    /// PEM of the server's certificate and those that vouch for it.
    pub certificate: Credential,
    /// PEM of its private key.
    pub key: Credential,
    /// What is demanded from clients.
    pub client_auth: ClientAuth,
    /// PEM of the authorities that vouch for clients.
    pub client_ca: Option<Credential>,
    /// A client's certificate has to be for one of these names; empty for any.
    pub client_allowed_sans: Vec<String>,
    /// Lowest version that is spoken.
    pub min_version: TlsVersion,
    /// Highest version that is spoken.
    pub max_version: TlsVersion,
    /// Names of the suites of TLS 1.2; empty for all that are safe.
    pub cipher_suites: Vec<String>,
    /// Whether the server's order of suites counts, and not the client's.
    pub prefer_server_cipher_suites: bool,
    /// Names of key exchange groups; empty for all.
    pub curve_preferences: Vec<String>,
}

impl ServerTls {
    /// The files that it refers to.
    pub fn files(&self) -> impl Iterator<Item = &PathBuf> {
        let all = [Some(&self.certificate), Some(&self.key), self.client_ca.as_ref()];
        all.into_iter().flatten().filter_map(|credential| match credential {
            Credential::File(path) => Some(path),
            Credential::Inline(_) => None,
        })
    }
}

/// What is demanded from clients.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum ClientAuth {
    /// Nothing.
    #[default]
    None,
    /// A certificate is asked for; none, or any, will do.
    Request,
    /// A certificate, whoever made it.
    RequireAny,
    /// A certificate may be missing, but not be wrong.
    VerifyIfGiven,
    /// A certificate that an authority vouches for.
    RequireAndVerify,
}

impl ClientAuth {
    /// Whether certificates of clients are checked against authorities.
    pub fn verifies(self) -> bool {
        matches!(self, Self::VerifyIfGiven | Self::RequireAndVerify)
    }

    fn parse(text: &str) -> Result<Self, String> {
        match text {
            "" | "NoClientCert" => Ok(Self::None),
            "RequestClientCert" => Ok(Self::Request),
            "RequireAnyClientCert" => Ok(Self::RequireAny),
            "VerifyClientCertIfGiven" => Ok(Self::VerifyIfGiven),
            "RequireAndVerifyClientCert" => Ok(Self::RequireAndVerify),
            _ => Err(format!(
                "{text} is unknown; use NoClientCert, RequestClientCert, RequireAnyClientCert, \
                 VerifyClientCertIfGiven or RequireAndVerifyClientCert"
            )),
        }
    }
}

impl WebConfig {
    /// Reads the file called `file`; paths in it start at its directory.
    ///
    /// # Errors
    /// Everything that is wrong in it.
    pub fn parse(file: &Path, text: &str) -> Result<Self, ConfigErrors> {
        let cx = Context::new(file);
        let mut found = Self::default();
        match node::yaml::parse(text) {
            Ok(root) => found = read(Section::open(&cx, &root, "")),
            Err(error) => cx.syntax(error),
        }
        let (errors, warnings) = cx.finish();
        found.warnings = warnings;
        if errors.is_empty() { Ok(found) } else { Err(ConfigErrors(errors)) }
    }
}

/// The costs that a bcrypt hash can have.
const COSTS: std::ops::RangeInclusive<u32> = 4..=31;

fn read(mut root: Section<'_>) -> WebConfig {
    let mut config = WebConfig::default();
    if let Some(section) = root.section("tls_server_config") {
        config.tls = read_tls(section);
    }
    if let Some(mut http) = root.section("http_server_config") {
        config.http2 = http.bool_or("http2", true);
        if let Some(section) = http.section("headers") {
            config.headers = read_headers(section);
        }
        http.finish();
    }
    for (user, hash) in root.pairs("basic_auth_users") {
        // The hash stays out of the message: it is what an attacker would start from.
        let parts = hash.parse::<bcrypt::HashParts>();
        if !parts.is_ok_and(|parts| COSTS.contains(&parts.get_cost())) {
            let message = format!("the password of user `{}` is not a bcrypt hash", user.text);
            root.cx.error(user.at, message);
        }
        config.users.push((user.text.clone(), Secret::new(hash)));
    }
    root.finish();
    config
}

/// `None` for a section in which nothing is written, as well as for one with mistakes.
fn read_tls(mut section: Section<'_>) -> Option<ServerTls> {
    let is_empty = section.is_empty();
    let certificate = credential(&mut section, "cert", "cert_file");
    let key = credential(&mut section, "key", "key_file");
    let client_ca = credential(&mut section, "client_ca", "client_ca_file");
    let client_auth = section.parsed("client_auth_type", ClientAuth::parse).unwrap_or_default();
    let client_allowed_sans = section.strings("client_allowed_sans");
    let min_version = read_min_version(&mut section);
    let max_version = section
        .parsed("max_version", |text| match text {
            "" => Ok(TlsVersion::Tls13),
            _ => version(text),
        })
        .unwrap_or(TlsVersion::Tls13);
    let cipher_suites = section.strings("cipher_suites");
    let prefer_server_cipher_suites = section.bool_or("prefer_server_cipher_suites", true);
    let curve_preferences = section.strings("curve_preferences");
    if min_version > max_version {
        section.error("max_version", "max_version must not be lower than min_version");
    }
    if client_auth.verifies() && client_ca.is_none() {
        let message = "client_ca_file must say who vouches for clients";
        section.error("client_auth_type", message);
    }
    if client_ca.is_some() && client_auth == ClientAuth::None {
        let message = "an authority for clients is given, and client_auth_type asks for nothing";
        section.error("client_ca_file", message);
    }
    for (key, is_missing, other) in [
        ("key_file", certificate.is_none(), "one of cert and cert_file is missing"),
        ("cert_file", key.is_none(), "one of key and key_file is missing"),
    ] {
        if is_missing && !is_empty {
            section.error(key, other);
        }
    }
    section.finish();
    Some(ServerTls {
        certificate: certificate?,
        key: key?,
        client_auth,
        client_ca,
        client_allowed_sans,
        min_version,
        max_version,
        cipher_suites,
        prefer_server_cipher_suites,
        curve_preferences,
    })
}

fn read_min_version(section: &mut Section<'_>) -> TlsVersion {
    let text = section.string_or("min_version", "");
    match text.as_str() {
        "" => TlsVersion::Tls12,
        "TLS10" | "TLS11" => {
            section.warn("min_version", "nothing older than TLS12 is spoken");
            TlsVersion::Tls12
        }
        text => version(text).unwrap_or_else(|message| {
            section.error("min_version", format!("`min_version`: {message}"));
            TlsVersion::Tls12
        }),
    }
}

fn version(text: &str) -> Result<TlsVersion, String> {
    match text {
        "TLS12" => Ok(TlsVersion::Tls12),
        "TLS13" => Ok(TlsVersion::Tls13),
        "TLS10" | "TLS11" => Err(format!("{text} is not spoken, only TLS12 and TLS13")),
        _ => Err(format!("unknown TLS version: {text}")),
    }
}

/// The headers that may be set, with the values they may have; none for any.
const HEADERS: [(&str, &[&str]); 5] = [
    ("Content-Security-Policy", &[]),
    ("X-Frame-Options", &["deny", "sameorigin"]),
    ("X-Content-Type-Options", &["nosniff"]),
    ("X-XSS-Protection", &[]),
    ("Strict-Transport-Security", &[]),
];

fn read_headers(mut section: Section<'_>) -> Vec<(&'static str, String)> {
    let mut headers = Vec::new();
    for (name, allowed) in HEADERS {
        let Some(value) = section.text(name).filter(|value| !value.is_empty()) else { continue };
        let lower = value.to_ascii_lowercase();
        if !allowed.is_empty() && !allowed.contains(&lower.as_str()) {
            let allowed = allowed.join(" or ");
            section.error(name, format!("{name} can be {allowed}, not {value}"));
        } else if reqwest::header::HeaderValue::from_str(value).is_err() {
            section.error(name, format!("the value of {name} cannot stand in a header"));
        } else {
            headers.push((name, value.to_owned()));
        }
    }
    section.finish();
    headers
}

#[cfg(test)]
mod tests {
    use super::*;

    const HASH: &str = "$2b$04$mHmuuWxPGkLuR1Zw4JYD4eNLZN3GXLLl8mHLDqWJvYhK2rYYrN6fO";

    fn parse(text: &str) -> Result<WebConfig, String> {
        WebConfig::parse(Path::new("dir/web.yml"), text).map_err(|errors| errors.to_string())
    }

    #[test]
    fn an_empty_file_asks_for_nothing() {
        assert_eq!(parse(""), Ok(WebConfig::default()));
        assert_eq!(parse("tls_server_config: {}"), Ok(WebConfig::default()));
    }

    #[test]
    fn everything_is_read() {
        let text = format!(
            "tls_server_config:
  cert_file: server.crt
  key_file: /keys/server.key
  client_auth_type: RequireAndVerifyClientCert
  client_ca_file: ca.crt
  client_allowed_sans: [a.example]
  min_version: TLS13
  cipher_suites: [TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256]
  prefer_server_cipher_suites: false
  curve_preferences: [X25519]
http_server_config:
  http2: false
  headers: {{X-Frame-Options: deny, X-XSS-Protection: '1'}}
basic_auth_users:
  alice: {HASH}
"
        );
        let config = parse(&text).unwrap();
        let tls = config.tls.unwrap();
        let files: Vec<_> = tls.files().map(|file| file.display().to_string()).collect();
        assert_eq!(files, ["dir/server.crt", "/keys/server.key", "dir/ca.crt"]);
        assert_eq!(tls.client_auth, ClientAuth::RequireAndVerify);
        assert_eq!((tls.min_version, tls.max_version), (TlsVersion::Tls13, TlsVersion::Tls13));
        assert!(!tls.prefer_server_cipher_suites && !config.http2);
        let headers = [("X-Frame-Options", "deny".to_owned()), ("X-XSS-Protection", "1".into())];
        assert_eq!(config.headers, headers);
        assert_eq!(config.users, [("alice".to_owned(), Secret::new(HASH))]);
    }

    #[test]
    fn mistakes_are_told_where_they_stand_and_without_secrets() {
        for (text, message) in [
            ("tls_server_config: {cert_file: a}", "1:21: one of key and key_file is missing"),
            ("tls_server_config: {key_file: a}", "1:21: one of cert and cert_file is missing"),
            ("tls: {}", "1:1: unknown key `tls`"),
            ("basic_auth_users: {bob: hunter2}", "password of user `bob` is not a bcrypt hash"),
            ("http_server_config: {headers: {X-Frame-Options: no}}", "can be deny or sameorigin"),
            ("http_server_config: {headers: {X-Mine: a}}", "unknown key `X-Mine`"),
            ("http_server_config: {headers: {X-XSS-Protection: \"a\\nb\"}}", "in a header"),
        ] {
            let error = parse(text).unwrap_err();
            assert!(error.contains(message), "{text}: {error}");
            assert!(!error.contains("hunter2"), "{error}");
        }
        let tls = |more: &str| parse(&format!("tls_server_config: {{cert: a, key: b, {more}}}"));
        for (more, message) in [
            ("max_version: TLS11", "TLS11 is not spoken"),
            ("min_version: TLS9", "unknown TLS version: TLS9"),
            ("min_version: TLS13, max_version: TLS12", "must not be lower than min_version"),
            ("client_auth_type: Whatever", "Whatever is unknown; use NoClientCert"),
            ("client_auth_type: VerifyClientCertIfGiven", "must say who vouches for clients"),
            ("client_ca_file: a", "client_auth_type asks for nothing"),
        ] {
            let error = tls(more).unwrap_err();
            assert!(error.contains(message), "{more}: {error}");
        }
        let warnings = tls("min_version: TLS10").unwrap().warnings;
        assert!(warnings[0].message.contains("nothing older than TLS12"), "{warnings:?}");
    }
}
