//! The wiring: opens the store, starts sources and consumers, and stops them in order.

pub mod http;
