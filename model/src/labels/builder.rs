//! Labels that are still changing.

use std::sync::Arc;

use super::{Labels, push_string};

/// Collects labels one by one; setting a label to the empty string removes it.
///
/// All names and values lie in one text, so that a set of any size takes two allocations to change and
/// one to build.
#[derive(Clone, Debug, Default)]
pub struct LabelsBuilder {
    /// What the pairs refer to, and what they referred to before.
    text: String,
    /// In order of names, none empty.
    pairs: Vec<Pair>,
    /// Bytes of `text` that no pair refers to.
    unused: usize,
}

/// Where in the text a name and its value lie.
#[derive(Clone, Copy, Debug)]
struct Pair {
    name: Place,
    value: Place,
}

#[derive(Clone, Copy, Debug)]
struct Place {
    start: usize,
    length: usize,
}

/// What is no longer referred to is not worth moving the rest while it is less than this.
const UNUSED_BYTES_MIN: usize = 4096;
/// Labels that are looked through one by one: comparing lengths is cheaper than comparing names in order.
const SCANNED_MAX: usize = 64;

impl Place {
    fn of(self, text: &str) -> &str {
        text.get(self.start..self.start + self.length).unwrap_or_default()
    }
}

impl LabelsBuilder {
    /// One that has room for labels of so many bytes, names and values together.
    fn with_capacity(labels: usize, bytes: usize) -> Self {
        // A little more than there is: most are taken to be changed.
        let text = String::with_capacity(bytes + bytes / 4);
        Self { text, pairs: Vec::with_capacity(labels + 4), unused: 0 }
    }

    fn add(&mut self, text: &str) -> Place {
        let place = Place { start: self.text.len(), length: text.len() };
        self.text.push_str(text);
        place
    }

    /// Where the label is.
    fn position(&self, name: &str) -> Option<usize> {
        if self.pairs.len() > SCANNED_MAX {
            return self.find(name).ok();
        }
        // Names that begin alike are of different lengths more often than not.
        let is_it =
            |pair: &Pair| pair.name.length == name.len() && pair.name.of(&self.text) == name;
        self.pairs.iter().position(is_it)
    }

    /// Where the label is, or where it would be.
    fn find(&self, name: &str) -> Result<usize, usize> {
        match self.pairs.last() {
            // Labels mostly come in order.
            Some(last) if last.name.of(&self.text) < name => Err(self.pairs.len()),
            _ => self.pairs.binary_search_by(|pair| pair.name.of(&self.text).cmp(name)),
        }
    }

    /// Sets `name` to `value`, or removes it when `value` is empty.
    pub fn set(&mut self, name: &str, value: &str) -> &mut Self {
        if value.is_empty() {
            return self.remove(name);
        }
        match self.find(name) {
            Ok(at) => {
                let value = self.add(value);
                if let Some(pair) = self.pairs.get_mut(at) {
                    self.unused += pair.value.length;
                    pair.value = value;
                }
                self.tidy();
            }
            Err(at) => {
                let pair = Pair { name: self.add(name), value: self.add(value) };
                self.pairs.insert(at, pair);
            }
        }
        self
    }

    /// Removes `name`.
    pub fn remove(&mut self, name: &str) -> &mut Self {
        if let Some(at) = self.position(name) {
            let pair = self.pairs.remove(at);
            self.unused += pair.name.length + pair.value.length;
            self.tidy();
        }
        self
    }

    /// Removes the labels for whose names `keep` does not hold.
    pub fn retain(&mut self, mut keep: impl FnMut(&str) -> bool) {
        let (text, unused) = (&self.text, &mut self.unused);
        self.pairs.retain(|pair| {
            let is_kept = keep(pair.name.of(text));
            if !is_kept {
                *unused += pair.name.length + pair.value.length;
            }
            is_kept
        });
        self.tidy();
    }

    /// Keeps the text within a multiple of what is in use.
    fn tidy(&mut self) {
        if self.unused >= UNUSED_BYTES_MIN && self.unused > self.text.len() / 2 {
            let mut fresh = Self::with_capacity(self.pairs.len(), self.text.len() - self.unused);
            fresh.push_all(self.iter());
            *self = fresh;
        }
    }

    /// Appends labels that come in order and are not there.
    fn push_all<'a>(&mut self, labels: impl IntoIterator<Item = (&'a str, &'a str)>) {
        for (name, value) in labels {
            let pair = Pair { name: self.add(name), value: self.add(value) };
            self.pairs.push(pair);
        }
    }

    /// The present value of `name`.
    pub fn get(&self, name: &str) -> Option<&str> {
        let pair = self.pairs.get(self.position(name)?)?;
        Some(pair.value.of(&self.text))
    }

    /// The present labels in order of names.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &str)> {
        self.pairs.iter().map(|pair| (pair.name.of(&self.text), pair.value.of(&self.text)))
    }

    /// The finished label set.
    pub fn build(&self) -> Labels {
        let bytes = self.text.len() - self.unused + 4 * self.pairs.len();
        let mut text = String::with_capacity(bytes);
        for (name, value) in self.iter() {
            push_string(&mut text, name);
            push_string(&mut text, value);
        }
        Labels(Arc::from(text))
    }
}

impl Labels {
    /// A builder that starts from these labels.
    pub fn to_builder(&self) -> LabelsBuilder {
        let mut builder = LabelsBuilder::with_capacity(self.len(), self.size_bytes());
        builder.push_all(self);
        builder
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use proptest::prelude::*;

    use super::*;

    #[test]
    fn what_was_replaced_often_takes_no_memory() {
        let mut builder = Labels::from_pairs([("a", "1"), ("zone", "here")]).to_builder();
        for number in 0..100_000 {
            builder.set("b", &format!("{number}")).set("c", "x").remove("c");
        }
        assert!(builder.text.capacity() < 4 * UNUSED_BYTES_MIN, "{}", builder.text.capacity());
        assert_eq!(builder.build().to_string(), r#"{a="1", b="99999", zone="here"}"#);
    }

    proptest! {
        /// Whatever is done to it, it has the labels that a map has.
        #[test]
        fn a_builder_is_a_map(
            start in proptest::collection::btree_map("[a-z]{1,2}", ".{1,70}", 0..100),
            steps in proptest::collection::vec(("[a-e]{0,2}", ".{0,2000}", 0..8_u8), 0..40),
        ) {
            let mut map: BTreeMap<String, String> = start;
            let mut builder = Labels::from_pairs(&map).to_builder();
            for (name, value, what) in steps {
                match what {
                    0 => {
                        builder.remove(&name);
                        map.remove(&name);
                    }
                    1 => {
                        builder.retain(|kept| *kept != *name);
                        map.remove(&name);
                    }
                    _ if value.is_empty() => {
                        builder.set(&name, &value);
                        map.remove(&name);
                    }
                    _ => {
                        builder.set(&name, &value);
                        map.insert(name.clone(), value);
                    }
                }
                prop_assert_eq!(builder.get(&name), map.get(&name).map(String::as_str));
                let used: usize = builder.iter().map(|(name, value)| name.len() + value.len()).sum();
                prop_assert_eq!(builder.text.len() - builder.unused, used);
            }
            let pairs: Vec<_> = map.iter().map(|(n, v)| (n.as_str(), v.as_str())).collect();
            prop_assert_eq!(builder.iter().collect::<Vec<_>>(), pairs.clone());
            let built = builder.build();
            prop_assert_eq!(built.iter().collect::<Vec<_>>(), pairs);
        }
    }
}
