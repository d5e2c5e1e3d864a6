//! Label sets: immutable, sorted by name, one allocation each.

use std::cmp::Ordering;
use std::fmt;
use std::sync::Arc;

pub use self::builder::LabelsBuilder;

mod builder;

/// The label that holds the metric name.
pub const METRIC_NAME: &str = "__name__";
/// The label that says which scrape job a series belongs to.
pub const JOB: &str = "job";
/// The label that says which target of a job a series belongs to.
pub const INSTANCE: &str = "instance";
/// The label of a classic histogram's bucket bound.
pub const BUCKET_BOUND: &str = "le";
/// The label of a summary's quantile.
pub const QUANTILE: &str = "quantile";

/// A cheap handle to a series of one store. It may become unknown at any time (the series was
/// garbage-collected, the store reopened); the caller then sends the labels again.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SeriesRef(pub u64);

/// A set of labels, sorted by name, names unique, no empty values.
///
/// Cloning shares the one allocation. Equality and [`Labels::stable_hash`] cover names and values.
///
/// Inside, each string is preceded by its length in base 64, least digit first, digits below 64
/// ending the number; so the whole stays ASCII where it is not label text, and is one `str`.
#[derive(Clone, PartialEq, Eq, Hash)]
pub struct Labels(Arc<str>);

impl Default for Labels {
    fn default() -> Self {
        Self(Arc::from(""))
    }
}

impl Labels {
    /// The label set of `pairs`, sorted; empty values are dropped, the last of equal names wins.
    pub fn from_pairs<N: AsRef<str>, V: AsRef<str>>(
        pairs: impl IntoIterator<Item = (N, V)>,
    ) -> Self {
        let mut builder = LabelsBuilder::default();
        for (name, value) in pairs {
            builder.set(name.as_ref(), value.as_ref());
        }
        builder.build()
    }

    /// The label set of pairs that are already sorted by name, without duplicates and without
    /// empty values. This is the fast path of decoders; `None` when the order does not hold.
    pub fn from_sorted<'a>(pairs: impl IntoIterator<Item = (&'a str, &'a str)>) -> Option<Self> {
        // Most label sets fit, so that it does not grow in steps.
        let mut text = String::with_capacity(256);
        let mut last: Option<&str> = None;
        for (name, value) in pairs {
            if value.is_empty() || last.is_some_and(|last| last >= name) {
                return None;
            }
            push_string(&mut text, name);
            push_string(&mut text, value);
            last = Some(name);
        }
        Some(Self(Arc::from(text)))
    }

    /// The value of `name`, if it is there.
    pub fn get(&self, name: &str) -> Option<&str> {
        for (candidate, value) in self {
            match candidate.cmp(name) {
                Ordering::Less => {}
                Ordering::Equal => return Some(value),
                Ordering::Greater => return None,
            }
        }
        None
    }

    /// The metric name, if there is one.
    pub fn metric_name(&self) -> Option<&str> {
        self.get(METRIC_NAME)
    }

    /// Name and value of each label, in order of names.
    pub fn iter(&self) -> LabelsIter<'_> {
        LabelsIter { rest: &self.0 }
    }

    /// How many labels there are.
    pub fn len(&self) -> usize {
        self.iter().count()
    }

    /// Whether there are no labels.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Bytes of the one allocation, without the reference counts.
    pub fn size_bytes(&self) -> usize {
        self.0.len()
    }

    /// A hash that is the same on every machine and in every version: XXH3 over the encoded set.
    pub fn stable_hash(&self) -> u64 {
        xxhash_rust::xxh3::xxh3_64(self.0.as_bytes())
    }

    /// As [`Labels::stable_hash`], with 128 bits: an identity where a collision must not happen.
    pub fn stable_hash_128(&self) -> u128 {
        xxhash_rust::xxh3::xxh3_128(self.0.as_bytes())
    }

    /// Only the labels for which `keep` holds.
    #[must_use]
    pub fn retain(&self, keep: impl FnMut(&str) -> bool) -> Self {
        let mut text = String::with_capacity(self.0.len());
        self.encode_retained(keep, &mut text);
        if text.len() == self.0.len() { self.clone() } else { Self(Arc::from(text)) }
    }

    /// Appends to `text` what [`Labels::encoded`] of the labels for which `keep` holds is: to look up
    /// whether such a set is known without making it.
    pub fn encode_retained(&self, mut keep: impl FnMut(&str) -> bool, text: &mut String) {
        for (name, value) in self {
            if keep(name) {
                encode_label(name, value, text);
            }
        }
    }

    /// All names and values in one text, equal for equal sets only. Its form is not meant to be kept.
    pub fn encoded(&self) -> &str {
        &self.0
    }

    /// Without the metric name.
    #[must_use]
    pub fn without_metric_name(&self) -> Self {
        self.retain(|name| name != METRIC_NAME)
    }
}

/// Appends a label as [`Labels::encoded`] has it. What stands in the order of names and without empty
/// values is the encoded text of a set.
pub fn encode_label(name: &str, value: &str, text: &mut String) {
    push_string(text, name);
    push_string(text, value);
}

fn push_string(text: &mut String, value: &str) {
    let mut length = value.len();
    while length >= 64 {
        text.push(char::from(64 + (length % 64) as u8));
        length /= 64;
    }
    text.push(char::from(length as u8));
    text.push_str(value);
}

fn take_string(rest: &str) -> Option<(&str, &str)> {
    let mut length = 0;
    let mut shift = 0;
    for (at, byte) in rest.bytes().enumerate() {
        length |= usize::from(byte & 63) << shift;
        shift += 6;
        if byte < 64 {
            return rest.get(at + 1..)?.split_at_checked(length);
        }
    }
    None
}

/// Iterates the labels of a set in order of names.
#[derive(Clone, Debug)]
pub struct LabelsIter<'a> {
    rest: &'a str,
}

impl<'a> Iterator for LabelsIter<'a> {
    type Item = (&'a str, &'a str);

    fn next(&mut self) -> Option<Self::Item> {
        let (name, rest) = take_string(self.rest)?;
        let (value, rest) = take_string(rest)?;
        self.rest = rest;
        Some((name, value))
    }
}

impl<'a> IntoIterator for &'a Labels {
    type Item = (&'a str, &'a str);
    type IntoIter = LabelsIter<'a>;
    fn into_iter(self) -> LabelsIter<'a> {
        self.iter()
    }
}

impl PartialOrd for Labels {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Labels {
    /// By the first differing label: its name, then its value; a prefix comes first.
    fn cmp(&self, other: &Self) -> Ordering {
        let (mut own, mut others) = (self.iter(), other.iter());
        loop {
            // Pairs that are equal are equal as encoded, so those of the other side are not decoded.
            let before = own.rest;
            let Some(pair) = own.next() else {
                return if others.rest.is_empty() { Ordering::Equal } else { Ordering::Less };
            };
            let encoded = before.get(..before.len() - own.rest.len()).unwrap_or_default();
            match others.rest.strip_prefix(encoded) {
                Some(rest) => others.rest = rest,
                None => return others.next().map_or(Ordering::Greater, |other| pair.cmp(&other)),
            }
        }
    }
}

impl fmt::Display for Labels {
    /// As Prometheus prints a series' labels: `{__name__="up", job="node"}`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("{")?;
        for (at, (name, value)) in self.iter().enumerate() {
            if at > 0 {
                f.write_str(", ")?;
            }
            if is_legacy_label_name(name) {
                write!(f, "{name}={}", Quoted(value))?;
            } else {
                write!(f, "{}={}", Quoted(name), Quoted(value))?;
            }
        }
        f.write_str("}")
    }
}

impl fmt::Debug for Labels {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// A string printed in double quotes with backslash escapes for quotes, backslashes and control
/// characters, as Go's `strconv.Quote` does for the characters that occur in labels.
#[derive(Clone, Copy, Debug)]
pub struct Quoted<'a>(pub &'a str);

impl fmt::Display for Quoted<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        use fmt::Write as _;
        f.write_char('"')?;
        for c in self.0.chars() {
            match c {
                '"' => f.write_str("\\\"")?,
                '\\' => f.write_str("\\\\")?,
                '\n' => f.write_str("\\n")?,
                '\r' => f.write_str("\\r")?,
                '\t' => f.write_str("\\t")?,
                '\u{7}' => f.write_str("\\a")?,
                '\u{8}' => f.write_str("\\b")?,
                '\u{b}' => f.write_str("\\v")?,
                '\u{c}' => f.write_str("\\f")?,
                c if (c as u32) < 0x20 || c == '\u{7f}' => write!(f, "\\x{:02x}", c as u32)?,
                c => f.write_char(c)?,
            }
        }
        f.write_char('"')
    }
}

/// Whether `name` matches `[a-zA-Z_][a-zA-Z0-9_]*`, the label names that need no quoting.
pub fn is_legacy_label_name(name: &str) -> bool {
    let mut bytes = name.bytes();
    bytes.next().is_some_and(|first| first.is_ascii_alphabetic() || first == b'_')
        && bytes.all(|b| b.is_ascii_alphanumeric() || b == b'_')
}

/// Whether `name` matches `[a-zA-Z_:][a-zA-Z0-9_:]*`, the metric names that need no quoting.
pub fn is_legacy_metric_name(name: &str) -> bool {
    let mut bytes = name.bytes();
    bytes.next().is_some_and(|first| first.is_ascii_alphabetic() || first == b'_' || first == b':')
        && bytes.all(|b| b.is_ascii_alphanumeric() || b == b'_' || b == b':')
}

/// Which names metrics and labels may have.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum NameScheme {
    /// Any text that is not empty.
    #[default]
    Utf8,
    /// The ASCII names that need no quoting.
    Legacy,
}

impl NameScheme {
    /// Whether a label may be named `name`.
    pub fn is_label_name(self, name: &str) -> bool {
        match self {
            Self::Utf8 => !name.is_empty(),
            Self::Legacy => is_legacy_label_name(name),
        }
    }

    /// Whether a metric may be named `name`.
    pub fn is_metric_name(self, name: &str) -> bool {
        match self {
            Self::Utf8 => !name.is_empty(),
            Self::Legacy => is_legacy_metric_name(name),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use proptest::prelude::*;

    use super::*;

    #[test]
    fn labels_are_sorted_and_looked_up_by_name() {
        let labels = Labels::from_pairs([("job", "node"), ("__name__", "up"), ("gone", "")]);
        assert_eq!(labels.to_string(), r#"{__name__="up", job="node"}"#);
        assert_eq!(labels.metric_name(), Some("up"));
        assert_eq!(labels.get("gone"), None);
        assert_eq!(labels.get("zone"), None);
        assert_eq!(labels.without_metric_name().len(), 1);
    }

    #[test]
    fn quoting_follows_go() {
        let labels = Labels::from_pairs([("a b", "x\"y\\z\n")]);
        assert_eq!(labels.to_string(), r#"{"a b"="x\"y\\z\n"}"#);
    }

    #[test]
    fn unsorted_pairs_are_not_taken_for_sorted() {
        assert!(Labels::from_sorted([("b", "1"), ("a", "2")]).is_none());
        assert!(Labels::from_sorted([("a", "1"), ("a", "2")]).is_none());
        assert!(Labels::from_sorted([("a", "")]).is_none());
    }

    proptest! {
        #[test]
        fn any_pairs_come_back(pairs in proptest::collection::btree_map(".{0,90}", ".{1,300}", 0..8)) {
            let labels = Labels::from_pairs(&pairs);
            let back: BTreeMap<String, String> =
                labels.iter().map(|(n, v)| (n.to_owned(), v.to_owned())).collect();
            prop_assert_eq!(&back, &pairs);
            let sorted = Labels::from_sorted(pairs.iter().map(|(n, v)| (n.as_str(), v.as_str())));
            prop_assert_eq!(sorted.as_ref(), Some(&labels));
            prop_assert_eq!(labels.to_builder().build(), labels);
        }

        #[test]
        fn what_is_retained_is_encoded_as_if_it_had_been_made(
            pairs in proptest::collection::btree_map("[a-c]{1,2}", ".{1,80}", 0..6),
        ) {
            let labels = Labels::from_pairs(&pairs);
            let keep = |name: &str| name.starts_with('a');
            let mut text = String::new();
            labels.encode_retained(keep, &mut text);
            let retained = labels.retain(keep);
            prop_assert_eq!(text.as_str(), retained.encoded());
        }

        #[test]
        fn order_is_that_of_the_pairs(
            a in proptest::collection::btree_map("[a-c]{1,2}", "[a-c]{1,70}", 0..3),
            b in proptest::collection::btree_map("[a-c]{1,2}", "[a-c]{1,70}", 0..3),
        ) {
            prop_assert_eq!(Labels::from_pairs(&a).cmp(&Labels::from_pairs(&b)), a.iter().cmp(b.iter()));
        }
    }
}
