//! What is worth knowing or doing, in sentences.

use stint_model::Span;

use super::EndpointReport;
use crate::usage::{Catalogue, Source, dashboards};

/// Windows from here on suffice, whatever the interval; macros of Grafana are taken for so long.
const LONG: Span = Span(5 * Span::MINUTE.0);
/// Names in one hint.
const NAMES: usize = 5;

/// What dashboards show nothing at a distance of `interval` between samples, since two never fit into a
/// window.
fn short_windows(interval: Span, catalogue: &Catalogue) -> Option<String> {
    let least = Span(interval.as_ms().saturating_mul(2)).min(LONG);
    let mut short: Vec<String> = Vec::new();
    for known in catalogue.known().iter().filter(|known| known.source == Source::Dashboard) {
        let window = dashboards::shortest_window(&known.expr).filter(|window| *window < least);
        if let Some(window) = window {
            let name = format!("{} ({window})", known.what);
            if !short.contains(&name) {
                short.push(name);
            }
        }
    }
    if short.is_empty() {
        return None;
    }
    let more = short.len().saturating_sub(NAMES);
    let rest = if more > 0 { format!(" and {more} more") } else { String::new() };
    short.truncate(NAMES);
    Some(format!(
        "windows shorter than {least} may hold one sample and show nothing: {}{rest}",
        short.join(", ")
    ))
}

/// The hints that follow from a report whose other parts are filled.
pub(super) fn hints(report: &EndpointReport, interval: Span, catalogue: &Catalogue) -> Vec<String> {
    let mut hints = Vec::new();
    if interval > Span::ZERO {
        hints.push(format!(
            "samples arrive every {interval}: set the scrape interval of the Grafana data source to \
             {interval}, so that $__rate_interval covers enough of them, and use windows of at \
             least {} in rate()",
            Span(interval.as_ms().saturating_mul(4))
        ));
        hints.extend(short_windows(interval, catalogue));
    }
    let Some(series) = &report.series else {
        hints.push("no series budget: set budget.series in retention.toml to have one".to_owned());
        return hints;
    };
    if series.origin == "free_tier" {
        hints.push(format!(
            "the limits of Grafana Cloud's free tier are assumed ({} series); set budget.series in \
             retention.toml for another plan",
            series.contract
        ));
    }
    if series.in_doubt {
        hints.push(format!(
            "the server may be counting series that the ledger does not list, since there was none \
             at a start, or it was damaged: {} of {} slots may be in use until stint has run \
             for 22 minutes",
            series.allowed, series.target
        ));
    } else if series.server == "normal" && series.allowed < series.target {
        hints.push(format!(
            "the server refused new series a while ago: {} of {} slots may be in use, and more again \
             every ten minutes",
            series.allowed, series.target
        ));
    }
    if series.server != "normal" {
        hints.push(
            "the server refuses new series below the target: others send to this account too, or \
             its limit is lower than configured"
                .to_owned(),
        );
    }
    if let Some(dearest) = report.labels.iter().find(|label| label.saving > series.target / 20) {
        hints.push(format!(
            "without the label {} {} slots would be free",
            dearest.name, dearest.saving
        ));
    }
    if let Some(most) = report.points.per_minute {
        for class in report.classes.iter().filter(|class| class.thinned) {
            hints.push(format!(
                "the class {} is sent every {} s only: more would be more than {most} points per minute",
                class.name, class.interval_secs
            ));
        }
    }
    hints
}

/// What answers of an endpoint tell about those that send to it, by error id.
const ANSWERS: &[(&str, &str)] = &[
    (
        "sample-duplicate-timestamp",
        "somebody else sends series with the same labels: give each sender an external label of its own, \
         or replicas the labels cluster and __replica__",
    ),
    ("too-far-in-future", "samples come from the future: compare the clocks of targets and server"),
    (
        "max-label-names-per-series",
        "series have more labels than the endpoint takes: drop some with write_relabel_configs",
    ),
    (
        "max-series-per-metric",
        "one metric has more series than the endpoint takes: give it a [[budget.quota]] with \
         per = \"__name__\"",
    ),
    (
        "sample-timestamp-too-old",
        "samples are too old for the endpoint: it takes them only as far behind the newest one of all \
         senders as its out-of-order window reaches",
    ),
    (
        "sample-out-of-order",
        "samples come behind later ones of their series: another sender has the same labels, or a \
         clock was set back",
    ),
];

/// The hints that follow from what the endpoint answers, and from what it is not told.
pub(super) fn answers(report: &EndpointReport, sends_metadata: bool) -> Vec<String> {
    let refused = &report.samples.refused;
    let mut hints: Vec<String> = ANSWERS
        .iter()
        .filter_map(|(id, text)| Some(format!("{text} ({} refused, {id})", refused.get(*id)?)))
        .collect();
    if !sends_metadata {
        hints.push(
            "the types of metrics are not sent, by which the endpoint tells counters from gauges: set \
             metadata_config.send, or send the 2.0 message"
                .to_owned(),
        );
    }
    hints
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::usage::Known;

    #[test]
    fn what_the_endpoint_answers_is_explained() {
        let mut report = EndpointReport::default();
        assert_eq!(answers(&report, true), Vec::<String>::new());
        report.samples.refused.insert("sample-duplicate-timestamp".to_owned(), 7);
        report.samples.refused.insert("http_400".to_owned(), 1);
        let hints = answers(&report, false);
        assert_eq!(hints.len(), 2, "{hints:?}");
        assert!(hints[0].ends_with("(7 refused, sample-duplicate-timestamp)"));
    }

    #[test]
    fn dashboards_whose_windows_are_too_short_are_named() {
        let board = |what: &str, expr: &str| {
            Known::new(Source::Dashboard, what.to_owned(), expr, Ok(Vec::new()))
        };
        let rule = Known::new(Source::Rule, "R".to_owned(), "rate(a[30s])", Ok(Vec::new()));
        let mut known = vec![
            board("A / p", "sum(rate(a{x=\"$x\"}[1m]))"),
            board("A / q", "rate(a[$__rate_interval])"),
            board("B / r", "rate(a[2m])"),
            rule,
        ];
        let hint = |known: &[Known], interval| {
            short_windows(interval, &Catalogue::new(known.to_vec(), None))
        };
        let text = hint(&known, Span::MINUTE).unwrap();
        assert!(
            text.starts_with("windows shorter than 2m ") && text.ends_with(": A / p (1m)"),
            "{text}"
        );
        assert_eq!(hint(&known, Span(15_000)), None);
        known.extend((0..6).map(|n| board(&format!("C / {n}"), "rate(a[10s])")));
        assert!(hint(&known, Span::MINUTE).unwrap().ends_with("and 2 more"));
    }
}
