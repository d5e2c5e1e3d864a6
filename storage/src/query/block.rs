//! A block as a reader among others.

use std::sync::Arc;

use stint_model::{Columns, Hints, Labels, Querier, QueryError, Selector, SeriesSet, TimeRange};

use super::querier::{Part, Stored};
use super::selected::Selected;
use super::selections::Selections;
use crate::block::Block;
use crate::codec::Corruption;

/// Reads one block inside a range.
pub(crate) struct BlockQuerier {
    block: Block,
    range: TimeRange,
    selections: Arc<Selections>,
}

impl BlockQuerier {
    pub(crate) fn new(block: Block, range: TimeRange, selections: Arc<Selections>) -> Self {
        Self { block, range, selections }
    }
}

/// The error of a query that met damage, which is remembered.
fn damaged(block: &Block) -> impl Fn(Corruption) -> QueryError {
    |corruption| {
        block.note_damage(&corruption);
        QueryError::Storage(corruption.to_string())
    }
}

fn limited(all: &[String], limit: usize) -> Vec<String> {
    let limit = if limit == 0 { usize::MAX } else { limit };
    all.iter().take(limit).cloned().collect()
}

impl Part for BlockQuerier {
    fn stored(&self, selector: &Selector, hints: &Hints) -> Result<Box<dyn Stored>, QueryError> {
        let selected =
            self.selections.select(&self.block, selector).map_err(damaged(&self.block))?;
        // Where the order is known, it costs nothing.
        let sorted = !hints.unordered || hints.limit > 0 || selected.known_order().is_some();
        if sorted {
            selected.order(&self.block).map_err(damaged(&self.block))?;
        }
        let limit = if hints.limit == 0 { usize::MAX } else { hints.limit };
        let len = selected.len().min(limit);
        let (block, range) = (self.block.clone(), self.range);
        Ok(Box::new(BlockSet { block, range, selected, sorted, len }))
    }
}

impl Querier for BlockQuerier {
    fn select(&self, selector: &Selector, hints: &Hints) -> Result<Box<dyn SeriesSet>, QueryError> {
        Ok(self.stored(selector, hints)?)
    }

    fn label_names(&self, selectors: &[Selector], limit: usize) -> Result<Vec<String>, QueryError> {
        let names = self.selections.label_names(&self.block, selectors);
        let names = names.map_err(damaged(&self.block))?;
        Ok(limited(&names, limit))
    }

    fn label_values(
        &self,
        name: &str,
        selectors: &[Selector],
        limit: usize,
    ) -> Result<Vec<String>, QueryError> {
        let values = self.selections.label_values(&self.block, name, selectors);
        let values = values.map_err(damaged(&self.block))?;
        Ok(limited(&values, limit))
    }
}

struct BlockSet {
    block: Block,
    range: TimeRange,
    selected: Arc<Selected>,
    /// Whether the series are in order of labels.
    sorted: bool,
    len: usize,
}

impl BlockSet {
    /// The place of a series in the selection.
    fn place(&self, index: usize) -> usize {
        let order = if self.sorted { self.selected.known_order() } else { None };
        match order {
            Some(order) => order.get(index).map_or(usize::MAX, |place| *place as usize),
            None => index,
        }
    }
}

impl Stored for BlockSet {
    fn is_sorted(&self) -> bool {
        self.sorted
    }
}

impl SeriesSet for BlockSet {
    fn len(&self) -> usize {
        self.len
    }

    fn labels(&self, index: usize) -> Labels {
        self.selected.labels(&self.block, self.place(index))
    }

    fn encode_labels(&self, index: usize, keep: &dyn Fn(&str) -> bool, text: &mut String) {
        self.selected.encode_labels(&self.block, self.place(index), keep, text);
    }

    fn read(
        &self,
        index: usize,
        range: TimeRange,
        columns: &mut Columns,
    ) -> Result<(), QueryError> {
        let range =
            TimeRange::new(range.start.max(self.range.start), range.end.min(self.range.end));
        if range.is_empty() {
            return Ok(());
        }
        let damaged = damaged(&self.block);
        let chunks = self.selected.chunks_of(&self.block, self.place(index));
        match chunks.map_err(&damaged)? {
            Some(chunks) => self.block.read_place(chunks, range, columns).map_err(damaged),
            None => Ok(()),
        }
    }
}
