//! Series of a block that a selector found. Finding them takes little; what takes long for many of them is
//! their labels, their order and the places of their chunks, so each is looked up when it is first
//! wanted.

use std::sync::OnceLock;

use roaring::RoaringBitmap;
use stint_model::{Labels, Selector};

use crate::block::{Block, Place};
use crate::codec::Corruption;
use crate::index::table::LabelTable;

/// Where fewer than one of so many series of the block were found, all is looked up at once: damage to
/// it is then met by whoever selects. Of more, it is made sure first that nothing is damaged.
const SHARE: u64 = 8;

/// Bytes of a label set beside its text.
const LABELS_BYTES: usize = size_of::<OnceLock<Labels>>() + 16;

/// Series of a block, and what is known of them.
#[derive(Debug, Default)]
pub(crate) struct Selected {
    /// Their numbers, rising. The place of a series is that of its number here.
    numbers: Vec<u32>,
    /// The places in order of labels.
    order: OnceLock<Vec<u32>>,
    table: OnceLock<Result<LabelTable, Corruption>>,
    /// Label sets that were made.
    labels: OnceLock<Box<[OnceLock<Labels>]>>,
    chunks: OnceLock<Result<Vec<Place>, Corruption>>,
}

impl Selected {
    /// Those of `block` that `selector` selects. The other functions want the same block.
    ///
    /// # Errors
    /// Damage to the block's index.
    pub(crate) fn of(block: &Block, selector: &Selector) -> Result<Self, Corruption> {
        let found = block.select(selector)?;
        let selected = Self { numbers: found.iter().collect(), ..Self::default() };
        if found.len().saturating_mul(SHARE) < u64::from(block.series_len()) {
            let order = block.order_of_labels(&found)?;
            selected.order.get_or_init(|| order);
            selected.table(block)?;
            selected.chunks(block)?;
        } else {
            block.check_labels()?;
        }
        Ok(selected)
    }

    /// How many there are.
    pub(crate) fn len(&self) -> usize {
        self.numbers.len()
    }

    /// The places in order of labels, if somebody wanted them in order before.
    pub(crate) fn known_order(&self) -> Option<&[u32]> {
        self.order.get().map(Vec::as_slice)
    }

    /// The places in order of labels.
    ///
    /// # Errors
    /// Damage to the block's index.
    pub(crate) fn order(&self, block: &Block) -> Result<&[u32], Corruption> {
        if let Some(order) = self.known_order() {
            return Ok(order);
        }
        let found = RoaringBitmap::from_sorted_iter(self.numbers.iter().copied());
        let order = block.order_of_labels(&found.unwrap_or_default())?;
        Ok(self.order.get_or_init(|| order))
    }

    /// The labels of the series at a place. None where the index was damaged after it was looked at: the
    /// samples of such series cannot be read either.
    pub(crate) fn labels(&self, block: &Block, place: usize) -> Labels {
        let none = || self.numbers.iter().map(|_| OnceLock::new()).collect();
        let made = self.labels.get_or_init(none).get(place);
        let make = || self.table(block).map(|table| table.labels(place)).unwrap_or_default();
        made.map(|labels| labels.get_or_init(make).clone()).unwrap_or_default()
    }

    /// See [`stint_model::SeriesSet::encode_labels`].
    pub(crate) fn encode_labels(
        &self,
        block: &Block,
        place: usize,
        keep: &dyn Fn(&str) -> bool,
        text: &mut String,
    ) {
        match self.labels.get().and_then(|made| made.get(place)?.get()) {
            Some(labels) => labels.encode_retained(keep, text),
            None => {
                if let Ok(table) = self.table(block) {
                    table.encode(place, keep, text);
                }
            }
        }
    }

    /// Where the chunks of the series at a place are.
    ///
    /// # Errors
    /// Damage to the block's index.
    pub(crate) fn chunks_of(
        &self,
        block: &Block,
        place: usize,
    ) -> Result<Option<&Place>, Corruption> {
        if let Some(Err(damage)) = self.table.get() {
            return Err(damage.clone());
        }
        Ok(self.chunks(block)?.get(place))
    }

    fn chunks(&self, block: &Block) -> Result<&[Place], Corruption> {
        let all = || self.numbers.iter().map(|number| block.place(*number)).collect();
        self.chunks.get_or_init(all).as_deref().map_err(Clone::clone)
    }

    fn table(&self, block: &Block) -> Result<&LabelTable, Corruption> {
        let read = || {
            let table = block.label_table(self.numbers.iter().copied());
            table.inspect_err(|damage| block.note_damage(damage))
        };
        self.table.get_or_init(read).as_ref().map_err(Clone::clone)
    }

    /// Whether everything but label sets was looked up: bytes stay as they are.
    pub(crate) fn is_complete(&self) -> bool {
        self.order.get().is_some() && self.table.get().is_some() && self.chunks.get().is_some()
    }

    /// Bytes in use, as if label sets were made of everything that they can be made of.
    pub(crate) fn bytes(&self) -> usize {
        let order = self.order.get().map_or(0, Vec::len);
        let table = self.table.get().and_then(|table| table.as_ref().ok());
        let chunks = self.chunks.get().and_then(|chunks| chunks.as_ref().ok()).map_or(0, Vec::len);
        let labels = self.numbers.len() * LABELS_BYTES;
        (self.numbers.len() + order) * size_of::<u32>()
            + table.map_or(0, |table| table.bytes() + table.labels_bytes() + labels)
            + chunks * size_of::<Place>()
    }
}

#[cfg(test)]
mod tests {
    use std::path::{Path, PathBuf};

    use stint_model::{Columns, Matcher, TimeRange, Timestamp};

    use super::*;
    use crate::block::reader::INDEX_FILE;
    use crate::block::{BlockId, BlockMeta, BlockWriter};
    use crate::disk::sim::SimDisk;
    use crate::index::series_order;

    const RANGE: TimeRange = TimeRange::new(Timestamp(0), Timestamp(10));

    fn series() -> Vec<Labels> {
        let labels = |n: usize| {
            Labels::from_pairs([
                ("__name__", format!("m{}", n % 3)),
                ("a", format!("{}", n * 7 % 50)),
                ("job", if n.is_multiple_of(2) { "even".to_owned() } else { String::new() }),
            ])
        };
        let mut series: Vec<Labels> = (0..50).map(labels).collect();
        series.sort_by(series_order);
        series
    }

    fn write(disk: &SimDisk) -> PathBuf {
        let meta = BlockMeta::new(BlockId(1), RANGE);
        let mut writer = BlockWriter::new(disk, Path::new("blocks"), meta).unwrap();
        for (at, labels) in series().iter().enumerate() {
            let mut columns = Columns::default();
            columns.push_float(Timestamp(at as i64 % 10), at as f64);
            writer.add_series(labels, &columns).unwrap();
        }
        writer.finish().unwrap().dir(Path::new("blocks"))
    }

    /// Compares everything that is known of `selected` with `want`; `false` where reading met damage.
    fn compare(block: &Block, selected: &Selected, want: &[Labels]) -> bool {
        assert_eq!(selected.len(), want.len());
        let all = series();
        let mut is_whole = true;
        for (place, want) in want.iter().enumerate() {
            let (mut text, mut whole) = (String::new(), String::new());
            selected.encode_labels(block, place, &|name| name != "job", &mut text);
            want.encode_retained(|name| name != "job", &mut whole);
            let labels = selected.labels(block, place);
            let (mut columns, mut read) = (Columns::default(), false);
            if let Ok(Some(place)) = selected.chunks_of(block, place) {
                read = block.read_place(place, RANGE, &mut columns).is_ok();
            }
            let at = all.iter().position(|labels| labels == want);
            assert_eq!((labels, text), (want.clone(), whole));
            if read {
                assert_eq!(columns.values, [at.unwrap() as f64]);
            }
            is_whole &= read;
        }
        is_whole
    }

    #[test]
    fn few_and_many_series_are_the_same_looked_up_at_once_or_later() {
        let disk = SimDisk::new();
        let block = Block::open(&disk, &write(&disk)).unwrap();
        for (matchers, at_once) in [
            (vec![Matcher::equal("a", "7")], true),
            (vec![Matcher::equal("__name__", "m1")], false),
            (Vec::new(), false),
        ] {
            let selector = Selector::new(matchers);
            let selected = Selected::of(&block, &selector).unwrap();
            assert_eq!(
                (selected.is_complete(), selected.table.get().is_some()),
                (at_once, at_once)
            );
            let before = selected.bytes();
            let mut want = series();
            want.retain(|labels| selector.matches(labels));
            assert!(!want.is_empty() && compare(&block, &selected, &want));
            let order = selected.order(&block).unwrap();
            let ordered: Vec<Labels> =
                order.iter().map(|at| selected.labels(&block, *at as usize)).collect();
            want.sort();
            assert_eq!(ordered, want);
            let labels: usize = want.iter().map(Labels::size_bytes).sum();
            assert!(selected.is_complete() && selected.bytes() > labels);
            assert_eq!(selected.bytes() > before, !at_once, "what is looked up later is counted");
        }
    }

    #[test]
    fn damage_never_makes_other_labels() {
        let size = {
            let disk = SimDisk::new();
            let path = write(&disk).join(INDEX_FILE);
            crate::disk::Disk::size(&disk, &path).unwrap() as usize
        };
        let mut met = [0; 3];
        for at in 0..size {
            let disk = SimDisk::new();
            let dir = write(&disk);
            disk.damage(&dir.join(INDEX_FILE), at, 1 << (at % 8)).unwrap();
            let Ok(block) = Block::open(&disk, &dir) else { continue };
            let all = Selector::default();
            met[0] += 1;
            let Ok(selected) = Selected::of(&block, &all) else { continue };
            met[1] += 1;
            met[2] += usize::from(compare(&block, &selected, &series()));
        }
        // Most is met by who selects, some by who reads.
        assert!(met[0] > met[1] && met[1] > met[2] && met[2] > 0, "{met:?}");
    }
}
