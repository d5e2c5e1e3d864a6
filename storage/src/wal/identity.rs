//! Which log a position belongs to.
//!
//! `wal/identity` holds one line of text, `stint-log` followed by 32 hexadecimal digits and the
//! CRC-32C of what stands before it. It is written when a log begins to exist and goes with it:
//! a log that is removed, or a snapshot, begins under another identity.

use std::collections::hash_map::RandomState;
use std::fmt;
use std::hash::BuildHasher as _;
use std::path::{Path, PathBuf};
use std::str::FromStr;

use crate::disk::{self, Disk, DiskResult};
use crate::error::Damage;

/// Name of the file inside the directory of the log.
pub(crate) const FILE: &str = "identity";

const WORD: &str = "stint-log";

/// The identity of a log: positions of one log mean nothing in another. As text: 32 hexadecimal
/// digits.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct WalId(u128);

impl fmt::Display for WalId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:032x}", self.0)
    }
}

/// A text that is not the identity of a log.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("not the identity of a log: {0:?}; expected 32 hexadecimal digits")]
pub struct ParseIdError(String);

impl FromStr for WalId {
    type Err = ParseIdError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let digits = text.len() == 32 && text.bytes().all(|byte| byte.is_ascii_hexdigit());
        let value = u128::from_str_radix(text, 16).ok().filter(|_| digits);
        value.map(Self).ok_or_else(|| ParseIdError(text.to_owned()))
    }
}

impl WalId {
    /// An identity that nobody else has: hash keys come from the operating system's randomness.
    fn random() -> Self {
        let half = || u128::from(RandomState::new().hash_one(WORD));
        Self(half() << 64 | half())
    }

    fn to_line(self) -> String {
        let body = format!("{WORD} {self}");
        let crc = crc32c::crc32c(body.as_bytes());
        format!("{body} {crc:08x}\n")
    }

    fn from_line(bytes: &[u8]) -> Option<Self> {
        let text = std::str::from_utf8(bytes).ok()?;
        let id = text.strip_prefix(WORD)?.strip_prefix(' ')?.get(..32)?.parse().ok()?;
        Self::to_line(id).eq(text).then_some(id)
    }
}

/// Where the file lies.
pub(crate) fn path() -> PathBuf {
    Path::new(super::DIR).join(FILE)
}

/// The identity on `disk`; `None` where the file is damaged.
///
/// # Errors
/// The disk fails, or there is no file.
pub(crate) fn read(disk: &dyn Disk) -> DiskResult<Option<WalId>> {
    disk::read_all(disk, &path()).map(|bytes| WalId::from_line(&bytes))
}

/// The identity of the log on `disk`, given now where it has none. A damaged one is replaced and
/// reported.
pub(crate) fn open(disk: &dyn Disk, damage: &mut Vec<Damage>) -> DiskResult<WalId> {
    match read(disk) {
        Ok(Some(id)) => return Ok(id),
        Ok(None) => damage.push(Damage {
            path: path(),
            offset: 0,
            bytes: disk.size(&path())?,
            reason: "not an identity: a new one is given".to_owned(),
        }),
        Err(error) if error.is_not_found() => {}
        Err(error) => return Err(error),
    }
    let id = WalId::random();
    disk::write_atomically(disk, &path(), id.to_line().as_bytes())?;
    Ok(id)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::disk::sim::SimDisk;

    #[test]
    fn an_identity_survives_being_text_and_is_not_given_twice() {
        let id = WalId::random();
        assert_eq!(id.to_string().parse(), Ok(id));
        assert_ne!(WalId::random(), id);
        for text in ["", "12", "+0000000000000000000000000000001", "zz"] {
            assert!(text.parse::<WalId>().is_err(), "{text}");
        }
    }

    #[test]
    fn it_stays_and_damage_to_it_is_reported() {
        let disk = SimDisk::new();
        disk.create_dir(Path::new("wal")).unwrap();
        let mut damage = Vec::new();
        let id = open(&disk, &mut damage).unwrap();
        assert_eq!(open(&disk, &mut damage).unwrap(), id);
        assert_eq!(damage, []);
        for at in 0..disk.size(&path()).unwrap() as usize {
            for bit in 0..8 {
                disk.damage(&path(), at, 1 << bit).unwrap();
                assert_eq!(read(&disk).unwrap(), None, "byte {at}, bit {bit}");
                disk.damage(&path(), at, 1 << bit).unwrap();
            }
        }
        disk.damage(&path(), 20, 1).unwrap();
        assert_ne!(open(&disk, &mut damage).unwrap(), id);
        assert_eq!((damage.len(), damage[0].bytes), (1, 52));
        assert!(read(&disk).unwrap().is_some());
    }
}
