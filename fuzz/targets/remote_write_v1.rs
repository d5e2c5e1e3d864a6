//! Remote write 1.0: what is decoded and encoded again is the same.

#![no_main]

use libfuzzer_sys::fuzz_target;
use stint_wire::remote_write::v1::{self, Item};

fuzz_target!(|body: &[u8]| {
    let mut encoder = v1::Encoder::new();
    for item in v1::decode(body).map_while(Result::ok) {
        let Item::Series(series) = item else { continue };
        let samples: Vec<_> = series.samples().chain(series.histograms()).flatten().collect();
        encoder.clear();
        let mut again = encoder.encoded_series(&series.label_bytes);
        for sample in &samples {
            again.sample(sample);
        }
        for exemplar in series.exemplars().flatten() {
            again.exemplar(&exemplar);
        }
        drop(again);
        let Some(Ok(Item::Series(back))) = v1::decode(encoder.body()).next() else {
            panic!("an encoded series does not decode");
        };
        assert_eq!(back.label_bytes, series.label_bytes);
        assert_eq!(back.samples().chain(back.histograms()).count(), samples.len());
    }
});
