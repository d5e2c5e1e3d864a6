//! `storage` and `otlp`: how what arrives is kept.

use stint_model::Span;

/// The `storage` section.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Storage {
    /// How far behind a series' newest sample one may arrive and still be stored.
    pub out_of_order_time_window: Span,
    /// How many exemplars are kept; 0 = none.
    pub max_exemplars: u64,
}

impl Default for Storage {
    fn default() -> Self {
        Self { out_of_order_time_window: Span::ZERO, max_exemplars: 100_000 }
    }
}

/// The `otlp` section.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Otlp {
    /// Resource attributes that become labels of every series.
    pub promote_resource_attributes: Vec<String>,
    /// Whether all resource attributes do.
    pub promote_all_resource_attributes: bool,
    /// Those that do not, when all others do.
    pub ignore_resource_attributes: Vec<String>,
    /// How names are made.
    pub translation_strategy: Translation,
    /// Whether `service.*` stay labels of `target_info`.
    pub keep_identifying_resource_attributes: bool,
    /// Whether explicit-bucket histograms become native histograms with custom buckets.
    pub convert_histograms_to_nhcb: bool,
    /// Whether the scope's name, version and attributes become labels.
    pub promote_scope_metadata: bool,
    /// Whether a label name that starts with an underscore is prefixed with `key`.
    pub label_name_underscore_sanitization: bool,
    /// Whether runs of underscores in label names stay.
    pub label_name_preserve_multiple_underscores: bool,
}

impl Default for Otlp {
    fn default() -> Self {
        Self {
            promote_resource_attributes: Vec::new(),
            promote_all_resource_attributes: false,
            ignore_resource_attributes: Vec::new(),
            translation_strategy: Translation::default(),
            keep_identifying_resource_attributes: false,
            convert_histograms_to_nhcb: false,
            promote_scope_metadata: false,
            label_name_underscore_sanitization: true,
            label_name_preserve_multiple_underscores: true,
        }
    }
}

/// How OTLP names become metric and label names.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Translation {
    /// `UnderscoreEscapingWithSuffixes`
    #[default]
    UnderscoresAndSuffixes,
    /// `NoUTF8EscapingWithSuffixes`
    Suffixes,
    /// `UnderscoreEscapingWithoutSuffixes`
    Underscores,
    /// `NoTranslation`
    None,
}
