//! Where the sealed chunks of the head lie: back to back in numbered pieces of memory, each of
//! which goes to a file when it is full and is mapped from there.
//!
//! The files are memory that the system may take back, and what a checkpoint of the log refers to:
//! a chunk that is in its file is not written again. Each file is synced before it is mapped; what
//! the disk refuses stays in memory. Those that no checkpoint refers to are removed when a
//! database is opened, and while it is open none is removed to which one may refer.
//!
//! Chunks of one piece were sealed at about the same time and leave the head together, and the
//! file with the last of them.

mod bytes;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

pub(crate) use self::bytes::Bytes;
pub(super) use self::bytes::is_whole as is_whole_chunk;
use self::bytes::{Content, Intact};
use crate::codec::crc;
use crate::disk::{Disk, DiskResult, Mapped, TEMPORARY_SUFFIX};

/// Directory of the files.
pub(crate) const DIR: &str = "head";

/// [`TEMPORARY_SUFFIX`] without its dot.
const TEMPORARY: &str = "tmp";
/// More than most chunks have.
const CHUNK_BYTES: usize = 4096;

const MAGIC: &[u8; 8] = b"STNTHED\x02";
/// Of files that an earlier version wrote: each of their chunks has its times.
const MAGIC_V1: &[u8; 8] = b"STNTHED\x01";

/// Where a chunk lies.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Place {
    pub(crate) piece: u32,
    pub(crate) start: u32,
    pub(crate) length: u32,
}

/// Where a chunk lies in the piece that is being filled; worth nothing once that is another.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Mark {
    epoch: u64,
    start: usize,
}

#[derive(Debug)]
struct Piece {
    content: Content,
    /// What is known of the chunks in `content`.
    intact: Arc<Intact>,
    /// Chunks that somebody still has.
    chunks: u32,
}

impl Piece {
    fn new(content: Content, chunks: u32) -> Self {
        Self { content, intact: Arc::default(), chunks }
    }

    fn on_disk(&self) -> bool {
        matches!(self.content, Content::File(_))
    }
}

/// See the module's documentation.
#[derive(Debug)]
pub(super) struct Arena {
    piece_bytes: usize,
    /// Full pieces by number.
    full: BTreeMap<u32, Piece>,
    /// The piece that is being filled, and how many of its chunks somebody still has.
    filling: Vec<u8>,
    filling_chunks: u32,
    number: u32,
    /// Counts what was filled so far.
    epoch: u64,
    /// Memory of a piece that is in its file: asking the system for so much again and again makes
    /// common allocators keep more than they need.
    spare: Vec<u8>,
    /// Pieces that nobody has chunks of, whose files remain.
    gone: Vec<u32>,
}

/// A full piece that is not on disk yet.
#[derive(Clone, Debug)]
pub(crate) struct Unwritten {
    number: u32,
    bytes: Arc<Vec<u8>>,
}

impl Arena {
    /// Pieces are full when they have `piece_bytes`.
    pub(crate) fn new(piece_bytes: usize) -> Self {
        Self {
            piece_bytes: piece_bytes.clamp(1, 1 << 30),
            full: BTreeMap::new(),
            filling: Vec::new(),
            filling_chunks: 0,
            number: 0,
            epoch: 0,
            spare: Vec::new(),
            gone: Vec::new(),
        }
    }

    /// Where the next chunk will lie.
    pub(crate) fn mark(&self) -> Mark {
        Mark { epoch: self.epoch, start: self.filling.len().max(MAGIC.len()) }
    }

    /// How many bytes before the next chunk a marked one lies; `None` where it lies elsewhere.
    pub(crate) fn distance(&self, mark: Mark) -> Option<usize> {
        (mark.epoch == self.epoch).then(|| self.filling.len().saturating_sub(mark.start))
    }

    /// Keeps a chunk.
    pub(crate) fn put(&mut self, chunk: &[u8]) -> Place {
        if self.filling.is_empty() {
            if self.filling.capacity() == 0 {
                self.filling = std::mem::take(&mut self.spare);
            }
            self.filling.reserve_exact(self.piece_bytes + chunk.len().max(CHUNK_BYTES));
            self.filling.extend_from_slice(MAGIC);
        }
        let start = self.filling.len();
        self.filling.extend_from_slice(chunk);
        self.filling_chunks += 1;
        let place = Place { piece: self.number, start: start as u32, length: chunk.len() as u32 };
        if self.filling.len() >= self.piece_bytes {
            self.turn();
        }
        place
    }

    fn turn(&mut self) {
        let bytes = std::mem::take(&mut self.filling);
        let chunks = std::mem::take(&mut self.filling_chunks);
        if chunks > 0 {
            let piece = Piece::new(Content::Memory(Arc::new(bytes)), chunks);
            self.full.insert(self.number, piece);
        }
        self.number += 1;
        self.epoch += 1;
    }

    /// The bytes of a chunk; empty for one that was given back.
    pub(crate) fn get(&self, place: Place) -> Bytes {
        let start = place.start as usize;
        let range = start..start + place.length as usize;
        if place.piece == self.number {
            return Bytes::copied(&self.filling, range);
        }
        let piece = self.full.get(&place.piece);
        let content = piece.map(|piece| piece.content.clone());
        Bytes::in_piece(content, piece.map(|piece| Arc::clone(&piece.intact)), range)
    }

    /// Whether a chunk is in its file.
    pub(crate) fn is_on_disk(&self, place: Place) -> bool {
        self.full.get(&place.piece).is_some_and(Piece::on_disk)
    }

    /// Declares the piece that is being filled full where it has at least `bytes`.
    pub(crate) fn turn_at(&mut self, bytes: usize) {
        if self.filling_chunks > 0 && self.filling.len() >= bytes {
            self.turn();
        }
    }

    /// Gives pieces that begin from now on numbers from `number` on. Nothing may be kept yet.
    pub(crate) fn begin_at(&mut self, number: u32) {
        self.number = self.number.max(number);
    }

    /// Takes the mapped file that an earlier run wrote.
    pub(crate) fn adopt(&mut self, number: u32, file: Mapped) {
        self.full.insert(number, Piece::new(Content::File(file), 0));
    }

    /// Keeps a chunk of an adopted piece; false where it does not lie in it.
    pub(crate) fn claim(&mut self, place: Place) -> bool {
        let Some(piece) = self.full.get_mut(&place.piece) else { return false };
        let inside = chunk_in(piece.content.bytes(), place).is_some();
        piece.chunks += u32::from(inside);
        inside
    }

    /// Lets adopted pieces go of which no chunk was kept.
    pub(crate) fn drop_unclaimed(&mut self) {
        let unclaimed = self.full.iter().filter(|(_, piece)| piece.chunks == 0);
        self.gone.extend(unclaimed.map(|(number, _)| *number));
        self.full.retain(|_, piece| piece.chunks > 0);
    }

    /// Gives a chunk back. Readers that have its bytes keep them.
    pub(crate) fn free(&mut self, place: Place) {
        if place.piece == self.number {
            self.filling_chunks = self.filling_chunks.saturating_sub(1);
            if self.filling_chunks == 0 {
                // Readers have copies.
                self.filling.clear();
                self.epoch += 1;
            }
        } else if let Some(piece) = self.full.get_mut(&place.piece) {
            piece.chunks = piece.chunks.saturating_sub(1);
            if piece.chunks == 0 {
                if piece.on_disk() {
                    self.gone.push(place.piece);
                }
                self.full.remove(&place.piece);
            }
        }
    }

    /// Bytes in memory of the process alone.
    pub(crate) fn heap_bytes(&self) -> usize {
        let full = self.full.values().filter(|piece| !piece.on_disk());
        let known = self.full.values().map(|piece| piece.intact.heap_bytes()).sum::<usize>();
        self.filling.len() + full.map(|piece| piece.content.bytes().len()).sum::<usize>() + known
    }

    /// Bytes of the files.
    pub(crate) fn file_bytes(&self) -> usize {
        let files = self.full.values().filter(|piece| piece.on_disk());
        files.map(|piece| piece.content.bytes().len()).sum()
    }

    /// A full piece that is only in memory.
    pub(crate) fn unwritten(&self) -> Option<Unwritten> {
        self.full.iter().find_map(|(number, piece)| match &piece.content {
            Content::Memory(bytes) => Some(Unwritten { number: *number, bytes: Arc::clone(bytes) }),
            Content::File(_) => None,
        })
    }

    /// Takes the mapped file of a piece in place of its memory.
    pub(crate) fn written(&mut self, unwritten: Unwritten, file: Mapped) {
        let Unwritten { number, bytes } = unwritten;
        drop(bytes);
        let Some(piece) = self.full.get_mut(&number) else {
            self.gone.push(number);
            return;
        };
        let content = std::mem::replace(&mut piece.content, Content::File(file));
        // The file may be damaged.
        piece.intact = Arc::default();
        // Readers may have it.
        if let Content::Memory(bytes) = content
            && let Ok(mut bytes) = Arc::try_unwrap(bytes)
        {
            bytes.clear();
            self.spare = bytes;
        }
    }

    /// The files that nobody needs any more.
    pub(crate) fn take_gone(&mut self) -> Vec<u32> {
        std::mem::take(&mut self.gone)
    }

    /// Remembers files that could not be removed.
    pub(crate) fn still_there(&mut self, numbers: Vec<u32>) {
        self.gone.extend(numbers);
    }
}

impl Unwritten {
    /// Writes the piece to its file, and maps that.
    pub(crate) fn write(&self, disk: &dyn Disk) -> DiskResult<Mapped> {
        let path = path(self.number);
        let temporary = path.with_extension(TEMPORARY);
        remove_file(disk, &temporary)?;
        if let Err(error) = self.write_to(disk, &temporary, &path) {
            // On a full disk others need the room at once; else it goes with the next attempt.
            let _ = disk.remove(&temporary);
            return Err(error);
        }
        disk.map(&path)
    }

    fn write_to(&self, disk: &dyn Disk, temporary: &Path, path: &Path) -> DiskResult<()> {
        let file = disk.create(temporary)?;
        file.append(&self.bytes)?;
        file.append(&crc::checksum(&self.bytes).to_le_bytes())?;
        file.sync()?;
        drop(file);
        disk.rename(temporary, path)
    }
}

/// Whether a file is as it was written. It is read `at_once` bytes at a time: looking at it where it is
/// mapped would keep all of it in memory.
pub(crate) fn is_whole(disk: &dyn Disk, path: &Path, at_once: usize) -> DiskResult<bool> {
    let size = disk.size(path)?;
    let Some(content) = size.checked_sub(4) else { return Ok(false) };
    let mut checksum = crc::checksum(&[]);
    let mut offset = 0;
    while offset < content {
        let length = usize::try_from(content - offset).map_or(at_once, |left| left.min(at_once));
        let bytes = disk.read(path, offset, length)?;
        let begins = |bytes: &[u8]| bytes.starts_with(MAGIC) || bytes.starts_with(MAGIC_V1);
        if bytes.is_empty() || (offset == 0 && !begins(&bytes)) {
            return Ok(false);
        }
        checksum = crc::continued(checksum, &bytes);
        offset += bytes.len() as u64;
    }
    Ok(content > 0 && disk.read(path, content, 4)? == checksum.to_le_bytes())
}

/// The bytes of a chunk in its file, where they lie in it.
fn chunk_in(file: &[u8], place: Place) -> Option<&[u8]> {
    let start = place.start as usize;
    let end = start.checked_add(place.length as usize)?;
    if start < MAGIC.len() || end + 4 > file.len() { None } else { file.get(start..end) }
}

/// A chunk in its mapped file, where it lies in it.
pub(crate) fn bytes_in(file: &Mapped, place: Place) -> Option<Bytes> {
    chunk_in(file, place)?;
    let start = place.start as usize;
    let range = start..start + place.length as usize;
    Some(Bytes::in_piece(Some(Content::File(file.clone())), None, range))
}

/// The file of a piece.
pub(crate) fn path(number: u32) -> PathBuf {
    Path::new(DIR).join(format!("{number:08}"))
}

/// The number of the file of this name, if it belongs here.
pub(crate) fn number_of(name: &str) -> Option<u32> {
    name.parse().ok().filter(|_| name.len() >= 8)
}

/// Whether a file of this name was not finished.
pub(crate) fn is_unfinished(name: &str) -> bool {
    name.strip_suffix(TEMPORARY_SUFFIX).is_some_and(|name| number_of(name).is_some())
}

pub(crate) fn remove_file(disk: &dyn Disk, path: &Path) -> DiskResult<()> {
    match disk.remove(path) {
        Err(error) if !error.is_not_found() => Err(error),
        _ => Ok(()),
    }
}

/// Makes the directory; the numbers of the files that are there. Unfinished ones are removed.
pub(crate) fn open_dir(disk: &dyn Disk) -> DiskResult<Vec<u32>> {
    let dir = Path::new(DIR);
    disk.create_dir(dir)?;
    let mut numbers = Vec::new();
    for entry in disk.list(dir)? {
        if is_unfinished(&entry.name) {
            disk.remove(&dir.join(&entry.name))?;
        } else {
            numbers.extend(number_of(&entry.name));
        }
    }
    Ok(numbers)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::disk::sim::SimDisk;

    fn text(arena: &Arena, place: Place) -> Vec<u8> {
        arena.get(place).get().to_vec()
    }

    #[test]
    fn chunks_stay_readable_from_memory_to_file_and_after_it() {
        let disk = SimDisk::new();
        open_dir(&disk).unwrap();
        let mut arena = Arena::new(30);
        let places: Vec<Place> = (0..9_u8).map(|number| arena.put(&[number; 10])).collect();
        let held = arena.get(places[0]);
        assert!(arena.heap_bytes() > 90);
        while let Some(unwritten) = arena.unwritten() {
            let mapped = unwritten.write(&disk).unwrap();
            arena.written(unwritten, mapped);
        }
        assert!(arena.heap_bytes() < 30, "only the piece that is not full");
        assert_eq!(arena.file_bytes(), 3 * (8 + 30 + 4));
        for at_once in [8, 9, 100] {
            assert!(is_whole(&disk, &path(1), at_once).unwrap());
        }
        let size = disk.size(&path(1)).unwrap();
        for at in 0..size {
            let hurt = disk.after_crash(crate::disk::sim::Crash::KILL);
            hurt.damage(&path(1), at as usize, 8).unwrap();
            assert!(!is_whole(&hurt, &path(1), 8).unwrap());
            hurt.open(&path(1)).unwrap().truncate(at).unwrap();
            assert!(!is_whole(&hurt, &path(1), 8).unwrap());
        }
        for (number, place) in (0..).zip(&places) {
            assert_eq!(text(&arena, *place), [number; 10]);
        }
        for place in &places {
            arena.free(*place);
        }
        assert_eq!((arena.heap_bytes(), arena.file_bytes()), (0, 0));
        for number in arena.take_gone() {
            remove_file(&disk, &path(number)).unwrap();
        }
        assert!(disk.list(Path::new(DIR)).unwrap().is_empty());
        assert_eq!(held.get(), [0; 10]);
        let again = arena.put(b"again");
        assert_eq!(text(&arena, again), b"again");
    }

    #[test]
    fn a_chunk_is_marked_as_long_as_its_piece_is_filled() {
        let mut arena = Arena::new(40);
        let mark = arena.mark();
        assert_eq!(arena.distance(mark), Some(0));
        let first = arena.put(&[1; 10]);
        assert_eq!(arena.distance(mark), Some(10));
        arena.put(&[2; 10]);
        assert_eq!(arena.distance(mark), Some(20));
        arena.put(&[3; 20]);
        assert_eq!(arena.distance(mark), None, "another piece is filled");
        let mark = arena.mark();
        let only = arena.put(&[4; 10]);
        assert_eq!(arena.distance(mark), Some(10));
        arena.free(only);
        assert_eq!(arena.distance(mark), None, "nobody has chunks of the piece, which is empty");
        assert_eq!(text(&arena, first), [1; 10]);
    }

    #[test]
    fn a_piece_that_leaves_while_it_is_written_leaves_no_file() {
        let disk = SimDisk::new();
        open_dir(&disk).unwrap();
        let mut arena = Arena::new(1);
        let place = arena.put(b"chunk");
        let unwritten = arena.unwritten().unwrap();
        arena.free(place);
        let mapped = unwritten.write(&disk).unwrap();
        arena.written(unwritten, mapped);
        assert_eq!((arena.take_gone(), arena.file_bytes()), (vec![0], 0));
    }

    #[test]
    fn what_was_not_finished_is_removed_and_the_rest_told() {
        let disk = SimDisk::new();
        open_dir(&disk).unwrap();
        for name in ["head/00000007", "head/123456789", "head/00000008.tmp", "head/notes"] {
            disk.create(Path::new(name)).unwrap();
        }
        assert_eq!(open_dir(&disk).unwrap(), [7, 123_456_789]);
        let left = disk.list(Path::new(DIR)).unwrap();
        let left: Vec<_> = left.iter().map(|entry| entry.name.as_str()).collect();
        assert_eq!(left, ["00000007", "123456789", "notes"]);
    }

    #[test]
    fn chunks_of_an_earlier_run_are_kept_where_they_lie_in_its_files() {
        let disk = SimDisk::new();
        open_dir(&disk).unwrap();
        let mut arena = Arena::new(1);
        let places = [arena.put(b"first"), arena.put(b"second")];
        while let Some(unwritten) = arena.unwritten() {
            let mapped = unwritten.write(&disk).unwrap();
            arena.written(unwritten, mapped);
        }
        let mut arena = Arena::new(1);
        arena.begin_at(2);
        for number in [0, 1] {
            arena.adopt(number, disk.map(&path(number)).unwrap());
        }
        assert!(arena.claim(places[1]));
        assert!(!arena.claim(Place { length: 7, ..places[1] }), "the checksum is no chunk");
        assert!(!arena.claim(Place { start: 7, ..places[1] }), "nor is the magic");
        assert!(!arena.claim(Place { piece: 2, ..places[1] }));
        arena.drop_unclaimed();
        assert_eq!(arena.take_gone(), [0]);
        assert_eq!(text(&arena, places[1]), b"second");
        let new = arena.put(b"new");
        assert_eq!((new.piece, arena.is_on_disk(new)), (2, false));
        arena.free(places[1]);
        assert_eq!(arena.take_gone(), [1]);
    }
}
