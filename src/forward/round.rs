//! What is on its way to an endpoint.

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::AtomicU32;

use stint_model::{Exemplar, Sample, Timestamp};

use crate::budget::admission::GroupIndex;
use crate::budget::group::{Key, shard_of};
use crate::budget::symbols::Numbers;

/// A series as it is sent.
#[derive(Debug)]
pub struct Outgoing {
    /// Its identity at the endpoint.
    pub key: Key,
    /// Its group in the budget.
    pub group: GroupIndex,
    /// The final labels.
    pub labels: Numbers,
    /// Without a budget: the minute in which it was last noted that it is sent.
    pub noted: AtomicU32,
    /// Whether there is another one with the same key.
    pub is_shared: bool,
    /// A hash of the target it comes from.
    pub target: u64,
    /// Whether its values are made here, or say when it is sent, so that they must be known when it is
    /// sent again.
    pub keeps_value: bool,
    /// The request that it was last found in, by the number of its encoding.
    pub request: AtomicU32,
}

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
}

impl Item {
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
    pub shards: Vec<VecDeque<Item>>,
    /// How many items there are.
    pub items: usize,
    /// How many leases had ended when the first of them was added; each held its own then.
    pub ended: Option<u64>,
}

impl Round {
    /// An empty round for `shards` requests in flight.
    pub fn new(shards: usize) -> Self {
        Self { shards: vec![VecDeque::new(); shards.max(1)], items: 0, ended: None }
    }

    /// Adds an item to the shard of its series.
    pub(super) fn push(&mut self, item: Item) {
        let shard = shard_of(item.series.key, self.shards.len());
        if let Some(queue) = self.shards.get_mut(shard) {
            queue.push_back(item);
            self.items += 1;
        }
    }
}
