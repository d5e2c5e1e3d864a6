//! The addresses under which the server is known: external URL, route prefix, own address.

use std::net::SocketAddr;

use anyhow::bail;

/// Where the server is to be found from outside.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Locations {
    /// The URL under which others reach it, without a slash at the end.
    pub external_url: String,
    /// The path before every route, without a slash at the end; empty for none.
    pub route_prefix: String,
    /// The path before every link in pages, likewise: what browsers see, where a proxy may take away
    /// what is no part of the routes.
    pub link_prefix: String,
}

impl Locations {
    /// From the flags `--web.external-url` (may be empty) and `--web.route-prefix`.
    ///
    /// # Errors
    /// A URL that is none.
    pub fn new(
        external_url: &str,
        route_prefix: Option<&str>,
        hostname: &str,
        listening_on: SocketAddr,
    ) -> anyhow::Result<Self> {
        let is_told = !external_url.is_empty();
        let external_url = if is_told {
            external_url.trim_end_matches('/').to_owned()
        } else {
            format!("http://{hostname}:{}", listening_on.port())
        };
        if external_url.starts_with(['"', '\'']) {
            bail!("external URL must not begin or end with quotes: {external_url}");
        }
        let Some((scheme, rest)) = external_url.split_once("://") else {
            bail!("external URL has no scheme: {external_url}; use http://HOST/PATH");
        };
        if !matches!(scheme, "http" | "https") || rest.starts_with('/') || rest.is_empty() {
            bail!("not an external URL: {external_url}; use http://HOST/PATH");
        }
        let path = rest.find('/').and_then(|at| rest.get(at..)).unwrap_or_default();
        let route_prefix = normal_path(route_prefix.unwrap_or(path));
        let link_prefix = if is_told { normal_path(path) } else { route_prefix.clone() };
        Ok(Self { external_url, route_prefix, link_prefix })
    }
}

/// `/a/b` for `a/b/`, nothing for `/`.
fn normal_path(path: &str) -> String {
    let path = path.trim_matches('/');
    if path.is_empty() { String::new() } else { format!("/{path}") }
}

/// How the server reaches itself: `host:port`, where the host that means "all" becomes localhost.
pub fn own_address(listening_on: SocketAddr) -> String {
    if listening_on.ip().is_unspecified() {
        format!("localhost:{}", listening_on.port())
    } else {
        listening_on.to_string()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(url: &str, prefix: Option<&str>, external_url: &str, [route, link]: [&str; 2]) {
        let listening_on = "0.0.0.0:9090".parse().unwrap();
        let locations = Locations::new(url, prefix, "host", listening_on).unwrap();
        let expected = Locations {
            external_url: external_url.into(),
            route_prefix: route.into(),
            link_prefix: link.into(),
        };
        assert_eq!(locations, expected);
    }

    #[test]
    fn the_prefix_is_the_path_of_the_external_url() {
        check("", None, "http://host:9090", ["", ""]);
        check("", Some("/x"), "http://host:9090", ["/x", "/x"]);
        check("https://a.b/prom/", None, "https://a.b/prom", ["/prom", "/prom"]);
        check("https://a.b/prom", Some("/"), "https://a.b/prom", ["", "/prom"]);
        check("https://a.b", Some("x/y/"), "https://a.b", ["/x/y", ""]);
    }

    #[test]
    fn what_is_no_url_is_refused() {
        let listening_on = "0.0.0.0:9090".parse().unwrap();
        for url in ["\"http://a\"", "a.b", "ftp://a", "http://", "http:///x"] {
            assert!(Locations::new(url, None, "host", listening_on).is_err(), "{url}");
        }
    }

    #[test]
    fn the_own_address_can_be_connected_to() {
        assert_eq!(own_address("0.0.0.0:9090".parse().unwrap()), "localhost:9090");
        assert_eq!(own_address("127.0.0.1:80".parse().unwrap()), "127.0.0.1:80");
    }
}
