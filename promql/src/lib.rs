//! A `PromQL` parser and engine over any [`stint_model::Queryable`].

pub mod annotations;
pub mod cancel;
pub mod error;
pub mod parse;
pub mod value;

pub use annotations::Annotations;
pub use cancel::Cancel;
pub use error::QueryError;
pub use value::{Answer, InstantSample, QueryValue, RangeSeries, SampleValue, Stats};
