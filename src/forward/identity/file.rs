//! The file that tells who has which number: text, replaced as a whole.
//!
//! `stint-identities-1 <clock> <newest>`, then a line for each number in order: service (32 hexadecimal
//! digits), number, seen, rhythm (`-` where it is not known), `ended` or `there`, and for its
//! holder and those before it: target (32 hexadecimal digits), since, last, `follows` or `first`. The last line is the
//! CRC32C of all before it. Times are in milliseconds; `clock`, `seen` and rhythm are by the clock that runs while
//! samples come.

use std::fmt::Write as _;
use std::path::Path;

use stint_model::{Span, Timestamp};
use stint_storage::disk::{read_all, write_atomically};
use stint_storage::{Disk, DiskError};

use super::{HELD_MAX, Identities, NUMBERS_MAX, Number, PAST_MAX, Tenure};

const MAGIC: &str = "stint-identities-1";
/// The largest file that is read; what is written stays below.
const FILE_BYTES_MAX: u64 = 64 << 20;

/// Why the file cannot be used.
#[derive(Debug, thiserror::Error)]
pub(super) enum FileError {
    #[error("{0}")]
    Disk(#[from] DiskError),
    #[error("{path}: line {line} is damaged")]
    Damaged { path: String, line: usize },
    #[error("{path}: it is too large or its checksum is wrong")]
    Checksum { path: String },
}

/// What the file holds.
#[derive(Debug, Default, PartialEq)]
pub(super) struct Kept {
    clock: Span,
    newest: Option<Timestamp>,
    /// Service, and number.
    numbers: Vec<(u128, Number)>,
}

impl Identities {
    pub(super) fn kept(&self) -> Kept {
        let mut numbers: Vec<(u128, Number)> = Vec::with_capacity(self.held);
        for (service, known) in &self.services {
            numbers.extend(known.numbers.iter().map(|number| (*service, number.clone())));
        }
        // By service, in the order of numbers: the same numbers make the same file.
        numbers.sort_by_key(|(service, _)| *service);
        Kept { clock: self.clock, newest: self.newest, numbers }
    }

    pub(super) fn restore(&mut self, kept: Kept) {
        (self.clock, self.newest) = (kept.clock, kept.newest);
        for (service, number) in kept.numbers {
            let known = self.services.entry(service).or_default();
            known.index.insert(number.holder.target, known.numbers.len() as u32);
            known.numbers.push(number);
            self.held += 1;
        }
    }
}

/// Reads the file, where there is one.
pub(super) fn read(disk: &dyn Disk, path: &Path) -> Result<Option<Kept>, FileError> {
    let shown = || path.display().to_string();
    let bytes = match disk.size(path) {
        Ok(size) if size > FILE_BYTES_MAX => return Err(FileError::Checksum { path: shown() }),
        Ok(_) => read_all(disk, path)?,
        Err(error) if error.is_not_found() => return Ok(None),
        Err(error) => return Err(error.into()),
    };
    let text = checked(&bytes).ok_or_else(|| FileError::Checksum { path: shown() })?;
    let damaged = |line: usize| FileError::Damaged { path: shown(), line: line + 1 };
    let mut lines = text.lines().enumerate();
    let first = lines.next().and_then(|(_, line)| header(line));
    let (clock, newest) = first.ok_or_else(|| damaged(0))?;
    let mut kept = Kept { clock, newest, numbers: Vec::new() };
    let mut next = (0, 0);
    for (at, line) in lines {
        let (service, number, one) = number_of(line).ok_or_else(|| damaged(at))?;
        next = if next.0 == service { (service, next.1 + 1) } else { (service, 0) };
        let fits = number == next.1 && number < NUMBERS_MAX && kept.numbers.len() < HELD_MAX;
        if !fits || one.seen > clock {
            return Err(damaged(at));
        }
        kept.numbers.push((service, one));
    }
    Ok(Some(kept))
}

/// The text before the checksum, where that is right.
fn checked(bytes: &[u8]) -> Option<&str> {
    let text = std::str::from_utf8(bytes).ok()?.strip_suffix('\n')?;
    let (body, crc) = text.rsplit_once('\n')?;
    let is_right = u32::from_str_radix(crc, 16).ok()? == crc32c::crc32c(body.as_bytes());
    is_right.then_some(body)
}

fn header(line: &str) -> Option<(Span, Option<Timestamp>)> {
    let mut words = line.strip_prefix(MAGIC)?.split_ascii_whitespace();
    let clock = Span(words.next()?.parse().ok().filter(|clock| *clock >= 0)?);
    let newest = match words.next()? {
        "-" => None,
        word => Some(Timestamp(word.parse().ok()?)),
    };
    words.next().is_none().then_some((clock, newest))
}

fn number_of(line: &str) -> Option<(u128, usize, Number)> {
    let mut words = line.split_ascii_whitespace();
    let service = u128::from_str_radix(words.next()?, 16).ok()?;
    let number = words.next()?.parse().ok()?;
    let seen = Span(words.next()?.parse().ok().filter(|seen| *seen >= 0)?);
    let gap = match words.next()? {
        "-" => None,
        word => Some(Span(word.parse().ok().filter(|gap| *gap >= 0)?)),
    };
    let has_ended = flag(words.next()?, "ended", "there")?;
    let rest: Vec<&str> = words.collect();
    let tenures: Option<Vec<Tenure>> = rest.chunks(4).map(tenure).collect();
    let mut tenures = tenures?.into_iter();
    let (holder, past) = (tenures.next()?, tenures.collect::<Vec<_>>());
    let (is_new, may_follow, is_durable) = (false, false, true);
    let one = Number { holder, seen, gap, has_ended, is_new, may_follow, is_durable, past };
    (one.past.len() <= PAST_MAX).then_some((service, number, one))
}

fn tenure(words: &[&str]) -> Option<Tenure> {
    let [target, since, last, follows] = words else { return None };
    let target = u128::from_str_radix(target, 16).ok()?;
    let (since, last) = (Timestamp(since.parse().ok()?), Timestamp(last.parse().ok()?));
    Some(Tenure { target, since, last, follows: flag(follows, "follows", "first")? })
}

fn flag(word: &str, yes: &str, no: &str) -> Option<bool> {
    (word == yes || word == no).then_some(word == yes)
}

/// Replaces the file.
pub(super) fn write(disk: &dyn Disk, path: &Path, kept: &Kept) -> Result<(), DiskError> {
    if let Some(dir) = path.parent() {
        disk.create_dir(dir)?;
    }
    write_atomically(disk, path, print(kept).as_bytes())
}

fn print(kept: &Kept) -> String {
    let newest = kept.newest.map_or("-".to_owned(), |newest| newest.as_ms().to_string());
    let mut text = format!("{MAGIC} {} {newest}", kept.clock.as_ms());
    let (mut of, mut at) = (None, 0);
    for (service, number) in &kept.numbers {
        at = if of == Some(service) { at + 1 } else { 0 };
        of = Some(service);
        let gap = number.gap.map_or("-".to_owned(), |gap| gap.as_ms().to_string());
        let state = if number.has_ended { "ended" } else { "there" };
        // Writing to a string never fails.
        let _ = write!(text, "\n{service:032x} {at} {} {gap} {state}", number.seen.as_ms());
        for Tenure { target, since, last, follows } in
            std::iter::once(&number.holder).chain(&number.past)
        {
            let follows = if *follows { "follows" } else { "first" };
            let (since, last) = (since.as_ms(), last.as_ms());
            let _ = write!(text, " {target:032x} {since} {last} {follows}");
        }
    }
    let crc = crc32c::crc32c(text.as_bytes());
    let _ = writeln!(text, "\n{crc:08x}");
    text
}
