//! End-to-end tests, one binary.

mod forward;
mod query_api;
mod remote_write;
mod scrape;
mod support;
