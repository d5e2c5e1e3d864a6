//! The engine against an oracle, a crashing disk and a failing disk.
//!
//! Short by default; `STINT_LONG=1` goes through every call and many more cases.

#![expect(clippy::unwrap_used, reason = "helpers of tests fail by panicking too")]

mod crash;
mod decoders;
mod faults;
mod golden;
mod interrupt;
mod model;
mod support;

#[path = "../../examples/embed.rs"]
mod embed;

#[test]
fn the_example_of_the_documentation_runs() {
    embed::main().unwrap();
}
