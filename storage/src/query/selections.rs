//! What was found in the indexes of blocks, remembered: blocks do not change, and dashboards ask the same
//! again and again.

use std::sync::Arc;

use crate::sync::Mutex;
use hashbrown::HashMap;
use stint_model::Selector;

use super::selected::Selected;
use crate::block::{Block, Identity};
use crate::codec::Corruption;

/// What takes more than one of so many parts of the room is not remembered.
const PART: usize = 4;

/// Selections that are remembered at most, however small they are.
const COUNT_MAX: usize = 4096;

/// What was asked of a block.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
enum Question {
    Series(Selector),
    /// Names of labels of the series that any of the selectors selects.
    Names(Vec<Selector>),
    /// Values of a label in them.
    Values(String, Vec<Selector>),
}

#[derive(Clone, Debug)]
enum Answer {
    Series(Arc<Selected>),
    Texts(Arc<[String]>),
}

impl Answer {
    fn grows(&self) -> bool {
        matches!(self, Self::Series(selected) if !selected.is_complete())
    }

    fn bytes(&self) -> usize {
        match self {
            Self::Series(selected) => selected.bytes(),
            Self::Texts(texts) => texts.iter().map(|text| text.len() + size_of::<String>()).sum(),
        }
    }
}

/// Answers by block and question, those used last.
#[derive(Debug)]
pub(crate) struct Selections {
    bytes_max: usize,
    held: Mutex<Held>,
}

#[derive(Debug, Default)]
struct Held {
    by_key: HashMap<(usize, Question), Remembered>,
    bytes: usize,
    uses: u64,
}

#[derive(Debug)]
struct Remembered {
    /// Keeps the number of the block from being given to another one.
    block: Identity,
    answer: Answer,
    bytes: usize,
    /// Whether more may be looked up of it.
    grows: bool,
    used: u64,
}

impl Selections {
    /// Room for `bytes_max`, of which no selection may take more than a part. What is looked up of one
    /// after it was remembered counts when the next is added.
    pub(crate) fn new(bytes_max: usize) -> Self {
        Self { bytes_max, held: Mutex::default() }
    }

    /// The series of `block` that `selector` selects.
    ///
    /// # Errors
    /// Damage to the block's index.
    pub(crate) fn select(
        &self,
        block: &Block,
        selector: &Selector,
    ) -> Result<Arc<Selected>, Corruption> {
        let find = || Ok(Answer::Series(Arc::new(Selected::of(block, selector)?)));
        match self.answer(block, Question::Series(selector.clone()), find)? {
            Answer::Series(selected) => Ok(selected),
            Answer::Texts(_) => Ok(Arc::default()),
        }
    }

    /// As [`Block::label_names`].
    ///
    /// # Errors
    /// Damage to the block's index.
    pub(crate) fn label_names(
        &self,
        block: &Block,
        selectors: &[Selector],
    ) -> Result<Arc<[String]>, Corruption> {
        self.texts(block, Question::Names(selectors.to_vec()), || block.label_names(selectors))
    }

    /// As [`Block::label_values`].
    ///
    /// # Errors
    /// Damage to the block's index.
    pub(crate) fn label_values(
        &self,
        block: &Block,
        name: &str,
        selectors: &[Selector],
    ) -> Result<Arc<[String]>, Corruption> {
        let question = Question::Values(name.to_owned(), selectors.to_vec());
        self.texts(block, question, || block.label_values(name, selectors))
    }

    fn texts(
        &self,
        block: &Block,
        question: Question,
        find: impl FnOnce() -> Result<Vec<String>, Corruption>,
    ) -> Result<Arc<[String]>, Corruption> {
        match self.answer(block, question, || Ok(Answer::Texts(find()?.into())))? {
            Answer::Texts(texts) => Ok(texts),
            Answer::Series(_) => Ok(Arc::default()),
        }
    }

    fn answer(
        &self,
        block: &Block,
        question: Question,
        find: impl FnOnce() -> Result<Answer, Corruption>,
    ) -> Result<Answer, Corruption> {
        let identity = block.identity();
        let key = (identity.number(), question);
        if let Some(known) = self.held.lock().find(&key, self.bytes_max / PART) {
            return Ok(known);
        }
        let answer = find()?;
        let bytes = answer.bytes();
        if bytes <= self.bytes_max / PART {
            let (grows, known) = (answer.grows(), answer.clone());
            let new = Remembered { block: identity, answer: known, bytes, grows, used: 0 };
            self.held.lock().add(key, new, self.bytes_max);
        }
        Ok(answer)
    }

    /// Bytes of everything that is remembered.
    #[cfg(test)]
    fn bytes(&self) -> usize {
        self.held.lock().bytes
    }
}

impl Held {
    fn find(&mut self, key: &(usize, Question), each_max: usize) -> Option<Answer> {
        self.uses += 1;
        let known = self.by_key.get_mut(key)?;
        known.used = self.uses;
        let answer = known.answer.clone();
        // What was looked up of it since is told apart from time to time, not at each use.
        if known.grows && answer.bytes() > known.bytes.saturating_mul(2) {
            self.recount(each_max);
        }
        Some(answer)
    }

    /// Takes into account what was looked up of selections since they came, and forgets those that
    /// have more than `each_max` by now.
    fn recount(&mut self, each_max: usize) {
        self.by_key.retain(|_, known| {
            if known.grows {
                known.grows = known.answer.grows();
                known.bytes = known.answer.bytes();
            }
            known.bytes <= each_max
        });
        self.bytes = self.by_key.values().map(|known| known.bytes).sum();
    }

    fn add(&mut self, key: (usize, Question), new: Remembered, bytes_max: usize) {
        let new = Remembered { used: self.uses, ..new };
        self.by_key.insert(key, new);
        self.recount(bytes_max / PART);
        if self.bytes <= bytes_max && self.by_key.len() <= COUNT_MAX {
            return;
        }
        // Half is freed at once, so that this is rare: first what is of blocks that are gone.
        let mut uses: Vec<(bool, u64, usize)> =
            self.by_key.values().map(Remembered::rank).collect();
        uses.sort_unstable();
        let (mut bytes, mut count, mut last) = (self.bytes, uses.len(), (false, 0));
        for (alive, used, size) in uses {
            if bytes <= bytes_max / 2 && count <= COUNT_MAX / 2 {
                break;
            }
            (bytes, count, last) = (bytes - size, count - 1, (alive, used));
        }
        self.by_key.retain(|_, known| (known.block.is_alive(), known.used) > last);
        self.bytes = self.by_key.values().map(|known| known.bytes).sum();
    }
}

impl Remembered {
    fn rank(&self) -> (bool, u64, usize) {
        (self.block.is_alive(), self.used, self.bytes)
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use stint_model::{Columns, Labels, MatchOp, Matcher, TimeRange, Timestamp};

    use super::*;
    use crate::block::{BlockId, BlockMeta, BlockWriter};
    use crate::disk::sim::SimDisk;

    /// A block with a series of each name.
    fn block(disk: &SimDisk, id: u64, names: &[&str]) -> Block {
        let range = TimeRange::closed(Timestamp(0), Timestamp(10));
        let meta = BlockMeta::new(BlockId(id), range);
        let mut writer = BlockWriter::new(disk, Path::new("blocks"), meta).unwrap();
        let mut columns = Columns::default();
        columns.push_float(Timestamp(5), 1.0);
        for name in names {
            writer.add_series(&Labels::from_pairs([("__name__", name)]), &columns).unwrap();
        }
        let dir = writer.finish().unwrap().dir(Path::new("blocks"));
        Block::open(disk, &dir).unwrap()
    }

    fn selector(value: &str) -> Selector {
        Selector::new(vec![Matcher::new(MatchOp::Equal, "__name__", value).unwrap()])
    }

    /// What a selection takes that everything was looked up of.
    fn whole(block: &Block, selector: &Selector) -> usize {
        let selected = Selected::of(block, selector).unwrap();
        look_up(block, &selected);
        selected.bytes()
    }

    fn look_up(block: &Block, selected: &Selected) {
        selected.order(block).unwrap();
        selected.labels(block, 0);
        selected.chunks_of(block, 0).unwrap();
        assert!(selected.is_complete());
    }

    const NAMES: [&str; 12] = ["a", "b", "c", "d", "e", "f", "g", "h", "i", "j", "k", "l"];

    #[test]
    fn what_was_selected_is_not_selected_again_while_there_is_room() {
        let disk = SimDisk::new();
        let block = block(&disk, 1, &NAMES);
        let one = whole(&block, &selector("a"));
        let selections = Selections::new(one * 4);
        let first = selections.select(&block, &selector("a")).unwrap();
        assert_eq!(first.len(), 1);
        assert!(Arc::ptr_eq(&first, &selections.select(&block, &selector("a")).unwrap()));
        for name in ["b", "c", "d"] {
            selections.select(&block, &selector(name)).unwrap();
        }
        assert!(Arc::ptr_eq(&first, &selections.select(&block, &selector("a")).unwrap()));
        // The fifth drives out those used least lately.
        selections.select(&block, &selector("e")).unwrap();
        assert!(selections.bytes() <= one * 4);
        assert!(Arc::ptr_eq(&first, &selections.select(&block, &selector("a")).unwrap()));
        // More than there is room for is found every time.
        let all = Selector::new(Vec::new());
        let selections = Selections::new(4);
        let found = selections.select(&block, &all).unwrap();
        assert_eq!(found.len(), NAMES.len());
        assert!(!Arc::ptr_eq(&found, &selections.select(&block, &all).unwrap()));
    }

    #[test]
    fn what_is_looked_up_later_counts_as_well() {
        let disk = SimDisk::new();
        let block = block(&disk, 1, &NAMES);
        let all = Selector::new(Vec::new());
        let selections = Selections::new(whole(&block, &all) * PART - 1);
        let found = selections.select(&block, &all).unwrap();
        let before = selections.bytes();
        assert!(before > 0 && !found.is_complete());
        assert!(Arc::ptr_eq(&found, &selections.select(&block, &all).unwrap()));
        look_up(&block, &found);
        // By now it takes more than its part.
        selections.select(&block, &selector("a")).unwrap();
        assert_eq!(selections.bytes(), whole(&block, &selector("a")));
        assert!(!Arc::ptr_eq(&found, &selections.select(&block, &all).unwrap()));
    }

    #[test]
    fn another_block_has_a_selection_of_its_own() {
        let disk = SimDisk::new();
        let selections = Selections::new(1 << 20);
        for (id, names) in (1..).zip([&["a", "b"][..], &["b"], &["a"]]) {
            let block = block(&disk, id, names);
            let found = selections.select(&block, &selector("a")).unwrap();
            assert_eq!(found.len(), usize::from(names.contains(&"a")));
            assert_eq!(&*selections.label_values(&block, "__name__", &[]).unwrap(), names);
            let some = [selector("b")];
            let values = selections.label_values(&block, "__name__", &some).unwrap();
            assert_eq!(values.len(), usize::from(names.contains(&"b")));
            assert_eq!(&*selections.label_names(&block, &[]).unwrap(), ["__name__"]);
            let range = TimeRange::closed(Timestamp(0), Timestamp(10));
            let deleted = block.delete(&disk, &selector("a"), range).unwrap();
            let again = selections.select(&deleted, &selector("a")).unwrap();
            assert!(Arc::ptr_eq(&found, &again), "what is deleted is hidden from reading alone");
        }
    }
}
