//! What a metric is: its type, unit and help text.

use std::fmt;

/// The kind of a metric family, by its `OpenMetrics` name.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum MetricType {
    /// Not said by the source.
    #[default]
    Unknown,
    /// Only grows, apart from resets.
    Counter,
    /// Goes up and down.
    Gauge,
    /// Classic or native histogram.
    Histogram,
    /// Histogram of a current state.
    GaugeHistogram,
    /// Quantiles computed by the source.
    Summary,
    /// Constant 1 with informative labels.
    Info,
    /// Set of states.
    StateSet,
}

impl MetricType {
    /// The name used in exposition formats and in the API.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Unknown => "unknown",
            Self::Counter => "counter",
            Self::Gauge => "gauge",
            Self::Histogram => "histogram",
            Self::GaugeHistogram => "gaugehistogram",
            Self::Summary => "summary",
            Self::Info => "info",
            Self::StateSet => "stateset",
        }
    }
}

impl fmt::Display for MetricType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// Metadata of one metric family.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct Metadata {
    /// Its kind.
    pub kind: MetricType,
    /// Its help text; may be empty.
    pub help: String,
    /// Its unit; may be empty.
    pub unit: String,
}
