//! Why a query has no answer.

/// A failed query. The texts are those that Prometheus shows.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum QueryError {
    /// The expression cannot be read; the text starts with the position.
    #[error("{0}")]
    Parse(String),
    /// The expression can be read but not evaluated on this data.
    #[error("{0}")]
    Execution(String),
    /// It took longer than allowed; names the phase.
    #[error("query timed out in {0}")]
    Timeout(&'static str),
    /// The caller gave up; names the phase.
    #[error("query was canceled in {0}")]
    Canceled(&'static str),
    /// More points at once than allowed; names the phase.
    #[error("query processing would load too many samples into memory in {0}")]
    TooManySamples(&'static str),
    /// The store could not deliver.
    #[error("expanding series: {0}")]
    Storage(#[from] stint_model::QueryError),
}

impl QueryError {
    pub(crate) fn execution(text: impl Into<String>) -> Self {
        Self::Execution(text.into())
    }
}
