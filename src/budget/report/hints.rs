//! What is worth knowing or doing, in sentences.

use stint_model::Span;

use super::EndpointReport;

/// The hints that follow from a report whose other parts are filled.
pub(super) fn hints(report: &EndpointReport, interval: Span) -> Vec<String> {
    let mut hints = Vec::new();
    if interval > Span::ZERO {
        hints.push(format!(
            "samples arrive every {interval}: set the scrape interval of the Grafana data source to \
             {interval}, so that $__rate_interval covers enough of them, and use windows of at \
             least {} in rate()",
            Span(interval.as_ms().saturating_mul(4))
        ));
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
