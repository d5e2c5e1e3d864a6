//! `global`: defaults for scrape jobs, and the labels that leave the house.

use stint_model::labels::NameScheme;
use stint_model::{Labels, Span};

use super::scrape::{Limits, ScrapeProtocol};

/// The `global` section.
#[derive(Clone, Debug, PartialEq)]
pub struct Global {
    /// How often targets are scraped.
    pub scrape_interval: Span,
    /// When a scrape is given up; at most the interval.
    pub scrape_timeout: Span,
    /// Formats asked for, best first; `None` = the default order.
    pub scrape_protocols: Option<Vec<ScrapeProtocol>>,
    /// Distance between rule evaluations, and the default step of subqueries.
    pub evaluation_interval: Span,
    /// Added to what is forwarded or federated; never stored.
    pub external_labels: Labels,
    /// Inherited by scrape jobs.
    pub limits: Limits,
    /// Which names are accepted.
    pub name_scheme: NameScheme,
    /// Whether the `scrape_*` series about limits and sizes are written too.
    pub extra_scrape_metrics: bool,
}

impl Default for Global {
    fn default() -> Self {
        Self {
            scrape_interval: Span::MINUTE,
            scrape_timeout: Span::from_secs(10),
            scrape_protocols: None,
            evaluation_interval: Span::MINUTE,
            external_labels: Labels::default(),
            limits: Limits::default(),
            name_scheme: NameScheme::Utf8,
            extra_scrape_metrics: false,
        }
    }
}
