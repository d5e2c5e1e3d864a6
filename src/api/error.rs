//! What can go wrong in an API request, and how it is told: error type and status code.

use axum::http::StatusCode;

/// The `errorType` of an answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ErrorKind {
    /// A parameter is missing or malformed.
    BadData,
    /// The expression could not be evaluated.
    Execution,
    /// The client went away.
    Canceled,
    /// The query took too long.
    Timeout,
    /// Stored data could not be read.
    Internal,
    /// Switched off, or not there yet.
    Unavailable,
    /// There is no such thing.
    NotFound,
}

impl ErrorKind {
    /// The name in the answer.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::BadData => "bad_data",
            Self::Execution => "execution",
            Self::Canceled => "canceled",
            Self::Timeout => "timeout",
            Self::Internal => "internal",
            Self::Unavailable => "unavailable",
            Self::NotFound => "not_found",
        }
    }

    /// The status code of the answer. `unavailable` is 500, as in Prometheus: 503 is kept for a
    /// server that is not ready and for timeouts.
    pub fn status(self) -> StatusCode {
        match self {
            Self::BadData => StatusCode::BAD_REQUEST,
            Self::Execution => StatusCode::UNPROCESSABLE_ENTITY,
            // Not registered anywhere, but what nginx and Prometheus use.
            Self::Canceled => StatusCode::from_u16(499).unwrap_or(StatusCode::BAD_REQUEST),
            Self::Timeout => StatusCode::SERVICE_UNAVAILABLE,
            Self::Internal | Self::Unavailable => StatusCode::INTERNAL_SERVER_ERROR,
            Self::NotFound => StatusCode::NOT_FOUND,
        }
    }
}

/// A failed request.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{}: {message}", kind.as_str())]
pub struct ApiError {
    /// Its type.
    pub kind: ErrorKind,
    /// What went wrong, for people.
    pub message: String,
}

impl ApiError {
    /// An error of any kind.
    pub fn new(kind: ErrorKind, message: impl Into<String>) -> Self {
        Self { kind, message: message.into() }
    }

    /// A request that makes no sense.
    pub fn bad_data(message: impl Into<String>) -> Self {
        Self::new(ErrorKind::BadData, message)
    }

    /// A parameter that makes no sense.
    pub fn invalid_parameter(name: &str, cause: impl std::fmt::Display) -> Self {
        Self::bad_data(format!("invalid parameter \"{name}\": {cause}"))
    }
}

impl From<stint_model::QueryError> for ApiError {
    fn from(error: stint_model::QueryError) -> Self {
        let kind = match error {
            stint_model::QueryError::Storage(_) => ErrorKind::Internal,
            stint_model::QueryError::Limit(_) => ErrorKind::Execution,
            stint_model::QueryError::Closed => ErrorKind::Unavailable,
        };
        Self::new(kind, error.to_string())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn kinds_have_the_status_prometheus_gives_them() {
        let status = |kind: ErrorKind| (kind.as_str(), kind.status().as_u16());
        assert_eq!(status(ErrorKind::BadData), ("bad_data", 400));
        assert_eq!(status(ErrorKind::Execution), ("execution", 422));
        assert_eq!(status(ErrorKind::Canceled), ("canceled", 499));
        assert_eq!(status(ErrorKind::Timeout), ("timeout", 503));
        assert_eq!(status(ErrorKind::Internal), ("internal", 500));
        assert_eq!(status(ErrorKind::Unavailable), ("unavailable", 500));
        assert_eq!(status(ErrorKind::NotFound), ("not_found", 404));
    }

    #[test]
    fn a_bad_parameter_is_named() {
        let error = ApiError::invalid_parameter("time", "cannot parse \"x\"");
        assert_eq!(error.message, "invalid parameter \"time\": cannot parse \"x\"");
        assert_eq!(error.kind, ErrorKind::BadData);
    }
}
