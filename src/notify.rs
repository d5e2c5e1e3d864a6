//! Takes alerts to people: to Alertmanagers, over their API v2, and to webhooks, which are grouped and repeated here.
//!
//! The rules hand alerts to the [`Notifier`], which never blocks. Each Alertmanager has a queue and a task of its own,
//! so that one that hangs holds nobody up; what does not fit into a queue is dropped, the oldest first, and counted:
//! the rules send what fires again and again. Each webhook has a task that keeps its groups.

mod alertmanager;
mod dispatch;
pub mod metrics;
mod payload;
mod queue;
mod target;
pub mod transport;
mod webhook;

pub use dispatch::{MakeTransport, Notifier, Options, Parts, Prepared, Status};
pub use metrics::NotifyMetrics;
pub use transport::{HttpTransport, Post, Transport};

#[cfg(test)]
mod testing;
