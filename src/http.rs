//! Talking HTTP to others: the client that scrape jobs and endpoints share.

pub mod client;
mod oauth;
mod tls;

pub use client::{Client, ClientError, explain};
