//! What an account says, how full quotas are, what histograms cost, what was refused.

use std::fmt::Write as _;

use super::{Number, ROWS, Text, end_table, known, table};
use crate::budget::report::{EndpointReport, HistogramUse, QuotaUse, Samples, SeriesBudget};

/// What the account says of itself, and what others of it are known to hold.
pub(super) fn account(out: &mut String, series: &SeriesBudget) {
    if series.shared > 0 {
        let shared = Number(series.shared);
        let _ = write!(out, "<p>{shared} slots are held by other endpoints of the account.</p>");
    }
    let Some(account) = &series.account else { return };
    match account.active {
        Some(active) => {
            let _ = write!(
                out,
                "<p>The account counts {} series, {} of them from others, {:.0} s ago.</p>",
                Number(active),
                Number(account.foreign),
                account.age_secs
            );
        }
        None => out.push_str("<p>The account has not told its use.</p>"),
    }
    if let Some(problem) = &account.problem {
        let _ = write!(out, "<p class=\"bad\">The account: {}</p>", Text(problem));
    }
}

/// What the endpoint said when it refused samples.
pub(super) fn refusals(out: &mut String, samples: &Samples) {
    if samples.refusals.is_empty() {
        return;
    }
    let columns = [("Refused as", false), ("Samples", true), ("What was said last", false)];
    table(out, "Refused by the endpoint", &columns);
    for (id, message) in samples.refusals.iter().take(ROWS) {
        let _ = write!(
            out,
            "<tr><th scope=\"row\">{}</th><td class=\"n\">{}</td><td>{}</td></tr>",
            Text(id),
            Number(samples.refused.get(id).copied().unwrap_or(0)),
            Text(message)
        );
    }
    end_table(out, samples.refusals.len());
}

/// How full each quota is.
pub(super) fn quotas(out: &mut String, rows: &[QuotaUse]) {
    if rows.is_empty() {
        return;
    }
    let columns = [
        ("Quota", false),
        ("Value", false),
        ("Slots", true),
        ("Most", true),
        ("Guaranteed", true),
        ("Withheld", true),
    ];
    table(out, "Quotas", &columns);
    for row in rows.iter().take(ROWS) {
        let _ = write!(
            out,
            "<tr><th scope=\"row\">{}</th><td>{}</td><td class=\"n\">{}</td><td class=\"n\">{}</td><td class=\"n\">{}</td><td class=\"n\">{}</td></tr>",
            Text(&row.name),
            Text(row.value.as_deref().unwrap_or("–")),
            Number(row.slots),
            row.max.map_or_else(|| "–".to_owned(), |max| Number(max).to_string()),
            Number(row.guaranteed),
            Number(row.withheld)
        );
    }
    end_table(out, rows.len());
}

/// What histograms cost, and what would be left of that.
pub(super) fn histograms(out: &mut String, report: &EndpointReport) {
    let rows: &[HistogramUse] = &report.histograms;
    if rows.is_empty() {
        return;
    }
    let columns = [
        ("Histogram", false),
        ("Slots", true),
        ("Buckets", true),
        ("Saved when thinned", true),
        ("With sum and count alone", true),
        ("As native ones", true),
        ("Buckets used", false),
    ];
    table(out, "Histograms", &columns);
    for row in rows.iter().take(ROWS) {
        let _ = write!(
            out,
            "<tr><th scope=\"row\">{}</th><td class=\"n\">{}</td><td class=\"n\">{}</td><td class=\"n\">{}</td><td class=\"n\">{}</td><td class=\"n\">{}</td><td>{}</td></tr>",
            Text(&row.name),
            Number(row.slots),
            Number(row.buckets),
            Number(row.saving_thin),
            Number(row.saving_totals),
            Number(row.saving_native),
            known(row.buckets_used)
        );
    }
    end_table(out, rows.len());
}
