//! The index of a block: which series there are, and which of them a selector means.
//!
//! Everything is read in place from mapped bytes, in groups of 16 items with a checksum each
//! ([`groups`]), so that opening an index touches only its footer and a look-up only what it
//! needs. Series are numbered from 0 in the order of [`series_order`]. Per label name there is a
//! sorted [`dictionary`] of values, which sets, prefixes and regular expressions walk without
//! visiting series ([`regex`]), and per value a list of series numbers ([`postings`]). Labels of a
//! series are stored as numbers of values. See `docs/formats/index.md`.

mod containing;
pub mod dictionary;
pub mod groups;
pub(crate) mod literal;
pub(crate) mod order;
pub mod postings;
pub mod reader;
pub mod regex;
pub(crate) mod rows;
pub mod select;
pub(crate) mod table;
pub(crate) mod tester;
mod walk;
pub mod writer;

use std::cmp::Ordering;

use stint_model::Labels;
use stint_model::labels::{INSTANCE, JOB, METRIC_NAME};

pub use reader::Index;
pub use writer::IndexBuilder;

/// The most labels of one series on disk.
pub const LABELS_MAX: usize = 1 << 16;

/// The order of series in a block: by metric, job, instance, then all labels. Series of one
/// target and metric lie side by side, which is how they are written and queried.
pub fn series_order(a: &Labels, b: &Labels) -> Ordering {
    for name in [METRIC_NAME, JOB, INSTANCE] {
        let by_name = a.get(name).unwrap_or_default().cmp(b.get(name).unwrap_or_default());
        if by_name.is_ne() {
            return by_name;
        }
    }
    a.cmp(b)
}
