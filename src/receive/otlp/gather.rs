//! Rows of a message, gathered before they are stored.

use std::collections::HashSet;

use stint_model::{Exemplar, Labels, Metadata, Sample, SeriesKey, SeriesRef};
use stint_wire::otlp::{Row, Sink, Warning};

use super::NAMED_MAX;
use crate::receive::cache::{LabelKey, RefCache, Trail};
use crate::receive::meter::{LABEL_BYTES_MAX, Meter, MeterError, text_bytes};

/// A row that is to be stored.
#[derive(Clone, Debug)]
pub(super) struct Pending {
    pub(super) key: LabelKey,
    /// Another key of the series, to be remembered once it has a handle.
    pub(super) identity: Option<LabelKey>,
    pub(super) series: SeriesKey,
    pub(super) point: Option<u32>,
    pub(super) sample: Sample,
    pub(super) is_delta: bool,
    pub(super) exemplars: Vec<Exemplar>,
}

/// Handles of series that are known.
pub(super) struct Caches {
    pub(super) labels: RefCache,
    pub(super) identities: RefCache,
}

impl Caches {
    pub(super) fn new(generation_max: usize) -> Self {
        Self { labels: RefCache::new(generation_max), identities: RefCache::new(generation_max) }
    }
}

/// Gathers rows, within the room that a request has.
pub(super) struct Gather<'g, 'h> {
    caches: &'g Caches,
    /// Of series that are recognised, and of those whose labels are known.
    trails: (Trail, Trail),
    /// Which options identities were made under.
    epoch: u64,
    meter: &'g mut Meter<'h>,
    /// The series whose row comes next.
    recognised: Option<(LabelKey, SeriesRef)>,
    /// The only series that count, and none of which has a handle.
    wanted: Option<HashSet<LabelKey>>,
    families: HashSet<String>,
    pub(super) rows: Vec<Pending>,
    pub(super) metadata: Vec<(String, Metadata)>,
    pub(super) warnings: Vec<(Warning, u64)>,
    pub(super) refused_points: u64,
    /// The last of them that had rows.
    refused_point: Option<u32>,
    pub(super) reasons: Vec<String>,
}

impl<'g, 'h> Gather<'g, 'h> {
    /// One that has seen nothing. `rows` are memory for those to come.
    pub(super) fn new(
        caches: &'g Caches,
        epoch: u64,
        meter: &'g mut Meter<'h>,
        wanted: Option<HashSet<LabelKey>>,
        rows: Vec<Pending>,
    ) -> Self {
        Self {
            caches,
            trails: Default::default(),
            epoch,
            meter,
            recognised: None,
            wanted,
            families: HashSet::new(),
            rows,
            metadata: Vec::new(),
            warnings: Vec::new(),
            refused_points: 0,
            refused_point: None,
            reasons: Vec::new(),
        }
    }
}

impl Gather<'_, '_> {
    fn push(
        &mut self,
        row: Row<'_>,
        key: LabelKey,
        identity: Option<LabelKey>,
        series: SeriesKey,
    ) -> Result<(), MeterError> {
        let exemplars = row.exemplars.iter().map(|exemplar| exemplar.labels.size_bytes());
        let exemplars: usize = exemplars.map(|text| 2 * (size_of::<Exemplar>() + text)).sum();
        self.meter.count(size_of::<Pending>() + exemplars)?;
        self.meter.sample(&row.sample)?;
        self.rows.push(Pending {
            key,
            identity,
            series,
            point: row.point,
            sample: row.sample,
            is_delta: row.is_delta,
            exemplars: row.exemplars,
        });
        Ok(())
    }
}

impl Sink for Gather<'_, '_> {
    type Error = MeterError;

    fn family(&mut self, name: &str, metadata: Metadata) -> Result<(), MeterError> {
        if self.wanted.is_some() || self.families.contains(name) {
            return Ok(());
        }
        let text = name.len() + metadata.help.len() + metadata.unit.len();
        self.meter.count(2 * (size_of::<(String, Metadata)>() + text) + name.len())?;
        self.families.insert(name.to_owned());
        self.metadata.push((name.to_owned(), metadata));
        Ok(())
    }

    fn recognises(&mut self, identity: &[u8]) -> bool {
        if self.wanted.is_some() {
            // None of those has a handle.
            return false;
        }
        let key = self.caches.identities.key_of_identity(identity, self.epoch);
        self.recognised =
            self.caches.identities.get(&key, &mut self.trails.0).map(|series| (key, series));
        self.recognised.is_some()
    }

    fn row(&mut self, row: Row<'_>) -> Result<(), MeterError> {
        if let Some((key, series)) = self.recognised.take() {
            return self.push(row, key, None, SeriesKey::Known(series));
        }
        let bytes = text_bytes(row.labels);
        if bytes > LABEL_BYTES_MAX {
            // A point with several rows counts once.
            let is_new = row.point.is_some() && self.refused_point != row.point;
            self.refused_point = row.point;
            let points = u64::from(is_new);
            self.refused(points, &format!("labels of {bytes} bytes, more than {LABEL_BYTES_MAX}"));
            return Ok(());
        }
        self.meter.count(bytes)?;
        let key = self.caches.labels.key_of_labels(row.labels);
        let identity =
            row.identity.map(|bytes| self.caches.identities.key_of_identity(bytes, self.epoch));
        let known = match &self.wanted {
            Some(wanted) => {
                if !wanted.contains(&key) && !identity.is_some_and(|key| wanted.contains(&key)) {
                    return Ok(());
                }
                None
            }
            None => self.caches.labels.get(&key, &mut self.trails.1),
        };
        let series = match known {
            Some(reference) => {
                if let Some(identity) = identity {
                    self.caches.identities.put(identity, reference);
                }
                SeriesKey::Known(reference)
            }
            None => SeriesKey::Labels(Labels::from_pairs(row.labels.iter().copied())),
        };
        self.push(row, key, identity, series)
    }

    fn refused(&mut self, points: u64, reason: &str) {
        self.refused_points += points;
        if points > 0 && self.reasons.len() < NAMED_MAX {
            self.reasons.push(reason.to_owned());
        }
    }

    fn warning(&mut self, warning: Warning) {
        match self.warnings.iter_mut().find(|(known, _)| *known == warning) {
            Some((_, count)) => *count += 1,
            None => self.warnings.push((warning, 1)),
        }
    }
}
