//! From text to a checked expression tree, and back.
//!
//! [`parse`] reads a query as Prometheus does, with its mistakes in Prometheus' words and places.
//! A tree prints as text ([`std::fmt::Display`], [`pretty()`]) and as JSON ([`to_json`]).
//!
//! ```
//! use stint_promql::parse::{Options, parse};
//!
//! let expr = parse("sum by(job)(rate(up[300]))", &Options::default())?;
//! assert_eq!(expr.to_string(), "sum by (job) (rate(up[5m]))");
//!
//! let error = parse("up +", &Options::default()).unwrap_err();
//! assert_eq!(error.to_string(), "1:5: parse error: unexpected end of input");
//! # Ok::<(), stint_promql::parse::ParseErrors>(())
//! ```

mod aggregate;
pub mod ast;
mod check;
pub mod duration;
pub mod error;
pub mod functions;
mod grammar;
pub mod json;
mod lexer;
pub mod literal;
pub mod pretty;
mod print;
mod selector;
pub mod series;

use stint_model::Matcher;

pub use ast::{Expr, PosRange, ValueType};
pub use duration::{DurationContext, DurationError};
pub use error::{ParseError, ParseErrors, line_and_column};
pub use json::to_json;
pub use pretty::pretty;
pub use series::parse_start_times;
pub use series::{SequenceValue, SeriesDescription, parse_metric, parse_series_description};

use check::Checker;
use grammar::{Parser, Stop, is_metric_word};
use lexer::Kind;

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
    /// How many parentheses, calls, signs and right-hand sides may be inside one another. The
    /// parser recurses this deep.
    pub max_nesting: usize,
    /// Greatest height of the tree, which long chains (`a or b or c`) also add to. Code that walks
    /// a tree recurses this deep.
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
            max_nesting: 400,
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

/// Reads a query.
///
/// # Errors
///
/// All mistakes that could be told apart, at least one.
pub fn parse(text: &str, options: &Options) -> Result<Expr, ParseErrors> {
    check_length(text, options)?;
    let mut parser = Parser::new(text, options);
    let expr = parser.query();
    if let Some(errors) = parser.take_errors() {
        return Err(errors);
    }
    let Some(mut expr) = expr else { return Err(failed(text, "no expression found in input")) };
    // Types are only checked when the grammar is right, so that no mistake follows from another.
    let mut checker = Checker { text, errors: Vec::new() };
    checker.check(&mut expr);
    match ParseErrors::new(text, checker.errors) {
        Some(errors) => Err(errors),
        None => Ok(expr),
    }
}

/// Reads a selector alone, as in `match[]`: `up{job="node"}`. Unlike in a query it may match
/// everything.
///
/// # Errors
///
/// All mistakes that could be told apart, at least one.
pub fn parse_selector(text: &str) -> Result<Vec<Matcher>, ParseErrors> {
    let options = Options::default();
    check_length(text, &options)?;
    let mut parser = Parser::new(text, &options);
    let selector = match parser.peek() {
        Kind::LeftBrace => parser.vector_selector(None),
        kind if is_metric_word(kind) => {
            let name = parser.bump();
            parser.vector_selector(Some(name))
        }
        _ => Err(Stop::Unexpected),
    };
    let selector = selector.and_then(|selector| match parser.peek() {
        Kind::Eof => Ok(selector),
        _ => Err(Stop::Unexpected),
    });
    let selector = parser.settle(selector);
    match (parser.take_errors(), selector) {
        (Some(errors), _) => Err(errors),
        (None, Some(selector)) => Ok(selector.matchers),
        (None, None) => Err(failed(text, "no expression found in input")),
    }
}

fn check_length(text: &str, options: &Options) -> Result<(), ParseErrors> {
    let limit = options.max_length.min(u32::MAX as usize);
    if text.len() <= limit {
        return Ok(());
    }
    let message = format!("query is {} bytes long, at most {limit} are allowed", text.len());
    Err(failed(text, &message))
}

/// The one mistake `message` about a whole text.
fn failed(text: &str, message: &str) -> ParseErrors {
    ParseErrors::single(text, PosRange::default(), message)
}

#[cfg(test)]
mod tests;
