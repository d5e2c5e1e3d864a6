//! `/api/v1/rules`, `/api/v1/alerts` and `/api/v1/alertmanagers`.

use std::collections::BTreeMap;

use serde::{Serialize, Serializer};
use stint_model::{Labels, Selector};
use xxhash_rust::xxh3::xxh3_128;

use super::error::ApiError;
use super::extract::Ready;
use super::json::Reply;
use super::number::push_exponent;
use super::params::Params;
use super::series::read_selectors;
use super::status::rfc_3339;
use crate::rules::Group;
use crate::rules::alerting::Active;
use crate::rules::group::Rule;
use crate::rules::spec::AlertSpec;

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct GroupsJson {
    groups: Vec<GroupJson>,
    #[serde(skip_serializing_if = "Option::is_none")]
    group_next_token: Option<String>,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct GroupJson {
    name: String,
    file: String,
    rules: Vec<RuleJson>,
    interval: f64,
    limit: usize,
    evaluation_time: f64,
    last_evaluation: String,
}

#[derive(Serialize)]
#[serde(untagged)]
enum RuleJson {
    Alerting(AlertingJson),
    Recording(RecordingJson),
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct AlertingJson {
    state: &'static str,
    name: String,
    query: String,
    duration: f64,
    keep_firing_for: f64,
    labels: Texts,
    annotations: Texts,
    alerts: Option<Vec<AlertJson>>,
    #[serde(flatten)]
    health: HealthJson,
    r#type: &'static str,
}

#[derive(Serialize)]
struct RecordingJson {
    name: String,
    query: String,
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    labels: Texts,
    #[serde(flatten)]
    health: HealthJson,
    r#type: &'static str,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct HealthJson {
    health: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    last_error: Option<String>,
    evaluation_time: f64,
    last_evaluation: String,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct AlertJson {
    labels: LabelsJson,
    annotations: Texts,
    state: &'static str,
    active_at: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    keep_firing_since: Option<String>,
    value: String,
}

type Texts = BTreeMap<String, String>;

struct LabelsJson(Labels);

impl Serialize for LabelsJson {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_map(self.0.iter())
    }
}

/// Which rules are asked for.
struct Wanted {
    alerting: bool,
    recording: bool,
    with_alerts: bool,
    names: Vec<String>,
    groups: Vec<String>,
    files: Vec<String>,
    selectors: Vec<Selector>,
}

impl Wanted {
    fn read(params: &Params) -> Result<Self, ApiError> {
        let kind = params.get("type").unwrap_or_default().to_ascii_lowercase();
        if !matches!(kind.as_str(), "" | "alert" | "record") {
            let cause = format!("not supported value {kind:?}");
            return Err(ApiError::invalid_parameter("type", cause));
        }
        let excludes = params
            .get("exclude_alerts")
            .map_or(Ok(false), go_bool)
            .map_err(|cause| ApiError::invalid_parameter("exclude_alerts", cause))?;
        let all = |name: &str| params.all(name).map(str::to_owned).collect();
        Ok(Self {
            alerting: kind != "record",
            recording: kind != "alert",
            with_alerts: !excludes,
            names: all("rule_name[]"),
            groups: all("rule_group[]"),
            files: all("file[]"),
            selectors: selectors(params)?,
        })
    }

    fn wants_group(&self, group: &Group) -> bool {
        (self.groups.is_empty() || self.groups.contains(&group.spec.name))
            && (self.files.is_empty() || self.files.contains(&group.spec.file))
    }

    fn wants(&self, rule: &Rule) -> bool {
        let kind = if rule.spec.alert().is_some() { self.alerting } else { self.recording };
        kind && (self.names.is_empty() || self.names.contains(&rule.spec.name))
            && (self.selectors.is_empty() || {
                let labels = &rule.spec.labels;
                let labels =
                    Labels::from_pairs(labels.iter().map(|(name, text)| (name, text.raw())));
                self.selectors.iter().any(|selector| selector.matches(&labels))
            })
    }
}

/// The selectors of `match[]`; unlike elsewhere, mistakes are told without the name of the parameter.
fn selectors(params: &Params) -> Result<Vec<Selector>, ApiError> {
    read_selectors(params, "match[]").map_err(|mut error| {
        if let Some(cause) = error.message.strip_prefix("invalid parameter \"match[]\": ") {
            error.message = cause.to_owned();
        }
        error
    })
}

/// A truth value as Go reads it.
fn go_bool(text: &str) -> Result<bool, String> {
    match text {
        "1" | "t" | "T" | "true" | "TRUE" | "True" => Ok(true),
        "0" | "f" | "F" | "false" | "FALSE" | "False" => Ok(false),
        _ => Err(format!(
            "error converting exclude_alerts: strconv.ParseBool: parsing {text:?}: invalid syntax"
        )),
    }
}

/// A part of the groups: at most so many, from the one that a token tells.
struct Page<'a> {
    limit: Option<usize>,
    from: Option<&'a str>,
}

impl<'a> Page<'a> {
    fn read(params: &'a Params) -> Result<Self, ApiError> {
        let limit = params.get("group_limit").map(|text| {
            let number = text.parse::<i64>().map_err(|_| {
                let why = match text.trim_start_matches(['+', '-']) {
                    digits if !digits.is_empty() && digits.bytes().all(|b| b.is_ascii_digit()) => {
                        "value out of range"
                    }
                    _ => "invalid syntax",
                };
                let go = format!("strconv.ParseInt: parsing {text:?}: {why}");
                let cause = format!("group_limit needs to be a valid number: {go}");
                ApiError::invalid_parameter("group_limit", cause)
            })?;
            usize::try_from(number).ok().filter(|limit| *limit > 0).ok_or_else(|| {
                let cause = "group_limit needs to be greater than 0";
                ApiError::invalid_parameter("group_limit", cause)
            })
        });
        let limit = limit.transpose()?;
        let from = params.get("group_next_token");
        if from.is_some() && limit.is_none() {
            let cause = "group_limit needs to be present in order to paginate over the groups";
            return Err(ApiError::invalid_parameter("group_next_token", cause));
        }
        Ok(Self { limit, from })
    }
}

/// Names a group without telling its place, which may change.
fn token(group: &Group) -> String {
    format!("{:032x}", xxh3_128(group.spec.key().as_bytes()))
}

/// What is evaluated, how it went, and what fires.
pub(super) async fn rules(Ready(parts): Ready, params: Params) -> Result<Reply, ApiError> {
    let wanted = Wanted::read(&params)?;
    let page = Page::read(&params)?;
    let groups = parts.rules.groups();
    let first = match page.from {
        None => 0,
        Some(from) => groups.iter().position(|group| token(group) == from).ok_or_else(|| {
            let cause = format!("invalid group_next_token '{from}'. were rule groups changed?");
            ApiError::invalid_parameter("group_next_token", cause)
        })?,
    };
    let mut answer = GroupsJson { groups: Vec::new(), group_next_token: None };
    for group in groups.iter().skip(first).filter(|group| wanted.wants_group(group)) {
        let rules: Vec<RuleJson> = group
            .rules()
            .iter()
            .filter(|rule| wanted.wants(rule))
            .map(|rule| rule_json(rule, wanted.with_alerts))
            .collect();
        if rules.is_empty() {
            continue;
        }
        if page.limit == Some(answer.groups.len()) {
            answer.group_next_token = Some(token(group));
            break;
        }
        answer.groups.push(group_json(group, rules));
    }
    Ok(Reply::json(&answer))
}

fn group_json(group: &Group, rules: Vec<RuleJson>) -> GroupJson {
    let status = group.status();
    GroupJson {
        name: group.spec.name.clone(),
        file: group.spec.file.clone(),
        rules,
        interval: group.spec.interval.as_secs_f64(),
        limit: group.spec.limit,
        evaluation_time: status.took.as_secs_f64(),
        last_evaluation: rfc_3339(status.evaluated_at.unwrap_or(stint_model::Timestamp::MIN)),
    }
}

fn rule_json(rule: &Rule, with_alerts: bool) -> RuleJson {
    let status = rule.status();
    let health = match (&status.error, status.evaluated_at) {
        (Some(_), _) => "err",
        (None, Some(_)) => "ok",
        (None, None) => "unknown",
    };
    let is_known = status.evaluated_at.is_some();
    let health = HealthJson {
        health,
        last_error: status.error,
        evaluation_time: status.took.as_secs_f64(),
        last_evaluation: rfc_3339(status.evaluated_at.unwrap_or(stint_model::Timestamp::MIN)),
    };
    let (name, query) = (rule.spec.name.clone(), rule.spec.query.clone());
    let labels = texts(&rule.spec.labels);
    match rule.spec.alert() {
        None => {
            RuleJson::Recording(RecordingJson { name, query, labels, health, r#type: "recording" })
        }
        Some(alert) => {
            RuleJson::Alerting(alerting_json(rule, alert, with_alerts, is_known, health))
        }
    }
}

fn alerting_json(
    rule: &Rule,
    spec: &AlertSpec,
    with_alerts: bool,
    is_known: bool,
    health: HealthJson,
) -> AlertingJson {
    let (state, alerts) = rule.with_alerts(|alerts| {
        let listed = with_alerts
            .then(|| alerts.active().map(|(labels, alert)| alert_json(labels, alert)).collect());
        (alerts.state(), listed)
    });
    AlertingJson {
        state: if is_known { state.as_str() } else { "unknown" },
        name: rule.spec.name.clone(),
        query: rule.spec.query.clone(),
        duration: spec.hold.as_secs_f64(),
        keep_firing_for: spec.keep_firing_for.as_secs_f64(),
        labels: texts(&rule.spec.labels),
        annotations: texts(&spec.annotations),
        alerts,
        health,
        r#type: "alerting",
    }
}

fn texts(pairs: &[(String, crate::rules::expand::Text)]) -> Texts {
    pairs.iter().map(|(name, text)| (name.clone(), text.raw().to_owned())).collect()
}

fn alert_json(labels: &Labels, alert: &Active) -> AlertJson {
    AlertJson {
        labels: LabelsJson(labels.clone()),
        annotations: alert.annotations.iter().cloned().collect(),
        state: alert.state.as_str(),
        active_at: rfc_3339(alert.active_at),
        keep_firing_since: alert.keep_firing_since.map(rfc_3339),
        value: exponent(alert.value),
    }
}

/// A value with an exponent, whatever its size.
fn exponent(value: f64) -> String {
    if value.is_nan() {
        return "NaN".to_owned();
    }
    if value.is_infinite() {
        return if value > 0.0 { "+Inf" } else { "-Inf" }.to_owned();
    }
    let mut text = Vec::new();
    push_exponent(&mut text, value);
    String::from_utf8_lossy(&text).into_owned()
}

#[derive(Serialize)]
struct AlertsJson {
    alerts: Vec<AlertJson>,
}

/// All alerts that are pending or fire.
pub(super) async fn alerts(Ready(parts): Ready) -> Reply {
    let mut alerts = Vec::new();
    for group in parts.rules.groups() {
        for rule in group.rules() {
            rule.with_alerts(|active| {
                alerts.extend(active.active().map(|(labels, alert)| alert_json(labels, alert)));
            });
        }
    }
    Reply::json(&AlertsJson { alerts })
}

/// Whom alerts are sent to, and who was left out.
pub(super) async fn alertmanagers(Ready(parts): Ready) -> Reply {
    let status = parts.notifier.status();
    let urls = |urls: &[String]| -> Vec<_> {
        urls.iter().map(|url| serde_json::json!({ "url": url })).collect()
    };
    Reply::json(&serde_json::json!({
        "activeAlertmanagers": urls(&status.active),
        "droppedAlertmanagers": urls(&status.dropped),
    }))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_of_alerts_always_have_an_exponent() {
        let shown = [0.0, 1.0, 1234.5, 0.001, -2e30, f64::INFINITY, f64::NAN].map(exponent);
        assert_eq!(shown, ["0e+00", "1e+00", "1.2345e+03", "1e-03", "-2e+30", "+Inf", "NaN"]);
    }

    #[test]
    fn truth_values_are_gos() {
        assert_eq!((go_bool("T"), go_bool("0")), (Ok(true), Ok(false)));
        assert!(go_bool("yes").unwrap_err().ends_with("parsing \"yes\": invalid syntax"));
    }

    #[test]
    fn pages_need_a_size() {
        let page = |query: &str| {
            let params = Params::parse(b"", Some(query)).unwrap();
            Page::read(&params).map(|page| page.limit).map_err(|error| error.message)
        };
        assert_eq!(page(""), Ok(None));
        assert_eq!(page("group_limit=2&group_next_token=x"), Ok(Some(2)));
        assert!(
            page("group_next_token=x").unwrap_err().contains("group_limit needs to be present")
        );
        assert!(page("group_limit=0").unwrap_err().contains("greater than 0"));
        assert!(page("group_limit=x").unwrap_err().ends_with("parsing \"x\": invalid syntax"));
        assert!(page("group_limit=99999999999999999999").unwrap_err().ends_with("out of range"));
    }
}
