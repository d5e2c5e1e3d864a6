//! `storage` and `otlp`: how what arrives is kept.

use stint_model::Span;
use stint_model::labels::NameScheme;

use super::decode::{Section, is_off};
use super::global::{Environment, expand};
use super::node::{Kind, Node};
use super::retention::Retention;

/// The `storage` section.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Storage {
    /// `tsdb.retention`: how long and how many bytes, 0 for no limit; over the command line's
    /// and over `retention.toml`.
    pub retention: Option<Retention>,
    /// How far behind a series' newest sample one may arrive and still be stored; where the file
    /// says nothing, each source has its own default.
    pub out_of_order_time_window: Option<Span>,
    /// How many exemplars are kept; 0 = none.
    pub max_exemplars: u64,
}

impl Default for Storage {
    fn default() -> Self {
        Self { retention: None, out_of_order_time_window: None, max_exemplars: 100_000 }
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
    /// Attributes that every resource gets, over its own of the same name (`retention.toml`).
    pub resource_attributes: Vec<(String, String)>,
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
            resource_attributes: Vec::new(),
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

impl Storage {
    pub(super) fn read(mut section: Section<'_>) -> Self {
        let mut storage = Self::default();
        if let Some(mut tsdb) = section.section("tsdb") {
            storage.out_of_order_time_window = tsdb.span("out_of_order_time_window");
            if let Some(mut retention) = tsdb.section("retention") {
                storage.retention = Some(Retention {
                    time: retention.span("time").unwrap_or_default(),
                    size_bytes: retention.bytes("size").unwrap_or_default(),
                });
                retention.unsupported("percentage", is_off, "use `size`");
                retention.finish();
            }
            let hint = "remove it";
            tsdb.unsupported("stale_series_compaction_threshold", is_off, hint);
            if let Some(mut encoding) = tsdb.section("chunk_encoding") {
                encoding.unsupported("floats", |node| is_off(node) || is_text(node, "xor"), hint);
                encoding.finish();
            }
            tsdb.finish();
        }
        if let Some(mut exemplars) = section.section("exemplars") {
            // A negative number disables them, as zero does.
            let number = exemplars.parsed("max_exemplars", |text| {
                text.parse::<i64>().map_err(|_| format!("{text} is not a whole number"))
            });
            if let Some(number) = number {
                storage.max_exemplars = u64::try_from(number).unwrap_or_default();
            }
            exemplars.finish();
        }
        section.finish();
        storage
    }
}

fn is_text(node: &Node, text: &str) -> bool {
    matches!(&node.kind, Kind::Scalar(found) if found == text)
}

impl Otlp {
    pub(super) fn read(mut section: Section<'_>, scheme: NameScheme) -> Self {
        let default = Self::default();
        let otlp = Self {
            promote_resource_attributes: attributes(&mut section, "promote_resource_attributes"),
            promote_all_resource_attributes: section
                .bool_or("promote_all_resource_attributes", false),
            ignore_resource_attributes: attributes(&mut section, "ignore_resource_attributes"),
            translation_strategy: section
                .parsed("translation_strategy", Translation::read)
                .unwrap_or_default(),
            keep_identifying_resource_attributes: section
                .bool_or("keep_identifying_resource_attributes", false),
            convert_histograms_to_nhcb: section.bool_or("convert_histograms_to_nhcb", false),
            promote_scope_metadata: section.bool_or("promote_scope_metadata", false),
            label_name_underscore_sanitization: section.bool_or(
                "label_name_underscore_sanitization",
                default.label_name_underscore_sanitization,
            ),
            label_name_preserve_multiple_underscores: section.bool_or(
                "label_name_preserve_multiple_underscores",
                default.label_name_preserve_multiple_underscores,
            ),
            resource_attributes: Vec::new(),
        };
        let all = otlp.promote_all_resource_attributes;
        if all && !otlp.promote_resource_attributes.is_empty() {
            section.error(
                "promote_all_resource_attributes",
                "'promote_all_resource_attributes' and 'promote_resource_attributes' cannot be \
                 configured simultaneously",
            );
        }
        if !all && !otlp.ignore_resource_attributes.is_empty() {
            section.error(
                "ignore_resource_attributes",
                "'ignore_resource_attributes' is only used with 'promote_all_resource_attributes'",
            );
        }
        let utf8 = matches!(otlp.translation_strategy, Translation::Suffixes | Translation::None);
        if utf8 && scheme == NameScheme::Legacy {
            section.error(
                "translation_strategy",
                "this OTLP translation strategy is not allowed when UTF8 is disabled",
            );
        }
        section.finish();
        otlp
    }
}

/// `otlp.resource_attributes` of `retention.toml`: `${NAME}` stands for a variable of the
/// environment. An attribute whose variable is not set is left out, with a warning.
pub(super) fn resource_attributes(
    mut section: Section<'_>,
    environment: Environment<'_>,
) -> Vec<(String, String)> {
    let mut attributes = Vec::new();
    for (key, value) in section.pairs("resource_attributes") {
        let mut unset = None;
        let value = expand(value, &mut |name| {
            environment(name).filter(|value| !value.is_empty()).unwrap_or_else(|| {
                unset = Some(name.to_owned());
                String::new()
            })
        });
        match unset {
            None => attributes.push((key.text.clone(), value)),
            Some(name) => {
                let attribute = &key.text;
                let message = format!(
                    "resource attribute `{attribute}` is left out: the environment variable \
                     `{name}` is not set"
                );
                section.cx.warn(key.at, message);
            }
        }
    }
    section.finish();
    attributes
}

/// A list of attribute names: trimmed, never empty, each once.
fn attributes(section: &mut Section<'_>, key: &'static str) -> Vec<String> {
    let mut names: Vec<String> = Vec::new();
    for (at, name) in section.texts(key) {
        let name = name.trim();
        if name.is_empty() {
            section.cx.error(at, format!("empty name in `{}`", section.name_of(key)));
        } else if names.iter().any(|present| present == name) {
            section.cx.error(at, format!("duplicated name in `{}`: {name}", section.name_of(key)));
        } else {
            names.push(name.to_owned());
        }
    }
    names
}

impl Translation {
    fn read(text: &str) -> Result<Self, String> {
        match text {
            "" | "UnderscoreEscapingWithSuffixes" => Ok(Self::UnderscoresAndSuffixes),
            "NoUTF8EscapingWithSuffixes" => Ok(Self::Suffixes),
            "UnderscoreEscapingWithoutSuffixes" => Ok(Self::Underscores),
            "NoTranslation" => Ok(Self::None),
            _ => Err(format!("unsupported OTLP translation strategy {text}")),
        }
    }
}
