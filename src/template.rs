//! Templates in the labels and annotations of alerts: Go's template language with the functions of Prometheus.
//!
//! A text is parsed once, when its rule is loaded, and expanded for each alert.

use stint_model::{Labels, Timestamp};
use stint_promql::{InstantSample, SampleValue};

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
