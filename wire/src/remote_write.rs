//! Prometheus remote write: the two versions of its message and the headers around them.
//!
//! A request is a Snappy block ([`crate::snappy`]) that holds one message of [`v1`] or [`v2`].

mod histogram;
#[cfg(test)]
mod oracle;
pub mod v1;
pub mod v2;

use stint_model::metadata::MetricType;

pub use crate::proto::DecodeError;

/// The header that names the protocol version.
pub const VERSION_HEADER: &str = "X-Prometheus-Remote-Write-Version";
/// The header by which a receiver counts the float samples it stored.
pub const SAMPLES_WRITTEN_HEADER: &str = "X-Prometheus-Remote-Write-Samples-Written";
/// The header by which a receiver counts the histograms it stored.
pub const HISTOGRAMS_WRITTEN_HEADER: &str = "X-Prometheus-Remote-Write-Histograms-Written";
/// The header by which a receiver counts the exemplars it stored.
pub const EXEMPLARS_WRITTEN_HEADER: &str = "X-Prometheus-Remote-Write-Exemplars-Written";
/// The header by which a sender counts its attempts, from the second one on.
pub const RETRY_ATTEMPT_HEADER: &str = "Retry-Attempt";
/// The `Content-Encoding` of every request.
pub const CONTENT_ENCODING: &str = "snappy";

/// A version of the protocol.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Version {
    /// 1.0: `prometheus.WriteRequest`.
    V1,
    /// 2.0: `io.prometheus.write.v2.Request`.
    V2,
}

/// A request whose form no receiver understands; answered with 415.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum UnsupportedRequest {
    /// A media type other than `application/x-protobuf`.
    #[error("expected {expected} as the first (media) part, got {got} content-type", expected = MEDIA_TYPE)]
    MediaType {
        /// What was sent.
        got: String,
    },
    /// A message that is neither of the two.
    #[error("got {got} content type; unknown remote write protobuf message {got}")]
    Message {
        /// What was sent.
        got: String,
    },
    /// A compression other than Snappy.
    #[error(
        "{got} encoding (compression) is not accepted by this server; only snappy is acceptable"
    )]
    Encoding {
        /// What was sent.
        got: String,
    },
}

const MEDIA_TYPE: &str = "application/x-protobuf";

impl Version {
    /// The version that a request's `Content-Type` names; empty (no header) means 1.0.
    pub fn from_content_type(header: &str) -> Result<Self, UnsupportedRequest> {
        let mut parts = header.split(';').map(str::trim);
        let media = parts.next().unwrap_or_default();
        if header.trim().is_empty() {
            return Ok(Self::V1);
        }
        if !media.eq_ignore_ascii_case(MEDIA_TYPE) {
            return Err(UnsupportedRequest::MediaType { got: media.to_owned() });
        }
        for part in parts {
            let Some((name, message)) = part.split_once('=') else { continue };
            if !name.trim().eq_ignore_ascii_case("proto") {
                continue;
            }
            return match message.trim().trim_matches('"') {
                "prometheus.WriteRequest" => Ok(Self::V1),
                "io.prometheus.write.v2.Request" => Ok(Self::V2),
                message => Err(UnsupportedRequest::Message { got: message.to_owned() }),
            };
        }
        Ok(Self::V1)
    }

    /// The `Content-Type` to send.
    pub const fn content_type(self) -> &'static str {
        match self {
            Self::V1 => MEDIA_TYPE,
            Self::V2 => "application/x-protobuf;proto=io.prometheus.write.v2.Request",
        }
    }

    /// The value of [`VERSION_HEADER`] to send.
    pub const fn header(self) -> &'static str {
        match self {
            Self::V1 => "0.1.0",
            Self::V2 => "2.0.0",
        }
    }
}

/// The kind behind its number, the same in both versions; unknown numbers are unknown kinds.
fn metric_type(number: u64) -> MetricType {
    match number {
        1 => MetricType::Counter,
        2 => MetricType::Gauge,
        3 => MetricType::Histogram,
        4 => MetricType::GaugeHistogram,
        5 => MetricType::Summary,
        6 => MetricType::Info,
        7 => MetricType::StateSet,
        _ => MetricType::Unknown,
    }
}

fn metric_type_number(kind: MetricType) -> u64 {
    match kind {
        MetricType::Unknown => 0,
        MetricType::Counter => 1,
        MetricType::Gauge => 2,
        MetricType::Histogram => 3,
        MetricType::GaugeHistogram => 4,
        MetricType::Summary => 5,
        MetricType::Info => 6,
        MetricType::StateSet => 7,
    }
}

/// Checks a request's `Content-Encoding`; empty (no header) means Snappy as well.
pub fn check_encoding(header: &str) -> Result<(), UnsupportedRequest> {
    match header.trim() {
        "" | CONTENT_ENCODING => Ok(()),
        other => Err(UnsupportedRequest::Encoding { got: other.to_owned() }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_content_type_names_the_version() {
        for version in [Version::V1, Version::V2] {
            assert_eq!(Version::from_content_type(version.content_type()), Ok(version));
        }
        assert_eq!(Version::from_content_type(""), Ok(Version::V1));
        let spaced = "application/x-protobuf; charset=x; proto=prometheus.WriteRequest";
        assert_eq!(Version::from_content_type(spaced), Ok(Version::V1));
    }

    #[test]
    fn what_is_not_remote_write_is_refused() {
        let error = Version::from_content_type("text/plain").unwrap_err();
        assert_eq!(
            error.to_string(),
            "expected application/x-protobuf as the first (media) part, got text/plain content-type"
        );
        let error = Version::from_content_type("application/x-protobuf;proto=x.Y").unwrap_err();
        assert_eq!(error, UnsupportedRequest::Message { got: "x.Y".into() });
        assert!(check_encoding("gzip").is_err());
        assert!(check_encoding("").is_ok() && check_encoding("snappy").is_ok());
    }
}
