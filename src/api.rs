//! The HTTP API: Prometheus' endpoints, parameters, answers and errors.

pub mod error;
pub mod json;
pub mod number;
pub mod params;
