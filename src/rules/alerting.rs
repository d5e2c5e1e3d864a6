//! The life of alerts: pending, firing, resolved.

use std::collections::BTreeMap;
use std::sync::Arc;

use stint_model::labels::METRIC_NAME;
use stint_model::{Labels, Span, Timestamp};

use super::alert::{Alert, Annotations};
use super::order::{ALERTS, ALERTS_FOR_STATE};
use super::spec::AlertSpec;

/// The label that holds the name of an alert.
pub const ALERT_NAME: &str = "alertname";
/// The label of `ALERTS` that holds the state.
const ALERT_STATE: &str = "alertstate";
/// How long an alert that ended is told about again.
const RESOLVED_RETENTION: Span = Span(15 * 60_000);

/// Where an alert is in its life, or a rule is by its alerts.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum State {
    /// Not there any more; of a rule, that it has no alerts.
    Inactive,
    /// There, but not for long enough.
    Pending,
    /// It is told to people.
    Firing,
}

impl State {
    /// As it is written in series and answers.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Inactive => "inactive",
            Self::Pending => "pending",
            Self::Firing => "firing",
        }
    }
}

/// One alert of a rule.
#[derive(Clone, Debug, PartialEq)]
pub struct Active {
    /// Texts as of the last time that it was seen.
    pub annotations: Annotations,
    /// Where it is in its life.
    pub state: State,
    /// The value that it was last seen with; 0 for a native histogram.
    pub value: f64,
    /// Since when it is there.
    pub active_at: Timestamp,
    /// Since when it fires.
    pub fired_at: Option<Timestamp>,
    /// When it ended.
    pub resolved_at: Option<Timestamp>,
    /// Since when it only fires because it is to go on for some time.
    pub keep_firing_since: Option<Timestamp>,
    last_sent: Option<Timestamp>,
    valid_until: Timestamp,
    /// The series `ALERTS` in its present state, and `ALERTS_FOR_STATE`.
    series: [Labels; 2],
}

/// An alert as the expression shows it.
#[derive(Clone, Debug, PartialEq)]
pub struct Seen {
    /// Texts made from it.
    pub annotations: Annotations,
    /// Its value; 0 for a native histogram.
    pub value: f64,
}

/// A series that tells of an alert, and its value.
pub type Told = (Labels, f64);

/// The alerts of one rule by their labels.
#[derive(Clone, Debug, Default)]
pub struct Alerts {
    all: BTreeMap<Labels, Active>,
}

/// More alerts than allowed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("exceeded limit of {limit} with {found} alerts")]
pub struct LimitExceeded {
    limit: usize,
    found: usize,
}

impl Alerts {
    /// Takes in what the expression showed at `at`. Answers with the series that tell of it.
    ///
    /// # Errors
    /// More than `limit` alerts (0 for no limit): all are forgotten then.
    pub fn update(
        &mut self,
        spec: &AlertSpec,
        at: Timestamp,
        seen: BTreeMap<Labels, Seen>,
        limit: usize,
    ) -> Result<Vec<Told>, LimitExceeded> {
        for (labels, alert) in &mut self.all {
            if !seen.contains_key(labels) {
                alert.miss(spec, at);
            }
        }
        self.all.retain(|labels, alert| {
            let is_over = match alert.state {
                State::Inactive => {
                    alert.resolved_at.is_none_or(|end| at.since(end) > RESOLVED_RETENTION)
                }
                State::Pending | State::Firing => false,
            };
            !is_over || seen.contains_key(labels)
        });
        for (labels, Seen { annotations, value }) in seen {
            match self.all.get_mut(&labels) {
                Some(alert) if alert.state != State::Inactive => {
                    (alert.value, alert.annotations) = (value, annotations);
                    alert.keep_firing_since = None;
                }
                _ => {
                    let alert = Active::new(&labels, annotations, value, at);
                    self.all.insert(labels, alert);
                }
            }
        }
        let mut told = Vec::with_capacity(2 * self.all.len());
        let mut found = 0;
        for (labels, alert) in &mut self.all {
            if alert.state == State::Inactive {
                continue;
            }
            found += 1;
            if alert.state == State::Pending && at.since(alert.active_at) >= spec.hold {
                alert.state = State::Firing;
                alert.fired_at = Some(at);
                alert.series[0] = alerts_series(labels, State::Firing);
            }
            let [state, since] = &alert.series;
            told.push((state.clone(), 1.0));
            told.push((since.clone(), alert.active_at.0.div_euclid(1000) as f64));
        }
        if limit > 0 && found > limit {
            self.all.clear();
            return Err(LimitExceeded { limit, found });
        }
        Ok(told)
    }

    /// The alerts that are to be sent at `at`, noted as sent.
    pub fn to_send(
        &mut self,
        at: Timestamp,
        interval: Span,
        resend_delay: Span,
        url: &Arc<str>,
    ) -> Vec<Alert> {
        let mut sent = Vec::new();
        for (labels, alert) in &mut self.all {
            if !alert.needs_sending(at, resend_delay) {
                continue;
            }
            alert.last_sent = Some(at);
            // Long enough for two evaluations or sendings to fail.
            let longest = interval.max(resend_delay);
            alert.valid_until = at + Span(longest.0.saturating_mul(4));
            sent.push(Alert {
                labels: labels.clone(),
                annotations: Arc::clone(&alert.annotations),
                starts_at: alert.fired_at.unwrap_or(alert.active_at),
                ends_at: alert.resolved_at.unwrap_or(alert.valid_until),
                generator_url: Arc::clone(url),
            });
        }
        sent
    }

    /// The alerts that are there, in order of labels.
    pub fn active(&self) -> impl Iterator<Item = (&Labels, &Active)> {
        self.all.iter().filter(|(_, alert)| alert.state != State::Inactive)
    }

    /// The same, to be changed.
    pub fn active_mut(&mut self) -> impl Iterator<Item = (&Labels, &mut Active)> {
        self.all.iter_mut().filter(|(_, alert)| alert.state != State::Inactive)
    }

    /// The furthest state of any alert.
    pub fn state(&self) -> State {
        self.all.values().map(|alert| alert.state).max().unwrap_or(State::Inactive)
    }

    /// Takes over all alerts of `other`.
    pub fn adopt(&mut self, other: &Self) {
        self.all.extend(other.all.iter().map(|(labels, alert)| (labels.clone(), alert.clone())));
    }
}

impl Active {
    fn new(labels: &Labels, annotations: Annotations, value: f64, at: Timestamp) -> Self {
        let mut since = labels.to_builder();
        since.set(METRIC_NAME, ALERTS_FOR_STATE);
        Self {
            annotations,
            state: State::Pending,
            value,
            active_at: at,
            fired_at: None,
            resolved_at: None,
            keep_firing_since: None,
            last_sent: None,
            valid_until: at,
            series: [alerts_series(labels, State::Pending), since.build()],
        }
    }

    /// The expression does not show it at `at`.
    fn miss(&mut self, spec: &AlertSpec, at: Timestamp) {
        match self.state {
            State::Inactive => {}
            // Nobody was told: it never was.
            State::Pending => self.state = State::Inactive,
            State::Firing => {
                if spec.keep_firing_for > Span::ZERO {
                    let since = *self.keep_firing_since.get_or_insert(at);
                    if at.since(since) < spec.keep_firing_for {
                        return;
                    }
                }
                self.state = State::Inactive;
                self.resolved_at = Some(at);
            }
        }
    }

    fn needs_sending(&self, at: Timestamp, resend_delay: Span) -> bool {
        if self.state == State::Pending {
            return false;
        }
        let Some(last) = self.last_sent else { return true };
        // A clock that was set back must not silence it.
        self.resolved_at.is_some_and(|end| end > last) || last + resend_delay < at || at < last
    }
}

fn alerts_series(labels: &Labels, state: State) -> Labels {
    let mut series = labels.to_builder();
    series.set(METRIC_NAME, ALERTS).set(ALERT_STATE, state.as_str());
    series.build()
}

#[cfg(test)]
mod tests {
    use super::*;

    const MINUTE: i64 = 60_000;

    fn spec(hold: i64, keep: i64) -> AlertSpec {
        AlertSpec {
            hold: Span(hold * MINUTE),
            keep_firing_for: Span(keep * MINUTE),
            annotations: Vec::new(),
        }
    }

    fn seen(values: &[(&str, f64)]) -> BTreeMap<Labels, Seen> {
        let alert = |(name, value): &(&str, f64)| {
            let labels = Labels::from_pairs([("alertname", "A"), ("i", *name)]);
            (labels, Seen { annotations: Arc::from([]), value: *value })
        };
        values.iter().map(alert).collect()
    }

    /// The states at one minute after the other, `-` for no alert; `shown` has 1 where it is there.
    fn states(spec: &AlertSpec, shown: &str) -> String {
        let mut alerts = Alerts::default();
        let state = |(minute, shown): (usize, char)| {
            let now = if shown == '1' { seen(&[("x", 1.0)]) } else { BTreeMap::new() };
            alerts.update(spec, Timestamp(minute as i64 * MINUTE), now, 0).unwrap();
            match alerts.all.values().next().map(|alert| alert.state) {
                None => '-',
                Some(State::Inactive) => 'i',
                Some(State::Pending) => 'p',
                Some(State::Firing) => 'f',
            }
        };
        shown.chars().enumerate().map(state).collect()
    }

    #[test]
    fn an_alert_waits_fires_and_ends() {
        assert_eq!(states(&spec(2, 0), "0111100"), "-ppffii");
        assert_eq!(states(&spec(0, 0), "101"), "fif");
        assert_eq!(states(&spec(2, 0), "1101111"), "pp-ppff");
        // One that ended and comes back begins anew.
        assert_eq!(states(&spec(2, 0), "1110111"), "ppfippf");
    }

    #[test]
    fn a_firing_alert_is_kept_for_a_while() {
        assert_eq!(states(&spec(0, 2), "100010"), "fffiff");
        assert_eq!(states(&spec(0, 2), "1001001"), "fffffff");
        // Only what fires is kept.
        assert_eq!(states(&spec(2, 5), "10"), "p-");
    }

    #[test]
    fn what_ended_is_remembered_for_a_quarter_of_an_hour() {
        let shown = format!("1{}", "0".repeat(18));
        assert_eq!(states(&spec(0, 0), &shown), format!("f{}--", "i".repeat(16)));
    }

    #[test]
    fn series_tell_state_and_beginning() {
        let mut alerts = Alerts::default();
        let told = |alerts: &mut Alerts, at| -> Vec<String> {
            let told = alerts.update(&spec(1, 0), Timestamp(at), seen(&[("x", 5.0)]), 0).unwrap();
            told.iter().map(|(labels, value)| format!("{labels} {value}")).collect()
        };
        assert_eq!(
            told(&mut alerts, 1500),
            [
                "{__name__=\"ALERTS\", alertname=\"A\", alertstate=\"pending\", i=\"x\"} 1",
                "{__name__=\"ALERTS_FOR_STATE\", alertname=\"A\", i=\"x\"} 1"
            ]
        );
        assert_eq!(
            told(&mut alerts, 61_500)[0],
            "{__name__=\"ALERTS\", alertname=\"A\", alertstate=\"firing\", i=\"x\"} 1"
        );
    }

    #[test]
    fn past_the_limit_all_are_forgotten() {
        let mut alerts = Alerts::default();
        let two = seen(&[("x", 1.0), ("y", 1.0)]);
        let error = alerts.update(&spec(0, 0), Timestamp(0), two.clone(), 1).unwrap_err();
        assert_eq!(error.to_string(), "exceeded limit of 1 with 2 alerts");
        assert!(alerts.all.is_empty());
        assert!(alerts.update(&spec(0, 0), Timestamp(0), two, 2).is_ok());
    }

    #[test]
    fn a_clock_that_is_set_back_silences_nothing() {
        let mut alerts = Alerts::default();
        for at in [3_600_000, 0] {
            alerts.update(&spec(0, 0), Timestamp(at), seen(&[("x", 1.0)]), 0).unwrap();
            let sent = alerts.to_send(Timestamp(at), Span(10_000), Span::MINUTE, &Arc::from("u"));
            assert_eq!(sent.len(), 1, "at {at}");
            assert_eq!(sent[0].ends_at, Timestamp(at + 240_000));
        }
    }

    #[test]
    fn sending_waits_between_two_times_but_not_with_the_end() {
        let mut alerts = Alerts::default();
        let spec = spec(1, 0);
        let url = Arc::from("u");
        let sent = |alerts: &mut Alerts, at: i64| {
            alerts.to_send(Timestamp(at), Span(10_000), Span::MINUTE, &url)
        };
        let times = [(0, true, 0), (60_000, true, 1), (100_000, true, 0), (120_000, true, 0)];
        let later = [(120_001, true, 1), (130_000, false, 1), (140_000, false, 0)];
        let last = [(190_001, false, 1)];
        for (at, shown, number) in times.into_iter().chain(later).chain(last) {
            let now = if shown { seen(&[("x", 1.0)]) } else { BTreeMap::new() };
            alerts.update(&spec, Timestamp(at), now, 0).unwrap();
            let sent = sent(&mut alerts, at);
            assert_eq!(sent.len(), number, "at {at}");
            for alert in sent {
                assert_eq!(alert.starts_at, Timestamp(60_000), "when it fired");
                let end = if shown { at + 240_000 } else { 130_000 };
                assert_eq!(alert.ends_at, Timestamp(end));
            }
        }
    }
}
