//! Bytes to model and back: the exposition formats a scrape answers with, remote write and read.
//!
//! Pure codecs: nothing here does input or output, starts a thread or reads the time. Every
//! decoder takes bytes from strangers, so none of them panics, runs longer than linear in its
//! input, or allocates more than a small multiple of it.
//!
//! In reading order: [`exposition`], then [`remote_write`], [`remote_read`] and the [`snappy`]
//! blocks around both; [`tsdb`] reads the files of a Prometheus data folder.

pub mod exposition;
pub mod otlp;
pub mod remote_read;
pub mod remote_write;
pub mod snappy;
pub mod tsdb;

mod layout;
mod proto;
