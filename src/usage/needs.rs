//! Sets of label names that may be all but a few.

use std::collections::BTreeSet;

/// The labels of a series that matter to somebody.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Needs {
    /// These.
    Only(BTreeSet<String>),
    /// All but these.
    AllBut(BTreeSet<String>),
}

impl Needs {
    /// No label matters.
    pub fn none() -> Self {
        Self::Only(BTreeSet::new())
    }

    /// Every label matters.
    pub fn all() -> Self {
        Self::AllBut(BTreeSet::new())
    }

    /// These matter.
    pub fn only(labels: &[String]) -> Self {
        Self::Only(labels.iter().cloned().collect())
    }

    /// All but these matter.
    pub fn all_but(labels: &[String]) -> Self {
        Self::AllBut(labels.iter().cloned().collect())
    }

    /// Whether the label matters.
    pub fn contains(&self, label: &str) -> bool {
        match self {
            Self::Only(labels) => labels.contains(label),
            Self::AllBut(labels) => !labels.contains(label),
        }
    }

    /// Whether every label matters that is not named.
    pub fn is_open(&self) -> bool {
        matches!(self, Self::AllBut(_))
    }

    /// What matters to either.
    #[must_use]
    pub fn or(&self, other: &Self) -> Self {
        match (self, other) {
            (Self::Only(a), Self::Only(b)) => Self::Only(a | b),
            (Self::AllBut(a), Self::AllBut(b)) => Self::AllBut(a & b),
            (Self::Only(some), Self::AllBut(not)) | (Self::AllBut(not), Self::Only(some)) => {
                Self::AllBut(not - some)
            }
        }
    }

    /// These, and one more.
    #[must_use]
    pub fn with(mut self, label: &str) -> Self {
        match &mut self {
            Self::Only(labels) => {
                labels.insert(label.to_owned());
            }
            Self::AllBut(labels) => {
                labels.remove(label);
            }
        }
        self
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn needs() -> impl Strategy<Value = Needs> {
        let labels = proptest::collection::btree_set("[a-d]", 0..4);
        (labels, any::<bool>()).prop_map(|(labels, open)| {
            if open { Needs::AllBut(labels) } else { Needs::Only(labels) }
        })
    }

    proptest! {
        #[test]
        fn a_union_contains_what_either_contains(a in needs(), b in needs(), label in "[a-e]") {
            prop_assert_eq!(a.or(&b).contains(&label), a.contains(&label) || b.contains(&label));
            prop_assert!(a.with(&label).contains(&label));
        }
    }
}
