//! Texts of series, one after the other, each as what it has in common with the one before and the
//! rest: neighbours in a body share their name and most of their labels. Reading them in order costs a
//! copy of the rest of each; one in the middle is put together from the last one that stands whole.

/// So often a text stands whole.
const WHOLE_EVERY: usize = 16;

/// Where a text lies.
#[derive(Clone, Copy, Debug)]
struct Mark {
    /// Where in `rest` it ends.
    end: u32,
    /// Bytes that it has in common with the one before.
    shared: u16,
}

/// Texts by number. All together have less than 4 GiB: a body is never so long.
#[derive(Debug, Default)]
pub(super) struct Texts {
    rest: String,
    marks: Vec<Mark>,
    /// The last text, while texts are added.
    last: String,
}

impl Texts {
    /// How many there are.
    pub(super) fn len(&self) -> usize {
        self.marks.len()
    }

    /// Bytes on the heap.
    #[cfg(test)]
    pub(super) fn heap_bytes(&self) -> usize {
        self.rest.capacity() + self.last.capacity() + self.marks.capacity() * size_of::<Mark>()
    }

    /// Adds a text behind the others.
    pub(super) fn push(&mut self, text: &str) {
        let number = self.len();
        let mut last = std::mem::take(&mut self.last);
        if last.is_empty() && number > 0 {
            self.read(number - 1, &mut last);
        }
        let shared = if number.is_multiple_of(WHOLE_EVERY) { 0 } else { common(&last, text) };
        self.rest.push_str(text.get(shared..).unwrap_or_default());
        self.marks.push(Mark { end: self.rest.len() as u32, shared: shared as u16 });
        last.clear();
        last.push_str(text);
        self.last = last;
    }

    /// No more texts are added for now: gives back the memory that was for them.
    pub(super) fn settle(&mut self) {
        self.last = String::new();
        self.rest.shrink_to_fit();
        self.marks.shrink_to_fit();
    }

    /// What number `at` has of its own, and how much of the one before comes first.
    fn part(&self, at: usize) -> (usize, &str) {
        let end = |mark: Option<&Mark>| mark.map_or(0, |mark| mark.end as usize);
        let start = at.checked_sub(1).map_or(0, |before| end(self.marks.get(before)));
        let mark = self.marks.get(at);
        let rest = self.rest.get(start..end(mark)).unwrap_or_default();
        (mark.map_or(0, |mark| usize::from(mark.shared)), rest)
    }

    /// Makes `text`, which is the one before, number `at`.
    pub(super) fn step(&self, at: usize, text: &mut String) {
        let (shared, rest) = self.part(at);
        text.truncate(shared);
        text.push_str(rest);
    }

    /// Makes `text` number `at`.
    pub(super) fn read(&self, at: usize, text: &mut String) {
        text.clear();
        let whole = (0..=at).rev().find(|at| self.part(*at).0 == 0).unwrap_or(0);
        (whole..=at).for_each(|at| self.step(at, text));
    }

    /// Whether number `at` is `text`.
    pub(super) fn is(&self, at: usize, text: &str) -> bool {
        let text = text.as_bytes();
        // From behind: of those before only what is in common counts.
        let (shared, rest) = self.part(at);
        if text.len() != shared + rest.len() {
            return false;
        }
        let mut length = text.len();
        for at in (0..=at).rev() {
            let (shared, rest) = self.part(at);
            if shared < length {
                let rest = rest.as_bytes().get(..length - shared);
                if rest.is_none() || text.get(shared..length) != rest {
                    return false;
                }
                length = shared;
            }
            if length == 0 {
                return true;
            }
        }
        true
    }
}

/// Bytes that both begin with, as far as a mark can say: whole characters.
fn common(a: &str, b: &str) -> usize {
    let same = a.bytes().zip(b.bytes()).take(usize::from(u16::MAX));
    let length = same.take_while(|(a, b)| a == b).count();
    (0..=length).rev().find(|at| a.is_char_boundary(*at) && b.is_char_boundary(*at)).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn neighbours_share_what_they_begin_with() {
        let mut texts = Texts::default();
        for number in 0..1000 {
            texts.push(&format!("requests_total{{method=\"GET\",path=\"/{number}\"}}"));
        }
        texts.settle();
        assert!(texts.heap_bytes() < 1000 * 18, "{}", texts.heap_bytes());
    }

    #[test]
    fn a_character_is_not_cut() {
        let mut texts = Texts::default();
        for text in ["aä", "aö", "aä"] {
            texts.push(text);
        }
        let mut text = String::new();
        texts.read(1, &mut text);
        assert_eq!(text, "aö");
        assert!(texts.is(2, "aä") && !texts.is(2, "aö"));
    }

    proptest! {
        #[test]
        fn texts_are_what_was_pushed(
            pushed in proptest::collection::vec("[aäb]{0,5}", 0..80),
            settle_at in 0usize..80,
        ) {
            let mut texts = Texts::default();
            for (at, text) in pushed.iter().enumerate() {
                if at == settle_at {
                    texts.settle();
                }
                texts.push(text);
            }
            let (mut stepped, mut read) = (String::new(), String::new());
            for (at, text) in pushed.iter().enumerate() {
                texts.step(at, &mut stepped);
                texts.read(at, &mut read);
                prop_assert_eq!(&stepped, text);
                prop_assert_eq!(&read, text);
                for other in &pushed {
                    prop_assert_eq!(texts.is(at, other), text == other, "{} {}", text, other);
                }
                let (longer, shorter) = (format!("{text}a"), text.get(1..).unwrap_or("x"));
                prop_assert!(!texts.is(at, &longer) && !texts.is(at, shorter));
            }
        }
    }
}
