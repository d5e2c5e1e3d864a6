use super::*;
use crate::codec::times::Known;
use proptest::prelude::*;

fn taken(reader: &mut Reader<'_>) -> Result<OpenChunk, Corruption> {
    OpenChunk::take(reader, &mut Columns::default())
}

fn columns(samples: &[Sample]) -> Columns {
    let mut columns = Columns::default();
    for sample in samples {
        match &sample.value {
            Value::Float(value) => columns.push_float(sample.at, *value),
            Value::Stale => columns.push_float(sample.at, f64::from_bits(STALE_NAN_BITS)),
            Value::Histogram(h) => columns.push_histogram(sample.at, Arc::clone(h)),
        }
        if let Some(started) = sample.started {
            columns.set_last_start(started);
        }
    }
    columns
}

fn value() -> impl Strategy<Value = Value> {
    prop_oneof![
        4 => Just(Value::Float(1.0)),
        2 => (0..1000_i64).prop_map(|n| Value::Float(n as f64)),
        2 => (-1000..1000_i64).prop_map(|n| Value::Float(n as f64 / 10.0)),
        2 => (0..1_i64 << 54).prop_map(|n| Value::Float(n as f64 / 1000.0)),
        2 => any::<u64>().prop_map(|bits| Value::from_wire(f64::from_bits(bits))),
        1 => Just(Value::Stale),
        1 => (0..9_u64).prop_map(|count| Value::Histogram(Arc::new(Histogram::Integer(
            stint_model::histogram::IntegerHistogram { count, ..Default::default() },
        )))),
    ]
}

/// What is read of a chunk that was packed; nobody sees the difference.
fn packed_and_read(chunk: &OpenChunk, packed: &OpenChunk) -> Result<OpenChunk, TestCaseError> {
    let mut bytes = Vec::new();
    packed.put(&mut bytes);
    for short in 0..bytes.len() {
        prop_assert!(taken(&mut Reader::new(&bytes[..short])).is_err());
    }
    let back = taken(&mut Reader::new(&bytes)).unwrap();
    prop_assert!(back.is_packed() && back.packed().is_none());
    for count in [0, chunk.count() / 2, chunk.count()] {
        let (mut got, mut want) = (Columns::default(), Columns::default());
        back.decode(count, &mut Known::default(), 0, &mut got);
        chunk.decode(count, &mut Known::default(), 0, &mut want);
        prop_assert_eq!(&got.times, &want.times);
        let bits = |c: &Columns| c.values.iter().map(|v| v.to_bits()).collect::<Vec<_>>();
        prop_assert_eq!(bits(&got), bits(&want));
    }
    let mut again = back.clone();
    again.go_on();
    let state = |c: &OpenChunk| (c.bytes().to_vec(), c.first, c.last, c.bits, c.interval, c.run);
    prop_assert_eq!(state(&again), state(chunk));
    Ok(back)
}

proptest! {
    #[test]
    fn samples_come_back(
        start: i32,
        steps in prop::collection::vec(
            (prop_oneof![8 => Just(15_000_i64), 2 => 1..100_000_i64, 1 => 1..1_i64 << 40], value(), prop::option::weighted(0.2, any::<i64>())),
            1..300,
        ),
        cut in 0..300_u16,
    ) {
        let mut at = i64::from(start);
        let mut chunk = OpenChunk::default();
        let mut samples = Vec::new();
        let length = steps.len();
        for (number, (step, value, started)) in steps.into_iter().enumerate() {
            if number == length / 2 {
                // What follows does not notice that the chunk was written and read.
                let mut bytes = Vec::new();
                chunk.put(&mut bytes);
                for short in 0..bytes.len() {
                    prop_assert!(taken(&mut Reader::new(&bytes[..short])).is_err());
                }
                let mut reader = Reader::new(&bytes);
                chunk = taken(&mut reader).unwrap();
                prop_assert!(reader.is_empty());
                if let Some(packed) = chunk.packed() {
                    chunk = packed_and_read(&chunk, &packed)?;
                }
            }
            let sample = Sample { at: Timestamp(at), started: started.map(Timestamp), value };
            chunk.push(&sample);
            prop_assert_eq!(format!("{:?}", chunk.last_value()), format!("{:?}", Some(&sample.value)));
            samples.push(sample);
            at += step;
        }
        for count in [cut.min(chunk.count()), chunk.count()] {
            let mut got = Columns::default();
            chunk.decode(count, &mut Known::default(), 0, &mut got);
            let want = columns(&samples[..usize::from(count)]);
            prop_assert_eq!(&got.times, &want.times);
            prop_assert_eq!(&got.histograms, &want.histograms);
            prop_assert_eq!(&got.starts, &want.starts);
            let bits = |c: &Columns| c.values.iter().map(|v| v.to_bits()).collect::<Vec<_>>();
            let floats = |c: &Columns| {
                let mut bits = bits(c);
                c.histograms.iter().for_each(|(row, _)| bits[*row] = 0);
                bits
            };
            prop_assert_eq!(floats(&got), floats(&want));
        }
    }
}

#[test]
fn a_packed_chunk_takes_half_the_bytes() {
    let mut chunk = OpenChunk::default();
    for number in 0..100_i64 {
        let value = (number * 50 + number * 7919 % 101) as f64;
        chunk.push(&Sample::float(Timestamp(1_700_000_000_000 + number * 15_000), value));
    }
    let packed = chunk.packed().unwrap();
    assert!(packed.used * 2 < chunk.used, "{} of {} bytes", packed.used, chunk.used);
}

#[test]
fn a_packed_chunk_that_says_otherwise_is_refused() {
    let mut chunk = OpenChunk::default();
    for number in 0..60_i64 {
        chunk.push(&Sample::float(Timestamp(number * 15_000), (number * number) as f64));
    }
    let packed = chunk.packed().unwrap();
    let taken = |packed: &OpenChunk| {
        let mut bytes = Vec::new();
        packed.put(&mut bytes);
        OpenChunk::take(&mut Reader::new(&bytes), &mut Columns::default())
    };
    assert!(taken(&packed).is_ok());
    assert!(taken(&OpenChunk { last: 5, ..packed.clone() }).is_err());
    assert!(taken(&OpenChunk { first: 5, ..packed.clone() }).is_err());
    assert!(taken(&OpenChunk { bits: 5, ..packed.clone() }).is_err());
    assert!(taken(&OpenChunk { count: 59, ..packed.clone() }).is_err());
    assert!(taken(&OpenChunk { last_is_histogram: true, ..packed.clone() }).is_err());
}

#[test]
fn what_repeats_takes_no_bytes() {
    let mut chunk = OpenChunk::default();
    for number in 0..120 {
        chunk.push(&Sample::float(Timestamp(1_700_000_000_000 + number * 15_000), 3.25));
    }
    assert!(chunk.used < 16, "{} bytes", chunk.used);
}

#[test]
fn few_decimals_take_few_bytes() {
    let mut chunk = OpenChunk::default();
    for number in 0..100 {
        let value = 123_456.25 + (number * 7 % 31) as f64 / 100.0;
        chunk.push(&Sample::float(Timestamp(number * 15_000), value));
    }
    assert!(chunk.used < 320, "{} bytes", chunk.used);
    assert!(chunk.room.len() < chunk.used as usize * 4 / 3, "{} bytes", chunk.room.len());
}
