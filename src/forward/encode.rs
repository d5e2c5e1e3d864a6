//! From items to the bytes of a request.

use std::collections::HashMap;
use std::sync::Arc;

use bytes::Bytes;
use stint_model::{Labels, Metadata, Sample, Value};
use stint_wire::remote_write::{Version, v1, v2};
use stint_wire::snappy;

use super::route::{Item, Outgoing, Payload};
use crate::budget::group::membership;

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

fn as_sample(payload: &Payload) -> Option<Sample> {
    match payload {
        Payload::Sample(sample) | Payload::Made(sample) => Some(sample.clone()),
        Payload::Marker(at) => Some(Sample::stale(*at)),
        Payload::Exemplar(_) => None,
    }
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
    let mut order: Vec<&Item> = items.iter().collect();
    order.sort_by_key(|item| item.series.key);
    let mut exemplars = 0;
    for run in order.chunk_by(|a, b| a.series.key == b.series.key) {
        let Some(first) = run.first() else { continue };
        let metadata = family_of(&first.series.labels, families);
        let all: Vec<Sample> = run.iter().filter_map(|item| as_sample(&item.payload)).collect();
        // A message's series holds either floats or histograms.
        for (number, samples) in all.chunk_by(|a, b| is_histogram(a) == is_histogram(b)).enumerate()
        {
            let mut series = encoder.series(&first.series.labels, metadata);
            for sample in samples {
                series.sample(sample);
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

fn is_histogram(sample: &Sample) -> bool {
    matches!(sample.value, Value::Histogram(_))
}

/// The metadata of a series' family.
fn family_of<'a>(labels: &Labels, families: &'a Families) -> Option<&'a Metadata> {
    let name = labels.metric_name()?;
    families.get(name).or_else(|| families.get(&membership(labels).family))
}

/// Whether every item of the two belongs to the same series.
pub(super) fn is_same(a: &Arc<Outgoing>, b: &Arc<Outgoing>) -> bool {
    a.key == b.key
}
