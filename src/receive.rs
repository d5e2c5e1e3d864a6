//! Receivers: what others push instead of being scraped.

pub mod remote_write;
