//! From items to the bytes of a request.

use std::collections::HashMap;
use std::sync::Arc;

use bytes::Bytes;
use parking_lot::Mutex;
use stint_model::labels::QUANTILE;
use stint_model::{Metadata, Sample, Value};
use stint_wire::remote_write::{Version, v1, v2};
use stint_wire::snappy;

use super::round::{Item, Outgoing, Payload};
use crate::budget::group::{Key, KeyHasher, family_of_metric};

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
}

/// What one request is encoded with.
#[derive(Debug, Default)]
struct Encoder {
    v1: v1::Encoder,
    v2: v2::Encoder,
    order: Order,
    compressed: Vec<u8>,
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
        let Encoder { v1, v2, order, compressed } = &mut encoder;
        let exemplars = match version {
            Version::V1 => {
                v1.clear();
                samples_v1(items, v1)
            }
            Version::V2 => {
                v2.clear();
                order.of(items);
                samples_v2(items, order, families, v2)
            }
        };
        let body = match version {
            Version::V1 => v1.body(),
            Version::V2 => v2.finish(),
        };
        // Bodies of 4 GiB cannot come together from a few thousand samples.
        let outcome = snappy::compress_within(body, compressed);
        let bytes = body.len();
        // What waits for an answer takes no more room than it needs.
        let body = outcome.ok().map(Bytes::copy_from_slice);
        let mut spare = self.spare.lock();
        if spare.len() < Self::KEPT_MAX && bytes <= Self::BYTES_MAX {
            spare.push(encoder);
        }
        Some(Encoded { body: body?, exemplars })
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
    let Some(first) = items.first() else { return 0 };
    let texts = first.series.labels.symbols().read();
    for run in items.chunk_by(|a, b| Arc::ptr_eq(&a.series, &b.series)) {
        let Some(first) = run.first() else { continue };
        let mut series = encoder.series(first.series.labels.pairs(&texts));
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

fn samples_v2(
    items: &[Item],
    order: &Order,
    families: &Families,
    encoder: &mut v2::Encoder,
) -> u64 {
    let mut exemplars = 0;
    let mut described = None;
    let Some(first) = items.first() else { return 0 };
    let texts = first.series.labels.symbols().read();
    let is_same = |a: &u32, b: &u32| {
        let key = |at: &u32| items.get(*at as usize).map(|item| item.series.key);
        order.repeats && key(a) == key(b)
    };
    for run in order.places.chunk_by(is_same) {
        let Some(first) = items_at(items, run).next() else { continue };
        let (numbers, metric) = (&first.series.labels, first.metric);
        // A metric's series follow each other.
        if described.replace(metric) != Some(metric) {
            let name = texts.get(metric);
            let has_quantile = || numbers.value(&texts, QUANTILE).is_some();
            let family = || families.get(family_of_metric(name, has_quantile));
            encoder.describe(families.get(name).or_else(family));
        }
        let text = |number| texts.get(number);
        let samples = items_at(items, run).filter(|item| !is_exemplar(item));
        // A message's series holds either floats or histograms.
        let mut samples = samples.peekable();
        let mut with_exemplars = true;
        while let Some(kind) = samples.peek().map(|item| is_histogram(item)) {
            let mut series = encoder.numbered_series(numbers.iter(), text);
            while let Some(item) = samples.next_if(|item| is_histogram(item) == kind) {
                match &item.payload {
                    Payload::Sample(sample) | Payload::Made(sample) => series.sample(sample),
                    Payload::Marker(at) => series.sample(&Sample::stale(*at)),
                    Payload::Exemplar(_) => &mut series,
                };
            }
            for item in items_at(items, run).filter(|_| with_exemplars) {
                if let Payload::Exemplar(exemplar) = &item.payload {
                    series.exemplar(exemplar);
                    exemplars += 1;
                }
            }
            with_exemplars = false;
        }
    }
    exemplars
}

fn items_at<'i>(items: &'i [Item], places: &'i [u32]) -> impl Iterator<Item = &'i Item> {
    places.iter().filter_map(|at| items.get(*at as usize))
}

/// The order in which items are encoded: by metric, in the order in which the metrics come first, those of
/// each series together, the series in order of their first items: that of scrapes. Neighbours have most
/// in common then, and what they have in common is sent once.
#[derive(Debug, Default)]
struct Order {
    /// Places of the items.
    places: Vec<u32>,
    /// Whether a series may have several items.
    repeats: bool,
    /// What each metric's name has by its number.
    metrics: HashMap<u32, u32, KeyHasher>,
    /// The metric of each item.
    of_items: Vec<u32>,
    /// Where the next item of each metric goes.
    next: Vec<u32>,
}

impl Order {
    fn of(&mut self, items: &[Item]) {
        self.metrics.clear();
        self.of_items.clear();
        self.next.clear();
        let mut last = None;
        for item in items {
            // Buckets of a histogram follow each other.
            let metric = match last {
                Some((number, metric)) if number == item.metric => metric,
                _ => {
                    let new = self.next.len() as u32;
                    let metric = *self.metrics.entry(item.metric).or_insert(new);
                    if metric == new {
                        self.next.push(0);
                    }
                    metric
                }
            };
            last = Some((item.metric, metric));
            self.of_items.push(metric);
            if let Some(count) = self.next.get_mut(metric as usize) {
                *count += 1;
            }
        }
        let mut start = 0;
        for next in &mut self.next {
            start += std::mem::replace(next, start);
        }
        self.places.clear();
        self.places.resize(items.len(), 0);
        for (at, metric) in (0..).zip(&self.of_items) {
            let Some(next) = self.next.get_mut(*metric as usize) else { continue };
            if let Some(place) = self.places.get_mut(*next as usize) {
                *place = at;
            }
            *next += 1;
        }
        // Most requests have each series once.
        self.repeats = items.iter().any(|item| item.is_repeated);
        if self.repeats {
            self.join_series(items);
        }
    }

    /// Brings the items of each series together.
    fn join_series(&mut self, items: &[Item]) {
        let mut first: HashMap<Key, u32, KeyHasher> = HashMap::default();
        first.reserve(items.len());
        let firsts: Vec<u32> = (0..)
            .zip(items)
            .map(|(at, item)| *first.entry(item.series.key).or_insert(at))
            .collect();
        let place_of = |at: &u32| {
            let (of_items, at) = (&self.of_items, *at as usize);
            (of_items.get(at).copied(), firsts.get(at).copied())
        };
        self.places.sort_by_key(place_of);
    }
}

fn is_exemplar(item: &Item) -> bool {
    matches!(item.payload, Payload::Exemplar(_))
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

#[cfg(test)]
mod tests {
    use stint_model::{Exemplar, Labels, MetricType, Timestamp};

    use super::*;
    use crate::budget::admission::GroupIndex;
    use crate::budget::symbols::Symbols;

    fn outgoing(symbols: &Arc<Symbols>, name: &str, instance: &str) -> Arc<Outgoing> {
        let labels = Labels::from_pairs([("__name__", name), ("instance", instance)]);
        Arc::new(Outgoing {
            key: Key::of(&labels),
            group: GroupIndex::default(),
            labels: symbols.numbers(&labels),
            is_shared: false,
            target: 0,
            keeps_value: false,
        })
    }

    fn item(series: &Arc<Outgoing>, payload: Payload) -> Item {
        Item::new(series, payload, false)
    }

    fn float(series: &Arc<Outgoing>, at: i64) -> Item {
        item(series, Payload::Sample(Sample::float(Timestamp(at), at as f64)))
    }

    /// Each series of the message: its labels, kind, times of its samples, and exemplars.
    fn decoded(body: &[u8]) -> Vec<(String, MetricType, Vec<i64>, usize)> {
        let mut plain = Vec::new();
        snappy::decompress_limited(body, 1 << 20, &mut plain).unwrap();
        let request = v2::decode(&plain).unwrap();
        let series = request.series().map(|series| {
            let series = series.unwrap();
            let mut labels = Vec::new();
            series.labels_into(&mut labels).unwrap();
            let times = series.samples().map(|sample| sample.unwrap().at.0).collect();
            let kind = series.metadata().unwrap().kind;
            (format!("{} {}", labels[0].1, labels[1].1), kind, times, series.exemplars().count())
        });
        series.collect()
    }

    #[test]
    fn the_series_of_a_metric_follow_each_other() {
        let symbols = Arc::<Symbols>::default();
        let [a, b] = ["a", "b"]
            .map(|instance| ["up", "load", "zzz"].map(|name| outgoing(&symbols, name, instance)));
        let exemplar = Exemplar { labels: Labels::default(), value: 1.0, at: Timestamp(2) };
        let items = vec![
            float(&a[0], 1),
            float(&a[1], 1),
            float(&b[0], 1),
            float(&b[1], 1),
            float(&b[2], 1),
            // The next scrape.
            float(&a[0], 2),
            item(&a[0], Payload::Exemplar(exemplar)),
            item(&a[1], Payload::Marker(Timestamp(2))),
        ];
        let of = |kind| Metadata { kind, help: "help".to_owned(), unit: String::new() };
        let families = Families::from([
            ("up".to_owned(), of(MetricType::Gauge)),
            ("load".to_owned(), of(MetricType::Counter)),
        ]);
        let encoders = Encoders::default();
        let (gauge, counter) = (MetricType::Gauge, MetricType::Counter);
        let expected = [
            ("up a".to_owned(), gauge, vec![1, 2], 1),
            ("up b".to_owned(), gauge, vec![1], 0),
            ("load a".to_owned(), counter, vec![1, 2], 0),
            ("load b".to_owned(), counter, vec![1], 0),
            ("zzz b".to_owned(), MetricType::Unknown, vec![1], 0),
        ];
        // The same encoder again, after it has seen the series.
        for _ in 0..2 {
            let encoded = encoders.samples(&items, Version::V2, &families).unwrap();
            assert_eq!(encoded.exemplars, 1);
            assert_eq!(decoded(&encoded.body), expected);
        }
        let mut items = items;
        items.truncate(5);
        for item in &mut items {
            item.is_repeated = false;
        }
        let once = encoders.samples(&items, Version::V2, &families).unwrap();
        let expected = expected.map(|(series, kind, _, _)| (series, kind, vec![1], 0));
        assert_eq!(decoded(&once.body), expected);
    }
}
