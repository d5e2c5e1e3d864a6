//! Which shortcuts the engine takes.

/// Shortcuts that change what a query costs and nothing of its answer. Each can be left out, to find
/// out which one is to blame for a wrong answer, and to test that none is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rewrites {
    /// Range functions over plain floats work on whole columns: windows are found once for all series
    /// that were sampled at the same times, and several windows are summed up at once.
    pub columnar_windows: bool,
    /// Metric names that an aggregation does not look at are not taken off its input.
    pub unseen_names: bool,
    /// Of series that are aggregated, only the labels by which they are grouped are read, where their
    /// names are not looked at either.
    pub group_keys: bool,
    /// Series that are aggregated are read in the order in which they are stored.
    pub any_order: bool,
    /// What stands on several sides of operators is evaluated once.
    pub common_parts: bool,
    /// What one side of an operator asks of labels by which series find each other is asked of the other
    /// side too, where what is not read then shows nowhere.
    pub pushed_matchers: bool,
    /// Operators between vectors work on whole columns.
    pub column_joins: bool,
    /// Sums and their like take whole columns at once.
    pub column_folds: bool,
    /// What has the same value at every step is evaluated once.
    pub step_invariant: bool,
    /// Threads that whoever runs the engine lends it make series beside each other.
    pub workers: bool,
}

impl Rewrites {
    /// Every shortcut.
    pub const ALL: Self = Self {
        columnar_windows: true,
        unseen_names: true,
        group_keys: true,
        any_order: true,
        common_parts: true,
        pushed_matchers: true,
        column_joins: true,
        column_folds: true,
        step_invariant: true,
        workers: true,
    };
    /// None.
    pub const NONE: Self = Self {
        columnar_windows: false,
        unseen_names: false,
        group_keys: false,
        any_order: false,
        common_parts: false,
        pushed_matchers: false,
        column_joins: false,
        column_folds: false,
        step_invariant: false,
        workers: false,
    };
}

impl Default for Rewrites {
    /// Every shortcut.
    fn default() -> Self {
        Self::ALL
    }
}
