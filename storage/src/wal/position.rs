//! A place in the log.

use std::fmt;
use std::str::FromStr;

/// A place between two records of the log. Positions of one database are ordered as the records
/// were written, across restarts. As text: `segment:offset`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct WalPosition {
    /// Number of the segment.
    pub segment: u64,
    /// Bytes from the start of the segment.
    pub offset: u64,
}

impl fmt::Display for WalPosition {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.segment, self.offset)
    }
}

/// A text that is not a position.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("not a log position: {0:?}; expected segment:offset such as 12:4096")]
pub struct ParsePositionError(String);

impl FromStr for WalPosition {
    type Err = ParsePositionError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let parse = || {
            let (segment, offset) = text.split_once(':')?;
            Some(Self { segment: segment.parse().ok()?, offset: offset.parse().ok()? })
        };
        parse().ok_or_else(|| ParsePositionError(text.to_owned()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn positions_survive_being_text() {
        let position = WalPosition { segment: 12, offset: 4096 };
        assert_eq!(position.to_string().parse(), Ok(position));
        for text in ["", "1", "1:", ":1", "a:1", "1:-1", "1:2:3"] {
            assert!(text.parse::<WalPosition>().is_err(), "{text}");
        }
    }
}
