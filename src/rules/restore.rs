//! After a restart: since when alerts were there before, read from what was stored of them.

use std::collections::HashMap;

use stint_model::labels::METRIC_NAME;
use stint_model::{
    Columns, Hints, Labels, Matcher, QueryError, Selector, Span, TimeRange, Timestamp, is_stale,
};

use super::alerting::ALERT_NAME;
use super::env::Env;
use super::group::{Group, Rule};
use super::order::ALERTS_FOR_STATE;

/// What was last stored of an alert.
#[derive(Clone, Copy, Debug, PartialEq)]
struct Before {
    /// When it was stored.
    at: Timestamp,
    /// Since when the alert was there, or a staleness marker.
    since: f64,
}

impl Group {
    /// Lets alerts go on that were there before a restart. Called once, after the second evaluation
    /// (with the first one, what the rules read may not have been scraped yet); `now` is the clock's.
    pub fn restore(&self, now: Timestamp, env: &Env) {
        let began = env.clock.monotonic();
        for rule in self.rules() {
            let Some(spec) = rule.spec.alert() else { continue };
            if spec.hold >= env.grace_period
                && let Err(error) = restore(rule, spec.hold, now, env)
            {
                let alert = rule.spec.name.as_str();
                tracing::error!(
                    alert, %error, "an alert is taken for new: what was stored of it cannot be read"
                );
            }
            rule.set_restored();
        }
        self.set_restored();
        self.metrics.restored(env.clock.monotonic().saturating_sub(began));
    }
}

fn restore(rule: &Rule, hold: Span, now: Timestamp, env: &Env) -> Result<(), QueryError> {
    let before = stored(rule, now, env)?;
    rule.change_alerts(|alerts| {
        for (labels, alert) in alerts.active_mut() {
            let since = before
                .get(labels)
                .filter(|before| !is_stale(before.since))
                .map(|before| active_since(*before, hold, now, env.grace_period));
            if let Some(since) = since {
                alert.active_at = since;
            }
        }
    });
    Ok(())
}

/// Since when the alert is to be taken to be there.
fn active_since(before: Before, hold: Span, now: Timestamp, grace_period: Span) -> Timestamp {
    // Whole seconds, as they are stored.
    let down_at = Timestamp(before.at.0.div_euclid(1000) * 1000);
    let since = Timestamp((before.since as i64).saturating_mul(1000));
    let remaining = Span(hold.0.saturating_sub(down_at.since(since).0));
    if remaining <= Span::ZERO {
        // It fired, and does so again at the next evaluation.
        since
    } else if remaining < grace_period {
        now + grace_period - hold
    } else {
        // The outage does not count.
        since + now.since(down_at)
    }
}

/// What was stored of the alerts of `rule`, by their labels.
fn stored(rule: &Rule, now: Timestamp, env: &Env) -> Result<HashMap<Labels, Before>, QueryError> {
    let range = TimeRange::closed(now - env.outage_tolerance, now);
    let mut matchers = vec![
        Matcher::equal(METRIC_NAME, ALERTS_FOR_STATE),
        Matcher::equal(ALERT_NAME, &rule.spec.name),
    ];
    for (name, text) in &rule.spec.labels {
        // What a template makes of it is not known.
        if !text.raw().contains("{{") && name != ALERT_NAME {
            matchers.push(Matcher::equal(name, text.raw()));
        }
    }
    let querier = env.store.querier(range)?;
    let hints = Hints { unordered: true, ..Hints::default() };
    let set = querier.select(&Selector::new(matchers), &hints)?;
    let mut found = HashMap::new();
    let mut columns = Columns::default();
    for index in 0..set.len() {
        columns.clear();
        set.read(index, range, &mut columns)?;
        if let (Some(at), Some(since)) = (columns.times.last(), columns.values.last()) {
            let labels = set.labels(index).without_metric_name();
            found.insert(labels, Before { at: *at, since: *since });
        }
    }
    Ok(found)
}

#[cfg(test)]
mod tests {
    use super::*;

    const MINUTE: i64 = 60_000;

    /// The minute in which the alert fires, that was there since minute 0 and last seen in `down`.
    fn fires(down: i64, now: i64, hold: i64) -> i64 {
        let before = Before { at: Timestamp(down * MINUTE), since: 0.0 };
        let hold = Span(hold * MINUTE);
        let since = active_since(before, hold, Timestamp(now * MINUTE), Span(10 * MINUTE));
        (since + hold).0 / MINUTE
    }

    #[test]
    fn an_outage_does_not_count_and_nothing_fires_at_once_that_did_not_before() {
        // 30 minutes to wait, 10 done, then 20 down.
        assert_eq!(fires(10, 30, 30), 50);
        // 5 minutes were left: less than the grace period, which is waited for anew.
        assert_eq!(fires(25, 40, 30), 50);
        // It fired.
        assert_eq!(fires(30, 40, 30), 30);
        assert_eq!(fires(35, 40, 30), 30);
    }
}
