//! What tells the series of a point from all others without making their labels: what its metric has of
//! resource and scope, the bytes of the point's attributes as they came, and which of the point's series
//! it is.

use super::labels::{Pairs, ResourceLabels};
use super::points;
use super::points::{Family, Member, Point, frame_of, number, time};
use crate::proto::{DecodeError, Reader};

/// The bytes for one point after the other.
#[derive(Debug, Default)]
pub(super) struct Identity {
    bytes: Vec<u8>,
    /// How many of them are those of the metric; 0 when its values are summed up.
    shared: usize,
    /// How many are those of the point.
    own: usize,
}

/// A point whose attributes were not read.
pub(super) struct Bare {
    pub(super) point: Point,
    pub(super) value: f64,
    pub(super) has_exemplars: bool,
}

fn push(bytes: &mut Vec<u8>, part: &[u8]) {
    bytes.extend_from_slice(&(part.len() as u64).to_le_bytes());
    bytes.extend_from_slice(part);
}

impl Identity {
    /// Begins with the points of a metric.
    pub(super) fn begin(
        &mut self,
        family: &Family<'_>,
        resource: &ResourceLabels<'_>,
        scope: &Pairs<'_>,
    ) {
        self.bytes.clear();
        (self.shared, self.own) = (0, 0);
        if family.is_delta {
            return;
        }
        // What follows the attributes depends on it.
        self.bytes.push(family.shape as u8);
        push(&mut self.bytes, family.name.as_bytes());
        for pairs in [&resource.identity, &resource.promoted, scope] {
            self.bytes.extend_from_slice(&(pairs.len() as u64).to_le_bytes());
            for (name, value) in pairs {
                push(&mut self.bytes, name.as_bytes());
                push(&mut self.bytes, value.as_bytes());
            }
        }
        self.shared = self.bytes.len();
    }

    /// The bytes for one series of the point that was read last.
    pub(super) fn of(&mut self, member: Member) -> Option<&[u8]> {
        if self.own == 0 {
            return None;
        }
        self.bytes.truncate(self.own);
        // As many for each, so that what stands before cannot be taken for them.
        self.bytes.extend_from_slice(&member.code());
        Some(&self.bytes)
    }

    /// Reads a point of the metric but for its attributes, and the value if it is a number; `None` when that
    /// is of no use, or it has to be read with them to know what is wrong.
    pub(super) fn read(&mut self, message: &[u8], family: &Family<'_>, at: u32) -> Option<Bare> {
        self.own = 0;
        if self.shared == 0 {
            return None;
        }
        self.bytes.truncate(self.shared);
        let bare = self.fields(message, family, at).ok();
        if bare.is_some() {
            self.own = self.bytes.len();
        }
        bare
    }

    fn fields(
        &mut self,
        message: &[u8],
        family: &Family<'_>,
        at: u32,
    ) -> Result<Bare, DecodeError> {
        const MESSAGE: &str = "DataPoint";
        let shape = family.shape;
        let (mut value, mut has_exemplars) = (0.0, false);
        let (mut start, mut when, mut flags) = (0, 0, 0);
        let mut reader = Reader::new(message);
        while let Some((field_number, field)) = reader.next()? {
            match field_number {
                2 => start = points::fixed64(field, MESSAGE, field_number)?,
                3 => when = points::fixed64(field, MESSAGE, field_number)?,
                of if of == shape.attributes() => {
                    push(&mut self.bytes, field.bytes(MESSAGE, field_number)?);
                }
                of if of == shape.flags() => flags = field.varint(MESSAGE, field_number)?,
                4 | 6 if shape.is_number() => {
                    value = number(field, MESSAGE, field_number, field_number == 6)?;
                }
                5 if shape.is_number() => has_exemplars = true,
                _ => {}
            }
        }
        let point = frame_of(family, at, (start != 0).then(|| time(start)), time(when), flags);
        Ok(Bare { point, value, has_exemplars })
    }
}
