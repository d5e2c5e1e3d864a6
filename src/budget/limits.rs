//! How many series an endpoint may be sent: contract, enforced limit and target.
//!
//! Grafana Cloud spreads an account's limit evenly over partitions and refuses a series as soon as
//! its own partition is full, which happens well before the sum reaches the limit. So the target
//! stays below it there.

use std::time::Duration;

use stint_model::Span;

use super::points::INTERVAL_MAX;
use crate::config::{Budget, is_grafana_cloud};

/// How long a lease is held after the last hand-over of a sample to the network: the server counts
/// a series for 20 minutes, keeps minutes whole, and cleans up once a minute.
pub const HOLD: Span = Span(22 * Span::MINUTE.0);
/// For so long may arrive what was on its way when the run before ended: the time in which a request is
/// waited for, and what lies between may keep it.
pub const ON_ITS_WAY: Duration = Duration::from_mins(1);

/// Series of Grafana Cloud's free tier.
pub const FREE_TIER_SERIES: u64 = 10_000;

/// Interval of forwarded samples where the account includes one data point per minute.
pub const FREE_TIER_INTERVAL: Span = Span::MINUTE;

/// How old a sample may be for an endpoint that takes two hours out of order, with room for the
/// way there.
pub const GRAFANA_CLOUD_AGE_MAX: Span = Span(115 * Span::MINUTE.0);

/// What is assumed when an endpoint's ledger does not exist although series may be active.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum MissingLedger {
    /// Half of the target is granted at first, growing to all of it over the hold time. What an
    /// unknown earlier run left behind comes on top, until the server has forgotten it: nearly twice
    /// the target at worst, where that run had used all of it.
    #[default]
    Ramp,
    /// The earlier run may have used all of the target: only what lies between target and contract
    /// is granted until the hold time is over.
    Full,
    /// The earlier run had no budget and may have used any number: nothing new is granted until the
    /// hold time is over.
    Unlisted,
    /// There was no earlier run.
    Nothing,
}

/// The budget of one endpoint as configured.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Series the account includes.
    pub contract: u64,
    /// Series above which the server refuses new ones.
    pub enforced: u64,
    /// Series that are kept in use at most: below the others, since the server spreads its limit
    /// over partitions and refuses before all of it is used.
    pub target: u64,
    /// Of the target, what only the first class may use.
    pub reserve: u64,
    /// Data points per minute the account includes; nothing for no limit.
    pub points_per_minute: Option<u64>,
    /// What is assumed without a ledger.
    pub missing_ledger: MissingLedger,
    /// Where the numbers come from, for the log and the report.
    pub origin: Origin,
}

/// Where an endpoint's limits come from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Origin {
    /// `retention.toml` sets them.
    Configured,
    /// The endpoint is on grafana.net and nothing is set: its free tier.
    FreeTier,
}

impl Limits {
    /// The limits of the endpoint at `url`; `None` when its series are not budgeted.
    pub fn resolve(url: &str, budget: &Budget) -> Option<Self> {
        let cloud = is_grafana_cloud(url);
        let points = budget.points_per_minute;
        // With the longest interval, so many series fit into the points.
        let fitting = points.map(|points| {
            points.saturating_mul((INTERVAL_MAX.as_ms() / Span::MINUTE.as_ms()) as u64)
        });
        let contract = budget.series.or(fitting)?;
        // A tenth is left for the skew between the partitions of the limit; see the module text.
        let target = if cloud { contract - contract / 10 } else { contract };
        let target = target.min(fitting.unwrap_or(target));
        let is_free_tier = cloud && *budget == Budget::free_tier();
        Some(Self {
            contract,
            enforced: contract,
            target,
            reserve: reserve_of(target, budget.reserve),
            points_per_minute: points,
            missing_ledger: MissingLedger::default(),
            origin: if is_free_tier { Origin::FreeTier } else { Origin::Configured },
        })
    }
}

/// `part` of the target.
fn reserve_of(target: u64, part: f64) -> u64 {
    // NaN becomes zero.
    (target as f64 * part.clamp(0.0, 1.0)) as u64
}

#[cfg(test)]
mod tests {
    use super::*;

    const CLOUD: &str = "https://prometheus-prod-13-prod-us-east-0.grafana.net/api/prom/push";

    #[test]
    fn grafana_cloud_is_the_free_tier() {
        let limits = Limits::resolve(CLOUD, &Budget::free_tier()).unwrap();
        assert_eq!((limits.contract, limits.enforced, limits.target), (10_000, 10_000, 9_000));
        assert_eq!((limits.reserve, limits.points_per_minute), (450, Some(10_000)));
        assert_eq!(limits.origin, Origin::FreeTier);
    }

    #[test]
    fn without_a_number_of_series_or_points_there_is_no_budget() {
        assert_eq!(Limits::resolve("http://mimir:9009/push", &Budget::default()), None);
    }

    #[test]
    fn no_more_series_than_the_points_suffice_for() {
        let points = Budget { points_per_minute: Some(100), ..Budget::default() };
        let limits = |budget| Limits::resolve("http://mimir", &budget).unwrap();
        let alone = limits(points.clone());
        assert_eq!((alone.contract, alone.target, alone.points_per_minute), (400, 400, Some(100)));
        let both = limits(Budget { series: Some(1000), ..points.clone() });
        assert_eq!((both.contract, both.target), (1000, 400));
        let few = limits(Budget { series: Some(300), ..points });
        assert_eq!(few.target, 300);
    }

    #[test]
    fn elsewhere_all_of_the_configured_series_may_be_used() {
        let budget = Budget { series: Some(500), reserve: 0.1, ..Budget::default() };
        let limits = Limits::resolve("http://mimir:9009/push", &budget).unwrap();
        assert_eq!((limits.target, limits.reserve), (500, 50));
        assert_eq!(limits.origin, Origin::Configured);
        let odd = Budget { reserve: f64::NAN, ..budget };
        assert_eq!(Limits::resolve("http://mimir", &odd).unwrap().reserve, 0);
    }
}
