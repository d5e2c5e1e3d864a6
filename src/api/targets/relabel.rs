//! `/api/v1/targets/relabel_steps`: what each rule of a job does to a set of labels.

use std::collections::BTreeMap;
use std::sync::Arc;

use serde::Serialize;
use stint_model::Labels;
use stint_model::relabel::{Rule, RuleSpec, Verdict, apply};

use super::super::error::ApiError;
use super::super::extract::Ready;
use super::super::json::Reply;
use super::super::params::Params;

#[derive(Serialize)]
struct StepsJson<'a> {
    steps: Vec<StepJson<'a>>,
}

#[derive(Serialize)]
struct StepJson<'a> {
    rule: RuleJson<'a>,
    output: BTreeMap<String, String>,
    keep: bool,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct RuleJson<'a> {
    #[serde(skip_serializing_if = "<[_]>::is_empty")]
    source_labels: &'a [String],
    #[serde(skip_serializing_if = "str::is_empty")]
    separator: &'a str,
    regex: &'a str,
    #[serde(skip_serializing_if = "is_zero")]
    modulus: u64,
    #[serde(skip_serializing_if = "str::is_empty")]
    target_label: &'a str,
    #[serde(skip_serializing_if = "str::is_empty")]
    replacement: &'a str,
    action: &'static str,
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde hands a reference over")]
fn is_zero(number: &u64) -> bool {
    *number == 0
}

impl<'a> From<&'a RuleSpec> for RuleJson<'a> {
    fn from(spec: &'a RuleSpec) -> Self {
        Self {
            source_labels: &spec.source_labels,
            separator: &spec.separator,
            regex: &spec.regex,
            modulus: spec.modulus,
            target_label: &spec.target_label,
            replacement: &spec.replacement,
            action: spec.action.as_str(),
        }
    }
}

/// The labels after each rule; none from the rule on that drops the target.
pub(in super::super) async fn relabel_steps(
    Ready(parts): Ready,
    params: Params,
) -> Result<Reply, ApiError> {
    let Some(pool) = params.get("scrapePool").filter(|pool| !pool.is_empty()) else {
        return Err(ApiError::bad_data("no scrapePool parameter provided"));
    };
    let text = params.get("labels").unwrap_or_default();
    if text.is_empty() {
        return Err(ApiError::bad_data("no labels parameter provided"));
    }
    let labels: BTreeMap<String, String> = serde_json::from_str(text)
        .map_err(|error| ApiError::bad_data(format!("error parsing labels: {error}")))?;
    let config = Arc::clone(&parts.config.read());
    let job = config.scrape_configs.iter().find(|job| job.job_name == pool).ok_or_else(|| {
        ApiError::bad_data(format!(
            "error getting scrape pool configuration: unknown scrape pool {pool:?}"
        ))
    })?;
    let labels = Labels::from_pairs(labels.iter());
    Ok(Reply::json(&StepsJson { steps: steps(&job.relabel_configs, &labels) }))
}

fn steps<'a>(rules: &'a [Rule], labels: &Labels) -> Vec<StepJson<'a>> {
    let mut labels = labels.to_builder();
    let mut keep = true;
    let step = |rule: &'a Rule| {
        keep = keep && apply(std::slice::from_ref(rule), &mut labels) == Verdict::Keep;
        let output = if keep {
            let shown = labels.build();
            shown.iter().map(|(name, value)| (name.to_owned(), value.to_owned())).collect()
        } else {
            BTreeMap::new()
        };
        StepJson { rule: rule.spec().into(), output, keep }
    };
    rules.iter().map(step).collect()
}

#[cfg(test)]
mod tests {
    use stint_model::labels::NameScheme;
    use stint_model::relabel::Action;

    use super::*;

    #[test]
    fn each_rule_is_shown_with_what_it_leaves() {
        let rule = |spec| Rule::new(spec, NameScheme::Utf8).unwrap();
        let set = rule(RuleSpec {
            target_label: "b".into(),
            replacement: "x".into(),
            ..RuleSpec::default()
        });
        let drop = rule(RuleSpec {
            source_labels: vec!["b".into()],
            action: Action::Drop,
            ..RuleSpec::default()
        });
        let labels = Labels::from_pairs([("a", "1")]);
        let rules = [set, drop.clone(), drop];
        let shown = serde_json::to_value(steps(&rules, &labels)).unwrap();
        let dropped = serde_json::json!({
            "rule": {"sourceLabels": ["b"], "separator": ";", "regex": "(.*)",
                     "replacement": "$1", "action": "drop"},
            "output": {}, "keep": false
        });
        let expected = serde_json::json!([
            {"rule": {"separator": ";", "regex": "(.*)", "targetLabel": "b", "replacement": "x",
                      "action": "replace"},
             "output": {"a": "1", "b": "x"}, "keep": true},
            dropped, dropped
        ]);
        assert_eq!(shown, expected);
    }
}
