//! Files of a Prometheus data folder: index, chunks, tombstones, meta.

#![no_main]

use libfuzzer_sys::fuzz_target;
use stint_wire::tsdb::index::{Index, SeriesEntry};
use stint_wire::tsdb::meta::BlockMeta;
use stint_wire::tsdb::segment::{BlockSegment, HeadSegment};
use stint_wire::tsdb::tombstones;

fuzz_target!(|bytes: &[u8]| {
    let _ = tombstones::read(bytes);
    let _ = BlockMeta::parse(bytes);
    if let Ok(segment) = BlockSegment::open(bytes) {
        let _ = segment.chunk(8);
    }
    if let Ok(chunks) = HeadSegment::open(bytes) {
        let _ = chunks.count();
    }
    let Ok(index) = Index::open(bytes) else { return };
    let mut entry = SeriesEntry::default();
    let _ = index.series_without_metric();
    for metric in index.metrics() {
        let Ok(series) = index.series_of(metric) else { continue };
        for number in series {
            if index.series(number, &mut entry).is_ok() {
                let _ = index.labels(&entry);
            }
        }
    }
});
