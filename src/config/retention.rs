//! `retention.toml`: what is kept here, and what may be spent elsewhere.

use stint_model::{Selector, Span};

/// What is kept here.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Retention {
    /// How long; zero = without end.
    pub time: Span,
    /// How many bytes of blocks and log at most; 0 = no limit.
    pub size_bytes: u64,
}

impl Default for Retention {
    fn default() -> Self {
        Self { time: Span(7 * Span::DAY.0), size_bytes: 0 }
    }
}

/// What one endpoint may be sent. Without limits (the default) everything is sent as it comes.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Budget {
    /// Most active series that the endpoint may see; `None` = no limit.
    pub series: Option<u64>,
    /// Most samples a minute; `None` = no limit.
    pub points_per_minute: Option<u64>,
    /// One scrape of each target is forwarded per this interval; `None` = every scrape.
    pub interval: Option<Span>,
    /// Part of `series`, from 0 to 1, that only the first class may use.
    pub reserve: f64,
    /// In order of importance; a series belongs to the first class that selects it, and to an
    /// unnamed last one when none does.
    pub classes: Vec<Class>,
}

impl Budget {
    /// Grafana Cloud's free tier: 10 000 series, one sample a minute each.
    pub fn free_tier() -> Self {
        Self {
            series: Some(10_000),
            points_per_minute: Some(10_000),
            interval: Some(Span::MINUTE),
            reserve: 0.05,
            classes: Vec::new(),
        }
    }

    /// Whether anything is limited.
    pub fn is_limited(&self) -> bool {
        self.series.is_some() || self.points_per_minute.is_some()
    }
}

/// Series that are treated alike.
#[derive(Clone, Debug, PartialEq)]
pub struct Class {
    /// Names it in reports; unique.
    pub name: String,
    /// A series belongs to the class when any of these selects it (labels as they are sent).
    pub selectors: Vec<Selector>,
    /// Whether its series are sent at all.
    pub send: bool,
    /// Most series of the class; `None` = only the budget limits it.
    pub series: Option<u64>,
    /// Overrides the budget's interval.
    pub interval: Option<Span>,
}
