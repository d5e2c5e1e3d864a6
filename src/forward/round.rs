//! What is on its way to an endpoint.

use std::sync::Arc;

use stint_model::{Exemplar, Sample, Timestamp};

pub use crate::budget::admission::Outgoing;
use crate::budget::group::shard_of;

/// The label by which receivers tell apart replicas that send the same; they take it away.
pub const REPLICA: &str = "__replica__";

/// What is sent of a series.
#[derive(Clone, Debug)]
pub enum Payload {
    /// A sample.
    Sample(Sample),
    /// A stale marker for a series that is forwarded no more; not a stored sample.
    Marker(Timestamp),
    /// A sample of an aggregate; not a stored sample.
    Made(Sample),
    /// An exemplar.
    Exemplar(Exemplar),
}

/// One thing to send.
#[derive(Clone, Debug)]
pub struct Item {
    /// Whose it is.
    pub series: Arc<Outgoing>,
    /// What it is.
    pub payload: Payload,
    /// An earlier run may have delivered it.
    pub maybe_sent: bool,
    /// Something of what is the same series at the endpoint may come before it in its round.
    pub is_repeated: bool,
    /// Without a budget: it has to be noted that its series is sent. Of a series it is one of many.
    pub is_noted: bool,
    /// The number of its metric's name; after all others where it has none.
    pub metric: u32,
}

impl Item {
    /// What is sent of a series, of which nothing else is known in its round.
    pub fn new(series: &Arc<Outgoing>, payload: Payload, maybe_sent: bool) -> Self {
        let metric = series.labels.metric().unwrap_or(u32::MAX);
        let (is_repeated, is_noted) = (true, true);
        Self { series: Arc::clone(series), payload, maybe_sent, is_repeated, is_noted, metric }
    }

    /// Whether it is a stored sample, of which every one is counted.
    pub fn is_sample(&self) -> bool {
        matches!(self.payload, Payload::Sample(_))
    }

    /// The time it is about.
    pub fn at(&self) -> Timestamp {
        match &self.payload {
            Payload::Sample(sample) | Payload::Made(sample) => sample.at,
            Payload::Marker(at) => *at,
            Payload::Exemplar(exemplar) => exemplar.at,
        }
    }
}

/// What is sent at once: the items of each shard in order.
#[derive(Debug, Default)]
pub struct Round {
    /// By shard.
    pub shards: Vec<Vec<Item>>,
    /// How many items there are.
    pub items: usize,
    /// Its number, once something was routed for it: no other round of the router has it.
    pub number: Option<u32>,
    /// How many leases had ended when the first of them was added; each held its own then.
    pub ended: Option<u64>,
}

impl Round {
    /// An empty round for `shards` requests in flight, with room for `items` in all.
    pub fn new(shards: usize, items: usize) -> Self {
        let shards = shards.max(1);
        let room = items.div_ceil(shards);
        let shards = (0..shards).map(|_| Vec::with_capacity(room)).collect();
        Self { shards, items: 0, number: None, ended: None }
    }

    /// Adds an item to the shard of its series.
    pub(super) fn push(&mut self, item: Item) {
        // With one shard, the series need not be looked at.
        let shard = match self.shards.len() {
            0 | 1 => 0,
            shards => shard_of(item.series.key, shards),
        };
        if let Some(queue) = self.shards.get_mut(shard) {
            queue.push(item);
            self.items += 1;
        }
    }
}
