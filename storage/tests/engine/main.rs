//! The engine against an oracle, a crashing disk and a failing disk.
//!
//! Short by default; `STINT_LONG=1` goes through every call and many more cases.

mod crash;
mod faults;
mod model;
mod support;
