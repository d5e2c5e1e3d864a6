//! From items to the bytes of a request.

use std::collections::HashMap;
use std::sync::Arc;

use bytes::Bytes;
use stint_model::{Labels, Metadata, Sample, Value};
use stint_wire::remote_write::{Version, v1, v2};
use stint_wire::snappy;

use super::route::{Item, Outgoing, Payload};
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

/// Encodes items in order of each series.
pub fn samples(items: &[Item], version: Version, families: &Families) -> Option<Encoded> {
    let mut body = Vec::new();
    let exemplars = match version {
        Version::V1 => {
            let mut encoder = v1::Encoder::new();
            let exemplars = samples_v1(items, &mut encoder);
            body.extend_from_slice(encoder.body());
            exemplars
        }
        Version::V2 => {
            let mut encoder = v2::Encoder::new();
            let exemplars = samples_v2(items, families, &mut encoder);
            encoder.finish_into(&mut body);
            exemplars
        }
    };
    Some(Encoded { body: compress(&body)?, exemplars })
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
        let mut series = encoder.encoded_series(&first.series.label_bytes);
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

fn samples_v2(items: &[Item], families: &Families, encoder: &mut v2::Encoder) -> u64 {
    let mut exemplars = 0;
    let mut described = Described::default();
    let order = in_series(items);
    let mut samples: Vec<&Item> = Vec::new();
    for run in order.chunk_by(|a, b| a.series.key == b.series.key) {
        let Some(first) = run.first() else { continue };
        let metadata = described.metadata(&first.series.labels, families);
        samples.clear();
        samples.extend(run.iter().filter(|item| !matches!(item.payload, Payload::Exemplar(_))));
        // A message's series holds either floats or histograms.
        let parts = samples.chunk_by(|a, b| is_histogram(a) == is_histogram(b));
        for (number, samples) in parts.enumerate() {
            let mut series = encoder.series(&first.series.labels, metadata);
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
fn in_series(items: &[Item]) -> Vec<&Item> {
    let mut first: HashMap<Key, usize, KeyHasher> = HashMap::default();
    first.reserve(items.len());
    let mut repeats = false;
    for (at, item) in items.iter().enumerate() {
        repeats |= *first.entry(item.series.key).or_insert(at) != at;
    }
    let mut order: Vec<&Item> = items.iter().collect();
    if repeats {
        order.sort_by_key(|item| first.get(&item.series.key));
    }
    order
}

/// Metadata of the last series, since that of the next one is often the same.
#[derive(Default)]
struct Described<'a> {
    name: Option<&'a str>,
    metadata: Option<&'a Metadata>,
}

impl<'a> Described<'a> {
    fn metadata(&mut self, labels: &'a Labels, families: &'a Families) -> Option<&'a Metadata> {
        let name = labels.metric_name();
        if name != self.name {
            self.name = name;
            let found = name.and_then(|name| families.get(name));
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
