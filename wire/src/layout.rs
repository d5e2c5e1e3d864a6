//! Spans and deltas of integer histograms, out of counts by index.

use stint_model::histogram::BucketSpan;

/// Empty buckets between two populated ones that are cheaper written out than jumped over.
const GAP_MAX: i64 = 2;
/// Spans and deltas of counts in order of their indexes, of which the same may come repeatedly.
pub(crate) fn layout(indexed: impl Iterator<Item = (i64, u64)>) -> (Vec<BucketSpan>, Vec<i64>) {
    let mut spans: Vec<BucketSpan> = Vec::new();
    let mut deltas: Vec<i64> = Vec::new();
    let mut before = 0_i64;
    // Index and count of the bucket that is being gathered.
    let mut open: Option<(i64, u64)> = None;
    // The index after the last one that is written.
    let mut next = 0_i64;
    let mut write = |index: i64, count: u64| {
        let gap = index - next;
        match spans.last_mut() {
            Some(span) if gap <= GAP_MAX => {
                for _ in 0..gap {
                    deltas.push(before.wrapping_neg());
                    before = 0;
                }
                span.length += gap as u32 + 1;
            }
            // The first one counts from index 0.
            _ => spans.push(BucketSpan { offset: gap as i32, length: 1 }),
        }
        let count = count as i64;
        deltas.push(count.wrapping_sub(before));
        before = count;
        next = index + 1;
    };
    for (index, count) in indexed {
        open = match open {
            Some((same, so_far)) if same == index => Some((index, so_far.wrapping_add(count))),
            earlier => {
                if let Some((index, count)) = earlier.filter(|(_, count)| *count > 0) {
                    write(index, count);
                }
                Some((index, count))
            }
        };
    }
    if let Some((index, count)) = open.filter(|(_, count)| *count > 0) {
        write(index, count);
    }
    (spans, deltas)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn spans(spans: &[BucketSpan]) -> Vec<(i32, u32)> {
        spans.iter().map(|span| (span.offset, span.length)).collect()
    }

    #[test]
    fn short_gaps_are_filled_and_long_ones_jumped_over() {
        let counts = [(3, 0), (4, 2), (5, 0), (6, 0), (7, 5), (8, 0), (9, 0), (10, 0), (11, 1)];
        let (found, deltas) = layout(counts.into_iter());
        assert_eq!(spans(&found), [(4, 4), (3, 1)]);
        assert_eq!(deltas, [2, -2, 0, 5, -4]);
    }
}
