//! Taking a batch in three steps: plan it against what is stored, write the plan to the log,
//! commit it. Only one batch is between plan and commit at a time.
//!
//! The rules are those of Prometheus: a sample newer than its series is taken in order unless it
//! lies half a block range behind the newest sample of all; one that equals the series' newest
//! is no change; others are late, and taken where the batch's window reaches so far back from the
//! newest sample of all.

use hashbrown::HashMap;
use stint_model::{
    Appended, Batch, Labels, RejectReason, Rejected, Row, Sample, SeriesKey, SeriesRef, Timestamp,
    Value,
};

use super::Head;
use super::index::Slot;
use super::series::{MemSeries, Stored, same_value};
use super::store::Store;
use super::validate::{Admitted, admit};
use crate::index::LABELS_MAX;
use crate::wal::WalPosition;
use crate::wal::record::Encoder;

/// New series that are made room for under one lock.
const BORN_AT_ONCE: usize = if cfg!(test) { 2 } else { 256 };

/// Rows whose series are fetched from memory at once.
const ROWS_AHEAD: usize = 32;

/// Whose sample a planned row is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum Target {
    Known(Slot),
    /// Index into [`Plan::born`].
    New(u32),
}

/// A row that will be stored.
#[derive(Clone, Copy, Debug)]
struct Planned {
    row: usize,
    id: u64,
    target: Target,
    late: bool,
}

/// What will become of a batch. Reused from batch to batch.
#[derive(Debug, Default)]
pub(crate) struct Plan {
    rows: Vec<Planned>,
    /// What is stored in place of the samples of some rows, in order of rows.
    replaced: Vec<(usize, Sample)>,
    born: Vec<(u64, Labels, u64)>,
    born_by_labels: HashMap<Labels, u32>,
    /// Newest in-order sample that this batch brings to a series, by row, for the first
    /// `newest_of` of `rows`: filled where a series may be there twice.
    newest: HashMap<Target, usize>,
    newest_of: usize,
    seen: Seen,
    /// What this batch brings at which time, by row, for the first `indexed` of `rows`: filled where
    /// a late sample asks.
    by_time: HashMap<(Target, Timestamp), usize>,
    indexed: usize,
    exemplars: Vec<(u64, usize, usize)>,
    metadata: Vec<usize>,
    /// The answer.
    pub(crate) appended: Appended,
    /// Rows that will be stored late.
    pub(crate) late_rows: usize,
}

/// Which series a batch brought samples to. It may take one for another that was seen, never the
/// other way round: mostly no series is there twice, and nothing has to be looked up.
#[derive(Debug, Default)]
struct Seen(Vec<u64>);

impl Seen {
    const BITS: usize = 1 << 16;

    fn place(target: Target) -> (usize, u64) {
        let number = match target {
            Target::Known(slot) => slot,
            Target::New(number) => !number,
        } as usize
            % Self::BITS;
        (number / 64, 1 << (number % 64))
    }

    fn clear(&mut self) {
        self.0.clear();
        self.0.resize(Self::BITS / 64, 0);
    }

    fn add(&mut self, target: Target) {
        let (word, bit) = Self::place(target);
        if let Some(word) = self.0.get_mut(word) {
            *word |= bit;
        }
    }

    fn has(&self, target: Target) -> bool {
        let (word, bit) = Self::place(target);
        self.0.get(word).is_some_and(|word| word & bit != 0)
    }
}

impl Plan {
    /// The row with the newest in-order sample that was planned for a series.
    fn newest_of(&mut self, target: Target) -> Option<usize> {
        if !self.seen.has(target) {
            return None;
        }
        for planned in self.rows.get(self.newest_of..).unwrap_or_default() {
            if !planned.late {
                self.newest.insert(planned.target, planned.row);
            }
        }
        self.newest_of = self.rows.len();
        self.newest.get(&target).copied()
    }

    /// The row that was planned first for a series and a time.
    fn row_at(&mut self, batch: &Batch, target: Target, at: Timestamp) -> Option<usize> {
        for planned in self.rows.get(self.indexed..).unwrap_or_default() {
            if let Some(row) = batch.rows.get(planned.row) {
                self.by_time.entry((planned.target, row.sample.at)).or_insert(planned.row);
            }
        }
        self.indexed = self.rows.len();
        self.by_time.get(&(target, at)).copied()
    }

    /// The sample that is stored for a row.
    fn sample<'a>(&'a self, batch: &'a Batch, row: usize) -> Option<&'a Sample> {
        match self.replaced.binary_search_by_key(&row, |(row, _)| *row) {
            Ok(at) => self.replaced.get(at).map(|(_, sample)| sample),
            Err(_) => batch.rows.get(row).map(|row| &row.sample),
        }
    }

    fn clear(&mut self) {
        self.rows.clear();
        self.replaced.clear();
        self.born.clear();
        self.born_by_labels.clear();
        self.newest.clear();
        self.newest_of = 0;
        self.seen.clear();
        self.by_time.clear();
        self.indexed = 0;
        self.exemplars.clear();
        self.metadata.clear();
        self.appended = Appended::default();
        self.late_rows = 0;
    }

    /// Whether there is nothing to store.
    pub(crate) fn is_empty(&self) -> bool {
        self.rows.is_empty() && self.exemplars.is_empty() && self.metadata.is_empty()
    }

    /// How many series will begin to exist.
    pub(crate) fn born_count(&self) -> usize {
        self.born.len()
    }

    /// How many samples will be stored.
    pub(crate) fn len(&self) -> usize {
        self.rows.len()
    }
}

/// What a row is judged by.
struct Limits {
    /// Samples before this are not taken in order.
    in_order_from: Timestamp,
    /// Late samples before this are not taken at all; none are without a window.
    late_from: Option<Timestamp>,
    /// Samples after this are not taken.
    latest: Timestamp,
}

enum Verdict {
    InOrder,
    Late,
    NoChange,
    Reject(RejectReason),
}

impl Head {
    /// Decides what becomes of each row. Samples later than `latest` are refused.
    pub(crate) fn plan(&self, batch: &Batch, latest: Timestamp, plan: &mut Plan) {
        plan.clear();
        let store = self.store.read();
        let limits = self.limits(&store, batch, latest);
        let mut next_id = store.next_id;
        plan.appended.refs.reserve(batch.rows.len());
        for (number, row) in batch.rows.iter().enumerate() {
            if number % ROWS_AHEAD == 0 {
                let rows = batch.rows.get(number..).unwrap_or_default();
                touch(&store, rows.get(..ROWS_AHEAD).unwrap_or(rows));
            }
            let outcome = self.plan_row(&store, batch, number, row, &limits, plan, &mut next_id);
            let id = match outcome {
                Ok(id) => id,
                Err((id, reason)) => {
                    plan.appended.rejected.push(Rejected { row: number, reason });
                    id
                }
            };
            plan.appended.refs.push(id.map(SeriesRef));
        }
        drop(store);
        self.plan_exemplars(batch, plan);
        let known = self.metadata.read();
        for (number, (family, metadata)) in batch.metadata.iter().enumerate() {
            if known.get(family) != Some(metadata) {
                plan.metadata.push(number);
            }
        }
    }

    fn limits(&self, store: &Store, batch: &Batch, latest: Timestamp) -> Limits {
        let newest = store.bounds.map(|(_, last)| last);
        let half_range =
            newest.map_or(Timestamp::MIN, |t| Timestamp(t.0.saturating_sub(self.range / 2)));
        let newest = newest.or_else(|| {
            let times = batch.rows.iter().map(|row| row.sample.at);
            times.filter(|at| *at <= latest).max()
        });
        let window = batch.out_of_order_window;
        Limits {
            in_order_from: half_range.max(store.flushed),
            late_from: newest.filter(|_| window.0 > 0).map(|newest| newest - window),
            latest,
        }
    }

    /// The series' handle, with the reason where the row is rejected.
    #[expect(clippy::too_many_arguments, reason = "the state of one loop, used only there")]
    fn plan_row(
        &self,
        store: &Store,
        batch: &Batch,
        number: usize,
        row: &Row,
        limits: &Limits,
        plan: &mut Plan,
        next_id: &mut u64,
    ) -> Result<Option<u64>, (Option<u64>, RejectReason)> {
        let mut hash = 0;
        let target = match &row.series {
            SeriesKey::Known(id) => {
                Some(Target::Known(store.slot_of(*id).ok_or((None, RejectReason::UnknownSeries))?))
            }
            SeriesKey::Labels(labels) if labels.is_empty() => {
                return Err((None, RejectReason::InvalidLabels));
            }
            SeriesKey::Labels(labels) => {
                hash = labels.stable_hash();
                let known = self.index.read().find(labels, hash).map(Target::Known);
                known.or_else(|| plan.born_by_labels.get(labels).map(|n| Target::New(*n)))
            }
        };
        let id = match target {
            Some(Target::Known(slot)) => store.get(slot).map(|series| series.id),
            Some(Target::New(number)) => plan.born.get(number as usize).map(|born| born.0),
            None => None,
        };
        let mut replaced = None;
        if let Value::Histogram(histogram) = &row.sample.value {
            match admit(histogram) {
                Admitted::AsItIs => {}
                Admitted::As(histogram) => {
                    let value = Value::Histogram(histogram);
                    replaced = Some(Sample { value, ..row.sample.clone() });
                }
                Admitted::Refused => return Err((id, RejectReason::InvalidHistogram)),
            }
        }
        let sample = replaced.as_ref().unwrap_or(&row.sample);
        let late = match judge(store, batch, target, sample, limits, plan) {
            Verdict::Reject(reason) => return Err((id, reason)),
            Verdict::NoChange => return Ok(id),
            Verdict::InOrder => false,
            Verdict::Late => true,
        };
        let (target, id) = match (target, id, &row.series) {
            (Some(target), Some(id), _) => (target, id),
            // No block could take it.
            (_, _, SeriesKey::Labels(labels)) if labels.len() > LABELS_MAX => {
                return Err((None, RejectReason::LabelLimit));
            }
            (_, _, SeriesKey::Labels(labels)) => {
                let id = *next_id;
                *next_id += 1;
                let target = plan.born.len() as u32;
                plan.born.push((id, labels.clone(), hash));
                plan.born_by_labels.insert(labels.clone(), target);
                (Target::New(target), id)
            }
            _ => return Err((None, RejectReason::UnknownSeries)),
        };
        plan.rows.push(Planned { row: number, id, target, late });
        plan.replaced.extend(replaced.map(|sample| (number, sample)));
        if late {
            plan.late_rows += 1;
        } else {
            plan.seen.add(target);
        }
        Ok(Some(id))
    }

    fn plan_exemplars(&self, batch: &Batch, plan: &mut Plan) {
        if batch.exemplars.is_empty() {
            return;
        }
        let ring = self.exemplars.lock();
        for (group, exemplars) in batch.exemplars.iter().enumerate() {
            let Some(Some(SeriesRef(id))) = plan.appended.refs.get(exemplars.row) else { continue };
            for (number, exemplar) in exemplars.exemplars.iter().enumerate() {
                if ring.accepts(*id, exemplar) {
                    plan.exemplars.push((*id, group, number));
                }
            }
        }
    }

    /// Writes the plan as the payload of a record.
    pub(crate) fn encode(batch: &Batch, plan: &Plan, encoder: &mut Encoder) {
        for (id, labels, _) in &plan.born {
            encoder.series(*id, 0, labels);
        }
        for planned in &plan.rows {
            if let Some(sample) = plan.sample(batch, planned.row) {
                encoder.sample(planned.id, sample);
            }
        }
        for (id, group, number) in &plan.exemplars {
            let exemplars = batch.exemplars.get(*group).map(|group| &group.exemplars);
            if let Some(exemplar) = exemplars.and_then(|exemplars| exemplars.get(*number)) {
                encoder.exemplar(*id, exemplar);
            }
        }
        for number in &plan.metadata {
            if let Some((family, metadata)) = batch.metadata.get(*number) {
                encoder.metadata(family, metadata);
            }
        }
    }

    /// Makes the plan visible. The log has it, up to `position`.
    pub(crate) fn commit(&self, batch: &Batch, plan: &Plan, position: WalPosition) {
        let segment = position.segment;
        let slots = self.create(&plan.born);
        let mut store = self.store.write();
        store.position = position;
        let pinned = self.pins.oldest_commit();
        store.begin_commit(pinned);
        for planned in &plan.rows {
            let slot = match planned.target {
                Target::Known(slot) => Some(slot),
                Target::New(number) => slots.get(number as usize).copied().flatten(),
            };
            if let Some((slot, sample)) = slot.zip(plan.sample(batch, planned.row)) {
                store.push(slot, sample, planned.late, segment, pinned.is_some());
            }
        }
        for (id, ..) in &plan.exemplars {
            store.touch(SeriesRef(*id), segment);
        }
        drop(store);
        self.commit_rest(batch, plan);
    }

    /// Makes room for series, a limited number at a time, so that readers never wait for long: until
    /// they have samples, nobody sees them.
    fn create(&self, born: &[(u64, Labels, u64)]) -> Vec<Option<Slot>> {
        let mut slots = Vec::with_capacity(born.len());
        for part in born.chunks(BORN_AT_ONCE) {
            let mut store = self.store.write();
            let mut index = self.index.write();
            for (id, labels, hash) in part {
                let slot = store.create(*id);
                if let Some(slot) = slot {
                    index.insert(slot, labels, *hash);
                }
                slots.push(slot);
            }
        }
        slots
    }

    fn commit_rest(&self, batch: &Batch, plan: &Plan) {
        if !plan.exemplars.is_empty() {
            let mut ring = self.exemplars.lock();
            for (id, group, number) in &plan.exemplars {
                let exemplars = batch.exemplars.get(*group).map(|group| &group.exemplars);
                if let Some(exemplar) = exemplars.and_then(|exemplars| exemplars.get(*number)) {
                    ring.push(*id, exemplar.clone());
                }
            }
        }
        if !plan.metadata.is_empty() {
            let mut known = self.metadata.write();
            for (family, metadata) in plan.metadata.iter().filter_map(|n| batch.metadata.get(*n)) {
                known.insert(family.clone(), metadata.clone());
            }
        }
    }
}

/// Reads something of each series, so that the processor waits for all of them at once rather than
/// for each in turn: they are seldom in its caches.
fn touch(store: &Store, rows: &[Row]) {
    let mut sum = 0;
    for row in rows {
        if let SeriesKey::Known(id) = &row.series
            && let Some(series) = store.slot_of(*id).and_then(|slot| store.get(slot))
        {
            sum ^= series.touch();
        }
    }
    std::hint::black_box(sum);
}

fn judge(
    store: &Store,
    batch: &Batch,
    target: Option<Target>,
    sample: &Sample,
    limits: &Limits,
    plan: &mut Plan,
) -> Verdict {
    if sample.at > limits.latest {
        return Verdict::Reject(RejectReason::TooFarInFuture);
    }
    let series = match target {
        Some(Target::Known(slot)) => store.get(slot),
        _ => None,
    };
    let pending = target.and_then(|target| plan.newest_of(target));
    let pending = pending.and_then(|row| plan.sample(batch, row));
    let last_time = pending.map(|s| s.at).or_else(|| series.and_then(MemSeries::last_time));
    if sample.at >= limits.in_order_from {
        match last_time {
            Some(last) if sample.at == last => {
                let same = match (pending, series.and_then(MemSeries::last)) {
                    (Some(pending), _) => same_value(&pending.value, &sample.value),
                    (None, last) => last.is_some_and(|(_, v)| same_value(&v, &sample.value)),
                };
                return if same {
                    Verdict::NoChange
                } else {
                    Verdict::Reject(RejectReason::DuplicateTimestamp)
                };
            }
            Some(last) if sample.at < last => {}
            // A late sample may already stand where an in-order one could go.
            _ if series.is_none_or(|series| !series.has_late()) && plan.late_rows == 0 => {
                return Verdict::InOrder;
            }
            _ => match stored(store, batch, target, sample, plan) {
                Verdict::Late => return Verdict::InOrder,
                verdict => return verdict,
            },
        }
    }
    match limits.late_from {
        Some(from) if sample.at >= from => stored(store, batch, target, sample, plan),
        Some(_) => Verdict::Reject(RejectReason::TooOld),
        None if sample.at < limits.in_order_from => Verdict::Reject(RejectReason::OutOfBounds),
        None => Verdict::Reject(RejectReason::OutOfOrder),
    }
}

/// Late, unless the head has something for this time already.
fn stored(
    store: &Store,
    batch: &Batch,
    target: Option<Target>,
    sample: &Sample,
    plan: &mut Plan,
) -> Verdict {
    let compare = |same: bool| {
        if same { Verdict::NoChange } else { Verdict::Reject(RejectReason::DuplicateTimestamp) }
    };
    let Some(target) = target else { return Verdict::Late };
    let series = match target {
        Target::Known(slot) => store.get(slot),
        Target::New(_) => None,
    };
    let in_batch = plan.row_at(batch, target, sample.at);
    if let Some(earlier) = in_batch.and_then(|row| plan.sample(batch, row)) {
        return compare(same_value(&earlier.value, &sample.value));
    }
    match series.map(|series| series.stored(sample, store.arena())) {
        Some(Ok(Stored::Same)) => compare(true),
        // What cannot be read back is not overwritten.
        Some(Ok(Stored::Other) | Err(_)) => compare(false),
        Some(Ok(Stored::Nothing)) | None => Verdict::Late,
    }
}
