//! What goes wrong again and again is told at the first, second, fourth, eighth … time.

/// How often something has failed in a row.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Sparse {
    in_row: u64,
}

impl Sparse {
    /// It failed once more. How often by now, where that is to be told.
    pub(super) fn failed(&mut self) -> Option<u64> {
        self.in_row = self.in_row.saturating_add(1);
        self.in_row.is_power_of_two().then_some(self.in_row)
    }

    /// It worked. How often it had failed until then; nothing where it had not.
    pub(super) fn worked(&mut self) -> Option<u64> {
        match std::mem::take(&mut self.in_row) {
            0 => None,
            failed => Some(failed),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_lasts_is_told_more_and_more_seldom_and_its_end_once() {
        let mut sparse = Sparse::default();
        let told: Vec<u64> = (0..100).filter_map(|_| sparse.failed()).collect();
        assert_eq!(told, [1, 2, 4, 8, 16, 32, 64]);
        assert_eq!((sparse.worked(), sparse.worked()), (Some(100), None));
        assert_eq!(sparse.failed(), Some(1));
    }
}
