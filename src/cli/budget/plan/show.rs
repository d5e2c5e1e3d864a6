//! A plan as text and as JSON.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use serde::Serialize;

use super::Planned;
use crate::budget::report::{EndpointReport, Withheld};

/// Rows of each table in the text.
const ROWS: usize = 25;

/// A plan as JSON has it.
#[derive(Serialize)]
struct Plan<'a> {
    name: &'a str,
    fits: bool,
    series: Series,
    points: Points,
    jobs: Vec<Change<'a>>,
    metrics: Vec<Change<'a>>,
    withheld: &'a [Withheld],
}

#[derive(Serialize)]
struct Series {
    before: u64,
    after: u64,
    /// Series that find no room.
    left_out: u64,
    target: Option<u64>,
}

#[derive(Serialize)]
struct Points {
    before: f64,
    after: f64,
    included: Option<u64>,
}

/// Slots and points of a job or metric, before and after.
#[derive(Serialize)]
struct Change<'a> {
    name: &'a str,
    before: u64,
    after: u64,
    points_before: f64,
    points_after: f64,
    withheld: u64,
}

impl<'a> Plan<'a> {
    fn of(planned: &'a Planned) -> Self {
        let Planned { before, after } = planned;
        let jobs = |report: &'a EndpointReport| {
            report.jobs.iter().map(|row| (&*row.name, (row.slots, row.points, row.withheld)))
        };
        let metrics = |report: &'a EndpointReport| {
            report.metrics.iter().map(|row| (&*row.name, (row.slots, row.points, row.withheld)))
        };
        Self {
            name: &after.name,
            fits: planned.fits(),
            series: Series {
                before: before.live,
                after: after.live,
                left_out: Planned::left_out(after),
                target: after.series.as_ref().map(|series| series.target),
            },
            points: Points {
                before: Planned::points(before),
                after: Planned::points(after),
                included: after.points.per_minute,
            },
            jobs: changes(jobs(before), jobs(after)),
            metrics: changes(metrics(before), metrics(after)),
            withheld: &after.withheld,
        }
    }
}

type Row<'a> = (&'a str, (u64, f64, u64));

/// What differs, largest difference first.
fn changes<'a>(
    before: impl Iterator<Item = Row<'a>>,
    after: impl Iterator<Item = Row<'a>>,
) -> Vec<Change<'a>> {
    let before: BTreeMap<_, _> = before.collect();
    let after: BTreeMap<_, _> = after.collect();
    let names = before.keys().chain(after.keys().filter(|name| !before.contains_key(*name)));
    let change = |name: &&'a str| {
        let (was, is) = (before.get(name).copied(), after.get(name).copied());
        let ((slots, points, withheld), new) = (was.unwrap_or_default(), is.unwrap_or_default());
        let differs = slots != new.0 || withheld != new.2 || (points - new.1).abs() >= 0.5;
        differs.then_some(Change {
            name,
            before: slots,
            after: new.0,
            points_before: points,
            points_after: new.1,
            withheld: new.2,
        })
    };
    let mut rows: Vec<Change<'_>> = names.filter_map(change).collect();
    rows.sort_by(|a, b| {
        let size = |it: &Change<'_>| it.before.abs_diff(it.after) + it.withheld;
        size(b).cmp(&size(a)).then_with(|| a.name.cmp(b.name))
    });
    rows
}

pub(super) fn json(planned: &[Planned]) -> anyhow::Result<String> {
    let endpoints: Vec<Plan<'_>> = planned.iter().map(Plan::of).collect();
    let fits = endpoints.iter().all(|plan| plan.fits);
    let all = serde_json::json!({ "fits": fits, "endpoints": endpoints });
    Ok(format!("{}\n", serde_json::to_string_pretty(&all)?))
}

/// Writing to a text cannot fail.
pub(super) fn text(planned: &[Planned]) -> String {
    let mut out = String::new();
    for planned in planned {
        let plan = Plan::of(planned);
        let verdict = if plan.fits { "fits" } else { "does not fit" };
        let of = |most: Option<u64>| most.map_or_else(String::new, |most| format!(" of {most}"));
        let _ = writeln!(out, "{}: {verdict}", plan.name);
        let Series { before, after, left_out, target } = plan.series;
        let _ = writeln!(out, "  series  {before} → {after}{}, no room for {left_out}", of(target));
        let Points { before, after, included } = plan.points;
        let _ = writeln!(out, "  points  {before:.0} → {after:.0}{} per minute", of(included));
        table(&mut out, "jobs", &plan.jobs);
        table(&mut out, "metrics", &plan.metrics);
        if !plan.withheld.is_empty() {
            let _ = writeln!(out, "\n  {:<44} {:>8}  why", "withheld", "series");
        }
        for row in plan.withheld.iter().take(ROWS) {
            let name = format!("{} ({})", row.metric, row.job);
            let _ = writeln!(out, "    {name:<42} {:>8}  {}", row.series, row.reason);
        }
        more(&mut out, plan.withheld.len());
    }
    out
}

fn table(out: &mut String, title: &str, rows: &[Change<'_>]) {
    if rows.is_empty() {
        return;
    }
    let [before, after, withheld, points] = ["before", "after", "withheld", "points"];
    let _ = writeln!(out, "\n  {title:<44} {before:>8} {after:>8} {withheld:>8} {points:>8}");
    for row in rows.iter().take(ROWS) {
        let name = if row.name.is_empty() { "-" } else { row.name };
        let points = row.points_after - row.points_before;
        let _ = writeln!(
            out,
            "    {name:<42} {:>8} {:>8} {:>8} {points:>+8.0}",
            row.before, row.after, row.withheld
        );
    }
    more(out, rows.len());
}

fn more(out: &mut String, rows: usize) {
    if rows > ROWS {
        let _ = writeln!(out, "    … and {} more", rows - ROWS);
    }
}
