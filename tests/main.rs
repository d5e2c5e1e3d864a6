//! End-to-end tests, one binary.
#![expect(clippy::unwrap_used, reason = "a test may panic")]

mod account;
mod architecture;
mod bad_input;
mod budget_cli;
mod budget_crash;
mod budget_identity;
mod budget_sink;
mod cli;
mod client_requests;
mod clients;
mod crash;
mod deploy;
mod discovery;
mod forward;
mod import;
mod judge;
mod labels;
mod lifecycle;
mod notify;
mod otlp;
mod peers;
mod process;
mod query_api;
mod remote_read;
mod remote_write;
mod rules;
mod scrape;
mod senders;
mod support;
mod web_security;
