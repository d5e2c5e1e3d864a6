//! What a block holds: a small text file that people can read too.

use std::fmt::{self, Write as _};
use std::path::{Path, PathBuf};

use stint_model::{TimeRange, Timestamp};

use super::BlockError;
use crate::codec::{Corruption, crc};

/// Name of the meta file inside a block's directory.
pub const META_FILE: &str = "meta";

/// The version of the format that this program writes.
pub const VERSION: u32 = 2;

/// First line of the file, without the version.
const TITLE: &str = "stint block ";
const CHECKSUM: &str = "crc32c ";

/// A block's number, unique in its database for as long as any block names it as parent.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct BlockId(pub u64);

impl BlockId {
    /// The directory's name.
    pub fn dir_name(self) -> String {
        format!("b-{:010}", self.0)
    }

    /// The number in a directory's name; `None` when it is not that of a published block.
    pub fn from_dir_name(name: &str) -> Option<Self> {
        let id = Self(name.strip_prefix("b-")?.parse().ok()?);
        (id.dir_name() == name).then_some(id)
    }

    /// A number that none of `blocks` and none of their parents has.
    pub fn unused(blocks: &[BlockMeta]) -> Self {
        let used = blocks.iter().flat_map(|block| block.parents.iter().chain([&block.id]));
        Self(used.map(|id| id.0).max().map_or(1, |last| last.saturating_add(1)))
    }
}

impl fmt::Display for BlockId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.dir_name())
    }
}

/// What a block holds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BlockMeta {
    /// Its number.
    pub id: BlockId,
    /// Version of its format.
    pub version: u32,
    /// All samples lie inside; aligned where the block was planned so.
    pub range: TimeRange,
    /// 1 for a block cut from the head, else one more than the highest parent's.
    pub level: u32,
    /// The blocks that this one replaces: where both exist, they no longer count.
    pub parents: Vec<BlockId>,
    /// The number of the oldest block that its samples come from; its own, where they come from the
    /// head. Of two samples of one time, that of the block of lower age counts.
    pub age: BlockId,
    /// Series.
    pub series: u64,
    /// Samples.
    pub samples: u64,
    /// Chunks of values.
    pub chunks: u64,
    /// Distinct columns of times.
    pub columns: u64,
    /// Bytes of the chunk file.
    pub chunks_bytes: u64,
    /// Bytes of the index file.
    pub index_bytes: u64,
}

impl BlockMeta {
    /// A block of level 1 that holds nothing yet.
    pub fn new(id: BlockId, range: TimeRange) -> Self {
        Self {
            id,
            version: VERSION,
            range,
            level: 1,
            parents: Vec::new(),
            age: id,
            series: 0,
            samples: 0,
            chunks: 0,
            columns: 0,
            chunks_bytes: 0,
            index_bytes: 0,
        }
    }

    /// The oldest block that is known without an age: of the parents, or the block itself.
    fn nearest(&self) -> BlockId {
        self.parents.iter().min().copied().unwrap_or(self.id)
    }

    /// Where the block lies under `parent_dir`.
    pub fn dir(&self, parent_dir: &Path) -> PathBuf {
        parent_dir.join(self.id.dir_name())
    }

    /// The text of the meta file.
    pub fn to_text(&self) -> String {
        let mut text = format!("{TITLE}{}\n", self.version);
        let parents: Vec<String> = self.parents.iter().map(|id| format!(" {}", id.0)).collect();
        let range = self.range;
        let age = if self.age == self.nearest() {
            String::new()
        } else {
            format!("age {}\n", self.age.0)
        };
        // Writing to a string cannot fail.
        let _ = write!(
            text,
            "id {}\nrange {} {}\nlevel {}\nparents{}\n{age}series {}\nsamples {}\nchunks {}\n\
             columns {}\nchunks_bytes {}\nindex_bytes {}\n",
            self.id.0,
            range.start,
            range.end,
            self.level,
            parents.concat(),
            self.series,
            self.samples,
            self.chunks,
            self.columns,
            self.chunks_bytes,
            self.index_bytes,
        );
        let _ = writeln!(text, "{CHECKSUM}{:08x}", crc::checksum(text.as_bytes()));
        text
    }

    /// Reads the text of the meta file `file`.
    pub fn from_text(bytes: &[u8], file: &str) -> Result<Self, BlockError> {
        let corrupt = |what| Corruption { file: file.to_owned(), offset: 0, what };
        let text = std::str::from_utf8(bytes).map_err(|_| corrupt("meta that is not text"))?;
        let first = text.lines().next().unwrap_or_default();
        let version: u32 = first
            .strip_prefix(TITLE)
            .and_then(|version| version.parse().ok())
            .ok_or_else(|| corrupt("not the meta of a block"))?;
        let at = text.rfind(CHECKSUM).ok_or_else(|| corrupt("meta without checksum"))?;
        let (body, checksum) = text.split_at(at);
        if checksum != format!("{CHECKSUM}{:08x}\n", crc::checksum(body.as_bytes())) {
            return Err(corrupt("the checksum of the meta does not match").into());
        }
        if !(1..=VERSION).contains(&version) {
            return Err(BlockError::Version { file: file.to_owned(), version, known: VERSION });
        }
        let mut meta = Self::new(BlockId(0), TimeRange::new(Timestamp(0), Timestamp(0)));
        meta.version = version;
        meta.age = BlockId(u64::MAX);
        for line in body.lines().skip(1) {
            meta.read_line(line).ok_or_else(|| corrupt("a line of the meta makes no sense"))?;
        }
        meta.age = meta.age.min(meta.nearest());
        Ok(meta)
    }

    fn read_line(&mut self, line: &str) -> Option<()> {
        let mut words = line.split(' ');
        let key = words.next()?;
        if key == "parents" {
            for id in words {
                self.parents.push(BlockId(id.parse().ok()?));
            }
            return Some(());
        }
        if key == "range" {
            let (start, end) = (words.next()?.parse().ok()?, words.next()?.parse().ok()?);
            self.range = TimeRange::new(Timestamp(start), Timestamp(end));
            return Some(());
        }
        let number: u64 = words.next()?.parse().ok()?;
        match key {
            "id" => self.id = BlockId(number),
            "age" => self.age = BlockId(number),
            "level" => self.level = u32::try_from(number).ok()?,
            "series" => self.series = number,
            "samples" => self.samples = number,
            "chunks" => self.chunks = number,
            "columns" => self.columns = number,
            "chunks_bytes" => self.chunks_bytes = number,
            "index_bytes" => self.index_bytes = number,
            _ => return None,
        }
        Some(())
    }
}

/// The blocks of `all` that count, in order of range: a block whose parents are still there
/// replaces them. The others are to be removed.
pub fn without_superseded(all: &[BlockMeta]) -> (Vec<&BlockMeta>, Vec<&BlockMeta>) {
    let superseded = |meta: &BlockMeta| all.iter().any(|other| other.parents.contains(&meta.id));
    let (mut gone, mut live): (Vec<_>, Vec<_>) = all.iter().partition(|meta| superseded(meta));
    live.sort_by_key(|meta| (meta.range.start, meta.range.end, meta.id));
    gone.sort_by_key(|meta| meta.id);
    (live, gone)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn meta() -> BlockMeta {
        BlockMeta {
            level: 2,
            parents: vec![BlockId(3), BlockId(4)],
            age: BlockId(2),
            series: 5,
            samples: 600,
            ..BlockMeta::new(BlockId(7), TimeRange::new(Timestamp(-10), Timestamp(7_200_000)))
        }
    }

    #[test]
    fn it_comes_back() {
        let text = meta().to_text();
        assert_eq!(BlockMeta::from_text(text.as_bytes(), "meta").unwrap(), meta());
    }

    #[test]
    fn the_version_before_is_read() {
        let old = BlockMeta { version: 1, ..meta() };
        assert_eq!(BlockMeta::from_text(old.to_text().as_bytes(), "meta").unwrap(), old);
    }

    #[test]
    fn an_age_is_written_where_the_parents_do_not_tell() {
        for (age, parents, written) in [
            (2, vec![BlockId(3), BlockId(4)], true),
            (3, meta().parents, false),
            (7, vec![], false),
        ] {
            let meta = BlockMeta { age: BlockId(age), parents, ..meta() };
            let text = meta.to_text();
            assert_eq!(text.contains("\nage "), written, "{text}");
            assert_eq!(BlockMeta::from_text(text.as_bytes(), "meta").unwrap(), meta);
        }
    }

    #[test]
    fn every_flipped_bit_is_found() {
        let text = meta().to_text().into_bytes();
        for at in 0..text.len() {
            for bit in 0..8 {
                let mut damaged = text.clone();
                damaged[at] ^= 1 << bit;
                assert!(BlockMeta::from_text(&damaged, "meta").is_err(), "byte {at} bit {bit}");
            }
        }
        assert!(BlockMeta::from_text(&text[..text.len() - 1], "meta").is_err());
    }

    #[test]
    fn a_later_version_is_named() {
        let text = BlockMeta { version: 3, ..meta() }.to_text();
        let error = BlockMeta::from_text(text.as_bytes(), "b-1/meta").unwrap_err();
        assert_eq!(
            error.to_string(),
            "b-1/meta has format version 3, but none above 2 is known: use a newer version"
        );
    }

    #[test]
    fn directory_names_are_numbers() {
        assert_eq!(BlockId::from_dir_name("b-0000000007"), Some(BlockId(7)));
        for name in ["b-7", "b-0000000007.tmp", "wal", "b-+000000007"] {
            assert_eq!(BlockId::from_dir_name(name), None, "{name}");
        }
        assert_eq!(BlockId::unused(&[]), BlockId(1));
        assert_eq!(BlockId::unused(&[meta()]), BlockId(8));
    }

    #[test]
    fn parents_do_not_count_beside_their_child() {
        let range = meta().range;
        let all = [BlockMeta::new(BlockId(3), range), meta(), BlockMeta::new(BlockId(9), range)];
        let (live, gone) = without_superseded(&all);
        assert_eq!(live.iter().map(|m| m.id.0).collect::<Vec<_>>(), [7, 9]);
        assert_eq!(gone.iter().map(|m| m.id.0).collect::<Vec<_>>(), [3]);
    }
}
