//! Whether a counter histogram was reset between two samples.

use super::arith::common_bounds;
use super::bounds::exponential_bound;
use super::{FloatHistogram, ResetHint};

impl FloatHistogram {
    /// Whether the counter was reset between `before` and this histogram: by the hint where it
    /// says so, else because something shrank that can only grow. The sum does not matter.
    pub fn is_reset_after(&self, before: &Self) -> bool {
        match self.reset_hint {
            ResetHint::Reset => return true,
            ResetHint::NotReset => return false,
            ResetHint::Unknown | ResetHint::Gauge => {}
        }
        if self.count < before.count || self.is_custom() != before.is_custom() {
            return true;
        }
        if self.is_custom() {
            return self.is_custom_reset_after(before);
        }
        if self.schema > before.schema || self.zero_threshold < before.zero_threshold {
            return true;
        }
        let (zero_count, threshold) = before.zero_count_at(self.zero_threshold);
        if threshold != self.zero_threshold || self.zero_count < zero_count {
            return true;
        }
        let mut before = before.clone();
        before.reduce_resolution(self.schema);
        let outside = |flat: Vec<(i32, f64)>| -> Vec<(i32, f64)> {
            flat.into_iter()
                .filter(|(index, _)| exponential_bound(*index, self.schema) > self.zero_threshold)
                .collect()
        };
        shrank(&outside(self.positive_indexed()), &outside(before.positive_indexed()))
            || shrank(&outside(self.negative_indexed()), &outside(before.negative_indexed()))
    }

    fn is_custom_reset_after(&self, before: &Self) -> bool {
        if self.custom_bounds == before.custom_bounds {
            return shrank(&self.positive_indexed(), &before.positive_indexed());
        }
        let common = common_bounds(&self.custom_bounds, &before.custom_bounds);
        let (mut now, mut before) = (self.clone(), before.clone());
        now.rebucket(&common);
        before.rebucket(&common);
        shrank(&now.positive_indexed(), &before.positive_indexed())
    }
}

/// Whether any bucket of `before` holds less now; both in order of index.
fn shrank(now: &[(i32, f64)], before: &[(i32, f64)]) -> bool {
    let mut now = now.iter().peekable();
    before.iter().any(|(index, count)| {
        while now.peek().is_some_and(|(at, _)| at < index) {
            now.next();
        }
        let present = now.peek().filter(|(at, _)| at == index).map_or(0.0, |(_, count)| *count);
        present < *count
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::histogram::BucketSpan;

    fn histogram(counts: &[f64]) -> FloatHistogram {
        FloatHistogram {
            count: counts.iter().sum(),
            positive_spans: vec![BucketSpan { offset: 0, length: counts.len() as u32 }],
            positive_buckets: counts.to_vec(),
            ..FloatHistogram::default()
        }
    }

    #[test]
    fn shrinking_buckets_are_resets() {
        let before = histogram(&[1.0, 2.0]);
        assert!(!histogram(&[1.0, 2.0]).is_reset_after(&before));
        assert!(!histogram(&[1.0, 3.0, 9.0]).is_reset_after(&before));
        assert!(histogram(&[0.0, 9.0]).is_reset_after(&before));
        assert!(histogram(&[9.0]).is_reset_after(&before));
        assert!(histogram(&[1.0]).is_reset_after(&before));
    }

    #[test]
    fn a_hint_decides() {
        let before = histogram(&[5.0]);
        let now = FloatHistogram { reset_hint: ResetHint::NotReset, ..histogram(&[1.0]) };
        assert!(!now.is_reset_after(&before));
        let now = FloatHistogram { reset_hint: ResetHint::Reset, ..histogram(&[9.0]) };
        assert!(now.is_reset_after(&before));
    }
}
