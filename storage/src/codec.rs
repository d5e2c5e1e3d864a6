//! Bytes of samples: the codecs that chunks and indexes are made of.
//!
//! | codec | carries | used by |
//! |---|---|---|
//! | [`chunk`] | whole columns, self-contained | sealed chunks of the head |
//! | [`values`] | floats, lossless to the bit | chunks of head and blocks |
//! | [`times`] | rising timestamps | chunks of the head, columns of blocks |
//! | [`histogram`] | native histograms | chunks of head and blocks |
//! | [`ints`] | 64-bit integers | all of the above |
//! | [`strings`] | sorted strings, front-coded | label names and values |
//!
//! Every decoder treats its input as hostile: damage becomes [`Corruption`], never a panic, and
//! never an allocation larger than the input justifies.

pub mod bits;
pub mod chunk;
pub mod crc;
pub mod histogram;
pub mod ints;
pub mod strings;
pub mod times;
pub mod values;
pub mod varint;
mod xor;

/// Bytes that are not what was written: where they are and what is wrong with them.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("corruption in {} at byte {offset}: {what}", if file.is_empty() { "a chunk" } else { file })]
pub struct Corruption {
    /// The file, as the caller named it; empty when the bytes came from memory.
    pub file: String,
    /// Where in the file (or in the bytes) the damage showed.
    pub offset: u64,
    /// What was found.
    pub what: &'static str,
}

impl Corruption {
    /// Damage at `offset` of bytes whose file is not known here.
    pub fn new(offset: usize, what: &'static str) -> Self {
        Self { file: String::new(), offset: offset as u64, what }
    }

    /// The same damage in bytes that start at `base` of `file`.
    #[must_use]
    pub fn in_file(mut self, file: &str, base: u64) -> Self {
        if self.file.is_empty() {
            file.clone_into(&mut self.file);
            self.offset = self.offset.saturating_add(base);
        }
        self
    }
}
