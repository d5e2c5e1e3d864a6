//! OAuth 2: a token is got with the client's own credentials and kept as long as it is good.

use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use reqwest::header::{ACCEPT, AUTHORIZATION, HeaderValue};
use reqwest::{Method, StatusCode, Url};
use serde::Deserialize;
use tokio::time::Instant;

use super::client::{Client, ClientError, header_value, read};
use crate::config::{HttpConfig, OAuth2, Secret};

/// How long before its end a token counts as over.
const SPARE: Duration = Duration::from_secs(10);
/// When a question for a token is given up.
const TIMEOUT: Duration = Duration::from_secs(30);
/// The longest answer that is read, in bytes.
const ANSWER_MAX: usize = 1 << 20;
/// How many characters of a refusal are told.
const REASON_MAX: usize = 300;

/// Gets tokens and keeps the newest.
#[derive(Debug)]
pub(super) struct Tokens {
    config: OAuth2,
    client: Client,
    /// Held while a token is got, so that everybody waits for the same one.
    current: tokio::sync::Mutex<Option<Token>>,
}

#[derive(Debug)]
struct Token {
    authorization: HeaderValue,
    /// `None` = it has no end.
    until: Option<Instant>,
    /// What it was got with: another secret needs another token.
    secret: Secret,
}

/// How the client's credentials are sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Style {
    Header,
    Form,
}

#[derive(Deserialize)]
struct Answer {
    access_token: String,
    #[serde(default)]
    token_type: Option<String>,
    #[serde(default)]
    expires_in: Option<Seconds>,
}

/// Some servers write the number in quotes.
#[derive(Deserialize)]
#[serde(untagged)]
enum Seconds {
    Number(f64),
    Text(String),
}

impl Tokens {
    pub(super) fn new(config: &OAuth2, user_agent: &str) -> Result<Self, ClientError> {
        let http = HttpConfig {
            tls: config.tls.clone(),
            proxy: config.proxy.clone(),
            ..HttpConfig::default()
        };
        let client = Client::posting(&http, user_agent)?;
        Ok(Self { config: config.clone(), client, current: tokio::sync::Mutex::default() })
    }

    /// The value of `Authorization`, with the token that is there or with a new one.
    pub(super) async fn authorization(&self) -> Result<HeaderValue, ClientError> {
        let secret = read(&self.config.client_secret).await?;
        let mut current = self.current.lock().await;
        let now = Instant::now();
        if let Some(token) = &*current
            && token.secret.reveal() == secret
            && token.until.is_none_or(|until| now + SPARE < until)
        {
            return Ok(token.authorization.clone());
        }
        let answer = tokio::time::timeout(TIMEOUT, self.ask(&secret)).await;
        let answer = answer.unwrap_or_else(|_| Err(self.failed("no answer in time")))?;
        let kind = match answer.token_type.as_deref().unwrap_or_default() {
            "" => "Bearer",
            kind if kind.eq_ignore_ascii_case("bearer") => "Bearer",
            kind if kind.eq_ignore_ascii_case("mac") => "MAC",
            kind if kind.eq_ignore_ascii_case("basic") => "Basic",
            kind => kind,
        };
        let seconds = match answer.expires_in {
            None => None,
            Some(Seconds::Number(seconds)) => Some(seconds),
            Some(Seconds::Text(text)) => Some(text.trim().parse().map_err(|_| {
                self.failed(&format!("expires_in is {text:?}, which is not a number"))
            })?),
        };
        let until = seconds
            .filter(|seconds| *seconds > 0.0)
            .and_then(|seconds| now.checked_add(Duration::try_from_secs_f64(seconds).ok()?));
        let authorization =
            header_value("authorization", &format!("{kind} {}", answer.access_token))?;
        *current = Some(Token {
            authorization: authorization.clone(),
            until,
            secret: Secret::new(secret),
        });
        Ok(authorization)
    }

    /// Asks with the credentials in a header, as the standard wants it, and then in the form, as
    /// some servers do.
    async fn ask(&self, secret: &str) -> Result<Answer, ClientError> {
        match self.ask_with(secret, Style::Header).await? {
            Ok(answer) => Ok(answer),
            Err(_) => self.ask_with(secret, Style::Form).await?.map_err(|said| self.failed(&said)),
        }
    }

    /// The server's answer, or what it said instead.
    async fn ask_with(
        &self,
        secret: &str,
        style: Style,
    ) -> Result<Result<Answer, String>, ClientError> {
        let config = &self.config;
        let mut form = vec![("grant_type", "client_credentials")];
        let scopes = config.scopes.join(" ");
        if !scopes.is_empty() {
            form.push(("scope", &scopes));
        }
        if style == Style::Form {
            form.push(("client_id", &config.client_id));
            if !secret.is_empty() {
                form.push(("client_secret", secret));
            }
        }
        form.extend(config.endpoint_params.iter().map(|(key, value)| (&**key, &**value)));
        let mut request = self.client.request(Method::POST, &config.token_url).await?;
        if style == Style::Header {
            let pair = format!("{}:{}", escaped(&config.client_id), escaped(secret));
            let value = format!("Basic {}", STANDARD.encode(pair));
            request = request.header(AUTHORIZATION, header_value("authorization", &value)?);
        }
        let request = request.header(ACCEPT, "application/json").form(&form);
        let broken = |error: reqwest::Error| self.failed(&super::explain(&error.without_url()));
        let mut response = request.send().await.map_err(broken)?;
        let status = response.status();
        let mut body = Vec::new();
        while let Some(chunk) = response.chunk().await.map_err(broken)? {
            if body.len() + chunk.len() > ANSWER_MAX {
                return Err(self.failed("the answer is longer than 1 MiB"));
            }
            body.extend_from_slice(&chunk);
        }
        if status != StatusCode::OK {
            let text = String::from_utf8_lossy(&body);
            let text: String = text.trim().chars().take(REASON_MAX).collect();
            return Ok(Err(format!("HTTP status {status}: {text}")));
        }
        // The answer itself is not told: it may hold the token.
        Ok(match serde_json::from_slice::<Answer>(&body) {
            Ok(answer) if answer.access_token.is_empty() => Err("access_token is empty".to_owned()),
            Ok(answer) => Ok(answer),
            Err(error) => Err(format!("the answer holds no token: {error}")),
        })
    }

    fn failed(&self, reason: &str) -> ClientError {
        ClientError::text(format!("oauth2: cannot get a token from {}: {reason}", self.place()))
    }

    /// Where tokens come from, without what is secret in the URL.
    fn place(&self) -> String {
        let Ok(mut url) = Url::parse(&self.config.token_url) else { return "token_url".to_owned() };
        url.set_query(None);
        // A URL that holds no host cannot hold a password either.
        let _ = url.set_password(None);
        url.into()
    }
}

/// `text` as a form writes it.
fn escaped(text: &str) -> String {
    let url = Url::parse_with_params("http://x/", [(text, "")]);
    let query = url.as_ref().ok().and_then(Url::query).unwrap_or_default();
    query.trim_end_matches('=').to_owned()
}

#[cfg(test)]
mod tests;
