//! The texts of the labels that are sent, each once, by number: a series' labels are a few bytes then. Every
//! request has a table of its own; with numbers that outlive requests, a text is looked for in it once per
//! request and not once per series.

use std::hash::BuildHasher as _;
use std::sync::Arc;

use foldhash::fast::RandomState;
use hashbrown::HashTable;
use parking_lot::{RwLock, RwLockReadGuard};
use stint_model::Labels;
use stint_model::labels::METRIC_NAME;

/// Texts by number. A number is given again when no label set has its text any more.
#[derive(Debug, Default)]
pub struct Symbols(RwLock<Table>);

#[derive(Debug, Default)]
struct Table {
    texts: Vec<Text>,
    index: HashTable<u32>,
    hasher: RandomState,
    /// Numbers without a text.
    vacant: Vec<u32>,
}

#[derive(Debug, Default)]
struct Text {
    text: Box<str>,
    /// How many labels are, or are called, so.
    uses: u32,
}

impl Table {
    fn text(&self, number: u32) -> &str {
        self.texts.get(number as usize).map_or("", |text| &text.text)
    }

    fn take(&mut self, text: &str) -> u32 {
        let hash = self.hasher.hash_one(text);
        let known = self.index.find(hash, |number| self.text(*number) == text).copied();
        let number = known.unwrap_or_else(|| self.add(text, hash));
        if let Some(text) = self.texts.get_mut(number as usize) {
            text.uses += 1;
        }
        number
    }

    fn add(&mut self, text: &str, hash: u64) -> u32 {
        let new = Text { text: Box::from(text), uses: 0 };
        let number = self.vacant.pop().unwrap_or(self.texts.len() as u32);
        match self.texts.get_mut(number as usize) {
            Some(place) => *place = new,
            None => self.texts.push(new),
        }
        let (texts, hasher) = (&self.texts, &self.hasher);
        self.index.insert_unique(hash, number, |number| {
            texts.get(*number as usize).map_or(0, |text| hasher.hash_one(&*text.text))
        });
        number
    }

    fn give_back(&mut self, number: u32) {
        let Some(text) = self.texts.get_mut(number as usize) else { return };
        text.uses -= 1;
        if text.uses > 0 {
            return;
        }
        let hash = self.hasher.hash_one(&*text.text);
        *text = Text::default();
        if let Ok(found) = self.index.find_entry(hash, |other| *other == number) {
            found.remove();
        }
        self.vacant.push(number);
    }
}

impl Symbols {
    /// The numbers of names and values, in order of names.
    pub fn numbers(self: &Arc<Self>, labels: &Labels) -> Numbers {
        let mut table = self.0.write();
        let (mut packed, mut metric) = (Vec::with_capacity(64), None);
        for (name, value) in labels {
            pack(table.take(name), &mut packed);
            let value = table.take(value);
            pack(value, &mut packed);
            if name == METRIC_NAME {
                metric = Some(value);
            }
        }
        Numbers { symbols: Arc::clone(self), packed: Packed::new(&packed), metric }
    }

    /// Keeps the texts from changing as long as they are read.
    pub fn read(&self) -> Texts<'_> {
        Texts(self.0.read())
    }
}

/// Texts, for reading.
pub struct Texts<'a>(RwLockReadGuard<'a, Table>);

impl Texts<'_> {
    /// The text of a number; empty where the number has none.
    pub fn get(&self, number: u32) -> &str {
        self.0.text(number)
    }
}

/// A label set as numbers. There is one for each series that is sent: they are packed.
#[derive(Debug)]
pub struct Numbers {
    symbols: Arc<Symbols>,
    packed: Packed,
    metric: Option<u32>,
}

/// Bytes that mostly lie where they are asked for, rather than in a place of their own that has to be
/// fetched from memory.
#[derive(Debug)]
enum Packed {
    Few(u8, [u8; Self::FEW]),
    Many(Box<[u8]>),
}

impl Packed {
    /// As many as lie beside each other in the room that the longer ones need anyway, and a little
    /// more: the numbers of ten labels.
    const FEW: usize = 30;

    fn new(bytes: &[u8]) -> Self {
        let mut few = [0; Self::FEW];
        match few.get_mut(..bytes.len()) {
            Some(place) => {
                place.copy_from_slice(bytes);
                Self::Few(bytes.len() as u8, few)
            }
            None => Self::Many(Box::from(bytes)),
        }
    }

    fn bytes(&self) -> &[u8] {
        match self {
            Self::Few(length, bytes) => bytes.get(..usize::from(*length)).unwrap_or_default(),
            Self::Many(bytes) => bytes,
        }
    }
}

impl Numbers {
    /// Name, value, name, value …
    pub fn iter(&self) -> impl Iterator<Item = u32> {
        unpack(self.packed.bytes())
    }

    /// The number of the metric's name, where there is one.
    pub fn metric(&self) -> Option<u32> {
        self.metric
    }

    /// Name and value of each label, in order of names. `texts` are those of these numbers.
    pub fn pairs<'t>(&self, texts: &'t Texts<'_>) -> impl Iterator<Item = (&'t str, &'t str)> {
        let mut numbers = self.iter();
        std::iter::from_fn(move || Some((texts.get(numbers.next()?), texts.get(numbers.next()?))))
    }

    /// The value of a label, if it is there. `texts` are those of these numbers.
    pub fn value<'t>(&self, texts: &'t Texts<'_>, name: &str) -> Option<&'t str> {
        self.pairs(texts).find(|(other, _)| *other == name).map(|(_, value)| value)
    }

    /// The labels. Nobody who keeps the texts from changing asks for them.
    pub fn labels(&self) -> Labels {
        Labels::from_sorted(self.pairs(&self.symbols.read())).unwrap_or_default()
    }

    /// What the numbers stand for.
    pub fn symbols(&self) -> &Symbols {
        &self.symbols
    }
}

impl Drop for Numbers {
    fn drop(&mut self) {
        let mut table = self.symbols.0.write();
        unpack(self.packed.bytes()).for_each(|number| table.give_back(number));
    }
}

fn pack(mut number: u32, out: &mut Vec<u8>) {
    while number >= 0x80 {
        out.push(number as u8 | 0x80);
        number >>= 7;
    }
    out.push(number as u8);
}

fn unpack(packed: &[u8]) -> impl Iterator<Item = u32> {
    let mut bytes = packed.iter();
    std::iter::from_fn(move || {
        let (mut number, mut shift) = (0, 0);
        loop {
            let byte = *bytes.next()?;
            number |= u32::from(byte & 0x7f) << shift;
            if byte < 0x80 {
                return Some(number);
            }
            shift += 7;
        }
    })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn texts(numbers: &Numbers) -> Vec<String> {
        let texts = numbers.symbols().read();
        numbers.iter().map(|number| texts.get(number).to_owned()).collect()
    }

    #[test]
    fn a_text_has_one_number_until_nobody_has_it() {
        let symbols = Arc::<Symbols>::default();
        let a = symbols.numbers(&Labels::from_pairs([("__name__", "a"), ("job", "a")]));
        let b = symbols.numbers(&Labels::from_pairs([("__name__", "b"), ("job", "a")]));
        assert_eq!(texts(&a), ["__name__", "a", "job", "a"]);
        assert_eq!(texts(&b), ["__name__", "b", "job", "a"]);
        assert_eq!((a.iter().nth(1), a.iter().nth(2)), (b.iter().nth(3), b.iter().nth(2)));
        assert_eq!(symbols.0.read().texts.len(), 4);
        drop(a);
        assert_eq!(texts(&b), ["__name__", "b", "job", "a"]);
        drop(b);
        for round in 0..100 {
            let value = round.to_string();
            symbols.numbers(&Labels::from_pairs([("__name__", value.as_str()), ("n", "x")]));
        }
        let table = symbols.0.read();
        assert_eq!((table.texts.len(), table.index.len()), (4, 0));
    }

    #[test]
    fn the_number_of_the_metric_is_told() {
        let symbols = Arc::<Symbols>::default();
        // Labels in capitals come before the name.
        let numbers = symbols.numbers(&Labels::from_pairs([("A", "x"), ("__name__", "up")]));
        assert_eq!(numbers.metric().map(|it| symbols.read().get(it).to_owned()).unwrap(), "up");
        assert_eq!(symbols.numbers(&Labels::from_pairs([("A", "up")])).metric(), None);
    }

    #[test]
    fn labels_come_back_as_they_were() {
        let symbols = Arc::<Symbols>::default();
        let labels = Labels::from_pairs([("A", "x"), ("__name__", "up"), ("x", "A")]);
        let numbers = symbols.numbers(&labels);
        assert_eq!(numbers.labels(), labels);
        let texts = symbols.read();
        assert_eq!(numbers.value(&texts, "A"), Some("x"));
        assert_eq!(numbers.value(&texts, "x"), Some("A"));
        assert_eq!(numbers.value(&texts, "up"), None);
        drop(texts);
        assert_eq!(symbols.numbers(&Labels::default()).labels(), Labels::default());
    }

    proptest! {
        #[test]
        fn packed_bytes_are_kept(bytes: Vec<u8>) {
            let packed = Packed::new(&bytes);
            prop_assert_eq!(packed.bytes(), bytes);
        }

        #[test]
        fn packed_numbers_are_unpacked(numbers: Vec<u32>) {
            let mut packed = Vec::new();
            for number in &numbers {
                pack(*number, &mut packed);
            }
            prop_assert_eq!(unpack(&packed).collect::<Vec<_>>(), numbers);
        }
    }
}
