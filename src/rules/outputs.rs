//! What a rule has written, so that its series get a staleness marker when they end.

use std::collections::HashMap;

use foldhash::fast::RandomState;
use stint_model::{
    AppendError, Appender, Batch, Labels, RejectReason, Row, Sample, SeriesKey, SeriesRef,
    Timestamp, Value,
};

/// The series of one rule.
#[derive(Debug, Default)]
pub struct Outputs {
    written: HashMap<Labels, Written, RandomState>,
    /// From what the expression shows to what is stored.
    renamed: HashMap<Labels, Renamed, RandomState>,
    round: u64,
}

#[derive(Clone, Copy, Debug)]
struct Written {
    series: Option<SeriesRef>,
    round: u64,
}

#[derive(Debug)]
struct Renamed {
    to: Labels,
    round: u64,
}

/// What became of the samples of a rule.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Stored {
    /// How many were refused, by reason, staleness markers apart.
    pub refused: Vec<(RejectReason, usize)>,
}

impl Outputs {
    /// The labels that a series of the expression is stored with: those of the last time, or what
    /// `rename` makes of them.
    pub fn renamed(&mut self, from: &Labels, rename: impl FnOnce(&Labels) -> Labels) -> Labels {
        let round = self.round + 1;
        if let Some(known) = self.renamed.get_mut(from) {
            known.round = round;
            return known.to.clone();
        }
        let to = rename(from);
        self.renamed.insert(from.clone(), Renamed { to: to.clone(), round });
        to
    }

    /// Writes `samples`, whose series are all different, and ends what was written the last time and
    /// is not among them.
    ///
    /// # Errors
    /// Nothing was written; what was written the last time is still known.
    pub fn write(
        &mut self,
        at: Timestamp,
        samples: Vec<(Labels, Value)>,
        appender: &dyn Appender,
    ) -> Result<Stored, AppendError> {
        let round = self.round + 1;
        let mut batch = Batch::default();
        let mut series = Vec::with_capacity(samples.len());
        batch.rows.reserve(samples.len());
        for (labels, value) in samples {
            let known = self.written.get_mut(&labels).map(|written| {
                written.round = round;
                written.series
            });
            let key = match known.flatten() {
                Some(series) => SeriesKey::Known(series),
                None => SeriesKey::Labels(labels.clone()),
            };
            batch.rows.push(Row { series: key, sample: Sample { at, started: None, value } });
            series.push(labels);
        }
        let shown = series.len();
        for (labels, written) in &self.written {
            if written.round != round {
                let key = match written.series {
                    Some(series) => SeriesKey::Known(series),
                    None => SeriesKey::Labels(labels.clone()),
                };
                batch.rows.push(Row { series: key, sample: Sample::stale(at) });
                series.push(labels.clone());
            }
        }
        let outcome =
            if batch.rows.is_empty() { Ok(Vec::new()) } else { append(&batch, &series, appender) };
        let outcome = match outcome {
            Ok(outcome) => outcome,
            Err(error) => {
                // As if it had not been tried.
                for written in self.written.values_mut() {
                    written.round = self.round;
                }
                return Err(error);
            }
        };
        self.settle(at, round, shown, &outcome, series, appender)
    }

    /// Notes what was written.
    fn settle(
        &mut self,
        at: Timestamp,
        round: u64,
        shown: usize,
        outcome: &[Result<Option<SeriesRef>, RejectReason>],
        series: Vec<Labels>,
        appender: &dyn Appender,
    ) -> Result<Stored, AppendError> {
        let mut stored = Stored::default();
        let mut ended = Batch::default();
        for (labels, outcome) in series.into_iter().zip(outcome).take(shown) {
            match outcome {
                Ok(series) => {
                    self.written.insert(labels, Written { series: *series, round });
                }
                Err(reason) => {
                    match stored.refused.iter_mut().find(|(known, _)| known == reason) {
                        Some((_, count)) => *count += 1,
                        None => stored.refused.push((*reason, 1)),
                    }
                    if self.written.remove(&labels).is_some() {
                        ended.push(labels, Sample::stale(at));
                    }
                }
            }
        }
        self.written.retain(|_, written| written.round == round);
        self.renamed.retain(|_, renamed| renamed.round == round);
        self.round = round;
        if !ended.rows.is_empty() {
            // A sample at this time may be there already, or a later one: then there is no end to mark.
            appender.append(&ended)?;
        }
        Ok(stored)
    }

    /// All series that were written the last time.
    pub fn series(&self) -> Vec<Labels> {
        let mut all: Vec<Labels> = self.written.keys().cloned().collect();
        all.sort_unstable();
        all
    }

    /// Takes the series of `other` for those that were written the last time.
    pub fn adopt(&mut self, other: &Self) {
        let round = self.round;
        let theirs = other.written.iter();
        self.written.extend(
            theirs.map(|(labels, written)| (labels.clone(), Written { round, ..*written })),
        );
    }
}

/// Marks the end of `series` at `at`. One that has a later sample goes on.
///
/// # Errors
/// Nothing was written.
pub fn end(series: &[Labels], at: Timestamp, appender: &dyn Appender) -> Result<(), AppendError> {
    let mut batch = Batch::default();
    for labels in series {
        batch.push(labels.clone(), Sample::stale(at));
    }
    if !batch.rows.is_empty() {
        appender.append(&batch)?;
    }
    Ok(())
}

/// Appends rows of these series. A handle that the store does not know any more is replaced by the
/// labels and tried once more.
fn append(
    batch: &Batch,
    series: &[Labels],
    appender: &dyn Appender,
) -> Result<Vec<Result<Option<SeriesRef>, RejectReason>>, AppendError> {
    let appended = appender.append(batch)?;
    let mut outcome: Vec<Result<Option<SeriesRef>, RejectReason>> =
        appended.refs.into_iter().map(Ok).collect();
    outcome.resize(batch.rows.len(), Ok(None));
    let mut forgotten = Vec::new();
    for rejected in appended.rejected {
        if rejected.reason == RejectReason::UnknownSeries {
            forgotten.push(rejected.row);
        }
        if let Some(slot) = outcome.get_mut(rejected.row) {
            *slot = Err(rejected.reason);
        }
    }
    if forgotten.is_empty() {
        return Ok(outcome);
    }
    let mut again = Batch::default();
    for row in &forgotten {
        if let (Some(labels), Some(row)) = (series.get(*row), batch.rows.get(*row)) {
            again.push(labels.clone(), row.sample.clone());
        }
    }
    let appended = appender.append(&again)?;
    for (row, series) in forgotten.iter().zip(appended.refs) {
        if let Some(slot) = outcome.get_mut(*row) {
            *slot = Ok(series);
        }
    }
    for rejected in appended.rejected {
        let row = forgotten.get(rejected.row).copied();
        if let Some(slot) = row.and_then(|row| outcome.get_mut(row)) {
            *slot = Err(rejected.reason);
        }
    }
    Ok(outcome)
}
