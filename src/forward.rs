//! Forwarding: stored samples, sent to remote write endpoints within their budget.
//!
//! The store is the queue: each endpoint has a durable cursor over the write-ahead log, and nothing
//! is copied. An outage, a restart or a slow endpoint costs no memory.

pub mod downsample;
pub mod retry;
