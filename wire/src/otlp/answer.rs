//! What a sender of metrics is told: `ExportMetricsServiceResponse` and `google.rpc.Status`.

use serde_json::json;

use crate::proto::{put_bytes, put_text, put_uint};

/// How a request is encoded; its answer is alike.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Encoding {
    /// The binary encoding.
    Protobuf,
    /// The other one.
    Json,
}

/// Data points that were not stored, though the others were.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Partial {
    /// How many.
    pub rejected_points: u64,
    /// Why; may stand without any rejected ones, as a warning.
    pub message: String,
}

/// An `ExportMetricsServiceResponse`.
pub fn success(partial: Option<&Partial>, encoding: Encoding) -> Vec<u8> {
    match (encoding, partial) {
        (Encoding::Protobuf, None) => Vec::new(),
        (Encoding::Protobuf, Some(partial)) => {
            let mut inner = Vec::new();
            put_uint(&mut inner, 1, partial.rejected_points);
            put_text(&mut inner, 2, &partial.message);
            let mut out = Vec::new();
            put_bytes(&mut out, 1, &inner);
            out
        }
        (Encoding::Json, None) => b"{}".to_vec(),
        (Encoding::Json, Some(partial)) => {
            let partial = json!({
                "rejectedDataPoints": partial.rejected_points.to_string(),
                "errorMessage": partial.message,
            });
            json!({ "partialSuccess": partial }).to_string().into_bytes()
        }
    }
}

/// Codes of `google.rpc.Code`, as far as they are used here.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Code {
    /// It makes no sense.
    InvalidArgument = 3,
    /// It is too large.
    ResourceExhausted = 8,
    /// No such service or method, or encoding.
    Unimplemented = 12,
    /// A fault of the server.
    Internal = 13,
    /// It may be sent again.
    Unavailable = 14,
}

/// A `google.rpc.Status`, with a `RetryInfo` where it may be sent again after so many seconds.
pub fn status(
    code: Code,
    message: &str,
    retry_seconds: Option<u64>,
    encoding: Encoding,
) -> Vec<u8> {
    const RETRY_INFO: &str = "type.googleapis.com/google.rpc.RetryInfo";
    match encoding {
        Encoding::Json => {
            let details: Vec<_> = retry_seconds
                .iter()
                .map(|seconds| json!({"@type": RETRY_INFO, "retryDelay": format!("{seconds}s")}))
                .collect();
            json!({ "code": code as u8, "message": message, "details": details })
                .to_string()
                .into_bytes()
        }
        Encoding::Protobuf => {
            let mut out = Vec::new();
            put_uint(&mut out, 1, code as u64);
            put_text(&mut out, 2, message);
            if let Some(seconds) = retry_seconds {
                let (mut duration, mut info, mut any) = (Vec::new(), Vec::new(), Vec::new());
                put_uint(&mut duration, 1, seconds);
                put_bytes(&mut info, 1, &duration);
                put_text(&mut any, 1, RETRY_INFO);
                put_bytes(&mut any, 2, &info);
                put_bytes(&mut out, 3, &any);
            }
            out
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn success_says_what_is_missing() {
        let partial = Partial { rejected_points: 3, message: "old".into() };
        assert_eq!(success(Some(&partial), Encoding::Protobuf), b"\x0a\x07\x08\x03\x12\x03old");
        assert!(success(None, Encoding::Protobuf).is_empty());
        let json = success(Some(&partial), Encoding::Json);
        let expected = r#"{"partialSuccess":{"errorMessage":"old","rejectedDataPoints":"3"}}"#;
        assert_eq!(String::from_utf8(json).unwrap(), expected);
    }

    #[test]
    fn a_status_says_when_to_try_again() {
        let bytes = status(Code::Unavailable, "full", Some(5), Encoding::Protobuf);
        assert!(bytes.starts_with(b"\x08\x0e\x12\x04full\x1a"));
        assert!(bytes.ends_with(b"\x12\x04\x0a\x02\x08\x05"));
        let json = status(Code::InvalidArgument, "bad", None, Encoding::Json);
        assert_eq!(json, br#"{"code":3,"details":[],"message":"bad"}"#);
    }
}
