//! Templates in the labels and annotations of alerts: Go's template language with the functions of Prometheus.
//!
//! A text is parsed once, when its rule is loaded, and expanded for each alert. Both tell of mistakes in the words
//! of Prometheus, with the same places.

mod builtins;
mod exec;
mod functions;
mod lex;
mod node;
mod number;
mod parse;
mod print;
mod time;
mod value;

use stint_model::{Labels, Timestamp};
use stint_promql::{InstantSample, SampleValue};

pub use functions::table_link;

/// What a template can see of its alert.
#[derive(Clone, Copy, Debug)]
pub struct TemplateData<'a> {
    /// The labels of the sample, without the metric's name and before those of the rule.
    pub labels: &'a Labels,
    /// What was found there.
    pub value: &'a SampleValue,
    /// The labels that this server adds to all that leaves it.
    pub external_labels: &'a Labels,
    /// The URL under which others reach this server, without a slash at the end.
    pub external_url: &'a str,
    /// The time of evaluation.
    pub at: Timestamp,
}

/// Answers the queries of a template, at its time of evaluation.
pub trait QueryFunc {
    /// The samples that `expr` finds, in the order of the answer; a scalar is one sample without labels.
    ///
    /// # Errors
    /// What is wrong with the query, as it shall be shown in place of the text.
    fn query(&self, expr: &str) -> Result<Vec<InstantSample>, String>;
}

/// The most bytes that an expansion, or one text inside it, may have.
const BYTES_MAX: usize = 1 << 20;

/// Stands before every template, so that its parts have short names; places in messages count it.
const DEFINITIONS: &str = "{{$labels := .Labels}}{{$externalLabels := .ExternalLabels}}\
                           {{$externalURL := .ExternalURL}}{{$value := .Value}}";

/// A text that was parsed.
#[derive(Debug)]
pub struct Template {
    name: String,
    text: String,
    tree: parse::Tree,
}

impl Template {
    /// Parses `text`; `name` stands in messages (`__alert_` and the alert's name, in Prometheus).
    ///
    /// # Errors
    /// The first mistake, as `template: NAME:LINE: …`.
    pub fn parse(name: &str, text: &str) -> Result<Self, String> {
        let text = format!("{DEFINITIONS}{text}");
        let tree = parse::parse(name, &text)?;
        Ok(Self { name: name.to_owned(), text, tree })
    }

    /// The text with all actions done.
    ///
    /// # Errors
    /// Where and why it failed, as `error executing template NAME: …`; Prometheus then shows
    /// `<error expanding template: …>` in its place.
    pub fn expand(&self, data: &TemplateData<'_>, query: &dyn QueryFunc) -> Result<String, String> {
        exec::expand(&self.name, &self.text, &self.tree, data, query)
            .map_err(|error| format!("error executing template {}: {error}", self.name))
    }
}

/// Parses and expands `text` at once.
///
/// # Errors
/// As [`Template::parse`] and [`Template::expand`].
pub fn expand(
    name: &str,
    text: &str,
    data: &TemplateData<'_>,
    query: &dyn QueryFunc,
) -> Result<String, String> {
    Template::parse(name, text)
        .map_err(|error| format!("error parsing template {name}: {error}"))?
        .expand(data, query)
}

#[cfg(test)]
mod tests;
