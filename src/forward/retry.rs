//! What an endpoint's answer means, and how long to wait before the next attempt.
//!
//! Pure functions. Mimir puts an error id into the body of its answers, and the id says more than
//! the status code: 429 is a rate limit, to be retried, or a full account, where a retry can never
//! succeed. The code decides only where no id is present.

use std::time::Duration;

use stint_model::Timestamp;

/// An endpoint's answer to one request.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Response {
    /// The HTTP status code.
    pub status: u16,
    /// The `Retry-After` header as received.
    pub retry_after: Option<String>,
    /// The start of the body; enough for an error id and a message.
    pub body: String,
    /// Samples and histograms that were stored, where the answer says so, as 2.0 answers do.
    pub written: Option<u64>,
}

/// What to do with the request that was answered.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// Everything was taken.
    Stored,
    /// An HA pair's other replica is the elected one: fine, and nothing was stored.
    Deduplicated,
    /// All samples were taken; exemplars or metadata beside them were not.
    StoredBare {
        /// The error id without its prefix.
        id: String,
    },
    /// The valid rest was stored, some samples were refused for good. Never sent again.
    Refused {
        /// The error id without its prefix, or `http_<code>`.
        id: String,
    },
    /// Something was refused for good, and the answer does not say that the rest was stored:
    /// a Prometheus rolls the whole request back for one sample out of order.
    RefusedWhole {
        /// `http_<code>`.
        id: String,
    },
    /// The account has no room for series it does not know yet; known ones were stored.
    ServerFull {
        /// The error id without its prefix.
        id: String,
    },
    /// The request is too large: halve it.
    Split {
        /// The error id without its prefix, or `http_<code>`.
        id: String,
    },
    /// Try the same request again after a while.
    Retry {
        /// The error id without its prefix, or `http_<code>`.
        id: String,
    },
    /// Address or credentials are wrong: only a person can help, so ask rarely and say it loudly.
    Misconfigured {
        /// The error id without its prefix, or `http_<code>`.
        id: String,
    },
}

const ID_PREFIX: &str = "err-mimir-";

/// The Mimir error id in `body`, without its prefix.
pub fn error_id(body: &str) -> Option<&str> {
    let start = body.find(ID_PREFIX)? + ID_PREFIX.len();
    let rest = body.get(start..)?;
    let allowed = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-';
    let length = rest.find(|c| !allowed(c)).unwrap_or(rest.len());
    let id = rest.get(..length)?.trim_end_matches('-');
    (!id.is_empty()).then_some(id)
}

/// What `response` means for the request it answers.
pub fn classify(response: &Response) -> Verdict {
    match response.status {
        202 => return Verdict::Deduplicated,
        200..=299 => return Verdict::Stored,
        _ => {}
    }
    match error_id(&response.body) {
        Some(id) => by_id(id, response.status),
        None => by_status(response.status),
    }
}

fn by_id(id: &str, status: u16) -> Verdict {
    let owned = id.to_owned();
    match id {
        "max-active-series" | "max-series-per-user" => Verdict::ServerFull { id: owned },
        "distributor-max-write-message-size" | "distributor-max-otlp-request-size" => {
            Verdict::Split { id: owned }
        }
        "tenant-max-ingestion-rate" | "tenant-max-request-rate" => Verdict::Retry { id: owned },
        // Whoever runs the account has to change something; until then samples wait in the store.
        "tenant-too-many-ha-clusters" | "request-blocked" => Verdict::Misconfigured { id: owned },
        _ if is_beside_samples(id) => Verdict::StoredBare { id: owned },
        _ if id.starts_with("ingester-max-") || is_instance_limit(id) => {
            Verdict::Retry { id: owned }
        }
        _ => match by_status(status) {
            Verdict::Stored
            | Verdict::Deduplicated
            | Verdict::StoredBare { .. }
            | Verdict::Refused { .. }
            | Verdict::RefusedWhole { .. } => Verdict::Refused { id: owned },
            Verdict::ServerFull { .. } => Verdict::ServerFull { id: owned },
            Verdict::Split { .. } => Verdict::Split { id: owned },
            Verdict::Retry { .. } => Verdict::Retry { id: owned },
            Verdict::Misconfigured { .. } => Verdict::Misconfigured { id: owned },
        },
    }
}

/// What is wrong with exemplars or metadata alone.
fn is_beside_samples(id: &str) -> bool {
    id.starts_with("exemplar-")
        || id.starts_with("max-metadata-per-")
        || matches!(id, "metadata-missing-metric-name" | "metric-name-too-long" | "unit-too-long")
}

/// Limits that protect one process of the server and say nothing about what was sent.
fn is_instance_limit(id: &str) -> bool {
    id == "distributor-max-ingestion-rate" || id.starts_with("distributor-max-inflight-push-")
}

fn by_status(status: u16) -> Verdict {
    let id = format!("http_{status}");
    match status {
        413 => Verdict::Split { id },
        // 529 is the code some operators map rate limits to.
        429 | 500 | 502..=599 => Verdict::Retry { id },
        // 300–399: redirects were followed already; what is left points to a wrong address.
        300..=399 | 401 | 403 | 404 | 405 | 407 | 415 | 501 => Verdict::Misconfigured { id },
        400 | 409 => Verdict::RefusedWhole { id },
        _ => Verdict::Refused { id },
    }
}

/// The wait a `Retry-After` header asks for: seconds, or an HTTP date compared with `now`.
/// Nothing when it is malformed or names a time that is over.
pub fn retry_after(header: &str, now: Timestamp) -> Option<Duration> {
    let header = header.trim();
    if let Ok(secs) = header.parse::<u64>() {
        return (secs > 0).then(|| Duration::from_secs(secs.min(RETRY_AFTER_MAX.as_secs())));
    }
    let at = jiff::fmt::rfc2822::parse(header).ok()?.timestamp().as_millisecond();
    let wait = u64::try_from(at.checked_sub(now.as_ms())?).ok()?;
    (wait > 0).then(|| Duration::from_millis(wait).min(RETRY_AFTER_MAX))
}

/// No server's wish keeps a queue waiting longer than this.
pub const RETRY_AFTER_MAX: Duration = Duration::from_mins(15);

/// First wait after an answer that only a person can change.
pub const MISCONFIGURED_BACKOFF_MIN: Duration = Duration::from_mins(1);

/// Longest wait after an answer that only a person can change.
pub const MISCONFIGURED_BACKOFF_MAX: Duration = Duration::from_mins(5);

/// A small generator of jitter: the same seed gives the same waits (`SplitMix64`).
#[derive(Clone, Debug)]
pub struct Jitter(u64);

impl Jitter {
    /// A generator for this seed.
    pub fn seeded(seed: u64) -> Self {
        Self(seed)
    }

    /// The next number, evenly spread over 64 bits.
    pub fn next_u64(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// `wait` made shorter by up to a half.
    fn apply(&mut self, wait: Duration) -> Duration {
        let unit = (self.next_u64() >> 11) as f64 / (1u64 << 53) as f64;
        wait.mul_f64(1.0 - unit / 2.0)
    }
}

/// Waits between the attempts of one request: doubling, bounded, with jitter.
#[derive(Clone, Debug)]
pub struct Backoff {
    min: Duration,
    max: Duration,
    next: Duration,
    jitter: Jitter,
    attempts: u32,
}

impl Backoff {
    /// Waits from `min` to `max`.
    pub fn new(min: Duration, max: Duration, jitter: Jitter) -> Self {
        let min = min.max(Duration::from_millis(1));
        Self { min, max: max.max(min), next: min, jitter, attempts: 0 }
    }

    /// Failed attempts since the last [`Backoff::reset`].
    pub fn attempts(&self) -> u32 {
        self.attempts
    }

    /// The wait after a failed attempt, not shorter than what the server asked for.
    pub fn after(&mut self, asked: Option<Duration>) -> Duration {
        self.wait(self.min, self.max, asked)
    }

    /// The wait after an answer that only a person can change.
    pub fn after_misconfigured(&mut self, asked: Option<Duration>) -> Duration {
        self.wait(MISCONFIGURED_BACKOFF_MIN, MISCONFIGURED_BACKOFF_MAX, asked)
    }

    fn wait(&mut self, min: Duration, max: Duration, asked: Option<Duration>) -> Duration {
        self.attempts = self.attempts.saturating_add(1);
        if let Some(asked) = asked {
            self.next = asked.saturating_mul(2).clamp(min, max);
            // A whole fleet got the same answer at once: come back spread out, never early.
            return asked + asked.saturating_sub(self.jitter.apply(asked)) / 4;
        }
        let wait = self.next.clamp(min, max);
        self.next = wait.saturating_mul(2).min(max);
        self.jitter.apply(wait)
    }

    /// Starts over after a success.
    pub fn reset(&mut self) {
        self.next = self.min;
        self.attempts = 0;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn verdict(status: u16, body: &str) -> Verdict {
        classify(&Response { status, body: body.into(), ..Response::default() })
    }

    fn id(text: &str) -> String {
        text.to_owned()
    }

    #[test]
    fn the_error_id_is_found_inside_the_text() {
        let body = "the request has been rejected (err-mimir-max-active-series). To adjust …";
        assert_eq!(error_id(body), Some("max-active-series"));
        assert_eq!(error_id("err-mimir-"), None);
        assert_eq!(error_id("err-mimir-label-invalid"), Some("label-invalid"));
        assert_eq!(error_id("too many requests"), None);
    }

    #[test]
    fn what_is_wrong_beside_the_samples_does_not_refuse_them() {
        for name in ["exemplar-series-missing", "max-metadata-per-user", "unit-too-long"] {
            let bare = Verdict::StoredBare { id: id(name) };
            assert_eq!(verdict(400, &format!("x (err-mimir-{name})")), bare);
        }
        let refused = Verdict::Refused { id: id("label-value-too-long") };
        assert_eq!(verdict(400, "x (err-mimir-label-value-too-long)"), refused);
    }

    #[test]
    fn what_only_a_person_can_change_is_asked_rarely() {
        for name in ["tenant-too-many-ha-clusters", "request-blocked"] {
            let wrong = Verdict::Misconfigured { id: id(name) };
            assert_eq!(verdict(400, &format!("x (err-mimir-{name})")), wrong);
        }
    }

    #[test]
    fn the_id_outranks_the_status() {
        let full = Verdict::ServerFull { id: id("max-active-series") };
        assert_eq!(verdict(429, "x (err-mimir-max-active-series)"), full);
        assert_eq!(verdict(400, "x (err-mimir-max-active-series)"), full);
        assert_eq!(
            verdict(529, "(err-mimir-tenant-max-ingestion-rate)"),
            Verdict::Retry { id: id("tenant-max-ingestion-rate") }
        );
        assert_eq!(
            verdict(400, "(err-mimir-distributor-max-write-message-size)"),
            Verdict::Split { id: id("distributor-max-write-message-size") }
        );
        assert_eq!(
            verdict(400, "(err-mimir-sample-out-of-order)"),
            Verdict::Refused { id: id("sample-out-of-order") }
        );
        assert_eq!(
            verdict(503, "(err-mimir-ingester-max-inflight-push-requests)"),
            Verdict::Retry { id: id("ingester-max-inflight-push-requests") }
        );
        assert_eq!(
            verdict(400, "(err-mimir-never-seen-before)"),
            Verdict::Refused { id: id("never-seen-before") }
        );
        assert_eq!(
            verdict(500, "(err-mimir-never-seen-before)"),
            Verdict::Retry { id: id("never-seen-before") }
        );
    }

    #[test]
    fn without_an_id_the_status_decides() {
        assert_eq!(verdict(204, ""), Verdict::Stored);
        assert_eq!(verdict(202, ""), Verdict::Deduplicated);
        assert_eq!(verdict(400, "bad"), Verdict::RefusedWhole { id: id("http_400") });
        assert_eq!(verdict(422, "bad"), Verdict::Refused { id: id("http_422") });
        assert_eq!(verdict(401, ""), Verdict::Misconfigured { id: id("http_401") });
        assert_eq!(verdict(404, ""), Verdict::Misconfigured { id: id("http_404") });
        assert_eq!(verdict(413, ""), Verdict::Split { id: id("http_413") });
        assert_eq!(verdict(429, ""), Verdict::Retry { id: id("http_429") });
        assert_eq!(verdict(500, ""), Verdict::Retry { id: id("http_500") });
        assert_eq!(verdict(501, ""), Verdict::Misconfigured { id: id("http_501") });
        assert_eq!(verdict(503, ""), Verdict::Retry { id: id("http_503") });
    }

    #[test]
    fn retry_after_takes_seconds_and_dates() {
        let now = Timestamp(1_445_412_480_000);
        assert_eq!(retry_after("7", now), Some(Duration::from_secs(7)));
        assert_eq!(retry_after("0", now), None);
        assert_eq!(retry_after("soon", now), None);
        assert_eq!(
            retry_after("Wed, 21 Oct 2015 07:28:30 GMT", now),
            Some(Duration::from_secs(30))
        );
        assert_eq!(retry_after("Wed, 21 Oct 2015 07:27:59 GMT", now), None);
        assert_eq!(retry_after("999999999", now), Some(RETRY_AFTER_MAX));
    }

    #[test]
    fn waits_double_up_to_the_maximum_and_start_over() {
        let (min, max) = (Duration::from_millis(30), Duration::from_secs(5));
        let mut backoff = Backoff::new(min, max, Jitter::seeded(1));
        let mut bound = min;
        for _ in 0..20 {
            let wait = backoff.after(None);
            assert!(wait <= bound && wait >= bound / 2, "{wait:?} of {bound:?}");
            bound = (bound * 2).min(max);
        }
        assert_eq!(backoff.attempts(), 20);
        backoff.reset();
        assert!(backoff.after(None) <= min);
    }

    #[test]
    fn what_the_server_asks_for_is_never_undercut() {
        let (min, max) = (Duration::from_millis(30), Duration::from_secs(5));
        let mut backoff = Backoff::new(min, max, Jitter::seeded(2));
        let asked = Duration::from_secs(40);
        for _ in 0..50 {
            let wait = backoff.after(Some(asked));
            assert!(wait >= asked && wait <= asked + asked / 8);
        }
        assert!(backoff.after_misconfigured(None) >= MISCONFIGURED_BACKOFF_MIN / 2);
    }

    #[test]
    fn the_same_seed_gives_the_same_waits() {
        let waits = |seed| {
            let second = Duration::from_secs(1);
            let mut backoff = Backoff::new(second, second * 60, Jitter::seeded(seed));
            (0..5).map(|_| backoff.after(None)).collect::<Vec<_>>()
        };
        assert_eq!(waits(3), waits(3));
        assert_ne!(waits(3), waits(4));
    }
}
