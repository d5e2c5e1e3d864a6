//! The report for people.

use std::fmt;

use stint_model::{Span, Timestamp};

use super::{Advice, EndpointReport, IdentityUse, MonthUse, Points, Report, Use};

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
        usage(self, f)
    }
}

impl fmt::Display for EndpointReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "{}  {}", self.name, self.url)?;
        header(self, f)?;
        table(f, "jobs", &self.jobs)?;
        table(f, "environments", &self.environments)?;
        quotas(self, f)?;
        metrics(self, f)?;
        labels(self, f)?;
        histograms(self, f)?;
        if !self.withheld.is_empty() {
            writeln!(f, "\n  {:<40} {:>8}  since", "withheld", "series")?;
            for row in self.withheld.iter().take(ROWS) {
                let name = format!("{} ({})", row.metric, row.job);
                let since = row.since.map_or_else(|| "-".to_owned(), time);
                writeln!(f, "    {name:<38} {:>8}  {since}  {}", row.series, row.reason)?;
            }
        }
        if !self.advice.is_empty() {
            writeln!(f, "\n  advice")?;
        }
        for (at, one) in self.advice.iter().take(ROWS).enumerate() {
            advice(at + 1, one, f)?;
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

fn points(points: &Points, f: &mut fmt::Formatter<'_>) -> fmt::Result {
    let included = points.per_minute.map_or_else(String::new, |most| format!(" of {most}"));
    writeln!(f, "  points   {}{included} in the last minute", points.last_minute)?;
    if let Some(MonthUse { name, minutes, so_far, projected }) = &points.month {
        writeln!(
            f,
            "  billable {so_far} in {name} so far (95th percentile of {minutes} minutes), {projected} if it goes on as in the last day"
        )?;
    }
    Ok(())
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
            if series.shared > 0 {
                writeln!(f, "  shared   {} held by other endpoints of the account", series.shared)?;
            }
            if let Some(account) = &series.account {
                match account.active {
                    Some(active) => writeln!(
                        f,
                        "  account  {active} active, {} of them from others, {:.0} s ago",
                        account.foreign, account.age_secs
                    )?,
                    None => writeln!(f, "  account  it has not told its use")?,
                }
                if let Some(problem) = &account.problem {
                    writeln!(f, "  account  {problem}")?;
                }
            }
            if let Some(error) = &series.ledger_error {
                writeln!(f, "  ledger   {error}")?;
            }
        }
    }
    points(&report.points, f)?;
    let samples = &report.samples;
    let withheld: u64 = samples.withheld.values().sum();
    let refused: u64 = samples.refused.values().sum();
    writeln!(
        f,
        "  samples  {} sent, {withheld} withheld, {refused} refused, {} too old, {} failed, {} pending, {:.0} s behind",
        samples.sent, samples.too_old, samples.failed, samples.pending, samples.lag_secs
    )?;
    if let Some(IdentityUse { numbers, held, takeovers, unnumbered }) = &report.identities {
        writeln!(
            f,
            "  targets  {held} known by {numbers} numbers, {takeovers} takeovers, {unnumbered} without one"
        )?;
    }
    for (what, by) in [("withheld", &samples.withheld), ("refused", &samples.refused)] {
        let mut rows: Vec<(&String, &u64)> = by.iter().collect();
        rows.sort_by(|a, b| b.1.cmp(a.1).then_with(|| a.0.cmp(b.0)));
        let rows: Vec<String> =
            rows.iter().map(|(name, count)| format!("{count} {name}")).collect();
        if !rows.is_empty() {
            writeln!(f, "  {what}{:>1}{}", "", rows.join(", "))?;
        }
    }
    for (id, message) in &samples.refusals {
        writeln!(f, "           {id}: {message}")?;
    }
    if samples.made > 0 {
        writeln!(f, "  made     {} of aggregates, {} sent", samples.made, samples.made_sent)?;
    }
    if !samples.running {
        writeln!(
            f,
            "  state    forwarding broke down {} times and starts again",
            samples.restarts
        )?;
    }
    if samples.trail_failing {
        writeln!(f, "  disk     what is sent cannot be written down; a crash would forget it")?;
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
        if let Some(secs) = forecast.points_exhausted_in_secs {
            let minutes = Span((secs / 60.0) as i64 * 60_000);
            let per_hour = forecast.points_per_hour;
            writeln!(
                f,
                "           {per_hour:+.0} points per minute each hour, all are used in {minutes}"
            )?;
        }
    }
    if let Some(unused) = report.unused.as_ref().filter(|unused| unused.metrics > 0) {
        writeln!(
            f,
            "  unused   {} series and {:.0} points per minute; metric families: {}",
            unused.slots, unused.points, unused.metrics
        )?;
    }
    Ok(())
}

/// How it is known what is used.
fn usage(report: &Report, f: &mut fmt::Formatter<'_>) -> fmt::Result {
    let usage = &report.usage;
    writeln!(
        f,
        "\nwhat is used is known from {} queries, {} expressions of rules and {} of dashboards",
        usage.queries, usage.rules, usage.dashboards
    )?;
    if let Some(since) = usage.queries_since {
        writeln!(f, "queries are remembered since {}", time(since))?;
    }
    if !usage.conclusive {
        writeln!(
            f,
            "that is too little to call anything unused: name dashboards under [usage] in \
             retention.toml, or wait until queries of a day are known"
        )?;
    }
    for problem in usage.problems.iter().take(ROWS) {
        writeln!(f, "unread: {problem}")?;
    }
    Ok(())
}

fn metrics(report: &EndpointReport, f: &mut fmt::Formatter<'_>) -> fmt::Result {
    if report.metrics.is_empty() {
        return Ok(());
    }
    writeln!(f, "\n  {:<40} {:>8} {:>8} {:>8}  used", "metrics", "slots", "points", "withheld")?;
    for row in report.metrics.iter().take(ROWS) {
        let used = match row.used {
            None => "?",
            Some(true) => "yes",
            Some(false) => "no",
        };
        let (name, points) = (named(&row.name), row.points);
        writeln!(f, "    {name:<38} {:>8} {points:>8.0} {:>8}  {used}", row.slots, row.withheld)?;
    }
    more(report.metrics.len(), f)
}

fn quotas(report: &EndpointReport, f: &mut fmt::Formatter<'_>) -> fmt::Result {
    if report.quotas.is_empty() {
        return Ok(());
    }
    let (slots, most, withheld) = ("slots", "most", "withheld");
    writeln!(f, "\n  {:<40} {slots:>8} {most:>8} {withheld:>8}  guaranteed", "quotas")?;
    for row in report.quotas.iter().take(ROWS) {
        let value = row.value.as_ref().map(|value| format!(" ({})", named(value)));
        let name = format!("{}{}", row.name, value.unwrap_or_default());
        let most = row.max.map_or_else(|| "-".to_owned(), |max| max.to_string());
        writeln!(
            f,
            "    {name:<38} {:>8} {most:>8} {:>8}  {}",
            row.slots, row.withheld, row.guaranteed
        )?;
    }
    more(report.quotas.len(), f)
}

fn labels(report: &EndpointReport, f: &mut fmt::Formatter<'_>) -> fmt::Result {
    if report.metric_labels.is_empty() {
        return Ok(());
    }
    writeln!(f, "\n  {:<40} {:>8} {:>8}  used", "labels", "values", "saving")?;
    for row in report.metric_labels.iter().take(ROWS) {
        let used = match row.used {
            None => "?",
            Some(true) => "yes",
            Some(false) => "no",
        };
        let name = format!("{} of {}", row.label, row.metric);
        writeln!(f, "    {name:<38} {:>8} {:>8}  {used}", row.values, row.saving)?;
    }
    more(report.metric_labels.len(), f)
}

fn histograms(report: &EndpointReport, f: &mut fmt::Formatter<'_>) -> fmt::Result {
    if report.histograms.is_empty() {
        return Ok(());
    }
    writeln!(
        f,
        "\n  {:<40} {:>8} {:>8} {:>8} {:>8} {:>8}",
        "histograms", "slots", "buckets", "-thin", "-totals", "-native"
    )?;
    for row in report.histograms.iter().take(ROWS) {
        writeln!(
            f,
            "    {:<38} {:>8} {:>8} {:>8} {:>8} {:>8}",
            named(&row.name),
            row.slots,
            row.buckets,
            row.saving_thin,
            row.saving_totals,
            row.saving_native
        )?;
    }
    more(report.histograms.len(), f)
}

fn advice(number: usize, advice: &Advice, f: &mut fmt::Formatter<'_>) -> fmt::Result {
    writeln!(f, "  {number:>2}. {} ({} slots fewer)", advice.text, advice.slots)?;
    writeln!(f, "      in {}:", advice.file)?;
    for line in advice.snippet.lines() {
        writeln!(f, "        {line}")?;
    }
    for missed in &advice.breaks {
        writeln!(f, "      breaks: {missed}")?;
    }
    let rest = advice.breaks_count.saturating_sub(advice.breaks.len() as u64);
    if rest > 0 {
        writeln!(f, "      breaks: {rest} more")?;
    }
    Ok(())
}

fn named(name: &str) -> &str {
    if name.is_empty() { "-" } else { name }
}

fn more(rows: usize, f: &mut fmt::Formatter<'_>) -> fmt::Result {
    match rows.saturating_sub(ROWS) {
        0 => Ok(()),
        more => writeln!(f, "    … and {more} more"),
    }
}

fn table(f: &mut fmt::Formatter<'_>, title: &str, rows: &[Use]) -> fmt::Result {
    if rows.is_empty() {
        return Ok(());
    }
    let (slots, points, withheld) = ("slots", "points", "withheld");
    writeln!(f, "\n  {title:<40} {slots:>8} {points:>8} {withheld:>8}  cooling")?;
    for row in rows.iter().take(ROWS) {
        let (name, points) = (named(&row.name), row.points);
        writeln!(
            f,
            "    {name:<38} {:>8} {points:>8.0} {:>8}  {}",
            row.slots, row.withheld, row.cooling
        )?;
    }
    more(rows.len(), f)
}

/// UTC, to the second.
fn time(secs: f64) -> String {
    let at = Timestamp(secs as i64 * 1000);
    jiff::Timestamp::from_millisecond(at.as_ms())
        .map_or_else(|_| "-".to_owned(), |at| at.to_string())
}
