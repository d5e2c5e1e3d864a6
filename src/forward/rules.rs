//! What an endpoint wants of the samples: labels, kinds of values, intervals.

use stint_model::labels::LabelsBuilder;
use stint_model::relabel::{self, Rule, Verdict};
use stint_model::{Histogram, Labels, Span, Value};
use stint_wire::remote_write::Version;

use super::source::Position;
use crate::budget::admission::Admission;
use crate::config::{Aggregate, GaugeRule, IdentityRule};

/// What an endpoint wants of the samples.
#[derive(Clone, Debug)]
pub struct Rules {
    /// Attached where the series has none of that name.
    pub external_labels: Labels,
    /// Run over each series afterwards.
    pub relabel: Vec<Rule>,
    /// Distance between forwarded samples; zero for all.
    pub interval: Span,
    /// Which message is sent.
    pub version: Version,
    /// Whether native histograms are sent.
    pub histograms: bool,
    /// Whether exemplars are sent.
    pub exemplars: bool,
    /// Whether label values are shortened here, so that the endpoint does not do it.
    pub shorten: bool,
    /// Labels that are not sent.
    pub aggregates: Vec<Aggregate>,
    /// Whether the last sample before a counter's reset is sent too.
    pub reset_guard: bool,
    /// What is sent of gauges instead of the sample whose turn it is.
    pub gauges: Vec<GaugeRule>,
    /// What is stored before it may have been sent by an earlier run.
    pub maybe_sent_until: Position,
}

/// Label values that Grafana Cloud does not shorten have at most this many bytes.
const VALUE_BYTES_MAX: usize = 2048;

impl Rules {
    /// The configured distance between samples of a class.
    pub(super) fn interval_of(&self, admission: &Admission, class: u16) -> Span {
        let own = admission.policy().class(class).and_then(|class| class.interval);
        own.unwrap_or(self.interval)
    }

    /// A hash of what decides under which labels what is stored is sent, and what its values are made of,
    /// together with the rules for targets that are known by a number. It is another one at times after
    /// an upgrade.
    pub(super) fn names(&self, identities: &[IdentityRule]) -> u64 {
        let Self { external_labels, relabel, shorten, aggregates, gauges, .. } = self;
        let text = format!(
            "{external_labels} {relabel:?} {shorten} {aggregates:?} {gauges:?} {identities:?}"
        );
        xxhash_rust::xxh3::xxh3_64(text.as_bytes())
    }

    /// The labels that are sent for a series, or nothing when a rule drops it.
    pub(super) fn apply(&self, labels: &Labels) -> Option<Labels> {
        let is_there = |(name, _): (&str, &str)| labels.get(name).is_some();
        let is_long = |(_, value): (&str, &str)| self.shorten && value.len() > VALUE_BYTES_MAX;
        let stays = self.relabel.is_empty()
            && self.external_labels.iter().all(is_there)
            && !labels.iter().any(is_long);
        if stays {
            // They share the memory of those in the store.
            return (!labels.is_empty()).then(|| labels.clone());
        }
        let mut builder = labels.to_builder();
        for (name, value) in &self.external_labels {
            if builder.get(name).is_none() {
                builder.set(name, value);
            }
        }
        if relabel::apply(&self.relabel, &mut builder) == Verdict::Drop {
            return None;
        }
        if self.shorten {
            shorten(&mut builder);
        }
        let labels = builder.build();
        (!labels.is_empty()).then_some(labels)
    }

    /// Whether the endpoint is sent values of this kind. The 1.0 message has no custom buckets.
    pub(super) fn takes(&self, value: &Value) -> bool {
        let Value::Histogram(histogram) = value else { return true };
        let schema = match &**histogram {
            Histogram::Integer(histogram) => histogram.schema,
            Histogram::Float(histogram) => histogram.schema,
        };
        let custom = schema == stint_model::histogram::CUSTOM_BUCKETS_SCHEMA;
        self.histograms && !(custom && self.version == Version::V1)
    }
}

/// Replaces the end of values that are too long by a hash, as the server would, so that the series
/// counted here is the series counted there.
fn shorten(builder: &mut LabelsBuilder) {
    let too_long: Vec<(String, String)> = builder
        .iter()
        .filter(|(_, value)| value.len() > VALUE_BYTES_MAX)
        .map(|(name, value)| {
            let hash = Labels::from_pairs([("v", value)]).stable_hash();
            let mut kept = value.to_owned();
            kept.truncate(kept.floor_char_boundary(VALUE_BYTES_MAX - 17));
            (name.to_owned(), format!("{kept}-{hash:016x}"))
        })
        .collect();
    for (name, value) in too_long {
        builder.set(&name, &value);
    }
}

/// Rules of an endpoint for which nothing is set.
#[cfg(test)]
pub(super) fn tests_rules() -> Rules {
    Rules {
        external_labels: Labels::default(),
        relabel: Vec::new(),
        interval: Span::MINUTE,
        version: Version::V1,
        histograms: true,
        exemplars: false,
        shorten: false,
        aggregates: Vec::new(),
        reset_guard: false,
        gauges: Vec::new(),
        maybe_sent_until: Position::default(),
    }
}

#[cfg(test)]
mod tests {
    use stint_model::Selector;
    use stint_model::labels::NameScheme;
    use stint_model::relabel::RuleSpec;

    use super::*;
    use crate::config::Fold;

    fn sent(value: &str, shorten: bool) -> String {
        let rules = Rules { shorten, ..tests_rules() };
        let labels = Labels::from_pairs([("__name__", "m"), ("path", value)]);
        rules.apply(&labels).unwrap().get("path").unwrap().to_owned()
    }

    #[test]
    fn values_that_the_server_would_shorten_are_shortened_here_and_stay_apart() {
        let long = "ä".repeat(VALUE_BYTES_MAX / 2);
        assert_eq!(sent(&long, true), long, "as long as it may be");
        let (one, other) = (format!("{long}1"), format!("{long}2"));
        assert_eq!(sent(&one, false), one);
        let (short, other) = (sent(&one, true), sent(&other, true));
        assert!(short.len() <= VALUE_BYTES_MAX && short.len() > VALUE_BYTES_MAX - 4);
        assert!(short.starts_with("ääää") && short != other);
        assert_eq!(sent(&one, true), short, "the same one every time");
    }

    #[test]
    fn names_change_with_whatever_changes_what_is_sent_and_with_nothing_else() {
        let rules = tests_rules();
        let names = rules.names(&[]);
        let selectors = || vec![Selector::metric("a")];
        let same = Rules { interval: Span(7), exemplars: true, reset_guard: true, ..rules.clone() };
        assert_eq!(same.names(&[]), names);
        let external_labels = Labels::from_pairs([("cluster", "a")]);
        let relabelled = |replacement: &str| {
            let (target_label, replacement) = ("b".to_owned(), replacement.to_owned());
            let spec = RuleSpec { target_label, replacement, ..RuleSpec::default() };
            let relabel = vec![Rule::new(spec, NameScheme::Utf8).unwrap()];
            Rules { relabel, ..rules.clone() }
        };
        let without = vec!["a".to_owned()];
        let aggregate = Aggregate { selectors: selectors(), without, fold: Fold::Max };
        let gauge = GaugeRule { selectors: selectors(), fold: Fold::Max };
        let identity = IdentityRule {
            selectors: selectors(),
            replace: vec!["a".to_owned()],
            per: vec!["b".to_owned()],
            info: None,
        };
        let others = [
            Rules { external_labels, ..rules.clone() }.names(&[]),
            relabelled("x").names(&[]),
            relabelled("y").names(&[]),
            Rules { shorten: true, ..rules.clone() }.names(&[]),
            Rules { aggregates: vec![aggregate], ..rules.clone() }.names(&[]),
            Rules { gauges: vec![gauge], ..rules.clone() }.names(&[]),
            rules.names(&[identity]),
        ];
        let mut all: Vec<u64> = others.into_iter().chain([names]).collect();
        all.sort_unstable();
        all.dedup();
        assert_eq!(all.len(), 8);
    }
}
