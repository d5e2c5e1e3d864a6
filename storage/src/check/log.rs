//! Segments and checkpoints of the log.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::sync::Arc;

use hashbrown::{HashMap, HashSet};
use stint_model::{Labels, Timestamp};

use super::head::Files;
use super::{CheckReport, or_nothing};
use crate::disk::{Disk, DiskResult, TEMPORARY_SUFFIX};
use crate::wal::record::{self, Item};
use crate::wal::segment::{self, HEADER_BYTES, SegmentReader, Step};
use crate::wal::{self, checkpoint, identity};

/// From this version on checkpoints have states; before, the newest sample of each series.
const WITH_STATES: u32 = 2;

const MISPLACED: &str = "an item that has no place in such a file";

/// What lies in the directory: length by number.
#[derive(Default)]
struct Listed {
    segments: BTreeMap<u64, u64>,
    checkpoints: BTreeMap<u64, u64>,
    has_identity: bool,
}

/// What records said so far.
#[derive(Default)]
struct Known {
    series: HashMap<u64, Labels>,
    /// Of which there was a state.
    states: HashSet<u64>,
    /// Samples in the states, and beside them.
    state_samples: u64,
    samples: u64,
    /// Places in the log that states tell: offsets by segment.
    places: BTreeMap<u64, BTreeSet<u64>>,
    /// Until when the last flush was begun.
    flush: Option<Timestamp>,
    /// The first statement of the checkpoint at hand.
    begun: Option<(u64, Timestamp)>,
    /// Whether it was repeated, and nothing followed.
    ended: bool,
}

/// Which file an item stands in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    /// A segment that a start replays.
    Segment,
    /// A segment that is kept for slow readers: the series it names may be gone.
    Held,
    /// A checkpoint of this version.
    Checkpoint(u32),
}

/// Verifies the log, and the chunks of `files` that its checkpoints refer to.
pub(super) fn check(
    disk: &Arc<dyn Disk>,
    files: &mut Files,
    report: &mut CheckReport,
) -> DiskResult<()> {
    let listed = list(&**disk, report)?;
    let is_empty = listed.segments.is_empty() && listed.checkpoints.is_empty();
    if !(listed.has_identity || is_empty) {
        report.found(&identity::path(), "missing: cursors into this log mean nothing");
    }
    let mut newest = listed.checkpoints.clone();
    let newest = newest.pop_last();
    // Those that a start falls back to when the newest is damaged.
    for (number, size) in
        listed.checkpoints.iter().filter(|(n, _)| Some(**n) != newest.map(|n| n.0))
    {
        check_checkpoint(disk, (*number, *size), files, report)?;
        files.check_shared(report);
    }
    let (first, mut known) = match newest {
        Some(newest) => (newest.0, check_checkpoint(disk, newest, files, report)?),
        None => (0, Known::default()),
    };
    report.checkpoint_samples = known.state_samples;
    let mut expected = None;
    for (number, size) in &listed.segments {
        let path = segment::path(*number);
        let kind = if *number < first { Kind::Held } else { Kind::Segment };
        // What a start replays begins where the checkpoint ends.
        let begins =
            (kind == Kind::Segment && expected.is_none_or(|next| next <= first)).then_some(first);
        if begins.or(expected).is_some_and(|next| next != *number) {
            report.found(&path, "the segment before it is missing");
        }
        expected = Some(number + 1);
        check_records(disk, &path, *size, kind, &mut known, files, report)?;
        report.segments += 1;
        if let Some(places) = known.places.remove(number)
            && let Some(place) = places.iter().find(|place| **place <= *size)
        {
            report.found(&path, format!("a checkpoint tells {place} of it, where no record ends"));
        }
    }
    report.wal_samples = known.samples;
    report.wal_series = known.series.len() as u64;
    Ok(())
}

fn list(disk: &dyn Disk, report: &mut CheckReport) -> DiskResult<Listed> {
    let mut listed = Listed::default();
    for entry in or_nothing(disk.list(Path::new(wal::DIR)))? {
        let path = Path::new(wal::DIR).join(&entry.name);
        if let Some(number) = checkpoint::number_of(&entry.name) {
            listed.checkpoints.insert(number, entry.size);
        } else if let Ok(number) = entry.name.parse::<u64>() {
            listed.segments.insert(number, entry.size);
        } else if entry.name == identity::FILE {
            listed.has_identity = true;
            if identity::read(disk)?.is_none() {
                report.found(&path, "not the identity of a log");
            }
        } else if !entry.name.ends_with(TEMPORARY_SUFFIX) {
            report.found(&path, "unknown file");
        }
    }
    Ok(listed)
}

/// Verifies a checkpoint; what it says.
fn check_checkpoint(
    disk: &Arc<dyn Disk>,
    (number, size): (u64, u64),
    files: &mut Files,
    report: &mut CheckReport,
) -> DiskResult<Known> {
    let path = checkpoint::path(number);
    let mut known = Known::default();
    files.begin();
    let mut reader = SegmentReader::new(Arc::clone(disk), path.clone(), 0, size);
    let version = reader.version()?.unwrap_or(segment::CHECKPOINT_VERSION);
    check_records(disk, &path, size, Kind::Checkpoint(version), &mut known, files, report)?;
    report.checkpoints += 1;
    if !known.ended {
        report.found(&path, "it does not end as it began");
    }
    Ok(known)
}

fn check_records(
    disk: &Arc<dyn Disk>,
    path: &Path,
    size: u64,
    kind: Kind,
    known: &mut Known,
    files: &mut Files,
    report: &mut CheckReport,
) -> DiskResult<()> {
    let mut reader = SegmentReader::new(Arc::clone(disk), path.to_path_buf(), 0, size);
    if size == 0 && !matches!(kind, Kind::Checkpoint(_)) {
        // Its header was torn, and cut off when the database was opened.
        return Ok(());
    }
    let newest = match kind {
        Kind::Checkpoint(_) => segment::CHECKPOINT_VERSION,
        _ => segment::VERSION,
    };
    match reader.version()? {
        None => {
            report.found(path, "no header");
            return Ok(());
        }
        Some(version) if version > newest => {
            report.found(
                path,
                format!("format version {version}, this program reads up to {newest}"),
            );
            return Ok(());
        }
        Some(_) => {}
    }
    let number = path.file_name().and_then(|name| name.to_str()).and_then(|name| name.parse().ok());
    let passed = |known: &mut Known, offset: u64| {
        if let Some(places) = number.and_then(|number: u64| known.places.get_mut(&number)) {
            places.remove(&offset);
        }
    };
    passed(known, 0);
    passed(known, HEADER_BYTES);
    loop {
        let at = reader.offset();
        match reader.step()? {
            Step::End => return Ok(()),
            Step::Damaged { offset, bytes, reason, .. } => {
                passed(known, offset + bytes);
                report.found(path, format!("{bytes} bytes at {offset}: {reason}"));
            }
            Step::Record { payload, after } => {
                let mut items = Vec::new();
                if let Err(reason) = record::decode(payload, |item| items.push(item)) {
                    report.found(path, format!("record at {at}: {reason}"));
                }
                passed(known, after);
                let mut placed = false;
                for item in items {
                    placed |= matches!(item, Item::StatesAt { .. });
                    if let Err(what) = known.take(item, kind, placed, files) {
                        report.found(path, format!("record at {at}: {what}"));
                    }
                }
            }
        }
    }
}

impl Known {
    /// Verifies an item by what is known, and gets to know it. `placed` tells whether the record told
    /// a place for its states.
    fn take(
        &mut self,
        item: Item,
        kind: Kind,
        placed: bool,
        files: &mut Files,
    ) -> Result<(), String> {
        if let Kind::Checkpoint(version) = kind {
            self.frame(&item)?;
            return self.take_from_checkpoint(item, version, placed, files);
        }
        let id = match item {
            Item::Series { id, labels, .. } => return self.define(id, labels),
            Item::Sample { id, .. } => {
                self.samples += u64::from(kind == Kind::Segment);
                id
            }
            Item::Deleted { range, .. } if range.is_empty() => {
                return Err("a deletion of nothing".to_owned());
            }
            Item::Exemplar { id, .. } | Item::Deleted { id, .. } => id,
            Item::Metadata { .. } => return Ok(()),
            Item::FlushBegin { before } => {
                self.flush = Some(before);
                return Ok(());
            }
            Item::FlushDone { before } => {
                let known = kind == Kind::Held || self.flush == Some(before);
                return if known {
                    Ok(())
                } else {
                    Err("the end of a flush that was not begun".into())
                };
            }
            Item::Checkpoint { .. } | Item::StatesAt { .. } | Item::State { .. } => {
                return Err(MISPLACED.to_owned());
            }
        };
        if kind == Kind::Segment { self.is_defined(id) } else { Ok(()) }
    }

    fn take_from_checkpoint(
        &mut self,
        item: Item,
        version: u32,
        placed: bool,
        files: &mut Files,
    ) -> Result<(), String> {
        match item {
            Item::Series { id, labels, .. } => self.define(id, labels),
            Item::Exemplar { id, .. } => self.is_defined(id),
            Item::Sample { id, .. } if version < WITH_STATES => {
                self.state_samples += 1;
                self.is_defined(id)
            }
            Item::Deleted { id, .. } if version < WITH_STATES => self.is_defined(id),
            Item::Checkpoint { .. } | Item::Metadata { .. } => Ok(()),
            Item::StatesAt { position } => {
                self.places.entry(position.segment).or_default().insert(position.offset);
                Ok(())
            }
            Item::State { id, state } => {
                self.is_defined(id)?;
                if !placed {
                    return Err(format!("the state of series {id} without its place in the log"));
                }
                if !self.states.insert(id) {
                    return Err(format!("a second state of series {id}"));
                }
                let samples = files.check_state(&state);
                self.state_samples += samples.map_err(|what| format!("series {id}: {what}"))?;
                Ok(())
            }
            Item::Sample { .. }
            | Item::Deleted { .. }
            | Item::FlushBegin { .. }
            | Item::FlushDone { .. } => Err(MISPLACED.to_owned()),
        }
    }

    /// A checkpoint begins and ends with the same statement.
    fn frame(&mut self, item: &Item) -> Result<(), String> {
        self.ended = false;
        match (item, self.begun) {
            (Item::Checkpoint { next_id, flushed }, None) => {
                self.begun = Some((*next_id, *flushed));
                Ok(())
            }
            (Item::Checkpoint { next_id, flushed }, Some(begun)) => {
                self.ended = begun == (*next_id, *flushed);
                Ok(())
            }
            (_, None) => {
                // Once is enough.
                self.begun = Some((0, Timestamp::MIN));
                Err("it does not begin as checkpoints do".to_owned())
            }
            _ => Ok(()),
        }
    }

    fn define(&mut self, id: u64, labels: Labels) -> Result<(), String> {
        match self.series.get(&id) {
            Some(first) if *first != labels => Err(format!("series {id} is {first} and {labels}")),
            Some(_) => Ok(()),
            None => {
                self.series.insert(id, labels);
                Ok(())
            }
        }
    }

    fn is_defined(&self, id: u64) -> Result<(), String> {
        if self.series.contains_key(&id) {
            Ok(())
        } else {
            Err(format!("series {id} was never defined"))
        }
    }
}
