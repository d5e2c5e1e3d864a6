//! The functions of Prometheus, and the table of all functions.

use std::collections::BTreeMap;
use std::sync::Arc;

use stint_model::Span;
use stint_model::matcher::search_regex;

use super::builtins as go;
use super::number::{float, parse_float, quote};
use super::value::{Sample, Value};
use super::{QueryFunc, TemplateData, time};

/// What functions need of the expansion they are called in.
pub(super) struct Scope<'a> {
    pub(super) data: &'a TemplateData<'a>,
    pub(super) query: &'a dyn QueryFunc,
    /// How many queries may still be made.
    pub(super) queries_left: usize,
}

/// What a parameter takes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Param {
    Any,
    Text,
    Sample,
    Vector,
}

impl Param {
    pub(super) const fn type_name(self) -> &'static str {
        match self {
            Self::Any => "interface {}",
            Self::Text => "string",
            Self::Sample => "*template.sample",
            Self::Vector => "template.queryResult",
        }
    }
}

type Outcome = Result<Value, String>;

/// What a function does.
#[derive(Clone, Copy)]
pub(super) enum Body {
    /// `and` (false) and `or` (true), which look at one argument after another.
    Until(bool),
    Plain(fn(&[Value]) -> Outcome),
    Scoped(fn(&[Value], &mut Scope<'_>) -> Outcome),
}

/// A function and what it takes.
pub(super) struct Function {
    pub(super) name: &'static str,
    pub(super) params: &'static [Param],
    /// Of any number of further arguments.
    pub(super) rest: Option<Param>,
    pub(super) body: Body,
}

use Param::{Any, Sample as One, Text, Vector};

const fn plain(
    name: &'static str,
    params: &'static [Param],
    body: fn(&[Value]) -> Outcome,
) -> Function {
    Function { name, params, rest: None, body: Body::Plain(body) }
}

const fn many(
    name: &'static str,
    params: &'static [Param],
    body: fn(&[Value]) -> Outcome,
) -> Function {
    Function { name, params, rest: Some(Any), body: Body::Plain(body) }
}

const fn scoped(
    name: &'static str,
    params: &'static [Param],
    body: fn(&[Value], &mut Scope<'_>) -> Outcome,
) -> Function {
    Function { name, params, rest: None, body: Body::Scoped(body) }
}

const fn until(name: &'static str, stop: bool) -> Function {
    Function { name, params: &[Any], rest: Some(Any), body: Body::Until(stop) }
}

static FUNCTIONS: [Function; 48] = [
    until("and", false),
    until("or", true),
    plain("not", &[Any], |of| Ok(Value::Bool(!arg(of, 0).is_true()))),
    many("eq", &[Any], go::equal),
    plain("ne", &[Any, Any], |of| go::equal(of).map(|same| go::negated(&same))),
    plain("lt", &[Any, Any], |of| go::less(of).map(Value::Bool)),
    plain("le", &[Any, Any], |of| go::at_most(of).map(Value::Bool)),
    plain("gt", &[Any, Any], |of| go::at_most(of).map(|at_most| Value::Bool(!at_most))),
    plain("ge", &[Any, Any], |of| go::less(of).map(|less| Value::Bool(!less))),
    plain("len", &[Any], go::length),
    many("index", &[Any], go::index),
    many("slice", &[Any], go::slice),
    many("print", &[], |of| go::bounded(super::print::print(of))),
    many("println", &[], |of| go::bounded(super::print::println(of))),
    many("printf", &[Text], go::printf),
    many("html", &[], |of| go::bounded(go::html(&go::joined(of)))),
    many("js", &[], |of| go::bounded(go::js(&go::joined(of)))),
    many("urlquery", &[], |of| go::bounded(go::query_escape(&go::joined(of)))),
    many("call", &[Any], go::call),
    scoped("query", &[Text], query),
    plain("first", &[Vector], |of| match vector(arg(of, 0)).first() {
        Some(sample) => Ok(Value::Sample(Arc::clone(sample))),
        None => Err("first() called on vector with no elements".to_owned()),
    }),
    plain("label", &[Text, One], |of| {
        sample(arg(of, 1)).map(|sample| label(sample, &text(arg(of, 0))))
    }),
    plain("value", &[One], |of| sample(arg(of, 0)).map(|sample| Value::Float(sample.value))),
    plain("strvalue", &[One], |of| sample(arg(of, 0)).map(|sample| label(sample, "__value__"))),
    plain("sortByLabel", &[Text, Vector], |of| Ok(sort_by_label(of))),
    many("args", &[], |of| {
        let named = of.iter().enumerate().map(|(at, value)| (format!("arg{at}"), value.clone()));
        Ok(Value::Args(Arc::new(named.collect::<BTreeMap<_, _>>())))
    }),
    plain("humanize", &[Any], |of| number(arg(of, 0)).map(humanize).map(Value::text)),
    plain("humanize1024", &[Any], |of| number(arg(of, 0)).map(humanize_1024).map(Value::text)),
    plain("humanizeDuration", &[Any], |of| {
        number(arg(of, 0)).map(humanize_duration).map(Value::text)
    }),
    plain("humanizePercentage", &[Any], |of| {
        let value = number(arg(of, 0))?;
        Ok(Value::text(short(value * 100.0) + "%"))
    }),
    plain("humanizeTimestamp", &[Any], |of| {
        let value = number(arg(of, 0))?;
        if !value.is_finite() {
            return Ok(Value::text(short(value)));
        }
        time::from_seconds(value).map(|at| Value::text(time::show(at)))
    }),
    plain("toTime", &[Any], |of| time::from_seconds(number(arg(of, 0))?).map(Value::Time)),
    plain("toDuration", &[Any], |of| {
        time::duration_from_seconds(number(arg(of, 0))?).map(Value::Duration)
    }),
    scoped("now", &[], |_, scope| Ok(Value::Float(scope.data.at.as_secs_f64()))),
    plain("title", &[Text], |of| go::bounded(title(&text(arg(of, 0))))),
    plain("toUpper", &[Text], |of| {
        Ok(Value::text(text(arg(of, 0)).chars().map(upper).collect::<String>()))
    }),
    plain("toLower", &[Text], |of| {
        Ok(Value::text(text(arg(of, 0)).chars().map(lower).collect::<String>()))
    }),
    plain("match", &[Text, Text], |of| {
        let regex = search_regex(&text(arg(of, 0))).map_err(|error| error.to_string())?;
        Ok(Value::Bool(regex.is_match(&text(arg(of, 1)))))
    }),
    plain("reReplaceAll", &[Text, Text, Text], replace_all),
    plain("safeHtml", &[Text], |of| Ok(arg(of, 0).clone())),
    plain("graphLink", &[Text], |of| Ok(Value::text(link(&text(arg(of, 0)), 0)))),
    plain("tableLink", &[Text], |of| Ok(Value::text(table_link(&text(arg(of, 0)))))),
    scoped("externalURL", &[], |_, scope| Ok(Value::text(scope.data.external_url))),
    scoped("pathPrefix", &[], |_, scope| {
        let url = scope.data.external_url;
        let rest = url.split_once("://").map_or(url, |(_, rest)| rest);
        let path = rest.find('/').and_then(|at| rest.get(at..)).unwrap_or_default();
        Ok(Value::text(path))
    }),
    plain("parseDuration", &[Text], parse_duration),
    plain("stripPort", &[Text], |of| {
        let address = text(arg(of, 0));
        Ok(Value::text(host_and_port(&address).map_or(&*address, |(host, _)| host)))
    }),
    plain("stripDomain", &[Text], |of| Ok(Value::text(strip_domain(&text(arg(of, 0)))))),
    plain("urlQueryEscape", &[Text], |of| go::bounded(go::query_escape(&text(arg(of, 0))))),
];

pub(super) fn find(name: &str) -> Option<&'static Function> {
    FUNCTIONS.iter().find(|function| function.name == name)
}

pub(super) fn is_function(name: &str) -> bool {
    find(name).is_some()
}

pub(super) fn arg(arguments: &[Value], at: usize) -> &Value {
    arguments.get(at).unwrap_or(&Value::Nil)
}

/// An argument that a parameter made sure is a text.
pub(super) fn text(value: &Value) -> Arc<str> {
    match value {
        Value::Text(text) => Arc::clone(text),
        other => Arc::from(other.show()),
    }
}

fn vector(value: &Value) -> &[Arc<Sample>] {
    match value {
        Value::Vector(samples) => samples,
        _ => &[],
    }
}

fn sample(value: &Value) -> Result<&Sample, String> {
    match value {
        Value::Sample(sample) => Ok(sample),
        _ => Err("runtime error: invalid memory address or nil pointer dereference".to_owned()),
    }
}

fn label(sample: &Sample, name: &str) -> Value {
    Value::text(sample.labels.get(name).unwrap_or_default())
}

fn query(of: &[Value], scope: &mut Scope<'_>) -> Outcome {
    let Some(left) = scope.queries_left.checked_sub(1) else {
        return Err("the template makes too many queries".to_owned());
    };
    scope.queries_left = left;
    let found = scope.query.query(&text(arg(of, 0)))?;
    let samples = found.into_iter().map(|sample| {
        let value = match sample.value {
            stint_promql::SampleValue::Float(value) => value,
            // A template sees floats only, as in Prometheus.
            stint_promql::SampleValue::Histogram(_) => 0.0,
        };
        Arc::new(Sample { labels: sample.labels, value })
    });
    Ok(Value::Vector(samples.collect()))
}

fn sort_by_label(of: &[Value]) -> Value {
    let name = text(arg(of, 0));
    let mut samples = vector(arg(of, 1)).to_vec();
    samples.sort_by(|a, b| {
        let of = |sample: &Arc<Sample>| sample.labels.get(&name).unwrap_or_default().to_owned();
        of(a).cmp(&of(b))
    });
    Value::Vector(samples.into())
}

/// A number, whatever it is written as.
fn number(value: &Value) -> Result<f64, String> {
    match value {
        Value::Float(value) => Ok(*value),
        Value::Int(value) => Ok(*value as f64),
        Value::Text(text) => parse_float(text),
        Value::Duration(nanoseconds) => Ok(*nanoseconds as f64 / 1e9),
        other => Err(format!("can't convert {} to float", other.type_name())),
    }
}

/// `%.4g`.
fn short(value: f64) -> String {
    float(value, 'g', Some(4))
}

/// Multiplied by 1000 until it is at least 1.
fn small(mut value: f64) -> String {
    let mut prefix = "";
    for next in ["m", "u", "n", "p", "f", "a", "z", "y"] {
        if value.abs() >= 1.0 {
            break;
        }
        prefix = next;
        value *= 1000.0;
    }
    short(value) + prefix
}

/// Divided until it is below `step`.
fn large(mut value: f64, step: f64, prefixes: [&str; 8]) -> String {
    let mut prefix = "";
    for next in prefixes {
        if value.abs() < step {
            break;
        }
        prefix = next;
        value /= step;
    }
    short(value) + prefix
}

fn humanize(value: f64) -> String {
    if value == 0.0 || !value.is_finite() {
        short(value)
    } else if value.abs() >= 1.0 {
        large(value, 1000.0, ["k", "M", "G", "T", "P", "E", "Z", "Y"])
    } else {
        small(value)
    }
}

fn humanize_1024(value: f64) -> String {
    if value.abs() <= 1.0 || !value.is_finite() {
        return short(value);
    }
    large(value, 1024.0, ["ki", "Mi", "Gi", "Ti", "Pi", "Ei", "Zi", "Yi"])
}

fn humanize_duration(value: f64) -> String {
    if !value.is_finite() {
        return short(value);
    }
    if value == 0.0 {
        return short(value) + "s";
    }
    if value.abs() < 1.0 {
        return small(value) + "s";
    }
    let sign = if value < 0.0 { "-" } else { "" };
    let magnitude = value.abs();
    let whole = magnitude as i64;
    let (seconds, minutes) = (whole % 60, whole / 60 % 60);
    let (hours, days) = (whole / 3600 % 24, whole / 86_400);
    if days != 0 {
        format!("{sign}{days}d {hours}h {minutes}m {seconds}s")
    } else if hours != 0 {
        format!("{sign}{hours}h {minutes}m {seconds}s")
    } else if minutes != 0 {
        format!("{sign}{minutes}m {seconds}s")
    } else {
        format!("{sign}{}s", short(magnitude))
    }
}

/// Capital letters where there is one for one.
fn upper(c: char) -> char {
    let mut upper = c.to_uppercase();
    match (upper.next(), upper.next()) {
        (Some(upper), None) => upper,
        _ => c,
    }
}

fn lower(c: char) -> char {
    c.to_lowercase().next().unwrap_or(c)
}

/// Each word with a capital letter, the rest untouched.
fn title(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    let mut in_word = false;
    let mut chars = text.chars().peekable();
    while let Some(c) = chars.next() {
        if c.is_alphabetic() {
            out.push(if in_word { c } else { upper(c) });
            in_word = true;
            continue;
        }
        out.push(c);
        // An apostrophe, a point or a colon between letters does not end a word, an underscore or a digit never does.
        let joins = matches!(c, '\'' | '’' | '.' | ':' | '·')
            && in_word
            && chars.peek().is_some_and(|next| next.is_alphabetic());
        in_word &= joins || c == '_' || c.is_numeric();
    }
    out
}

fn replace_all(of: &[Value]) -> Outcome {
    let (pattern, with, text) = (text(arg(of, 0)), text(arg(of, 1)), text(arg(of, 2)));
    let regex = search_regex(&pattern).map_err(|error| {
        let plain = !pattern.contains(|c: char| c == '`' || (c.is_control() && c != '\t'));
        let shown = if plain { format!("`{pattern}`") } else { quote(&pattern) };
        format!("regexp: Compile({shown}): {error}")
    })?;
    let mut out = String::new();
    let mut end = 0;
    for found in regex.captures_iter(&text) {
        let whole = found.get_match();
        out.push_str(text.get(end..whole.start()).unwrap_or_default());
        found.expand(&with, &mut out);
        end = whole.end();
        if out.len() > super::BYTES_MAX {
            break;
        }
    }
    out.push_str(text.get(end..).unwrap_or_default());
    go::bounded(out)
}

/// Where the value of an expression can be looked at, below the server's address.
pub fn table_link(expr: &str) -> String {
    link(expr, 1)
}

fn link(expr: &str, tab: u8) -> String {
    format!("/graph?g0.expr={}&g0.tab={tab}", go::query_escape(expr))
}

fn parse_duration(of: &[Value]) -> Outcome {
    let text = text(arg(of, 0));
    let (sign, magnitude) = match text.strip_prefix('-') {
        Some(magnitude) => (-1.0, magnitude),
        None => (1.0, &*text),
    };
    let span = Span::parse(magnitude).map_err(|error| error.to_string())?;
    Ok(Value::Float(sign * span.as_secs_f64()))
}

/// The host without brackets and the port, where there are both.
fn host_and_port(address: &str) -> Option<(&str, &str)> {
    let (host, port) = address.rsplit_once(':')?;
    let host = match host.strip_prefix('[') {
        Some(inner) => inner.strip_suffix(']')?,
        None if host.contains(':') => return None,
        None => host,
    };
    (!host.contains(['[', ']']) && !port.contains(['[', ']'])).then_some((host, port))
}

fn strip_domain(address: &str) -> String {
    let (host, port) = host_and_port(address).unwrap_or((address, ""));
    if host.parse::<std::net::IpAddr>().is_ok() {
        return address.to_owned();
    }
    let host = host.split('.').next().unwrap_or_default();
    match (port, host.contains(':')) {
        ("", _) => host.to_owned(),
        (port, true) => format!("[{host}]:{port}"),
        (port, false) => format!("{host}:{port}"),
    }
}
