//! The durable position of an endpoint: everything before it was dealt with.
//!
//! A small text file, replaced as a whole: `stint-cursor-1 <segment>:<offset> <crc32c in hex>`.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use stint_storage::disk::{read_all, write_atomically};
use stint_storage::{Disk, DiskError};

use super::source::Position;

const MAGIC: &str = "stint-cursor-1";

/// What was found at start.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Saved {
    /// An earlier run got this far.
    At(Position),
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
    saved: Option<Position>,
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
        let known = if let Saved::At(position) = saved { Some(position) } else { None };
        (Self { disk, path: path.to_path_buf(), saved: known }, saved)
    }

    /// Makes `position` durable, unless it already is.
    pub fn save(&mut self, position: Position) -> Result<(), DiskError> {
        if self.saved == Some(position) {
            return Ok(());
        }
        if let Some(dir) = self.path.parent() {
            self.disk.create_dir(dir)?;
        }
        write_atomically(&*self.disk, &self.path, print(position).as_bytes())?;
        self.saved = Some(position);
        Ok(())
    }
}

fn print(position: Position) -> String {
    let body = format!("{MAGIC} {}:{}", position.segment, position.offset);
    let crc = crc32c::crc32c(body.as_bytes());
    format!("{body} {crc:08x}\n")
}

fn parse(bytes: &[u8]) -> Option<Position> {
    let text = std::str::from_utf8(bytes).ok()?.strip_suffix('\n')?;
    let (body, crc) = text.rsplit_once(' ')?;
    if u32::from_str_radix(crc, 16).ok()? != crc32c::crc32c(body.as_bytes()) {
        return None;
    }
    let (segment, offset) = body.strip_prefix(MAGIC)?.trim_start().split_once(':')?;
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

#[cfg(test)]
mod tests {
    use super::*;
    use stint_storage::SimDisk;
    use stint_storage::disk::sim::Crash;

    const PATH: &str = "forward/a/cursor";

    fn open(disk: &SimDisk) -> (Cursor, Saved) {
        Cursor::open(Arc::new(disk.clone()), Path::new(PATH))
    }

    #[test]
    fn a_saved_position_is_found_again() {
        let disk = SimDisk::new();
        let (mut cursor, saved) = open(&disk);
        assert_eq!(saved, Saved::Nothing);
        let position = Position { segment: 7, offset: 4096 };
        cursor.save(position).unwrap();
        cursor.save(Position { segment: 8, ..position }).unwrap();
        let calls = disk.calls();
        cursor.save(Position { segment: 8, ..position }).unwrap();
        assert_eq!(disk.calls(), calls, "an unchanged position is not written again");
        let saved = open(&disk.after_crash(Crash::KILL)).1;
        assert_eq!(saved, Saved::At(Position { segment: 8, ..position }));
    }

    #[test]
    fn a_damaged_cursor_is_recognised() {
        let disk = SimDisk::new();
        open(&disk).0.save(Position { segment: 1, offset: 2 }).unwrap();
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
