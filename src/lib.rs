//! The server and its command line.
//!
//! Data flows from the sources through [`ingest`] into the store, and from there to the [`api`].

pub mod api;
pub mod budget;
pub mod cli;
pub mod config;
pub mod discovery;
pub mod forward;
pub mod http;
pub mod import;
pub mod ingest;
pub mod metrics;
pub mod notify;
pub mod receive;
pub mod rules;
pub mod scrape;
pub mod server;
pub mod telemetry;
pub mod template;
pub mod usage;
