//! The index of a block: symbols, series, and which series have a label.

mod postings;
mod series;
#[cfg(test)]
mod tests;

use super::cursor::Cursor;
use super::{Damage, checksum_holds};

pub use series::{ChunkRef, SeriesEntry};

const MAGIC: u32 = 0xBAAA_D700;
const TOC_BYTES: usize = 52;
/// Series begin at multiples of this.
const SERIES_ALIGN: u64 = 16;

/// An index, whose table of contents, symbols and table of postings were verified. The lists and
/// series that they lead to are verified when they are read.
#[derive(Debug)]
pub struct Index<'a> {
    bytes: &'a [u8],
    /// Where each symbol lies.
    symbols: Vec<(u32, u32)>,
    symbols_at: usize,
    metrics: Vec<Metric<'a>>,
    /// Where the list of all series lies.
    all: Option<usize>,
}

/// A metric name, and where the list of its series lies.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Metric<'a> {
    /// Value of `__name__`.
    pub name: &'a str,
    postings: usize,
}

/// Where the parts of an index begin; 0 for one that is missing.
struct Contents {
    symbols: usize,
    postings_table: usize,
}

impl<'a> Index<'a> {
    /// The index that consists of `bytes`.
    pub fn open(bytes: &'a [u8]) -> Result<Self, Damage> {
        let mut cursor = Cursor::new(bytes);
        if cursor.be_u32()? != MAGIC {
            return Err(Damage::new(0, "not an index"));
        }
        match cursor.byte()? {
            2 | 3 => {}
            1 => return Err(Damage::new(4, "an index of a version of Prometheus before 2.1")),
            _ => return Err(Damage::new(4, "an index of a later version of Prometheus")),
        }
        let contents = contents(bytes)?;
        let (symbols_at, section) = section(bytes, contents.symbols)?;
        let symbols = symbols(section).map_err(|damage| damage.behind(symbols_at))?;
        let (table_at, table) = self::section(bytes, contents.postings_table)?;
        let mut index = Self { bytes, symbols, symbols_at, metrics: Vec::new(), all: None };
        index.read_table(table).map_err(|damage| damage.behind(table_at))?;
        Ok(index)
    }

    /// Symbol number `number`.
    pub fn symbol(&self, number: u32) -> Result<&'a str, Damage> {
        let unknown = Damage::new(self.symbols_at, "a symbol that there is not");
        let (start, length) = *self.symbols.get(number as usize).ok_or(unknown)?;
        let start = self.symbols_at + start as usize;
        let bytes = self.bytes.get(start..start + length as usize).ok_or(unknown)?;
        std::str::from_utf8(bytes).map_err(|_| Damage::new(start, "a symbol that is no UTF-8"))
    }

    /// The names of metrics, in order.
    pub fn metrics(&self) -> &[Metric<'a>] {
        &self.metrics
    }

    fn read_table(&mut self, table: &'a [u8]) -> Result<(), Damage> {
        let mut cursor = Cursor::new(table);
        // Of the entries, only those of all series and of metric names are of use.
        let count = cursor.be_u32()?;
        for _ in 0..count {
            let at = cursor;
            if cursor.uvarint()? != 2 {
                return Err(at.damage("an entry of postings that has not two keys"));
            }
            let (name, value) = (cursor.counted()?, cursor.counted()?);
            let postings = usize::try_from(cursor.uvarint()?)
                .map_err(|_| at.damage("postings beyond the end of the index"))?;
            if name == b"__name__" {
                let name = std::str::from_utf8(value)
                    .map_err(|_| at.damage("a metric name that is no UTF-8"))?;
                self.metrics.push(Metric { name, postings });
            } else if name.is_empty() && value.is_empty() {
                self.all = Some(postings);
            }
        }
        // They are in order already, unless somebody else wrote the index.
        self.metrics.sort_by_key(|metric| metric.name);
        Ok(())
    }
}

fn contents(bytes: &[u8]) -> Result<Contents, Damage> {
    let at = bytes.len().saturating_sub(TOC_BYTES);
    let toc = bytes.get(at..).filter(|toc| toc.len() == TOC_BYTES);
    let toc = toc.ok_or_else(|| Damage::new(0, "too short for an index"))?;
    let mut cursor = Cursor::new(toc);
    let mut parts = [0; 6];
    for part in &mut parts {
        *part = usize::try_from(cursor.be_u64()?)
            .map_err(|_| Damage::new(at, "a part beyond the end of the index"))?;
    }
    if !checksum_holds(toc.get(..TOC_BYTES - 4).unwrap_or_default(), cursor.be_u32()?) {
        return Err(Damage::new(at, "the checksum of the table of contents does not match"));
    }
    let [symbols, _series, _label_indices, _label_table, _postings, postings_table] = parts;
    Ok(Contents { symbols, postings_table })
}

/// A part of the index behind its length, and where it begins. Its checksum was verified.
fn section(bytes: &[u8], at: usize) -> Result<(usize, &[u8]), Damage> {
    let rest = bytes.get(at..).filter(|_| at > 0);
    let rest = rest.ok_or_else(|| Damage::new(at, "a part beyond the end of the index"))?;
    let mut cursor = Cursor::new(rest);
    let read = |cursor: &mut Cursor<'_>| -> Result<bool, Damage> {
        let length = cursor.be_u32()? as usize;
        let body = rest.get(4..).and_then(|rest| rest.get(..length));
        let body = body.ok_or_else(|| cursor.damage("ends too early"))?;
        cursor.take(length)?;
        Ok(checksum_holds(body, cursor.be_u32()?))
    };
    if !read(&mut cursor).map_err(|damage| damage.behind(at))? {
        return Err(Damage::new(at, "the checksum of a part of the index does not match"));
    }
    let body = rest.get(4..cursor.at() - 4).unwrap_or_default();
    Ok((at + 4, body))
}

/// Where each symbol lies in the part of symbols.
fn symbols(section: &[u8]) -> Result<Vec<(u32, u32)>, Damage> {
    let mut cursor = Cursor::new(section);
    let count = cursor.be_u32()? as usize;
    if count > cursor.remaining() {
        return Err(cursor.damage("a count of more than there is"));
    }
    let mut symbols = Vec::with_capacity(count);
    for _ in 0..count {
        let length = cursor.count(1)?;
        // Parts are shorter than 4 GiB: their length is a number of 32 bits.
        symbols.push((cursor.at() as u32, length as u32));
        cursor.take(length)?;
    }
    Ok(symbols)
}
