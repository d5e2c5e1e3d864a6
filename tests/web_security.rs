//! `--web.config.file`: TLS, certificates of clients, users, headers, and what is read again.

use std::fmt::Write as _;
use std::path::Path;

use stint_model::Span;

use crate::support::{TestDir, TestServer};

const EMPTY: &str = "global: {scrape_interval: 1m}\n";
const CERTIFICATES: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/certificates");

/// A server whose web configuration is `web`.
async fn server(dir: &TestDir, web: &str, flags: &[&str]) -> TestServer {
    let file = write(dir, web);
    let file = format!("--web.config.file={file}");
    TestServer::start(dir, EMPTY, &[flags, &[&file]].concat()).await
}

fn write(dir: &TestDir, web: &str) -> String {
    let file = dir.path().join("web.yml");
    std::fs::write(&file, web.replace("CERTIFICATES", CERTIFICATES)).unwrap();
    file.display().to_string()
}

fn https(server: &TestServer, path: &str) -> String {
    format!("{}{path}", server.url.replace("http://", "https://"))
}

/// A client that trusts the test authority, with a certificate or without.
fn client(certificate: Option<&str>) -> reqwest::Client {
    let read = |name: &str| std::fs::read(Path::new(CERTIFICATES).join(name)).unwrap();
    let ca = reqwest::Certificate::from_pem(&read("ca.crt")).unwrap();
    let mut builder = reqwest::Client::builder()
        .no_proxy()
        .tls_built_in_root_certs(false)
        .add_root_certificate(ca);
    if let Some(name) = certificate {
        let mut pem = read(&format!("{name}.crt"));
        pem.extend(read(&format!("{name}.key")));
        builder = builder.identity(reqwest::Identity::from_pem(&pem).unwrap());
    }
    builder.build().unwrap()
}

const TLS: &str = "tls_server_config:
  cert_file: CERTIFICATES/server.crt
  key_file: CERTIFICATES/server.key
";

#[tokio::test]
async fn tls_is_spoken_and_nothing_else() {
    let dir = TestDir::new();
    let headers = "http_server_config: {headers: {X-Frame-Options: deny}}\n";
    let server = server(&dir, &format!("{TLS}{headers}"), &[]).await;
    let answer = client(None).get(https(&server, "/-/healthy")).send().await.unwrap();
    assert_eq!((answer.status().as_u16(), answer.version()), (200, reqwest::Version::HTTP_2));
    assert_eq!(answer.headers()["x-frame-options"], "deny");
    let plain = server.get("/-/healthy").await;
    assert_eq!(plain.status, 400);
    assert_eq!(plain.text, "Client sent an HTTP request to an HTTPS server.\n");
    server.stop().await;
}

#[tokio::test]
async fn http2_and_old_versions_can_be_switched_off() {
    let dir = TestDir::new();
    let web = format!("{TLS}  min_version: TLS13\nhttp_server_config: {{http2: false}}\n");
    let server = server(&dir, &web, &[]).await;
    let answer = client(None).get(https(&server, "/-/healthy")).send().await.unwrap();
    assert_eq!(answer.version(), reqwest::Version::HTTP_11);
    let older = reqwest::Client::builder()
        .no_proxy()
        .danger_accept_invalid_certs(true)
        .max_tls_version(reqwest::tls::Version::TLS_1_2)
        .build()
        .unwrap();
    assert!(older.get(https(&server, "/-/healthy")).send().await.is_err());
    server.stop().await;
}

#[tokio::test]
async fn clients_show_what_is_demanded() {
    // Who gets in without a certificate, with one of the authority, with one of anybody.
    for (auth, ca, expected) in [
        ("NoClientCert", false, [true, true, true]),
        ("RequestClientCert", false, [true, true, true]),
        ("RequireAnyClientCert", false, [false, true, true]),
        ("VerifyClientCertIfGiven", true, [true, true, false]),
        ("RequireAndVerifyClientCert", true, [false, true, false]),
    ] {
        let dir = TestDir::new();
        let ca = if ca { "  client_ca_file: CERTIFICATES/ca.crt\n" } else { "" };
        let web = format!("{TLS}  client_auth_type: {auth}\n{ca}");
        let server = server(&dir, &web, &[]).await;
        for (certificate, expected) in
            [None, Some("client"), Some("stranger")].into_iter().zip(expected)
        {
            let answer = client(certificate).get(https(&server, "/-/healthy")).send().await;
            assert_eq!(answer.is_ok(), expected, "{auth} {certificate:?} {answer:?}");
        }
        server.stop().await;
    }
}

#[tokio::test]
async fn clients_need_one_of_the_allowed_names() {
    for (names, expected) in [
        ("client.example", true),
        ("spiffe://example/client", true),
        ("10.0.0.7", true),
        ("other.example, spiffe://example", false),
        ("10.0.0.8", false),
    ] {
        let dir = TestDir::new();
        let more = "client_ca_file: CERTIFICATES/ca.crt";
        let web = format!(
            "{TLS}  client_auth_type: RequireAndVerifyClientCert\n  {more}\n  \
             client_allowed_sans: [{names}]\n"
        );
        let server = server(&dir, &web, &[]).await;
        let answer = client(Some("client")).get(https(&server, "/-/healthy")).send().await;
        assert_eq!(answer.is_ok(), expected, "{names} {answer:?}");
        server.stop().await;
    }
}

fn users(users: &[(&str, &str)]) -> String {
    let mut text = "basic_auth_users:\n".to_owned();
    for (user, password) in users {
        let hash = bcrypt::hash(password, 4).unwrap();
        let _ = writeln!(text, "  {user}: {hash}");
    }
    text
}

async fn status(request: reqwest::RequestBuilder) -> u16 {
    request.send().await.unwrap().status().as_u16()
}

#[tokio::test]
async fn users_are_asked_everywhere_and_changes_count_at_once() {
    let dir = TestDir::new();
    let flags =
        ["--otlp.http-listen-address=127.0.0.1:0", "--otlp.grpc-listen-address=127.0.0.1:0"];
    let server = server(&dir, &users(&[("ann", "one")]), &flags).await;
    let get = |path: &str| server.request(reqwest::Method::GET, path);
    for path in ["/-/healthy", "/-/ready", "/metrics", "/api/v1/query?query=1", "/nowhere"] {
        let answer = get(path).send().await.unwrap();
        assert_eq!(answer.status().as_u16(), 401, "{path}");
        assert_eq!(answer.headers()["www-authenticate"], "Basic");
        assert_eq!(answer.text().await.unwrap(), "Unauthorized\n");
    }
    assert_eq!(status(get("/-/healthy").basic_auth("ann", Some("two"))).await, 401);
    assert_eq!(status(get("/-/healthy").basic_auth("bob", Some("one"))).await, 401);
    assert_eq!(status(get("/-/healthy").basic_auth("ann", Some("one"))).await, 200);

    let [grpc, http] = server.otlp.clone();
    let plain = reqwest::Client::builder().no_proxy().build().unwrap();
    let post = plain.post(format!("{}/v1/metrics", http.unwrap()));
    let post = post.header("Content-Type", "application/json").body("{}");
    assert_eq!(status(post.try_clone().unwrap()).await, 401);
    assert_eq!(status(post.basic_auth("ann", Some("one"))).await, 200);
    let http2 = reqwest::Client::builder().no_proxy().http2_prior_knowledge().build().unwrap();
    let call = http2.post(format!("{}/x/y", grpc.unwrap()));
    let call = call.header("Content-Type", "application/grpc");
    assert_eq!(status(call.try_clone().unwrap()).await, 401);
    assert_eq!(status(call.basic_auth("ann", Some("one"))).await, 200);

    write(&dir, &users(&[("bob", "one")]));
    server.clock.advance(Span::SECOND);
    assert_eq!(status(get("/-/healthy").basic_auth("ann", Some("one"))).await, 401);
    assert_eq!(status(get("/-/healthy").basic_auth("bob", Some("one"))).await, 200);
    server.stop().await;
}
