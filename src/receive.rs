//! Receivers: what others push instead of being scraped.

mod cache;
pub mod in_flight;
mod meter;
pub mod otlp;
pub mod remote_write;
mod spare;
