//! Exemplars: single observations with labels (a trace id) attached to a series.

use crate::labels::Labels;
use crate::time::Timestamp;

/// The most characters (not bytes) that an exemplar's label names and values may have together
/// (`OpenMetrics` 1.0, "Exemplars").
pub const LABELS_CHARS_MAX: usize = 128;

/// One observation behind a series' value.
#[derive(Clone, Debug, PartialEq)]
pub struct Exemplar {
    /// Labels of the observation, usually a trace id.
    pub labels: Labels,
    /// The observed value.
    pub value: f64,
    /// When it was observed; the sample's time where the source gives none.
    pub at: Timestamp,
}
