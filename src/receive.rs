//! Receivers: what others push instead of being scraped.

pub mod in_flight;
pub mod remote_write;
