//! The report for people.

use std::fmt;

use stint_model::{Span, Timestamp};

use super::{EndpointReport, Report, Use};

/// Rows of each table in the text.
const ROWS: usize = 10;

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.endpoints.is_empty() {
            return writeln!(f, "nothing is forwarded: prometheus.yml has no remote_write");
        }
        for (at, endpoint) in self.endpoints.iter().enumerate() {
            if at > 0 {
                writeln!(f)?;
            }
            endpoint.fmt(f)?;
        }
        Ok(())
    }
}

impl fmt::Display for EndpointReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "{}  {}", self.name, self.url)?;
        header(self, f)?;
        table(f, "jobs", &self.jobs)?;
        table(f, "metrics", &self.metrics)?;
        let labels: Vec<_> = self.labels.iter().filter(|label| label.saving > 0).collect();
        if !labels.is_empty() {
            writeln!(f, "\n  {:<40} {:>8} {:>8}", "labels", "values", "saving")?;
            for label in labels.iter().take(ROWS) {
                writeln!(f, "    {:<38} {:>8} {:>8}", label.name, label.values, label.saving)?;
            }
        }
        if !self.withheld.is_empty() {
            writeln!(f, "\n  {:<40} {:>8}  since", "withheld", "series")?;
            for row in self.withheld.iter().take(ROWS) {
                let name = format!("{} ({})", row.metric, row.job);
                let since = row.since.map_or_else(|| "-".to_owned(), time);
                writeln!(f, "    {name:<38} {:>8}  {since}  {}", row.series, row.reason)?;
            }
        }
        if !self.hints.is_empty() {
            writeln!(f)?;
        }
        for hint in &self.hints {
            writeln!(f, "  * {hint}")?;
        }
        Ok(())
    }
}

fn header(report: &EndpointReport, f: &mut fmt::Formatter<'_>) -> fmt::Result {
    let live = report.live;
    match &report.series {
        None => writeln!(f, "  series   {live} active, no budget")?,
        Some(series) => {
            let part = live as f64 * 100.0 / series.target.max(1) as f64;
            writeln!(
                f,
                "  series   {live} of {} ({part:.0} %), contract {}, reserve {}, cooling {}, server {}",
                series.target, series.contract, series.reserve, series.cooling, series.server
            )?;
            if let Some(error) = &series.ledger_error {
                writeln!(f, "  ledger   {error}")?;
            }
        }
    }
    let points = &report.points;
    let included = points.per_minute.map_or_else(String::new, |most| format!(" of {most}"));
    writeln!(f, "  points   {}{included} in the last minute", points.last_minute)?;
    let samples = &report.samples;
    let withheld: u64 = samples.withheld.values().sum();
    let refused: u64 = samples.refused.values().sum();
    writeln!(
        f,
        "  samples  {} sent, {withheld} withheld, {refused} refused, {} too old, {} failed, {} pending, {:.0} s behind",
        samples.sent, samples.too_old, samples.failed, samples.pending, samples.lag_secs
    )?;
    if !samples.running {
        writeln!(
            f,
            "  state    forwarding broke down {} times and starts again",
            samples.restarts
        )?;
    }
    if let Some(error) = &samples.last_error {
        writeln!(f, "  error    {error}")?;
    }
    if let Some(forecast) = &report.forecast {
        write!(f, "  trend    {:+.0} series per hour", forecast.slots_per_hour)?;
        match forecast.exhausted_in_secs {
            Some(secs) => {
                let minutes = Span((secs / 60.0) as i64 * 60_000);
                writeln!(f, ", the target is reached in {minutes}")?;
            }
            None => writeln!(f)?,
        }
    }
    Ok(())
}

fn table(f: &mut fmt::Formatter<'_>, title: &str, rows: &[Use]) -> fmt::Result {
    if rows.is_empty() {
        return Ok(());
    }
    writeln!(f, "\n  {title:<40} {:>8} {:>8}", "slots", "withheld")?;
    for row in rows.iter().take(ROWS) {
        let name = if row.name.is_empty() { "-" } else { &row.name };
        writeln!(f, "    {name:<38} {:>8} {:>8}", row.slots, row.withheld)?;
    }
    if rows.len() > ROWS {
        writeln!(f, "    … and {} more", rows.len() - ROWS)?;
    }
    Ok(())
}

/// UTC, to the second.
fn time(secs: f64) -> String {
    let at = Timestamp(secs as i64 * 1000);
    jiff::Timestamp::from_millisecond(at.as_ms())
        .map_or_else(|_| "-".to_owned(), |at| at.to_string())
}
