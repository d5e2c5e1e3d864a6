//! Which groups of a dictionary have a string with a certain piece of text, found in the bytes as they
//! are stored.
//!
//! A piece lies wholly in what a string has for itself, where searching the group's bytes at once finds
//! it, or it begins in what the string shares with the one before. Most groups have neither, and their
//! strings need not be put together and searched one by one.

use memchr::memmem::Finder;

use crate::codec::Corruption;
use crate::codec::strings;
use crate::codec::varint::Reader;

/// As much of a piece as is looked for: more would hardly rule out more.
const PIECE_MAX: usize = 64;

/// A piece of text that is looked for.
pub(super) struct Piece<'a> {
    bytes: &'a [u8],
    finder: Finder<'a>,
    /// By byte: in front of which places of the piece it stands, one bit for each.
    before: Box<[u64; 256]>,
    /// By byte: at which places of the piece but the first it stands.
    at: Box<[u64; 256]>,
}

impl<'a> Piece<'a> {
    /// `None` for no text at all.
    pub(super) fn new(bytes: &'a [u8]) -> Option<Self> {
        let bytes = bytes.get(..PIECE_MAX).unwrap_or(bytes);
        let finder = Finder::new(bytes);
        let (mut before, mut at) = (Box::new([0; 256]), Box::new([0; 256]));
        for (place, pair) in (1..).zip(bytes.windows(2)) {
            for (places, byte) in [&mut before, &mut at].into_iter().zip(pair) {
                if let Some(places) = places.get_mut(usize::from(*byte)) {
                    *places |= 1_u64 << place;
                }
            }
        }
        (!bytes.is_empty()).then_some(Self { bytes, finder, before, at })
    }

    /// Whether a string of the front-coded `group` may have the piece. `text` is for use meanwhile.
    pub(super) fn may_be_in(&self, group: &[u8], text: &mut Vec<u8>) -> Result<bool, Corruption> {
        // What goes from one string into the next is found too, and does no harm.
        if self.finder.find(group).is_some() {
            return Ok(true);
        }
        text.clear();
        let mut reader = Reader::new(group);
        while !reader.is_empty() {
            let next = strings::take_next(&mut reader)?;
            text.truncate(next.shared);
            if self.begins_in(text, next.rest) {
                return Ok(true);
            }
            text.extend_from_slice(next.rest);
        }
        Ok(false)
    }

    /// Whether the piece begins at the end of `shared` and goes on in `rest`.
    fn begins_in(&self, shared: &[u8], rest: &[u8]) -> bool {
        let (Some(last), Some(first)) = (shared.last(), rest.first()) else { return false };
        let places = |of: &[u64; 256], byte: u8| of.get(usize::from(byte)).copied();
        let both = places(&self.before, *last).zip(places(&self.at, *first));
        let mut places = both.map_or(0, |(before, at)| before & at);
        while places != 0 {
            let place = places.trailing_zeros() as usize;
            places &= places - 1;
            if let Some((begin, end)) = self.bytes.split_at_checked(place)
                && shared.ends_with(begin)
                && rest.starts_with(end)
            {
                return true;
            }
        }
        false
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn a_group_that_is_ruled_out_does_not_have_it(
            texts in proptest::collection::btree_set("[ab]{0,9}", 1..16),
            piece in "[ab]{1,5}",
            long in "[ab]{60,80}",
        ) {
            let mut texts: Vec<String> = texts.into_iter().collect();
            texts.push(format!("c{long}"));
            let mut group = Vec::new();
            let mut before = "";
            for text in &texts {
                strings::put_next(before, text, &mut group);
                before = text;
            }
            for piece in [piece, long] {
                let has = texts.iter().any(|text| text.contains(&piece));
                let may = Piece::new(piece.as_bytes()).unwrap().may_be_in(&group, &mut Vec::new());
                prop_assert!(may.unwrap() || !has, "{} in {:?}", piece, texts);
            }
        }
    }

    #[test]
    fn most_groups_are_ruled_out() {
        let texts: Vec<String> = (1000..1016).map(|n| format!("host-{n}.example")).collect();
        let mut group = Vec::new();
        let mut before = "";
        for text in &texts {
            strings::put_next(before, text, &mut group);
            before = text;
        }
        let may = |piece: &str| {
            Piece::new(piece.as_bytes()).unwrap().may_be_in(&group, &mut Vec::new()).unwrap()
        };
        for piece in ["host", "012.ex", "-1015", "1010", "4", "example", "0.e"] {
            assert!(may(piece), "{piece}");
        }
        for piece in ["-1016", "3.examples", "hosts", "22.", "x-100"] {
            assert!(!may(piece), "{piece}");
        }
        assert!(Piece::new(b"").is_none());
    }
}
