//! Walks a parsed template; mistakes are told in the words of Go's `text/template`.

use std::fmt;
use std::sync::Arc;

use stint_promql::SampleValue;

use super::functions::{Body, Function, Param, Scope, find};
use super::node::{Branch, Call, Command, Node, Operand, Pipe, Word};
use super::number::quote;
use super::parse::Tree;
use super::value::Value;
use super::{BYTES_MAX, QueryFunc, TemplateData, time};

/// How deep templates may call each other.
const DEPTH_MAX: usize = 50;
/// How many actions and function calls one expansion may take.
const STEPS_MAX: usize = 200_000;
/// How many queries one expansion may make.
const QUERIES_MAX: usize = 1000;

type Walked<T> = Result<T, String>;

/// Whether a loop goes on.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Flow {
    Next,
    Break,
    Continue,
}

/// What is being evaluated, for error messages.
#[derive(Clone, Copy)]
enum At<'t> {
    Nothing,
    Operand(&'t Operand),
    Command(&'t Command),
    Pipe(&'t Pipe),
    Call(&'t Call),
}

impl At<'_> {
    fn position(self) -> usize {
        match self {
            Self::Nothing => 0,
            Self::Operand(operand) => operand.at,
            Self::Command(command) => command.at,
            Self::Pipe(pipe) => pipe.at,
            Self::Call(call) => call.at,
        }
    }
}

impl fmt::Display for At<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Nothing => Ok(()),
            Self::Operand(operand) => operand.fmt(f),
            Self::Command(command) => command.fmt(f),
            Self::Pipe(pipe) => pipe.fmt(f),
            Self::Call(call) => call.fmt(f),
        }
    }
}

/// What a value was taken out of: a place that takes anything shows its own type.
#[derive(Clone)]
struct Found {
    value: Value,
    in_any: bool,
}

impl From<Value> for Found {
    fn from(value: Value) -> Self {
        Self { value, in_any: false }
    }
}

/// Expands `tree`, the template called `name` in `text`.
///
/// # Errors
/// Where and why it failed.
pub(super) fn expand(
    name: &str,
    text: &str,
    tree: &Tree,
    data: &TemplateData<'_>,
    query: &dyn QueryFunc,
) -> Result<String, String> {
    let value = match data.value {
        SampleValue::Float(value) => Value::Float(*value),
        SampleValue::Histogram(histogram) => Value::Histogram(histogram.clone()),
    };
    let root = Value::Root(Arc::new([
        Value::Labels(data.labels.clone()),
        Value::Labels(data.external_labels.clone()),
        Value::text(data.external_url),
        value,
    ]));
    let mut state = State {
        file: name,
        text,
        tree,
        executing: name,
        scope: Scope { data, query, queries_left: QUERIES_MAX },
        at: At::Nothing,
        variables: vec![("$", root.clone())],
        out: String::new(),
        depth: 0,
        steps: 0,
    };
    state.list(&root, &tree.main)?;
    Ok(state.out)
}

struct State<'t, 'd> {
    file: &'t str,
    text: &'t str,
    tree: &'t Tree,
    /// The template that is being executed.
    executing: &'t str,
    scope: Scope<'d>,
    at: At<'t>,
    variables: Vec<(&'t str, Value)>,
    out: String,
    depth: usize,
    steps: usize,
}

impl<'t> State<'t, '_> {
    fn error<T>(&self, message: impl fmt::Display) -> Walked<T> {
        let position = self.at.position();
        let before = self.text.get(..position).unwrap_or_default();
        let line = before.matches('\n').count() + 1;
        let column = before.rfind('\n').map_or(position, |feed| position - feed - 1);
        let executing = quote(self.executing);
        Err(format!(
            "template: {}:{line}:{column}: executing {executing} at <{}>: {message}",
            self.file, self.at
        ))
    }

    fn step(&mut self) -> Walked<()> {
        self.steps += 1;
        if self.steps > STEPS_MAX {
            return self.error(format!("the template takes more than {STEPS_MAX} steps"));
        }
        if self.out.len() > BYTES_MAX {
            return self.error(format!("the text is longer than {BYTES_MAX} bytes"));
        }
        Ok(())
    }

    fn list(&mut self, dot: &Value, list: &'t [Node]) -> Walked<Flow> {
        for node in list {
            let flow = self.node(dot, node)?;
            if flow != Flow::Next {
                return Ok(flow);
            }
        }
        Ok(Flow::Next)
    }

    fn node(&mut self, dot: &Value, node: &'t Node) -> Walked<Flow> {
        self.step()?;
        match node {
            Node::Text(text) => self.out.push_str(text),
            Node::Action(pipe) => {
                let value = self.pipe(dot, pipe)?;
                if pipe.variables.is_empty() {
                    match value {
                        Value::Nil => self.out.push_str("<no value>"),
                        value => value.push(&mut self.out),
                    }
                }
            }
            Node::If(branch) => return self.choose(dot, branch, false),
            Node::With(branch) => return self.choose(dot, branch, true),
            Node::Range(branch) => return self.range(dot, branch),
            Node::Template(call) => self.call_template(dot, call)?,
            Node::Break => return Ok(Flow::Break),
            Node::Continue => return Ok(Flow::Continue),
        }
        Ok(Flow::Next)
    }

    fn choose(&mut self, dot: &Value, branch: &'t Branch, with: bool) -> Walked<Flow> {
        let known = self.variables.len();
        let value = self.pipe(dot, &branch.pipe)?;
        let flow = if value.is_true() {
            self.list(if with { &value } else { dot }, &branch.list)
        } else {
            self.list(dot, &branch.otherwise)
        };
        self.variables.truncate(known);
        flow
    }

    fn range(&mut self, dot: &Value, branch: &'t Branch) -> Walked<Flow> {
        let known = self.variables.len();
        let value = self.pipe(dot, &branch.pipe)?;
        let mark = self.variables.len();
        let two = branch.pipe.variables.len() > 1;
        let mut any = false;
        for (index, item) in self.items(&value, two)? {
            self.step()?;
            any = true;
            self.set_range_variables(&branch.pipe, index, item.clone())?;
            let flow = self.list(&item, &branch.list)?;
            self.variables.truncate(mark);
            if flow == Flow::Break {
                break;
            }
        }
        let flow = if any { Ok(Flow::Next) } else { self.list(dot, &branch.otherwise) };
        self.variables.truncate(known);
        flow
    }

    /// What a loop goes over: indexes and items.
    fn items(&self, value: &Value, two: bool) -> Walked<Items> {
        Ok(match value {
            Value::Nil => Box::new(std::iter::empty()),
            Value::Int(number) if two => {
                let text = format!("can't use {number} to iterate over more than one variable");
                return self.error(text);
            }
            Value::Int(number) => Box::new((0..*number).map(|at| (Value::Int(at), Value::Int(at)))),
            Value::Vector(samples) => {
                let samples = samples.iter().cloned().collect::<Vec<_>>().into_iter().enumerate();
                Box::new(samples.map(|(at, sample)| (Value::Int(at as i64), Value::Sample(sample))))
            }
            Value::Labels(labels) => {
                let pairs =
                    labels.iter().map(|(name, text)| (Value::text(name), Value::text(text)));
                Box::new(pairs.collect::<Vec<_>>().into_iter())
            }
            Value::Args(args) => {
                let pairs = args.iter().map(|(name, value)| (Value::text(name), value.clone()));
                Box::new(pairs.collect::<Vec<_>>().into_iter())
            }
            other => {
                return self.error(format!("range can't iterate over {}", other.show()));
            }
        })
    }

    fn set_range_variables(&mut self, pipe: &'t Pipe, index: Value, item: Value) -> Walked<()> {
        // Of two variables the first is the index; of one it is the item.
        let values = if pipe.variables.len() > 1 { vec![index, item] } else { vec![item] };
        if pipe.assigns {
            for (name, value) in pipe.variables.iter().zip(values) {
                self.assign(name, value)?;
            }
            return Ok(());
        }
        let slots = self.variables.iter_mut().rev().take(pipe.variables.len());
        for (slot, value) in slots.zip(values.into_iter().rev()) {
            slot.1 = value;
        }
        Ok(())
    }

    fn call_template(&mut self, dot: &Value, call: &'t Call) -> Walked<()> {
        self.at = At::Call(call);
        let list = if call.name == self.file {
            &self.tree.main
        } else if let Some(list) = self.tree.named.get(&call.name) {
            list
        } else {
            return self.error(format!("template {} not defined", quote(&call.name)));
        };
        if self.depth >= DEPTH_MAX {
            return self.error(format!("exceeded maximum template depth ({DEPTH_MAX})"));
        }
        let dot = match &call.pipe {
            Some(pipe) => self.pipe(dot, pipe)?,
            None => Value::Nil,
        };
        let variables = std::mem::replace(&mut self.variables, vec![("$", dot.clone())]);
        let executing = std::mem::replace(&mut self.executing, &call.name);
        self.depth += 1;
        self.list(&dot, list)?;
        self.depth -= 1;
        self.executing = executing;
        self.variables = variables;
        Ok(())
    }

    fn pipe(&mut self, dot: &Value, pipe: &'t Pipe) -> Walked<Value> {
        self.at = At::Pipe(pipe);
        let mut last = None;
        for command in &pipe.commands {
            last = Some(self.command(dot, command, last)?);
        }
        let value = last.unwrap_or(Value::Nil);
        for name in &pipe.variables {
            if pipe.assigns {
                self.assign(name, value.clone())?;
            } else {
                self.variables.push((name, value.clone()));
            }
        }
        Ok(value)
    }

    fn assign(&mut self, name: &str, value: Value) -> Walked<()> {
        match self.variables.iter_mut().rev().find(|(known, _)| *known == name) {
            Some(variable) => {
                variable.1 = value;
                Ok(())
            }
            None => self.error(format!("undefined variable: {name}")),
        }
    }

    fn command(&mut self, dot: &Value, command: &'t Command, last: Option<Value>) -> Walked<Value> {
        self.step()?;
        let Some((first, arguments)) = command.words.split_first() else { return Ok(Value::Nil) };
        let found = match &first.kind {
            Word::Function(name) => {
                return self.function(dot, first, name, At::Command(command), arguments, last);
            }
            Word::Field(names) => {
                self.at = At::Operand(first);
                let call = Some((command, arguments, last));
                self.chain(dot, dot.clone().into(), names, call)?
            }
            Word::Chain(inner, names) => {
                self.at = At::Operand(first);
                if matches!(inner.kind, Word::Nil) {
                    return self.error(format!("indirection through explicit nil in {first}"));
                }
                let receiver = self.word(dot, inner)?;
                self.chain(dot, receiver, names, Some((command, arguments, last)))?
            }
            Word::Variable(names) if names.len() > 1 => {
                self.at = At::Operand(first);
                let (variable, names) = self.variable(names)?;
                self.chain(dot, variable.into(), names, Some((command, arguments, last)))?
            }
            kind => {
                if !matches!(kind, Word::Pipe(_)) {
                    self.at = At::Operand(first);
                }
                if !arguments.is_empty() || last.is_some() {
                    return self.error(format!("can't give argument to non-function {first}"));
                }
                if matches!(kind, Word::Nil) {
                    return self.error("nil is not a command");
                }
                self.word(dot, first)?
            }
        };
        Ok(found.value)
    }

    fn variable(&self, names: &'t [String]) -> Walked<(Value, &'t [String])> {
        let Some((name, fields)) = names.split_first() else { return Ok((Value::Nil, &[])) };
        match self.variables.iter().rev().find(|(known, _)| known == name) {
            Some((_, value)) => Ok((value.clone(), fields)),
            None => self.error(format!("undefined variable: {name}")),
        }
    }

    /// The value of a word that is no command.
    fn word(&mut self, dot: &Value, word: &'t Operand) -> Walked<Found> {
        if !matches!(word.kind, Word::Pipe(_)) {
            self.at = At::Operand(word);
        }
        Ok(match &word.kind {
            Word::Dot => dot.clone().into(),
            Word::Nil => Value::Nil.into(),
            Word::Bool(value) => Value::Bool(*value).into(),
            Word::Number(_, value) | Word::Text(_, value) => value.clone().into(),
            Word::Field(names) => self.chain(dot, dot.clone().into(), names, None)?,
            Word::Variable(names) => {
                let (variable, names) = self.variable(names)?;
                self.chain(dot, variable.into(), names, None)?
            }
            Word::Function(name) => {
                self.function(dot, word, name, At::Operand(word), &[], None)?.into()
            }
            Word::Chain(inner, names) => {
                if matches!(inner.kind, Word::Nil) {
                    return self.error(format!("indirection through explicit nil in {word}"));
                }
                let receiver = self.word(dot, inner)?;
                self.chain(dot, receiver, names, None)?
            }
            Word::Pipe(pipe) => self.pipe(dot, pipe)?.into(),
        })
    }

    /// Goes from `receiver` through `names`; the last one may be a method that is called with arguments.
    fn chain(
        &mut self,
        dot: &Value,
        receiver: Found,
        names: &'t [String],
        mut call: Option<(&'t Command, &'t [Operand], Option<Value>)>,
    ) -> Walked<Found> {
        let mut found = receiver;
        for (at, name) in names.iter().enumerate() {
            let last = at + 1 == names.len();
            let call = if last { call.take() } else { None };
            let (arguments, end): (&[Operand], _) = match call {
                Some((_, arguments, end)) => (arguments, end),
                None => (&[], None),
            };
            found = self.field(dot, &found, name, arguments, end)?;
        }
        Ok(found)
    }

    fn field(
        &mut self,
        dot: &Value,
        receiver: &Found,
        name: &str,
        arguments: &'t [Operand],
        last: Option<Value>,
    ) -> Walked<Found> {
        let has_arguments = !arguments.is_empty() || last.is_some();
        let value = match &receiver.value {
            Value::Nil if receiver.in_any => {
                return self.error(format!("nil pointer evaluating interface {{}}.{name}"));
            }
            Value::Nil => return Ok(Value::Nil.into()),
            value => value,
        };
        if is_map(value) && has_arguments {
            return self.error(format!("{name} is not a method but has arguments"));
        }
        if let Some(found) = Self::member(value, name) {
            if has_arguments {
                let text = format!("{name} has arguments but cannot be invoked as function");
                return self.error(text);
            }
            return Ok(found);
        }
        let before = self.at;
        let mut values = Vec::with_capacity(arguments.len());
        for argument in arguments {
            values.push(self.word(dot, argument)?.value);
        }
        values.extend(last);
        if let Some(found) = time::method(value, name, &values) {
            return Ok(found.into());
        }
        // Go looks for the field without looking at the arguments.
        self.at = before;
        let type_name = if receiver.in_any { "interface {}" } else { value.type_name() };
        self.error(format!("can't evaluate field {name} in type {type_name}"))
    }

    /// A field of a structure, or an entry of a map.
    fn member(value: &Value, name: &str) -> Option<Found> {
        Some(match (value, name) {
            (Value::Root(parts), _) => {
                let (at, in_any) = match name {
                    "Labels" => (0, false),
                    "ExternalLabels" => (1, false),
                    "ExternalURL" => (2, false),
                    "Value" => (3, true),
                    _ => return None,
                };
                Found { value: parts.get(at)?.clone(), in_any }
            }
            (Value::Labels(labels), name) => {
                Value::text(labels.get(name).unwrap_or_default()).into()
            }
            (Value::Args(args), name) => {
                Found { value: args.get(name).cloned().unwrap_or(Value::Nil), in_any: true }
            }
            (Value::Sample(sample), "Labels") => Value::Labels(sample.labels.clone()).into(),
            (Value::Sample(sample), "Value") => Value::Float(sample.value).into(),
            (Value::Histogram(histogram), "Count") => Value::Float(histogram.count).into(),
            (Value::Histogram(histogram), "Sum") => Value::Float(histogram.sum).into(),
            (Value::Histogram(histogram), "ZeroCount") => Value::Float(histogram.zero_count).into(),
            (Value::Histogram(histogram), "ZeroThreshold") => {
                Value::Float(histogram.zero_threshold).into()
            }
            (Value::Histogram(histogram), "Schema") => {
                Value::Int(i64::from(histogram.schema)).into()
            }
            _ => return None,
        })
    }

    fn function(
        &mut self,
        dot: &Value,
        word: &'t Operand,
        name: &str,
        whole: At<'t>,
        arguments: &'t [Operand],
        last: Option<Value>,
    ) -> Walked<Value> {
        self.at = At::Operand(word);
        self.step()?;
        let Some(function) = find(name) else {
            return self.error(format!("{} is not a defined function", quote(name)));
        };
        let count = arguments.len() + usize::from(last.is_some());
        let wanted = function.params.len();
        if function.rest.is_some() && count < wanted {
            let got = arguments.len();
            let text = format!("wrong number of args for {name}: want at least {wanted} got {got}");
            return self.error(text);
        }
        if function.rest.is_none() && count != wanted {
            let text = format!("wrong number of args for {name}: want {wanted} got {count}");
            return self.error(text);
        }
        if let Body::Until(stop) = function.body {
            let mut value = Value::Nil;
            for argument in arguments {
                value = self.argument(dot, Param::Any, argument)?;
                if value.is_true() == stop {
                    return Ok(value);
                }
            }
            return Ok(last.unwrap_or(value));
        }
        let mut values = Vec::with_capacity(count);
        for (at, argument) in arguments.iter().enumerate() {
            values.push(self.argument(dot, param(function, at), argument)?);
        }
        if let Some(last) = last {
            let param = param(function, values.len());
            values.push(self.checked(last, param)?);
        }
        let outcome = match function.body {
            Body::Plain(body) => body(&values),
            Body::Scoped(body) => body(&values, &mut self.scope),
            Body::Until(_) => Ok(Value::Nil),
        };
        outcome.or_else(|error| {
            self.at = whole;
            // What is called is named as it is written.
            let callee = arguments.first().filter(|_| name == "call");
            let error = match callee {
                Some(callee) => {
                    error.replacen("non-function", &format!("non-function {callee}"), 1)
                }
                None => error,
            };
            self.error(format!("error calling {name}: {error}"))
        })
    }

    fn argument(&mut self, dot: &Value, param: Param, word: &'t Operand) -> Walked<Value> {
        self.at = At::Operand(word);
        let expected = param.type_name();
        match &word.kind {
            Word::Nil if param == Param::Text => {
                self.error(format!("cannot assign nil to {expected}"))
            }
            Word::Text(..) | Word::Bool(_) | Word::Number(..) => match (param, &word.kind) {
                (Param::Any, _) | (Param::Text, Word::Text(..)) => Ok(self.word(dot, word)?.value),
                (Param::Text, _) => self.error(format!("expected string; found {word}")),
                _ => self.error(format!("can't handle {word} for arg of type {expected}")),
            },
            _ => {
                let found = self.word(dot, word)?;
                if found.in_any && param != Param::Any && matches!(found.value, Value::Nil) {
                    let text =
                        format!("wrong type for value; expected {expected}; got interface {{}}");
                    return self.error(text);
                }
                self.checked(found.value, param)
            }
        }
    }

    /// `value` where `param` takes it.
    fn checked(&self, value: Value, param: Param) -> Walked<Value> {
        let expected = param.type_name();
        match (param, &value) {
            (Param::Any, _)
            | (Param::Text, Value::Text(_))
            | (Param::Sample, Value::Sample(_) | Value::Nil)
            | (Param::Vector, Value::Vector(_) | Value::Nil) => Ok(value),
            (Param::Text, Value::Nil) => self.error(format!("invalid value; expected {expected}")),
            (_, other) => {
                let got = other.type_name();
                self.error(format!("wrong type for value; expected {expected}; got {got}"))
            }
        }
    }
}

type Items = Box<dyn Iterator<Item = (Value, Value)>>;

fn is_map(value: &Value) -> bool {
    matches!(value, Value::Labels(_) | Value::Args(_))
}

/// What the argument at a place is taken as.
fn param(function: &Function, at: usize) -> Param {
    function.params.get(at).copied().or(function.rest).unwrap_or(Param::Any)
}
