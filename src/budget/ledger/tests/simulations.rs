//! What a server counts while series churn and deploys replace them, minute by minute: with leases of
//! 22 minutes never more than the target, with shorter ones more. A tenth of real sizes.

use std::collections::HashMap;

use super::*;

/// Slots.
const TARGET: u64 = 950;
const MINUTES: u64 = 180;
/// All series are replaced, or a part of them, in this minute.
const DEPLOY_AT: u64 = 60;

struct Load {
    series: u64,
    /// New series per minute, each in the place of another one.
    churn: u64,
    /// How many are replaced at once.
    deployed: u64,
}

struct Outcome {
    /// The most series that the server counted at once.
    peak: u64,
    /// Samples that were not sent, in percent.
    withheld: f64,
}

/// A number below `below`, the same for the same inputs.
fn draw(state: &mut u64, below: u64) -> u64 {
    *state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
    (*state >> 33) % below
}

fn simulate(load: &Load, hold: Span, forgets_at_deploy: bool) -> Outcome {
    let mut ledger = Ledger::in_memory(hold);
    let mut state = 42;
    let mut alive: Vec<u64> = (0..load.series).collect();
    let mut next = load.series;
    // Minute of the last arrival, as the server has it.
    let mut server: HashMap<u64, u64> = HashMap::new();
    let (mut peak, mut wanted, mut sent) = (0, 0, 0);
    for minute in 0..MINUTES {
        let replaced = if minute == DEPLOY_AT { load.deployed } else { 0 };
        if replaced > 0 && forgets_at_deploy {
            ledger = Ledger::in_memory(hold);
        }
        for n in 0..load.churn + replaced {
            // A deploy replaces one after the other, churn anybody.
            let place = if n < load.churn { draw(&mut state, load.series) } else { n - load.churn };
            alive[place as usize] = next;
            next += 1;
        }
        let now = secs(minute * 60);
        ledger.purge_at = Duration::ZERO;
        ledger.pass(now).unwrap();
        for series in &alive {
            wanted += 1;
            let key = Key(u128::from(*series));
            if ledger.grant(&[(key, 0)], TARGET, now).is_err() {
                continue;
            }
            sent += 1;
            let arrives = now + Duration::from_millis(draw(&mut state, 60_000));
            ledger.hand_over([key], now + Duration::from_mins(1));
            ledger.answered([key], arrives, true);
            server.insert(*series, arrives.as_secs() / 60);
            // It looks once a minute, and minutes are whole.
            peak = peak.max(server.len() as u64);
        }
        server.retain(|_, arrived| minute + 1 - *arrived <= 21);
    }
    let withheld = (wanted - sent) as f64 / wanted as f64 * 100.0;
    Outcome { peak, withheld }
}

#[test]
fn leases_of_22_minutes_keep_the_target_and_withhold_no_more_than_they_must() {
    // Series, churn, deployed; then the peak and the percentage that were found with real sizes.
    for (series, churn, deployed, peak, percent) in [
        (800, 0, 240, 950, 1.4),
        (800, 5, 0, 910, 0.0),
        (800, 10, 0, 950, 6.1),
        (600, 0, 600, 950, 5.1),
        (900, 0, 900, 950, 11.5),
    ] {
        let outcome = simulate(&Load { series, churn, deployed }, HOLD, false);
        let told = format!("{series} {churn} {deployed}: {} {:.2}", outcome.peak, outcome.withheld);
        assert!(outcome.peak <= TARGET, "{told}");
        assert!(outcome.peak.abs_diff(peak) <= 6, "{told}");
        assert!((outcome.withheld - percent).abs() <= 1.0, "{told}");
    }
}

#[test]
fn shorter_leases_and_a_forgotten_ledger_break_the_target() {
    let churn = Load { series: 800, churn: 10, deployed: 0 };
    let peak = |minutes: i64| simulate(&churn, Span(minutes * Span::MINUTE.0), false).peak;
    assert_eq!(peak(20), 960, "by a minute of churn");
    assert!((1000..=1030).contains(&peak(15)), "{}", peak(15));
    let redeploy = Load { series: 900, churn: 0, deployed: 900 };
    assert_eq!(simulate(&redeploy, HOLD, true).peak, 1800, "all of the old and all of the new");
}

/// How many of `series` find their partition full, of 64 that share `limit` evenly: on average, and how
/// often there is one at all, in percent.
fn skew(series: u64, limit: u64, state: &mut u64) -> (f64, f64) {
    const TRIALS: u64 = 300;
    let (mut refused, mut trials) = (0, 0);
    for _ in 0..TRIALS {
        let mut partitions = [0; 64];
        for _ in 0..series {
            partitions[draw(state, 64) as usize] += 1;
        }
        let beyond: u64 = partitions.iter().map(|used: &u64| used.saturating_sub(limit / 64)).sum();
        refused += beyond;
        trials += u64::from(beyond > 0);
    }
    (refused as f64 / TRIALS as f64, trials as f64 * 100.0 / TRIALS as f64)
}

#[test]
fn a_limit_over_partitions_refuses_early_and_the_target_stays_below_that() {
    let mut state = 7;
    // Series, limit; how often some are refused in percent, how many on average where that was found.
    for (series, limit, percent, refused) in [
        (7_500, 10_000, 1.3, None),
        (8_000, 10_000, 21.0, None),
        (8_250, 10_000, 48.0, None),
        (8_500, 10_000, 79.0, None),
        (9_000, 10_000, 100.0, Some(36.0)),
        (10_000, 10_000, 100.0, Some(324.0)),
        (11_000, 15_000, 0.0, None),
        (12_000, 15_000, 3.7, None),
        (12_500, 15_000, 17.0, None),
        (13_000, 15_000, 62.0, None),
        (13_500, 15_000, 98.0, None),
        (15_000, 15_000, 100.0, Some(403.0)),
    ] {
        let (average, often) = skew(series, limit, &mut state);
        assert!((often - percent).abs() < 9.0, "{series} of {limit}: {often} % of trials");
        if let Some(refused) = refused {
            let off: f64 = average - refused;
            assert!(off.abs() < refused * 0.12, "{series} of {limit}: {average} refused");
        }
    }
    for enforced in [10_000, 15_000] {
        let target = crate::budget::feedback::skew_safe(enforced);
        let (_, often) = skew(target, enforced, &mut state);
        assert!(often < 5.0, "{target} of {enforced}: {often} % of trials");
    }
}

/// What a limiter that begins anew every hour lets a server count within 20 minutes.
struct Tumbling {
    peak: usize,
    /// Minutes above the limit.
    over: u64,
    /// Samples that were not sent.
    lost: u64,
}

fn tumbling(base: usize, churn: usize, deploy_at: Option<u64>, hours: u64) -> Tumbling {
    const LIMIT: usize = 10_000;
    let mut state = 3;
    let mut alive: Vec<usize> = (0..base).collect();
    // By series: the window that let it pass, and the minute of its last sample.
    let mut passed: Vec<u64> = vec![u64::MAX; base];
    let mut last: Vec<u64> = vec![u64::MAX; base];
    let mut all = Tumbling { peak: 0, over: 0, lost: 0 };
    let mut used = 0;
    for minute in 0..hours * 60 {
        let window = minute / 60;
        if minute % 60 == 0 {
            used = 0;
        }
        let replaced = if deploy_at == Some(minute) { base } else { 0 };
        for n in 0..replaced + churn {
            let place = if n < replaced { n } else { draw(&mut state, base as u64) as usize };
            alive[place] = passed.len();
            passed.push(u64::MAX);
            last.push(u64::MAX);
        }
        for series in &alive {
            if passed[*series] != window {
                if used == LIMIT {
                    all.lost += 1;
                    continue;
                }
                used += 1;
                passed[*series] = window;
            }
            last[*series] = minute;
        }
        let counts = |last: &&u64| **last != u64::MAX && minute - **last < 20;
        let active = last.iter().filter(counts).count();
        all.peak = all.peak.max(active);
        all.over += u64::from(active > LIMIT);
    }
    all
}

#[test]
fn a_limiter_that_begins_anew_every_hour_passes_the_limit() {
    let churn = tumbling(8_000, 150, None, 6);
    assert!((10_300..10_420).contains(&churn.peak), "{}", churn.peak);
    assert!((43..58).contains(&churn.over), "14 % of 360 minutes: {}", churn.over);
    let more = tumbling(9_000, 100, None, 6);
    assert!((10_500..10_620).contains(&more.peak), "{}", more.peak);
    assert!((85..102).contains(&more.over), "26 % of 360 minutes: {}", more.over);
    // A deploy just before the hour, and just after it.
    let before = tumbling(9_000, 0, Some(58), 2);
    assert_eq!((before.peak, before.over), (18_000, 17));
    let after = tumbling(9_000, 0, Some(61), 2);
    assert_eq!((after.peak, after.over, after.lost), (10_000, 0, 472_000));
}
