//! Scraping: a job is a *pool* of *targets*; each target has a *loop* that fetches its metrics on
//! a fixed offset of the interval, reads them, and appends one batch per scrape.
//!
//! [`Manager`] keeps one pool per job, fed by discovery. A `Recorder` turns a
//! body into a batch; a [`Fetcher`] gets the body and is the seam that tests replace.

mod cache;
mod failure_log;
mod families;
pub mod fetch;
mod inflate;
mod line;
pub mod manager;
pub mod metrics;
mod pool;
mod record;
mod run;
mod schedule;
pub mod status;
pub mod target;
#[cfg(test)]
mod testing;
mod threads;

pub use fetch::{FetchError, FetchFuture, Fetched, Fetcher, HttpFetcher};
pub use line::Line;
pub use manager::{Manager, Parts};
pub use metrics::ScrapeMetrics;
pub use status::{ActiveTarget, DroppedTarget, Health, Status, TargetMetadata};
pub use target::Target;
