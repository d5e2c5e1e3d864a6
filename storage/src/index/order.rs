//! Putting series and texts in order without comparing texts more often than needed.

use std::cmp::Ordering;

/// Rows of numbers, each row a label set: name and value of each label by their places in order.
/// Rows compare as the label sets do.
#[derive(Debug, Default)]
pub(crate) struct Rows {
    numbers: Vec<u32>,
    ends: Vec<usize>,
}

/// Bits of a packed row; below them lies its place before sorting.
const PACKED_BITS: u32 = 96;

impl Rows {
    /// Adds a row.
    pub(crate) fn push(&mut self, numbers: impl IntoIterator<Item = u32>) {
        self.numbers.extend(numbers);
        self.ends.push(self.numbers.len());
    }

    fn row(&self, at: usize) -> &[u32] {
        let start = at.checked_sub(1).and_then(|before| self.ends.get(before)).copied();
        let end = self.ends.get(at).copied().unwrap_or_default();
        self.numbers.get(start.unwrap_or_default()..end).unwrap_or_default()
    }

    /// The places of the rows as they are, in order of the rows.
    pub(crate) fn order(&self) -> Vec<u32> {
        let count = u32::try_from(self.ends.len()).unwrap_or(u32::MAX);
        if let Some(mut packed) = self.packed() {
            packed.sort_unstable();
            return packed.into_iter().map(|key| key as u32).collect();
        }
        let mut order: Vec<u32> = (0..count).collect();
        order.sort_by(|a, b| self.row(*a as usize).cmp(self.row(*b as usize)));
        order
    }

    /// Each row as one number that sorts as the row does, its place in the lowest bits; `None` where
    /// that takes too many bits.
    fn packed(&self) -> Option<Vec<u128>> {
        let mut bounds: Vec<(u32, u32)> = Vec::new();
        let mut shortest = usize::MAX;
        for at in 0..self.ends.len() {
            let row = self.row(at);
            shortest = shortest.min(row.len());
            for (place, number) in row.iter().enumerate() {
                match bounds.get_mut(place) {
                    Some((low, high)) => {
                        (*low, *high) = ((*low).min(*number), (*high).max(*number));
                    }
                    None => bounds.push((*number, *number)),
                }
            }
        }
        // Where a row has ended is nothing, which comes first.
        let columns: Vec<(u32, u32, u32)> = bounds
            .iter()
            .enumerate()
            .map(|(place, (low, high))| {
                let nothing = u32::from(place >= shortest);
                let span = u64::from(high - low) + u64::from(nothing);
                (*low, nothing, u64::BITS - span.leading_zeros())
            })
            .collect();
        if columns.iter().map(|(.., bits)| bits).sum::<u32>() > PACKED_BITS {
            return None;
        }
        let packed = (0..self.ends.len()).map(|at| {
            let row = self.row(at);
            let key =
                columns.iter().enumerate().fold(0_u128, |key, (place, (low, nothing, bits))| {
                    let number = row.get(place);
                    let number =
                        number.map_or(0, |number| u64::from(number - low) + u64::from(*nothing));
                    key << bits | u128::from(number)
                });
            key << u32::BITS | at as u128
        });
        Some(packed.collect())
    }
}

/// The places of texts in order of the texts, which are looked at through `text`.
pub(crate) fn order_of_texts<'a>(count: u32, text: impl Fn(u32) -> &'a str) -> Vec<u32> {
    let shared = shared_prefix(count, &text);
    let mut keyed: Vec<(u64, u32)> =
        (0..count).map(|at| (key(text(at).as_bytes().get(shared..)), at)).collect();
    keyed.sort_unstable_by(|a, b| match a.0.cmp(&b.0) {
        Ordering::Equal => text(a.1).cmp(text(b.1)),
        other => other,
    });
    keyed.into_iter().map(|(_, at)| at).collect()
}

/// The texts in order.
pub(crate) fn sorted(mut texts: Vec<String>) -> Vec<String> {
    let count = u32::try_from(texts.len()).unwrap_or(u32::MAX);
    let get = |at: u32| texts.get(at as usize).map(String::as_str).unwrap_or_default();
    let order = order_of_texts(count, get);
    let take = |at: u32| texts.get_mut(at as usize).map(std::mem::take).unwrap_or_default();
    order.into_iter().map(take).collect()
}

/// Bytes that all texts begin with.
fn shared_prefix<'a>(count: u32, text: &impl Fn(u32) -> &'a str) -> usize {
    if count == 0 {
        return 0;
    }
    let first = text(0).as_bytes();
    let mut shared = first.len();
    for at in 1..count {
        let other = text(at).as_bytes();
        let same = first.get(..shared).is_some_and(|prefix| other.starts_with(prefix));
        if !same {
            shared = first.iter().zip(other).take_while(|(a, b)| a == b).count().min(shared);
        }
    }
    shared
}

/// The first eight bytes, as a number that compares as they do.
fn key(rest: Option<&[u8]>) -> u64 {
    let rest = rest.unwrap_or_default();
    if let Some(bytes) = rest.first_chunk::<8>() {
        return u64::from_be_bytes(*bytes);
    }
    let mut bytes = [0; 8];
    for (place, byte) in bytes.iter_mut().zip(rest) {
        *place = *byte;
    }
    u64::from_be_bytes(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn rows_sort_as_lists_do(
            rows in prop::collection::vec(
                prop::collection::vec(prop_oneof![0..4_u32, any::<u32>()], 0..6), 0..40),
        ) {
            let mut packed = Rows::default();
            for row in &rows {
                packed.push(row.iter().copied());
            }
            let order = packed.order();
            let sorted: Vec<_> = order.iter().map(|at| &rows[*at as usize]).collect();
            let mut want: Vec<_> = rows.iter().collect();
            want.sort();
            prop_assert_eq!(sorted, want);
            let mut places = order;
            places.sort_unstable();
            prop_assert_eq!(places, (0..rows.len() as u32).collect::<Vec<_>>());
        }

        #[test]
        fn small_rows_are_packed(
            rows in prop::collection::vec(prop::collection::vec(7..20_u32, 0..9), 0..40),
        ) {
            let mut packed = Rows::default();
            for row in &rows {
                packed.push(row.iter().copied());
            }
            let mut keys = packed.packed().unwrap();
            keys.sort_unstable();
            let sorted: Vec<_> = keys.iter().map(|key| &rows[*key as u32 as usize]).collect();
            let mut want: Vec<_> = rows.iter().collect();
            want.sort();
            prop_assert_eq!(sorted, want);
        }

        #[test]
        fn texts_are_sorted(texts in prop::collection::vec("(ab|ab\0)?[ab\0ü]{0,12}", 0..40)) {
            let mut want = texts.clone();
            want.sort();
            prop_assert_eq!(sorted(texts), want);
        }
    }
}
