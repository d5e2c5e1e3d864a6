//! Items in groups, each group checked when it is read.
//!
//! `group | crc32c u32 | group | crc32c u32 | … | offsets: u32 each, one more than groups`. The
//! checksum covers the section's place and the group's number too, so a damaged offset cannot
//! pass one intact group off as another.

use crate::codec::Corruption;
use crate::codec::crc;
use crate::codec::varint::{self, Reader};

/// Items of one group.
pub const GROUP: usize = 16;

/// Where a section of groups lies in its file.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Section {
    /// First byte of the first group.
    pub base: u64,
    /// Bytes of all groups; the offsets follow.
    pub data_len: u32,
    /// How many groups.
    pub groups: u32,
}

impl Section {
    /// Appends the place of the section.
    pub fn put(&self, out: &mut Vec<u8>) {
        varint::put(out, self.base);
        varint::put(out, u64::from(self.data_len));
        varint::put(out, u64::from(self.groups));
    }

    /// Behind its last byte.
    pub const fn end(&self) -> u64 {
        let table = (self.groups as u64 + 1) * 4;
        self.base.saturating_add(self.data_len as u64).saturating_add(table)
    }

    /// Whether `len` items fit into the section, and the section into `file`; so that no count
    /// read from a damaged file is taken for true.
    pub fn holds(&self, len: u32, file: &[u8]) -> bool {
        self.end() <= file.len() as u64 && u64::from(len) <= u64::from(self.groups) * GROUP as u64
    }

    /// Reads the place of a section.
    pub fn take(reader: &mut Reader<'_>) -> Result<Self, Corruption> {
        let base = reader.varint()?;
        let data_len = reader.varint_up_to(u32::MAX as usize)? as u32;
        let groups = reader.varint_up_to(u32::MAX as usize)? as u32;
        Ok(Self { base, data_len, groups })
    }
}

/// What the checksum of a group covers beside its bytes.
pub(super) fn place(base: u64, group: u64) -> u64 {
    // Any odd factor keeps bases and numbers apart.
    base.wrapping_mul(0x9e37_79b9_7f4a_7c15).wrapping_add(group)
}

/// A section of more than 4 GiB cannot be addressed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("an index section is larger than 4 GiB: split the block")]
pub struct SectionTooLarge;

/// Collects the groups of one section.
#[derive(Debug)]
pub struct GroupsWriter {
    base: u64,
    data: Vec<u8>,
    offsets: Vec<u32>,
    too_large: bool,
}

impl GroupsWriter {
    /// A section that will start at byte `base` of its file.
    pub fn new(base: u64) -> Self {
        Self { base, data: Vec::new(), offsets: vec![0], too_large: false }
    }

    /// Adds a group.
    pub fn push(&mut self, group: &[u8]) {
        let number = self.offsets.len() as u64 - 1;
        self.data.extend_from_slice(group);
        let checksum = crc::checksum_at(place(self.base, number), group);
        self.data.extend_from_slice(&checksum.to_le_bytes());
        match u32::try_from(self.data.len()) {
            Ok(end) => self.offsets.push(end),
            Err(_) => self.too_large = true,
        }
    }

    /// The bytes of the section, and where it lies.
    pub fn finish(mut self) -> Result<(Vec<u8>, Section), SectionTooLarge> {
        if self.too_large {
            return Err(SectionTooLarge);
        }
        let data_len = u32::try_from(self.data.len()).map_err(|_| SectionTooLarge)?;
        let groups = u32::try_from(self.offsets.len() - 1).map_err(|_| SectionTooLarge)?;
        for offset in &self.offsets {
            self.data.extend_from_slice(&offset.to_le_bytes());
        }
        Ok((self.data, Section { base: self.base, data_len, groups }))
    }
}

/// Reads groups of a section in place.
#[derive(Clone, Copy, Debug)]
pub struct Groups<'a> {
    file: &'a [u8],
    section: Section,
}

impl<'a> Groups<'a> {
    /// The section at `section` of `file`.
    pub const fn new(file: &'a [u8], section: Section) -> Self {
        Self { file, section }
    }

    /// How many groups there are.
    pub const fn len(&self) -> u32 {
        self.section.groups
    }

    /// Whether there are none.
    pub const fn is_empty(&self) -> bool {
        self.section.groups == 0
    }

    fn corrupt(&self, what: &'static str) -> Corruption {
        Corruption { file: String::new(), offset: self.section.base, what }
    }

    fn offset(&self, group: u32) -> Option<u64> {
        let table = self.section.base.checked_add(u64::from(self.section.data_len))?;
        let at = usize::try_from(table.checked_add(u64::from(group) * 4)?).ok()?;
        let bytes = self.file.get(at..)?.first_chunk::<4>()?;
        Some(u64::from(u32::from_le_bytes(*bytes)))
    }

    fn slice(&self, group: u32) -> Option<&'a [u8]> {
        let start = self.section.base.checked_add(self.offset(group)?)?;
        let end = self.section.base.checked_add(self.offset(group.checked_add(1)?)?)?;
        self.file.get(usize::try_from(start).ok()?..usize::try_from(end).ok()?)
    }

    /// Group number `group`, its checksum verified.
    #[inline]
    pub fn get(&self, group: u32) -> Result<&'a [u8], Corruption> {
        if group >= self.section.groups {
            return Err(self.corrupt("a group beyond its section"));
        }
        let Some((body, checksum)) = self.slice(group).and_then(<[u8]>::split_last_chunk::<4>)
        else {
            return Err(self.corrupt("a group beyond its file"));
        };
        let expected = crc::checksum_at(place(self.section.base, u64::from(group)), body);
        if expected != u32::from_le_bytes(*checksum) {
            return Err(self.corrupt("a group's checksum does not match"));
        }
        Ok(body)
    }

    /// Reads every group, for verification.
    pub fn verify(&self) -> Result<(), Corruption> {
        let ends = (self.offset(0), self.offset(self.section.groups));
        if ends != (Some(0), Some(u64::from(self.section.data_len))) {
            return Err(self.corrupt("a section's offsets do not span it"));
        }
        for group in 0..self.section.groups {
            self.get(group)?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn section(base: usize, groups: &[&[u8]]) -> (Vec<u8>, Section) {
        let mut writer = GroupsWriter::new(base as u64);
        for group in groups {
            writer.push(group);
        }
        let (bytes, section) = writer.finish().unwrap();
        let mut file = vec![0; base];
        file.extend(bytes);
        (file, section)
    }

    #[test]
    fn groups_come_back() {
        let (file, section) = section(7, &[b"one", b"", b"three"]);
        let groups = Groups::new(&file, section);
        assert_eq!(groups.get(0).unwrap(), b"one");
        assert_eq!(groups.get(1).unwrap(), b"");
        assert_eq!(groups.get(2).unwrap(), b"three");
        assert!(groups.get(3).is_err());
        groups.verify().unwrap();
    }

    #[test]
    fn every_flipped_bit_is_found() {
        let (file, section) = section(0, &[b"one", b"two", b"ten"]);
        for at in 0..file.len() {
            for bit in 0..8 {
                let mut damaged = file.clone();
                damaged[at] ^= 1 << bit;
                assert!(Groups::new(&damaged, section).verify().is_err(), "byte {at} bit {bit}");
            }
        }
    }

    #[test]
    fn places_come_back() {
        let (_, section) = section(300, &[b"one"]);
        let mut bytes = Vec::new();
        section.put(&mut bytes);
        assert_eq!(Section::take(&mut Reader::new(&bytes)).unwrap(), section);
    }
}
