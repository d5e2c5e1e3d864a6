//! From exposed labels to those of the stored series.

use stint_model::Labels;
use stint_model::labels::{LabelsBuilder, Quoted};
use stint_model::relabel::{self, Verdict};
use stint_wire::exposition::Label;

use super::super::metrics::ScrapeMetrics;
use super::super::target::Target;
use crate::config::ScrapeConfig;

/// What the target's labels are put before when an exposed label is in their way.
const EXPORTED_PREFIX: &str = "exported_";

/// Labels of one exposed sample that are looked at: far more than are ever stored.
const LABELS_MAX: usize = 4096;

/// Attaches a target's labels to exposed ones.
pub(super) struct Attach<'a> {
    pub(super) job: &'a ScrapeConfig,
    pub(super) target: &'a Target,
    pub(super) metrics: &'a ScrapeMetrics,
}

impl Attach<'_> {
    /// The labels to store, or `None` when relabelling drops the sample.
    ///
    /// # Errors
    /// The labels are not valid or too many or too long: the whole scrape fails.
    pub(super) fn run(&self, exposed: &[Label<'_>]) -> Result<Option<Labels>, String> {
        if exposed.len() > LABELS_MAX {
            let number = exposed.len();
            return Err(format!("a sample has {number} labels, more than {LABELS_MAX}"));
        }
        let mut names: Vec<&str> = exposed.iter().map(|(name, _)| &**name).collect();
        names.sort_unstable();
        if let Some([name, _]) = names.array_windows().find(|[a, b]| a == b) {
            return Err(format!("label name {} is not unique: invalid sample", Quoted(name)));
        }
        let mut labels = LabelsBuilder::default();
        for (name, value) in exposed {
            labels.set(name, value);
        }
        self.attach(&mut labels, &names);
        if relabel::apply(&self.job.metric_relabel_configs, &mut labels) == Verdict::Drop {
            return Ok(None);
        }
        let labels = labels.build();
        if labels.is_empty() {
            return Ok(None);
        }
        self.check(&labels)?;
        Ok(Some(labels))
    }

    /// `names` are those of the exposed labels, sorted; the empty ones among them too.
    fn attach(&self, labels: &mut LabelsBuilder, names: &[&str]) {
        let mut conflicting = Vec::new();
        for (name, value) in &self.target.labels {
            let exposed = labels.get(name).map(str::to_owned);
            match exposed {
                // An empty label is a way to say that there is to be none.
                _ if self.job.honor_labels && names.binary_search(&name).is_ok() => {}
                Some(exposed) => {
                    conflicting.push((name, exposed));
                    labels.set(name, value);
                }
                None => {
                    labels.set(name, value);
                }
            }
        }
        // Shorter names first, so that an already prefixed one gives way.
        conflicting.sort_by_key(|(name, _)| name.len());
        for (name, exposed) in conflicting {
            let mut renamed = format!("{EXPORTED_PREFIX}{name}");
            while labels.get(&renamed).is_some() {
                renamed.insert_str(0, EXPORTED_PREFIX);
            }
            labels.set(&renamed, &exposed);
        }
    }

    fn over_limit(&self, message: String) -> Result<(), String> {
        self.metrics.over_label_limits.inc();
        Err(message)
    }

    fn check(&self, labels: &Labels) -> Result<(), String> {
        let Some(metric) = labels.metric_name() else {
            return Err("missing metric name (__name__ label)".to_owned());
        };
        let scheme = self.job.name_scheme;
        let names_are_valid = labels.iter().all(|(name, _)| scheme.is_label_name(name));
        if !scheme.is_metric_name(metric) || !names_are_valid {
            return Err(format!("invalid metric name or label names: {labels}"));
        }
        let limits = &self.job.limits;
        let metric = shortened(metric);
        let number = labels.len() as u64;
        if limits.labels > 0 && number > limits.labels {
            let limit = limits.labels;
            return self.over_limit(format!(
                "label_limit exceeded (metric: {metric}, number of labels: {number}, limit: {limit})"
            ));
        }
        let (name_limit, value_limit) = (limits.label_name_length, limits.label_value_length);
        if name_limit == 0 && value_limit == 0 {
            return Ok(());
        }
        for (name, value) in labels {
            let length = name.len() as u64;
            let short = shortened(name);
            if name_limit > 0 && length > name_limit {
                return self.over_limit(format!(
                    "label_name_length_limit exceeded (metric: {metric}, label name: {short}, \
                     length: {length}, limit: {name_limit})"
                ));
            }
            let length = value.len() as u64;
            if value_limit > 0 && length > value_limit {
                let value = Quoted(shortened(value));
                return self.over_limit(format!(
                    "label_value_length_limit exceeded (metric: {metric}, label name: {short}, \
                     value: {value}, length: {length}, limit: {value_limit})"
                ));
            }
        }
        Ok(())
    }
}

/// The first 50 characters.
fn shortened(text: &str) -> &str {
    text.char_indices().nth(50).map_or(text, |(end, _)| text.get(..end).unwrap_or(text))
}
