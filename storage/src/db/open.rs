//! Opening: clean up, find the checkpoint, replay the log in one ordered pass.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64};

use crate::sync::{Mutex, RwLock};

use super::{Counters, Inner, Writer};
use crate::disk::{Disk, DiskResult, TEMPORARY_SUFFIX};
use crate::error::{Damage, OpenError, OpenReport};
use crate::head::replay::Replay;
use crate::head::{Effort, Head, arena};
use crate::options::Options;
use crate::query::selections::Selections;
use crate::version::{self, Blocks};
use crate::wal::hold::Holds;
use crate::wal::log::{Log, SegmentInfo};
use crate::wal::segment::{self, HEADER_BYTES, SegmentReader, Step};
use crate::wal::{self, WalPosition, checkpoint, identity};

const LOCK: &str = "lock";

/// Bytes of selections in blocks that are remembered.
const SELECTIONS_BYTES: usize = 32 << 20;

pub(super) fn open(
    disk: Arc<dyn Disk>,
    options: Options,
) -> Result<(Inner, OpenReport), OpenError> {
    check(&options)?;
    let lock = match disk.lock(Path::new(LOCK)) {
        Err(error) if error.source.kind() == std::io::ErrorKind::WouldBlock => {
            return Err(OpenError::InUse);
        }
        lock => lock?,
    };
    disk.create_dir(Path::new(wal::DIR))?;
    disk.create_dir(Path::new(version::DIR))?;
    let chunk_files = arena::open_dir(&*disk)?;
    disk.sync_dir(Path::new(""))?;
    let mut report = OpenReport::default();
    let blocks = Blocks::open(&*disk, &mut report.quarantined)?;
    let head = Arc::new(Head::new(&options));
    let files = Files::list(&*disk)?;
    let wal_id = identity::open(&*disk, &mut report.damage)?;
    let next_file = chunk_files.iter().max().map_or(0, |last| last.saturating_add(1));
    let mut replay = Replay::new(&head, &*disk, next_file);
    let checkpoint = choose_checkpoint(&disk, &files, &mut report)?;
    let replay_from = checkpoint.unwrap_or(0);
    let checkpoint_size = match checkpoint {
        Some(number) => read_checkpoint(&disk, number, &mut replay, &mut report)?,
        None => 0,
    };
    let mut segments = BTreeMap::new();
    for (number, bytes) in &files.segments {
        let mut bytes = *bytes;
        if *number >= replay_from {
            let is_last = files.segments.last_key_value().is_some_and(|(last, _)| last == number);
            bytes = replay_segment(&disk, *number, bytes, is_last, &mut replay, &mut report)?;
            report.segments += 1;
            report.bytes += bytes;
        }
        segments.insert(*number, SegmentInfo { bytes });
    }
    report.samples = replay.samples;
    report.orphaned_samples = replay.orphans;
    let (gone, damage) = replay.finish(chunk_files);
    report.damage.extend(damage);
    head.remove_files(&*disk, gone)?;
    for other in files.checkpoints.iter().filter(|number| checkpoint != Some(**number)) {
        disk.remove(&checkpoint::path(*other))?;
    }
    report.series = head.stats().series;
    let next = files.segments.last_key_value().map_or(0, |(last, _)| last + 1).max(replay_from);
    let log = Log::new(Arc::clone(&disk), options.segment_bytes, segments, next);
    log.sync_inherited()?;
    let corruptions = (report.damage.len() + report.quarantined.len()) as u64;
    let inner = Inner {
        disk,
        log,
        wal_id,
        head,
        holds: Holds::default(),
        blocks,
        selections: Arc::new(Selections::new(SELECTIONS_BYTES)),
        jobs: Mutex::default(),
        writer: Mutex::new(Writer::default()),
        counters: Mutex::new(Counters { corruptions, ..Counters::default() }),
        replay_from: Mutex::new(replay_from),
        checkpoint_size: Mutex::new(checkpoint_size),
        // Where nothing is logged, it stays as an earlier stop left it.
        checkpoint_effort: Mutex::new(Effort::Bytes),
        latest: Mutex::new(super::LATEST),
        stopping: AtomicBool::new(false),
        refused_full: AtomicU64::new(0),
        usage: Mutex::default(),
        lock: RwLock::new(Some(lock)),
        limits: RwLock::new(options.limits()),
        options,
    };
    Ok((inner, report))
}

fn check(options: &Options) -> Result<(), OpenError> {
    if options.block_range.0 <= 0 {
        return Err(OpenError::Option("block_range must be longer than zero"));
    }
    if options.chunk_samples == 0 {
        return Err(OpenError::Option("chunk_samples must not be zero"));
    }
    Ok(())
}

/// What lies in the directory of the log.
struct Files {
    /// Length by number.
    segments: BTreeMap<u64, u64>,
    /// Numbers of the checkpoints, in order. There is more than one only after a crash between
    /// publishing one and removing the one before.
    checkpoints: Vec<u64>,
}

impl Files {
    /// Lists the files; removes what interrupted steps left.
    fn list(disk: &dyn Disk) -> DiskResult<Self> {
        let mut files = Self { segments: BTreeMap::new(), checkpoints: Vec::new() };
        for entry in disk.list(Path::new(wal::DIR))? {
            let path = Path::new(wal::DIR).join(&entry.name);
            if entry.name.ends_with(TEMPORARY_SUFFIX) {
                disk.remove(&path)?;
            } else if let Some(number) = checkpoint::number_of(&entry.name) {
                files.checkpoints.push(number);
            } else if let Ok(number) = entry.name.parse() {
                files.segments.insert(number, entry.size);
            }
        }
        files.checkpoints.sort_unstable();
        Ok(files)
    }
}

/// The checkpoint that a start reads: the newest; or the one before, if the newest is damaged and it
/// is not, and all of the log between them is still there.
fn choose_checkpoint(
    disk: &Arc<dyn Disk>,
    files: &Files,
    report: &mut OpenReport,
) -> Result<Option<u64>, OpenError> {
    let Some((newest, older)) = files.checkpoints.split_last() else { return Ok(None) };
    if older.is_empty() {
        return Ok(Some(*newest));
    }
    let (_, damage) = walk_checkpoint(disk, *newest, |_| Ok(Ok(())))?;
    if damage.is_empty() {
        return Ok(Some(*newest));
    }
    let followed = |number: &&u64| {
        files.segments.range(**number..*newest).count() as u64 == *newest - **number
    };
    for number in older.iter().rev().filter(followed) {
        if walk_checkpoint(disk, *number, |_| Ok(Ok(())))?.1.is_empty() {
            report.damage.extend(damage);
            return Ok(Some(*number));
        }
    }
    Ok(Some(*newest))
}

/// Applies what can be read of a checkpoint; its length. Samples of series that damage costs are
/// counted as orphaned.
fn read_checkpoint(
    disk: &Arc<dyn Disk>,
    number: u64,
    replay: &mut Replay<'_>,
    report: &mut OpenReport,
) -> Result<u64, OpenError> {
    let (size, damage) = walk_checkpoint(disk, number, |payload| replay.checkpoint(payload))?;
    report.damage.extend(damage);
    Ok(size)
}

/// Hands over the records of a checkpoint; its length, and what is damaged.
fn walk_checkpoint(
    disk: &Arc<dyn Disk>,
    number: u64,
    mut record: impl FnMut(&[u8]) -> DiskResult<Result<(), &'static str>>,
) -> Result<(u64, Vec<Damage>), OpenError> {
    let path = checkpoint::path(number);
    let size = disk.size(&path)?;
    let mut damage = Vec::new();
    let mut damaged = |offset, bytes, reason: &str| {
        let (path, reason) = (path.clone(), reason.to_owned());
        damage.push(Damage { path, offset, bytes, reason });
    };
    let mut reader = SegmentReader::new(Arc::clone(disk), path.clone(), 0, size);
    if check_version(reader.version()?, &path)?.is_none() {
        damaged(0, size.min(HEADER_BYTES), "no header");
    }
    loop {
        let at = reader.offset().max(HEADER_BYTES);
        match reader.step()? {
            Step::Record { payload, after } => {
                if let Err(reason) = record(payload)? {
                    damaged(at, after - at, reason);
                }
            }
            Step::Damaged { offset, bytes, reason, .. } => damaged(offset, bytes, reason),
            Step::End => return Ok((size, damage)),
        }
    }
}

/// `None` where there is no header; an error where it says that the format is newer.
fn check_version(version: Option<u32>, path: &Path) -> Result<Option<u32>, OpenError> {
    match version {
        Some(found) if found > segment::CHECKPOINT_VERSION => {
            let (path, known) = (path.to_path_buf(), segment::CHECKPOINT_VERSION);
            Err(OpenError::NewerFormat { path, found, known })
        }
        version => Ok(version),
    }
}

/// Replays a segment; returns its length, which is shorter than before where a torn tail was cut
/// off.
fn replay_segment(
    disk: &Arc<dyn Disk>,
    number: u64,
    size: u64,
    is_last: bool,
    replay: &mut Replay<'_>,
    report: &mut OpenReport,
) -> Result<u64, OpenError> {
    let path = segment::path(number);
    let mut reader = SegmentReader::new(Arc::clone(disk), path.clone(), 0, size);
    // Records behind a header that is damaged are as good as others.
    let mut headless = check_version(reader.version()?, &path)?.is_none();
    let mut damaged = |offset, bytes, reason: &str| {
        let from = if std::mem::take(&mut headless) { 0 } else { offset };
        let reason = if from < offset { "no header" } else { reason }.to_owned();
        let bytes = offset + bytes - from;
        (bytes > 0).then(|| Damage { path: path.clone(), offset: from, bytes, reason })
    };
    let mut tail = None;
    loop {
        let at = reader.offset();
        match reader.step()? {
            Step::End => {
                tail = tail.or_else(|| damaged(size, 0, "no header"));
                break;
            }
            Step::Record { payload, after } => {
                let at = at.max(HEADER_BYTES);
                report.damage.extend(damaged(at, 0, "no header"));
                let position = WalPosition { segment: number, offset: after };
                if let Err(reason) = replay.record(payload, position)? {
                    // The checksum holds, so this is not a torn write: skip it whole.
                    report.damage.extend(damaged(at, after - at, reason));
                }
            }
            Step::Damaged { offset, bytes, reason, resumes } => {
                let damage = damaged(offset, bytes, reason);
                if resumes {
                    report.damage.extend(damage);
                } else {
                    tail = damage;
                }
            }
        }
    }
    replay.flush(number);
    let Some(tail) = tail else { return Ok(size) };
    if !is_last {
        if tail.bytes > 0 {
            report.damage.push(tail);
        }
        return Ok(size);
    }
    let offset = tail.offset;
    if tail.bytes > 0 {
        let file = disk.open(&path)?;
        file.truncate(offset)?;
        file.sync()?;
        report.torn_tail = Some(tail);
    }
    Ok(offset)
}
