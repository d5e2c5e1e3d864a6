//! Functions that need the floats of a window and nothing else, at all steps at once.

use crate::column::Column;
use crate::error::QueryError;
use crate::exec::timeline::Bounds;

/// Which of the functions.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Fold {
    Changes,
    Count,
    First,
    Last,
    Max,
    Min,
    Present,
    Resets,
}

/// Samples of windows between two questions whether to go on.
const SAMPLES_PER_CHECK: usize = 1 << 18;

/// Fills the steps whose windows are not empty.
pub(crate) fn column(
    fold: Fold,
    floats: &[f64],
    windows: &[Bounds],
    out: &mut Column,
    check: &dyn Fn() -> Result<(), QueryError>,
) -> Result<(), QueryError> {
    let pairs = match fold {
        Fold::Changes => counts(floats, |a, b| a != b && !(a.is_nan() && b.is_nan())),
        Fold::Resets => counts(floats, |a, b| b < a),
        _ => Vec::new(),
    };
    let mut unchecked = 0;
    for (at, (from, to)) in windows.iter().enumerate() {
        let window = floats.get(*from as usize..*to as usize).unwrap_or_default();
        let ([first, rest @ ..], Some(last)) = (window, window.last()) else { continue };
        let value = match fold {
            Fold::Count => window.len() as f64,
            Fold::Present => 1.0,
            Fold::First => *first,
            Fold::Last => *last,
            Fold::Changes | Fold::Resets => {
                let until = |end: u32| pairs.get(end as usize).copied().unwrap_or_default();
                f64::from(until(to - 1) - until(*from))
            }
            Fold::Max | Fold::Min => {
                unchecked += window.len();
                if unchecked > SAMPLES_PER_CHECK {
                    unchecked = 0;
                    check()?;
                }
                if fold == Fold::Max {
                    rest.iter().fold(*first, |a, b| if *b > a || a.is_nan() { *b } else { a })
                } else {
                    rest.iter().fold(*first, |a, b| if *b < a || a.is_nan() { *b } else { a })
                }
            }
        };
        out.set_float(at, value);
    }
    Ok(())
}

/// For each float, how many of it and those before differ as wanted from the one before them.
fn counts(floats: &[f64], differs: impl Fn(f64, f64) -> bool) -> Vec<u32> {
    let mut count = 0;
    let mut before = None;
    let counted = floats.iter().map(|value| {
        count += u32::from(before.is_some_and(|before| differs(before, *value)));
        before = Some(*value);
        count
    });
    counted.collect()
}
