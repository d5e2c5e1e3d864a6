//! What `--web.config.file` asks for, on every port of the server: TLS, users, headers.
//!
//! The file, and the certificates that it points to, are looked at again at new connections and
//! requests, once a second at most. A file that became wrong is told of and changes nothing: what
//! held before goes on.

use std::hash::{DefaultHasher, Hash as _, Hasher as _};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use axum::body::Body;
use axum::http::{HeaderMap, HeaderName, HeaderValue, StatusCode, header};
use axum::response::{IntoResponse as _, Response};
use parking_lot::RwLock;
use prometheus::IntGauge;
use rustls::ServerConfig;
use stint_model::Clock;

use self::door::{Credentials, Door};
use crate::config::web::WebConfig;
use crate::metrics::{self, Metrics};

mod door;
mod tls;

/// How often the files are looked at.
const LOOK_EVERY: Duration = Duration::from_secs(1);

/// What is spoken over TLS on a port.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Offered {
    /// HTTP/1.1, and HTTP/2 where the file allows it.
    Http,
    /// HTTP/2 and nothing else.
    Http2Only,
}

/// The contents of the file, in force.
pub struct Web {
    file: PathBuf,
    clock: Arc<dyn Clock>,
    /// Milliseconds of the clock when the files were looked at last.
    looked_at: AtomicU64,
    rules: RwLock<Arc<Rules>>,
    is_current: IntGauge,
}

/// One version of what the file says.
pub struct Rules {
    /// The file and those that it points to.
    files: Arc<[PathBuf]>,
    /// Of their bytes.
    fingerprint: u64,
    /// With HTTP/1.1 (and HTTP/2), and with HTTP/2 alone.
    tls: Option<[Arc<ServerConfig>; 2]>,
    headers: HeaderMap,
    door: Door,
}

/// Reads the file and everything that it points to, as the server does at its start.
///
/// # Errors
/// Everything that is wrong, one per line.
pub fn check(file: &Path) -> Result<WebConfig, String> {
    read(file).map(|(config, _)| config)
}

fn read(file: &Path) -> Result<(WebConfig, Rules), String> {
    let text = std::fs::read_to_string(file)
        .map_err(|error| format!("{}: cannot read the file: {error}", file.display()))?;
    let config = WebConfig::parse(file, &text).map_err(|errors| errors.to_string())?;
    // Of what lies there before it is used: what changes in between is noticed by the next look.
    let others = config.tls.iter().flat_map(|tls| tls.files().cloned());
    let files: Arc<[PathBuf]> = std::iter::once(file.to_owned()).chain(others).collect();
    let fingerprint = fingerprint(&files);
    let wrong = |error: String| format!("{}: {error}", file.display());
    let tls = config.tls.as_ref().map(tls::build).transpose().map_err(wrong)?;
    let tls = tls.map(|tls| {
        let offering = |protocols: &[&[u8]]| {
            let mut tls = tls.clone();
            tls.alpn_protocols = protocols.iter().map(|name| name.to_vec()).collect();
            Arc::new(tls)
        };
        let http: &[&[u8]] = if config.http2 { &[b"h2", b"http/1.1"] } else { &[b"http/1.1"] };
        [offering(http), offering(&[b"h2"])]
    });
    let mut headers = HeaderMap::new();
    for (name, value) in &config.headers {
        let name = HeaderName::from_bytes(name.as_bytes()).map_err(|e| wrong(e.to_string()))?;
        let value = HeaderValue::from_str(value).map_err(|e| wrong(e.to_string()))?;
        headers.insert(name, value);
    }
    let door = Door::new(config.users.clone()).map_err(wrong)?;
    Ok((config, Rules { files, fingerprint, tls, headers, door }))
}

/// Of the contents of all files; what cannot be read counts as empty.
fn fingerprint(files: &[PathBuf]) -> u64 {
    let mut hasher = DefaultHasher::new();
    for file in files {
        std::fs::read(file).unwrap_or_default().hash(&mut hasher);
    }
    hasher.finish()
}

/// What a look at the files found.
enum Looked {
    Unchanged,
    Changed(Box<Rules>),
    Wrong(String),
}

fn look(file: &Path, known: &Rules) -> Looked {
    if fingerprint(&known.files) == known.fingerprint {
        return Looked::Unchanged;
    }
    match read(file) {
        Ok((config, rules)) => {
            warn_of(&config);
            Looked::Changed(Box::new(rules))
        }
        Err(error) => Looked::Wrong(error),
    }
}

fn warn_of(config: &WebConfig) {
    for warning in &config.warnings {
        tracing::warn!("{warning}");
    }
}

impl Web {
    /// Reads `file`.
    ///
    /// # Errors
    /// Everything that is wrong with it.
    pub fn open(file: &Path, clock: Arc<dyn Clock>, metrics: &Metrics) -> Result<Self, String> {
        let (config, rules) = read(file)?;
        warn_of(&config);
        let is_current = metrics::int_gauge(
            metrics.registry(),
            "stint_web_config_last_reload_successful",
            "Whether the web configuration in force is the one in the file.",
        );
        is_current.set(1);
        Ok(Self {
            file: file.to_owned(),
            looked_at: AtomicU64::new(millis(clock.monotonic())),
            clock,
            rules: RwLock::new(Arc::new(rules)),
            is_current,
        })
    }

    /// What holds now; looks at the files first where it is time.
    pub async fn rules(&self) -> Arc<Rules> {
        if self.is_time() {
            let (file, known) = (self.file.clone(), Arc::clone(&self.rules.read()));
            match tokio::task::spawn_blocking(move || look(&file, &known)).await {
                Ok(Looked::Unchanged) => self.is_current.set(1),
                Ok(Looked::Changed(rules)) => {
                    *self.rules.write() = Arc::from(rules);
                    self.is_current.set(1);
                    tracing::info!(file = %self.file.display(), "web configuration reloaded");
                }
                Ok(Looked::Wrong(error)) => self.wrong(&error),
                Err(error) => self.wrong(&error.to_string()),
            }
        }
        Arc::clone(&self.rules.read())
    }

    fn wrong(&self, error: &str) {
        // Told once, and again when it was right in between.
        if self.is_current.get() == 1 {
            tracing::error!("the web configuration stays as it was: {error}");
        }
        self.is_current.set(0);
    }

    /// Whether the caller is the one who looks now.
    fn is_time(&self) -> bool {
        let (now, last) = (millis(self.clock.monotonic()), self.looked_at.load(Ordering::Relaxed));
        now.saturating_sub(last) >= LOOK_EVERY.as_millis() as u64
            && self
                .looked_at
                .compare_exchange(last, now, Ordering::Relaxed, Ordering::Relaxed)
                .is_ok()
    }
}

fn millis(time: Duration) -> u64 {
    time.as_millis() as u64
}

impl Rules {
    /// What the handshake needs; `None` without TLS.
    pub fn tls(&self, offered: Offered) -> Option<Arc<ServerConfig>> {
        let [http, http2_only] = self.tls.as_ref()?;
        Some(Arc::clone(match offered {
            Offered::Http => http,
            Offered::Http2Only => http2_only,
        }))
    }

    /// The answer to a request that may not enter; `None` for one that may.
    pub async fn refuse(&self, headers: &HeaderMap) -> Option<Response> {
        if self.door.is_open() {
            return None;
        }
        let given = headers.get(header::AUTHORIZATION);
        if let Some(given) = given.and_then(|value| Credentials::read(value.as_bytes()))
            && self.door.admits(given).await
        {
            return None;
        }
        let challenge = [(header::WWW_AUTHENTICATE, "Basic")];
        Some((StatusCode::UNAUTHORIZED, challenge, "Unauthorized\n").into_response())
    }

    /// Adds the headers of every answer.
    pub fn dress(&self, answer: &mut Response<Body>) {
        for (name, value) in &self.headers {
            answer.headers_mut().insert(name.clone(), value.clone());
        }
    }
}

#[cfg(test)]
mod tests {
    use stint_model::Timestamp;
    use stint_model::clock::SimClock;

    use super::*;

    #[tokio::test]
    async fn a_change_is_in_force_after_a_second_and_a_mistake_never() {
        let file = std::env::temp_dir().join(format!("stint-web-{}.yml", std::process::id()));
        let write = |value: &str| {
            let text = format!("http_server_config: {{headers: {{X-XSS-Protection: {value}}}}}");
            std::fs::write(&file, text).unwrap();
        };
        write("'1'");
        let clock = Arc::new(SimClock::at(Timestamp(0)));
        let web = Web::open(&file, clock.clone(), &Metrics::new()).unwrap();
        let header = async || web.rules().await.headers["x-xss-protection"].clone();
        write("'2'");
        assert_eq!(header().await, "1");
        clock.advance(stint_model::Span::SECOND);
        assert_eq!(header().await, "2");
        write("[]");
        clock.advance(stint_model::Span::SECOND);
        assert_eq!((header().await, web.is_current.get()), (HeaderValue::from_static("2"), 0));
        std::fs::remove_file(&file).unwrap();
        clock.advance(stint_model::Span::SECOND);
        assert_eq!((header().await, web.is_current.get()), (HeaderValue::from_static("2"), 0));
        write("'3'");
        clock.advance(stint_model::Span::SECOND);
        assert_eq!((header().await, web.is_current.get()), (HeaderValue::from_static("3"), 1));
        std::fs::remove_file(&file).unwrap();
    }
}
