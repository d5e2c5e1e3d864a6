//! Trees as text over several lines.

use std::fmt::{self, Write};

use super::ast::Expr;
use super::print::{AggregateHead, Operator, SubquerySuffix};

/// The longest line that `/api/v1/format_query` leaves in one piece, in bytes.
pub const LINE_MAX: usize = 100;

/// `expr` over several lines, each part that is longer than `line_max` bytes being split.
pub fn pretty(expr: &Expr, line_max: usize) -> String {
    let mut printer = Pretty { out: String::new(), line_max };
    printer.expr(expr, 0);
    printer.out
}

struct Pretty {
    out: String,
    line_max: usize,
}

/// Counts bytes and refuses more than it has left.
struct Room(usize);

impl Write for Room {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        self.0 = self.0.checked_sub(text.len()).ok_or(fmt::Error)?;
        Ok(())
    }
}

impl Pretty {
    fn fits(&self, expr: &Expr) -> bool {
        write!(Room(self.line_max), "{expr}").is_ok()
    }

    fn indent(&mut self, level: usize) {
        for _ in 0..level {
            self.out.push_str("  ");
        }
    }

    fn push(&mut self, text: impl fmt::Display) {
        // Writing to a string cannot fail.
        let _ = write!(self.out, "{text}");
    }

    fn expr(&mut self, expr: &Expr, level: usize) {
        match expr {
            // What an indented child follows brings its own indentation.
            Expr::Binary(node) if !self.fits(expr) => {
                self.expr(&node.lhs, level + 1);
                self.out.push('\n');
                self.indent(level);
                self.push(Operator(node));
                self.out.push('\n');
                self.expr(&node.rhs, level + 1);
            }
            Expr::Subquery(node) if !self.fits(expr) => {
                self.expr(&node.expr, level);
                self.push(SubquerySuffix(node));
            }
            // As in Prometheus, a subquery on one line is not indented.
            Expr::Subquery(_) => self.push(expr),
            _ => {
                self.indent(level);
                self.headed(expr, level);
            }
        }
    }

    /// Prints where the indentation has been written, unless lines of their own follow.
    fn headed(&mut self, expr: &Expr, level: usize) {
        match expr {
            Expr::Unary(node) => {
                self.out.push(if node.negative { '-' } else { '+' });
                self.unindented(&node.expr, level);
            }
            _ if self.fits(expr) => self.push(expr),
            Expr::Aggregate(node) => {
                self.push(AggregateHead(node));
                self.list(node.param.iter().chain([&node.expr]), level);
            }
            Expr::Call(node) => {
                self.out.push_str(node.function.name);
                self.list(node.args.iter(), level);
            }
            Expr::Paren(node) => self.list([&node.expr].into_iter(), level),
            Expr::Number(_)
            | Expr::String(_)
            | Expr::VectorSelector(_)
            | Expr::MatrixSelector(_)
            | Expr::Subquery(_)
            | Expr::Binary(_) => self.push(expr),
        }
    }

    /// Prints `expr` as on its own line, without the indentation of that line.
    fn unindented(&mut self, expr: &Expr, level: usize) {
        let start = self.out.len();
        self.expr(expr, level);
        let printed = self.out.split_off(start);
        self.out.push_str(printed.trim());
    }

    /// Parentheses with each of `items` on lines of its own.
    fn list<'e>(&mut self, items: impl Iterator<Item = &'e Expr>, level: usize) {
        self.out.push('(');
        for (at, item) in items.enumerate() {
            self.out.push_str(if at > 0 { ",\n" } else { "\n" });
            self.expr(item, level + 1);
        }
        self.out.push('\n');
        self.indent(level);
        self.out.push(')');
    }
}
