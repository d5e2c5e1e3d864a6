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
        ledger.advance(now).unwrap();
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
