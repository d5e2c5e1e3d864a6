//! Tokens in, a tree out; mistakes are told in the words of Go's `text/template/parse`.

use std::collections::{BTreeMap, VecDeque};

use super::functions::is_function;
use super::lex::{Kind, Lexer, Token};
use super::node::{Branch, Call, Command, Node, Operand, Pipe, Word};
use super::number::{quote, unquote};
use super::value::Value;

/// How deep actions and parentheses may be nested.
const DEPTH_MAX: usize = 100;

/// All templates of one text.
#[derive(Debug, Default)]
pub(super) struct Tree {
    pub(super) main: Vec<Node>,
    pub(super) named: BTreeMap<String, Vec<Node>>,
}

/// Parses the template called `name`.
///
/// # Errors
/// The first mistake.
pub(super) fn parse(name: &str, text: &str) -> Result<Tree, String> {
    let mut parser = Parser {
        name,
        lexer: Lexer::new(text),
        ahead: VecDeque::new(),
        line: 1,
        action_line: 0,
        variables: vec!["$".to_owned()],
        ranges: 0,
        depth: 0,
        named: BTreeMap::new(),
    };
    let main = parser.run()?;
    let mut named = parser.named;
    // A part may have the name of the whole; then it is the whole, unless there is nothing in it.
    let main = match named.remove(name) {
        Some(part) if is_blank(&main) => part,
        Some(part) if !is_blank(&part) => {
            return Err(format!("template: multiple definition of template {}", quote(name)));
        }
        _ => main,
    };
    Ok(Tree { main, named })
}

fn is_blank(list: &[Node]) -> bool {
    list.iter().all(|node| matches!(node, Node::Text(text) if text.trim().is_empty()))
}

struct Parser<'a> {
    name: &'a str,
    lexer: Lexer<'a>,
    /// Tokens that were put back.
    ahead: VecDeque<Token>,
    /// Of the last token that was read.
    line: usize,
    /// Where the current action begins; 0 outside.
    action_line: usize,
    /// Names of variables, `$` included.
    variables: Vec<String>,
    /// How many `range` are open.
    ranges: usize,
    depth: usize,
    named: BTreeMap<String, Vec<Node>>,
}

type Parsed<T> = Result<T, String>;

/// How a list ends.
enum End {
    End,
    Else,
}

impl End {
    const fn show(&self) -> &'static str {
        match self {
            Self::End => "{{end}}",
            Self::Else => "{{else}}",
        }
    }
}

/// A node, or the end of a list.
enum Item {
    Node(Node),
    End(End),
}

impl Parser<'_> {
    fn next(&mut self) -> Token {
        if let Some(token) = self.ahead.pop_front() {
            return token;
        }
        let token = self.lexer.next();
        self.line = token.line;
        token
    }

    fn back(&mut self, token: Token) {
        self.ahead.push_front(token);
    }

    fn peek(&mut self) -> Token {
        let token = self.next();
        self.back(token.clone());
        token
    }

    fn next_word(&mut self) -> Token {
        loop {
            let token = self.next();
            if token.kind != Kind::Space {
                return token;
            }
        }
    }

    fn peek_word(&mut self) -> Token {
        let token = self.next_word();
        self.back(token.clone());
        token
    }

    fn error<T>(&self, message: impl AsRef<str>) -> Parsed<T> {
        Err(format!("template: {}:{}: {}", self.name, self.line, message.as_ref()))
    }

    fn unexpected<T>(&self, token: &Token, context: &str) -> Parsed<T> {
        if token.kind != Kind::Error {
            return self.error(format!("unexpected {} in {context}", token.describe()));
        }
        let mut extra = String::new();
        if self.action_line != 0 && self.action_line != token.line {
            extra = format!(" in action started at {}:{}", self.name, self.action_line);
            if token.text.ends_with(" action") {
                extra = extra.replacen(" in action", "", 1);
            }
        }
        self.error(format!("{}{extra}", token.text))
    }

    fn expect(&mut self, kind: Kind, context: &str) -> Parsed<Token> {
        let token = self.next_word();
        if token.kind == kind { Ok(token) } else { self.unexpected(&token, context) }
    }

    fn deeper<T>(&mut self, inner: impl FnOnce(&mut Self) -> Parsed<T>) -> Parsed<T> {
        if self.depth >= DEPTH_MAX {
            return self.error("max expression depth exceeded");
        }
        self.depth += 1;
        let parsed = inner(self);
        self.depth -= 1;
        parsed
    }

    fn run(&mut self) -> Parsed<Vec<Node>> {
        let mut list = Vec::new();
        loop {
            let token = self.next();
            if token.kind == Kind::End {
                return Ok(list);
            }
            if token.kind == Kind::Left {
                let word = self.next_word();
                if word.kind == Kind::Keyword && word.text == "define" {
                    self.definition()?;
                    continue;
                }
                self.back(word);
            }
            self.back(token);
            match self.text_or_action()? {
                Item::Node(node) => list.push(node),
                Item::End(end) => return self.error(format!("unexpected {}", end.show())),
            }
        }
    }

    fn definition(&mut self) -> Parsed<()> {
        let context = "define clause";
        let token = self.next_word();
        let name = self.template_name(&token, context)?;
        self.expect(Kind::Right, context)?;
        self.part(name, context)
    }

    /// The body of a named template, which sees none of the variables around it.
    fn part(&mut self, name: String, context: &str) -> Parsed<()> {
        let variables = std::mem::replace(&mut self.variables, vec!["$".to_owned()]);
        let ranges = std::mem::take(&mut self.ranges);
        let (list, end) = self.deeper(Self::list)?;
        self.variables = variables;
        self.ranges = ranges;
        if let End::Else = end {
            return self.error(format!("unexpected {} in {context}", end.show()));
        }
        match self.named.get(&name) {
            Some(other) if !is_blank(other) && !is_blank(&list) => {
                self.error(format!("template: multiple definition of template {}", quote(&name)))
            }
            Some(other) if !is_blank(other) => Ok(()),
            _ => {
                self.named.insert(name, list);
                Ok(())
            }
        }
    }

    fn template_name(&mut self, token: &Token, context: &str) -> Parsed<String> {
        if token.kind != Kind::Quoted {
            return self.unexpected(token, context);
        }
        match unquote(&token.text) {
            Some(name) => Ok(name),
            None => self.error("invalid syntax"),
        }
    }

    fn list(&mut self) -> Parsed<(Vec<Node>, End)> {
        let mut list = Vec::new();
        while self.peek_word().kind != Kind::End {
            match self.text_or_action()? {
                Item::Node(node) => list.push(node),
                Item::End(end) => return Ok((list, end)),
            }
        }
        self.error("unexpected EOF")
    }

    fn text_or_action(&mut self) -> Parsed<Item> {
        let token = self.next_word();
        match token.kind {
            Kind::Text => Ok(Item::Node(Node::Text(token.text))),
            Kind::Left => {
                self.action_line = token.line;
                let item = self.action();
                self.action_line = 0;
                item
            }
            _ => self.unexpected(&token, "input"),
        }
    }

    fn action(&mut self) -> Parsed<Item> {
        let token = self.next_word();
        if token.kind != Kind::Keyword {
            self.back(token);
            return Ok(Item::Node(Node::Action(self.pipeline("command", Kind::Right)?)));
        }
        let node = match &*token.text {
            "end" => {
                self.expect(Kind::Right, "end")?;
                return Ok(Item::End(End::End));
            }
            "else" => {
                let peek = self.peek_word();
                let chained = peek.kind == Kind::Keyword && matches!(&*peek.text, "if" | "with");
                if !chained {
                    self.expect(Kind::Right, "else")?;
                }
                return Ok(Item::End(End::Else));
            }
            "if" => Node::If(self.control("if")?),
            "with" => Node::With(self.control("with")?),
            "range" => Node::Range(self.control("range")?),
            "block" => self.block()?,
            "template" => self.call()?,
            "break" | "continue" => self.leave(&token.text)?,
            _ => return self.unexpected(&token, "command"),
        };
        Ok(Item::Node(node))
    }

    fn leave(&mut self, word: &str) -> Parsed<Node> {
        let token = self.next_word();
        if token.kind != Kind::Right {
            return self.unexpected(&token, &format!("{{{{{word}}}}}"));
        }
        if self.ranges == 0 {
            return self.error(format!("{{{{{word}}}}} outside {{{{range}}}}"));
        }
        Ok(if word == "break" { Node::Break } else { Node::Continue })
    }

    fn control(&mut self, context: &'static str) -> Parsed<Branch> {
        let known = self.variables.len();
        let branch = self.deeper(|parser| parser.branch(context));
        self.variables.truncate(known);
        branch
    }

    fn branch(&mut self, context: &'static str) -> Parsed<Branch> {
        let pipe = self.pipeline(context, Kind::Right)?;
        let range = usize::from(context == "range");
        self.ranges += range;
        let (list, end) = self.list()?;
        self.ranges -= range;
        let mut otherwise = Vec::new();
        if let End::Else = end {
            let peek = self.peek();
            if peek.kind == Kind::Keyword && peek.text == context && context != "range" {
                self.next();
                let branch = self.control(context)?;
                let node = if context == "if" { Node::If(branch) } else { Node::With(branch) };
                otherwise.push(node);
            } else {
                let (list, end) = self.list()?;
                otherwise = list;
                if let End::Else = end {
                    return self.error(format!("expected end; found {}", end.show()));
                }
            }
        }
        Ok(Branch { pipe, list, otherwise })
    }

    fn block(&mut self) -> Parsed<Node> {
        let context = "block clause";
        let token = self.next_word();
        let name = self.template_name(&token, context)?;
        let pipe = self.pipeline(context, Kind::Right)?;
        self.part(name.clone(), context)?;
        Ok(Node::Template(Call { at: token.at, name, pipe: Some(pipe) }))
    }

    fn call(&mut self) -> Parsed<Node> {
        let context = "template clause";
        let token = self.next_word();
        let name = self.template_name(&token, context)?;
        let after = self.next_word();
        let pipe = if after.kind == Kind::Right {
            None
        } else {
            self.back(after);
            Some(self.pipeline(context, Kind::Right)?)
        };
        Ok(Node::Template(Call { at: token.at, name, pipe }))
    }

    fn pipeline(&mut self, context: &str, end: Kind) -> Parsed<Pipe> {
        let at = self.peek_word().at;
        let mut pipe = Pipe { at, assigns: false, variables: Vec::new(), commands: Vec::new() };
        while self.declaration(context, &mut pipe)? {}
        loop {
            let token = self.next_word();
            if token.kind == end {
                break;
            }
            match token.kind {
                Kind::Bool
                | Kind::CharConstant
                | Kind::Dot
                | Kind::Field
                | Kind::Identifier
                | Kind::Number
                | Kind::Nil
                | Kind::Quoted
                | Kind::Variable
                | Kind::Open => {
                    self.back(token);
                    let command = self.command()?;
                    pipe.commands.push(command);
                }
                _ => return self.unexpected(&token, context),
            }
        }
        if pipe.commands.is_empty() {
            return self.error(format!("missing value for {context}"));
        }
        for (stage, command) in pipe.commands.iter().enumerate().skip(1) {
            let plain = command.words.first().is_some_and(|word| {
                matches!(
                    word.kind,
                    Word::Bool(_) | Word::Dot | Word::Nil | Word::Number(..) | Word::Text(..)
                )
            });
            if plain {
                let stage = stage + 1;
                return self.error(format!("non executable command in pipeline stage {stage}"));
            }
        }
        Ok(pipe)
    }

    /// A variable that is declared or assigned; whether another one may follow.
    fn declaration(&mut self, context: &str, pipe: &mut Pipe) -> Parsed<bool> {
        let variable = self.peek_word();
        if variable.kind != Kind::Variable {
            return Ok(false);
        }
        self.next_word();
        let after = self.peek();
        let next = self.peek_word();
        if matches!(next.kind, Kind::Assign | Kind::Declare) {
            self.next_word();
            pipe.assigns = next.kind == Kind::Assign;
            pipe.variables.push(variable.text.clone());
            self.variables.push(variable.text);
            return Ok(false);
        }
        if next.kind == Kind::Char && next.text == "," {
            self.next_word();
            pipe.variables.push(variable.text.clone());
            self.variables.push(variable.text);
            if context == "range" && pipe.variables.len() < 2 {
                return match self.peek_word().kind {
                    Kind::Variable | Kind::Right | Kind::Close => Ok(true),
                    _ => self.error("range can only initialize variables"),
                };
            }
            return self.error(format!("too many declarations in {context}"));
        }
        if after.kind == Kind::Space {
            self.back(after);
        }
        self.back(variable);
        Ok(false)
    }

    fn command(&mut self) -> Parsed<Command> {
        let at = self.peek_word().at;
        let mut words = Vec::new();
        loop {
            self.peek_word();
            if let Some(operand) = self.operand()? {
                words.push(operand);
            }
            let token = self.next();
            match token.kind {
                Kind::Space => {}
                Kind::Right | Kind::Close => {
                    self.back(token);
                    break;
                }
                Kind::Pipe => break,
                _ => return self.unexpected(&token, "operand"),
            }
        }
        if words.is_empty() { self.error("empty command") } else { Ok(Command { at, words }) }
    }

    fn operand(&mut self) -> Parsed<Option<Operand>> {
        let Some(term) = self.term()? else { return Ok(None) };
        let first = self.peek();
        if first.kind != Kind::Field {
            return Ok(Some(term));
        }
        let mut names = Vec::new();
        while self.peek().kind == Kind::Field {
            names.push(self.next().text.trim_start_matches('.').to_owned());
        }
        let at = first.at;
        let shown = term.to_string();
        let kind = match term.kind {
            Word::Field(mut before) => {
                before.extend(names);
                Word::Field(before)
            }
            Word::Variable(mut before) => {
                before.extend(names);
                Word::Variable(before)
            }
            Word::Bool(_) | Word::Text(..) | Word::Number(..) | Word::Nil | Word::Dot => {
                return self.error(format!("unexpected . after term {}", quote(&shown)));
            }
            kind => Word::Chain(Box::new(Operand { at: term.at, kind }), names),
        };
        Ok(Some(Operand { at, kind }))
    }

    fn term(&mut self) -> Parsed<Option<Operand>> {
        let token = self.next_word();
        let at = token.at;
        let kind = match token.kind {
            Kind::Identifier if !is_function(&token.text) => {
                return self.error(format!("function {} not defined", quote(&token.text)));
            }
            Kind::Identifier => Word::Function(token.text),
            Kind::Dot => Word::Dot,
            Kind::Nil => Word::Nil,
            Kind::Variable if !self.variables.contains(&token.text) => {
                return self.error(format!("undefined variable {}", quote(&token.text)));
            }
            Kind::Variable => Word::Variable(vec![token.text]),
            Kind::Field => Word::Field(vec![token.text.trim_start_matches('.').to_owned()]),
            Kind::Bool => Word::Bool(token.text == "true"),
            Kind::Number => match number(&token.text) {
                Ok(value) => Word::Number(token.text, value),
                Err(error) => return self.error(error),
            },
            Kind::CharConstant => {
                let text = unquote(&token.text).unwrap_or_default();
                let mut chars = text.chars();
                let (Some(c), None) = (chars.next(), chars.next()) else {
                    let text = match &*text {
                        "" => "invalid syntax".to_owned(),
                        _ => format!("malformed character constant: {}", token.text),
                    };
                    return self.error(text);
                };
                Word::Number(token.text, Value::Int(c as i64))
            }
            Kind::Open => {
                let pipe = self.deeper(|p| p.pipeline("parenthesized pipeline", Kind::Close))?;
                Word::Pipe(pipe)
            }
            Kind::Quoted => match unquote(&token.text) {
                Some(text) => Word::Text(token.text, Value::text(text)),
                None => return self.error("invalid syntax"),
            },
            _ => {
                self.back(token);
                return Ok(None);
            }
        };
        Ok(Some(Operand { at, kind }))
    }
}

/// The value of a number as it is written in a template: an integer where it is one without a point or an
/// exponent, a float otherwise.
fn number(text: &str) -> Result<Value, String> {
    let wrong = || format!("illegal number syntax: {}", quote(text));
    if text.ends_with('i') {
        return Err(format!("complex numbers are not supported: {}", quote(text)));
    }
    let (negative, body) = match text.strip_prefix(['+', '-']) {
        Some(body) => (text.starts_with('-'), body),
        None => (false, text),
    };
    let misplaced = body.starts_with('_') || body.ends_with('_') || body.contains("__");
    if misplaced || body.is_empty() {
        return Err(wrong());
    }
    let lower = body.to_ascii_lowercase().replace('_', "");
    let (radix, digits) = match lower.get(..2) {
        Some("0x") => (16, lower.get(2..).unwrap_or_default()),
        Some("0o") => (8, lower.get(2..).unwrap_or_default()),
        Some("0b") => (2, lower.get(2..).unwrap_or_default()),
        // A zero in front means base 8, as in C.
        _ if lower.len() > 1
            && lower.starts_with('0')
            && lower.bytes().all(|b| b.is_ascii_digit()) =>
        {
            (8, lower.get(1..).unwrap_or_default())
        }
        _ => (10, lower.as_str()),
    };
    let floats =
        if radix == 16 { digits.contains(['p', '.']) } else { digits.contains(['e', '.']) };
    if floats {
        let value = if radix == 16 { hexadecimal(digits) } else { digits.parse().ok() };
        let value = value.ok_or_else(wrong)?;
        return Ok(Value::Float(if negative { -value } else { value }));
    }
    match i128::from_str_radix(digits, radix) {
        Ok(value) => {
            let value = if negative { -value } else { value };
            let small = i64::try_from(value).map(Value::Int);
            small.map_err(|_| format!("integer overflow: {}", quote(text)))
        }
        Err(_) if lower.bytes().all(|byte| byte.is_ascii_digit()) => {
            Err(format!("integer overflow: {}", quote(text)))
        }
        Err(_) => Err(wrong()),
    }
}

/// A float such as `1.8p3`, without the `0x`.
fn hexadecimal(text: &str) -> Option<f64> {
    let (mantissa, exponent) = text.split_once('p')?;
    let exponent: i32 = exponent.parse().ok()?;
    let (whole, fraction) = mantissa.split_once('.').unwrap_or((mantissa, ""));
    if whole.len() + fraction.len() == 0 || whole.len() + fraction.len() > 13 {
        return None;
    }
    let digits = u64::from_str_radix(&format!("{whole}{fraction}"), 16).ok()?;
    let shift = exponent.checked_sub(4 * fraction.len() as i32)?;
    Some(digits as f64 * 2_f64.powi(shift))
}
