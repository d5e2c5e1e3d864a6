//! Endpoints as the budget's report shows them.

use std::time::Duration;

use stint_model::Timestamp;

use super::handle::Handle;
use super::status::Status;
use crate::budget::policy::Reason;
use crate::budget::report::{
    About, EndpointReport, IdentityUse, Look, Overview, Report, Samples, UsageReport,
};

/// The report over all endpoints at `now`, which is `wall` by the wall clock, with what is known to be
/// used. Counting the sets of many series takes a while.
pub fn report(handles: &[Handle], usage: &Overview, now: Duration, wall: Timestamp) -> Report {
    Report {
        endpoints: handles.iter().map(|handle| endpoint(handle, usage, now, wall)).collect(),
        usage: UsageReport::of(usage, wall),
    }
}

fn endpoint(handle: &Handle, usage: &Overview, now: Duration, wall: Timestamp) -> EndpointReport {
    let status = handle.status();
    // Only what must be looked at while the budget stands still.
    let mut look = handle.with_budget(|admission| Look::begin(admission, now, handle.interval));
    while handle.with_budget(|admission| look.go_on(admission)) {}
    let about = About {
        name: handle.name.to_string(),
        url: handle.url.to_string(),
        interval: handle.interval,
        sends_metadata: handle.sends_metadata,
        samples: samples(&status, wall),
        identities: status.identities.map(|counts| IdentityUse {
            numbers: counts.numbers,
            held: counts.held,
            takeovers: counts.takeovers,
            unnumbered: counts.unnumbered,
        }),
    };
    look.finish(about, usage, wall)
}

fn samples(status: &Status, wall: Timestamp) -> Samples {
    let counters = &status.counters;
    let named = |(reason, count): (&Reason, &u64)| (reason.to_string(), *count);
    Samples {
        read: counters.read,
        sent: counters.sent,
        withheld: counters.withheld.iter().map(named).collect(),
        refused: counters.refused.clone(),
        refusals: status.refusals.clone(),
        too_old: counters.too_old,
        failed: counters.failed,
        lost: counters.lost,
        gaps: counters.gaps,
        pending: counters.pending,
        made: counters.made,
        made_sent: counters.made_sent,
        markers: counters.markers,
        lag_secs: status.lag(wall).as_secs_f64(),
        running: status.running,
        restarts: status.restarts,
        trail_failing: status.trail.failing,
        trail_unwritten: status.trail.unwritten,
        trail_damaged: status.trail.damaged,
        last_error: status.last_error.as_ref().map(|failure| failure.message.clone()),
    }
}
