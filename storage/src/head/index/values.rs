//! The series that have each value of one label.

use hashbrown::HashMap;
use hashbrown::hash_map::Entry;

use super::{Postings, Slot};

/// More values than this are kept in parts, each of which grows by itself: nobody waits for all of
/// them to grow at once.
const WHOLE_MAX: usize = if cfg!(test) { 8 } else { 1 << 13 };

/// The parts: told apart by so many of the upper bits.
const SHARD_BITS: u32 = 6;

/// Postings by number of the value.
#[derive(Debug)]
pub(super) struct Values {
    shards: Vec<HashMap<u32, Postings>>,
    len: usize,
}

impl Default for Values {
    fn default() -> Self {
        Self { shards: vec![HashMap::new()], len: 0 }
    }
}

impl Values {
    fn place(&self, value: u32) -> usize {
        if self.shards.len() == 1 {
            return 0;
        }
        (value.wrapping_mul(0x9e37_79b9) >> (u32::BITS - SHARD_BITS)) as usize
    }

    /// How many values there are.
    pub(super) fn len(&self) -> usize {
        self.len
    }

    pub(super) fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// The series of a value.
    pub(super) fn get(&self, value: u32) -> Option<&Postings> {
        self.shards.get(self.place(value))?.get(&value)
    }

    /// One of the parts, which are numbered from 0; `None` behind the last. While values come, one may
    /// be in two parts that are asked for one after the other, but none is passed over.
    pub(super) fn shard(&self, number: usize) -> Option<&HashMap<u32, Postings>> {
        self.shards.get(number)
    }

    /// Adds a series to those of a value.
    pub(super) fn add(&mut self, value: u32, slot: Slot) {
        if self.shards.len() == 1 && self.len >= WHOLE_MAX {
            self.split();
        }
        let place = self.place(value);
        let Some(shard) = self.shards.get_mut(place) else { return };
        match shard.entry(value) {
            Entry::Vacant(vacant) => {
                vacant.insert(Postings::One(slot));
                self.len += 1;
            }
            Entry::Occupied(mut occupied) => occupied.get_mut().add(slot),
        }
    }

    /// Takes a series from those of a value, and the value when it was the last.
    pub(super) fn remove(&mut self, value: u32, slot: Slot) {
        let place = self.place(value);
        let Some(shard) = self.shards.get_mut(place) else { return };
        if shard.get_mut(&value).is_some_and(|postings| postings.remove(slot)) {
            shard.remove(&value);
            self.len -= 1;
        }
    }

    fn split(&mut self) {
        let all = std::mem::take(&mut self.shards);
        self.shards.resize_with(1 << SHARD_BITS, HashMap::new);
        for (value, postings) in all.into_iter().flatten() {
            let place = self.place(value);
            if let Some(shard) = self.shards.get_mut(place) {
                shard.insert(value, postings);
            }
        }
    }
}
