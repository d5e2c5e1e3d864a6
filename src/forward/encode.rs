//! From items to the bytes of a request.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use bytes::Bytes;
use parking_lot::Mutex;
use stint_model::labels::METRIC_NAME;
use stint_model::{Metadata, Sample, Value};
use stint_wire::remote_write::{Version, v1, v2};
use stint_wire::snappy;

use super::round::{EncodedLabels, Item, Outgoing, Payload};
use super::symbols::Numbers;
use crate::budget::group::{Key, KeyHasher, family_of};

/// Metadata by metric family, as far as it is known.
pub type Families = HashMap<String, Metadata>;

/// A finished request.
#[derive(Clone, Debug)]
pub struct Encoded {
    /// Compressed.
    pub body: Bytes,
    /// Exemplars inside.
    pub exemplars: u64,
}

/// Memory to encode requests in: as much as is used at once, so that there is none for shards that
/// wait for an answer.
#[derive(Debug, Default)]
pub struct Encoders {
    spare: Mutex<Vec<Encoder>>,
    /// Requests encoded so far.
    requests: AtomicU32,
}

/// What one request is encoded with.
#[derive(Debug, Default)]
struct Encoder {
    v1: v1::Encoder,
    v2: v2::Encoder,
    body: Vec<u8>,
}

impl Encoders {
    /// Encoders that are kept.
    const KEPT_MAX: usize = 2;
    /// Bytes of the largest body whose memory is kept.
    const BYTES_MAX: usize = 4 << 20;

    /// Encodes items in order of each series.
    pub fn samples(
        &self,
        items: &[Item],
        version: Version,
        families: &Families,
    ) -> Option<Encoded> {
        let spare = self.spare.lock().pop();
        let mut encoder = spare.unwrap_or_default();
        let exemplars = match version {
            Version::V1 => {
                encoder.v1.clear();
                samples_v1(items, &mut encoder.v1)
            }
            Version::V2 => {
                encoder.v2.clear();
                let exemplars = samples_v2(items, self.next(), families, &mut encoder.v2);
                encoder.v2.finish_into(&mut encoder.body);
                exemplars
            }
        };
        let body = match version {
            Version::V1 => encoder.v1.body(),
            Version::V2 => &encoder.body,
        };
        let (bytes, compressed) = (body.len(), compress(body));
        let mut spare = self.spare.lock();
        if spare.len() < Self::KEPT_MAX && bytes <= Self::BYTES_MAX {
            spare.push(encoder);
        }
        Some(Encoded { body: compressed?, exemplars })
    }

    /// The number of a request; never that of a series that was in none.
    fn next(&self) -> u32 {
        self.requests.fetch_add(1, Ordering::Relaxed).wrapping_add(1).max(1)
    }
}

/// Encodes metadata, for which only the 1.0 message has a place of its own.
pub fn metadata<'a>(families: impl Iterator<Item = (&'a str, &'a Metadata)>) -> Option<Bytes> {
    let mut encoder = v1::Encoder::new();
    for (family, metadata) in families {
        encoder.metadata(family, metadata);
    }
    compress(encoder.body())
}

fn compress(body: &[u8]) -> Option<Bytes> {
    let mut out = Vec::new();
    // Bodies of 4 GiB cannot come together from a few thousand samples.
    snappy::compress_into(body, &mut out).ok()?;
    Some(Bytes::from(out))
}

fn samples_v1(items: &[Item], encoder: &mut v1::Encoder) -> u64 {
    let mut exemplars = 0;
    for run in items.chunk_by(|a, b| Arc::ptr_eq(&a.series, &b.series)) {
        let Some(first) = run.first() else { continue };
        let EncodedLabels::Bytes(labels) = &first.series.encoded else { continue };
        let mut series = encoder.encoded_series(labels);
        for item in run {
            match &item.payload {
                Payload::Sample(sample) | Payload::Made(sample) => {
                    series.sample(sample);
                }
                Payload::Marker(at) => {
                    series.sample(&Sample::stale(*at));
                }
                Payload::Exemplar(exemplar) => {
                    series.exemplar(exemplar);
                    exemplars += 1;
                }
            }
        }
    }
    exemplars
}

fn samples_v2(items: &[Item], request: u32, families: &Families, encoder: &mut v2::Encoder) -> u64 {
    let mut exemplars = 0;
    let mut described = Described::default();
    let texts = items.first().and_then(|item| match &item.series.encoded {
        EncodedLabels::Numbers(numbers) => Some(numbers.symbols().read()),
        EncodedLabels::Bytes(_) => None,
    });
    let Some(texts) = texts else { return 0 };
    let order = in_series(items, request);
    let mut samples: Vec<&Item> = Vec::new();
    for run in order.chunk_by(|a, b| a.series.key == b.series.key) {
        let Some(first) = run.first() else { continue };
        let EncodedLabels::Numbers(numbers) = &first.series.encoded else { continue };
        let metadata = described.metadata(&first.series, numbers, families);
        samples.clear();
        samples.extend(run.iter().filter(|item| !matches!(item.payload, Payload::Exemplar(_))));
        // A message's series holds either floats or histograms.
        let parts = samples.chunk_by(|a, b| is_histogram(a) == is_histogram(b));
        for (number, samples) in parts.enumerate() {
            let text = |number| texts.get(number);
            let mut series = encoder.numbered_series(numbers.iter(), text, metadata);
            for item in samples {
                match &item.payload {
                    Payload::Sample(sample) | Payload::Made(sample) => series.sample(sample),
                    Payload::Marker(at) => series.sample(&Sample::stale(*at)),
                    Payload::Exemplar(_) => &mut series,
                };
            }
            for item in run.iter().filter(|_| number == 0) {
                if let Payload::Exemplar(exemplar) = &item.payload {
                    series.exemplar(exemplar);
                    exemplars += 1;
                }
            }
        }
    }
    exemplars
}

/// The items of each series together, in order of the first one of each: that of scrapes, in which
/// neighbours have most in common.
fn in_series(items: &[Item], request: u32) -> Vec<&Item> {
    let mut order: Vec<&Item> = items.iter().collect();
    // Most requests have each series once. Who encodes a series has it alone: it is in one request at
    // a time.
    let is_there = |item: &Item| {
        let before = item.series.request.load(Ordering::Relaxed);
        item.series.request.store(request, Ordering::Relaxed);
        before == request || item.series.is_shared
    };
    // All are marked, whether one is there twice or not.
    if items.iter().filter(|item| is_there(item)).count() == 0 {
        return order;
    }
    let mut first: HashMap<Key, usize, KeyHasher> = HashMap::default();
    first.reserve(items.len());
    for (at, item) in items.iter().enumerate() {
        first.entry(item.series.key).or_insert(at);
    }
    order.sort_by_key(|item| first.get(&item.series.key));
    order
}

/// Metadata of the last series, since that of the next one is often the same.
#[derive(Default)]
struct Described<'a> {
    /// The first label, by numbers: mostly the metric's name.
    first: Option<(u32, u32)>,
    metadata: Option<&'a Metadata>,
}

impl<'a> Described<'a> {
    fn metadata(
        &mut self,
        series: &Outgoing,
        numbers: &Numbers,
        families: &'a Families,
    ) -> Option<&'a Metadata> {
        let mut iter = numbers.iter();
        let first = iter.next().zip(iter.next());
        let labels = &series.labels;
        // Labels in capitals come before the name.
        let is_name = labels.iter().next().is_some_and(|(name, _)| name == METRIC_NAME);
        if first != self.first || !is_name {
            self.first = first.filter(|_| is_name);
            let found = labels.metric_name().and_then(|name| families.get(name));
            self.metadata = found.or_else(|| families.get(family_of(labels)));
        }
        self.metadata
    }
}

fn is_histogram(item: &Item) -> bool {
    match &item.payload {
        Payload::Sample(sample) | Payload::Made(sample) => {
            matches!(sample.value, Value::Histogram(_))
        }
        Payload::Marker(_) | Payload::Exemplar(_) => false,
    }
}

/// Whether every item of the two belongs to the same series.
pub(super) fn is_same(a: &Arc<Outgoing>, b: &Arc<Outgoing>) -> bool {
    a.key == b.key
}
