//! The vocabulary of Stint: what a series, a sample and a selector are, and the two
//! interfaces through which data moves, [`Appender`] into a store and [`Queryable`] out of it.
//!
//! Pure data and pure functions: nothing here does input or output, starts a thread, or reads
//! the time outside [`clock`].
//!
//! In reading order: [`time`] and [`clock`]; [`labels`], [`matcher`] and [`relabel`];
//! [`sample`], [`histogram`], [`exemplar`] and [`metadata`]; [`append`] and [`query`].

pub mod append;
pub mod clock;
pub mod exemplar;
pub mod histogram;
pub mod labels;
pub mod matcher;
pub mod metadata;
pub mod query;
mod re2;
pub mod relabel;
pub mod sample;
pub mod time;

pub use append::{
    AppendError, Appended, Appender, Batch, Exemplars, RejectReason, Rejected, Row, SeriesKey,
};
pub use clock::Clock;
pub use exemplar::Exemplar;
pub use histogram::Histogram;
pub use labels::{Labels, SeriesRef};
pub use matcher::{MatchOp, Matcher, Selector};
pub use metadata::{Metadata, MetricType};
pub use query::{Columns, Hints, Querier, QueryError, Queryable, SeriesSet};
pub use sample::{STALE_NAN_BITS, Sample, Value, is_stale, stale_nan};
pub use time::{Span, TimeRange, Timestamp};
