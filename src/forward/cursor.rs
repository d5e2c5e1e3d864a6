//! The durable position of an endpoint: everything before it was dealt with.
//!
//! A small text file, replaced as a whole: `stint-cursor-2 <log> <segment>:<offset>
//! <segment>:<offset> <shards> <newest> <crc32c in hex>`, where the second position is the one that
//! nothing was sent from behind of, and `newest` the time of the newest sample that was dealt with, in
//! milliseconds. It is missing where there is none.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use stint_model::Timestamp;
use stint_storage::disk::{read_all, write_atomically};
use stint_storage::{Disk, DiskError, WalId};

use super::source::Position;

const MAGIC: &str = "stint-cursor-2";

/// How far an endpoint has got.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Place {
    /// The log in which the positions mean something.
    pub log: WalId,
    /// Everything before it was dealt with.
    pub done: Position,
    /// Nothing from behind it was sent. What lies between may have been.
    pub reached: Position,
    /// Requests in flight at once when that was sent: series are divided among them.
    pub shards: usize,
    /// Time of the newest sample that was dealt with. Where the log does not reach back to `done`,
    /// what is later is read from the store.
    pub newest: Option<Timestamp>,
}

/// What was found at start.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Saved {
    /// An earlier run got this far.
    At(Place),
    /// There was no earlier run.
    Nothing,
    /// There was one, and its position cannot be read; the text says why.
    Damaged(String),
}

/// The cursor of one endpoint.
#[derive(Debug)]
pub struct Cursor {
    disk: Arc<dyn Disk>,
    path: PathBuf,
    saved: Option<Place>,
}

impl Cursor {
    /// Reads the cursor at `path`.
    pub fn open(disk: Arc<dyn Disk>, path: &Path) -> (Self, Saved) {
        let saved = match read_all(&*disk, path) {
            Ok(bytes) => parse(&bytes).map_or_else(
                || Saved::Damaged("it does not hold a position".to_owned()),
                Saved::At,
            ),
            Err(error) if error.is_not_found() => Saved::Nothing,
            Err(error) => Saved::Damaged(error.to_string()),
        };
        let known = if let Saved::At(place) = saved { Some(place) } else { None };
        (Self { disk, path: path.to_path_buf(), saved: known }, saved)
    }

    /// What is durable.
    pub fn saved(&self) -> Option<Place> {
        self.saved
    }

    /// Makes `place` durable, unless it already is.
    pub fn save(&mut self, place: Place) -> Result<(), DiskError> {
        if self.saved == Some(place) {
            return Ok(());
        }
        if let Some(dir) = self.path.parent() {
            self.disk.create_dir(dir)?;
        }
        write_atomically(&*self.disk, &self.path, print(place).as_bytes())?;
        self.saved = Some(place);
        Ok(())
    }
}

fn print(place: Place) -> String {
    let Place { log, done, reached, shards, newest } = place;
    let newest = newest.map(|newest| format!(" {}", newest.as_ms())).unwrap_or_default();
    let body = format!(
        "{MAGIC} {log} {}:{} {}:{} {shards}{newest}",
        done.segment, done.offset, reached.segment, reached.offset
    );
    let crc = crc32c::crc32c(body.as_bytes());
    format!("{body} {crc:08x}\n")
}

fn parse(bytes: &[u8]) -> Option<Place> {
    let text = std::str::from_utf8(bytes).ok()?.strip_suffix('\n')?;
    let (body, crc) = text.rsplit_once(' ')?;
    if u32::from_str_radix(crc, 16).ok()? != crc32c::crc32c(body.as_bytes()) {
        return None;
    }
    let mut words = body.strip_prefix(MAGIC)?.split_ascii_whitespace();
    let place = Place {
        log: words.next()?.parse().ok()?,
        done: position(words.next()?)?,
        reached: position(words.next()?)?,
        shards: words.next()?.parse().ok()?,
        newest: match words.next() {
            Some(word) => Some(Timestamp(word.parse().ok()?)),
            None => None,
        },
    };
    words.next().is_none().then_some(place)
}

fn position(text: &str) -> Option<Position> {
    let (segment, offset) = text.split_once(':')?;
    Some(Position { segment: segment.parse().ok()?, offset: offset.parse().ok()? })
}

/// The directory of an endpoint's files: its name where that is a plain one, else made from it.
pub fn directory(name: &str) -> PathBuf {
    let plain = |c: char| c.is_ascii_alphanumeric() || c == '-' || c == '_';
    let is_plain = !name.is_empty() && name.len() <= 64 && name.chars().all(plain);
    if is_plain {
        return Path::new("forward").join(name);
    }
    let kept: String = name.chars().filter(|c| plain(*c)).take(32).collect();
    let crc = crc32c::crc32c(name.as_bytes());
    Path::new("forward").join(format!("{kept}.{crc:08x}"))
}

/// Where an endpoint's cursor is kept.
pub fn cursor_path(name: &str) -> PathBuf {
    directory(name).join("cursor")
}

#[cfg(test)]
mod tests {
    use super::*;
    use stint_storage::SimDisk;
    use stint_storage::disk::sim::Crash;

    const PATH: &str = "forward/a/cursor";

    fn open(disk: &SimDisk) -> (Cursor, Saved) {
        Cursor::open(Arc::new(disk.clone()), Path::new(PATH))
    }

    fn place(segment: u64, offset: u64) -> Place {
        Place {
            log: "0123456789abcdef0123456789abcdef".parse().unwrap(),
            done: Position { segment, offset },
            reached: Position { segment, offset: offset + 100 },
            shards: 3,
            newest: (segment > 7).then_some(Timestamp(-5)),
        }
    }

    #[test]
    fn a_saved_position_is_found_again() {
        let disk = SimDisk::new();
        let (mut cursor, saved) = open(&disk);
        assert_eq!(saved, Saved::Nothing);
        cursor.save(place(7, 4096)).unwrap();
        cursor.save(place(8, 4096)).unwrap();
        let calls = disk.calls();
        cursor.save(place(8, 4096)).unwrap();
        assert_eq!(disk.calls(), calls, "an unchanged position is not written again");
        let saved = open(&disk.after_crash(Crash::KILL)).1;
        assert_eq!(saved, Saved::At(place(8, 4096)));
    }

    #[test]
    fn a_damaged_cursor_is_recognised() {
        let disk = SimDisk::new();
        open(&disk).0.save(place(1, 2)).unwrap();
        disk.damage(Path::new(PATH), 16, 0x01).unwrap();
        assert!(matches!(open(&disk).1, Saved::Damaged(_)));
    }

    #[test]
    fn every_name_has_a_directory_of_its_own() {
        assert_eq!(directory("cloud-1"), Path::new("forward/cloud-1"));
        assert_ne!(directory("a/b"), directory("ab"));
        assert_ne!(directory("a/b"), directory("a.b"));
        assert_eq!(directory("../x").components().count(), 2);
        assert_ne!(directory(""), Path::new("forward"));
    }
}
