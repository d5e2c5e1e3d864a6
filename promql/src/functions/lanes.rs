//! Sums, means and variances of several windows at once.
//!
//! Each of these adds up in the order of time, one rounding after the other, so that within a window
//! every addition waits for the one before. Windows do not wait for each other.

use crate::column::Column;
use crate::error::QueryError;
use crate::exec::timeline::Bounds;
use crate::functions::over_time;

/// Which of the functions.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Summary {
    Sum,
    Avg,
    Stddev,
    Stdvar,
}

/// Samples of windows between two questions whether to go on.
const SAMPLES_PER_CHECK: usize = 1 << 16;

/// How many windows are summed up at once.
const LANES: usize = 4;

/// Fills the steps whose windows are not empty.
pub(crate) fn column(
    summary: Summary,
    floats: &[f64],
    windows: &[Bounds],
    out: &mut Column,
    check: &dyn Fn() -> Result<(), QueryError>,
) -> Result<(), QueryError> {
    let (mut at, mut unchecked) = (0, 0);
    while at < windows.len() {
        let (from, to) = windows.get(at).copied().unwrap_or_default();
        unchecked += (to - from) as usize;
        if unchecked > SAMPLES_PER_CHECK {
            unchecked = 0;
            check()?;
        }
        if let Some(lanes) = lanes(floats, windows, at) {
            for (lane, value) in of_lanes(summary, &lanes).into_iter().enumerate() {
                out.set_float(at + lane, value);
            }
            at += LANES;
            continue;
        }
        let window = floats.get(from as usize..to as usize).unwrap_or_default();
        if let Some(value) = of_one(summary, window) {
            out.set_float(at, value);
        }
        at += 1;
    }
    Ok(())
}

/// The samples of the windows from `at` on, if they are equally many.
fn lanes<'f>(floats: &'f [f64], windows: &[Bounds], at: usize) -> Option<[&'f [f64]; LANES]> {
    let windows = windows.get(at..at + LANES)?;
    let mut lanes: [&[f64]; LANES] = [&[]; LANES];
    for (lane, (from, to)) in lanes.iter_mut().zip(windows) {
        *lane = floats.get(*from as usize..*to as usize)?;
    }
    let length = lanes.first()?.len();
    (length > 0 && lanes.iter().all(|lane| lane.len() == length)).then_some(lanes)
}

fn of_one(summary: Summary, window: &[f64]) -> Option<f64> {
    if window.is_empty() {
        return None;
    }
    match summary {
        Summary::Sum => Some(over_time::sum_of(window)),
        Summary::Avg => over_time::mean_of(window),
        Summary::Stddev => Some(over_time::variance(window).sqrt()),
        Summary::Stdvar => Some(over_time::variance(window)),
    }
}

fn of_lanes(summary: Summary, lanes: &[&[f64]; LANES]) -> [f64; LANES] {
    match summary {
        Summary::Sum => sums(lanes),
        Summary::Avg => means(lanes),
        Summary::Stddev => {
            let mut results = variances(lanes);
            for result in &mut results {
                *result = result.sqrt();
            }
            results
        }
        Summary::Stdvar => variances(lanes),
    }
}

// Each step of the arithmetic is a loop over the lanes of its own: the compiler makes one vector
// instruction of it. There are no exceptions inside: a window whose numbers leave the finite ones ends
// with a result that tells so, and is done again by itself.

/// The samples at `index` of each window.
#[inline]
fn row(lanes: &[&[f64]; LANES], index: usize) -> [f64; LANES] {
    let mut row = [0.0; LANES];
    for lane in 0..LANES {
        row[lane] = lanes[lane].get(index).copied().unwrap_or_default();
    }
    row
}

/// The results, those that are not finite replaced by what `alone` makes of their windows.
fn settled(
    lanes: &[&[f64]; LANES],
    mut results: [f64; LANES],
    alone: impl Fn(&[f64]) -> f64,
) -> [f64; LANES] {
    for lane in 0..LANES {
        if !results[lane].is_finite() {
            results[lane] = alone(lanes[lane]);
        }
    }
    results
}

fn sums(lanes: &[&[f64]; LANES]) -> [f64; LANES] {
    let (mut sum, mut lost) = ([0.0; LANES], [0.0; LANES]);
    for index in 0..lanes[0].len() {
        add(&row(lanes, index), &mut sum, &mut lost);
    }
    for lane in 0..LANES {
        sum[lane] += lost[lane];
    }
    settled(lanes, sum, over_time::sum_of)
}

fn means(lanes: &[&[f64]; LANES]) -> [f64; LANES] {
    let count = lanes[0].len() as f64;
    let (mut sum, mut lost) = (row(lanes, 0), [0.0; LANES]);
    for index in 1..lanes[0].len() {
        add(&row(lanes, index), &mut sum, &mut lost);
    }
    for lane in 0..LANES {
        sum[lane] = sum[lane] / count + lost[lane] / count;
    }
    settled(lanes, sum, |window| over_time::mean_of(window).unwrap_or(f64::NAN))
}

fn variances(lanes: &[&[f64]; LANES]) -> [f64; LANES] {
    let (mut mean, mut mean_lost) = ([0.0; LANES], [0.0; LANES]);
    let (mut sum, mut sum_lost) = ([0.0; LANES], [0.0; LANES]);
    let mut count = 0.0;
    for index in 0..lanes[0].len() {
        count += 1.0;
        let values = row(lanes, index);
        let (mut delta, mut part) = ([0.0; LANES], [0.0; LANES]);
        for lane in 0..LANES {
            delta[lane] = values[lane] - (mean[lane] + mean_lost[lane]);
        }
        for lane in 0..LANES {
            part[lane] = delta[lane] / count;
        }
        add(&part, &mut mean, &mut mean_lost);
        for lane in 0..LANES {
            part[lane] = delta[lane] * (values[lane] - (mean[lane] + mean_lost[lane]));
        }
        add(&part, &mut sum, &mut sum_lost);
    }
    for lane in 0..LANES {
        sum[lane] = (sum[lane] + sum_lost[lane]) / count;
    }
    settled(lanes, sum, over_time::variance)
}

/// As [`crate::kahan::add`], of finite sums.
#[inline]
fn add(values: &[f64; LANES], sum: &mut [f64; LANES], lost: &mut [f64; LANES]) {
    let (mut total, mut added, mut error) = ([0.0; LANES], [0.0; LANES], [0.0; LANES]);
    for lane in 0..LANES {
        total[lane] = sum[lane] + values[lane];
    }
    for lane in 0..LANES {
        added[lane] = total[lane] - sum[lane];
    }
    for lane in 0..LANES {
        error[lane] = (sum[lane] - (total[lane] - added[lane])) + (values[lane] - added[lane]);
    }
    for lane in 0..LANES {
        lost[lane] += error[lane];
    }
    *sum = total;
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const ALL: [Summary; 4] = [Summary::Sum, Summary::Avg, Summary::Stddev, Summary::Stdvar];

    fn value() -> impl Strategy<Value = f64> {
        prop_oneof![
            8 => -1e3_f64..1e3,
            1 => Just(f64::MAX),
            1 => Just(-0.0),
            1 => Just(f64::NAN),
            1 => Just(f64::INFINITY),
        ]
    }

    proptest! {
        #[test]
        fn lanes_give_what_each_window_gives(
            floats in proptest::collection::vec(value(), 30..60),
            length in 0_u32..9,
            steps in 1_u32..30,
        ) {
            let windows: Vec<Bounds> = (0..steps).map(|at| (at, (at + length).min(30))).collect();
            for summary in ALL {
                let mut column = Column::new(windows.len());
                super::column(summary, &floats, &windows, &mut column, &|| Ok(())).unwrap();
                for (at, (from, to)) in windows.iter().enumerate() {
                    let window = floats.get(*from as usize..*to as usize).unwrap_or_default();
                    // Which of the bits a NaN has is not defined.
                    let bits = |value: f64| if value.is_nan() { 0 } else { value.to_bits() };
                    let expected = of_one(summary, window).map(bits);
                    prop_assert_eq!(column.float(at).map(bits), expected, "{:?}", summary);
                }
            }
        }
    }
}
