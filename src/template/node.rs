//! A parsed template, whose parts print as they would be written, for error messages.

use std::fmt;

use super::value::Value;

/// What a list holds.
#[derive(Debug)]
pub(super) enum Node {
    Text(String),
    Action(Pipe),
    If(Branch),
    With(Branch),
    Range(Branch),
    Template(Call),
    Break,
    Continue,
}

/// `if`, `with` or `range`.
#[derive(Debug)]
pub(super) struct Branch {
    pub(super) pipe: Pipe,
    pub(super) list: Vec<Node>,
    pub(super) otherwise: Vec<Node>,
}

/// `template`.
#[derive(Debug)]
pub(super) struct Call {
    pub(super) at: usize,
    pub(super) name: String,
    pub(super) pipe: Option<Pipe>,
}

/// Commands, each of which gets what the one before it made.
#[derive(Debug)]
pub(super) struct Pipe {
    pub(super) at: usize,
    /// Whether the variables exist already.
    pub(super) assigns: bool,
    pub(super) variables: Vec<String>,
    pub(super) commands: Vec<Command>,
}

/// A value, or a function and its arguments.
#[derive(Debug)]
pub(super) struct Command {
    pub(super) at: usize,
    /// At least one.
    pub(super) words: Vec<Operand>,
}

/// A word of a command.
#[derive(Debug)]
pub(super) struct Operand {
    pub(super) at: usize,
    pub(super) kind: Word,
}

#[derive(Debug)]
pub(super) enum Word {
    Dot,
    Nil,
    Bool(bool),
    /// As it is written, and as it counts.
    Number(String, Value),
    /// With its quotes, and without.
    Text(String, Value),
    /// `.a.b`
    Field(Vec<String>),
    /// `$a.b`; the first name is the variable's.
    Variable(Vec<String>),
    Function(String),
    /// `(…).a.b`
    Chain(Box<Operand>, Vec<String>),
    Pipe(Pipe),
}

fn fields(f: &mut fmt::Formatter<'_>, names: &[String]) -> fmt::Result {
    names.iter().try_for_each(|name| write!(f, ".{name}"))
}

impl fmt::Display for Operand {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.kind {
            Word::Dot => f.write_str("."),
            Word::Nil => f.write_str("nil"),
            Word::Bool(value) => write!(f, "{value}"),
            Word::Number(text, _) | Word::Text(text, _) | Word::Function(text) => f.write_str(text),
            Word::Field(names) => fields(f, names),
            Word::Variable(names) => f.write_str(&names.join(".")),
            Word::Chain(inner, names) => {
                match &inner.kind {
                    Word::Pipe(pipe) => write!(f, "({pipe})")?,
                    _ => inner.fmt(f)?,
                }
                fields(f, names)
            }
            Word::Pipe(pipe) => pipe.fmt(f),
        }
    }
}

impl fmt::Display for Command {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (at, word) in self.words.iter().enumerate() {
            if at > 0 {
                f.write_str(" ")?;
            }
            match &word.kind {
                Word::Pipe(pipe) => write!(f, "({pipe})")?,
                _ => word.fmt(f)?,
            }
        }
        Ok(())
    }
}

impl fmt::Display for Pipe {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if !self.variables.is_empty() {
            let sign = if self.assigns { "=" } else { ":=" };
            write!(f, "{} {sign} ", self.variables.join(", "))?;
        }
        for (at, command) in self.commands.iter().enumerate() {
            if at > 0 {
                f.write_str(" | ")?;
            }
            command.fmt(f)?;
        }
        Ok(())
    }
}

impl fmt::Display for Call {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{{{{template {}", super::number::quote(&self.name))?;
        if let Some(pipe) = &self.pipe {
            write!(f, " {pipe}")?;
        }
        f.write_str("}}")
    }
}
