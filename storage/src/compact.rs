//! Compaction: many small or overlapping blocks become one.
//!
//! [`plan()`] decides from the blocks' metas alone which ones to merge next; [`run()`] merges them
//! series by series, so that memory holds one series at a time beside the new index, and can stop
//! between any two. The new block names its parents and is published by one rename: whoever
//! finds a block beside its parents ignores and removes the parents
//! ([`crate::block::meta::without_superseded`]), so a crash between the two steps duplicates and
//! loses nothing. Deleted samples are left out.

pub mod merge;
pub mod plan;
pub mod run;

pub use plan::{Candidate, CompactOptions, Plan, Reason, plan, plan_clean};
pub use run::{Compaction, Outcome, run};
