//! A `PromQL` parser and engine over any [`stint_model::Queryable`].
//!
//! [`parse`] turns text into a checked expression tree; [`Engine`] evaluates it, series by series
//! and each series at all steps at once.

pub mod annotations;
pub mod cancel;
mod column;
pub mod engine;
pub mod error;
mod exec;
mod explain;
mod functions;
mod kahan;
pub mod parse;
mod parsed;
pub mod rewrites;
pub mod script;
pub mod value;
pub mod workers;

pub use annotations::Annotations;
pub use cancel::Cancel;
pub use engine::{Engine, EngineOptions, InstantQuery, RangeQuery};
pub use error::QueryError;
pub use rewrites::Rewrites;
pub use value::{Answer, InstantSample, QueryValue, RangeSeries, SampleValue, Stats, StepStats};
pub use workers::Workers;
