//! Forwarding: stored samples, sent to remote write endpoints within their budget.
//!
//! The store is the queue: each endpoint has a durable [`cursor`] over the write-ahead log
//! ([`source`]), and nothing is copied; what the log no longer holds is read from blocks. An outage, a restart or a slow endpoint costs no memory.
//! What is read goes through [`route`] (labels, [`downsample`], budget) into rounds, which [`send`]
//! delivers, one request in flight per shard, so that the samples of a series arrive in order.
//! `trail` knows what was chosen, so that what a crash leaves is sent again as it was.
//! [`retry`] says what an answer means. The cursor moves on only when a round is dealt with, and
//! every sample of it is in exactly one counter of [`status`].

pub mod account;
mod aggregate;
mod ask;
mod catch_up;
pub mod cursor;
pub mod downsample;
pub mod encode;
pub mod forwarder;
pub mod handle;
pub mod identity;
pub mod manager;
mod metadata;
pub mod names;
mod piece;
pub mod plan;
mod reading;
pub mod report;
pub mod retry;
pub mod round;
pub mod route;
pub mod rules;
pub mod send;
pub mod setup;
mod shards;
#[cfg(test)]
mod sim;
pub mod source;
mod sparse;
pub mod status;
mod steady;
pub mod stored;
pub mod supervise;
mod trail;
pub mod transport;

pub use manager::Manager;
