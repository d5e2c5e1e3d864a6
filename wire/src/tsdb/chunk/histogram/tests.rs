//! Chunks as a Prometheus server writes them come back.

use proptest::prelude::*;
use stint_model::STALE_NAN_BITS;

use super::*;
use crate::tsdb::bits::put::{BitWriter, XorWriter};
use crate::tsdb::chunk::{self, Encoding};

/// What the histograms of a chunk share, and whether they are gauges.
#[derive(Clone, Debug)]
struct Shape {
    gauge: bool,
    schema: i32,
    zero_threshold: f64,
    positive: Vec<BucketSpan>,
    negative: Vec<BucketSpan>,
    bounds: Vec<f64>,
}

impl Shape {
    fn buckets(&self) -> usize {
        self.positive.iter().chain(&self.negative).map(|span| span.length as usize).sum()
    }

    fn positive_len(&self) -> usize {
        self.positive.iter().map(|span| span.length as usize).sum()
    }

    fn reset_hint(&self) -> ResetHint {
        if self.gauge { ResetHint::Gauge } else { ResetHint::Unknown }
    }

    fn put(&self, count: usize, out: &mut BitWriter) {
        out.put(count as u64, 16);
        // That there was a reset before a chunk is not what readers go by.
        out.put(if self.gauge { 0b1100_0000 } else { 0b1000_0000 }, 8);
        match self.zero_threshold {
            0.0 => out.put(0, 8),
            power if power.log2().fract() == 0.0 => out.put((power.log2() + 244.0) as u64, 8),
            other => {
                out.put(255, 8);
                out.put(other.to_bits(), 64);
            }
        }
        out.varbit(i64::from(self.schema));
        for spans in [&self.positive, &self.negative] {
            out.varbit_unsigned(spans.len() as u64);
            for span in spans {
                out.varbit_unsigned(u64::from(span.length));
                out.varbit(i64::from(span.offset));
            }
        }
        if self.schema == CUSTOM_BUCKETS_SCHEMA {
            out.varbit_unsigned(self.bounds.len() as u64);
            for bound in &self.bounds {
                let thousandths = bound * 1000.0;
                if thousandths.fract() == 0.0 && (0.0..=33_554_430.0).contains(&thousandths) {
                    out.varbit_unsigned(thousandths as u64 + 1);
                } else {
                    out.put(0, 1);
                    out.put(bound.to_bits(), 64);
                }
            }
        }
    }
}

/// The step of a number, and the change of the step.
#[derive(Clone, Default)]
struct StepWriter {
    before: i64,
    step: i64,
}

impl StepWriter {
    fn put(&mut self, value: i64, out: &mut BitWriter) {
        let step = value.wrapping_sub(self.before);
        out.varbit(step.wrapping_sub(self.step));
        (self.before, self.step) = (value, step);
    }
}

/// One histogram of a shape: time, count, zero count, sum, buckets; a marker has no buckets.
type Row = (i64, u64, u64, f64, Vec<i64>);

fn encode_integers(shape: &Shape, rows: &[Row]) -> Vec<u8> {
    let mut out = BitWriter::default();
    shape.put(rows.len(), &mut out);
    let mut steps = vec![StepWriter::default(); 3 + shape.buckets()];
    let mut sums = XorWriter::default();
    for (number, (at, count, zero, sum, buckets)) in rows.iter().enumerate() {
        if number == 0 {
            out.varbit(*at);
            out.varbit_unsigned(*count);
            out.varbit_unsigned(*zero);
            out.put(sum.to_bits(), 64);
            sums.before = sum.to_bits();
            for bucket in buckets {
                out.varbit(*bucket);
            }
            let heads = [*at, *count as i64, *zero as i64];
            for (step, value) in steps.iter_mut().zip(heads.iter().chain(buckets)) {
                step.before = *value;
            }
            continue;
        }
        for (step, value) in steps.iter_mut().zip([*at, *count as i64, *zero as i64]) {
            step.put(value, &mut out);
        }
        sums.put(*sum, &mut out);
        for (step, value) in steps.iter_mut().skip(3).zip(buckets) {
            step.put(*value, &mut out);
        }
    }
    out.bytes
}

fn encode_floats(shape: &Shape, rows: &[Row]) -> Vec<u8> {
    let mut out = BitWriter::default();
    shape.put(rows.len(), &mut out);
    let mut at_steps = StepWriter::default();
    let mut fields: Vec<XorWriter> = Vec::new();
    fields.resize_with(3 + shape.buckets(), XorWriter::default);
    for (number, (at, count, zero, sum, buckets)) in rows.iter().enumerate() {
        let heads = [*count as f64, *zero as f64, *sum];
        let values = heads.into_iter().chain(buckets.iter().map(|bucket| *bucket as f64));
        if number == 0 {
            out.varbit(*at);
            at_steps.before = *at;
        } else {
            at_steps.put(*at, &mut out);
        }
        for (field, value) in fields.iter_mut().zip(values) {
            if number == 0 {
                out.put(value.to_bits(), 64);
                field.before = value.to_bits();
            } else {
                field.put(value, &mut out);
            }
        }
    }
    out.bytes
}

fn spans() -> impl Strategy<Value = Vec<BucketSpan>> {
    let span = (-300_i32..300, 0_u32..6).prop_map(|(offset, length)| BucketSpan { offset, length });
    prop::collection::vec(span, 0..4)
}

fn shape() -> impl Strategy<Value = Shape> {
    // Zero has no sign here.
    let bound = prop_oneof![
        (0..40_000_000_u32).prop_map(|n| f64::from(n) / 1000.0),
        any::<f64>().prop_map(|bound| bound + 0.0),
    ];
    let zero = prop_oneof![Just(0.0), (-200_i32..9).prop_map(|n| 2_f64.powi(n)), 0.1..0.2_f64];
    let bounds = prop::collection::vec(bound, 0..6);
    (any::<bool>(), -4_i32..9, any::<bool>(), zero, spans(), spans(), bounds).prop_map(
        |(gauge, schema, custom, zero_threshold, positive, negative, bounds)| Shape {
            gauge,
            schema: if custom { CUSTOM_BUCKETS_SCHEMA } else { schema },
            zero_threshold,
            positive,
            negative,
            bounds: if custom { bounds } else { Vec::new() },
        },
    )
}

fn rows(buckets: usize) -> impl Strategy<Value = Vec<Row>> {
    let small = || prop_oneof![0_i64..50, -(1_i64 << 40)..1 << 40];
    let row = (1_i64..100_000, any::<u32>(), any::<u32>(), any::<f64>(), any::<bool>())
        .prop_flat_map(move |row| (Just(row), prop::collection::vec(small(), buckets)));
    (any::<bool>(), prop::collection::vec(row, 1..20)).prop_map(|(ends, rows)| {
        let mut at = 1_700_000_000_000;
        let last = rows.len() - 1;
        let row = |(number, ((gap, count, zero, sum, whole), buckets)): (usize, _)| {
            at += gap;
            let sum = if whole { f64::round(sum) } else { sum };
            if ends && number == last && number > 0 {
                return (at, 0, 0, f64::from_bits(STALE_NAN_BITS), Vec::new());
            }
            (at, u64::from(count), u64::from(zero), sum, buckets)
        };
        rows.into_iter().enumerate().map(row).collect()
    })
}

fn cases() -> impl Strategy<Value = (Shape, Vec<Row>)> {
    shape().prop_flat_map(|shape| {
        let buckets = shape.buckets();
        (Just(shape), rows(buckets))
    })
}

/// The histogram of a row, once with integers, once with floats.
fn histograms(shape: &Shape, row: &Row) -> [Histogram; 2] {
    let (_, count, zero_count, sum, buckets) = row;
    let (positive, negative) = buckets.split_at(shape.positive_len());
    let floats = |counts: &[i64]| counts.iter().map(|count| *count as f64).collect();
    [
        Histogram::Integer(IntegerHistogram {
            reset_hint: shape.reset_hint(),
            schema: shape.schema,
            zero_threshold: shape.zero_threshold,
            zero_count: *zero_count,
            count: *count,
            sum: *sum,
            positive_spans: shape.positive.clone(),
            negative_spans: shape.negative.clone(),
            positive_deltas: positive.to_vec(),
            negative_deltas: negative.to_vec(),
            custom_bounds: shape.bounds.clone(),
        }),
        Histogram::Float(FloatHistogram {
            reset_hint: shape.reset_hint(),
            schema: shape.schema,
            zero_threshold: shape.zero_threshold,
            zero_count: *zero_count as f64,
            count: *count as f64,
            sum: *sum,
            positive_spans: shape.positive.clone(),
            negative_spans: shape.negative.clone(),
            positive_buckets: floats(positive),
            negative_buckets: floats(negative),
            custom_bounds: shape.bounds.clone(),
        }),
    ]
}

fn check(encoding: Encoding, bytes: &[u8], shape: &Shape, rows: &[Row]) {
    let mut out = Columns::default();
    chunk::decode(encoding, bytes, &mut out).unwrap();
    let times: Vec<i64> = rows.iter().map(|row| row.0).collect();
    assert_eq!(out.times.iter().map(|at| at.0).collect::<Vec<_>>(), times);
    let mut found = out.histograms.iter();
    for (number, row) in rows.iter().enumerate() {
        if is_stale(row.3) {
            assert!(is_stale(out.values[number]));
            continue;
        }
        let (at, histogram) = found.next().unwrap();
        assert_eq!(*at, number);
        let [integer, float] = histograms(shape, row);
        let want = if encoding == Encoding::HISTOGRAM { integer } else { float };
        // As text, so that NaN equals NaN.
        assert_eq!(format!("{histogram:?}"), format!("{want:?}"));
    }
    assert!(found.next().is_none());
}

proptest! {
    #[test]
    fn histograms_come_back((shape, rows) in cases()) {
        check(Encoding::HISTOGRAM, &encode_integers(&shape, &rows), &shape, &rows);
        check(Encoding::FLOAT_HISTOGRAM, &encode_floats(&shape, &rows), &shape, &rows);
    }

    #[test]
    fn changed_bytes_do_no_harm((shape, rows) in cases(), at: prop::sample::Index, with: u8) {
        for (encoding, mut bytes) in [
            (Encoding::HISTOGRAM, encode_integers(&shape, &rows)),
            (Encoding::FLOAT_HISTOGRAM, encode_floats(&shape, &rows)),
        ] {
            let at = at.index(bytes.len());
            bytes[at] = with;
            let mut out = Columns::default();
            let _ = chunk::decode(encoding, &bytes, &mut out);
            prop_assert_eq!(out.times.len(), out.values.len());
        }
    }
}

#[test]
fn spans_that_stand_once_do_not_fill_the_memory() {
    let shape = Shape {
        gauge: false,
        schema: 0,
        zero_threshold: 0.0,
        positive: vec![BucketSpan { offset: 0, length: 0 }; 1000],
        negative: Vec::new(),
        bounds: Vec::new(),
    };
    let mut out = BitWriter::default();
    shape.put(65_535, &mut out);
    out.put_bytes(&vec![0; 65_535]);
    let refused = chunk::decode(Encoding::HISTOGRAM, &out.bytes, &mut Columns::default());
    assert_eq!(refused.unwrap_err().what, "more spans than a chunk can have");
}
