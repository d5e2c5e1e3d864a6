//! Recording and alerting rules: evaluated group by group, their outcomes stored as series, their
//! alerts passed on.
//!
//! [`spec`] is what files say; [`group`] evaluates at a given time; [`manager`] knows when that is.

pub mod alert;
pub mod alerting;
pub mod env;
pub mod expand;
pub mod group;
pub mod lattice;
pub mod manager;
pub mod metrics;
mod order;
pub mod outputs;
mod restore;
mod round;
mod run;
pub mod spec;
#[cfg(test)]
pub(crate) mod testing;
pub mod unit;

pub use alert::{Alert, AlertSink, Annotations, NoSink};
pub use env::{Env, Slots};
pub use group::Group;
pub use manager::{Manager, Prepared};
pub use metrics::RuleMetrics;
pub use round::Room;
