//! The lines of a script.

use std::collections::HashMap;

use stint_model::{Labels, Span, Timestamp};

use crate::parse::{
    SequenceValue, SeriesDescription, literal, parse_series_description, parse_start_times,
};

/// A line that cannot be read.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("line {line}: {message}")]
pub struct ScriptError {
    /// From 1.
    pub line: usize,
    /// What is wrong with it.
    pub message: String,
}

/// A command.
#[derive(Clone, Debug)]
pub(super) enum Command {
    Clear,
    Load(Load),
    Eval(Box<Eval>),
}

/// Data to load.
#[derive(Clone, Debug)]
pub(super) struct Load {
    pub(super) step: Span,
    /// Whether classic histograms are also stored as native ones with custom buckets.
    pub(super) with_nhcb: bool,
    pub(super) series: Vec<SeriesDescription>,
    /// Start times, relative to the samples.
    pub(super) starts: HashMap<Labels, Vec<Option<Span>>>,
}

/// When to evaluate.
#[derive(Clone, Copy, Debug)]
pub(super) enum When {
    Instant(Timestamp),
    Range { start: Timestamp, end: Timestamp, step: Span },
}

/// A text that must be met.
#[derive(Clone, Debug)]
pub(super) enum Pattern {
    Any,
    Exact(String),
    Regex(Box<regex::Regex>),
}

impl Pattern {
    pub(super) fn matches(&self, text: &str) -> bool {
        match self {
            Self::Any => true,
            Self::Exact(exact) => text == exact,
            Self::Regex(regex) => regex.is_match(text),
        }
    }
}

/// What annotations of one kind must be.
#[derive(Clone, Debug, Default)]
pub(super) struct Remarks {
    pub(super) wanted: Vec<Pattern>,
    pub(super) forbidden: bool,
}

/// An evaluation and what must come out.
#[derive(Clone, Debug)]
pub(super) struct Eval {
    pub(super) line: usize,
    pub(super) expr: String,
    pub(super) when: When,
    pub(super) ordered: bool,
    pub(super) fail: Option<Pattern>,
    pub(super) warnings: Remarks,
    pub(super) infos: Remarks,
    pub(super) string: Option<String>,
    pub(super) scalar: Option<f64>,
    pub(super) range_vector: Option<(Timestamp, Timestamp, Span)>,
    pub(super) expected: Vec<(Labels, Vec<SequenceValue>)>,
}

struct Lines<'a> {
    lines: Vec<&'a str>,
    next: usize,
}

impl<'a> Lines<'a> {
    /// The next line of the same block.
    fn in_block(&mut self) -> Option<(usize, &'a str)> {
        let line = *self.lines.get(self.next)?;
        if line.is_empty() {
            return None;
        }
        self.next += 1;
        Some((self.next, line))
    }

    /// The next line with text.
    fn any(&mut self) -> Option<(usize, &'a str)> {
        while self.lines.get(self.next).is_some_and(|line| line.is_empty()) {
            self.next += 1;
        }
        self.in_block()
    }
}

/// Reads all commands.
pub(super) fn parse_commands(text: &str) -> Result<Vec<Command>, ScriptError> {
    let lines = text.lines().map(str::trim);
    let lines = lines.map(|line| if line.starts_with('#') { "" } else { line }).collect();
    let mut lines = Lines { lines, next: 0 };
    let mut commands = Vec::new();
    while let Some((number, line)) = lines.any() {
        let word = line.split_whitespace().next().unwrap_or_default().to_lowercase();
        commands.push(match word.as_str() {
            "clear" => Command::Clear,
            "load" | "load_with_nhcb" => Command::Load(load(number, line, &word, &mut lines)?),
            _ if word.starts_with("eval") => {
                Command::Eval(Box::new(eval(number, line, &word, &mut lines)?))
            }
            _ => return Err(error(number, format!("unknown command {word:?}"))),
        });
    }
    Ok(commands)
}

fn error(line: usize, message: impl Into<String>) -> ScriptError {
    ScriptError { line, message: message.into() }
}

fn duration(line: usize, text: &str) -> Result<Span, ScriptError> {
    let (sign, digits) = match text.strip_prefix('-') {
        Some(digits) => (-1, digits),
        None => (1, text),
    };
    let span = Span::parse(digits).or_else(|_| literal::parse_duration(digits));
    let span = span.map_err(|cause| error(line, format!("invalid duration {text:?}: {cause}")))?;
    Ok(Span(span.0 * sign))
}

fn time(line: usize, text: &str) -> Result<Timestamp, ScriptError> {
    Ok(Timestamp(duration(line, text)?.0))
}

fn load(number: usize, line: &str, word: &str, lines: &mut Lines<'_>) -> Result<Load, ScriptError> {
    let step = line.split_whitespace().nth(1);
    let step = step.ok_or_else(|| error(number, "load needs a step"))?;
    let mut load = Load {
        step: duration(number, step)?,
        with_nhcb: word == "load_with_nhcb",
        series: Vec::new(),
        starts: HashMap::new(),
    };
    while let Some((number, line)) = lines.in_block() {
        if line.contains("@st ") || line.contains("@st\t") {
            let (labels, starts) =
                parse_start_times(line).map_err(|e| error(number, e.to_string()))?;
            load.starts.insert(labels, starts);
        } else {
            let series =
                parse_series_description(line).map_err(|e| error(number, e.to_string()))?;
            load.series.push(series);
        }
    }
    Ok(load)
}

/// The next word and the rest.
fn word(text: &str) -> (&str, &str) {
    let text = text.trim_start();
    let end = text.find(char::is_whitespace).unwrap_or(text.len());
    text.split_at_checked(end).unwrap_or((text, ""))
}

fn eval(
    number: usize,
    line: &str,
    first: &str,
    lines: &mut Lines<'_>,
) -> Result<Eval, ScriptError> {
    let invalid = || {
        error(
            number,
            "an evaluation must be `eval instant at T EXPR` or `eval range from T to T step D EXPR`",
        )
    };
    let (_, rest) = word(line);
    let (kind, rest) = word(rest);
    let (when, expr) = match kind {
        "instant" => {
            let (at, rest) = word(rest);
            if at != "at" {
                return Err(invalid());
            }
            let (at, expr) = word(rest);
            (When::Instant(time(number, at)?), expr)
        }
        "range" => {
            let mut rest = rest;
            let mut values = Vec::new();
            for keyword in ["from", "to", "step"] {
                let (found, tail) = word(rest);
                if found != keyword {
                    return Err(invalid());
                }
                let (value, tail) = word(tail);
                values.push(value);
                rest = tail;
            }
            let [start, end, step] = values.as_slice() else { return Err(invalid()) };
            let when = When::Range {
                start: time(number, start)?,
                end: time(number, end)?,
                step: duration(number, step)?,
            };
            (when, rest)
        }
        _ => return Err(invalid()),
    };
    let mut eval = Eval {
        line: number,
        expr: expr.trim().to_owned(),
        when,
        ordered: first == "eval_ordered",
        fail: (first == "eval_fail").then_some(Pattern::Any),
        warnings: Remarks::default(),
        infos: Remarks::default(),
        string: None,
        scalar: None,
        range_vector: None,
        expected: Vec::new(),
    };
    match first {
        "eval_warn" => eval.warnings.wanted.push(Pattern::Any),
        "eval_info" => eval.infos.wanted.push(Pattern::Any),
        _ => {}
    }
    while let Some((number, line)) = lines.in_block() {
        expectation(&mut eval, number, line)?;
    }
    Ok(eval)
}

fn expectation(eval: &mut Eval, number: usize, line: &str) -> Result<(), ScriptError> {
    let (first, rest) = word(line);
    match first {
        "expected_fail_message" => {
            eval.fail = Some(Pattern::Exact(rest.trim().to_owned()));
        }
        "expected_fail_regexp" => eval.fail = Some(regex(number, rest.trim())?),
        "expect" => expect(eval, number, rest)?,
        _ => {
            if let Ok(scalar) = line.parse::<f64>() {
                eval.scalar = Some(scalar);
                return Ok(());
            }
            if let Some(scalar) = scalar_literal(line) {
                eval.scalar = Some(scalar);
                return Ok(());
            }
            let series =
                parse_series_description(line).map_err(|e| error(number, e.to_string()))?;
            eval.expected.push((series.labels, series.values));
        }
    }
    Ok(())
}

/// A number as the language writes it, such as `0x1f` or `5m`.
fn scalar_literal(line: &str) -> Option<f64> {
    match crate::parse::parse(line, &crate::parse::Options::default()).ok()? {
        crate::parse::Expr::Number(number) => Some(number.value),
        _ => None,
    }
}

fn regex(number: usize, text: &str) -> Result<Pattern, ScriptError> {
    let regex = regex::Regex::new(text).map_err(|cause| error(number, cause.to_string()))?;
    Ok(Pattern::Regex(Box::new(regex)))
}

fn expect(eval: &mut Eval, number: usize, text: &str) -> Result<(), ScriptError> {
    let (kind, rest) = word(text);
    let rest = rest.trim();
    let pattern = || -> Result<Pattern, ScriptError> {
        if let Some(text) = rest.strip_prefix("msg:") {
            Ok(Pattern::Exact(text.trim().to_owned()))
        } else if let Some(text) = rest.strip_prefix("regex:") {
            regex(number, text.trim())
        } else if rest.is_empty() {
            Ok(Pattern::Any)
        } else {
            Err(error(number, format!("expected `msg:` or `regex:`, found {rest:?}")))
        }
    };
    match kind {
        "ordered" => eval.ordered = true,
        "fail" => eval.fail = Some(pattern()?),
        "warn" => eval.warnings.wanted.push(pattern()?),
        "info" => eval.infos.wanted.push(pattern()?),
        "no_warn" => eval.warnings.forbidden = true,
        "no_info" => eval.infos.forbidden = true,
        "string" => {
            let parsed = crate::parse::parse(rest, &crate::parse::Options::default());
            let Ok(crate::parse::Expr::String(literal)) = parsed else {
                return Err(error(number, format!("expected a quoted string, found {rest:?}")));
            };
            eval.string = Some(literal.text().into_owned());
        }
        "range" => {
            let words: Vec<&str> = rest.split_whitespace().collect();
            let ["vector", "from", start, "to", end, "step", step] = words.as_slice() else {
                return Err(error(number, "expected `range vector from T to T step D`"));
            };
            eval.range_vector =
                Some((time(number, start)?, time(number, end)?, duration(number, step)?));
        }
        _ => return Err(error(number, format!("unknown expectation {kind:?}"))),
    }
    Ok(())
}
