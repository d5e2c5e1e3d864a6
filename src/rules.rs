//! Recording and alerting rules: evaluated group by group, their outcomes stored as series, their
//! alerts passed on.

pub mod alert;

pub use alert::{Alert, AlertSink, Annotations, NoSink};
