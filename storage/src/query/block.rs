//! A block as a reader among others.

use stint_model::{Columns, Hints, Labels, Querier, QueryError, Selector, SeriesSet, TimeRange};

use crate::block::Block;
use crate::codec::Corruption;

/// Reads one block inside a range.
pub(crate) struct BlockQuerier {
    block: Block,
    range: TimeRange,
}

impl BlockQuerier {
    pub(crate) fn new(block: Block, range: TimeRange) -> Self {
        Self { block, range }
    }
}

fn damaged(error: &Corruption) -> QueryError {
    QueryError::Storage(error.to_string())
}

fn limited(mut all: Vec<String>, limit: usize) -> Vec<String> {
    if limit > 0 {
        all.truncate(limit);
    }
    all
}

impl BlockQuerier {
    /// Labels and number of the series that `selector` selects, as the hints want them.
    fn find(&self, selector: &Selector, hints: &Hints) -> Result<Vec<(Labels, u32)>, Corruption> {
        let selected = self.block.select(selector)?;
        let numbers: Vec<u32> = selected.iter().collect();
        if hints.unordered && hints.limit == 0 {
            let labels = self.block.labels_of(numbers.iter().copied())?;
            return Ok(labels.into_iter().zip(numbers).collect());
        }
        let order = self.block.order_of_labels(&selected)?;
        if hints.limit > 0 {
            let first = order.iter().take(hints.limit);
            let numbers: Vec<u32> =
                first.filter_map(|at| numbers.get(*at as usize).copied()).collect();
            let labels = self.block.labels_of(numbers.iter().copied())?;
            return Ok(labels.into_iter().zip(numbers).collect());
        }
        // Neighbours share what is read.
        let labels = self.block.labels_of(numbers.iter().copied())?;
        let series = order.iter().filter_map(|at| {
            let at = *at as usize;
            Some((labels.get(at)?.clone(), *numbers.get(at)?))
        });
        Ok(series.collect())
    }
}

impl Querier for BlockQuerier {
    fn select(&self, selector: &Selector, hints: &Hints) -> Result<Box<dyn SeriesSet>, QueryError> {
        let series = self.find(selector, hints).map_err(|e| damaged(&e))?;
        Ok(Box::new(BlockSet { block: self.block.clone(), range: self.range, series }))
    }

    fn label_names(&self, selectors: &[Selector], limit: usize) -> Result<Vec<String>, QueryError> {
        let names = self.block.label_names(selectors).map_err(|e| damaged(&e))?;
        Ok(limited(names, limit))
    }

    fn label_values(
        &self,
        name: &str,
        selectors: &[Selector],
        limit: usize,
    ) -> Result<Vec<String>, QueryError> {
        let values = self.block.label_values(name, selectors).map_err(|e| damaged(&e))?;
        Ok(limited(values, limit))
    }
}

struct BlockSet {
    block: Block,
    range: TimeRange,
    series: Vec<(Labels, u32)>,
}

impl SeriesSet for BlockSet {
    fn len(&self) -> usize {
        self.series.len()
    }

    fn labels(&self, index: usize) -> Labels {
        self.series.get(index).map(|(labels, _)| labels.clone()).unwrap_or_default()
    }

    fn read(
        &self,
        index: usize,
        range: TimeRange,
        columns: &mut Columns,
    ) -> Result<(), QueryError> {
        let range =
            TimeRange::new(range.start.max(self.range.start), range.end.min(self.range.end));
        let Some((_, series)) = self.series.get(index).filter(|_| !range.is_empty()) else {
            return Ok(());
        };
        self.block.read(*series, range, columns).map_err(|e| damaged(&e))
    }
}
