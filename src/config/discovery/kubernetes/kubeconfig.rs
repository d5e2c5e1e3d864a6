//! The file that tells clients of Kubernetes where the API server is and how they are known to it.

use std::path::Path;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;

use crate::config::decode::{Context, Section, is_off};
use crate::config::error::ConfigErrors;
use crate::config::http::{Auth, Credential, HttpConfig, HttpHeader, TlsConfig, credential};
use crate::config::node::{Position, yaml};
use crate::config::secret::Secret;

/// How an API server is reached.
#[derive(Clone, Debug, PartialEq)]
pub struct KubeAccess {
    /// Its address, without a final slash.
    pub url: String,
    /// How requests are made.
    pub http: HttpConfig,
}

/// What the current context of the kubeconfig `path`, which holds `text`, says.
///
/// # Errors
/// Everything that is wrong in it, with lines; no secret is told.
pub fn read_kubeconfig(path: &Path, text: &str) -> Result<KubeAccess, ConfigErrors> {
    let mut cx = Context::new(path);
    // Every tool keeps its own things in it.
    cx.ignore_unknown = true;
    let access = match yaml::parse(text) {
        Ok(root) => read(Section::open(&cx, &root, "")),
        Err(error) => {
            cx.syntax(error);
            None
        }
    };
    if access.is_none() {
        cx.error(Position { line: 1, column: 1 }, "no API server can be told from it");
    }
    let (errors, _) = cx.finish();
    match access {
        Some(access) if errors.is_empty() => Ok(access),
        _ => Err(ConfigErrors(errors)),
    }
}

fn read(mut root: Section<'_>) -> Option<KubeAccess> {
    let current = root.string_or("current-context", "");
    if current.is_empty() {
        root.error("current-context", "`current-context` is missing");
        return None;
    }
    let mut context = named(&mut root, "contexts", "context", &current)?;
    let (cluster, user) = (context.string_or("cluster", ""), context.string_or("user", ""));
    let mut cluster = named(&mut root, "clusters", "cluster", &cluster)?;
    let mut http = HttpConfig::default();
    let url = cluster.parsed("server", super::read_url).unwrap_or_default();
    if url.is_empty() {
        cluster.error("server", "`server` is missing");
        return None;
    }
    http.proxy.url = cluster
        .parsed("proxy-url", |text| {
            if text.is_empty() { Ok(None) } else { crate::config::http::read_url(text).map(Some) }
        })
        .flatten();
    // Unless another way is named, that of the environment is taken.
    http.proxy.from_environment = http.proxy.url.is_none();
    http.tls.ca = data_or_file(&mut cluster, "certificate-authority-data", "certificate-authority");
    http.tls.insecure_skip_verify = cluster.bool_or("insecure-skip-tls-verify", false);
    let name = cluster.text("tls-server-name").filter(|name| !name.is_empty());
    http.tls.server_name = name.map(str::to_owned);
    if !user.is_empty() {
        read_user(&mut named(&mut root, "users", "user", &user)?, &mut http);
    }
    Some(KubeAccess { url: url.trim_end_matches('/').to_owned(), http })
}

/// What stands under `inner` in the entry called `name` of the list `list`.
fn named<'a>(
    root: &mut Section<'a>,
    list: &'static str,
    inner: &'static str,
    name: &str,
) -> Option<Section<'a>> {
    for mut entry in root.sections(list) {
        if entry.text("name") == Some(name) {
            let at = entry.at;
            let section = entry.section(inner);
            if section.is_none() {
                root.cx.error(at, format!("`{inner}` of {name:?} is empty"));
            }
            return section;
        }
    }
    root.error(list, format!("no {inner} is called {name:?}"));
    None
}

fn read_user(user: &mut Section<'_>, http: &mut HttpConfig) {
    for key in ["exec", "auth-provider"] {
        let hint = "no program is run to get a token; use a token, a token's file or a certificate";
        user.unsupported(key, is_off, hint);
    }
    let certificate = data_or_file(user, "client-certificate-data", "client-certificate");
    let key = data_or_file(user, "client-key-data", "client-key");
    let TlsConfig { identity, .. } = &mut http.tls;
    match (certificate, key) {
        (Some(certificate), Some(key)) => *identity = Some((certificate, key)),
        (None, None) => {}
        _ => user.cx.error(user.at, "a client's certificate and its key belong together"),
    }
    let username = user.string_or("username", "");
    let password = user.secret("password");
    // The file is read at each request, so that it can be replaced.
    let file = user.path("tokenFile").map(Credential::File);
    let token = file.or_else(|| credential(user, "token", "tokenFile"));
    if let Some(credentials) = token {
        http.auth = Auth::Scheme { scheme: "Bearer".to_owned(), credentials };
    } else if !username.is_empty() {
        let username = Credential::Inline(Secret::new(username));
        let password = Credential::Inline(password.unwrap_or_default());
        http.auth = Auth::Basic { username, password };
    }
    let mut impersonated = |name: &str, values: Vec<String>| {
        if !values.is_empty() {
            let values = values.into_iter().map(|value| Credential::Inline(Secret::new(value)));
            http.headers.push(HttpHeader { name: name.to_owned(), values: values.collect() });
        }
    };
    impersonated("Impersonate-User", user.text("as").map(str::to_owned).into_iter().collect());
    impersonated("Impersonate-Uid", user.text("as-uid").map(str::to_owned).into_iter().collect());
    impersonated("Impersonate-Group", user.strings("as-groups"));
    let hint = "impersonate by user and group alone";
    user.unsupported("as-user-extra", is_off, hint);
}

/// The PEM that `data` holds in base 64, or the file that `file` names.
fn data_or_file(
    section: &mut Section<'_>,
    data: &'static str,
    file: &'static str,
) -> Option<Credential> {
    let inline = section.parsed(data, |text| {
        let bytes = STANDARD.decode(text.trim()).ok();
        let text = bytes.and_then(|bytes| String::from_utf8(bytes).ok());
        text.map(Secret::new).ok_or_else(|| "it is not PEM in base 64".to_owned())
    });
    let inline = inline.filter(|pem| !pem.reveal().is_empty()).map(Credential::Inline);
    inline.or(section.path(file).map(Credential::File))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn read(text: &str) -> Result<KubeAccess, String> {
        read_kubeconfig(Path::new("/k/config"), text).map_err(|errors| errors.to_string())
    }

    const GOOD: &str = "
apiVersion: v1
kind: Config
preferences: {}
current-context: two
contexts:
- {name: one, context: {cluster: x, user: x}}
- {name: two, context: {cluster: c, user: u, namespace: n}}
clusters:
- {name: c, cluster: {server: 'https://h:6443/', certificate-authority: ca.pem}}
users:
- {name: u, user: {token: secret, client-certificate-data: Q0VSVA==, client-key-data: S0VZ, as: me, as-groups: [a, b]}}
";

    #[test]
    fn the_current_context_is_followed() {
        let access = read(GOOD).unwrap();
        assert_eq!(access.url, "https://h:6443");
        let inline = |text: &str| Credential::Inline(Secret::new(text));
        let http = &access.http;
        assert_eq!(
            http.auth,
            Auth::Scheme { scheme: "Bearer".into(), credentials: inline("secret") }
        );
        assert_eq!(http.tls.ca, Some(Credential::File("/k/ca.pem".into())));
        assert_eq!(http.tls.identity, Some((inline("CERT"), inline("KEY"))));
        let headers: Vec<_> =
            http.headers.iter().map(|header| (&*header.name, header.values.len())).collect();
        assert_eq!(headers, [("Impersonate-User", 1), ("Impersonate-Group", 2)]);
        let basic = GOOD.replace("token: secret", "username: u, password: p");
        assert_eq!(
            read(&basic).unwrap().http.auth,
            Auth::Basic { username: inline("u"), password: inline("p") }
        );
        assert_eq!(http.tls.server_name, None);
        let named = GOOD.replace("certificate-authority: ca.pem", "tls-server-name: x");
        assert_eq!(read(&named).unwrap().http.tls.server_name.as_deref(), Some("x"));
        let file = GOOD.replace("token: secret", "token: secret, tokenFile: t");
        assert_eq!(
            read(&file).unwrap().http.auth,
            Auth::Scheme { scheme: "Bearer".into(), credentials: Credential::File("/k/t".into()) }
        );
    }

    proptest! {
        #[test]
        fn no_text_makes_it_panic(
            changes in proptest::collection::vec((0..GOOD.len(), "[ -~\\n]"), 0..6),
        ) {
            let mut text = GOOD.to_owned();
            for (at, character) in changes {
                text.replace_range(at..=at, &character);
            }
            let _ = read(&text);
        }
    }

    #[test]
    fn what_is_missing_or_cannot_be_is_told_without_secrets() {
        for (from, to, told) in [
            ("current-context: two", "x: y", "`current-context` is missing"),
            ("current-context: two", "current-context: three", "no context is called \"three\""),
            ("name: c, ", "name: d, ", "no cluster is called \"c\""),
            ("name: u, ", "name: d, ", "no user is called \"u\""),
            ("https://h:6443/", "h:6443", "URL scheme must be"),
            ("S0VZ", "'%%secret'", "not PEM in base 64"),
            (", client-key-data: S0VZ", "", "belong together"),
            ("token: secret", "exec: {command: aws}", "`users[0].user.exec` is not supported"),
            ("users:\n", "users: [\n", "not valid YAML"),
        ] {
            let error = read(&GOOD.replace(from, to)).unwrap_err();
            assert!(error.contains(told), "{to}: {error}");
            assert!(!error.contains("secret"), "{error}");
        }
        assert!(read("").unwrap_err().contains("current-context"));
    }
}
