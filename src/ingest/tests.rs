use parking_lot::Mutex;
use stint_model::clock::SimClock;
use stint_model::{Exemplar, Exemplars, Labels, Sample, SeriesRef};

use super::*;

/// Keeps what it is given and rejects samples whose value is negative.
#[derive(Default)]
struct Recorder {
    batches: Mutex<Vec<Batch>>,
    broken: bool,
}

impl Appender for Recorder {
    fn append(&self, batch: &Batch) -> Result<Appended, AppendError> {
        if self.broken {
            return Err(AppendError::Closed);
        }
        self.batches.lock().push(batch.clone());
        let mut outcome = Appended::default();
        for (row, content) in batch.rows.iter().enumerate() {
            outcome.refs.push(Some(SeriesRef(content.sample.at.0 as u64)));
            if content.sample.value == stint_model::Value::Float(-1.0) {
                outcome.rejected.push(Rejected { row, reason: RejectReason::OutOfOrder });
            }
        }
        Ok(outcome)
    }
}

const NOW: Timestamp = Timestamp(1_000_000);

fn pipeline(store: Arc<dyn Appender>) -> (Pipeline, Metrics) {
    let metrics = Metrics::new();
    let limits = Limits { labels_max: 2, ..Limits::default() };
    let clock = Arc::new(SimClock::at(NOW));
    (Pipeline::new(store, clock, limits, &metrics), metrics)
}

fn labels(pairs: &[(&str, &str)]) -> Labels {
    Labels::from_pairs(pairs.iter().copied())
}

fn sample(at: i64, value: f64) -> Sample {
    Sample::float(Timestamp(at), value)
}

#[test]
fn refused_rows_are_named_as_in_the_original_batch() {
    let store = Arc::new(Recorder::default());
    let (pipeline, metrics) = pipeline(store.clone());
    let mut batch = Batch { out_of_order_window: Span(7), ..Batch::default() };
    batch.push(labels(&[("__name__", "far")]), sample(NOW.0 + 600_001, 1.0));
    batch.push(labels(&[("__name__", "good")]), sample(11, 1.0));
    batch.push(labels(&[("__name__", "large"), ("a", "1"), ("b", "2")]), sample(12, 1.0));
    batch.push(labels(&[("__name__", "late")]), sample(13, -1.0));
    for row in [0, 3] {
        let exemplar = Exemplar { labels: Labels::default(), value: 1.0, at: NOW };
        batch.exemplars.push(Exemplars { row, exemplars: vec![exemplar] });
    }

    let outcome = pipeline.source("test").append(&batch).unwrap();

    assert_eq!(outcome.refs, [None, Some(SeriesRef(11)), None, Some(SeriesRef(13))]);
    let rejected: Vec<_> = outcome.rejected.iter().map(|one| (one.row, one.reason)).collect();
    let expected = [
        (0, RejectReason::TooFarInFuture),
        (2, RejectReason::LabelLimit),
        (3, RejectReason::OutOfOrder),
    ];
    assert_eq!(rejected, expected);
    let passed = store.batches.lock().pop().unwrap();
    assert_eq!((passed.rows.len(), passed.out_of_order_window), (2, Span(7)));
    let rows: Vec<usize> = passed.exemplars.iter().map(|exemplars| exemplars.row).collect();
    assert_eq!(rows, [1], "the exemplar of a refused row goes with it");
    let text = metrics.render();
    assert!(text.contains("stint_ingest_samples_total{source=\"test\"} 1\n"), "{text}");
    let late = "stint_ingest_rejected_samples_total{reason=\"out_of_order\",source=\"test\"} 1\n";
    assert!(text.contains(late), "{text}");
}

#[test]
fn a_clean_batch_passes_untouched() {
    let store = Arc::new(Recorder::default());
    let (pipeline, _metrics) = pipeline(store.clone());
    let mut batch = Batch::default();
    batch.push(labels(&[("__name__", "a")]), sample(NOW.0 + 600_000, 1.0));
    batch.push_known(SeriesRef(4), sample(5, 2.0));
    pipeline.source("test").append(&batch).unwrap();
    assert_eq!(store.batches.lock().as_slice(), [batch]);
}

#[test]
fn a_failure_of_the_store_is_returned_and_counted() {
    let store = Arc::new(Recorder { broken: true, ..Recorder::default() });
    let (pipeline, metrics) = pipeline(store);
    let mut batch = Batch::default();
    batch.push_known(SeriesRef(1), sample(5, 2.0));
    assert_eq!(pipeline.source("test").append(&batch), Err(AppendError::Closed));
    let text = metrics.render();
    assert!(text.contains("stint_ingest_failed_batches_total{source=\"test\"} 1\n"), "{text}");
}

#[test]
fn a_failure_that_lasts_is_told_once() {
    let trouble = Trouble::default();
    assert!(!trouble.ended());
    assert_eq!([trouble.began(), trouble.began()], [true, false]);
    assert_eq!([trouble.ended(), trouble.ended()], [true, false]);
    assert!(trouble.began());
}
