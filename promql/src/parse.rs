//! From text to a checked expression tree, and back.

pub mod ast;
pub mod functions;

/// What the parser accepts beyond the stable language, and how much.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Options {
    /// Experimental functions and aggregations (`promql-experimental-functions`).
    pub experimental_functions: bool,
    /// Computed durations (`promql-duration-expr`).
    pub duration_expr: bool,
    /// `anchored` and `smoothed` (`promql-extended-range-selectors`).
    pub extended_range_selectors: bool,
    /// `fill`, `fill_left`, `fill_right` (`promql-binop-fill-modifiers`).
    pub fill_modifiers: bool,
    /// Longest text, in bytes.
    pub max_length: usize,
    /// Greatest height of the tree. Code that walks a tree recurses this deep.
    pub max_depth: usize,
}

impl Default for Options {
    /// Duration expressions, which are stable, and nothing experimental.
    fn default() -> Self {
        Self {
            experimental_functions: false,
            duration_expr: true,
            extended_range_selectors: false,
            fill_modifiers: false,
            max_length: 1 << 20,
            max_depth: 1_000,
        }
    }
}

impl Options {
    /// Everything that can be switched on.
    pub fn all() -> Self {
        Self {
            experimental_functions: true,
            extended_range_selectors: true,
            fill_modifiers: true,
            ..Self::default()
        }
    }
}
