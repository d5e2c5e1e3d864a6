//! Tokens from a server on the loopback, in virtual time.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::Arc;

use axum::Router;
use axum::extract::Form;
use axum::http::HeaderMap;
use axum::response::IntoResponse as _;
use parking_lot::Mutex;

use super::*;
use crate::config::{Auth, Credential, Secret};

/// What was asked: the `Authorization` header and the form.
type Asked = Arc<Mutex<Vec<(String, HashMap<String, String>)>>>;

/// Gives token `t1`, `t2` and so on, with what `answer` makes of number and header.
async fn server(
    answer: impl Fn(usize, &str) -> (u16, String) + Clone + Send + Sync + 'static,
) -> (SocketAddr, Asked) {
    let asked = Asked::default();
    let noted = Arc::clone(&asked);
    let take = async move |headers: HeaderMap, Form(form): Form<HashMap<String, String>>| {
        let header = headers.get("authorization");
        let header = header.map_or("", |value| value.to_str().unwrap()).to_owned();
        let number = {
            let mut noted = noted.lock();
            noted.push((header.clone(), form));
            noted.len()
        };
        let (status, body) = answer(number, &header);
        (axum::http::StatusCode::from_u16(status).unwrap(), body).into_response()
    };
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let router = Router::new().route("/token", axum::routing::post(take));
    tokio::spawn(async move { axum::serve(listener, router).await });
    (address, asked)
}

fn config(address: SocketAddr) -> OAuth2 {
    OAuth2 {
        client_id: "me&you".to_owned(),
        client_secret: Credential::Inline(Secret::new("s e=c")),
        scopes: vec!["read".to_owned(), "write".to_owned()],
        token_url: format!("http://{address}/token"),
        endpoint_params: vec![("audience".to_owned(), "x".to_owned())],
        ..OAuth2::default()
    }
}

async fn header(client: &Client) -> Result<String, ClientError> {
    let request = client.request(Method::GET, "http://localhost:1/").await?;
    let request = request.build().unwrap();
    Ok(request.headers()[AUTHORIZATION].to_str().unwrap().to_owned())
}

fn client(oauth: OAuth2) -> Client {
    let http = HttpConfig { auth: Auth::OAuth2(Box::new(oauth)), ..HttpConfig::default() };
    Client::new(&http, "test/1").unwrap()
}

#[tokio::test]
async fn a_token_is_asked_for_once_and_anew_near_its_end() {
    let good = |number: usize, _: &str| {
        let end = if number == 1 { 11 } else { 3600 };
        (
            200,
            format!(
                r#"{{"access_token": "t{number}", "token_type": "bearer", "expires_in": {end}}}"#
            ),
        )
    };
    let (address, asked) = server(good).await;
    let client = client(config(address));
    let both = tokio::join!(header(&client), header(&client));
    assert_eq!(both, (Ok("Bearer t1".to_owned()), Ok("Bearer t1".to_owned())));
    assert_eq!(asked.lock().len(), 1, "whoever comes meanwhile waits for the same token");
    let (sent, form) = asked.lock()[0].clone();
    assert_eq!(sent, format!("Basic {}", STANDARD.encode("me%26you:s+e%3Dc")));
    let mut fields: Vec<_> =
        form.into_iter().map(|(key, value)| format!("{key}={value}")).collect();
    fields.sort();
    assert_eq!(fields, ["audience=x", "grant_type=client_credentials", "scope=read write"]);
    // A second later it is too near its end.
    tokio::time::pause();
    tokio::time::advance(Duration::from_secs(2)).await;
    tokio::time::resume();
    assert_eq!(header(&client).await.unwrap(), "Bearer t2");
    assert_eq!(header(&client).await.unwrap(), "Bearer t2");
}

#[tokio::test]
async fn a_server_that_wants_the_secret_in_the_form_gets_it_there() {
    let form_only = |number: usize, header: &str| {
        if header.is_empty() {
            (200, format!(r#"{{"access_token": "t{number}", "expires_in": "60"}}"#))
        } else {
            (401, "not so".to_owned())
        }
    };
    let (address, asked) = server(form_only).await;
    assert_eq!(header(&client(config(address))).await.unwrap(), "Bearer t2");
    let (_, form) = asked.lock()[1].clone();
    assert_eq!((&*form["client_id"], &*form["client_secret"]), ("me&you", "s e=c"));
}

#[tokio::test]
async fn another_secret_needs_another_token() {
    let path = std::env::temp_dir().join(format!("stint-oauth-{}", std::process::id()));
    std::fs::write(&path, "one\n").unwrap();
    let (address, asked) =
        server(|number, _| (200, format!(r#"{{"access_token": "t{number}"}}"#))).await;
    let secret = Credential::File(path.clone());
    let client = client(OAuth2 { client_secret: secret, ..config(address) });
    assert_eq!(header(&client).await.unwrap(), "Bearer t1");
    assert_eq!(header(&client).await.unwrap(), "Bearer t1");
    std::fs::write(&path, "two\n").unwrap();
    assert_eq!(header(&client).await.unwrap(), "Bearer t2");
    assert_eq!(asked.lock()[1].0, format!("Basic {}", STANDARD.encode("me%26you:two")));
    std::fs::remove_file(&path).unwrap();
    let error = header(&client).await.unwrap_err().to_string();
    assert!(error.contains("cannot read"), "{error}");
}

#[tokio::test]
async fn what_is_no_token_is_told_without_the_secret() {
    for (status, body, text) in [
        (400, "bad client".to_owned(), "HTTP status 400 Bad Request: bad client"),
        (200, "{}".to_owned(), "missing field `access_token`"),
        (200, r#"{"access_token": ""}"#.to_owned(), "access_token is empty"),
        (200, r#"{"access_token": "t", "expires_in": "soon"}"#.to_owned(), "not a number"),
        (200, r#"{"access_token": "a\nb"}"#.to_owned(), "header authorization"),
        (200, " ".repeat(ANSWER_MAX + 1), "longer than 1 MiB"),
    ] {
        let (address, _) = server(move |_, _| (status, body.clone())).await;
        let error = header(&client(config(address))).await.unwrap_err().to_string();
        assert!(error.contains(text) && !error.contains("s e=c"), "{text} in {error}");
    }
    let nowhere = OAuth2 {
        token_url: "http://u:hunter2@127.0.0.1:1/token?k=v".to_owned(),
        ..OAuth2::default()
    };
    let error = header(&client(nowhere)).await.unwrap_err().to_string();
    assert!(error.contains("http://u@127.0.0.1:1/token:") && !error.contains("hunter2"), "{error}");
}
